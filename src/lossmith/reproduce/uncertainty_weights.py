"""Weights of tasks learned as their noise."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lossmith.losses.elementwise.gaussian_nll import gaussian_nll_loss
from lossmith.reproduce.claims import Claim, Measured, Reproduction, Tick
from lossmith.reproduce.training import train

ROWS, STEPS = 5000, 3000
NOISES = (0.1, 5.0)
WEIGHTS = ((1.0, 2.0, 3.0), (-1.0, 0.0, 1.0))


class Tasks(nn.Module):
    """A linear map for each task, and the logarithm of its noise variance; all start at 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        tasks = outputs // 2
        self.line = nn.Linear(inputs, tasks, bias=False)
        self.log_variance = nn.Parameter(torch.zeros(tasks))
        nn.init.zeros_(self.line.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions, then log variances, ``(rows, 2 tasks)``."""
        made = self.line(x)
        return torch.cat([made, self.log_variance.expand_as(made)], -1)


def _cost(made: Tensor, target: Tensor) -> Tensor:
    """Sum over the tasks of ``exp(-s) error^2 / 2 + s / 2``."""
    value, log_variance = made.chunk(2, -1)
    return gaussian_nll_loss(value, target, log_variance.exp(), reduction="none").sum(-1)


def _draw(seed: int) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((ROWS, 3))
    y = x @ np.array(WEIGHTS).T + np.array(NOISES) * random.standard_normal((ROWS, 2))
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


def _measure(seeds: Sequence[int], tick: Tick) -> Measured:
    x, y = (torch.stack(parts) for parts in zip(*map(_draw, seeds), strict=True))
    made = torch.zeros(())
    for step, predict in train(Tasks, [_cost], (0.02,), x, y, outputs=4, epochs=STEPS, seeds=seeds):
        if step == STEPS:
            made = predict(x)[0, 0]
        tick(step / STEPS)
    value, log_variance = made.chunk(2, -1)
    learned = (log_variance[:, 0] / 2).exp()
    total = gaussian_nll_loss(value, y, log_variance.exp(), reduction="none").mean(1)
    return Measured(
        {
            "quiet": (learned[:, 0] / NOISES[0]).tolist(),
            "loud": (learned[:, 1] / NOISES[1]).tolist(),
            "negative": total[:, 0].tolist(),
        },
        {
            "learned noise of the quiet task": float(learned[:, 0].mean()),
            "learned noise of the loud task": float(learned[:, 1].mean()),
        },
    )


REPRODUCTION = Reproduction(
    name="uncertainty-weights",
    finding="Weighting tasks by a learned uncertainty finds the noise of each task.",
    source="Kendall, Gal and Cipolla 2018 (CVPR), arXiv 1705.07115",
    published="The weight of a task follows its homoscedastic uncertainty, learned with it.",
    setting="two linear tasks of 3 normal features with noise 0.1 and 5, 5000 rows; Adam 0.02, "
    "3000 steps on all rows from zeros",
    losses=("gaussian_nll_loss",),
    metric="learned standard deviation over the true one",
    seeds=5,
    claims=(
        # first check: 0.0999 and 4.94
        Claim("quiet", "learned over true noise, task with noise 0.1", 0.95, 1.05),
        Claim("loud", "learned over true noise, task with noise 5", 0.95, 1.05),
        # 1/2 + log 0.1 = -1.80: a loss below 0 is no mistake
        Claim("negative", "loss of the quiet task: below 0", -1.9, -1.7, neutral=0.0),
    ),
    measure=_measure,
    remark="This shows what the weights learn, not the paper's gain in accuracy on road scenes.",
)
