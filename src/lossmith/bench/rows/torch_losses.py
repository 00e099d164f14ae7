"""Each of torch's losses against its twin here, from sizes of the launch to sizes of the memory."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Row, of
from lossmith.core.card import Card
from lossmith.core.catalogue import cards
from lossmith.core.domain import UNIT
from lossmith.core.signature import Signature

TORCH = "torch.nn.functional."


def twin_of(card: Card) -> str:
    """The name of torch's loss, or nothing. CTC's twin equals it behind a log-softmax only."""
    named = f"{TORCH}ctc_loss" if card.name == "ctc_loss" else card.same_as or ""
    return named if named.startswith(TORCH) else ""


def sample(way: Signature, hard: bool, draw: Draw, elements: int) -> tuple[Tensor, ...]:
    """Members of the declared domains, about so many in the first tensor, drawn on the CPU."""
    dims = next(iter(way.tensors.values())).dims
    axes = 2 if "*" in dims else max(2, len(dims))
    side = round(elements ** (1 / axes))
    # whatever the named dimensions of the first tensor leave; of no tensor if it has none itself
    star = (side,) * (axes - len(dims) + 1) if "*" in dims else ()
    sizes = {"N": side, "C": side, "D": side, "T": side, "S": side // 4}
    generator = torch.Generator().manual_seed(0)
    tensors: list[Tensor] = []
    for name, domain in way.tensors.items():
        known = [star if dim == "*" else (sizes[dim],) for dim in domain.dims]
        tensor = domain.sample(sum(known, ()), generator, sizes)
        tensor = tensor.float() if domain.floating is not False else tensor
        tensors.append(tensor.round() if hard and name == "target" else tensor)
    return tuple(t.to(draw.device) for t in tensors)


def headed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Behind a log-softmax, as torch's CTC wants it."""

    @functools.wraps(function)
    def behind(input: Tensor, *rest: Any) -> Tensor:
        return function(input.log_softmax(-1), *rest)

    return behind


def work(s: int, tensors: int, elements: int) -> Work:
    """Every tensor of the size of the first is read, and one gradient written."""
    return Work(bytes=(tensors + 1.0) * s * elements)


def rows() -> Iterator[Row]:
    """From the cards: one row per loss, and one more with labels of 0 and 1 in place of shares."""
    for card in cards().values():
        if not (twin := twin_of(card)):
            continue
        way = card.ways({})[0]
        assert card.function is not None
        module, _, name = twin.rpartition(".")
        ours, theirs = card.function, getattr(importlib.import_module(module), name)
        if card.coupling == "path":
            ours, theirs = headed(ours), headed(theirs)
        first = next(iter(way.tensors.values()))
        full = sum(domain.dims == first.dims for domain in way.tensors.values())
        target = way.tensors.get("target")
        for hard in (False, True) if target is not None and target.name == UNIT.name else (False,):
            yield Row(
                f"{card.name} (hard labels)" if hard else card.name,
                make=functools.partial(sample, way, hard),
                ours=ours,
                peers={"torch": of(theirs)},
                truth=theirs,
                work=functools.partial(work, tensors=full),
                small=({"elements": 64},),
                cpu=tuple({"elements": n} for n in (64, 4096, 1 << 20)),
                gpu=tuple({"elements": n} for n in (64, 1 << 20, 1 << 26)),
            )


FAMILY = Family(
    "torch_losses",
    "Losses that torch has too",
    "Default options, value checks included; the first tensor gets the gradient. Small sizes "
    "show what is spent before a kernel starts.",
    tuple(rows()),
)
