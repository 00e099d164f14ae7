"""Rows of logits against a class: cross-entropy and every function of its margin."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done, Rows
from lossmith.engines.rows.frame import frame_of
from lossmith.engines.rows.head import COSTLY, LEAST, by_class, far_cost, in_range
from lossmith.engines.rows.layout import Layout, Piece, Work, apart
from lossmith.engines.rows.probabilities import Against, by_probabilities


def against(describe: Callable[..., Against]) -> Rows:
    """The engine of a loss whose options ``describe`` turns into :class:`Against`."""

    def kernel(call: Call, needs: tuple[bool, ...]) -> Done | None:
        loss = describe(**call.options)
        if not call.tensors[1].is_floating_point():
            return _by_index(call, loss, needs[0])
        return by_probabilities(call, loss, needs[0]) if loss.cost is None else None

    def device(call: Call, needs: tuple[bool, ...]) -> Done:
        return _on_device(call, describe(**call.options))

    return Rows(kernel, device)


class Row(NamedTuple):
    """Of each row the class, its factor, the factor of the slopes, and whether it is absent."""

    place: Tensor
    factor: Tensor | None
    scale: Tensor
    absent: Tensor | None


def _by_index(call: Call, loss: Against, need: bool) -> Done | None:
    """By blocks of rows. On the CPU only."""
    logits, target = call.tensors
    layout = Layout(logits)
    grid = layout.grid(logits)
    index = layout.line(target)
    frame = frame_of(call, layout, index == loss.ignore_index)
    if frame.absent is not None:
        index = index.masked_fill(frame.absent, 0)
    low, high = (end.item() for end in torch.aminmax(index))
    if low < 0 or high >= grid.shape[1]:
        return None
    factor = None
    if loss.weight is not None:
        loss = loss._replace(weight=loss.weight.to(frame.dtype))
        factor = loss.weight[index]  # type: ignore[index]
        frame = frame.divided_by(factor)
    frame = frame.over(grid) if loss.overwrite and need else frame
    rows = Row(index, factor, frame.scale.expand(index.shape), frame.absent)

    def bare(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
        place, scale = piece.numbers(index), piece.numbers(rows.scale)
        return _bare_piece(piece.logits(grid), outs[0], work, place, scale, loss, need)

    def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
        own = Row(*(None if each is None else piece.numbers(each) for each in rows))  # type: ignore[arg-type]
        return _piece(piece.logits(grid), outs[0], work, own, loss, need)

    if loss == Against(ignore_index=loss.ignore_index):
        done = frame.evaluate(grid, bare, (need,), finish=_of_odds)
        if done is not None:
            return done
    return frame.evaluate(grid, one, (need,))


def _bare_piece(
    logits: Tensor, out: Tensor, work: Work, place: Tensor, scale: Tensor, loss: Against, need: bool
) -> Tensor | None:
    """The odds against the class, for a loss without options: few steps. On the CPU only.

    None if logits are so far apart that a class has no exponential to tell by: :func:`_of_odds`
    would find out, but only after all pieces.
    """
    gauge, _ = _weigh(logits, out, work, place, loss)
    own, rest, whole = gauge[:3]
    if work.lowers and not own.amin().item() > 0:
        return None
    if need:
        scale = scale / whole
        out.mul_(scale).scatter_(1, place, (rest * scale).neg_())
    return rest.div_(own)


def _of_odds(odds: Tensor) -> Tensor | None:
    """``-log p``; None if a class has no exponential to tell by, or is NaN. On the CPU only."""
    vanished = LEAST / torch.finfo(odds.dtype).tiny
    if odds.numel() and not odds.amax().item() < vanished:
        return None
    return odds.log1p()


def _piece(
    logits: Tensor, out: Tensor, work: Work, row: Row, loss: Against, need: bool
) -> Tensor | None:
    """The unweighted values of a piece, whose slopes are left in ``out``; None if one is NaN.

    With R, the exponentials of the other classes, and e that of the own one, ``-log p`` is
    ``log1p(R / e)``: nothing cancels, however likely the class.
    """
    place = row.place
    gauge, bend = _weigh(logits, out, work, place, loss)
    if (gauge.own < gauge.rest * math.exp(-COSTLY)).any():
        logit = loss.head.at(logits, place, out.dtype)
        gauge = gauge._replace(lost=far_cost(gauge.whole, gauge.top, logit))
    value, away, against = settle(gauge, row, loss, out.shape[1])
    broken = (value + away).isnan()
    if broken.any() and (row.absent is None or (broken & ~row.absent).any()):
        return None
    if not need:
        return value
    scale = row.scale * loss.head.scale
    out.mul_(scale * against / gauge.whole)
    if loss.smoothing:
        smooth = loss.smoothing / out.shape[1]
        if loss.weight is None:
            out.sub_(smooth * scale)
        else:
            out.addcmul_(scale, by_class(loss.weight, out), value=-smooth)
    out.scatter_(1, place, scale * away)
    if bend is not None:
        out.mul_(bend)
    if row.absent is not None and broken.any():  # a factor of 0 does not rid an absent row of NaN
        out.masked_fill_(broken, 0.0)
    return value


def _weigh(
    logits: Tensor, out: Tensor, work: Work, place: Tensor, loss: Against
) -> tuple["Gauge", Tensor | None]:
    """Leave the exponentials of the other classes in ``out``; the slope of a soft cap besides."""
    deep = loss.smoothing > 0 or loss.z_loss > 0
    found = loss.head.exponentials(logits, out, work, deep=deep, weight=loss.weight)
    own, rest = apart(out, place)
    whole = own + rest
    if not work.lowers and not in_range(whole):
        work.lowers = True
        return _weigh(logits, out, work, place, loss)
    return Gauge(own, rest, whole, None, found.top, found.below), found.bend


def _on_device(call: Call, loss: Against) -> Done:
    logits, target = call.tensors
    grid, index = _grid(logits), target.reshape(-1)
    each = None if call.weight is None else call.weight.reshape(-1)
    given = ByKernels(loss, index, each)
    terms, numbers = given.values(grid)
    kept: tuple[Tensor, ...] = (numbers,)
    if call.reduction == "none":
        value = terms[0].view(target.shape)
    elif call.reduction == "sum":
        value = terms[0].sum()
    else:
        total, mass = terms.sum(1)
        divisor = mass + (mass == 0)
        value, kept = total / divisor, (numbers, divisor)

    def pull(grad: Tensor, needed: Any, leaves: tuple[Tensor, ...], *kept: Tensor) -> tuple[Tensor]:
        numbers, divisor = kept if len(kept) == 2 else (*kept, None)
        grid = _grid(leaves[0])
        over = loss.overwrite and grid.data_ptr() == leaves[0].data_ptr()
        over = over and 0 not in leaves[0].stride()  # rows that share their memory
        out = grid.detach() if over else torch.empty_like(grid)
        given.slopes(grid, numbers, grad, divisor, out)
        if over:  # whoever needs the logits shall hear of it
            torch.autograd.graph.increment_version(leaves[0])
        return (_from_grid(out, leaves[0].shape),)

    return Done(value, kept, pull=pull)


def _grid(logits: Tensor) -> Tensor:
    """Logits as ``(samples, C, positions)``; a copy only of what cannot be seen like that."""
    if logits.shape[2:].numel() > 1:
        return logits.flatten(2)
    return logits.view(-1, logits.shape[1 if logits.ndim > 1 else 0]).T.unsqueeze(0)


def _from_grid(grid: Tensor, shape: torch.Size) -> Tensor:
    """The way back."""
    return grid.view(shape) if shape[2:].numel() > 1 else grid[0].T.reshape(shape)


class ByKernels:
    """Values and slopes of logits ``(N, C, positions)`` by Triton's kernels; nothing is looked at.

    Args:
        loss: The loss.
        index: The class of each row. One that is outside makes its row NaN.
        each: The weight of each row; None for 1.
    """

    def __init__(self, loss: Against, index: Tensor, each: Tensor | None = None) -> None:
        from lossmith.engines.triton import rows

        # the kernels read number after number
        each, weight, shift = (
            None if line is None else line.contiguous()
            for line in (each, loss.weight, loss.head.shift)
        )
        loss = loss._replace(weight=weight, head=loss.head._replace(shift=shift))
        self._kernels, self._loss = rows, loss
        self._labels = rows.Labels(index.contiguous(), loss.ignore_index, each)
        self._deep = loss.smoothing > 0

    def values(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Times their weights, with what the mean divides by; and what the slopes need."""
        loss, labels = self._loss, self._labels
        found = self._kernels.gauge(logits, labels, loss.weight, head=loss.head, deep=self._deep)
        told = found, labels, logits.shape[1], loss.weight, loss.smoothing, loss.z_loss
        if loss.cost is None:
            return self._kernels.settle(*told)
        costs = found.new_empty(2, found.shape[2])
        terms, numbers = self._kernels.settle(*told, costs)
        value, against = loss.cost(costs[0], (-costs[0]).exp(), costs[1])
        size = numbers[2]  # weight of the row and of its class, NaN of a label outside
        terms[0] = torch.where(size == 0, 0.0, size * value)  # though it be infinite
        numbers[2:4] *= against
        return terms, numbers

    def slopes(
        self, logits: Tensor, numbers: Tensor, grad: Tensor, divisor: Tensor | None, out: Tensor
    ) -> None:
        """Write the slopes, times a factor of each row or of all, to ``out``."""
        loss, grad = self._loss, grad.reshape(-1) if grad.ndim else grad
        self._kernels.slopes(
            logits, self._labels, loss.weight, numbers, grad, divisor, out, head=loss.head,
            deep=self._deep,
        )  # fmt: skip


