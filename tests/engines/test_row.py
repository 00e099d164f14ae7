"""Cross-entropy of few logits: whichever way it goes keeps the digits, whatever is among them."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import lossmith as lm
from lossmith.engines import exponential, row

# each on a side of its own of the sizes that decide
SHAPES = (
    *((9, 7), (60, 40), (90, 100), (60, 1000), (300, 400), (2000, 700), (5000, 10), (2, 5000)),
    (150, 1000),
)


@pytest.fixture(autouse=True, params=["exp", "exp2"])
def _on_either_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exponential, "BY_TWO", request.param == "exp2")


def batch(shape: tuple[int, int], likely: float | None) -> tuple[Tensor, Tensor]:
    """Labels that no row favours, but for the last ones, whose own lead by ``likely`` or more."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    index = logits.argmin(1)
    if likely is not None:
        for row in range(1, 1 + min(len(logits), 6)):
            logits[-row] = 0.0
            logits[-row, index[-row]] = likely + 0.37 * (row - 1)
    return logits, index


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("likely", [None, 9.0, 17.0, 30.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_digits_do_not_depend_on_the_way(shape, likely, reduction) -> None:
    logits, index = batch(shape, likely)
    x, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    value = lm.cross_entropy(x, index, reduction=reduction)
    others = exact.scatter(1, index[:, None], -math.inf).logsumexp(1)
    truth = torch.log1p((others - exact.gather(1, index[:, None]).squeeze(1)).exp())
    truth = {"none": lambda t: t, "mean": torch.mean, "sum": torch.sum}[reduction](truth)
    assert torch.allclose(value.double(), truth, rtol=8e-7, atol=0)
    seed = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    (slope,) = torch.autograd.grad(value, x, seed)
    (wanted,) = torch.autograd.grad(truth, exact, seed.double())
    own = index[:, None]
    assert (slope - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    # in a small batch that is reduced, likely classes may lose what is nothing beside the others
    if reduction == "none" or not row._swift(slope):
        both = slope.double().gather(1, own), wanted.gather(1, own)
        assert torch.allclose(*both, rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("likely", [12.0, 17.0, 30.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_learned_labels_keep_all_digits(shape, likely, reduction) -> None:
    index = batch(shape, None)[1]
    logits = torch.zeros(shape).scatter_(1, index[:, None], likely)
    x = logits.clone().requires_grad_()
    lm.cross_entropy(x, index, reduction=reduction).sum().backward()
    others = (shape[1] - 1) * math.exp(-likely)
    wanted = others / (1 + others) / (shape[0] if reduction == "mean" else 1)
    own = -x.grad.gather(1, index[:, None]).double()
    assert ((own - wanted).abs() <= 2e-6 * wanted).all()


@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
def test_unlikely_labels_are_left_to_torchs_kernels(shape) -> None:
    value = lm.cross_entropy(batch(shape, None)[0].requires_grad_(), batch(shape, None)[1])
    assert "NllLoss" in value.grad_fn.name()


def test_plain_calls_are_served_at_a_glance(monkeypatch) -> None:
    """And no others: what is asked before costs 5 us of 50."""

    def asked(*_: object) -> None:
        raise AssertionError

    logits, index = batch((60, 40), None)
    usual = lm.cross_entropy(logits, index, reduction="sum") / 60
    short = torch.zeros(900, 10), torch.zeros(900, dtype=torch.int64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr("lossmith.core.loss.kind", asked)
    assert torch.allclose(lm.cross_entropy(logits, index), usual)
    assert torch.allclose(lm.CrossEntropyLoss()(logits, index), usual)
    assert torch.allclose(lm.cross_entropy(batch((60, 40), 20.0)[0], index), usual * 0.9, rtol=0.1)
    for others in (
        lambda: lm.cross_entropy(logits.double(), index),
        lambda: lm.cross_entropy(logits, index.int()),
        lambda: lm.cross_entropy(logits, logits.softmax(1)),
        lambda: lm.cross_entropy(logits, index, ignore_index=0),
        lambda: lm.cross_entropy(logits, index, sample_weight=torch.ones(60)),
        lambda: lm.cross_entropy(logits, index, reduction="sum"),
        lambda: lm.cross_entropy(logits[0], index[0]),
        lambda: lm.cross_entropy(*short),
        lambda: lm.cross_entropy(torch.zeros(1, 5000), index[:1]),
    ):
        with pytest.raises(AssertionError):
            others()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert lm.cross_entropy(*short).item() == pytest.approx(math.log(10))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(AssertionError):  # however many threads
        lm.cross_entropy(torch.zeros(1100, 1000), torch.zeros(1100, dtype=torch.int64))
    large = batch((900, 40), None)
    lm.cross_entropy(*large)
    with lm.engine("blocks"), pytest.raises(AssertionError):
        lm.cross_entropy(*large)


@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_forward_derivatives_of_learned_labels(shape) -> None:
    """Forward mode does not see nodes that are written in Python."""
    index = batch(shape, None)[1]
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    logits = logits.scatter(1, index[:, None], 12.0)
    tangent = torch.ones_like(logits).scatter(1, index[:, None], 0.0)
    _, found = torch.func.jvp(lambda x: lm.cross_entropy(x, index), (logits,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits, tangent)
        other = forward_ad.unpack_dual(lm.cross_entropy(dual, index)).tangent
    rest = 1 - logits.double().softmax(1).gather(1, index[:, None])
    assert found == pytest.approx(rest.mean().item(), rel=1e-4)
    assert other == pytest.approx(rest.mean().item(), rel=1e-4)


def test_a_compiler_sees_no_look_at_the_value() -> None:
    """In float32: the contract's law compiles float64, which is never served at a glance."""
    logits, index = batch((60, 40), None)
    compiled = torch.compile(lm.cross_entropy, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(logits, index), lm.cross_entropy(logits, index))


def test_labels_outside_are_looked_for_once(monkeypatch) -> None:
    """The kernel that raised at one has no second turn."""
    calls = []
    kernel = row._cross_entropy
    monkeypatch.setattr(row, "_cross_entropy", lambda *a: calls.append(a) or kernel(*a))
    logits, index = batch((60, 40), None)
    index[3] = -100
    assert lm.cross_entropy(logits, index).isfinite()
    assert len(calls) == 1
    index[3] = 40
    with pytest.raises(ValueError, match="target"):
        lm.cross_entropy(logits, index)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        *(((8, 5), labels) for labels in ((7,), (1,), (8, 1), ())),
        *(((2, 3, 4), labels) for labels in ((2, 5), (2,), (8,))),
        *(((2, 3, 4, 5), (2, 20)), ((5,), (1,)), ((), ())),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_named(shape, labels) -> None:
    """Also where torch's kernel was asked before: it has words of its own, or lets them pass."""
    with pytest.raises((ValueError, TypeError), match=r"target must|shapes must"):
        lm.cross_entropy(torch.zeros(shape), torch.zeros(labels, dtype=torch.int64))


@pytest.mark.parametrize("rows", [4, row.LISTED + 1])
def test_one_broken_row_is_not_overlooked(rows) -> None:
    logits, index = batch((rows, 5), None)
    logits[2, 1], index[2] = math.inf, 1  # certain: costs nothing
    values = lm.cross_entropy(logits, index, reduction="none")
    assert values[2] == 0
    assert (values[:2] > row.UNLIKELY).all()
    logits[2] = math.nan
    assert lm.cross_entropy(logits, index, reduction="none").isnan().tolist().index(True) == 2


@pytest.mark.parametrize("shape", [s for s in SHAPES if math.prod(s) <= row.FEW], ids=str)
@pytest.mark.parametrize("likely", [None, 9.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(shape, likely, dtype) -> None:
    """The value at the end, and the slope at the end, when a large factor has reached it."""
    logits, index = batch(shape, likely)
    x = logits.to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    value = lm.cross_entropy(x, index)
    truth = torch.nn.functional.cross_entropy(exact, index)
    digits = 1.01 * torch.finfo(dtype).eps / 2
    assert value.dtype is dtype
    assert torch.allclose(value.double(), truth, rtol=digits, atol=0)
    factor = 2.0**15  # as a scaler of gradients has, lest they vanish
    (slope,) = torch.autograd.grad(value, x, torch.tensor(factor, dtype=dtype))
    (wanted,) = torch.autograd.grad(truth, exact, torch.tensor(factor, dtype=torch.float64))
    normal = wanted.abs() > torch.finfo(dtype).tiny
    beside = 1e-6 * wanted.abs().max().item()
    assert torch.allclose(slope.double()[normal], wanted[normal], rtol=digits, atol=beside)


def test_few_half_precision_logits_take_torchs_kernels() -> None:
    logits, index = batch(SHAPES[1], None)
    value = lm.cross_entropy(logits.bfloat16().requires_grad_(), index)
    names, node = [], value.grad_fn
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    assert any("NllLoss" in name for name in names)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("label", [-(1 << 63), -(1 << 62), -1, "C"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_no_label_outside_goes_unnoticed(shape, label, reduction) -> None:
    logits, index = batch(shape, None)
    index[1] = shape[1] if label == "C" else label
    with pytest.raises(ValueError, match="target must be a class index in"):
        lm.cross_entropy(logits, index, reduction=reduction)


@pytest.mark.parametrize("depth", [70.0, 95.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_one_label_far_out_among_learned_ones(depth, reduction) -> None:
    """The odds against it are beyond float32, and the mean cost is still that of likely labels."""
    index = torch.arange(400) % 40
    logits = torch.zeros(400, 40).scatter_(1, index[:, None], 20.0)
    logits[7, index[7]] = -depth
    x, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    value = lm.cross_entropy(x, index, reduction=reduction)
    truth = torch.nn.functional.cross_entropy(exact, index, reduction=reduction)
    assert truth.mean() / (400 if reduction == "sum" else 1) < row.UNLIKELY
    assert torch.allclose(value.double(), truth, rtol=1e-6, atol=1e-13)
    (slope,) = torch.autograd.grad(value.sum(), x)
    (wanted,) = torch.autograd.grad(truth.sum(), exact)
    assert (slope - wanted).abs().max() <= 1e-6 * wanted.abs().max()
