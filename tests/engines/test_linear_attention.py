"""Linear heads in bfloat16 by attention, against all logits in float64, in pieces of a few rows."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.core.memory import peak_bytes
from lossmith.engines import linear_attention, linear_head, linear_products

CLASSES, FEATURES, ROWS = 41, 5, 30
# The kernel rounds probabilities and results to bfloat16
NEAR = 2**-7
HEAD = lm.linear_head(lm.cross_entropy)


@pytest.fixture(autouse=True)
def attention_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (linear_head, "FEW", 0),
        (linear_products, "CPU", "matrices"),
        (linear_attention, "MANY", 1),
        (linear_attention, "ROWS", 7),
        (linear_attention, "CLASSES", 16),
    ):
        monkeypatch.setattr(module, name, value)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight, class indices."""
    target = torch.randint(CLASSES, (rows,), generator=torch.Generator().manual_seed(2))
    hidden, weight = (draw(n, FEATURES, seed=n).bfloat16() for n in (rows, CLASSES))
    return hidden.requires_grad_(), weight.requires_grad_(), target


def truth(hidden: Tensor, matrix: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The loss by its definition in float64, for all options, and its leaves."""
    leaves = [each.detach().double().requires_grad_() for each in (hidden, matrix)]
    logits = options.pop("logit_scale", 1.0) * leaves[0] @ leaves[1].T
    z_loss, given = options.pop("z_loss", 0.0), options.pop("sample_weight", None)
    reduction, factor = options.pop("reduction", "mean"), options.get("weight")
    ignored = target == options.get("ignore_index", -100)
    if factor is not None:
        options["weight"] = factor = factor.double()
    value = F.cross_entropy(logits, target, reduction="none", **options)
    value = value + z_loss * logits.logsumexp(1).square() * ~ignored
    each = torch.ones_like(value) if factor is None else factor[target.where(~ignored, 0)]
    sample = (torch.ones_like(value) if given is None else given.double()) * ~ignored
    value = sample * value
    if reduction != "none":
        value = value.sum() / (sample * each).sum() if reduction == "mean" else value.sum()
    return value, *leaves


def agree(found: Tensor, expected: Tensor, tolerance: float = NEAR) -> None:
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()


OPTIONS = [
    {},
    {"label_smoothing": 0.2},
    {"weight": draw(CLASSES, seed=3).abs()},
    {"weight": draw(CLASSES, seed=3).abs().bfloat16(), "label_smoothing": 0.3},
    {"ignore_index": 7},
    {"z_loss": 0.1},
    {"logit_scale": 1.7, "z_loss": 0.1, "label_smoothing": 0.1},
    {"sample_weight": draw(ROWS, seed=4).relu()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "bare")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_it_is_the_loss_of_the_logits(options, reduction):
    hidden, weight, target = layer()
    if "ignore_index" in options:
        target[[1, 8, 9, 10, 11, 12, 13, 29]] = 7
    options = {**options, "reduction": reduction}
    path = lm.explain_path(HEAD, hidden, weight, target, **options)
    assert str(path).startswith("attention")
    value = HEAD(hidden, weight, target, **options)
    assert value.dtype is torch.bfloat16
    expected, *leaves = truth(hidden, weight, target, **options)
    agree(value, expected)
    grad = draw(*value.shape, seed=5).bfloat16()  # of both signs
    found = torch.autograd.grad(value, [hidden, weight], grad)
    exact = torch.autograd.grad(expected, leaves, grad.double())
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype is torch.bfloat16
        agree(ours, theirs)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("distance", [2.0, 5.0, 9.0, 14.0, 24.0])
def test_a_likely_class_keeps_its_digits(distance, reduction):
    """Of ``p - 1`` bfloat16 keeps none from a distance of 6 on, float32 none from 17 on."""
    weight = torch.cat([torch.eye(FEATURES), -torch.eye(FEATURES), torch.zeros(31, FEATURES)])
    target = torch.arange(ROWS) % FEATURES
    hidden = distance * torch.eye(FEATURES)[target]
    hidden, weight = (each.bfloat16().requires_grad_() for each in (hidden, weight))
    value = HEAD(hidden, weight, target, reduction=reduction)
    expected, *leaves = truth(hidden, weight, target, reduction=reduction)
    assert ((value - expected).abs() <= 2**-8 * expected).all()
    found = torch.autograd.grad(value.sum(), [hidden, weight])
    exact = torch.autograd.grad(expected.sum(), leaves)
    for ours, theirs, rows in zip(found, exact, (ROWS, FEATURES), strict=True):
        error = (ours[:rows] - theirs[:rows]).norm(dim=1)
        assert (error <= NEAR * theirs[:rows].norm(dim=1)).all()


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_what_is_wanted_is_worked_out(wanted, reduction):
    hidden, weight, target = layer()
    expected, *leaves = truth(hidden, weight, target, reduction=reduction)
    tensors = [t.detach().requires_grad_(w) for t, w in zip((hidden, weight), wanted, strict=True)]
    value = HEAD(*tensors, target, reduction=reduction)
    agree(value, expected)
    if any(wanted):
        value.sum().backward()
    exact = torch.autograd.grad(expected.sum(), leaves)
    for tensor, theirs, want in zip(tensors, exact, wanted, strict=True):
        assert (tensor.grad is not None) == want
        if want:
            agree(tensor.grad, theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_absent_rows_leave_no_trace(reduction):
    hidden, weight, target = layer()
    spoiled = hidden.detach().clone()
    spoiled[::2] = math.nan
    spoiled.requires_grad_()
    target[::2] = -100
    value = HEAD(spoiled, weight, target, reduction=reduction)
    expected, *leaves = truth(hidden, weight, target, reduction=reduction)
    agree(value, expected)
    found = torch.autograd.grad(value.sum(), [spoiled, weight])
    for ours, theirs in zip(found, torch.autograd.grad(expected.sum(), leaves), strict=True):
        agree(ours, theirs)
    assert (found[0][::2] == 0).all()
    value = HEAD(spoiled, weight, torch.full_like(target, -100), reduction=reduction)
    assert (value == 0).all()
    for pull in torch.autograd.grad(value.sum(), [spoiled, weight]):
        assert (pull == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_gradient_of_0_is_0(reduction):
    hidden, weight, target = layer()
    value = HEAD(hidden, weight, target, reduction=reduction)
    for pull in torch.autograd.grad(value, [hidden, weight], torch.zeros_like(value)):
        assert (pull == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["hidden", "weight"])
def test_what_is_not_finite_goes_by_blocks_as_before(where, bad, monkeypatch):
    hidden, weight, target = (t.detach().clone() for t in layer())
    (hidden if where == "hidden" else weight)[3, 1] = bad
    leaves = [each.requires_grad_() for each in (hidden, weight)]
    found = []
    for kernel in (linear_attention.attend, None):
        monkeypatch.setattr(linear_attention, "attend", kernel)
        value = HEAD(*leaves, target, reduction="none")
        found.append((value, *torch.autograd.grad(value.sum(), leaves)))
    torch.testing.assert_close(*found, equal_nan=True, rtol=0, atol=0)


def test_what_it_cannot_serve_goes_by_blocks():
    hidden, weight, target = layer()
    cases = {
        "float32": (hidden.float(), weight.float(), target, {}),
        "mixed": (hidden, weight.float(), target, {}),
        "probabilities": (hidden, weight, draw(ROWS, CLASSES).softmax(1).bfloat16(), {}),
        "bias": (hidden, weight, target, {"bias": draw(CLASSES).bfloat16()}),
        "softcap": (hidden, weight, target, {"softcap": 3.0}),
    }
    for *tensors, options in cases.values():
        assert str(lm.explain_path(HEAD, *tensors, **options)).startswith("blocks")
    other = lm.linear_head(lm.focal_loss)
    assert str(lm.explain_path(other, hidden, weight, target)).startswith("blocks")
    assert str(lm.explain_path(HEAD, hidden, weight, target)).startswith("attention")


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (linear_products, "CPU", "pairs"),
        (linear_attention, "attend", None),
        (linear_attention, "MANY", 42),
        (linear_attention, "WIDE", 4),
    ],
)
def test_without_the_kernel_or_a_gain_blocks_serve(module, name, value, monkeypatch):
    monkeypatch.setattr(module, name, value)
    assert str(lm.explain_path(HEAD, *layer())).startswith("blocks")


def test_a_kernel_that_takes_something_else_is_none(monkeypatch):
    assert linear_attention._kernel() is linear_attention.attend is not None
    monkeypatch.setattr(linear_attention, "_ARGUMENTS", ["query", "key", "value", "scale"])
    assert linear_attention._kernel() is None


def test_derivatives_of_the_gradient_are_those_of_all_logits():
    hidden, weight, target = layer()
    value = HEAD(hidden, weight, target)
    (slope,) = torch.autograd.grad(value, hidden, create_graph=True)
    (second,) = torch.autograd.grad(slope.float().square().sum(), weight)
    expected, *leaves = truth(hidden, weight, target)
    (exact,) = torch.autograd.grad(expected, leaves[0], create_graph=True)
    agree(second, torch.autograd.grad(exact.square().sum(), leaves[1])[0], 2**-6)


def test_a_backward_pass_leaves_what_the_next_one_needs():
    hidden, weight, target = layer()
    value = HEAD(hidden, weight, target, reduction="none").sum()
    once, again = (torch.autograd.grad(value, [hidden, weight], retain_graph=True) for _ in "12")
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


def test_layouts_do_not_matter_and_nothing_is_overwritten():
    hidden, weight, target = layer()
    expected = torch.autograd.grad(HEAD(hidden, weight, target), [hidden, weight])
    turned = hidden.detach().t().contiguous().t().requires_grad_()
    spread = torch.stack([weight.detach(), -weight.detach()], -1)[..., 0].requires_grad_()
    before = turned.detach().clone(), spread.detach().clone()
    found = torch.autograd.grad(HEAD(turned, spread, target), [turned, spread])
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.equal(turned, before[0])
    assert torch.equal(spread, before[1])


def test_linear_cross_entropy_goes_the_same_way():
    hidden, weight, target = layer()
    path = lm.explain_path(lm.linear_cross_entropy, hidden, weight, target)
    assert str(path).startswith("attention")
    value = lm.linear_cross_entropy(hidden, weight, target)
    assert torch.equal(value, HEAD(hidden, weight, target))


def test_memory_is_that_of_the_gradients_and_a_mask(monkeypatch):
    """Gradients in float32 and bfloat16, and a few times the hidden states; no logits."""
    monkeypatch.setattr(linear_attention, "ROWS", 64)
    hidden, weight = draw(1024, 8).bfloat16(), draw(4000, 8).bfloat16()
    target = torch.randint(4000, (1024,), generator=torch.Generator().manual_seed(2))
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    cpu = torch.device("cpu")
    ours = peak_bytes(lambda: HEAD(*leaves, target).backward(), cpu)
    assert ours <= 1 << 20  # all logits: 8 MiB in bfloat16


def test_absent_rows_are_not_worked_out(monkeypatch):
    hidden, weight, target = layer()
    seen, attend = [], linear_attention.attend

    def watched(queries: Tensor, keys: Tensor, *args: Any, **options: Any) -> Any:
        seen.append((queries.shape[2], keys.shape[2]))
        return attend(queries, keys, *args, **options)

    monkeypatch.setattr(linear_attention, "attend", watched)
    target[7:] = -100
    HEAD(hidden, weight, target).backward()
    tiles = (13, 14, 14)  # of nearly one size
    assert seen == [(7, tile) for tile in tiles] + [(tile, 7) for tile in tiles]


@pytest.mark.parametrize("classes", [16, 17, 31, 33, 49])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_class_alone_at_the_end_is_one_of_all(classes, reduction):
    """In a piece of its own it would see nothing, and far below 0 that counts."""
    weight = draw(classes, FEATURES, seed=1).bfloat16() - 1
    hidden, target = torch.ones(ROWS, FEATURES).bfloat16(), torch.full((ROWS,), classes - 1)
    leaves = [(10 * hidden).requires_grad_(), weight.requires_grad_()]
    value = HEAD(*leaves, target, reduction=reduction)
    expected, *exact = truth(*leaves, target, reduction=reduction)
    agree(value, expected)
    found = torch.autograd.grad(value.sum(), leaves)
    for ours, theirs in zip(found, torch.autograd.grad(expected.sum(), exact), strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_factors_of_one_sign_or_the_other(sign):
    """And 0 among them; all rows of a piece are of one class, which sees no other row there."""
    hidden, weight, _ = layer()
    target = torch.arange(ROWS) // 7
    factor = (sign * draw(ROWS, seed=5).relu()).bfloat16()
    value = HEAD(hidden, weight, target, reduction="none")
    found = torch.autograd.grad(value, [hidden, weight], factor)
    expected, *leaves = truth(hidden, weight, target, reduction="none")
    exact = torch.autograd.grad(expected, leaves, factor.double())
    for ours, theirs in zip(found, exact, strict=True):
        agree(ours, theirs)


def test_a_factor_that_is_no_number_shows():
    hidden, weight, target = layer()
    value = HEAD(hidden, weight, target, reduction="none")
    factor = torch.ones_like(value).index_fill(0, torch.tensor([3]), math.nan)
    of_hidden, of_weight = torch.autograd.grad(value, [hidden, weight], factor)
    assert of_hidden[3].isnan().all()
    assert not of_hidden[4].isnan().any()
    assert of_weight.isnan().all()


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e7])
def test_large_logits_cost_no_digits_of_small_weights(scale):
    """The logarithm of a weight beside a log-sum-exp has its last digit, and not a smaller one."""
    hidden, weight, target = layer()
    hidden = (scale * hidden.detach()).requires_grad_()
    factor = draw(ROWS, seed=4).abs() * 1e-3
    value = HEAD(hidden, weight, target, sample_weight=factor, reduction="sum")
    found = torch.autograd.grad(value, [hidden, weight])
    expected, *leaves = truth(hidden, weight, target, sample_weight=factor, reduction="sum")
    for ours, theirs in zip(found, torch.autograd.grad(expected, leaves), strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("kind", ["plain", "likely", "shifted"])
def test_it_is_no_less_accurate_than_torch(kind, monkeypatch):
    """What rows have in common cancels in a sum of slopes, and must not decide the rounding."""
    monkeypatch.setattr(linear_attention, "ROWS", 512)
    monkeypatch.setattr(linear_attention, "CLASSES", 64)
    hidden, weight, target = (t.detach() for t in layer(400))
    if kind == "likely":
        hidden = 3 * weight[target]
    if kind == "shifted":  # half of the rows are of one class, as the head knows already
        shift, target[::2] = draw(32, seed=8), 0
        hidden, weight = 0.1 * draw(400, 32, seed=9) + shift, 0.01 * draw(CLASSES, 32, seed=10)
        weight[0] += math.log(CLASSES) * shift / (shift @ shift)
    leaves = [t.bfloat16().requires_grad_() for t in (hidden, weight)]
    expected, *exact = truth(*leaves, target)
    exact = torch.autograd.grad(expected, exact)
    errors = []
    for value in (HEAD(*leaves, target), F.cross_entropy(F.linear(*leaves), target)):
        found = torch.autograd.grad(value, leaves)
        errors.append([(f - e).norm().item() for f, e in zip(found, exact, strict=True)])
    for ours, torchs in zip(*errors, strict=True):
        assert ours <= torchs


def test_smoothing_in_a_program_with_another_default_device() -> None:
    hidden, weight, target = layer()
    expected = HEAD(hidden, weight, target, label_smoothing=0.1)
    with torch.device("meta"):
        found = HEAD(hidden, weight, target, label_smoothing=0.1)
    assert found.item() == expected.item()
