"""Losses of an N x M similarity, by stripes of its rows: the matrix never exists as a whole.

Each of these losses is a function of the products of two sets of vectors, ``left @ right.T``, row
by row. A stripe of rows is multiplied out, turned into the values of its rows and then, in place,
into the slope of the loss by each product; two more multiplications carry the slope on to the
vectors, and the next stripe takes its place. What a stripe cannot know, such as the normalisers of
the columns, a pass over all stripes collects first. The backward pass only scales.

A stripe of R rows costs 6 R M D flops in its three multiplications; it reads ``right`` twice, and
reads and writes its gradient once: 16 M D bytes. 128 rows hide that traffic behind the arithmetic.
More rows gain nothing, and lose as soon as the stripe with its temporaries no longer stays in the
cache, so these get ``BUDGET`` bytes. If M is so large that this is less than ``LEAST`` rows of
them, they get those: no more than the vectors themselves take at D = 256.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lossmith.core.autocast import rounded
from lossmith.core.checks import eager
from lossmith.core.reduction import Terms, reduce
from lossmith.core.route import Call
from lossmith.core.signature import HALF
from lossmith.engines.one_pass import Path, connect
from lossmith.engines.pull import is_one

# Up to so many products the whole matrix fits the cache, and stripes gain nothing.
SMALL = 1 << 18
# Bytes of a stripe with its temporaries, so that it stays in the last cache.
BUDGET = {"cpu": 1 << 24, "cuda": 1 << 25}
LEAST = 256


class Sides(NamedTuple):
    """Two sets of vectors, whose scores are ``left @ right.T / temperature + bias``."""

    left: Tensor
    right: Tensor
    temperature: float | Tensor = 1.0
    bias: float | Tensor = 0.0

    def scores(self) -> Tensor:
        """All scores at once, ``(N, M)``."""
        _, _, temperature, bias = self
        scores = self.left @ self.right.mT
        scores = scores / temperature if _acts(temperature, 1) else scores
        return scores + bias if _acts(bias, 0) else scores

    def stripe(self, part: slice, out: Tensor) -> Tensor:
        """The scores of some rows of ``left``, in the memory of ``out``."""
        left, right, temperature, bias = self.detached()
        scores = torch.mm(left[part], right.mT, out=out)
        scores = scores.div_(temperature) if _acts(temperature, 1) else scores
        return scores.add_(bias) if _acts(bias, 0) else scores

    def detached(self) -> "Sides":
        """The same without a graph."""
        left, right, *rest = self
        numbers = (part.detach() if isinstance(part, Tensor) else part for part in rest)
        return Sides(left.detach(), right.detach(), *numbers)

    def wanted(self) -> list[bool]:
        """Which of the four pass a gradient on."""
        return [isinstance(part, Tensor) and part.requires_grad for part in self]


def _acts(constant: float | Tensor, neutral: int) -> bool:
    return isinstance(constant, Tensor) or constant != neutral


class Step(Protocol):
    """What becomes of a stripe of products.

    Attributes:
        copies: How many tensors of the size of a stripe live at a time, the stripe among them.
        looks: Whether slopes need what a pass over all values collects.
    """

    copies: int
    looks: bool

    def value(self, tile: Tensor, place: Tensor) -> Tensor | Terms:
        """The values of the rows at ``place``; ``tile``, ``(R, M)``, may be overwritten."""
        ...

    def finish(self, values: Tensor) -> Tensor:
        """The values of the samples, from those of all rows, after the last stripe."""
        ...

    def spread(self, force: Tensor) -> Tensor:
        """What pulls at the samples, passed on to the rows."""
        ...

    def pull(self, tile: Tensor, place: Tensor, force: Tensor) -> tuple[Tensor | Terms, Tensor]:
        """The values, and the slope of ``(force * all values).sum()`` by each product."""
        ...


class Rows:
    """A step in plain torch, ``rows(scores, place)``, differentiated by autograd.

    Every row is a sample, unless ``total`` is given: then they all add up to a single value, which
    ``total`` makes of their sum without changing its slope.
    """

    looks = False

    def __init__(
        self,
        rows: Callable[[Tensor, Tensor], Tensor | Terms],
        *,
        copies: int = 10,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.rows, self.copies, self.total = rows, copies, total

    def of(self, sides: Sides) -> Tensor | Terms:
        """The whole loss at once."""
        scores = sides.scores()
        if scores.shape[0] == 0:  # a largest element of nothing is not there to be taken
            return scores.sum(1)
        values = self.rows(scores, torch.arange(scores.shape[0], device=scores.device))
        return self.finish(values) if isinstance(values, Tensor) else values

    def value(self, tile: Tensor, place: Tensor) -> Tensor | Terms:
        """The rows at ``place``."""
        return self.rows(tile, place)

    def finish(self, values: Tensor) -> Tensor:
        """Each row by itself, or the total."""
        return values if self.total is None else self.total(values.sum())

    def spread(self, force: Tensor) -> Tensor:
        """Each row by itself; a single number for all broadcasts."""
        return force

    def pull(self, tile: Tensor, place: Tensor, force: Tensor) -> tuple[Tensor | Terms, Tensor]:
        """By autograd, within the stripe."""
        with torch.enable_grad():
            leaf = tile.detach().requires_grad_()
            result = self.rows(leaf, place)
            values = result.loss if isinstance(result, Terms) else result
            pull = (force[place] if force.ndim else force.expand_as(values)).to(values.dtype)
            (slope,) = torch.autograd.grad(values, leaf, pull)
        loss = values.detach()
        return (result._replace(loss=loss) if isinstance(result, Terms) else loss), slope


class Swept(NamedTuple):
    """What a pass over all stripes gives: the normaliser is that of :class:`Terms`."""

    values: Tensor
    normaliser: Tensor | None
    slopes: list[Tensor]


@dataclass(frozen=True)
class Pairs:
    """The engine of a loss of pairs; the function on its card is the truth it has to equal.

    Attributes:
        sides: ``sides(*tensors, **options)`` returns the :class:`Sides`, in plain torch;
            ``sample_weight`` is among the options.
        step: ``step(*tensors, **options)`` returns the :class:`Step`.
        stacked: All tensors of real numbers are stacked into both sides.
        learnable: Options that ``sides`` passes a gradient to.
    """

    sides: Callable[..., Sides]
    step: Callable[..., Step]
    stacked: bool = False
    learnable: tuple[str, ...] = ()

    def plan(self, call: Call) -> Path:
        """Whether stripes serve a call."""
        if not eager(*call.arguments()):
            return Path("plain", "a transform, forward-mode AD or a tensor subclass is at work")
        fixed = {k: v for k, v in call.options.items() if k not in self.learnable}
        for name, value in (*fixed.items(), ("sample_weight", call.weight)):
            if isinstance(value, Tensor) and value.requires_grad:
                return Path("plain", f"{name} wants a gradient")
        real = [tensor for tensor in call.tensors if tensor.is_floating_point()]
        rows = sum(len(tensor) for tensor in real) if self.stacked else len(real[0])
        if rows * rows <= SMALL:
            return Path("plain", f"{rows} x {rows} similarities fit the cache as a whole")
        return Path("tiles", f"{rows} x {rows} similarities come in stripes of rows")

    def __call__(self, call: Call) -> Tensor | None:
        """The value, connected to whatever wants a gradient; None if stripes do not serve."""
        if self.plan(call).how == "plain":
            return None
        given = call.arguments()
        needs = tuple(i for i, t in enumerate(given) if torch.is_grad_enabled() and t.requires_grad)
        once = len(needs) > 0 and call.reduction != "none"  # else the forces are known too late
        bare = call.over([t.detach().float() if t.dtype in HALF else t.detach() for t in given])
        step = self.step(*bare.tensors, **self._options(bare))
        slopes: tuple[Tensor, ...] = ()
        if once:
            swept, slopes = self._pulled(bare, needs, step, None)
        else:
            swept = _sweep(self.sides(*bare.tensors, **self._options(bare)), step)
        terms = Terms(step.finish(swept.values), swept.normaliser)
        weight = None if bare.weight is None else bare.weight.to(terms.loss.dtype)
        value = rounded(reduce(terms, weight, call.reduction), call.tensors[0])
        if call.reduction == "mean":
            slopes = tuple(slope.div_(_divisor(terms, weight)) for slope in slopes)

        again = None if once else functools.partial(self._pulled, bare, needs, step)

        def pull(grad: Tensor, needed: Any, leaves: Any, *slopes: Tensor) -> Any:
            found = slopes
            if again is not None:
                found = again(grad)[1]
            elif not is_one(grad):
                found = tuple(slope * grad for slope in slopes)
            return [
                slope.to(leaf.dtype) if need else None
                for slope, leaf, need in zip(found, leaves, needed, strict=True)
            ]

        return connect(call, needs, value, pull, slopes) if needs else value

    def _options(self, call: Call) -> dict[str, Any]:
        """All options of a call and its weights, the defaults of its function among them."""
        named = inspect.signature(call.body).parameters.values()
        every = {p.name: p.default for p in named if p.kind is p.KEYWORD_ONLY}
        del every["reduction"]
        return {**every, **call.options, "sample_weight": call.weight}

    def _pulled(
        self, call: Call, needs: tuple[int, ...], step: Step, grad: Tensor | None
    ) -> tuple[Swept, tuple[Tensor, ...]]:
        """Values, and slopes of their sum by the arguments ``needs``, weighted by ``grad``."""
        leaves = {i: t.detach().requires_grad_(i in needs) for i, t in enumerate(call.arguments())}
        own = call.over(list(leaves.values()))
        with torch.enable_grad():
            sides = self.sides(*own.tensors, **self._options(own))
        samples = call.way.out_shape(call.tensors, call.way.sizes(call.tensors))
        force = sides.left.new_ones(samples) if grad is None else grad.to(sides.left.dtype)
        if call.weight is not None:
            force = force * call.weight.to(force.dtype)
        force = step.spread(force)
        if step.looks and grad is None:
            _sweep(sides, step)
        swept = _sweep(sides, step, force)
        reached = [part for part in sides if isinstance(part, Tensor) and part.requires_grad]
        return swept, torch.autograd.grad(reached, [leaves[i] for i in needs], swept.slopes)


def stripe_rows(right: Tensor, copies: int) -> int:
    """How many rows a stripe has, by the cost model above."""
    room = BUDGET["cpu" if right.device.type == "cpu" else "cuda"]
    row = len(right) * right.element_size()
    return max(1, max(LEAST, room // row) // copies)


@torch.no_grad()
def _sweep(sides: Sides, step: Step, force: Tensor | None = None) -> Swept:
    """Pass over all stripes; with ``force``, one number per row, for slopes as well."""
    left, right = sides.left.detach(), sides.right
    count = len(left)
    rows = min(count, stripe_rows(right, step.copies))
    stripe = left.new_empty(rows, len(right))
    pull = None if force is None else _Pull(sides)
    parts: list[Terms] = []
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        place = torch.arange(part.start, part.stop, device=left.device)
        scores = sides.stripe(part, stripe[: len(place)])
        if pull is None or force is None:
            result = step.value(scores, place)
        else:
            result, slope = step.pull(scores, place, force)
            pull.add(part, slope)
        parts.append(result if isinstance(result, Terms) else Terms(result))
    normalisers = [part.normaliser for part in parts if part.normaliser is not None]
    return Swept(
        torch.cat([part.loss for part in parts]),
        torch.cat(normalisers) if normalisers else None,
        [] if pull is None else pull.slopes(),
    )


class _Pull:
    """The slopes of sides, summed over stripes; those of single numbers in float64."""

    def __init__(self, sides: Sides) -> None:
        self.sides, self.wanted = sides.detached(), sides.wanted()
        left, right, *_ = self.sides
        self.left, self.right = torch.empty_like(left), torch.zeros_like(right)
        self.along, self.all = left.new_zeros(2, dtype=torch.float64)

    def add(self, part: slice, slope: Tensor) -> None:
        """Carry the slope by the scores of some rows on."""
        left, right, *_ = self.sides
        by_left, by_right, by_temperature, by_bias = self.wanted
        if by_left or by_temperature:
            toward = torch.mm(slope, right, out=self.left[part])
            if by_temperature:  # the sum of slopes times products
                self.along += (left[part] * toward).sum(dtype=torch.float64)
        if by_right:
            self.right.addmm_(slope.mT, left[part])
        if by_bias:
            self.all += slope.sum(dtype=torch.float64)

    def slopes(self) -> list[Tensor]:
        """By those of the four that want one."""
        temperature = self.sides.temperature
        if _acts(temperature, 1):
            self.left.div_(temperature)
            self.right.div_(temperature)
        each = (self.left, self.right, -self.along / temperature / temperature, self.all)
        return [
            found if found.ndim > 1 else found.to(part.dtype).view_as(part)
            for found, part, wanted in zip(each, self.sides, self.wanted, strict=True)
            if wanted and isinstance(part, Tensor)
        ]


def _divisor(terms: Terms, weight: Tensor | None) -> Tensor | int:
    """What the mean divides by."""
    loss, normaliser, *_ = terms
    if weight is not None:
        normaliser = weight if normaliser is None else normaliser * weight
    if normaliser is None:
        return loss.numel()
    total = normaliser.sum()
    return torch.where(total == 0, 1.0, total)
