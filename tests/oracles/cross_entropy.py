"""Cross-entropy from its definition, by loops over mpmath numbers."""

from mpmath import mp


def cross_entropy(
    input,
    target,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    softcap=None,
    logit_scale=1.0,
    z_loss=0.0,
):
    options = (weight, ignore_index, label_smoothing, softcap, logit_scale, z_loss)
    if not isinstance(input[0], list):
        return _one(input, target, *options)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    *options,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(sample, label, *options) for sample, label in zip(input, target, strict=True)]


def _one(logits, target, weight, ignore_index, label_smoothing, softcap, scale, z_loss):
    with mp.workdps(60):
        if target == ignore_index:
            return mp.zero
        classes = len(logits)
        logits = [mp.mpf(scale) * logit for logit in logits]
        if softcap is not None:
            logits = [softcap * mp.tanh(logit / softcap) for logit in logits]
        weight = weight or [mp.one] * classes
        total = mp.fsum(mp.exp(logit) for logit in logits)
        log_p = [logit - mp.log(total) for logit in logits]
        if isinstance(target, list):
            share = target
        else:
            share = [mp.mpf(int(c == target)) for c in range(classes)]
        smooth = mp.mpf(label_smoothing)
        loss = mp.mpf(z_loss) * mp.log(total) ** 2
        for c in range(classes):
            if isinstance(target, list):
                q = (1 - smooth) * share[c] + smooth / classes
                loss -= weight[c] * q * log_p[c]
            else:
                own = (1 - smooth) * share[c] * weight[target] * log_p[c]
                loss -= own + smooth / classes * weight[c] * log_p[c]
        return loss
