"""Generalised Kullback-Leibler divergence of rows of probabilities, term by term."""

from mpmath import mp


def kl_div_from_probabilities_loss(input, target):
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [_one([row[k] for row in p], [row[k] for row in q]) for k in range(len(p[0]))]
            for p, q in zip(input, target, strict=True)
        ]
    return [_one(p, q) for p, q in zip(input, target, strict=True)]


def _one(model, wanted):
    with mp.workdps(60):
        total = mp.zero
        for p, q in zip(model, wanted, strict=True):
            total += p - q
            if q > 0:
                total += q * mp.log(q / p)
        return total
