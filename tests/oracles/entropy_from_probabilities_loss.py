"""Entropy of rows of probabilities, by its definition."""

from mpmath import mp


def entropy_from_probabilities_loss(input):
    if not isinstance(input[0], list):
        return _one(input)
    if isinstance(input[0][0], list):  # (N, C, d): one row per position
        return [[_one([row[k] for row in p]) for k in range(len(p[0]))] for p in input]
    return [_one(p) for p in input]


def _one(row):
    with mp.workdps(60):
        return mp.fsum(p * mp.log(1 / p) for p in row if p > 0)
