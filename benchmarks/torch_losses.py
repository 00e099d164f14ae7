"""Forward plus backward of each of torch's losses, lossmith against torch, at three sizes.

Run: ``python -m benchmarks.torch_losses [--seconds 1.0] [NAME ...]``. float32, mean reduction,
value checks included, all differentiable arguments of a training step (the first) get a gradient.
"""

import argparse
import functools
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
from lossmith.core.card import Card
from lossmith.core.catalogue import cards
from lossmith.core.domain import UNIT

SIZES = (64, 4096, 1 << 20)


def dimensions(size: int, axes: int) -> dict[str, int]:
    """Named dimensions, so many of which multiply to about ``size``: 8 x 8, or 4 x 4 x 4."""
    side = round(size ** (1 / axes))
    return {"N": side, "C": side, "D": side, "T": side, "S": side // 4}


def arguments(case: Case, size: int) -> tuple[torch.Tensor, ...]:
    """Float32 samples of about ``size`` elements in the first argument."""
    first = next(iter(case.way.tensors.values()))
    dims = dimensions(size, max(2, len(first.dims) - ("*" in first.dims)))
    # the further dimensions are an element loss's only ones; other losses have none
    star = (dims["N"],) if first.dims == ("*",) else ()
    return case.sample(0, torch.float32, star=star, **dims)


def twin_of(card: Card) -> str:
    """The name of torch's loss, or nothing. CTC's twin equals it behind a log-softmax only."""
    named = "torch.nn.functional.ctc_loss" if card.name == "ctc_loss" else card.same_as or ""
    return named if named.startswith("torch.nn.functional.") else ""


def step(
    function: Callable[..., Any],
    tensors: tuple[torch.Tensor, ...],
    head: Callable[[torch.Tensor], torch.Tensor] | None,
) -> Callable[[], None]:
    """One forward and backward pass, through the ``head`` of a model where the loss wants one."""
    leaf = tensors[0].clone().requires_grad_()
    rest = tensors[1:]

    def run() -> None:
        leaf.grad = None
        function(leaf if head is None else head(leaf), *rest).backward()

    return run


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=1.0, help="per loss and size")
    options = parser.parse_args()
    table = Table("loss", "elements", "ms", "torch ms", "ratio", "quartiles", "ratio of best")
    rows: list[dict[str, Any]] = []
    chosen = [c for c in cards().values() if twin_of(c) and c.name in (options.names or cards())]
    for card in track(chosen, description="measuring", console=Console(stderr=True)):
        case = next(cases(card))
        assert card.function is not None
        twin = resolve(twin_of(card))
        for size, hard in product(SIZES, (False, True)):
            tensors = arguments(case, size)
            if hard:
                target = case.way.tensors.get("target")
                if target is None or target.name != UNIT.name:
                    continue
                tensors = (tensors[0], tensors[1].round())
            head = functools.partial(torch.log_softmax, dim=-1) if card.coupling == "path" else None
            calls = {"ours": step(card.function, tensors, head), "torch": step(twin, tensors, head)}
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
