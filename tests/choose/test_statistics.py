"""The statistics against published tables, and their error rate where nothing differs."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lossmith.choose import choose
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.folds import Cell, Plan
from lossmith.choose.metric import METRICS, resolve
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.selection import bbc, expected
from lossmith.choose.shortlist import shortlist
from lossmith.choose.statistics import cells_needed, compare, detectable_effect, holm
from lossmith.choose.suite import compare_suite, signed_rank
from lossmith.choose.verdict import judge


def _differences_of_equal_models(rng, folds, repeats):
    """Fold differences of two ridge models on disjoint halves of equally good features."""
    x = rng.standard_normal((100, 10))
    y = 0.3 * x.sum(1) + rng.standard_normal(100)
    found = []
    for _ in range(repeats):
        for test in np.array_split(rng.permutation(100), folds):
            train = np.setdiff1d(np.arange(100), test)
            errors = []
            for part in (x[:, :5], x[:, 5:]):
                gram = part[train].T @ part[train] + np.eye(5)
                weights = np.linalg.solve(gram, part[train].T @ y[train])
                errors.append(np.mean((part[test] @ weights - y[test]) ** 2))
            found.append(errors[0] - errors[1])
    return np.array(found)


@pytest.mark.slow
def test_equal_models_are_rarely_called_different_and_the_naive_test_fails():
    rng = np.random.default_rng(0)
    corrected, naive = [], []
    for _ in range(400):
        found = _differences_of_equal_models(rng, 10, 10)
        corrected.append(compare(found, 1 / 9, 0.0).p < 0.05)
        naive.append(stats.ttest_1samp(found, 0.0).pvalue < 0.05)
    assert np.mean(naive) > 0.4
    assert np.mean(corrected) <= 0.07


@pytest.mark.parametrize(
    ("cells", "rho", "effect"),
    [(5, 1 / 4, 2.52), (10, 1 / 9, 1.45), (15, 1 / 4, 1.70), (25, 1 / 4, 1.57), (30, 1 / 9, 1.10)],
)
def test_detectable_effect_is_the_tabled_one(cells, rho, effect):
    assert detectable_effect(cells, rho) == pytest.approx(effect, abs=0.01)


def test_detectable_effect_is_found_in_four_of_five_runs():
    cells, rho = 30, 1 / 9
    rng = np.random.default_rng(0)
    # a shared shift of variance rho makes the mean vary as overlapping training sets do
    effect = detectable_effect(cells, rho)
    shifts = rng.standard_normal(4000) * np.sqrt(rho)
    noise = rng.standard_normal((4000, cells))
    hits = [compare(effect + s + n, rho, 0.0).p < 0.05 for s, n in zip(shifts, noise, strict=True)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


def test_no_difference_at_all_is_practically_the_same():
    result = compare(np.zeros(30), 1 / 9, 0.1)
    assert (result.p, result.same, result.difference) == (1.0, 1.0, 0.0)


def test_the_three_probabilities_sum_to_one_and_follow_the_sign():
    found = np.random.default_rng(0).normal(1.0, 0.5, 30)
    ahead, behind = compare(found, 1 / 9, 0.2), compare(-found, 1 / 9, 0.2)
    assert ahead.better + ahead.same + ahead.worse == pytest.approx(1.0)
    assert ahead.better == pytest.approx(behind.worse)
    assert ahead.better > 0.95
    assert ahead.low < ahead.difference < ahead.high


def test_more_tests_make_the_detectable_difference_larger():
    found = np.random.default_rng(0).normal(0.0, 1.0, 30)
    assert compare(found, 1 / 9, 0.1, 7).detectable > compare(found, 1 / 9, 0.1).detectable


def test_holm_adjusts_stepwise_and_never_beyond_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def _ridge_cells(rng, folds=5, repeats=5):
    """Eight equally good candidates: cell scores, out-of-fold losses, and each one's true loss."""
    x = rng.standard_normal((120, 24))
    y = 0.25 * x.sum(1) + rng.standard_normal(120)
    fresh = rng.standard_normal((4000, 24))
    truth = 0.25 * fresh.sum(1) + rng.standard_normal(4000)
    parts = [slice(3 * one, 3 * one + 3) for one in range(8)]
    scores, losses = [], np.zeros((8, 120))
    for _ in range(repeats):
        for test in np.array_split(rng.permutation(120), folds):
            train = np.setdiff1d(np.arange(120), test)
            row = []
            for place, part in enumerate(parts):
                error = (x[test, part] @ _ridge(x[train, part], y[train]) - y[test]) ** 2
                losses[place, test] += error / repeats
                row.append(error.mean())
            scores.append(row)
    true = [np.mean((fresh[:, one] @ _ridge(x[:, one], y) - truth) ** 2) for one in parts]
    return np.array(scores), losses, np.array(true)


