"""What a call is, whatever the values of its tensors.

A training loop makes the same call again and again, and working out what it is costs as much as a
small torch kernel: it is done once for each kind of call.
"""

import weakref
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail, of_python, plain, require_beside, said
from lossmith.core.domain import Interval, Optional, Vector
from lossmith.core.route import takes_logits
from lossmith.core.signature import HALF, Signature

Native = Callable[..., Tensor | None]
# What a plan depends on, of a tensor
kind = attrgetter("__class__", "shape", "dtype")
_NUMBERS = {int, float}


class Plan(NamedTuple):
    """What there is to know of all calls of a kind.

    Attributes:
        way: The signature that fits.
        sizes: The sizes of its named dimensions.
        prepare: Whether anything of the next three has to be done, or tensors arranged.
        given: Options that are not what they are anyway: kernels then see what a call asks for,
            whether it names the rest or not.
        foreign: Those of them that are numbers of NumPy.
        casts: What whole numbers have to become: position and dtype.
        looks: Options whose values have to be looked at in each call, and whether each stands for
            a single number.
        native: The kernel that could serve such dtypes and options, or None.
        simple: Whether nothing is half precision, nor logits, which may be infinite.
        elements: Of the first tensor.
    """

    way: Signature
    sizes: dict[str, int]
    prepare: bool
    given: tuple[str, ...]
    foreign: tuple[str, ...]
    casts: tuple[tuple[int, torch.dtype], ...]
    looks: tuple[tuple[Any, str, bool], ...]
    native: Native | None
    simple: bool
    elements: int


def kinds(options: dict[str, Any]) -> list[Any]:
    """What a plan depends on, of options; something in it may have no hash.

    A function is not kept alive, nor what it closes over.
    """
    # the class too: 1 equals True, and is not the same to every rule
    return [
        (name, value.shape, value.dtype)
        if isinstance(value, Tensor)
        else (name, weakref.ref(value) if callable(value) else value, value.__class__)
        for name, value in options.items()
    ]


def plan_of(
    card: Card,
    usual: dict[str, Any],
    tensors: tuple[Any, ...],
    reduction: str,
    options: dict[str, Any],
    arrange: Callable[..., tuple[Any, ...]] | None,
    native: Native | None,
    native_half: bool,
) -> Plan:
    """Check options, dtypes and shapes.

    ``usual`` has the defaults of options; ``native_half`` says whether the kernel ``native`` takes
    half precision.
    """
    rules = card.options
    asked = options
    options = {key: of_python(value) for key, value in asked.items()}
    for key, value in options.items():
        rule = rules.get(key)
        if rule is None:
            known = ", ".join((*rules, "sample_weight", "reduction"))
            raise TypeError(f"{card.name}() takes {known} by keyword, got {key}")
        rule.check_option(key, value)
    if arrange is not None:
        tensors = arrange(*tensors)
    way = card.match(tensors, options)
    sizes = way.sizes(tensors)
    # Here and not in each call: torch refuses two devices too, if in other words.
    for argument, tensor in zip(way.tensors, tensors, strict=True):
        require_beside(argument, tensor, tensors[0])
        if tensor.layout is not torch.strided:
            fail(argument, "be a dense tensor", said(f"one of layout {tensor.layout}"))
    # kernels take numbers, and know no gradient to them
    learnable = False
    for key, rule in rules.items():
        value = options.get(key)
        if isinstance(rule, Vector):
            rule.check_sizes(key, value, sizes)
            if value is not None:
                require_beside(key, value, tensors[0])
        elif isinstance(value, Tensor):
            learnable = True
    if reduction not in card.reductions:
        fail("reduction", f"be one of {', '.join(map(repr, card.reductions))}", reduction)
    elements = tensors[0].numel()
    looks = tuple(
        (rules[key], key, _single(rules[key]))
        for key, value in options.items()
        if isinstance(value, Tensor)
    )
    given = options  # a compiler needs no kernel
    if not torch.compiler.is_compiling():
        given = {k: value for k, value in options.items() if not same(value, usual.get(k, ...))}
    if learnable or not (elements > 0 and way.one_dtype(tensors) and plain(*tensors)):
        native = None
    if tensors[0].dtype in HALF and not native_half:
        native = None
    casts = way.casts(tensors)
    foreign = tuple(key for key in given if given[key] is not asked[key])
    return Plan(
        way,
        sizes,
        bool(len(given) < len(options) or casts or looks or foreign or arrange),
        tuple(given),
        foreign,
        casts,
        looks,
        native=native,
        simple=not takes_logits(card, way) and not any(t.dtype in HALF for t in tensors),
        elements=elements,
    )


def _single(rule: Any) -> bool:
    rule = rule.rule if isinstance(rule, Optional) else rule
    return isinstance(rule, Interval) and not rule.several


def same(value: Any, default: Any) -> bool:
    """Whether an option that is allowed is its default; 0 is 0.0, and True is not 1."""
    both = {value.__class__, default.__class__}
    return value is default or ((len(both) == 1 or both == _NUMBERS) and bool(value == default))
