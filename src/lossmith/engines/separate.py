"""Whether the samples of a loss stand alone, asked before an engine cuts or reshapes its tensors.

What somebody calls an element loss may know of its neighbours: it may subtract a mean, or weigh by
column. Values would show that for some data only. So the function is traced, on no data at all:
one of which every operation is pointwise, and that asks for no size, treats each element by itself.
"""

import functools
import logging
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.nn import Module

from lossmith.core.route import Call

# Sizes of the tensors that a function is traced with: no two are equal, so that none stands for
# another, and a pointwise function works with any
SIZES = (5, 7, 11, 13, 17, 19)
_log = logging.getLogger("torch._subclasses.fake_tensor")
_aten = torch.ops.aten
# Operations that change no value, or know of one only
HARMLESS = frozenset(
    {
        _aten._to_copy.default,
        _aten.alias.default,
        _aten.clone.default,
        _aten.detach.default,
        _aten.full_like.default,
        _aten.lift_fresh_copy.default,
        _aten.ones_like.default,
        _aten.scalar_tensor.default,
        _aten.zeros_like.default,
    }
)
# Packages whose functions are what they were
CONSTANT = frozenset({"torch", "lossmith", "math", "numpy", "functools", "operator", "builtins"})
# Losses of torch's own, of which the usual decompositions make nothing smaller
LOSSES = [_aten.huber_loss, _aten.mse_loss, _aten.smooth_l1_loss, _aten.soft_margin_loss]


def divisible(call: Call) -> bool:
    """Whether the samples are the elements, or the rows along the first dimension."""
    domains = call.way.tensors.values()
    if call.reduction == "batchmean":
        return False
    if call.way.out == ("*",):
        first = call.tensors[0]
        whole = all(d.dims == ("*",) for d in domains)
        return whole and all(t.ndim == 0 or t.shape == first.shape for t in call.arguments())
    if call.way.out != ("N",) or any(d.dims[:1] != ("N",) for d in domains):
        return False
    # an option of a function of one's own, as long as the batch, may hold a number for each row
    options = (value for value in call.options.values() if isinstance(value, Tensor))
    return call.card.source != "" or all(t.shape[:1] != call.tensors[0].shape[:1] for t in options)


def shared(call: Call) -> list[bool]:
    """Which arguments of a divisible call are not to be cut: all samples share them."""
    given = call.arguments()
    if call.way.out == ("*",):
        return [t.ndim == 0 for t in given]
    options = range(len(call.tensors), len(given) - (call.weight is not None))
    return [i in options for i in range(len(given))]


def separate(call: Call) -> bool:
    """Whether a trace shows that each value of an element loss depends on its element alone.

    Also on no tensor beside the arguments but single numbers, and on no random number.
    """
    rank = call.tensors[0].ndim
    if rank > len(SIZES):
        return False
    shouts, _log.disabled = _log.disabled, True  # it tells the user of what is caught here
    try:
        own, line, lines = (_traced(call, SIZES[:dims]) for dims in (rank, 1, 2))
    except Exception:  # whatever a function may raise at a shape that it does not expect
        return False
    finally:
        _log.disabled = shouts
    # a function may ask for the number of dimensions, which leaves no trace
    return own is not None and own == line == lines


def surroundings(value: Any) -> tuple[Any, ...] | None:
    """What a function is made of and looks up, to compare it with what it was.

    None if something may change in place, unseen: a list, a module, an object with attributes.
    """
    found: list[Any] = []
    return tuple(found) if _gathered(value, found, set()) else None


def _gathered(value: Any, found: list[Any], seen: set[int]) -> bool:
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        found.append((type(value), value))
        return True
    if isinstance(value, Tensor):  # one with dimensions is no part of a pointwise function
        found.append((Tensor, value.ndim))
        return True
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    if isinstance(name, str) and name.split(".")[0] in CONSTANT and not isinstance(value, partial):
        found.append((name, getattr(value, "__qualname__", "")))
        return isinstance(value, ModuleType) or (callable(value) and not isinstance(value, Module))
    apart = _apart(value)
    if apart is None:
        return False
    kind, inside = apart
    found.append((kind, len(inside)))
    if id(value) in seen:
        return True
    seen.add(id(value))
    return all(_gathered(one, found, seen) for one in inside)


def _apart(value: Any) -> tuple[Any, list[Any]] | None:
    """What a tuple or a function is, and what it holds; None of anything else."""
    if isinstance(value, tuple):
        return tuple, list(value)
    if isinstance(value, partial):
        return tuple(value.keywords), [value.func, *value.args, *value.keywords.values()]
    if not isinstance(value, FunctionType):
        return None
    names, space = _names(value.__code__), value.__globals__
    looked_up = [space[name] for name in names if name in space]
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
    given = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return value.__code__, [*looked_up, *cells, *given]


@functools.lru_cache(maxsize=256)
def _names(code: CodeType) -> list[str]:
    """The names that a function looks up, those of the functions inside it too."""
    names, codes = set(code.co_names), list(code.co_consts)
    while codes:
        if isinstance(one := codes.pop(), CodeType):
            names.update(one.co_names)
            codes += one.co_consts
    return sorted(names)


def _traced(call: Call, shape: tuple[int, ...]) -> list[Any] | None:
    """The operations on tensors of some shape; None if they are not all pointwise."""
    # only where somebody asks: they take memory, which may be limited
    from torch._decomp import core_aten_decompositions, get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    given = call._replace(weight=None).arguments()

    def values(*arguments: Tensor) -> list[Tensor]:
        each = call._replace(weight=None).over(arguments)
        result = each.body(*each.tensors, **each.options)
        parts = result if isinstance(result, tuple) else (result,)
        return [part for part in parts if isinstance(part, Tensor)]

    smaller: Any = {**core_aten_decompositions(), **get_decompositions(LOSSES)}
    trace: Any = make_fx(values, smaller, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    with torch.no_grad():
        graph: GraphModule = trace(*[t.new_empty(shape if t.ndim else ()) for t in given])
    asked = graph.shape_env.guards  # type: ignore[union-attr]
    if asked or not all(_pointwise(graph, node) for node in graph.graph.nodes):
        return None
    place = {node: i for i, node in enumerate(graph.graph.nodes)}

    def named(arguments: Any) -> Any:  # by place: names differ from trace to trace
        return map_arg(arguments, lambda node: f"%{place[node]}")

    return [
        (node.op, str(node.target), repr(named(node.args)), repr(named(node.kwargs)))
        for node in place
        if node.op != "placeholder"
    ]


def _pointwise(graph: GraphModule, node: Node) -> bool:
    if node.op == "get_attr":  # a tensor of the function's own
        constant: Tensor = getattr(graph, str(node.target))
        return constant.ndim == 0
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    operation: Any = node.target
    if operation is _aten.full.default:
        return not node.args[0]  # a single number
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return False
    return torch.Tag.pointwise in operation.tags or operation in HARMLESS
