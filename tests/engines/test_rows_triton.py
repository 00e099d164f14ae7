"""The Triton kernels of losses over a softmax, in the interpreter and on a GPU if there is one.

The interpreter has to be chosen before Triton is imported, and then holds for the process: the
tests of the interpreter run in one of their own.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core import route
from lossmith.core.route import follow
from lossmith.engines import eligible, linear_head
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import ByKernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# the interpreter's numpy warns of what lanes without an element hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SHAPES = ((3, 41), (1, 401), (2, 1271), (4, 1), (2, 5, 3), (2, 4100), (3, 9001))
LOSSES: dict[str, tuple[Callable[..., Tensor], str, dict[str, Any]]] = {
    "cross_entropy": (lm.cross_entropy, "index", {}),
    "smoothed": (lm.cross_entropy, "index", {"label_smoothing": 0.1}),
    "weighted": (lm.cross_entropy, "index", {"weight": "factors", "label_smoothing": 0.2}),
    "capped": (lm.cross_entropy, "index", {"softcap": 5.0, "logit_scale": 2.0, "z_loss": 0.1}),
    "focal": (lm.focal_loss, "index", {"gamma": 0.5}),
    "poly": (lm.poly_loss, "index", {}),
    "adjusted": (lm.logit_adjusted_loss, "index", {"prior": "factors"}),
    "kl": (lm.kl_div_from_logits_loss, "logits", {}),
    "reverse_kl": (lm.reverse_kl_div_from_logits_loss, "logits", {"temperature": 2.0}),
    "js": (lm.js_div_from_logits_loss, "logits", {}),
    "total_variation": (lm.total_variation_from_logits_loss, "logits", {"temperature": 2.0}),
}


@pytest.mark.skipif(INTERPRETED, reason="this is the process with the interpreter")
def test_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels serve, on the CPU and at any size."""
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(eligible, "TRITON", {"cpu", "cuda"})


interpreted = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not chosen")
on_cpu = pytest.param("cpu", marks=interpreted)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
on_gpu = pytest.param("cuda", marks=gpu)


def spread(value: Tensor) -> Tensor:
    """Three times a value, and up to four times those of rows that are not reduced."""
    each = torch.linspace(3, 4, value.numel(), dtype=torch.float64, device=value.device)
    return (value * each.to(value.dtype).view(value.shape)).sum()


