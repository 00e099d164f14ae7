"""Options that are tensors of one element: computed like the number that they hold."""

import pytest
import torch

import lossmith as lm
from lossmith.contract.cases import cases
from lossmith.contract.options import learnable
from lossmith.core.domain import Interval

CARDS = lm.cards()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CARDS)
def test_options_in_half_precision_are_rounded_once(name: str, dtype: torch.dtype) -> None:
    """What is made of them, a square or a root, is not."""
    for case in cases(CARDS[name]):
        tensors = case.sample(0, dtype)
        for option, value in learnable(case):
            rule, number = CARDS[name].options[option], value.to(dtype)
            if isinstance(rule, Interval) and rule.contains(number.item()):
                found = case(*tensors, **{option: number})
                wanted = case(*tensors, **{option: number.item()})
                assert torch.equal(found, wanted), f"{case}: {option}"


@pytest.mark.parametrize("start", [0.0, 1e-4, 0.25, 1.0])
def test_beta_of_smooth_l1_is_learned_down_to_0(start: float) -> None:
    beta, gap = torch.tensor(start, requires_grad=True), torch.randn(1000)
    (slope,) = torch.autograd.grad(lm.smooth_l1_loss(gap, torch.zeros(1000), beta=beta), beta)
    inside = gap.double().abs() < start
    wanted = torch.where(inside, -0.5 * (gap.double() / max(start, 1e-9)) ** 2, -0.5).mean()
    torch.testing.assert_close(slope.double(), wanted, rtol=1e-6, atol=0)
