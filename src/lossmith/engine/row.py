"""Cross-entropy of class indices in one pass: value and gradient from a single softmax.

``benchmarks/results/torch_losses.json`` has its time against torch's pair of kernels.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from lossmith.core.numerics import class_nll
from lossmith.engine.pull import with_pull


def one_pass_class_nll(input: Tensor, index: Tensor, reduction: int) -> Tensor | None:
    """:func:`lossmith.core.numerics.class_nll` along dimension 1, value and gradient at once.

    ``-log p = log1p((1 - p) / p)`` with ``1 - p`` summed directly, so that a likely class keeps its
    digits. A probability that underflows is left to the plain function, as are NaN and infinities.
    On the CPU the kernel raises at an index outside.
    """
    with torch.no_grad():
        place = index.long().unsqueeze(1)
        share = torch.softmax(input, 1)
        own = share.gather(1, place)
        if not own.min().item() > torch.finfo(input.dtype).tiny:
            return None
        # in place, since a fresh megabyte costs more than the arithmetic on it
        rest = share.scatter_(1, place, 0.0).sum(1, keepdim=True)
        value = (rest / own).log1p_().squeeze(1)
        slope = share.scatter_(1, place, rest.neg_())
    plain = functools.partial(class_nll, index=index)
    return with_pull(value, reduction, _pull, plain, leaves=(input,), kept=(slope,))


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    return (slope * (grad.unsqueeze(1) if grad.ndim else grad),)
