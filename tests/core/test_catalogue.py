"""Finding losses by claims."""

import json

import pytest

import lossmith
from lossmith.core.catalogue import to_json


def test_names_aliases_functions_modules_and_classes_lead_to_one_card() -> None:
    for loss in (
        "cross_entropy",
        "ce",
        lossmith.cross_entropy,
        lossmith.CrossEntropyLoss,
        lossmith.CrossEntropyLoss(),
    ):
        assert lossmith.card(loss).name == "cross_entropy"


def test_find_filters_by_every_claim() -> None:
    found = lossmith.find(task="regression", coupling="element", robust=True)
    assert "huber_loss" in [card.name for card in found]
    assert all(card.robust and "regression" in card.tasks for card in found)
    assert "cross_entropy" not in [card.name for card in found]
    assert lossmith.find(task="regression", robust=True, coupling="path") == []


def test_unknown_claims_and_names_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"claim must be one of task, .*got 'colour'"):
        lossmith.find(colour="red")
    with pytest.raises(ValueError, match=r"close: huber_loss.*got 'hubber_loss'"):
        lossmith.card("hubber_loss")
    with pytest.raises(ValueError, match=r"loss must be a loss registered"):
        lossmith.card(print)


def test_claims_have_the_values_of_claims() -> None:
    with pytest.raises(TypeError, match="robust must be True or False, got str"):
        lossmith.find(robust="yes")
    with pytest.raises(ValueError, match=r"elicits must be one of .*mean.*, got 'men'"):
        lossmith.find(elicits="men")


def test_json_holds_every_card() -> None:
    rows = json.loads(to_json())
    assert [row["name"] for row in rows] == list(lossmith.cards())
    huber = next(row for row in rows if row["name"] == "huber_loss")
    assert huber["convex"] is True
    assert huber["shapes"] == ["input (*), target (*) -> (*)"]


def test_aliases_are_unique_and_no_alias_is_a_name() -> None:
    cards = lossmith.cards()
    aliases = [alias for card in cards.values() for alias in card.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(cards)
