"""Zero-one: count the classes that beat the target; by loops."""


def zero_one_loss(input, target, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, ignore_index)
    if isinstance(input[0][0], list):
        return [
            [_one([row[k] for row in sample], y, ignore_index) for k, y in enumerate(label)]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(s, y, ignore_index) for s, y in zip(input, target, strict=True)]


def _one(scores, label, ignore_index):
    if label == ignore_index:
        return 0
    return int(any(score > scores[label] for score in scores))