def _ridge(x, y):
    return np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)


@pytest.mark.slow
def test_eight_equal_candidates_raise_no_alarm_and_the_winner_is_not_flattered():
    rng = np.random.default_rng(1)
    alarms, naive_alarms, flattered, corrected = [], [], [], []
    for _ in range(200):
        scores, losses, true = _ridge_cells(rng)
        gains = [scores[:, 0] - scores[:, place] for place in range(1, 8)]
        alarms.append(min(holm([compare(gain, 1 / 4, 0.0).p for gain in gains])) < 0.05)
        naive_alarms.append(min(stats.ttest_1samp(gain, 0.0).pvalue for gain in gains) < 0.05)
        means = losses.mean(1)
        flattered.append(np.log(means.min() / true[means.argmin()]))
        corrected.append(np.log(bbc(losses) / true[means.argmin()]))
    assert np.mean(naive_alarms) > 0.8
    assert np.mean(alarms) <= 0.05
    assert np.exp(np.mean(flattered)) < 0.93
    assert np.exp(np.mean(corrected)) == pytest.approx(1.0, abs=0.05)


def test_the_expected_score_of_one_candidate_is_its_own():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(400)
    made = (y + rng.standard_normal(400))[None]
    for name in ("mae", "rmse", "r2"):
        metric = resolve(name)
        assert expected([made], y, metric) == pytest.approx(metric(y, made[0]))


def test_the_expected_score_of_the_best_of_many_is_worse_than_its_own_in_either_direction():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    made = [rng.integers(0, 2, (1, 60)) for _ in range(8)]
    for name in ("accuracy", "f1"):  # with and without a score for each row
        metric = resolve(name)
        assert expected(made, truth, metric) < max(metric(truth, one[0]) for one in made)
    amounts = [rng.standard_normal((1, 60)) for _ in range(20)]
    metric, target = resolve("mae"), rng.standard_normal(60)
    assert expected(amounts, target, metric) > min(metric(target, one[0]) for one in amounts)


@pytest.mark.parametrize("name", [n for n, one in METRICS.items() if one.rowwise] + ["pinball:0.9"])
def test_losses_of_rows_make_the_score(name):
    rng, metric = np.random.default_rng(0), resolve(name)
    target, made = rng.integers(0, 2, 50), rng.random(50)
    if metric.needs == "label":
        made = (made > 0.5).astype(int)
    # the function is scikit-learn's
    assert metric(target, made) == pytest.approx(metric.function(target, made))


def test_cells_needed_are_those_at_which_the_effect_is_detectable():
    needed = cells_needed(1.2, 1 / 9, 10)
    assert detectable_effect(needed, 1 / 9) <= 1.2 < detectable_effect(needed - 10, 1 / 9)
    # more repeats do not help below the floor that the overlap sets
    assert cells_needed(0.9, 1 / 9, 10) is None


def _gains(rng, shift, sets=12):
    return pd.DataFrame(
        {"up": shift + 0.02 * rng.standard_normal(sets), "even": 0.001 * rng.standard_normal(sets)}
    )


def test_a_suite_finds_what_is_better_everywhere_and_nothing_else():
    found = compare_suite(_gains(np.random.default_rng(0), 0.05))
    up, even = (found.table.iloc[place] for place in range(2))
    assert up["p"] < 0.05
    assert up["better"] > 0.95
    assert even["same"] > 0.95
    assert found.friedman < 0.05
    assert "better in general: up" in found.verdict


def test_a_suite_of_noise_finds_nothing():
    rng = np.random.default_rng(0)
    noise = pd.DataFrame(0.05 * rng.standard_normal((12, 3)), columns=list("abc"))
    found = compare_suite(noise)
    assert "cannot tell" in found.verdict


