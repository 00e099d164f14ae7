"""``lossmith explain`` reads tensors by name and refuses the rest in one line."""

import pytest
from click.testing import CliRunner

from lossmith.cli import main


def run(line: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["explain", *line.split()])
    return done.exit_code, done.stdout, done.stderr


def test_numbers_options_and_value() -> None:
    code, out, _ = run("huber_loss --input -0.5,3 --target 0,0 --delta=2 --reduction sum")
    assert code == 0
    assert "input = [-0.5, 3]" in out
    assert "delta = 2" in out
    assert "sum = (0.125 + 4)" in out
    assert out.rstrip().endswith("huber_loss = 4.125")


def test_rows_whole_numbers_and_weights() -> None:
    code, out, _ = run("cross_entropy --input 2,0;0,5 --target 0,1 --sample-weight 1,0 --markdown")
    assert code == 0
    assert "- `target` = `[0, 1]`" in out
    assert "- `mean` = `(1 * 0.126928 + 0 * " in out


def test_probabilities_are_told_from_classes_by_the_point() -> None:
    _, out, _ = run("cross_entropy --input 2,0;0,5 --target 1.0,0.0;0.5,0.5")
    assert "target = [[1, 0], [0.5, 0.5]]" in out


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("huber_loss --input 1", "huber_loss also needs --target"),
        ("huber_loss --input 1,x --target 0,0", "input must be numbers separated by commas"),
        ("huber_loss --input 1;2,3 --target 0", "input must have rows of one length, got '1;2,3'"),
        ("huber_loss --input= --target 0", "input must hold numbers, got ''"),
        ("huber_loss --input", "--input must be followed by a value"),
        ("huber_loss 1 2", "arguments must come as --NAME VALUE, got '1'"),
        ("huber_loss --input 1 --target 0 --delta -1", "delta must be > 0, got -1"),
        (
            "huber_loss --inptu 1 --target 0",
            "an argument of huber_loss must be one of --input, --target, --delta, --sample-weight, "
            "--reduction, got --inptu",
        ),
        ("pseudo_huber_loss --input 1 --target 0 --delta inf", "must be > 0 and finite, got inf"),
        ("no_such_loss --input 1 --target 0", "loss must be a name in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(line: str, complaint: str) -> None:
    code, out, err = run(line)
    assert code == 2
    assert out == ""
    assert complaint in err
    assert "Traceback" not in err
