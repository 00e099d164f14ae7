"""Triplet margin from its definition, by loops over mpmath numbers."""

from mpmath import mp, mpf


def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False):
    with mp.workdps(60):
        if not isinstance(anchor[0], list):
            return _one(anchor, positive, negative, margin, p, eps, swap)
        return [
            _one(a, b, c, margin, p, eps, swap)
            for a, b, c in zip(anchor, positive, negative, strict=True)
        ]


def _one(a, b, c, margin, p, eps, swap):
    excess = margin + _norm(a, b, p, eps)
    allowed = [_norm(a, c, p, eps)]
    if swap:
        allowed.append(_norm(b, c, p, eps))
    return max([mp.zero, *(excess - far for far in allowed)])


def _norm(x, y, p, eps):
    sizes = [abs(s - t + mpf(eps)) for s, t in zip(x, y, strict=True)]
    if p == float("inf"):
        return max(sizes)
    return mp.fsum(size**p for size in sizes) ** (1 / mpf(p))
