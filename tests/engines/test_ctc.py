"""CTC without a graph through the steps: both walks, torch's kernel, and when each serves."""

import math
from typing import Any

import pytest
import torch

import lossmith as lm
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.engines import alignments, ctc
from lossmith.losses.sequence.ctc import _plain


def ragged(seed: int = 0, steps: int = 21, classes: int = 5) -> tuple[torch.Tensor, ...]:
    """Repeats, an empty target, one that does not fit, a sample of no steps, full lengths."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(steps, 6, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, classes, (6, 7), generator=generator)
    targets[1] = 2
    input_lengths = torch.tensor([steps, steps, 9, 5, 0, steps - 1])
    target_lengths = torch.tensor([7, 7, 0, 7, 0, 3])
    return scores, targets, input_lengths, target_lengths


def by_plain(scores: torch.Tensor, *rest: torch.Tensor, logits: bool) -> tuple[torch.Tensor, ...]:
    leaf = scores.detach().clone().requires_grad_()
    value = _plain(leaf, *rest, blank=0, logits=logits)
    infinite = value > 1e29
    (gradient,) = torch.autograd.grad(torch.where(infinite, 0.0, value).sum(), leaf)
    return torch.where(infinite, math.inf, value).detach(), gradient


def dense(scores: torch.Tensor, value: torch.Tensor, pull: Any, *kept: Any) -> torch.Tensor:
    return pull(torch.ones_like(value), (True,), (scores,), *kept)[0]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("way", [ctc._by_walk, ctc._by_logarithms])
def test_a_walk_equals_the_plain_function(logits: bool, way: Any, monkeypatch: Any) -> None:
    if way is ctc._by_walk:
        monkeypatch.setattr(ctc, "_by_logarithms", None)
    scores, *rest = ragged()
    scores[9:, 2] = math.nan  # behind the end
    value, *kept = way(ctc.Batch(scores, *rest, 0, logits), True, None)
    expected, gradient = by_plain(scores, *rest, logits=logits)
    assert expected[3] == math.inf
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(dense(scores, value, *kept), gradient, rtol=1e-12, atol=1e-13)
    assert dense(scores, value, *kept)[9:, 2].eq(0).all()


@pytest.mark.parametrize("steps", [1, 2, 40, 400])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_divisions_on_the_way_leave_no_trace(steps: int, spread: float) -> None:
    """From none at all to one after every second step."""
    scores, targets, input_lengths, target_lengths = ragged(5, max(steps, 21))
    batch = spread * scores[:steps], targets, input_lengths.clamp(max=steps), target_lengths
    done = ctc._by_products(ctc.Batch(*batch, 0, True), True, None)
    assert done is not None
    expected, gradient = by_plain(*batch, logits=True)
    torch.testing.assert_close(done[0], expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(dense(batch[0], *done), gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("logits", [False, True])
def test_what_multiplication_would_lose_is_left_to_logarithms(logits: bool, monkeypatch) -> None:
    """The best alignment begins 1e-365 times less likely than one that leads nowhere."""
    emit = torch.full((20, 1, 9), -140.0)
    emit[:10], emit[:10, :, 0], emit[10:, :, 8] = -120.0, 0.0, 0.0
    rest = torch.arange(1, 9).unsqueeze(0), torch.tensor([20]), torch.tensor([8])
    batch = ctc.Batch(emit, *rest, 0, logits)
    assert ctc._by_products(batch, True, None) is None
    expected, gradient = by_plain(emit, *rest, logits=logits)
    leaf = emit.requires_grad_()
    value = (lm.ctc_with_logits_loss if logits else lm.ctc_loss)(leaf, *rest, reduction="sum")
    (found,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(value.double(), expected.sum())
    torch.testing.assert_close(found, gradient)
    monkeypatch.setattr(alignments, "ROOM", math.inf)
    done = ctc._by_products(batch._replace(scores=emit.detach()), True, None)
    assert done is not None
    assert done[0].item() > expected.item() + 30


@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_chances_out_of_reach_are_left_to_logarithms(loss) -> None:
    """Confidently wrong: every symbol is e**1000 times less likely than another class."""
    scores, targets, *lengths = ragged(3)
    scores = (1e3 * scores.sign()).float()
    scores[:, :, 4], targets = 1e3, targets.clamp(max=3)
    scores = scores if loss is lm.ctc_with_logits_loss else scores - 1e3
    leaf = scores.clone().requires_grad_()
    value = loss(leaf, targets, *lengths, reduction="sum", zero_infinity=True)
    (found,) = torch.autograd.grad(value, leaf)
    logits = loss is lm.ctc_with_logits_loss
    expected, gradient = by_plain(scores, targets, *lengths, logits=logits)
    torch.testing.assert_close(value.double(), expected[expected.isfinite()].sum())
    torch.testing.assert_close(found.double(), gradient.double(), rtol=1e-6, atol=1e-6)


def test_impossible_targets_do_not_call_for_logarithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc, "_by_logarithms", None)
    scores, *rest = ragged()
    assert lm.ctc_with_logits_loss(scores, *rest, zero_infinity=True).isfinite()


@pytest.mark.parametrize("reduction", list(NATIVE_REDUCTION)[:3])
@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
@pytest.mark.parametrize("few", [-(10**9), 10**9])
def test_reductions_gradients_and_graphs_agree(loss, reduction, few, monkeypatch) -> None:
    """With and without torch's kernel, and with the function that takes weights."""
    monkeypatch.setattr(ctc, "WALK", few)
    scores, *rest = ragged(1)
    rest[1][3:5] = 20  # all finite, so that torch's kernel serves too
    leaf = scores.float().log_softmax(2).requires_grad_()
    weight = torch.ones(6)
    value = loss(leaf, *rest, reduction=reduction)
    wide = leaf.detach().double().requires_grad_()
    expected = loss(wide, *rest, sample_weight=weight.double(), reduction=reduction)
    if reduction == "mean":
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(value.double(), expected)
    seed = torch.arange(1.0, 7.0)[: value.numel()].view(value.shape)
    (right,) = torch.autograd.grad(expected, wide, seed.double())
    for options in ({"retain_graph": True}, {"retain_graph": True}, {"create_graph": True}):
        (left,) = torch.autograd.grad(value, leaf, seed, **options)
        torch.testing.assert_close(left.double(), right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_infinite_losses_have_no_gradient_of_any_order(loss, zero_infinity) -> None:
    scores, *rest = ragged()
    leaf = scores.log_softmax(2).requires_grad_()
    value = loss(leaf, *rest, reduction="sum", zero_infinity=zero_infinity)
    assert value.isfinite() == zero_infinity
    for options in ({"retain_graph": True}, {"create_graph": True}):
        (gradient,) = torch.autograd.grad(value, leaf, **options)
        assert gradient.isfinite().all()
        assert gradient[:, 3].eq(0).all()
        assert gradient[:, 0].ne(0).any()


def test_a_nearly_certain_class_keeps_its_digits() -> None:
    """1 - p and its posterior are small numbers here, lost to a softmax in float32."""
    scores = torch.zeros(30, 8, 4)
    scores[:, :, 0] = 14.0
    scores[10, :, 0], scores[10, :, 2] = 0.0, 14.0
    rest = torch.full((8, 1), 2), torch.full((8,), 30), torch.full((8,), 1)
    leaf, wide = scores.clone().requires_grad_(), scores.double().requires_grad_()
    left = lm.ctc_with_logits_loss(leaf, *rest, reduction="sum")
    right = lm.ctc_with_logits_loss(wide, *rest, reduction="sum")
    assert left.item() == pytest.approx(right.item(), rel=1e-6)
    (found,), (expected,) = torch.autograd.grad(left, leaf), torch.autograd.grad(right, wide)
    worst = (found.double() - expected).abs().max() / expected.abs().max()
    assert worst < 16 * torch.finfo(torch.float32).eps


def test_the_graph_does_not_grow_with_the_steps() -> None:
    scores, *rest = ragged(steps=40)
    value = lm.ctc_with_logits_loss(scores.requires_grad_(), *rest, zero_infinity=True)
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo.extend(parent for parent, _ in node.next_functions)
    assert len(seen) <= 4


@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_a_compiled_graph_does_not_grow_with_the_steps(loss) -> None:
    sizes: list[int] = []

    def backend(module: Any, _: Any) -> Any:
        sizes.append(len(module.graph.nodes))
        return module.forward

    for steps in (9, 40):
        torch._dynamo.reset()
        scores, *rest = ragged(steps=steps)
        rest[0].clamp_(max=steps)
        arguments = scores.log_softmax(2).requires_grad_(), *rest
        value = torch.compile(loss, fullgraph=True, backend=backend)(*arguments, zero_infinity=True)
        torch.testing.assert_close(value, loss(*arguments, zero_infinity=True))
    assert sizes[0] == sizes[1]


def test_a_compiled_hessian_is_that_of_the_plain_function() -> None:
    scores, *rest = ragged(2, steps=4, classes=4)
    rest = [rest[0][:1, :2], torch.tensor([4]), torch.tensor([2])]
    hessian = torch.func.hessian(lambda leaf: lm.ctc_with_logits_loss(leaf, *rest))
    torch._dynamo.reset()
    found = torch.compile(hessian, fullgraph=True, backend="eager")(scores[:, :1])
    torch.testing.assert_close(found, hessian(scores[:, :1]))


def test_places_of_a_class_are_added_up_at_the_first() -> None:
    index = torch.tensor([[0, 2, 1, 2, 0, 2], [0, 1, 2, 3, 4, 5]])
    posterior = torch.rand(7, 2, 6, dtype=torch.float64)
    merged = ctc.once(posterior, index)
    places = index.expand(7, -1, -1)
    zeros = torch.zeros(7, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(
        zeros.scatter_add(2, places, merged), zeros.scatter_add(2, places, posterior)
    )
    assert (merged[:, 0, 3:] == 0).all()
    assert torch.equal(merged[:, 1], posterior[:, 1])
