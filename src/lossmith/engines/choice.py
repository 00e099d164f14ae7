"""Choose how losses are computed: for one loss, for a part of the program, or for all of it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self

from torch import Tensor

from lossmith.core import route
from lossmith.core.card import Card, Coupling
from lossmith.core.checks import fail, fail_type, said
from lossmith.core.domain import Anything, Domain
from lossmith.core.loss import build
from lossmith.core.module import Loss
from lossmith.core.route import Call, Route, follow, large
from lossmith.core.signature import Signature
from lossmith.engines.one_pass import Path, plan, run

Name = Literal["plain", "one_pass", "blocks"]
ENGINES: dict[str, Route | None] = {
    "plain": None,
    "one_pass": run,
    "blocks": functools.partial(run, compiler=False),
}


_ARGUMENT = Domain("tensor", "be a tensor", floating=None, as_is=True)


class engine:
    """Send every eligible loss through an engine: inside a ``with``, or from here on.

    ``"one_pass"`` generates one kernel for value and gradient, and works in blocks where there is
    no compiler; ``"blocks"`` always works in blocks; ``"plain"`` is how a program starts. Losses
    that an engine does not serve, and small tensors, are computed as without it;
    :func:`explain_path` says which and why. Concerns all threads of the program.

    Args:
        name: ``"plain"``, ``"one_pass"`` or ``"blocks"``.

    Raises:
        ValueError: If there is no engine of that name.

    Example:
        >>> import torch, lossmith
        >>> input, target = torch.randn(70000, requires_grad=True), torch.randn(70000)
        >>> with lossmith.engine("blocks"):
        ...     value = lossmith.huber_loss(input, target)
        >>> bool(torch.isclose(value, lossmith.huber_loss(input, target)))
        True
    """

    def __init__(self, name: Name) -> None:
        if name not in ENGINES:
            fail("name", f"be one of {', '.join(map(repr, ENGINES))}", name)
        self._before = follow(ENGINES[name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        follow(self._before)


def one_pass(
    function: Callable[..., Tensor],
    *,
    engine: Name = "one_pass",
    coupling: Literal["element", "row"] = "element",
) -> Callable[..., Tensor]:
    """A loss that computes value and gradient together, in one pass over memory.

    Args:
        function: A loss of lossmith, a Module, or a function of your own in plain torch that takes
            its tensors first, ``(*)``, and returns the unreduced loss.
        engine: ``"one_pass"``, or ``"blocks"`` to do without a compiler.
        coupling: For a function of your own: ``"element"`` if it returns one value per element,
            ``(*)``, ``"row"`` for one per row of the first dimension, ``(N)``. A function whose
            values depend on more than their element or row is never cut into blocks.

    Returns:
        A function that is called as the loss is. A function of your own gets the keywords
        ``sample_weight`` and ``reduction`` besides its options.

    Raises:
        TypeError: If ``function`` cannot be called.
        ValueError: If ``engine`` or ``coupling`` is unknown, or, in a call, if a function of your
            own reduces its values.

    Example:
        >>> import torch, lossmith
        >>> quartic = lossmith.one_pass(lambda input, target: (input - target) ** 4)
        >>> quartic(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor(8.)
    """
    if not callable(function):
        fail_type("function", "be a loss or a function", function)
    if engine not in ENGINES:
        fail("engine", f"be one of {', '.join(map(repr, ENGINES))}", engine)
    call = function
    if not isinstance(function, Loss) and not isinstance(getattr(function, "card", None), Card):
        adopted = adopt(function, coupling)

        def call(*tensors: Any, **options: Any) -> Tensor:
            return adopted(tensors)(*tensors, **options)

    @functools.wraps(call)
    def fast(*tensors: Any, **options: Any) -> Tensor:
        before = follow(ENGINES[engine])
        try:
            return call(*tensors, **options)
        finally:
            follow(before)

    fast.without_engine = call  # type: ignore[attr-defined]
    fast.compiler = engine != "blocks"  # type: ignore[attr-defined]
    return fast


def explain_path(loss: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Path:
    """How a call is computed with the ``"one_pass"`` engine, and why.

    What :func:`one_pass` returned is computed with the engine that it was given. A loss over a
    softmax has an engine of its own, ``"rows"``, which serves without this one too: a plain
    cross-entropy on the CPU above 1,048,576 logits, and above 32,768 of at most 24 classes.

    Args:
        loss: A loss of lossmith, a Module, or what :func:`one_pass` returned.
        *tensors: The tensors of the call.
        **options: Its options, ``sample_weight`` and ``reduction`` among them.

    Returns:
        The path; ``str()`` gives one line.

    Raises:
        ValueError: As the loss does.
        TypeError: As the loss does.

    Example:
        >>> import torch, lossmith
        >>> print(lossmith.explain_path(lossmith.huber_loss, torch.zeros(3), torch.zeros(3)))
        plain: 3 elements, and up to 32768 an engine gains nothing
    """
    seen: list[Path] = []
    compiler = getattr(loss, "compiler", True)

    def record(call: Call) -> None:
        seen.append(plan(call, compiler=compiler))

    before = follow(record)
    try:
        getattr(loss, "without_engine", loss)(*tensors, **options)
    finally:
        follow(before)
    if seen:  # a loss with an engine of its own, which declines, is offered a second time
        return next((path for path in seen if path.how != "plain"), seen[-1])
    elements = tensors[0].numel()
    if not large(elements):
        few = f"{elements} elements, and up to {route.SMALL} an engine gains nothing"
        return Path("plain", few)
    return Path("plain", "a compiler is at work already")


def adopt(
    function: Callable[..., Tensor], coupling: Coupling, argument: str = "function"
) -> Callable[[tuple[Tensor, ...]], Callable[..., Tensor]]:
    """Give a plain function the checks of shapes, the weights and the reductions of a loss.

    Args:
        function: Returns the unreduced loss of its tensors.
        coupling: Whether that is one value per element or per row.
        argument: What its giver calls the function.

    Returns:
        What finds the loss for some tensors.
    """
    if coupling not in ("element", "row"):
        fail("coupling", "be 'element' or 'row'", coupling)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.default is p.empty]
    rules = {p.name: Anything("the function's own") for p in parameters if p.name not in names}
    built: dict[Any, Callable[..., Tensor]] = {}

    @functools.wraps(function)
    def body(*tensors: Tensor, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        value = function(*tensors, **options)
        whole = tensors[0].shape if coupling == "element" else tensors[0].shape[:1]
        if value.shape != whole:  # reduced already, it could be neither weighed nor cut into blocks
            rule = f"return the unreduced loss, of shape {tuple(whole)}"
            fail(argument, rule, said(str(tuple(value.shape))))
        return value

    if coupling == "element":  # of any shape and dtype: no call has to wait for a look at them
        anything = {name: _ARGUMENT("*") for name in names}
        loss = build(_card("element", Signature("*", None, **anything), rules), body)
        return lambda tensors: loss

    def of(tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        kinds = tuple([(t.ndim, t.dtype) for t in tensors if isinstance(t, Tensor)])
        key = len(tensors), kinds
        if key not in built:
            for name, tensor in zip(names, tensors, strict=False):
                if not isinstance(tensor, Tensor):
                    fail_type(name, "be a tensor", tensor)
            sides: dict[str, Domain] = {}
            for name, (rank, dtype) in zip(names, kinds, strict=False):
                side = replace(_ARGUMENT, floating=dtype.is_floating_point)
                sides[name] = side(" ".join(["N", *(f"{name}{i}" for i in range(1, rank))]))
            built[key] = build(_card("row", Signature("N", None, **sides), rules), body)
        return built[key]

    return of


def _card(coupling: Coupling, way: Signature, rules: dict[str, Any]) -> Card:
    """A card that claims shapes and nothing else."""
    return Card(
        task="regression",
        coupling=coupling,
        formula="",
        signatures=(way,),
        options=rules,
        use_when="",
        avoid_when="",
        source="",
    )
