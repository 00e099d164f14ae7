"""``lossmith plot``: losses and their gradients as a picture."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossmith.cli.options import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossmith.core.module import Loss

RANGE = (float, float)


@click.command()
@click.argument("losses", nargs=-1, required=True, metavar="LOSS ...")
@click.option(
    "-o", "--output", default="losses.svg", show_default=True, help="SVG, PNG or PDF file to write."
)
@click.option("--gradient", is_flag=True, help="Add a panel with the gradient.")
@click.option("--range", "span", type=RANGE, metavar="LOW HIGH", help="Ends of the axis.")
@click.option("--target", type=float, help="Target of losses that are drawn over the input.")
@click.option("--residuals", metavar="FILE", help="Numbers to draw under the curves: .csv or .npy.")
@click.option("--heatmap", "plane", is_flag=True, help="Value over the plane of input and target.")
def plot(
    losses: tuple[str, ...],
    output: str,
    gradient: bool,
    span: tuple[float, float] | None,
    target: float | None,
    residuals: str | None,
    plane: bool,
) -> None:
    """Draw losses over one axis, or one loss as a heat map.

    LOSS is a name of the catalogue (huber stands for huber_loss), with options after a colon:
    huber:delta=0.5. Losses of the residual, of the margin and of the input need pictures of
    their own. A single loss that is none of these becomes a heat map, unless --target is given.
    """
    from lossmith.core.module import Loss
    from lossmith.see import curves, heatmap
    from lossmith.see.values import curve

    try:
        if span is not None and not -math.inf < span[0] < span[1] < math.inf:
            raise ValueError(f"--range must run from a smaller to a larger number, got {span}")
        chosen: list[str | Loss] = [_parse(text) for text in losses]
        numbers = None if residuals is None else _numbers(residuals)
        lonely = len(chosen) == 1 and target is None and numbers is None
        if plane or (lonely and curve(chosen[0]).axis == "input"):
            if len(chosen) > 1:
                raise ValueError(f"--heatmap must have one loss, got {len(chosen)}")
            figure, _ = heatmap(chosen[0], gradient=gradient, input=span)
        else:
            figure, _ = curves(
                chosen, gradient=gradient, span=span, target=target, residuals=numbers
            )
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    _save(figure, output)
    click.echo(output)


def _parse(text: str) -> "str | Loss":
    """``huber:delta=0.5,reduction=sum`` as a Module; a bare name stays a name."""
    import sys

    from lossmith.core.catalogue import card

    name, colon, options = text.partition(":")
    if not colon:
        return name
    function = card(name).function
    assert function is not None
    fields: dict[str, Any] = {}
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if not equals or key.strip() in fields:
            rule = "options must come as NAME:OPTION=VALUE,OPTION=VALUE, each once"
            raise ValueError(f"{rule}, got {text!r}")
        fields[key.strip()] = literal(value)
    for found in vars(sys.modules[function.__module__]).values():
        if isinstance(found, type) and getattr(found, "function", None) is function:
            return found(**fields)
    raise ValueError(f"options must belong to a loss with a Module, got {text!r}")


def _numbers(path: str) -> Any:
    """All numbers of a .npy file, or of a table; one line of headings is allowed."""
    import numpy as np

    if not Path(path).is_file():
        raise ValueError(f"--residuals must be a file, got {path!r}")
    try:
        if path.endswith(".npy"):
            return np.load(path, allow_pickle=False).astype(float).ravel()
        text = Path(path).read_text(encoding="utf-8")
    except ValueError as error:  # what neither NumPy nor the decoder can read
        raise ValueError(f"--residuals must hold numbers, got {path!r}: {error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    found: list[float] = []
    for number, line in enumerate(lines):
        try:
            found += [float(cell) for cell in line.replace(",", " ").split()]
        except ValueError:
            if number:
                raise ValueError(f"--residuals must hold numbers, got {line!r}") from None
    return np.array(found)


def _save(figure: "Figure", output: str) -> None:
    path = Path(output)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise click.UsageError(f"--output must end in .svg, .png or .pdf, got {output!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None
