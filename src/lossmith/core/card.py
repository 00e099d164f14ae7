"""A card: the claims about one loss that a machine can check, and the advice a person needs.

Mathematics, prose, names and defaults are the function's own; none of them is repeated here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from torch import Tensor

from lossmith.core.checks import fail_type
from lossmith.core.signature import Signature

Task = Literal[
    "regression",
    "count",
    "binary",
    "multiclass",
    "multilabel",
    "segmentation",
    "ranking",
    "embedding",
    "sequence",
    "distribution",
    "penalty",
]
Coupling = Literal["element", "row", "statistics", "pairs", "path"]
Link = Literal["identity", "log", "logit", "softmax", "none"]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Point:
    """A literal from hand or paper: the loss of scalar arguments, and its derivative by the first.

    Attributes:
        arguments: One number per tensor argument.
        value: The unreduced loss.
        gradient: Derivative with respect to the first argument; None where it is not claimed.
        options: Keyword arguments of the call.
    """

    arguments: tuple[float, ...]
    value: float
    gradient: float | None
    options: Mapping[str, Any]

    def __init__(
        self, *arguments: float, value: float, gradient: float | None = None, **options: Any
    ) -> None:
        for name, content in (
            ("arguments", arguments),
            ("value", value),
            ("gradient", gradient),
            ("options", options),
        ):
            object.__setattr__(self, name, content)


@dataclass(frozen=True, kw_only=True)
class Card:
    """Claims about one loss. Every claim is tested by the contract (:func:`lossmith.check_loss`).

    Attributes:
        task: What it is for; several are allowed.
        coupling: How the loss ties its inputs together (element, row, statistics, pairs, path).
        formula: LaTeX of the unreduced loss.
        signatures: The ways to call it.
        options: Domain of each keyword option; checked at each call and when a Module is built.
        variants: Option settings that the contract runs besides the defaults.
        exact: The same mathematics for one element in mpmath, written plainly: digits are
            plenty there, so no stable form is needed. ``exact(mp, input, target, **options)``.
            Element losses have it; other losses have an oracle under ``tests/oracles``.
        points: Literals with their origin in a comment.
        kinks: Residuals (or first arguments) at which the gradient jumps, at default options.
        convex: Convex in the first argument, by element or row.
        symmetric: ``loss(a, b) = loss(b, a)``.
        zero_at_target: 0 where input equals target.
        nonnegative: Never below 0.
        gradient_bound: Largest absolute derivative by an element of the first argument: a number
            or the name of an option; claimed to be tight.
        robust: Far outliers have bounded pull.
        plain_mean: The mean is the weighted mean of the unreduced values. False where a loss
            defines another: CTC divides by target lengths, RMSE takes a root.
        differentiable: False if the gradient is 0 almost everywhere (evaluation only).
        layered: It contains a layer, which autocast may compute in half precision. In any other
            loss autocast is off: a product of its own needs its digits.
        same_as: Dotted name of a callable with equal values on ordinary unweighted input.
        elicits: Which property of the target's distribution the minimiser is.
        link: How a raw model output becomes a prediction.
        reductions: The allowed words for ``reduction``.
        aliases: Other names in use.
        use_when: One line of advice.
        avoid_when: One line of advice.
        source: Author, year, DOI or arXiv id; several are joined by semicolons.
        name: Filled in by :func:`lossmith.loss`.
        function: Filled in by :func:`lossmith.loss`.
    """

    task: Task | tuple[Task, ...]
    coupling: Coupling
    formula: str
    signatures: tuple[Signature, ...]
    use_when: str
    avoid_when: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variants: tuple[Mapping[str, Any], ...] = ()
    exact: Callable[..., Any] | None = None
    points: tuple[Point, ...] = ()
    kinks: tuple[float, ...] = ()
    convex: bool = False
    symmetric: bool = False
    zero_at_target: bool = False
    nonnegative: bool = True
    gradient_bound: float | str | None = None
    robust: bool = False
    plain_mean: bool = True
    differentiable: bool = True
    layered: bool = False
    same_as: str | None = None
    elicits: str | None = None
    link: Link = "none"
    reductions: tuple[str, ...] = ("none", "mean", "sum")
    aliases: tuple[str, ...] = ()
    name: str = ""
    function: Callable[..., Tensor] | None = field(default=None, compare=False, repr=False)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, always as a tuple."""
        return self.task if isinstance(self.task, tuple) else (self.task,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensor arguments."""
        return tuple(self.signatures[0].tensors)

    def ways(self, options: Mapping[str, Any]) -> tuple[Signature, ...]:
        """The signatures that hold under some options."""
        defaults = self.signatures[0].when
        if not defaults:
            return self.signatures
        return tuple(way for way in self.signatures if way.holds(options, defaults))

    def match(
        self, tensors: tuple[Tensor, ...], options: Mapping[str, Any] = NO_OPTIONS
    ) -> Signature:
        """The signature that fits options, dtypes and ranks; refuses tensors that fit none."""
        try:
            for signature in self.ways(options):
                if signature.accepts(tensors):
                    return signature
        except AttributeError:  # not a tensor; finding that out beforehand would cost every call
            pass
        return self._refuse(tensors)

    def _refuse(self, tensors: tuple[Any, ...]) -> NoReturn:
        for name, tensor in zip(self.tensors, tensors, strict=True):
            if not isinstance(tensor, Tensor):
                fail_type(name, "be a tensor", tensor)
            domains = [signature.tensors[name] for signature in self.signatures]
            if tensor.is_complex():
                fail_type(name, "be real", tensor)
            if all(domain.floating for domain in domains) and not tensor.is_floating_point():
                fail_type(name, "be floating point", tensor)
            if all(domain.floating is False for domain in domains) and tensor.is_floating_point():
                fail_type(name, "be of an integer or bool dtype", tensor)
        found = ", ".join(
            f"{name} {tuple(tensor.shape)} of {tensor.dtype}"
            for name, tensor in zip(self.tensors, tensors, strict=True)
        )
        fitting = [way.describe() for way in self.signatures if way.accepts(tensors, ranks=False)]
        other = f", or fit the call {' or '.join(fitting)}" if fitting else ""
        for way in self.signatures:
            if way.accepts(tensors, dtypes=False):
                for (name, domain), tensor in zip(way.tensors.items(), tensors, strict=True):
                    if (
                        domain.floating is not None
                        and domain.floating != tensor.is_floating_point()
                    ):
                        kind = "floating point" if domain.floating else "of an integer dtype"
                        fail_type(name, f"be {kind} in the call {way.describe()}{other}", tensor)
        ways = " or ".join(signature.describe() for signature in self.signatures)
        raise ValueError(f"{self.name}: shapes must fit {ways}, got {found}")

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, ready for JSON."""
        return {
            "name": self.name,
            "task": list(self.tasks),
            "coupling": self.coupling,
            "formula": self.formula,
            "shapes": [signature.describe() for signature in self.signatures],
            "domains": {k: d.name for k, d in self.signatures[0].tensors.items()},
            "convex": self.convex,
            "symmetric": self.symmetric,
            "zero_at_target": self.zero_at_target,
            "nonnegative": self.nonnegative,
            "gradient_bound": self.gradient_bound,
            "robust": self.robust,
            "differentiable": self.differentiable,
            "same_as": self.same_as,
            "elicits": self.elicits,
            "link": self.link,
            "reductions": list(self.reductions),
            "aliases": list(self.aliases),
            "use_when": self.use_when,
            "avoid_when": self.avoid_when,
            "source": self.source,
        }
