"""Multi-similarity loss from Wang et al. 2019: mining by equations 9 and 10, then equation 15."""

from mpmath import mp


def multi_similarity_loss(embedding, target, alpha=2.0, beta=50.0, base=0.5, mining=0.1):
    with mp.workdps(60):
        return [
            _one(embedding, target, i, alpha, beta, base, mining) for i in range(len(embedding))
        ]


def _one(embedding, target, i, alpha, beta, base, mining):
    others = [k for k in range(len(embedding)) if k != i]
    near = [_cosine(embedding[i], embedding[k]) for k in others if target[k] == target[i]]
    far = [_cosine(embedding[i], embedding[k]) for k in others if target[k] != target[i]]
    if mining is not None:
        chosen = [s for s in near if far and s < max(far) + mining]
        far = [s for s in far if near and s > min(near) - mining]
        near = chosen
    pull = mp.log(1 + mp.fsum(mp.exp(-alpha * (s - base)) for s in near)) / alpha
    push = mp.log(1 + mp.fsum(mp.exp(beta * (s - base)) for s in far)) / beta
    return pull + push


def _cosine(x, y):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / (mp.norm(x, 2) * mp.norm(y, 2))
