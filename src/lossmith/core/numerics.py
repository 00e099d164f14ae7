"""Stable primitives. Each says which range it is exact on and why the plain form is not.

All are plain torch: they differentiate twice, run under vmap, jvp and ``torch.compile``. A
``torch.where`` evaluates both branches, so the branch not taken is always fed a harmless value:
otherwise its infinite gradient times the zero from ``where`` would be NaN.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# softplus(x) = x + log1p(exp(-x)); from x = 40 on, exp(-x) is below half an ulp of x in float64,
# so torch's kernel may return x itself there. torch's own default, 20, is off by 1e-10 relative.
_SOFTPLUS_LINEAR_FROM = 40.0


def is_number(option: float | Tensor, number: float) -> bool:
    """Whether an option is this very number. A tensor is not: it may be learned."""
    return not isinstance(option, Tensor) and option == number


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, relative accuracy on the whole line, one kernel."""
    return F.softplus(x, 1.0, _SOFTPLUS_LINEAR_FROM)


def _folded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``x`` counts as negative, and ``exp(-|x|)`` with the slope of that side at 0 too."""
    # not `where`: generated code that takes an exponential straight after a mask may need twice
    # the time (focal loss of 4 Mi elements on a CPU with AVX-512: 12 ms against 9)
    sign = torch.copysign(torch.ones_like(x), -x.detach())
    return sign > 0, torch.exp(x * sign)


def logistic_nll(x: Tensor, y: Tensor) -> Tensor:
    """``softplus(x) - x y``, for finite ``x`` and ``y`` in [0, 1]: a sum of two terms >= 0."""
    left, tail = _folded(x)
    return torch.where(left, -x * y, x * (1 - y)) + torch.log1p(tail)


def logistic_sides(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``softplus(x)``, ``softplus(-x)``, ``sigmoid(x)`` and ``sigmoid(-x)``, all exact.

    ``softplus(x) = max(x, 0) + softplus(-|x|)``: nothing is subtracted. At 0 all parts take the
    same branch, so that the two slopes of softplus there are 1/2 and -1/2. All four come from one
    exponential: a compiler knows it again only if it is written once.
    """
    left, tail = _folded(x)
    cost, likely = torch.log1p(tail), 1 / (1 + tail)
    rare = tail * likely
    against, toward = torch.where(left, 0.0, x) + cost, torch.where(left, -x, 0.0) + cost
    return against, toward, torch.where(left, rare, likely), torch.where(left, likely, rare)


