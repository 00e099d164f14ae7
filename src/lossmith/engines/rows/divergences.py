"""Two rows of logits: how far their softmaxes p and q are apart, no log-probability kept in memory.

With ``u = log p - log q``, ``p - q = (p + q) tanh(u / 2)`` and ``log(2 p / (p + q)) =
log1p(tanh |u / 2|) + min(u, 0)``. Written so, an error common to all u, as that of the two
log-sum-exps is, cancels: near equality the divergences keep their digits.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.route import Call
from lossmith.engines.rows.device import apart_on_device
from lossmith.engines.rows.engine import Done, Rows
from lossmith.engines.rows.frame import frame_of
from lossmith.engines.rows.layout import Layout, Piece, Work

_LOWEST = -1e4  # its exponential is 0 in every dtype, and 0 times it is 0


class Both(NamedTuple):
    """A piece of both sides, to be overwritten, and where the slopes go in the end.

    ``p`` and ``q`` are ``factor`` times the probabilities.
    """

    p: Tensor
    q: Tensor
    u: Tensor
    spare: Tensor
    outs: tuple[Tensor, ...]
    factor: float

    def mean(self, share: Tensor, of: Tensor, free: Tensor) -> Tensor:
        """Sum over the classes of ``share * of``, without the factor."""
        return self.total(torch.mul(share, of, out=free))

    def total(self, piece: Tensor) -> Tensor:
        """Sum over the classes, without the factor."""
        return piece.sum(1, keepdim=True).div_(self.factor)

    def half(self) -> Tensor:
        """``tanh(u / 2)``."""
        return torch.mul(self.u, 0.5, out=self.spare).tanh_()


Divergence = Callable[[Both, tuple[bool, ...]], Tensor]


def forward(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """KL(q || p), the sum of ``(p - q) - q u``."""
    p, q, u, spare, (to_input, to_target), _ = both
    drift = both.mean(q, u, spare)
    gap = torch.mul(p.add_(q), both.half(), out=to_input)
    if needs[1]:
        torch.mul(q, u.sub_(drift), out=to_target).neg_()
    return both.total(gap) - drift


def reverse(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """KL(p || q), the sum of ``p u - (p - q)``."""
    p, q, u, spare, (to_input, to_target), _ = both
    drift = both.mean(p, u, spare)
    gap = torch.mul(q.add_(p), both.half(), out=to_target)
    value = drift - both.total(gap)
    if needs[0]:
        torch.mul(p, u.sub_(drift), out=to_input)
    if needs[1]:
        gap.neg_()
    return value


def jensen_shannon(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """The mean of KL(p || m) and KL(q || m), m the mean of p and q."""
    p, q, u, spare, (to_input, to_target), _ = both
    near = both.half().abs_().log1p_()
    # each from u itself: their difference is u, and would swallow them where u is large
    over_q = torch.sub(near, torch.clamp(u, min=0, out=to_input), out=to_input)  # log(q / m)
    over_p = u.clamp_(max=0).add_(near)  # log(p / m)
    one, other = both.mean(p, over_p, spare), both.mean(q, over_q, spare)
    if needs[1]:
        torch.mul(q.mul_(0.5), over_q.sub_(other), out=to_target)
    if needs[0]:
        torch.mul(p.mul_(0.5), over_p.sub_(one), out=to_input)
    return 0.5 * (one + other)


def total_variation(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """Half the sum of ``|p - q|``."""
    p, q, u, spare, (to_input, to_target), _ = both
    gap = torch.mul(torch.add(p, q, out=to_target), both.half(), out=to_target).abs_()
    value = 0.5 * both.total(gap)
    side = u.sign_().mul_(0.5)
    one, other = both.mean(p, side, spare), both.mean(q, side, spare)
    if needs[0]:
        torch.mul(p, torch.sub(side, one, out=spare), out=to_input)
    if needs[1]:
        torch.mul(q, side.sub_(other), out=to_target).neg_()
    return value


def between(divergence: Divergence) -> Rows:
    """The engine of a divergence of two tensors of logits, both divided by a ``temperature``."""

    def kernel(call: Call, needs: tuple[bool, ...]) -> Done | None:
        """By blocks of rows. On the CPU only."""
        layout = Layout(call.tensors[0])
        first, second = (layout.grid(t) for t in call.tensors)
        frame = frame_of(call, layout)
        sharpness = 1 / call.options.get("temperature", 1.0)
        scale = frame.scale * sharpness
        shared = scale.ndim == 0  # then it goes into the exponentials, and costs nothing
        factor = scale.item() if shared else 1.0

        def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
            p, q, u, spare = (work.like(outs[0], -number) for number in (1, 2, 3, 4))
            depths: list[Tensor] = []
            for out, e, grid in ((u, p, first), (spare, q, second)):
                part = piece.logits(grid)
                if part.dtype is not out.dtype or piece.turned or sharpness != 1:
                    part = torch.mul(part, sharpness, out=out)
                torch.sub(part, part.amax(1, keepdim=True), out=out)
                whole = torch.exp(out, out=e).sum(1, keepdim=True)
                e.mul_(factor / whole)
                depths.append(whole.log_())
            u.sub_(spare).sub_(depths[0].sub_(depths[1]))
            value = divergence(Both(p, q, u, spare, outs, factor), needs)
            if not value.isfinite().all():
                return None
            if not shared:
                for out, need in zip(outs, needs, strict=True):
                    if need:
                        out.mul_(piece.numbers(scale))
            return value.clamp_(min=0.0)  # rounding may lead below

        return frame.evaluate(first, one, needs, buffers=4)  # two logits, two slopes

    return Rows(kernel, functools.partial(apart_on_device, divergence.__name__), logits=2)
