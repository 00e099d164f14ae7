"""Reproductions: the machinery tells true from false, and the record is up to date."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression, QuantileRegressor
from torch import nn

import lossmith as lm
from lossmith.choose.data import load
from lossmith.cli import main
from lossmith.reproduce import REPRODUCTIONS, Claim, Measured, Reproduction, record, run
from lossmith.reproduce import class_weights as weights
from lossmith.reproduce.claims import judge
from lossmith.reproduce.engel_quantiles import quantile_lines
from lossmith.reproduce.focal_calibration import calibration_error, tempered
from lossmith.reproduce.robust_losses import identity_gap
from lossmith.reproduce.training import network, newton, train

RECORD = Path(__file__).resolve().parents[2] / "docs" / "reproduced.json"


def quiet(share: float) -> None:
    """Nobody watches the progress."""


def made_up(values, low=1.0, high=3.0, neutral=0.0) -> Reproduction:
    """A reproduction whose experiment gives these values."""
    return Reproduction(
        name="made-up",
        finding="f",
        source="s",
        published="p",
        setting="t",
        losses=("mse_loss",),
        metric="m",
        seeds=3,
        claims=(Claim("gain", "gain in points", low, high, neutral),),
        measure=lambda seeds, tick: Measured({"gain": values}, {"other": 1.0}),
    )


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([1.9, 2.0, 2.1], True),
        ([-1.9, -2.0, -2.1], False),  # the wrong direction
        ([0.2, 0.3, 0.4], False),  # too small
        ([4.0, 4.1, 4.2], False),  # too large
        ([-2.0, 2.0, 6.0], False),  # in range, but the interval holds no effect
        ([math.nan, 2.0, 2.0], False),
        ([2.0], True),  # nothing random: no interval
    ],
)
def test_a_false_claim_comes_out_not_held(values, held):
    outcome = run(made_up(values))
    assert outcome.held is held
    assert ("NOT held" in outcome.line) is not held
    assert outcome.to_dict()["held"] is held


def test_the_interval_is_that_of_student():
    found = judge(Claim("x", "x", 0.0, 9.0), [1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t(2) at 97.5 %, standard deviation 1
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-6)


def test_effects_below_the_neutral_value_are_judged_from_their_side():
    claim = Claim("x", "x", -3.0, -1.0, neutral=0.0)
    assert judge(claim, [-1.9, -2.0, -2.1]).held
    assert not judge(claim, [-6.0, -2.0, 2.0]).held


def test_a_claim_without_values_is_an_error_and_not_a_success():
    wrong = replace(made_up([2.0]), measure=lambda seeds, tick: Measured({}))
    with pytest.raises(KeyError, match="gain"):
        run(wrong)


def invoke(*words):
    return CliRunner().invoke(main, ["reproduce", *words])


def offer(monkeypatch, **made):
    monkeypatch.setattr("lossmith.reproduce.REPRODUCTIONS", {**REPRODUCTIONS, **made})


def test_the_command_lists_runs_and_says_by_its_code_whether_it_held(monkeypatch):
    listed = invoke()
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(REPRODUCTIONS)
    offer(monkeypatch, true=made_up([2.0, 2.1]), false=made_up([-2.0, -2.1]))
    true, false = invoke("true"), invoke("false")
    assert (true.exit_code, false.exit_code) == (0, 1)
    assert true.stdout.splitlines()[-1].startswith("made-up: held, 1 of 1")
    assert false.stdout.splitlines()[-1].startswith("made-up: NOT held, 0 of 1")
    assert "NOT held: gain in points: -2.05" in false.stdout
    assert json.loads(invoke("true", "--json").stdout)["results"][0]["held"] is True
    wrong = invoke("nothing")
    assert wrong.exit_code == 2
    assert "NAME must be one of square-loss" in wrong.stderr


def test_all_runs_every_one_and_one_failure_fails_it(monkeypatch):
    true, false = made_up([2.0]), replace(made_up([-2.0]), name="made-down")
    monkeypatch.setattr("lossmith.reproduce.REPRODUCTIONS", {"true": true})
    assert invoke("all").exit_code == 0
    monkeypatch.setattr("lossmith.reproduce.REPRODUCTIONS", {"true": true, "false": false})
    done = invoke("all")
    assert done.exit_code == 1
    assert "made-up: held" in done.stdout
    assert "made-down: NOT held" in done.stdout


def test_the_record_in_the_docs_is_of_the_declarations_of_today():
    kept = json.loads(RECORD.read_text(encoding="utf-8"))["results"]
    assert [one["name"] for one in kept] == list(REPRODUCTIONS)
    for one in kept:
        about = REPRODUCTIONS[one["name"]]
        for name in ("finding", "source", "published", "setting", "metric", "seeds", "remark"):
            assert one[name] == getattr(about, name)
        assert one["losses"] == list(about.losses)
        for claim, declared in zip(one["claims"], about.claims, strict=True):
            assert {name: claim[name] for name in vars(declared)} == vars(declared)
            mean = math.nan if claim["measured"] is None else claim["measured"]
            assert not claim["held"] or declared.low <= mean <= declared.high
        assert one["held"] == all(claim["held"] for claim in one["claims"])


def test_the_record_carries_what_it_depends_on():
    kept = record([run(made_up([math.inf]))])
    assert set(kept) == {"date", "hardware", "threads", "versions", "results"}
    assert kept["versions"]["torch"] == torch.__version__
    assert kept["results"][0]["claims"][0]["measured"] is None
    json.dumps(kept, allow_nan=False)


def test_declared_losses_are_in_the_catalogue():
    assert {name for one in REPRODUCTIONS.values() for name in one.losses} <= set(lm.cards())


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_ranges_are_ranges_and_directions_are_not_in_doubt(name):
    for claim in REPRODUCTIONS[name].claims:
        assert claim.low <= claim.high
        if claim.neutral is not None:
            assert not claim.low < claim.neutral < claim.high


def test_the_stack_trains_as_one_model_with_adam_does():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 21, 4, generator=generator)
    y = torch.randint(3, (2, 21), generator=generator)

    def cost(made, target):
        return lm.cross_entropy(made, target, reduction="none")

    def double(made, target):
        return 2 * cost(made, target)

    steps = train(
        network(8), (cost, double), (0.01, 0.02), x, y, outputs=3, epochs=3, seeds=(5, 6), batch=8
    )
    *_, (_, predict) = steps
    found = predict(x)
    assert found.shape == (2, 2, 2, 21, 3)
    for column, rate in enumerate((0.01, 0.02)):
        for member, seed in enumerate((5, 6)):
            torch.manual_seed(seed)
            alone = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            adam = torch.optim.Adam(alone.parameters(), lr=rate)
            order = torch.Generator().manual_seed(seed)
            for _ in range(3):
                for rows in torch.randperm(21, generator=order).split(8):
                    adam.zero_grad()
                    nn.functional.cross_entropy(alone(x[member, rows]), y[member, rows]).backward()
                    adam.step()
            for loss in range(2):  # Adam does not see a factor
                torch.testing.assert_close(
                    found[loss, column, member], alone(x[member]).detach(), atol=1e-4, rtol=1e-4
                )


def test_newton_finds_the_logistic_regression_of_scikit_learn():
    x, y = weights._draw(0)
    x, y = x[:3000], y[:3000]

    def objective(at):
        return weights._cost(at, x, y, torch.tensor([9.0], dtype=torch.float64))

    found = newton(objective, torch.zeros(7, dtype=torch.float64))
    theirs = LogisticRegression(C=1e10, max_iter=1000, tol=1e-10, class_weight={0: 1, 1: 9})
    theirs.fit(x[:, :-1].numpy(), y.numpy())
    expected = [*theirs.coef_[0], theirs.intercept_[0]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_calibration_error_by_hand():
    sure = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]).log()
    labels = torch.tensor([0, 1, 0, 0])  # right half of the time at 0.9, always at 0.6
    assert calibration_error(sure, labels) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4, abs=1e-6)


def test_a_temperature_mends_logits_that_are_too_large():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator)
    labels = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[:, 0]
    assert calibration_error(5 * logits, labels) > 0.2
    assert tempered(5 * logits, labels, 2000) < 0.05


def test_barrons_shapes_are_the_named_losses():
    assert identity_gap() < 1e-12


def test_a_short_run_measures_every_claim():
    about = REPRODUCTIONS["class-weights"]
    shares: list[float] = []
    found = about.measure(range(2), shares.append)
    assert all(np.isfinite(found.values[claim.name]).all() for claim in about.claims)
    assert all(len(found.values[claim.name]) == 2 for claim in about.claims)
    assert shares == [0.5, 1.0]


@pytest.mark.slow
def test_the_lines_of_quantile_regression_are_those_of_linear_programming():
    table = load("engel")
    x, y = table.features["income"].to_numpy(copy=True), table.target.to_numpy(copy=True)
    kept = np.ones((2, len(x)), dtype=bool)
    kept[1, ::3] = False  # rows of weight 0 are as if they were not there
    found = quantile_lines(x, y, kept, (0.05, 0.9), quiet)
    for place, level in enumerate((0.05, 0.9)):
        for fit, rows in enumerate(kept):
            theirs = QuantileRegressor(quantile=level, alpha=0.0, solver="highs")
            theirs.fit(x[rows, None], y[rows])
            intercept, slope = found[place, fit]
            assert slope == pytest.approx(theirs.coef_[0], abs=0.01)
            at = theirs.predict([[1000.0]])[0]  # near the middle of the incomes
            assert intercept + 1000 * slope == pytest.approx(at, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["robust-losses", "class-weights", "no-difference"])
def test_it_holds(name):
    outcome = run(REPRODUCTIONS[name])
    assert outcome.held, [finding.sentence for finding in outcome.findings]
