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
