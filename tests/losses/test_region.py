"""What the contract cannot know of region losses: ignored positions, empty masks, limits."""

import itertools
import math

import pytest
import torch

import lossmith as lm

BY_CLASS = (
    lm.dice_loss,
    lm.jaccard_loss,
    lm.tversky_loss,
    lm.focal_tversky_loss,
    lm.lovasz_softmax_loss,
)
BY_MASK = (
    lm.binary_dice_loss,
    lm.binary_jaccard_loss,
    lm.binary_tversky_loss,
    lm.binary_focal_tversky_loss,
)
SMOOTHED = (*BY_CLASS[:-1], *BY_MASK)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("loss", BY_CLASS)
@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
def test_ignored_positions_are_as_if_they_were_not_there(loss, ignore_index):
    logits = draw(2, 3, 6)
    label = torch.tensor([[0, 2, 2, 0, 2, 0], [2, 0, 2, 2, 0, 0]])
    kept = [0, 2, 3, 5]
    few = logits[:, :, kept].clone().requires_grad_()
    expected = loss(few, label[:, kept], ignore_index=ignore_index, reduction="none")
    label[:, [1, 4]] = ignore_index
    logits[:, :, [1, 4]] = math.nan
    logits.requires_grad_()
    found = loss(logits, label, ignore_index=ignore_index, reduction="none")
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(logits.grad[:, :, kept], few.grad)
    assert (logits.grad[:, :, [1, 4]] == 0).all()


@pytest.mark.parametrize("loss", BY_CLASS)
def test_a_label_that_is_neither_class_nor_ignored_is_refused(loss):
    label = torch.tensor([[0, 255, 1]])
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 2\], got 255"):
        loss(draw(1, 3, 3), label)
    with pytest.raises(ValueError, match="got -100"):
        loss(draw(1, 3, 3), torch.tensor([[0, 255, -100]]), ignore_index=255)


@pytest.mark.parametrize("loss", BY_CLASS)
def test_one_class_is_refused(loss):
    with pytest.raises(ValueError, match="input must have two or more classes"):
        loss(draw(2, 1, 5), torch.zeros(2, 5, dtype=torch.long))


@pytest.mark.parametrize("loss", BY_CLASS[:-1])
def test_label_map_equals_its_one_hot_form(loss):
    logits, label = draw(2, 3, 4, 5), torch.arange(40).reshape(2, 4, 5) % 3
    dense = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).double()
    torch.testing.assert_close(loss(logits, label), loss(logits, dense))
    torch.testing.assert_close(loss(logits, label), loss(logits, label.to(torch.uint8)))


@pytest.mark.parametrize("loss", BY_MASK)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_empty_prediction_of_an_empty_mask_is_perfect(loss, smooth):
    logits = torch.full((2, 4), -math.inf, requires_grad=True)
    value = loss(logits, torch.zeros(2, 4), smooth=smooth, reduction="none")
    value.sum().backward()
    assert (value == 0).all()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", BY_CLASS[:-1])
def test_faint_prediction_of_an_absent_class_has_a_finite_gradient(loss):
    logits = torch.tensor([[[0.0, 0.0], [-100.0, -100.0]]], requires_grad=True)
    assert 0 < logits.softmax(1)[0, 1, 0] < 1e-40  # too small to divide by
    value = loss(logits, torch.zeros(1, 2, dtype=torch.long), smooth=0.0)
    value.backward()
    assert value < 1e-30
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", BY_MASK)
def test_an_empty_mask_pushes_predictions_down_unless_smooth_is_zero(loss):
    for smooth, pushes in ((1.0, True), (0.0, False)):
        logits = torch.zeros(1, 4, requires_grad=True)
        loss(logits, torch.zeros(1, 4), smooth=smooth).backward()
        assert bool((logits.grad > 0).all()) is pushes


@pytest.mark.parametrize("loss", [*BY_MASK, lm.lovasz_hinge_loss])
def test_minus_infinity_outside_the_mask_counts_nowhere(loss):
    logits, mask = draw(2, 5), torch.tensor([[1.0, 0, 0, 1, 0], [0.0, 1, 0, 0, 1]])
    padded = torch.cat([logits, torch.full((2, 3), -math.inf)], 1)
    target = torch.cat([mask, torch.zeros(2, 3)], 1).double()
    torch.testing.assert_close(loss(padded, target), loss(logits, mask.double()))


