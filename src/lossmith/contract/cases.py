"""What the contract runs on: one loss, one signature, one setting of the options, and samples."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.signature import Signature

# Sizes that differ from each other, so that a mix-up of two dimensions cannot go unnoticed.
SIZES = {"N": 3, "C": 4, "D": 5, "L": 6, "K": 4, "M": 3, "T": 8, "S": 2}


@dataclass(frozen=True)
class Case:
    """One loss under one signature and one setting of its options.

    Attributes:
        card: The claims.
        way: The signature in use.
        options: Keyword arguments of every call.
        oracle: Independent truth: takes nested lists of mpmath numbers and the options, returns
            nested lists of the unreduced loss. None for element losses, whose card has ``exact``.
    """

    card: Card
    way: Signature
    options: dict[str, Any]
    oracle: Callable[..., Any] | None = None

    def __str__(self) -> str:
        way = "" if len(self.card.signatures) == 1 else f"[{self.card.signatures.index(self.way)}]"
        settings = ", ".join(f"{k}={_short(v)}" for k, v in self.options.items())
        return f"{self.card.name}{way}({settings})"

    def __call__(self, *tensors: Tensor, **more: Any) -> Tensor:
        """The loss itself."""
        assert self.card.function is not None
        return self.card.function(*tensors, **{**self.options_like(tensors), **more})

    def options_like(self, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
        """The options, tensors among them in the dtype of the call."""
        dtype = getattr(next(iter(tensors), None), "dtype", torch.float64)
        if not dtype.is_floating_point:  # a wrong argument: the options must stay right
            return self.options
        return {
            key: value.to(dtype)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for key, value in self.options.items()
        }

    def with_options(self, **options: Any) -> "Case":
        """The same case under other options."""
        return replace(self, options={**self.options, **options})

    def sizes(self, **changed: int) -> dict[str, int]:
        """Sizes of the named dimensions."""
        return {**SIZES, **changed}

    def shape(
        self, dims: tuple[str, ...], star: tuple[int, ...] | None = None, **changed: int
    ) -> tuple[int, ...]:
        """Concrete shape of some named dimensions.

        ``*`` stands for one dimension behind a batch dimension, and for (N, 2) where it leads.
        """
        sizes = self.sizes(**changed)
        if self.way.out[:1] == ("*",):
            star = (sizes["N"], *(star or (2,)))
        elif star is None:
            star = (2,)
        shape: list[int] = []
        for name in dims:
            if name == "*":
                shape.extend(star)
            else:
                shape.append(int(name) if name.isdigit() else sizes[name])
        return tuple(shape)

    def sample(
        self,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        *,
        grad: bool = False,
        star: tuple[int, ...] | None = None,
        **changed: int,
    ) -> tuple[Tensor, ...]:
        """Ordinary tensors from the declared domains; the same ones for the same arguments."""
        name = zlib.crc32(f"{self.card.name}{seed}".encode())
        generator = torch.Generator().manual_seed(name)
        sizes = self.sizes(**changed)
        tensors: list[Tensor] = []
        for domain in self.way.tensors.values():
            tensor = domain.sample(self.shape(domain.dims, star, **changed), generator, sizes)
            if domain.floating is not False:
                tensor = tensor.to(dtype)
            tensors.append(tensor)
        if grad:
            for index in self.differentiable():
                tensors[index].requires_grad_()
        return tuple(tensors)

    def differentiable(self) -> tuple[int, ...]:
        """Positions of the arguments that a gradient can flow to: those of real numbers."""
        return tuple(
            index
            for index, domain in enumerate(self.way.tensors.values())
            if domain.floating and not hasattr(domain, "values")
        )

    @property
    def batched(self) -> bool:
        """Whether samples can be added and removed along the first dimension of the output."""
        return len(self.way.out) > 0

    @property
    def separable(self) -> bool:
        """Whether a sample's loss depends on that sample alone."""
        return self.card.coupling in ("element", "row", "path") or (
            self.card.coupling == "statistics" and self.batched
        )


def cases(card: Card, oracle: Callable[..., Any] | None = None) -> Iterator[Case]:
    """Every signature under the default options, and the first that fits each variant."""
    for way in card.ways({}):
        yield Case(card, way, {}, oracle)
    for variant in card.variants:
        yield Case(card, card.ways(variant)[0], dict(variant), oracle)


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}"
    return getattr(value, "__name__", repr(value))  # the address in a function's repr is no name
