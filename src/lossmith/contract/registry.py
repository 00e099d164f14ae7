"""The list of checks. A check is a function of a case that raises AssertionError with a reason."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lossmith.contract.cases import Case


@dataclass(frozen=True)
class Check:
    """One law that every loss has to hold.

    Attributes:
        name: The law, as a sentence without spaces.
        run: Raises AssertionError where the law is broken.
        applies: Whether the law says anything about a case.
        slow: Takes seconds per case (compilation by Inductor).
        once: Says something about the loss, not about a setting of its options.
    """

    name: str
    run: Callable[[Case], None]
    applies: Callable[[Case], bool]
    slow: bool = False
    once: bool = False


CHECKS: list[Check] = []


def check(
    applies: Callable[[Case], bool] = lambda case: True, *, slow: bool = False, once: bool = False
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Add a function to :data:`CHECKS`."""

    def add(run: Callable[[Case], None]) -> Callable[[Case], None]:
        CHECKS.append(Check(run.__name__, run, applies, slow, once))
        return run

    return add


def same(
    left: Tensor, right: Tensor, what: str, *, factor: float = 8.0, scale: float = 0.0
) -> None:
    """Equal up to a few roundings of the dtype, with equal NaN and infinities.

    Roundings are those of the largest entry, or of ``scale`` where that is larger.
    """
    assert left.shape == right.shape, f"{what}: shape {tuple(left.shape)} != {tuple(right.shape)}"
    eps = torch.finfo(left.dtype).eps if left.is_floating_point() else 0.0
    if right.isfinite().any():
        scale = max(scale, right[right.isfinite()].abs().max().item())
    close = torch.isclose(left, right, rtol=factor * eps, atol=factor * eps * scale, equal_nan=True)
    if not close.all():
        worst = (left - right).abs().nan_to_num(torch.inf)
        worst[close] = 0
        at = int(worst.flatten().argmax())
        raise AssertionError(
            f"{what}: {left.flatten()[at].item()!r} != {right.flatten()[at].item()!r} at {at}"
        )


def gradients(case: Case, tensors: tuple[Tensor, ...], value: Tensor) -> list[Tensor]:
    """Gradients of the differentiable arguments; zeros where one is not reached."""
    leaves = [tensors[i] for i in case.differentiable() if tensors[i].requires_grad]
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found, strict=True)]
