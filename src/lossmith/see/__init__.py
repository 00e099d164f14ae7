"""Pictures of losses: over one axis, and over the plane of input and target.

Needs the extra ``lab``: ``pip install "lossmith[lab]"``.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as _error:
    raise ImportError(f"lossmith.see needs pip install 'lossmith[lab]': {_error}") from None

from lossmith.see.panels import curves
from lossmith.see.plane import heatmap

__all__ = ["curves", "heatmap"]
