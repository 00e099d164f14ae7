"""Top-one ListNet from Cao et al. 2007, entry by entry."""

from mpmath import mp


def listnet_loss(scores, relevance):
    with mp.workdps(60):
        return [_one(s, y) for s, y in zip(scores, relevance, strict=True)]


def _one(s, y):
    by_score, by_relevance = _first(s), _first(y)
    return -mp.fsum(p * mp.log(q) for p, q in zip(by_relevance, by_score, strict=True))


def _first(values):
    odds = [mp.exp(value) for value in values]
    return [o / mp.fsum(odds) for o in odds]
