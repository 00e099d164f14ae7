"""From logits to probabilities: cross-entropy less entropy, and what the target lacks to 1."""

from mpmath import mp


def kl_div_with_logits_loss(input, target):
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [_one([row[k] for row in x], [row[k] for row in q]) for k in range(len(x[0]))]
            for x, q in zip(input, target, strict=True)
        ]
    return [_one(x, q) for x, q in zip(input, target, strict=True)]


def _one(logits, wanted):
    with mp.workdps(60):
        total = mp.fsum(mp.exp(x) for x in logits)
        cross = -mp.fsum(q * mp.log(mp.exp(x) / total) for x, q in zip(logits, wanted, strict=True))
        entropy = -mp.fsum(q * mp.log(q) for q in wanted if q > 0)
        return cross - entropy + 1 - mp.fsum(wanted)
