"""Whether the samples of a loss stand alone, asked before an engine cuts or reshapes its tensors.

The losses of lossmith say so on their cards, and the contract tests hold them to it. What somebody
else calls an element loss may know of its neighbours: it may subtract a mean, or weigh by column.
"""

import torch
from torch import Tensor

from lossmith.core.route import Call

# Elements of the first tensor that are looked at, and rows, however long
SAMPLE, ROWS = 1 << 12, 8


def divisible(call: Call) -> bool:
    """Whether the samples are the elements, or the rows along the first dimension."""
    domains = call.way.tensors.values()
    if call.reduction == "batchmean":
        return False
    if call.way.out == ("*",):
        first = call.tensors[0]
        whole = all(d.dims == ("*",) for d in domains)
        return whole and all(t.ndim == 0 or t.shape == first.shape for t in call.arguments())
    return call.way.out == ("N",) and all(d.dims[:1] == ("N",) for d in domains)


def shared(call: Call) -> list[bool]:
    """Which arguments of a divisible call are not to be cut: all samples share them."""
    given = call.arguments()
    if call.way.out == ("*",):
        return [t.ndim == 0 for t in given]
    options = range(len(call.tensors), len(given) - (call.weight is not None))
    return [i in options for i in range(len(given))]


@torch.no_grad()
def separate(call: Call) -> bool:
    """Whether the first samples of a divisible call have the same values among fewer others.

    Elements are also put in another shape. On the CPU only, where blocks and lines are.
    """
    given = [t.detach() for t in call.arguments()]
    first, fixed = given[0], shared(call)
    by_element = call.way.out == ("*",)
    rows = max(ROWS, SAMPLE * len(first) // max(1, first.numel()))
    given = [t if f else t[:rows] for t, f in zip(given, fixed, strict=True)]

    def values(arguments: list[Tensor]) -> Tensor:
        return call.over(arguments)._replace(reduction="none").compute().reshape(-1)

    try:
        whole = values(given)
        quarter = len(whole) // 4
        size = quarter - 1  # of no row, so that not every column keeps its number
        pieces = (slice(quarter), (-1,)), (slice(quarter, quarter + 2 * size), (2, size))
        for samples, shape in pieces:
            part = [
                t if f else t.reshape(-1)[samples].view(shape) if by_element else t[samples]
                for t, f in zip(given, fixed, strict=True)
            ]
            if not torch.allclose(values(part), whole[samples], 1e-3, 1e-6, equal_nan=True):
                return False
    except Exception:  # whatever a function may raise at a shape that it does not expect
        return False
    return True
