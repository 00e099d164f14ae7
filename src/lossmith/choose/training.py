"""Train losses, step sizes and cells in one stack, each model stopped by the user's metric."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.choose.folds import Cell
from lossmith.choose.heads import Head
from lossmith.choose.metric import Metric
from lossmith.choose.networks import build
from lossmith.choose.stack import Optimiser, Stack
from lossmith.tabular.networks import Model

Tick = Callable[[float], None]


@dataclass(frozen=True)
class Settings:
    """How every loss is trained.

    Attributes:
        epochs: Most passes over the training rows.
        rate: Step size before any tuning.
        decay: Decoupled weight decay.
        looks: How often, at most, the metric is looked at on the way.
        patience: Looks without improvement after which a model is finished.
        trials: Step sizes and options tried for each loss; 1 leaves both at their defaults.
        optimiser: ``"adamw"``, which takes the scale of a loss out of the steps, or ``"sgd"``.
        equalise: Scale each loss so that its gradient starts as long as the baseline's.
    """

    epochs: int = 100
    rate: float = 0.003
    decay: float = 0.01
    looks: int = 25
    patience: int = 6
    trials: int = 8
    optimiser: Optimiser = "adamw"
    equalise: bool = False

    def batch(self, rows: int) -> int:
        """Batch size: about 10 steps in an epoch, between 16 and 512 rows."""
        return int(np.clip(2 ** round(np.log2(rows / 10)), 16, 512))


@dataclass(frozen=True)
class Contestant:
    """A loss in the units of each cell, and the step sizes it is trained with.

    Attributes:
        head: The loss and its units.
        rates: Step sizes; one model is trained for each of them in each cell.
        weights: Factor of the loss in each cell, ``(cells,)``.
    """

    head: Head
    rates: tuple[float, ...]
    weights: Tensor


@dataclass
class Fitted:
    """One trained model.

    Attributes:
        best: Network outputs for all rows at the kept epoch, ``(rows, outputs)``.
        last: The same at the end of the training.
        best_epoch: The kept epoch.
        hold: The metric on the held-out rows, at the kept epoch.
        epochs: Epochs at which the metric was looked at.
        losses: The loss's own value on the training rows since the last look; NaN at epoch 0.
        trained: The metric on the training rows at each look; cells of the first repeat only.
        held: The metric on the held-out rows at each look.
        failure: Why there is no result; empty if there is.
    """

    best: Tensor | None = None
    last: Tensor | None = None
    best_epoch: int = 0
    hold: float = float("nan")
    epochs: list[int] = field(default_factory=list[int])
    losses: list[float] = field(default_factory=list[float])
    trained: list[float] = field(default_factory=list[float])
    held: list[float] = field(default_factory=list[float])
    failure: str = ""
    waited: int = 0


def train(
    contestants: Sequence[Contestant],
    model: str | Model,
    x: Tensor,
    target: NDArray[Any],
    cells: Sequence[Cell],
    metric: Metric,
    settings: Settings,
    tick: Tick = lambda share: None,
) -> list[list[list[Fitted]]]:
    """Train every contestant with each of its step sizes in every cell, all at once.

    Args:
        contestants: Losses with the same number of network outputs.
        model: Name or factory of the network.
        x: Features of each cell, ``(cells, rows, width)``.
        target: The target as the metric sees it, ``(rows,)``.
        cells: The cells, with as many training rows each.
        metric: What decides when to stop and which state to keep.
        settings: The same for every loss.
        tick: Called with the share that is done.

    Returns:
        A model for each contestant, step size and cell, in that order.
    """
    race = _Race(contestants, model, x, target, cells, metric, settings)
    race.run(tick)
    tick(1.0)
    found = iter(race.fitted)
    return [[[next(found) for _ in cells] for _ in one.rates] for one in contestants]


class _Race:
    """The models that still run, in the order of their losses."""

    def __init__(
        self,
        contestants: Sequence[Contestant],
        model: str | Model,
        x: Tensor,
        target: NDArray[Any],
        cells: Sequence[Cell],
        metric: Metric,
        settings: Settings,
    ) -> None:
        self.contestants, self.x, self.target, self.cells = contestants, x, target, cells
        self.metric, self.settings = metric, settings
        count = len(cells)
        owners = [place for place, one in enumerate(contestants) for _ in one.rates]
        self.owner = torch.tensor(owners).repeat_interleave(count)
        self.cell = torch.arange(count).repeat(len(owners))
        self.name = torch.arange(len(self.owner))
        self.fitted = [Fitted() for _ in self.owner]
        rates = torch.tensor([rate for one in contestants for rate in one.rates])
        width = max(1, contestants[0].head.candidate.width)
        seeds = [cell.seed for cell in cells]
        self.stack = Stack(
            build(model, x.shape[2], width, seeds) * len(owners),
            rates.repeat_interleave(count),
            settings.decay,
            settings.optimiser,
            torch.tensor(seeds * len(owners)),
        )
        self.stack.probe(x[self.cell, :2])
        self.losses = [Losses(one, self._cells_of(place)) for place, one in enumerate(contestants)]
        self.total = torch.zeros(len(self.owner))

    def _cells_of(self, place: int) -> Tensor:
        return self.cell[self.owner == place]

    def run(self, tick: Tick) -> None:
        settings = self.settings
        every = -(-settings.epochs // settings.looks)
        batches = Batches(self.cells, settings)
        self._look(0, 0)
        for epoch in range(1, settings.epochs + 1):
            for chosen in batches:
                rows = chosen[self.cell]
                losses = self._values(self.stack(self.x[self.cell[:, None], rows]), rows)
                self.stack.step(losses.sum())
                self.total += losses.detach()
            if epoch % every == 0 or epoch == settings.epochs:
                self._look(epoch, len(batches) * ((epoch - 1) % every + 1))
                tick(epoch / settings.epochs)
                if not len(self.name):
                    break

    def _values(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The mean loss of each model's batch, ``(models,)``."""
        values: list[Tensor] = []
        for one, part, chosen in zip(
            self.losses, self._parts(outputs), self._parts(rows), strict=True
        ):
            try:
                values.append(one(part, chosen))
            except Exception as error:  # whatever a loss of anyone raises is its own failure
                one.refusal = f"the loss refused: {error}"
                values.append(part.flatten(1).sum(1) * torch.nan)
        return torch.cat(values)

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Cut what belongs to the models into what belongs to each contestant."""
        return rows.split([len(one.cell) for one in self.losses])

    def _look(self, epoch: int, steps: int) -> None:
        """Look at the metric, remember the best states, let go of the models that are done."""
        outputs = self.stack.evaluate(self.x[self.cell])
        going: list[int] = []
        place = 0
        for one, part in zip(self.losses, self._parts(outputs), strict=True):
            made = one.head.predict(part, self.metric) if len(part) else ()
            for output, prediction in zip(part, made, strict=True):
                fitted = self.fitted[int(self.name[place])]
                loss = float(self.total[place]) / steps if steps else float("nan")
                self._judge(fitted, self.cells[int(self.cell[place])], epoch, loss, prediction)
                if steps and not np.isfinite(loss):
                    found = f"the loss on the training rows was not finite by epoch {epoch}"
                    fitted.failure = one.refusal or found
                elif not bool(output.isfinite().all()):
                    fitted.failure = f"the network's output was not finite by epoch {epoch}"
                elif fitted.best_epoch == epoch:
                    fitted.best = output.clone()
                if not fitted.failure and fitted.waited < self.settings.patience:
                    going.append(place)
                if fitted.waited >= self.settings.patience or epoch == self.settings.epochs:
                    fitted.last = output.clone()
                place += 1
        self._go_on(torch.tensor(going, dtype=torch.int64))

    def _judge(
        self, fitted: Fitted, cell: Cell, epoch: int, loss: float, prediction: NDArray[Any]
    ) -> None:
        hold = self.metric(self.target[cell.hold], prediction[cell.hold])
        fitted.epochs.append(epoch)
        fitted.losses.append(loss)
        fitted.held.append(hold)
        if cell.repeat == 0:  # for the curves; elsewhere it would cost more than it shows
            fitted.trained.append(self.metric(self.target[cell.fit], prediction[cell.fit]))
        gain = self.metric.advantage(hold, fitted.hold)
        better = np.isnan(fitted.hold) or gain > 0
        # A tie goes to the later state: coarse metrics such as accuracy saturate early.
        if not np.isnan(hold) and (better or gain == 0):
            fitted.hold, fitted.best_epoch = hold, epoch
        fitted.waited = 0 if better else fitted.waited + 1

    def _go_on(self, going: Tensor) -> None:
        self.total = torch.zeros(len(going))
        if len(going) == len(self.name):
            return
        self.owner, self.cell, self.name = self.owner[going], self.cell[going], self.name[going]
        self.stack.keep(going)
        for place, one in enumerate(self.losses):
            one.serve(self._cells_of(place))


class Losses:
    """One contestant's loss for the models that still run."""

    def __init__(self, contestant: Contestant, cells: Tensor) -> None:
        self.contestant = contestant
        self.refusal = ""
        self.serve(cells)

    def serve(self, cells: Tensor) -> None:
        """Go on with the models of these cells."""
        self.cell = cells
        self.head = self.contestant.head.at(cells)
        self.weights = self.contestant.weights[cells]

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The mean loss of each model's batch, ``(models,)``."""
        if not len(outputs):
            return outputs.new_zeros(0)
        one = self.head.candidate
        seen = self.head.input(outputs)
        target = self.head.target[torch.arange(len(rows))[:, None], rows]
        if one.rowwise:  # one call for the rows of all models, and no vmap
            shape = (-1, *seen.shape[2:])
            each = one.function(
                seen.reshape(shape),
                target.reshape(-1, *target.shape[2:]),
                reduction="none",
                **one.options,
            )
            return self.weights * each.view(len(rows), -1).mean(1)

        def single(input: Tensor, target: Tensor) -> Tensor:
            return one.function(input, target, **one.options)

        return self.weights * torch.vmap(single)(seen, target)


