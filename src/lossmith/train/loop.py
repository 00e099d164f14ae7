"""The plain training loop: batches, AdamW, a step size that falls to 0, early stopping."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# cost(outputs (rows, outputs), rows (rows,)) -> mean loss of these rows
Cost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: Passes over the rows.
        batch: Rows in a step.
        rate: Step size of the first step; it falls to 0 in a straight line.
        decay: Decoupled decay of the network's weights; what a loss learns does not decay.
        patience: Epochs without improvement on the held-out rows after which it is over.
    """

    epochs: int
    batch: int
    rate: float
    decay: float
    patience: int


@dataclass
class Course:
    """What was seen on the way.

    Attributes:
        trained: Mean loss of the batches of each epoch, by their weight.
        held: Loss of the held-out rows after each epoch; empty without such rows.
        best: Number of the epoch whose weights were kept, from 1.
    """

    trained: list[float] = field(default_factory=list[float])
    held: list[float] = field(default_factory=list[float])
    best: int = 0


def train(
    network: nn.Module,
    learnt: Sequence[nn.Parameter],
    x: Tensor,
    weight: Tensor,
    cost: Cost,
    fit: Tensor,
    hold: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> Course:
    """Train a network in place.

    Args:
        network: Maps ``(rows, inputs)`` to ``(rows, outputs)``.
        learnt: Parameters of the loss.
        x: Features ``(rows, inputs)``.
        weight: Weights of the rows, ``(rows,)``.
        cost: The loss of a batch.
        fit: Rows to train on.
        hold: Rows that decide when to stop and which weights to keep; may be empty.
        recipe: How to train.
        generator: Where the order of the rows comes from.

    Raises:
        ValueError: If the loss is not finite.
    """
    groups = [{"params": list(network.parameters())}, {"params": learnt, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)
    steps, step = recipe.epochs * -(-len(fit) // recipe.batch), 0
    shares = weight / weight[fit].sum()
    course, kept = Course(), _Kept(network, learnt)
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        order = fit[torch.randperm(len(fit), generator=generator)]
        total = torch.zeros_like(shares[0])
        for rows in order.to(x.device).split(recipe.batch):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * (1 - step / steps)
            loss = cost(network(x[rows]), rows)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * shares[rows].sum()
            step += 1
        course.trained.append(float(total))
        course.held += [_held(network, x, cost, hold)] if len(hold) else []
        seen = (course.held or course.trained)[-1]
        if not math.isfinite(seen + course.trained[-1]):
            raise ValueError(
                f"the loss must stay finite, got {seen:g} in epoch {epoch}; a smaller "
                "learning_rate or another loss may help"
            )
        if not course.held:
            course.best = epoch
        elif seen < min(course.held[:-1], default=float("inf")):
            course.best, kept = epoch, _Kept(network, learnt)
        elif epoch - course.best >= recipe.patience:
            break
    if course.held:
        kept.put_back()
    network.eval()
    return course


class _Kept:
    """What is learned, as it was at some time."""

    @torch.no_grad()
    def __init__(self, network: nn.Module, learnt: Sequence[nn.Parameter]) -> None:
        self.network, self.learnt = network, learnt
        self.state = copy.deepcopy(network.state_dict())
        self.values = [parameter.clone() for parameter in learnt]

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what was learned since."""
        self.network.load_state_dict(self.state)
        for parameter, value in zip(self.learnt, self.values, strict=True):
            parameter.copy_(value)


@torch.no_grad()
def _held(network: nn.Module, x: Tensor, cost: Cost, rows: Tensor) -> float:
    network.eval()
    return float(cost(network(x[rows]), rows))
