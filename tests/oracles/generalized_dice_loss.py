"""Generalised Dice (Sudre 2017, section 2.1) by loops over positions and classes, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def generalized_dice_loss(
    input, target, power=2.0, include_background=True, ignore_index=-100, batch=False
):
    samples = [_read(x, y, ignore_index) for x, y in zip(input, target, strict=True)]
    if batch:
        samples = [[position for sample in samples for position in sample]]
    values = []
    for sample in samples:
        classes = range(0 if include_background else 1, len(input[0]))
        volumes = {c: mp.fsum(t[c] for _, t in sample) for c in classes}
        heaviest = max((v**-power for v in volumes.values() if v), default=mp.one)
        top = bottom = mp.zero
        for c in classes:
            w = volumes[c] ** -power if volumes[c] else heaviest
            top += w * mp.fsum(t[c] * p[c] for p, t in sample)
            bottom += w * mp.fsum(t[c] + p[c] for p, t in sample)
        values.append(1 - 2 * top / bottom if bottom else mp.zero)
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
