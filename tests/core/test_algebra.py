"""Sums of losses: value, gradient, names of the terms, and what is refused."""

import copy
import pickle

import pytest
import torch

import lossmith
from lossmith import CrossEntropyLoss, HuberLoss


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(5, generator=generator, requires_grad=True),
        torch.randn(5, generator=generator),
    )


def test_sum_is_the_weighted_sum_of_value_and_gradient() -> None:
    input, target = _batch()
    both = HuberLoss() + 0.5 * HuberLoss(delta=0.1)
    value = both(input, target)
    expected = lossmith.huber_loss(input, target) + 0.5 * lossmith.huber_loss(
        input, target, delta=0.1
    )
    assert torch.equal(value, expected)
    (left,) = torch.autograd.grad(value, input, retain_graph=True)
    (right,) = torch.autograd.grad(expected, input)
    torch.testing.assert_close(left, right)


def test_terms_are_scaled_detached_and_add_up() -> None:
    input, target = _batch()
    both = HuberLoss() + 0.5 * HuberLoss(delta=0.1)
    value = both(input, target)
    assert list(both.terms) == ["huber_loss", "huber_loss_2"]
    assert not any(term.requires_grad for term in both.terms.values())
    torch.testing.assert_close(sum(both.terms.values()), value.detach())


def test_algebra_is_flat_and_distributes() -> None:
    a, b, c = HuberLoss(delta=1.0), HuberLoss(delta=2.0), HuberLoss(delta=3.0)
    combined = 2 * (a + b / 4) - c
    assert combined.scales == [2.0, 0.5, -1.0]
    assert [part.delta for part in combined.parts] == [1.0, 2.0, 3.0]
    assert sum([a, b]).scales == [1.0, 1.0]


def test_a_subclass_may_have_other_defaults_and_fields_of_its_own() -> None:
    class Tight(HuberLoss):
        delta: float = 0.1

    class Loud(Tight):
        factor: float = 3.0

        def _check(self) -> None:
            pass

        def forward(self, *tensors: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
            return self.factor * lossmith.huber_loss(*tensors, delta=self.delta, **named)

    input, target = _batch()
    expected = lossmith.huber_loss(input, target, delta=0.1)
    assert expected != HuberLoss()(input, target)
    assert torch.equal(Tight()(input, target), expected)
    assert torch.equal(Loud()(input, target), 3 * expected)


def test_weights_reach_every_part() -> None:
    input, target = _batch()
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0])
    both = HuberLoss() + HuberLoss(delta=0.1)
    expected = lossmith.huber_loss(input, target, sample_weight=weight) + lossmith.huber_loss(
        input, target, delta=0.1, sample_weight=weight
    )
    assert torch.equal(both(input, target, sample_weight=weight), expected)


def test_sum_survives_pickle_and_deepcopy_and_moves() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    both = CrossEntropyLoss(weight=weight) + 0.5 * CrossEntropyLoss(label_smoothing=0.1)
    logits, classes = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    both.double()
    expected = both(logits, classes)
    for again in (pickle.loads(pickle.dumps(both)), copy.deepcopy(both)):
        assert torch.equal(again(logits, classes), expected)
    assert "scales=[1.0, 0.5]" in repr(both)


@pytest.mark.parametrize("factor", ["2", None, True, torch.tensor(2.0)])
def test_factor_must_be_a_number(factor: object) -> None:
    with pytest.raises(TypeError, match=r"factor must be a number, got"):
        HuberLoss() * factor


def test_only_losses_can_be_added() -> None:
    with pytest.raises(TypeError):
        HuberLoss() + 1
    with pytest.raises(TypeError):
        HuberLoss() + torch.nn.Linear(1, 1)
