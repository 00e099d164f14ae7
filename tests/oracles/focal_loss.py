"""Focal loss by Lin et al. 2017, Eq. (4), over the classes of a softmax; by loops."""

from mpmath import mp


def focal_loss(input, target, gamma=2.0, weight=None, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, gamma, weight, ignore_index)
    if isinstance(input[0][0], list):
        found = []
        for sample, label in zip(input, target, strict=True):
            row = []
            for k in range(len(sample[0])):
                here = [scores[k] for scores in sample]
                own = [shares[k] for shares in label] if isinstance(label[0], list) else label[k]
                row.append(_one(here, own, gamma, weight, ignore_index))
            found.append(row)
        return found
    return [_one(s, t, gamma, weight, ignore_index) for s, t in zip(input, target, strict=True)]


def _one(logits, target, gamma, weight, ignore_index):
    with mp.workdps(60):
        if target == ignore_index:
            return mp.zero
        powers = [mp.exp(logit) for logit in logits]
        total = mp.zero
        for c, own in enumerate(powers):
            share = target[c] if isinstance(target, list) else int(c == target)
            factor = weight[c] if weight else 1
            others = mp.fsum(powers[:c] + powers[c + 1 :])
            whole = own + others
            total -= factor * share * (others / whole) ** mp.mpf(gamma) * mp.log(own / whole)
        return total
