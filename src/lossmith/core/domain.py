"""Where a value may lie. A domain checks users' values and generates the tests' values.

A tensor domain becomes an argument when it is called with the names of its dimensions:
``REAL("N C *")`` is a real tensor with a batch, a class and any further dimensions. Option domains
(``POSITIVE``, ``Choice(...)``) are used as they stand, under ``Card.options``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lossmith.core.checks import bare, checkable, fail, fail_type, require_all, within

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Domain:
    """What every domain has in common.

    Attributes:
        name: Short name, shown by the catalogue.
        rule: How an error message ends the sentence "it must ...".
        fill: A harmless member of the domain, put where a sample is absent.
        floating: True: floating point only. False: integers or bool only. None: any real dtype.
        dims: Names of the dimensions, once the domain is an argument.
        number: Whether a Python float may stand for a tensor full of it; the loss spreads it.
        as_is: Whether the loss gets whole numbers in the dtype they come in: a map of bytes is not
            to grow to eight times its size.
    """

    name: str
    rule: str
    fill: float = 0.0
    floating: bool | None = True
    index: ClassVar[bool] = False  # numbers of places, which the loss gets as int64
    dims: tuple[str, ...] = ()
    number: bool = False
    as_is: bool = False

    def __call__(self, dims: str) -> "Domain":
        """This domain as an argument with the dimensions named in ``dims``."""
        return replace(self, dims=tuple(dims.split()))

    def check_tensor(self, name: str, value: Tensor, sizes: Sizes) -> None:
        """Refuse a tensor with a value outside the domain. ``sizes`` maps dimension names."""
        if self.checks_values and not self.seen(value, sizes):
            require_all(name, self.rule, self.inside(value), value)

    @property
    def checks_values(self) -> bool:
        """Whether :meth:`check_tensor` does anything."""
        domain = type(self)
        return domain.check_tensor is not Domain.check_tensor or domain.holds is not Domain.holds

    def seen(self, value: Tensor, sizes: Sizes) -> bool:
        """Whether a look shows every value inside, or may not be taken: it would stall a device."""
        if torch.compiler.is_compiling():
            return False
        plain = bare(value)
        if not checkable(plain) or plain.numel() == 0:
            return True
        return self.holds(plain.detach() if plain.requires_grad else plain, sizes)

    def holds(self, plain: Tensor, sizes: Sizes) -> bool:
        """Whether one pass over the values shows all of them inside; False if it cannot tell."""
        return False

    def inside(self, value: Tensor) -> Tensor:
        """Where the values lie in the domain."""
        raise NotImplementedError(self.name)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Ordinary members in float64 (or int64), for tests."""
        raise NotImplementedError(self.name)


@dataclass(frozen=True)
class Interval(Domain):
    """Real numbers between two ends; ``spread`` is the scale of ordinary values for tests."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    enforced: bool = True
    spread: float = 2.0
    several: bool = False  # whether an option may hold more than one number
    endless: bool = False  # whether an option may be infinite

    @property
    def checks_values(self) -> bool:
        """Whether a finite end has to be enforced on tensors."""
        return self.enforced and (self.low > -math.inf or self.high < math.inf)

    def holds(self, plain: Tensor, sizes: Sizes) -> bool:
        """Whether the smallest and the largest value lie in the interval. On the CPU only."""
        smallest, largest = torch.aminmax(plain)
        return self.contains(smallest.item()) and self.contains(largest.item())

    def inside(self, value: Any) -> Any:
        """Where the values lie in the interval, or whether a number does; NaN does not."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above & below

    def check_option(self, name: str, value: Any) -> None:
        """Refuse an option outside the interval. Tensors are checked where that is free."""
        if isinstance(value, Tensor):
            if value.numel() != 1 and not self.several:
                fail(name, "be a number or have one element", value)
            # A learnable parameter: its values are watched on the CPU only, as for any tensor.
            self.check_tensor(name, value.detach(), {})
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            fail_type(name, "be a number", value)
        if not self.contains(value):
            fail(name, self.rule, value)
        if abs(value) == math.inf and not self.endless:
            fail(name, f"{self.rule} and finite", value)

    def contains(self, value: float) -> bool:
        """Whether one number lies in the interval."""
        return bool(self.inside(value))

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Normal on the line, exponential on a half line, uniform on a bounded interval."""
        if self.low > -math.inf and self.high < math.inf:
            unit = torch.rand(shape, generator=generator, dtype=torch.float64)
            return self.low + (self.high - self.low) * (0.02 + 0.96 * unit)
        draws = torch.randn(shape, generator=generator, dtype=torch.float64) * self.spread
        if self.low > -math.inf:
            return self.low + 0.05 + draws.abs()
        if self.high < math.inf:
            return self.high - 0.05 - draws.abs()
        return draws


@dataclass(frozen=True)
class Grades(Interval):
    """Degrees of relevance: numbers ``>= 0`` of any dtype, few and often equal."""

    floating: bool | None = None
    low: float = 0.0
    enforced: bool = False

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Grades from 0 to 4 with ties."""
        return torch.randint(5, shape, generator=generator).double()


