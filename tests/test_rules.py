"""Rules of the code that no off-the-shelf linter knows; each is shown to catch its violation."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lossmith"
MATHEMATICS = sorted([*(SOURCE / "losses").rglob("*.py"), *(SOURCE / "engines").rglob("*.py")])
MOST_LINES = 400

# Each reads a value back to Python, which stalls a GPU and breaks a graph.
SYNCHRONISING = {"item", "cpu", "tolist", "numpy"}
SYNCHRONISING_FUNCTIONS = {"torch.equal", "torch.allclose"}
SPEAKING = {"print", "warnings.warn", "warn"}
# What a buffer is called that a function is handed to write in
BUFFERS = {"out", "tile", "self", "ctx"}
# Couplings whose mathematics is made of sums over the batch
SUMS_ARE_MATHEMATICS = {"statistics", "pairs"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def couplings(tree: ast.Module) -> set[object]:
    """The couplings that the cards of a file declare."""
    return {
        keyword.value.value
        for call in calls(tree)
        for keyword in call.keywords
        if keyword.arg == "coupling" and isinstance(keyword.value, ast.Constant)
    }


def stalls(tree: ast.Module) -> Iterator[str]:
    """Looks at values, except in a function that asks for the CPU, where they are free.

    A module or a function may say so in its docstring; formulas for the cache work there only.
    Losses of paths may list their lengths: these decide shapes, and torch's kernels want lists.
    """
    names = SYNCHRONISING - ({"tolist"} if "path" in couplings(tree) else set())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if "On the CPU only" in (ast.get_docstring(tree) or ""):
        return
    asks = (".device.type", ".is_cpu", "checkable(", "On the CPU only")
    known = formulas(tree)
    free = {
        id(call)
        for f in functions
        if f.name in known or any(word in ast.unparse(f) for word in asks)
        for call in calls(f)
    }
    for call in calls(tree):
        name = ast.unparse(call.func)
        if id(call) in free:
            continue
        if isinstance(call.func, ast.Attribute) and call.func.attr in names:
            yield f"line {call.lineno}: .{call.func.attr}() synchronises the device"
        if name in SYNCHRONISING_FUNCTIONS or (name == "bool" and call.args):
            yield f"line {call.lineno}: {name}() synchronises the device"


def formulas(tree: ast.Module) -> set[str]:
    """Functions of a ``Formula``, which is handed blocks of CPU tensors and buffers to write in."""
    made = [call for call in calls(tree) if ast.unparse(call.func) == "Formula"]
    given = [part for call in made for arg in call.args for part in ast.walk(arg)]
    return {p.id for p in given if isinstance(p, ast.Name)} | {
        p.attr for p in given if isinstance(p, ast.Attribute)
    }


def speaks(tree: ast.Module) -> Iterator[str]:
    for call in calls(tree):
        if ast.unparse(call.func) in SPEAKING:
            yield f"line {call.lineno}: {ast.unparse(call.func)} on the hot path"


def mutates(tree: ast.Module) -> Iterator[str]:
    """In-place methods, augmented and item assignments, on a parameter that was not rebound.

    A kernel for Triton moves its pointers, which changes nothing of its caller's.
    """
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and not is_triton(function):
            given = function.args
            names = {a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
            names -= BUFFERS | rebound(function)
            names -= names if function.name in formulas(tree) else set()
            for node in ast.walk(function):
                target = written(node)
                if target in names:
                    yield f"line {node.lineno}: {function.name} changes its argument {target}"


def is_triton(function: ast.FunctionDef) -> bool:
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def rebound(function: ast.FunctionDef) -> set[str]:
    """Names that a plain assignment binds anew."""
    targets = [
        t for node in ast.walk(function) if isinstance(node, ast.Assign) for t in node.targets
    ]
    return {
        name.id
        for target in targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }


def written(node: ast.AST) -> str | None:
    """Name of the object that a statement or call changes in place."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)):
            return name if attr.endswith("_") and not attr.endswith("__") else None
        case ast.AugAssign(target=ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name))):
            return name
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name))]):
            return name
        case _:
            return None


def reduces(tree: ast.Module) -> Iterator[str]:
    """Sums and means over everything: reducing is the business of core/reduction.py.

    Files without a card hold parts of several losses and have no coupling to judge them by; native
    kernels, told by their argument ``reduction``, reduce by contract.
    """
    found = couplings(tree)
    if not found or found & SUMS_ARE_MATHEMATICS:
        return
    kernels = [f for f in tree.body if isinstance(f, ast.FunctionDef) and is_kernel(f)]
    allowed = {id(call) for kernel in kernels for call in calls(kernel)}
    for call in calls(tree):
        match call:
            case ast.Call(func=ast.Attribute(attr="mean" | "sum" as name), args=[], keywords=[]):
                if id(call) not in allowed:
                    yield f"line {call.lineno}: .{name}() over the whole batch"
            case _:
                pass


