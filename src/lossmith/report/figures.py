"""The pictures of the outcome: effects, training curves, what the predictions look like."""

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from lossmith.choose import Choice
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.verdict import Standing
from lossmith.report.ink import FAINT, INK, SERIES, canvas

MOST_POINTS = 400


def effects(done: Choice) -> Markup | None:
    """Gain over the baseline with 95 % intervals, and the region of practical equivalence."""
    shown = [one for one in done.outcome.standings if one.comparison is not None]
    if not shown:
        return None
    rope = done.outcome.rope
    with canvas(5.6, 0.95 + 0.34 * len(shown)) as (_, (axes,), svg):
        axes.axvspan(-rope, rope, color=FAINT, alpha=0.3, lw=0)
        axes.axvline(0, color=INK, lw=0.8)
        for row, one in enumerate(reversed(shown)):
            test = one.comparison
            assert test is not None
            color = {"better": SERIES[2], "worse": SERIES[1]}.get(one.word, INK)
            axes.plot([test.low, test.high], [row, row], color=color, lw=2, solid_capstyle="butt")
            axes.plot(test.difference, row, "o", color=color, ms=5)
        axes.set_yticks(range(len(shown)), [one.label for one in reversed(shown)])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(visible=False, axis="y")
        gain = f"gain in {done.metric.name} over {done.outcome.baseline}"
        axes.set_xlabel(f"worse  ←  {gain}  →  better")
    return svg[0]


def training(done: Choice) -> list[tuple[str, str, Markup]]:
    """For each loss its label, a caption, and training and held-out rows on one axis."""
    trained = [one for one in done.outcome.standings if one.result.curves is not None]
    levels = [
        level
        for one in trained
        if one.result.curves
        for level in (*one.result.curves.train, *one.result.curves.hold)
        if np.isfinite(level)
    ]
    low, high = np.quantile(levels, [0.0, 0.98])
    pad = 0.05 * (high - low) or 1.0
    return [
        (one.label, _caption(one), _run(one, done.metric.name, low - pad, high + pad))
        for one in trained
    ]


def _caption(one: Standing) -> str:
    best = one.result.best_epochs
    return f"kept state: epoch {int(np.median(best))} (median), {min(best)} to {max(best)}"


def _run(one: Standing, metric: str, low: float, high: float) -> Markup:
    curves = one.result.curves
    assert curves is not None
    with canvas(3.3, 2.3) as (_, (axes,), svg):
        own = axes.twinx()
        own.plot(curves.epochs, curves.loss, color=FAINT, lw=1.2, ls=":")
        own.set_yticks([])
        own.grid(visible=False)
        axes.plot(curves.epochs, curves.train, color=SERIES[0], lw=1.6)
        axes.plot(curves.epochs, curves.hold, color=SERIES[1], lw=1.6, ls="--")
        axes.axvline(float(np.median(one.result.best_epochs)), color=INK, lw=0.8, ls=":")
        axes.set_ylim(low, high)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
    return svg[0]


def predictions(done: Choice) -> tuple[str, Markup]:
    """What the predictions outside their training rows look like: caption and picture."""
    shown = _leader_and_baseline(done)
    if done.diagnosis.kind in AMOUNTS:
        return _amounts(done, shown)
    if done.metric.needs == "label":
        return _found(done, shown)
    if done.metric.needs == "probability" or len(done.diagnosis.classes) > 2:
        return _reliability(done, shown)
    return _roc(done, shown)


def _leader_and_baseline(done: Choice) -> list[Standing]:
    leader = done.outcome.standings[0]
    base = [one for one in done.outcome.standings if one.word == "baseline" and one is not leader]
    return [leader, *base]


def _amounts(done: Choice, shown: list[Standing]) -> tuple[str, Markup]:
    y = done.tested
    rows = np.arange(len(y))
    if len(y) > MOST_POINTS:
        rows = np.random.default_rng(0).choice(len(y), MOST_POINTS, replace=False)
    with canvas(5.4, 4.6, rows=2) as (_, (points, bars), svg):
        made: list[Any] = [one.result.predictions for one in shown]
        edges = np.histogram_bin_edges(np.concatenate([one - y for one in made]), bins=40)
        for number, (one, guess) in enumerate(zip(shown, made, strict=True)):
            mark: dict[str, Any] = {"color": SERIES[number], "alpha": 0.6, "ms": 3, "mew": 0}
            points.plot(guess[rows], guess[rows] - y[rows], "os"[number], label=one.label, **mark)
            bars.hist(guess - y, edges.tolist(), histtype="step", color=SERIES[number], lw=1.5)
        points.axhline(0, color=INK, lw=0.8)
        points.set_xlabel("prediction")
        points.set_ylabel("prediction minus target")
        points.legend(loc="best")
        bars.set_xlabel("prediction minus target")
        bars.set_ylabel("rows")
    some = f" ({MOST_POINTS} of {len(y)} rows are drawn above)" if len(y) > MOST_POINTS else ""
    return f"Residuals of the leader and the baseline{some}.", svg[0]


def _found(done: Choice, shown: list[Standing]) -> tuple[str, Markup]:
    y, classes = done.tested, done.diagnosis.classes
    some = np.argsort(-np.bincount(y), kind="stable")[:20]
    with canvas(5.4, 1.2 + 0.3 * len(some)) as (_, (axes,), svg):
        height = 0.8 / len(shown)
        for number, one in enumerate(shown):
            made: Any = one.result.predictions
            shares = [float((made[y == code] == code).mean()) for code in some]
            places = np.arange(len(some)) + number * height
            axes.barh(places, shares, height, color=SERIES[number], label=one.label)
        # names of classes come from the data; a dollar sign would start a formula
        names = [f"class {classes[code]}".replace("$", r"\$")[:28] for code in some]
        axes.set_yticks(np.arange(len(some)) + 0.4 - height / 2, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of the class's rows that are found")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return "How much of each class the leader and the baseline find.", svg[0]


def _reliability(done: Choice, shown: list[Standing]) -> tuple[str, Markup]:
    from sklearn.calibration import calibration_curve

    y = done.tested
    with canvas(5.4, 3.6) as (_, (axes,), svg):
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for number, one in enumerate(shown):
            made: Any = one.result.predictions
            hit = y if made.ndim == 1 else made.argmax(1) == y
            sure = made if made.ndim == 1 else made.max(1)
            share, level = calibration_curve(hit, sure, n_bins=10)
            style: dict[str, Any] = {"color": SERIES[number], "lw": 1.6, "ms": 4}
            axes.plot(level, share, "os"[number] + "-", label=one.label, **style)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share that came true")
        axes.legend(loc="upper left")
    what = "of the positive class" if len(done.diagnosis.classes) == 2 else "of the top class"
    return f"Probabilities {what} against what came true; the diagonal is exact.", svg[0]


def _roc(done: Choice, shown: list[Standing]) -> tuple[str, Markup]:
    with canvas(5.4, 3.6) as (_, (axes,), svg):
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for number, one in enumerate(shown):
            wrong, right, _levels = metrics.roc_curve(done.tested, one.result.predictions)
            some = np.unique(np.linspace(0, len(wrong) - 1, 200).astype(int))
            axes.plot(wrong[some], right[some], color=SERIES[number], lw=1.6, label=one.label)
        axes.set_xlabel("share of the other class that is taken for it")
        axes.set_ylabel("share of the class that is found")
        axes.legend(loc="lower right")
    return "Every threshold of the leader and the baseline (ROC curve).", svg[0]
