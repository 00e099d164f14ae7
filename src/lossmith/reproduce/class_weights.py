"""Weights against rare events: no better ranking, risks far too high, a shift does the same."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from lossmith.losses.classification.binary_cross_entropy import binary_cross_entropy_with_logits
from lossmith.reproduce.claims import Claim, Measured, Reproduction, Tick
from lossmith.reproduce.training import newton

ROWS = 20000
SLOPES, INTERCEPT = (0.8, 0.6, 0.4, 0.2, 0.0, 0.0), -5.2


def _draw(seed: int) -> tuple[Tensor, Tensor]:
    """Features with a column of ones, and events, about 1 % of them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((ROWS, len(SLOPES)))
    risk = 1 / (1 + np.exp(-(x @ np.array(SLOPES) + INTERCEPT)))
    y = random.random(ROWS) < risk
    return torch.from_numpy(np.column_stack([x, np.ones(ROWS)])), torch.from_numpy(y).double()


def _cost(weights: Tensor, x: Tensor, y: Tensor, factor: Tensor | None) -> Tensor:
    return binary_cross_entropy_with_logits(x @ weights, y, pos_weight=factor)


def compare(seed: int) -> dict[str, float]:
    """Logistic regression with and without the weight negatives / positives of the events."""
    x, y = _draw(seed)
    half = ROWS // 2
    shown, labels = x[:half], y[:half]
    share = float(labels.mean())
    factor = torch.tensor([(1 - share) / share], dtype=torch.float64)
    start = torch.zeros(x.shape[1], dtype=torch.float64)
    plain = newton(partial(_cost, x=shown, y=labels, factor=None), start)
    weighted = newton(partial(_cost, x=shown, y=labels, factor=factor), start)
    truth = y[half:].numpy()
    risks = torch.sigmoid(x[half:] @ plain).numpy()
    inflated = torch.sigmoid(x[half:] @ weighted).numpy()
    return {
        "auc": float(roc_auc_score(truth, inflated) - roc_auc_score(truth, risks)),
        "risk": float(inflated.mean() / truth.mean()),
        "plain risk": float(risks.mean() / truth.mean()),
        "shift": float(weighted[-1] - plain[-1]) - math.log(float(factor[0])),
        "f1": float(f1_score(truth, inflated > 0.5) - f1_score(truth, risks > share)),
        "brier": float(((inflated - truth) ** 2).mean() - ((risks - truth) ** 2).mean()),
        "AUC without weights": float(roc_auc_score(truth, risks)),
        "F1 with weights": float(f1_score(truth, inflated > 0.5)),
        "share of events": float(truth.mean()),
    }


def _measure(seeds: Sequence[int], tick: Tick) -> Measured:
    found: list[dict[str, float]] = []
    for done, seed in enumerate(seeds, 1):
        found.append(compare(seed))
        tick(done / len(seeds))
    values = {name: [one[name] for one in found] for name in found[0]}
    asked = {claim.name for claim in REPRODUCTION.claims}
    beside = {name: float(np.mean(all_)) for name, all_ in values.items() if name not in asked}
    return Measured(values, beside)


REPRODUCTION = Reproduction(
    name="class-weights",
    finding="Correcting for rare events does not rank better and ruins the predicted risks; "
    "moving the threshold does the same.",
    source="van den Goorbergh, van Smeden, Timmerman and Van Calster 2022 (JAMIA 29:1525-1534), "
    "doi:10.1093/jamia/ocac093",
    published="Risks of the rare class strongly overestimated, no higher AUC, results similar "
    "to a shifted threshold. The paper resamples; a class weight is over-sampling without chance.",
    setting="6 normal features, logit = 0.8 x1 + 0.6 x2 + 0.4 x3 + 0.2 x4 - 5.2, 10000 rows to "
    "train on and 10000 to test; logistic regression by Newton's method; weight of an event = "
    "non-events / events",
    losses=("binary_cross_entropy_with_logits",),
    metric="AUC, mean risk over share of events, Brier score, F1",
    seeds=20,
    claims=(
        # first check: 0.7724 against 0.7747
        Claim("auc", "AUC with weights over without: no gain", -0.01, 0.002),
        # first check: 38.7 and 0.995
        Claim("risk", "mean risk over share of events, weighted", 19.3, 77.4, neutral=1.0),
        Claim("plain risk", "the same, unweighted: near 1", 0.9, 1.1),
        # first check: -0.02
        Claim("shift", "shift of the intercept over log(weight): near 0", -0.1, 0.1),
        # first check: 0.044 against 0.045
        Claim("f1", "F1 with weights over a moved threshold: near 0", -0.01, 0.01),
        # first check: 0.189 against 0.0095
        Claim("brier", "Brier score with weights over without: worse", 0.09, 0.36, neutral=0.0),
    ),
    measure=_measure,
)
