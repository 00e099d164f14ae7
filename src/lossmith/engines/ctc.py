"""CTC from scores to the gradient by the scores, without a graph through the steps.

Four ways lead to the losses and their gradient: torch's kernel for a few states, the walks of
:mod:`lossmith.engines.alignments`, by multiplication or in logarithms, and a kernel in Triton on a
GPU.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.checks import eager
from lossmith.engines.alignments import NOTHING, in_logarithms, multiplied
from lossmith.engines.eligible import by_triton, transformed
from lossmith.engines.pull import with_pull
from lossmith.engines.softmax import Softmax

# torch's kernel goes from state to state, on all threads. A walk takes about as long as 2000 of its
# states, as 32 more for each step, and as one for nine that a step may have, ended or not: a rough
# fit to one thread. In logarithms the kernel has errors that float64 shows, and float32 does not.
WALK, STEP, STATE = 2000, 32, 1 / 9
# Looked up once: that takes as long as the kernel for a few states
CTC_BACKWARD = torch.ops.aten._ctc_loss_backward.default
# Where one class has all but so much of a step, its slope is a difference of nearly equal numbers
CERTAIN = 1e-8
# The losses, what pulls a gradient back, and what that takes besides, if a gradient is wanted
Found = tuple[Any, ...]


class Batch(NamedTuple):
    """What a loss is asked of.

    Attributes:
        scores: Log-probabilities or ``logits``, ``(T, N, C)``.
        targets: Class indices ``(N, S)``; what stands behind the end of a sample is an index, too.
        steps: Steps of each sample, ``(N)``.
        symbols: Symbols of each sample, ``(N)``.
        blank: Class of the blank.
        logits: What the scores are.
    """

    scores: Tensor
    targets: Tensor
    steps: Tensor
    symbols: Tensor
    blank: int
    logits: bool

    def outside(self) -> Tensor:
        """Where a sample has ended, ``(T, N, 1)``."""
        step = torch.arange(len(self.scores), device=self.scores.device)
        return (step.unsqueeze(1) >= self.steps).unsqueeze(2)

    def path(self) -> Tensor:
        """The classes of all states behind two more, ``(T, N, 3 + 2 S)``."""
        path = self.targets.new_full((len(self.targets), 3 + 2 * self.targets.shape[1]), self.blank)
        path[:, 3::2] = self.targets
        return path.expand(len(self.scores), -1, -1)

    def classes(self) -> Tensor:
        """The blank and the symbols of each sample, ``(N, 1 + S)``."""
        blanks = self.targets.new_full((len(self.targets), 1), self.blank)
        return torch.cat([blanks, self.targets], 1)


def one_pass_ctc(
    batch: Batch,
    plain: Callable[..., Tensor],
    *,
    factor: Tensor | None = None,
    zero_infinity: bool = False,
) -> Tensor | None:
    """The losses in float64, connected to the scores; None where a graph or transform is at work.

    Args:
        batch: The question.
        plain: ``plain(scores, targets, steps, symbols)`` is the same as plain torch.
        factor: Positive numbers ``(N)``, in float64, by which the losses are multiplied before they
            are added up. None leaves them one by one.
        zero_infinity: Whether infinite losses count 0; they have no gradient either way.
    """
    scores = batch.scores
    if torch.compiler.is_compiling() and not transformed() and factor is None:
        return opaque(*batch)[0]
    if not (scores.numel() and eager(scores)):
        return None
    wanted = scores.requires_grad and torch.is_grad_enabled()
    fixed = batch._replace(scores=scores.detach())
    done = _by_torch(fixed, wanted, factor) if _few(fixed) else None
    value, pull, *kept = done or _by_walk(fixed, wanted, factor)
    if zero_infinity:
        value = value.masked_fill_(value == math.inf, 0.0)
    if factor is not None:
        value = value.dot(factor)
    return with_pull(
        value,
        0,
        pull,
        plain,
        leaves=(scores,),
        others=batch[1:4],
        kept=tuple(kept),
        done=True,
    )


@torch.library.custom_op("lossmith::ctc", mutates_args=())
def opaque(
    scores: Tensor, targets: Tensor, steps: Tensor, symbols: Tensor, blank: int, logits: bool
) -> tuple[Tensor, Tensor]:
    """The losses and their gradient as one node of a compiled graph.

    A compiler would unroll the walk, and take longer the longer the sequences are.
    """
    batch = Batch(scores, targets, steps, symbols, blank, logits)
    value, pull, *kept = _by_walk(batch, True, None)
    (slope,) = pull(torch.ones_like(value), (True,), (scores,), *kept)
    return value, slope.contiguous()


@opaque.register_fake
def _shapes(
    scores: Tensor, targets: Tensor, steps: Tensor, symbols: Tensor, blank: int, logits: bool
) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[1], dtype=torch.float64), scores.new_empty(scores.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _opaque_pull(ctx: Any, grad: Tensor | None, second: Tensor | None) -> tuple[Any, ...]:
    if second is not None:
        raise NotImplementedError("CTC in a compiled graph has no second derivative")
    (slope,) = ctx.saved_tensors
    return None if grad is None else _pull(grad, (True,), (), slope)[0], *[None] * 5


opaque.register_autograd(_opaque_pull, setup_context=_keep)


def _few(batch: Batch) -> bool:
    """Whether torch's kernel is likely to be the fastest, on the CPU."""
    scores, targets, steps, symbols = batch[:4]
    if scores.device.type != "cpu" or not targets.numel():
        return False
    lengths = zip(steps.tolist(), symbols.tolist(), strict=True)
    states = sum(step * (2 * symbol + 1) for step, symbol in lengths)
    most = len(targets) * (2 * targets.shape[1] + 1)
    threads = min(len(targets), torch.get_num_threads())
    return states <= (WALK + (STEP + STATE * most) * len(scores)) * threads


