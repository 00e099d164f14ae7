"""Losses of tensors on the CPU, in a program that makes its tensors elsewhere by default."""

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.contract.cases import Case, cases
from lossmith.core import route
from lossmith.engines import in_cache, pairs, row

CARDS = lm.cards()
SIZES = {"N": 70, "D": 12}


def outcome(case: Case, tensors: tuple[Tensor, ...]) -> tuple[str, list[Tensor]]:
    """The node, which tells the path, and the numbers."""
    leaves = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
    value = case(*leaves)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    slopes = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else ()
    node = type(value.grad_fn).__name__
    return node, [value.detach(), *(slope for slope in slopes if slope is not None)]


@pytest.mark.parametrize("engines", [False, True], ids=["small", "engines"])
@pytest.mark.parametrize("name", CARDS)
def test_the_default_device_changes_nothing(
    name: str, engines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is "meta" here, where no value can be read; in programs it is "cuda"."""
    sizes = SIZES if engines else {}
    if engines:
        monkeypatch.setattr(route, "SMALL", 0)
        monkeypatch.setattr(row, "FEW", 0)
        monkeypatch.setattr(pairs, "SMALL", 0)
        monkeypatch.setattr(in_cache, "SMALL", 0)
        monkeypatch.setattr(in_cache, "NARROW", 0)
    for case in cases(CARDS[name]):
        tensors = case.sample(0, torch.float32, grad=True, **sizes)
        expected = outcome(case, tensors)
        with torch.device("meta"):
            found = outcome(case, tensors)
        assert found[0] == expected[0]
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)


def test_heads_statistics_and_sums() -> None:
    hidden, weight = torch.randn(70, 5, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    index = torch.arange(70) % 9

    def several() -> list[Tensor]:
        head = lm.linear_head(lm.cross_entropy)(hidden, weight, index)
        known = lm.softmax_statistics(hidden @ weight.T, index)
        both = lm.CrossEntropyLoss() + 0.5 * lm.FocalLoss()
        total = head + sum(part.sum() for part in known if part.requires_grad)
        total = total + both(hidden @ weight.T, index)
        return [total, *torch.autograd.grad(total, (hidden, weight))]

    expected = several()
    with torch.device("meta"):
        torch.testing.assert_close(several(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("many", [1, 200], ids=["few", "many"])
def test_lengths_as_tuples(many: int) -> None:
    scores = torch.randn(30, many, 9, requires_grad=True)
    targets, lengths = torch.arange(many * 4).view(many, 4) % 8 + 1, ((30,) * many, (4,) * many)
    lengths = lengths[0], (*lengths[1][1:], 3)

    def signals() -> list[Tensor]:
        value = lm.ctc_with_logits_loss(scores, targets, *lengths)
        return [value, *torch.autograd.grad(value, scores)]

    expected = signals()
    with torch.device("meta"):
        torch.testing.assert_close(signals(), expected, rtol=0, atol=0)
