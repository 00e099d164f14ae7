"""What amounts tell before any model is trained: zeros, tails, spread."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lossmith.choose.data import Table
from lossmith.choose.messages import say
from lossmith.choose.metric import Kind
from lossmith.core.catalogue import cards

# Losses of these tasks of the catalogue may serve a target of the kind.
TASKS = {
    "continuous": ("regression", "count"),
    "count": ("regression", "count"),
    "binary": ("binary",),
    "multiclass": ("multiclass",),
}
# Distances from the median beyond this many robust standard deviations are far (Iglewicz and
# Hoaglin 1993, How to detect and handle outliers).
FAR = 3.5
MAD_TO_SD = 1.4826
FEWEST_FOR_TAIL = 100
# From this ratio of the 99th to the 1st percentile on, amounts live on a logarithmic scale.
WIDE = 20.0


@dataclass(frozen=True)
class Finding:
    """One observation about the data.

    Attributes:
        code: Stable word for programs.
        value: The number behind the sentence.
        sentence: What a colleague would say.
        speaks_for: Losses of the catalogue that the finding favours.
        speaks_against: Losses that it disfavours.
    """

    code: str
    value: float
    sentence: str
    speaks_for: tuple[str, ...] = ()
    speaks_against: tuple[str, ...] = ()


def losses(kind: Kind, **claims: Any) -> tuple[str, ...]:
    """Names of the losses for this kind of target whose cards make all the claims."""
    return tuple(
        name
        for name, card in cards().items()
        if set(card.tasks) & set(TASKS[kind])
        and card.tensors == ("input", "target")
        and all(getattr(card, claim) == value for claim, value in claims.items())
    )


def amount_findings(y: NDArray[Any], kind: Kind) -> list[Finding]:
    """Zeros, skew, tails and bounds of a target of amounts, ``(rows,)``."""
    found: list[Finding] = []
    zeros = float((y == 0).mean())
    if zeros > 0.1 and y.min() >= 0:
        sentence = say("find.zeros", share=zeros)
        found.append(Finding("zeros", zeros, sentence, losses(kind, link="log")))
    skew = float(stats.skew(y))
    if skew > 1 and y.min() >= 0:
        sentence = say("find.skew_long", skew=skew)
        found.append(Finding("skew", skew, sentence, losses(kind, link="log")))
    else:
        key = "find.skew_none" if abs(skew) <= 1 else "find.skew_tail"
        found.append(Finding("skew", skew, say(key, skew=skew)))
    low, high = np.quantile(y, [0.25, 0.75])
    reach = 1.5 * (high - low)
    outside = float(((y < low - reach) | (y > high + reach)).mean())
    if outside > 0.02:
        found.append(
            Finding(
                "outliers",
                outside,
                say("find.outliers", outside=outside),
                losses(kind, robust=True),
                losses(kind, robust=False, link="identity", elicits="mean"),
            )
        )
    else:
        found.append(Finding("outliers", outside, say("find.no_outliers", outside=outside)))
    if kind == "count":
        found.append(_dispersion(y, kind))
    return [*found, *_far(y), *_tail(y, kind), *_bounds(y, kind)]


def _far(y: NDArray[Any]) -> list[Finding]:
    """Robust z-scores: distances from the median in units that outliers do not move."""
    gaps = np.abs(y - np.median(y))
    unit = MAD_TO_SD * float(np.median(gaps))
    if unit == 0:  # more than half the targets are one and the same
        return []
    share, most = float((gaps > FAR * unit).mean()), float(gaps.max() / unit)
    key = "find.far" if share > 0 else "find.none_far"
    return [Finding("robust_z", share, say(key, share=share, far=FAR, most=most))]


def _tail(y: NDArray[Any], kind: Kind) -> list[Finding]:
    """Hill's estimate of the tail index, from the largest twentieth of distances to the median.

    Source: Hill 1975, A simple general approach to inference about the tail of a distribution,
    Annals of Statistics 3(5), 1163-1174, doi:10.1214/aos/1176343247.
    """
    gaps = np.sort(np.abs(y - np.median(y)))[::-1]
    count = len(y) // 20
    if len(y) < FEWEST_FOR_TAIL or gaps[count] == 0 or gaps[0] == gaps[count]:
        return []
    index = 1 / float(np.log(gaps[:count] / gaps[count]).mean())
    margin = 1.96 * index / count**0.5
    words = {"index": index, "count": count, "low": index - margin, "high": index + margin}
    if index >= 2:
        return [Finding("tail_index", index, say("find.tail", **words))]
    sentence = say("find.heavy_tail", **words)
    against = losses(kind, robust=False, link="identity", elicits="mean")
    return [Finding("tail_index", index, sentence, losses(kind, robust=True), against)]


def _bounds(y: NDArray[Any], kind: Kind) -> list[Finding]:
    """Where the target lives: shares between 0 and 1, or amounts above 0."""
    low, high = float(y.min()), float(y.max())
    if low >= 0 and high <= 1:
        inner = float(((y > 0) & (y < 1)).mean())
        sentence = say("find.proportion", low=low, high=high, inner=inner)
        return [Finding("proportion", inner, sentence, ("binary_cross_entropy_with_logits",))]
    if low <= 0:
        return []
    span = float(np.quantile(y, 0.99) / np.quantile(y, 0.01))
    if span >= WIDE:
        sentence = say("find.positive_wide", low=low, span=span)
        return [Finding("positive", low, sentence, losses(kind, link="log"))]
    return [Finding("positive", low, say("find.positive", low=low, span=span))]


def _dispersion(y: NDArray[Any], kind: Kind) -> Finding:
    ratio = float(y.var(ddof=1) / y.mean())
    key = "find.overdispersed" if ratio > 1.5 else "find.dispersed"
    return Finding("dispersion", ratio, say(key, ratio=ratio), losses(kind, link="log"))


def spread_findings(table: Table, y: NDArray[Any]) -> list[Finding]:
    """Breusch-Pagan test in Koenker's studentised form, on the numeric features.

    Sources: Breusch and Pagan 1979, doi:10.2307/1911963; Koenker 1981, A note on studentizing a
    test for heteroscedasticity, Journal of Econometrics, 107-112.
    """
    numeric = table.features[table.numeric]
    numeric = numeric.fillna(numeric.median())
    rows, columns = numeric.shape
    if columns == 0 or rows < 2 * (columns + 1):
        return []
    spread = numeric.std().replace(0.0, 1.0)
    design = np.column_stack([np.ones(rows), ((numeric - numeric.mean()) / spread).to_numpy()])
    squares = _residuals(design, y) ** 2
    total = float(((squares - squares.mean()) ** 2).sum())
    freedom = int(np.linalg.matrix_rank(design)) - 1
    if total == 0 or freedom == 0:
        return []
    explained = max(0.0, 1 - float((_residuals(design, squares) ** 2).sum()) / total)
    p = float(stats.chi2.sf(rows * explained, freedom))
    if p < 0.01:
        favoured = tuple(
            name for name, card in cards().items() if (card.elicits or "").startswith("quantile")
        )
        return [Finding("uneven_spread", p, say("find.uneven", p=p), favoured)]
    return [Finding("uneven_spread", p, say("find.even", p=p))]


def _residuals(design: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
