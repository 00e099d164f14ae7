"""What a user may get wrong: one clear line, exit code 2, no traceback, and no pickle loaded."""

import csv
import io
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from lossmith.cli import main


def run(*words):
    return CliRunner().invoke(main, list(words))


def table(target, header="x,y", rows=40):
    """A file of one feature and a target, which is a function of the row."""
    return header + "\n" + "".join(f"{i % 7},{target(i)}\n" for i in range(rows))


def parquet():
    written = io.BytesIO()
    pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40.0)}).to_parquet(written)
    return written.getvalue()


GOOD = table(lambda i: i / 2)
WORDS = table(lambda i: "ab"[i % 2])
TIMED = "x,when,y\n" + "".join(f"{i},day {i},{i}\n" for i in range(40))

# name of the file, its content, words after it, what the line says
BAD = {
    # files
    "missing file": ("no.csv", None, [], r"DATA must be a file that exists .* got .*no\.csv"),
    "folder": (".", None, [], "DATA must be a file that exists .* got a folder"),
    "empty file": ("d.csv", "", [], "must hold a header and rows, got an empty file"),
    "blank lines": ("d.csv", "\n\n\n", [], "must hold a header and rows, got an empty file"),
    "header only": ("d.csv", "x,y\n", [], "data must have at least 20 rows, got 0"),
    "few rows": ("d.csv", GOOD[:20], [], "data must have at least 20 rows, got 3"),
    "one column": ("d.csv", GOOD.replace(",", ";"), ["--target=x;y"], "must have a feature column"),
    "duplicate names": ("d.csv", GOOD.replace("x,y", "y,y"), [], "must differ, got 'y' more than"),
    "one long row": ("d.csv", GOOD.replace("\n3,", "\n3,4,5,", 1), [], "CSV .* line 5, saw 4"),
    "rows longer than the header": (
        "d.csv",
        table(lambda i: f"{i},{i}"),
        [],
        "as many values in each row .* which has 2, got rows with more",
    ),
    "short row": ("d.csv", GOOD + "1\n", [], "target 'y' must not be missing, got row 41"),
    "latin-1": ("d.csv", GOOD.replace("x", "größe").encode("latin-1"), [], "UTF-8, got byte 0xf6"),
    "utf-16": ("d.csv", GOOD.encode("utf-16"), [], "CSV file in UTF-8, got byte 0xff at place 0"),
    "binary": ("d.csv", bytes(range(256)) * 9, [], "must be a CSV file in UTF-8, got byte"),
    "zero bytes": ("d.csv", bytes(400), [], "must be a CSV file, got zero bytes"),
    "truncated parquet": ("d.parquet", parquet()[:-40], [], "must be a Parquet file, reading it"),
    "text named parquet": ("d.parquet", GOOD, [], "must be a Parquet file, reading it failed"),
    # columns and targets
    "column without values": (
        "d.csv",
        table(lambda i: f",{i}", header="x,z,y"),
        [],
        "columns must hold values, got 'z' without any",
    ),
    "target without values": (
        "d.csv",
        table(lambda i: ""),
        [],
        "must hold values, got 'y' without",
    ),
    "missing targets": (
        "d.csv",
        table(lambda i: i if i % 9 else ""),
        [],
        "rows 1, 10, 19 and 2 more",
    ),
    "infinite target": ("d.csv", table(lambda i: i if i else "-inf"), [], "got -inf in row 1"),
    "number beyond float64": (
        "d.csv",
        table(lambda i: i if i else "1e999"),
        [],
        "got inf in row 1",
    ),
    "number beyond float32": ("d.csv", table(lambda i: i if i else "1e300"), [], r"got 1e\+300 in"),
    "constant target": (
        "d.csv",
        table(lambda i: 7),
        [],
        "target 'y' must vary, got 7 in every row",
    ),
    "one class": ("d.csv", table(lambda i: "a"), ["--task=binary"], "must vary, got 'a' in every"),
    "rare class": ("d.csv", table(lambda i: "ab"[i == 3]), [], "at least 4 rows .* got 1 of 'b'"),
    "stray text": ("d.csv", GOOD.replace("\n3,", "\nabc,", 1), [], "got 'abc' in row 4"),
    "hostile text": (
        "d.csv",
        GOOD.replace("\n3,", "\n\x1b[2J\x07<b>,", 1),
        [],
        r"got '\\x1b\[2J\\x07<b>' in row 4",
    ),
    "no such target": ("d.csv", GOOD, ["--target=z"], "target must be a column of .* got 'z'"),
    "no target": (
        "d.csv",
        GOOD,
        ["--target="],
        "--target must name the target column, one of x, y",
    ),
    "endless name": ("d.csv", GOOD.replace("x", "n" * 10_000), ["--target=z"], "must be a column"),
    # tasks
    "no such task": ("d.csv", GOOD, ["--task=guess"], "task must be one of .* got 'guess'"),
    "text for amounts": ("d.csv", WORDS, ["--task=continuous"], "must be numeric .* got 'a'"),
    "negative counts": ("d.csv", table(lambda i: i - 3), ["--task=count"], "from 0 up .* got -3"),
    "fractions as counts": ("d.csv", GOOD, ["--task=count"], r"whole numbers .* got 0\.5"),
    "shares above one": ("d.csv", GOOD, ["--task=proportion"], r"in \[0, 1\] .* got 1\.5"),
    "zero as positive": ("d.csv", GOOD, ["--task=positive"], "above 0 .* got 0"),
    "forty classes of two": ("d.csv", GOOD, ["--task=binary"], "2 values .* got 40"),
    # options
    "no such metric": ("d.csv", GOOD, ["--metric=speed"], "metric must be one of .* got 'speed'"),
    "metric of classes": ("d.csv", GOOD, ["--metric=f1"], "metric must fit the continuous target"),
    "level above one": ("d.csv", GOOD, ["--metric=pinball:1.5"], "Q in .* got 'pinball:1.5'"),
    "level not a number": ("d.csv", GOOD, ["--metric=pinball:nan"], "Q in .* got 'pinball:nan'"),
    "no such loss": ("d.csv", GOOD, ["--losses=l7_loss"], "name in the catalogue .* got 'l7_loss'"),
    "no losses": ("d.csv", GOOD, ["--losses="], "loss must be a name in the catalogue, got ''"),
    "no such model": ("d.csv", GOOD, ["--model=forest"], "'--model': 'forest' is not one of 'mlp'"),
    "no such executor": (
        "d.csv",
        GOOD,
        ["--executor=slurm"],
        "'--executor': 'slurm' is not one of",
    ),
    "ray alone": (
        "d.csv",
        GOOD,
        ["--executor=ray"],
        "jobs must be >= 2 for the executor ray, got 1",
    ),
    "one fold": ("d.csv", GOOD, ["--folds=1x0"], "folds must be KxR .* got '1x0'"),
    "folds of nothing": ("d.csv", GOOD, ["--folds=nanx1"], "folds must be KxR .* got 'nanx1'"),
    "negative folds": ("d.csv", GOOD, ["--folds=-3x1"], "folds must be KxR .* got '-3x1'"),
    "endless repeats": ("d.csv", GOOD, ["--folds=9x999999999"], "at most 1000 cells"),
    "more folds than rows": ("d.csv", GOOD, ["--folds=99x1"], "at most half the 40 rows, got 99"),
    "no epochs": ("d.csv", GOOD, ["--epochs=0"], "'--epochs': 0 is not in the range"),
    "epochs not a number": ("d.csv", GOOD, ["--epochs=nan"], "'--epochs': 'nan' is not a valid"),
    "endless epochs": (
        "d.csv",
        GOOD,
        ["--epochs=" + "9" * 30],
        "epochs must be .* to 100000, got 9",
    ),
    "negative trials": ("d.csv", GOOD, ["--trials=-1"], "'--trials': -1 is not in the range"),
    "endless trials": ("d.csv", GOOD, ["--trials=9999999"], "trials must be .* got 9999999"),
    "negative seed": ("d.csv", GOOD, ["--seed=-1"], "'--seed': -1 is not in the range"),
    "endless seed": (
        "d.csv",
        GOOD,
        ["--seed=" + "9" * 40],
        "seed must be a whole number from 0 to",
    ),
    "no jobs": ("d.csv", GOOD, ["--jobs=0"], "'--jobs': 0 is not in the range"),
    "endless jobs": (
        "d.csv",
        GOOD,
        ["--jobs=999999"],
        "jobs must be a whole number from 1 to 1000",
    ),
    "no such group": ("d.csv", GOOD, ["--group=who"], "must be columns of .* got 'who'"),
    "target as group": ("d.csv", GOOD, ["--group=y"], "beside the target .* got 'y'"),
    "only a group": ("d.csv", GOOD, ["--group=x"], "must have a feature column beside the target"),
    "no such time": ("d.csv", GOOD, ["--time=when"], "must be columns of .* got 'when'"),
    "days without dates": (
        "d.csv",
        TIMED,
        ["--time=when"],
        "must be numbers or dates, got 'day 0'",
    ),
    "group and time": ("d.csv", TIMED, ["--time=when", "--group=when"], "not be given together"),
    "no such option": ("d.csv", GOOD, ["--verbose"], "No such option '?--verbose"),
    "no such language": ("d.csv", GOOD, ["--lang=fr"], "'--lang': 'fr' is not one of 'en', 'zh'"),
    "results into a file": ("d.csv", GOOD, ["--out=d.csv"], "'--out': Directory 'd.csv' is a file"),
    "results below a file": ("d.csv", GOOD, ["--out=d.csv/run"], "one to keep results in, got"),
    "page into a folder": ("d.csv", GOOD, ["--html=."], r"'--html': File '\.' is a directory"),
    "small suite": ("d.csv", GOOD, ["--suite", "--target"], "requires an argument"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_one_line_and_code_2(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    name, content, words, message = BAD[case]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if not any(word.startswith("--target") for word in words):
        words = ["--target=y", *words]
    done = run("choose", name, *words)
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line), line
    assert line.isprintable()
    assert len(line) < 1100


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("stackloss,engel", "at least 5 different data sets, got 2"),
        (",".join(["stackloss"] * 5), "at least 5 different data sets, got 1"),
        ("stackloss,engel,diabetes,linnerud,nothing", "DATA must be a file .* got 'nothing'"),
        (",,,,", "at least 5 different data sets, got 1"),
        ("stackloss,engel,diabetes,linnerud,.", "got a folder"),
        (
            "diabetes,iris,wine,breast_cancer,linnerud",
            "must share baseline and metric, got .*cross_entropy.*mse_loss",
        ),
    ],
)
def test_a_bad_suite_is_refused_before_anything_is_trained(names, message):
    asked = [] if names.startswith("diabetes,iris") else ["--metric=mae"]
    done = run("choose", names, "--suite", *asked)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.search(message, line), line


