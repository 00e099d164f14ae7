"""Laws about bad input: one voice, the argument named, nothing broadcast, nothing guessed."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.contract.cases import Case
from lossmith.contract.reductions import weights
from lossmith.contract.registry import check
from lossmith.core.domain import (
    Anything,
    Choice,
    ClassIndex,
    Flag,
    Function,
    Interval,
    Labels,
    Optional,
    Vector,
    Whole,
)
from lossmith.core.module import MODULES

VOICE = re.compile(r"must .+, got .+", re.DOTALL)


def refused(
    kinds: tuple[type[Exception], ...], name: str, call: Callable[[], Any], what: str
) -> None:
    """``call`` raises one of ``kinds`` with a message that names the argument, rule and value."""
    try:
        result = call()
    except kinds as error:
        text = str(error)
        assert name in text, f"{what}: the message does not name {name}: {text}"
        assert VOICE.search(text), f"{what}: not in the voice 'must ..., got ...': {text}"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} instead: {error}") from error
    else:
        raise AssertionError(f"{what} was accepted and gave {result}")


def _call(case: Case, tensors: list[Tensor], **more: Any) -> Callable[[], Any]:
    return lambda: case(*tensors, **more)


@check()
def shapes_that_do_not_fit_are_refused(case: Case) -> None:
    """Every argument, one size larger or with one more dimension; (N,) against (N, 1) too."""
    original = list(case.sample(40))
    for position, name in enumerate(case.way.tensors):
        tensor = original[position]
        for axis in range(tensor.ndim):
            if _free(case, position, axis):
                continue
            tensors = list(original)
            tensors[position] = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
            refused((ValueError,), "", _call(case, tensors), f"{name} too long in dimension {axis}")
        tensors = list(original)
        # two numbers for one: a loss may take a list of one for the number itself, as CTC does
        tensors[position] = tensor.unsqueeze(-1) if tensor.ndim else tensor.expand(2)
        if len(tensors) > 1 and not any(w.accepts(tuple(tensors)) for w in case.card.signatures):
            # the dtypes may then be those of another way to call it
            errors = (ValueError, TypeError)
            refused(errors, "must", _call(case, tensors), f"{name} with one more dimension")
        elif len(tensors) > 1 and not _fits(case, tensors):
            refused((ValueError,), "", _call(case, tensors), f"{name} with one more dimension")


def _fits(case: Case, tensors: list[Tensor]) -> bool:
    for way in case.card.signatures:
        if way.accepts(tuple(tensors)):
            try:
                way.sizes(tuple(tensors))
            except ValueError:
                continue
            return True
    return False


def _free(case: Case, position: int, axis: int) -> bool:
    """Whether the size of a dimension is nobody else's business."""
    domains = tuple(case.way.tensors.values())
    rank = len(case.shape(domains[position].dims))
    name = case.way.expand(domains[position].dims, rank)[axis]
    if name.isdigit():
        return False
    uses = sum(
        name in case.way.expand(domain.dims, len(case.shape(domain.dims))) for domain in domains
    )
    repeated = case.way.expand(domains[position].dims, rank).count(name) > 1
    return uses < 2 and not repeated


@check()
def wrong_types_are_refused(case: Case) -> None:
    """Lists and numbers for tensors, integers for floating point and the reverse."""
    original = list(case.sample(41))
    for position, (name, domain) in enumerate(case.way.tensors.items()):
        for wrong in ([1.0, 2.0], 1.0, None, "text"):
            if domain.number and isinstance(wrong, float):
                continue
            tensors: list[Any] = list(original)
            tensors[position] = wrong
            refused((TypeError,), name, _call(case, tensors), f"{name}={wrong!r}")
        everywhere = [w.tensors[name].floating for w in case.card.signatures]
        tensors = list(original)
        if all(kind is True for kind in everywhere):
            tensors[position] = original[position].long()
            refused((TypeError,), name, _call(case, tensors), f"integer {name}")
        if all(kind is False for kind in everywhere):
            tensors[position] = original[position].double()
            refused((TypeError,), name, _call(case, tensors), f"floating point {name}")
        if domain.floating:
            tensors[position] = torch.complex(original[position], original[position])
            refused((TypeError,), name, _call(case, tensors), f"complex {name}")


@check()
def values_outside_the_domain_are_refused(case: Case) -> None:
    """One stranger among good values, and NaN where a range is enforced."""
    original = list(case.sample(42))
    for position, (name, domain) in enumerate(case.way.tensors.items()):
        strangers: list[float] = []
        if isinstance(domain, Interval) and domain.checks_values:
            strangers = [math.nan]
            if domain.low > -math.inf:
                strangers += [domain.low - 0.5, *([domain.low] if domain.low_open else [])]
            if domain.high < math.inf:
                strangers += [domain.high + 0.5, *([domain.high] if domain.high_open else [])]
        elif isinstance(domain, Labels):
            strangers = [max(domain.values) + 1, sum(domain.values) / 2 + 0.25, math.nan]
            strangers += [v for v in (0.0, -1.0) if v not in domain.values]
        elif isinstance(domain, ClassIndex):
            top = case.sizes()[domain.classes]
            strangers = [top, top + 1000, -1 if domain.fill == 0 else -2]
        for stranger in strangers:
            tensors = [t.clone() for t in original]
            tensors[position].view(-1)[-1] = stranger
            refused((ValueError,), name, _call(case, tensors), f"{stranger} in {name}")


