"""What docs/engines.md says of memory, compilers, Triton, overflow, layouts and empty batches."""

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core import route
from lossmith.engines import eligible, generated_label_maps, one_pass, pairs, row, statistics

Loss = Callable[..., Tensor]


class Case(NamedTuple):
    """A loss, the path that serves it, and its tensors, the first of which is differentiated."""

    loss: Loss
    how: str
    tensors: tuple[Tensor, ...]


def _cases() -> dict[str, Case]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    labels = torch.arange(6000) % 11
    signals = normal(30, 9, 150), torch.arange(90).view(9, 10) % 149 + 1
    lengths = torch.full((9,), 30), torch.full((9,), 10)
    image = normal(2, 3, 120, 120), torch.arange(28800).view(2, 120, 120) % 3
    alone = functools.partial(lm.one_pass, engine="blocks")
    return {
        "compiled": Case(lm.one_pass(lm.log_cosh_loss), "compiled", (normal(40000), normal(40000))),
        "blocks": Case(alone(lm.log_cosh_loss), "blocks", (normal(40000), normal(40000))),
        "rows": Case(lm.cross_entropy, "rows", (normal(6000, 11), labels)),
        "linear head": Case(
            lm.linear_head(lm.cross_entropy), "rows", (normal(6000, 5), normal(11, 5), labels)
        ),
        "statistics": Case(lm.dice_ce_loss, "blocks", image),
        "pairs": Case(lm.info_nce_loss, "tiles", (normal(600, 7), normal(600, 7))),
        "path": Case(lm.ctc_with_logits_loss, "plain", (*signals, *lengths)),
    }


CASES = _cases()
EACH = pytest.mark.parametrize("name", CASES)


pytestmark = pytest.mark.usefixtures("without_inductor")


def test_the_page_gives_the_sizes_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    sizes = f"{route.SMALL:,} elements", f"{row.FEW:,} logits", f"{pairs.SMALL:,} pairs"
    swift = f"{row.SWIFT:,} for each thread ({row.SHORT:,} of fewer than {row.LANES} "
    sizes = *sizes, swift, f"{row.UNLIKELY}, so"
    assert all(size in page for size in (*sizes, f"{pairs.BUDGET['cpu'] >> 20} MiB"))


def outcome(loss: Loss, tensors: tuple[Tensor, ...], **options: object) -> tuple[Tensor, Tensor]:
    leaf = tensors[0].detach().requires_grad_()
    value = loss(leaf, *tensors[1:], **options)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


@EACH
def test_the_path_is_the_one_that_the_page_names(name: str) -> None:
    case = CASES[name]
    assert lm.explain_path(case.loss, *case.tensors).how == case.how


@EACH
def test_float16_overflows_in_a_sum_and_never_on_the_way_to_a_mean(name: str) -> None:
    loss, _, tensors = CASES[name]
    half = tuple(t.half() if t.is_floating_point() else t for t in tensors)
    exact = tuple(t.double() if t.is_floating_point() else t for t in half)
    count = loss(*tensors, reduction="none").shape
    weight = torch.full(count, 6e4 if name == "statistics" else 3e3, dtype=torch.float16)
    mean = outcome(loss, half, sample_weight=weight)
    expected = outcome(loss, exact, sample_weight=weight.double())
    for found, wanted in zip(mean, expected, strict=True):
        # half a unit of float16, and the smallest step of its numbers below 6e-5
        torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=6e-8)
    total, slope = outcome(loss, half, sample_weight=weight, reduction="sum")
    assert total == torch.inf
    _, wanted = outcome(loss, exact, sample_weight=weight.double(), reduction="sum")
    torch.testing.assert_close(slope.double(), wanted, rtol=2e-3, atol=2e-3 * wanted.max().item())


@EACH
def test_strides_do_not_matter(name: str) -> None:
    loss, _, tensors = CASES[name]
    apart = tuple(t.repeat_interleave(2, t.ndim - 1)[..., ::2] for t in tensors)
    turned = tuple(t.mT.contiguous().mT if t.ndim > 1 else t for t in tensors)
    expected = outcome(loss, tensors)
    for strided in (apart, turned):
        assert any(not t.is_contiguous() for t in strided) or tensors[0].ndim == 1
        torch.testing.assert_close(outcome(loss, strided), expected, rtol=1e-5, atol=1e-7)


