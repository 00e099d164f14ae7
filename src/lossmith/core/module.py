"""``Loss``, the base of every Module, and the algebra of losses."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, cast, dataclass_transform

from torch import Tensor, nn

from lossmith.core.card import Card
from lossmith.core.checks import bare, fail, fail_type, of_python, said
from lossmith.core.plan import same
from lossmith.core.reduction import Reduction


def _declared(cls: type) -> list[str]:
    hints = inspect.get_annotations(cls)
    return [name for name, hint in hints.items() if "ClassVar" not in str(hint)]


MODULES: dict[str, "type[Loss]"] = {}


@dataclass_transform(kw_only_default=True)
class Loss(nn.Module):
    """A loss as a Module. Subclasses name a function and declare its options as fields.

    ``delta: float = 1.0`` in the class body becomes a keyword of the constructor, an attribute and
    a part of the ``repr``. Tensors become buffers; parameters are learned. Values are checked by
    the card when the Module is built, and again at each call.

    Attributes:
        function: The functional form.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch, lossmith
        >>> lossmith.HuberLoss(delta=0.5)
        HuberLoss(delta=0.5, reduction='mean')
        >>> lossmith.HuberLoss(delta=-1.0)
        Traceback (most recent call last):
            ...
        ValueError: delta must be > 0, got -1.0
    """

    function: ClassVar[Callable[..., Tensor]]
    fields: ClassVar[dict[str, Any]] = {}
    usual: ClassVar[dict[str, Any]] = {}
    reduction: Reduction = "mean"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: getattr(cls, name) for name in _declared(cls) if hasattr(cls, name)}
        for name in own:
            delattr(cls, name)  # a class attribute would hide the buffer of the same name
        reduction = own.pop("reduction", cls.fields.get("reduction", Loss.reduction))
        inherited = {name: value for name, value in cls.fields.items() if name != "reduction"}
        cls.fields = {**inherited, **own, "reduction": reduction}
        if "__init__" not in cls.__dict__:
            parameters = [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
                for name, default in cls.fields.items()
            ]
            cls.__signature__ = inspect.Signature(parameters)
        function = cls.__dict__.get("function")
        if isinstance(function, staticmethod):
            card: Card = cast(Any, function).__func__.card
            MODULES[card.name] = cls
        if hasattr(cls, "function"):
            keywords = inspect.signature(cls.function).parameters
            cls.usual = {
                name: keywords[name].default if name in keywords else ... for name in cls.fields
            }

    def __init__(self, *misplaced: Any, **fields: Any) -> None:
        super().__init__()
        cls = type(self)
        if misplaced:
            known, got = ", ".join(cls.fields), ", ".join(map(_short, misplaced))
            raise TypeError(
                f"{cls.__name__}() takes {known} by keyword, got {got}; tensors go to the call of "
                f"the Module, {cls.__name__}()({', '.join(self.card.tensors)})"
            )
        unknown = [name for name in fields if name not in cls.fields]
        if unknown:
            known, got = ", ".join(cls.fields), ", ".join(unknown)
            raise TypeError(f"{cls.__name__}() takes {known} by keyword, got {got}")
        for name, value in {**cls.fields, **fields}.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, of_python(value))
        self._check()
        # the very object of the signature, which a call then knows at a glance
        for name, usual in cls.usual.items():
            if same(getattr(self, name), usual):
                setattr(self, name, usual)

    def _check(self) -> None:
        """Refuse options that the card refuses."""
        card = self.card
        for name in type(self).fields:
            value = getattr(self, name)
            if name == "reduction":
                if value not in card.reductions:
                    words = ", ".join(map(repr, card.reductions))
                    raise ValueError(f"reduction must be one of {words}, got {value!r}")
            else:
                card.options[name].check_option(name, value)

    @property
    def card(self) -> Card:
        """The claims of this loss."""
        return cast(Any, type(self).function).card

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The loss of some tensors, as the functional form computes it.

        An option that belongs to the batch, such as a mask, may be given here instead.
        """
        cls, own = type(self), self.__dict__
        options: dict[str, Any] = {}
        for name, usual in cls.usual.items():
            # each option that is named costs 0.3 us more, and a small call takes 30
            if own.get(name, own) is not usual:  # a tensor is not in there
                options[name] = getattr(self, name)
        if sample_weight is not None:
            options["sample_weight"] = sample_weight
        if named:
            options |= named
        return cls.function(*tensors, **options)

    def extra_repr(self) -> str:
        """The fields, as one would type them."""
        return ", ".join(f"{name}={_short(getattr(self, name))}" for name in type(self).fields)

    @property
    def label(self) -> str:
        """Name of this loss as a term of a sum."""
        return self.card.name

    def __add__(self, other: "Loss") -> "Sum":
        if not isinstance(other, Loss):
            return NotImplemented
        return Sum([*_parts(self), *_parts(other)])

    def __radd__(self, other: object) -> "Self | Sum":
        # sum([a, b]) starts from the number 0
        return self if other == 0 else NotImplemented

    def __mul__(self, factor: float) -> "Sum":
        number = _factor(factor)
        return Sum([(number * scale, part) for scale, part in _parts(self)])

    __rmul__ = __mul__

    def __sub__(self, other: "Loss") -> "Sum":
        return self + -1.0 * other

    def __truediv__(self, divisor: float) -> "Sum":
        return self * (1.0 / divisor)

    def __neg__(self) -> "Sum":
        return self * -1.0


