"""The blocks of a linear head: values, gradients, and what they cost.

The logits of a block of rows are one matrix product, a row pass turns them into values and slopes,
and two more products carry the slopes to the hidden states and to the weight, whose gradient is
added up in float32 (float64 for float64). Where every row gets a factor of its own in the backward
pass, the slopes wait for it: as many as the memory allows are kept, the others are worked out once
more.

N rows of H hidden states and C classes in blocks of n rows, on a machine with F additions and
multiplications and B bytes per second, and s bytes per number, take

    6 N H C / F  +  ceil(N / n) * 4 H C s / B   seconds and   n C s t   bytes:

three products, and for each block the weight read twice and its gradient read and written once;
t is 1 for a pass that works in place. The second term is 5 % of the first at ``n = 13 s F / B``
rows, whatever H and C are: beyond, larger blocks cost memory and gain nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.domain import Vector
from lossmith.core.reduction import Terms, reduce
from lossmith.core.route import Call
from lossmith.core.signature import HALF
from lossmith.engines.linear_products import Head, Sums
from lossmith.engines.row_passes import Rows, Swift, by_autograd, by_terms, inner, terms

# 13 s F / B: with s = 4 and F / B = 10 on a CPU, s = 2 and F / B = 200 on a large GPU
ENOUGH_ON_CPU = 512
ENOUGH = 4096
LEAST_MEMORY = 1 << 24
# What a pass by autograd holds at its height, in blocks of logits
TEMPORARIES = 6

# What wants a gradient: the number of its layer, and 0 for the hidden states, 1 for the weight, 2
# for the bias
Place = tuple[int, int]


class Task(NamedTuple):
    """A call of a row loss over linear layers.

    Attributes:
        heads: The layers.
        rest: The other tensors of the row loss.
        options: Its options.
        call: The whole, with the weights and the reduction.
        row: The row loss of logits, as its user calls it.
        swift: A pass that is tried before the loss itself.
        memory: Bytes for logits and slopes. None for what leaves all that is held, the sums of the
            gradients included, at the size that all logits would have in the dtype of the hidden
            states; but no less than a fifth of all logits, a quarter of the sums, and 16 MiB.
    """

    heads: tuple[Head, ...]
    rest: tuple[Tensor, ...]
    options: Mapping[str, Any]
    call: Call
    row: Callable[..., Tensor]
    swift: Swift | None
    memory: int | None

    @property
    def weight(self) -> Tensor | None:
        """The weight of each row, in the dtype of the logits."""
        given = self.call.weight
        return None if given is None else given.to(self.heads[0].dtype)

    def at(self, rows: Tensor) -> "Task":
        """The task of some rows."""
        rest, options = self.of(rows)
        heads = tuple(head._replace(hidden=head.hidden[rows]) for head in self.heads)
        weight = None if self.call.weight is None else self.call.weight[rows]
        call = self.call._replace(weight=weight)
        return self._replace(heads=heads, rest=rest, options=options, call=call)

    def reduced(self, values: Tensor, normaliser: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """The reduced value, and what gradients of the sum have to be multiplied by."""
        value = reduce(Terms(values, normaliser), self.weight, self.call.reduction)
        if self.call.reduction != "mean":
            return value, 1.0
        weights = [each for each in (normaliser, self.weight) if each is not None]
        if not weights:
            return value, 1 / len(values)
        total = math.prod(weights[1:], start=weights[0]).sum()
        return value, torch.where(total == 0, 1.0, 1 / total)

    def of(self, part: slice | Tensor) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """The other tensors and the options of some rows."""
        domains = tuple(self.call.way.tensors.values())[2 * len(self.heads) :]
        by_row = [d.dims[:1] == ("N",) for d in domains]
        rest = [t[part] if own else t for t, own in zip(self.rest, by_row, strict=True)]
        wide = [t.to(self.heads[0].dtype) if t.dtype in HALF else t for t in rest]
        options = dict(self.options)
        for name, value in options.items():
            rule = self.call.card.options[name]
            if isinstance(value, Tensor) and isinstance(rule, Vector) and rule.dims[:1] == ("N",):
                options[name] = value[part]
        return tuple(wide), options


class Blocks:
    """A task of tensors without a graph.

    Attributes:
        simple: Whether the mean is made of the values of the rows, so that blocks can serve.
        parts: The rows of each block.
        step: How many there are in the first.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        head, self.weight = task.heads[0], task.weight
        self.simple, self._swift, self._sure = True, task.swift, by_terms(task.row)
        self._buffers: tuple[Tensor, ...] | None = None
        self._choose()
        self.step, self._room = self._sizes()
        count = len(head.hidden)
        self.parts = [slice(i, min(i + self.step, count)) for i in range(0, count, self.step)]

    def _choose(self) -> None:
        """Let the first row tell which pass takes these options, and these logits.

        An infinite bias, say, concerns all rows, and what that takes needs more memory.
        """
        first, task = slice(0, 1), self.task
        rest, options = task.of(first)
        idle = (False,) * len(task.heads)
        if self._swift is not None:
            if self._swift(self._logits(first), rest, options, idle) is not None:
                return
            self._swift = None
        found = terms(inner(task.row, *self._logits(first), *rest, **options))
        self.simple = found.mean_of is None and not found.root
        if found.normaliser is None:
            self._sure = by_autograd(task.row)

    def _sizes(self) -> tuple[int, int]:
        """Rows of a block, and how many blocks of slopes can be kept besides."""
        heads, memory = self.task.heads, self.task.memory
        count, hidden = len(heads[0].hidden), heads[0].hidden
        row = sum(len(head.weight) * head.dtype.itemsize for head in heads)
        if memory is None:
            sums = sum(head.sums for head in heads)
            whole = sum(count * len(head.weight) * hidden.dtype.itemsize for head in heads)
            memory = max(LEAST_MEMORY, whole - sums, count * row // 5, sums // 4)
        held = row if self._swift is not None else row * (1 + TEMPORARIES)
        held += sum(len(head.weight) * hidden.dtype.itemsize for head in heads if head.coarse)
        enough = ENOUGH_ON_CPU if hidden.device.type == "cpu" else ENOUGH
        if self.task.call.reduction == "none":  # smaller blocks fill the memory better
            enough = max(enough // 4, min(enough, count // 16))
        most = max(1, min(count, enough, memory // held))
        step = -(-count // -(-count // most))  # all blocks of nearly the same size
        return step, max(0, memory - step * held) // (step * row)

    def adding(self, places: list[Place]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The reduced value, and its gradients; those of the values for ``reduction="none"``."""
        sums, wanted, found = self._sums(places), self._wanted(places), list[Rows]()
        for part in self.parts:
            rows = self._rows(part, wanted)
            _add(sums, part, rows.slopes, self._factor(part, rows))
            found.append(rows._replace(slopes=()))
        self._buffers = None
        value, scale = self.task.reduced(*_joined(found))
        return value, tuple(sums[layer].of(kind, scale) for layer, kind in places)

    def keeping(self, places: list[Place]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value of each row, and slopes and factor of as many blocks as there is room for."""
        wanted, found, kept = self._wanted(places), list[Rows](), list[Tensor]()
        for number, part in enumerate(self.parts):
            keep = number < self._room
            rows = self._rows(part, [keep and want for want in wanted], fresh=keep)
            if keep:
                kept += [slope for slope in rows.slopes if slope is not None]
                kept.append(self._factor(part, rows))
            found.append(rows._replace(slopes=()))
        return self.task.reduced(*_joined(found))[0], tuple(kept)

    def scaled(self, places: list[Place], grad: Tensor, kept: Sequence[Tensor]) -> list[Tensor]:
        """The gradients for a factor of each row, from what was kept and from the rest anew."""
        sums, wanted, left = self._sums(places), self._wanted(places), iter(kept)
        for part in self.parts:
            slopes = tuple(next(left, None) if want else None for want in wanted)
            factor = next(left, None)
            if factor is None:
                rows = self._rows(part, wanted)
                slopes, factor = rows.slopes, self._factor(part, rows)
            _add(sums, part, slopes, factor * grad[part])
        self._buffers = None
        return [sums[layer].of(kind) for layer, kind in places]

    def _wanted(self, places: list[Place]) -> list[bool]:
        """Which layers have something that wants a gradient."""
        layers = {layer for layer, _ in places}
        return [layer in layers for layer in range(len(self.task.heads))]

    def _sums(self, places: list[Place]) -> dict[int, Sums]:
        heads, layers = self.task.heads, {layer for layer, _ in places}
        return {at: Sums(heads[at], {kind for i, kind in places if i == at}) for at in layers}

    def _logits(self, part: slice, fresh: bool = True) -> tuple[Tensor, ...]:
        """The logits of some rows, in memory of their own or in that of the block before."""
        heads = self.task.heads
        count = part.stop - part.start
        buffers = self._buffers
        if fresh or buffers is None:
            buffers = tuple(h.weight.new_empty(count, len(h.weight), dtype=h.dtype) for h in heads)
            self._buffers = self._buffers if fresh else buffers
        return tuple(h.logits(part, out[:count]) for h, out in zip(heads, buffers, strict=True))

    def _rows(self, part: slice, wanted: Sequence[bool], fresh: bool = False) -> Rows:
        rest, options = self.task.of(part)
        if self._swift is not None:
            rows = self._swift(self._logits(part, fresh), rest, options, wanted)
            if rows is not None:
                return rows
        return self._sure(self._logits(part, fresh), rest, options, wanted)

    def _factor(self, part: slice, rows: Rows) -> Tensor:
        """What the slopes of each row have still to be multiplied by."""
        factor = torch.ones_like(rows.value) if rows.factor is None else rows.factor
        return factor if self.weight is None else factor * self.weight[part]


def _joined(found: list[Rows]) -> tuple[Tensor, Tensor | None]:
    """The values of all rows, and what their mean divides by the sum of."""
    own = [rows.normaliser for rows in found if rows.normaliser is not None]
    return torch.cat([rows.value for rows in found]), torch.cat(own) if own else None


def _add(
    sums: dict[int, Sums], part: slice, slopes: Sequence[Tensor | None], factor: Tensor
) -> None:
    for layer, slope in enumerate(slopes):
        if slope is not None:
            sums[layer].add(part, slope, factor)