def faded(cost: Tensor, chance: Tensor, rest: Tensor, gamma: float) -> Tensor:
    """``cost chance^gamma`` for ``chance = exp(-rest)``; the cost itself for gamma = 0.

    A small whole power is a product, which costs nothing beside an exponential. Any other is taken
    from ``rest``: a chance below the smallest number still has a square root above it.
    """
    if isinstance(gamma, (int, float)) and gamma in (0, 1, 2, 3):
        for _ in range(int(gamma)):
            cost = cost * chance
        return cost
    return cost * torch.exp(-gamma * rest)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``; -inf at 0.

    Left of -log 2, ``exp(x)`` is below 1/2 and ``log1p`` keeps its digits; right of it
    ``1 - exp(x)`` cancels and ``expm1`` is exact instead (Maechler 2012, R package Rmpfr).
    """
    small = x < -math.log(2.0)
    left = torch.log1p(-torch.exp(torch.where(small, x, -1.0)))
    right = torch.log(-torch.expm1(torch.where(small, -0.5, x)))
    return torch.where(small, left, right)


def expm1(x: Tensor) -> Tensor:
    """``exp(x) - 1`` with full relative accuracy, gradient included.

    torch takes ``result + 1`` for the gradient ``exp(x)``, which keeps no digits far left of 0.
    """
    left = x < -0.5
    far = torch.exp(torch.where(left, x, 0.0)) - 1
    return torch.where(left, far, torch.expm1(torch.where(left, 0.0, x)))


def log1p_square(x: Tensor) -> Tensor:
    """``log(1 + x^2)`` with full relative accuracy, without overflow of the square."""
    far = x.abs() > 1
    outer = torch.where(far, x, 1.0)
    inner = torch.where(far, 1 / outer, x)
    return 2 * outer.abs().log() + torch.log1p(inner * inner)


def xlogy(x: Tensor, y: Tensor) -> Tensor:
    """``x log(y)`` with 0 where ``x = 0``, whatever ``y`` is; its gradient in ``y`` is 0 there.

    ``torch.xlogy`` gives the value; its gradient at ``x = 0, y = 0`` is -inf in ``x`` and 0/0 in
    ``y``. Here an absent term has no pull at all.
    """
    absent = x == 0
    return torch.where(absent, 0.0, x * torch.where(absent, 1.0, y).log())


def xlogx(x: Tensor) -> Tensor:
    """``x log(x)``, 0 at 0 with gradient 0 (the one-sided limit of the gradient is -inf)."""
    return xlogy(x, x)


def times(x: Tensor, y: Tensor) -> Tensor:
    """``x y``, but 0 without gradient where ``x = 0`` and ``y`` is infinite or NaN."""
    absent = (x == 0) & ~torch.isfinite(y)
    return x * torch.where(absent, 0.0, y)


def safe_sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is the subgradient 0 (the plain one is infinite)."""
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def safe_norm(x: Tensor, p: float = 2.0, dim: int = -1) -> Tensor:
    """``p``-norm along ``dim`` with gradient 0 at the zero vector.

    Vectors are divided by the size of their largest element first, so squares neither overflow
    (from 1e19 in float32) nor vanish (below 1e-23).
    """
    if x.shape[dim] == 0:
        return x.sum(dim)
    size = x.abs()
    largest = size.amax(dim, keepdim=True).detach()
    if p == math.inf:
        return size.amax(dim)
    if is_number(p, 1):
        return size.sum(dim)
    # A factor of its own gradient-free kind: norm(x) = largest * norm(x / largest) for any value.
    unit = power_of_two(largest)
    scaled = x / unit
    if is_number(p, 2):
        root = safe_sqrt((scaled * scaled).sum(dim))
    else:
        zero = (size == 0).all(dim)
        power = torch.where(size == 0, 0.0, torch.where(size == 0, 1.0, size / unit).pow(p)).sum(
            dim
        )
        root = torch.where(zero, 0.0, torch.where(zero, 1.0, power).pow(1 / p))
    return root * unit.squeeze(dim)


def power_of_two(x: Tensor) -> Tensor:
    """The power of two at or below each ``x``, by which division is exact; 1 for 0, inf and NaN."""
    return torch.where((x > 0) & x.isfinite(), x, 1.0).log2().floor().exp2()


def alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their dtypes: torch makes no product of two."""
    dtype = torch.promote_types(one.dtype, other.dtype)
    return one.to(dtype), other.to(dtype)


def centred(x: Tensor, dim: int = -1) -> Tensor:
    """``x`` minus its mean along ``dim``; what rounding the mean leaves of a constant goes too."""
    if x.shape[dim] == 0:
        return x
    rest = x - x.mean(dim, keepdim=True)
    return rest - rest.mean(dim, keepdim=True)


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Vectors along ``dim`` brought to length 1; the zero vector stays 0 and passes no gradient.

    Scaled by the largest element first, as in :func:`safe_norm`.
    """
    if x.shape[dim] == 0:
        return x
    largest = x.abs().amax(dim, keepdim=True).detach()
    scaled = x / power_of_two(largest)
    square = (scaled * scaled).sum(dim, keepdim=True)
    zero = square == 0
    return scaled * torch.where(zero, 0.0, torch.where(zero, 1.0, square).rsqrt())


def softmax(input: Tensor, *, dim: int) -> Tensor:
    """Softmax along ``dim`` (required: torch's default guesses it from the rank).

    The row maximum is subtracted first, so any finite logits give finite probabilities.

    Example:
        >>> import torch, lossmith
        >>> lossmith.softmax(torch.tensor([1000.0, 0.0]), dim=-1)
        tensor([1., 0.])
    """
    return torch.softmax(input, dim)


def log_softmax(input: Tensor, *, dim: int) -> Tensor:
    """Logarithm of :func:`softmax`, without ever leaving log space.

    Example:
        >>> import torch, lossmith
        >>> lossmith.log_softmax(torch.tensor([1000.0, 0.0]), dim=-1)
        tensor([    0., -1000.])
    """
    return torch.log_softmax(input, dim)


