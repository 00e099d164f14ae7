"""Cross-entropy of few logits against class indices: value and gradient from one exponential each.

Fewer still are left to torch's own two kernels, after a look that their digits will do.
``benchmarks/results/torch_losses.json`` has its time against torch's pair of kernels.
"""

import math
from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.core.numerics import class_nll
from lossmith.core.signature import HALF
from lossmith.engines.eligible import SHORT_ROW
from lossmith.engines.pull import SMALL, reduced, with_pull
from lossmith.engines.rows.head import NARROW, in_range
from lossmith.engines.rows.layout import apart

# Costs of a target from which torch's kernels keep the digits of float32: computed in float32,
# where log(1 + rest) loses none as long as the other classes have half of the probability, and in
# float64
UNLIKELY, UNCERTAIN = math.log(2.0), 1e-8
# Elements up to which torch's two nodes take less than one written in Python: at 16, 64 and 256
# rows of 1000 classes 70, 141 and 445 us against 121, 173 and 374 (one thread, as below). Where a
# class is likely the look is wasted, so the level at 128 rows is too many.
SWIFT = 1 << 16
# Elements up to which float64 costs less than that node, or little more: 58 us against 104 at 64,
# 132 against 120 at 4000
TINY = 1 << 12
# Numbers up to which a list of them is looked through faster than a kernel starts (6 us)
LISTED = 64
# Elements up to which the blocks of ``rows/`` take longer to start than they gain: at 512, 1024 and
# 2048 rows of 1000 classes 1.4, 1.1 and 1.2 times as long
FEW = 1 << 20
# Size of logits from which exponentials may vanish, and a look at so many classes of so many rows:
# torch's kernel takes 24 ns for one that does, 0.2 for others
TAME, GLANCE = 40.0, 16
nll: Any = cast(Any, kernels).nll_loss_nd
# What torch's kernel is told to ignore: every label outside has to raise
NO_LABEL = -(1 << 62)
_NONE, _MEAN = NATIVE_REDUCTION["none"], NATIVE_REDUCTION["mean"]


def few(input: Tensor) -> bool:
    """Whether logits are too few for the blocks of ``rows/`` to gain on one pass over all."""
    return input.numel() <= (FEW if input.shape[1] > NARROW else SMALL)


def one_pass_class_nll(input: Tensor, index: Tensor, reduction: int) -> Tensor | None:
    """:func:`lossmith.core.numerics.class_nll` along dimension 1, value and gradient at once.

    ``-log p = log1p((1 - p) / p)`` with ``1 - p`` summed directly, so that a likely class keeps its
    digits; where ``p`` underflows, the distance to the largest logit is the greater part of it.
    NaN and infinite logits are left to the plain function. An index outside raises. On the CPU
    only: elsewhere the look at the values would stall the device.
    """
    if not input.is_cpu:
        return None
    if input.dtype in HALF:
        value = one_pass_class_nll(input.float(), index, reduction)
        return None if value is None else value.to(input.dtype)
    logits, place = input.detach(), index.unsqueeze(1)
    swift = input.numel() <= SWIFT and NARROW < input.shape[1] <= SHORT_ROW
    if (value := _by_torch(input, index, reduction, swift)) is not None:
        return value
    # of few logits a softmax takes no longer: 20 us against 8 for exponentials and 10 for two looks
    tame = not swift and _tame(logits)
    share = torch.exp(logits) if tame else torch.softmax(logits, 1)
    own, rest = apart(share, place)
    whole = own + rest
    if tame and not in_range(whole):
        tame = False
        own, rest = apart(torch.softmax(logits, 1, out=share), place)
        whole = own + rest
    value = (rest / own).log1p_()
    tiny = torch.finfo(logits.dtype).tiny
    if not own.amin().item() > tiny:
        if not math.isfinite(whole.sum().item()):
            return None
        if tame:
            lse = whole.log()
        else:  # such a class is not the largest, whose share is still there
            top, at = logits.max(1, keepdim=True)
            lse = top - share.gather(1, at).log_()
        far = lse - logits.gather(1, place)
        value = torch.where(own > tiny, value, far)
    value = value.squeeze(1)
    # one kernel: of a number of Python it would take another to make a tensor
    scale = whole.new_full((), 1 / value.numel() if reduction == _MEAN else 1.0) / whole
    slope = share.mul_(scale).scatter_(1, place, rest.mul_(scale).neg_())
    return with_pull(
        reduced(value, reduction),
        reduction,
        _pull,
        class_nll,
        leaves=(input,),
        others=(index,),
        kept=(slope,),
        done=True,
    )


def _by_torch(input: Tensor, index: Tensor, reduction: int, swift: bool) -> Tensor | None:
    """The value from torch's two kernels, if a look at the costs shows that their digits do.

    Of few classes one is likely in nearly any batch, and a softmax of short rows is slow.
    """
    if input.dtype is not torch.float32:
        return None
    if swift:
        log_p = torch.log_softmax(input, 1)
        if _least(nll(log_p.detach(), index, None, _NONE, NO_LABEL)) > UNLIKELY:
            return cast(Tensor, nll(log_p, index, None, reduction, NO_LABEL))
    if input.numel() <= TINY:
        log_p = torch.log_softmax(input, 1, dtype=torch.float64)
        if _least(nll(log_p.detach(), index, None, _NONE, NO_LABEL)) > UNCERTAIN:
            return cast(Tensor, nll(log_p, index, None, reduction, NO_LABEL).float())
    return None


def _tame(logits: Tensor) -> bool:
    """Whether a glance shows no exponential that vanishes. On the CPU only."""
    rows, classes = (1 + size // GLANCE for size in logits.shape[:2])
    return max(abs(end.item()) for end in torch.aminmax(logits[::rows, ::classes])) < TAME


def _least(costs: Tensor) -> float:
    """The smallest of some costs; NaN if one is NaN or infinite. On the CPU only."""
    if costs.ndim == 1 and len(costs) <= LISTED:
        listed: list[float] = costs.tolist()
        return min(listed) if math.isfinite(sum(listed)) else math.nan
    return costs.amin().item()


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    """On the CPU only."""
    if grad.ndim == 0 and grad.item() == 1:  # the usual factor would cost a pass over memory
        return (slope,)
    return (slope * (grad.unsqueeze(1) if grad.ndim else grad),)
