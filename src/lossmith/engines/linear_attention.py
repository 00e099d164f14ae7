"""Cross-entropy of a linear head in bfloat16 by torch's attention kernel. On the CPU only.

With p the probabilities of the classes, the gradient in a hidden state is made of the sum over c of
``p_c W_c``: attention of the hidden state over the weight. That in the weight of a class is made of
the sum over i of ``p_ic h_i``: attention of the class over the hidden states, each with its
log-sum-exp taken off its logits, times what attention divides by. Product, softmax and product
happen in the cache, from bfloat16 with sums in float32, and no logits are ever written.

What attention returns is bfloat16, which has no digits for ``p - 1`` where p is near 1. So a mask
leaves out the class of the row itself, whose part is worked out by itself. With d the log-sum-exp
of the other classes less the logit of the own one, ``-log p = log(1 + e^d)``: nothing cancels,
however likely the class.
"""

import functools
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import softplus
from lossmith.engines.class_rows import class_rows
from lossmith.engines.linear_blocks import Place, Task

_ARGUMENTS = ["query", "key", "value", "dropout_p", "is_causal", "attn_mask", "scale"]


def _kernel() -> Callable[..., Any] | None:
    """The attention, and the logarithm of what it divided by; None if torch has it no more.

    The name is private to torch, and what it takes may change.
    """
    found = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    known = found and [each.name for each in found.default._schema.arguments] == _ARGUMENTS
    return found if known else None


attend = _kernel()
# Classes from which it takes less time than blocks: 82 ms against 67 for 16384 rows of 256 features
# and 1000 classes, 50 against 53 for 4096 of 64 and 8192 (2 threads, as below)
MANY = 4096
# Rows and classes of a mask, 16 MiB: at 1024, 2048 and 4096 classes 8192 rows of 512 features and
# 32000 classes take 1220, 970 to 1040 and 1010 ms, whatever the rows
ROWS = CLASSES = 2048
# Features up to which it takes less time than blocks: 253 ms against 328 at 1024 (4096 rows, 8192
# classes), 957 against 831 at 4096 (1024 rows, 16000 classes)
WIDE = 1024
# Log-sum-exps up to which a bias in float32 loses less than bfloat16 does: 2^-11 against 2^-9
LARGE = 8192.0
# Values that tell about where their mean is
SAMPLE = 64
OPTIONS = {"weight", "ignore_index", "label_smoothing", "z_loss", "logit_scale"}


class Seen(NamedTuple):
    """What one look at the rows leaves.

    Attributes:
        gap: The log-sum-exp of the other classes less the own logit, ``(n)``.
        lse: That of all classes, ``(n)``.
        mean: The sum of ``p_c W_c`` over the other classes, divided by that of ``p_c``, ``(n, H)``.
    """

    gap: Tensor
    lse: Tensor
    mean: Tensor


def attends(task: Task) -> bool:
    """Whether attention can serve a task, and gains time."""
    head = task.heads[0]
    return (
        attend is not None
        and task.swift is class_rows
        and head.rounds
        and head.bias is None
        and not task.rest[0].is_floating_point()
        and all(name in OPTIONS or not value for name, value in task.options.items())
        and len(head.weight) >= MANY
        and head.weight.shape[1] <= WIDE
    )


def attended(task: Task) -> "Attended | None":
    """The task by attention, if that can serve it and its logits."""
    if not attends(task):
        return None
    found = Attended(task)
    found.look()
    gap, lse, mean = found.seen
    finite = math.isfinite((gap.sum() + mean.sum()).item())
    return found if finite and bool((lse.abs() <= LARGE).all()) else None


