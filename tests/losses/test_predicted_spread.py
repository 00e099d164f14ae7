"""Losses with a predicted variance or scale: the shapes it may have, and how it can grow again."""

import math

import pytest
import torch
from torch.nn import functional as F

import lossmith


def batch(shape=(4, 3, 2)):
    generator = torch.Generator().manual_seed(5)
    input, target = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return input, target, generator


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3), (4, 3, 1), (4, 1, 2), (1, 3, 2)])
def test_every_shape_of_a_variance_that_torch_takes(shape):
    input, target, generator = batch()
    var = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    ours, theirs = (var.clone().requires_grad_() for _ in range(2))
    value = lossmith.gaussian_nll_loss(input, target, ours)
    expected = F.gaussian_nll_loss(input, target, theirs)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_float_variance():
    input, target, _ = batch()
    value = lossmith.gaussian_nll_loss(input, target, 0.3)
    torch.testing.assert_close(value, F.gaussian_nll_loss(input, target, 0.3))
    with pytest.raises(ValueError, match=r"var must be >= 0, got -0\.3"):
        lossmith.gaussian_nll_loss(input, target, -0.3)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (1, 1, 2), (4, 3, 3), ()])
def test_other_shapes_are_refused(shape):
    input, target, _ = batch()
    with pytest.raises(ValueError, match="var"):
        lossmith.gaussian_nll_loss(input, target, torch.ones(shape, dtype=torch.float64))


def test_a_sample_of_weight_0_leaves_a_shared_variance_alone():
    input, target, generator = batch((4, 3))
    var = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.ones(4, 3, dtype=torch.float64)
    weight[1] = 0
    spoiled = var.clone()
    spoiled[1] = math.nan
    spoiled.requires_grad_()
    value = lossmith.gaussian_nll_loss(input, target, spoiled, sample_weight=weight)
    value.backward()
    keep = torch.tensor([0, 2, 3])
    torch.testing.assert_close(value, F.gaussian_nll_loss(input[keep], target[keep], var[keep]))
    assert spoiled.grad[1] == 0
    assert spoiled.grad[keep].ne(0).all()


def test_a_collapsed_variance_has_the_gradient_of_torch():
    input, target = torch.tensor([2.0]), torch.tensor([0.0])
    ours, theirs = (torch.tensor([1e-9], requires_grad=True) for _ in range(2))
    lossmith.gaussian_nll_loss(input, target, ours).backward()
    F.gaussian_nll_loss(input, target, theirs).backward()
    assert ours.grad.item() < 0  # gradient descent makes it larger
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_eps_0_wants_a_positive_spread():
    one = torch.ones(2)
    with pytest.raises(ValueError, match=r"var must be > 0 if eps is 0, got 0\.0"):
        lossmith.gaussian_nll_loss(one, one, torch.tensor([1.0, 0.0]), eps=0.0)
    assert lossmith.gaussian_nll_loss(one, one, one, eps=0.0) == 0


def test_laplace_is_the_whole_density():
    input, target, generator = batch()
    scale = torch.rand(4, 3, 1, generator=generator, dtype=torch.float64) + 0.1
    value = lossmith.laplace_nll_loss(input, target, scale, reduction="none")
    density = torch.distributions.Laplace(input, scale)
    torch.testing.assert_close(value, -density.log_prob(target))
