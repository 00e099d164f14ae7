"""Watch the body of a loss run, statement by statement.

The interpreter's own trace hook is used, limited to one source file, so that what is shown is what
ran: the same checks, fills and dtypes as in any call, and no second copy of the code to evaluate.
A debugger or a coverage tool that was tracing is put back afterwards.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One executed statement.

    Attributes:
        source: The statement, without line breaks.
        values: What it bound, by name: tensors and floating-point numbers only.
        inside: Name of the helper it belongs to; empty in the body of the loss itself.
    """

    source: str
    values: Mapping[str, Tensor | float]
    inside: str = ""


@dataclass
class Trace:
    """A finished run.

    Attributes:
        arguments: The body's arguments as they arrived, after checks, widening and filling.
        steps: What ran, in order.
        returned: The unreduced result.
        expression: Source of the expression that was returned.
    """

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: list[Step] = field(default_factory=list[Step])
    returned: Any = None
    expression: str = ""

    @property
    def captured(self) -> bool:
        """Whether the body ran at all (a native kernel may have taken its place)."""
        return bool(self.arguments)


def watch(body: Callable[..., Any], call: Callable[[], object]) -> Trace:
    """Run ``call`` and record every statement of ``body``, and of the helpers in its file."""
    trace, before = Trace(), sys.gettrace()
    code = body.__code__
    frames: dict[FrameType, _Frame] = {}

    def on_event(frame: FrameType, event: str, value: Any) -> Any:
        if frame.f_code.co_filename != code.co_filename or frame.f_code.co_name.startswith("<"):
            return None
        inside = frame.f_code is code
        if event == "call":
            started = trace.captured
            if inside and not started:
                trace.arguments = dict(frame.f_locals)
            elif not started:
                return None
            frames[frame] = _Frame(frame, "" if inside else frame.f_code.co_name)
            return on_event
        watched = frames[frame]
        trace.steps.extend(watched.advance(frame))
        if event == "return":
            del frames[frame]
            if inside:
                trace.returned, trace.expression = value, watched.source().removeprefix("return ")
        return on_event

    sys.settrace(on_event)
    try:
        call()
    finally:
        sys.settrace(before)
    return trace


class _Frame:
    """What a running frame held when its previous line started."""

    def __init__(self, frame: FrameType, helper: str) -> None:
        self.helper = helper
        self.statements = _statements(frame.f_code)
        self.line = frame.f_lineno
        self.held = _fingerprints(frame)

    def advance(self, frame: FrameType) -> list[Step]:
        """The step of the line that has just finished, if it bound a tensor or a number."""
        found = _fingerprints(frame)
        changed = {
            name: _kept(frame.f_locals[name])
            for name, mark in found.items()
            if self.held.get(name) != mark and isinstance(frame.f_locals[name], (Tensor, float))
        }
        step = [Step(self.source(), changed, self.helper)] if changed else []
        self.held, self.line = found, frame.f_lineno
        return step

    def source(self) -> str:
        """The statement of the current line."""
        return self.statements.get(self.line, "")


def _kept(value: Tensor | float) -> Tensor | float:
    """The value as it is now: a later statement may change the tensor in place."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _fingerprints(frame: FrameType) -> dict[str, tuple[int, int]]:
    """Identity of each local; a tensor changed in place counts as a new one."""
    return {
        name: (id(value), value._version if isinstance(value, Tensor) else 0)
        for name, value in frame.f_locals.items()
    }


@cache
def _statements(code: CodeType) -> dict[int, str]:
    """Line number -> the simple statement on it; empty where the source is not at hand."""
    try:
        lines, first = inspect.getsourcelines(code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):
        return {}
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            text = " ".join(ast.unparse(node).split())
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[line + first - 1] = text
    return found