def is_kernel(function: ast.FunctionDef) -> bool:
    """A function that is handed torch's number for the reduction."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    kinds = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation}
    return kinds.get("reduction") == "int"


RULES = {"stalls": stalls, "speaks": speaks, "mutates": mutates}


def broken(rule, paths: list[Path]) -> list[str]:
    """Violations in all files, named by file."""
    return [
        f"{path.relative_to(ROOT)}: {found}"
        for path in paths
        for found in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("name", RULES)
def test_mathematics_keeps_the_rule(name: str) -> None:
    assert not broken(RULES[name], MATHEMATICS)


def test_only_the_core_reduces_over_the_batch() -> None:
    assert not broken(reduces, sorted((SOURCE / "losses").rglob("*.py")))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (stalls, "x.max().item()"),
        (stalls, "x.cpu()"),
        (stalls, "Card(coupling='row')\nlengths.tolist()"),
        (stalls, "Card(coupling='path')\nx.max().item()"),
        (stalls, "if bool((x > 0).any()): pass"),
        (stalls, "torch.equal(x, y)"),
        (speaks, "print(x)"),
        (speaks, "warnings.warn('x')"),
        (mutates, "def f(x):\n    x.clamp_(0)"),
        (mutates, "def f(x):\n    x += 1"),
        (mutates, "def f(x):\n    x[0] = 1"),
        (mutates, "def f(x):\n    x[0] *= 1"),
        (mutates, "def f(*, weight):\n    weight.mul_(2)"),
        (reduces, "Card(coupling='row')\nx.mean()"),
        (reduces, "Card(coupling='element')\ndef f(x, reduction: str):\n    x.sum()"),
    ],
)
def test_rule_catches_its_violation(rule, code: str) -> None:
    assert len(list(rule(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (stalls, "torch.equals(x)\nx.items()"),
        (stalls, "Card(coupling='path')\nlengths.tolist()"),
        (stalls, "def f(x):\n    return x.device.type == 'cpu' and x.max().item() > 0"),
        (stalls, "def f(x):\n    return x.is_cpu and x.max().item() > 0"),
        (stalls, "def f(x):\n    return x.max().item() > 0\nFormula(f)"),
        (stalls, '"""Blocks. On the CPU only."""\nx.item()'),
        (mutates, "def f(x):\n    x = x.clone()\n    x.clamp_(0)"),
        (mutates, "def f(x, out):\n    out.copy_(x)"),
        (mutates, "@triton.jit\ndef f(x):\n    x += 1"),
        (mutates, "def f(x, slope):\n    slope.copy_(x)\nFormula(f)"),
        (mutates, "def f(x):\n    x.clamp(0)\n    y = x.clone()\n    y += 1"),
        (reduces, "Card(coupling='row')\nx.sum(-1)\nx.mean(dim=1)"),
        (reduces, "Card(coupling='row')\ndef f(x, reduction: int):\n    x.sum()"),
        (reduces, "Card(coupling='statistics')\nx.sum()"),
    ],
)
def test_rule_lets_the_near_neighbour_pass(rule, code: str) -> None:
    assert not list(rule(ast.parse(code)))


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "__init__.py"  # generated, one line per public name
    }
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


def text_files() -> Iterator[Path]:
    """Every file that git tracks and a person reads."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    kinds = {".py", ".md", ".toml", ".txt", ""}
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return (p for p in paths if p.suffix in kinds and p.is_file() and p != Path(__file__))


def test_nothing_is_left_for_later_and_no_path_of_one_machine_is_kept() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|/(home|root|Users)/")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def loaded_by(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after some code."""
    shown = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"sklearn", "scipy", "pandas", "matplotlib", "jinja2", "click", "rich", "pyarrow"}


def test_the_losses_bring_torch_and_nothing_else_heavy() -> None:
    loaded = loaded_by("import lossmith\nlossmith.cards()")
    assert "torch" in loaded
    assert not loaded & HEAVY


def test_help_starts_without_torch() -> None:
    code = """
from click.testing import CliRunner
from lossmith.cli import main
assert "choose" in CliRunner().invoke(main, ["--help"]).output
"""
    assert not loaded_by(code) & {"torch", "numpy", "pandas", "sklearn", "matplotlib"}
