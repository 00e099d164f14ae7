"""Jensen-Shannon divergence, the mean divergence to the mixture."""

from mpmath import mp


def js_div_from_logits_loss(input, target, temperature=1):
    if isinstance(input[0][0], list):  # (N, C, d): one pair of rows per position
        return [
            [
                _one([row[k] for row in x], [row[k] for row in y], temperature)
                for k in range(len(x[0]))
            ]
            for x, y in zip(input, target, strict=True)
        ]
    return [_one(x, y, temperature) for x, y in zip(input, target, strict=True)]


def _one(model, teacher, temperature):
    with mp.workdps(60):
        p, q = _softmax(model, temperature), _softmax(teacher, temperature)
        return (
            mp.fsum(
                a * mp.log(2 * a / (a + b)) + b * mp.log(2 * b / (a + b))
                for a, b in zip(p, q, strict=True)
            )
            / 2
        )


def _softmax(logits, temperature):
    powers = [mp.exp(x / mp.mpf(temperature)) for x in logits]
    return [power / mp.fsum(powers) for power in powers]
