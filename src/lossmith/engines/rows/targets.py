"""Rows of logits against a class: cross-entropy and every function of its margin."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done, Rows
from lossmith.engines.rows.frame import frame_of
from lossmith.engines.rows.head import by_class
from lossmith.engines.rows.layout import Layout, Piece, Work
from lossmith.engines.rows.probabilities import Against, by_probabilities


def against(describe: Callable[..., Against]) -> Rows:
    """The engine of a loss whose options ``describe`` turns into :class:`Against`."""

    def kernel(call: Call, needs: tuple[bool, ...]) -> Done | None:
        loss = describe(**call.options)
        if not call.tensors[1].is_floating_point():
            return _by_index(call, loss, needs[0])
        return by_probabilities(call, loss, needs[0]) if loss.cost is None else None

    return Rows(kernel)


class _Row(NamedTuple):
    """A number per row, each: the class, its factor, the factor of the slopes, where it is absent."""

    index: Tensor
    factor: Tensor | None
    scale: Tensor
    absent: Tensor | None


def _by_index(call: Call, loss: Against, need: bool) -> Done | None:
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
    rows = _Row(index, factor, frame.scale.expand(index.shape), frame.absent)

    def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
        own = _Row(*(None if each is None else piece.numbers(each) for each in rows))  # type: ignore[arg-type]
        return _piece(piece.logits(grid), piece, outs[0], work, own, loss, need)

    return frame.evaluate(grid, one, (need,))


def _piece(
    logits: Tensor, piece: Piece, out: Tensor, work: Work, row: _Row, loss: Against, need: bool
) -> Tensor | None:
    """The unweighted values of a piece, whose slopes are left in ``out``; None if one is NaN.

    With R, the exponentials of the other classes, and e that of the own one, ``-log p`` is
    ``log1p(R / e)``: nothing cancels, however likely the class.
    """
    deep = bool(loss.smoothing or loss.z_loss)
    lowered = loss.head.exponentials(logits, piece, out, work, deep=deep, weight=loss.weight)
    place = row.index
    own = out.gather(1, place)
    out.scatter_(1, place, 0.0)  # in place, since a fresh megabyte costs more than the arithmetic
    rest = out.sum(1, keepdim=True)
    whole = own + rest
    value, against = _costs(logits, own, rest, whole, row, loss)
    away = -against * rest / whole
    if lowered.top is not None and lowered.below is not None:
        depth = whole.log()
        smooth = loss.smoothing / out.shape[1]
        every = float(out.shape[1]) if loss.weight is None else loss.weight.sum()
        lse = lowered.top + depth
        value = value + smooth * (every * depth + lowered.below) + loss.z_loss * lse * lse
        every = smooth * every + 2 * loss.z_loss * lse
        away, against = away + every * own / whole, against + every
    broken = (value + away).isnan()
    if broken.any() and (row.absent is None or (broken & ~row.absent).any()):
        return None
    if not need:
        return value
    scale = row.scale * loss.head.scale
    out.mul_(scale * against / whole)
    if loss.smoothing:
        smooth = loss.smoothing / out.shape[1]
        if loss.weight is None:
            out.sub_(smooth * scale)
            away = away - smooth
        else:
            out.addcmul_(scale, by_class(loss.weight, out), value=-smooth)
            away = away - smooth * loss.weight[place]
    out.scatter_(1, place, scale * away)
    if lowered.bend is not None:
        out.mul_(lowered.bend)
    if row.absent is not None and broken.any():  # a factor of 0 does not rid an absent row of NaN
        out.masked_fill_(broken, 0.0)
    return value


def _costs(
    logits: Tensor, own: Tensor, rest: Tensor, whole: Tensor, row: _Row, loss: Against
) -> tuple[Tensor, Tensor]:
    """Values, and their derivatives by ``-log p`` of the class."""
    odds = rest / own
    far = own <= torch.finfo(own.dtype).tiny
    lost = None  # where the exponential vanishes the logits themselves still tell
    if far.any():
        bent = loss.head.plain(logits.to(own.dtype))
        lost = bent.logsumexp(1, keepdim=True) - bent.gather(1, row.index)
    if loss.cost is None:
        value = odds.log1p() if lost is None else torch.where(far, lost, odds.log1p())
        against = torch.ones_like(value)
    else:
        margin = odds.log() if lost is None else torch.where(far, lost, odds.log())
        margin.requires_grad_()
        with torch.enable_grad():
            value = loss.cost(margin)
            (slope,) = torch.autograd.grad(value.sum(), margin)
        value, against = value.detach(), torch.where(rest > 0, slope * whole / rest, 0.0)
    share = 1 - loss.smoothing
    if row.factor is not None:
        factor = share * row.factor
        return times(factor, value), factor * against
    return (value, against) if share == 1 else (share * value, share * against)
