"""Logit adjustment (Menon 2020), row by row, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def logit_adjusted_loss(input, target, prior=None, temperature=1.0, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, prior, temperature, ignore_index)
    if isinstance(input[0][0], list):  # (N, C, d): one problem per position
        return [
            [
                _one(
                    [row[k] for row in sample],
                    [row[k] for row in label] if isinstance(label[0], list) else label[k],
                    prior,
                    temperature,
                    ignore_index,
                )
                for k in range(len(sample[0]))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [
        _one(x, t, prior, temperature, ignore_index) for x, t in zip(input, target, strict=True)
    ]


def _one(x, target, prior, temperature, ignore_index):
    if target == ignore_index:
        return mp.zero
    t = target if isinstance(target, list) else [mp.mpf(c == target) for c in range(len(x))]
    prior = prior or [mp.one] * len(x)
    odds = [mp.mpf(pi) ** temperature * mp.exp(value) for pi, value in zip(prior, x, strict=True)]
    total = mp.fsum(odds)
    return -mp.fsum(share * mp.log(own / total) for share, own in zip(t, odds, strict=True))
