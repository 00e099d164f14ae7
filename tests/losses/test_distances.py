"""Losses on distances and pairs of scores: the ends of the range, and their fast path."""

import itertools
import math

import pytest
import torch

import lossmith as lm
from lossmith.engines import pull


def rows(count: int, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 7, width, generator=generator, dtype=torch.float64)


SIGNS = torch.tensor([1, -1, 1, -1, -1, 1, 1])


def triplet(*tensors: torch.Tensor) -> torch.Tensor:
    return lm.triplet_margin_loss(*tensors, margin=1.5)


def cosine(*tensors: torch.Tensor) -> torch.Tensor:
    return lm.cosine_embedding_loss(*tensors, SIGNS, margin=-0.2)


def hinge(distances: torch.Tensor) -> torch.Tensor:
    return lm.hinge_embedding_loss(distances, SIGNS.unsqueeze(1).expand_as(distances), margin=0.5)


def ranking(*scores: torch.Tensor) -> torch.Tensor:
    signs = SIGNS.unsqueeze(1).expand_as(scores[0])
    return lm.margin_ranking_loss(*scores, signs, margin=0.5)


@pytest.mark.parametrize(("loss", "count"), [(triplet, 3), (cosine, 2), (hinge, 1), (ranking, 2)])
def test_fast_path_equals_the_plain_function(
    loss: object, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every set of arguments that want a gradient; the plain one runs under ``vmap``."""
    served: list[int] = []
    ordinary = pull._Known.apply
    monkeypatch.setattr(pull._Known, "apply", lambda *given: served.append(1) or ordinary(*given))
    for wanted in itertools.product((False, True), repeat=count):
        wide = rows(count, 3000)  # torch serves small ones
        leaves = [t.clone().requires_grad_(w) for t, w in zip(wide, wanted, strict=True)]
        value = loss(*leaves)
        assert len(served) == 1, "the fast path did not serve"
        served.clear()
        expected = torch.vmap(loss)(*(leaf.unsqueeze(0) for leaf in leaves)).squeeze(0)
        assert not served, "the plain function did not serve"
        torch.testing.assert_close(value, expected)
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        if asked:
            found = torch.autograd.grad(value, asked)
            torch.testing.assert_close(found, torch.autograd.grad(expected, asked))


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-7, 1.0, 1e18, 1e30])
def test_direction_does_not_depend_on_scale(scale: float) -> None:
    first, second = rows(2).float()
    expected = lm.cosine_embedding_loss(first, second, SIGNS, reduction="none")
    left = (first * scale).requires_grad_()
    found = lm.cosine_embedding_loss(left, second * scale, SIGNS, reduction="none")
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), left)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


def test_identical_tiny_vectors_are_identical() -> None:
    tiny = torch.full((1, 3), 1e-7, requires_grad=True)
    value = lm.cosine_embedding_loss(tiny, tiny.detach().clone(), torch.tensor([1]))
    assert value == 0
    (gradient,) = torch.autograd.grad(value, tiny)
    assert (gradient == 0).all()


def test_nearly_identical_vectors_keep_their_digits() -> None:
    """1 - cos(1e-4) is 5e-9, far below the last digit of 1 in float32."""
    first = torch.tensor([[1.0, 0.0]])
    second = torch.tensor([[1.0, 1e-4]])
    value = lm.cosine_embedding_loss(first, second, torch.tensor([1]))
    assert value.item() == pytest.approx(1 - math.cos(math.atan(1e-4)), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_reach_large_vectors(dtype: torch.dtype) -> None:
    large = torch.full((1, 300), 300.0, dtype=dtype)
    assert lm.cosine_embedding_loss(large, large, torch.tensor([1])) == 0
    assert lm.cosine_embedding_loss(large, large, torch.tensor([-1])) == 1


def test_zero_vector_has_no_direction() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    other = torch.ones(2, 3, requires_grad=True)
    value = lm.cosine_embedding_loss(zero, other, torch.tensor([1, -1]), reduction="none")
    assert value.tolist() == [1, 0]
    for gradient in torch.autograd.grad(value.sum(), (zero, other)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e18, 1e25, 1e37])
def test_triplet_distances_neither_vanish_nor_overflow(scale: float) -> None:
    """By hand: distances 5 and 3 at that scale."""
    anchor = torch.zeros(1, 2, requires_grad=True)
    near, far = torch.tensor([[3.0, 4.0]]) * scale, torch.tensor([[3.0, 0.0]]) * scale
    value = lm.triplet_margin_loss(anchor, near, far, margin=scale, eps=0.0)
    assert value.item() == pytest.approx(3 * scale, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, anchor)
    torch.testing.assert_close(gradient, torch.tensor([[0.4, -0.8]]))


def test_triplet_at_zero_distance_has_a_finite_gradient() -> None:
    same = torch.ones(2, 3, requires_grad=True)
    value = lm.triplet_margin_loss(same, same, same, eps=0.0)
    assert value == 1
    (gradient,) = torch.autograd.grad(value, same)
    assert (gradient == 0).all()


def test_distance_function_sees_any_shape_and_is_checked() -> None:
    def largest(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().amax((1, 2, 3))

    images = torch.zeros(2, 1, 4, 4)
    loss = lm.TripletMarginWithDistanceLoss(distance_function=largest, reduction="none")
    assert loss(images, images + 1, images + 0.5).tolist() == [1.5, 1.5]
    with pytest.raises(ValueError, match=r"anchor \(N, D\)"):
        lm.triplet_margin_with_distance_loss(images, images, images)
    with pytest.raises(
        ValueError, match=r"distance_function must return distances of shape \(2,\)"
    ):
        lm.triplet_margin_with_distance_loss(
            images, images, images, distance_function=lambda x, y: (x - y).abs().amax(1)
        )
    with pytest.raises(TypeError, match="distance_function must be callable or None, got int"):
        lm.TripletMarginWithDistanceLoss(distance_function=3)  # type: ignore[arg-type]
