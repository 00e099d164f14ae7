"""Guards: numbers that expose a winner which is not worth its win."""

import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import lossmith
from lossmith.choose import choose
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.guards import calibration_error, guards
from lossmith.choose.messages import messages, say, translate
from lossmith.choose.metric import DEFAULTS, resolve
from lossmith.choose.outcome import Result
from lossmith.choose.shortlist import shortlist
from lossmith.cli import main

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(400)


def result(predictions):
    made = np.asarray(predictions)
    return Result(None, "made", predictions=made, repeats=np.stack([made, made]))


def look(target, made, base, metric, **texts):
    """The guards of predictions, by name."""
    frame = pd.DataFrame({"x": np.arange(float(len(target))), "y": target})
    metric = resolve(metric)
    diagnosis = examine(load(frame, "y"), metric)
    words = pd.DataFrame(texts)
    found = guards(result(made), result(base), diagnosis, metric, words)
    return {guard.name: guard for guard in found}


def test_calibration_error_is_that_of_a_loop_over_bins():
    sure, hit = RNG.random(500), (RNG.random(500) < 0.4).astype(float)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (sure >= low) & (sure < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(sure[inside].mean() - hit[inside].mean())
    assert calibration_error(sure, hit) == pytest.approx(expected)


def test_claimed_certainty_alarms_and_exact_probabilities_do_not():
    truth = RNG.random(2000)
    y = (RNG.random(2000) < truth).astype(float)
    certain = np.where(truth > 0.5, 0.99, 0.01)
    assert not look(y, truth, truth, "log_loss")["calibration"].alarm
    found = look(y, certain, truth, "log_loss")["calibration"]
    assert (found.alarm, found.value) == (True, pytest.approx(0.24, abs=0.03))


def test_few_rows_are_no_reason_to_call_exact_probabilities_wrong():
    truth = RNG.random(60)
    found = look((RNG.random(60) < truth).astype(float), truth, truth, "log_loss")
    assert found["calibration"].value > 0.05
    assert not found["calibration"].alarm


def test_a_quantile_must_cover_its_share():
    y, level = NOISE, np.quantile(NOISE, 0.9)
    exact = look(y, np.full(400, level), np.zeros(400), "pinball:0.9")["coverage"]
    assert (exact.alarm, exact.value) == (False, pytest.approx(0.9, abs=0.005))
    low = look(y, np.zeros(400), np.zeros(400), "pinball:0.9")["coverage"]
    assert (low.alarm, low.value) == (True, pytest.approx(0.5, abs=0.06))


def test_the_median_of_counts_may_be_a_count_that_many_rows_have():
    y = np.repeat([0.0, 1.0, 2.0, 30.0], [280, 60, 40, 20])
    assert not look(y, np.full(400, 0.1), np.zeros(400), "mae")["coverage"].alarm
    assert look(y, np.full(400, 2.0), np.zeros(400), "mae")["coverage"].alarm


def test_predictions_that_are_too_extreme_have_a_slope_below_one():
    signal = RNG.standard_normal(400)
    y = signal + 0.3 * NOISE
    assert not look(y, signal, signal, "rmse")["slope"].alarm
    found = look(y, 2 * signal, signal, "rmse")["slope"]
    assert (found.alarm, found.value) == (True, pytest.approx(0.5, abs=0.05))
    assert "slope" not in look(y, np.full(400, 1.3), signal, "rmse")


def test_a_worse_worst_tenth_alarms_though_the_mean_is_better():
    y = NOISE
    base = y + 1.0
    made = y + np.where(np.arange(400) < 30, 5.0, 0.1)
    found = look(y, made, base, "mae")["worst decile"]
    assert (found.alarm, found.value) == (True, pytest.approx((30 * 5 + 10 * 0.1) / 40))
    assert "worst decile" not in look(y > 0, made > 1, y > 0.1, "accuracy")


def test_the_level_of_a_text_column_where_it_is_worse_is_named():
    place = np.where(np.arange(400) % 4 == 0, "north", "south")
    base = NOISE + 1.0
    made = NOISE + np.where(place == "north", 1.5, 0.1) + np.tile([1e-4, -1e-4], 200)
    found = look(NOISE, made, base, "mae", place=place)["subgroups"]
    assert (found.alarm, found.value) == (True, 1)
    assert "place north (mae 1.5 against 1 in 100 rows)" in found.sentence
    assert "south" not in found.sentence


def test_classes_that_a_winner_gives_up_are_named():
    y = (np.arange(400) % 10 == 0).astype(float)
    base = np.where(RNG.random(400) < 0.1, 1 - y, y).astype(int)
    found = look(y, np.zeros(400, int), base, "balanced_accuracy")
    assert "y 1 (accuracy 0 against" in found["subgroups"].sentence
    assert found["largest predicted class"].alarm
    assert not look(y, y.astype(int), y.astype(int), "balanced_accuracy")["class shares"].alarm


def test_equal_losses_are_worse_nowhere():
    alarms = 0
    for _ in range(60):
        y, made, base = RNG.standard_normal((3, 400))
        alarms += look(y, made, base, "mae")["subgroups"].alarm
    assert alarms <= 8


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    """Amounts of which a high quantile is asked for, which the squared error does not give."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 240)
    frame = pd.DataFrame({"x": x, "y": 40 + 20 * x + 3 * (1 + x) * rng.standard_normal(240)})
    path = tmp_path_factory.mktemp("high") / "quantile.csv"
    frame.to_csv(path, index=False)
    words = ["--target", "y", "--metric", "pinball:0.9", "--losses", "pinball_loss"]
    return path, [*words, "--folds", "5x1", "--epochs", "60", "--trials", "1"]


def test_every_guard_is_printed_with_a_winner(winner):
    path, words = winner
    text = CliRunner().invoke(main, ["choose", str(path), *words]).stdout
    name = "pinball_loss(quantile=0.9)"
    lines = [line for line in text.splitlines() if line.removeprefix("Warning, ").startswith(name)]
    assert f"{name} is better" in text
    for word in ("one and the same", "sum to", "Coverage", "Worst tenth", "groups", "Cost"):
        assert sum(word in line for line in lines) == 1, word


def test_cost_counts_steps_and_epochs(winner):
    path, _ = winner
    done = choose(path, "y", metric="mae", losses="l1_loss", folds="3x1", epochs=4, trials=1)
    assert done.cost("mse_loss") == 1.0
    assert 0.2 < done.cost("l1_loss") < 5.0
    (step, epochs, _), (base, others, _) = done.costs["l1_loss"], done.costs["mse_loss"]
    assert done.cost("l1_loss") == pytest.approx(step * epochs / (base * others))
    assert epochs == np.mean(done.tournament.results[1].epochs)
    assert np.isnan(done.cost("mse_loss + shift"))
    groups = done.subgroups("l1_loss")
    assert {"column", "name", "rows", "score", "reference", "p", "worse"} <= set(groups.columns)
    assert groups["rows"].sum() == 240


def test_every_message_says_the_same_values_in_every_language():
    for key, texts in messages().items():
        assert set(texts) == {"en", "zh"}, key
        english, chinese = (sorted(re.findall(r"{.*?}", texts[one])) for one in ("en", "zh"))
        assert english == chinese, key


def test_chinese_advice_is_that_of_the_card():
    for key, texts in messages().items():
        if key.startswith("advice."):
            assert lossmith.card(key.removeprefix("advice.")).use_when == texts["en"]


def test_a_message_keeps_the_texts_of_the_data():
    said = say("guard.class", share=0.5, name="{evil}", truth=0.25)
    assert "'{evil}'" in said
    assert said.to("zh").startswith("50% 的预测是 '{evil}'")


@pytest.mark.parametrize("name", ["wine", "diabetes", "breast_cancer", "randhie"])
def test_reasons_and_refusals_speak_chinese(name):
    diagnosis = examine(load(name))
    entered = shortlist(diagnosis, resolve(DEFAULTS[diagnosis.kind]))
    said = [reason for one in entered.candidates for reason in one.reasons]
    said += [one.reason for one in entered.refusals]
    for sentence in said:
        assert re.search("[\u4e00-\u9fff]", translate(sentence, "zh")), sentence
