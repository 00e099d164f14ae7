"""The pages in docs/ say what the library does."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

import lossmith

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_catalogue_has_a_section_and_a_row_for_each_task_of_each_loss(build: ModuleType) -> None:
    cards = lossmith.cards()
    page = build.page(list(cards.values()))
    for name, card in cards.items():
        assert page.count(f"\n### {name}\n") == 1
        assert card.formula in page
        assert page.count(f"| [`{name}`](#{name}) |") == len(card.tasks)


def test_a_table_row_is_one_line_of_three_cells(build: ModuleType) -> None:
    assert build.cell("|a|\nb") == "\\|a\\| b"


def test_check_tells_a_stale_page(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "PAGE", tmp_path / "catalogue.md")
    monkeypatch.setattr(build, "REPRODUCED", tmp_path / "reproduced.md")
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    build.PAGE.write_text("old")
    assert build.main(["--check"]) == 1


def record(**changes: object) -> dict[str, object]:
    claim = {"what": "a | b", "low": 1.0, "high": 2.0, "measured": 0.5, "interval": [0.4, 0.6]}
    result = {
        **dict.fromkeys(("finding", "source", "published", "setting", "metric"), "text"),
        "name": "made-up",
        "losses": ["mse_loss"],
        "seeds": 2,
        "held": False,
        "seconds": 3.2,
        "processor_seconds": 1.4,
        "claims": [{**claim, "held": False}],
        "beside": {"other": None},
        "remark": "because",
        **changes,
    }
    facts = {
        "date": "2026-01-01",
        "hardware": "a machine",
        "threads": 1,
        "versions": {"torch": "2"},
    }
    return {**facts, "results": [result]}


def test_page_of_reproductions_says_what_was_not_held(build: ModuleType) -> None:
    page = build.reproduced(record())
    assert "0 of 1 held on 2026-01-01: a machine" in page
    assert "| a \\| b: 0.5 (0.4 to 0.6) | **not held** | 3 (1) |" in page
    assert "| a \\| b | 1 to 2 | 0.5 (0.4 to 0.6) | **not held** |" in page
    assert "| other | not finite |" in page
    assert "\nbecause\n" in page
    held = build.reproduced(record(held=True, claims=[], remark=""))
    assert "1 of 1 held" in held
    assert "**not held**" not in held


def test_check_tells_a_stale_page_of_reproductions(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "PAGE", tmp_path / "catalogue.md")
    monkeypatch.setattr(build, "REPRODUCED", tmp_path / "reproduced.md")
    monkeypatch.setattr(build, "RECORD", tmp_path / "reproduced.json")
    build.RECORD.write_text(json.dumps(record()))
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    build.RECORD.write_text(json.dumps(record(remark="another")))
    assert build.main(["--check"]) == 1