class Attended:
    """A task by attention.

    Attributes:
        task: That of the rows that are not absent.
        seen: What a look at them left.
        simple: As that of blocks.
    """

    simple = True

    def __init__(self, task: Task) -> None:
        self._count, weight = len(task.rest[0]), task.call.weight
        present = None if weight is None else weight.nonzero().squeeze(1)
        self._present = None if present is None or len(present) == self._count else present
        self.task = task if self._present is None else task.at(self._present)
        hidden, weight, _ = self.task.heads[0]
        self.hidden, self.weight = hidden.contiguous(), weight.contiguous()
        self.target = self.task.rest[0]
        options = self.task.options
        self.scale = options.get("logit_scale", 1.0)
        self.z_loss = options.get("z_loss", 0.0)
        smoothing = options.get("label_smoothing", 0.0)
        self.smooth = smoothing / len(self.weight)
        given = options.get("weight")
        self.by_class = None if given is None else given.float()
        factor = torch.ones_like(self.target, dtype=torch.float32)
        self.factor = factor if self.by_class is None else self.by_class[self.target]
        self.pull = (1 - smoothing) * self.factor

    def look(self) -> None:
        """See which classes the rows take."""
        zero = torch.zeros_like(self.pull)
        lse, mean = zero - math.inf, torch.zeros_like(self.hidden, dtype=torch.float32)
        for rows, classes, mask in self._pieces(self.target, zero, by_row=True):
            tile = self.weight[classes]
            values, offset = _centred(tile)
            found, log_sum = self._attention(self.hidden[rows], tile, values, mask)
            before, every = lse[rows], torch.logaddexp(lse[rows], log_sum)
            mean[rows] *= (before - every).exp_().unsqueeze(1)
            found = found.float().add_(offset)
            mean[rows].addcmul_(found, (log_sum - every).exp_().unsqueeze(1))
            lse[rows] = every
        own = (self.hidden.float() * self.weight[self.target].float()).sum(1) * self.scale
        self.seen = Seen(lse - own, torch.logaddexp(lse, own), mean)

    def adding(self, places: list[Place]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The reduced value, and its gradients."""
        normaliser = None if self.by_class is None else self.factor
        value, scale = self.task.reduced(self._values(), normaliser)
        return self._back(value), tuple(self._gradients(places, torch.ones_like(self.pull) * scale))

    def keeping(self, places: list[Place]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value of each row, and what the backward pass needs."""
        value, _ = self.task.reduced(self._values(), None)
        return self._back(value), tuple(self.seen)

    def scaled(self, places: list[Place], grad: Tensor, kept: tuple[Tensor, ...]) -> list[Tensor]:
        """The gradients for a factor of each row."""
        self.seen = Seen(*kept)
        grad = grad if self._present is None else grad[self._present]
        return self._gradients(places, grad.float())

    def _values(self) -> Tensor:
        gap, lse, _ = self.seen
        values = self.pull * softplus(gap)
        if self.smooth:
            reach = self.scale * (self.hidden.float() @ self._far)
            values += self.smooth * (self._mass * lse - reach)
        return values + self.z_loss * lse * lse if self.z_loss else values

    def _gradients(self, places: list[Place], factor: Tensor) -> list[Tensor]:
        """The gradients of the sum of ``factor_i`` times the value of row i."""
        gap, lse, mean = self.seen
        factor = factor * self.scale
        factor = factor if self.task.weight is None else factor * self.task.weight
        # the slope in the logit of another class is spread p_c, that of the own one is own; both
        # less what smoothing takes from all classes
        more = 2 * self.z_loss * lse
        if self.smooth:
            more += self.smooth * self._mass
        spread = self.pull + more
        own = more * torch.sigmoid(-gap) - self.pull * torch.sigmoid(gap)
        own, spread = factor * own, factor * spread
        grads = []
        for _, kind in places:
            if kind == 0:
                grad = mean * (spread * torch.sigmoid(gap)).unsqueeze(1)
                grad.addcmul_(self.weight[self.target].float(), own.unsqueeze(1))
                if self.smooth:
                    grad.addr_(factor, self._far, alpha=-self.smooth)
                grads.append(self._back(grad))
            else:
                grads.append(self._of_weight(spread, own, factor))
        return grads

    def _of_weight(self, spread: Tensor, own: Tensor, factor: Tensor) -> Tensor:
        out, written = torch.empty_like(self.weight, dtype=torch.float32), False
        for side, sign in ((spread, 1.0), (-spread, -1.0)):
            rows = (~(side <= 0)).nonzero().squeeze(1)  # NaN is on both
            if len(rows):
                self._write_shares(rows, side, sign, out, add=written)
                written = True
        if not written:
            out.zero_()
        wide = self.hidden.float()
        out.index_add_(0, self.target, wide * own.unsqueeze(1))
        if self.smooth:
            even = torch.ones_like(out[:, 0]) if self.by_class is None else self.by_class
            out.addr_(even, factor @ wide, alpha=-self.smooth)
        return out

    def _write_shares(
        self, rows: Tensor, spread: Tensor, sign: float, out: Tensor, *, add: bool
    ) -> None:
        """Write, or add, the sums of ``sign spread_i p_ic h_i``, over rows of other classes."""
        hidden, target, lse = self.hidden, self.target, self.seen.lse
        if len(rows) < len(hidden):
            hidden, target, lse, spread = (t[rows] for t in (hidden, target, lse, spread))
        values, offset = _centred(hidden)
        for part, classes, mask in self._pieces(target, spread.log() - lse, by_row=False):
            found, log_sum = self._attention(self.weight[classes], hidden[part], values[part], mask)
            found, share = found.float().add_(offset), log_sum.exp_()
            only = _only_class(target[part])
            if only is not None and classes.start <= only < classes.stop:  # it saw only -inf
                found[only - classes.start] = share[only - classes.start] = 0.0
            into, share = out[classes], sign * share.unsqueeze(1)
            if add or part.start:
                into.addcmul_(found, share)
            else:
                torch.mul(found, share, out=into)

    def _pieces(
        self, target: Tensor, bias: Tensor, *, by_row: bool
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Some rows and some classes, and the bias of each row, but -inf at its own class.

        The last is ``(rows, classes)``, or ``(classes, rows)`` unless it is to be ``by_row``.
        """
        count = len(self.weight)
        tiles = -(-count // CLASSES)  # of nearly one size: of one class a row might see only itself
        edges = [count * i // tiles for i in range(tiles + 1)]
        for start in range(0, len(bias), ROWS):
            rows = slice(start, min(start + ROWS, len(bias)))
            shared, labels = bias[rows], target[rows]
            shape = (len(shared), CLASSES) if by_row else (CLASSES, len(shared))
            mask = (shared.unsqueeze(1) if by_row else shared).expand(shape).contiguous()
            for first, last in pairwise(edges):
                near = ((labels >= first) & (labels < last)).nonzero().squeeze(1)
                column = labels[near] - first
                own = (near, column) if by_row else (column, near)
                mask[own] = -math.inf
                size = last - first
                yield rows, slice(first, last), mask[:, :size] if by_row else mask[:size]
                mask[own] = shared[near]

    def _attention(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention and the log-sum-exp of its logits, to which ``mask`` is added."""
        assert attend is not None  # else nothing is attended to
        three = [each[None, None] for each in (queries, keys, values)]
        found, log_sum = attend(*three, 0.0, False, attn_mask=mask[None, None], scale=self.scale)
        return found[0, 0], log_sum.flatten()

    @functools.cached_property
    def _mass(self) -> Tensor | float:
        """The sum of the factors of the classes."""
        return float(len(self.weight)) if self.by_class is None else self.by_class.sum()

    @functools.cached_property
    def _far(self) -> Tensor:
        """The sum of the rows of the weight, times the factors of their classes."""
        ones = torch.ones(len(self.weight), device=self.weight.device)
        factor = ones if self.by_class is None else self.by_class
        parts = zip(factor.split(CLASSES), self.weight.split(CLASSES), strict=True)
        return torch.stack([each @ tile.float() for each, tile in parts]).sum(0)

    def _back(self, rows: Tensor) -> Tensor:
        """What belongs to the present rows, and 0 for the others."""
        if self._present is None or rows.ndim == 0:
            return rows
        every = rows.new_zeros(self._count, *rows.shape[1:])
        return every.index_copy_(0, self._present, rows)


def _centred(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values less an offset about their mean, and that: attention is rounded at their size."""
    offset = values[:: 1 + len(values) // SAMPLE].float().mean(0).to(values.dtype)
    return values - offset, offset


def _only_class(target: Tensor) -> int | None:
    """The class of all these rows, if they have one in common."""
    low, high = (int(end) for end in torch.aminmax(target))
    return low if low == high else None
