"""RankNet from Burges et al. 2005: probabilities of the right order, pair by pair."""

from mpmath import mp


def ranknet_loss(scores, relevance):
    with mp.workdps(60):
        return [_one(s, y) for s, y in zip(scores, relevance, strict=True)]


def _one(s, y):
    costs = [
        -mp.log(mp.exp(s[i]) / (mp.exp(s[i]) + mp.exp(s[j])))
        for i in range(len(s))
        for j in range(len(s))
        if y[i] > y[j]
    ]
    return mp.fsum(costs) / len(costs) if costs else mp.zero
