"""The engine of losses over a softmax: as accurate as the plain function, and stepping aside."""

import math
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.contract.api import pairs
from lossmith.contract.cases import Case
from lossmith.contract.registry import Check
from lossmith.core import route
from lossmith.core.memory import peak_bytes
from lossmith.core.route import follow
from lossmith.engines import exponential
from lossmith.engines.rows import layout

ORACLES = Path(__file__).parents[1] / "oracles"
# rows, short rows, positions, positions with few of them, one long row
SHAPES = ((500, 90), (4000, 10), (3, 19, 40, 33), (900, 90, 2), (1, 40000))
SETTINGS = [
    *((shape, torch.float32) for shape in SHAPES),
    *((SHAPES[0], dtype) for dtype in (torch.float64, torch.bfloat16, torch.float16)),
]
WEIGHT = "a factor for each class"


@pytest.fixture(autouse=True, params=["exp", "exp2"])
def _on_either_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exponential, "BY_TWO", request.param == "exp2")


def plainly(call: Callable[[], Any]) -> Any:
    """Without any engine or kernel."""
    before = follow(lambda other: other.compute() if other.engine is None else None)
    try:
        return call()
    finally:
        follow(before)


def calls() -> Iterator[Any]:
    """Name, loss, kind of its second tensor, options."""
    for options in (
        {},
        {"label_smoothing": 0.1},
        {"weight": WEIGHT},
        {"weight": WEIGHT, "label_smoothing": 0.2},
        {"softcap": 5.0},
        {"logit_scale": 0.3},
        {"z_loss": 0.1},
        {"softcap": 7.0, "logit_scale": 2.0, "z_loss": 0.01, "label_smoothing": 0.1},
    ):
        for kind in ("index", "probabilities"):
            yield lm.cross_entropy, kind, options
    yield lm.focal_loss, "index", {}
    yield lm.focal_loss, "index", {"gamma": 0.5, "weight": WEIGHT}
    yield lm.generalized_cross_entropy_loss, "index", {}
    yield lm.poly_loss, "index", {}
    yield lm.logit_adjusted_loss, "index", {"prior": WEIGHT}
    yield lm.balanced_softmax_loss, "index", {"class_counts": WEIGHT}
    yield lm.entropy, "nothing", {}
    for divergence in (
        lm.kl_div_from_logits_loss,
        lm.reverse_kl_div_from_logits_loss,
        lm.js_div_from_logits_loss,
        lm.total_variation_from_logits_loss,
    ):
        yield divergence, "logits", {}
        yield divergence, "logits", {"temperature": 3.0}


