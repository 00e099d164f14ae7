"""What an estimator has to know of a loss: its parts, its options, its link and its outputs."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail
from lossmith.core.domain import Interval
from lossmith.core.module import Loss, Sum
from lossmith.core.signature import Signature
from lossmith.tabular.coding import Unfit

T = TypeVar("T")
# Options that ask for the sizes of the classes, which the data give where the user does not
SIZES = ("class_counts", "prior")
# The power of the target's unit in which the second output of such a loss is measured
SPREADS = {"var": 2, "scale": 1}


@dataclass(frozen=True)
class Part:
    """One loss of a sum, or the only one.

    Attributes:
        card: Its card.
        options: The options it is called with.
    """

    card: Card
    options: Mapping[str, Any]

    @property
    def way(self) -> Signature:
        """The call that its options lead to."""
        return self.card.ways(self.options)[0]

    @property
    def spread(self) -> str | None:
        """Name of the tensor beside input and target, if it is a spread that can be predicted."""
        third = self.card.tensors[2:]
        if self.card.tensors[:2] != ("input", "target") or len(third) > 1:
            raise Unfit(f"it takes {', '.join(self.card.tensors)}, not an output and a target")
        if not third:
            return None
        domain = self.way.tensors[third[0]]
        if third[0] not in SPREADS or not isinstance(domain, Interval):
            raise Unfit(f"it takes {third[0]}, which no network predicts")
        return third[0]

    @property
    def cap(self) -> tuple[float, float | None]:
        """Factor of the logits and the cap on them, which belong to the prediction as well."""
        return self.options.get("logit_scale", 1.0), self.options.get("softcap")


def parts(loss: Any, params: Mapping[str, Any] | None) -> list[Part]:
    """The losses that a loss is made of.

    Args:
        loss: A name, function, Module class or Module.
        params: Options of the loss; a Module brings its own.

    Raises:
        ValueError: If the name is unknown, or a Module is given options beside its own.
    """
    if isinstance(loss, Loss):
        if params:
            fail("loss_params", "be empty for a Module, which brings its own options", dict(params))
        if isinstance(loss, Sum):
            return [part for one in loss.parts for part in parts(one, None)]
        if loss.reduction != "mean":
            fail("loss", "have the reduction 'mean'", loss.reduction)
        fields = [name for name in type(loss).fields if name != "reduction"]
        return [Part(loss.card, {name: getattr(loss, name) for name in fields})]
    return [Part(find_card(loss), dict(params or {}))]


def common(values: list[T], what: str) -> T:
    """What all parts of a sum have in common.

    Raises:
        Unfit: If they differ.
    """
    for other in values[1:]:
        if other != values[0]:
            raise Unfit(f"its parts differ in their {what}: {values[0]} and {other}")
    return values[0]


def ready(
    loss: Any,
    params: Mapping[str, Any] | None,
    like: Tensor,
    counts: Tensor | None = None,
) -> Callable[..., Tensor]:
    """The loss as it is called in training; a Module given is copied, not changed.

    Args:
        loss: A name, function, Module class or Module.
        params: Options of the loss; lists and arrays become tensors.
        like: A tensor with the dtype and the device of the network's output.
        counts: Weight of each class among the training rows.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If an option is not what the card asks for.
    """
    if isinstance(loss, Loss):
        return copy.deepcopy(loss).to(like.device, like.dtype)
    card = find_card(loss)
    options = {
        name: torch.as_tensor(value) if _is_array(value) else value
        for name, value in (params or {}).items()
    }
    for name in SIZES:
        if name in card.options and name not in options and counts is not None:
            options[name] = counts
    if isinstance(loss, type):
        return cast(nn.Module, loss(**options)).to(like.device, like.dtype)
    moved = {
        name: value.to(like) if isinstance(value, Tensor) else value
        for name, value in options.items()
    }
    unknown = ", ".join(set(moved) - set(card.options))
    if unknown:
        known = ", ".join(card.options) or "no options"
        raise TypeError(f"{card.name} takes {known}, got {unknown}")
    assert card.function is not None
    return partial(card.function, **moved)


def _is_array(value: Any) -> bool:
    return not isinstance(value, str) and (hasattr(value, "__array__") or hasattr(value, "__len__"))
