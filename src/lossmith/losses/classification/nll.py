"""Negative log-likelihood of class indices, from log-probabilities."""

from typing import Any, cast

import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, LOG_PROBABILITIES, NONNEGATIVE, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import take_class, times
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.eligible import undefined


def _kernel(
    input: Tensor,
    target: Tensor,
    reduction: int,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor | None:
    # its backward pass refuses channels-last, its mean over nothing divides 0 by 0
    if weight is not None or not input.is_contiguous() or not input.is_cpu:
        return None
    value = cast(Any, kernels).nll_loss_nd(input, target, None, reduction, ignore_index)
    return None if undefined(value) else value


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\log p_y",
        signatures=(
            Signature(input=LOG_PROBABILITIES("N C *"), target=CLASS("N *"), out="N *"),
            Signature(input=LOG_PROBABILITIES("C"), target=CLASS(""), out=""),
        ),
        options={"weight": Vector(within=NONNEGATIVE), "ignore_index": Whole()},
        convex=True,
        gradient_bound=1.0,
        same_as="torch.nn.functional.nll_loss",
        elicits="distribution",
        link="none",
        aliases=("nll", "nll_loss2d"),
        use_when="the model ends in a log-softmax",
        avoid_when="logits are at hand: cross-entropy from them keeps more digits",
        source="Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    ),
    native=_kernel,
    native_checks=True,
)
def nll_loss(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Negative log-probability of the target class, from log-probabilities.

    Args:
        input: Log-probabilities, ``(N, C, *)`` or ``(C)``, floating point; not logits.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        weight: Factor of each class, ``(C)``, ``>= 0``. The mean divides by the sum of the factors
            of the targets, as torch does.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, or a class is outside [0, C-1].
        TypeError: If ``input`` is not floating point, or ``target`` is not of an integer dtype.

    Example:
        >>> import torch, lossmith as lm
        >>> log_p = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]).log()
        >>> lm.nll_loss(log_p, torch.tensor([0, 1]), reduction="none")
        tensor([0.3567, 1.3863])
    """
    value = -take_class(input, target, dim=1 if input.ndim > 1 else 0)
    if weight is None:
        return value
    own = weight.to(input)[target]
    return Terms(times(own, value), normaliser=own)


class NLLLoss(Loss):
    """Module form of :func:`nll_loss`; ``weight`` is a buffer."""

    weight: Tensor | None = None
    ignore_index: int = -100
    function = staticmethod(nll_loss)


NLLLoss2d = NLLLoss