def outcome(
    loss: Callable[..., Tensor], tensors: list[Tensor], both: bool, **options: Any
) -> list[Tensor]:
    """Value and slopes; rows that are not reduced have gradients of their own."""
    leaves = [
        t.clone().requires_grad_(t.is_floating_point() and (both or not i))
        for i, t in enumerate(tensors)
    ]
    value = loss(*leaves, **options)
    slopes = torch.autograd.grad(spread(value), [x for x in leaves if x.requires_grad])
    return [value.detach(), *slopes]


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_as_accurate_as_the_plain_function(name, shape, dtype, device, served) -> None:
    loss, kind, options = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    # every second class, so that classes do not lie next to each other
    wide = torch.randn(2, shape[0], 2 * shape[1], *shape[2:], generator=generator) * 4
    logits, other = wide.to(dtype)[:, :, ::2].to(device)
    index = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator).to(device)
    index[1:2] = -100
    factors = 0.1 + torch.rand(shape[1], generator=generator).to(device)
    options = {k: factors if v == "factors" else v for k, v in options.items()}
    weight = torch.rand(index.shape, generator=generator).to(device)
    second, both = (index, False) if kind == "index" else (other, True)

    def wider(tensor: Any) -> Any:
        return tensor.double() if isinstance(tensor, Tensor) and tensor is not index else tensor

    for more in ({}, {"reduction": "none", "sample_weight": weight}):
        given = {**options, **more}
        path = lm.explain_path(loss, logits, second, **given)
        assert str(path).startswith("rows: Triton")
        found = outcome(loss, [logits, second], both, **given)
        before = follow(lambda call: call.compute() if call.engine is None else None)
        try:
            usual = outcome(loss, [logits, second], both, **given)
            exact = outcome(
                loss,
                [wider(logits), wider(second)],
                both,
                **{k: wider(v) for k, v in given.items()},
            )
        finally:
            follow(before)
        for mine, theirs, truth in zip(found, usual, exact, strict=True):
            # with few numbers the largest error of either is a matter of luck, as is whose logits
            # are rounded when the largest is taken off
            allowed = 2 * (theirs - truth).abs().max()
            roundings = 4 + logits.abs().max().item()
            allowed += roundings * torch.finfo(dtype).eps * truth.abs().max()
            assert (mine - truth).abs().max() <= allowed


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("apart", [3.0, 1.0, 0.3, 0.1, 1e-2, 1e-3])
@pytest.mark.parametrize("name", ["kl", "reverse_kl", "js"])
def test_divergences_keep_their_digits_near_equality(name, apart, device, served) -> None:
    """A difference of numbers of first order would leave an error of 1e-4 at a distance of 1e-3."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(20, 300, generator=generator)
    other = logits + apart * torch.randn(20, 300, generator=generator)
    divide = 2.0 if name == "reverse_kl" else 1.0

    def formula(x: Tensor, y: Tensor) -> Tensor:
        log_p, log_q = (x / divide).log_softmax(1), (y / divide).log_softmax(1)
        p, q = log_p.exp(), log_q.exp()
        log_m = ((p + q) / 2).log()
        each = {
            "kl": q * (log_q - log_p),
            "reverse_kl": p * (log_p - log_q),
            "js": (p * (log_p - log_m) + q * (log_q - log_m)) / 2,
        }
        return each[name].sum(1)

    loss, _, options = LOSSES[name]
    sides = [logits.to(device), other.to(device)]
    found = outcome(loss, sides, True, reduction="none", **options)
    exact = outcome(formula, [side.double() for side in sides], True)
    assert ((found[0] - exact[0]).abs() <= 2e-6 * exact[0]).all()
    for mine, truth in zip(found[1:], exact[1:], strict=True):
        assert (mine - truth).abs().max() <= 2e-6 * truth.abs().max()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("name", ["cross_entropy", "weighted", "capped", "js"])
def test_rows_in_parts_equal_whole_ones(name, device, served, monkeypatch) -> None:
    from lossmith.engines.triton import shares

    loss, kind, options = LOSSES[name]
    generator = torch.Generator().manual_seed(1)
    logits, other = 9 * torch.randn(2, 3, 20001, generator=generator).to(device)
    logits[0, :4096], logits[0, 20000] = -torch.inf, 50.0  # a part that says nothing
    second = torch.tensor([20000, 4095, 9000], device=device) if kind == "index" else other
    prior = torch.rand(20001, device=device)
    options = {k: prior if k == "weight" else v for k, v in options.items()}
    found = []
    for programs in (1, 9, 1024):
        monkeypatch.setattr(shares, "PROGRAMS", programs)
        found.append(outcome(loss, [logits, second], kind != "index", **options, reduction="none"))
    whole, *parts = found
    for some in parts:
        for mine, expected in zip(some, whole, strict=True):
            torch.testing.assert_close(mine, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
def test_absent_rows_may_hold_anything_and_wrong_labels_are_nan(device, served) -> None:
    x = torch.randn(4, 41, device=device)
    x[1] = torch.nan
    target = torch.tensor([3, -100, 41, 5], device=device)
    if device == "cuda":  # on the CPU the label is refused in words before
        value, slope = outcome(lm.cross_entropy, [x, target], False, reduction="none")
        assert value.isnan().tolist() == [False, False, True, False]
        assert slope[2].isnan().all()
    target[2] = 0
    value, slope = outcome(lm.cross_entropy, [x, target], False, reduction="none")
    assert value[1] == 0
    assert (slope[1] == 0).all()
    assert value.isfinite().all()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "poly"])
def test_a_label_that_is_excluded_costs_infinitely_much_and_has_a_gradient(
    name, device, served
) -> None:
    loss, _, options = LOSSES[name]
    x = torch.randn(2, 41, device=device)
    x[0, 3] = -torch.inf
    value, slope = outcome(loss, [x, torch.tensor([3, 5], device=device)], False, **options)
    assert value == torch.inf
    assert slope.isfinite().all()
    assert slope[0, 4] > 0


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sizes swapped": lambda x: x.mT.contiguous().mT,
    "samples last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "every second position": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "every second class": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "a part": lambda x: torch.nn.functional.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "columns": lambda x: x[:, :, 0, 0].T.contiguous().T,
    "one position": lambda x: x[:, :, :1, 1:2],
    "two positions": lambda x: x[:, :, :2, 1],
    "one row": lambda x: x[0, :, 0, 0],
}


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["cross_entropy", "smoothed", "focal"])
def test_layouts(name, layout, device, served) -> None:
    loss, _, options = LOSSES[name]
    generator = torch.Generator().manual_seed(4)
    x = LAYOUTS[layout](torch.randn(3, 19, 13, 10, generator=generator)).to(device)
    shape = (3, *x.shape[2:]) if x.ndim > 1 else ()
    labels = torch.randint(19, shape, generator=generator).to(device)
    if x.ndim > 1:
        labels.view(-1)[1] = -100
    for more in ({}, {"overwrite_input": True} if name != "focal" else {}):
        leaf = x.detach().requires_grad_()
        value = loss(leaf * 1, labels, **options, **more)
        (slope,) = torch.autograd.grad(value, leaf)
        expected, truth = outcome(loss, [x.cpu().double(), labels.cpu()], False, **options)
        assert (value.cpu() - expected).abs() <= 1e-6 * expected
        assert (3 * slope.cpu() - truth).abs().max() <= 1e-6 * truth.abs().max()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "kl", "js"])
def test_an_infinite_logit_means_certainty(name, device, served) -> None:
    loss, kind, options = LOSSES[name]
    x, y = torch.randn(2, 3, 41, device=device)
    x[0, 3] = x[1, 4] = y[0, 3] = torch.inf
    second = torch.tensor([3, 5, 0], device=device) if kind == "index" else y
    value, slope, *_ = outcome(loss, [x, second], False, reduction="none", **options)
    assert value[0] == 0
    assert value[1] == torch.inf if name != "js" else value[1] < 0.7
    if name == "cross_entropy":
        value, _ = outcome(loss, [x, second], False, reduction="none", label_smoothing=0.1)
        assert (value[:2] == torch.inf).all()
    assert value[2].isfinite()
    assert slope.isfinite().all()
    assert (slope[0] == 0).all()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_an_excluded_label_of_weight_0_costs_nothing(name, device, served) -> None:
    x, weight = torch.randn(2, 41, device=device), torch.ones(41, device=device)
    x[0, 3], weight[3] = -torch.inf, 0
    target = torch.tensor([3, 5], device=device)
    value, slope = outcome(LOSSES[name][0], [x, target], False, weight=weight, reduction="none")
    assert value[0] == 0
    assert (slope[0] == 0).all()
    assert slope.isfinite().all()


LINES: dict[str, Callable[[Tensor], Tensor]] = {
    "every second": lambda line: line.repeat_interleave(2)[::2],
    "one for all": lambda line: line[:1].expand(len(line)),
}


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("layout", LINES)
@pytest.mark.parametrize("name", ["cross_entropy", "smoothed", "focal"])
def test_layouts_of_weights_and_labels(name, layout, device, served) -> None:
    loss, _, options = LOSSES[name]
    x = torch.randn(6, 10, device=device)
    index, each = torch.arange(6, device=device), torch.arange(6.0, device=device) + 0.5
    weight = torch.arange(10.0, device=device) + 1
    lines = [LINES[layout](line) for line in (index, each, weight)]
    found, expected = (
        outcome(loss, [x, label], False, sample_weight=one, weight=factor, **options)
        for label, one, factor in (lines, [line.contiguous() for line in lines])
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    with_head = lm.linear_head(loss)
    tensors = [torch.randn(n, 4, device=device) for n in (6, 10)]
    found, expected = (
        outcome(with_head, [*tensors, label], False, weight=factor, **options)
        for label, _, factor in (lines, [line.contiguous() for line in lines])
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
def test_absent_rows_have_no_slope_under_any_shift(device, served) -> None:
    x, target = torch.randn(3, 10, device=device), torch.tensor([1, 2, -100], device=device)
    prior = torch.full((10,), 1e6, device=device)
    _, slope = outcome(lm.logit_adjusted_loss, [x, target], False, prior=prior, temperature=10.0)
    assert slope.isfinite().all()
    assert (slope[2] == 0).all()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
def test_rows_that_share_their_memory_are_not_overwritten(device, served) -> None:
    row = torch.randn(1, 10, device=device)
    target = torch.tensor([1, 2, 3, 4], device=device)

    def loss(row: Tensor, **options: Any) -> Tensor:
        return lm.cross_entropy((row * 1).expand(4, 10), target, **options)

    found, expected = outcome(loss, [row], True, overwrite_input=True), outcome(loss, [row], True)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@interpreted
def test_samples_that_are_farther_apart_than_32_bits_tell(served) -> None:
    apart = torch.empty(2**31 + 48, dtype=torch.bfloat16).as_strided((2, 16, 3), (2**31, 1, 16))
    apart.copy_(torch.randn(2, 16, 3))
    given = ByKernels(Against(), torch.arange(6))
    found = []
    for grid in (apart, apart.contiguous()):
        (value, _), numbers = given.values(grid)
        slopes = torch.empty(2, 16, 3)
        given.slopes(grid, numbers, value, None, slopes)
        found.append(slopes)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("cost", [None, lambda nll, p, rest: (nll, torch.ones_like(nll))])
@pytest.mark.parametrize("label", [41, -1, 2**40, -(2**62)])
def test_a_label_that_is_no_class_makes_its_row_nan(label, cost, device) -> None:
    """And no other: on the CPU checks of values refuse it before the kernels see it."""
    grid = torch.randn(1, 41, 3, device=device)
    given = ByKernels(Against(cost), torch.tensor([3, label, 5], device=device))
    (value, _), numbers = given.values(grid)
    slopes = torch.empty_like(grid)
    given.slopes(grid, numbers, value.new_ones(()), None, slopes)
    assert value.isnan().tolist() == [False, True, False]
    assert slopes[0, :, 1].isnan().all()
    assert slopes[0, :, ::2].isfinite().all()


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
def test_overwriting(device, served) -> None:
    x, target = torch.randn(4, 41, device=device), torch.tensor([3, 0, 40, 5], device=device)
    _, slope = outcome(lm.cross_entropy, [x, target], False)
    start = x.clone().requires_grad_()
    logits = start * 1
    value = 3 * lm.cross_entropy(logits, target, overwrite_input=True)
    (found,) = torch.autograd.grad(value, start)
    torch.testing.assert_close(found, slope)
    torch.testing.assert_close(logits.detach(), slope)


def test_float64_and_soft_targets_step_aside(served) -> None:
    x, target = torch.randn(4, 41), torch.tensor([3, 0, 40, 5])
    how = lm.explain_path(lm.cross_entropy, x.double(), target)
    assert how.how != "rows"
    assert lm.explain_path(lm.cross_entropy, x, x.softmax(1)).how != "rows"


@pytest.mark.parametrize("device", [on_cpu, on_gpu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none", "sample_weight": "rows"},
        {"weight": "classes", "label_smoothing": 0.2},
        {"softcap": 5.0, "logit_scale": 2.0, "z_loss": 0.1, "bias": "classes"},
    ],
    ids=str,
)
def test_linear_heads(options, dtype, device, served, monkeypatch) -> None:
    """Their blocks go through the kernels, and are right."""
    monkeypatch.setattr(linear_head, "FEW", 0)
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(n, 8, generator=generator).to(device, dtype) for n in (37, 401)]
    target = torch.randint(401, (37,), generator=generator).to(device)
    target[5] = -100
    made = {k: torch.rand(n, generator=generator) for k, n in (("rows", 37), ("classes", 401))}
    given = {k: made[v].to(device, dtype) if v in made else v for k, v in options.items()}
    from lossmith.engines.triton import rows

    counts: list[int] = []
    gauge = rows.gauge
    monkeypatch.setattr(
        rows, "gauge", lambda *a, **k: counts.append(a[0].shape[2]) or gauge(*a, **k)
    )
    head = lm.linear_head(lm.cross_entropy, memory=20000)
    found = outcome(head, [*tensors, target], True, **given)
    assert sum(counts) > 37
    assert 1 < max(counts) < 37
    exact = [t.double() for t in tensors]
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    bias = wide.pop("bias", 0.0)
    leaves = [t.requires_grad_() for t in exact]
    value = lm.cross_entropy(leaves[0] @ leaves[1].T + bias, target, **wide)
    truth = [value.detach(), *torch.autograd.grad(spread(value), leaves)]
    for mine, expected in zip(found, truth, strict=True):
        assert mine.dtype is dtype
        size = expected.abs().max()
        assert (mine - expected).abs().max() <= 16 * torch.finfo(dtype).eps * size
