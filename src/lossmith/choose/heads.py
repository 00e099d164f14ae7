"""Between the network and the loss: units going in, predictions coming out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.choose.folds import Cell
from lossmith.choose.metric import Metric
from lossmith.choose.shortlist import Candidate
from lossmith.core.numerics import softcapped
from lossmith.tabular.coding import AMOUNTS_OF
from lossmith.tabular.scale import residual_scale as scale_of


@dataclass(frozen=True)
class Head:
    """The affine map in front of the loss and the way back, fitted in each cell.

    ``input = shift + gain * output`` is what the loss sees, so that every loss starts from a
    constant prediction near the mean of its training rows and learns at the same pace.

    Attributes:
        candidate: The loss.
        gain: ``(cells, 1)``.
        shift: ``(cells, 1)``.
        target: What the loss sees as target, ``(cells, rows)``, ``(cells, rows, classes)``.
        mean: Amount that an input of 0 stands for, ``(cells, 1)``; standardised targets only.
        unit: Amount that an input of 1 adds, ``(cells, 1)``; standardised targets only.
    """

    candidate: Candidate
    gain: Tensor
    shift: Tensor
    target: Tensor
    mean: Tensor
    unit: Tensor

    def at(self, cells: Tensor) -> "Head":
        """The head for models of these cells, in their order; a cell may occur again."""
        names = ("gain", "shift", "target", "mean", "unit")
        return replace(self, **{name: getattr(self, name)[cells] for name in names})

    def input(self, output: Tensor) -> Tensor:
        """What the loss sees, from network outputs ``(cells, rows, outputs)``."""
        if self.candidate.width == 0:
            return self.shift + self.gain * output.squeeze(-1)
        return output

    def logits(self, seen: Tensor) -> Tensor:
        """Seen as the loss takes it: some have a factor or a cap of their own on the logits."""
        options = self.candidate.options
        return softcapped(seen, options.get("logit_scale", 1.0), options.get("softcap"))

    def value(self, seen: Tensor) -> Tensor:
        """Predicted amounts, ``(cells, rows)``."""
        if self.candidate.coding == "standard":
            return self.mean + self.unit * seen
        return AMOUNTS_OF[self.candidate.link](seen)

    def predict(self, output: Tensor, metric: Metric) -> NDArray[Any]:
        """What the metric wants: amounts, labels, scores or probabilities."""
        seen = self.input(output)
        if metric.needs == "value":
            return self.value(seen).double().numpy()
        seen = self.logits(seen)
        if self.candidate.width == 0:
            return self._binary(seen, metric)
        if metric.needs == "label":
            return seen.argmax(-1).numpy()
        rows = torch.softmax(seen.double(), -1).numpy()
        return rows[..., 1] if rows.shape[-1] == 2 else rows

    def _binary(self, seen: Tensor, metric: Metric) -> NDArray[Any]:
        if metric.needs == "probability":
            return torch.sigmoid(seen.double()).numpy()
        if metric.needs == "score":
            return seen.double().numpy()
        straight = self.candidate.link == "identity" and self.candidate.coding == "zero_one"
        return (seen > (0.5 if straight else 0.0)).long().numpy()


def fit_head(
    candidate: Candidate, target: NDArray[Any], cells: Sequence[Cell], scale: Tensor | None
) -> Head:
    """Fit the units of a loss to the training rows of each cell.

    Args:
        candidate: The loss.
        target: The target column, ``(rows,)``.
        cells: The cells.
        scale: Robust scale of residuals, ``(cells, 1)``. Losses with an inner unit (Huber's
            delta, say) measure residuals in it; None stands for the standard deviation.
    """
    coded = candidate.code(target).expand(len(cells), *candidate.code(target).shape)
    ones = torch.ones(len(cells), 1)
    if candidate.coding not in ("standard", "raw"):
        return Head(candidate, ones, 0 * ones, coded, 0 * ones, ones)
    fits = [target[cell.fit] for cell in cells]
    mean = _column([float(rows.mean()) for rows in fits])
    deviation = _column([float(rows.std()) or 1.0 for rows in fits])
    if candidate.coding == "standard":
        unit = deviation if scale is None or candidate.unit_free else scale
        exact = torch.as_tensor(target).expand(len(cells), -1)
        return Head(
            candidate, (deviation / unit), 0 * ones, ((exact - mean) / unit).float(), mean, unit
        )
    if candidate.link == "identity":
        return Head(candidate, deviation, mean, coded, 0 * ones, ones)
    start = mean.clamp(min=1e-6).log() if candidate.link == "log" else mean.logit(1e-6)
    return Head(candidate, ones, start, coded, 0 * ones, ones)


def residual_scale(x: Tensor, target: NDArray[Any], cells: Sequence[Cell]) -> Tensor:
    """Robust scale of the residuals of each cell's training rows, ``(cells, 1)``.

    Args:
        x: Standardised features of each cell, ``(cells, rows, width)``.
        target: The target column, ``(rows,)``.
        cells: The cells.
    """
    return _column(
        [
            scale_of(features[cell.fit], target[cell.fit], np.ones(len(cell.fit)))
            for features, cell in zip(x.double().numpy(), cells, strict=True)
        ]
    )


def _column(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None]
