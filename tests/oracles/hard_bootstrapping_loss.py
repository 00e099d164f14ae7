"""Hard bootstrapping (Reed 2014), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def hard_bootstrapping_loss(input, target, beta=0.8, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, beta, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    beta,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(x, t, beta, ignore_index) for x, t in zip(input, target, strict=True)]


def _one(x, target, beta, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    p = [mp.exp(value) / mp.fsum(mp.exp(other) for other in x) for value in x]
    surest = p.index(max(p))
    believed = [beta * share + (1 - mp.mpf(beta)) * (c == surest) for c, share in enumerate(t)]
    return -mp.fsum(b * mp.log(chance) for b, chance in zip(believed, p, strict=True))
