"""What the data say: each finding is planted and found, and not found where it is not."""

import numpy as np
import pandas as pd
import pytest

from lossmith.choose import DataError, choose, diagnose
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.metric import resolve
from lossmith.choose.shortlist import shortlist

ROWS = 400
X = np.random.default_rng(0).standard_normal((ROWS, 3))


def findings(target, task=None, **columns):
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], **columns, "y": target})
    found = diagnose(frame, "y", task=task)
    return found, {one.code: one for one in found.findings}


def test_hill_finds_the_index_of_a_pareto_tail_and_a_normal_has_none():
    rng = np.random.default_rng(1)
    heavy = rng.pareto(1.5, 20_000)
    frame = pd.DataFrame({"x": rng.standard_normal(20_000), "y": heavy})
    tail = {one.code: one for one in diagnose(frame, "y").findings}["tail_index"]
    assert tail.value == pytest.approx(1.5, abs=0.2)
    assert "huber_loss" in tail.speaks_for
    assert "mse_loss" in tail.speaks_against
    _, found = findings(X @ [1, 2, 3])
    assert found["tail_index"].value > 3
    assert found["tail_index"].speaks_for == ()


def test_far_targets_are_counted_in_units_that_they_do_not_move():
    y = X[:, 0].copy()
    assert findings(y)[1]["robust_z"].value < 0.01
    y[:40] += 1000.0
    assert findings(y)[1]["robust_z"].value == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(("flipped", "expected"), [(0.0, 0.0), (0.3, 0.3)])
def test_flipped_labels_are_found(flipped, expected):
    rng = np.random.default_rng(2)
    y = (X @ [3, -2, 4] > 0) ^ (rng.random(ROWS) < flipped)
    _, found = findings(np.where(y, "yes", "no"))
    assert found["label_noise"].value == pytest.approx(expected, abs=0.06)
    assert (found["label_noise"].value > 0.1) == (flipped > 0)


def test_noisy_labels_speak_for_robust_losses():
    rng = np.random.default_rng(2)
    y = np.where(rng.random(ROWS) < 0.4, rng.integers(0, 3, ROWS), (X[:, 0] > 0).astype(int))
    _, found = findings(np.array(["p", "q", "r"])[y])
    assert "generalized_cross_entropy_loss" in found["label_noise"].speaks_for


def test_copies_and_contradictions_are_counted():
    numbers = np.arange(30.0)
    frame = pd.DataFrame({"x": [*numbers, 0.0, 1.0, 2.0], "y": [*numbers, 0.0, 5.0, 2.0]})
    found = {one.code: one for one in diagnose(frame, "y").findings}["duplicates"]
    assert found.value == 3
    assert ", 1 of them with another target" in found.sentence
    assert "duplicates" not in findings(X[:, 0])[1]


