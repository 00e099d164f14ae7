"""The numbers behind a picture: values and gradients of element losses on a grid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.catalogue import card as card_of
from lossmith.core.checks import fail
from lossmith.core.domain import Interval, Labels
from lossmith.core.module import Loss

Axis = Literal["residual", "margin", "input"]
# Where translation invariance is tried: far from 0, on both sides, at fractions.
PROBES = torch.tensor([-2.5, -0.75, 0.25, 1.0, 3.5], dtype=torch.float64)
SHIFT = 1.5


@dataclass(frozen=True)
class Curve:
    """An element loss that can be drawn.

    Attributes:
        label: Name, and the options that were given.
        card: The claims of the loss.
        call: Unreduced loss of input and target.
    """

    label: str
    card: Card
    call: Callable[[Tensor, Tensor], Tensor]

    @property
    def input(self) -> Interval:
        """Domain of the first argument."""
        return self._domain(0)  # type: ignore[return-value]

    @property
    def target(self) -> Interval | Labels:
        """Domain of the second argument."""
        return self._domain(1)

    def _domain(self, position: int) -> Interval | Labels:
        domain = self.card.signatures[0].tensors[self.card.tensors[position]]
        assert isinstance(domain, (Interval, Labels))
        return domain

    @property
    def axis(self) -> Axis:
        """What the loss is a function of, if of one number."""
        real = {"real"}
        if isinstance(self.target, Labels) or self.card.link == "logit":
            return "margin" if self.input.name in real else "input"
        if {self.input.name, self.target.name} != real:
            return "input"
        values = self.call(PROBES, torch.zeros_like(PROBES))
        moved = self.call(PROBES + SHIFT, torch.full_like(PROBES, SHIFT))
        return "residual" if torch.allclose(values, moved, rtol=1e-6) else "input"

    @property
    def other_label(self) -> float:
        """The label that is not 1."""
        return min(self.target.values) if isinstance(self.target, Labels) else 0.0

    @property
    def mirrored(self) -> bool:
        """Whether the other label gives the mirror image, as for every loss of the margin."""
        one = self.call(PROBES, torch.ones_like(PROBES))
        other = self.call(-PROBES, torch.full_like(PROBES, self.other_label))
        return torch.allclose(one, other, rtol=1e-6)

    def at(self, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Value, and derivative by the input, at each point (NaN where there is none)."""
        free = input.clone().requires_grad_()
        value = self.call(free, target)
        if not value.requires_grad:
            return value, torch.zeros_like(value)
        (gradient,) = torch.autograd.grad(value.sum(), free)
        return value.detach(), gradient


def curve(loss: str | Loss | Callable[..., Tensor], **options: Any) -> Curve:
    """Prepare a loss for drawing; refuses what is not an element loss of two arguments."""
    card = card_of(loss)
    if card.coupling != "element" or len(card.tensors) != 2:
        fail("loss", "be an element loss of two arguments to be drawn", card.name)
    function = card.function
    assert function is not None
    if isinstance(loss, Loss):
        fields = type(loss).fields
        options = {k: getattr(loss, k) for k in fields if k != "reduction"} | options
        shown = {k: v for k, v in options.items() if k in fields and v != fields[k]}
    else:
        shown = options
    text = ", ".join(f"{key}={value}" for key, value in shown.items())

    def call(input: Tensor, target: Tensor) -> Tensor:
        return function(input, target, reduction="none", **options)

    return Curve(f"{card.name} ({text})" if text else card.name, card, call)
