"""Cross-entropy of few logits against class indices: value and gradient from one exponential each.

Fewer still are left to torch's own two kernels, after a look that their digits will do.
``benchmarks/results/torch_losses.json`` has its time against torch's pair of kernels.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch._C._nn as nn_kernels
from torch import Tensor

from lossmith.core import route
from lossmith.core.autocast import rounded
from lossmith.core.checks import observed
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.core.numerics import class_nll
from lossmith.core.signature import HALF
from lossmith.engines.eligible import SHORT_ROW
from lossmith.engines.exponential import better_lowered, lowered_exp
from lossmith.engines.pull import is_one, reduced, with_pull
from lossmith.engines.rows.head import COSTLY, far_cost, in_range, tame
from lossmith.engines.rows.layout import apart

# Costs of a target from which torch's kernels keep the digits, in float32 and in float64: the mean
# cost, if it is reduced. A row that costs so much has a slope of 0.2 or more, beside which likely
# classes may lose theirs: the gradient of 16 rows of 1000 classes is off by 1.1e-6 of its largest
# entry there, by 0.6e-6 where all are unlikely, and by 2e-5 at a mean cost of 0.01.
UNLIKELY, UNCERTAIN = 0.25, 1e-8
# Elements of a thread up to which torch's two nodes take less than one written in Python, which
# starts no sooner with more of them. At 128, 192 and 256 rows of 1000 classes the node takes 1.3,
# 1.1 and 0.6 of torch's time with one thread, 1.6, 1.4 and 1.0 to 1.3 with two (AMD; on Intel, two
# threads, 1.3, 1.1 and 1.0). Where all are likely the look is wasted, which costs 0.4 of that time.
SWIFT = 3 << 16
# The same for rows of fewer classes than a vector has lanes: torch takes those one at a time. At
# 500, 1000 and 1600 rows of 10 classes 1.2, 0.7 and 0.6, with two threads 1.7, 1.2 and 0.9.
LANES, SHORT = 16, 7 << 10
# Elements up to which float64 costs less than a node written in Python: 59 us against 88 at 64 rows
# of 10, 74 against 92 at 64 of 100, 125 against 130 at 400 of 10
TINY = 7 << 10
# Elements above which lowered exponentials gain more than their two steps cost: at 16, 128 and 256
# rows of 1000 classes 82, 131 and 206 us against 67, 132 and 346 of the odds (AMD)
LOWERED = 1 << 17
# Cost that no row of a batch may exceed if the odds against its class are to fit in float32
MOST = 80.0
# Numbers up to which a list of them is looked through faster than a kernel starts (6 us)
LISTED = 64
# Elements up to which the blocks of ``rows/`` take longer to start than they gain: at 512, 1024 and
# 2048 rows of 1000 classes 1.4, 1.1 and 1.2 times as long; 1.4 at 30,000 and 65,536 rows of 10
FEW = 1 << 20
# What torch's kernel is told to ignore, since every label outside has to raise: a number that no
# cast arrives at, as that of NaN does at -2^63, below 2^30, up to where Python's are read sooner
NO_LABEL = -1_012_345_679
kernels: Any = cast(Any, nn_kernels)
_cross_entropy: Callable[..., Tensor] = kernels.cross_entropy_loss
_TRACING = torch._C._get_tracing_state
_INFINITE, _INT64, _FLOAT32 = math.inf, torch.int64, torch.float32  # a look-up less
_NONE, _MEAN = NATIVE_REDUCTION["none"], NATIVE_REDUCTION["mean"]


def mean_at_a_glance(input: Any, index: Any) -> Tensor | None:
    """Mean of :func:`lossmith.core.numerics.class_nll` over few rows: what most calls come to.

    NotImplemented for all but float32 and int64 on the CPU; otherwise as :func:`one_pass_class_nll`
    does. A call of 64 rows of 10 takes 50 us; whatever is asked before costs each of them.
    """
    if not input.__class__ is index.__class__ is Tensor or index.dtype is not _INT64:
        return NotImplemented
    if input.dtype is not _FLOAT32 or not input.is_cpu or input.ndim < 2:
        return NotImplemented  # torch takes (1,) as the index of one row, too
    if _TRACING() is not None:
        return NotImplemented
    size = input.numel()
    if size > SHORT_ROW:
        classes = size // (index.numel() or 1)
        most = SWIFT if classes >= LANES else SHORT
        if classes > SHORT_ROW or (size > most and size > _of_all(most)):
            return NotImplemented
    if size > route.SMALL and route.chosen() is not None:
        return NotImplemented
    value = _cross_entropy(input, index, None, _MEAN, NO_LABEL)
    if UNLIKELY < value.item() < _INFINITE:
        return value
    return NotImplemented if observed() else _likely(input, index, _MEAN, value)


def one_pass_class_nll(input: Tensor, index: Tensor, reduction: int) -> Tensor | None:
    """:func:`lossmith.core.numerics.class_nll` along dimension 1, value and gradient at once.

    It raises at an index outside, and leaves NaN, an infinite logit and rows of nothing but -inf to
    the plain function. On the CPU only: elsewhere the look at the values would stall the device.
    """
    if not input.is_cpu:
        return None
    if input.dtype in HALF:
        value = one_pass_class_nll(input.float(), index, reduction)
        return None if value is None else rounded(value, input)
    if input.dtype is torch.float64 or not _swift(input):
        return _of_many(input, index, reduction)
    value = _cross_entropy(input, index, None, reduction, NO_LABEL)
    return _likely(input, index, reduction, value)


def _swift(input: Tensor) -> bool:
    """Whether torch's kernels are to be tried, as far as the shape tells."""
    classes = input.shape[1]
    # torch takes positions side by side
    most = SWIFT if classes >= LANES or input.ndim > 2 else SHORT
    return classes <= SHORT_ROW and input.numel() <= _of_all(most)


