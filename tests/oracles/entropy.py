"""Entropy of the softmax of logits, through the probabilities."""

from mpmath import mp


def entropy(input):
    if not isinstance(input[0], list):
        return _one(input)
    if isinstance(input[0][0], list):  # (N, C, d): one row per position
        return [[_one([row[k] for row in x]) for k in range(len(x[0]))] for x in input]
    return [_one(x) for x in input]


def _one(logits):
    with mp.workdps(60):
        total = mp.fsum(mp.exp(x) for x in logits)
        return -mp.fsum(mp.exp(x) / total * mp.log(mp.exp(x) / total) for x in logits)
