"""Intersection over union (Rahman 2016) of soft sets, one mask per sample, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def binary_jaccard_loss(input, target, smooth=1.0, batch=False):
    if batch:
        input, target = [_flat(input)], [_flat(target)]
    values = [
        _one([1 / (1 + mp.exp(-x)) for x in _flat(logits)], _flat(mask), smooth)
        for logits, mask in zip(input, target, strict=True)
    ]
    return values[0] if batch else values


def _one(p, t, smooth):
    both = mp.fsum(a * b for a, b in zip(p, t, strict=True))
    either = mp.fsum(p) + mp.fsum(t) - both
    return 1 - (both + smooth) / (either + smooth) if either + smooth else mp.zero


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
