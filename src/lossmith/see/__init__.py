"""Pictures of losses: over one axis, and over the plane of input and target."""

from lossmith.see.panels import curves
from lossmith.see.plane import heatmap

__all__ = ["curves", "heatmap"]
