"""Fill the page."""

from importlib.resources import files
from pathlib import Path

from lossmith.choose import Choice
from lossmith.report.curves import loss_curves
from lossmith.report.figures import effects, predictions, training


def render(done: Choice) -> str:
    """The outcome as one HTML page: no network, no script, every text escaped.

    Args:
        done: What :func:`lossmith.choose.choose` returned.
    """
    from jinja2 import Environment, StrictUndefined

    text = files("lossmith.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text).render(
        done=done,
        leader=done.outcome.standings[0],
        effects=effects(done),
        training=training(done),
        predictions=predictions(done),
        curves=loss_curves(done),
    )


def write(done: Choice, path: str | Path) -> Path:
    """Write the page of an outcome.

    Args:
        done: What :func:`lossmith.choose.choose` returned.
        path: Where to; folders are made.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(done), encoding="utf-8")
    return path
