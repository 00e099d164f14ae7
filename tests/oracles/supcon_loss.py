"""Supervised contrastive loss from Khosla et al. 2020, equation 2, in mpmath numbers."""

from mpmath import mp


def supcon_loss(embedding, target, temperature=0.1):
    with mp.workdps(60):
        return [_one(embedding, target, i, temperature) for i in range(len(embedding))]


def _one(embedding, target, i, temperature):
    others = [a for a in range(len(embedding)) if a != i]
    odds = {a: mp.exp(_cosine(embedding[i], embedding[a]) / temperature) for a in others}
    partners = [p for p in others if target[p] == target[i]]
    if not partners:
        return mp.mpf(0)
    return -mp.fsum(mp.log(odds[p] / mp.fsum(odds.values())) for p in partners) / len(partners)


def _cosine(x, y):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / (mp.norm(x, 2) * mp.norm(y, 2))
