"""Domains of targets that are lists: of classes, and of symbols with a length."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from lossmith.core.checks import fail, require_all, require_range
from lossmith.core.domain import ClassIndex, Domain, Sizes


@dataclass(frozen=True)
class ClassList(ClassIndex):
    """Rows of class indices that end at the first -1."""

    fill: float = -1.0

    def check_tensor(
        self, name: str, value: Tensor, sizes: Sizes, ignore_index: int | None = None
    ) -> None:
        """Refuse numbers that are neither classes nor -1, which always ends the row."""
        top = sizes[self.classes] - 1
        require_range(name, f"be a class index in [0, {top}] or -1", value, -1, top)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Different classes, two of them before the first -1."""
        order = torch.rand(shape, generator=generator).argsort(-1)
        return torch.where(torch.arange(shape[-1]) == 2, -1, order)


@dataclass(frozen=True)
class Tokens(Domain):
    """Symbols of a sequence; which of them count depends on its length, so the loss checks them."""

    floating: bool | None = False
    index: ClassVar[bool] = True

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Any class but the first, which is the blank."""
        return torch.randint(1, sizes["C"], shape, generator=generator)


@dataclass(frozen=True)
class Tags(Tokens):
    """Classes of the steps of a sequence, of which any may occur."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Classes drawn evenly."""
        return torch.randint(sizes["C"], shape, generator=generator)


@dataclass(frozen=True)
class Lengths(Domain):
    """Whole numbers from ``low`` to the size of the dimension ``of``."""

    floating: bool | None = False
    of: str = "T"
    low: int = 0
    index: ClassVar[bool] = True

    def check_tensor(self, name: str, value: Tensor, sizes: Sizes) -> None:
        """Refuse lengths beyond the size."""
        top = sizes[self.of]
        require_range(name, f"lie in [{self.low}, {top}]", value, self.low, top)

    def beside(self, name: str, lengths: Any, measured: Any, dim: int) -> Any:
        """Lengths on the device of ``measured``, which has the dimension ``of`` at ``dim``.

        As in torch they may be a tuple, a list or a number, or lie on the CPU in any case, where a
        look at their values costs nothing.
        """
        lengths = as_lengths(name, lengths)
        both = isinstance(lengths, Tensor) and isinstance(measured, Tensor)
        if not both or measured.is_cpu or not lengths.is_cpu:
            return lengths  # what is wrong is refused by name later on
        if -measured.ndim <= dim < measured.ndim:
            self.check_tensor(name, lengths, {self.of: measured.shape[dim]})
        return lengths.to(measured.device)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """The whole length or one less."""
        return sizes[self.of] - torch.randint(2, shape, generator=generator)


CLASS_LIST = ClassList("class_list", "be a class index or -1")
TOKENS = Tokens("tokens", "be a class index")
TAGS = Tags("tags", "be a class index")


def as_lengths(name: str, lengths: Any) -> Any:
    """A tuple, a list or a number as a tensor; anything else as it is."""
    if isinstance(lengths, (tuple, list, int)) and not isinstance(lengths, bool):
        try:
            found = torch.as_tensor(cast(Any, lengths), device="cpu")
            return found if found.numel() else found.long()  # of nothing it makes float32
        except (TypeError, ValueError, RuntimeError):
            fail(name, "hold whole numbers of 64 bits", lengths)
    return lengths


def checked_symbols(targets: Tensor, lengths: Tensor, classes: int, blank: int) -> Tensor:
    """Targets with the blank behind their ends; refuses other blanks, and missing symbols."""
    if not 0 <= blank < classes:
        fail("blank", f"be a class index in [0, {classes - 1}]", blank)
    inside = torch.arange(targets.shape[-1], device=targets.device) < lengths.unsqueeze(-1)
    present = torch.where(inside, targets, blank)
    top = classes - 1
    require_range("targets", f"be a class index in [0, {top}]", present, 0, top)
    holds = (present != blank) == inside
    require_all("targets", f"differ from the blank {blank}", holds, present)
    return present
