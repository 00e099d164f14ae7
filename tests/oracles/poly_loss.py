"""Poly-1 (Leng 2022), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def poly_loss(input, target, coefficient=1.0, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, coefficient, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    coefficient,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(x, t, coefficient, ignore_index) for x, t in zip(input, target, strict=True)]


def _one(x, target, coefficient, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    p = [mp.exp(value) / mp.fsum(mp.exp(other) for other in x) for value in x]
    log_part = -mp.fsum(share * mp.log(chance) for share, chance in zip(t, p, strict=True))
    wrong = mp.fsum(share * (1 - chance) for share, chance in zip(t, p, strict=True))
    return log_part + coefficient * wrong
