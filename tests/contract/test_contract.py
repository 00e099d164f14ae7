"""Every law on every registered loss; nothing here is written per loss."""

import importlib.util
import os
import subprocess
import sys
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
from lossmith.engines import blocks, ctc, eligible, in_cache, one_pass, pairs, passes
from lossmith.engines.choice import engine, explain_path
from lossmith.engines.rows import layout

CROWD = "half_precision_sums_do_not_overflow"  # the one law with many samples
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


def concerns_engines(law: Check, case: Case) -> bool:
    """Whether a law is worth running with an engine forced.

    What is refused is refused before an engine is asked, and no engine works inside a graph. How
    transforms, layouts and modules go with an engine does not depend on the options.
    """
    _, _, group = law.run.__module__.rpartition(".")
    early = group == "errors" or law.name.startswith("compile") or law.once or law.slow
    of_options = group in ("values", "limits", "options", "reductions") and law.name != CROWD
    return not early and (of_options or not case.options)


def takes_seconds(law: Check, case: Case) -> bool:
    """Compilers do; their default options are tried with every fast run."""
    return law.slow or (law.name == "compiles_to_one_graph" and bool(case.options))


def everything(*couplings: str, slow: bool = False) -> list[Any]:
    return [
        pytest.param(
            law,
            case,
            id=f"{law.name}-{case}",
            marks=[pytest.mark.slow] if slow or takes_seconds(law, case) else [],
        )
        for card in own()
        if not couplings or card.coupling in couplings
        for law, case in laws_and_cases(card, oracle(card), slow=True)
        if not couplings or concerns_engines(law, case)
    ]


@pytest.mark.parametrize(("law", "case"), everything())
def test_law(law: Check, case: Case) -> None:
    law.run(case)


def piece_of(law: Check) -> int:
    """Elements of a piece: several of these small tensors, and not too many of a large one."""
    return 4096 if law.name == CROWD else 8


def served_by_rows() -> set[str]:
    """The losses over a softmax that have the engine of rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "SMALL", 0)
        firsts = [next(cases(card)) for card in own() if card.coupling == "row"]
        return {c.card.name for c in firsts if explain_path(c, *c.sample(0)).how == "rows"}


IN_ROWS = served_by_rows()
SEPARATE = everything("element", "row", slow=True)
GENERIC = [each for each in SEPARATE if each.values[1].card.name not in IN_ROWS]


@pytest.mark.parametrize(("law", "case"), GENERIC)
def test_law_in_blocks(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(blocks, "BLOCK", piece_of(law))
    with engine("blocks"):
        law.run(case)


@pytest.mark.parametrize(("law", "case"), GENERIC)
def test_law_in_one_pass(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel as it is written; what Inductor makes of it is another test's affair."""
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(one_pass, "WORTH", 0)
    monkeypatch.setattr(one_pass, "_compiled", lambda kernel: kernel)
    with engine("one_pass"):
        law.run(case)


@pytest.mark.parametrize("few", [0, layout.FEW], ids=["as they are", "turned"])
@pytest.mark.parametrize(
    ("law", "case"), [each for each in SEPARATE if each.values[1].card.name in IN_ROWS]
)
def test_law_in_rows(law: Check, case: Case, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(layout, "PER_THREAD", piece_of(law))
    monkeypatch.setattr(layout, "LEAST", 1)
    monkeypatch.setattr(layout, "FEW", few)
    with engine("blocks"):  # which leaves them to their own, and no torch kernel takes few logits
        law.run(case)


@pytest.mark.parametrize(
    ("law", "case"), [each for each in SEPARATE if each.values[1].card.name in BY_HAND]
)
def test_law_in_cache(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulas that are written by hand, on tensors that are too small for them otherwise."""
    monkeypatch.setattr(in_cache, "SMALL", 0)
    monkeypatch.setattr(in_cache, "NARROW", 1)
    monkeypatch.setattr(in_cache, "BLOCK", piece_of(law))
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("pairs", slow=True))
def test_law_in_tiles(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: 2)  # of three rows or six
    law.run(case)


@pytest.mark.parametrize(("law", "case"), everything("statistics", slow=True))
def test_law_in_two_passes(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(passes, "BLOCK", piece_of(law))
    law.run(case)


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not chosen")
# the interpreter's numpy warns of what lanes without an element hold
numb = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process with the interpreter")
def test_laws_by_triton_in_the_interpreter() -> None:
    """It has to be chosen before Triton is imported, and then holds for the process."""
    pytest.importorskip("triton", reason="Triton is not installed")
    chosen = ["-q", "-p", "no:cacheprovider", "-m", "slow", "-k", "test_law_by_triton"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen, __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def by_triton() -> list[Any]:
    """All but the law with many samples, for which the interpreter takes a minute each."""
    served = everything("statistics", "pairs", slow=True)
    served += [each for each in SEPARATE if each.values[1].card.name in IN_ROWS]
    paths = everything("path", slow=True)
    served += [each for each in paths if each.values[1].card.name.startswith("ctc")]
    return [each for each in served if each.values[0].name != CROWD]


@numb
@interpreted
@pytest.mark.parametrize(("law", "case"), by_triton())
def test_law_by_triton(law: Check, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eligible, "TRITON", {"cpu"})
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(ctc, "_few", lambda batch: False)
    monkeypatch.setattr(ctc, "_by_walk", ctc._by_logarithms)
    with engine("blocks"):
        law.run(case)


@pytest.mark.parametrize("card", own(), ids=lambda card: card.name)
def test_every_structured_loss_has_an_oracle(card: Card) -> None:
    assert card.coupling == "element" or oracle(card) is not None
