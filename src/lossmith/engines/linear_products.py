"""The products of a linear head: the logits, then their slopes with the weight and hidden states.

Results are float32 or wider. A GPU multiplies half precision as it is and writes float32. A CPU
that multiplies bfloat16 itself rounds what it adds up in float32, so the logits take two products:
the second finds what the first lost. Any other CPU emulates half precision slowly: the weight is
widened there, a tile at a time.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lossmith.core.signature import HALF
from lossmith.engines.pages import in_huge_pages

# Bytes of a tile of the weight in float32: what is made for it stays in the cache until it is used
TILE = 1 << 23
# Whether the CPU multiplies bfloat16 itself; older releases of torch do not tell
NATIVE = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", False)


class Head(NamedTuple):
    """A linear layer and what goes into it: ``(N, H)``, ``(C, H)`` and ``(C)``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the logits."""
        common = torch.promote_types(self.hidden.dtype, self.weight.dtype)
        return torch.float32 if common in HALF else common

    @property
    def narrow(self) -> bool:
        """Whether the products take half precision as it is."""
        dtype = self.hidden.dtype
        native = {"cuda": dtype in HALF, "cpu": dtype is torch.bfloat16 and NATIVE}
        return dtype is self.weight.dtype and native.get(self.hidden.device.type, False)

    @property
    def sums(self) -> int:
        """Bytes of the gradients of hidden states and weight while they are added up."""
        return (self.hidden.numel() + self.weight.numel()) * self.dtype.itemsize

    def plain(self) -> Tensor:
        """All logits, in torch's own way."""
        logits = F.linear(self.hidden.to(self.dtype), self.weight.to(self.dtype))
        logits = logits.to(self.dtype)  # less under autocast
        return logits if self.bias is None else logits + self.bias.to(self.dtype)

    def logits(self, rows: slice, out: Tensor) -> Tensor:
        """The logits of some rows, in ``out``."""
        hidden = self.hidden[rows] if self.narrow else self.hidden[rows].to(self.dtype)
        for columns, weight in self.tiles():
            if self.narrow and not hidden.is_cuda:
                rounded = hidden @ weight.t()
                lost = torch.addmm(rounded, hidden, weight.t(), beta=-1)
                out[:, columns].copy_(rounded).add_(lost)
            else:
                _accumulate(hidden, weight.t(), out[:, columns], more=False)
        return out if self.bias is None else torch.add(out, self.bias, out=out)

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """The weight as it is multiplied; by tiles if it is widened, or its products are."""
        weight, dtype = self.weight, self.dtype
        if weight.dtype is dtype or (self.narrow and weight.is_cuda):
            yield slice(None), weight
            return
        classes, size = weight.shape
        step = max(1, TILE // (dtype.itemsize * max(1, size)))
        room = None if self.narrow else weight.new_empty(min(step, classes), size, dtype=dtype)
        for start in range(0, classes, step):
            part = weight[start : start + step]
            if room is not None:
                part = room[: len(part)].copy_(part)
            yield slice(start, start + step), part


def _accumulate(left: Tensor, right: Tensor, out: Tensor, *, more: bool) -> None:
    """Add ``left @ right`` to ``out``, or write it there if that holds no numbers yet."""
    if left.dtype is out.dtype:
        torch.addmm(out, left, right, beta=int(more), out=out)
    elif left.is_cuda:
        torch.addmm(out, left, right, out_dtype=out.dtype, beta=int(more), out=out)
    elif more:
        out.add_(left @ right)
    else:
        out.copy_(left @ right)


class Sums:
    """The gradients of one head, as the slopes of more and more rows are added.

    Args:
        head: The head.
        wanted: What wants a gradient: 0 the hidden states, 1 the weight, 2 the bias.
    """

    def __init__(self, head: Head, wanted: Collection[int]) -> None:
        self.head = head
        like = head.weight.new_empty(0, dtype=head.dtype)
        self.hidden = in_huge_pages(like.new_empty(head.hidden.shape)) if 0 in wanted else None
        self.weight = in_huge_pages(like.new_empty(head.weight.shape)) if 1 in wanted else None
        self._more = False  # whether the memory of the weight's holds numbers yet
        # one number for all rows: in float32 a running sum over very many would lose digits
        self.bias = like.new_zeros(len(head.weight), dtype=torch.float64) if 2 in wanted else None

    def add(self, rows: slice, slope: Tensor, factor: Tensor) -> None:
        """Take in ``factor_i slope_i``, the derivatives in the logits of some rows."""
        column, more, self._more = factor.unsqueeze(1), self._more, True
        if self.bias is not None:
            self.bias += slope.t() @ factor
        hidden, narrow = self.head.hidden[rows], self.head.narrow
        if not narrow:
            hidden = hidden * column
        for columns, weight in self.head.tiles():
            part = slope[:, columns]
            if narrow:
                part = (part * column).to(weight.dtype)
            if self.hidden is not None:
                _accumulate(part, weight, self.hidden[rows], more=bool(columns.start))
            if self.weight is not None:
                _accumulate(part.t(), hidden, self.weight[columns], more=more)
        if self.hidden is not None and not narrow:
            self.hidden[rows].mul_(column)

    def of(self, kind: int, scale: Tensor | float = 1.0) -> Tensor:
        """A gradient, 0 of the hidden states, 1 of the weight, 2 of the bias, times a number.

        It stays wide until the backward pass has multiplied it by its factor: a mean may vanish in
        the range of float16, and bfloat16 has no digit to lose to a second rounding.
        """
        gradient = (self.hidden, self.weight, self.bias)[kind]
        assert gradient is not None  # it was wanted
        return gradient if isinstance(scale, float) and scale == 1.0 else gradient.mul_(scale)