@dataclass(frozen=True)
class Labels(Domain):
    """A finite set of allowed numbers, such as {-1, 1}."""

    values: tuple[float, ...] = ()
    floating: bool | None = None

    def holds(self, plain: Tensor, sizes: Sizes) -> bool:
        """Whether each value is in the set. On the CPU only."""
        if len(self.values) != 2:
            return bool(self.inside(plain).all())
        # |x - centre| is one constant for both labels, so one pass finds any stranger
        low, high = min(self.values), max(self.values)
        plain = plain.to(torch.uint8) if plain.dtype is torch.bool else plain
        centre = 0.5 * (low + high)
        least, most = torch.aminmax((plain - centre if centre else plain).abs())
        return least.item() == most.item() == 0.5 * (high - low)

    def inside(self, value: Tensor) -> Tensor:
        """Where the values are in the set."""
        inside = value == self.values[0]
        for label in self.values[1:]:
            inside = inside | (value == label)
        return inside

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Labels drawn evenly."""
        index = torch.randint(len(self.values), shape, generator=generator)
        return torch.tensor(self.values, dtype=torch.float64)[index]


@dataclass(frozen=True)
class ClassIndex(Domain):
    """Integers in ``[0, size of the dimension named by ``classes``)``."""

    classes: str = "C"
    floating: bool | None = False
    index: ClassVar[bool] = True

    def check_tensor(
        self, name: str, value: Tensor, sizes: Sizes, ignore_index: int | None = None
    ) -> None:
        """Refuse indices outside the number of classes, ``ignore_index`` excepted."""
        if self.seen(value, sizes):  # nothing is ignored then: no copy
            return
        top = sizes[self.classes] - 1
        if ignore_index is not None and not 0 <= ignore_index <= top:
            value = value.long()  # which can hold any index to ignore
            value = torch.where(value == ignore_index, 0, value)
        inside = (value >= 0) & (value <= top)
        require_all(name, f"be a class index in [0, {top}]", inside, value)

    def holds(self, plain: Tensor, sizes: Sizes) -> bool:
        """Whether the smallest and the largest index name a class. On the CPU only."""
        return within(plain, 0, sizes[self.classes] - 1)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Classes drawn evenly."""
        return torch.randint(sizes[self.classes], shape, generator=generator)


@dataclass(frozen=True)
class Simplex(Interval):
    """Probabilities along the dimension named ``classes``; only [0, 1] is enforced.

    The sum is not enforced: torch accepts unnormalised rows, and so do label-smoothing pipelines.
    """

    classes: str = "C"
    log: bool = False

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Softmax of normal draws along the class dimension, or the second if none is named."""
        axis = min(1, len(shape) - 1)
        if self.classes in self.dims:
            axis = self.dims.index(self.classes)
            if "*" in self.dims[:axis]:
                axis -= len(self.dims)
        scores = torch.randn(shape, generator=generator, dtype=torch.float64)
        return scores.log_softmax(axis) if self.log else scores.softmax(axis)


@dataclass(frozen=True)
class Flags(Domain):
    """Booleans."""

    floating: bool | None = False

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Mostly true, so that no row is empty by chance more than rarely."""
        return torch.rand(shape, generator=generator) < 0.8


@dataclass(frozen=True)
class Choice:
    """An option that is one of a few words (or None)."""

    words: tuple[Any, ...]

    def check_option(self, name: str, value: Any) -> None:
        """Refuse any other word."""
        if isinstance(value, Tensor) or value not in self.words:
            fail(name, f"be one of {', '.join(map(repr, self.words))}", value)


@dataclass(frozen=True)
class Flag:
    """An option that is True or False."""

    def check_option(self, name: str, value: Any) -> None:
        """Refuse anything but a bool."""
        if not isinstance(value, bool):
            fail_type(name, "be True or False", value)


@dataclass(frozen=True)
class Whole:
    """An option that is a whole number not below ``low``."""

    low: int | None = None

    def check_option(self, name: str, value: Any) -> None:
        """Refuse fractions, numbers below ``low``, and those that no tensor can hold."""
        if isinstance(value, bool) or not isinstance(value, int):
            fail_type(name, "be a whole number", value)
        if not -(2**63) <= value < 2**63:
            fail(name, "be a whole number of 64 bits", value)
        if self.low is not None and value < self.low:
            fail(name, f"be >= {self.low}", value)


