"""What a block of logits comes to: the loss of each row, and its slope in the logits.

A pass is handed logits that nobody else needs, and may write the slope over them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail, said
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
        total = value.sum()
    if value.shape != logits[0].shape[:1]:
        rule = f"return one value per row, of shape {tuple(logits[0].shape[:1])}"
        fail("loss", rule, said(str(tuple(value.shape))))
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    slopes: Sequence[Tensor] = [torch.zeros_like(leaf) for leaf in wanted]
    if wanted and total.requires_grad:
        slopes = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    found = iter(slopes)
    return Rows(
        value.detach(),
        tuple(next(found) if need else None for need in needs),
        normaliser=None if normaliser is None else normaliser.detach(),
    )