@pytest.mark.parametrize("loss", [*BY_MASK, lm.lovasz_hinge_loss])
def test_masks_of_any_dtype_are_taken(loss):
    logits, mask = draw(2, 5), torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]])
    expected = loss(logits, mask.double())
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16):
        torch.testing.assert_close(loss(logits, mask.to(dtype)), expected)


@pytest.mark.parametrize("loss", SMOOTHED)
def test_nearly_perfect_prediction_keeps_its_digits_in_float32(loss):
    label = torch.tensor([[0, 1, 1, 0]])
    if loss in BY_MASK:
        logits = 20.0 * (2 * label - 1)
    else:
        logits = 20.0 * torch.stack([1 - label, label], 1)
    exact = loss(logits.double(), label)
    assert 0 < exact < 1e-5
    torch.testing.assert_close(loss(logits, label).double(), exact, rtol=1e-5, atol=0)


def test_tversky_has_dice_and_jaccard_as_members():
    logits, label = draw(2, 3, 7), torch.arange(14).reshape(2, 7) % 3
    half = lm.tversky_loss(logits, label, alpha=0.5, beta=0.5, smooth=1.0)
    torch.testing.assert_close(half, lm.dice_loss(logits, label, smooth=2.0))
    full = lm.tversky_loss(logits, label, alpha=1.0, beta=1.0, smooth=1.0)
    torch.testing.assert_close(full, lm.jaccard_loss(logits, label, smooth=1.0))
    flat = lm.focal_tversky_loss(logits, label, gamma=1.0)
    torch.testing.assert_close(flat, lm.tversky_loss(logits, label))


def test_a_miss_costs_more_than_a_false_alarm_by_default():
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    missed = torch.tensor([[50.0, -50.0, -50.0, -50.0]])
    alarmed = torch.tensor([[50.0, 50.0, 50.0, -50.0]])
    for loss in (lm.binary_tversky_loss, lm.binary_focal_tversky_loss):
        assert loss(missed, mask) > loss(alarmed, mask)


def test_lovasz_hinge_equals_the_jaccard_distance_of_hard_predictions():
    for mask, wrong in itertools.product(itertools.product([0, 1], repeat=4), repeat=2):
        target, error = torch.tensor([mask]), torch.tensor([wrong])
        logits = (1.0 - error) * (2 * target - 1)  # hinge error 0 where right, 1 where wrong
        found = lm.lovasz_hinge_loss(logits, target)
        missed = (target * error).sum()
        union = (target | error).sum()
        expected = 1 - (target.sum() - missed) / union if union else torch.tensor(0.0)
        torch.testing.assert_close(found, expected)


def test_lovasz_softmax_takes_present_classes_only():
    logits = draw(1, 4, 5)
    label = torch.tensor([[2, 2, 2, 2, 2]])
    one = 1 - logits.softmax(1)[:, 2]
    torch.testing.assert_close(lm.lovasz_softmax_loss(logits, label), one.mean())


def test_an_image_without_labels_costs_nothing():
    logits = draw(1, 4, 5).requires_grad_()
    value = lm.lovasz_softmax_loss(logits, torch.full((1, 5), -100))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_smooth_may_be_a_tensor(size):
    """Its value is then looked at by nobody: a transform or a graph could not."""
    logits, label = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    smooth = torch.tensor([0.5, 1.0]) * size
    found = torch.func.vmap(lambda s: lm.dice_loss(logits, label, smooth=s))(smooth)
    each = [lm.dice_loss(logits, label, smooth=s) for s in smooth.tolist()]
    torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.parametrize("smooth", [1e-39, 1.2e-38, 1e-37])
def test_smooth_around_the_smallest_normal_number(smooth):
    """Nothing predicted and nothing there, in logits of which float32 has no probability."""
    logits = torch.tensor([[[0.0, 0.0], [-200.0, -200.0]]], requires_grad=True)
    value = lm.dice_loss(logits, torch.zeros(1, 2, dtype=torch.long), smooth=smooth)
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("side", [5, 150])
def test_masks_may_be_stored_in_what_torch_hardly_computes_with(kind: torch.dtype, side) -> None:
    """Small ones, and those that go to an engine."""
    logits = draw(2, 3, side, side).float()
    classes = torch.arange(2 * side * side).view(2, side, side) % 3
    assert lm.dice_loss(logits, classes.to(kind)) == lm.dice_loss(logits, classes)
    marks = classes > 1
    assert lm.binary_dice_loss(logits[:, 0], marks.to(kind)) == lm.binary_dice_loss(
        logits[:, 0], marks
    )
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 2\], got 3"):
        lm.dice_loss(logits, (classes + 1).to(kind))
