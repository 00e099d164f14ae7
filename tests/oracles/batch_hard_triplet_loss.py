"""Hardest triplets, Hermans et al. 2017, equation 5, anchor by anchor, in mpmath numbers."""

from mpmath import mp


def batch_hard_triplet_loss(embedding, target, margin=1.0, squared=False):
    with mp.workdps(60):
        return [_one(embedding, target, a, margin, squared) for a in range(len(embedding))]


def _one(embedding, target, a, margin, squared):
    others = [j for j in range(len(embedding)) if j != a]
    positives = [_far(embedding, a, p, squared) for p in others if target[p] == target[a]]
    negatives = [_far(embedding, a, n, squared) for n in others if target[n] != target[a]]
    if not positives or not negatives:
        return mp.mpf(0)
    excess = max(positives) - min(negatives)
    return mp.log(1 + mp.exp(excess)) if margin is None else max(0, excess + margin)


def _far(embedding, i, j, squared):
    square = mp.fsum((a - b) ** 2 for a, b in zip(embedding[i], embedding[j], strict=True))
    return square if squared else mp.sqrt(square)
