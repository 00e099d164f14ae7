"""LDAM (Cao 2019), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def ldam_loss(input, target, class_counts=None, margin=0.5, scale=30.0, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, class_counts, margin, scale, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    class_counts,
                    margin,
                    scale,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [
        _one(x, t, class_counts, margin, scale, ignore_index)
        for x, t in zip(input, target, strict=True)
    ]


def _one(x, target, class_counts, margin, scale, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    counts = class_counts or [1] * len(x)
    largest = max(1 / mp.root(n, 4) for n in counts)
    z = [
        value - (margin / largest / mp.root(n, 4) if share else 0)
        for value, n, share in zip(x, counts, t, strict=True)
    ]
    odds = [mp.exp(scale * value) for value in z]
    return -mp.log(mp.fsum(share * own for share, own in zip(t, odds, strict=True)) / mp.fsum(odds))
