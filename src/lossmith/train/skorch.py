"""A skorch classifier with right probabilities for any lossmith loss.

skorch turns raw outputs into probabilities only for three losses of torch, known by their class.
For any other criterion ``predict_proba`` returns raw logits. Here the card's ``link`` decides.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail

try:
    from skorch import NeuralNetClassifier
except ImportError as _error:
    raise ImportError(
        f"lossmith.train.skorch needs pip install 'lossmith[skorch]': {_error}"
    ) from None


def softmax_rows(output: Tensor) -> Tensor:
    """Class logits ``(N, C)`` to probabilities ``(N, C)``."""
    return torch.softmax(output, 1)


def logit_columns(output: Tensor) -> Tensor:
    """Logits of the second class, ``(N)`` or ``(N, 1)``, to probabilities ``(N, 2)``."""
    positive = torch.sigmoid(output.flatten())
    return torch.stack([1 - positive, positive], 1)


LINKS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax_rows, "logit": logit_columns}


def probabilities(loss: Any) -> Callable[[Tensor], Tensor]:
    """How the raw output of a model trained with ``loss`` becomes probabilities.

    Args:
        loss: A lossmith Module class, Module, function or name.

    Returns:
        A function from raw output to ``(N, C)`` probabilities.

    Raises:
        ValueError: If the loss gives no probabilities (a margin loss, say).

    Example:
        >>> import torch
        >>> from lossmith.train.skorch import probabilities
        >>> probabilities("cross_entropy")(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    card: Card = find_card(loss)
    if card.link not in LINKS:
        fail("criterion", "be a loss with link softmax or logit", f"{card.name}, link {card.link}")
    return LINKS[card.link]


class LossNeuralNetClassifier(NeuralNetClassifier):
    """``skorch.NeuralNetClassifier`` for lossmith losses.

    Probabilities follow the card of ``criterion``. Losses with a logit link get float targets of
    the shape of the output, as they want them; skorch hands over class numbers.

    Args:
        module: The model, as for skorch; raw outputs, ``(N, C)`` or ``(N)`` by the loss's link.
        *args: As for skorch.
        criterion: A lossmith Module class; its fields are set by ``criterion__name``.
        **kwargs: As for skorch.

    Raises:
        ValueError: If the loss gives no probabilities.

    Example:
        >>> import numpy as np, torch, lossmith
        >>> from lossmith.train.skorch import LossNeuralNetClassifier
        >>> _ = torch.manual_seed(0)
        >>> net = LossNeuralNetClassifier(
        ...     torch.nn.Linear, module__in_features=2, module__out_features=2,
        ...     criterion=lossmith.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0)
        >>> X = np.array([[0.0, 1.0], [1.0, 0.0]], dtype="float32")
        >>> net.fit(X, np.array([0, 1])).predict_proba(X).sum(1)
        array([1., 1.], dtype=float32)
    """

    def __init__(self, module: Any, *args: Any, criterion: Any, **kwargs: Any) -> None:
        kwargs.setdefault("predict_nonlinearity", probabilities(criterion))
        super().__init__(module, *args, criterion=criterion, **kwargs)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of a batch, with targets encoded as the loss wants them."""
        if find_card(self.criterion).link == "logit":
            y_true = y_true.to(y_pred.dtype).view_as(y_pred)
        return self.criterion_(y_pred, y_true)

    def predict(self, X: Any) -> Any:
        """The most likely class."""
        return self.classes_[self.predict_proba(X).argmax(1)]
