"""Draw an element loss that is not a function of one number: value over input and target."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lossmith.core.checks import fail
from lossmith.core.domain import Interval, Labels
from lossmith.core.module import Loss
from lossmith.see.values import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 241
REACH = 3.0  # how far to go where the domain has no end
HEADROOM = 0.98  # quantile of the values at which the colours end, so that a pole hides nothing


def heatmap(
    loss: str | Loss | Callable[..., Tensor],
    *,
    gradient: bool = False,
    input: tuple[float, float] | None = None,
    target: tuple[float, float] | None = None,
) -> "tuple[Figure, Axes]":
    """Draw the value of a loss over the plane of input and target.

    Colours end at the 98th percentile, so that a pole does not hide the rest.

    Args:
        loss: A name (``"poisson_nll"`` stands for ``"poisson_nll_loss"``), a function, or a Module.
        gradient: Add a panel with the derivative by the input.
        input: Ends of the horizontal axis; by default 3 units within the domain.
        target: Ends of the vertical axis; likewise.

    Returns:
        The matplotlib figure, and the axes of the values.

    Raises:
        ValueError: If the loss is not an element loss of two arguments, its target is a label, or
            a range is empty or leaves the domain.

    Example:
        >>> from lossmith.see import heatmap
        >>> figure, axes = heatmap("huber", target=(0.0, 2.0))
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('input', 'target')
    """
    from matplotlib.colors import CenteredNorm
    from matplotlib.figure import Figure

    one = curve(loss)
    if isinstance(one.target, Labels):
        fail("loss", "have a target that is a number, not a label (draw it with curves)", one.label)
    across = _axis("input", input, one.input)
    up = _axis("target", target, one.target)
    columns, rows = torch.meshgrid(across, up, indexing="xy")
    values, slopes = one.at(columns, rows)

    panels = 2 if gradient else 1
    figure = Figure(figsize=(5 * panels + 0.5, 4), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for panel, numbers, name in zip(axes, (values, slopes), ("loss", "gradient"), strict=False):
        seen = numbers[numbers.isfinite()]
        low, high = (float(seen.quantile(q)) for q in (1 - HEADROOM, HEADROOM))
        signed = name == "gradient" or low < -0.1 * high
        reach = max(abs(low), abs(high)) or 1.0
        look = (
            {"cmap": "RdBu_r", "norm": CenteredNorm(halfrange=reach)}
            if signed
            else {"cmap": "viridis", "vmin": float(seen.min()), "vmax": high}
        )
        x, y, z = across.numpy(), up.numpy(), numbers.numpy()
        mesh = panel.pcolormesh(x, y, z, shading="gouraud", rasterized=True, **look)
        ink = "#404040" if signed else "#f0f0f0"
        inside = z.clip(-reach, reach) if signed else z.clip(None, high)
        lines = panel.contour(x, y, inside, levels=7, colors=ink, linewidths=0.6)
        bar = figure.colorbar(mesh, ax=panel, label=name, extend="both" if signed else "max")
        bar.add_lines(lines)
        panel.set_xlabel("input")
    axes[0].set_ylabel("target")
    figure.suptitle(one.label, fontsize=11)
    return figure, axes[0]


def _axis(name: str, ends: tuple[float, float] | None, domain: Interval) -> Tensor:
    """Points from end to end of the range, which must lie within the domain."""
    if ends is None:
        low = max(domain.low, -REACH if domain.low < -REACH else domain.low)
        high = min(domain.high, max(low, 0.0) + REACH)
        edge = 1e-2 * (high - low)
        ends = (low + edge * domain.low_open, high - edge * domain.high_open)
    if not ends[0] < ends[1]:
        fail(name, "run from a smaller to a larger number", ends)
    for end in ends:
        if not domain.contains(end):
            fail(name, domain.rule, end)
    return torch.linspace(*ends, POINTS, dtype=torch.float64)
