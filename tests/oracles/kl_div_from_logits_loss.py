"""Kullback-Leibler divergence of two rows of logits, through the probabilities they stand for."""

from mpmath import mp


def kl_div_from_logits_loss(input, target, temperature=1):
    input, target = _cooled(input, temperature), _cooled(target, temperature)
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [_one([row[k] for row in x], [row[k] for row in y]) for k in range(len(x[0]))]
            for x, y in zip(input, target, strict=True)
        ]
    return [_one(x, y) for x, y in zip(input, target, strict=True)]


def _cooled(logits, temperature):
    if isinstance(logits, list):
        return [_cooled(part, temperature) for part in logits]
    return logits / mp.mpf(temperature)


def _one(model, teacher):
    with mp.workdps(60):
        p, q = _softmax(model), _softmax(teacher)
        return mp.fsum(b * mp.log(b / a) for a, b in zip(p, q, strict=True))


def _softmax(logits):
    total = mp.fsum(mp.exp(x) for x in logits)
    return [mp.exp(x) / total for x in logits]
