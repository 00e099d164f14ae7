"""Every law on every registered loss; nothing here is written per loss."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossmith.contract.api import pairs as laws_and_cases
from lossmith.contract.cases import Case, cases
from lossmith.contract.registry import Check
from lossmith.core import route
from lossmith.core.card import Card
from lossmith.core.catalogue import cards
from lossmith.engines import blocks, in_cache, one_pass, pairs, passes
from lossmith.engines.choice import engine, explain_path
from lossmith.engines.rows import layout

ORACLES = Path(__file__).parents[1] / "oracles"
BY_HAND = {
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "soft_margin_loss",
}


def oracle(card: Card) -> Callable[..., Any] | None:
    """The independent truth of a loss that is not of the element kind."""
    path = ORACLES / f"{card.name}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"oracle_{card.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, card.name)


def own() -> list[Card]:
    return [c for c in cards().values() if c.function.__module__.startswith("lossmith.losses.")]


def concerns_engines(law: Check) -> bool:
    """What is refused is refused before an engine is asked, and no engine works inside a graph."""
    early = law.run.__module__.endswith(".errors") or law.name.startswith("compile")
    return not (early or law.once or law.slow)


def everything(*couplings: str, slow: bool = False) -> list[Any]:
    return [
        pytest.param(
            law, case, id=f"{law.name}-{case}", marks=[pytest.mark.slow] if law.slow or slow else []
        )
        for card in own()
        if not couplings or card.coupling in couplings
        for law, case in laws_and_cases(card, oracle(card), slow=True)
        if not couplings or concerns_engines(law)
    ]


@pytest.mark.parametrize(("law", "case"), everything())
def test_law(law: Check, case: Case) -> None:
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("element", "row", slow=True))
def test_law_in_blocks(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(blocks, "BLOCK", 8)  # several pieces of these small tensors
    monkeypatch.setattr(layout, "PER_THREAD", 8)
    with engine("blocks"):
        law.run(case)


def in_rows() -> list[Any]:
    """The laws of losses over a softmax, which have an engine of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "SMALL", 0)
        firsts = [next(cases(card)) for card in own() if card.coupling == "row"]
        served = {c.card.name for c in firsts if explain_path(c, *c.sample(0)).how == "rows"}
    return [each for each in everything("row", slow=True) if each.values[1].card.name in served]


@pytest.mark.parametrize(("law", "case"), in_rows())
def test_law_in_rows(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under "blocks" these losses take their engine too, with few classes: pieces are turned."""
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(layout, "PER_THREAD", 8)
    monkeypatch.setattr(layout, "LEAST", 1)
    monkeypatch.setattr(layout, "FEW", 0)
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("element", "row", slow=True))
def test_law_in_one_pass(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel as it is written; what Inductor makes of it is another test's affair."""
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(one_pass, "WORTH", 0)
    monkeypatch.setattr(one_pass, "_compiled", lambda kernel: kernel)
    with engine("one_pass"):
        law.run(case)


@pytest.mark.parametrize(
    ("law", "case"),
    [p for p in everything("element", "row", slow=True) if p.values[1].card.name in BY_HAND],
)
def test_law_in_cache(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulas that are written by hand, on tensors that are too small for them otherwise."""
    monkeypatch.setattr(in_cache, "SMALL", 0)
    monkeypatch.setattr(in_cache, "NARROW", 1)
    monkeypatch.setattr(in_cache, "BLOCK", 8)
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("pairs", slow=True))
def test_law_in_tiles(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: 2)  # of three rows or six
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("statistics", slow=True))
def test_law_in_two_passes(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(passes, "BLOCK", 12)  # several pieces of these small tensors
    law.run(case)


@pytest.mark.parametrize("card", own(), ids=lambda card: card.name)
def test_every_structured_loss_has_an_oracle(card: Card) -> None:
    assert card.coupling == "element" or oracle(card) is not None
