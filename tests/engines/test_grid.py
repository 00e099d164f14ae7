"""RNN-T, CRF and soft-DTW without a graph: against the plain functions, and what lies outside."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core.grid import walk
from lossmith.engines.grid import visits, walk_with_shares
from lossmith.losses.sequence import crf, rnnt, soft_dtw

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def agree(loss, plain, leaves: list[Tensor], weight: Tensor) -> None:
    """Value, gradient, and the gradient of a graph, of one node and of the plain function."""
    left = [leaf.clone().requires_grad_() for leaf in leaves]
    right = [leaf.clone().requires_grad_() for leaf in leaves]
    found, expected = loss(*left), plain(*right)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    truth = torch.autograd.grad((expected * weight).sum(), right)
    for options in ({"retain_graph": True}, {"create_graph": True}):
        slopes = torch.autograd.grad((found * weight).sum(), left, **options)
        for slope, exact in zip(slopes, truth, strict=True):
            torch.testing.assert_close(slope, exact, rtol=1e-11, atol=1e-12)
    seen, todo = set(), [found.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo.extend(parent for parent, _ in node.next_functions)
    assert len(seen) <= 4 + len(leaves)  # whatever the number of steps


def test_rnnt_equals_the_plain_function() -> None:
    logits = normal(4, 9, 6, 5)
    targets = torch.randint(1, 5, (4, 5), generator=GENERATOR)
    steps, symbols = torch.tensor([9, 4, 1, 9]), torch.tensor([5, 2, 3, 0])
    logits[1, 4:], logits[1, :, 3:] = math.nan, math.nan  # behind the end
    rest = targets, steps, symbols

    def plain(leaf: Tensor) -> Tensor:
        inside = torch.arange(5) < symbols.unsqueeze(1)
        return rnnt._plain(leaf, torch.where(inside, targets, 0), steps, symbols, blank=0)

    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    agree(lambda leaf: lm.rnnt_loss(leaf, *rest, reduction="none"), plain, [logits], weight)


def test_rnnt_sums_all_orders_of_blanks_and_symbols() -> None:
    logits = normal(1, 3, 3, 4)
    probability = logits.softmax(3)[0]
    total = 0.0
    for order in set(itertools.permutations("bbss")):  # the last blank comes behind them
        step = read = 0
        product = 1.0
        for kind in (*order, "b"):
            product *= probability[step, read, 0 if kind == "b" else (2, 1)[read]].item()
            step, read = step + (kind == "b"), read + (kind == "s")
        total += product
    found = lm.rnnt_loss(logits, torch.tensor([[2, 1]]), torch.tensor([3]), torch.tensor([2]))
    assert found.item() == pytest.approx(-math.log(total), rel=1e-12)


def test_crf_equals_the_plain_function() -> None:
    scores, transitions, start, end = normal(4, 9, 5), normal(5, 5), normal(5), normal(5)
    transitions[1, 3] = -1e4  # forbidden, as in tagging by spans
    target = torch.randint(0, 5, (4, 9), generator=GENERATOR)
    lengths = torch.tensor([9, 4, 1, 6])
    scores[1, 4:], target[1, 4:] = math.nan, -100  # behind the end
    present = target.clamp(min=0)

    def loss(score: Tensor, moves: Tensor, first: Tensor, last: Tensor) -> Tensor:
        return lm.crf_loss(score, target, lengths, moves, start=first, end=last, reduction="none")

    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    agree(loss, lambda *leaves: crf._plain(*leaves, present, lengths),
          [scores, transitions, start, end], weight)  # fmt: skip
    mask = torch.arange(9) < lengths.unsqueeze(1)
    options = {"start": start, "end": end}
    assert torch.equal(
        lm.crf_loss(scores, target, mask, transitions, **options),
        lm.crf_loss(scores, target, lengths, transitions, **options),
    )
    with pytest.raises(ValueError, match="lengths must be a mask that is True up to the end"):
        lm.crf_loss(scores, target, mask.flip(1), transitions)


def test_probabilities_of_a_crf_add_up_to_one() -> None:
    scores, transitions = normal(1, 3, 3), normal(3, 3)
    total = 0.0
    for labels in itertools.product(range(3), repeat=3):
        loss = lm.crf_loss(scores, torch.tensor([labels]), torch.tensor([3]), transitions)
        total += math.exp(-loss.item())
    assert total == pytest.approx(1.0, rel=1e-12)


def test_a_crf_learns_which_class_follows() -> None:
    torch.manual_seed(0)
    chain = lm.CRFLoss(num_classes=3)
    labels = torch.arange(12).remainder(3).unsqueeze(0)
    optimizer = torch.optim.SGD(chain.parameters(), lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        value = chain(torch.zeros(1, 12, 3), labels, torch.tensor([12]))
        value.backward()
        optimizer.step()
    assert value.item() < 1.0
    assert chain.transitions.argmax(1).tolist() == [1, 2, 0]


@pytest.mark.parametrize("divergence", [False, True])
def test_soft_dtw_equals_the_plain_function(divergence: bool) -> None:
    series = [normal(3, 9, 2), normal(3, 5, 2)]
    options = {"gamma": 0.7, "divergence": divergence}
    weight = torch.arange(1.0, 4.0, dtype=torch.float64)
    agree(lambda *leaves: lm.soft_dtw_loss(*leaves, reduction="none", **options),
          lambda *leaves: soft_dtw._plain(*leaves, **options), series, weight)  # fmt: skip


def test_soft_dtw_goes_to_the_cheapest_alignment() -> None:
    x, y = normal(1, 5, 1), normal(1, 4, 1)
    best = {}
    for i, j in itertools.product(range(5), range(4)):
        cost = (x[0, i] - y[0, j]).square().item()
        ways = [best[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if k in best]
        best[i, j] = cost + min(ways, default=0.0)
    found = lm.soft_dtw_loss(x, y, gamma=1e-6).item()
    assert found == pytest.approx(best[4, 3], abs=1e-4)


def test_a_common_height_of_two_series_costs_no_digits() -> None:
    x, y = normal(2, 6, 1).float().requires_grad_(), normal(2, 6, 1).float()
    high = (x.detach().double() + 2**40).requires_grad_()
    left, right = lm.soft_dtw_loss(x, y), lm.soft_dtw_loss(high, y.double() + 2**40)
    (low_slope,), (high_slope,) = torch.autograd.grad(left, x), torch.autograd.grad(right, high)
    torch.testing.assert_close(low_slope.double(), high_slope, rtol=1e-3, atol=1e-3)


def test_every_path_through_a_grid_is_counted_once() -> None:
    zeros = torch.zeros(1, 4, 6, dtype=torch.float64)
    rows, columns = torch.tensor([3]), torch.tensor([5])
    assert walk(zeros, zeros).to(rows, columns).exp().item() == pytest.approx(math.comb(8, 3))
    delannoy = walk_with_shares(zeros, zeros, zeros)
    assert delannoy.to_corner().exp().item() == pytest.approx(231)
    nodes, down, across, diagonal = visits(delannoy, rows, columns, 4)
    assert down.sum().item() + diagonal.sum().item() == pytest.approx(3)
    assert across.sum().item() + diagonal.sum().item() == pytest.approx(5)
    assert nodes[0, 0, 0].item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["crf_loss", "soft_dtw_loss"])
def test_one_step_is_enough(name: str) -> None:
    if name == "crf_loss":
        scores = normal(2, 1, 3).requires_grad_()
        value = lm.crf_loss(scores, torch.tensor([[0], [2]]), torch.tensor([1, 1]), normal(3, 3))
        expected = torch.nn.functional.cross_entropy(scores[:, 0], torch.tensor([0, 2]))
    else:
        scores, other = normal(2, 1, 3).requires_grad_(), normal(2, 1, 3)
        value = lm.soft_dtw_loss(scores, other)
        expected = (scores - other).square().sum((1, 2)).mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, scores)[0] for loss in (value, expected))
    )