def test_signed_rank_probabilities_follow_the_sign_and_the_rope():
    differences = np.array([0.03, 0.05, 0.02, 0.06, 0.04, 0.05, 0.07, 0.03])
    better, same, worse = signed_rank(differences, 0.01)
    assert (better > 0.95, worse < 0.01) == (True, True)
    assert signed_rank(-differences, 0.01)[2] == pytest.approx(better, abs=0.02)
    assert signed_rank(differences, 0.2)[1] > 0.99
    assert better + same + worse == pytest.approx(1.0)


# Smallest effect found with 80 % power in units of the spread, for rho 1/9 and the level 0.05:
# by quadrature of the power over the chi distribution of the spread, in mpmath
FOUND = {10: 1.44716, 20: 1.18553, 60: 1.01813}


def test_doubled_cells_find_what_the_quadrature_says():
    found = compare(np.tile([1.0, -1.0], 5) * np.sqrt(0.9), 1 / 9, 0.1)
    assert found.spread == pytest.approx(1.0)
    assert found.detectable == pytest.approx(FOUND[10], rel=1e-4)
    assert found.doubled == pytest.approx(FOUND[20], rel=1e-4)
    assert detectable_effect(60, 1 / 9) == pytest.approx(FOUND[60], rel=1e-4)


@pytest.mark.parametrize(
    ("seen", "more", "sentence"),
    [
        # 50 cells find 1.0349 and 60 find 1.0181, ten in each repeat
        (1.03, 50, "about 50 more cells would show one as large as this"),
        # 2.8 sqrt(1/9), which no number of repeats gets below, is 0.93
        (0.5, None, "no number of repeats would show one as small as this, more rows would"),
    ],
)
def test_the_verdict_says_how_many_more_cells_would_see_what(seen, more, sentence):
    diagnosis, metric = examine(load("diabetes")), resolve("mae")
    first, second = shortlist(diagnosis, metric, "l1_loss").candidates
    made = np.linspace(0.0, 1.0, diagnosis.rows)
    gains = seen + np.tile([1.0, -1.0], 5) * np.sqrt(0.9)  # of spread 1
    results = tuple(
        Result(one, one.label, scores=scores, predictions=made, repeats=made[None])
        for one, scores in ((first, np.full(10, 100.0)), (second, 100.0 - gains))
    )
    outcome = Tournament(results, (), np.full(10, 150.0), np.arange(diagnosis.rows))
    nine, one, none = np.arange(9), np.arange(1), np.arange(0)
    ten = Plan(10, 1, tuple(Cell(0, nine, none, one, seed) for seed in range(10)))
    verdict = judge(outcome, diagnosis, metric, ten)
    standing = next(one for one in verdict.standings if one.label == second.label)
    assert (standing.word, standing.more) == ("cannot tell", more)
    # 100 is the baseline's score, so that units are percents
    assert "finds a difference of 1.45 (1.4%) in 4 of 5 runs" in standing.sentence
    assert f"10 more cells would find 1.19 (1.2%); {sentence}." in standing.sentence
    assert "1.45 (1.4%) at best and 1.45 (1.4%) at worst" in verdict.sentence
    assert "10 more cells would find 1.19 (1.2%) at best and 1.19 (1.2%) at" in verdict.sentence
    assert "再多 10 个单元" in verdict.sentence.to("zh")


def test_every_pair_is_compared_as_by_hand():
    losses = "l1_loss,huber_loss,cauchy_loss"
    done = choose("stackloss", metric="mae", losses=losses, folds="3x2", epochs=3, trials=1)
    scores = done.cells.pivot(index="cell", columns="loss", values="mae").to_numpy()
    names = sorted(set(done.cells["loss"]))
    by_hand = {}
    for first, second in itertools.permutations(range(len(names)), 2):
        gain = scores[:, second] - scores[:, first]  # an error: less is better
        error = gain.std(ddof=1) * np.sqrt(1 / len(gain) + 1 / 2)
        p = 2 * stats.t.sf(abs(gain.mean()) / error, len(gain) - 1)
        by_hand[names[first], names[second]] = gain.mean(), p
    found = done.pairwise
    assert len(found) == len(names) * (len(names) - 1) / 2
    expected = [by_hand[pair] for pair in zip(found["first"], found["second"], strict=True)]
    difference, p = map(np.array, zip(*expected, strict=True))
    np.testing.assert_allclose(found["difference"], difference, rtol=1e-9)
    np.testing.assert_allclose(found["p"], multipletests(p, method="holm")[1], rtol=1e-6)
    assert (found["difference"] >= 0).all()  # best first
