"""The pictures of the outcome: effects, training curves, what the predictions look like."""

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from lossmith.choose import Choice
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.verdict import Standing
from lossmith.report.ink import FAINT, INK, SERIES, Tell, canvas

WIDTH = 4.5
MOST_POINTS = 400
MOST_PARTS, FEWEST_IN_PART = 10, 5


def effects(done: Choice, tell: Tell) -> Markup | None:
    """Gain over the baseline with 95 % intervals, and the region of practical equivalence."""
    shown = [one for one in done.outcome.standings if one.comparison is not None]
    if not shown:
        return None
    rope = done.outcome.rope
    with canvas(WIDTH, 0.7 + 0.46 * len(shown)) as (_, (axes,), svg):
        axes.axvspan(-rope, rope, color=FAINT, alpha=0.3, lw=0)
        axes.axvline(0, color=INK, lw=0.8)
        for row, one in enumerate(reversed(shown)):
            test = one.comparison
            assert test is not None
            color = {"better": SERIES[2], "worse": SERIES[1]}.get(one.word, INK)
            axes.plot([test.low, test.high], [row, row], color=color, lw=2, solid_capstyle="butt")
            axes.plot(test.difference, row, "o", color=color, ms=5)
            # names above their lines leave the width to the intervals
            axes.text(0, row + 0.25, one.label, transform=axes.get_yaxis_transform(), fontsize=9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.4, len(shown) - 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(tell("figure.gain", metric=done.metric.name))
    return svg[0]


def training(done: Choice, tell: Tell) -> list[tuple[str, str, Markup]]:
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
        (one.label, _caption(one, tell), _run(one, done.metric.name, low - pad, high + pad, tell))
        for one in trained
    ]


def _caption(one: Standing, tell: Tell) -> str:
    best = one.result.best_epochs
    return tell("page.kept", middle=int(np.median(best)), low=min(best), high=max(best))


def _run(one: Standing, metric: str, low: float, high: float, tell: Tell) -> Markup:
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
        axes.set_xlabel(tell("figure.epoch"))
        axes.set_ylabel(metric)
    return svg[0]


def predictions(done: Choice, tell: Tell) -> tuple[str, Markup]:
    """What the predictions outside their training rows look like: caption and picture."""
    shown = _leader_and_baseline(done)
    if done.diagnosis.kind in AMOUNTS:
        return _amounts(done, shown, tell)
    if done.metric.needs == "label":
        return _found(done, shown, tell)
    if done.metric.needs == "probability" or len(done.diagnosis.classes) > 2:
        return _reliability(done, shown, tell)
    return _roc(done, shown, tell)


def _leader_and_baseline(done: Choice) -> list[Standing]:
    leader = done.outcome.standings[0]
    base = [one for one in done.outcome.standings if one.word == "baseline" and one is not leader]
    return [leader, *base]


def _amounts(done: Choice, shown: list[Standing], tell: Tell) -> tuple[str, Markup]:
    y = done.tested
    rows = np.arange(len(y))
    if len(y) > MOST_POINTS:
        rows = np.random.default_rng(0).choice(len(y), MOST_POINTS, replace=False)
    with canvas(WIDTH, 4.6, rows=2) as (_, (points, bars), svg):
        made: list[Any] = [one.result.predictions for one in shown]
        edges = np.histogram_bin_edges(np.concatenate([one - y for one in made]), bins=40)
        for number, (one, guess) in enumerate(zip(shown, made, strict=True)):
            mark: dict[str, Any] = {"color": SERIES[number], "alpha": 0.6, "ms": 3, "mew": 0}
            points.plot(guess[rows], guess[rows] - y[rows], "os"[number], label=one.label, **mark)
            bars.hist(guess - y, edges.tolist(), histtype="step", color=SERIES[number], lw=1.5)
        points.axhline(0, color=INK, lw=0.8)
        points.set_xlabel(tell("figure.prediction"))
        points.set_ylabel(tell("figure.residual"))
        points.legend(loc="best")
        bars.set_xlabel(tell("figure.residual"))
        bars.set_ylabel(tell("figure.rows"))
    if len(y) > MOST_POINTS:
        return tell("figure.some_residuals", drawn=MOST_POINTS, rows=len(y)), svg[0]
    return tell("figure.residuals"), svg[0]


