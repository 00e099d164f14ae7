"""A law of the ends of the line: what infinite logits have to give."""

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
    """Where 1e6 and 1e9 give one loss, infinity gives it too, and the same gradient."""
    for sign in (1.0, -1.0):

        def at(size: float, sign: float = sign) -> tuple[Tensor, Tensor]:
            first, *rest = case.sample(77, torch.float32)
            sides = list(case.way.tensors.values())[1:]  # a label in doubt has an infinite limit
            rest = [t.round() if d.name == "unit" else t for t, d in zip(rest, sides, strict=True)]
            first.view(-1)[0] = sign * size
            first.requires_grad_()
            value = case(first, *rest, reduction="none")
            (slope,) = torch.autograd.grad(value.sum(), first)
            return value.detach(), slope

        near, _ = at(1e6)
        far, slope = at(1e9)
        settled = torch.isclose(near, far, rtol=1e-5, atol=1e-6)
        value, found = at(torch.inf)
        assert torch.allclose(value[settled], far[settled], rtol=1e-5, atol=1e-6), (
            f"{sign} infinity"
        )
        if settled.all():
            assert torch.allclose(found, slope, rtol=1e-4, atol=1e-6), (
                f"gradient at {sign} infinity"
            )
