"""Negative log-likelihood: look up, weigh, negate; by loops."""


def nll_loss(input, target, weight=None, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, weight, ignore_index)
    if isinstance(input[0][0], list):
        return [
            [
                _one([row[k] for row in sample], label[k], weight, ignore_index)
                for k in range(len(label))
            ]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(s, t, weight, ignore_index) for s, t in zip(input, target, strict=True)]


def _one(log_p, label, weight, ignore_index):
    if label == ignore_index:
        return 0
    for position, candidate in enumerate(log_p):
        if position == label:
            return -candidate * (weight[label] if weight else 1)
    raise AssertionError(label)
