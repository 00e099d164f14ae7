"""All triplets of a batch, Hermans et al. 2017, one by one, in mpmath numbers."""

from mpmath import mp


def batch_all_triplet_loss(embedding, target, margin=1.0, active_only=True, squared=False):
    with mp.workdps(60):
        count = range(len(embedding))
        return [
            mp.fsum(
                max(0, _far(embedding, a, p, squared) - _far(embedding, a, n, squared) + margin)
                for p in count
                for n in count
                if p != a and target[p] == target[a] and target[n] != target[a]
            )
            for a in count
        ]


def _far(embedding, i, j, squared):
    square = mp.fsum((a - b) ** 2 for a, b in zip(embedding[i], embedding[j], strict=True))
    return square if squared else mp.sqrt(square)
