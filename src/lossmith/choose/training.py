"""Train one loss in all cells at once, with early stopping on the user's metric."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.choose.folds import Cell
from lossmith.choose.heads import Head
from lossmith.choose.metric import Metric
from lossmith.choose.networks import Networks, Shape

Tick = Callable[[float], None]


@dataclass(frozen=True)
class Settings:
    """How every loss is trained.

    Attributes:
        epochs: Most passes over the training rows.
        hidden: Units of the hidden layer; 0 is a linear model.
        rate: Step size of AdamW, which takes the scale of a loss out of the steps.
        decay: Decoupled weight decay.
        looks: How often, at most, the metric is looked at on the way.
        patience: Looks without improvement after which a cell is finished.
    """

    epochs: int = 100
    hidden: int = 32
    rate: float = 0.003
    decay: float = 0.01
    looks: int = 40
    patience: int = 10

    def batch(self, rows: int) -> int:
        """Batch size: about 16 steps in an epoch, between 16 and 512 rows."""
        return int(np.clip(2 ** round(np.log2(rows / 16)), 16, 512))


@dataclass(frozen=True)
class Curves:
    """What was seen on the way, means over cells.

    Attributes:
        epochs: Epochs at which the metric was looked at.
        loss: The loss's own value on the training rows, mean over the batches since the last
            look; NaN at epoch 0.
        train: The metric on the training rows, cells of the first repeat.
        hold: The metric on the rows held out for early stopping, cells of the first repeat.
    """

    epochs: list[int]
    loss: list[float]
    train: list[float]
    hold: list[float]


@dataclass(frozen=True)
class Trained:
    """One loss, trained in all cells.

    Attributes:
        predictions: What the metric wants, for all rows, ``(cells, rows)`` or with classes.
        best_epochs: Epoch of the state that was kept, in each cell.
        curves: What was seen on the way.
    """

    predictions: NDArray[Any]
    best_epochs: list[int]
    curves: Curves


class TrainingFailed(Exception):
    """A loss did not come through; the message says where."""


def train(
    head: Head,
    x: Tensor,
    target: NDArray[Any],
    cells: list[Cell],
    metric: Metric,
    settings: Settings,
    tick: Tick = lambda share: None,
) -> Trained:
    """Train all cells with one loss.

    Args:
        head: The loss and its units.
        x: Features of each cell, ``(cells, rows, width)``.
        target: The target as the metric sees it, ``(rows,)``.
        cells: The cells.
        metric: What decides when to stop and which state to keep.
        settings: The same for every loss.
        tick: Called with the share that is done.

    Raises:
        TrainingFailed: If a value is not finite, or the loss itself refuses.
    """
    networks = Networks(Shape(x.shape[2], settings.hidden, max(1, head.candidate.width)), cells)
    optimiser = torch.optim.AdamW(
        networks.parameters, lr=settings.rate, weight_decay=settings.decay
    )
    watch = _Watch(target, cells, metric, settings.patience, networks)
    watch.look(0, np.nan, head.predict(_outputs(networks, x), metric))
    every = -(-settings.epochs // settings.looks)
    batches = _Batches(cells, settings)
    rows = torch.arange(len(cells))[:, None]
    total = torch.zeros(())
    for epoch in range(1, settings.epochs + 1):
        for chosen in batches:
            losses = _losses(head, networks(x[rows, chosen]), head.target[rows, chosen])
            optimiser.zero_grad()
            losses.sum().backward()
            optimiser.step()
            total = total + losses.detach()
        if epoch % every == 0 or epoch == settings.epochs:
            _require_finite(total, epoch, "the loss on the training rows")
            outputs = _outputs(networks, x)
            _require_finite(outputs.flatten(1).sum(1), epoch, "the network's output")
            steps = len(batches) * ((epoch - 1) % every + 1)
            watch.look(epoch, float(total.mean()) / steps, head.predict(outputs, metric))
            total = torch.zeros(())
            tick(epoch / settings.epochs)
            if watch.finished:
                break
    networks.load(watch.best)
    tick(1.0)
    return Trained(head.predict(_outputs(networks, x), metric), watch.best_epochs, watch.curves)


def _losses(head: Head, outputs: Tensor, target: Tensor) -> Tensor:
    """The mean loss of each cell's batch, ``(cells,)``."""
    one = head.candidate

    def single(input: Tensor, target: Tensor) -> Tensor:
        return one.function(input, target, **one.options)

    try:
        return torch.vmap(single)(head.input(outputs), target)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TrainingFailed(f"the loss refused: {error}") from None


