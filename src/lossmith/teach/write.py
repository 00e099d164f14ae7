"""Numbers and tensors as one writes them on a board."""

from collections.abc import Callable, Sequence

from torch import Tensor

# What fits on a line of 100 characters; longer tensors are shown by their ends and their range.
MOST_ELEMENTS = 24
MOST_TERMS = 6


def number(value: float | int | bool) -> str:
    """Six significant digits, without trailing zeros."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def tensor(value: Tensor) -> str:
    """All elements of a small tensor; shape and range of a large one."""
    if value.numel() <= MOST_ELEMENTS:
        return _nested(value.detach().cpu().tolist())
    ends = [number(end) for end in (value.flatten()[0].item(), value.flatten()[-1].item())]
    low, high = (number(end.item()) for end in value.detach().aminmax())
    return f"{ends[0]}, ..., {ends[1]}: shape {tuple(value.shape)}, from {low} to {high}"


def any_value(value: object) -> str:
    """A tensor, a number or an option."""
    if isinstance(value, Tensor):
        return tensor(value)
    return number(value) if isinstance(value, float) else getattr(value, "__name__", repr(value))


def total(terms: Sequence[str], factors: Sequence[str] | None = None) -> str:
    """``a + b + c``, or ``u * a + v * b`` with factors, in brackets; the middle may be left out."""
    parts = [_bracketed(term) for term in terms]
    if factors is not None:
        parts = [f"{factor} * {part}" for factor, part in zip(factors, parts, strict=True)]
    if len(parts) > MOST_TERMS:
        parts = [*parts[: MOST_TERMS - 2], "...", parts[-1]]
    return f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]


def numbers(value: Tensor) -> list[str]:
    """The elements one after the other."""
    return [number(element) for element in value.detach().cpu().flatten().tolist()]


def _bracketed(term: str) -> str:
    return f"({term})" if term.startswith("-") else term


def _nested(value: object) -> str:
    if isinstance(value, list):
        inner: Callable[[object], str] = _nested
        return f"[{', '.join(map(inner, value))}]"
    return number(value)  # type: ignore[arg-type]
