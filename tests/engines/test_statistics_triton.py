"""The Triton kernels of region losses, in Triton's interpreter and on a GPU if there is one.

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
from lossmith.engines.label_maps import LabelMaps
from lossmith.engines.passes import COST, HIT, Measure
from lossmith.losses.region.overlap import class_pixels, mask_pixels
from lossmith.losses.region.statistics import _sums

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not chosen")
SETTINGS = [(False, None), (False, 0.0), (True, 2.5)]


@pytest.mark.slow
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


def by_class(squared: bool, gamma: float | None, ignore_index: int = -100) -> Measure:
    def plain(input, target):
        return _sums(class_pixels(input, target, ignore_index, gamma), squared)

    return Measure(plain, True, ignore_index, squared, gamma)


def by_mask(squared: bool, gamma: float | None) -> Measure:
    def plain(input, target):
        return _sums(mask_pixels(input, target, gamma), squared)

    return Measure(plain, False, 0, squared, gamma)


def agree(measure: Measure, logits: torch.Tensor, target: torch.Tensor) -> None:
    """Sums and slopes no farther from float64 than twice the plain function's, and an ulp."""
    from lossmith.engines.triton.statistics import Kernels

    kernels = Kernels(measure)
    found = kernels.sums(logits, target)

    def truth(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = (x if measure.by_class else x.squeeze(1)).detach().requires_grad_()
        soft = target if measure.by_class else target.squeeze(1)
        sums = measure.plain(given, soft.to(x.dtype) if soft.is_floating_point() else soft)
        by = torch.linspace(-1, 2, sums.numel(), dtype=torch.float64).view(sums.shape)
        (slope,) = torch.autograd.grad(sums, given, by.to(sums.dtype))
        return sums.detach().double(), slope.view(x.shape).double(), by

    sums, slopes, by = truth(logits.double())
    plain_sums, plain_slopes, _ = truth(logits.float() if logits.dtype.itemsize < 4 else logits)
    (found_slopes,) = kernels.slopes(logits, target, by, (True,))
    assert found_slopes.dtype is logits.dtype
    eps = torch.finfo(torch.float64 if logits.dtype is torch.float64 else torch.float32).eps
    limit = 2 * (plain_sums - sums).abs() + 16 * eps * sums.abs() + 1e-30
    assert ((found - sums).abs() <= limit).all()
    rounding = torch.finfo(logits.dtype).eps * slopes.abs()
    limit = 2 * (plain_slopes - slopes).abs().max() + 16 * eps * slopes.abs().max() + rounding
    assert ((found_slopes.double() - slopes).abs() <= limit).all()


@interpreted
@pytest.mark.parametrize(("squared", "gamma"), SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 401), (1, 41, 7), (3, 2, 1), (1, 5, 1271)])
def test_label_maps(shape, dtype, squared, gamma) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(shape, generator=generator)).to(dtype)
    label = torch.randint(shape[1], (shape[0], shape[2]), generator=generator)
    agree(by_class(squared, gamma), logits, label)
    agree(by_class(squared, gamma, ignore_index=1), logits, label.to(torch.uint8))
    strided = torch.randn((shape[0], 2 * shape[2], shape[1]), generator=generator).to(dtype)
    agree(by_class(squared, gamma), strided[:, ::2].mT, label.repeat_interleave(2, 1)[:, ::2])


@interpreted
@pytest.mark.parametrize(("squared", "gamma"), SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(2, 1, 401), (3, 1, 1), (1, 1, 1271)])
def test_masks(shape, dtype, squared, gamma) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = (3 * torch.randn(shape, generator=generator)).to(dtype)
    soft = torch.rand(shape, generator=generator).to(dtype)
    agree(by_mask(squared, gamma), logits, soft)
    agree(by_mask(squared, gamma), logits, soft > 0.5)


@interpreted
def test_likely_labels_keep_their_digits_and_far_ones_their_distance() -> None:
    logits = torch.tensor([[[30.0, -30.0, 0.0, 1e4], [0.0, 0.0, 200.0, -1e4]]])
    agree(by_class(True, 0.0), logits, torch.tensor([[0, 0, 0, 1]]))


@interpreted
@pytest.mark.parametrize("gap", [10.0, 20.0, 40.0])
def test_the_cost_of_a_likely_label_keeps_its_digits(gap) -> None:
    from lossmith.engines.triton.statistics import Kernels

    logits = torch.tensor([[[gap], [0.0], [0.0]]])
    sums = Kernels(by_class(False, 0.0)).sums(logits, torch.tensor([[0]]))
    expected = math.log1p(2 * math.exp(-gap))
    assert sums[0, 0, COST].item() == pytest.approx(expected, rel=1e-5)


@interpreted
@pytest.mark.parametrize("squared", [False, True])
def test_an_unlikely_label_whose_slope_is_large(squared) -> None:
    """Nobody else at its position is measured from it: its size would take their digits."""
    from lossmith.engines.triton.statistics import Kernels

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((1, 5, 400), generator=generator, dtype=torch.float64)
    logits[:, 0] += 14
    label = torch.randint(1, 5, (1, 400), generator=generator)
    by = torch.rand((1, 5, 7), generator=generator, dtype=torch.float64)
    by[..., HIT] *= 1e5
    kernels = Kernels(by_class(squared, None))
    (slopes,), (truth,) = (kernels.slopes(x, label, by, (True,)) for x in (logits.float(), logits))
    assert (slopes - truth).abs().max() <= 2e-6 * truth.abs().max()


@interpreted
def test_a_label_that_is_no_class_is_nan_in_its_sample() -> None:
    from lossmith.engines.triton.statistics import Kernels

    logits, label = torch.randn(2, 3, 9), torch.zeros(2, 9, dtype=torch.int64)
    label[1, 4] = 3
    sums = Kernels(by_class(False, None)).sums(logits, label)
    assert sums[0].isfinite().all()
    assert sums[1, :, 1].isnan().all()


@interpreted
def test_ignored_positions_may_hold_anything() -> None:
    from lossmith.engines.triton.statistics import Kernels

    logits, label = torch.randn(1, 3, 9), torch.zeros(1, 9, dtype=torch.int64)
    label[0, 4] = 255
    logits[:, :, 4] = torch.nan
    measure = by_class(True, 2.0, ignore_index=255)
    sums = Kernels(measure).sums(logits, label)
    torch.testing.assert_close(sums, LabelMaps(measure).sums(logits, label), rtol=1e-6, atol=1e-6)
    (slopes,) = Kernels(measure).slopes(logits, label, torch.ones(1, 3, 7), (True,))
    assert (slopes[:, :, 4] == 0).all()
    assert slopes.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_the_kernels_serve(dtype) -> None:
    logits = torch.randn(2, 5, 64, 65, dtype=dtype, requires_grad=True)
    label = torch.randint(5, (2, 64, 65), dtype=torch.uint8)
    there = logits.detach().cuda().requires_grad_()
    assert lm.explain_path(lm.dice_ce_loss, there, label.cuda()).how == "triton"
    value = lm.dice_ce_loss(there, label.cuda())
    value.backward()
    wide = logits.detach().double().requires_grad_()
    expected = lm.dice_ce_loss(wide, label)
    expected.backward()
    torch.testing.assert_close(value.cpu().double(), expected, rtol=1e-2, atol=1e-2)
    limit = 2 * torch.finfo(dtype).eps * wide.grad.abs().max()
    assert (there.grad.cpu().double() - wide.grad).abs().max() <= limit
