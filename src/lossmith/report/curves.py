"""The losses as functions, with the data's residuals underneath."""

from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from lossmith.choose import Choice
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.shortlist import Candidate
from lossmith.report.ink import DASHES, FAINT, INK, SERIES, canvas

REACH = 4.0


def loss_curves(done: Choice) -> Markup:
    """Value and gradient of every candidate over the residual or the margin."""
    amounts = done.diagnosis.kind in AMOUNTS
    unit, residuals = _residuals(done) if amounts else (1.0, np.zeros(0))
    with canvas(5.4, 4.6, rows=2) as (_, (value_axes, slope_axes), svg):
        for number, result in enumerate(done.tournament.results):
            one = result.candidate
            x, value, slope = (
                _over_residual(one, done, unit) if amounts else _over_margin(one, done)
            )
            style: dict[str, Any] = {
                "color": SERIES[number % len(SERIES)],
                "ls": DASHES[number % len(DASHES)],
                "lw": 1.6,
            }
            value_axes.plot(x, value, label=one.label, **style)
            slope_axes.plot(x, slope, **style)
        if amounts:
            counts, edges = np.histogram(residuals / unit, bins=40, range=(-REACH, REACH))
            top = value_axes.get_ylim()[1] if not amounts else 3.0
            value_axes.set_ylim(-0.1, top)
            value_axes.stairs(0.6 * counts / counts.max(), edges, fill=True, color=FAINT, alpha=0.4)
            slope_axes.set_ylim(-3, 3)
            slope_axes.set_xlabel("prediction minus target, in robust residual scales")
        else:
            slope_axes.set_xlabel("score of the true class over the others")
        slope_axes.axhline(0, color=INK, lw=0.6)
        value_axes.set_ylabel("value")
        slope_axes.set_ylabel("gradient")
        value_axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return svg[0]


def _residuals(done: Choice) -> tuple[float, NDArray[Any]]:
    """Robust scale of the baseline's out-of-fold residuals, and these residuals."""
    made = done.tournament.results[0].predictions
    assert made is not None
    residuals = made - done.tested
    spread = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    return spread or float(residuals.std()) or 1.0, residuals


def _over_residual(
    one: Candidate, done: Choice, unit: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Value above the minimum and slope, both divided by the value at +1: shapes, not scales."""
    x = torch.linspace(-REACH, REACH, 161, dtype=torch.float64)
    if one.coding == "standard":
        seen, target = x, torch.zeros_like(x)
        kept = torch.ones_like(x, dtype=torch.bool)
    else:
        middle = float(np.median(done.diagnosis.target)) or float(done.diagnosis.target.mean())
        amount = middle + unit * x
        kept = amount > 0 if one.link == "log" else torch.ones_like(x, dtype=torch.bool)
        if one.link == "logit":
            kept = (amount > 0) & (amount < 1)
        amount = amount[kept]
        seen = {"log": torch.log, "logit": torch.logit}.get(one.link, torch.clone)(amount)
        target = torch.full_like(amount, middle)
    seen = seen.clone().requires_grad_()
    value = one.function(seen, target, reduction="none", **one.options)
    (slope,) = torch.autograd.grad(value.sum(), seen)
    shown, above = x[kept], value.detach() - value.detach().min()
    if one.coding == "raw":  # slope over the prediction, not over its logarithm
        slope = torch.gradient(above, spacing=(shown,))[0]
    height = float(np.interp(1.0, shown.numpy(), above.numpy())) or 1.0
    return shown.numpy(), (above / height).numpy(), (slope / height).numpy()


def _over_margin(one: Candidate, done: Choice) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Value and slope over the score of the true class; the other scores are 0."""
    x = torch.linspace(-6, 6, 121, dtype=torch.float64).requires_grad_()
    truth = np.ones(len(x), dtype=np.int64)
    target = one.code(truth)
    if target.is_floating_point():
        target = target.double()
    seen = x if one.width == 0 else torch.zeros(len(x), one.width, dtype=torch.float64)
    if one.width:
        seen = torch.cat([seen[:, :1], x[:, None], seen[:, 2:]], dim=1)
    value = one.function(seen, target, reduction="none", **one.options)
    value = value if value.ndim == 1 else value.sum(1)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return x.detach().numpy(), value.detach().numpy(), slope.numpy()
