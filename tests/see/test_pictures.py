"""What is drawn is what the losses compute, over the axis they belong to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure

import lossmith
from lossmith.cli import main
from lossmith.core.card import Card
from lossmith.core.domain import BINARY, NONNEGATIVE, REAL, SIGN
from lossmith.core.loss import REGISTRY
from lossmith.core.signature import elementwise
from lossmith.see import curves, heatmap
from lossmith.see.values import curve


@pytest.fixture(autouse=True)
def losses() -> Iterator[None]:
    """One loss for each kind of axis, away from the catalogue once the test is over."""
    lossmith.cards()  # loaded before the patch, so that they stay when it is undone

    def card(target: Any) -> Card:
        return Card(
            task="regression",
            coupling="element",
            formula="f",
            signatures=elementwise(input=REAL, target=target),
            use_when="a test",
            avoid_when="else",
            source="none",
        )

    with patch.dict(REGISTRY):

        @lossmith.loss(card(SIGN))
        def ramp_loss(input, target, *, sample_weight=None, reduction="mean"):
            return (1 - input * target).clamp_min(0)

        @lossmith.loss(card(BINARY))
        def uneven_loss(input, target, *, sample_weight=None, reduction="mean"):
            return torch.where(target == 1, (1 - input).clamp_min(0), 3 * input.clamp_min(0))

        @lossmith.loss(card(NONNEGATIVE))
        def count_loss(input, target, *, sample_weight=None, reduction="mean"):
            return input.exp() - target * input

        @lossmith.loss(card(REAL))
        def skew_loss(input, target, *, sample_weight=None, reduction="mean"):
            return input * target

        yield


def line(axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_curve_and_gradient_are_those_of_the_loss() -> None:
    figure, axes = curves(["huber", lossmith.HuberLoss(delta=0.5)], gradient=True, span=(-2, 2))
    x, y = line(axes, "huber_loss (delta=0.5)")
    grid = torch.tensor(x, requires_grad=True)
    expected = lossmith.huber_loss(grid, torch.zeros_like(grid), delta=0.5, reduction="none")
    expected.sum().backward()
    np.testing.assert_allclose(y, expected.detach().numpy())
    _, slopes = line(figure.axes[1], "huber_loss (delta=0.5)")
    np.testing.assert_allclose(slopes, grid.grad.numpy())
    assert axes.get_xlabel() == ""
    assert figure.axes[1].get_xlabel() == "residual (input - target)"


def test_legend_names_each_loss_once() -> None:
    figure, _ = curves(["huber", lossmith.HuberLoss(delta=0.5)], gradient=True)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["huber_loss", "huber_loss (delta=0.5)"]


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("huber_loss", "residual"),
        ("ramp_loss", "margin"),
        ("uneven_loss", "margin"),
        ("count_loss", "input"),
        ("skew_loss", "input"),  # real arguments, and yet no function of the residual
    ],
)
def test_axis_is_found_from_card_and_values(name: str, axis: str) -> None:
    assert curve(name).axis == axis


def test_loss_of_the_margin_is_drawn_once_and_an_uneven_one_for_both_labels() -> None:
    _, axes = curves(["ramp_loss", "uneven_loss"])
    drawn = [one.get_label() for one in axes.get_lines() if not one.get_label().startswith("_")]
    assert drawn == ["ramp_loss", "uneven_loss", "uneven_loss, target 0"]
    x, y = line(axes, "uneven_loss, target 0")
    np.testing.assert_allclose(y, 3 * np.maximum(x, 0))


def test_loss_of_the_input_is_drawn_at_the_target() -> None:
    figure, axes = curves(["count_loss"], target=2.0)
    x, y = line(axes, "count_loss")
    np.testing.assert_allclose(y, np.exp(x) - 2 * x)
    assert figure.axes[0].get_xlabel() == "input at target 2"


def test_a_jump_of_the_gradient_is_a_gap_and_not_a_slope() -> None:
    figure, axes = curves(["ramp_loss"], gradient=True)
    x, slopes = line(figure.axes[1], "ramp_loss")
    gap = x[np.isnan(slopes)]
    assert 1 <= len(gap) <= 2
    assert np.abs(gap - 1).max() < 0.02
    assert set(slopes[~np.isnan(slopes)]) == {-1.0, 0.0}
    assert not np.isnan(line(axes, "ramp_loss")[1]).any()


def test_a_curve_that_dwarfs_the_others_leaves_the_panel() -> None:
    _, axes = curves(["huber", lossmith.HuberLoss(delta=100.0)], span=(-10, 10))
    assert 9.5 < axes.get_ylim()[1] < 20  # Huber ends at 9.5, the other at 50
    _, axes = curves([lossmith.HuberLoss(delta=100.0)], span=(-10, 10))
    assert axes.get_ylim()[1] > 50


def test_histogram_counts_the_residuals_and_says_how_many_are_beyond() -> None:
    draws = torch.randn(500, generator=torch.Generator().manual_seed(0))
    residuals = torch.cat([draws, torch.tensor([50.0, torch.nan])])
    figure, axes = curves(["huber"], residuals=residuals)
    (note,) = [t for t in axes.get_legend_handles_labels()[1] if "residuals" in t]
    low, high = axes.get_xlim()
    beyond = int((residuals.abs() > high).sum())
    assert note == f"residuals (n = 501, {beyond} beyond the axis)"
    assert low == -high
    assert high < 10  # one outlier does not set the axis
    bars = figure.axes[-1].patches
    assert sum(bar.get_height() for bar in bars) == 501 - beyond


def test_heatmap_shows_the_values() -> None:
    figure, axes = heatmap("count_loss", gradient=True, input=(-1, 1), target=(0, 2))
    mesh = axes.collections[0]
    x = np.linspace(-1, 1, 241)[None, :]
    y = np.linspace(0, 2, 241)[:, None]
    np.testing.assert_allclose(mesh.get_array(), np.exp(x) - x * y)
    slopes = figure.axes[1].collections[0].get_array()
    np.testing.assert_allclose(slopes, np.exp(x) - y)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input", "target")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves([]), "losses must name at least one loss"),
        (lambda: curves(["cross_entropy"]), "loss must be an element loss of two arguments"),
        (
            lambda: curves(["huber", "ramp_loss"]),
            "losses must belong over one axis, got huber_loss",
        ),
        (lambda: curves(["huber"], span=(1, 1)), r"span must run from .* got \(1, 1\)"),
        (lambda: curves(["huber"], span=(0, np.inf)), r"span must run from .* got \(0, inf\)"),
        (lambda: curves(["huber"], residuals=[np.nan]), "residuals must hold a finite number"),
        (lambda: curves(["count_loss"], target=-1.0), "target must be >= 0 for count_loss, got -1"),
        (
            lambda: curves(["huber"], target=7.0),
            "target must be left out for losses over the residual, got 7",
        ),
        (lambda: heatmap("ramp_loss"), "loss must have a target that is a number"),
        (lambda: heatmap("count_loss", target=(-1, 2)), "target must be >= 0, got -1"),
        (lambda: heatmap("count_loss", input=(2, 1)), "input must run from a smaller"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["plot", *words])
    return done.exit_code, done.stdout.strip(), done.stderr


def test_command_writes_an_svg_with_text(tmp_path: Path) -> None:
    residuals = tmp_path / "residuals.csv"
    residuals.write_text("residual\n0.5\n-1.5\n0.25\n")
    path = tmp_path / "x.svg"
    words = ["huber", "huber:delta=0.5", "--gradient", "--residuals", str(residuals)]
    assert run(*words, "-o", str(path)) == (0, str(path), "")
    page = path.read_text()
    assert page.lstrip().startswith("<?xml")
    assert "<!-- huber_loss (delta=0.5) -->" in page
    assert "<!-- residuals (n = 3) -->" in page


def test_command_chooses_the_heat_map_for_a_loss_of_two_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)

    with patch.object(Figure, "savefig", keep):
        run("count_loss", "-o", str(path))
        run("count_loss", "--target", "2", "-o", str(path))
    assert [figure.axes[0].get_ylabel() for figure in drawn] == ["target", "loss"]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_residuals_from_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([1.0, 2.0, 3.0, 4.0]))
    path = tmp_path / "x.svg"
    run("huber", "--residuals", str(tmp_path / "r.npy"), "-o", str(path))
    assert "residuals (n = 4" in path.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["no_such_loss"], "loss must be a name in the catalogue"),
        (["huber", "-o", "x.doc"], "--output must end in .svg, .png or .pdf, got 'x.doc'"),
        (["huber", "--residuals", "no_file"], "--residuals must be a file, got 'no_file'"),
        (["huber:delta"], "options must come as NAME:OPTION=VALUE,OPTION=VALUE, each once, got"),
        (["huber:delta=1,delta=2"], "each once, got 'huber:delta=1,delta=2'"),
        (["huber:delta=x"], "delta must be a number, got str 'x'"),
        (["huber", "--range", "3", "1"], "--range must run from a smaller to a larger number"),
        (["huber", "--range", "0", "inf"], "--range must run from a smaller to a larger number"),
        (["huber:delta=-1"], "delta must be > 0, got -1"),
        (["huber", "huber", "--heatmap"], "--heatmap must have one loss, got 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(words: list[str], complaint: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert complaint in err


def test_text_among_the_residuals_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("1\ntwo\n")
    code, _, err = run("huber", "--residuals", str(path))
    assert code == 2
    assert "--residuals must hold numbers, got 'two'" in err


def test_residuals_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xcd\xff")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("bytes.csv", "objects.npy"):
        code, _, err = run("huber", "--residuals", str(tmp_path / name))
        assert code == 2
        assert "--residuals must hold numbers, got" in err