def _by_torch(batch: Batch, wanted: bool, factor: Tensor | None) -> Found | None:
    """In float32 on the CPU; None unless everything is finite."""
    scores, targets, steps, symbols, blank, logits = batch
    if scores.dtype is not torch.float32 or scores.device.type != "cpu" or not targets.numel():
        return None
    lengths = steps.tolist(), symbols.tolist()
    wide = scores.double()
    if logits:
        wide = wide.log_softmax(2)
    value, alpha = torch._ctc_loss(wide, targets, *lengths, blank, False)
    if not wanted:
        return (value, _pull) if math.isfinite(value.sum().item()) else None
    each = torch.ones_like(value) if factor is None else factor
    slope = CTC_BACKWARD(each, wide, targets, *lengths, value, alpha, blank, False)
    if not logits:
        # torch's gradient is that of the logits: it contains softmax, which is taken out again
        if min(lengths[0]) < len(wide):
            wide.masked_fill_(batch.outside(), -math.inf)
        slope.addcmul_(wide.exp_(), each.unsqueeze(1), value=-1.0)
    # an infinite loss and an impossible symbol have NaN gradients
    return (value, _pull, slope.to(scores.dtype)) if math.isfinite(slope.sum().item()) else None


def _pull(
    grad: Tensor,
    needed: tuple[bool, ...],
    leaves: tuple[Tensor, ...],
    slope: Tensor,
    weight: Tensor | float = 1.0,
) -> tuple[Tensor]:
    grad = grad.to(slope.dtype)
    return (slope * (weight * (grad.unsqueeze(1) if grad.ndim else grad)),)


def _pull_symbols(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor, index: Tensor
) -> tuple[Tensor]:
    (pull,) = _pull(grad, needed, leaves, slope)
    return (torch.zeros_like(leaves[0]).scatter_add_(2, index.expand_as(pull), pull),)


def _by_walk(batch: Batch, wanted: bool, factor: Tensor | None) -> Found:
    """By multiplication on the CPU, if that loses no digits, and in logarithms."""
    done = None
    if batch.scores.device.type == "cpu":
        done = _by_products(batch, wanted, factor)
        if done is None:  # perhaps because of what is behind an end
            batch = batch._replace(scores=batch.scores.masked_fill(batch.outside(), 0.0))
            done = _by_products(batch, wanted, factor) or _by_torch(batch, wanted, factor)
    return done or _by_logarithms(batch, wanted, factor)


