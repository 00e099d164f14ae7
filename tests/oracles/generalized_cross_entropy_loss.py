"""L_q (Zhang 2018), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def generalized_cross_entropy_loss(input, target, q=0.7, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, q, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    q,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(x, t, q, ignore_index) for x, t in zip(input, target, strict=True)]


def _one(x, target, q, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    p = [mp.exp(value) / mp.fsum(mp.exp(other) for other in x) for value in x]
    return mp.fsum(
        share * (1 - chance ** mp.mpf(q)) / q for share, chance in zip(t, p, strict=True)
    )
