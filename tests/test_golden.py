"""Values that course notes on losses print, or should have printed, each checked by hand."""

import pytest
import torch
from torch import tensor

import lossmith as lm

PX, PY = tensor([[0.1, 0.2, 0.8]]), tensor([[0.3, 0.3, 0.4]])
NORMALISED = PX / PX.sum()
INPUTS = tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
TARGETS = tensor([[0.9, 0.05, 0.05], [0.1, 0.7, 0.2]])


def close(found: torch.Tensor, expected: float | list, digits: int = 4) -> None:
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=0.5 * 10**-digits)


def test_mean_squared_error() -> None:
    close(lm.mse_loss(tensor([1.0, 2.0, 3.0]), tensor([1.0, 2.0, 4.0])), 0.3333)
    close(lm.mse_loss(tensor([1.0, 2.0]), tensor([0.0, 1.0])), 1.0)


def test_absolute_and_squared_error_of_ones_against_threes() -> None:
    ones, threes = torch.ones(2, 2), torch.full((2, 2), 3.0)
    close(lm.l1_loss(ones, threes, reduction="none"), [[2.0, 2.0], [2.0, 2.0]])
    close(lm.mse_loss(ones, threes, reduction="none"), [[4.0, 4.0], [4.0, 4.0]])


def test_kl_divergence_as_printed_reversed_and_normalised() -> None:
    close(lm.kl_div(PY.log(), PX, reduction="sum"), 0.36356, 5)
    close(lm.kl_div(PX.log(), PY, reduction="sum"), 0.17396, 5)
    close(lm.kl_div(PY.log(), NORMALISED, reduction="sum"), 0.23520, 5)


def test_cross_entropy_with_soft_targets_as_printed_and_normalised() -> None:
    # logits whose softmax is py are its logarithms, since py sums to 1
    close(lm.cross_entropy(PY.log(), PX), 1.09422, 5)
    close(lm.cross_entropy(PY.log(), NORMALISED), 0.99475, 5)
    close(lm.cross_entropy(NORMALISED.log(), NORMALISED), 0.75955, 5)  # the entropy


def test_kl_divergence_loss_of_two_rows() -> None:
    each = [[0.5290, -0.0896, -0.0693], [-0.0693, 0.5931, -0.1833]]
    close(lm.kl_div(INPUTS.log(), TARGETS, reduction="none"), each)
    close(lm.kl_div(INPUTS.log(), TARGETS, reduction="mean"), 0.11844, 5)
    close(lm.kl_div(INPUTS.log(), TARGETS, reduction="batchmean"), 0.35532, 5)
    close(lm.kl_div(INPUTS.log(), TARGETS, reduction="sum"), 0.71064, 5)


def test_margin_ranking() -> None:
    first, second = tensor([1.0, 2.0, 3.0]), tensor([2.0, 2.0, 2.0])
    found = lm.margin_ranking_loss(first, second, tensor([1.0, 1.0, -1.0]), reduction="none")
    close(found, [1.0, 0.0, 1.0])


def test_multilabel_margin() -> None:
    close(lm.multilabel_margin_loss(tensor([[0.1, 0.2, 0.4, 0.8]]), tensor([[3, 0, -1, 1]])), 0.85)


def test_soft_margin() -> None:
    found = lm.soft_margin_loss(
        tensor([[0.3, 0.7], [0.5, 0.5]]), tensor([[-1.0, 1.0], [1.0, -1.0]]), reduction="none"
    )
    close(found, [[0.8544, 0.4032], [0.4741, 0.9741]])


def test_multilabel_soft_margin() -> None:
    found = lm.multilabel_soft_margin_loss(tensor([[0.3, 0.7, 0.8]]), tensor([[0.0, 1.0, 1.0]]))
    close(found, 0.5429)


def test_multi_margin() -> None:
    scores = tensor([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    close(lm.multi_margin_loss(scores, tensor([1, 2]), reduction="none"), [0.8, 0.7])


def test_triplet_margin() -> None:
    anchor, positive, negative = tensor([[1.0]]), tensor([[2.0]]), tensor([[0.5]])
    close(lm.triplet_margin_loss(anchor, positive, negative, margin=1.0, p=1.0), 1.5)


def test_hinge_embedding() -> None:
    found = lm.hinge_embedding_loss(
        tensor([[1.0, 0.8, 0.5]]), tensor([[1.0, 1.0, -1.0]]), margin=1.0, reduction="none"
    )
    close(found, [[1.0, 0.8, 0.5]])


def test_cosine_embedding() -> None:
    left, right = tensor([[0.3, 0.5, 0.7]] * 2), tensor([[0.1, 0.3, 0.5]] * 2)
    found = lm.cosine_embedding_loss(left, right, tensor([1.0, -1.0]), reduction="none")
    close(found, [0.0167, 0.9833])


def test_mean_of_ctc_is_the_mean_of_the_losses_per_symbol() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(50, 16, 20, generator=generator).log_softmax(2)
    targets = torch.randint(1, 20, (16, 30), generator=generator)
    lengths = torch.randint(10, 30, (16,), generator=generator)
    steps = torch.full((16,), 50)
    each = lm.ctc_loss(log_probs, targets, steps, lengths, reduction="none")
    mean = lm.ctc_loss(log_probs, targets, steps, lengths)
    assert mean.item() == pytest.approx((each / lengths).mean().item(), rel=1e-6)