def outcome(
    loss: Callable[..., Tensor], tensors: list[Tensor], wanted: list[bool], **options: Any
) -> list[Tensor]:
    """Value and slopes, of three times the sum of the values."""
    leaves = [t.clone().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
    value = loss(*leaves, **options)
    total = (value * 3).float().sum() if value.dtype is not torch.float64 else (value * 3).sum()
    slopes = torch.autograd.grad(total, [leaf for leaf in leaves if leaf.requires_grad])
    return [value.detach(), *slopes]


def by_blocks(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Cross-entropy by blocks of rows, of few logits too."""
    return lm.cross_entropy(input, target, sample_weight=torch.ones(len(target)), **options)


FAR = (
    (lm.cross_entropy, "index"),
    (by_blocks, "index"),
    (lm.cross_entropy, "probabilities"),
    (lm.focal_loss, "index"),
    (lm.kl_div_from_logits_loss, "logits"),
    (lm.reverse_kl_div_from_logits_loss, "logits"),
    (lm.js_div_from_logits_loss, "logits"),
    (lm.total_variation_from_logits_loss, "logits"),
)


@pytest.mark.parametrize("shift", [-300.0, -88.0, -80.0, 30.0, 86.0, 300.0])
@pytest.mark.parametrize(("loss", "kind"), FAR)
@pytest.mark.parametrize("shape", [(500, 90), (4000, 10)], ids=str)
def test_a_shift_of_all_logits_changes_nothing(loss, kind, shape, shift) -> None:
    """Not even the digits: exponentials may vanish or overflow unless the largest is taken off."""
    generator = torch.Generator().manual_seed(0)
    # multiples of 2^-10 are not rounded by the shift
    logits, other = (torch.randn(2, *shape, generator=generator) * 2**11).round() / 2**10
    second = {
        "index": torch.randint(shape[1], shape[:1], generator=generator),
        "probabilities": torch.softmax(other, 1),
        "logits": other,
    }[kind]
    far = [logits + shift, second + shift if kind == "logits" else second]
    far[0][::2] = logits[::2]  # beside rows that need nothing
    found = outcome(loss, far, [True, kind == "logits"], reduction="none")
    exact = [t.double() if t.is_floating_point() else t for t in (logits, second)]
    truth = plainly(lambda: outcome(loss, exact, [True, kind == "logits"], reduction="none"))
    for one, other in zip(found, truth, strict=True):
        assert (one - other).abs().max() < 6e-6


@pytest.mark.parametrize("shift", [-5.0, 5.0])
@pytest.mark.parametrize(("loss", "kind"), FAR)
def test_a_shift_of_every_row_changes_nothing(loss, kind, shift) -> None:
    """So small that no piece is told apart by it."""
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 500, 90, generator=generator)
    index = torch.randint(90, (500,), generator=generator)
    second = {"index": index, "probabilities": torch.softmax(other, 1), "logits": other}[kind]
    wanted = [True, kind == "logits"]
    moved = second + shift if kind == "logits" else second
    found = outcome(loss, [logits + shift, moved], wanted, reduction="none")
    exact = [t.double() if t.is_floating_point() else t for t in (logits, second)]
    truth = plainly(lambda: outcome(loss, exact, wanted, reduction="none"))
    for one, other in zip(found, truth, strict=True):
        assert (one - other).abs().max() < 6e-6


def adjusted(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    prior = torch.linspace(0.01, 1.0, input.shape[1])
    return lm.logit_adjusted_loss(input, target, prior=prior, **options)


MOVED = ((partial(lm.cross_entropy, logit_scale=2.0), "index"), (adjusted, "index"))


@pytest.mark.parametrize(("loss", "kind"), [*FAR, *MOVED])
@pytest.mark.parametrize("shape", [(500, 90), (2500, 90), (9000, 10)], ids=str)
def test_logits_far_apart(loss, kind, shape) -> None:
    """Many exponentials count as nothing, those of labels among them; and one class is excluded."""
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, *shape, generator=generator) * 60
    logits[:, 3] = other[:, 3] = -math.inf
    index = torch.randint(4, shape[1], shape[:1], generator=generator)
    second = {"index": index, "probabilities": torch.softmax(other, 1), "logits": other}[kind]
    # a row in which nothing is far
    logits[7, 4:] = 0.0
    wanted = [True, kind == "logits"]
    found = outcome(loss, [logits, second], wanted, reduction="none")
    exact = [t.double() if t.is_floating_point() else t for t in (logits, second)]
    truth = plainly(lambda: outcome(loss, exact, wanted, reduction="none"))
    for one, other in zip(found, truth, strict=True):
        assert (one - other).abs().max() < 6e-6 * max(1.0, other.abs().max().item())
    assert (found[1][:, 3] == 0).all()


@pytest.mark.parametrize(("shape", "dtype"), SETTINGS, ids=str)
@pytest.mark.parametrize(("loss", "kind", "options"), list(calls()))
def test_as_accurate_as_the_plain_function(loss, kind, options, shape, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(2, *shape, generator=generator) * 4).to(dtype)
    index = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    index[0] = -100
    second = {
        "index": [index],
        "probabilities": [torch.softmax(other.float(), 1).to(dtype)],
        "logits": [other],
        "nothing": [],
    }[kind]
    factors = 0.1 + torch.rand(shape[1], generator=generator)
    options = {k: factors if v is WEIGHT else v for k, v in options.items()}
    weight = (torch.rand(index.shape, generator=generator) - 0.3).clamp(min=0)
    tensors, wanted = [logits, *second], [True, kind == "logits"][: 1 + len(second)]

    def wide(tensor: Any) -> Any:
        floating = isinstance(tensor, Tensor) and tensor.is_floating_point()
        return tensor.double() if floating else tensor

    for more in (
        {"reduction": "mean"},
        {"reduction": "none", "sample_weight": weight},
        {"reduction": "sum", "sample_weight": weight},
    ):
        given = {**options, **more}
        assert lm.explain_path(loss, *tensors, **given).how == "rows"
        found = outcome(loss, tensors, wanted, **given)
        usual = plainly(lambda g=given: outcome(loss, tensors, wanted, **g))
        exact = plainly(
            lambda g=given: outcome(
                loss, [wide(t) for t in tensors], wanted, **{k: wide(v) for k, v in g.items()}
            )
        )
        # in float64 there is no truth to compare with: the two differ by what both round
        roundings = 200 if dtype is torch.float64 else 4
        for mine, theirs, truth in zip(found, usual, exact, strict=True):
            allowed = 2 * (theirs - truth).abs().max()
            allowed += roundings * torch.finfo(dtype).eps * truth.abs().max()
            assert (mine - truth).abs().max() <= allowed


def with_options() -> list[Any]:
    """The laws of cross-entropy under options that make it another loss than its card claims."""
    truth = runpy.run_path(str(ORACLES / "cross_entropy.py"))["cross_entropy"]
    found: list[Any] = []
    for options in ({"z_loss": 0.1}, {"softcap": 3.0, "logit_scale": 2.0}):
        card = replace(
            lm.card("cross_entropy"),
            convex=False,
            gradient_bound=None,
            same_as=None,
            variants=(options,),
        )
        found += [
            pytest.param(law, case, id=f"{law.name}-{case}")
            for law, case in pairs(card, truth)
            if case.options and not law.once
        ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(("law", "case"), with_options())
def test_law_under_options_of_the_logits(
    law: Check, case: Case, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:
        monkeypatch.setattr(route, "SMALL", 0)
        monkeypatch.setattr(layout, "PER_THREAD", 8)
    law.run(case)


@pytest.mark.parametrize("memory", ["channels_last", "strided", "transposed"])
def test_any_layout(memory: str) -> None:
    base = torch.randn(4, 30, 20, 20)
    x = {
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "strided": torch.randn(4, 60, 20, 40)[:, ::2, :, ::2].copy_(base),
        "transposed": base.transpose(2, 3).contiguous().transpose(2, 3),
    }[memory]
    target = torch.randint(30, (4, 20, 20))
    (value, slope), (expected, usual) = (
        outcome(lm.cross_entropy, [tensor, target], [True, False], reduction="none")
        for tensor in (x, base)
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, usual)


def test_absent_rows_may_hold_anything() -> None:
    x = torch.randn(500, 100)
    target = torch.randint(100, (500,))
    target[::3] = -100
    few = outcome(lm.cross_entropy, [x[target >= 0], target[target >= 0]], [True, False])
    x[::3] = torch.nan
    value, slope = outcome(lm.cross_entropy, [x, target], [True, False])
    torch.testing.assert_close(value, few[0])
    torch.testing.assert_close(slope[target >= 0], few[1])
    assert (slope[::3] == 0).all()


@pytest.mark.parametrize("far", [60.0, 1e4])
def test_unlikely_and_certain_classes(far: float) -> None:
    x = torch.zeros(400, 100)
    x[:, 0] = far
    index = torch.arange(400) % 2
    value, slope = outcome(lm.cross_entropy, [x, index], [True, False], reduction="none")
    x = x.double()
    exact = plainly(lambda: outcome(lm.cross_entropy, [x, index], [True, False], reduction="none"))
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(slope.double(), exact[1], rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("far", [1e2, 1e6, 1e12])
def test_certain_rows_have_a_bounded_divergence(far: float) -> None:
    first, second = torch.zeros(400, 100), torch.zeros(400, 100)
    first[:, 0] = far
    found = outcome(lm.js_div_from_logits_loss, [first, second], [True, True])
    p, q, m = 1.0, 0.01, 0.505  # of the certain class; the others share the rest of q
    exact = 0.5 * (math.log(p / m) + q * math.log(q / m) + 0.99 * math.log(2))
    assert found[0].item() == pytest.approx(exact, rel=1e-6)


def test_infinite_logits_reach_the_limit() -> None:
    x = torch.zeros(400, 100)
    x[:, 0] = torch.inf
    found = outcome(lm.cross_entropy, [x, torch.zeros(400).long()], [True, False])
    assert found[0] == 0
    assert (found[1] == 0).all()


def test_overwriting_takes_no_new_memory_and_is_noticed() -> None:
    x, target = torch.randn(600, 100), torch.randint(100, (600,))
    expected = outcome(lm.cross_entropy, [x, target], [True, False])
    start = x.clone().requires_grad_()
    logits = start * 1
    value = lm.cross_entropy(logits, target, overwrite_input=True)
    torch.testing.assert_close(value.detach(), expected[0])
    torch.testing.assert_close(logits.detach() * 3, expected[1])
    torch.testing.assert_close(torch.autograd.grad(value * 3, start)[0], expected[1])
    logits = start * 1
    product = logits * logits  # needs the logits in its backward pass
    value = lm.cross_entropy(logits, target, overwrite_input=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value + product.sum(), start)
    value = lm.cross_entropy(start * 1, target, overwrite_input=True)
    with pytest.raises(RuntimeError, match="leaves nothing to differentiate twice"):
        torch.autograd.grad(value, start, create_graph=True)


def test_logits_are_left_alone_without_permission() -> None:
    x, target = torch.randn(600, 100), torch.randint(100, (600,))
    kept = x.clone()
    outcome(lm.cross_entropy, [x.requires_grad_(), target], [True, False])
    assert torch.equal(x.detach(), kept)


def test_path_is_explained() -> None:
    x, target = torch.randn(600, 100), torch.randint(100, (600,))
    assert str(lm.explain_path(lm.cross_entropy, x, target)).startswith("rows: ")
    shares = torch.softmax(x, 1).requires_grad_()
    assert lm.explain_path(lm.cross_entropy, x, shares).how != "rows"
    lm.cross_entropy(x, shares).backward()
    assert shares.grad is not None


def test_wrong_values_are_worded_as_ever() -> None:
    x, target = torch.randn(600, 100), torch.randint(100, (600,))
    target[7] = 100
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 99\], got 100"):
        lm.cross_entropy(x, target)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\], got -?\d"):
        lm.cross_entropy(x, x)
    with pytest.raises(ValueError, match=r"sample_weight must be >= 0 and finite, got -1\.0"):
        lm.cross_entropy(x, target, sample_weight=torch.full((600,), -1.0))


def test_divergence_of_logits_keeps_one_gradient_and_no_log_probability() -> None:
    first, second = torch.randn(2, 400, 5000)
    first.requires_grad_()

    def usual() -> Tensor:
        logs = first.log_softmax(1), second.log_softmax(1)
        return torch.nn.functional.kl_div(*logs, log_target=True, reduction="batchmean")

    cpu = torch.device("cpu")
    lm.kl_div_from_logits_loss(first, second)
    own = peak_bytes(lambda: lm.kl_div_from_logits_loss(first, second).backward(), cpu)
    first.grad = None
    assert own <= peak_bytes(lambda: usual().backward(), cpu) / 2


def test_excluded_classes_are_no_reason_to_step_aside() -> None:
    x = torch.randn(600, 100)
    x[:, 3:9] = -torch.inf
    value, slope = outcome(lm.entropy, [x], [True], reduction="none")
    assert value.isfinite().all()
    keep = [c for c in range(100) if not 3 <= c < 9]
    usual = outcome(lm.entropy, [x[:, keep]], [True], reduction="none")
    torch.testing.assert_close(value, usual[0])
    torch.testing.assert_close(slope[:, keep], usual[1])


@pytest.mark.parametrize("loss", [lm.cross_entropy, by_blocks])
@pytest.mark.parametrize("shift", [-200.0, 200.0])
def test_a_glance_that_misses_a_row_costs_no_digits(loss, shift) -> None:
    x, target = torch.randn(300, 800), torch.randint(800, (300,))
    x[1] += shift
    found = outcome(loss, [x, target], [True, False], reduction="none")
    exact = outcome(loss, [x.double(), target], [True, False], reduction="none")
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (lm.cross_entropy, {}),
        (by_blocks, {}),
        (lm.cross_entropy, {"weight": WEIGHT}),
        (lm.cross_entropy, {"label_smoothing": 0.1}),
        (lm.cross_entropy, {"z_loss": 0.1}),
        (lm.poly_loss, {}),
    ],
)
@pytest.mark.parametrize("shape", [(64, 100), (400, 100), (4000, 10), (300, 800)], ids=str)
@pytest.mark.parametrize(("dtype", "deep"), [(torch.float32, -87.0), (torch.float64, -707.0)])
def test_an_unlikely_label_that_a_glance_misses(loss, options, shape, dtype, deep) -> None:
    """Its exponential is there, yet the odds against it overflow."""
    x = torch.zeros(shape, dtype=dtype)
    x[:, 0], x[1, 0] = 20.0, deep
    weight = torch.linspace(0.5, 1.0, shape[1], dtype=dtype)
    options = {k: weight if v is WEIGHT else v for k, v in options.items()}
    target = torch.zeros(shape[0], dtype=torch.long)
    found = outcome(loss, [x, target], [True, False], reduction="none", **options)
    exact = plainly(
        lambda: outcome(loss, [x.double(), target], [True, False], reduction="none", **options)
    )
    assert exact[0].isfinite().all()
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("loss", [lm.reverse_kl_div_from_logits_loss, lm.js_div_from_logits_loss])
def test_slopes_near_equality_keep_their_digits(loss, shift) -> None:
    """They are in proportion to the difference of the logits, which is exact."""
    generator = torch.Generator().manual_seed(0)
    x, step = torch.randn(2, 200, 1000, generator=generator) * 3
    x = x + shift
    y = x + 1e-4 * step
    slope = outcome(loss, [x, y], [True, False], reduction="none")[1]
    exact = plainly(lambda: outcome(loss, [x.double(), y.double()], [True, False]))[1] * len(x)
    assert (slope - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_total_variation_near_equality_is_closer_than_the_difference_of_softmaxes() -> None:
    """An error of a sum of exponentials is one of every class on that side."""
    generator = torch.Generator().manual_seed(0)
    x, step = torch.randn(2, 200, 1000, generator=generator)
    y = x + 1e-3 * step
    exact = 0.5 * (x.double().softmax(1) - y.double().softmax(1)).abs().sum(1)
    found = lm.total_variation_from_logits_loss(x, y, reduction="none")
    plain = 0.5 * (x.softmax(1) - y.softmax(1)).abs().sum(1)
    errors = [(value / exact - 1).square().mean().sqrt().item() for value in (found, plain)]
    assert errors[0] < 0.75 * errors[1]
