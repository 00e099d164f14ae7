"""Multi-class hinge by Weston & Watkins, by loops, divided by the number of classes."""


def multi_margin_loss(input, target, p=1, margin=1.0, weight=None):
    if not isinstance(input[0], list):
        return _one(input, target, p, margin, weight)
    return [_one(row, label, p, margin, weight) for row, label in zip(input, target, strict=True)]


def _one(scores, label, p, margin, weight):
    total = 0
    for rival, score in enumerate(scores):
        lead = scores[label] - score
        if rival != label and lead < margin:
            total += (margin - lead) ** p
    return total / len(scores) * (weight[label] if weight else 1)
