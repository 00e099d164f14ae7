"""Each example runs, and ends where it should."""

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")


def load(name: str) -> dict[str, Any]:
    """By import, not by running the file: what an example defines has to be picklable."""
    return vars(importlib.import_module(name))


def test_linear_regression_reaches_the_closed_form() -> None:
    found = load("linear_regression")["main"]()
    assert found["last"] < found["first"]
    assert found["best"] <= found["last"] < found["best"] * 1.02


def test_cnn_learns_and_each_remedy_narrows_the_gap() -> None:
    results = load("image_cnn")["main"]()
    plain = results["plain"]
    assert plain.accuracy > 0.85
    assert plain.gap > 0.1
    for name in ("L1", "L2", "Dropout"):
        assert results[name].accuracy > 0.8, name
        assert results[name].gap < plain.gap, name


def test_custom_loss_holds_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("custom_loss")["main"]() > 50
    printed = capsys.readouterr().out
    slope = {
        line.split(":")[0]: float(line.split()[2].rstrip(","))
        for line in printed.splitlines()
        if "slope" in line
    }
    assert abs(slope["arsinh_loss"] - 3) < 0.2
    assert abs(slope["mse_loss"] - 3) > 0.2


def test_skorch_gives_probabilities() -> None:
    found = load("skorch_classifier")["main"]()
    assert found["row_sum"] == pytest.approx(1, abs=1e-6)
    assert found["log_loss"] < 0.2


def test_optimisers_all_descend_and_are_drawn(tmp_path: Path) -> None:
    last = load("optimisers")["main"](tmp_path / "paths.png")
    assert all(value < 0.05 for value in last.values())
    assert (tmp_path / "paths.png").stat().st_size > 10_000
