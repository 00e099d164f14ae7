"""Poisson, gamma and Tweedie against the densities that they drop constants of."""

import math

import pytest
import torch
from sklearn.metrics import mean_tweedie_deviance

import lossmith


def pair(*, zeros):
    generator = torch.Generator().manual_seed(8)
    log_mean = torch.randn(40, generator=generator, dtype=torch.float64)
    target = torch.rand(40, generator=generator, dtype=torch.float64) * 3 + 0.01
    return log_mean, target * (torch.arange(40) % 2) if zeros else target


def test_poisson_differs_from_the_density_by_what_the_target_fixes():
    log_rate, _ = pair(zeros=False)
    count = torch.arange(40, dtype=torch.float64) % 7
    value = lossmith.poisson_nll_loss(log_rate, count, reduction="none")
    exact = -torch.distributions.Poisson(log_rate.exp()).log_prob(count)
    torch.testing.assert_close(value, exact - torch.lgamma(count + 1))


def test_poisson_of_whole_numbers_is_that_of_floats():
    log_rate, _ = pair(zeros=False)
    count = torch.arange(40) % 7
    whole = lossmith.poisson_nll_loss(log_rate, count)
    assert whole == lossmith.poisson_nll_loss(log_rate, count.double())


def test_poisson_gradient_by_a_count_that_is_learned():
    log_rate = torch.tensor([-math.inf, 0.5])
    count = torch.tensor([0.0, 2.0], requires_grad=True)
    value = lossmith.poisson_nll_loss(log_rate, count, reduction="sum")
    value.backward()
    torch.testing.assert_close(value.item(), math.exp(0.5) - 1.0)
    torch.testing.assert_close(count.grad, torch.tensor([0.0, -0.5]))


def test_poisson_of_a_rate_refuses_a_negative_one():
    with pytest.raises(ValueError, match=r"input must be >= 0, got -1\.0"):
        lossmith.poisson_nll_loss(torch.tensor([-1.0]), torch.tensor([2.0]), log_input=False)


@pytest.mark.parametrize("shape", [1.0, 2.5])
def test_gamma_differs_from_the_density_as_documented(shape):
    log_mean, target = pair(zeros=False)
    k = torch.tensor(shape, dtype=torch.float64)
    value = lossmith.gamma_nll_loss(log_mean, target, reduction="none")
    exact = -torch.distributions.Gamma(k, k / log_mean.exp()).log_prob(target)
    dropped = torch.lgamma(k) - k * k.log() - (k - 1) * target.log()
    torch.testing.assert_close(k * value + dropped, exact)


@pytest.mark.parametrize("power", [1.0, 1.3, 1.5, 1.9, 2.0, 2.5, 3.0])
def test_tweedie_is_half_the_deviance_up_to_a_constant(power):
    log_mean, target = pair(zeros=power < 2)
    value = lossmith.tweedie_loss(log_mean, target, power=power, reduction="none")
    best = torch.where(target > 0, target, 1.0).log()  # of a zero the infimum is at -inf
    least = lossmith.tweedie_loss(best, target, power=power, reduction="none")
    deviance = torch.tensor(
        [
            mean_tweedie_deviance([y], [mean], power=power)
            for y, mean in zip(target.tolist(), log_mean.exp().tolist(), strict=True)
        ],
        dtype=torch.float64,
    )
    least = torch.where(target > 0, least, 0.0)
    torch.testing.assert_close(value - least, deviance / 2)


def test_tweedie_wants_positive_amounts_from_power_2_on():
    zero = torch.zeros(2)
    assert lossmith.tweedie_loss(zero, zero, power=1.99) > 0
    with pytest.raises(ValueError, match=r"target must be > 0, got 0\.0"):
        lossmith.tweedie_loss(zero, zero, power=2.0)
