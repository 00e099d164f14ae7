"""Triplet margin under the Euclidean distance, or the city-block distance of the card's variant."""

from mpmath import mp, mpf


def triplet_margin_with_distance_loss(
    anchor, positive, negative, distance_function=None, margin=1.0, swap=False
):
    with mp.workdps(60):
        measure = _euclidean if distance_function is None else _city_block
        if not isinstance(anchor[0], list):
            return _one(anchor, positive, negative, measure, margin, swap)
        return [
            _one(a, b, c, measure, margin, swap)
            for a, b, c in zip(anchor, positive, negative, strict=True)
        ]


def _one(a, b, c, measure, margin, swap):
    near, far = measure(a, b), measure(a, c)
    if swap and measure(b, c) < far:
        far = measure(b, c)
    cost = near - far + margin
    return cost if cost > 0 else mp.zero


def _euclidean(x, y):
    return mp.norm([s - t + mpf(1e-6) for s, t in zip(x, y, strict=True)], 2)


def _city_block(x, y):
    if isinstance(x, list):
        return mp.fsum(_city_block(s, t) for s, t in zip(x, y, strict=True))
    return abs(x - y)
