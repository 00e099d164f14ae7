"""Exponentials on the CPU, by whichever kernel of torch is fast on the processor.

``torch.exp`` is MKL's where torch is built with it, which serves processors of Intel: 0.12 ns a
number in float32 (one thread), and 24 where the result vanishes. On an EPYC of AMD it takes 0.6 to
0.9, and 13 to 50 where the result vanishes. ``torch.exp2`` is torch's own: 0.3 ns there, 0.7 for
what vanishes.
"""

import math

import torch
from torch import Tensor

_LOG2_E = math.log2(math.e)
# Depths below the largest logit whose exponential may count as 0, a little before it vanishes. A
# glance at so many classes of so many rows tells whether to see to it, which takes two steps more.
_DEEPEST, _GLANCE = {torch.float32: -80.0, torch.float64: -700.0}, 16
# Size of the largest logit up to which its product with log2(e), taken off products that are not
# rounded, leaves a factor of each row that is next to 1
_NEAR = 2.0**16
# Classes below which torch is slow to find the largest of a row: 1.2 ns a number, 0.3 from there on
NARROW = 32


def _prefers_powers_of_two() -> bool:
    """Whether exp2 is the faster one here."""
    tell = getattr(torch.cpu, "get_capabilities", dict)
    name = str(tell().get("cpu_name", "Intel"))
    return torch.backends.mkl.is_available() and "Intel" not in name


BY_TWO = _prefers_powers_of_two()


def by_two(numbers: Tensor) -> bool:
    """Whether their exponentials come from exp2."""
    return BY_TWO and numbers.dtype is torch.float32 and numbers.is_cpu


def better_lowered(logits: Tensor) -> bool:
    """Whether exponentials are faster of logits less the largest of their row.

    The product with ``log2(e)`` is rounded at its size, so exp2 does not do for any others: a depth
    of d is off by ``6e-8 d``, as by the rounding of the depth itself, a logit of 40 by 2e-6.
    """
    return by_two(logits) and (logits.ndim > 2 or logits.shape[1] >= NARROW)


def exp_of(depths: Tensor, out: Tensor) -> Tensor:
    """Exponentials of depths below the largest logit of a row, or the log-sum-exp, in ``out``.

    Each of 2e-35 and less (1e-304 in float64) may be 0. On the CPU only.
    """
    if by_two(out):
        return torch.mul(depths, _LOG2_E, out=out).exp2_()
    deepest = _DEEPEST[out.dtype]
    if glance(depths)[0] > deepest:
        return torch.exp(depths, out=out)
    torch.clamp(depths, min=deepest, out=out).exp_()
    return torch.threshold_(out, 1.01 * math.exp(deepest), 0.0)


def lowered_exp(logits: Tensor, top: Tensor, out: Tensor) -> Tensor:
    """Exponentials of logits less the largest of their row, in ``out``, as :func:`exp_of`.

    Times a factor of each row that is next to 1. On the CPU only.
    """
    if by_two(out):
        low, high = (end.item() for end in torch.aminmax(top))
        if low > -_NEAR and high < _NEAR:  # one pass makes depths in powers of two
            return torch.add(top * -_LOG2_E, logits, alpha=_LOG2_E, out=out).exp2_()
    return exp_of(torch.sub(logits, top, out=out), out)


def glance(logits: Tensor) -> tuple[float, float]:
    """The least and the largest of some of the logits of a piece. On the CPU only."""
    some = logits[tuple([slice(None, None, 1 + size // _GLANCE) for size in logits.shape])]
    low, high = torch.aminmax(some)
    return low.item(), high.item()
