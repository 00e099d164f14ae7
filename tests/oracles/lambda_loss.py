"""NDCG-Loss2++ from Wang et al. 2018, pair by pair."""

from mpmath import mp


def lambda_loss(scores, relevance, mu=10.0):
    with mp.workdps(60):
        return [_one(s, y, mu) for s, y in zip(scores, relevance, strict=True)]


def _one(s, y, mu):
    by_score = sorted(range(len(s)), key=lambda i: -s[i])  # sorted keeps equals in order
    rank = {entry: place for place, entry in enumerate(by_score, 1)}
    gain = [mp.mpf(2) ** grade - 1 for grade in y]
    best = mp.fsum(g / _d(place) for place, g in enumerate(sorted(gain, reverse=True), 1))
    total = mp.zero
    for i in range(len(s)):
        for j in range(len(s)):
            if y[i] > y[j]:
                apart = abs(rank[i] - rank[j])
                swap = abs(1 / _d(rank[i]) - 1 / _d(rank[j]))
                bound = abs(1 / _d(apart) - 1 / _d(apart + 1))
                cost = mp.log(1 + mp.exp(s[j] - s[i]), 2)
                total += (swap + mu * bound) * abs(gain[i] - gain[j]) / best * cost
    return total


def _d(place):
    return mp.log(1 + place, 2)
