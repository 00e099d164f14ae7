"""The unreduced root-mean-square error: the distance of each element on the line."""


def rmse_loss(input, target):
    if isinstance(input, list):
        return [rmse_loss(x, y) for x, y in zip(input, target, strict=True)]
    return max(input, target) - min(input, target)