@dataclass(frozen=True)
class Vector:
    """An option that is a tensor, one number per class (``dims``), or None.

    ``within`` bounds its values. Its length is checked against the arguments of the call.
    """

    dims: tuple[str, ...] = ("C",)
    within: Interval | None = None

    def check_option(self, name: str, value: Any) -> None:
        """Refuse what is not a tensor, and values outside ``within``."""
        if value is None:
            return
        if not isinstance(value, Tensor):
            fail_type(name, "be a tensor or None", value)
        if self.within is not None:
            self.within.check_tensor(name, value, {})

    def check_sizes(self, name: str, value: Any, sizes: Sizes) -> None:
        """Refuse a length that differs from the sizes of the call."""
        if isinstance(value, Tensor):
            each = [[f"*{i}" for i in range(sizes["*"])] if d == "*" else [d] for d in self.dims]
            expected = tuple(sizes[dim] for dims in each for dim in dims)
            if tuple(value.shape) != expected:
                fail(name, f"have shape {expected}", value)


@dataclass(frozen=True)
class Factor(Vector):
    """An option that is a tensor which broadcasts against the first argument, or None.

    The loss spreads it with :meth:`spread`; nothing else in lossmith is ever broadcast, but torch
    documents it for these weights.
    """

    dims: tuple[str, ...] = ()

    def check_sizes(self, name: str, value: Any, sizes: Sizes) -> None:
        """Leave the shape to :meth:`spread`."""

    @staticmethod
    def spread(name: str, factor: Tensor, input: Tensor) -> Tensor:
        """``factor`` in the dtype of ``input``; refuses a shape that would enlarge ``input``."""
        try:
            fits = torch.broadcast_shapes(factor.shape, input.shape) == input.shape
        except RuntimeError:
            fits = False
        if not fits:
            fail(name, f"broadcast to the shape {tuple(input.shape)} of the input", factor)
        return factor.to(input)


@dataclass(frozen=True)
class Optional:
    """An option that follows another rule, or is None."""

    rule: Any

    def check_option(self, name: str, value: Any) -> None:
        """Let None pass."""
        if value is not None:
            self.rule.check_option(name, value)


@dataclass(frozen=True)
class Anything:
    """An option that the loss checks itself (a callable, say). ``why`` says so on the card."""

    why: str

    def check_option(self, name: str, value: Any) -> None:
        """Leave it to the loss."""


@dataclass(frozen=True)
class Function:
    """An option that is called by the loss, or None."""

    name: str = "a function"

    def check_option(self, name: str, value: Any) -> None:
        """Refuse what cannot be called."""
        if value is not None and not callable(value):
            fail_type(name, "be callable or None", value)

    def contains(self, value: Any) -> bool:
        """Whether a function is given."""
        return value is not None


REAL = Interval("real", "be real")
NONNEGATIVE = Interval("nonnegative", "be >= 0", low=0.0)
POSITIVE = Interval("positive", "be > 0", low=0.0, low_open=True, fill=1.0)
SPREAD = Interval("nonnegative", "be >= 0", low=0.0, fill=1.0, number=True)
UNIT = Interval("unit", "lie in [0, 1]", low=0.0, high=1.0, fill=0.5)
OPEN_UNIT = Interval(
    "open_unit", "lie in (0, 1)", low=0.0, high=1.0, low_open=True, high_open=True, fill=0.5
)
COUNT = Interval("count", "be >= 0", low=0.0, floating=None)
LOG_PROBABILITY = Interval("log_probability", "be <= 0", high=0.0, enforced=False)
SIGN = Labels("sign", "be -1 or 1", fill=1.0, values=(-1.0, 1.0))
BINARY = Labels("binary", "be 0 or 1", values=(0.0, 1.0))
CLASS = ClassIndex("class", "be a class index")
LABEL_MAP = replace(CLASS, as_is=True)
PROBABILITIES = Simplex("probabilities", "lie in [0, 1]", low=0.0, high=1.0)
LOG_PROBABILITIES = Simplex(
    "log_probabilities", "be log-probabilities", high=0.0, enforced=False, log=True
)
# Not enforced: what stands behind a mask may be anything. The losses look at what is present.
GRADE = Grades("grade", "be >= 0 and finite", as_is=True)
MASK = Flags("mask", "be True or False", fill=0.0)
FLAG = Flag()
