"""Soft F1 (Benedict 2021, with an unscaled sigmoid) label by label, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def soft_f1_loss(input, target, smooth=0.0):
    total = mp.zero
    for logits, labels in zip(zip(*input, strict=True), zip(*target, strict=True), strict=True):
        tp = fp = fn = mp.zero
        for x, y in zip(logits, labels, strict=True):
            p = 1 / (1 + mp.exp(-x))
            tp += p * y
            fp += p * (1 - y)
            fn += (1 - p) * y
        total += 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    return total / len(input[0])
