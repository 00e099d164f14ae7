"""What a block of logits comes to: the loss of each row, and its slope in the logits.

A pass is handed logits that nobody else needs, and may write the slope over them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail, said
from lossmith.core.numerics import times
from lossmith.core.reduction import Terms
from lossmith.core.route import Call

Options = Mapping[str, Any]


class Rows(NamedTuple):
    """A block of rows.

    Attributes:
        value: The unreduced loss, ``(n)``.
        slopes: Its derivative in each of the logits up to ``factor``, ``(n, C)``; None where none
            was asked for.
        factor: What row i of the slopes has still to be multiplied by, ``(n)``, or None. Whoever
            multiplies the slopes by a matrix does so on the narrow side.
        normaliser: What the mean divides by is the sum of this, instead of the count.
    """

    value: Tensor
    slopes: tuple[Tensor | None, ...]
    factor: Tensor | None = None
    normaliser: Tensor | None = None


Tensors = tuple[Tensor, ...]
Pass = Callable[[Tensors, Tensors, Options, Sequence[bool]], Rows]
Swift = Callable[[Tensors, Tensors, Options, Sequence[bool]], Rows | None]


def by_autograd(loss: Callable[..., Tensor]) -> Pass:
    """The pass of any row loss: ``loss(*logits, *rest, **options)`` as it is called by its user.

    Whatever engine serves the loss serves the block.
    """

    def rows(logits: Tensors, rest: Tensors, options: Options, needs: Sequence[bool]) -> Rows:
        return _differentiated(
            lambda *each: Terms(loss(*each, *rest, reduction="none", **options)), logits, needs
        )

    return rows


def by_terms(loss: Callable[..., Tensor]) -> Pass:
    """The pass of a row loss whose mean divides by something of its own: its plain function."""

    def rows(logits: Tensors, rest: Tensors, options: Options, needs: Sequence[bool]) -> Rows:
        return _differentiated(
            lambda *each: terms(inner(loss, *each, *rest, **options)), logits, needs
        )

    return rows


def inner(loss: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Call:
    """A loss of some tensors as a call of its plain function."""
    card: Card = loss.card  # type: ignore[attr-defined]
    body = card.function.__wrapped__  # type: ignore[union-attr]
    return Call(card, card.match(tensors, options), body, tensors, options, None, "none", False)


def terms(call: Call) -> Terms:
    """The unreduced loss of a call, in float32 at least."""
    found: list[Tensor | Terms] = []

    def body(*tensors: Tensor, **options: Any) -> Tensor | Terms:
        found.append(call.body(*tensors, **options))
        return found[0]

    value = call._replace(body=body, weight=None, reduction="none").wide()
    return found[0]._replace(loss=value) if isinstance(found[0], Terms) else Terms(value)


def _differentiated(loss: Callable[..., Terms], logits: Tensors, needs: Sequence[bool]) -> Rows:
    leaves = [each.detach().requires_grad_(need) for each, need in zip(logits, needs, strict=True)]
    with torch.enable_grad():
        value, normaliser, *_ = loss(*leaves)
    if value.shape != logits[0].shape[:1]:
        rule = f"return one value per row, of shape {tuple(logits[0].shape[:1])}"
        fail("loss", rule, said(str(tuple(value.shape))))
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    slopes: list[Tensor] = [torch.zeros_like(leaf) for leaf in wanted]
    if wanted and value.requires_grad:
        slopes = list(
            torch.autograd.grad(value.sum(), wanted, allow_unused=True, materialize_grads=True)
        )
    found = iter(slopes)
    return Rows(
        value.detach(),
        tuple(next(found) if need else None for need in needs),
        normaliser=None if normaliser is None else normaliser.detach(),
    )


def class_rows(
    logits: Tensors, rest: Tensors, options: Options, needs: Sequence[bool]
) -> Rows | None:
    """Cross-entropy of class indices, its slope written over the logits; None for what it cannot.

    With ``e = exp(x - max x)``, R the sum of e over the other classes and S the sum over all, the
    slope ``p - onehot`` is ``e / S``, and ``-R / S`` at the target: nothing cancels, and the
    division by S is left to whoever uses the slope. The value is the distance to the largest logit
    plus ``log S``, where a target that is the largest itself adds its 1 under ``log1p``.

    Smoothing by s takes ``s / C`` from the slope of every class, and gives that share of all
    distances to the value; a factor w of each class multiplies both.
    """
    named = dict(options)
    weight, smoothing = named.pop("weight", None), named.pop("label_smoothing", 0.0)
    named.pop("ignore_index", None)  # absent rows have the weight 0
    (scores,), (target,) = logits, rest
    on_cpu = scores.device.type == "cpu"
    if target.is_floating_point() or any(named.values()):
        return None
    if weight is not None and smoothing and not on_cpu:  # 0 * inf, which only a look can tell
        return None
    out, classes = scores.detach(), scores.shape[1]
    inside = None if on_cpu else (target >= 0) & (target < classes)
    place = (target if inside is None else torch.where(inside, target, 0)).unsqueeze(1)
    by_class = None if weight is None else weight.to(out)
    own_factor = None if by_class is None else by_class[place]

    top, largest = out.amax(1, keepdim=True), torch.finfo(out.dtype).max / 4
    if not on_cpu or top.max().item() > largest:  # infinite logits mean certainty
        out.clamp_(max=largest)
        top = top.clamp(max=largest)
    out.sub_(top)
    depth = -out.gather(1, place)
    below = None
    if smoothing:
        below = (out.sum(1) if by_class is None else out @ by_class).unsqueeze(1)
        if on_cpu and not math.isfinite(below.sum().item()):
            return None
    out.exp_()
    own = out.gather(1, place)
    out.scatter_(1, place, 0.0)
    others = out.sum(1, keepdim=True)
    total = own + others
    log_total = total.log()
    value = depth + torch.where(depth == 0, others.log1p(), log_total)
    pull = torch.full_like(total, 1 - smoothing)
    if own_factor is not None:
        pull *= own_factor
    value = times(pull, value)
    share, mass = smoothing / classes, 0.0
    if below is not None:
        mass = classes if by_class is None else by_class.sum()
        value = value + share * (mass * log_total - below)
    if inside is not None:
        value = torch.where(inside.unsqueeze(1), value, math.nan)
    found = Rows(
        value.squeeze(1),
        (None,),
        normaliser=None if own_factor is None else own_factor.squeeze(1),
    )
    if not needs[0]:
        return found

    ratio = pull + share * mass  # the slope is ratio * e / S - pull * onehot - share * w
    unit = torch.where(ratio == 0, 1.0, ratio)
    if below is not None:
        each = share * total / unit
        out.sub_(each) if by_class is None else out.addr_(each.squeeze(1), by_class, alpha=-1)
    out.scatter_add_(1, place, (share * mass * own - pull * others) / unit)
    factor = ratio / total
    if inside is not None:
        factor = torch.where(inside.unsqueeze(1), factor, math.nan)
    return found._replace(slopes=(out,), factor=factor.squeeze(1))
