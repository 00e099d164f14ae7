"""Cross-entropy of a linear head, position by position, from dot products of mpmath numbers."""

from mpmath import mp


@mp.workdps(60)
def linear_cross_entropy(
    input,
    linear_weight,
    target,
    linear_bias=None,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
):
    classes = len(linear_weight)
    weight = weight or [mp.one] * classes
    smooth = mp.mpf(label_smoothing)

    def one(hidden, rows, bias, label):
        if label == ignore_index:
            return mp.zero
        logits = [
            mp.fsum(w * h for w, h in zip(row, hidden, strict=True)) + b
            for row, b in zip(rows, bias, strict=True)
        ]
        total = mp.fsum(mp.exp(x) for x in logits)
        if isinstance(label, list):
            share = [weight[c] * ((1 - smooth) * q + smooth / classes) for c, q in enumerate(label)]
        else:
            share = [smooth / classes * w for w in weight]
            share[label] += (1 - smooth) * weight[label]
        return -mp.fsum(q * mp.log(mp.exp(x) / total) for q, x in zip(share, logits, strict=True))

    if not isinstance(input[0], list):
        return one(input, linear_weight, linear_bias or [0] * classes, target)
    positions = range(len(linear_weight[0]))
    bias = linear_bias or [[0] * len(positions)] * classes
    return [
        [
            one(
                hidden,
                [rows[k] for rows in linear_weight],
                [b[k] for b in bias],
                [row[k] for row in label] if isinstance(label[0], list) else label[k],
            )
            for k in positions
        ]
        for hidden, label in zip(input, target, strict=True)
    ]
