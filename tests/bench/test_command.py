"""``lossmith bench``: what a person sees."""

import json

import pytest
import torch
from click.testing import CliRunner

from lossmith.bench import cold
from lossmith.bench.limits import Limits
from lossmith.cli import main

QUICK = ["--small", "--seconds", "0.01", "--without", "compile"]


@pytest.fixture(autouse=True)
def rates(monkeypatch):
    known = Limits(bandwidth=1e10, flops={torch.float32: 1e11, torch.bfloat16: 2e11})
    monkeypatch.setattr("lossmith.bench.limits.measured", lambda device: known)


def run(*words, width=80):
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, ["bench", *words])


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width):
    done = run("huber", "dice", *QUICK, width=width)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in done.stdout
    assert [word for word in lines if word.startswith("huber, float32")]
    assert done.stdout.count("lossmith ") >= 4
    assert "10 GB/s, 100 GFLOP/s in float32" in " ".join(done.stdout.split())


def test_rows_are_listed_without_measuring():
    done = run("--list")
    assert done.exit_code == 0
    assert "one_pass:\n  focal\n  huber\n" in done.stdout


def test_a_file_holds_all_documents_and_a_folder_one_file_each(tmp_path):
    assert run("huber", "CTC", *QUICK, "--json", str(tmp_path / "all.json")).exit_code == 0
    found = json.loads((tmp_path / "all.json").read_text())
    assert [document["family"] for document in found] == ["one_pass", "sequence"]
    assert run("sequence", *QUICK, "--json", str(tmp_path / "each")).exit_code == 0
    assert [path.name for path in (tmp_path / "each").iterdir()] == ["sequence.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "ROW must be a family or a row of --list, got 'speed'"),
        (["huber", "--json", "results"], "--json must be a file for a part of a family"),
        (["huber", "--without", "tensorflow"], "--without must be a peer"),
        (["huber", "--cold-start"], "--cold-start must stand without rows, got 'huber'"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(words, message):
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [["huber"], ["--cold-start"]])
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_measured(
    words, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("lossmith.bench.run.run", None)
    monkeypatch.setattr("lossmith.bench.cold.cold_start", None)
    done = run(*words, "--json", str(tmp_path / "file" / "x.json"))
    assert done.exit_code == 2
    assert "--json must be a path to write to, got " in done.stderr


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device" in run("huber", "--device", "cuda").stderr


def test_first_calls_are_medians_over_programs(tmp_path, monkeypatch):
    seconds = iter(range(1, 100))
    folders = []

    def program(folder, done):
        done()
        folders.append(folder)
        return [next(seconds) for _ in range(3)]

    monkeypatch.setattr(cold, "_program", program)
    monkeypatch.setattr(cold, "missing_compiler", lambda device: "")
    done = run("--cold-start", "--json", str(tmp_path))
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "cold_start.json").read_text())
    # programs give 1 2 3, 4 5 6; then 7 8 9, 10 11 12; then 13 14 15, 16 17 18
    assert list(found["seconds"].values()) == [7, 8, 10, 11, 12]
    assert folders[0] == folders[1] != folders[2]  # the second finds what the first left
    assert "no kernel on disk" in done.stdout
    assert f"| {cold.SITUATIONS[0]} | 7 |" in cold.markdown(found)


def test_first_calls_without_a_compiler_are_refused(monkeypatch):
    monkeypatch.setattr(cold, "missing_compiler", lambda device: "there is no C++ compiler")
    done = run("--cold-start")
    assert done.exit_code == 2
    assert "must have one, but there is no C++ compiler" in done.stderr


def test_a_program_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(cold, "missing_compiler", lambda device: "")
    monkeypatch.setattr(cold, "CHILD", "raise SystemExit('there is no compiler')")
    done = run("--cold-start")
    assert done.exit_code == 2
    assert "a program to be measured failed: there is no compiler" in done.stderr


@pytest.mark.slow
def test_a_program_measures_its_calls(tmp_path):
    first, other, again = cold._program(str(tmp_path), lambda: None)
    assert first > again
    assert other > again
