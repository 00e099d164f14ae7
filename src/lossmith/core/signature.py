"""The ways to call a loss: which tensors, of which shapes and dtypes, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lossmith.core.checks import fail, said
from lossmith.core.domain import ClassIndex, Domain, Function, Interval

HALF = frozenset({torch.float16, torch.bfloat16})
# What masks are stored in, and torch has hardly a kernel for
STORED = frozenset({torch.uint16, torch.uint32, torch.uint64})


@dataclass(frozen=True, init=False)
class Signature:
    """The tensors of one way to call a loss, and the dimensions of its unreduced value.

    Dimensions are named: equal names mean equal sizes within a call, ``*`` stands for any further
    dimensions, a number for itself. A size of its own needs a name of its own. ``when`` names the
    options under which the signature holds, each with its value or the interval of its values;
    the first signature of a card holds under the defaults.
    """

    tensors: Mapping[str, Domain]
    out: tuple[str, ...]
    when: Mapping[str, Any]
    label: tuple[str, int, ClassIndex] | None = field(repr=False, compare=False)
    _alike: bool = field(repr=False, compare=False)
    _checked: tuple[tuple[int, Domain], ...] = field(repr=False, compare=False)
    _floats: tuple[int, ...] = field(repr=False, compare=False)
    _kinds: tuple[tuple[bool | None, int, bool], ...] = field(repr=False, compare=False)

    def __init__(
        self, out: str = "*", when: Mapping[str, Any] | None = None, **tensors: Domain
    ) -> None:
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "when", when or {})
        object.__setattr__(self, "out", tuple(out.split()))
        domains = tuple(tensors.values())
        derived: dict[str, Any] = {
            "_alike": all(domain.dims == ("*",) for domain in domains),
            "_checked": tuple((i, d) for i, d in enumerate(domains) if d.checks_values),
            "_floats": tuple(i for i, d in enumerate(domains) if d.floating),
            "_kinds": tuple(
                (d.floating, len(d.dims) - ("*" in d.dims), "*" in d.dims) for d in domains
            ),
            "label": next(
                (
                    (name, i, domain)
                    for i, (name, domain) in enumerate(tensors.items())
                    if isinstance(domain, ClassIndex) and domain.dims == self.out
                ),
                None,
            ),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def describe(self) -> str:
        """``input (N, C, *), target (N, *) -> (N, *)``."""

        def shape(dims: tuple[str, ...]) -> str:
            return f"({', '.join(dims)})"

        sides = ", ".join(f"{name} {shape(domain.dims)}" for name, domain in self.tensors.items())
        terms = [f"{name}={_term(value)}" for name, value in self.when.items()]
        return f"{sides} -> {shape(self.out)}{' with ' if terms else ''}{', '.join(terms)}"

    def holds(self, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
        """Whether the options are among those that the signature is for.

        ``defaults`` is the ``when`` of the signature that holds under the defaults.
        """
        for name, wanted in self.when.items():
            if name not in options:
                agrees = defaults.get(name) == wanted
            elif isinstance(wanted, (Interval, Function)):
                agrees = wanted.contains(options[name])
            else:
                agrees = options[name] == wanted
            if not agrees:
                return False
        return True

    def accepts(
        self, tensors: tuple[Tensor, ...], *, dtypes: bool = True, ranks: bool = True
    ) -> bool:
        """Whether dtypes and numbers of dimensions fit (sizes are left to :meth:`sizes`)."""
        for tensor, (floating, rank, open_ended) in zip(tensors, self._kinds, strict=True):
            if dtypes and floating is not None and floating != tensor.is_floating_point():
                return False
            if tensor.is_complex():
                return False
            if ranks and (tensor.ndim < rank if open_ended else tensor.ndim != rank):
                return False
        return True

    def sizes(self, tensors: tuple[Tensor, ...]) -> dict[str, int]:
        """Sizes of the named dimensions; refuses tensors that disagree.

        Keys are the names, and ``*0``, ``*1`` ... for the dimensions under ``*``, whose number is
        under ``*``.
        """
        if self._alike:  # the common case, one comparison
            shape = tensors[0].shape
            for index in range(1, len(tensors)):
                if tensors[index].shape != shape:
                    self._refuse_shape(index, tensors)
            return {}
        found: dict[str, int] = {}
        for index, (tensor, domain) in enumerate(zip(tensors, self.tensors.values(), strict=True)):
            shape = tensor.shape
            for name, size in zip(self.expand(domain.dims, tensor.ndim), shape, strict=True):
                if name.isdigit():
                    if int(name) != size:
                        self._refuse_shape(index, tensors)
                elif found.setdefault(name, size) != size:
                    self._refuse_shape(index, tensors)
            if "*" in domain.dims and found.setdefault("*", tensor.ndim - len(domain.dims) + 1) != (
                tensor.ndim - len(domain.dims) + 1
            ):
                self._refuse_shape(index, tensors)
        return found

    @staticmethod
    def expand(dims: tuple[str, ...], rank: int) -> tuple[str, ...]:
        """Replace ``*`` by as many numbered names as a tensor of this rank has dimensions there."""
        if "*" not in dims:
            return dims
        at, count = dims.index("*"), rank - len(dims) + 1
        return (*dims[:at], *(f"*{i}" for i in range(count)), *dims[at + 1 :])

    def out_shape(self, tensors: tuple[Tensor, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of the unreduced loss."""
        if self._alike and self.out == ("*",):
            return tuple(tensors[0].shape)
        if self._alike:
            sizes = {f"*{i}": size for i, size in enumerate(tensors[0].shape)}
            sizes["*"] = tensors[0].ndim
        rank = len(self.out) + sizes.get("*", 0) - ("*" in self.out)
        return tuple(sizes[name] for name in self.expand(self.out, rank))

    def check_values(
        self,
        tensors: tuple[Tensor, ...],
        sizes: Mapping[str, int],
        *,
        seen: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        """Refuse values outside the domains; ``seen`` says that the labels are checked already."""
        if not self._checked:
            return
        names = tuple(self.tensors)
        for index, domain in self._checked:
            if isinstance(domain, ClassIndex):
                if not (seen and self.label is not None and self.label[1] == index):
                    domain.check_tensor(names[index], tensors[index], sizes, ignore_index)
            else:
                domain.check_tensor(names[index], tensors[index], sizes)

    def seen(self, tensors: tuple[Tensor, ...], sizes: Mapping[str, int]) -> bool:
        """Whether a look shows every value inside its domain, or may not be taken."""
        return all(domain.seen(tensors[index], sizes) for index, domain in self._checked)

    def one_dtype(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether all floating-point arguments share a dtype, as torch's kernels want."""
        dtype = tensors[0].dtype
        return all(tensors[index].dtype is dtype for index in self._floats)

    def casts(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[int, torch.dtype], ...]:
        """What whole numbers become: indices int64, labels that are numbers like the first."""
        first = tensors[0].dtype
        work = torch.float32 if first in HALF else first
        wanted: list[tuple[int, torch.dtype]] = []
        for index, (tensor, domain) in enumerate(zip(tensors, self.tensors.values(), strict=True)):
            number = domain.floating is None and not tensor.is_floating_point()
            dtype = torch.int64 if domain.index else work if number else tensor.dtype
            stored = tensor.dtype in STORED and isinstance(domain, (ClassIndex, Interval))
            if tensor.dtype is not dtype and (stored or not domain.as_is):
                wanted.append((index, dtype))
        return tuple(wanted)

    def spread(self, mask: Tensor, domain: Domain, rank: int) -> Tensor | None:
        """``mask``, which has the dimensions ``out``, made to broadcast against an argument.

        None if the argument lacks one of those dimensions (the centres of a centre loss, say).
        """
        dims = self.expand(domain.dims, rank)
        out = self.expand(self.out, mask.ndim)
        if not set(out) <= set(dims):
            return None
        for position, name in enumerate(dims):
            if name not in out:
                mask = mask.unsqueeze(position)
        return mask

    def _refuse_shape(self, index: int, tensors: tuple[Tensor, ...]) -> None:
        names = tuple(self.tensors)
        shapes = ", ".join(
            f"{name} {tuple(tensor.shape)}" for name, tensor in zip(names, tensors, strict=True)
        )
        dims = tuple(self.tensors.values())[index].dims
        if self._alike:
            rule = f"have the shape of {names[0]} (nothing is broadcast)"
        else:
            rule = f"have the shape ({', '.join(dims)}) of the call {self.describe()}"
        fail(names[index], rule, said(shapes))


def _term(value: Any) -> str:
    return value.name if isinstance(value, (Interval, Function)) else repr(value)


def elementwise(when: Mapping[str, Any] | None = None, **tensors: Domain) -> tuple[Signature, ...]:
    """The signature of an element loss: all tensors of one shape."""
    shaped = {name: domain("*") for name, domain in tensors.items()}
    return (Signature(out="*", when=when, **shaped),)
