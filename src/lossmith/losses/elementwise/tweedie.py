"""Tweedie: amounts that are often exactly 0 and otherwise positive, from the log of their mean."""

from dataclasses import replace

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import NONNEGATIVE, POSITIVE, REAL, Interval
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature

POWER = Interval("at least 1", "be >= 1", low=1.0)
WITH_ZEROS = replace(POWER, name="in [1, 2)", high=2.0, high_open=True)
WITHOUT_ZEROS = replace(POWER, name="at least 2", low=2.0)


def _exact(mp, x, y, power=1.5):  # type: ignore[no-untyped-def]
    p = mp.mpf(power)
    own = -y * x if p == 1 else -y * mp.exp((1 - p) * x) / (1 - p)
    return own + (x if p == 2 else mp.exp((2 - p) * x) / (2 - p))


@loss(
    Card(
        task=("count", "regression"),
        coupling="element",
        formula=r"-y \frac{\mu^{1-p}}{1-p} + \frac{\mu^{2-p}}{2-p}, \quad \mu = e^x",
        signatures=(
            Signature(input=REAL("*"), target=NONNEGATIVE("*"), when={"power": WITH_ZEROS}),
            Signature(input=REAL("*"), target=POSITIVE("*"), when={"power": WITHOUT_ZEROS}),
        ),
        options={"power": POWER},
        variants=({"power": 1.2}, {"power": 1.0}, {"power": 2.0}, {"power": 2.5}, {"power": 3.0}),
        exact=_exact,
        points=(
            Point(0.0, 1.0, value=4.0, gradient=0.0),  # by hand: 2 + 2, mean hit
            Point(0.0, 0.0, value=2.0, gradient=1.0),  # by hand: only the second term
            Point(-1e3, 0.0, value=0.0, gradient=0.0),  # mean 0, amount 0
            Point(0.0, 3.0, value=1.0, gradient=-2.0, power=1.0),  # Poisson: 1 - 0
            Point(0.0, 3.0, value=3.0, gradient=-2.0, power=2.0),  # gamma: 0 + 3
            Point(0.0, 3.0, value=0.5, gradient=-2.0, power=3.0),  # inverse Gaussian: 3/2 - 1
        ),
        nonnegative=False,
        elicits="mean",
        link="log",
        use_when="totals such as claims or rainfall: many exact zeros, then skewed amounts",
        avoid_when="targets are whole numbers, or can be negative",
        source="Jorgensen 1987, doi:10.1111/j.2517-6161.1987.tb01685.x",
    )
)
def tweedie_loss(
    input: Tensor,
    target: Tensor,
    *,
    power: float = 1.5,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the Tweedie deviance up to a constant, from the log of the mean.

    The variance grows like ``mean ** power``: 1 is Poisson, 2 gamma, 3 inverse Gaussian; strictly
    between 1 and 2 amounts are 0 with a probability of their own. Terms without ``input`` are
    dropped; at powers 1 and 2 the term that would divide by 0 becomes its limit, the log.

    Args:
        input: Log of the expected value, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``, ``>= 0``; ``> 0`` if
            ``power >= 2``.
        power: Exponent of the variance, ``>= 1``. No distribution has a power in (0, 1); at 0 or
            below targets may be negative, and a log link does not fit.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is out of range, ``power < 1``, or
            ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> log_mean = torch.tensor([0.0, 1.0])
        >>> lm.tweedie_loss(log_mean, torch.tensor([0.0, 3.0]), reduction="none")
        tensor([2.0000, 6.9366])
    """
    # A count of 0 must not meet the infinite power of a mean near 0.
    level = torch.where(target == 0, 0.0, input)
    if power == 1:
        own = -target * level
    else:
        # In two halves: the power alone overflows long before its product with the target does.
        half = torch.exp(0.5 * (1 - power) * level)
        own = target * half * half / (power - 1)
    if power == 2:
        return own + input
    return own + torch.exp((2 - power) * input) / (2 - power)


class TweedieLoss(Loss):
    """Module form of :func:`tweedie_loss`."""

    power: float = 1.5
    function = staticmethod(tweedie_loss)
