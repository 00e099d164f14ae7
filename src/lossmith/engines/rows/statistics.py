"""What a softmax says of each row, in one pass: log-probability, entropy, log-sum-exp, accuracy."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.autocast import without_autocast
from lossmith.core.checks import eager, fail, fail_type
from lossmith.core.domain import CLASS, POSITIVE, REAL, Optional
from lossmith.core.numerics import accurate_log_softmax, class_nll, softcapped, times
from lossmith.core.signature import HALF, Signature
from lossmith.engines.exponential import exp_of
from lossmith.engines.rows.head import Head
from lossmith.engines.rows.layout import Layout, Work, apart, total
from lossmith.engines.rows.probabilities import log_total

# A depth whose exponential is 0 in every dtype, in place of -inf, of which 0 times would be NaN
VANISHED = -1e3
_WAYS = (
    Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
    Signature(input=REAL("C"), target=CLASS(""), out=""),
)


class SoftmaxStatistics(NamedTuple):
    """What the softmax of each row says.

    Attributes:
        log_prob: Log-probability of the target class.
        entropy: Entropy in nats.
        lse: Log-sum-exp of the logits, the log of the softmax's normaliser.
        correct: Whether no class is more likely than the target.
    """

    log_prob: Tensor
    entropy: Tensor
    lse: Tensor
    correct: Tensor


def softmax_statistics(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> SoftmaxStatistics:
    """Log-probability of a class, entropy, log-sum-exp and accuracy of each row of logits.

    All from one pass over the logits, forward and backward: no log-probabilities of other classes
    are kept. Policy gradients and preference losses take ``log_prob`` and ``entropy``, a z-loss
    ``lse``. Gradients of any order flow from the first three.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        ignore_index: Rows of this target are absent: 0 in all numbers, and not correct.
        softcap: Size that logits approach and never pass, ``softcap tanh(x / softcap)``, ``> 0``.
        logit_scale: Factor of the logits, ``> 0``, before the cap: an inverse temperature.

    Returns:
        The numbers of each row, ``(N, *)``; float32 for half precision, else the dtype of
        ``input``; ``correct`` is bool.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], or an option is out of range.
        TypeError: If ``input`` is not floating point, or ``target`` is not of an integer dtype.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> found = lm.softmax_statistics(logits, torch.tensor([0, 1]))
        >>> found.log_prob, found.entropy
        (tensor([-0.2395, -1.0986]), tensor([0.6656, 1.0986]))
    """
    target = _checked(input, target, ignore_index)
    Optional(POSITIVE).check_option("softcap", softcap)
    POSITIVE.check_option("logit_scale", logit_scale)
    head = Head(logit_scale, softcap)
    absent = target == ignore_index
    index = torch.where(absent, 0, target)
    keep = ~absent
    return SoftmaxStatistics(*_statistics(input, index, keep, head))


def _checked(input: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The target as int64, after shapes, dtypes and values have been looked at."""
    for name, tensor in (("input", input), ("target", target)):
        if not isinstance(tensor, Tensor):
            fail_type(name, "be a tensor", tensor)
    if not input.is_floating_point():
        fail_type("input", "be floating point", input)
    if target.is_floating_point() or target.is_complex():
        fail_type("target", "be of an integer dtype", target)
    way = next((way for way in _WAYS if way.accepts((input, target))), None)
    if way is None:
        fail("input", "have the shape (N, C, *) or (C)", input)
    target = target.long()
    way.check_values((input, target), way.sizes((input, target)), ignore_index=ignore_index)
    return target


