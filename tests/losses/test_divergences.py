"""Divergences and entropies: the spaces agree, equality keeps its digits, exclusion is no NaN."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn import functional as F

import lossmith

INF = math.inf


def logits(seed, shape=(5, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 2


def test_every_space_gives_one_divergence():
    x, y = logits(1), logits(2)
    p, q = x.softmax(1), y.softmax(1)
    expected = (q * (q / p).log()).sum() / 5
    for value in (
        lossmith.kl_div(x.log_softmax(1), q, reduction="batchmean"),
        lossmith.kl_div(x.log_softmax(1), y.log_softmax(1), log_target=True, reduction="batchmean"),
        lossmith.kl_div_from_probabilities_loss(p, q),
        lossmith.kl_div_with_logits_loss(x, q),
        lossmith.kl_div_from_logits_loss(x, y),
    ):
        torch.testing.assert_close(value, expected)


def test_divergence_is_cross_entropy_less_entropy():
    x, y = logits(3), logits(4)
    cross = F.cross_entropy(x, y.softmax(1))
    torch.testing.assert_close(lossmith.kl_div_from_logits_loss(x, y), cross - lossmith.entropy(y))


def test_gradient_by_the_logits_is_the_difference_of_the_probabilities():
    x, y = logits(5).requires_grad_(), logits(6)
    lossmith.kl_div_from_logits_loss(x, y, reduction="sum").backward()
    torch.testing.assert_close(x.grad, x.detach().softmax(1) - y.softmax(1))


@pytest.mark.parametrize(
    "divergence", [lossmith.kl_div_from_logits_loss, lossmith.kl_div_with_logits_loss]
)
def test_near_equality_keeps_its_digits(divergence):
    y = logits(7)
    x = y + 1e-4 * logits(8)
    target = (lambda t: t.softmax(1)) if "with" in divergence.__name__ else (lambda t: t)
    exact = lossmith.kl_div_from_logits_loss(x.float().double(), y.float().double())
    assert 1e-9 < exact.item() < 1e-7  # a plain sum of float32 terms near 1 has an error of 1e-7
    value = divergence(x.float(), target(y.float()))
    assert abs(value.item() - exact.item()) < 0.01 * exact.item()


def test_excluded_classes_add_nothing():
    x = torch.tensor([[1.0, 2.0, -INF]]).requires_grad_()
    y = torch.tensor([[0.5, 0.0, -INF]]).requires_grad_()
    value = lossmith.kl_div_from_logits_loss(x, y)
    value.backward()
    pair = lossmith.kl_div_from_logits_loss(x.detach()[:, :2], y.detach()[:, :2])
    torch.testing.assert_close(value.detach(), pair)
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()
    lone = torch.tensor([[1.0, 2.0, -INF]]).requires_grad_()
    lossmith.entropy(lone).backward()
    assert lone.grad.isfinite().all()


def test_what_the_model_excludes_and_the_target_allows_is_infinite():
    model, wanted = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert lossmith.kl_div_from_probabilities_loss(model, wanted) == INF
    assert lossmith.kl_div(model.log(), wanted, reduction="batchmean") == INF
    torch.testing.assert_close(lossmith.js_div(model, wanted).item(), 0.2157615543388357)


def test_probabilities_of_0_have_a_finite_gradient():
    one = torch.tensor([[1.0, 0.0, 0.0]]).requires_grad_()
    other = torch.tensor([[0.0, 1.0, 0.0]]).requires_grad_()
    for divergence in (lossmith.js_div, lossmith.js_distance_loss):
        value = divergence(one, other)
        gradients = torch.autograd.grad(value, (one, other))
        assert all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(lossmith.js_div(one, other).item(), math.log(2))


def test_rows_that_do_not_add_up_to_1_still_have_their_minimum_at_the_target():
    target = torch.tensor([[0.3, 0.3, 0.2]])
    model = target.clone().requires_grad_()
    value = lossmith.kl_div_from_probabilities_loss(model, target)
    value.backward()
    assert value.item() == 0
    assert (model.grad == 0).all()
    assert lossmith.kl_div_from_probabilities_loss(0.5 * target, target) > 0


def test_batchmean_of_an_absent_row_is_that_without_it():
    x, q = logits(9).log_softmax(1), logits(10).softmax(1)
    weight = torch.ones_like(x)
    weight[1] = 0
    keep = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close(
        lossmith.kl_div(x, q, sample_weight=weight, reduction="batchmean"),
        F.kl_div(x[keep], q[keep], reduction="batchmean"),
    )


def test_distance_is_that_of_scipy_and_a_metric():
    p, q, r = (logits(seed).softmax(1) for seed in (11, 12, 13))
    distance = lossmith.js_distance_loss(p, q, reduction="none")
    expected = torch.from_numpy(jensenshannon(p.numpy(), q.numpy(), axis=1))
    torch.testing.assert_close(distance, expected)
    detour = lossmith.js_distance_loss(p, r, reduction="none") + lossmith.js_distance_loss(
        r, q, reduction="none"
    )
    assert (distance <= detour).all()


def test_distance_near_equality_keeps_its_digits():
    p = torch.tensor([[0.5, 0.5]])
    step = torch.tensor([[2.0**-16, -(2.0**-16)]])
    # the divergence of p and p + h is h' h / 8 p to first order
    expected = 2.0**-16 / math.sqrt(2)
    distance = lossmith.js_distance_loss(p, p + step).item()
    assert abs(distance - expected) < 1e-4 * expected


def test_entropy_has_one_name_per_space():
    x = logits(14)
    torch.testing.assert_close(
        lossmith.entropy(x), lossmith.entropy_from_probabilities_loss(x.softmax(1))
    )
    torch.testing.assert_close(
        lossmith.entropy(torch.zeros(7)).item(), math.log(7), rtol=1e-6, atol=0
    )
    with pytest.raises(ValueError, match=r"input must lie in \[0, 1\]"):
        lossmith.entropy_from_probabilities_loss(x)


@pytest.mark.parametrize("least", [3e-38, 1e-37, 1e-20])
def test_js_of_a_class_that_is_excluded_on_one_side(least):
    p, q = torch.tensor([[1.0, least]]), torch.tensor([[1.0, 0.0]])
    p.requires_grad_()
    (slope,) = torch.autograd.grad(lossmith.js_div(p, q), p)
    assert slope[0, 1].item() == pytest.approx(0.5 * math.log(2), rel=1e-5)
