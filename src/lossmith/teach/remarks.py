"""The single remarks behind :func:`lossmith.inspect`. None of them raises for bad data."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import ClassIndex, Domain, Interval, Labels, Simplex

# Thresholds. Each is a judgement; the number in the finding lets the reader make another.
SUM_TOLERANCE = 1e-2  # how far from 1 a row of probabilities may add up, bfloat16 included
COMMON_CLASS = 0.9  # share of the most frequent class from which guessing it always looks good
COLUMN_SHARE = 0.9  # share of the loss in one output column that leaves nothing for the others
OFF_SCALE = 10.0  # typical residual in standard deviations of the target; the mean alone has 1
FAR_SCALE = 1000.0  # spread of the target in spreads of the output: a bad start, not a bad fit
TOP_SHARE = 0.5  # share of the gradient in the largest 1 % of elements
FLAT_SHARE = 0.9  # share of elements without any gradient
FEWEST = 20  # elements below which a share says nothing
FEWEST_FOR_TOP = 100  # elements from which 1 % is at least one element

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Finding:
    """One remark.

    Attributes:
        code: Short name, for programs.
        sentence: What was seen.
        number: The figure behind it.
        suggestion: What to do about it.
    """

    code: str
    sentence: str
    number: float
    suggestion: str

    def __str__(self) -> str:
        """One line."""
        return f"[{self.code}] {self.sentence} {self.suggestion}"


def about_tensors(card: Card, given: Tensors, options: Mapping[str, Any]) -> Iterator[Finding]:
    """What the tensors alone show: shapes, broken numbers, and another way of writing."""
    yield from _broadcast(card, given)
    for name, tensor in given.items():
        yield from _broken(name, tensor)
        if name == card.tensors[0]:
            yield from _wrong_space(card, name, tensor)
        else:
            yield from _wrong_labels(card, name, given)
        yield from _outside(card, name, given, options)


def _broadcast(card: Card, given: Tensors) -> Iterator[Finding]:
    """Tensors that must have one shape and have two, which torch would broadcast."""
    alike = all(d.dims == ("*",) for way in card.signatures for d in way.tensors.values())
    (first, tensor), *rest = given.items()
    for name, other in rest if alike else []:
        try:
            shape = torch.broadcast_shapes(tensor.shape, other.shape)
        except RuntimeError:
            continue
        if tensor.shape != other.shape:
            yield Finding(
                "broadcast",
                f"{first} {tuple(tensor.shape)} and {name} {tuple(other.shape)} fit only by "
                f"broadcasting to {tuple(shape)}: elements that do not belong together would meet.",
                math.prod(shape),
                "Give both one shape, for example with squeeze(-1).",
            )


def _broken(name: str, tensor: Tensor) -> Iterator[Finding]:
    for code, bad in (("nan", tensor.isnan()), ("inf", tensor.isinf())):
        count = int(bad.sum())
        if count:
            yield Finding(
                code,
                f"{count} of {tensor.numel()} elements of {name} are {code}.",
                count,
                "Find the operation that makes them; sample_weight 0 leaves samples out.",
            )


def _wrong_space(card: Card, name: str, tensor: Tensor) -> Iterator[Finding]:
    """Probabilities for logits, or logits for log-probabilities."""
    domain = card.signatures[0].tensors[name]
    if not tensor.numel() or not tensor.ndim or not tensor.is_floating_point():
        return
    within = bool(((tensor >= 0) & (tensor <= 1)).all())
    dim = 1 if tensor.ndim > 1 else 0
    if domain.name == "real" and within and tensor.numel() > 1:
        off = float((tensor.float().sum(dim) - 1).abs().max())
        applied = {"softmax": off < SUM_TOLERANCE, "logit": True}.get(card.link, False)
        function = "softmax" if card.link == "softmax" else "sigmoid"
        if applied:
            yield Finding(
                "probabilities",
                f"{name} lies between {tensor.min():.3g} and {tensor.max():.3g} like probabilities,"
                f" but {card.name} takes logits: {function} would be applied twice.",
                float(tensor.max()),
                f"Remove the {function} at the end of the model.",
            )
    if isinstance(domain, Simplex) and domain.log:
        off = float((tensor.float().exp().sum(dim) - 1).abs().max())
        if not off < SUM_TOLERANCE:
            yield Finding(
                "not_log_probabilities",
                f"exp({name}) should add up to 1 along dimension {dim}, and is off by {off:.3g}.",
                off,
                "Apply lossmith.log_softmax to logits, or log to probabilities.",
            )


def _wrong_labels(card: Card, name: str, given: Tensors) -> Iterator[Finding]:
    """Labels in a format that another loss takes."""
    tensor, tensors = given[name], tuple(given.values())
    ways = [way for way in card.signatures if way.accepts(tensors)]
    ways = ways or [way for way in card.signatures if way.accepts(tensors, dtypes=False)]
    domains = [way.tensors[name] for way in ways or card.signatures]
    values = set(tensor.unique().tolist()) if tensor.numel() else set[float]()
    wanted = {domain.name for domain in domains}
    if wanted == {"sign"} and 0 in values and values <= {0, 1}:
        yield Finding(
            "zero_one_labels",
            f"{name} holds 0 and 1, but {card.name} takes -1 and 1.",
            float((tensor == 0).sum()),
            "Convert with lossmith.targets.signs.",
        )
    if wanted <= {"binary", "unit"} and -1 in values and values <= {-1, 1}:
        yield Finding(
            "sign_labels",
            f"{name} holds -1 and 1, but {card.name} takes 0 and 1.",
            float((tensor == -1).sum()),
            "Convert with lossmith.targets.zero_one.",
        )
    if not all(isinstance(domain, ClassIndex) for domain in domains):
        return
    if tensor.ndim > 1 and values <= {0, 1} and bool(((tensor == 1).sum(1) == 1).all()):
        yield Finding(
            "one_hot",
            f"{name} holds one-hot rows, but {card.name} takes class indices.",
            tensor.shape[1],
            "Convert with lossmith.targets.class_index.",
        )
    elif tensor.is_floating_point():
        yield Finding(
            "float_labels",
            f"{name} is of {tensor.dtype}, but {card.name} takes class indices.",
            len(values),
            "Convert with .long().",
        )


def _outside(
    card: Card, name: str, given: Tensors, options: Mapping[str, Any]
) -> Iterator[Finding]:
    """Values that no way of calling the loss allows."""
    tensor = given[name]
    tensor = tensor[tensor.isfinite()]
    masks = [_stray(way.tensors[name], tensor, card, given) for way in card.signatures]
    if not masks or any(mask is None or not mask.any() for mask in masks):
        return
    mask = min((mask for mask in masks if mask is not None), key=lambda m: int(m.sum()))
    if any(isinstance(way.tensors[name], ClassIndex) for way in card.signatures):
        mask = mask & (tensor != options.get("ignore_index", -100))
    count = int(mask.sum())
    if count:
        rule = card.signatures[0].tensors[name].rule
        strangers = tensor[mask]
        worst = float(strangers[strangers.abs().argmax()])
        yield Finding(
            "outside",
            f"{count} of {given[name].numel()} elements of {name} are refused: it must {rule}, and "
            f"holds {worst:.6g}.",
            count,
            "Convert the values, or find a loss for them with lossmith.find.",
        )


def _stray(domain: Domain, tensor: Tensor, card: Card, given: Tensors) -> Tensor | None:
    """Which elements lie outside; None if the domain has no bounds or they are not known."""
    if isinstance(domain, Interval) and domain.checks_values:
        low = tensor <= domain.low if domain.low_open else tensor < domain.low
        high = tensor >= domain.high if domain.high_open else tensor > domain.high
        return low | high
    if isinstance(domain, Labels):
        return ~torch.isin(tensor, torch.tensor(domain.values, dtype=tensor.dtype))
    if isinstance(domain, ClassIndex):
        for way in card.signatures:
            tensors = tuple(given.values())
            first = way.tensors[card.tensors[0]]
            if way.accepts(tensors) and domain.classes in first.dims:
                position = first.dims.index(domain.classes)
                return (tensor < 0) | (tensor >= tensors[0].shape[position])
    return None


def about_balance(card: Card, given: Tensors, options: Mapping[str, Any]) -> Iterator[Finding]:
    """One class, one column or one scale that outweighs the rest."""
    for name in card.tensors[1:]:
        yield from _common_class(card, name, given[name], options)
    input, target = given[card.tensors[0]], given[card.tensors[-1]]
    if not (card.coupling == "element" and input.shape == target.shape and len(given) == 2):
        return
    if card.link == "identity":
        yield from _scale(input, target)
    if input.ndim > 1 and input.shape[-1] > 1:
        yield from _column(card, (input, target), options)


def _common_class(
    card: Card, name: str, labels: Tensor, options: Mapping[str, Any]
) -> Iterator[Finding]:
    classes = {"class", "binary", "sign", "unit"}
    if not any(way.tensors[name].name in classes for way in card.signatures):
        return
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        return
    labels = labels[labels != options.get("ignore_index", -100)]
    if labels.numel() < FEWEST:
        return
    values, counts = labels.unique(return_counts=True)
    share = float(counts.max()) / labels.numel()
    if share >= COMMON_CLASS:
        yield Finding(
            "imbalance",
            f"{share:.1%} of {name} is {values[counts.argmax()].item():g}: a model that says so "
            "always has a small loss.",
            share,
            "Weigh the classes, try a focal loss, and judge by a metric that counts each class.",
        )


def _scale(input: Tensor, target: Tensor) -> Iterator[Finding]:
    if target.numel() < FEWEST:
        return
    spread = float(target.double().std())
    typical = float((input.double() - target.double()).square().mean().sqrt())
    if spread > 0 and typical / spread > OFF_SCALE:
        yield Finding(
            "scale",
            f"A typical residual is {typical:.3g}, {typical / spread:.3g} times the standard "
            f"deviation of the target: predicting the mean would leave 1.",
            typical / spread,
            "Standardise the target, or start the bias of the last layer at its mean.",
        )
    own = float(input.double().std())
    if own > 0 and spread / own > FAR_SCALE:
        yield Finding(
            "scale",
            f"The target has the standard deviation {spread:.3g}, the output {own:.3g}: most steps "
            "of the training would go into this factor.",
            spread / own,
            "Standardise the target, and turn predictions back.",
        )


def _column(
    card: Card, tensors: tuple[Tensor, ...], options: Mapping[str, Any]
) -> Iterator[Finding]:
    assert card.function is not None
    try:
        values = card.function(*tensors, **{**options, "reduction": "none"})
    except (ValueError, TypeError, RuntimeError):
        return  # about_gradient says so
    by_column = values.double().abs().flatten(0, -2).sum(0)
    share = float(by_column.max() / by_column.sum())
    if share >= COLUMN_SHARE:
        yield Finding(
            "column",
            f"Output column {int(by_column.argmax())} makes up {share:.1%} of the loss; the other "
            f"{len(by_column) - 1} are hardly trained.",
            share,
            "Standardise each column of the target, or weigh the columns.",
        )


def about_gradient(
    call: Callable[..., Tensor], tensors: tuple[Tensor, ...], options: Mapping[str, Any]
) -> Iterator[Finding]:
    """Run the loss once and look at its value and where its gradient goes."""
    first = tensors[0].clone()
    if first.is_floating_point():
        first.requires_grad_()
    try:
        with torch.enable_grad():
            value = call(first, *tensors[1:], **options)
            if value.requires_grad and value.numel():
                value.sum().backward()
    except (ValueError, TypeError, RuntimeError) as error:
        yield Finding("refused", f"The loss refuses this call: {error}.", 1, "See the message.")
        return
    if not bool(value.isfinite().all()):
        yield Finding(
            "loss_not_finite",
            "The loss itself is not finite.",
            float((~value.isfinite()).sum()),
            "Look for NaN and inf in the tensors first.",
        )
        return
    yield from _where_the_pull_is(first.grad, value)


def _where_the_pull_is(gradient: Tensor | None, value: Tensor) -> Iterator[Finding]:
    size = torch.zeros(0) if gradient is None else gradient.double().abs().flatten()
    flat = float((size == 0).double().mean()) if size.numel() else 1.0
    if bool((value != 0).any()) and flat >= FLAT_SHARE and (size.numel() >= FEWEST or flat == 1.0):
        yield Finding(
            "flat",
            f"{flat:.1%} of the elements have gradient 0 although the loss is not 0.",
            flat,
            "They are satisfied, saturated or left out; if not wanted, use a loss with tails.",
        )
    total = float(size.sum())
    if size.numel() >= FEWEST_FOR_TOP and 0 < total < math.inf:
        share = float(size.topk(size.numel() // 100).values.sum()) / total
        if share >= TOP_SHARE:
            yield Finding(
                "concentrated",
                f"The largest 1 % of elements hold {share:.1%} of the gradient.",
                share,
                "If these are outliers, use a robust loss: lossmith.find(robust=True).",
            )
