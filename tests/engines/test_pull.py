"""What a loss that brings its own gradient must not lose: graphs, guards, edits, digits."""

import functools

import pytest
import torch

import lossmith as lm

WIDE = (400, 100)  # above every threshold under which torch's kernels serve


def cases() -> dict[str, functools.partial]:
    generator = torch.Generator().manual_seed(3)
    other = torch.rand(WIDE, generator=generator)
    hard, index = other.round(), torch.randint(100, (400,), generator=generator)
    sign, list_ = hard * 2 - 1, torch.tensor([[1, 2] + [-1] * 98] * 400)
    return {
        "bce_soft": functools.partial(lm.binary_cross_entropy_with_logits, target=other),
        "bce_hard": functools.partial(lm.binary_cross_entropy_with_logits, target=hard),
        "bce": functools.partial(lm.binary_cross_entropy, target=other),
        "soft_margin": functools.partial(lm.soft_margin_loss, target=sign),
        "hinge": functools.partial(lm.hinge_embedding_loss, target=sign),
        "ranking": functools.partial(lm.margin_ranking_loss, input2=other, target=sign),
        "cosine": functools.partial(lm.cosine_embedding_loss, input2=other, target=sign[:, 0]),
        "triplet": functools.partial(lm.triplet_margin_loss, positive=other, negative=hard),
        "cross_entropy": functools.partial(lm.cross_entropy, target=index, label_smoothing=0.1),
        "multi_margin": functools.partial(lm.multi_margin_loss, target=index),
        "multilabel_margin": functools.partial(lm.multilabel_margin_loss, target=list_),
    }


CASES = cases()
FIRST = {"ranking": "input1", "cosine": "input1", "triplet": "anchor"}


def call(name: str, x: torch.Tensor, **options: object) -> torch.Tensor:
    value = CASES[name](**{FIRST.get(name, "input"): x}, **options)
    assert "Known" in type(value.grad_fn).__name__, "the fast path did not serve"
    return value


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_result_may_be_edited_in_place(name: str, reduction: str) -> None:
    x = torch.rand(WIDE).requires_grad_()
    value = call(name, x, reduction=reduction)
    (expected,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
    value *= 2
    if reduction == "none":
        value[0] += 1
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, 2 * expected)


@pytest.mark.parametrize("name", CASES)
def test_graph_of_the_gradient_has_the_same_gradient(name: str) -> None:
    x = torch.rand(WIDE).requires_grad_()
    value = call(name, x, reduction="sum")
    (plain,) = torch.autograd.grad(value, x, retain_graph=True)
    (graph,) = torch.autograd.grad(value, x, create_graph=True)
    torch.testing.assert_close(graph, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a: lm.triplet_margin_with_distance_loss(a, a, a.detach().flip(0), margin=50.0),
        lambda a: lm.binary_cross_entropy_with_logits(a, torch.sigmoid(2 * a)),
        lambda a: lm.cosine_embedding_loss(a, 2 * a + 1, torch.ones(len(a))),
        lambda a: lm.margin_ranking_loss(a, 0.5 * a, torch.ones(WIDE), margin=5.0),
    ],
    ids=["triplet", "bce", "cosine", "ranking"],
)
def test_graph_of_the_gradient_counts_dependent_arguments_once(loss) -> None:
    a = torch.randn(WIDE, generator=torch.Generator().manual_seed(5)).requires_grad_()
    (plain,) = torch.autograd.grad(loss(a), a)
    (graph,) = torch.autograd.grad(loss(a), a, create_graph=True)
    torch.testing.assert_close(graph, plain, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["cross_entropy", "hinge", "ranking", "cosine", "multi_margin"])
def test_label_changed_before_a_graph_of_the_gradient_is_refused(name: str) -> None:
    kept = CASES[name].keywords["target"].clone()
    x = torch.rand(WIDE).requires_grad_()
    value = CASES[name](**{FIRST.get(name, "input"): x, "target": kept})
    kept.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value, x, create_graph=True)


