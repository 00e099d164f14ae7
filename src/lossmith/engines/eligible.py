"""When a fast path may serve. In every other case the plain function does."""

import importlib.util
import math

import torch
from torch import Tensor

from lossmith.core.checks import transforming

MANY = 256
# Classes up to which torch's softmax and log-softmax on the CPU are off by no more than one of few:
# their sums, kept in a handful of numbers, are 2 times as far off at 16,000, 12 times at 128,000
SHORT_ROW = 1 << 12
TRITON = {"cuda"}  # kinds of device that lossmith's Triton kernels serve


def on_gpu(tensor: Tensor) -> bool:
    """Whether Triton's kernels are to serve, if Triton is there."""
    return tensor.device.type in TRITON


def by_triton(tensor: Tensor) -> bool:
    """Whether Triton's kernels serve."""
    return on_gpu(tensor) and importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result
def transformed() -> bool:
    """Whether a ``torch.func`` transform is active around what a compiler is tracing."""
    return transforming()


def undefined(value: Tensor) -> bool:
    """Whether a kernel's result holds NaN, so that the plain function has to look at it again.

    ``0 * inf`` is NaN to a kernel, and 0 to a loss that knows why the factor is 0. The look is
    free on the CPU; elsewhere it would synchronise, and the answer is yes without looking.
    ``inf - inf`` may raise a false alarm.
    """
    if not value.is_cpu:
        return True
    return math.isnan((value if value.ndim == 0 else value.detach().sum()).item())


def sequential(scores: Tensor) -> Tensor:
    """Scores ``(*, C)`` for a kernel that adds up over many classes one by one.

    In float32 its rounding would grow with their number: 15 ulp at 1000 classes, 300 at 10,000.
    """
    many = scores.ndim > 0 and scores.shape[-1] > MANY
    return scores.double() if many else scores
