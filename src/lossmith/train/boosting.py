"""Any element or row loss as the objective of XGBoost and LightGBM.

Boosted trees ask an objective for the gradient of each row's loss and the diagonal of its Hessian.
Both come from the loss itself, in float64, so a loss that trains a network trains trees as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail, said
from lossmith.core.domain import ClassIndex

Array = NDArray[np.float64]


def boosting_objective(loss: str | Callable[..., Tensor], **options: Any) -> "Objective":
    """An objective for boosted trees, from a loss of lossmith.

    XGBoost's and LightGBM's scikit-learn estimators take it as ``objective``. Trees predict what
    the loss calls its input: logits for a loss of logits, the logarithm of the mean for one with a
    log link; ``predict`` of a booster with an objective of its own returns exactly that.

    A Newton step needs a positive second derivative. Where the loss has none (absolute and quantile
    losses, the tails of Huber's, the far side of a redescending loss) 1 stands in its place, which
    makes it a gradient step, as in the boosters' own absolute loss.

    Args:
        loss: A loss, Module or name: an element loss of ``(input, target)``, or a row loss of
            class indices, for which the booster keeps one tree per class.
        **options: Options of the loss; a Module brings its own.

    Returns:
        ``objective(y_true, y_pred, sample_weight=None)``, which returns gradient and second
        derivative with the shape of ``y_pred``. Weights are those of any loss: ``>= 0``, and a row
        of weight 0 is absent, whatever its label.

    Raises:
        ValueError: If the loss is neither an element nor a row loss of two tensors; in the call,
            whatever the loss refuses, class labels with a fraction, and weights of another shape
            than ``y_true``.
        TypeError: If an option is unknown; in the call, as the loss does.

    Example:
        >>> import numpy as np
        >>> from lossmith.train.boosting import boosting_objective
        >>> objective = boosting_objective("half_mse")
        >>> objective(np.array([1.0, 2.0]), np.array([3.0, 2.0]))
        (array([2., 0.]), array([1., 1.]))
    """
    card = find_card(loss)
    if card.coupling not in ("element", "row") or len(card.tensors) != 2:
        fail("loss", "be an element or row loss of two tensors", said(f"{card.name}"))
    assert card.function is not None
    return Objective(card.function if isinstance(loss, str) else loss, card, options)


class Objective:
    """What :func:`boosting_objective` returns; it pickles as its loss does."""

    def __init__(self, loss: Callable[..., Tensor], card: Card, options: dict[str, Any]) -> None:
        self.loss, self.options = loss, options
        self.row = card.coupling == "row"
        self.classes = any(isinstance(d, ClassIndex) for d in card.signatures[0].tensors.values())
        unknown = ", ".join(set(options) - set(card.options))
        if unknown:
            raise TypeError(
                f"{card.name} takes {', '.join(card.options)} by keyword, got {unknown}"
            )

    def __repr__(self) -> str:
        """What was asked for, the same in every process."""
        named = find_card(self.loss).name if not isinstance(self.loss, Module) else self.loss
        words = [repr(named), *(f"{key}={value!r}" for key, value in self.options.items())]
        return f"boosting_objective({', '.join(words)})"

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Array, Array]:
        """Gradient and second derivative of each row's loss by its prediction."""
        with torch.enable_grad():
            input = torch.as_tensor(np.asarray(y_pred, dtype=np.float64)).requires_grad_()
            label = np.asarray(y_true, dtype=np.float64)
            weight = torch.ones(label.shape, dtype=torch.float64)
            if sample_weight is not None:
                weight = torch.as_tensor(np.asarray(sample_weight, dtype=np.float64))
            if weight.shape != label.shape:
                got = said(str(tuple(weight.shape)))
                fail("sample_weight", f"have the shape {label.shape} of y_true", got)
            if self.classes:  # boosters hand them over as floating point
                label = _whole(label, (weight != 0).numpy())
            value = self.loss(
                input,
                torch.as_tensor(label),
                sample_weight=weight,
                reduction="none",
                **self.options,
            )
            (slope,) = torch.autograd.grad(value.sum(), input, create_graph=True)
            curvature = self._curvature(slope, input)
        size = weight.unsqueeze(1) if self.row else weight
        curvature = torch.where(curvature > 0, curvature, size)
        return slope.detach().numpy(), curvature.numpy()

    def _curvature(self, slope: Tensor, input: Tensor) -> Tensor:
        """The diagonal of the Hessian: rows do not see each other, the classes of a row do."""
        if not slope.requires_grad:  # piecewise linear
            return torch.zeros_like(input)
        columns = slope.unbind(1) if self.row else (slope,)
        found = [
            torch.autograd.grad(column.sum(), input, retain_graph=True, materialize_grads=True)[0]
            for column in columns
        ]
        if not self.row:
            return found[0]
        return torch.stack([each[:, at] for at, each in enumerate(found)], 1)


def _whole(label: Array, there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Class indices; those of absent rows may be anything, and become 0."""
    label = np.where(there, label, 0.0)
    broken = label[~np.isfinite(label) | (label != np.floor(label))]
    if broken.size:
        fail("y_true", "hold whole numbers, which name classes", float(broken[0]))
    return label.astype(np.int64)
