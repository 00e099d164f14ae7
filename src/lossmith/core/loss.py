"""``@loss``: a plain torch function becomes a checked, weighted, reduced loss."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_dynamo_compiling

from lossmith.core.autocast import autocast_on, autocasts, in_float32
from lossmith.core.card import Card
from lossmith.core.checks import (
    bare,
    checkable,
    describe,
    fail,
    fail_type,
    observed,
    of_python,
    require_beside,
    require_range,
    said,
    transforming,
)
from lossmith.core.plan import Plan, kind, kinds, plan_of
from lossmith.core.reduction import Terms, reduce
from lossmith.core.route import Call, Engine, chosen, large
from lossmith.core.signature import HALF, Signature

P = ParamSpec("P")
REGISTRY: dict[str, Card] = {}
_EVERYWHERE = ("sample_weight", "reduction")
# torch's private enumeration of reductions, for the native kernels; it has no number for the last
NATIVE_REDUCTION = {"none": 0, "mean": 1, "sum": 2, "batchmean": 3}


def loss(
    card: Card,
    *,
    native: Callable[..., Any] | None = None,
    native_checks: bool = False,
    native_half: bool = False,
    quick: Callable[..., Tensor | None] | None = None,
    arrange: Callable[..., tuple[Any, ...]] | None = None,
    engine: Engine | None = None,
) -> Callable[[Callable[P, Tensor | Terms]], Callable[P, Tensor]]:
    """Register a function that returns an unreduced loss, and give it everything else.

    The function takes its tensors first and every option by keyword, ``sample_weight`` and
    ``reduction`` among them. What it returns has the dimensions that the card's signature names
    (or is a :class:`Terms`). Around it, in this order: dtypes and shapes are checked; options and
    tensor values are checked; half precision is widened to float32; absent samples (weight 0, or
    the ``ignore_index``) are replaced by harmless values; the function runs; the result is
    weighted, reduced and rounded back. Autocast is off in it, as in torch's own losses, unless the
    card says ``layered``.

    Args:
        card: The claims.
        native: A torch kernel with the same mathematics, tried first on plain eager tensors
            without weights or ignored samples: ``native(*tensors, reduction, **options)`` with
            torch's number for the reduction. It returns None to decline.
        native_checks: ``native`` looks at tensor values itself: on the CPU it declines, or raises
            IndexError or RuntimeError, for whatever the card forbids, and the checks here then
            word the complaint. Absent labels are its affair too.
        native_half: ``native`` takes half precision as well, and computes in float32 itself.
        quick: Serves the mean without options or weights: ``quick(*tensors)``, called before
            anything is looked at, transforms and autocast included. It returns NotImplemented for
            whatever is not plain at a glance; where it declines by None, or raises IndexError or
            RuntimeError, ``native`` has no turn.
        arrange: Called with the tensors before anything is checked, and returns what is to be
            used instead: for a loss that takes one of them in several shapes. It must pass on
            whatever it does not know, so that the checks refuse it.
        engine: Offered each checked call outside of a compiler, whatever its weights, dtypes and
            options; an early one large calls before they are checked.

    Returns:
        A decorator.

    Example:
        >>> import torch, lossmith
        >>> from lossmith import Card, Point, elementwise
        >>> from lossmith.core.domain import REAL
        >>> @lossmith.loss(Card(task="regression", coupling="element", formula="r^4",
        ...     signatures=elementwise(input=REAL, target=REAL), use_when="an example",
        ...     avoid_when="anything else", source="no paper", exact=lambda mp, x, y: (x - y) ** 4))
        ... def quartic_loss(input, target, *, sample_weight=None, reduction="mean"):
        ...     return (input - target) ** 4
        >>> quartic_loss(torch.tensor([2.0]), torch.tensor([0.0]))
        tensor(16.)
    """

    def decorate(body: Callable[P, Tensor | Terms]) -> Callable[P, Tensor]:
        function = build(card, body, native, native_checks, native_half, quick, arrange, engine)
        named: Card = function.card  # type: ignore[attr-defined]
        REGISTRY[named.name] = named
        return function

    return decorate


def build(
    card: Card,
    body: Callable[..., Tensor | Terms],
    native: Callable[..., Any] | None = None,
    native_checks: bool = False,
    native_half: bool = False,
    quick: Callable[..., Tensor | None] | None = None,
    arrange: Callable[..., tuple[Any, ...]] | None = None,
    engine: Engine | None = None,
) -> Callable[..., Tensor]:
    """What :func:`loss` makes of a function, without an entry in the catalogue."""
    name = body.__name__
    signature = inspect.signature(body)
    card = replace(card, name=name)
    count = len(card.tensors)
    ignore = signature.parameters.get("ignore_index")
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    plans: dict[Any, Plan] = {}

    early = engine if getattr(engine, "early", False) else None
    late = engine if early is None else None

    def sized(plan: Plan, tensors: tuple[Tensor, ...]) -> int:
        # an engine of the loss's own has its own idea of what is small; away from the CPU launches
        # count, not elements, and an early one has far fewer
        here = early is None or tensors[0].is_cpu
        return plan.elements if late is None and here else sys.maxsize

    def compute(tensors: tuple[Any, ...], options: dict[str, Any], tried: bool) -> Tensor:
        sample_weight = options.pop("sample_weight", None)
        reduction = options.pop("reduction", "mean")
        if len(tensors) != count:
            tensors, options = _bind(name, signature, card, tensors, options)
        compiling = is_compiling()
        # Under compile sizes may be symbols without a hash.
        key = plan = None
        if not compiling:
            try:
                key = (reduction, *map(kind, tensors))
                if options:
                    key = (*key, *kinds(options))
                plan = plans.get(key)
            except (AttributeError, TypeError):  # something has no shape or no hash
                key = None
        if plan is None:
            kernel = None if compiling else native
            kernels = kernel, native_half
            plan = plan_of(card, defaults, tensors, reduction, options, arrange, *kernels)
            if key is not None:
                if len(plans) >= 1000:
                    plans.clear()
                plans[key] = plan
        if (compiling or autocast_on()) and not card.layered and autocasts(tensors[0]):
            more: Any = {"sample_weight": sample_weight, "reduction": reduction, **options}
            with torch.autocast(tensors[0].device.type, enabled=False):
                if engine is None or compiling:
                    return function(*map(_widened, tensors), **more)
                with in_float32():  # an engine reads half precision as it stands
                    return function(*tensors, **more)
        if plan.prepare:
            options = {key: options[key] for key in plan.given}
            for option in plan.foreign:
                options[option] = of_python(options[option])
            for rule, option, single in plan.looks:
                rule.check_option(option, options[option])
                if single:  # of shape (1,) it would add a dimension to a single number
                    number = options[option].reshape(())
                    options[option] = number.float() if number.dtype in HALF else number
            if arrange is not None:
                tensors = arrange(*tensors)
            for index, wanted in plan.casts:
                tensors = (*tensors[:index], tensors[index].to(wanted), *tensors[index + 1 :])

        route = None if compiling else chosen()
        if route is not None and not large(sized(plan, tensors)):
            route = None
        swift = plan.native
        if swift is not None and (tried or sample_weight is not None or observed()):
            swift = None
        way, sizes = plan.way, plan.sizes
        looked = False
        if swift is not None and route is None:
            done = None
            if native_checks:
                try:
                    done = swift(*tensors, NATIVE_REDUCTION[reduction], **options)
                except (IndexError, RuntimeError):  # a label outside, say: the checks below word it
                    done = None
            elif late is None and ignore is None and way.seen(tensors, sizes):
                looked = True
                done = swift(*tensors, NATIVE_REDUCTION[reduction], **options)
            if done is not None:
                return done
            if native_checks or looked:
                swift = None  # it has had its turn

        offer = early is not None and not compiling and large(sized(plan, tensors))
        if offer and not transforming():
            if sample_weight is not None:
                _check_weight(sample_weight, way, tensors, sizes)
            call = Call(card, way, body, tensors, options, sample_weight, reduction, False, early)
            done = (route or early)(call)  # type: ignore[misc]
            if done is not None:
                return done

        absent = (
            None if sample_weight is None else _check_weight(sample_weight, way, tensors, sizes)
        )
        ignore_index = None if ignore is None else options.get("ignore_index", ignore.default)
        if ignore is not None and ignore_index is None:  # as torch's linear_cross_entropy has it
            ignore_index = -100
        if ignore_index is not None and way.label is not None:
            ignored = _find_ignored(way, tensors, sizes, ignore_index, absent)
            absent = ignored if absent is None or ignored is None else absent | ignored
        weight = sample_weight
        if absent is not None:
            tensors = _fill(way, tensors, absent)
            ones = tensors[0].new_ones(()) if weight is None else weight
            weight = torch.where(absent, torch.zeros_like(ones), ones)
        seen = absent is None and ignore_index is not None
        if not looked:
            way.check_values(tensors, sizes, seen=seen, ignore_index=ignore_index)

        swift = swift if absent is None else None
        if plan.simple and weight is None and route is None and late is None and swift is None:
            # what the call would come to, which takes 4 us to set up where a loss takes 80
            value = reduce(body(*tensors, **options), None, reduction)
            return value if value.dtype is tensors[0].dtype else value.to(tensors[0].dtype)
        call = Call(card, way, body, tensors, options, weight, reduction, swift is not None, late)
        done = None if route is None else route(call)
        if done is None and late is not None and not compiling:
            done = late(call)
        if done is None and swift is not None:
            done = swift(*tensors, NATIVE_REDUCTION[reduction], **options)
        return call.compute() if done is None else done

    # apart from the rest: a frame of many variables alone takes 1 us longer to enter
    @functools.wraps(body)
    def function(*tensors: Any, **options: Any) -> Tensor:
        tried = False
        fit = quick is not None and not options and len(tensors) == count
        if fit and not is_dynamo_compiling():
            try:
                done = quick(*tensors)  # type: ignore[misc]
            except (IndexError, RuntimeError, ValueError):  # a label outside: the checks word it
                done = None
            if done is not NotImplemented:
                if done is not None:
                    return done
                tried = True
        return compute(tensors, options, tried)

    card = replace(card, function=function)
    function.__annotations__ = {**body.__annotations__, "return": Tensor}
    function.__signature__ = signature.replace(return_annotation=Tensor)  # type: ignore[attr-defined]
    function.card = card  # type: ignore[attr-defined]
    return function


def _widened(tensor: Any) -> Any:
    """Half precision in float32; a number, a list or a tensor of whole numbers as it is."""
    return tensor.float() if getattr(tensor, "dtype", None) in HALF else tensor


def _bind(
    name: str,
    signature: inspect.Signature,
    card: Card,
    tensors: tuple[Any, ...],
    options: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Sort tensors that came by keyword from options; missing or surplus ones raise TypeError."""
    try:
        bound = signature.bind(*tensors, **options).arguments
    except TypeError as error:
        text = f"(): {error}"
        if len(tensors) > len(card.tensors):
            first, known = ", ".join(card.tensors), ", ".join((*card.options, *_EVERYWHERE))
            got = ", ".join(map(describe, tensors[len(card.tensors) :]))
            text = f"() takes {first} by position and {known} by keyword, got {got}"
        raise TypeError(name + text) from None
    given = tuple(bound.pop(key) for key in card.tensors)
    return given, dict(bound)