class Gauge(NamedTuple):
    """What the exponentials of each row say.

    Attributes:
        own: That of the class.
        rest: Sum of the others.
        whole: Sum of all.
        lost: ``-log p`` from the logits themselves, for rows that are ``COSTLY``.
        top: The largest logit; None where nobody needs it.
        below: Sum of the distances to it, with the weights of the classes; None likewise.
    """

    own: Tensor
    rest: Tensor
    whole: Tensor
    lost: Tensor | None
    top: Tensor | None
    below: Tensor | None


def settle(gauge: Gauge, row: Row, loss: Against, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unweighted values, their slopes at the class, and the factor of ``p`` in the others."""
    value, against = _costs(gauge, row, loss)
    own, rest, whole = gauge[:3]
    away = -against * rest / whole
    if (loss.smoothing or loss.z_loss) and gauge.top is not None and gauge.below is not None:
        depth = whole.log()
        smooth = loss.smoothing / classes
        mass = float(classes) if loss.weight is None else loss.weight.sum()
        lse = gauge.top + depth
        value = value + smooth * (mass * depth + gauge.below) + loss.z_loss * lse * lse
        every = smooth * mass + 2 * loss.z_loss * lse
        own_part = smooth if loss.weight is None else smooth * loss.weight[row.place]
        away, against = away + every * own / whole - own_part, against + every
    return value, away, against


def _costs(gauge: Gauge, row: Row, loss: Against) -> tuple[Tensor, Tensor]:
    """Values, and their derivatives by ``-log p`` of the class."""
    own, rest, whole, lost = gauge[:4]
    value = (rest / own).log1p_()
    if lost is not None:
        value = torch.where(value < COSTLY, value, lost)
    against = torch.ones_like(value)
    if loss.cost is not None:
        value, against = loss.cost(value, own / whole, rest / whole)
    share = 1 - loss.smoothing
    if row.factor is not None:
        factor = share * row.factor
        return times(factor, value), factor * against
    return (value, against) if share == 1 else (share * value, share * against)
