"""Cosine embedding from the dot product, by loops over mpmath numbers."""

from mpmath import mp


def cosine_embedding_loss(input1, input2, target, margin=0.0):
    with mp.workdps(60):
        if not isinstance(input1[0], list):
            return _one(input1, input2, target, margin)
        return [_one(x, y, t, margin) for x, y, t in zip(input1, input2, target, strict=True)]


def _one(x, y, target, margin):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    cosine = dot / (mp.norm(x, 2) * mp.norm(y, 2))
    return 1 - cosine if target == 1 else max(mp.zero, cosine - margin)