def test_columns_with_a_role_are_named_with_the_option_that_takes_them():
    days = pd.date_range("2020-01-01", periods=ROWS)
    columns = {"patient_id": np.arange(ROWS) // 8, "day": days, "event": (X[:, 2] > 0).astype(int)}
    _, found = findings(np.exp(X[:, 0]), **columns)
    assert "'patient_id'" in found["group_column"].sentence
    assert "--group" in found["group_column"].sentence
    assert "'day'" in found["time_column"].sentence
    assert found["censored_flag"].value == pytest.approx(0.5, abs=0.1)
    plain = findings(np.exp(X[:, 0]), width=X[:, 1], today=X[:, 0])[1]
    assert not {"group_column", "time_column", "censored_flag"} & set(plain)


def test_the_column_with_most_gaps_is_named():
    gaps = np.where(np.arange(ROWS) < 100, np.nan, X[:, 0])
    _, found = findings(X[:, 1], holes=gaps)
    assert found["missing_values"].value == 100
    assert "'holes' (25% of its rows)" in found["missing_values"].sentence


def test_shares_are_read_as_proportions_and_a_logit_loss_can_be_entered():
    y = 1 / (1 + np.exp(-X[:, 0]))
    found, codes = findings(y)
    assert (found.kind, found.reading) == ("continuous", "proportion")
    assert "binary_cross_entropy_with_logits" in codes["proportion"].speaks_for
    frame = pd.DataFrame({"a": X[:, 0], "y": y})
    entries = shortlist(examine(load(frame, "y")), resolve("rmse")).candidates
    fit = {one.name for one in entries}
    assert "binary_cross_entropy_with_logits" in fit
    assert "asymmetric_loss" not in fit  # for classes, not for shares
    asked = {"metric": "rmse", "folds": "3x1", "epochs": 3, "trials": 1}
    names = "binary_cross_entropy_with_logits"
    done = choose(frame, "y", losses=names, **asked)
    assert names in set(done.table["loss"])
    assert "--task proportion" in done.command
    made = done.tournament.results[1].predictions
    assert ((made > 0) & (made < 1)).all()
    with pytest.raises(DataError, match="the target is continuous"):
        choose(frame, "y", losses=names, task="continuous", **asked)


def test_amounts_over_several_powers_of_ten_speak_for_a_log_link():
    wide, codes = findings(np.exp(2 * X[:, 0]))
    assert wide.reading == "positive"
    assert "tweedie_loss" in codes["positive"].speaks_for
    assert findings(50 + X[:, 0])[1]["positive"].speaks_for == ()
    assert "positive" not in findings(X[:, 0])[1]


def test_an_order_is_a_guess_that_the_caller_may_confirm_or_deny():
    y = np.digitize(X[:, 0], [-0.5, 0.5]) + 1
    found, codes = findings(y)
    assert found.reading == "multiclass"
    assert "may be ordered (1, 2, 3)" in codes["ordinal"].sentence
    told, codes = findings(y, task="ordinal")
    assert (told.kind, told.reading) == ("multiclass", "ordinal")
    assert "as requested" in codes["ordinal"].sentence
    assert "ordinal" not in findings(y, task="multiclass")[1]
    assert "ordinal" in findings(np.array(["", "low", "mid", "high"])[y])[1]
    assert "ordinal" not in findings(np.array(["", "cat", "dog", "bird"])[y])[1]


def test_several_labels_in_a_cell_are_noticed():
    cells = np.array(["red", "red;round", "round", "red;round;big", "big"])
    found, codes = findings(cells[np.arange(ROWS) % 5])
    assert (found.kind, found.reading) == ("multiclass", "multilabel")
    assert codes["multilabel"].value == pytest.approx(0.4)
    assert "multilabel_soft_margin_loss" in codes["multilabel"].speaks_for
    assert findings(cells[np.arange(ROWS) % 5], task="multiclass")[0].reading == "multiclass"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("speed", "task must be one of continuous, positive, proportion, .* got 'speed'"),
        ("positive", "target must be above 0 for the task positive, got -"),
        ("proportion", "target must be in .0, 1. for the task proportion, got"),
        ("binary", "target must have 2 values for the task binary, got 400"),
    ],
)
def test_a_task_that_the_target_denies_is_refused(task, message):
    with pytest.raises(DataError, match=message):
        findings(X[:, 0], task=task)


def test_hostile_names_are_text_in_every_finding():
    evil = "<b>{x}%s"
    found, _ = findings(X[:, 0], **{evil: np.where(X[:, 1] > 0, np.nan, 1.5 + X[:, 2])})
    gap = next(one for one in found.findings if one.code == "missing_values")
    assert repr(evil) in gap.sentence
    assert repr(evil) in gap.sentence.to("zh")


def test_every_finding_speaks_chinese():
    for name in ("engel", "wine", "stackloss"):
        for one in diagnose(name).findings:
            assert any("\u4e00" <= letter <= "\u9fff" for letter in one.sentence.to("zh"))


def test_the_readings_leave_the_shortlist_of_amounts_alone():
    entries = shortlist(examine(load("diabetes")), resolve("mae"))
    refused = {one.name: one.reason for one in entries.refusals}
    assert "binary_cross_entropy_with_logits" not in refused
    assert all("cross_entropy" not in one.name for one in entries.candidates)
