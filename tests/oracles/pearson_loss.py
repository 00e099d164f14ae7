"""Pearson's correlation by its definition, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def pearson_loss(input, target):
    if not isinstance(input[0], list):
        return _one(input, target)
    return [_one(x, y) for x, y in zip(input, target, strict=True)]


def _one(x, y):
    n = len(x)
    a, b = mp.fsum(x) / n, mp.fsum(y) / n
    both = mp.fsum((u - a) * (v - b) for u, v in zip(x, y, strict=True))
    sizes = mp.fsum((u - a) ** 2 for u in x) * mp.fsum((v - b) ** 2 for v in y)
    return 1 - both / mp.sqrt(sizes)
