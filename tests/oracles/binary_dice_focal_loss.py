"""Dice (Milletari 2016) plus focal loss (Zhu 2018) of one mask, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def binary_dice_focal_loss(
    input,
    target,
    lambda_dice=1.0,
    lambda_focal=1.0,
    gamma=2.0,
    smooth=1.0,
    squared=False,
    batch=False,
):
    samples = [
        list(zip(_flat(x), _flat(t), strict=True)) for x, t in zip(input, target, strict=True)
    ]
    if batch:
        samples = [list(chain.from_iterable(samples))]
    values = []
    for sample in samples:
        both = sizes = cost = mp.zero
        for x, t in sample:
            p = 1 / (1 + mp.exp(-x))
            both += p * t
            sizes += p**2 + t**2 if squared else p + t
            cost += t * (-((1 - p) ** gamma) * mp.log(p)) + (1 - t) * (-(p**gamma) * mp.log(1 - p))
        dice = 1 - (2 * both + smooth) / (sizes + smooth)
        values.append(lambda_dice * dice + lambda_focal * cost / len(sample))
    return values[0] if batch else values


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
