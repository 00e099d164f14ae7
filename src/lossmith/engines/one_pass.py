"""Value and gradient of any element or row loss in one pass over memory.

torch runs one kernel per operation, and every kernel of a large loss waits for memory. Here the
loss, its weights and its reduction, together with their gradient, become one generated kernel
(``torch.func.grad_and_value`` through Inductor); the backward pass only scales. Without a compiler
the same is done in blocks that stay in the cache.
"""

import functools
import importlib.util
import os
import re
import shutil
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lossmith.core.certainty import seen_finite
from lossmith.core.checks import eager
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.core.route import Call
from lossmith.engines.blocks import in_blocks, slope_dtype
from lossmith.engines.lines import added, in_lines, line_length, units
from lossmith.engines.pull import Pull, is_one, with_pull
from lossmith.engines.separate import divisible, separate, surroundings

How = Literal["compiled", "rows", "blocks", "attention", "tiles", "triton", "plain"]
Kernel = Callable[..., tuple[tuple[Tensor, ...], Tensor]]
# Elements from which a generated kernel beats torch's own wherever measured: at 512 Ki, 1, 2 and
# 4 Mi elements Huber takes 1.9, 1.3, 0.75 and 0.6 of their time on an AMD EPYC, squares 1.7, 1.3,
# 0.8 and 0.5, binary cross-entropy from logits 1.3, 1.0, 0.8 and 0.7, L1 0.8, 0.8, 0.5 and 0.3; on
# an Intel Xeon Huber 1.3, 1.0 and 0.6 at 512 Ki, 1 Mi and 4 Mi (2 threads)
WORTH = 3 << 19
# What a generated kernel need not look at in each call, which took as long as its work (50 us, 160
# looks): the code of torch and of lossmith, and what the key of the kernel holds. What it does not
# know by name is looked at, as that which a user's function refers to.
_FIXED = re.compile(
    r"(dict\()?(G\['((__import_)?(torch|lossmith)(_dot_|')|__builtins)|__import__\('torch'\))"
    r"|dict\(type\(template\)|template\.(?!body|options)|needs|tame"
)
_NONE = NATIVE_REDUCTION["none"]
_NOTHING = torch.empty(0)
_TOLD_APART = bool, int, float, str, Tensor, torch.dtype, torch.device
# Functions of one's own may be many, and are kept alive
MOST = 256
_making = threading.RLock()  # of two threads' first calls Dynamo makes an error of the compiler's
_kernels: dict[Any, Kernel] = {}
_failed: dict[Any, str] = {}
_asked: dict[Any, bool] = {}
_brings: set[Any] = set()


@dataclass(frozen=True)
class Path:
    """How a call is computed, and why.

    Attributes:
        how: ``"compiled"``: one generated kernel; ``"rows"``: the engine of losses over a softmax;
            ``"blocks"``: torch's kernels on pieces that fit the cache; ``"attention"``: torch's
            attention kernel for a linear head; ``"tiles"``: pairs of samples by stripes of their
            matrix; ``"triton"``: kernels of lossmith's own on a GPU; ``"plain"``: the loss as it is
            without an engine.
        why: The reason in words.
    """

    how: How
    why: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.how}: {self.why}"


_COMPILED = Path("compiled", "one generated kernel reads every tensor once")


@functools.cache
def missing_compiler(device: str) -> str:
    """What Inductor lacks on this machine to generate kernels for a device; empty if nothing."""
    if not torch._dynamo.is_dynamo_supported():
        return "torch.compile does not support this Python"
    if device == "cpu":
        known = [name] if (name := os.environ.get("CXX")) else ["g++", "clang++", "cl"]
        return "" if any(map(shutil.which, known)) else "there is no C++ compiler"
    return "" if importlib.util.find_spec("triton") else "Triton is not installed"


def failure(error: Exception) -> str:
    """What a failed compiler is remembered by.

    Memory that ran out is no fault of the compiler's: blocks would keep as much, and the next call
    may fit. It is raised again.
    """
    on_cpu = "can't allocate memory" in str(error)  # there it is a plain RuntimeError
    if on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError):
        raise error
    return f"the compiler failed ({type(error).__name__})"


