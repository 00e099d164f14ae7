"""Cross-entropy from its definition, by loops over mpmath numbers."""

from mpmath import mp


def cross_entropy(input, target, weight=None, ignore_index=-100, label_smoothing=0.0):
    if not isinstance(input[0], list):
        return _one(input, target, weight, ignore_index, label_smoothing)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    weight,
                    ignore_index,
                    label_smoothing,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [
        _one(sample, label, weight, ignore_index, label_smoothing)
        for sample, label in zip(input, target, strict=True)
    ]


def _one(logits, target, weight, ignore_index, label_smoothing):
    with mp.workdps(60):
        if target == ignore_index:
            return mp.zero
        classes = len(logits)
        weight = weight or [mp.one] * classes
        total = mp.fsum(mp.exp(logit) for logit in logits)
        log_p = [logit - mp.log(total) for logit in logits]
        if isinstance(target, list):
            share = target
        else:
            share = [mp.mpf(int(c == target)) for c in range(classes)]
        smooth = mp.mpf(label_smoothing)
        loss = mp.zero
        for c in range(classes):
            if isinstance(target, list):
                q = (1 - smooth) * share[c] + smooth / classes
                loss -= weight[c] * q * log_p[c]
            else:
                own = (1 - smooth) * share[c] * weight[target] * log_p[c]
                loss -= own + smooth / classes * weight[c] * log_p[c]
        return loss
