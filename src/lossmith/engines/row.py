"""Cross-entropy of class indices in one pass: value and gradient from a single softmax.

``benchmarks/results/torch_losses.json`` has its time against torch's pair of kernels.
"""

import math
from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.numerics import class_nll
from lossmith.engines.eligible import SHORT_ROW
from lossmith.engines.pull import SMALL, with_pull

# Log-probabilities of a target up to which torch's kernels keep the digits of float32: computed in
# float32, where log(1 + small) loses none as long as the others have half, and in float64
LIKELY, CERTAIN = math.log(0.5), -1e-8
# Elements up to which the blocks of ``rows/`` take longer to start than they gain
FEW = 1 << 18
nll: Any = cast(Any, kernels).nll_loss_nd
# What torch's kernel is told to ignore: every label outside has to raise
NO_LABEL = -(1 << 62)


def few(input: Tensor) -> bool:
    """Whether logits are too few for the blocks of ``rows/`` to gain on :func:`one_pass_class_nll`.

    Of long rows torch's kernels keep too few digits, which leaves the slower way here.
    """
    return input.numel() <= (FEW if input.shape[1] <= SHORT_ROW else SMALL)


def one_pass_class_nll(input: Tensor, index: Tensor, reduction: int) -> Tensor | None:
    """:func:`lossmith.core.numerics.class_nll` along dimension 1, value and gradient at once.

    ``-log p = log1p((1 - p) / p)`` with ``1 - p`` summed directly, so that a likely class keeps its
    digits; where ``p`` underflows, the distance to the largest logit is the greater part of it.
    NaN and infinite logits are left to the plain function. An index outside raises. On the CPU
    only: elsewhere the look at the values would stall the device.
    """
    if not input.is_cpu:
        return None
    place = index.unsqueeze(1)
    if input.dtype is torch.float32 and few(input):  # torch's kernels, and a look at the targets
        small = input.numel() <= SMALL  # then float64 costs less than a second attempt
        log_p = torch.log_softmax(input, 1, dtype=torch.float64 if small else None)
        if log_p.detach().gather(1, place).amax().item() < (CERTAIN if small else LIKELY):
            return cast(Tensor, nll(log_p, index, None, reduction, NO_LABEL).to(input.dtype))
    logits = input.detach()
    share = torch.softmax(logits, 1)
    own = share.gather(1, place)
    least = own.min().item()
    if math.isnan(least):
        return None
    tiny = least <= torch.finfo(logits.dtype).tiny
    far = _far(logits, share, place) if tiny else None
    # in place, since a fresh megabyte costs more than the arithmetic on it
    rest = share.scatter_(1, place, 0.0).sum(1, keepdim=True)
    value = (rest / own).squeeze(1).log1p()
    if far is not None:
        value = torch.where(own.squeeze(1) > torch.finfo(logits.dtype).tiny, value, far)
    slope = share.scatter_(1, place, rest.neg_())
    leaves, others = (input,), (index,)
    return with_pull(
        value, reduction, _pull, class_nll, leaves=leaves, others=others, kept=(slope,)
    )


def _far(input: Tensor, share: Tensor, place: Tensor) -> Tensor:
    top, at = input.max(1, keepdim=True)
    return (top - input.gather(1, place) - share.gather(1, at).log_()).squeeze(1)


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    return (slope * (grad.unsqueeze(1) if grad.ndim else grad),)