def _by_products(batch: Batch, wanted: bool, factor: Tensor | None) -> Found | None:
    """On the CPU only; None if digits may have been lost."""
    scores, targets, steps, symbols, _, logits = batch
    slope = torch.empty_like(scores)
    weight = torch.empty_like(scores[..., :1])
    with torch.inference_mode():  # its kernels are called faster
        path, shares = batch.path(), None
        if logits:
            dense = scores.to(torch.float64, copy=True)
            dense.sub_(scores.amax(2, keepdim=True)).exp_()
            shares = dense, dense.sum(2, keepdim=True)
            chance = dense.gather(2, path)
        else:
            chance = scores.gather(2, path).double().exp_()
        low, high = (end.item() for end in torch.aminmax(chance))
        left = steps - torch.arange(1, len(scores) + 1, device=steps.device).unsqueeze(1)
        outside = (left < 0).unsqueeze(2)
        chance[..., :2] = 0.0
        done = multiplied(chance, low, high, targets[:, 1:] != targets[:, :-1], left, symbols)
        if done is None:
            return None
        found, passing = done
        value = -found
        if shares is not None:
            value += shares[1].log().masked_fill_(outside, 0.0).sum((0, 2))
        if wanted:
            each = 1.0 if factor is None else factor.unsqueeze(1)
            total = passing.sum(2, keepdim=True).clamp_(min=NOTHING).neg_()
            if shares is None:
                dense = torch.zeros_like(scores, dtype=torch.float64)
                dense.scatter_add_(2, path, passing.div_(total))
            else:
                dense, whole = shares
                each = each / whole
                dense.scatter_add_(2, path, passing.mul_(whole / total))
                if whole.amin().item() < 1.0 + CERTAIN:
                    # slopes of a step add up to 0: the likeliest has the digits of the others
                    top = scores.argmax(2, keepdim=True)
                    dense.scatter_(2, top, 0.0)
                    dense.scatter_(2, top, dense.sum(2, keepdim=True).neg_())
            slope.copy_(dense)
            weight.copy_(torch.where(outside | found.isinf().unsqueeze(1), 0.0, each))
    return (value.clone(), _pull, slope, weight) if wanted else (value.clone(), _pull)


def _by_logarithms(batch: Batch, wanted: bool, factor: Tensor | None) -> Found:
    """On any device. Of log-probabilities the gradient by the symbols is kept, with their index."""
    scores, targets, steps, symbols, _, logits = batch
    index = batch.classes()
    soft = Softmax.of(scores) if logits else None
    emit = scores.gather(2, index.expand(len(scores), -1, -1)).double()
    if soft is not None:
        emit -= soft.normaliser(scores)
    differs = torch.ones_like(targets, dtype=torch.bool)
    differs[:, 1:] = targets[:, 1:] != targets[:, :-1]
    question = emit, differs, steps, symbols
    if by_triton(scores):
        from lossmith.engines.triton.ctc import on_device

        value, posterior = on_device(*question, posterior=wanted)
    else:
        value, posterior = in_logarithms(*question, posterior=wanted)
    if posterior is None:
        return value, _pull
    if scores.device.type != "cpu":
        posterior = once(posterior, index)
    if factor is not None:
        posterior.mul_(factor.unsqueeze(1))
    if soft is None:
        return value, _pull_symbols, posterior.neg_().to(scores.dtype), index
    slope = soft.minus(posterior, index, 1.0 if factor is None else factor.unsqueeze(1))
    return value, _pull, slope.masked_fill_(batch.outside() | (value == math.inf).unsqueeze(1), 0.0)


def once(posterior: Tensor, index: Tensor) -> Tensor:
    """All posteriors of a class ``(T, N, 1 + S)`` added up at the first of its places.

    Kernels that add to places in any order round in any order; to add zeros is to round nothing.
    """
    same = index.unsqueeze(2) == index.unsqueeze(1)
    first = ~same.tril(-1).any(2)
    return torch.einsum("tnk,nkj->tnj", posterior, (same & first.unsqueeze(1)).to(posterior.dtype))