class Sum(Loss):
    """A weighted sum of losses over the same tensors; built by ``a + 0.5 * b``.

    ``terms`` holds the scaled value of each part in the last call, detached, for logging.

    Args:
        parts: Pairs of a factor and a loss, one or more.

    Raises:
        TypeError: If ``parts`` is anything else.
        ValueError: If a factor is not finite, or one of several parts overwrites the input; in the
            call, if the parts give values of different shapes.

    Example:
        >>> import torch, lossmith
        >>> both = lossmith.MSELoss() + 0.5 * lossmith.L1Loss()
        >>> both(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor(5.)
        >>> both.terms
        {'mse_loss': tensor(4.), 'l1_loss': tensor(1.)}
    """

    def __init__(self, parts: Iterable[tuple[float, Loss]]) -> None:
        nn.Module.__init__(self)
        given = list(parts)
        if not given or not all(map(_is_part, given)):
            fail_type("parts", "be pairs of a number and a Loss, one or more", parts)
        given = [(_factor(scale) * own, one) for scale, part in given for own, one in _parts(part)]
        if len(given) > 1 and any(getattr(part, "overwrite_input", False) for _, part in given):
            fail("overwrite_input", "be False in a sum, whose other parts read the input too", True)
        self.parts = nn.ModuleList(part for _, part in given)
        self.scales = [scale for scale, _ in given]
        self.labels: list[str] = []  # a compiler cannot look at cards
        for _, part in given:
            self.labels.append(_unused(part.label, self.labels))
        self.terms: dict[str, Tensor] = {}

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The weighted sum; each part sees all the tensors."""
        total: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for label, scale, part in zip(self.labels, self.scales, self.parts, strict=True):
            try:
                value = scale * part(*tensors, sample_weight=sample_weight, **named)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{label}: {error}") from error
            if total is not None and value.shape != total.shape:
                shapes = f"{tuple(total.shape)} and {tuple(value.shape)} from {label}"
                fail("parts", "reduce to one shape (nothing is broadcast)", said(shapes))
            terms[label] = bare(value.detach())
            total = value if total is None else total + value
        self.terms = terms
        assert total is not None
        return total

    def extra_repr(self) -> str:
        """The scales; the parts are shown as children."""
        return f"scales={self.scales}"

    @property
    def card(self) -> Card:
        """A sum makes no claims."""
        raise AttributeError("a sum of losses has no card; look at the cards of its parts")


def _parts(loss: Loss) -> list[tuple[float, Loss]]:
    if isinstance(loss, Sum):
        return list(zip(loss.scales, cast("list[Loss]", list(loss.parts)), strict=True))
    return [(1.0, loss)]


def _is_part(part: object) -> bool:
    match part:
        case (_, Loss()):
            return True
        case _:
            return False


def _factor(factor: Any) -> float:
    factor = of_python(factor)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)):
        fail_type("factor", "be a number", factor)
    if not math.isfinite(factor):
        fail("factor", "be finite", factor)
    return factor


def _unused(name: str, taken: list[str]) -> str:
    number, candidate = 2, name
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _short(value: Any) -> str:
    return f"<tensor {tuple(value.shape)}>" if isinstance(value, Tensor) else repr(value)
