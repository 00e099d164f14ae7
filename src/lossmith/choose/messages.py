"""What the workbench says, in English and Chinese: every sentence is in ``messages.toml``.

What the cards advise is theirs to say in English, and in ``advice.toml`` in Chinese.
"""

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "zh")


class Sentence(str):
    """English text that can be said in another language.

    Numbers keep their precision, names that come from the data stay as they are.
    """

    key: str
    values: dict[str, Any]

    def to(self, language: str) -> str:
        """The text in a language of ``LANGUAGES``."""
        if self.key:
            given = {name: translate(one, language) for name, one in self.values.items()}
            return messages()[self.key][language].format(**given)
        gap = translate(self.values["gap"], language)
        return gap.join(str(translate(one, language)) for one in self.values["parts"])


def say(key: str, **values: Any) -> Sentence:
    """The message of a key, filled in.

    Example:
        >>> say("gap.and")
        ' and '
        >>> say("gap.and").to("zh")
        '和'
    """
    return _made(key, values)


def join(parts: Iterable[str], gap: str = "gap.sentence") -> Sentence:
    """Sentences or names one after the other; ``gap`` is the key of what stands between them."""
    return _made("", {"parts": list(parts), "gap": say(gap)})


def translate(value: Any, language: str) -> Any:
    """A sentence in the language; anything else as it is."""
    return value.to(language) if isinstance(value, Sentence) else value


def _made(key: str, values: dict[str, Any]) -> Sentence:
    unsaid = Sentence()
    unsaid.key, unsaid.values = key, values
    said = Sentence(unsaid.to("en"))
    said.key, said.values = key, values
    return said


def advice(name: str, english: str) -> str:
    """When to use a loss: as its card says it, and in Chinese where that is known."""
    key = f"advice.{name}"
    return say(key) if key in messages() else english


def worded(english: str, **values: Any) -> str:
    """The message with this English text, or the text alone if there is none."""
    key = _keys().get(english)
    if key is not None:
        return say(key, **values)
    return english.format(**values) if values else english


@cache
def _keys() -> dict[str, str]:
    return {texts["en"]: key for key, texts in messages().items()}


@cache
def messages() -> dict[str, dict[str, str]]:
    """All messages: key, language, text with places for values."""
    advised = {f"advice.{name}": texts for name, texts in _table("advice").items()}
    return _table("messages") | advised


def _table(name: str) -> dict[str, dict[str, str]]:
    path = files("lossmith.choose").joinpath(f"{name}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))
