"""Where a checked call is computed: by the loss's own function, unless an engine was chosen."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from lossmith.core.autocast import rounded
from lossmith.core.card import Card
from lossmith.core.certainty import tamed, with_limit
from lossmith.core.reduction import Add, Terms, reduce
from lossmith.core.signature import HALF, Signature

# Up to so many elements a call is never offered to an engine: what an engine does before its
# kernel starts (0.3 ms) costs as much as the plain function there.
SMALL = 1 << 15


class Engine(Protocol):
    """A loss's own way to compute a call; it returns None to decline.

    One with a true attribute ``early`` is offered large calls before absent samples are filled and
    tensor values looked at, which would cost a pass over the tensors each: it sees to both, and
    declines where the value checks have something to say.
    """

    def __call__(self, call: "Call") -> Tensor | None:
        """The value, connected to its arguments."""
        ...

    def plan(self, call: "Call") -> Any:
        """How it would compute a call, and why, for ``explain_path``."""
        ...


def takes_logits(card: Card, way: Signature) -> bool:
    """Whether an infinite number in the first tensor means certainty."""
    # a linear layer inside the loss makes the logits of something else
    own = card.link == "softmax" and "C" in next(iter(way.tensors.values())).dims
    return own or card.link == "logit"


class Call(NamedTuple):
    """A call whose arguments are checked, and whose absent samples hold harmless values.

    Attributes:
        card: The claims of the loss.
        way: The signature that fits.
        body: The unreduced loss in plain torch.
        tensors: The tensors, in the dtype of the caller.
        options: Keyword arguments of the body.
        weight: Weight of each sample, or None.
        reduction: Name of the reduction.
        native: Whether a kernel of torch, or one of lossmith's own, is there for it.
        engine: The engine that the loss itself names.
    """

    card: Card
    way: Signature
    body: Callable[..., Tensor | Terms]
    tensors: tuple[Tensor, ...]
    options: Mapping[str, Any]
    weight: Tensor | None
    reduction: str
    native: bool
    engine: Engine | None = None

    @property
    def logits(self) -> Tensor | None:
        """The tensor in which an infinite number means certainty; None if there is none."""
        return self.tensors[0] if takes_logits(self.card, self.way) else None

    def wide(self, add: Add | None = None, *, tame: bool = True) -> Tensor:
        """The plain function, weighted and reduced; half precision in float32."""
        tensors = tuple([t.float() if t.dtype in HALF else t for t in self.tensors])
        options, weight = self.options, self.weight
        if weight is not None:  # losses that tie samples together need it inside
            weight = weight.to(tensors[0].dtype)
            options = {**options, "sample_weight": weight}
        finite = tamed(tensors[0]) if tame and self.logits is not None else None
        if finite is None:
            result = self.body(*tensors, **options)
        else:
            result = self.body(finite, *tensors[1:], **options)
            softmax = self.card.link == "softmax"
            result = with_limit(result, tensors[0], self.way, softmax=softmax)
        return reduce(result, weight, self.reduction, add=add)

    def compute(self, add: Add | None = None, *, tame: bool = True) -> Tensor:
        """The same, rounded to the dtype of the caller.

        Args:
            add: How the sum of a tensor is taken.
            tame: Whether logits may be infinite; if it is known that none is, nobody looks.
        """
        return rounded(self.wide(add, tame=tame), self.tensors[0])

    def arguments(self) -> tuple[Tensor, ...]:
        """Every tensor of the call: its tensors, those among the options, the weight."""
        options = (value for value in self.options.values() if isinstance(value, Tensor))
        return (*self.tensors, *options, *(() if self.weight is None else (self.weight,)))

    def over(self, arguments: Sequence[Tensor]) -> "Call":
        """The same call of other tensors, in the order of :meth:`arguments`."""
        given = iter(arguments)
        tensors = tuple(next(given) for _ in self.tensors)
        options = {k: next(given) if isinstance(v, Tensor) else v for k, v in self.options.items()}
        weight = None if self.weight is None else next(given)
        return self._replace(tensors=tensors, options=options, weight=weight)


Route = Callable[[Call], Tensor | None]
_route: Route | None = None


class _Thread(threading.local):
    """A thread's own routes, the last one in force; without any, that of the program is."""

    def __init__(self) -> None:
        self.routes: list[Route | None] = []


_thread = _Thread()


def chosen() -> Route | None:
    """The engine that large calls are offered to first; it returns None to decline."""
    return _thread.routes[-1] if _thread.routes else _route


class Following:
    """Offers the calls of a thread to ``route`` within a ``with``, as often as it is entered.

    A class: a generator takes 2 us longer, of the 30 that a small call takes.
    """

    def __init__(self, route: Route | None) -> None:
        self._route = route

    def __enter__(self) -> None:
        _thread.routes.append(self._route)

    def __exit__(self, *_: object) -> None:
        _thread.routes.pop()


def large(elements: int) -> bool:
    """Whether a call of this size is offered to engines that leave the small ones alone."""
    return elements > SMALL


def follow(route: Route | None) -> Route | None:
    """Offer every further call of the program to ``route``; returns the one before."""
    global _route
    before, _route = _route, route
    return before
