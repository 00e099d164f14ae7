"""The statistics against published tables, and their error rate where nothing differs."""

import numpy as np
import pytest
from scipy import stats

from lossmith.choose.statistics import compare, detectable_effect, holm


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
    for _ in range(200):
        found = _differences_of_equal_models(rng, 10, 10)
        corrected.append(compare(found, 1 / 9, 0.0).p < 0.05)
        naive.append(stats.ttest_1samp(found, 0.0).pvalue < 0.05)
    assert np.mean(naive) > 0.4
    assert np.mean(corrected) <= 0.08


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
