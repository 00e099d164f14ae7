"""Matthews' correlation (Abhishek 2020, equation 4) of one mask per sample, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def binary_mcc_loss(input, target, batch=False):
    samples = [
        list(zip(_flat(x), _flat(t), strict=True)) for x, t in zip(input, target, strict=True)
    ]
    if batch:
        samples = [list(chain.from_iterable(samples))]
    values = []
    for sample in samples:
        tp = tn = fp = fn = mp.zero
        for x, t in sample:
            p, q = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
            tp, tn, fp, fn = tp + p * t, tn + q * (1 - t), fp + p * (1 - t), fn + q * t
        square = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        values.append(1 - (tp * tn - fp * fn) / mp.sqrt(square))
    return values[0] if batch else values


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