def plan(call: Call, *, compiler: bool = True) -> Path:
    """Decide how a call is computed."""
    if call.engine is not None:
        return call.engine.plan(call)
    device = call.tensors[0].device.type
    if call.card.coupling not in ("element", "row"):
        return Path("plain", f"the values of a {call.card.coupling} loss hang together")
    if not eager(*call.arguments()):
        return Path("plain", "a transform, forward-mode AD or a tensor subclass is at work")
    elements = call.tensors[0].numel()
    if call.native and elements < WORTH:
        return Path("plain", f"it has a kernel, which {elements} elements are too few to beat")
    if not all(map(_known, call.options.values())):
        return Path("plain", "an option is neither a number nor a word, a function or a tensor")
    if call.reduction == "none" and not _separable(call):
        return Path("plain", "a tensor that all samples share wants a gradient from each")
    if _brings and _key(call) in _brings:
        return Path("plain", "a tensor that the function brings along wants a gradient")
    lacking = missing_compiler(device) if compiler else "blocks were asked for"
    if _failed:  # a key takes as long as a small kernel
        lacking = lacking or _failed.get(_key(call), "")
    if not lacking:
        return _COMPILED
    if device != "cpu":
        return Path("plain", f"{lacking}, and blocks gain nothing outside the CPU")
    if call.native:
        return Path("plain", f"{lacking}, and this loss has a kernel that blocks cannot beat")
    if not divisible(call):
        return Path("plain", f"{lacking}, and the samples do not come in rows")
    if not _separate(call):
        return Path("plain", f"{lacking}, and a value may depend on more than its element")
    return Path("blocks", lacking)


def run(call: Call, *, compiler: bool = True) -> Tensor | None:
    """Compute a call by its plan; None leaves it to the loss's own function."""
    if call.engine is not None:
        return call.engine(call)
    path = plan(call, compiler=compiler)
    if path.how not in ("compiled", "blocks"):
        return None
    given = call.arguments()
    needs = tuple(i for i, t in enumerate(given) if torch.is_grad_enabled() and t.requires_grad)
    bare = [t.detach() for t in given]
    if path.how == "compiled":
        try:
            slopes, value = _generated(call, needs, bare)
        except Exception as error:  # whatever a compiler may raise; the next call takes blocks
            kept(_failed)[_key(call)] = failure(error)
            return run(call, compiler=compiler)
        if value.requires_grad:  # though no argument did in there: only its own graph leads on
            _brings.add(_key(call))
            return None
    else:
        done = in_blocks(call, bare, needs)
        if done is None:
            return None
        slopes, value = done
    return _connect(call, needs, slopes, value) if needs else value


def _connect(
    call: Call, needs: tuple[int, ...], slopes: tuple[Tensor, ...], value: Tensor
) -> Tensor:
    """The value as a node whose backward pass scales the slopes."""
    domains = tuple(call.way.tensors.values())

    def pull(grad: Tensor, needed: Any, leaves: Any, *slopes: Tensor) -> Any:
        unit = is_one(grad)
        pulls: list[Tensor | None] = []
        for i, slope, leaf, need in zip(needs, slopes, leaves, needed, strict=True):
            if not need:
                pulls.append(None)
                continue
            each = call.way.spread(grad, domains[i], slope.ndim) if grad.ndim else grad
            assert each is not None  # by the plan
            pulls.append((slope if unit else slope * each).to(leaf.dtype))
        return pulls

    return connect(call, needs, value, pull, slopes)


def connect(
    call: Call, needs: tuple[int, ...], value: Tensor, pull: Pull, kept: tuple[Tensor, ...] = ()
) -> Tensor:
    """The reduced value as a node whose backward pass is ``pull``, of the arguments ``needs``."""
    given = call.arguments()
    order = [*needs, *(i for i in range(len(given)) if i not in needs)]
    template = _template(call)

    def plain(*tensors: Tensor) -> Tensor:
        each = dict(zip(order, tensors, strict=True))
        return template.over([each[i] for i in range(len(order))]).compute()

    leaves = tuple(given[i] for i in needs)
    others = tuple(given[i] for i in order[len(needs) :])
    return with_pull(value, _NONE, pull, plain, leaves=leaves, others=others, kept=kept, done=True)


