"""Semi-hard triplets, Schroff et al. 2015, section 3.2, pair by pair, in mpmath numbers."""

from mpmath import mp


def semi_hard_triplet_loss(embedding, target, margin=1.0, squared=False):
    with mp.workdps(60):
        return [_one(embedding, target, a, margin, squared) for a in range(len(embedding))]


def _one(embedding, target, a, margin, squared):
    far = [_far(embedding, a, j, squared) for j in range(len(embedding))]
    negatives = [far[n] for n in range(len(embedding)) if target[n] != target[a]]
    total = mp.mpf(0)
    for p in range(len(embedding)):
        if p != a and target[p] == target[a] and negatives:
            beyond = [d for d in negatives if d > far[p]]
            total += max(0, far[p] - (min(beyond) if beyond else max(negatives)) + margin)
    return total


def _far(embedding, i, j, squared):
    square = mp.fsum((a - b) ** 2 for a, b in zip(embedding[i], embedding[j], strict=True))
    return square if squared else mp.sqrt(square)