def masked_log_softmax(input: Tensor, keep: Tensor | None, *, dim: int) -> Tensor:
    """Log-softmax over the kept entries; the others get 0 and pass no gradient.

    A large negative finite fill (not -inf) keeps a row without any kept entry free of NaN.
    """
    if keep is None:
        return torch.log_softmax(input, dim)
    lowest = torch.finfo(input.dtype).min / 4
    scores = torch.where(keep, input, lowest)
    return torch.where(keep, torch.log_softmax(scores, dim), 0.0)


def masked_logsumexp(input: Tensor, keep: Tensor, *, dim: int) -> Tensor:
    """``log sum exp`` over the kept entries; finite and without gradient where none is kept."""
    lowest = torch.finfo(input.dtype).min / 4
    return torch.logsumexp(torch.where(keep, input, lowest), dim)


def softcapped(logits: Tensor, scale: float = 1.0, softcap: float | None = None) -> Tensor:
    """``softcap tanh(scale x / softcap)``; without a cap ``scale x``."""
    if softcap is not None:
        return softcap * torch.tanh(logits * (scale / softcap))
    return logits if is_number(scale, 1) else scale * logits


def take_class(values: Tensor, index: Tensor, *, dim: int = 1) -> Tensor:
    """``values[..., index, ...]`` along ``dim``, one entry per position of ``index``.

    On a device whose index values are not checked, an index outside gives NaN in its own sample
    instead of a broken context.
    """
    if values.device.type == "cpu":
        return values.gather(dim, index.unsqueeze(dim)).squeeze(dim)
    inside = (index >= 0) & (index < values.shape[dim])
    taken = values.gather(dim, torch.where(inside, index, 0).unsqueeze(dim)).squeeze(dim)
    return torch.where(inside, taken, math.nan)


def class_margin(input: Tensor, index: Tensor, *, dim: int = 1) -> Tensor:
    """``log((1 - p) / p)`` of the class ``index`` under the softmax of ``input``.

    The log-sum-exp of the other logits minus the own one: nothing cancels, however likely the
    class. ``-log p`` is its softplus, ``1 - p`` its sigmoid.
    """
    others = torch.logsumexp(_without(input, index, dim), dim)
    return others - take_class(input, index, dim=dim)


def class_nll(input: Tensor, index: Tensor, *, dim: int = 1) -> Tensor:
    """``-log softmax(input)[index]`` with full relative accuracy, value and gradient.

    The usual ``logsumexp - own`` cancels as soon as the class is likely: for logits (10, 0) in
    float32 it is 0.04 % off, from (17, 0) on it is 0.
    """
    return softplus(class_margin(input, index, dim=dim))


def _without(input: Tensor, index: Tensor, dim: int) -> Tensor:
    """``input`` with the entry of each index removed: lowered to a value that adds nothing.

    -inf would do, but a row without other finite entries would then have a NaN gradient.
    """
    if input.device.type != "cpu":
        index = index.clamp(0, input.shape[dim] - 1)
    lowest = torch.finfo(input.dtype).min
    return input.scatter(dim, index.unsqueeze(dim), lowest)


def accurate_log_softmax(input: Tensor, *, dim: int) -> Tensor:
    """Log-softmax whose value keeps its digits where a class has nearly all the probability.

    ``log p = (x - max) - log1p(sum of the other exponentials)``: torch's kernel takes
    ``log(1 + small)`` there, which loses ``small``.
    """
    if input.shape[dim] == 0:
        return input
    top = input.argmax(dim, keepdim=True)
    shifted = input - input.gather(dim, top)
    others = shifted.exp().scatter(dim, top, 0.0).sum(dim, keepdim=True)
    return shifted - torch.log1p(others)


def not_below(x: Tensor, low: float) -> Tensor:
    """``max(x, low)`` with the gradient of ``x`` everywhere.

    For bounds that only rounding can break, and for floors that must not end the learning of what
    lies under them. The second summand is 0, and carries the gradient.
    """
    return torch.where(x < low, low + (x - x.detach()), x)
