"""Choose how losses are computed: for one loss, for a part of the program, or for all of it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor

from lossmith.core import route
from lossmith.core.card import Card, Coupling
from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail, fail_type, said
from lossmith.core.domain import Anything, Domain
from lossmith.core.loss import build
from lossmith.core.module import Loss
from lossmith.core.route import Call, Following, Route, follow, large
from lossmith.core.signature import Signature
from lossmith.engines.one_pass import Path, plan, run

Name = Literal["plain", "one_pass", "blocks"]
ENGINES: dict[str, Route | None] = {
    "plain": None,
    "one_pass": run,
    "blocks": functools.partial(run, compiler=False),
}


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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
        self._route = ENGINES[name]
        self._before = follow(self._route)

    def __enter__(self) -> Self:
        follow(self._route)  # again, for whoever comes back to it
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
            ``(*)``, ``"row"`` for one per row of the first dimension, ``(N)``. Values of
            rows may depend on nothing but their row; a function whose elements may know of each
            other is not cut into blocks.

    Returns:
        A function that is called as the loss is. A function of your own gets the keywords
        ``sample_weight`` and ``reduction`` besides its options.

    Raises:
        TypeError: If ``function`` cannot be called, or, in a call, if the first tensor of a
            function of your own is not floating point.
        ValueError: If ``engine`` or ``coupling`` is unknown, a function of your own takes no
            tensor, or, in a call, if it reduces its values.

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
    call = function = getattr(function, "without_engine", function)
    ours = isinstance(function, Loss) or isinstance(getattr(function, "card", None), Card)
    if not ours and not hasattr(function, "checked"):  # it reduces, and knows its tensors
        adopted = adopt(function, coupling)

        def call(*tensors: Any, **options: Any) -> Tensor:
            return adopted(tensors)(*tensors, **options)

        call.checked = True  # type: ignore[attr-defined]

    engaged = Following(ENGINES[engine])

    @functools.wraps(call)
    def fast(*tensors: Any, **options: Any) -> Tensor:
        if torch.compiler.is_compiling():  # there no route is asked for
            return call(*tensors, **options)
        with engaged:
            return call(*tensors, **options)

    fast.without_engine, fast.by = call, engine  # type: ignore[attr-defined]
    return fast


def explain_path(loss: str | Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Path:
    """How a call is computed inside ``engine("one_pass")``, and why.

    Inside ``engine("blocks")`` it says how blocks would; of what :func:`one_pass` returned, how the
    engine that it was given would. A loss over a softmax has an engine of its own, ``"rows"``,
    which serves without this one too: a plain cross-entropy on the CPU above 1,048,576 logits, the
    others above 32,768 elements.

    Args:
        loss: A loss of lossmith or its name, a Module, or what :func:`one_pass` returned.
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
    if isinstance(loss, str):
        loss = cast("Callable[..., Tensor]", find_card(loss).function)
    if not callable(loss):
        fail_type("loss", "be a loss, a function or a name", loss)
    seen: list[Path] = []
    by: Name = getattr(loss, "by", "blocks" if route.chosen() is ENGINES["blocks"] else "one_pass")

    def record(call: Call) -> None:
        if by == "plain" and call.engine is None:
            seen.append(Path("plain", "it was asked for"))
        else:
            seen.append(plan(call, compiler=by != "blocks"))

    with Following(record):
        getattr(loss, "without_engine", loss)(*tensors, **options)
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
    names = [p.name for p in parameters if p.kind in _BY_POSITION and p.default is p.empty]
    more = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    if not names and more is None:
        fail(argument, "take a tensor first", said(str(inspect.signature(function))))
    own = (p.name for p in parameters if p.kind in (*_BY_POSITION, inspect.Parameter.KEYWORD_ONLY))
    rules = {name: Anything("the function's own") for name in own if name not in names}
    built: dict[Any, Callable[..., Tensor]] = {}

    @functools.wraps(function)
    def body(*tensors: Tensor, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        value = function(*tensors, **options)
        whole = tensors[0].shape if coupling == "element" else tensors[0].shape[:1]
        if value.shape != whole:  # reduced already, it could be neither weighed nor cut into blocks
            rule = f"return the unreduced loss, of shape {tuple(whole)}"
            fail(argument, rule, said(str(tuple(value.shape))))
        return value

    def named(count: int) -> list[str]:
        """As many names as there are tensors; those that are missing may come by keyword."""
        return names + ([f"{more}[{i}]" for i in range(count - len(names))] if more else [])

    def of(tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        # elements are of any shape and dtype, and no call of a small loss has to wait for a look
        key: Any = len(tensors)
        if coupling == "row":
            key = tuple([(t.ndim, t.dtype) if isinstance(t, Tensor) else None for t in tensors])
        if key not in built:
            built[key] = build(_card(coupling, named(len(tensors)), tensors, rules), body)
        return built[key]

    return of


def _card(
    coupling: Coupling, names: list[str], tensors: tuple[Any, ...], rules: dict[str, Any]
) -> Card:
    """A card that claims shapes and nothing else."""
    sides: dict[str, Domain] = {}
    for i, name in enumerate(names):
        each = tensors[i] if i < len(tensors) and isinstance(tensors[i], Tensor) else None
        dims, floating = "*", None
        if coupling == "row":
            rank = 1 if each is None else each.ndim
            dims = " ".join(["N", *(f"{name}{j}" for j in range(1, rank))])
            floating = None if each is None else each.is_floating_point()
        side = Domain("tensor", "be a tensor", floating=floating if i else True, as_is=True)
        sides[name] = side(dims)
    return Card(
        task="regression",
        coupling=coupling,
        formula="",
        signatures=(Signature("*" if coupling == "element" else "N", None, **sides),),
        options=rules,
        use_when="",
        avoid_when="",
        source="",
    )
