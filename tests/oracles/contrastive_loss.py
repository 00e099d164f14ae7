"""Contrastive loss from Hadsell et al. 2006 (their label is the opposite), by loops over mpmath."""

from mpmath import mp, mpf


def contrastive_loss(input1, input2, target, margin=1.0):
    with mp.workdps(60):
        if not isinstance(input1[0], list):
            return _one(input1, input2, target, margin)
        return [_one(x, y, t, margin) for x, y, t in zip(input1, input2, target, strict=True)]


def _one(x, y, target, margin):
    distance = mp.norm([a - b for a, b in zip(x, y, strict=True)], 2)
    if target == 1:
        return distance**2 / 2
    return (margin - distance) ** 2 / 2 if distance < margin else mpf(0)
