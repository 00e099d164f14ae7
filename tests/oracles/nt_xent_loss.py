"""NT-Xent from Chen et al. 2020, equation 1, view by view, in mpmath numbers."""

from mpmath import mp


def nt_xent_loss(view1, view2, temperature=0.5):
    with mp.workdps(60):
        views = [view for pair in zip(view1, view2, strict=True) for view in pair]
        each = [_one(views, i, i ^ 1, temperature) for i in range(len(views))]
        return [(each[2 * k] + each[2 * k + 1]) / 2 for k in range(len(view1))]


def _one(views, i, j, temperature):
    total = mp.fsum(
        mp.exp(_cosine(views[i], views[k]) / temperature) for k in range(len(views)) if k != i
    )
    return mp.log(total) - _cosine(views[i], views[j]) / temperature


def _cosine(x, y):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / (mp.norm(x, 2) * mp.norm(y, 2))
