"""What a fair tournament must hold: pairing, indifference to scale, silence on noise."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import lossmith
from lossmith.choose import choose
from lossmith.choose.crew import complete
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.errors import DataError
from lossmith.choose.folds import plan
from lossmith.choose.heads import fit_head
from lossmith.choose.metric import resolve
from lossmith.choose.shortlist import shortlist
from lossmith.choose.training import Settings
from lossmith.choose.tuning import Trial, beyond, trials
from lossmith.choose.verdict import judge
from lossmith.choose.work import Work


def _work(change=lambda found: found, losses="mse_loss,l1_loss", data="diabetes", **settings):
    """Five folds of a bundled set after ``change`` of the candidates."""
    table, metric = load(data), resolve("mae")
    diagnosis = examine(table, metric)
    return Work(
        table=table,
        diagnosis=diagnosis,
        metric=metric,
        candidates=change(shortlist(diagnosis, metric, losses).candidates),
        plan=plan(diagnosis, "5x1"),
        settings=Settings(**{"epochs": 20, "trials": 1, **settings}),
        model="mlp",
        versions={},
    )


def _run(change, losses="mse_loss,l1_loss", data="diabetes", **settings):
    """The outcome and the verdict of that work."""
    work = _work(change, losses, data, **settings)
    outcome = complete(work)
    return outcome, judge(outcome, work.diagnosis, work.metric, work.plan)


def test_the_same_loss_twice_differs_by_exactly_nothing():
    outcome, verdict = _run(lambda found: (found[0], replace(found[0], name="again")))
    first, second = (one.scores for one in outcome.results)
    np.testing.assert_array_equal(first, second)
    again = next(one for one in verdict.standings if one.label == "again")
    assert (again.comparison.difference, again.word) == (0.0, "practically the same")


class Dropping(torch.nn.Sequential):
    def __init__(self, inputs, outputs):
        hidden = torch.nn.Linear(inputs, 16)
        super().__init__(hidden, torch.nn.Dropout(0.5), torch.nn.Linear(16, outputs))


class DroppingOneByOne(Dropping):
    """Control flow that looks at values, which no vmap can follow."""

    def forward(self, x):
        return super().forward(x) * (1 if float(x.sum().detach()) < 1e9 else -1)


@pytest.mark.parametrize("model", [Dropping, DroppingOneByOne])
def test_the_same_loss_twice_meets_the_same_dropout(model):
    """Beside a third loss, with another number of trials of its own, early stops and all."""

    def again(found):
        return (found[0], found[1], replace(found[0], name="again"))

    work = replace(_work(again, epochs=6, trials=2), model=model)
    work = replace(work, plan=plan(work.diagnosis, "3x1"))
    first, _, second = complete(work).results
    assert first.curves == replace(second.curves, loss=first.curves.loss)
    np.testing.assert_array_equal(first.curves.loss, second.curves.loss)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.last, second.last)
    np.testing.assert_array_equal(first.predictions, second.predictions)
    assert (first.setting, first.epochs) == (second.setting, second.epochs)


def test_probabilities_are_those_that_the_loss_means_by_its_logits():
    table, metric = load("wine"), resolve("log_loss")
    diagnosis = examine(table, metric)
    (plain,) = shortlist(diagnosis, metric, "cross_entropy").candidates
    scaled = replace(plain, options={"logit_scale": 3.0})
    cell = plan(diagnosis, "3x1").cells[0]
    output = torch.randn(1, len(diagnosis.target), 3, dtype=torch.float64)
    head = fit_head(scaled, diagnosis.target, [cell], None)
    made = head.predict(output, metric)[0]
    np.testing.assert_allclose(made, torch.softmax(3 * output[0], -1).numpy())
    told = -np.log(made[np.arange(len(made)), diagnosis.target]).mean()
    target = torch.as_tensor(diagnosis.target)
    assert told == pytest.approx(scaled.function(output[0], target, logit_scale=3.0).item())


SGD = {"optimiser": "sgd", "rate": 0.02}


@pytest.mark.parametrize("settings", [{}, {**SGD, "equalise": True}], ids=["adamw", "sgd"])
def test_a_loss_times_hundred_gets_the_same_verdict(settings):
    def scaled(found):
        def big(input, target, **options):
            return 100 * found[1].function(input, target, **options)

        return (found[0], replace(found[1], function=big))

    plain, before = _run(lambda found: found, **settings)
    large, after = _run(scaled, **settings)
    np.testing.assert_allclose(plain.results[1].scores, large.results[1].scores, rtol=0.01)
    assert before.word == after.word


def test_sgd_without_equalisation_does_depend_on_the_scale():
    def scaled(found):
        def big(input, target, **options):
            return 100 * found[1].function(input, target, **options)

        return (found[0], replace(found[1], function=big))

    plain, _ = _run(lambda found: found, **SGD)
    large, _ = _run(scaled, **SGD)
    assert not np.allclose(plain.results[1].scores, large.results[1].scores, rtol=0.01)


def test_a_shuffled_target_has_no_winner():
    frame = load("diabetes").features.assign(y=np.random.default_rng(0).permutation(np.arange(442)))
    asked = {"metric": "mae", "folds": "5x2", "epochs": 20, "trials": 2}
    done = choose(frame, "y", losses="l1_loss,huber_loss", **asked)
    assert not any(one.beats_constant for one in done.outcome.standings)
    assert done.winner is None
    assert "constant" in done.verdict


def test_the_same_seed_gives_the_same_table_and_another_seed_another():
    asked = {"metric": "mae", "losses": "l1_loss", "folds": "3x1", "epochs": 5}
    first, again = (choose("stackloss", **asked).table for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(choose("stackloss", **asked, seed=1).table)


def test_a_loss_that_is_not_finite_is_recorded_with_the_reason():
    def broken(found):
        def infinite(input, target, **options):
            return input / 0.0

        return (found[0], replace(found[1], function=infinite))

    outcome, verdict = _run(broken)
    assert outcome.results[1].scores is None
    assert outcome.results[1].failure.startswith("5 of 5 cells failed, the first: the loss")
    assert verdict.standings[-1].word == "failed"


def test_a_loss_that_breaks_the_common_step_fails_alone():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return input.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("no way back")

    def change(found):
        def broken(input, target, **options):
            return Broken.apply(input)

        return (found[0], replace(found[1], function=broken, rowwise=True))

    outcome, verdict = _run(change, trials=2, epochs=4)
    whole, _ = _run(lambda found: found, trials=2, epochs=4)
    np.testing.assert_allclose(outcome.results[0].scores, whole.results[0].scores, rtol=1e-4)
    assert "5 of 5 cells failed, the first: RuntimeError: no way back" in outcome.results[1].failure
    assert verdict.standings[-1].word == "failed"


def test_cells_share_no_row_between_training_and_test():
    diagnosis = examine(load("wine"))
    cells = plan(diagnosis, "4x2").cells
    assert len({len(cell.fit) for cell in cells}) == 1
    for cell in cells:
        assert not set(cell.train) & set(cell.test)
        assert not set(cell.fit) & set(cell.hold)
        assert len(cell.train) + len(cell.test) == 178
    tested = np.concatenate([cell.test for cell in cells if cell.repeat == 0])
    assert sorted(tested) == list(range(178))


@pytest.mark.slow
def test_absolute_and_squared_error_are_not_told_apart_on_diabetes():
    done = choose("diabetes", metric="mae", losses="l1_loss")
    assert done.winner is None
    assert done.outcome.word in ("cannot tell", "practically the same")


@pytest.mark.slow
def test_the_pinball_loss_wins_its_own_metric_on_uneven_spread():
    done = choose("engel", metric="pinball:0.9", losses="pinball_loss,l1_loss,huber_loss")
    assert done.winner == "pinball_loss(quantile=0.9)"
    assert done.table["loss"][0] == done.winner


def test_predicting_zero_for_skewed_amounts_alarms():
    rng = np.random.default_rng(0)
    amounts = np.where(rng.random(300) < 0.7, 0.0, rng.exponential(5.0, 300))
    frame = pd.DataFrame({"x": rng.standard_normal(300), "y": amounts})
    done = choose(frame, "y", metric="mae", losses="l1_loss", folds="3x1", epochs=60, trials=1)
    absolute = next(one for one in done.outcome.standings if one.label == "l1_loss")
    ratio = next(guard for guard in absolute.guards if guard.name == "mean ratio")
    assert ratio.alarm
    assert ratio.value < 0.5


def test_groups_are_not_torn_between_training_and_test_rows():
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.integers(0, 12, 120).astype(str))
    for target in (rng.standard_normal(120), rng.integers(0, 2, 120).astype(float)):
        diagnosis = examine(load(pd.DataFrame({"x": rng.standard_normal(120), "y": target}), "y"))
        cells = plan(diagnosis, "4x2", groups=groups).cells
        assert len({len(cell.fit) for cell in cells}) == 1
        for cell in cells:
            fit, hold, test = (set(groups[part]) for part in (cell.fit, cell.hold, cell.test))
            assert not fit & test
            assert not hold & test
            assert not fit & hold


def test_the_past_predicts_the_future_and_dates_are_no_feature():
    rng = np.random.default_rng(0)
    days = pd.Series(pd.date_range("2020-01-01", periods=100).strftime("%Y-%m-%d"))
    order = rng.permutation(100)
    frame = pd.DataFrame({"x": rng.standard_normal(100), "day": days[order].to_numpy()})
    frame["y"] = frame["x"] + 0.1 * rng.standard_normal(100)
    asked = {"metric": "mae", "losses": "l1_loss", "folds": "5x1", "epochs": 3, "trials": 1}
    done = choose(frame, "y", time="day", **asked)
    assert list(done.data.features) == ["x"]
    assert done.plan.rho == pytest.approx(1 / 5)
    for cell in done.plan.cells:
        latest = [max(frame["day"][part]) for part in (cell.fit, cell.hold)]
        assert latest[0] < min(frame["day"][cell.hold])
        assert latest[1] < min(frame["day"][cell.test])
    assert len(done.tournament.results[0].predictions) == len(done.tournament.tested) == 50


def test_a_model_of_the_user_is_trained_and_a_wrong_one_refused():
    def factory(inputs, outputs):
        return torch.nn.Sequential(torch.nn.Linear(inputs, 4), torch.nn.Linear(4, outputs))

    asked = {"metric": "mae", "losses": "l1_loss", "folds": "3x1", "epochs": 2, "trials": 1}
    assert "out_features=4" in choose("stackloss", model=factory, **asked).model
    with pytest.raises(ValueError, match="model must map"):
        choose("stackloss", model=lambda inputs, outputs: torch.nn.Linear(2, 2), **asked)


def test_losers_leave_the_race_and_the_baseline_stays():
    def awful(found):
        def constant(input, target, **options):
            return found[1].function(input, target + 50.0, **options)

        return (found[0], replace(found[1], function=constant, name="awful"))

    work = replace(_work(awful), plan=plan(examine(load("diabetes")), "4x4"))
    outcome = complete(work)
    assert [len(one.scores) for one in outcome.results] == [16, 8]
    assert [one.dropped for one in outcome.results] == [False, True]
    verdict = judge(outcome, work.diagnosis, work.metric, work.plan)
    assert verdict.standings[-1].label == "awful"
    assert verdict.standings[-1].word == "worse"


def test_numbers_do_not_depend_on_who_is_in_the_same_stack():
    alone, _ = _run(lambda found: found[:2], "mse_loss,l1_loss,huber_loss")
    among, _ = _run(lambda found: found, "mse_loss,l1_loss,huber_loss")
    for one, other in zip(alone.results, among.results, strict=False):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)


def test_every_loss_gets_as_many_trials():
    candidates = shortlist(examine(load("diabetes")), resolve("mae")).candidates
    assert {len(trials(one, 0.003, 8)) for one in candidates} == {8}
    for one in candidates:
        assert trials(one, 0.003, 8)[0].options == {}
        assert trials(one, 0.003, 8)[0].rate == 0.003


def test_the_search_goes_on_beyond_an_edge():
    made = [Trial(rate, {}) for rate in (0.01, 0.02, 0.005)]
    metric = resolve("mae")
    assert [one.rate for one in beyond(made, [3.0, 1.0, 2.0], metric)] == [0.04, 0.08]
    assert [one.rate for one in beyond(made, [3.0, 2.0, 1.0], metric)] == [0.0025, 0.00125]
    assert beyond(made, [1.0, 2.0, 3.0], metric) == []
    assert beyond(made, [np.nan] * 3, metric) == []


@pytest.mark.slow
def test_affairs_by_absolute_error_trigger_the_mean_ratio_guard():
    pytest.importorskip("statsmodels")
    done = choose("fair", metric="mae", losses="l1_loss", folds="3x1", epochs=15, trials=1)
    absolute = next(one for one in done.outcome.standings if one.label == "l1_loss")
    ratio = next(guard for guard in absolute.guards if guard.name == "mean ratio")
    assert ratio.alarm
    assert ratio.value < 0.2


def test_a_loss_that_is_refused_leaves_the_baseline_that_was_named():
    small = {"metric": "mae", "folds": "2x1", "epochs": 1, "trials": 1}
    done = choose("diabetes", losses="cross_entropy,mse_loss", **small)
    assert {name.split()[0] for name in done.table["loss"]} == {"mse_loss"}
    assert [refusal.name for refusal in done.shortlist.refusals] == ["cross_entropy"]
    with pytest.raises(DataError, match="losses must name a loss that fits the data, got none"):
        choose("diabetes", losses="cross_entropy", **small)


@pytest.mark.parametrize(
    ("x", "asked", "message"),
    [
        ("a", {}, r"x must have shape \(rows, columns\), got \(\)"),
        (np.zeros(40), {}, r"x must have shape \(rows, columns\), got \(40,\)"),
        (np.eye(40), {"losses": 3}, "losses must be 'auto' or names of losses, got 3"),
        (np.eye(40), {"losses": ["mse", 3]}, "losses must be 'auto' or names of losses"),
        (np.eye(40), {"folds": 1}, "folds must be KxR with at least 2 folds, .* got 1"),
    ],
)
def test_arguments_of_a_tournament_are_named(x, asked, message):
    with pytest.raises(DataError, match=message):
        lossmith.tournament(x, np.arange(40.0), metric="mae", epochs=1, trials=1, **asked)