@pytest.mark.parametrize("words", [[], ["--nothing"], ["a", "b"], ["--folds"]])
def test_wrong_words_are_one_line_without_the_usage(words):
    done = run("choose", *words)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


class Planting:
    """A pickle that writes a file if it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["d.csv", "d.pkl", "d.pickle", "d.parquet", "d.npz", "d.npy", "d"])
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_no_pickle_is_ever_loaded(tmp_path, name, protocol):
    planted = tmp_path / "planted"
    content = pickle.dumps(Planting(planted), protocol)
    pickle.loads(content).close()
    assert planted.exists()  # the pickle would do it
    planted.unlink()
    (tmp_path / name).write_bytes(content)
    for command in ("choose", "diagnose"):
        assert run(command, str(tmp_path / name), "--target=y").exit_code == 2
    folder = tmp_path / "run"
    (folder / "results").mkdir(parents=True)
    (folder / "plan.json").write_bytes(content)
    assert run("watch", str(folder), "--once").exit_code == 2
    assert run("choose", "stackloss", "--out", str(folder)).exit_code == 2
    assert not planted.exists()


def test_names_cannot_write_to_the_terminal(tmp_path):
    """No text of the data may move the cursor, start a line or speak rich's markup."""
    evil = "a\x1b[2J\x07\r[bold]\u202e"
    rows = range(40)
    frame = pd.DataFrame({"x": rows, "y\nz" + evil: [f"{evil}{i % 2}" for i in rows]})
    path = tmp_path / "d.csv"
    frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    folder = str(tmp_path / "run")
    small = ["--losses=sigmoid_focal_loss", "--folds=3x1", "--epochs=1", "--trials=1"]
    asked = ["--target", frame.columns[1]]
    for done in (
        run("choose", str(path), *asked, *small, "--out", folder),
        run("diagnose", str(path), *asked),
        run("watch", folder, "--once"),
    ):
        assert done.exit_code == 0, done.output
        assert all(line.isprintable() for line in done.stdout.split("\n"))
    assert "y\\nza\\x1b[2J\\x07\\r[bold]\\u202e" in run("diagnose", str(path), *asked).stdout
