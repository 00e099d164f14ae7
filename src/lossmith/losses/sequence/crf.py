"""Linear-chain conditional random field: the labels of a sequence, scored together.

The score of a labelling is that of its classes and of each class after the one before. Its
probability is among all labellings, which the forward recursion sums in logarithms and in float64.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lossmith.core.card import Card
from lossmith.core.checks import require_all, require_range
from lossmith.core.domain import REAL, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import not_below
from lossmith.core.reduction import Reduction
from lossmith.core.sequences import TAGS, Lengths
from lossmith.core.signature import Signature
from lossmith.engines.chain import Chain, one_pass_chain

STEPS = Lengths("lengths", "be a length of at least 1", fill=1.0, of="T", low=1)


def _arrange(input: Any, target: Any, lengths: Any, transitions: Any) -> tuple[Any, ...]:
    """Lengths may come as a mask, True up to the end of each sample."""
    if isinstance(lengths, Tensor) and lengths.dtype is torch.bool and lengths.ndim == 2:
        count = lengths.sum(1)
        step = torch.arange(lengths.shape[1], device=lengths.device)
        holds = lengths == (step < count.unsqueeze(1))
        require_all("lengths", "be a mask that is True up to the end of a sample", holds, lengths)
        lengths = count
    return input, target, STEPS.beside("lengths", lengths, input, 1), transitions


def _plain(*tensors: Tensor) -> Tensor:
    """Logarithm of the sum over all labellings, minus the score of the targets, ``(N)``."""
    chain = Chain(*tensors).wide()
    # what stands behind the end may be NaN, and must not reach the gradient
    inside = chain.inside()
    chain = chain._replace(input=torch.where(inside.unsqueeze(2), chain.input, 0.0))
    line = chain.start + chain.input[:, 0]
    level = torch.zeros_like(line[:, :1])
    for step in range(1, chain.input.shape[1]):
        moved = torch.logsumexp(line.unsqueeze(2) + chain.transitions, 1) + chain.input[:, step]
        # relative to the largest, so that the digits of the others are kept
        top = moved.detach().amax(1, keepdim=True)
        here = inside[:, step].unsqueeze(1)
        line = torch.where(here, moved - top, line)
        level = torch.where(here, level + top, level)
    return torch.logsumexp(line + chain.end + level, 1) - chain.score()


@loss(
    Card(
        task="sequence",
        coupling="path",
        formula=r"\log \sum_{y'} e^{s(x, y')} - s(x, y), \quad"
        r" s(x, y) = a_{y_1} + \sum_t x_{t, y_t} + \sum_{t>1} A_{y_{t-1}, y_t} + b_{y_T}",
        signatures=(
            Signature(
                input=REAL("N T C"),
                target=TAGS("N T"),
                lengths=STEPS("N"),
                transitions=REAL("C C"),
                out="N",
            ),
        ),
        options={"start": Vector(), "end": Vector()},
        variants=(
            {
                "start": torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64),
                "end": torch.tensor([0.0, 1.5, -0.5, 1.0], dtype=torch.float64),
            },
        ),
        elicits="distribution",
        aliases=("crf", "linear_chain_crf"),
        use_when="labels of neighbouring steps depend on each other, as in tagging",
        avoid_when="steps are labelled independently, or classes are many: the cost is quadratic",
        source="Lafferty, McCallum and Pereira 2001, Proceedings of ICML, pages 282-289",
    ),
    arrange=_arrange,
)
def crf_loss(
    input: Tensor,
    target: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    *,
    start: Tensor | None = None,
    end: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of the labels of a sequence under a linear-chain CRF.

    All of ``input``, ``transitions``, ``start`` and ``end`` get gradients: posteriors minus counts.

    Args:
        input: Scores of each class at each step, ``(N, T, C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, T)``, with anything behind their ends, integers.
        lengths: Steps of each sample, in [1, T], ``(N)``, integers, on any device; or a tuple;
            or a mask ``(N, T)`` of bool, True up to the end of each sample.
        transitions: Score of a class (column) after another (row), ``(C, C)``, floating point.
        start: Score of each class as the first, ``(C)``, floating point; 0 if None.
        end: Score of each class as the last, ``(C)``, floating point; 0 if None.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class does not exist, or a length is out of range.
        TypeError: If ``input`` or ``transitions`` is not floating point, or another tensor not of
            integers.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, labels = torch.zeros(1, 2, 3), torch.tensor([[0, 2]])
        >>> lm.crf_loss(scores, labels, torch.tensor([2]), torch.zeros(3, 3))  # 1 of 9 labellings
        tensor(2.1972)
    """
    classes = input.shape[2]
    start = input.new_zeros(classes) if start is None else start
    end = input.new_zeros(classes) if end is None else end
    inside = torch.arange(target.shape[1], device=target.device) < lengths.unsqueeze(1)
    present = torch.where(inside, target, 0)
    require_range("target", f"be a class index in [0, {classes - 1}]", present, 0, classes - 1)
    chain = Chain(input, transitions, start, end, present, lengths)
    value = one_pass_chain(chain, _plain)
    value = _plain(*chain) if value is None else value
    return not_below(value, 0.0).to(input.dtype)  # rounding alone gets there


class CRFLoss(Loss):
    """Module form of :func:`crf_loss` that owns the scores of the transitions and learns them.

    ``transitions``, ``(num_classes, num_classes)``, ``start`` and ``end``, ``(num_classes)``, are
    parameters that begin at 0; give them to the optimiser together with those of the network.
    Called with input, target and lengths.

    Example:
        >>> import torch, lossmith as lm
        >>> chain = lm.CRFLoss(num_classes=3)
        >>> chain(torch.zeros(1, 2, 3), torch.tensor([[0, 2]]), torch.tensor([2])).requires_grad
        True
    """

    function = staticmethod(crf_loss)

    def __init__(self, *, num_classes: int, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        Whole(1).check_option("num_classes", num_classes)
        self.transitions = nn.Parameter(torch.zeros(num_classes, num_classes))
        self.start = nn.Parameter(torch.zeros(num_classes))
        self.end = nn.Parameter(torch.zeros(num_classes))

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The loss of input, target and lengths under the own scores."""
        own = {"transitions": self.transitions, "start": self.start, "end": self.end}
        return super().forward(*tensors, sample_weight=sample_weight, **own, **named)
