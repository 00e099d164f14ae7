"""The command line: codes, channels, and a start that imports nothing heavy."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lossmith.cli import COMMANDS, main

SMALL = ["--metric", "mae", "--losses", "l1_loss", "--folds", "3x1", "--epochs", "2"]
GOOD = "x,y\n" + "".join(f"{i % 7},{i * 0.5}\n" for i in range(30))


def run(*words):
    return CliRunner().invoke(main, list(words))


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom lossmith.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'pandas', 'sklearn', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "choose" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_has_help(name):
    done = run(name, "--help")
    assert (done.exit_code, "Usage" in done.stdout) == (0, True)


def test_choose_prints_verdict_and_table_to_stdout_and_progress_to_stderr(tmp_path):
    page = tmp_path / "page.html"
    done = run("choose", "stackloss", *SMALL, "--html", str(page))
    assert done.exit_code == 0, done.output
    assert "cannot tell" in done.stdout.lower() or "better" in done.stdout
    assert "l1_loss" in done.stdout
    assert "…" not in done.stdout
    assert str(page) in done.stderr
    assert str(page) not in done.stdout
    assert page.stat().st_size < 1_000_000


def test_choose_json_is_json_and_the_same_each_time():
    first, again = (run("choose", "stackloss", *SMALL, "--json") for _ in range(2))
    content = json.loads(first.stdout)
    assert content["metric"] == "mae"
    assert {row["loss"] for row in content["table"]} == {
        "mse_loss",
        "mse_loss + shift",
        "l1_loss",
    }
    assert first.stdout == again.stdout


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "DATA must be a file that exists"),
        ("", [], "got an empty file"),
        (GOOD, ["--target", "z"], "target must be a column"),
        (GOOD, ["--target", "y", "--metric", "speed"], "metric must be one of"),
        (GOOD, ["--target", "y", "--metric", "f1"], "metric must fit the continuous target"),
        (GOOD, ["--target", "y", "--losses", "l7_loss"], "loss must be a name in the catalogue"),
        (GOOD, ["--target", "y", "--folds", "3by3"], "folds must be KxR"),
        (GOOD[:20], ["--target", "y"], "at least 20 rows"),
        (GOOD.replace("x,y", "y,y"), ["--target", "y"], "column names must differ"),
        (GOOD.replace("\n3,", "\nabc,", 1), ["--target", "y"], "got 'abc' in row 4"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, content, words, message):
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_text(content)
    done = run("choose", str(path), *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1
    assert done.stdout == ""


def test_diagnose_list_and_show_speak():
    assert "target 'foodexp' is continuous" in run("diagnose", "engel").stdout
    assert json.loads(run("diagnose", "engel", "--json").stdout)["rows"] == 235
    assert "huber_loss" in run("list", "--task", "regression").stdout
    assert "Huber 1964" in run("show", "huber").stdout
    assert json.loads(run("show", "mse", "--json").stdout)["name"] == "mse_loss"
    wrong = run("show", "hubber")
    assert (wrong.exit_code, "huber" in wrong.stderr) == (2, True)


def test_watch_shows_cells_and_no_ranking_before_the_end(tmp_path):
    folder = tmp_path / "run"
    done = run("choose", "stackloss", *SMALL, "--trials", "1", "--out", str(folder))
    assert done.exit_code == 0, done.output
    whole = run("watch", str(folder), "--once")
    assert whole.exit_code == 0
    assert "complete" in whole.stdout
    (folder / "complete").unlink()
    next((folder / "results").iterdir()).unlink()
    part = run("watch", str(folder), "--once").stdout
    assert "no ranking" in part
    assert {"2", "3"} <= set(part.split())
    assert run("watch", str(tmp_path / "nothing")).exit_code == 2


def test_exit_codes_tell_the_three_kinds_of_no(tmp_path):
    small = ["choose", "stackloss", *SMALL[:2], "--folds", "3x1", "--epochs", "2", "--trials", "1"]
    assert run(*small, "--losses", "l1_loss", "--require-winner").exit_code == 4
    outside = run(*small, "--losses", "cross_entropy")
    assert outside.exit_code == 3
    assert "cross_entropy refused" in outside.stderr
    assert run(*small, "--folds", "nonsense").exit_code == 2


def test_a_suite_compares_over_data_sets(tmp_path):
    names = "stackloss,linnerud,statecrime,engel,diabetes"
    words = [*("--suite", "--metric", "mae", "--losses", "l1_loss", "--folds", "3x1")]
    words += ["--epochs", "1", "--trials", "1"]
    done = run("choose", names, *words, "--json", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert {row["loss"] for row in content["table"]} == {"l1_loss", "mse_loss + shift"}
    assert set(content["gains"]) == set(names.split(","))
    few = run("choose", "stackloss,linnerud", *words, "--out", str(tmp_path))
    assert (few.exit_code, "at least 5 different data sets" in few.stderr) == (2, True)
