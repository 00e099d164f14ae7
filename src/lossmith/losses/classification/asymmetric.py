"""Asymmetric loss: focal loss that forgives negatives sooner than positives, for many labels."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import NONNEGATIVE, REAL, UNIT
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import expm1, faded, is_number, logistic_sides
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise

CLIP = replace(UNIT, rule="lie in [0, 1)", high_open=True)


def _exact(mp, x, y, gamma_pos=0.0, gamma_neg=4.0, clip=0.05):  # type: ignore[no-untyped-def]
    p = 1 / (1 + mp.exp(-x))
    shifted = max(p - mp.mpf(clip), 0)
    rest = 1 / (1 + mp.exp(x)) if clip == 0 else 1 - shifted
    negative = -(shifted**gamma_neg) * mp.log(rest) if shifted else 0
    return -y * (1 - p) ** gamma_pos * mp.log(p) + (1 - y) * negative


@loss(
    Card(
        task=("multilabel", "binary"),
        coupling="element",
        formula=r"-y (1-p)^{\gamma_+} \log p - (1-y)\, p_m^{\gamma_-} \log(1-p_m),\ "
        r"p = \sigma(x),\ p_m = \max(p - m, 0)",
        signatures=elementwise(input=REAL, target=UNIT),
        options={"gamma_pos": NONNEGATIVE, "gamma_neg": NONNEGATIVE, "clip": CLIP},
        variants=(
            {"gamma_pos": 1.0, "gamma_neg": 2.0, "clip": 0.0},
            {"gamma_pos": 0.5, "gamma_neg": 0.0, "clip": 0.2},
            {"gamma_neg": 0.5, "clip": 0.6},
        ),
        exact=_exact,
        points=(
            Point(0.0, 1.0, value=0.6931471805599453, gradient=-0.5),  # by hand: log 2
            Point(0.0, 0.0, value=0.0245150535122352, gradient=0.0731171012393105),  # p_m = 0.45
            Point(-3.0, 0.0, value=0.0, gradient=0.0),  # p = 0.047 is below the clip
            Point(-1e4, 1.0, value=1e4, gradient=-1.0),  # cross-entropy, however wrong
        ),
        elicits="mode",
        link="logit",
        aliases=("asl", "asymmetric_focal"),
        use_when="many labels, few of them positive, some positives left unmarked",
        avoid_when="calibrated probabilities are wanted: fading and clipping bend them",
        source="Ben-Baruch 2020, arXiv:2009.14119",
    )
)
def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss with a power for each side, blind to negatives that are nearly right.

    Negatives with a probability below ``clip`` have no loss and no gradient. Targets between 0
    and 1 mix the two sides in their proportion.

    Args:
        input: Logits, ``(*)``, floating point, any real value.
        target: Labels or probabilities in [0, 1], ``(*)``, same shape as ``input``.
        gamma_pos: Power that fades positives as they are learned, ``>= 0``; 0 fades none.
        gamma_neg: Power that fades negatives as they are learned, ``>= 0``.
        clip: Probability taken off each negative (m in the paper), in [0, 1).
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], or an option is out of range.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits, labels = torch.tensor([0.0, 0.0, -3.0]), torch.tensor([1.0, 0.0, 0.0])
        >>> lm.asymmetric_loss(logits, labels, reduction="none")
        tensor([0.6931, 0.0245, 0.0000])
    """
    against, toward, p, rest = logistic_sides(input)  # -log(1 - p) and -log p
    positive = faded(toward, rest, against, gamma_pos)
    whole = is_number(clip, 0)
    negative = faded(against, p, toward, gamma_neg) if whole else _clipped(input, gamma_neg, clip)
    return target * positive + (1 - target) * negative


def _clipped(input: Tensor, gamma: float, clip: float | Tensor) -> Tensor:
    """The same of ``q = p - clip``, 0 below.

    Up to 1/2, q is taken as a product, for the difference cancels near the clip; from there on
    1 - q, which is a sum, has the digits.
    """
    if isinstance(clip, Tensor):
        edge = torch.log(clip + torch.finfo(clip.dtype).tiny) - torch.log1p(-clip)
    else:
        edge = math.log(clip) - math.log1p(-clip)
    counts = input > edge
    x = torch.where(counts, input, edge + 1)
    q = -x.sigmoid() * (1 - clip) * expm1(edge - x)
    large = q > 0.5
    rest = torch.where(large, (-x).sigmoid() + clip, 0.5)
    q = torch.where(large, 0.5, q)
    above = torch.exp(gamma * torch.log1p(-rest)) * -rest.log()
    below = q.pow(gamma) * -torch.log1p(-q)
    return torch.where(counts, torch.where(large, above, below), 0.0)


class AsymmetricLoss(Loss):
    """Module form of :func:`asymmetric_loss`."""

    gamma_pos: float = 0.0
    gamma_neg: float = 4.0
    clip: float = 0.05
    function = staticmethod(asymmetric_loss)
