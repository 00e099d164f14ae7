"""Cross-entropy of a linear head: hidden states and the head's weight instead of logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lossmith.core.card import Card
from lossmith.core.checks import fail, fail_type
from lossmith.core.domain import (
    CLASS,
    NONNEGATIVE,
    PROBABILITIES,
    REAL,
    UNIT,
    Anything,
    Optional,
    Vector,
    Whole,
)
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import alike
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.class_rows import class_rows
from lossmith.engines.linear_head import FEW, LinearHead
from lossmith.losses.classification.cross_entropy import cross_entropy, native

# torch has this loss and its options from 2.13 on
OPTIONS: type | None = getattr(nn, "LinearCrossEntropyOptions", None)


@dataclass(frozen=True)
class Chunking(Anything):
    """torch's description of how to split the work, or None."""

    why: str = "an instance of torch.nn.LinearCrossEntropyOptions"

    def check_option(self, name: str, value: Any) -> None:
        """Refuse anything but None and an instance of torch's class."""
        if value is not None and (OPTIONS is None or not isinstance(value, OPTIONS)):
            fail_type(name, "be a torch.nn.LinearCrossEntropyOptions or None", value)


def _one_pass(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    reduction: int,
    linear_bias: Tensor | None = None,
    options: object | None = None,
    **given: Any,
) -> Tensor | None:
    if linear_weight.ndim != 2 or input.shape[0] * linear_weight.shape[0] > FEW:
        return None
    if linear_bias is not None and linear_bias.dtype != input.dtype:
        return None
    logits = F.linear(input, linear_weight, linear_bias).to(input.dtype)  # less under autocast
    return native(logits, target, reduction, **given)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        layered=True,
        formula=r"-\sum_c q_c \log \operatorname{softmax}(W h + b)_c",
        signatures=(
            Signature(
                input=REAL("N D"), linear_weight=REAL("C * D"), target=CLASS("N *"), out="N *"
            ),
            Signature(
                input=REAL("N D"),
                linear_weight=REAL("C * D"),
                target=PROBABILITIES("N C *"),
                out="N *",
            ),
            Signature(input=REAL("D"), linear_weight=REAL("C D"), target=CLASS(""), out=""),
            Signature(
                input=REAL("D"), linear_weight=REAL("C D"), target=PROBABILITIES("C"), out=""
            ),
        ),
        options={
            "linear_bias": Vector(("C", "*")),
            "weight": Vector(within=NONNEGATIVE),
            "ignore_index": Optional(Whole()),
            "label_smoothing": UNIT,
            "options": Chunking(),
        },
        variants=(
            {"label_smoothing": 0.1},
            {"label_smoothing": 1.0, "weight": torch.tensor([1.0, 0.5, 0.0, 2.0])},
        ),
        convex=True,
        same_as="torch.nn.functional.linear_cross_entropy" if OPTIONS else None,
        elicits="distribution",
        link="softmax",
        aliases=("fused_linear_cross_entropy", "linear_ce"),
        use_when="the last layer is linear over many classes, such as a vocabulary",
        avoid_when="the logits are needed for something else as well",
        source="Wijmans 2024, arXiv:2411.09009",
    ),
    native=_one_pass,
    native_checks=True,
    engine=LinearHead(
        cross_entropy, ("linear_bias",), class_rows, dropped=("options", "ignore_index")
    ),
)
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: object | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Cross-entropy of the logits that a linear layer makes of its input.

    The logits are ``linear_weight @ input + linear_bias``; in half precision they are worked out
    in float32. With further dimensions ``*`` each of them is a classification of its own.

    Args:
        input: Hidden states, ``(N, D)`` or ``(D)``, floating point, any real value.
        linear_weight: Weight of the head, ``(C, *, D)``; ``(C, D)`` for a single input.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1], ``(N, C, *)`` or ``(C)``, floating point.
        linear_bias: Bias of the head, ``(C, *)``.
        weight: Factor of each class, ``(C)``, ``>= 0``. The mean over class indices divides by the
            sum of the factors of the targets, as torch does.
        ignore_index: Targets with this value are absent; any integer. None, the only choice for
            probabilities, stands for -100.
        label_smoothing: Share of each target that is spread evenly over the classes, in [0, 1].
        options: torch's ``LinearCrossEntropyOptions``. They say how torch splits the work, which
            changes no value; they are accepted so that calls need no edit, and not used.
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], a probability is outside
            [0, 1], or an option is out of range.
        TypeError: If ``input`` or ``linear_weight`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> hidden, head = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> lm.linear_cross_entropy(hidden, head, torch.tensor([0]))  # logits 2 and 0
        tensor(0.1269)
    """
    by_index = not target.is_floating_point()
    if not by_index and ignore_index is not None:
        fail("ignore_index", "be None where the target holds probabilities", ignore_index)
    if sample_weight is not None and sample_weight.ndim > 1:
        # an input row serves several positions: it is absent where all of them are
        absent = (sample_weight == 0).flatten(1).all(1, keepdim=True)
        input = torch.where(absent, 0.0, input)
    layer = alike(input, linear_weight.flatten(0, -2))
    flat = F.linear(*layer).to(layer[0].dtype)  # less under autocast
    logits = flat.unflatten(-1, linear_weight.shape[:-1])
    if linear_bias is not None:
        logits = logits + linear_bias.to(logits)
    value = cross_entropy(
        logits, target, weight=weight, label_smoothing=label_smoothing, reduction="none"
    )
    return Terms(
        value, normaliser=weight.to(value)[target] if by_index and weight is not None else None
    )


class LinearCrossEntropyLoss(Loss):
    """Module form of :func:`linear_cross_entropy` that owns the head and learns it.

    ``linear``, a ``torch.nn.Linear`` with ``num_classes`` times the sizes ``out_features`` outputs,
    holds its parameters, as in torch's module of this name. Called with input and target.

    Example:
        >>> import torch, lossmith as lm
        >>> head = lm.LinearCrossEntropyLoss(8, 100)
        >>> head(torch.zeros(4, 8), torch.tensor([0, 1, 2, 99])).detach()  # logits all 0: log(100)
        tensor(4.6052)
    """

    weight: Tensor | None = None
    ignore_index: int | None = None
    label_smoothing: float = 0.0
    options: object | None = None
    function = staticmethod(linear_cross_entropy)

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: Reduction = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: object | None = None,
    ) -> None:
        super().__init__(
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            options=options,
            reduction=reduction,
        )
        sizes = (("in_features", in_features), ("num_classes", num_classes))
        for name, size in (*sizes, *(("out_features", size) for size in out_features)):
            Whole(1).check_option(name, size)
        if weight is not None and weight.shape != (num_classes,):
            fail("weight", f"have shape {(num_classes,)}", weight)
        self.shape = (num_classes, *out_features)
        # flat, as in torch's module, so that either loads the other's state
        self.linear = nn.Linear(
            in_features, torch.Size(self.shape).numel(), bias=bias, device=device, dtype=dtype
        )

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The loss of input and target under the own head."""
        head = self.linear.weight.unflatten(0, self.shape)
        bias = self.linear.bias
        if bias is not None:
            named["linear_bias"] = bias.unflatten(0, self.shape)
        if tensors:
            tensors = (tensors[0], head, *tensors[1:])
        else:
            named["linear_weight"] = head
        return super().forward(*tensors, sample_weight=sample_weight, **named)
