"""Soft-DTW as a sum of products of probabilities, not in logarithms, at 60 digits.

Cuturi & Blondel 2017, Eq. (3): the soft minimum of <A, Delta> over all alignment matrices A.
"""

from mpmath import mp


def soft_dtw_loss(input, target, gamma=1.0, divergence=False):
    with mp.workdps(60):
        total = []
        for x, y in zip(input, target, strict=True):
            value = _soft(x, y, gamma)
            if divergence:
                value -= (_soft(x, x, gamma) + _soft(y, y, gamma)) / 2
            total.append(value)
        return total


def _soft(x, y, gamma):
    weight = [[mp.exp(-_distance(a, b) / gamma) for b in y] for a in x]
    sums = {}
    for i in range(len(x)):
        for j in range(len(y)):
            before = mp.mpf(i == 0 and j == 0)
            for step in ((i - 1, j), (i, j - 1), (i - 1, j - 1)):
                before += sums.get(step, 0)
            sums[i, j] = weight[i][j] * before
    return -gamma * mp.log(sums[len(x) - 1, len(y) - 1])


def _distance(a, b):
    return mp.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))
