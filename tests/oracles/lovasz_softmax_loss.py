"""Lovász softmax (Berman 2017) as an integral of the Jaccard distance over levels, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def lovasz_softmax_loss(input, target, ignore_index=-100):
    values = []
    for logits, label in zip(input, target, strict=True):
        pairs = zip(
            zip(*[_flat(channel) for channel in logits], strict=True), _flat(label), strict=True
        )
        pairs = [(x, y) for x, y in pairs if y != ignore_index]
        present = sorted({y for _, y in pairs})
        total = mp.fsum(_one(pairs, c) for c in present)
        values.append(total / max(len(present), 1))
    return values


def _one(pairs, c):
    errors = []
    for x, y in pairs:
        p = mp.exp(x[c]) / mp.fsum(mp.exp(other) for other in x)
        errors.append(1 - p if y == c else p)
    region = {i for i, (_, y) in enumerate(pairs) if y == c}
    below, total = mp.zero, mp.zero
    for level in sorted(set(errors)):
        wrong = {i for i, error in enumerate(errors) if error >= level}
        distance = 1 - mp.mpf(len(region - wrong)) / len(region | wrong)
        total += (level - below) * distance
        below = level
    return total


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
