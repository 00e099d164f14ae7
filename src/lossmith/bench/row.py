"""What is measured: a loss on inputs of several sizes, lossmith's way and the ways of its peers."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lossmith.bench.limits import Work

Scale = Literal["small", "cpu", "gpu"]
Dims = Mapping[str, int]


@dataclass(frozen=True)
class Direct:
    """A peer without autograd: one call gives the value and the gradient of the first tensor."""

    function: Callable[..., tuple[Tensor, Tensor]]


Loss = Callable[..., Tensor]

# Imports what it needs; raises Absent where that is not there
Peer = Callable[[], Loss | Direct]


class Absent(Exception):
    """A peer that cannot take part here; the message says why."""


class Draw:
    """Reproducible inputs in float32, made on the device they are used on."""

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        """Seed the generator of one measurement."""
        self.device = device
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self._generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1."""
        return torch.rand(shape, generator=self._generator, device=self.device)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from ``low`` up to but not including ``high``."""
        return torch.randint(low, high, shape, generator=self._generator, device=self.device)


@dataclass(frozen=True)
class Row:
    """One loss and its peers; forward and backward are measured together.

    Attributes:
        name: Unique in its family.
        make: The tensors of a call, from a :class:`Draw` and the dimensions. Floating point ones
            become the dtype of the measurement.
        ours: lossmith's way; tensors to a scalar.
        peers: Other ways to the same scalar.
        truth: The same scalar in float64, computed by somebody else where there is somebody.
        work: The least work, from the bytes of an element and the dimensions.
        small: Dimensions for a quick look that proves nothing but that all runs.
        cpu: Dimensions that take a fraction of a second on two cores.
        gpu: Dimensions that fill a large GPU.
        dtypes: Of the floating point tensors.
        wanted: Positions of the tensors that get a gradient.
        grows: Whether the documentation draws cost against size.
        bulk: Elements of the largest tensor in a plain computation, from the dimensions; None: no
            tensor is larger than the inputs. Without room for it, peers are not run.
    """

    name: str
    make: Callable[..., tuple[Tensor, ...]]
    ours: Loss
    peers: Mapping[str, Peer]
    truth: Loss
    work: Callable[..., Work]
    small: tuple[Dims, ...]
    cpu: tuple[Dims, ...]
    gpu: tuple[Dims, ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    wanted: tuple[int, ...] = (0,)
    grows: bool = False
    bulk: Callable[..., int] | None = None

    def dims(self, scale: Scale) -> tuple[Dims, ...]:
        """The dimensions of one scale."""
        return {"small": self.small, "cpu": self.cpu, "gpu": self.gpu}[scale]

    def tensors(self, dims: Dims, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        """The inputs of one measurement, the same whenever they are asked for."""
        made = self.make(Draw(device), **dims)
        return tuple(t.to(dtype) if t.is_floating_point() else t for t in made)


@dataclass(frozen=True)
class Family:
    """Rows that share a page of results.

    Attributes:
        name: Of the file of results.
        title: Of the section in the documentation.
        about: What is compared, in a sentence or two.
        rows: The rows.
        options: What may be asked of these losses, and who offers it: names with spaces between.
    """

    name: str
    title: str
    about: str
    rows: tuple[Row, ...]
    options: Mapping[str, str] = field(default_factory=dict[str, str])


def of(function: Loss) -> Peer:
    """A peer that is always there."""
    return lambda: function


def compiled(function: Loss) -> Peer:
    """``torch.compile`` of a function, for exactly the shapes it meets."""

    def make() -> Loss:
        if not torch._dynamo.is_dynamo_supported():
            raise Absent("torch.compile does not support this Python")
        return torch.compile(function, dynamic=False)

    return make


def package(module: str) -> Any:
    """A module of a peer's package.

    Raises:
        Absent: If it is not installed, or cannot be imported.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from None
    except Exception as error:  # whatever a broken installation may raise
        raise Absent(f"cannot be imported: {error}") from None


def folder_of(name: str, folder: str) -> Any:
    """A folder of a peer's package by itself, without what the package as a whole imports.

    Raises:
        Absent: If it is not installed, or cannot be imported.
    """
    import importlib.util

    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise Absent(f"{name} is not installed")
    path = Path(found.submodule_search_locations[0], folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(f"{name}_{folder}", path)
    assert spec is not None
    assert spec.loader is not None
    # under its own name, for the folder's relative imports
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a broken installation may raise
        raise Absent(f"cannot be imported: {error}") from None
    return module


def need_gpu() -> None:
    """Refuse a peer whose kernels run nowhere else.

    Raises:
        Absent: If there is no GPU.
    """
    if not torch.cuda.is_available():
        raise Absent("runs on a GPU only")
