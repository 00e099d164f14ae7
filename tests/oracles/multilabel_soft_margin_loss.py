"""Multi-label soft margin from sigmoids, by loops."""

from mpmath import mp


def multilabel_soft_margin_loss(input, target, weight=None):
    if isinstance(input[0], list):
        return [
            multilabel_soft_margin_loss(x, y, weight) for x, y in zip(input, target, strict=True)
        ]
    with mp.workdps(60):
        total = mp.zero
        for c, (x, y) in enumerate(zip(input, target, strict=True)):
            p = 1 / (1 + mp.exp(-x))
            total -= (weight[c] if weight else 1) * (y * mp.log(p) + (1 - y) * mp.log(1 - p))
        return total / len(input)
