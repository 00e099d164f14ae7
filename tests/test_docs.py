"""The pages in docs/ say what the library does."""

import importlib.util
import re
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
    page = build.catalogue(list(cards.values()))
    for name, card in cards.items():
        assert page.count(f"\n### {name}\n") == 1
        assert card.formula in page
        assert page.count(f"| [`{name}`](#{name}) |") == len(card.tasks)


def test_a_table_row_is_one_line_of_three_cells(build: ModuleType) -> None:
    assert build.cell("|a|\nb") == "\\|a\\| b"


def test_check_tells_a_stale_page(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "DOCS", tmp_path)
    monkeypatch.setattr(build, "pages", lambda: {"catalogue.md": "new", "images/a.svg": "<svg/>"})
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    (tmp_path / "images" / "a.svg").write_text("old")
    assert build.main(["--check"]) == 1


def test_the_page_of_benchmarks_follows_the_kept_results(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = build.RESULTS / "one_pass.json"
    (tmp_path / "one_pass.json").write_text(kept.read_text().replace('"huber"', '"hubris"'))
    (tmp_path / "cold_start.json").write_text((build.RESULTS / "cold_start.json").read_text())
    monkeypatch.setattr(build, "RESULTS", tmp_path)
    pages = build.pages()
    made = {"catalogue.md", "benchmarks.md", "reproduced.md", "images/benchmarks/one_pass.svg"}
    assert set(pages) == made
    assert "| hubris |" in pages["benchmarks.md"]
    assert "hubris" in pages["images/benchmarks/one_pass.svg"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one_pass.json").write_text(kept.read_text().replace('"own"', '"mine"'))
    pages = build.pages()
    assert set(pages) - made == {"benchmarks-other.md", "images/benchmarks-other/one_pass.svg"}
    assert "(benchmarks-other.md)" in pages["benchmarks.md"]
    assert "| mine |" in pages["benchmarks-other.md"]
    assert "(images/benchmarks-other/one_pass.svg)" in pages["benchmarks-other.md"]


def test_the_page_of_reproductions_follows_its_record(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = build.RECORD.read_text(encoding="utf-8")
    monkeypatch.setattr(build, "RECORD", tmp_path / "reproduced.json")
    build.RECORD.write_text(kept.replace("square-loss", "round-loss"), encoding="utf-8")
    assert "## round-loss" in build.pages()["reproduced.md"]


def test_the_examples_of_the_engines_run(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "engines.md").read_text(), re.DOTALL)
    exec(compile(example, "docs/engines.md", "exec"), {})
    rows, plain = capsys.readouterr().out.splitlines()
    assert rows.startswith("rows: ")
    assert plain.startswith("plain: 1100 elements")
