"""Between a network and a regression loss: units going in, amounts coming out."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.tabular.coding import AMOUNTS_OF, Coding
from lossmith.tabular.scale import deviation
from lossmith.train.serving import SPREADS

Array = NDArray[Any]


@dataclass(frozen=True)
class Units:
    """The affine maps around a loss, so that training starts near the mean of the target.

    Attributes:
        link: How the loss's input becomes an amount.
        gain: Input of the loss for an output of 1, less ``shift``.
        shift: Input of the loss for an output of 0.
        mean: Amount that a prediction of 0 stands for.
        unit: Amount that a prediction of 1 adds.
        spread: Name of the spread that the second output predicts, if the loss wants one.
    """

    link: str
    gain: float
    shift: float
    mean: float = 0.0
    unit: float = 1.0
    spread: str | None = None

    @property
    def width(self) -> int:
        """Number of outputs of the network."""
        return 1 if self.spread is None else 2

    def seen(self, output: Tensor) -> tuple[Tensor, ...]:
        """What the loss takes as input, and the spread, from outputs ``(rows, width)``."""
        place = self.shift + self.gain * output[:, 0]
        if self.spread is None:
            return (place,)
        return place, self.gain ** SPREADS[self.spread] * output[:, 1].exp()

    def target(self, y: Array) -> Array:
        """What the loss takes as target."""
        return (y - self.mean) / self.unit

    def amount(self, output: Tensor) -> Tensor:
        """Predicted amounts ``(rows,)``."""
        return self.mean + self.unit * AMOUNTS_OF[self.link](self.seen(output)[0])

    def amount_of_spread(self, output: Tensor) -> Tensor:
        """Predicted spreads in the target's unit, to the power that the loss takes."""
        assert self.spread is not None
        return self.unit ** SPREADS[self.spread] * self.seen(output)[1]


def units(
    coding: Coding, link: str, spread: str | None, y: Array, weight: Array, scale: float | None
) -> Units:
    """Fit the maps to the training rows.

    Args:
        coding: How the loss sees amounts.
        link: From the card.
        spread: Name of the spread, if the loss wants one.
        y: Targets ``(rows,)``.
        weight: Weights of the rows, ``> 0``.
        scale: Unit of the residuals; None leaves targets as they are.
    """
    mean = float(np.average(y, weights=weight))
    width = deviation(y, weight) or 1.0
    if coding == "standard" and scale is not None:
        return Units(link, width / scale, 0.0, mean, scale, spread)
    if link == "identity":
        return Units(link, width, mean, spread=spread)
    start = torch.tensor(mean, dtype=torch.float64)
    shift = math.log(max(mean, 1e-6)) if link == "log" else float(start.logit(1e-6))
    return Units(link, 1.0, shift, spread=spread)
