"""Barlow Twins (Zbontar 2021, equations 1 and 2) entry by entry, in mpmath."""

from mpmath import mp


@mp.workdps(60)
def barlow_twins_loss(view1, view2, lambd=0.005):
    left, right = _columns(view1), _columns(view2)
    loss = mp.zero
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            both = mp.fsum(u * v for u, v in zip(a, b, strict=True))
            c = both / mp.sqrt(mp.fsum(u * u for u in a)) / mp.sqrt(mp.fsum(v * v for v in b))
            loss += (1 - c) ** 2 if i == j else lambd * c**2
    return loss


def _columns(view):
    columns = []
    for column in zip(*view, strict=True):
        mean = mp.fsum(column) / len(column)
        columns.append([u - mean for u in column])
    return columns