def calibration(done: Choice, tell: Tell) -> Markup | None:
    """For amounts: what the metric asks for in the rows with about the same prediction."""
    if done.diagnosis.kind not in AMOUNTS:
        return None
    y, level = done.tested, 0.5 if done.metric.quantile is None else done.metric.quantile
    mean = "mean" in done.metric.asks_for
    parts = min(MOST_PARTS, len(y) // FEWEST_IN_PART)
    if parts < 2:
        return None
    with canvas(WIDTH, 3.4) as (_, (axes,), svg):
        for number, one in enumerate(_leader_and_baseline(done)):
            made: Any = one.result.predictions
            chosen = np.array_split(np.argsort(made, kind="stable"), parts)
            told = [float(made[rows].mean()) for rows in chosen]
            found = [y[rows].mean() if mean else np.quantile(y[rows], level) for rows in chosen]
            style: dict[str, Any] = {"color": SERIES[number], "lw": 1.6, "ms": 4}
            axes.plot(told, found, "os"[number] + "-", label=one.label, **style)
        ends = axes.get_xlim()
        axes.plot(ends, ends, color=INK, lw=0.8)
        axes.set_xlabel(tell("figure.prediction"))
        asked = tell("figure.mean_target") if mean else tell("figure.quantile_target", level=level)
        axes.set_ylabel(asked)
        axes.legend(loc="upper left")
    return svg[0]


def _found(done: Choice, shown: list[Standing], tell: Tell) -> tuple[str, Markup]:
    y, classes = done.tested, done.diagnosis.classes
    some = np.argsort(-np.bincount(y), kind="stable")[:20]
    with canvas(WIDTH, 1.2 + 0.3 * len(some)) as (_, (axes,), svg):
        height = 0.8 / len(shown)
        for number, one in enumerate(shown):
            made: Any = one.result.predictions
            shares = [float((made[y == code] == code).mean()) for code in some]
            places = np.arange(len(some)) + number * height
            axes.barh(places, shares, height, color=SERIES[number], label=one.label)
        # names of classes come from the data; a dollar sign would start a formula
        named = [tell("figure.class", name=classes[code]) for code in some]
        names = [name.replace("$", r"\$")[:28] for name in named]
        axes.set_yticks(np.arange(len(some)) + 0.4 - height / 2, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(tell("figure.found"))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return tell("figure.found_note"), svg[0]


def _reliability(done: Choice, shown: list[Standing], tell: Tell) -> tuple[str, Markup]:
    from sklearn.calibration import calibration_curve

    y = done.tested
    with canvas(WIDTH, 3.6) as (_, (axes,), svg):
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for number, one in enumerate(shown):
            made: Any = one.result.predictions
            hit = y if made.ndim == 1 else made.argmax(1) == y
            sure = made if made.ndim == 1 else made.max(1)
            share, level = calibration_curve(hit, sure, n_bins=10)
            style: dict[str, Any] = {"color": SERIES[number], "lw": 1.6, "ms": 4}
            axes.plot(level, share, "os"[number] + "-", label=one.label, **style)
        axes.set_xlabel(tell("figure.probability"))
        axes.set_ylabel(tell("figure.came_true"))
        axes.legend(loc="upper left")
    key = "figure.reliability" if len(done.diagnosis.classes) == 2 else "figure.reliability_top"
    return tell(key), svg[0]


def _roc(done: Choice, shown: list[Standing], tell: Tell) -> tuple[str, Markup]:
    with canvas(WIDTH, 3.6) as (_, (axes,), svg):
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for number, one in enumerate(shown):
            wrong, right, _levels = metrics.roc_curve(done.tested, one.result.predictions)
            some = np.unique(np.linspace(0, len(wrong) - 1, 200).astype(int))
            axes.plot(wrong[some], right[some], color=SERIES[number], lw=1.6, label=one.label)
        axes.set_xlabel(tell("figure.false_alarms"))
        axes.set_ylabel(tell("figure.hits"))
        axes.legend(loc="lower right")
    return tell("figure.roc"), svg[0]
