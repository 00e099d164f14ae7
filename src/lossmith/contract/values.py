"""Laws about values and gradients: literals, exact mathematics, extremes, claims of the card."""

import importlib
import inspect
import itertools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from lossmith.contract.cases import Case, cases
from lossmith.contract.registry import check, gradients, same
from lossmith.contract.truth import (
    exact_gradient,
    exact_values,
    flatten,
    has_truth,
    moved_values,
    mp,
    scalar_function,
    slope,
    ulp,
)
from lossmith.core.domain import Interval

# Allowed error in units in the last place: (value, gradient).
ULPS = {
    torch.float16: (2, 3),
    torch.bfloat16: (2, 3),
    torch.float32: (6, 16),
    torch.float64: (6, 16),
}
# Float32 magnitudes from the smallest to the largest that the contract promises.
MAGNITUDES = (1e-30, 1e-18, 1e-7, 1e-3, 1.0, 12.0, 88.0, 1e3, 1e4, 1e9, 1e18)


def is_element(case: Case) -> bool:
    """Whether the loss works element by element."""
    return case.card.coupling == "element"


@check(lambda case: bool(case.card.points) and not case.options)
def points_of_the_card_hold(case: Case) -> None:
    """The literals on the card, in float64 and float32."""
    for point in case.card.points:
        for dtype in (torch.float64, torch.float32):
            tensors = _scalars(case, point.arguments, dtype)
            value = case(*tensors, reduction="none", **point.options)
            at = f"{case.card.name}{point.arguments} in {dtype}"
            _near(value.sum(), point.value, f"value of {at}")
            if point.gradient is not None:
                (gradient, *_) = gradients(case, tensors, value.sum())
                _near(gradient.sum(), point.gradient, f"gradient of {at}")


