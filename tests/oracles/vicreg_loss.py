"""VICReg (Bardes 2022, equations 1 to 4 and 6, invariance as in algorithm 1) in mpmath."""

from mpmath import mp


@mp.workdps(60)
def vicreg_loss(view1, view2, invariance=25.0, variance=25.0, covariance=1.0, gamma=1.0, eps=1e-4):
    n, d = len(view1), len(view1[0])
    apart = mp.zero
    for a, b in zip(view1, view2, strict=True):
        apart += mp.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True))
    loss = invariance * apart / (n * d)
    for view in (view1, view2):
        means = [mp.fsum(column) / n for column in zip(*view, strict=True)]
        for i in range(d):
            for j in range(d):
                c = mp.fsum((z[i] - means[i]) * (z[j] - means[j]) for z in view) / (n - 1)
                if i == j:
                    loss += variance * max(mp.zero, gamma - mp.sqrt(c + mp.mpf(eps))) / d
                else:
                    loss += covariance * c**2 / d
    return loss
