"""Trains what the experiments compare, on the tournament's stack: all models at once."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lossmith.choose.networks import build
from lossmith.choose.stack import Stack
from lossmith.tabular.networks import Model

# cost(outputs (n, outputs), targets (n, *)) -> costs, as many for each of the n rows
Cost = Callable[[Tensor, Tensor], Tensor]
# predict(features (members, rows, width)) -> outputs (costs, rates, members, rows, outputs)
Predict = Callable[[Tensor], Tensor]


def network(*hidden: int) -> Model:
    """A factory of networks with ReLU between linear layers, at torch's initial weights."""

    def make(inputs: int, outputs: int) -> nn.Module:
        widths = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for here, there in pairwise(widths):
            layers += [nn.Linear(here, there), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return make


def train(
    model: str | Model,
    costs: Sequence[Cost],
    rates: Sequence[float],
    x: Tensor,
    y: Tensor,
    *,
    outputs: int,
    epochs: int,
    seeds: Sequence[int],
    batch: int | None = None,
    schedule: Callable[[float], float] = lambda share: 1.0,
) -> Iterator[tuple[int, Predict]]:
    """Train a model for each cost, step size and member with Adam.

    The models of a member share initial weights and batch orders.

    Args:
        model: Name or factory of the network.
        costs: The losses, unreduced; a model goes down the mean of its batch.
        rates: Step sizes of Adam (no weight decay).
        x: Features of each member, ``(members, rows, width)``.
        y: Targets of each member, ``(members, rows, *)``.
        outputs: Outputs of the network.
        epochs: Passes over the rows.
        seeds: Seed of each member's initial weights and batch orders.
        batch: Rows of a batch; None takes all of them, in their order.
        schedule: Factor of the step size, from the share of the epochs that is done.

    Yields:
        Epoch, and a function that predicts with the weights at its end.
    """
    members, rows = x.shape[:2]
    modules = build(model, x.shape[2], outputs, list(seeds))
    copies = len(costs) * len(rates)
    sizes = torch.tensor(rates).repeat_interleave(members).repeat(len(costs))
    stack = Stack(modules * copies, sizes, 0.0, "adamw")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    whole = torch.arange(rows).expand(members, -1)

    def predict(features: Tensor) -> Tensor:
        made = stack.evaluate(features.repeat(copies, 1, 1))
        return made.view(len(costs), len(rates), members, *made.shape[1:])

    for epoch in range(1, epochs + 1):
        stack.rates = sizes * schedule((epoch - 1) / epochs)
        order = whole
        if batch is not None:
            order = torch.stack([torch.randperm(rows, generator=one) for one in generators])
        for chosen in order.split(batch or rows, dim=1):
            place = torch.arange(members)[:, None]
            made = stack(x[place, chosen].repeat(copies, 1, 1))
            targets = y[place, chosen].repeat(len(rates), *[1] * (y.ndim - 1)).flatten(0, 1)
            parts = [
                cost(part.flatten(0, 1), targets).view(len(part), -1).mean(1)
                for cost, part in zip(costs, made.chunk(len(costs)), strict=True)
            ]
            stack.step(torch.cat(parts).sum())
        yield epoch, predict


def newton(objective: Callable[[Tensor], Tensor], start: Tensor, steps: int = 50) -> Tensor:
    """The minimum of a smooth, convex function of few parameters, ``(parameters,)``."""
    at = start
    for _ in range(steps):
        slope, curvature = torch.func.grad(objective)(at), torch.func.hessian(objective)(at)
        step = torch.linalg.solve(curvature, slope)
        at = at - step
        if float(step.abs().max()) < 1e-10:
            break
    return at
