"""Losses of labelled batches: a crowd against the oracles, and the batches that break others."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lossmith as lm

ORACLES = Path(__file__).parents[1] / "oracles"
TRIPLETS = (lm.batch_all_triplet_loss, lm.semi_hard_triplet_loss, lm.batch_hard_triplet_loss)
LOSSES = (lm.supcon_loss, lm.multi_similarity_loss, *TRIPLETS)
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
triplets = pytest.mark.parametrize("loss", TRIPLETS, ids=lambda loss: loss.__name__)


def batch(count: int = 17, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return embedding, torch.randint(classes, (count,), generator=generator)


@every
@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_agrees_with_the_oracle(loss, seed: int) -> None:
    embedding, target = batch(seed=seed)
    oracle = runpy.run_path(str(ORACLES / f"{loss.__name__}.py"))[loss.__name__]
    expected = [float(value) for value in oracle(embedding.tolist(), target.tolist())]
    found = loss(embedding, target, reduction="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@triplets
def test_equal_distances_agree_with_the_oracle(loss) -> None:
    """Points on a grid: many distances are equal, some of a positive and a negative."""
    embedding = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 2)
    target = torch.arange(16) % 3
    oracle = runpy.run_path(str(ORACLES / f"{loss.__name__}.py"))[loss.__name__]
    for options in ({"squared": True}, {"squared": True, "margin": 3.0}):
        expected = [
            float(value) for value in oracle(embedding.tolist(), target.tolist(), **options)
        ]
        found = loss(embedding, target, reduction="none", **options)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_mean_of_triplets_counts_the_active_ones() -> None:
    """By hand: of anchor 0 (positive at 2), the negatives at 2.5 and 9; its hinge is 0.5 and 0."""
    embedding, target = torch.tensor([[0.0], [2.0], [2.5], [9.0]]), torch.tensor([7, 7, 3, 3])
    # hinges 0.5, 0 | 2.5, 0 | 5, 7 | 0, 0.5 of the four anchors
    assert lm.batch_all_triplet_loss(embedding, target).item() == pytest.approx(15.5 / 5)
    mean = lm.batch_all_triplet_loss(embedding, target, active_only=False)
    assert mean.item() == pytest.approx(15.5 / 8)
    weight = torch.tensor([1.0, 2.0, 1.0, 3.0])
    weighted = lm.batch_all_triplet_loss(embedding, target, sample_weight=weight)
    assert weighted.item() == pytest.approx((0.5 + 2 * 2.5 + 12 + 3 * 0.5) / (1 + 2 + 2 + 3))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_hinge_of_zero_is_not_active(order: list[int]) -> None:
    """A negative exactly a margin farther than the positive costs nothing, and counts as none."""
    embedding, target = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 0, 1])
    value = lm.batch_all_triplet_loss(embedding[order], target[order], margin=1.0)
    assert value.item() == 1.0  # of anchor 1 alone: 1 - 1 + 1


def test_semi_hard_negative_is_strictly_farther() -> None:
    embedding, target = torch.tensor([[0.0], [1.0], [-1.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    value = lm.semi_hard_triplet_loss(embedding, target, margin=3.0, reduction="none")
    assert value[0].item() == 1.0  # 1 - 3 + 3, not 1 - 1 + 3


def test_supcon_of_pairs_is_nt_xent() -> None:
    views, _ = batch(12)
    found = lm.supcon_loss(views, torch.arange(6).repeat(2), temperature=0.5)
    torch.testing.assert_close(found, lm.nt_xent_loss(views[:6], views[6:], temperature=0.5))


@every
@pytest.mark.parametrize("labels", [[5], [1, 2, 3, 4], [1, 1, 1, 1], [-3, -3, 10**12, 7]], ids=str)
def test_batches_without_pairs_of_both_kinds_are_finite(loss, labels: list[int]) -> None:
    embedding = torch.randn(len(labels), 3, requires_grad=True)
    value = loss(embedding, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(value, embedding)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if len(set(labels)) == len(labels) and loss is not lm.multi_similarity_loss:
        assert value == 0
        assert (gradient == 0).all()


@every
def test_anchors_without_partner_do_not_dilute_the_mean(loss) -> None:
    embedding, _ = batch(5)
    target = torch.tensor([0, 0, 1, 1, 2])
    each = loss(embedding, target, reduction="none")
    if loss is lm.multi_similarity_loss:  # the paper divides by the size of the batch
        torch.testing.assert_close(loss(embedding, target), each.mean())
    elif loss is not lm.batch_all_triplet_loss:
        torch.testing.assert_close(loss(embedding, target), each[:4].mean())
    assert each[4] == 0


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_duplicates_and_zero_vectors_have_finite_gradients(loss, dtype: torch.dtype) -> None:
    embedding = torch.tensor([[1.0, 2.0, 3.0]] * 3 + [[0.0] * 3] * 2, dtype=dtype)
    embedding.requires_grad_()
    value = loss(embedding, torch.tensor([0, 0, 1, 1, 0]))
    (gradient,) = torch.autograd.grad(value, embedding)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every
def test_labels_are_mere_names(loss) -> None:
    embedding, target = batch()
    expected = loss(embedding, target)
    names = torch.tensor([-5, 10**15, 0, 77])[target]
    assert loss(embedding, names) == expected
    assert loss(embedding, target.to(torch.int8)) == expected
    with pytest.raises(TypeError, match="target must be of an integer or bool dtype"):
        loss(embedding, target.double())


@triplets
def test_distances_far_from_the_origin_keep_their_digits(loss) -> None:
    """In float32 at 1000, products alone would have an error of 0.1."""
    embedding, target = batch(40)
    embedding = embedding.float()
    near = loss(embedding, target)
    torch.testing.assert_close(loss(embedding + 1000, target), near, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e6])
def test_extreme_temperatures_are_finite(temperature: float) -> None:
    embedding, target = batch()
    embedding = embedding.float().requires_grad_()
    for value in (
        lm.supcon_loss(embedding, target, temperature=temperature),
        lm.info_nce_loss(embedding, embedding.flip(0), temperature=temperature, symmetric=True),
        lm.nt_xent_loss(embedding, embedding.flip(0), temperature=temperature),
        lm.siglip_loss(embedding, embedding.flip(0), temperature=temperature),
    ):
        assert value.isfinite()
        assert torch.autograd.grad(value, embedding)[0].isfinite().all()


def test_mmd_of_equal_samples_is_zero_and_never_below() -> None:
    for seed in range(20):
        sample = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
        value = lm.mmd_loss(sample, sample[torch.randperm(9)])
        assert 0 <= value < 1e-6


def test_unbiased_mmd_wants_two_points_each() -> None:
    one, two = torch.zeros(1, 3), torch.ones(2, 3)
    with pytest.raises(ValueError, match="input must have 2 rows or more, got 1"):
        lm.mmd_loss(one, two, unbiased=True)
    with pytest.raises(ValueError, match="target must have 1 rows or more, got 0"):
        lm.mmd_loss(one, two[:0])


def test_mmd_bandwidth_may_learn() -> None:
    x, y = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    bandwidth = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: lm.mmd_loss(x, y + 1, bandwidth=b), (bandwidth,))


def test_unbiased_mmd_has_the_digits_of_its_dtype() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 12))

    def likeness(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (-torch.cdist(first, second).square() / 2).exp()

    within = sum((likeness(x, x).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (one, other))
    expected = within - 2 * likeness(one, other).mean()
    found = lm.mmd_loss(one, other, unbiased=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(
    "loss", [lm.batch_all_triplet_loss, lm.batch_hard_triplet_loss, lm.semi_hard_triplet_loss]
)
def test_one_outlier_leaves_the_other_distances_their_digits(loss, squared) -> None:
    """Products of float32 vectors round at the size of the largest."""
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    x[0] = 1e5
    target = torch.arange(12) % 4
    options = {"squared": squared, "reduction": "none"}
    for rows in (x, torch.cat([x] * 50)):  # at once, and in stripes
        labels = target.repeat(len(rows) // 12)
        found, expected = loss(rows, labels, **options), loss(rows.double(), labels, **options)
        near = torch.arange(len(rows)) % 4 != 0  # the outlier is a sample of class 0
        torch.testing.assert_close(found[near].double(), expected[near], rtol=2e-5, atol=2e-2)


def test_near_duplicates_are_pulled_together() -> None:
    x = torch.tensor([[1, 0], [1, 1e-6], [-1, 0], [0, 5]])
    slopes = []
    for leaf in (x.clone().requires_grad_(), x.double().requires_grad_()):
        value = lm.batch_hard_triplet_loss(leaf, torch.tensor([0, 0, 1, 1]), margin=8.0)
        slopes.append(torch.autograd.grad(value, leaf)[0].double())
    # Across they tie in float32: the third sample is as far from both.
    assert slopes[1][:2, 1].abs().min() > 0.5
    torch.testing.assert_close(slopes[0][:2, 1], slopes[1][:2, 1], rtol=1e-5, atol=0)


def test_distances_whose_squares_overflow_are_finite() -> None:
    x = torch.tensor([[1e20, 0], [0, 1e20], [3e20, 0], [0, 2e20]])
    target = torch.tensor([0, 0, 1, 1])
    for loss in (lm.batch_all_triplet_loss, lm.batch_hard_triplet_loss, lm.semi_hard_triplet_loss):
        found, expected = loss(x, target), loss(x.double(), target)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
