"""Symmetric cross-entropy (Wang 2019), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def symmetric_cross_entropy_loss(
    input, target, alpha=0.1, beta=1.0, log_zero=-4.0, ignore_index=-100
):
    if not isinstance(input[0], list):
        return _one(input, target, alpha, beta, log_zero, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    alpha,
                    beta,
                    log_zero,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [
        _one(x, t, alpha, beta, log_zero, ignore_index) for x, t in zip(input, target, strict=True)
    ]


def _one(x, target, alpha, beta, log_zero, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    p = [mp.exp(value) / mp.fsum(mp.exp(other) for other in x) for value in x]
    straight = -mp.fsum(share * mp.log(chance) for share, chance in zip(t, p, strict=True))
    floor = mp.mpf(log_zero)
    log_t = [max(mp.log(share), floor) if share else floor for share in t]
    reverse = -mp.fsum(chance * log for chance, log in zip(p, log_t, strict=True))
    return alpha * straight + beta * reverse
