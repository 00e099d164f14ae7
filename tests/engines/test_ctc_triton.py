"""The Triton kernel of CTC, in Triton's interpreter and on a GPU if there is one.

The interpreter has to be chosen before Triton is imported, and then holds for the process: the
tests of the interpreter run in one of their own.
"""

import math
import os
import subprocess
import sys

import pytest
import torch

import lossmith as lm
from lossmith.engines import ctc
from lossmith.engines.alignments import in_logarithms

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not chosen")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


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


def question(steps: int, batch: int, width: int) -> tuple[torch.Tensor, ...]:
    """Repeats, empty targets, samples of no steps and targets that do not fit are among them."""
    generator = torch.Generator().manual_seed(steps + 7 * batch + 31 * width)
    emit = 4 * torch.randn(steps, batch, width + 1, generator=generator, dtype=torch.float64) - 5
    differs = torch.rand(batch, width, generator=generator) < 0.8
    input_lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    target_lengths = torch.randint(0, width + 1, (batch,), generator=generator)
    input_lengths[0], target_lengths[0] = steps, min(width, steps // 2)
    for sample, length in enumerate(input_lengths):
        emit[length:, sample] = math.nan
    return emit.transpose(0, 1).contiguous().transpose(0, 1), differs, input_lengths, target_lengths


@interpreted
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 2, 0), (9, 5, 3), (41, 3, 15), (70, 2, 16), (33, 2, 40)], ids=str
)
def test_the_kernel_equals_the_walk_in_logarithms(shape: tuple[int, int, int]) -> None:
    from lossmith.engines.triton.ctc import on_device

    given = question(*shape)
    value, posterior = on_device(*given, posterior=True)
    expected, share = in_logarithms(*given, posterior=True)
    assert posterior is not None
    assert share is not None
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(posterior, share, rtol=1e-11, atol=1e-13)
    alone, nothing = on_device(*given, posterior=False)
    assert nothing is None
    assert torch.equal(alone, value)


@interpreted
def test_an_impossible_symbol_leaves_the_others_alone() -> None:
    from lossmith.engines.triton.ctc import on_device

    given = question(9, 3, 3)
    given[0][:, 0, 2] = -math.inf
    for found, expected in zip(
        on_device(*given, posterior=True), in_logarithms(*given, posterior=True), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@interpreted
@pytest.mark.parametrize("classes", [1, 41, 401, 1271])
@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_losses_by_the_kernel_are_within_the_digits(loss, classes: int, monkeypatch) -> None:
    """Value and gradient in float32 against float64, strided scores."""
    from lossmith.engines.triton.ctc import on_device

    generator = torch.Generator().manual_seed(classes)
    scores = 3 * torch.randn(classes, 12, 2, generator=generator).permute(1, 2, 0)
    counts = torch.tensor([4, 2]) if classes > 1 else torch.zeros(2, dtype=torch.long)
    targets = torch.randint(1, max(classes, 2), (2, 4), generator=generator)
    rest = targets if classes > 1 else torch.zeros_like(targets), torch.tensor([12, 9]), counts
    scores = scores if loss is lm.ctc_with_logits_loss else scores.log_softmax(2)
    wide = scores.double().requires_grad_()
    (exact,) = torch.autograd.grad(expected := loss(wide, *rest, reduction="sum"), wide)
    monkeypatch.setattr(ctc, "_by_torch", lambda *a: None)
    monkeypatch.setattr(ctc, "_by_products", lambda *a: None)
    monkeypatch.setattr(ctc, "in_logarithms", on_device)
    leaf = scores.clone().requires_grad_()
    value = loss(leaf, *rest, reduction="sum")
    (gradient,) = torch.autograd.grad(value, leaf)
    eps = torch.finfo(torch.float32).eps
    assert value.item() == pytest.approx(expected.item(), rel=6 * eps, abs=1e-12)
    scale = max(exact.abs().max().item(), 1e-30)
    assert (gradient.double() - exact).abs().max().item() <= 16 * eps * scale


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("shape", [(9, 5, 3), (200, 16, 40), (300, 4, 700)], ids=str)
def test_on_a_gpu_the_kernel_equals_the_walk_in_logarithms(shape: tuple[int, int, int]) -> None:
    from lossmith.engines.triton.ctc import on_device

    given = tuple(tensor.cuda() for tensor in question(*shape))
    for found, expected in zip(
        on_device(*given, posterior=True), in_logarithms(*given, posterior=True), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("loss", [lm.ctc_loss, lm.ctc_with_logits_loss])
def test_on_a_gpu_a_loss_is_that_of_the_cpu_and_repeats(loss) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 8, 41, generator=generator).log_softmax(2)
    rest = torch.randint(1, 41, (8, 12), generator=generator), torch.full((8,), 60)
    rest = (*rest, torch.randint(0, 13, (8,), generator=generator))
    found = []
    for device in ("cpu", "cuda", "cuda"):
        leaf = scores.to(device).requires_grad_()
        value = loss(leaf, *(tensor.to(device) for tensor in rest))
        found.append((value.detach().cpu(), torch.autograd.grad(value, leaf)[0].cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[1][1], found[2][1])
