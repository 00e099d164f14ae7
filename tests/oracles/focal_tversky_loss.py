"""Focal Tversky (Abraham 2018) of soft sets, one class at a time, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def focal_tversky_loss(
    input,
    target,
    alpha=0.3,
    beta=0.7,
    gamma=4 / 3,
    smooth=1.0,
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
            kept = [i for i, y in enumerate(_flat(label)) if y != ignore_index]
        else:
            wanted = list(zip(*[_flat(channel) for channel in label], strict=True))
            kept = range(len(positions))
        top = bottom = mp.zero
        for c in range(0 if include_background else 1, len(logits)):
            p = [mp.exp(x[c]) / mp.fsum(mp.exp(other) for other in x) for x in positions]
            factor = weight[c] if weight else mp.one
            top += factor * _one(
                [p[i] for i in kept], [wanted[i][c] for i in kept], alpha, beta, gamma, smooth
            )
            bottom += factor
        values.append(top / bottom)
    return values[0] if batch else values


def _one(p, t, alpha, beta, gamma, smooth):
    both = mp.fsum(a * b for a, b in zip(p, t, strict=True))
    alarms, misses = mp.fsum(p) - both, mp.fsum(t) - both
    bottom = both + alpha * alarms + beta * misses + smooth
    return (1 - (both + smooth) / bottom) ** (1 / mp.mpf(gamma)) if bottom else mp.zero


def _joined(samples):
    """All images of a batch as one, class by class."""
    return [[list(chain.from_iterable(map(_flat, parts))) for parts in zip(*samples, strict=True)]]


def _flat(nested):
    if not isinstance(nested, list):
        return [nested]
    return list(chain.from_iterable(_flat(part) for part in nested))
