"""``inspect``: what a colleague would remark on seeing these tensors go into this loss."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lossmith.core.catalogue import card as card_of
from lossmith.core.checks import fail_type
from lossmith.core.module import Sum
from lossmith.teach.remarks import Finding, about_balance, about_gradient, about_tensors


def inspect(loss: str | Callable[..., Tensor], *tensors: Tensor, **options: Any) -> list[Finding]:
    """Look for the usual mistakes in a call, without raising for any of them.

    Looked for: NaN and inf; shapes that fit only by broadcasting; probabilities where logits are
    wanted, and the reverse; {0, 1} against {-1, 1}; one-hot rows against class indices; values
    outside the domain; one class, one output column or one scale that outweighs the rest; a
    gradient that sits in few elements or in none.

    Args:
        loss: A name of the catalogue, a function registered with ``@lossmith.loss``, or a Module,
            or a sum of Modules.
        *tensors: The tensors of the call, in order.
        **options: The options of the call.

    Returns:
        Findings, the most basic first; empty if nothing was noticed. Whatever the loss itself
        would raise is the finding ``refused``.

    Raises:
        ValueError: If ``loss`` is not registered.
        TypeError: If the number of tensors differs from what the loss takes, or one is no tensor.

    Example:
        >>> import torch, lossmith
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> for finding in lossmith.inspect("cross_entropy", probabilities, torch.tensor([0, 1])):
        ...     print(finding.code, "-", finding.suggestion)
        probabilities - Remove the softmax at the end of the model.
    """
    if isinstance(loss, Sum):
        found = [finding for part in loss.parts for finding in inspect(part, *tensors, **options)]
        return list(dict.fromkeys(found))
    card = card_of(loss)
    if len(tensors) != len(card.tensors):
        raise TypeError(
            f"tensors must be {', '.join(card.tensors)}, as {card.name} takes them, "
            f"got {len(tensors)} of them"
        )
    for name, tensor in zip(card.tensors, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            fail_type(name, "be a tensor", tensor)
    call: Callable[..., Tensor] | None = copy.deepcopy(loss) if callable(loss) else card.function
    assert call is not None
    given = {name: t.detach() for name, t in zip(card.tensors, tensors, strict=True)}
    return [
        *about_tensors(card, given, options),
        *about_balance(card, given, options),
        *about_gradient(call, tuple(given.values()), options),
    ]
