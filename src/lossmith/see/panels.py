"""Draw element losses and their gradients over one axis."""

import math
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lossmith.core.checks import fail, said
from lossmith.core.domain import Interval
from lossmith.core.module import Loss
from lossmith.see.values import Axis, Curve, curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), which stay apart for colour-blind readers and in grey print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Only the first is solid: a curve that coincides with an earlier one must not hide it
STYLES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 2)))
POINTS = 1201  # odd, so that 0 is one of them
DWARFS, ROOM = 2.5, 1.6  # a curve this many times the next one is cut at this many times it
MOST_BARS = 80
JUMP = 0.15  # a step between neighbours above this share of the range is a jump, not a slope
LABELS: dict[Axis, str] = {
    "residual": "residual (input - target)",
    "margin": "raw output (target 1 where not named)",
    "input": "input",
}


def curves(
    losses: Sequence[str | Loss | Callable[..., Tensor]],
    *,
    gradient: bool = False,
    span: tuple[float, float] | None = None,
    target: float | None = None,
    residuals: Sequence[float] | Tensor | None = None,
) -> "tuple[Figure, Axes]":
    """Draw losses over the residual, the margin or the input.

    Losses of the residual are drawn over it; those of a label over the raw output for label 1,
    which is the margin, and for the other label too (thin line) if that is not the mirror image;
    all others over the input at one ``target``.

    Args:
        losses: Names (``"huber"`` stands for ``"huber_loss"``), functions, or Modules, whose
            options are then used. Element losses of two arguments.
        gradient: Add a panel with the derivative by the input.
        span: Ends of the axis; by default -3 and 3, or where the residuals lie.
        target: The target of losses that are drawn over the input; 1 if not given.
        residuals: Residuals of a model, drawn as a histogram under the curves; NaN is left out.

    Returns:
        The matplotlib figure, and the axes of the values.

    Raises:
        ValueError: If there are no losses, one cannot be drawn, they belong over different axes,
            ``span`` is empty, ``residuals`` holds nothing finite, or a ``target`` is given for
            losses over another axis.

    Example:
        >>> import lossmith
        >>> from lossmith.see import curves
        >>> figure, axes = curves(["huber", lossmith.HuberLoss(delta=2.0)], gradient=True)
        >>> [line.get_label() for line in axes.get_lines()][:2]
        ['huber_loss', 'huber_loss (delta=2.0)']
    """
    from matplotlib.figure import Figure

    drawn = [curve(loss) for loss in losses]
    axis = _common_axis(drawn)
    if target is not None and axis != "input":
        fail("target", f"be left out for losses over the {axis}", target)
    spread = None if residuals is None else _finite(residuals)
    low, high = span or _span(drawn, axis, spread)
    if not -math.inf < low < high < math.inf:
        fail("span", "run from a smaller to a larger finite number", (low, high))
    grid = torch.linspace(low, high, POINTS, dtype=torch.float64)

    panels = 2 if gradient else 1
    figure = Figure(figsize=(7.5, 2.7 * panels + 0.9), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    heights: list[list[Tensor]] = [[], []]
    for one, colour, style in zip(drawn, cycle(COLOURS), cycle(STYLES), strict=False):
        look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.8}
        for at, label in _targets(one, axis, target):
            values = [_broken(part) for part in one.at(grid, torch.full_like(grid, at))]
            for panel, part, seen in zip(axes, values, heights, strict=False):
                panel.plot(grid.numpy(), part.numpy(), label=label, **look)
                seen.append(part)
            look |= {"linewidth": 0.9}  # the other label of an asymmetric loss
    for panel, name, seen in zip(axes, ("loss", "gradient"), heights, strict=False):
        panel.axhline(0, color="#808080", linewidth=0.8, zorder=0)
        panel.grid(color="#d9d9d9", linewidth=0.6)
        panel.set_ylabel(name)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylim(*_limits(seen))
    if spread is not None:
        _histogram(axes[0], spread, (low, high))
    axes[0].set_xlim(low, high)
    where = f" at target {1.0 if target is None else target:g}" if axis == "input" else ""
    axes[-1].set_xlabel(LABELS[axis] + where)
    names = axes[0].get_legend_handles_labels()
    columns = 2 if len(drawn) < 5 else 3
    figure.legend(*names, loc="outside upper center", ncols=columns, frameon=False)
    return figure, axes[0]


