"""Multi-class hinge from the definition, by loops over the rivals."""


def weston_watkins_hinge_loss(input, target, margin=1.0, ignore_index=-100):
    if not isinstance(input[0], list):
        return _one(input, target, margin, ignore_index)
    if isinstance(input[0][0], list):
        return [
            [_one([row[k] for row in sample], y, margin, ignore_index) for k, y in enumerate(label)]
            for sample, label in zip(input, target, strict=True)
        ]
    return [_one(s, y, margin, ignore_index) for s, y in zip(input, target, strict=True)]


def _one(scores, label, margin, ignore_index):
    if label == ignore_index:
        return 0
    total = 0
    for c, score in enumerate(scores):
        if c != label and scores[label] - score < margin:
            total += margin - scores[label] + score
    return total