def _check_weight(
    weight: Tensor, way: Signature, tensors: tuple[Tensor, ...], sizes: Mapping[str, int]
) -> Tensor:
    """Refuse weights of a wrong type, shape or sign; return where samples are absent."""
    if not isinstance(weight, Tensor):
        fail_type("sample_weight", "be a tensor or None", weight)
    if weight.is_complex():
        fail_type("sample_weight", "be real", weight)
    require_beside("sample_weight", weight, tensors[0])
    expected = way.out_shape(tensors, sizes)
    if tuple(weight.shape) != expected:
        rule = f"have the shape {expected} of the unreduced loss"
        fail("sample_weight", rule, said(str(tuple(weight.shape))))
    require_range("sample_weight", "be >= 0 and finite", weight, 0.0, torch.finfo().max)
    return weight == 0


def _find_ignored(
    way: Signature,
    tensors: tuple[Tensor, ...],
    sizes: Mapping[str, int],
    ignore_index: int,
    absent: Tensor | None,
) -> Tensor | None:
    """Where the label is ``ignore_index``; None if a look at the values shows that it is nowhere.

    Where there is no other mask, the range of the labels is checked on the way: the smallest and
    the largest label answer both questions in one pass.
    """
    assert way.label is not None
    _, position, domain = way.label
    target = tensors[position]
    if absent is None:
        plain = bare(target)
        if not torch.compiler.is_compiling() and checkable(plain):
            top = sizes[domain.classes] - 1
            if plain.numel() == 0:
                return None
            low, high = (end.item() for end in torch.aminmax(plain))
            if low >= 0 and high <= top and not 0 <= ignore_index <= top:
                return None
    return target == ignore_index


def _fill(way: Signature, tensors: tuple[Tensor, ...], absent: Tensor) -> tuple[Tensor, ...]:
    """Put a harmless value wherever a sample is absent, so that nothing of it is ever computed."""
    filled: list[Tensor] = []
    for tensor, domain in zip(tensors, way.tensors.values(), strict=True):
        mask = way.spread(absent, domain, tensor.ndim)
        if mask is not None:
            tensor = torch.where(
                mask, torch.full((), domain.fill, dtype=tensor.dtype, device=tensor.device), tensor
            )
        filled.append(tensor)
    return tuple(filled)
