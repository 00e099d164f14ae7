"""What the mean of a batch divides by, so that means of batches can be put together."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.module import Sum


def cards_of(loss: Any) -> list[tuple[Callable[..., Tensor], Card]]:
    """The losses that a loss is made of, with their cards; none for a loss without a card."""
    if isinstance(loss, Sum):
        return [found for part in loss.parts for found in cards_of(part)]
    try:
        return [(loss, find_card(loss))]
    except ValueError:
        return []


def option(loss: Callable[..., Tensor], card: Card, name: str) -> Any:
    """The value of an option: the Module's, or the function's default."""
    if hasattr(loss, name):
        return getattr(loss, name)
    if name not in card.options or card.function is None:
        return None
    return inspect.signature(card.function).parameters[name].default


def divisor(loss: Any, tensors: tuple[Tensor, ...], sample_weight: Tensor | None) -> Tensor:
    """The sum of the weights of what is there: samples that are not ignored, by their weights.

    Up to a factor that is the same for all batches; of a sum of losses the count of its first
    part, and of a loss that is one value of a whole batch the number of samples.

    Args:
        loss: The loss.
        tensors: What it was called with.
        sample_weight: Weights of the samples.
    """
    found = cards_of(loss)
    target = tensors[-1]
    if not found or any(card.coupling not in ("element", "row") for _, card in found):
        samples = target if sample_weight is None else sample_weight
        return torch.tensor(float(len(samples)), device=target.device)
    part, card = found[0]
    there = torch.ones_like(target, dtype=torch.float32)
    if sample_weight is not None:
        there = sample_weight.to(torch.float32)
    if not target.is_floating_point():
        ignored = option(part, card, "ignore_index")
        if ignored is not None and target.shape == there.shape:
            there = torch.where(target == ignored, 0.0, there)
        sizes = option(part, card, "weight")
        if isinstance(sizes, Tensor) and card.coupling == "row":
            there = there * sizes[target.clamp(0, len(sizes) - 1)]
    return there.sum()
