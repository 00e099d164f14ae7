"""Dice of one mask per sample by a loop over its positions, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def binary_dice_loss(input, target, smooth=1.0, squared=False, batch=False):
    if batch:
        input, target = [_flat(input)], [_flat(target)]
    values = []
    for logits, mask in zip(input, target, strict=True):
        both = sizes = mp.zero
        for x, t in zip(_flat(logits), _flat(mask), strict=True):
            p = 1 / (1 + mp.exp(-x))
            both += p * t
            sizes += p**2 + t**2 if squared else p + t
        values.append(1 - (2 * both + smooth) / (sizes + smooth))
    return values[0] if batch else values


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
