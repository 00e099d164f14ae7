"""Dice (Milletari 2016) plus focal loss (Zhu 2018) by loops over positions, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def dice_focal_loss(
    input,
    target,
    lambda_dice=1.0,
    lambda_focal=1.0,
    gamma=2.0,
    smooth=1.0,
    squared=False,
    weight=None,
    include_background=True,
    ignore_index=-100,
    batch=False,
):
    samples = [_read(x, y, ignore_index) for x, y in zip(input, target, strict=True)]
    if batch:
        samples = [[position for sample in samples for position in sample]]
    factors = weight or [mp.one] * len(input[0])
    values = []
    for sample in samples:
        top = bottom = cost = count = mp.zero
        for c, factor in enumerate(factors):
            both = sizes = mp.zero
            for p, t in sample:
                both += p[c] * t[c]
                sizes += p[c] ** 2 + t[c] ** 2 if squared else p[c] + t[c]
                if t[c]:
                    cost += factor * t[c] * -((1 - p[c]) ** gamma) * mp.log(p[c])
                    count += factor * t[c]
            if c or include_background:
                full = sizes + smooth
                top += factor * (1 - (2 * both + smooth) / full if full else 0)
                bottom += factor
        if weight is None:
            count = len(sample)
        values.append(lambda_dice * top / bottom + lambda_focal * (cost / count if count else 0))
    return values[0] if batch else values


def _read(logits, label, ignore_index):
    """Probabilities and memberships of each position that counts, class by class."""
    positions = list(zip(*[_flat(channel) for channel in logits], strict=True))
    labels = _flat(label)
    if len(labels) == len(positions):
        wanted = [[mp.mpf(int(c == y)) for c in range(len(logits))] for y in labels]
        kept = [y != ignore_index for y in labels]
    else:
        wanted = list(zip(*[_flat(channel) for channel in label], strict=True))
        kept = [True] * len(positions)
    chances = []
    for x in positions:
        total = mp.fsum(mp.exp(other) for other in x)
        chances.append([mp.exp(one) / total for one in x])
    pairs = zip(chances, wanted, kept, strict=True)
    return [(p, t) for p, t, counts in pairs if counts]


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
