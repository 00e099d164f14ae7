"""Euclidean distance of two vectors, by Pythagoras."""

from mpmath import mp


def l2_norm_loss(input, target):
    if isinstance(input[0], list):
        return [l2_norm_loss(x, y) for x, y in zip(input, target, strict=True)]
    with mp.workdps(60):
        total = mp.zero
        for x, y in zip(input, target, strict=True):
            total += x * x - 2 * x * y + y * y
        return mp.sqrt(total)
