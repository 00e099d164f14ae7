"""A law of the ends of the line: what infinite logits have to give."""

from typing import Any

import torch
from torch import Tensor

from lossmith.contract.cases import Case
from lossmith.contract.registry import check


def _takes_logits(case: Case) -> bool:
    first = next(iter(case.way.tensors.values()))
    scores = first.name == "real" and ("C" in first.dims or first.dims == ("*",))
    return scores and case.card.link in ("logit", "softmax") and case.card.differentiable


@check(_takes_logits)
def infinite_logits_reach_the_limit(case: Case) -> None:
    """An infinite logit gives the limit of large ones, on any path: its value, infinite or not.

    The gradient is that of large logits: 0 on the right side, on the wrong one what it tends to;
    a gradient that grows without a limit has to be large, with the right sign.
    """
    for sign in (1.0, -1.0):

        def at(size: float, dtype: torch.dtype, sign: float = sign, **more: Any) -> list[Tensor]:
            first, *rest = case.sample(77, dtype)
            sides = list(case.way.tensors.values())[1:]  # a label in doubt has an infinite limit
            rest = [t.round() if d.name == "unit" else t for t, d in zip(rest, sides, strict=True)]
            first.view(-1)[0] = sign * size
            first.requires_grad_()
            value = case(first, *rest, **more)
            return [value.detach(), *torch.autograd.grad(value.sum(), first)]

        near, before = at(1e6, torch.float64, reduction="none")
        far, slope = at(1e9, torch.float64, reduction="none")
        settled = torch.isclose(near, far, rtol=1e-5, atol=1e-6)
        limit = torch.where(settled, far, torch.inf).float()
        grows = ~torch.isclose(before, slope, rtol=1e-5, atol=1e-6)
        ones = torch.ones_like(limit)
        paths: tuple[dict[str, Any], ...] = ({}, {"sample_weight": ones})
        for path in paths:  # a kernel of its own, if there is one; the plain function
            for reduction, expected in (("none", limit), ("sum", limit.sum())):
                what = f"{reduction} at {sign} infinity, {', '.join(path) or 'no weights'}"
                value, found = at(torch.inf, torch.float32, reduction=reduction, **path)
                assert torch.allclose(value, expected, rtol=1e-5, atol=1e-6), (
                    f"{what}: {value.tolist()} instead of {expected.tolist()}"
                )
                right = torch.isclose(found.double(), slope, rtol=1e-4, atol=1e-6)
                assert (right | (grows & (found / slope >= 1))).all(), (
                    f"gradient of the {what}: {found.tolist()} instead of {slope.tolist()}"
                )
