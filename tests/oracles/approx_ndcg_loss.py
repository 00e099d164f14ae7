"""ApproxNDCG from Qin, Liu and Li 2010: smooth ranks put into the definition of NDCG."""

from mpmath import mp


def approx_ndcg_loss(scores, relevance, temperature=0.1):
    with mp.workdps(60):
        return [_one(s, y, temperature) for s, y in zip(scores, relevance, strict=True)]


def _one(s, y, temperature):
    gain = [mp.mpf(2) ** grade - 1 for grade in y]
    best = mp.fsum(
        g / mp.log(1 + place, 2) for place, g in enumerate(sorted(gain, reverse=True), 1)
    )
    if best == 0:
        return mp.zero
    found = mp.zero
    for i in range(len(s)):
        rank = mp.one
        for j in range(len(s)):
            if j != i:
                rank += 1 / (1 + mp.exp((s[i] - s[j]) / temperature))
        found += gain[i] / mp.log(1 + rank, 2)
    return 1 - found / best
