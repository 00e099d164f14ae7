"""A module without the package of its extra says which extra to install."""

import subprocess
import sys

# module, package that is not there, extra
NEEDS = [
    ("lossmith.choose", "pandas", "lab"),
    ("lossmith.see", "matplotlib", "lab"),
    ("lossmith.train.lightning", "lightning", "lightning"),
    ("lossmith.train.optuna", "optuna", "optuna,lab"),
    ("lossmith.train.skorch", "skorch", "skorch"),
    ("lossmith.cli", "click", "lab"),
]
CODE = """
import importlib, sys
for name, package in {needs}:
    sys.modules[package] = None
    try:
        importlib.import_module(name)
    except (ImportError, SystemExit) as error:
        print(error)
    del sys.modules[package]
"""


def test_the_extra_is_named() -> None:
    code = CODE.format(needs=[(name, package) for name, package, _ in NEEDS])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    said = done.stdout.splitlines()
    for line, (name, package, extra) in zip(said, NEEDS, strict=True):
        assert line.startswith("the command" if name == "lossmith.cli" else name), line
        assert f"needs pip install 'lossmith[{extra}]'" in line
        assert package in line
