"""ListMLE from Xia et al. 2008: entries are drawn one after the other, the best first."""

from mpmath import mp


def listmle_loss(scores, relevance):
    with mp.workdps(60):
        return [_one(s, y) for s, y in zip(scores, relevance, strict=True)]


def _one(s, y):
    left, likelihood = list(range(len(s))), mp.one
    while left:
        best = max(left, key=lambda i: (y[i], -i))  # the first of equals
        likelihood *= mp.exp(s[best]) / mp.fsum(mp.exp(s[i]) for i in left)
        left.remove(best)
    return -mp.log(likelihood)
