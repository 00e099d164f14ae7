"""SGD, Adam and RMSprop on one loss surface: the Huber loss of a line with two parameters."""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

import lossmith as lm

OPTIMISERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """A line with slope 2 and intercept -1, inputs far from centred: a long narrow valley."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, generator=generator) * 2 + 0.5
    return x, 2 * x - 1 + 0.1 * torch.randn(50, generator=generator)


def path(name: str, steps: int = 200) -> np.ndarray:
    """Parameters after every step, ``(steps + 1, 2)``."""
    x, y = data()
    line = torch.tensor([-1.0, 2.0], requires_grad=True)
    optimiser = OPTIMISERS[name]([line])
    visited = [line.detach().clone()]
    for _ in range(steps):
        optimiser.zero_grad()
        lm.huber_loss(line[0] * x + line[1], y).backward()
        optimiser.step()
        visited.append(line.detach().clone())
    return torch.stack(visited).numpy()


def value(slope: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """The surface."""
    x, y = data()
    lines = torch.tensor(slope)[..., None] * x + torch.tensor(intercept)[..., None]
    each = lm.huber_loss(lines, y.to(lines).expand_as(lines), reduction="none")
    return each.mean(-1).numpy()


def main(out: Path | None = None) -> dict[str, float]:
    """Print the last value of each optimiser; draw the paths if ``out`` is given."""
    paths = {name: path(name) for name in OPTIMISERS}
    last = {name: float(value(*p[-1:].T.astype("float64"))[0]) for name, p in paths.items()}
    for name, loss in last.items():
        print(f"{name:8} {loss:.5f} at slope {paths[name][-1, 0]:.2f}, {paths[name][-1, 1]:.2f}")
    if out is not None:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        slope, intercept = np.meshgrid(np.linspace(-1.5, 4, 80), np.linspace(-3, 3, 80))
        figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
        levels = axes.contourf(
            slope, intercept, np.log10(value(slope, intercept)), 20, cmap="Greys"
        )
        figure.colorbar(levels, label="log10 of the loss")
        for name, visited in paths.items():
            axes.plot(*visited.T, label=name, marker=".", markersize=3, linewidth=1)
        axes.set(xlabel="slope", ylabel="intercept", title="Huber loss of a line")
        axes.legend()
        figure.savefig(out)
        plt.close(figure)
    return last


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
