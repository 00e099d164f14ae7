"""Find losses by what their cards claim."""

import difflib
import importlib
import json
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

from lossmith.core.card import Card, Coupling, Link, Task
from lossmith.core.checks import fail, fail_type
from lossmith.core.loss import REGISTRY

FLAGS = {"convex", "symmetric", "zero_at_target", "nonnegative", "robust", "differentiable"}
CLAIMS = (
    *("task", "coupling", "convex", "symmetric", "zero_at_target", "nonnegative", "robust"),
    *("gradient_bound", "differentiable", "elicits", "link", "same_as"),
)


@cache
def _load() -> None:
    """Import every loss file once; importing registers it."""
    package = importlib.import_module("lossmith.losses")
    for module in pkgutil.walk_packages(package.__path__, "lossmith.losses."):
        importlib.import_module(module.name)


def cards() -> dict[str, Card]:
    """All cards by name: those of lossmith, and those of losses registered by the user."""
    _load()
    return dict(sorted(REGISTRY.items()))


def card(loss: str | Callable[..., Any]) -> Card:
    """The card of a loss, by name, alias, function, Module class or Module.

    Args:
        loss: The ending ``_loss`` may be left out of a name.

    Returns:
        The card.

    Raises:
        ValueError: If nothing of that name is registered; close names are suggested.

    Example:
        >>> import lossmith
        >>> lossmith.card("mse").name, lossmith.card("huber").name
        ('mse_loss', 'huber_loss')
    """
    if not isinstance(loss, str):
        found = getattr(loss, "card", None)
        if isinstance(found, property):  # a Module class
            found = getattr(getattr(loss, "function", None), "card", None)
        if isinstance(found, Card):
            return found
        return fail("loss", "be a loss registered with @lossmith.loss", loss)
    known = cards()
    if loss in known:
        return known[loss]
    for candidate in known.values():
        if loss in candidate.aliases:
            return candidate
    if f"{loss}_loss" in known:
        return known[f"{loss}_loss"]
    names = [*known, *(alias for one in known.values() for alias in one.aliases)]
    names += [name.removesuffix("_loss") for name in known]  # as short as what people type
    close = difflib.get_close_matches(loss.lower(), dict.fromkeys(names), 3)
    hint = f" (close: {', '.join(close)})" if close else ""
    return fail("loss", f"be a name in the catalogue{hint}", loss)


def find(**claims: Any) -> list[Card]:
    """Cards that meet every claim, sorted by name.

    Args:
        **claims: ``task`` matches any task of a loss; ``robust=True``, ``coupling="row"``,
            ``elicits="median"`` and the other claims of the card match by equality.

    Returns:
        The cards; empty if no loss meets every claim.

    Raises:
        ValueError: If a claim is unknown, or its word is not one that cards use.
        TypeError: If a claim that holds or does not is neither True nor False.

    Example:
        >>> import lossmith
        >>> "l1_loss" in [card.name for card in lossmith.find(task="regression", elicits="median")]
        True
    """
    for claim in claims:
        if claim not in CLAIMS:
            fail("claim", f"be one of {', '.join(CLAIMS)}", claim)
    for claim, words in (("task", Task), ("coupling", Coupling), ("link", Link)):
        if claim in claims and claims[claim] not in get_args(words):
            fail(claim, f"be one of {', '.join(get_args(words))}", claims[claim])
    for claim in FLAGS & claims.keys():
        if not isinstance(claims[claim], bool):
            fail_type(claim, "be True or False", claims[claim])
    elicited = sorted({one.elicits for one in cards().values() if one.elicits})
    if "elicits" in claims and claims["elicits"] not in (None, *elicited):
        fail("elicits", f"be one of {', '.join(elicited)}", claims["elicits"])
    task = claims.pop("task", None)
    return [
        one
        for one in cards().values()
        if (task is None or task in one.tasks)
        and all(getattr(one, claim) == value for claim, value in claims.items())
    ]


def to_json() -> str:
    """The whole catalogue as JSON."""
    return json.dumps([one.to_dict() for one in cards().values()], indent=2, ensure_ascii=False)
