"""What the laws cannot say of a root over the batch: its reductions."""

import pytest
import torch

import lossmith

INPUT = torch.tensor([1.0, 7.0, 4.0])
TARGET = torch.zeros(3)


def test_mean_is_the_root_of_the_mean_of_squares() -> None:
    # (1 + 49 + 16) / 3 = 22; the mean of the roots would be 4
    assert lossmith.rmse_loss(INPUT, TARGET).item() == pytest.approx(22**0.5)


def test_sum_is_the_root_of_the_sum_of_squares() -> None:
    assert lossmith.rmse_loss(INPUT, TARGET, reduction="sum").item() == pytest.approx(66**0.5)


def test_weights_enter_under_the_root() -> None:
    weight = torch.tensor([2.0, 1.0, 0.0])
    # (2 + 49) / 3 = 17
    value = lossmith.rmse_loss(INPUT, TARGET, sample_weight=weight)
    assert value.item() == pytest.approx(17**0.5)


def test_gradient_is_residual_over_count_and_root() -> None:
    leaf = INPUT.clone().requires_grad_()
    lossmith.rmse_loss(leaf, TARGET).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, INPUT / (3 * 22**0.5))


def test_gradient_of_a_perfect_fit_is_zero() -> None:
    leaf = torch.ones(3, requires_grad=True)
    lossmith.rmse_loss(leaf, torch.ones(3)).backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0.0, 0.0, 0.0]
