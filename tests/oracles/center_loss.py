"""Center loss from Wen et al. 2016, equation 2, one sample at a time, in mpmath numbers."""

from mpmath import mp


def center_loss(input, target, centers, ignore_index=-100):
    with mp.workdps(60):
        losses = []
        for sample, label in zip(input, target, strict=True):
            pairs = zip(sample, centers[label], strict=True) if label != ignore_index else ()
            losses.append(mp.fsum((x - c) ** 2 for x, c in pairs) / 2)
        return losses