class Batches:
    """Rows of each cell in an order of its own; the same orders for every loss."""

    def __init__(self, cells: Sequence[Cell], settings: Settings) -> None:
        self.fits = torch.from_numpy(np.stack([cell.fit for cell in cells]))
        self.size = settings.batch(self.fits.shape[1])
        self.generators = [torch.Generator().manual_seed(cell.seed + 1) for cell in cells]

    def __len__(self) -> int:
        return -(-self.fits.shape[1] // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.fits.shape[1]
        orders = [torch.randperm(rows, generator=generator) for generator in self.generators]
        yield from self.fits.gather(1, torch.stack(orders)).split(self.size, dim=1)


def gradient_norms(
    head: Head, model: str | Model, x: Tensor, cells: Sequence[Cell], settings: Settings
) -> Tensor:
    """Median gradient norm of a loss over eight batches at the initial weights, ``(cells,)``.

    A loss that refuses has norm NaN.
    """
    width = max(1, head.candidate.width)
    seeds = [cell.seed for cell in cells]
    modules = build(model, x.shape[2], width, seeds)
    stack = Stack(modules, torch.zeros(len(cells)), 0.0, "sgd", torch.tensor(seeds))
    stack.probe(x[:, :2])
    loss = Losses(Contestant(head, (0.0,), torch.ones(len(cells))), torch.arange(len(cells)))
    norms: list[Tensor] = []
    batches = Batches(cells, settings)
    while len(norms) < 8:
        for rows in batches:
            try:
                value = loss(stack(x[torch.arange(len(cells))[:, None], rows]), rows).sum()
            except (ValueError, TypeError, RuntimeError):
                return torch.full((len(cells),), torch.nan)
            found = torch.autograd.grad(value, stack.leaves, allow_unused=True)
            squares = [one.flatten(1).square().sum(1) for one in found if one is not None]
            norms.append(torch.stack(squares).sum(0).sqrt())
    return torch.stack(norms[:8]).median(0).values
