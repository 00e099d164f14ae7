"""InfoNCE as the share of the own key, query by query, in mpmath numbers."""

from mpmath import mp


def info_nce_loss(query, key, temperature=0.1, symmetric=False):
    with mp.workdps(60):
        forward = [_share(q, key, i, temperature) for i, q in enumerate(query)]
        if not symmetric:
            return [-mp.log(share) for share in forward]
        backward = [_share(k, query, i, temperature) for i, k in enumerate(key)]
        return [-mp.log(a * b) / 2 for a, b in zip(forward, backward, strict=True)]


def _share(one, others, index, temperature):
    odds = [mp.exp(_cosine(one, other) / temperature) for other in others]
    return odds[index] / mp.fsum(odds)


def _cosine(x, y):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / (mp.norm(x, 2) * mp.norm(y, 2))
