"""Connectionist temporal classification: all alignments of a label sequence, summed.

The forward recursion runs in the log semiring and in float64, where a finite lowest number stands
for log 0: with -inf, differences of two impossible paths would be NaN.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lossmith.core.card import Card
from lossmith.core.checks import fail, fail_type, require_range
from lossmith.core.domain import FLAG, LOG_PROBABILITIES, REAL, Whole
from lossmith.core.loss import NATIVE_REDUCTION, loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.sequences import TOKENS, Lengths, as_lengths, checked_symbols
from lossmith.core.signature import Signature
from lossmith.engines.ctc import Batch, one_pass_ctc

IMPOSSIBLE = (
    -1e30
)  # added once per step it stays finite for 1e278 steps, and no real path gets here
STEPS = Lengths("lengths", "be a length", of="T")
SYMBOLS = Lengths("lengths", "be a length", of="S")
SOURCE = "Graves, Fernandez, Gomez & Schmidhuber 2006, doi:10.1145/1143844.1143891"


def _arrange(scores: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> tuple[Any, ...]:
    """Lengths may come as tuples, and targets end to end in one dimension, as in torch.

    A single sequence has lengths of no dimension, or of one that holds one number.
    """
    target_lengths = as_lengths("target_lengths", target_lengths)
    tensors = all(isinstance(value, Tensor) for value in (scores, targets, target_lengths))
    if tensors and (scores.ndim, targets.ndim, target_lengths.ndim) == (3, 1, 1):
        targets = _apart(targets, target_lengths)
    given = [
        STEPS.beside("input_lengths", input_lengths, scores, 0),
        SYMBOLS.beside("target_lengths", target_lengths, targets, -1),
    ]
    if isinstance(scores, Tensor) and scores.ndim == 2:
        ones = [isinstance(lengths, Tensor) and lengths.shape == (1,) for lengths in given]
        given = [x.squeeze(0) if one else x for x, one in zip(given, ones, strict=True)]
    return scores, targets, *given


def _apart(targets: Tensor, lengths: Tensor) -> Tensor:
    """Targets that stand end to end, a row for each sample."""
    if lengths.is_floating_point():
        fail_type("target_lengths", "be integers", lengths)
    require_range("target_lengths", "be >= 0", lengths, 0, math.inf)
    counts: list[int] = lengths.tolist()
    if sum(counts) != len(targets):
        fail("targets", f"hold {sum(counts)} symbols, the sum of target_lengths", targets)
    rows = list(targets.split(counts)) or [targets]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)[: len(counts)]


def _plain(
    scores: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int,
    logits: bool,
) -> Tensor:
    """Negative log-likelihood ``(N)`` by Eqs. (6) to (8) of the paper."""
    steps, batch, _ = scores.shape
    outside = torch.arange(steps, device=scores.device).unsqueeze(1) >= input_lengths
    scores = torch.where(outside.unsqueeze(2), 0.0, scores.double())
    log_probs = torch.log_softmax(scores, 2) if logits else scores
    emit = log_probs.clamp(min=IMPOSSIBLE)
    # b l1 b l2 b ...: blanks around every symbol
    path = torch.stack([torch.full_like(targets, blank), targets], -1).flatten(1)
    path = F.pad(path, (0, 1), value=blank)
    # a symbol may be entered from the symbol before it, unless they are equal
    before = F.pad(path, (2, 0), value=blank)[:, :-2]
    skip = (path != blank) & (path != before)
    # before the first step: at the first blank, having emitted nothing
    width = path.shape[1]
    start = torch.arange(width, device=path.device) == 0
    alpha = torch.where(start, 0.0, IMPOSSIBLE).to(emit).expand(batch, width)
    emitted = emit.gather(2, path.expand(steps, batch, width))
    if steps == 0:
        alpha = alpha + emit.sum(0)[:, :1]  # 0, and a gradient of nothing
    for step in range(steps):
        after_one = F.pad(alpha, (1, 0), value=IMPOSSIBLE)[:, :-1]
        after_two = F.pad(alpha, (2, 0), value=IMPOSSIBLE)[:, :-2]
        after_two = torch.where(skip, after_two, IMPOSSIBLE)
        # not logaddexp: its second derivative is NaN where the terms differ by more than 709
        arrived = torch.stack([alpha, after_one, after_two]).logsumexp(0) + emitted[step]
        alpha = torch.where((step < input_lengths).unsqueeze(1), arrived, alpha)
    end = 2 * target_lengths.unsqueeze(1)
    last_blank = alpha.gather(1, end).squeeze(1)
    last_symbol = alpha.gather(1, (end - 1).clamp(min=0)).squeeze(1)
    last_symbol = torch.where(target_lengths > 0, last_symbol, IMPOSSIBLE)
    return -torch.stack([last_blank, last_symbol]).logsumexp(0)


def _bounded(value: Tensor, zero_infinity: bool) -> Tensor:
    """Without gradient where no alignment fits."""
    return torch.where(value >= -IMPOSSIBLE / 2, 0.0 if zero_infinity else math.inf, value)


def _ctc(
    scores: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool,
    logits: bool,
) -> Terms:
    alone = scores.ndim == 2
    lengths = input_lengths, target_lengths
    if alone:
        scores, targets = scores.unsqueeze(1), targets.unsqueeze(0)
        lengths = input_lengths.unsqueeze(0), target_lengths.unsqueeze(0)
    present = checked_symbols(targets, lengths[1], scores.shape[2], blank)
    plain = functools.partial(_plain, blank=blank, logits=logits)
    value = one_pass_ctc(Batch(scores, present, *lengths, blank, logits), plain)
    if value is None:
        value = plain(scores, present, *lengths)
    value = _bounded(value.squeeze(0) if alone else value, zero_infinity).to(scores.dtype)
    # torch's mean: of the losses per symbol
    return Terms(value, mean_of=value / target_lengths.clamp(min=1).to(scores.dtype))


def _native(
    scores: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    reduction: int,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    logits: bool = False,
) -> Tensor | None:
    """Checks, losses, reduction and gradient with few kernels, for the common case."""
    if scores.ndim == 2 or not scores.is_cpu:
        return None
    classes, places = scores.shape[2], targets.shape[1]
    steps, counts = input_lengths.tolist(), target_lengths.tolist()
    if not counts or min(steps + counts) < 0 or max(steps) > len(scores) or max(counts) > places:
        return None
    # a harmless symbol behind the ends: of a blank at an end of the range, one look tells all
    low, high = (1, classes - 1) if blank == 0 else (0, classes - 2)
    if min(counts) < places:
        outside = torch.arange(places, device="cpu") >= target_lengths.unsqueeze(1)
        targets = targets.masked_fill(outside, low)
    least, most = (end.item() for end in torch.aminmax(targets))
    if not (blank in (0, classes - 1) and low <= least and most <= high):
        return None
    factor = None
    if reduction != NATIVE_REDUCTION["none"]:
        mean = reduction == NATIVE_REDUCTION["mean"]
        numbers = [1 / (max(count, 1) * len(counts)) if mean else 1.0 for count in counts]
        factor = torch.tensor(numbers, dtype=torch.float64, device="cpu")

    def plain(*tensors: Tensor) -> Tensor:
        value = _bounded(_plain(*tensors, blank=blank, logits=logits), zero_infinity)
        return value if factor is None else value.dot(factor)

    batch = Batch(scores, targets, input_lengths, target_lengths, blank, logits)
    value = one_pass_ctc(batch, plain, factor=factor, zero_infinity=zero_infinity)
    return value if value is None else value.to(scores.dtype)


@loss(
    Card(
        task="sequence",
        coupling="path",
        formula=r"-\log \sum_{\pi \in \mathcal{B}^{-1}(y)} \prod_t p_t(\pi_t)",
        signatures=(
            Signature(
                log_probs=LOG_PROBABILITIES("T N C"),
                targets=TOKENS("N S"),
                input_lengths=STEPS("N"),
                target_lengths=SYMBOLS("N"),
                out="N",
            ),
            Signature(
                log_probs=LOG_PROBABILITIES("T C"),
                targets=TOKENS("S"),
                input_lengths=STEPS(""),
                target_lengths=SYMBOLS(""),
                out="",
            ),
        ),
        options={"blank": Whole(0), "zero_infinity": FLAG},
        variants=({"zero_infinity": True},),
        plain_mean=False,
        elicits="distribution",
        aliases=("ctc",),
        use_when="labels are shorter than the input and their places in it are unknown",
        avoid_when="the alignment is known, or labels may be longer than the input",
        source=SOURCE,
    ),
    native=_native,
    native_checks=True,
    arrange=_arrange,
)
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Terms:
    """Negative log-probability of a label sequence, over all its alignments.

    Deterministic, twice differentiable. The gradient is that of the log-probabilities themselves,
    minus the posterior of each symbol at each step; through a log-softmax it is torch's.

    Args:
        log_probs: Log-probabilities, ``(T, N, C)`` or ``(T, C)``, floating point; not logits.
        targets: Class indices in [0, C-1] without the blank, ``(N, S)`` with anything behind
            their ends, or all end to end in one dimension; ``(S)`` for one sequence.
        input_lengths: Steps of each sample, in [0, T], ``(N)`` or ``()``, integers, on any device;
            or a tuple.
        target_lengths: Symbols of each sample, in [0, S], ``(N)`` or ``()``, likewise.
        blank: Class of the blank, in [0, C-1].
        zero_infinity: Whether samples that no alignment fits count 0 instead of infinity; their
            gradient is 0 either way.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (of the losses per target symbol, divided by the sum of the weights),
            ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``log_probs``.

    Raises:
        ValueError: If shapes do not fit, a symbol does not exist or is the blank, or a length is
            out of range.
        TypeError: If ``log_probs`` is not floating point, or another tensor not of integers.

    Example:
        >>> import torch, lossmith as lm
        >>> log_probs = torch.full((2, 1, 3), 1 / 3).log()
        >>> symbols, one = torch.tensor([[1]]), torch.tensor([1])
        >>> lm.ctc_loss(log_probs, symbols, torch.tensor([2]), one)  # 3 of 9 alignments
        tensor(1.0986)
    """
    lengths = input_lengths, target_lengths
    return _ctc(log_probs, targets, *lengths, blank, zero_infinity, logits=False)


class CTCLoss(Loss):
    """Module form of :func:`ctc_loss`."""

    blank: int = 0
    zero_infinity: bool = False
    function = staticmethod(ctc_loss)


@loss(
    Card(
        task="sequence",
        coupling="path",
        formula=r"-\log \sum_{\pi \in \mathcal{B}^{-1}(y)} \prod_t"
        r" \operatorname{softmax}(x_t)_{\pi_t}",
        signatures=(
            Signature(
                input=REAL("T N C"),
                targets=TOKENS("N S"),
                input_lengths=STEPS("N"),
                target_lengths=SYMBOLS("N"),
                out="N",
            ),
            Signature(
                input=REAL("T C"),
                targets=TOKENS("S"),
                input_lengths=STEPS(""),
                target_lengths=SYMBOLS(""),
                out="",
            ),
        ),
        options={"blank": Whole(0), "zero_infinity": FLAG},
        variants=({"zero_infinity": True},),
        plain_mean=False,
        elicits="distribution",
        use_when="the model gives logits per step, and labels have no known places",
        avoid_when="the alignment is known, or labels may be longer than the input",
        source=SOURCE,
    ),
    native=functools.partial(_native, logits=True),
    native_checks=True,
    arrange=_arrange,
)
def ctc_with_logits_loss(
    input: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Terms:
    """Negative log-probability of a label sequence, from logits.

    Args:
        input: Logits, ``(T, N, C)`` or ``(T, C)``, floating point, any real value.
        targets: Class indices in [0, C-1] without the blank, ``(N, S)`` with anything behind
            their ends, or all end to end in one dimension; ``(S)`` for one sequence.
        input_lengths: Steps of each sample, in [0, T], ``(N)`` or ``()``, integers, on any device;
            or a tuple.
        target_lengths: Symbols of each sample, in [0, S], ``(N)`` or ``()``, likewise.
        blank: Class of the blank, in [0, C-1].
        zero_infinity: Whether samples that no alignment fits count 0 instead of infinity; their
            gradient is 0 either way.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (of the losses per target symbol, divided by the sum of the weights),
            ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a symbol does not exist or is the blank, or a length is
            out of range.
        TypeError: If ``input`` is not floating point, or another tensor not of integers.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.ctc_with_logits_loss(torch.zeros(2, 1, 3), torch.tensor([[1]]), (2,), (1,))
        tensor(1.0986)
    """
    lengths = input_lengths, target_lengths
    return _ctc(input, targets, *lengths, blank, zero_infinity, logits=True)


class CTCWithLogitsLoss(Loss):
    """Module form of :func:`ctc_with_logits_loss`."""

    blank: int = 0
    zero_infinity: bool = False
    function = staticmethod(ctc_with_logits_loss)
