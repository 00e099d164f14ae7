"""Laws about options that are learned together with the model."""

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor

from lossmith.contract.cases import Case
from lossmith.contract.registry import check
from lossmith.core.domain import Interval, Optional, Vector

STEP = 1e-5


def learnable(case: Case) -> Iterator[tuple[str, Tensor]]:
    """The options that are real numbers, as tensors of their values in this case."""
    parameters = inspect.signature(case.card.function).parameters if case.card.function else {}
    for name, rule in case.card.options.items():
        rule = rule.rule if isinstance(rule, Optional) else rule
        value = case.options.get(name, parameters[name].default)
        if isinstance(rule, Interval | Vector) and isinstance(value, float | Tensor):
            number = torch.as_tensor(value, dtype=torch.float64)
            if number.is_floating_point() and number.isfinite().all():
                yield name, number


@check(lambda case: bool(case.differentiable()))
def learned_options_have_their_gradient(case: Case) -> None:
    """A number or a vector as a parameter: its slope is that of differences, or it is refused.

    Nothing is said where the loss has a bend, as at an end of the range.
    """
    tensors = case.sample(60)
    here = case(*tensors).item()
    for name, value in learnable(case):
        leaf = value.clone().requires_grad_()
        try:
            loss = case(*tensors, **{name: leaf})
        except (ValueError, TypeError) as error:
            if f"{name} must" not in str(error):
                raise AssertionError(f"{name} as a parameter: {error}") from error
            continue
        slope = torch.zeros_like(value)
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
            slope = slope if found is None else found
        value_kept = abs(loss.item() - here) <= 1e-9 * max(1.0, abs(here))
        assert value_kept, f"{name} = {value} as a parameter: {loss.item()} != {here}"
        along = torch.linspace(0.5, 1.0, value.numel(), dtype=value.dtype).view(value.shape)
        sides: list[float] = []
        for step in (STEP, -STEP, STEP / 8, -STEP / 8):
            try:
                near, far = (
                    case(*tensors, **{name: value + k * step * along}).item() for k in (1, 2)
                )
            except ValueError:  # outside the range
                continue
            sides.append((4 * near - far - 3 * here) / (2 * step))
        given = (slope * along).sum().item()
        room = 1e-4 * max(map(abs, sides), default=0.0) + 1e-7 * max(1.0, abs(here))
        if sides and max(sides) - min(sides) < room:
            assert abs(given - sides[0]) < room, f"{name} = {value}: {given} != {sides[0]}"