@EACH
def test_an_empty_batch_is_0_with_a_gradient(name: str) -> None:
    loss, _, tensors = CASES[name]
    batch = {"linear head": (0, None, 0), "path": (1, 0, 0, 0)}.get(name, (0,) * len(tensors))
    empty = tuple(
        t if d is None else t.narrow(d, 0, 0) for t, d in zip(tensors, batch, strict=True)
    )
    value, slope = outcome(loss, empty)
    assert value == 0
    assert slope.shape == empty[0].shape


@pytest.mark.parametrize("compiled", ["element", "statistics"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[...] can't allocate memory: 1")],
    ids=["gpu", "cpu"],
)
def test_memory_that_runs_out_is_no_fault_of_the_compiler(
    compiled: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(*_: object, **__: object) -> Callable[..., object]:
        def call(*_: object, **__: object) -> object:
            raise error

        return call

    monkeypatch.setattr(generated_label_maps, "_kernels", {})
    monkeypatch.setattr(statistics, "_failed", {})
    if compiled == "element":
        loss, tensors = lm.log_cosh_loss, CASES["compiled"].tensors
    else:
        size = generated_label_maps.PIECE
        loss, tensors = lm.dice_loss, (torch.randn(1, 2, size), torch.arange(size)[None] % 2)
    leaf = tensors[0].clone().requires_grad_()
    with monkeypatch.context() as full, lm.engine("one_pass"):
        full.setattr(torch, "compile", kernel)
        full.setattr(one_pass, "_compiled", kernel)
        with pytest.raises(RuntimeError, match=r"out of memory|allocate"):
            loss(leaf, tensors[1]).backward()
    assert leaf.grad is None
    assert not one_pass._failed
    assert not statistics._failed


STARVED = """
import resource, sys, torch, lossmith as lm
from pathlib import Path
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
left, right = torch.randn(2, 8192, 16, generator=generator)  # the matrix takes 256 MiB
hidden, weight = torch.randn(8192, 16, generator=generator), torch.randn(8000, 16)
labels = torch.arange(8192) % 8000  # the logits take 250 MiB
ours = {
    "pairs": lambda a: lm.info_nce_loss(a, right),
    "head": lambda a: lm.linear_head(lm.cross_entropy)(a, weight, labels),
}
whole = {
    "pairs": lambda a: torch.nn.functional.cross_entropy(a @ right.T, torch.arange(8192)),
    "head": lambda a: torch.nn.functional.cross_entropy(a @ weight.T, labels),
}
for name in ours:  # what is loaded once, and the threads of the backward pass
    if name == "head":
        ours[name](hidden.clone().requires_grad_()).backward()
    else:
        ours[name](left.clone().requires_grad_()).backward()
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, [pages * resource.getpagesize() + (200 << 20)] * 2)
for name in ours:
    first = (left if name == "pairs" else hidden).requires_grad_()
    try:
        whole[name](first).backward()
    except RuntimeError as error:
        assert "allocate memory" in str(error), error
    else:
        sys.exit(f"{name}: the whole fits, the limit says nothing")
    assert first.grad is None
    ours[name](first).backward()
    assert first.grad.isfinite().all()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_what_works_in_stripes_fits_where_the_whole_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch, lossmith as lm
from lossmith.engines.one_pass import missing_compiler
assert missing_compiler("cuda") == "Triton is not installed"
x, y = torch.randn(2, 6000, 11)
lm.cross_entropy(x.requires_grad_(), torch.arange(6000) % 11).backward()
lm.dice_ce_loss(torch.randn(2, 3, 120, 120), torch.arange(28800).view(2, 120, 120) % 3)
lm.info_nce_loss(torch.randn(600, 7), torch.randn(600, 7))
lm.ctc_with_logits_loss(torch.randn(30, 9, 15), torch.ones(9, 3).long(), [30] * 9, [3] * 9)
lm.one_pass(lm.log_cosh_loss, engine="blocks")(torch.randn(40000), torch.randn(40000))
"""


def test_nothing_but_a_gpu_needs_triton() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_gpu_without_triton_takes_the_plain_function(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, tensors = CASES["rows"]
    expected = outcome(lm.cross_entropy, tensors)
    monkeypatch.setattr(eligible, "TRITON", {"cpu"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert lm.explain_path(lm.cross_entropy, *tensors).how != "rows"
    torch.testing.assert_close(outcome(lm.cross_entropy, tensors), expected)
