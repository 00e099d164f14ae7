"""Cross-entropy from logits: class indices or probabilities as targets."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import (
    CLASS,
    FLAG,
    NONNEGATIVE,
    POSITIVE,
    PROBABILITIES,
    REAL,
    UNIT,
    Optional,
    Vector,
    Whole,
)
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, class_nll, is_number, softcapped, times
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.row import FEW, mean_at_a_glance, one_pass_class_nll
from lossmith.engines.rows.head import Head
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import against


def native(
    input: Tensor, target: Tensor, reduction: int, *, ignore_index: int = -100, **more: object
) -> Tensor | None:
    """One pass over few logits; blocks of rows are faster for many.

    For class indices without weights; it raises at an absent label.
    """
    if more or target.is_floating_point() or input.ndim < 2 or input.numel() > FEW:
        return None
    if 0 <= ignore_index < input.shape[1]:
        return None
    return one_pass_class_nll(input, target, reduction)


def _against(
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    z_loss: float = 0.0,
    overwrite_input: bool = False,
) -> Against:
    return Against(
        weight=weight,
        smoothing=label_smoothing,
        z_loss=z_loss,
        head=Head(logit_scale, softcap),
        ignore_index=ignore_index,
        overwrite=overwrite_input,
    )


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\sum_c q_c \log \operatorname{softmax}(x)_c",
        signatures=(
            Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
            Signature(input=REAL("N C *"), target=PROBABILITIES("N C *"), out="N *"),
            Signature(input=REAL("C"), target=CLASS(""), out=""),
            Signature(input=REAL("C"), target=PROBABILITIES("C"), out=""),
        ),
        options={
            "weight": Vector(within=NONNEGATIVE),
            "ignore_index": Whole(),
            "label_smoothing": UNIT,
            "softcap": Optional(POSITIVE),
            "logit_scale": POSITIVE,
            "z_loss": NONNEGATIVE,
            "overwrite_input": FLAG,
        },
        variants=({"label_smoothing": 0.1},),
        convex=True,
        gradient_bound=1.0,
        same_as="torch.nn.functional.cross_entropy",
        elicits="distribution",
        link="softmax",
        aliases=("ce", "softmax_loss", "categorical_cross_entropy"),
        use_when="one class of several, and the probabilities matter",
        avoid_when="many labels are wrong: the pull of a wrong label is not bounded away",
        source="Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    ),
    native=native,
    native_checks=True,
    native_half=True,
    quick=mean_at_a_glance,
    engine=against(_against),
)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    z_loss: float = 0.0,
    overwrite_input: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Negative log-probability of the target class, from logits.

    Its gradient in the logits is softmax minus target. Probabilities as ``input`` would be
    squashed by a second softmax: pass logits.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        weight: Factor of each class, ``(C)``, ``>= 0``. The mean over class indices divides by the
            sum of the factors of the targets, as torch does.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        label_smoothing: Share of each target that is spread evenly over the classes, in [0, 1].
        softcap: Size that logits approach and never pass, ``softcap tanh(x / softcap)``, ``> 0``
            (Gemma Team 2024, arXiv:2408.00118); None leaves them as they are.
        logit_scale: Factor of the logits, ``> 0``, before the cap: an inverse temperature.
        z_loss: Factor of the squared log-sum-exp of the logits, added to each row, ``>= 0``; it
            keeps them from drifting (Chowdhery 2022, arXiv:2204.02311).
        overwrite_input: Allows the gradient to be written in the place of ``input``, which spares
            its memory. The logits are lost then, and the gradient has no gradient itself.
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], a probability is outside
            [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
        >>> lm.cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
        tensor([0.2395, 5.0134])
    """
    input = softcapped(input, logit_scale, softcap)
    dim = 1 if input.ndim > 1 else 0
    plain, sharp = is_number(z_loss, 0), is_number(label_smoothing, 0)
    extra = 0.0 if plain else z_loss * torch.logsumexp(input, dim).square()
    classes = input.shape[dim]
    factors = None if weight is None else weight.to(input).view(-1, *[1] * (input.ndim - dim - 1))
    if target.is_floating_point():
        if not sharp:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        if factors is not None:
            target = target * factors
        return -times(target, accurate_log_softmax(input, dim=dim)).sum(dim) + extra

    value = class_nll(input, target, dim=dim)
    own = None if weight is None else weight.to(input)[target]
    if own is not None:
        value = times(own, value)
    if not sharp:
        spread = -accurate_log_softmax(input, dim=dim)
        if factors is not None:
            spread = times(factors, spread)
        value = (1 - label_smoothing) * value + label_smoothing / classes * spread.sum(dim)
    return Terms(value + extra, normaliser=own)


class CrossEntropyLoss(Loss):
    """Module form of :func:`cross_entropy`; ``weight`` is a buffer."""

    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    softcap: float | None = None
    logit_scale: float = 1.0
    z_loss: float = 0.0
    overwrite_input: bool = False
    function = staticmethod(cross_entropy)
