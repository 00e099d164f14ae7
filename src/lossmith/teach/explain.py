"""``explain``: how one number comes about, as a teacher writes it on the board."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.catalogue import card as card_of
from lossmith.core.module import Loss, Sum
from lossmith.core.reduction import Terms
from lossmith.teach import write
from lossmith.teach.trace import Trace, watch

# A dynamic program runs thousands of statements; its beginning is enough to follow it.
MOST_STEPS = 30


@dataclass(frozen=True)
class Line:
    """One line of an explanation: what is computed, and what comes out."""

    left: str
    right: str


@dataclass(frozen=True)
class Explanation:
    """A loss worked out step by step. Print it, or let a notebook show it.

    Attributes:
        title: Name of the loss.
        formula: LaTeX of the unreduced loss.
        sections: Headings with their lines.
        value: What the library returns for this call; the last line shows it.
    """

    title: str
    formula: str
    sections: tuple[tuple[str, tuple[Line, ...]], ...]
    value: Tensor

    def __str__(self) -> str:
        """Plain text."""
        text = [self.title, f"  {self.formula}"] if self.formula else [self.title]
        for heading, lines in self.sections:
            text += ["", heading]
            for line in lines:
                if len(line.left) + len(line.right) < 90:
                    text.append(f"  {line.left} = {line.right}")
                else:
                    text += [f"  {line.left}", f"    = {line.right}"]
        return "\n".join(text)

    def markdown(self) -> str:
        """Markdown with the formula as mathematics."""
        text = [f"### {self.title}"]
        if self.formula:
            text += ["", f"$${self.formula}$$"]
        for heading, lines in self.sections:
            text += ["", f"**{heading}**", ""]
            text += [f"- `{line.left}` = `{line.right}`" for line in lines]
        return "\n".join(text) + "\n"

    def _repr_markdown_(self) -> str:
        return self.markdown()


def explain(loss: str | Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Explanation:
    r"""Work out a loss in steps, with the numbers of this call put in.

    The steps are the statements of the loss's own source as they run, so a loss needs nothing
    written for it. The value is the one the library returns for this very call.

    Args:
        loss: A name of the catalogue, a function registered with ``@lossmith.loss``, a Module, or
            a sum of Modules.
        *tensors: The tensors of the call, ``(*)`` as the loss wants them.
        **options: The options of the call, ``sample_weight`` and ``reduction`` among them.

    Returns:
        The explanation; ``str()`` and ``.markdown()`` write it out, ``.value`` holds the result.

    Raises:
        ValueError: As the loss does, and if ``loss`` is not registered.
        TypeError: As the loss does.

    Example:
        >>> import torch, lossmith
        >>> print(lossmith.explain("huber_loss", torch.tensor([0.5, 3.0]), torch.zeros(2)))
        huber_loss
          \begin{cases}...\end{cases}
        <BLANKLINE>
        Given
          input = [0.5, 3]
          target = [0, 0]
          delta = 1
        <BLANKLINE>
        Step by step
          residual = input - target = [0.5, 3]
          pull = residual.clamp(-delta, delta) = [0.5, 1]
        <BLANKLINE>
        Before the reduction
          pull * (residual - 0.5 * pull) = [0.125, 2.5]
        <BLANKLINE>
        Reduction
          mean = (0.125 + 2.5) / 2
        <BLANKLINE>
        Value
          huber_loss = 1.3125
    """
    if isinstance(loss, Sum):
        return _explain_sum(loss, tensors, options)
    card = card_of(loss)
    call: Callable[..., Tensor] = loss if callable(loss) else _function(card)
    before = torch.random.get_rng_state()
    value = call(*tensors, **options)
    given = dict(zip(card.tensors, tensors, strict=False)) | options
    trace = _trace(card, call, given, before)
    word = str(options.get("reduction", getattr(loss, "reduction", "mean")))
    sections = [
        ("Given", _given(card, given, trace)),
        ("As probabilities", _probabilities(card, given)),
        ("Step by step", _steps(trace)),
        ("Before the reduction", _unreduced(trace)),
        ("Reduction", _reduction(trace, word, weighted="sample_weight" in options)),
        ("Value", [Line(card.name, write.tensor(value))]),
    ]
    kept = tuple((heading, tuple(lines)) for heading, lines in sections if lines)
    return Explanation(card.name, card.formula, kept, value)


def _function(card: Card) -> Callable[..., Tensor]:
    assert card.function is not None
    return card.function


def _explain_sum(loss: Sum, tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Explanation:
    """The parts one after the other, then their weighted sum."""
    value = loss(*tensors, **options)
    sections: list[tuple[str, tuple[Line, ...]]] = []
    results: list[str] = []
    for part in loss.parts:
        assert isinstance(part, Loss)
        explained = explain(part, *tensors, **options)
        sections += [(f"{explained.title}: {name}", lines) for name, lines in explained.sections]
        results.append(write.tensor(explained.value))
    scales = [write.number(float(scale)) for scale in loss.scales]
    sections.append(("Sum", (Line(write.total(results, scales), write.tensor(value)),)))
    return Explanation("sum of losses", "", tuple(sections), value)


def _trace(
    card: Card, call: Callable[..., Tensor], given: dict[str, Any], random_state: Tensor
) -> Trace:
    """Run the call again under watch; neither the loss's state nor the generator's is moved."""
    body = _function(card).__wrapped__  # type: ignore[attr-defined]
    call = copy.deepcopy(call)  # a function is its own copy
    options = {name: value for name, value in given.items() if name not in card.tensors}
    tensors = tuple(given[name] for name in card.tensors if name in given)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(random_state)
        trace = watch(body, lambda: call(*tensors, **options))
        if not trace.captured:
            # A native kernel served the call. Unit weights change nothing and need the plain body.
            way = card.match(tensors)
            ones = tensors[0].new_ones(way.out_shape(tensors, way.sizes(tensors)))
            trace = watch(body, lambda: call(*tensors, **options, sample_weight=ones))
    return trace


def _given(card: Card, given: dict[str, Any], trace: Trace) -> list[Line]:
    """The arguments as the caller wrote them, and what a Module or a default adds to them."""
    shown = {
        name: given.get(name, trace.arguments.get(name)) for name in (*card.tensors, *card.options)
    }
    shown["sample_weight"] = given.get("sample_weight")
    return [Line(name, write.any_value(v)) for name, v in shown.items() if v is not None]


def _probabilities(card: Card, given: dict[str, Any]) -> list[Line]:
    """What the scores stand for, and how much of it falls to the target."""
    name, last = card.tensors[0], card.tensors[-1]
    scores, target = given[name], given[last]
    if card.link == "logit":
        return [Line(f"sigmoid({name})", write.tensor(scores.sigmoid()))]
    if card.link != "softmax" or "C" not in card.signatures[0].tensors[name].dims:
        return []
    dim = min(1, scores.ndim - 1)
    shares = scores.softmax(dim)
    lines = [Line(f"softmax({name})", write.tensor(shares))]
    if target.is_floating_point() or not bool(((target >= 0) & (target < shares.shape[dim])).all()):
        return lines
    own = shares.gather(dim, target.long().unsqueeze(dim)).squeeze(dim)
    return [*lines, Line(f"softmax({name}) at {last}", write.tensor(own))]


def _steps(trace: Trace) -> list[Line]:
    """Each statement that bound a tensor or a number, with what it bound."""
    lines: list[Line] = []
    for step in trace.steps[:MOST_STEPS]:
        where = f"in {step.inside.removeprefix('_')}: " if step.inside else ""
        shown = ", ".join(write.any_value(value) for value in step.values.values())
        lines.append(Line(where + (step.source or ", ".join(step.values)), shown))
    left = len(trace.steps) - MOST_STEPS
    return [*lines, Line(f"{left} more steps", "...")] if left > 0 else lines


def _unreduced(trace: Trace) -> list[Line]:
    """The loss of each element, row or sample, as the body returned it."""
    if not isinstance(trace.returned, Terms):
        return [Line(trace.expression or "loss", write.tensor(trace.returned))]
    parts = {
        "loss": trace.returned.loss,
        "what the mean divides by": trace.returned.normaliser,
        "what the mean is taken of": trace.returned.mean_of,
    }
    return [Line(name, write.tensor(part)) for name, part in parts.items() if part is not None]


def _reduction(trace: Trace, word: str, *, weighted: bool) -> list[Line]:
    """The reduction with the numbers put in, by the rules of :mod:`lossmith.core.reduction`."""
    terms = trace.returned if isinstance(trace.returned, Terms) else Terms(trace.returned)
    weight: Tensor | None = trace.arguments.get("sample_weight")
    if weight is not None and not weighted and bool((weight == 1).all()):
        weight = None
    values = terms.mean_of if word == "mean" and terms.mean_of is not None else terms.loss
    factors = None if weight is None else write.numbers(weight)
    if word == "none":
        return [] if weight is None else [Line("weight", write.tensor(weight))]
    upper = write.total(write.numbers(values), factors) if values.numel() else "0"
    if word == "sum":
        text = upper
    elif word == "batchmean":
        text = f"{upper} / {max(values.shape[0], 1) if values.ndim else 1}"
    else:
        text = f"{upper} / {_divisor(terms, weight, values)}"
    return [Line(word, f"sqrt({text})" if terms.root else text)]


def _divisor(terms: Terms, weight: Tensor | None, values: Tensor) -> str:
    """What the mean divides by: a count, or the sum of weights and normalisers; 1 if that is 0."""
    if terms.normaliser is not None:
        parts = terms.normaliser if weight is None else terms.normaliser * weight
    elif weight is not None:
        parts = weight
    else:
        return str(max(values.numel(), 1))
    return write.total(write.numbers(parts)) if bool(parts.sum() != 0) else "1"
