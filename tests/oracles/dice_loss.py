"""Dice (Milletari 2016, section 3) by loops over positions, one class at a time, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def dice_loss(
    input,
    target,
    smooth=1.0,
    squared=False,
    weight=None,
    include_background=True,
    ignore_index=-100,
    batch=False,
):
    if batch:
        soft = len(_flat(target)) == len(_flat(input))
        input, target = _joined(input), _joined(target) if soft else [_flat(target)]
    values = []
    for logits, label in zip(input, target, strict=True):
        positions = list(zip(*[_flat(channel) for channel in logits], strict=True))
        if len(_flat(label)) == len(positions):
            wanted = [[mp.mpf(int(c == y)) for c in range(len(logits))] for y in _flat(label)]
            kept = [y != ignore_index for y in _flat(label)]
        else:
            wanted = list(zip(*[_flat(channel) for channel in label], strict=True))
            kept = [True] * len(positions)
        top, bottom = mp.zero, mp.zero
        for c in range(0 if include_background else 1, len(logits)):
            both = sizes = mp.zero
            for x, t, counts in zip(positions, wanted, kept, strict=True):
                if counts:
                    p = mp.exp(x[c]) / mp.fsum(mp.exp(other) for other in x)
                    both += p * t[c]
                    sizes += p * p + t[c] * t[c] if squared else p + t[c]
            perfect = sizes + smooth == 0
            dice = mp.one if perfect else (2 * both + smooth) / (sizes + smooth)
            factor = weight[c] if weight else mp.one
            top += factor * (1 - dice)
            bottom += factor
        values.append(top / bottom)
    return values[0] if batch else values


def _joined(samples):
    """All images of a batch as one, class by class."""
    return [[list(chain.from_iterable(map(_flat, parts))) for parts in zip(*samples, strict=True)]]


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
