"""Padded lists, grades and ties: what the contract cannot reach through options."""

import math

import pytest
import torch

import lossmith as lm

LOSSES = {
    "approx_ndcg_loss": lm.ApproxNDCGLoss,
    "lambda_loss": lm.LambdaLoss,
    "listmle_loss": lm.ListMLELoss,
    "listnet_loss": lm.ListNetLoss,
    "ranknet_loss": lm.RankNetLoss,
}
GRADED = ("approx_ndcg_loss", "lambda_loss")
every = pytest.mark.parametrize("name", sorted(LOSSES))


def lists() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return scores, torch.tensor([[3, 0, 1, 1, 0], [0, 2, 2, 4, 1], [1, 0, 0, 0, 0]])


@every
@pytest.mark.parametrize("spoiler", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_masked_does_not_matter(name: str, spoiler: float) -> None:
    loss = getattr(lm, name)
    scores, grades = lists()
    padded = torch.full((3, 8), spoiler, dtype=torch.float64)
    wide = padded.clone()
    mask = torch.zeros(3, 8, dtype=torch.bool)
    places = torch.tensor([0, 2, 3, 5, 7])  # the padding stands between as well
    padded[:, places], wide[:, places], mask[:, places] = scores, grades.double(), True
    padded.requires_grad_()
    scores.requires_grad_()
    found = loss(padded, wide, mask=mask, reduction="none")
    expected = loss(scores, grades, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    (gradient,) = torch.autograd.grad(found.sum(), padded)
    (wanted,) = torch.autograd.grad(expected.sum(), scores)
    torch.testing.assert_close(gradient[:, places], wanted, rtol=1e-12, atol=1e-14)
    assert (gradient[~mask] == 0).all()


@every
def test_a_list_without_entries_is_absent(name: str) -> None:
    loss = getattr(lm, name)
    scores, grades = lists()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    scores.requires_grad_()
    value = loss(scores, grades, mask=mask)
    few = loss(scores[[0, 2]], grades[[0, 2]])
    torch.testing.assert_close(value, few, rtol=1e-13, atol=0)
    assert loss(scores, grades, mask=mask, reduction="none")[1] == 0
    nothing = loss(scores, grades, mask=torch.zeros_like(mask))
    assert nothing == 0
    (gradient,) = torch.autograd.grad(nothing, scores)
    assert (gradient == 0).all()


@every
def test_lists_of_no_entries_cost_nothing(name: str) -> None:
    scores = torch.zeros(2, 0, requires_grad=True)
    value = getattr(lm, name)(scores, torch.zeros(2, 0))
    assert value == 0
    assert value.requires_grad


@every
def test_module_takes_the_mask_of_the_batch(name: str) -> None:
    scores, grades = lists()
    mask = torch.arange(5).expand(3, 5) < torch.tensor([[5], [3], [2]])
    found = LOSSES[name]()(scores, grades, mask=mask)
    assert torch.equal(found, getattr(lm, name)(scores, grades, mask=mask))


@every
def test_mask_and_grades_are_checked(name: str) -> None:
    loss = getattr(lm, name)
    scores, grades = lists()
    with pytest.raises(TypeError, match="mask must be a tensor of bool or None"):
        loss(scores, grades, mask=torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"mask must have shape \(3, 5\)"):
        loss(scores, grades, mask=torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"relevance must be .*finite, got nan"):
        loss(scores, torch.where(grades == 4, math.nan, grades.double()))


@pytest.mark.parametrize("name", GRADED)
def test_negative_grades_have_no_gain(name: str) -> None:
    scores, grades = lists()
    with pytest.raises(ValueError, match="relevance must be >= 0 and finite, got -1"):
        getattr(lm, name)(scores, grades - 1)


@pytest.mark.parametrize("name", GRADED)
def test_irrelevant_lists_cost_nothing_and_large_grades_fit(name: str) -> None:
    loss = getattr(lm, name)
    scores = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    assert loss(scores, torch.zeros(1, 3)) == 0
    # gains of 2^200 do not fit float32, their shares do
    value = loss(scores, torch.tensor([[200.0, 0.0, 0.0]]))
    torch.testing.assert_close(value, loss(scores, torch.tensor([[50.0, 0.0, 0.0]])))


@pytest.mark.parametrize("name", ["ranknet_loss", "listmle_loss"])
def test_only_the_order_of_the_grades_counts(name: str) -> None:
    scores, grades = lists()
    loss = getattr(lm, name)
    assert torch.equal(loss(scores, grades), loss(scores, 100.0 * grades - 7))


def test_listmle_places_equals_as_they_come() -> None:
    scores = torch.tensor([[0.0, 1.0]])
    tied = lm.listmle_loss(scores, torch.tensor([[1, 1]]))
    assert torch.equal(tied, lm.listmle_loss(scores, torch.tensor([[2, 1]])))
    assert not torch.equal(tied, lm.listmle_loss(scores, torch.tensor([[1, 2]])))


def test_lambda_loss_looks_at_the_present_order() -> None:
    """By hand: one relevant entry second of two, 1/log2(2) - 1/log2(3) times log2(1 + e^gap)."""
    scores = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = lm.lambda_loss(scores, torch.tensor([[0, 1]]), mu=0.0)
    expected = (1 - 1 / math.log2(3)) * math.log2(1 + math.e)
    assert found.item() == pytest.approx(expected, rel=1e-14)


def test_approx_ndcg_of_a_right_order_keeps_its_digits() -> None:
    scores = torch.tensor([[3.0, 0.0]])
    found = lm.approx_ndcg_loss(scores, torch.tensor([[1, 0]]))
    # 1 - 1 / log2(2 + s), s = sigmoid(-30), which is s / (2 log 2) to first order
    assert found.item() == pytest.approx(math.exp(-30) / (2 * math.log(2)), rel=1e-5)


def test_approx_ndcg_becomes_ndcg() -> None:
    scores, grades = lists()
    gains, by_score = 2.0**grades - 1, scores.argsort(1, descending=True)
    discounts = torch.log2(torch.arange(5) + 2.0)
    found = (gains.gather(1, by_score) / discounts).sum(1)
    best = (gains.sort(1, descending=True).values / discounts).sum(1)
    value = lm.approx_ndcg_loss(scores, grades, temperature=1e-4, reduction="none")
    torch.testing.assert_close(value, (1 - found / best).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_large_whole_grades_keep_their_order(dtype: torch.dtype) -> None:
    """In float32 the next number after 16,777,216 is 16,777,218."""
    scores = torch.tensor([[2.0, 1.0, 0.0]])
    grades = torch.tensor([[1_700_000_000, 1_700_000_002, 1_700_000_001]], dtype=dtype)
    for loss in (lm.listmle_loss, lm.ranknet_loss, lm.listnet_loss):
        value = loss(scores, grades)
        assert value.dtype is torch.float32
        torch.testing.assert_close(value, loss(scores, grades - 1_700_000_000))
    for loss in (lm.lambda_loss, lm.approx_ndcg_loss):
        torch.testing.assert_close(loss(scores, grades), loss(scores.double(), grades).float())
