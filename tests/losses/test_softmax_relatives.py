"""Members that the docstrings of the relatives of cross-entropy name, and their far ends."""

import pytest
import torch

import lossmith as lm

COUNTS = torch.tensor([50.0, 5.0, 20.0, 1.0], dtype=torch.float64)


def samples():
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    indices = torch.tensor([0, 1, 2, 3, 3, 0])
    return logits, indices, torch.randn(6, 4, generator=generator).double().softmax(1)


def distance_to_labels(logits, target):
    if not target.is_floating_point():
        target = torch.nn.functional.one_hot(target, 4)
    return (logits.softmax(1) - target).abs().sum(1)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (lm.generalized_cross_entropy_loss, {"q": 1e-12}),
        (lm.poly_loss, {"coefficient": 0.0}),
        (lm.symmetric_cross_entropy_loss, {"alpha": 1.0, "beta": 0.0}),
        (lm.soft_bootstrapping_loss, {"beta": 1.0}),
        (lm.hard_bootstrapping_loss, {"beta": 1.0}),
        (lm.logit_adjusted_loss, {}),
        (lm.logit_adjusted_loss, {"prior": COUNTS, "temperature": 0.0}),
        (lm.balanced_softmax_loss, {}),
    ],
)
def test_cross_entropy_is_a_member(loss, options):
    logits, indices, probabilities = samples()
    for target in (indices, probabilities):
        found = loss(logits, target, reduction="none", **options)
        torch.testing.assert_close(found, lm.cross_entropy(logits, target, reduction="none"))


def test_absolute_error_of_probabilities_is_a_member():
    logits, indices, _ = samples()
    expected = distance_to_labels(logits, indices)
    found = lm.generalized_cross_entropy_loss(logits, indices, q=1.0, reduction="none")
    torch.testing.assert_close(2 * found, expected)
    found = lm.symmetric_cross_entropy_loss(
        logits, indices, alpha=0.0, log_zero=-2.0, reduction="none"
    )
    torch.testing.assert_close(found, expected)


def test_balanced_softmax_is_logit_adjustment_by_counts():
    logits, indices, probabilities = samples()
    for target in (indices, probabilities):
        balanced = lm.balanced_softmax_loss(logits, target, class_counts=COUNTS)
        for prior in (COUNTS, COUNTS / COUNTS.sum()):
            torch.testing.assert_close(
                lm.logit_adjusted_loss(logits, target, prior=prior), balanced
            )


def test_the_rarest_class_has_the_whole_margin():
    indices = torch.arange(4)
    costs = lm.ldam_loss(torch.zeros(4, 4), indices, class_counts=COUNTS, reduction="none")
    assert costs.argmax() == COUNTS.argmin()
    same = lm.ldam_loss(torch.zeros(4, 4), indices, reduction="none")
    torch.testing.assert_close(costs.max(), same[0])
    wider = lm.ldam_loss(torch.zeros(4, 4), indices, margin=1.0, reduction="none")
    assert (wider > same).all()


def test_one_hot_targets_equal_indices():
    logits, indices, _ = samples()
    dense = torch.nn.functional.one_hot(indices, 4).double()
    for loss in (
        lm.generalized_cross_entropy_loss,
        lm.poly_loss,
        lm.symmetric_cross_entropy_loss,
        lm.soft_bootstrapping_loss,
        lm.hard_bootstrapping_loss,
    ):
        torch.testing.assert_close(loss(logits, dense), loss(logits, indices))


def test_a_hopeless_label_keeps_a_gradient_under_generalized_cross_entropy():
    logits = torch.tensor([[-40.0, 0.0]], requires_grad=True)
    lm.generalized_cross_entropy_loss(logits, torch.tensor([0]), q=1.0).backward()
    expected = torch.tensor([-40.0]).exp()
    torch.testing.assert_close(logits.grad[0], torch.cat([-expected, expected]), atol=0, rtol=1e-5)


def test_zero_counts_are_refused():
    logits, indices, _ = samples()
    counts = torch.tensor([3, 0, 1, 1])
    for loss in (lm.balanced_softmax_loss, lm.ldam_loss):
        with pytest.raises(ValueError, match="class_counts must be > 0, got 0"):
            loss(logits, indices, class_counts=counts)
