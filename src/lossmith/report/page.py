"""Fill the page."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lossmith.choose import Choice
from lossmith.choose.errors import DataError
from lossmith.choose.messages import LANGUAGES, say, translate
from lossmith.report.curves import loss_curves
from lossmith.report.figures import calibration, effects, predictions, training

# Characters of data that a browser hides, or that turn the direction of what follows
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def render(done: Choice, language: str = "en") -> str:
    """The outcome as one HTML page: no network, no script, every text escaped.

    Args:
        done: What :func:`lossmith.choose.choose` returned.
        language: ``"en"`` or ``"zh"``.

    Raises:
        DataError: If the language is another one (a ``ValueError``).
    """
    from jinja2 import Environment, StrictUndefined

    if language not in LANGUAGES:
        raise DataError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")

    def tell(key: str, **values: Any) -> str:
        return say(key, **values).to(language)

    def translated(text: str) -> str:
        return translate(text, language)

    leader = done.outcome.standings[0]
    compared = done.winner or leader.label
    if compared == done.outcome.baseline:  # the next one is compared with it
        rivals = [one.label for one in done.outcome.standings if one.comparison is not None]
        compared = rivals[0] if rivals else compared
    text = files("lossmith.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(text).render(
        done=done,
        language=language,
        t=tell,
        s=translated,
        leader=leader,
        compared=compared,
        groups=("", []) if compared == done.outcome.baseline else done.groups(compared),
        effects=effects(done, tell),
        training=training(done, tell) if done.networks else (),
        predictions=predictions(done, tell),
        calibration=calibration(done, tell),
        curves=loss_curves(done, tell) if done.networks else "",
    )


def _visible(value: Any) -> Any:
    """Text with what cannot be seen as an escape; markup stays markup."""
    if not isinstance(value, str):
        return value
    seen = UNSEEN.sub(lambda one: repr(one[0])[1:-1], value)
    return Markup(seen) if isinstance(value, Markup) else seen


def write(done: Choice, path: str | Path, language: str = "en") -> Path:
    """Write the page of an outcome.

    Args:
        done: What :func:`lossmith.choose.choose` returned.
        path: Where to; folders are made.
        language: ``"en"`` or ``"zh"``.

    Returns:
        The path.

    Raises:
        DataError: If the language is another one (a ``ValueError``).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(done, language), encoding="utf-8")
    return path
