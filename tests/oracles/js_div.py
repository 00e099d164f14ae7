"""Jensen-Shannon divergence: the entropy of the mixture less the mean entropy."""

from mpmath import mp


def js_div(input, target):
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [_one([row[k] for row in p], [row[k] for row in q]) for k in range(len(p[0]))]
            for p, q in zip(input, target, strict=True)
        ]
    return [_one(p, q) for p, q in zip(input, target, strict=True)]


def _one(p, q):
    with mp.workdps(60):
        mixture = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return _entropy(mixture) - (_entropy(p) + _entropy(q)) / 2


def _entropy(row):
    return -mp.fsum(p * mp.log(p) for p in row if p > 0)