@without_autocast
def _statistics(
    input: Tensor, index: Tensor, keep: Tensor, head: Head
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not eager(input, index) or input.device.type != "cpu" or input.numel() == 0:
        return _plain(input, index, keep, head)
    return _Statistics.apply(input, index, keep, head)  # type: ignore[no-any-return, no-untyped-call]


def _plain(
    input: Tensor, index: Tensor, keep: Tensor, head: Head
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dim = 1 if input.ndim > 1 else 0
    if input.dtype in HALF:
        input = input.float()
    # a row of NaN that is absent must not reach the gradient
    logits = torch.where(keep.unsqueeze(dim), softcapped(input, head.scale, head.softcap), 0.0)
    log_p = accurate_log_softmax(logits, dim=dim)
    log_prob = -class_nll(logits, index, dim=dim)
    entropy = -times(log_p.exp(), log_p).sum(dim)
    own = logits.gather(dim, index.unsqueeze(dim)).squeeze(dim)
    correct = keep & (own == logits.amax(dim))
    numbers = (log_prob, entropy, logits.logsumexp(dim))
    log_prob, entropy, lse = (torch.where(keep, each, 0.0) for each in numbers)
    return log_prob, entropy, lse, correct


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, index: Tensor, keep: Tensor, head: Head) -> Any:
        layout, dtype = Layout(input), torch.float32 if input.dtype in HALF else input.dtype
        grid, place = layout.grid(input), layout.line(index)
        log_prob, entropy, lse = (index.new_empty(index.shape, dtype=dtype) for _ in range(3))
        mean, correct = torch.empty_like(lse), index.new_empty(index.shape, dtype=torch.bool)
        lines = [layout.line(each) for each in (log_prob, entropy, lse, correct, mean)]
        work = Work(dtype)
        for piece in layout.pieces(grid, 2):
            out = work.like(piece.logits(grid), 0)
            top, _ = head.lower(piece.logits(grid), out, work)
            own = piece.numbers(place)
            depth = out.gather(1, own)
            e = exp_of(out, work.like(out, 1))
            whole, log_whole = log_total(e)
            # 0 times -inf is 0 here: the class is excluded
            deep = total(e.mul_(out.clamp_(min=torch.finfo(dtype).min))) / whole
            found = (depth - log_whole, log_whole - deep, top + log_whole, depth == 0, deep)
            for line, number in zip(lines, found, strict=True):
                piece.numbers(line).copy_(number)
        for number in (log_prob, entropy, lse):
            number.masked_fill_(~keep, 0.0)
        correct &= keep
        ctx.head = head
        ctx.save_for_backward(input, index, keep, mean)
        ctx.mark_non_differentiable(correct)
        ctx.set_materialize_grads(False)
        return log_prob, entropy, lse, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """With d the distance to the largest logit, ``log p + H`` is d less its mean over p."""
        input, index, keep, mean = ctx.saved_tensors
        given = [None if g is None else g.masked_fill(~keep, 0.0) for g in grads[:3]]
        if torch.is_grad_enabled():  # create_graph
            leaf = input.view_as(input)
            numbers = _plain(leaf, index, keep, ctx.head)[:3]
            pairs = [(n, g) for n, g in zip(numbers, given, strict=True) if g is not None]
            values, pulls = zip(*pairs, strict=True)
            (slope,) = torch.autograd.grad(values, leaf, pulls, create_graph=True)
            return slope, None, None, None
        layout, head, dtype = Layout(input), ctx.head, mean.dtype
        grid, place = layout.grid(input), layout.line(index)
        slope, end = layout.empty(input)
        zero = index.new_zeros((), dtype=dtype).expand(index.shape)
        lines = [layout.line(zero if g is None else g) for g in given]
        middle, absent = layout.line(mean), layout.line(~keep)
        work = Work(dtype)
        for piece in layout.pieces(grid, 2):
            part = piece.logits(grid)
            to_prob, to_entropy, to_lse = (piece.numbers(line) for line in lines)
            depth = work.like(part, 0)
            _, bend = head.lower(part, depth, work)
            e, one = exp_of(depth, work.like(part, 1)), piece.numbers(place)
            own, rest = apart(e, one)  # 1 - p of a likely class is the sum of the others
            whole = own + rest
            pull = to_lse - to_prob
            if given[1] is not None:
                bends = depth.clamp_(min=VANISHED).sub_(piece.numbers(middle)).mul_(-to_entropy)
                to_lse = to_lse + bends.gather(1, one)
                pull = bends.add_(pull)
            slopes = e.mul_(pull).scatter_(1, one, to_prob * rest + to_lse * own).div_(whole)
            if bend is not None:
                slopes.mul_(bend)
            slopes.mul_(head.scale).masked_fill_(piece.numbers(absent), 0.0)
            piece.logits(end).copy_(slopes)
        return slope, None, None, None
