"""MMD from Gretton et al. 2012: the estimates of equation 5 (biased) and 3 (unbiased)."""

from mpmath import mp


def mmd_loss(input, target, bandwidth=1.0, unbiased=False):
    with mp.workdps(60):
        return (
            _mean(input, input, bandwidth, unbiased)
            + _mean(target, target, bandwidth, unbiased)
            - 2 * _mean(input, target, bandwidth, False)
        )


def _mean(left, right, bandwidth, without_itself):
    pairs = [
        (x, y)
        for i, x in enumerate(left)
        for j, y in enumerate(right)
        if not (without_itself and i == j)
    ]
    return mp.fsum(_kernel(x, y, bandwidth) for x, y in pairs) / len(pairs)


def _kernel(x, y, bandwidth):
    square = mp.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return mp.exp(-square / (2 * mp.mpf(bandwidth) ** 2))
