"""How a loss sees the target, and how many outputs of a network it wants, read off its card."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from lossmith.core.domain import ClassIndex, Domain, Interval, Labels, Simplex
from lossmith.core.signature import Signature

# Amounts standardised or as they are; classes as index, 0/1 or -1/1.
Coding = Literal["standard", "raw", "index", "zero_one", "sign"]
# From the input of a loss to the amount that it predicts, by the link of its card.
AMOUNTS_OF: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "log": torch.exp,
    "logit": torch.sigmoid,
}


class Unfit(ValueError):
    """Why a loss cannot serve a target.

    Args:
        template: The reason, with places for values, so that it can be said in another language.
        **values: What belongs there.
    """

    def __init__(self, template: str, **values: object) -> None:
        self.template, self.values = template, values
        super().__init__(template.format(**values) if values else template)


def code_amounts(way: Signature, link: str, low: float, high: float) -> Coding:
    """The coding of amounts between ``low`` and ``high``; the network has one output.

    Raises:
        Unfit: If the loss does not take such amounts.
    """
    source, target = _ends(way)
    if source.dims != target.dims or len(source.dims) != 1 or not isinstance(target, Interval):
        raise Unfit("it does not take one number as output and one as target")
    if unbounded(target) and link == "identity":
        return "standard"
    for value in (low, high):
        if not target.contains(value):
            raise Unfit("target must {rule}, got {value:g}", rule=target.rule, value=value)
    return "raw"


def code_classes(way: Signature, classes: int) -> tuple[Coding, int]:
    """The coding of classes, and the number of outputs; 0 is one without a class dimension.

    Raises:
        Unfit: If the loss does not take classes.
    """
    _, target = _ends(way)
    if isinstance(target, ClassIndex):
        return "index", classes
    if isinstance(target, Simplex):
        return "zero_one", classes
    width = 0 if classes == 2 else classes
    if isinstance(target, Labels):
        return ("sign" if min(target.values) < 0 else "zero_one"), width
    if isinstance(target, Interval) and target.contains(0.0) and target.contains(1.0):
        return "zero_one", width
    raise Unfit("target must {rule}, and classes do not", rule=target.rule)


def encode(index: Tensor, coding: Coding, width: int) -> Tensor:
    """Class indices ``(rows,)`` in a coding of :func:`code_classes`."""
    if coding == "index":
        return index
    flags = index if width == 0 else torch.nn.functional.one_hot(index, width)
    coded = flags.to(torch.float32)
    return 2 * coded - 1 if coding == "sign" else coded


def unbounded(domain: Domain) -> bool:
    """Whether any number lies in the domain."""
    return isinstance(domain, Interval) and domain.low == -math.inf and domain.high == math.inf


def _ends(way: Signature) -> tuple[Domain, Domain]:
    """What the loss takes as output of the network and as target."""
    source, target = way.tensors["input"], way.tensors["target"]
    if not unbounded(source):
        rule = "its input must {rule}, which a network's raw output does not"
        raise Unfit(rule, rule=source.rule)
    return source, target
