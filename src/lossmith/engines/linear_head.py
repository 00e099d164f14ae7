"""A row loss over linear layers, whose logits never exist all at once.

:mod:`lossmith.engines.linear_blocks` has the blocks and what they cost. Here is which calls they
serve, and how the value is connected to its arguments: gradients are worked out with the value, and
the backward pass scales them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.autocast import rounded
from lossmith.core.checks import eager
from lossmith.core.route import Call
from lossmith.engines.linear_attention import Attended, attended, attends
from lossmith.engines.linear_blocks import Blocks, Place, Task
from lossmith.engines.linear_products import Head
from lossmith.engines.one_pass import Path, connect
from lossmith.engines.pull import Pull, is_one
from lossmith.engines.row_passes import Swift

# Logits up to which one product and one loss cost less than the way through blocks; at 1 Mi, one
# thread, blocks took 1.4 times the time of torch, the direct way 0.95
FEW = 1 << 22


class LinearHead:
    """The engine of a row loss over linear layers.

    The first tensors of its calls are the hidden states and the weight of each layer.

    Args:
        row: The row loss of logits, as its user calls it.
        biases: Names of the options that hold the bias of each layer.
        swift: A pass that is tried before the loss itself.
        memory: Bytes for logits and slopes; None for a choice by the size of the call.
        dropped: Options of a call that are not the row loss's.
    """

    def __init__(
        self,
        row: Callable[..., Tensor],
        biases: tuple[str, ...],
        swift: Swift | None = None,
        memory: int | None = None,
        dropped: tuple[str, ...] = (),
    ) -> None:
        self.row, self.biases, self.swift, self.memory = row, biases, swift, memory
        self.dropped = dropped

    def plan(self, call: Call) -> Path:
        """How a call is computed, and why."""
        reason = self._declines(call)
        if reason:
            return Path("plain", reason)
        if (few := _size(call)) <= FEW:
            return Path("plain", f"{few} logits, and up to {FEW} blocks gain nothing")
        task = self._task(call.over([t.detach() for t in call.arguments()]))
        if attends(task):
            return Path("attention", "no logits are written, if all are finite and none is huge")
        blocks = Blocks(task)
        if not blocks.simple:
            return Path("plain", "its mean is not made of the values of its rows")
        return Path("blocks", f"{len(blocks.parts)} of up to {blocks.step} rows")

    def __call__(self, call: Call) -> Tensor | None:
        """The value, connected to its arguments; None leaves it to the plain function."""
        if self._declines(call):
            return None
        if _size(call) <= FEW:
            return self._at_once(call)
        given = call.arguments()
        needs = tuple(i for i, t in enumerate(given) if torch.is_grad_enabled() and t.requires_grad)
        places = self._places(call, needs)
        with torch.autocast(given[0].device.type, enabled=False):
            bare = call.over([t.detach() for t in given])
            task = self._task(bare)
            work = attended(task) or Blocks(task)
            if not work.simple:
                return None
            if call.reduction == "none" and any(part for _, part in places):
                value, slopes = work.keeping(places)
                kept = (*bare.arguments(), *slopes)
                pull = self._pull_kept(bare, places, type(work))
            else:
                value, kept = work.adding(places)
                pull = _pull_added
        value = rounded(value, given[0])
        return connect(call, needs, value, pull, kept) if needs else value

    def _declines(self, call: Call) -> str:
        given = call.arguments()
        if any(t.ndim != 2 for t in call.tensors[: 2 * len(self.biases)]):
            return "hidden states and weight are not all matrices"
        if not eager(*given):
            return "a transform, forward-mode AD or a tensor subclass is at work"
        ours = {id(t) for t in call.tensors[: 2 * len(self.biases)]}
        ours |= {id(call.options.get(name)) for name in self.biases}
        if any(t.requires_grad and id(t) not in ours for t in given):
            return "more than hidden states, weight and bias wants a gradient"
        return ""

    def _task(self, call: Call) -> Task:
        options = {k: v for k, v in call.options.items() if k not in self.dropped}
        biases = [options.pop(name, None) for name in self.biases]
        layers, rest = call.tensors[: 2 * len(biases)], call.tensors[2 * len(biases) :]
        pairs = zip(layers[::2], layers[1::2], biases, strict=True)
        heads = tuple(Head(*each) for each in pairs)
        return Task(heads, rest, options, call, self.row, self.swift, self.memory)

    def _at_once(self, call: Call) -> Tensor:
        task = self._task(call)
        logits = [head.plain() for head in task.heads]
        weighed = {"sample_weight": call.weight, "reduction": call.reduction}
        value = self.row(*logits, *task.rest, **task.options, **weighed)
        return rounded(value, call.tensors[0])

    def _places(self, call: Call, needs: tuple[int, ...]) -> list[Place]:
        names = [name for name, value in call.options.items() if isinstance(value, Tensor)]
        count = len(call.tensors)
        return [
            divmod(i, 2) if i < count else (self.biases.index(names[i - count]), 2) for i in needs
        ]

    def _pull_kept(
        self, bare: Call, places: list[Place], way: type[Attended] | type[Blocks]
    ) -> Pull:
        count = len(bare.arguments())
        # the tensors come with the graph, which guards them against changes and frees them
        template = bare.over([torch.empty(0)] * count)

        def pull(grad: Tensor, needed: Any, leaves: tuple[Tensor, ...], *kept: Tensor) -> Any:
            work = way(self._task(template.over(kept[:count])))
            sums = work.scaled(places, grad, kept[count:])
            return [each.to(leaf.dtype) for each, leaf in zip(sums, leaves, strict=True)]

        return pull


def _size(call: Call) -> int:
    return call.tensors[0].shape[0] * call.tensors[1].shape[0]


def _pull_added(grad: Tensor, needed: Any, leaves: tuple[Tensor, ...], *sums: Tensor) -> Any:
    if is_one(grad):
        return [each.to(leaf.dtype) for each, leaf in zip(sums, leaves, strict=True)]
    factor = grad.unsqueeze(1) if grad.ndim else grad  # of each row, where only those want one
    return [(each * factor).to(leaf.dtype) for each, leaf in zip(sums, leaves, strict=True)]
