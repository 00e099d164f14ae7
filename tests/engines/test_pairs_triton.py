"""The Triton kernels of the pairs engine, in Triton's interpreter and on a GPU if there is one.

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
from lossmith.engines import matched, pairs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not chosen")
# its numpy warns of what lanes without an element hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SHAPES = ((1, 1), (1, 41), (41, 1), (5, 401), (3, 1271))


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


def kernels() -> Any:
    from lossmith.engines.triton.pairs import Kernels

    return Kernels


def stripe(shape: tuple[int, int], dtype: torch.dtype, strided: bool) -> Tensor:
    generator = torch.Generator().manual_seed(shape[0] + 7 * shape[1])
    rows, count = shape
    wide = 8 * torch.randn(rows, count + 5 * strided, generator=generator, dtype=torch.float64)
    return wide.to(dtype)[:, :count]


def worst(found: Tensor, truth: Tensor) -> float:
    """Largest error in units of the dtype, relative to each number."""
    scale = truth.abs().clamp(min=1e-30)
    return float(((found.double() - truth).abs() / scale).max()) / torch.finfo(found.dtype).eps


each = pytest.mark.parametrize("shape", SHAPES, ids=str)


@interpreted
@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kernels_are_no_worse_than_torchs(shape: tuple[int, int], dtype: torch.dtype) -> None:
    scores = stripe(shape, dtype, strided=dtype is torch.float32)
    exact = scores.double()
    rows, count = shape
    force, along = torch.linspace(0.5, 2, rows, dtype=dtype), torch.linspace(1, 3, count).to(dtype)
    shift, sides = exact.logsumexp(1).to(dtype), exact.logsumexp(0).to(dtype)

    def every(made: Any) -> list[Tensor]:
        top, total = torch.full((count,), -1e30, dtype=dtype), torch.zeros(count, dtype=dtype)
        made.merge_columns(scores[: rows // 2 + 1], (top, total))
        if rows > 1:
            made.merge_columns(scores[rows // 2 + 1 :], (top, total))
        one, two, three = scores.clone(), scores.clone(), scores.clone()
        made.exponentials(one, shift, force)
        made.exponentials(two, shift, force, sides, along)
        value = made.logistic(three, force)
        bare = scores.clone()
        assert torch.equal(made.logistic(bare), value)
        assert torch.equal(bare, scores)
        columns = top + total.log()
        return [made.log_sum_exp(scores.clone()), columns, one, two, value, three]

    by_row = force.double()[:, None] * torch.exp(exact - shift.double()[:, None])
    by_column = along.double() * torch.exp(exact - sides.double())
    truth = [
        exact.logsumexp(1),
        exact.logsumexp(0),
        by_row,
        by_row + by_column,
        torch.nn.functional.softplus(exact, 1.0, 100.0).sum(1),
        force.double()[:, None] * exact.sigmoid(),
    ]
    # an exponent is rounded at its own size, as tl.exp rounds it on a GPU too
    rounded = [1.0, 1.0, *[exact.max().item() - exact.min().item()] * 2, *[exact.abs().max()] * 2]
    found, plain = every(kernels()), every(matched.InPlace)
    for mine, theirs, expected, size in zip(found, plain, truth, rounded, strict=True):
        if dtype is torch.float64:
            torch.testing.assert_close(mine, expected, rtol=1e-13, atol=1e-30)
        else:
            assert worst(mine, expected) <= 1.5 * worst(theirs, expected) + 1 + size


@interpreted
def test_tails_of_the_logistic_keep_their_digits() -> None:
    scores = torch.tensor([[-80.0, -20.0, -16.7, -5.0, 0.0, 5.0, 20.0, 90.0, -1e38]]).T.contiguous()
    expected = torch.nn.functional.softplus(scores.double(), 1.0, 100.0).squeeze(1)
    assert worst(kernels().logistic(scores), expected) < 4


@interpreted
def test_sums_of_nothing_stay_finite() -> None:
    """What is left out has a quarter of the lowest number for a score; a row may be left out."""
    lowest = torch.finfo(torch.float32).min / 4
    scores = torch.full((3, 41), lowest)
    assert (kernels().log_sum_exp(scores) == lowest).all()
    top, total = torch.full((41,), lowest), torch.zeros(41)
    kernels().merge_columns(scores, (top, total))
    assert (top == lowest).all()
    assert (total == 3).all()


MATCHED: dict[str, Callable[..., Tensor]] = {
    "info_nce": lm.info_nce_loss,
    "clip": lambda *t, **o: lm.info_nce_loss(*t, symmetric=True, **o),
    "nt_xent": lm.nt_xent_loss,
    "siglip": lm.siglip_loss,
}
losses = pytest.mark.parametrize("name", MATCHED)


def worked_out(name: str, device: str, **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(2, 19, 9, generator=generator, dtype=torch.float64).to(device)
    leaves = [*draws, torch.tensor([0.4], dtype=torch.float64, device=device)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    value = MATCHED[name](*leaves[:2], temperature=leaves[2], **options)
    return [value, *torch.autograd.grad(value.sum(), leaves)]


@interpreted
@losses
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_engine_with_these_kernels(
    name: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.arange(19) % 3 / 2
    expected = worked_out(name, "cpu", reduction=reduction, sample_weight=weight)
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: 8)
    monkeypatch.setattr(matched, "kernels_for", lambda scores: kernels())
    found = worked_out(name, "cpu", reduction=reduction, sample_weight=weight)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@losses
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_engine_on_a_gpu(name: str, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = worked_out(name, "cpu", reduction=reduction)
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: 8)
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = worked_out(name, "cuda", reduction=reduction)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left.cpu(), right, rtol=1e-9, atol=1e-12)
