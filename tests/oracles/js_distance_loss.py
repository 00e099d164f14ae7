"""Jensen-Shannon distance: root of the mean divergence from the mixture, by its definition."""

from mpmath import mp


def js_distance_loss(input, target):
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [_one([row[k] for row in p], [row[k] for row in q]) for k in range(len(p[0]))]
            for p, q in zip(input, target, strict=True)
        ]
    return [_one(p, q) for p, q in zip(input, target, strict=True)]


def _one(p, q):
    with mp.workdps(60):
        total = mp.zero
        for a, b in zip(p, q, strict=True):
            middle = (a + b) / 2
            for side in (a, b):
                if side > 0:
                    total += side * mp.log(side / middle) / 2
        return mp.sqrt(total)
