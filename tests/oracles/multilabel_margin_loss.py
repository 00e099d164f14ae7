"""Multi-label margin by loops over pairs of a true and a false class."""


def multilabel_margin_loss(input, target):
    if isinstance(input[0], list):
        return [multilabel_margin_loss(x, y) for x, y in zip(input, target, strict=True)]
    true = []
    for label in target:
        if label < 0:
            break
        true.append(label)
    total = 0
    for j in true:
        for i, rival in enumerate(input):
            if i not in true and input[j] - rival < 1:
                total += 1 - (input[j] - rival)
    return total / len(input)