@check(lambda case: not case.options)
def options_outside_their_range_are_refused(case: Case) -> None:
    """By the function at the call, and by the Module at construction."""
    module = MODULES.get(case.card.name)
    if module is not None and "__init__" in module.__dict__:
        module = None  # its constructor wants more than the options
    tensors = list(case.sample(43))
    for name, rule in case.card.options.items():
        for wrong, kinds in _wrong_options(rule):
            refused(kinds, name, _call(case, tensors, **{name: wrong}), f"{name}={wrong!r}")
            if module is not None and name in module.fields:
                build = _build(module, name, wrong)
                refused(kinds, name, build, f"{module.__name__}({name}={wrong!r})")
        if isinstance(rule, Vector) and rule.dims == ("C",):
            long = torch.ones(case.sizes()["C"] + 1, dtype=torch.float64)
            refused((ValueError,), name, _call(case, tensors, **{name: long}), f"long {name}")


def _build(module: Callable[..., Any], name: str, value: Any) -> Callable[[], Any]:
    return lambda: module(**{name: value})


def _wrong_options(rule: Any) -> list[tuple[Any, tuple[type[Exception], ...]]]:
    value, kind = (ValueError,), (TypeError,)
    if isinstance(rule, Interval):
        wrong: list[tuple[Any, tuple[type[Exception], ...]]] = [("1", kind), (True, kind)]
        wrong.append((math.nan, value))
        if not rule.endless:
            wrong += [(-math.inf, value), (math.inf, value)]
        if rule.low > -math.inf:
            wrong.append((rule.low - 1, value))
            if rule.low_open:
                wrong.append((rule.low, value))
        if rule.high < math.inf:
            wrong.append((rule.high + 1, value))
            if rule.high_open:
                wrong.append((rule.high, value))
        return wrong
    if isinstance(rule, Optional):
        return _wrong_options(rule.rule)
    if isinstance(rule, Choice):
        return [("no such word", value)]
    if isinstance(rule, Flag):
        return [("yes", kind), (1, kind)]
    if isinstance(rule, Whole):
        low = [] if rule.low is None else [(rule.low - 1, value)]
        return [(0.5, kind), ("1", kind), *low]
    if isinstance(rule, Vector):
        return [([1.0, 2.0], kind), (2.0, kind)]
    if isinstance(rule, Function):
        return [("text", kind), (1, kind)]
    assert isinstance(rule, Anything), f"unknown rule {rule!r}"
    return []


@check(once=True)
def reductions_and_weights_are_checked(case: Case) -> None:
    """An unknown word, a wrong shape, negative and NaN weights, a list."""
    tensors = list(case.sample(44))
    for wrong in ("avg", "MEAN", None, 1):
        refused((ValueError,), "reduction", _call(case, tensors, reduction=wrong), f"{wrong!r}")
    good = weights(case, tuple(tensors))
    for wrong_weight, what in (
        (good.unsqueeze(-1), "one more dimension"),
        (torch.cat([good.flatten(), good.flatten()]), "twice as many"),
        (good - 5, "negative"),
        (good * math.nan, "NaN"),
    ):
        call = _call(case, tensors, sample_weight=wrong_weight)
        refused((ValueError,), "sample_weight", call, what)
    refused((TypeError,), "sample_weight", _call(case, tensors, sample_weight=[1.0]), "a list")


@check(once=True)
def surplus_arguments_are_refused(case: Case) -> None:
    """An option with a typing error is an error, positional options too."""
    tensors = list(case.sample(45))
    for call in (
        _call(case, tensors, no_such_option=1),
        _call(case, [*tensors, tensors[0]]),
        _call(case, tensors[:-1]),
    ):
        try:
            call()
        except TypeError:
            continue
        raise AssertionError("a surplus or missing argument was accepted")


@check(once=True)
def tensors_go_by_keyword_too(case: Case) -> None:
    """``loss(input=..., target=...)`` equals ``loss(input, target)``."""
    tensors = case.sample(46)
    assert case.card.function is not None
    named = dict(zip(case.way.tensors, tensors, strict=True))
    left = case.card.function(**named, **case.options_like(tensors))
    assert torch.equal(left, case(*tensors))


@check(once=True)
def options_have_rules(case: Case) -> None:
    """Each keyword of the signature has a domain on the card, and the reverse."""
    assert case.card.function is not None
    parameters = inspect.signature(case.card.function).parameters
    keywords = {n for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    expected = {*case.card.options, "sample_weight", "reduction"}
    assert keywords == expected, f"signature has {sorted(keywords)}, card {sorted(expected)}"
    positional = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert tuple(positional) == case.card.tensors, f"tensors {positional} are not the card's"
