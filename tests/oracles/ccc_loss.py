"""Concordance correlation (Lin 1989, its sample estimate with 1/n) in mpmath."""

from mpmath import mp


@mp.workdps(60)
def ccc_loss(input, target):
    if not isinstance(input[0], list):
        return _one(input, target)
    return [_one(x, y) for x, y in zip(input, target, strict=True)]


def _one(x, y):
    n = len(x)
    a, b = mp.fsum(x) / n, mp.fsum(y) / n
    s_xx = mp.fsum((u - a) ** 2 for u in x) / n
    s_yy = mp.fsum((v - b) ** 2 for v in y) / n
    s_xy = mp.fsum((u - a) * (v - b) for u, v in zip(x, y, strict=True)) / n
    return 1 - 2 * s_xy / (s_xx + s_yy + (a - b) ** 2)