def _common_axis(drawn: list[Curve]) -> Axis:
    if not drawn:
        fail("losses", "name at least one loss", drawn)
    axes: dict[Axis, str] = {one.axis: one.label for one in drawn}
    if len(axes) > 1:
        found = ", ".join(f"{label} over the {axis}" for axis, label in axes.items())
        fail("losses", "belong over one axis", said(found))
    return next(iter(axes))


def _finite(residuals: Sequence[float] | Tensor) -> Tensor:
    values = torch.as_tensor(residuals, dtype=torch.float64).flatten()
    values = values[values.isfinite()]
    if not values.numel():
        fail("residuals", "hold a finite number", said("none"))
    return values


def _span(drawn: list[Curve], axis: Axis, spread: Tensor | None) -> tuple[float, float]:
    """From -3 to 3 inside the domain; with residuals, where 99 % of them lie, 0 in the middle."""
    if spread is not None:
        reach = float(spread.abs().quantile(0.99)) or 1.0
        return -1.1 * reach, 1.1 * reach
    if axis != "input":
        return -3.0, 3.0
    low = max(max(one.input.low, -3.0) for one in drawn)
    high = min(min(one.input.high, 3.0) for one in drawn)
    margin = 1e-3 * (high - low)  # open ends are not part of the domain
    return low + margin * (low > -3.0), high - margin * (high < 3.0)


def _targets(one: Curve, axis: Axis, target: float | None) -> list[tuple[float, str]]:
    """Where to draw a loss, with labels: a loss that treats its labels unlike is drawn for both."""
    if axis == "residual":
        return [(0.0, one.label)]
    if axis == "input":
        at = 1.0 if target is None else target
        if not (isinstance(one.target, Interval) and one.target.contains(at)):
            fail("target", f"{one.target.rule} for {one.card.name}", at)
        return [(at, one.label)]
    if one.mirrored:
        return [(1.0, one.label)]
    return [(1.0, one.label), (one.other_label, f"{one.label}, target {one.other_label:g}")]


def _broken(values: Tensor) -> Tensor:
    """NaN at jumps, so that no line is drawn across them, and instead of infinity."""
    values = torch.where(values.isfinite(), values, torch.nan)
    seen = values[values.isfinite()]
    if seen.numel() < 2:
        return values
    steps = values.diff().abs()
    jumps = steps > JUMP * (seen.max() - seen.min())
    values[1:][jumps] = torch.nan
    return values


def _limits(values: list[Tensor]) -> tuple[float, float]:
    """Room for the curves; one that dwarfs the others leaves the panel instead."""
    seen = [part[part.isfinite()] for part in values]
    seen = [part for part in seen if part.numel()] or [torch.zeros(1)]
    sizes = sorted(float(part.abs().max()) for part in seen)
    most = sizes[-1]
    if len(sizes) > 1 and most > DWARFS * sizes[-2] > 0:
        most = ROOM * sizes[-2]
    low = max(-most, min(float(part.min()) for part in seen))
    high = min(most, max(float(part.max()) for part in seen))
    edge = 0.05 * (high - low) or 0.5
    return low - edge, high + edge


def _histogram(axes: "Axes", residuals: Tensor, span: tuple[float, float]) -> None:
    """The residuals in the lower third; their shape is the message, so they get no scale."""
    beyond = int(((residuals < span[0]) | (residuals > span[1])).sum())
    note = f"residuals (n = {residuals.numel()}{f', {beyond} beyond the axis' if beyond else ''})"
    inside = residuals[(residuals >= span[0]) & (residuals <= span[1])].numpy()
    bins = min(MOST_BARS, max(10, len(np.histogram_bin_edges(inside, "fd")) - 1))
    twin = axes.twinx()
    counts, _, _ = twin.hist(inside, bins=bins, range=span, color="#b0b0b0", alpha=0.6)
    low, high = axes.get_ylim()
    top = 3 * max(float(np.max(counts)), 1.0)
    twin.set_ylim(top * min(low, 0.0) / high, top)  # the bars stand on the zero of the curves
    twin.set_axis_off()
    axes.set_zorder(twin.get_zorder() + 1)  # the curves stay in front of the bars
    axes.patch.set_visible(False)
    axes.fill_between([], [], color="#b0b0b0", alpha=0.6, label=note)
