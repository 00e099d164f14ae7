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


def test_a_sum_compiles_to_one_graph() -> None:
    input, target = _batch()
    both = HuberLoss() + 0.5 * HuberLoss(delta=0.1)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input, target), both(input, target))


def test_sums_of_sums_are_flat_and_parts_may_come_one_by_one() -> None:
    a, b = HuberLoss(delta=1.0), HuberLoss(delta=2.0)
    nested = lossmith.Sum(iter([(2.0, a + 3 * b), (1, b)]))
    assert nested.scales == [2.0, 6.0, 1]
    assert nested.labels == ["huber_loss", "huber_loss_2", "huber_loss_3"]


@pytest.mark.parametrize("factor", [float("nan"), True, "1"])
def test_factors_of_the_constructor_are_checked_too(factor: object) -> None:
    with pytest.raises((TypeError, ValueError), match="factor must be"):
        lossmith.Sum([(factor, HuberLoss())])


def test_no_part_of_several_may_overwrite_the_input() -> None:
    greedy = CrossEntropyLoss(overwrite_input=True)
    with pytest.raises(ValueError, match="overwrite_input must be False in a sum"):
        greedy + lossmith.FocalLoss()
    assert (2 * greedy).scales == [2.0]


def test_terms_seen_inside_a_transform_are_plain_tensors() -> None:
    input, target = torch.randn(2, 4, 3)
    both = HuberLoss() + lossmith.MSELoss()
    torch.func.grad(lambda x: both(x, target))(input)
    copy.deepcopy(both)
    torch.func.vmap(both)(input, target)
    pickle.dumps(both)
    assert [tuple(term.shape) for term in both.terms.values()] == [(4,), (4,)]


def test_a_parameter_given_to_a_module_is_learned() -> None:
    scale = torch.nn.Parameter(torch.tensor(1.0))
    head = CrossEntropyLoss(logit_scale=scale)
    both = head + 0.5 * lossmith.FocalLoss(gamma=torch.nn.Parameter(torch.tensor(2.0)))
    assert dict(head.named_parameters()) == {"logit_scale": scale}
    assert [name for name, _ in both.named_parameters()] == ["parts.0.logit_scale", "parts.1.gamma"]
    logits = torch.randn(8, 3)
    both(logits, torch.arange(8) % 3).backward()
    assert all(each.grad is not None and each.grad != 0 for each in both.parameters())
    again = copy.deepcopy(both.double())
    assert [each.dtype for each in again.parameters()] == [torch.float64] * 2
