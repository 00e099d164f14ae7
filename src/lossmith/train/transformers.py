"""Any element or row loss for the Trainer of Hugging Face, with the right denominator.

The Trainer counts the labels of all the batches that it accumulates before a step, and leaves it to
a loss of the user's own to divide by that number. A loss that takes the mean of each batch gives
tokens of short batches too much weight, and a gradient as many times too large as there are
batches in a step.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail, fail_type, said
from lossmith.core.module import Loss, Sum
from lossmith.train.counting import cards_of, option

# The label by which the Trainer knows what not to count
IGNORED = -100


def compute_loss_func(
    loss: str | Callable[..., Tensor], *, shift: bool | None = None, **options: Any
) -> "TrainerLoss":
    """The ``compute_loss_func`` of ``transformers.Trainer``, from a loss of lossmith.

    The loss is summed over the labels that are not -100 and divided by their number in the whole
    step, so that accumulating gradients over small batches is training with a large one.

    Args:
        loss: A Module, function or name: an element loss of ``(input, target)``, or a row loss of
            class indices, or a sum of them. It replaces the model's own loss. What a Module learns
            is not in the Trainer's optimiser unless the Module is a part of the model.
        shift: Whether the logits at a place are for the label of the next one. None: if the model's
            output is of a class for causal language models, as ``CausalLMOutputWithPast``.
        **options: Options of the loss; a Module brings its own.

    Returns:
        ``f(outputs, labels, num_items_in_batch=None)``; without the number it divides by the labels
        of the batch, which is right for evaluation.

    Raises:
        ValueError: If the loss is a statistic of the batch, as Dice is: it cannot be put together
            from parts of a batch; or if its ``ignore_index`` is not the Trainer's, -100.
        TypeError: If an option is unknown.

    Example:
        >>> import torch
        >>> from transformers.modeling_outputs import CausalLMOutput
        >>> from lossmith.train.transformers import compute_loss_func
        >>> loss = compute_loss_func("cross_entropy", label_smoothing=0.1)
        >>> labels = torch.tensor([[5, 1, -100]])
        >>> loss(CausalLMOutput(logits=torch.zeros(1, 3, 8)), labels, num_items_in_batch=4)
        tensor(0.5199)
    """
    found = cards_of(loss) if not isinstance(loss, str) else [(loss, find_card(loss))]
    if not found:
        find_card(cast(Any, loss))  # says what a loss must be
    for part, card in found:
        if card.coupling not in ("element", "row") or len(card.tensors) != 2 or not card.plain_mean:
            fail("loss", "be an element or row loss of two tensors", said(card.name))
        ignored = options.get("ignore_index", option(cast(Any, part), card, "ignore_index"))
        if ignored not in (None, IGNORED):
            fail("ignore_index", f"be {IGNORED}, by which the Trainer counts", ignored)
        unknown = ", ".join(set(options) - set(card.options))
        if unknown:
            raise TypeError(f"{card.name} takes {', '.join(card.options)}, got {unknown}")
    if isinstance(loss, Loss):
        if options:
            fail("options", "be those of the Module, which brings its own", options)
        summed: Callable[..., Tensor] = _summed(loss)
    else:
        function = found[0][1].function if isinstance(loss, str) else loss
        summed = partial(cast(Any, function), reduction="sum", **options)
    cards = [card for _, card in found]
    skips = all("ignore_index" in card.options for card in cards)
    return TrainerLoss(summed, cards[0].coupling == "row", skips, shift)


def _summed(loss: Loss) -> Loss:
    """The loss with the reduction ``"sum"``, on the same parameters."""
    if isinstance(loss, Sum):
        parts = [_summed(cast(Loss, part)) for part in loss.parts]
        return Sum(list(zip(loss.scales, parts, strict=True)))
    found = copy.copy(loss)
    found.reduction = "sum"
    return found


class TrainerLoss:
    """What :func:`compute_loss_func` returns."""

    def __init__(
        self, loss: Callable[..., Tensor], row: bool, skips: bool, shift: bool | None
    ) -> None:
        self.loss, self.row, self.skips, self.shift = loss, row, skips, shift

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The loss of a batch: its sum over the labels, divided by the labels of the step."""
        if labels is None:
            fail("labels", "be in each batch", labels)
        logits: Tensor = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        labels = labels.to(logits.device)
        shift = "CausalLM" in type(outputs).__name__ if self.shift is None else self.shift
        if shift:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if self.row and labels.is_floating_point():
            fail_type("labels", "be class indices", labels)
        if self.row:
            logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        elif logits.shape == (*labels.shape, 1):  # one output for each row
            logits = logits.squeeze(-1)
        there = labels != IGNORED
        named = {} if self.skips else {"sample_weight": there.to(torch.float32)}
        total = self.loss(logits, labels, **named)
        items = there.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        return total / items.clamp(min=1)  # a step without labels has no loss
