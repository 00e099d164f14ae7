"""Each claim over torch, shown by a test that torch's own function fails.

Every test states the truth, shows that lossmith holds it, and shows that torch does not. If a
later torch mends one, the second half turns red: then drop the claim.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import lossmith as lm

IGNORED = torch.full((3,), -100)


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], input: torch.Tensor) -> torch.Tensor:
    leaf = input.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf).sum(), leaf)[0]


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_mean_over_ignored_samples_is_zero(name: str) -> None:
    logits = torch.zeros(3, 4)
    ours, torchs = getattr(lm, name), getattr(F, name)
    assert ours(logits, IGNORED).item() == 0
    assert (gradient(lambda x: ours(x, IGNORED), logits) == 0).all()
    assert torchs(logits, IGNORED).isnan()


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"])
def test_mean_over_an_empty_batch_is_zero(name: str) -> None:
    empty = torch.zeros(0)
    assert getattr(lm, name)(empty, empty).item() == 0
    assert getattr(F, name)(empty, empty).isnan()


def test_ignored_rows_of_nan_touch_no_gradient() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, -math.inf]])
    target = torch.tensor([1, -100])
    ours = gradient(lambda x: lm.cross_entropy(x, target), logits)
    torchs = gradient(lambda x: F.cross_entropy(x, target), logits)
    assert ours.isfinite().all()
    assert (ours[1] == 0).all()
    assert torchs.isnan().any()


def test_soft_margin_is_finite_at_a_large_wrong_margin() -> None:
    input, target = torch.tensor([-1e4]), torch.tensor([1.0])
    assert lm.soft_margin_loss(input, target).item() == pytest.approx(1e4)
    assert gradient(lambda x: lm.soft_margin_loss(x, target), input).item() == -1
    assert F.soft_margin_loss(input, target).isinf()


@pytest.mark.parametrize("logit", [-15.0, -1e4, 1e4])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_binary_cross_entropy_with_logits_keeps_its_digits(logit: float, label: float) -> None:
    input, target = torch.tensor([logit]), torch.tensor([label])
    margin = -logit if label == 1 else logit
    exact = max(margin, 0.0) + math.log1p(math.exp(-abs(margin)))
    pull = (1 / (1 + math.exp(min(-logit, 700)))) - label
    value = lm.binary_cross_entropy_with_logits(input, target).item()
    assert value == pytest.approx(exact, rel=1e-6)
    slope = gradient(lambda x: lm.binary_cross_entropy_with_logits(x, target), input).item()
    assert slope == pytest.approx(pull, rel=1e-5, abs=1e-37)


def test_torch_loses_the_likely_negative() -> None:
    input, target = torch.tensor([-15.0]), torch.tensor([0.0])
    assert F.binary_cross_entropy_with_logits(input, target).item() == 0
    assert lm.binary_cross_entropy_with_logits(input, target).item() == pytest.approx(
        3.059e-7, rel=1e-3
    )


def test_infinite_logits_on_the_right_side_cost_nothing() -> None:
    input, target = torch.tensor([math.inf, -math.inf]), torch.tensor([1.0, 0.0])
    assert lm.binary_cross_entropy_with_logits(input, target).item() == 0
    assert F.binary_cross_entropy_with_logits(input, target).isnan()


def test_masked_logit_of_probability_zero_costs_nothing() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]])
    target = torch.tensor([[0.0, 1.0, 0.0]])
    expected = math.log1p(math.exp(-1))
    assert lm.cross_entropy(logits, target).item() == pytest.approx(expected)
    assert gradient(lambda x: lm.cross_entropy(x, target), logits).isfinite().all()
    assert F.cross_entropy(logits, target).isnan()


def test_likely_class_keeps_its_digits() -> None:
    logits, target = torch.tensor([[20.0, 0.0]]), torch.tensor([0])
    assert lm.cross_entropy(logits, target).item() == pytest.approx(math.log1p(math.exp(-20)))
    assert F.cross_entropy(logits, target).item() == 0


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_column_against_row_is_refused(name: str) -> None:
    column, row = torch.zeros(3, 1), torch.zeros(3)
    with pytest.raises(ValueError, match=r"target must have the shape of input .*got"):
        getattr(lm, name)(column, row)
    assert getattr(F, name)(column, row).item() == 0  # torch broadcasts to (3, 3)


@pytest.mark.parametrize("name", ["soft_margin_loss", "hinge_embedding_loss"])
def test_zero_one_labels_are_refused_by_margin_losses(name: str) -> None:
    input, target = torch.tensor([0.5, -0.5]), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match=r"target must be -1 or 1, got 0.0"):
        getattr(lm, name)(input, target)
    assert getattr(F, name)(input, target).isfinite()


def test_weighted_mean_is_one_rule() -> None:
    input, target = torch.tensor([1.0, 3.0]), torch.zeros(2)
    weight = torch.tensor([1.0, 3.0])
    square = lm.mse_loss(input, target, sample_weight=weight).item()
    twice_huber = 2 * lm.huber_loss(input, target, delta=100.0, sample_weight=weight).item()
    assert square == twice_huber == 7.0
    torch_square = F.mse_loss(input, target, weight=weight).item()
    torch_huber = 2 * F.huber_loss(input, target, delta=100.0, weight=weight).item()
    assert torch_square != torch_huber


def test_triplet_derivatives_are_finite_at_zero_distance() -> None:
    point, other = torch.zeros(1, 3), torch.ones(1, 3)

    def first(function: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def pull(x: torch.Tensor) -> torch.Tensor:
            value = function(x, point, other, margin=5.0, eps=0.0)
            return torch.autograd.grad(value, x, create_graph=True)[0]

        return pull

    assert gradient(lambda x: lm.triplet_margin_loss(x, x, x, eps=0.0), point).isfinite().all()
    assert gradient(first(lm.triplet_margin_loss), point).isfinite().all()
    assert gradient(first(F.triplet_margin_loss), point).isnan().any()


def test_triplet_of_large_vectors_is_finite() -> None:
    far = torch.full((1, 3), 1e20)
    assert lm.triplet_margin_loss(far, -far, 0.5 * far).item() == pytest.approx(
        1.5e20 * math.sqrt(3), rel=1e-6
    )
    assert F.triplet_margin_loss(far, -far, 0.5 * far).isnan()


def test_cosine_of_tiny_identical_vectors_is_one() -> None:
    tiny, same = torch.full((1, 4), 1e-7), torch.ones(1)
    assert lm.cosine_embedding_loss(tiny, tiny, same).item() == pytest.approx(0, abs=1e-6)
    assert F.cosine_embedding_loss(tiny, tiny, same).item() > 0.9


def test_root_mean_square_has_a_gradient_at_zero() -> None:
    target = torch.ones(3)
    assert (gradient(lambda x: lm.rmse_loss(x, target), target) == 0).all()
    assert gradient(lambda x: F.mse_loss(x, target).sqrt(), target).isnan().all()


def test_kl_div_takes_zeros_on_both_sides() -> None:
    log_p = torch.tensor([[0.0, -math.inf]])
    q = torch.tensor([[1.0, 0.0]])
    assert lm.kl_div(log_p, q, reduction="sum").item() == 0
    assert gradient(lambda x: lm.kl_div(x, q, reduction="sum"), log_p).isfinite().all()
    assert F.kl_div(log_p, q, reduction="sum").isnan()


def test_label_smoothing_with_weights_and_ignored_rows_equals_the_definition() -> None:
    """In float64 by the definition; rows of garbage behind ``ignore_index`` break torch only."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 3, -100, 1, 2, -100])
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    epsilon, total, normaliser = 0.2, 0.0, 0.0
    for row, label in zip(logits, target.tolist(), strict=True):
        if label == -100:
            continue
        log_p = [x - math.log(sum(math.exp(v) for v in row.tolist())) for x in row.tolist()]
        total -= (1 - epsilon) * weight[label].item() * log_p[label]
        total -= epsilon / 4 * sum(w * lp for w, lp in zip(weight.tolist(), log_p, strict=True))
        normaliser += weight[label].item()
    options = {"weight": weight, "label_smoothing": epsilon}
    assert lm.cross_entropy(logits, target, **options).item() == pytest.approx(
        total / normaliser, rel=1e-13
    )
    logits[2] = -math.inf
    assert lm.cross_entropy(logits, target, **options).item() == pytest.approx(
        total / normaliser, rel=1e-13
    )
    assert gradient(lambda x: lm.cross_entropy(x, target, **options), logits).isfinite().all()
    assert gradient(lambda x: F.cross_entropy(x, target, **options), logits).isnan().any()


def test_float16_mean_over_many_rows_is_finite() -> None:
    logits = torch.zeros(131_072, 64, dtype=torch.float16)
    target = torch.zeros(131_072, dtype=torch.int64)
    assert lm.cross_entropy(logits, target).item() == pytest.approx(math.log(64), rel=1e-3)
    assert not F.cross_entropy(logits, target).isfinite()


def test_zero_total_class_weight_is_zero() -> None:
    logits, target = torch.zeros(2, 3), torch.tensor([0, 0])
    weight = torch.tensor([0.0, 1.0, 1.0])
    assert lm.cross_entropy(logits, target, weight=weight).item() == 0
    assert F.cross_entropy(logits, target, weight=weight).isnan()


def test_ctc_refuses_a_class_that_does_not_exist() -> None:
    log_probs = torch.randn(5, 1, 4).log_softmax(-1)
    with pytest.raises(ValueError, match=r"targets must .*got 9"):
        lm.ctc_loss(log_probs, torch.tensor([[9]]), torch.tensor([5]), torch.tensor([1]))