@torch.no_grad()
def _outputs(networks: Networks, x: Tensor) -> Tensor:
    return networks(x)


def _require_finite(values: Tensor, epoch: int, what: str) -> None:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise TrainingFailed(
            f"{what} was not finite in {bad} of {len(values)} cells by epoch {epoch}"
        )


class _Batches:
    """Rows of each cell in an order of its own; the same orders for every loss."""

    def __init__(self, cells: list[Cell], settings: Settings) -> None:
        self.fits = torch.from_numpy(np.stack([cell.fit for cell in cells]))
        self.size = settings.batch(self.fits.shape[1])
        self.generators = [torch.Generator().manual_seed(cell.seed + 1) for cell in cells]

    def __len__(self) -> int:
        return -(-self.fits.shape[1] // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.fits.shape[1]
        orders = [torch.randperm(rows, generator=generator) for generator in self.generators]
        yield from self.fits.gather(1, torch.stack(orders)).split(self.size, dim=1)


class _Watch:
    """Looks at the metric, remembers each cell's best state, and says when all are finished."""

    def __init__(
        self,
        target: NDArray[Any],
        cells: list[Cell],
        metric: Metric,
        patience: int,
        networks: Networks,
    ) -> None:
        self.target, self.cells, self.metric, self.patience = target, cells, metric, patience
        self.networks = networks
        self.best = networks.copy()
        self.best_epochs = [0] * len(cells)
        self.best_scores = np.full(len(cells), np.nan)
        self.waited = np.zeros(len(cells), dtype=int)
        self.curves = Curves([], [], [], [])

    def look(self, epoch: int, loss: float, predictions: NDArray[Any]) -> None:
        """Score the held-out rows of every cell, and the training rows of the first repeat."""
        hold = np.array(
            [self._score(row, cell.hold) for row, cell in zip(predictions, self.cells, strict=True)]
        )
        first = [index for index, cell in enumerate(self.cells) if cell.repeat == 0]
        train = [self._score(predictions[index], self.cells[index].fit) for index in first]
        self.curves.epochs.append(epoch)
        self.curves.loss.append(loss)
        self.curves.train.append(float(np.mean(train)))
        self.curves.hold.append(float(np.mean(hold[first])))
        self._keep(epoch, hold)

    def _score(self, predictions: NDArray[Any], rows: NDArray[Any]) -> float:
        return self.metric(self.target[rows], predictions[rows])

    def _keep(self, epoch: int, hold: NDArray[Any]) -> None:
        gain = self.metric.advantage(hold, self.best_scores)
        running = self.waited < self.patience
        unset = np.isnan(self.best_scores)
        # A tie goes to the later state: coarse metrics such as accuracy saturate early.
        kept = running & (unset | (gain >= 0)) & ~np.isnan(hold)
        self.waited = np.where(running & ~(unset | (gain > 0)), self.waited + 1, self.waited)
        self.waited = np.where(running & (unset | (gain > 0)), 0, self.waited)
        self.best_scores = np.where(kept, hold, self.best_scores)
        for index in np.flatnonzero(kept):
            self.best_epochs[index] = epoch
            for mine, now in zip(self.best, self.networks.parameters, strict=True):
                mine[index] = now[index].detach()

    @property
    def finished(self) -> bool:
        """Whether no cell is still hoping."""
        return bool((self.waited >= self.patience).all())
