"""Focal Tversky (Abraham 2018) of soft sets, one mask per sample, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def binary_focal_tversky_loss(
    input, target, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=1.0, batch=False
):
    if batch:
        input, target = [_flat(input)], [_flat(target)]
    values = [
        _one([1 / (1 + mp.exp(-x)) for x in _flat(logits)], _flat(mask), alpha, beta, gamma, smooth)
        for logits, mask in zip(input, target, strict=True)
    ]
    return values[0] if batch else values


def _one(p, t, alpha, beta, gamma, smooth):
    both = mp.fsum(a * b for a, b in zip(p, t, strict=True))
    alarms, misses = mp.fsum(p) - both, mp.fsum(t) - both
    bottom = both + alpha * alarms + beta * misses + smooth
    return (1 - (both + smooth) / bottom) ** (1 / mp.mpf(gamma)) if bottom else mp.zero


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
