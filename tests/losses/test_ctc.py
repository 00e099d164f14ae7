"""What is special about CTC: alignments by brute force, torch's conventions, impossible targets."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

import lossmith as lm


def _collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


@pytest.mark.parametrize("labels", [(), (1,), (1, 1), (2, 1), (1, 2, 1)])
@pytest.mark.parametrize("blank", [0, 2])
def test_loss_is_the_sum_over_all_paths(labels: tuple[int, ...], blank: int) -> None:
    if blank in labels:
        labels = tuple(0 if symbol == blank else symbol for symbol in labels)
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(5, 1, 3, generator=generator, dtype=torch.float64).log_softmax(2)
    probability = sum(
        math.exp(sum(log_probs[t, 0, symbol].item() for t, symbol in enumerate(path)))
        for path in itertools.product(range(3), repeat=5)
        if _collapse(path, blank) == labels
    )
    targets = torch.tensor([[*labels, blank, blank]])  # anything may stand behind the end
    found = lm.ctc_loss(
        log_probs, targets, torch.tensor([5]), torch.tensor([len(labels)]), blank=blank,
        reduction="sum",
    )  # fmt: skip
    assert found.item() == pytest.approx(-math.log(probability), rel=1e-12)


def _batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 16, 20, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, 20, (16, 30), generator=generator)
    input_lengths = torch.full((16,), 50)
    target_lengths = torch.randint(10, 20, (16,), generator=generator)
    return logits, targets, input_lengths, target_lengths


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_value_and_gradient_by_the_logits_are_those_of_torch(reduction: str) -> None:
    logits, *rest = _batch()
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    left = lm.ctc_loss(ours.log_softmax(2), *rest, reduction=reduction)
    right = F.ctc_loss(theirs.log_softmax(2), *rest, reduction=reduction)
    torch.testing.assert_close(left, right)
    left.sum().backward()
    right.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    again = lm.ctc_with_logits_loss(logits, *rest, reduction=reduction)
    torch.testing.assert_close(again, right.detach())


def test_targets_end_to_end_and_lengths_as_tuples() -> None:
    logits, targets, input_lengths, target_lengths = _batch()
    log_probs = logits.log_softmax(2)
    joined = torch.cat([row[:n] for row, n in zip(targets, target_lengths.tolist(), strict=True)])
    steps, symbols = tuple(input_lengths.tolist()), tuple(target_lengths.tolist())
    expected = lm.ctc_loss(log_probs, targets, input_lengths, target_lengths)
    torch.testing.assert_close(lm.ctc_loss(log_probs, joined, steps, symbols), expected)
    with pytest.raises(ValueError, match=r"targets must hold \d+ symbols"):
        lm.ctc_loss(log_probs, joined[:-1], steps, symbols)


def test_impossible_target_is_infinite_or_zero_and_has_no_gradient() -> None:
    log_probs = torch.zeros(2, 2, 3).log_softmax(2).requires_grad_()
    targets, steps = torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2])
    arguments = (log_probs, targets, steps, torch.tensor([2, 2]))
    value = lm.ctc_loss(*arguments, reduction="none")
    assert value[0].isinf()
    assert value[1].isfinite()
    zeroed = lm.ctc_loss(*arguments, reduction="none", zero_infinity=True)
    assert zeroed[0].item() == 0
    (gradient,) = torch.autograd.grad(zeroed.sum(), log_probs)
    assert gradient.isfinite().all()
    assert (gradient[:, 0] == 0).all()
    assert (gradient[:, 1] != 0).any()


def test_impossible_symbols_leave_the_others_finite() -> None:
    log_probs = torch.zeros(3, 1, 3).log_softmax(2)
    log_probs[:, :, 2] = -math.inf
    log_probs.requires_grad_()
    value = lm.ctc_loss(log_probs, torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(value, log_probs)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("symbols", "steps", "count", "message"),
    [
        ([[9]], 4, 1, r"targets must be a class index in \[0, 2\], got 9"),
        ([[0]], 4, 1, r"targets must differ from the blank 0, got 0"),
        ([[1]], 5, 1, r"input_lengths must lie in \[0, 4\], got 5"),
        ([[1]], 4, 2, r"target_lengths must lie in \[0, 1\], got 2"),
        ([[1]], -1, 1, r"input_lengths must lie in \[0, 4\], got -1"),
    ],
)
def test_bad_symbols_and_lengths_are_refused(symbols, steps, count, message) -> None:
    log_probs = torch.zeros(4, 1, 3).log_softmax(2)
    with pytest.raises(ValueError, match=message):
        lm.ctc_loss(log_probs, torch.tensor(symbols), torch.tensor([steps]), torch.tensor([count]))


def test_blank_must_be_a_class() -> None:
    log_probs = torch.zeros(4, 1, 3).log_softmax(2)
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"blank must be a class index in \[0, 2\], got 3"):
        lm.ctc_loss(log_probs, torch.tensor([[1]]), one, one, blank=3)


@pytest.mark.parametrize("shape", [(2, 0), (2, 3), (0,)], ids=str)
def test_targets_without_symbols_leave_the_path_of_blanks(shape: tuple[int, ...]) -> None:
    log_probs = torch.randn(5, 2, 4).log_softmax(2).requires_grad_()
    targets, none = torch.zeros(shape, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    value = lm.ctc_loss(log_probs, targets, (5, 4), none, reduction="none")
    blanks = log_probs.detach()[:, :, 0]
    torch.testing.assert_close(value, -torch.stack([blanks[:, 0].sum(), blanks[:4, 1].sum()]))
    (gradient,) = torch.autograd.grad(value.sum(), log_probs)
    expected = torch.zeros(5, 2, 4)
    expected[:, 0, 0], expected[:4, 1, 0] = -1, -1
    torch.testing.assert_close(gradient, expected)


def test_batch_without_samples_is_zero() -> None:
    empty = torch.zeros(0, dtype=torch.long)
    assert lm.ctc_loss(torch.zeros(5, 0, 4), empty, empty, empty) == 0


def test_one_sequence_takes_lengths_of_shape_one_as_torch_does() -> None:
    log_probs, targets = torch.randn(5, 4).log_softmax(1), torch.tensor([1, 2])
    expected = torch.nn.functional.ctc_loss(log_probs, targets, (5,), (2,))
    for steps, count in (((5,), (2,)), (5, 2), (torch.tensor([5]), torch.tensor([2]))):
        torch.testing.assert_close(lm.ctc_loss(log_probs, targets, steps, count), expected)
        torch.testing.assert_close(
            lm.ctc_with_logits_loss(log_probs, targets, steps, count), expected
        )


@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_no_steps_at_all_still_have_a_gradient(loss) -> None:
    scores = torch.randn(0, 2, 3, requires_grad=True)
    value = loss(scores, torch.ones(2, 2).long(), (0, 0), (0, 0))
    value.backward()
    assert value.item() == 0.0
    assert scores.grad.shape == (0, 2, 3)


def test_no_samples_have_no_lengths() -> None:
    targets = torch.ones(0, 2, dtype=torch.long)
    assert lm.ctc_loss(torch.randn(4, 0, 3), targets, (), (), reduction="none").shape == (0,)
    assert lm.rnnt_loss(torch.randn(0, 3, 3, 4), targets, (), (), reduction="none").shape == (0,)
    table = torch.zeros(4, 4)
    assert lm.crf_loss(torch.randn(0, 2, 4), targets, (), table, reduction="none").shape == (0,)
