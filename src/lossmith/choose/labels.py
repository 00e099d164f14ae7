"""What classes tell before any model is trained: their sizes, their order, wrong labels."""

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossmith.choose.data import Table
from lossmith.choose.findings import Finding, losses
from lossmith.choose.messages import join, say
from lossmith.choose.metric import Kind
from lossmith.core.catalogue import cards

MOST_ROWS = 2000
NOISY = 0.1
FEWEST_PER_FOLD = 5
SEPARATORS = (";", "|")
# Words that people put in an order.
ORDERED = (
    ("low", "medium", "high"),
    ("low", "mid", "high"),
    ("small", "medium", "large"),
    ("poor", "fair", "good"),
    ("bad", "fair", "good"),
    ("never", "sometimes", "often"),
    ("never", "sometimes", "always"),
    ("mild", "moderate", "severe"),
)


def class_findings(y: NDArray[Any], classes: tuple[str, ...]) -> list[Finding]:
    """Sizes of the classes of a target of class indices, ``(rows,)``."""
    counts = np.bincount(y, minlength=len(classes))
    shown = ", ".join(f"{name}: {count}" for name, count in zip(classes, counts, strict=True))
    if len(classes) > 12:
        shown = say("find.class_range", low=int(counts.min()), high=int(counts.max()))
    ratio = float(counts.max() / counts.min())
    key = (
        "find.imbalanced" if ratio >= 3 else "find.balanced" if counts.min() > 1 else "find.single"
    )
    return [
        Finding("classes", len(classes), say("find.classes", count=len(classes), shown=shown)),
        Finding("imbalance", ratio, say(key, ratio=ratio)),
    ]


def order_findings(target: pd.Series, *, told: bool) -> list[Finding]:
    """Whether the classes look ordered; ``told`` if the caller says so."""
    levels = sorted(target.unique())
    if pd.api.types.is_numeric_dtype(target):
        likely = len(levels) > 2 and bool((np.diff(np.asarray(levels)) == 1).all())
    else:
        words = {str(level).strip().lower() for level in levels}
        likely = any(words.issuperset(scale) for scale in ORDERED)
    if not likely and not told:
        return []
    key = "find.ordinal" if told else "find.maybe_ordinal"
    shown = join([f"{one:g}" if isinstance(one, float) else str(one) for one in levels], "gap.list")
    return [Finding("ordinal", len(levels), say(key, count=len(levels), shown=shown))]


def multilabel_findings(target: pd.Series) -> list[Finding]:
    """Whether cells hold several labels, as in ``"red;round"``."""
    if pd.api.types.is_numeric_dtype(target):
        return []
    texts = target.astype(str)
    single = set(texts)
    for mark in SEPARATORS:
        parts = [re.split(re.escape(mark), text) for text in texts]
        share = float(np.mean([len(part) > 1 for part in parts]))
        labels = {one.strip() for part in parts for one in part}
        # combinations of few labels, and not a mark inside names that stand alone
        if share > 0.05 and len(labels) < len(single):
            fit = tuple(name for name, card in cards().items() if "multilabel" in card.tasks)
            sentence = say("find.multilabel", share=share, count=len(labels), mark=mark)
            return [Finding("multilabel", share, sentence, fit)]
    return []


def noise_findings(table: Table, y: NDArray[Any], kind: Kind) -> list[Finding]:
    """Share of the labels that a model which has not seen them contradicts with confidence.

    A row is contradicted if a class other than its label is given more probability than that
    class has, on average, in its own rows. A logistic regression in five folds gives the
    probabilities, on 2000 rows at most. Source: Northcutt, Jiang and Chuang 2021, Confident
    learning: estimating uncertainty in dataset labels, arXiv 1911.00068.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = np.random.default_rng(0).permutation(len(y))[:MOST_ROWS]
    codes, labels = np.unique(y[chosen], return_inverse=True)
    if len(codes) < 2 or np.bincount(labels).min() < FEWEST_PER_FOLD:
        return []
    numbers = table.features[table.numeric]
    x = pd.get_dummies(table.features.fillna(numbers.median()), columns=table.text)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    cuts = StratifiedKFold(5, shuffle=True, random_state=0)
    rows = x.to_numpy(dtype=float)[chosen]
    with warnings.catch_warnings():  # a rough model is enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        given: Any = cross_val_predict(model, rows, labels, cv=cuts, method="predict_proba")
    own = np.array([given[labels == code, code].mean() for code in range(len(codes))])
    sure = np.where(given >= own, given, -1.0)
    best = sure.argmax(1)
    share = float(((sure.max(1) >= 0) & (best != labels)).mean())
    if share > NOISY:
        return [
            Finding("label_noise", share, say("find.noisy", share=share), losses(kind, robust=True))
        ]
    return [Finding("label_noise", share, say("find.quiet", share=share))]
