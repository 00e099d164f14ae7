"""The generated files are current, and the names in them behave."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lossmith
from lossmith.core import exports


def test_generated_files_are_current() -> None:
    stale = "".join(exports.stale(path, text) for path, text in exports.generate().items())
    assert not stale, f"run python -m lossmith.core.exports\n{stale}"


def test_generation_is_deterministic() -> None:
    assert exports.generate() == exports.generate()


def test_surface_lists_every_public_name() -> None:
    surface = json.loads(exports.SURFACE.read_text(encoding="utf-8"))
    assert sorted(surface) == sorted(lossmith.__all__)


def test_every_public_name_loads_and_is_defined_where_the_table_says() -> None:
    for name in lossmith.__all__:
        found = getattr(lossmith, name)
        assert name in vars(sys.modules[lossmith._HOME[name]])
        assert vars(lossmith)[name] is found  # cached: the second look-up costs nothing


def test_no_public_name_is_a_module() -> None:
    """Importing every loss file first must not put a module in the place of a function."""
    code = """
import sys, types, lossmith
from lossmith.core.catalogue import cards
cards()
public = {name: getattr(lossmith, name) for name in lossmith.__all__}
sys.exit(", ".join(name for name, found in public.items() if isinstance(found, types.ModuleType)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_unknown_name_raises() -> None:
    with pytest.raises(AttributeError, match=r"module 'lossmith' has no attribute 'hubber_loss'"):
        _ = lossmith.hubber_loss


def test_dir_is_the_public_surface() -> None:
    assert set(lossmith.__all__) < set(dir(lossmith))
    assert "import_module" not in dir(lossmith)


def test_importing_lossmith_does_not_import_torch() -> None:
    code = "import sys, lossmith; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of lossmith."""
    home = tmp_path / "src" / "lossmith"
    (home / "losses" / "elementwise").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    monkeypatch.setattr(exports, "ROOT", tmp_path)
    monkeypatch.setattr(exports, "PACKAGE", home)
    monkeypatch.setattr(exports, "INIT", home / "__init__.py")
    monkeypatch.setattr(exports, "SURFACE", tmp_path / "tests" / "api_surface.json")
    monkeypatch.setattr(exports, "PUBLIC", {})
    return home


LOSS_FILE = """
@loss(Card())
def tilted_loss(input, target, *, tilt=1.0, reduction="mean"):
    return input
def _helper(x):
    return x
def helper(x):
    return x
@cache
def table():
    return 1
class _Base(Loss):
    pass
class TiltedLoss(_Base):
    tilt: float = 1.0
class Row(NamedTuple):
    x: int
Tilted2d = TiltedLoss
LIMIT = 3
"""


def test_losses_modules_and_aliases_are_public_and_nothing_else(package: Path) -> None:
    (package / "losses" / "elementwise" / "tilted.py").write_text(LOSS_FILE)
    homes = exports.public_losses()
    assert set(homes) == {"tilted_loss", "TiltedLoss", "Tilted2d"}
    assert set(homes.values()) == {"lossmith.losses.elementwise.tilted"}


def test_surface_holds_signatures(package: Path) -> None:
    (package / "losses" / "elementwise" / "tilted.py").write_text(LOSS_FILE)
    surface = json.loads(exports.generate()[exports.SURFACE])
    assert surface["tilted_loss"] == "def (input, target, *, tilt=1.0, reduction='mean')"
    assert surface["TiltedLoss"] == "class (_Base) {tilt: float = 1.0}"
    assert surface["Tilted2d"] == "= TiltedLoss"


def test_generated_init_is_valid_and_carries_the_version(package: Path) -> None:
    (package / "losses" / "elementwise" / "tilted.py").write_text(LOSS_FILE)
    text = exports.generate()[exports.INIT]
    ast.parse(text)
    assert '__version__ = "1.2.3"' in text


def test_one_name_in_two_files_is_refused(package: Path) -> None:
    for name in ("a", "b"):
        (package / "losses" / f"{name}.py").write_text(LOSS_FILE)
    with pytest.raises(
        exports.ExportError, match=r"is defined in both lossmith\.losses\.a and lossmith\.losses\.b"
    ):
        exports.generate()


def test_a_name_that_equals_a_submodule_is_refused(package: Path) -> None:
    (package / "losses" / "tilted.py").write_text(LOSS_FILE)
    (package / "tilted_loss.py").write_text("")
    with pytest.raises(exports.ExportError, match="tilted_loss: a public name must differ"):
        exports.generate()


def test_a_listed_name_that_does_not_exist_is_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "tools.py").write_text("def there(): ...\n")
    monkeypatch.setattr(exports, "PUBLIC", {"lossmith.tools": ("there", "absent")})
    with pytest.raises(exports.ExportError, match=r"lossmith\.tools does not define absent"):
        exports.generate()


def test_check_fails_when_stale_and_passes_when_written(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "losses" / "tilted.py").write_text(LOSS_FILE)
    assert exports.main(["--check"]) == 1
    assert '+    "tilted_loss",' in capsys.readouterr().out
    assert exports.main([]) == 0
    assert exports.main(["--check"]) == 0
