"""What losses over a row of logits share: the ways to call them, and the cost of a target."""

from collections.abc import Callable

from torch import Tensor

from lossmith.core.domain import CLASS, PROBABILITIES, REAL
from lossmith.core.numerics import accurate_log_softmax, class_nll, times
from lossmith.core.signature import Signature

BY_INDEX = (
    Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
    Signature(input=REAL("C"), target=CLASS(""), out=""),
)
BY_PROBABILITIES = (
    Signature(input=REAL("N C *"), target=PROBABILITIES("N C *"), out="N *"),
    Signature(input=REAL("C"), target=PROBABILITIES("C"), out=""),
)


def class_dim(input: Tensor) -> int:
    """Dimension 1 of a batch, 0 of a single row."""
    return 1 if input.ndim > 1 else 0


def target_cost(input: Tensor, target: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """``cost(-log p)`` of the target class, or its mean under target probabilities."""
    dim = class_dim(input)
    if target.is_floating_point():
        return times(target, cost(-accurate_log_softmax(input, dim=dim))).sum(dim)
    return cost(class_nll(input, target, dim=dim))


def over_classes(per_class: Tensor, input: Tensor) -> Tensor:
    """A number per class, made to broadcast against logits."""
    return per_class.view(-1, *[1] * (input.ndim - class_dim(input) - 1))
