"""The numeric options that shape a loss, and where to look for better values."""

import inspect
from collections.abc import Iterator

from lossmith.core.card import Card
from lossmith.core.domain import Interval
from lossmith.tabular.coding import unbounded

# Numerical safeguards are no shape of a loss.
SAFEGUARDS = {"eps", "log_zero", "smooth"}


def shaping(card: Card) -> Iterator[tuple[str, float, Interval]]:
    """Name, default and domain of each option that is a number and no safeguard.

    Example:
        >>> import lossmith
        >>> [(name, value) for name, value, _ in shaping(lossmith.card("huber"))]
        [('delta', 1.0)]
    """
    assert card.function is not None
    parameters = inspect.signature(card.function).parameters
    for name, domain in card.options.items():
        value = parameters[name].default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and isinstance(domain, Interval) and name not in SAFEGUARDS:
            yield name, float(value), domain


def span(value: float, domain: Interval) -> tuple[float, float, bool]:
    """Ends of a search around a default, and whether it is to be even in the logarithm.

    Example:
        >>> from lossmith.core.domain import POSITIVE
        >>> span(1.0, POSITIVE)
        (0.1, 10.0, True)
    """
    if domain.high <= 1:  # a share: a smoothing, an exponent q, a level
        ends = (0.0, 0.5) if value == 0 else (0.02, 0.98)
        return max(ends[0], domain.low), min(ends[1], domain.high), False
    if domain.low == 1 and value < 2:  # a power between 1 and 2
        return 1.05, 1.95, False
    if value > 0 and (domain.low >= 0 or unbounded(domain)):
        return max(value / 10, domain.low), min(value * 10, domain.high), True
    return max(value - 3, domain.low), min(value + 3, domain.high), False
