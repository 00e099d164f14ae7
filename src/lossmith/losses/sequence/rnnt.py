"""RNN transducer: all ways to emit a label sequence while reading the input, summed.

The paths lead through a grid of steps and symbols: a blank goes on to the next step, a symbol to
the next symbol. All of it in logarithms and in float64.
"""

import functools

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail, said
from lossmith.core.domain import REAL, Whole
from lossmith.core.grid import walk
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.sequences import TOKENS, Lengths, checked_symbols
from lossmith.core.signature import Signature
from lossmith.engines.rnnt import beyond, moves, one_pass_rnnt

STEPS = Lengths("lengths", "be a length of at least 1", fill=1.0, of="T", low=1)
SYMBOLS = Lengths("lengths", "be a length", of="S")


def _plain(
    logits: Tensor, targets: Tensor, steps: Tensor, symbols: Tensor, *, blank: int
) -> Tensor:
    """Negative log-likelihood ``(N)`` by Eqs. (16) and (18) of the paper."""
    outside = beyond(logits, steps, symbols)
    # what stands behind the end may be NaN, and must not reach the gradient
    scores = torch.where(outside.unsqueeze(3), 0.0, logits.double())
    log_probs = torch.log_softmax(scores, 3)
    next_symbol = targets.unsqueeze(1).unsqueeze(3).expand(-1, logits.shape[1], -1, 1)
    labels = log_probs[:, :, :-1].gather(3, next_symbol).squeeze(3)
    down, across = moves(log_probs[..., blank], labels, outside)
    return -walk(down, across).to(steps, symbols)


@loss(
    Card(
        task="sequence",
        coupling="path",
        formula=r"-\log \sum_{a \in \mathcal{B}^{-1}(y)} \prod_i p(a_i \mid t_i, u_i)",
        signatures=(
            Signature(
                logits=REAL("N T M C"),
                targets=TOKENS("N S"),
                logit_lengths=STEPS("N"),
                target_lengths=SYMBOLS("N"),
                out="N",
            ),
        ),
        options={"blank": Whole(0)},
        elicits="distribution",
        aliases=("transducer", "rnn_transducer"),
        use_when="labels are emitted while the input is read, and depend on the labels before",
        avoid_when="labels do not depend on each other: CTC needs no grid of logits",
        source="Graves 2012, arXiv:1211.3711",
    ),
    arrange=lambda logits, targets, logit_lengths, target_lengths: (
        logits,
        targets,
        STEPS.beside("logit_lengths", logit_lengths, logits, 1),
        SYMBOLS.beside("target_lengths", target_lengths, targets, 1),
    ),
)
def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = 0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-probability of a label sequence under a transducer.

    At each step of the input any number of symbols is emitted, then one blank. Deterministic; the
    softmax is part of the loss, and so of its gradient. ``torchaudio.functional.rnnt_loss`` has the
    same arguments, but takes the last class for the blank where none is given.

    Args:
        logits: Scores of the joint network, ``(N, T, S + 1, C)``, floating point, any real value:
            for each step, and for each number of symbols emitted so far.
        targets: Class indices in [0, C-1] without the blank, ``(N, S)``, with anything behind
            their ends, integers.
        logit_lengths: Steps of each sample, in [1, T], ``(N)``, integers or a tuple, on any device.
        target_lengths: Symbols of each sample, in [0, S], ``(N)``, likewise.
        blank: Class of the blank, in [0, C-1].
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``logits``.

    Raises:
        ValueError: If shapes do not fit, a symbol does not exist or is the blank, or a length is
            out of range.
        TypeError: If ``logits`` is not floating point, or another tensor not of integers.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.zeros(1, 2, 2, 3)  # 2 paths of 3 emissions, each of probability 1/3
        >>> lm.rnnt_loss(logits, torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1]))
        tensor(2.6027)
    """
    if logits.shape[2] != targets.shape[1] + 1:
        rule = "have one more size in dimension 2 than targets have symbols"
        fail("logits", rule, said(f"{logits.shape[2]} and {targets.shape[1]}"))
    present = checked_symbols(targets, target_lengths, logits.shape[3], blank)
    plain = functools.partial(_plain, blank=blank)
    value = one_pass_rnnt(logits, present, logit_lengths, target_lengths, blank, plain)
    if value is None:
        value = plain(logits, present, logit_lengths, target_lengths)
    return value.to(logits.dtype)


class RNNTLoss(Loss):
    """Module form of :func:`rnnt_loss`."""

    blank: int = 0
    function = staticmethod(rnnt_loss)
