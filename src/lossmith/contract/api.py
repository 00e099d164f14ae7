"""``check_loss``: run the whole contract on one loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lossmith.contract import errors, limits, modules, options, reductions, transforms, values
from lossmith.contract.cases import Case, cases
from lossmith.contract.registry import CHECKS, Check
from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail_type
from lossmith.core.loss import loss as register

# The laws live in these modules; importing them fills the list.
LAWS = (values, limits, reductions, errors, options, transforms, modules)


class ContractError(AssertionError):
    """A loss breaks the contract; the message lists every broken law."""


@dataclass(frozen=True)
class Outcome:
    """One law on one case; ``reason`` is empty if the law holds."""

    check: str
    case: str
    reason: str


def pairs(
    card: Card, oracle: Callable[..., Any] | None = None, *, slow: bool = False
) -> Iterator[tuple[Check, Case]]:
    """Every law that applies to a loss, with every case that it applies to."""
    every = list(cases(card, oracle))
    for law in CHECKS:
        if law.slow and not slow:
            continue
        for case in every[:1] if law.once else every:
            if law.applies(case):
                yield law, case


def check_loss(
    loss: Any,
    card: Card | None = None,
    *,
    oracle: Callable[..., Any] | None = None,
    slow: bool = False,
) -> list[Outcome]:
    """Run the contract that lossmith's own losses pass on a loss of your own.

    Args:
        loss: A function registered with :func:`lossmith.loss`, its Module class, the name of a
            loss, or a plain function ``f(input, target, *, sample_weight=None, reduction="mean")``
            that returns unreduced values; a plain function needs ``card``.
        card: The claims about a plain function.
        oracle: Independent truth for a loss that is not of the element kind: takes nested lists
            of mpmath numbers, returns nested lists of the unreduced loss.
        slow: Also run laws that take seconds, such as compilation by Inductor.

    Returns:
        One outcome per law and case.

    Raises:
        ContractError: If a law is broken; the message lists each with its reason.
        TypeError: If a plain function comes without a card.

    Example:
        >>> import lossmith
        >>> outcomes = lossmith.check_loss("huber")
        >>> all(outcome.reason == "" for outcome in outcomes)
        True
    """
    if not isinstance(card, Card | None):
        fail_type("card", "be a Card or None", card)
    if card is not None:
        register(card)(loss)
        card = find_card(loss.__name__)
    elif callable(loss) and not isinstance(loss, str) and not hasattr(loss, "card"):
        raise TypeError("card must be given for a plain function, got None")
    else:
        card = find_card(loss)
    outcomes: list[Outcome] = []
    for law, case in pairs(card, oracle, slow=slow):
        try:
            law.run(case)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            outcomes.append(Outcome(law.name, str(case), reason))
        else:
            outcomes.append(Outcome(law.name, str(case), ""))
    broken = [outcome for outcome in outcomes if outcome.reason]
    if broken:
        lines = "\n".join(f"- {o.check} on {o.case}: {o.reason}" for o in broken)
        raise ContractError(f"{card.name} breaks {len(broken)} of {len(outcomes)} laws:\n{lines}")
    return outcomes
