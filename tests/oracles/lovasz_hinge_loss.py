"""Lovász hinge (Berman 2017) as an integral of the Jaccard distance over levels, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def lovasz_hinge_loss(input, target):
    values = []
    for logits, mask in zip(input, target, strict=True):
        inside = [t == 1 for t in _flat(mask)]
        signs = [1 if t else -1 for t in inside]
        errors = [max(mp.zero, 1 - s * x) for s, x in zip(signs, _flat(logits), strict=True)]
        below, total = mp.zero, mp.zero
        for level in sorted(set(errors)):
            wrong = {i for i, error in enumerate(errors) if error >= level and error > 0}
            total += (level - below) * _distance(wrong, {i for i, t in enumerate(inside) if t})
            below = level
        values.append(total)
    return values


def _distance(wrong, region):
    """Jaccard distance of the region to the prediction that is wrong at some positions."""
    union = region | wrong
    return 1 - mp.mpf(len(region - wrong)) / len(union) if union else mp.zero


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
