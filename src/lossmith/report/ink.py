"""Figures as inline SVG whose colours follow the page: light, dark, and the reader's own.

Figures are drawn in marker colours, which are replaced by CSS variables afterwards.
"""

import io
import re
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Gives the message of a key in the language of the page.
Tell = Callable[..., str]
INK, FAINT, PAPER = "#010101", "#020202", "#030303"
SERIES = ("#040401", "#040402", "#040403", "#040404", "#040405", "#040406", "#040407", "#040408")
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (8, 3)))
_VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"} | {
    color: f"--s{number}" for number, color in enumerate(SERIES, 1)
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


@contextmanager
def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> Generator[tuple["Figure", list["Axes"], list[Markup]]]:
    """Draw on axes; the finished SVG is put into the list.

    Args:
        width: Inches.
        height: Inches.
        rows: Rows of axes.
        columns: Columns of axes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    done: list[Markup] = []
    with mpl.rc_context(cast(Any, {**_STYLE, "svg.hashsalt": "lossmith"})):
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.flat), done
        done.append(_svg(figure))


def _svg(figure: "Figure") -> Markup:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # text stays text, and the reader's browser has glyphs that the measuring font lacks
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    # numbers with a tenth of a point are finer than any screen
    text = re.sub(r"(\d+\.\d)\d{2,}", r"\1", text)
    return Markup(text)  # matplotlib escapes every text it writes into an SVG