def _template(call: Call) -> Call:
    """The call without its tensors, which must not live on in a kernel or a graph."""
    return call.over([_NOTHING] * len(call.arguments()))


def _separable(call: Call) -> bool:
    """Whether every gradient belongs to one sample, to be scaled by a factor of its own."""
    rows = zip(call.tensors, call.way.tensors.values(), strict=True)
    own = all(set(call.way.out) <= set(d.dims) for t, d in rows if t.requires_grad)
    return own and not any(t.requires_grad for t in call.arguments()[len(call.tensors) :])


def _known(option: Any) -> bool:
    """Whether a key can tell an option from others, and from what it becomes later."""
    if isinstance(option, tuple):
        return not any(isinstance(one, Tensor) for one in option) and all(map(_known, option))
    return option is None or isinstance(option, _TOLD_APART) or callable(option)


def _key(call: Call) -> Any:
    """What a kernel depends on, sizes and values excepted."""
    fixed = tuple(
        (name, None if isinstance(value, Tensor) else repr(value))
        for name, value in call.options.items()
    )
    kinds = tuple([(t.dtype, t.ndim, t.device) for t in call.arguments()])
    return call.body, fixed, call.weight is None, kinds, call.reduction


def _generated(
    call: Call, needs: tuple[int, ...], arguments: list[Tensor]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Slopes and value from a generated kernel."""
    length = line_length(call, arguments)
    # a look costs less than what a kernel does for infinite logits: a sum and 9 ms against 11
    # (binary cross-entropy of 4 Mi elements)
    tame = call.logits is not None and not seen_finite(call.logits)
    lines = length > 0 and _separate(call)
    lined = in_lines(arguments, length) if lines else arguments
    given = (units(lined[0]) if lines else None, *lined)
    key = _key(call), needs, tame, lines
    if (kernel := _kernels.get(key)) is not None:
        slopes, value = kernel(*given)
    else:
        with _making:
            kernel = _generate(_template(call), needs, tame)
            slopes, value = kernel(*given)
            kept(_kernels)[key] = kernel
    whole = [slope.view_as(arguments[i]) for i, slope in zip(needs, slopes, strict=True)]
    return tuple(whole), value


def kept(cache: dict[Any, Any]) -> dict[Any, Any]:
    """The cache, emptied if there is no room in it."""
    if len(cache) >= MOST:
        cache.clear()
    return cache


def _separate(call: Call) -> bool:
    """Whether the samples stand alone, as a card claims and the contract tests see to."""
    if call.card.source or call.card.coupling == "row":
        return True
    around = surroundings((call.body, *call.options.values()))
    if around is None:
        return False
    key = _key(call), around
    if key not in _asked:
        with _making:
            kept(_asked)[key] = separate(call)
    return _asked[key]


def _generate(template: Call, needs: tuple[int, ...], tame: bool) -> Kernel:
    def kernel(unit: Tensor | None, *tensors: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        if unit is not None:
            add = functools.partial(added, unit=unit)
        elif tensors[0].device.type == "cpu":
            add = functools.partial(torch.sum, dtype=torch.float64)
        else:  # a GPU adds up in a tree
            add = None

        def total(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            value = template.over(tensors).compute(add, tame=tame)
            return value.sum(), value

        if not needs:
            return (), total(*tensors)[1]
        dtype = tensors[0].dtype
        wide = list(tensors)
        for i in needs:
            wide[i] = wide[i].to(slope_dtype(wide[i]))
        slopes, (_, value) = torch.func.grad_and_value(total, argnums=needs, has_aux=True)(*wide)
        return slopes, value.to(dtype)

    return _compiled(alone(kernel))


def alone(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A copy with a code object of its own.

    Dynamo limits the compilations of one code object, whichever loss it runs.
    """
    code = kernel.__code__.replace()
    return types.FunctionType(code, kernel.__globals__, kernel.__name__, None, kernel.__closure__)


def _compiled(kernel: Kernel, backend: str = "inductor") -> Kernel:
    options: Any = {"guard_filter_fn": lambda guards: [not _FIXED.match(g.name) for g in guards]}
    return torch.compile(  # type: ignore[return-value]
        kernel, dynamic=True, fullgraph=True, backend=backend, options=options
    )
