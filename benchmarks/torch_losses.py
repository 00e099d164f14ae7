"""Forward plus backward of each of torch's losses, lossmith against torch, at three sizes.

Run: ``python -m benchmarks.torch_losses [--seconds 1.0] [NAME ...]``. float32, mean reduction,
value checks included, all differentiable arguments of a training step (the first) get a gradient.
"""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness import interleaved, ratio, write
from lossmith.contract.cases import Case, cases
from lossmith.contract.values import resolve
from lossmith.core.catalogue import cards
from lossmith.core.domain import UNIT

SIZES = (64, 4096, 1 << 20)


def dimensions(size: int) -> dict[str, int]:
    """Named dimensions, two of which multiply to ``size``: 8 x 8, 64 x 64, 1024 x 1024."""
    side = round(size**0.5)
    return {"N": side, "C": side, "D": side, "T": min(side, 64), "S": min(side // 4, 12)}


def arguments(case: Case, size: int) -> tuple[torch.Tensor, ...]:
    """Float32 samples of about ``size`` elements in the first argument."""
    dims = dimensions(size)
    # the further dimensions are an element loss's only ones; other losses have none
    star = (dims["N"],) if next(iter(case.way.tensors.values())).dims == ("*",) else ()
    return case.sample(0, torch.float32, star=star, **dims)


def step(function: Callable[..., Any], tensors: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    """One forward and backward pass."""
    leaf = tensors[0].clone().requires_grad_()
    rest = tensors[1:]

    def run() -> None:
        leaf.grad = None
        function(leaf, *rest).backward()

    return run


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=1.0, help="per loss and size")
    options = parser.parse_args()
    table = Table("loss", "elements", "ms", "torch ms", "ratio", "quartiles", "ratio of best")
    rows: list[dict[str, Any]] = []
    twins = [c for c in cards().values() if (c.same_as or "").startswith("torch.nn.functional.")]
    chosen = [c for c in twins if not options.names or c.name in options.names]
    for card in track(chosen, description="measuring", console=Console(stderr=True)):
        case = next(cases(card))
        assert card.function is not None
        twin = resolve(card.same_as or "")
        for size, hard in product(SIZES, (False, True)):
            tensors = arguments(case, size)
            if hard:
                target = case.way.tensors.get("target")
                if target is None or target.name != UNIT.name:
                    continue
                tensors = (tensors[0], tensors[1].round())
            calls = {"ours": step(card.function, tensors), "torch": step(twin, tensors)}
            found = ratio(interleaved(calls, seconds=options.seconds), "ours", "torch")
            name = f"{card.name}, hard labels" if hard else card.name
            rows.append({"loss": name, "elements": tensors[0].numel(), **found})
            table.add_row(
                name,
                str(tensors[0].numel()),
                f"{found['ms']:.4f}",
                f"{found['peer_ms']:.4f}",
                f"{found['ratio']:.2f}",
                f"{found['ratio_low']:.2f} - {found['ratio_high']:.2f}",
                f"{found['ratio_of_best']:.2f}",
            )
        if not options.names:  # after each loss, so that a run cut short keeps what it measured
            write("torch_losses", rows)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
