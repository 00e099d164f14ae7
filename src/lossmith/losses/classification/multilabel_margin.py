"""Multi-label margin: every true class must lead every false one."""

import math
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.sequences import CLASS_LIST
from lossmith.core.signature import Signature
from lossmith.engines.eligible import sequential
from lossmith.engines.in_cache import Formula, in_cache, rows_are_worth_it
from lossmith.engines.pull import with_pull


def _plain(input: Tensor, target: Tensor) -> Tensor:
    classes = input.shape[-1]
    listed = (target >= 0).cumprod(-1).bool()  # up to the first -1
    label = torch.where(listed, target, 0)
    own = input.gather(-1, label)
    hits = label.unsqueeze(-1) == torch.arange(classes, device=label.device)
    true = (hits & listed.unsqueeze(-1)).any(-2)
    short = torch.relu(1 - own.unsqueeze(-1) + input.unsqueeze(-2))
    counted = listed.unsqueeze(-1) & ~true.unsqueeze(-2)
    return torch.where(counted, short, 0.0).sum((-2, -1)) / max(classes, 1)


def _kernel(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    """The kernel of torch, which needs no table of class pairs."""
    if not input.is_cpu:
        return None
    if not math.isfinite(input.detach().sum().item()):  # the kernel is finite for NaN scores
        return None
    scores = sequential(input.detach())
    forward = torch.ops.aten.multilabel_margin_loss_forward
    value, true = forward(scores, target, reduction)

    def pull(
        grad: Tensor, needed: Any, leaves: Any, scores: Tensor, target: Tensor, true: Tensor
    ) -> Any:
        backward = torch.ops.aten.multilabel_margin_loss_backward
        slope = backward(grad.to(scores.dtype).contiguous(), scores, target, reduction, true)
        return (slope.to(grad.dtype),)

    given = {"leaves": (input,), "others": (target,), "kept": (scores, target, true)}
    return with_pull(value.to(input.dtype), reduction, pull, _plain, **given, done=True)


class _Pairs:
    """Pairs of classes a list place at a time, in rows sorted by the length of their lists."""

    def value(
        self, x: Tensor, target: Tensor, out: Tensor, slope: Tensor, rival: Tensor, short: Tensor
    ) -> None:
        end = target.argmin(1, keepdim=True)
        length = torch.where(target.gather(1, end) < 0, end, x.shape[1]).squeeze(1)
        length, self.order = length.sort(descending=True)
        longest = max(int(length[0]), 1)
        listed = length.unsqueeze(1) > torch.arange(longest, device="cpu")
        self.rows = listed.sum(0).tolist()  # so many lists reach each place
        label = target[:, :longest].index_select(0, self.order)
        self.label = torch.where(listed, label, label[:, :1].clamp(min=0))
        torch.index_select(x, 0, self.order, out=rival)
        self.lead = 1 - rival.gather(1, self.label)
        rival.scatter_(1, self.label, -math.inf)  # a true class is nobody's rival
        total = out.new_zeros(out.shape)
        for place, rows in enumerate(self.rows):
            total[:rows] += self._short(place, rows, rival, short).clamp_(min=0).sum(1)
        out.index_copy_(0, self.order, total.div_(x.shape[1]))

    def slope(
        self, x: Tensor, target: Tensor, out: Tensor, slope: Tensor, rival: Tensor, short: Tensor
    ) -> None:
        """Numbers of pairs, which are exact."""
        slope.zero_()
        counts = torch.zeros_like(self.lead)
        for place, rows in enumerate(self.rows):
            hit = self._short(place, rows, rival, short)
            slope[:rows] += torch.gt(hit, 0, out=hit)
            torch.sum(hit, 1, out=counts[:rows, place])
        slope.scatter_add_(1, self.label, counts.neg_()).div_(x.shape[1])
        slope.copy_(short.index_copy_(0, self.order, slope))

    def _short(self, place: int, rows: int, rival: Tensor, short: Tensor) -> Tensor:
        """By how much each rival of the class in this place comes too close."""
        return torch.add(rival[:rows], self.lead[:rows, place, None], out=short[:rows])


def _classes(input: Tensor, target: Tensor) -> bool:
    low, high = torch.aminmax(target)
    return low.item() >= -1 and high.item() < input.shape[1]


def _one_pass(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    if not rows_are_worth_it(input):
        return _kernel(input, target, reduction)
    pairs = _Pairs()
    formula = Formula(_plain, pairs.value, pairs.slope, _classes, by_row=True)
    return in_cache(formula, input, target, reduction)


@loss(
    Card(
        task="multilabel",
        coupling="row",
        formula=r"\frac1C \sum_{j \in Y} \sum_{i \notin Y} \max(0, 1 - x_j + x_i)",
        signatures=(
            Signature(input=REAL("N C"), target=CLASS_LIST("N C"), out="N"),
            Signature(input=REAL("C"), target=CLASS_LIST("C"), out=""),
        ),
        convex=True,
        same_as="torch.nn.functional.multilabel_margin_loss",
        elicits="ranking",
        link="identity",
        use_when="several classes may be true at once, and only their order matters",
        avoid_when="probabilities are wanted",
        source="Crammer & Singer 2003, A family of additive online algorithms for category"
        " ranking (JMLR 3)",
    ),
    native=_one_pass,
    native_checks=True,
)
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far each false class comes within a margin of 1 of each true class.

    The sum over pairs is divided by the number of classes, as in torch. Beside torch's kernel the
    pairs are a table of C x C numbers per sample.

    Args:
        input: Class scores, ``(N, C)`` or ``(C)``, floating point, any real value.
        target: The true classes of each sample, then -1 up to the end of the row, ``(N, C)`` or
            ``(C)``, integers in [-1, C-1]; what follows the first -1 does not count.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, or a class is outside [-1, C-1].
        TypeError: If ``input`` is not floating point, or ``target`` is not of an integer dtype.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, classes = torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([[3, 0, -1, 1]])
        >>> lm.multilabel_margin_loss(scores, classes)
        tensor(0.8500)
    """
    return _plain(input, target)


class MultiLabelMarginLoss(Loss):
    """Module form of :func:`multilabel_margin_loss`."""

    function = staticmethod(multilabel_margin_loss)