def _of_all(most: int) -> int:
    """As many elements for each thread, all together."""
    return min(most * torch.get_num_threads(), FEW)


def _of_many(input: Tensor, index: Tensor, reduction: int) -> Tensor | None:
    """The value from one exponential of each logit.

    ``-log p = log1p((1 - p) / p)`` with ``1 - p`` summed directly, so that a likely class keeps its
    digits; where it is very unlikely, the log-sum-exp less the logit has them. On the CPU only.
    """
    logits, place = input.detach(), index.unsqueeze(1)
    # the glance takes as long as what it might spare few
    bare = logits.numel() > SWIFT and not better_lowered(logits) and tame(logits)
    top = None if bare else logits.amax(1, keepdim=True)
    share = torch.empty_like(logits)
    share = torch.exp(logits, out=share) if top is None else lowered_exp(logits, top, share)
    own, rest = apart(share, place)
    whole = own + rest
    if top is None and not in_range(whole):
        top = logits.amax(1, keepdim=True)
        lowered_exp(logits, top, share)
        own, rest = apart(share, place)
        whole = own + rest
    value = (rest / own).log1p_()
    if not value.amax().item() < COSTLY:
        if not math.isfinite(whole.sum().item()):
            return None
        far = far_cost(whole, top, logits.gather(1, place))
        value = torch.where(value < COSTLY, value, far)
    scale = _share(value, reduction) / whole
    slope = share.mul_(scale).scatter_(1, place, rest.mul_(scale).neg_())
    return _connected(slope, value, input, index, reduction)


def _likely(input: Tensor, index: Tensor, reduction: int, value: Tensor) -> Tensor | None:
    """The ``value`` of torch's two kernels, if a look at the costs shows that their digits do.

    Otherwise the same in float64, or from odds, or as of many where neither will do.
    """
    rows = index.numel()
    typical = _typical(value, reduction, rows)
    if typical > UNLIKELY:
        return value
    if input.numel() <= TINY:
        fine = torch.log_softmax(input, 1, dtype=torch.float64)
        value = kernels.nll_loss_nd(fine, index, None, reduction, NO_LABEL)
        if _typical(value, reduction, rows) > UNCERTAIN:
            return value.float()
    slow = better_lowered(input) and input.numel() > LOWERED  # odds take the other exponentials
    if slow or reduction == _NONE or not typical * rows < MOST:
        return _of_many(input, index, reduction)
    return _by_odds(input, index, reduction)


def _by_odds(input: Tensor, index: Tensor, reduction: int) -> Tensor:
    """The value from the odds against classes that cost little."""
    logits, place = input.detach(), index.unsqueeze(1)
    own = logits.gather(1, place)
    each = torch.sub(logits, own).exp_().scatter_(1, place, torch.zeros_like(own))
    odds = each.sum(1, keepdim=True)
    slope = each.scatter_(1, place, odds.neg()).mul_(_share(odds, reduction) / (odds + 1.0))
    return _connected(slope, odds.log1p_(), input, index, reduction)


def _share(value: Tensor, reduction: int) -> Tensor:
    """What a row counts in the reduced value.

    Of a number of Python it would take another kernel to make a tensor.
    """
    return value.new_full((), 1 / value.numel() if reduction == _MEAN else 1.0)


def _connected(
    slope: Tensor, value: Tensor, input: Tensor, index: Tensor, reduction: int
) -> Tensor:
    """The reduced value, with its gradient."""
    return with_pull(
        reduced(value.squeeze(1), reduction),
        reduction,
        _pull,
        class_nll,
        leaves=(input,),
        others=(index,),
        kept=(slope,),
        done=True,
    )


def _typical(cost: Tensor, reduction: int, rows: int) -> float:
    """The mean cost, or the least if nothing is reduced; NaN if one is NaN or infinite.

    On the CPU only.
    """
    if reduction != _NONE:
        least = most = cost.item() if reduction == _MEAN else cost.item() / rows
    elif rows <= LISTED:
        listed: list[float] = cost.detach().flatten().tolist()
        least, most = min(listed), sum(listed)
    else:
        least, most = (end.item() for end in torch.aminmax(cost.detach()))
    return least if math.isfinite(most) else math.nan


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    if is_one(grad):
        return (slope,)
    return (slope * (grad.unsqueeze(1) if grad.ndim else grad),)