@pytest.mark.parametrize("p", [0.01, 0.9, 0.99, 0.9999, 1 - 1e-6])
def test_second_derivative_of_bce_near_certainty(p: float) -> None:
    x = torch.tensor([p], requires_grad=True)
    (slope,) = torch.autograd.grad(lm.binary_cross_entropy(x, torch.ones(1)), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope, x)
    torch.testing.assert_close(bend, 1 / x.detach().square())  # torch gives 0 at 0.9999


@pytest.mark.parametrize("loss", [lm.multi_margin_loss, lm.multilabel_margin_loss])
def test_gradient_keeps_its_digits_over_many_classes(loss) -> None:
    rows = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1)) * 0.1
    target = torch.zeros(3, dtype=torch.long)
    if loss is lm.multilabel_margin_loss:
        target = torch.full((3, 5000), -1)
        target[:, 0] = 0
    narrow, wide = rows.clone().requires_grad_(), rows.double().requires_grad_()
    loss(narrow, target).backward()
    loss(wide, target).backward()
    torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=16 * 6e-8, atol=0)


def test_option_that_is_learned_gets_its_gradient() -> None:
    first, second = torch.randn(2, 5, 3).unbind(0)
    for loss, tensors in (
        (lm.cosine_embedding_loss, (first, second, -torch.ones(5))),
        (lm.margin_ranking_loss, (first, second, torch.ones(5, 3))),
        (lm.hinge_embedding_loss, (first, -torch.ones(5, 3))),
        (lm.multi_margin_loss, (first, torch.zeros(5, dtype=torch.long))),
    ):
        margin = torch.tensor(9.0, requires_grad=True)
        if loss is lm.cosine_embedding_loss:
            margin = torch.tensor(-0.99, requires_grad=True)
        loss(*tensors, margin=margin).backward()
        assert margin.grad is not None
        assert margin.grad != 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_class_indices_serve_everywhere(dtype: torch.dtype) -> None:
    scores = torch.randn(4, 3).requires_grad_()
    for loss in (lm.cross_entropy, lm.nll_loss, lm.multi_margin_loss):
        wide, narrow = torch.tensor([0, 2, 1, 2]), torch.tensor([0, 2, 1, 2], dtype=dtype)
        x = scores.log_softmax(1) if loss is lm.nll_loss else scores
        assert loss(x, narrow) == loss(x, wide)
        weighted = loss(x, narrow, sample_weight=torch.ones(4))
        torch.testing.assert_close(weighted, loss(x, wide))
    ignored = torch.tensor([0, 127, 1, 2], dtype=dtype)
    keep = torch.tensor([0, 2, 3])
    torch.testing.assert_close(
        lm.cross_entropy(scores, ignored, ignore_index=127),
        lm.cross_entropy(scores[keep], ignored[keep].long()),
    )


def test_unsigned_signs_are_not_negated_modulo_256() -> None:
    score, yes = torch.tensor([0.5, 1.0]), torch.ones(2, dtype=torch.uint8)
    assert lm.soft_margin_loss(score, yes) == lm.soft_margin_loss(score, torch.ones(2))


def test_infinite_scores_that_cancel_are_seen() -> None:
    inf = torch.inf
    assert lm.multi_margin_loss(torch.tensor([[inf, inf, 0.0]]), torch.tensor([0])).isnan()
    first = torch.tensor([[0, -1, -1]])
    assert lm.multilabel_margin_loss(torch.tensor([[-inf, -inf, 0.0]]), first).isnan()


def test_autocast_changes_the_product_and_not_the_loss() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        value = lm.linear_cross_entropy(torch.eye(4), torch.eye(4), torch.arange(4))
    torch.testing.assert_close(value, torch.tensor(0.74366838))  # log(1 + 3 / e)
