"""The one-pass engine against eager torch and against ``torch.compile`` of the same formula.

Run: ``python -m benchmarks.one_pass [--seconds 2.0]``. Forward plus backward, float32, mean.
Focal loss is compared with the formula of torchvision's ``sigmoid_focal_loss`` in torch calls.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from benchmarks.harness import interleaved, ratio, write

SIZES = (1 << 10, 1 << 16, 1 << 22)


def focal(input: Tensor, target: Tensor) -> Tensor:
    """Focal loss with alpha 0.25 and gamma 2, as vision code writes it."""
    p = torch.sigmoid(input)
    nll = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    share = p * target + (1 - p) * (1 - target)
    balance = 0.25 * target + 0.75 * (1 - target)
    return (balance * nll * (1 - share) ** 2).mean()


def logistic_tail(input: Tensor, target: Tensor) -> Tensor:
    """A loss of somebody's own."""
    residual = input - target
    return torch.log1p(residual * residual) + 0.1 * residual.abs()


OWN = {name: lm.one_pass(logistic_tail, engine=name) for name in ("one_pass", "blocks")}
ROWS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "focal": (
        lambda x, y: lm.sigmoid_focal_loss(x, y, alpha=0.25, gamma=2.0),
        focal,
    ),
    "huber": (lm.huber_loss, F.huber_loss),
    "own": (OWN["one_pass"], lambda x, y: logistic_tail(x, y).mean()),
}


def step(loss: Callable[..., Tensor], x: Tensor, y: Tensor, engine: str) -> Callable[[], None]:
    """Forward and backward under an engine."""

    def run() -> None:
        x.grad = None
        with lm.engine(engine):
            loss(x, y).backward()

    return run


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per loss and size")
    seconds = parser.parse_args().seconds
    table = Table("loss", "elements", "ms", "to eager torch", "to torch.compile", "to blocks")
    rows: list[dict[str, Any]] = []
    for name, (ours, theirs) in ROWS.items():
        compiled = torch.compile(theirs, dynamic=True)
        for size in SIZES:
            x, y = torch.randn(size, requires_grad=True), torch.rand(size).round()
            calls = {
                "ours": step(ours, x, y, "one_pass"),
                "blocks": step(OWN["blocks"] if name == "own" else ours, x, y, "blocks"),
                "torch": step(theirs, x, y, "plain"),
                "compile": step(compiled, x, y, "plain"),
            }
            times = interleaved(calls, seconds=seconds)
            found = {peer: ratio(times, "ours", peer) for peer in ("torch", "compile", "blocks")}
            rows.append({"loss": name, "elements": size, **found})
            shown = (f"{one['ratio']:.2f}" for one in found.values())
            table.add_row(name, str(size), f"{found['torch']['ms']:.3f}", *shown)
            write("one_pass", rows)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
