"""CTC from scores to the gradient by the scores, without a graph through the steps.

Four ways lead to the losses and to the posterior of every symbol: torch's kernel for a few states,
the walks of :mod:`lossmith.engines.alignments`, by multiplication or in logarithms, and a kernel in
Triton on a GPU.
"""

import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.engines.alignments import in_logarithms, multiplied
from lossmith.engines.eligible import eager, transformed
from lossmith.engines.pull import with_pull
from lossmith.engines.softmax import Softmax

# States of a step for each thread, up to which torch's kernel, state by state, beats a walk. That
# takes all that a step may have, ended or not, a fourth as long for each. The kernel works in
# logarithms, whose errors float32 does not show, and float64 does.
FEW = 128


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
    done = _by_torch(fixed, wanted, factor)
    value, *kept = _by_walk(fixed, wanted, factor) if done is None else done
    if zero_infinity:
        value = value.masked_fill_(value == math.inf, 0.0)
    if factor is not None:
        value = value.dot(factor)
    return with_pull(
        value,
        0,
        _pull_symbols if len(kept) == 2 else _pull,
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
    value, slope, *index = _by_walk(batch, True, None)
    if index:
        (slope,) = _pull_symbols(torch.ones_like(value), (True,), (scores,), slope, *index)
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


def _by_torch(batch: Batch, wanted: bool, factor: Tensor | None) -> tuple[Tensor, ...] | None:
    """The losses and the gradient for a few states; None unless everything is finite."""
    scores, targets, steps, symbols, blank, logits = batch
    if not (targets.numel() and scores.dtype is torch.float32 and scores.device.type == "cpu"):
        return None
    lengths = steps.tolist(), symbols.tolist()
    states = sum(step * (2 * symbol + 1) for step, symbol in zip(*lengths, strict=True))
    most = len(targets) * (2 * targets.shape[1] + 1)
    if states > (FEW + most / 4) * len(scores) * min(len(targets), torch.get_num_threads()):
        return None
    wide = scores.double()
    if logits:
        wide = wide.log_softmax(2)
    value, alpha = torch._ctc_loss(wide, targets, *lengths, blank, False)
    if not wanted:
        return (value,) if math.isfinite(value.sum().item()) else None
    each = torch.ones_like(value) if factor is None else factor
    kernel = torch.ops.aten._ctc_loss_backward
    slope = kernel(each, wide, targets, *lengths, value, alpha, blank, False)
    if not logits:
        # torch's gradient is that of the logits: it contains softmax, which is taken out again
        softmax = wide.exp().mul_(each.unsqueeze(1))
        if min(lengths[0]) < len(wide):
            softmax.masked_fill_(batch.outside(), 0.0)
        slope.sub_(softmax)
    # an infinite loss and an impossible symbol have NaN gradients
    return (value, slope.to(scores.dtype)) if math.isfinite(slope.sum().item()) else None


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    grad = grad.to(slope.dtype)
    return (slope * (grad.unsqueeze(1) if grad.ndim else grad),)


def _pull_symbols(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor, index: Tensor
) -> tuple[Tensor]:
    (pull,) = _pull(grad, needed, leaves, slope)
    return (torch.zeros_like(leaves[0]).scatter_add_(2, index.expand_as(pull), pull),)


def _by_walk(batch: Batch, wanted: bool, factor: Tensor | None) -> tuple[Tensor, ...]:
    """The losses and the gradient: of logits, or of the symbols alone with their index."""
    scores, targets, steps, symbols, _, logits = batch
    index = batch.classes()
    soft = Softmax.of(scores) if logits else None
    emit = scores.gather(2, index.expand(len(scores), -1, -1)).double()
    if soft is not None:
        emit -= soft.normaliser(scores)
    differs = torch.ones_like(targets, dtype=torch.bool)
    differs[:, 1:] = targets[:, 1:] != targets[:, :-1]
    question = emit, differs, steps, symbols
    if scores.device.type == "cuda" and importlib.util.find_spec("triton"):
        from lossmith.engines.triton.ctc import on_device

        value, posterior = on_device(*question, posterior=wanted)
    else:
        done = multiplied(*question, posterior=wanted)
        value, posterior = in_logarithms(*question, posterior=wanted) if done is None else done
    if posterior is None:
        return (value,)
    if scores.device.type != "cpu":
        posterior = once(posterior, index)
    if factor is not None:
        posterior.mul_(factor.unsqueeze(1))
    if soft is None:
        return value, posterior.neg_().to(scores.dtype), index
    slope = soft.minus(posterior, index, 1.0 if factor is None else factor.unsqueeze(1))
    return value, slope.masked_fill_(batch.outside() | (value == math.inf).unsqueeze(1), 0.0)


def once(posterior: Tensor, index: Tensor) -> Tensor:
    """All posteriors of a class ``(T, N, 1 + S)`` added up at the first of its places.

    Kernels that add to places in any order round in any order; to add zeros is to round nothing.
    """
    same = index.unsqueeze(2) == index.unsqueeze(1)
    first = ~same.tril(-1).any(2)
    return torch.einsum("tnk,nkj->tnj", posterior, (same & first.unsqueeze(1)).to(posterior.dtype))
