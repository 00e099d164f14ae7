"""Matthews' correlation (Abhishek 2020, equation 4) of soft counts, class by class, in mpmath."""

from itertools import chain

from mpmath import mp


@mp.workdps(60)
def mcc_loss(input, target, weight=None, include_background=True, ignore_index=-100, batch=False):
    samples = [_read(x, y, ignore_index) for x, y in zip(input, target, strict=True)]
    if batch:
        samples = [[position for sample in samples for position in sample]]
    factors = weight or [mp.one] * len(input[0])
    values = []
    for sample in samples:
        top = bottom = mp.zero
        for c in range(0 if include_background else 1, len(factors)):
            top += factors[c] * _one([(p[c], t[c]) for p, t in sample])
            bottom += factors[c]
        values.append(top / bottom)
    return values[0] if batch else values


def _one(pairs):
    tp = mp.fsum(p * t for p, t in pairs)
    tn = mp.fsum((1 - p) * (1 - t) for p, t in pairs)
    fp = mp.fsum(p * (1 - t) for p, t in pairs)
    fn = mp.fsum((1 - p) * t for p, t in pairs)
    square = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return 1 - (tp * tn - fp * fn) / mp.sqrt(square) if square else mp.one


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