def _scalars(case: Case, arguments: tuple[float, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    for number, domain in zip(arguments, case.way.tensors.values(), strict=True):
        kind = torch.int64 if domain.floating is False else dtype
        tensors.append(torch.tensor([number], dtype=torch.float64).to(kind))
    for index in case.differentiable():
        tensors[index].requires_grad_()
    return tuple(tensors)


def _near(found: Tensor, expected: float, what: str) -> None:
    tolerance = 1e-6 * abs(expected) + 1e-12
    good = found.item() == expected or abs(found.item() - expected) <= tolerance
    assert good, f"{what} must be {expected}, got {found.item()}"


@check(has_truth)
def values_are_exact(case: Case) -> None:
    """Within 2 ulp in half types and 6 ulp in float32 and float64 of the exact value.

    The exact value belongs to the inputs after rounding to the dtype. What one rounding of the
    inputs would change is allowed on top: no algorithm can know better.
    """
    for dtype, (allowed, _) in ULPS.items():
        for seed in range(3):
            tensors = case.sample(seed, dtype)
            exact = exact_values(case, tensors)
            found = case(*tensors, reduction="none").detach()
            slack = _conditioning(case, tensors, exact)
            for index, (value, truth) in enumerate(zip(found.flatten(), exact, strict=True)):
                limit = allowed * ulp(truth, dtype) + slack[index]
                error = abs(mp().mpf(value.item()) - truth)
                assert error <= limit, (
                    f"value {value.item()} of element {index} in {dtype} is"
                    f" {float(error / ulp(truth, dtype)):.1f} ulp from {float(truth)}"
                )


def _conditioning(case: Case, tensors: tuple[Tensor, ...], exact: list[Any]) -> list[Any]:
    """By how much each exact value moves if every input moves by half an ulp, or by one in a row.

    The inputs move in a few patterns, and the largest change counts.
    """
    total = [mp().zero for _ in exact]
    for position, domain in enumerate(case.way.tensors.values()):
        if not isinstance(domain, Interval) or not tensors[position].is_floating_point():
            continue  # labels are exact
        # a row is rounded once more on the way, as a sum or a distance
        shift = mp().mpf(torch.finfo(tensors[position].dtype).eps) / (2 if is_element(case) else 1)
        largest = [mp().zero for _ in exact]
        for signs in _patterns(case, tensors, position):
            factors = [1 + shift * sign for sign in signs]
            try:
                others = moved_values(case, tensors, position, factors)
            except (ValueError, ZeroDivisionError, TypeError):
                continue  # the shift left the domain
            changes = [abs(o - e) for o, e in zip(others, exact, strict=True)]
            largest = [max(pair) for pair in zip(largest, changes, strict=True)]
        total = [t + most for t, most in zip(total, largest, strict=True)]
    return total


def _patterns(case: Case, tensors: tuple[Tensor, ...], position: int) -> list[list[float]]:
    """Which elements of an argument grow and which shrink: all alike, by turns, the worst way.

    A loss that ties elements together may stand still when all of them move alike: a cosine does
    under any scale. What moves it most is read off its own gradient.
    """
    alike = [1.0] * tensors[position].numel()
    if is_element(case):
        return [alike]
    by_turns = [1.0 - 2 * (index % 2) for index in range(len(alike))]
    wide = [t.double() if t.is_floating_point() else t for t in tensors]
    leaf = wide[position] = wide[position].detach().requires_grad_()
    value = case(*wide, reduction="none").sum()
    if not value.requires_grad:
        return [alike, by_turns]
    (slopes,) = torch.autograd.grad(value, leaf, materialize_grads=True)
    return [alike, by_turns, (slopes * leaf).sign().flatten().tolist()]


@check(lambda case: has_truth(case) and case.card.differentiable)
def gradients_are_exact(case: Case) -> None:
    """Gradients against the derivative of the exact loss: 3 ulp in half types, 16 in others.

    The unit is that of the element itself for what an element loss trains, its first argument;
    elsewhere it is that of the argument's largest gradient: by a target, say, a derivative is the
    difference of two terms, which may cancel.
    """
    for dtype, (_, allowed) in ULPS.items():
        tensors = case.sample(1, dtype, grad=True)
        value = case(*tensors, reduction="none").sum()
        found = gradients(case, tensors, value)
        # the output is rounded to a half type before the sum, the gradient is not
        for position, gradient in zip(case.differentiable(), found, strict=True):
            exact = exact_gradient(case, tuple(t.detach() for t in tensors), position)
            largest = max((abs(e) for e in exact), default=0)
            for index, (value, truth) in enumerate(zip(gradient.flatten(), exact, strict=True)):
                own = is_element(case) and position == 0
                unit = ulp(truth if own else largest, dtype)
                if is_element(case):
                    unit += _gradient_conditioning(case, tensors, position, index, truth, dtype)
                error = abs(mp().mpf(value.item()) - truth)
                assert error <= allowed * unit, (
                    f"gradient {value.item()} by argument {position}, element {index} in {dtype} is"
                    f" {float(error / ulp(truth, dtype)):.1f} ulp from {float(truth)}"
                )


def _gradient_conditioning(
    case: Case,
    tensors: tuple[Tensor, ...],
    position: int,
    index: int,
    truth: Any,
    dtype: torch.dtype,
) -> Any:
    """Change of the exact derivative when the inputs move by a tenth of an ulp each."""
    function = scalar_function(case)
    scalars = [mp().mpf(t.detach().double().flatten()[index].item()) for t in tensors]
    total = mp().zero
    for moving in case.differentiable():
        moved = list(scalars)
        moved[moving] *= 1 + mp().mpf(torch.finfo(dtype).eps) / 10
        total += abs(slope(function, moved, position) - truth)
    return total


@check(lambda case: is_element(case) and has_truth(case))
def value_and_gradient_are_finite_over_the_domain(case: Case) -> None:
    """In float32, from 1e-30 to 1e18: finite wherever the exact value fits the dtype."""
    largest = mp().mpf(torch.finfo(torch.float32).max)
    columns = [_extremes(domain) for domain in case.way.tensors.values()]
    grid = list(itertools.product(*columns))
    if len(grid) > 1500:
        grid = grid[:: len(grid) // 1500 + 1]
    tensors = tuple(torch.tensor(c, dtype=torch.float32) for c in zip(*grid, strict=True))
    for index in case.differentiable():
        tensors[index].requires_grad_()
    value = case(*tensors, reduction="none")
    found = gradients(case, tensors, value.sum())
    function = scalar_function(case)
    for index in range(len(grid)):
        scalars = [mp().mpf(t[index].item()) for t in tensors]
        where = ", ".join(f"{t[index].item():g}" for t in tensors)
        try:
            truth = function(*scalars)
        except (ZeroDivisionError, ValueError, OverflowError):
            continue  # outside the domain of the mathematics
        if not mp().isfinite(truth) or abs(truth) >= largest:
            continue
        assert math.isfinite(value[index].item()), f"value at ({where}) is {value[index].item()}"
        if case.card.nonnegative:
            assert value[index].item() >= 0, f"value at ({where}) is {value[index].item()} < 0"
        for position, gradient in zip(case.differentiable(), found, strict=True):
            if not math.isfinite(gradient[index].item()):
                steep = abs(slope(function, scalars, position))
                assert steep >= largest, f"gradient at ({where}) is {gradient[index].item()}"


def _extremes(domain: Any) -> list[float]:
    if hasattr(domain, "values"):
        return list(domain.values)
    both = [*MAGNITUDES, *(-m for m in MAGNITUDES), 0.0]
    if isinstance(domain, Interval):
        if math.isfinite(domain.high) and math.isfinite(domain.low):
            width = domain.high - domain.low
            both = [domain.low, domain.high, *(domain.low + width * f for f in (1e-30, 1e-7, 0.5))]
            both.append(domain.high - width * 1e-7)
        return [m for m in both if domain.contains(m)]
    return both


@check(lambda case: not is_element(case))
def value_and_gradient_are_finite_at_every_scale(case: Case) -> None:
    """In float32, with the real arguments scaled from 1e-30 to 1e9, and all of them zero.

    More closely around 90, where the probabilities of logits vanish, several in the same place.
    """
    close = (20.0, 50.0, 80.0, 85.0, 90.0, 95.0, 100.0, 110.0, 130.0, 200.0)
    for seed, scale in enumerate((0.0, 1e-30, 1e-18, 1e-7, *close, 1e3, 1e4, 1e9)):
        tensors = list(case.sample(2 + seed, torch.float32))
        for position, domain in enumerate(case.way.tensors.values()):
            if isinstance(domain, Interval) and domain.floating and not math.isfinite(domain.high):
                moved = tensors[position] * scale
                tensors[position] = moved if domain.contains(0.0) else moved.clamp(min=1e-30)
        for index in case.differentiable():
            tensors[index] = tensors[index].detach().requires_grad_()
        value = case(*tensors)
        assert value.isfinite().all(), f"value at scale {scale:g} is {value}"
        for gradient in gradients(case, tuple(tensors), value):
            assert gradient.isfinite().all(), f"gradient at scale {scale:g} is {gradient}"


@check(lambda case: case.card.differentiable)
def gradient_is_finite_where_arguments_coincide(case: Case) -> None:
    """Zero distance, equal scores, equal distributions: a subgradient, never NaN."""
    tensors = list(case.sample(3, torch.float32))
    domains = tuple(case.way.tensors.values())
    for left, right in itertools.combinations(case.differentiable(), 2):
        alike = domains[left].name == domains[right].name
        if alike and tensors[left].shape == tensors[right].shape:
            tensors[right] = tensors[left].clone()
    for index in case.differentiable():
        tensors[index].requires_grad_()
    value = case(*tensors)
    assert value.isfinite().all(), f"value is {value}"
    for gradient in gradients(case, tuple(tensors), value):
        assert gradient.isfinite().all(), f"gradient is {gradient}"


@check(lambda case: case.card.convex)
def loss_is_convex(case: Case) -> None:
    """f(mid) <= mean of the ends, on random segments of the first argument."""
    domain = next(iter(case.way.tensors.values()))
    bounded = isinstance(domain, Interval) and domain.checks_values and domain.high < math.inf
    for seed in range(20):
        start, *rest = case.sample(seed)
        end = case.sample(seed + 100)[0]
        for scale in (0.1, 1.0) if bounded else (0.1, 1.0, 10.0):
            low = case(start * scale, *rest, reduction="none")
            high = case(end * scale, *rest, reduction="none")
            middle = case((start + end) / 2 * scale, *rest, reduction="none")
            bound = (low + high) / 2
            assert (middle <= bound + 1e-10 * (1 + bound.abs())).all(), (
                f"not convex: {middle.max().item()} above {bound.max().item()} at scale {scale}"
            )


@check(lambda case: case.card.symmetric)
def loss_is_symmetric(case: Case) -> None:
    """Swapping the first two arguments changes nothing."""
    first, second, *rest = case.sample(4)
    same(
        case(first, second, *rest, reduction="none"),
        case(second, first, *rest, reduction="none"),
        "swapped",
    )


@check(lambda case: case.card.zero_at_target)
def loss_is_zero_at_the_target(case: Case) -> None:
    """Input equal to target gives 0, to a rounding of the terms."""
    _, target, *rest = case.sample(5)
    value = case(target.clone(), target, *rest, reduction="none")
    assert (value.abs() <= 1e-15).all(), f"loss of a perfect input is {value.abs().max().item()}"


@check(lambda case: case.card.nonnegative)
def loss_is_never_negative(case: Case) -> None:
    """Over 30 samples at three scales, in float32 where rounding would show."""
    for seed in range(30):
        tensors = case.sample(seed, torch.float32)
        value = case(*tensors, reduction="none")
        assert not (value < 0).any(), f"negative value {value.min().item()}"


@check(lambda case: not case.card.nonnegative, once=True)
def loss_can_be_negative_as_the_card_says(case: Case) -> None:
    """A card that denies ``nonnegative`` has a sample below 0, or it claims too little."""
    lowest = min(
        setting(*setting.sample(seed), reduction="none").min().item()
        for setting in cases(case.card)
        for seed in range(200)
    )
    assert lowest < 0, f"no negative value in 200 samples (lowest {lowest}); claim nonnegative"


@check(lambda case: case.card.gradient_bound is not None)
def gradient_bound_holds_and_is_tight(case: Case) -> None:
    """No element is pulled harder than the bound, and some element nearly as hard."""
    bound = case.card.gradient_bound
    if isinstance(bound, str):
        assert case.card.function is not None
        default = inspect.signature(case.card.function).parameters[bound].default
        bound = float(case.options.get(bound, default))
    assert bound is not None
    hardest = 0.0
    for seed in range(30):
        for scale in (0.3, 1.0, 3.0, 30.0):
            tensors = list(case.sample(seed))
            tensors[0] = (tensors[0] * scale).requires_grad_()
            value = case(*tensors, reduction="sum")
            (gradient,) = torch.autograd.grad(value, tensors[0])
            hardest = max(hardest, gradient.abs().max().item())
    assert hardest <= bound * (1 + 1e-9), f"gradient {hardest} above the bound {bound}"
    assert hardest >= 0.9 * bound, f"bound {bound} is loose: the largest gradient is {hardest}"


def has_twin(case: Case) -> bool:
    """Whether ``same_as`` names a callable that takes the options of the case."""
    if case.card.same_as is None:
        return False
    return set(case.options) <= set(inspect.signature(resolve(case.card.same_as)).parameters)


@check(has_twin)
def loss_equals_its_twin(case: Case) -> None:
    """Value and gradient of ``same_as`` on ordinary unweighted samples, every reduction."""
    twin = resolve(case.card.same_as or "")
    roundings = 1024  # torch's cosine adds 1e-12 to its squares, which is 300 roundings here
    for reduction in case.card.reductions:
        tensors = case.sample(6, grad=True)
        ours = case(*tensors, reduction=reduction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever the twin has to say about its own reductions
            theirs = twin(*tensors, **case.options_like(tensors), reduction=reduction)
        same(ours.detach(), theirs.detach(), f"reduction {reduction}", factor=roundings)
        mine = gradients(case, tensors, ours.sum())
        for left, right in zip(mine, gradients(case, tensors, theirs.sum()), strict=True):
            same(left, right, f"gradient of reduction {reduction}", factor=roundings)


@check(lambda case: has_twin(case) and has_truth(case))
def half_precision_is_no_worse_than_the_twin(case: Case) -> None:
    """Mean over 64 samples in float16 and bfloat16, against the exact mean."""
    twin = resolve(case.card.same_as or "")
    for dtype in (torch.float16, torch.bfloat16):
        tensors = case.sample(7, dtype, N=8) if case.batched else case.sample(7, dtype)
        ours = case(*tensors, reduction="none").double()
        try:
            theirs = twin(*tensors, **case.options_like(tensors), reduction="none").double()
        except (RuntimeError, ValueError):
            continue  # the twin does not know the dtype at all
        truth = torch.tensor([float(v) for v in flatten(exact_values(case, tensors))]).double()
        mine = (ours.flatten() - truth).abs()
        other = (theirs.flatten() - truth).abs()
        slack = torch.finfo(dtype).eps * truth.abs()
        assert (mine <= other + slack).all(), (
            f"error {mine.max().item():.3g} in {dtype}, twin {other.max().item():.3g}"
        )


def resolve(dotted: str) -> Any:
    """The callable behind a dotted name."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)
