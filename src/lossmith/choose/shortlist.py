"""Which losses can serve the data: candidates and refusals, each with its reason from the card."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.errors import DataError, OutsideDomain
from lossmith.choose.findings import TASKS
from lossmith.choose.messages import advice, join, messages, say, worded
from lossmith.choose.metric import AMOUNTS, Metric
from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.catalogue import cards
from lossmith.tabular.coding import Coding, Unfit, code_amounts, code_classes, encode

BASELINES = {
    "continuous": "mse_loss",
    "count": "mse_loss",
    "binary": "binary_cross_entropy_with_logits",
    "multiclass": "cross_entropy",
}
MOST_CANDIDATES = 8


@dataclass(frozen=True)
class Candidate:
    """A loss that enters the tournament.

    Attributes:
        name: Name in the catalogue.
        function: ``function(input, target, **options) -> scalar``.
        options: Options other than the defaults.
        coding: How the loss sees the target.
        link: How the raw output becomes a prediction, as the card says.
        width: Number of outputs of the network; 0 means one output without a class dimension.
        reasons: Why it was entered.
        agrees: Whether what the loss elicits is what the metric asks for.
        unit_free: Whether rescaling the residuals leaves the direction of the gradient alone.
        rowwise: Whether the mean loss of a batch is the plain mean of its rows' losses.
    """

    name: str
    function: Callable[..., Tensor]
    options: Mapping[str, Any]
    coding: Coding
    link: str
    width: int
    reasons: tuple[str, ...] = ()
    agrees: bool = False
    unit_free: bool = True
    rowwise: bool = False

    @property
    def label(self) -> str:
        """Name with the options that differ from the defaults."""
        inside = ", ".join(f"{key}={value:g}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name

    def code(self, target: NDArray[Any]) -> Tensor:
        """The target column in this loss's coding, before any standardising."""
        if self.coding in ("standard", "raw"):
            return torch.as_tensor(target, dtype=torch.float32)
        index = torch.as_tensor(target, dtype=torch.int64)
        return encode(index, self.coding, self.width)


@dataclass(frozen=True)
class Refusal:
    """A loss that does not enter, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Shortlist:
    """Candidates (the baseline first) and refusals."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]


def shortlist(
    diagnosis: Diagnosis, metric: Metric, losses: str | Sequence[str] = "auto"
) -> Shortlist:
    """Choose the losses that enter the tournament.

    Args:
        diagnosis: The data.
        metric: What they are judged by.
        losses: ``"auto"`` or names and aliases of the catalogue. The baseline is always added.

    Raises:
        DataError: If a name is unknown, or no requested loss fits the data.
    """
    baseline = BASELINES[diagnosis.kind]
    if losses == "auto":
        tasks = set(TASKS[diagnosis.kind])
        spoken = {name for finding in diagnosis.findings for name in finding.speaks_for}
        names = [n for n, one in cards().items() if tasks & set(one.tasks) or n in spoken]
    else:
        wanted = losses.split(",") if isinstance(losses, str) else losses
        if not isinstance(wanted, Sequence) or not all(isinstance(name, str) for name in wanted):
            raise DataError(f"losses must be 'auto' or names of losses, got {losses!r}")
        names = [_known(name.strip()).name for name in wanted]
    fit: list[Candidate] = []
    refusals: list[Refusal] = []
    for name in dict.fromkeys([baseline, *names]):
        try:
            candidate = _candidate(_known(name), diagnosis, metric)
            twin = _twin(candidate, fit, diagnosis)
            if twin is not None:
                raise Unfit(
                    "its gradient is that of {loss} up to one factor per batch", loss=twin.label
                )
            fit.append(candidate)
        except Unfit as reason:
            refusals.append(Refusal(name, worded(reason.template, **reason.values)))
    if not fit or fit[0].name != baseline:
        reason = next(refusal.reason for refusal in refusals if refusal.name == baseline)
        raise DataError(f"the baseline {baseline} must fit the data, but {reason}")
    asked = losses != "auto" and baseline in names
    if len(fit) == 1 and refusals and not asked:
        said = "; ".join(f"{refusal.name} refused: {refusal.reason}" for refusal in refusals)
        raise OutsideDomain(f"losses must name a loss that fits the data, got none ({said})")
    if losses == "auto":
        fit, left = _pick(fit, diagnosis)
        refusals += left
    return Shortlist(tuple(fit), tuple(refusals))


def _tasks(diagnosis: Diagnosis) -> set[str]:
    """Tasks of the catalogue that fit the target; probabilities are proportions as well."""
    return {*TASKS[diagnosis.kind], *(["binary"] if diagnosis.reading == "proportion" else [])}


def _known(name: str) -> Card:
    try:
        return find_card(name)
    except ValueError as error:
        raise DataError(str(error)) from None


def _candidate(card: Card, diagnosis: Diagnosis, metric: Metric) -> Candidate:
    if not set(card.tasks) & _tasks(diagnosis):
        tasks = join(card.tasks, "gap.and")
        raise Unfit(
            "it is for {tasks}, the target is {kind}",
            tasks=tasks,
            kind=say(f"kind.{diagnosis.kind}"),
        )
    if card.tensors != ("input", "target"):
        raise Unfit(
            "it takes {tensors}, not one output and one target", tensors=", ".join(card.tensors)
        )
    if card.coupling not in ("element", "row"):
        raise Unfit("it is one value of a whole batch, not one of each row")
    if not card.differentiable:
        raise Unfit("its gradient is 0 almost everywhere")
    assert card.function is not None
    for key, parameter in inspect.signature(card.function).parameters.items():
        if key not in card.tensors and parameter.default is inspect.Parameter.empty:
            raise Unfit("its option {name} has no default", name=key)
    coding, width = _coding(card, diagnosis)
    if diagnosis.kind in AMOUNTS and card.link not in ("identity", "log", "logit"):
        raise Unfit("its card names no way from the output to a prediction")
    probabilities = (width == 0 and card.link == "logit") or card.link == "softmax"
    scores_rows = metric.needs == "score" and len(diagnosis.classes) > 2
    if (metric.needs == "probability" or scores_rows) and not probabilities:
        raise Unfit(
            "{metric} needs probabilities and this loss gives scores only", metric=metric.name
        )
    options: dict[str, Any] = {}
    if metric.quantile is not None and "quantile" in card.options:
        options["quantile"] = metric.quantile
    agrees = (card.elicits or "").split(" ")[0] in metric.asks_for
    candidate = Candidate(
        name=card.name,
        function=card.function,
        options=options,
        coding=coding,
        link=card.link,
        width=width,
        reasons=_reasons(card, diagnosis, metric, agrees),
        agrees=agrees,
        rowwise=card.coupling in ("element", "row") and card.plain_mean,
    )
    direction, scaled = (_direction(candidate, diagnosis, unit) for unit in (1.0, 0.5))
    unit_free = coding != "standard" or torch.allclose(direction, scaled, atol=1e-6)
    return replace(candidate, unit_free=unit_free)


def _coding(card: Card, diagnosis: Diagnosis) -> tuple[Coding, int]:
    """How the loss sees the target, and the number of outputs it wants."""
    way = card.signatures[0]
    if diagnosis.kind in AMOUNTS:
        low, high = float(diagnosis.target.min()), float(diagnosis.target.max())
        return code_amounts(way, card.link, low, high), 0
    return code_classes(way, len(diagnosis.classes))


def _reasons(card: Card, diagnosis: Diagnosis, metric: Metric, agrees: bool) -> tuple[str, ...]:
    reasons: list[str] = []
    if card.name == BASELINES[diagnosis.kind]:
        reasons.append(say("reason.baseline"))
    if agrees:
        reasons.append(say("reason.asked", what=_functional(card.elicits), metric=metric.name))
    elif card.elicits and metric.asks_for:
        what, asked = _functional(card.elicits), _functional(metric.asks_for[0])
        reasons.append(say("reason.other", what=what, metric=metric.name, asked=asked))
    for key, names in (("reason.for", "speaks_for"), ("reason.against", "speaks_against")):
        reasons += [
            say(key, code=finding.code)
            for finding in diagnosis.findings
            if card.name in getattr(finding, names)
        ]
    return (*reasons, say("reason.use", text=advice(card.name, card.use_when)))


def _functional(elicits: str | None) -> str:
    key = f"functional.{elicits}"
    return say(key) if key in messages() else str(elicits)


def _direction(candidate: Candidate, diagnosis: Diagnosis, unit: float = 1.0) -> Tensor:
    """Unit vector along the gradient on a fixed probe; ``unit`` measures the residuals.

    Raises:
        Unfit: If the loss fails on targets of this kind.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(diagnosis.rows, (64,), generator=generator)
    target = candidate.code(diagnosis.target[rows.numpy()])
    if target.is_floating_point():
        target = target.double()
    if candidate.coding == "standard":
        target = (target - target.mean()) / target.std().clamp(min=1e-6) / unit
    shape = (64,) if candidate.width == 0 else (64, candidate.width)
    output = torch.randn(shape, generator=generator, dtype=torch.float64) / unit
    output.requires_grad_()
    try:
        value = candidate.function(output, target, **candidate.options)
        (gradient,) = torch.autograd.grad(value, output)
    except (ValueError, TypeError, RuntimeError) as error:
        raise Unfit("it fails on this target: {error}", error=str(error)) from None
    if not gradient.isfinite().all():
        raise Unfit("its gradient on this target is not finite")
    return gradient.flatten() / gradient.norm().clamp(min=1e-30)


def _twin(candidate: Candidate, others: list[Candidate], diagnosis: Diagnosis) -> Candidate | None:
    """A candidate with the same gradient up to a factor, which AdamW takes out."""
    mine = _direction(candidate, diagnosis)
    for other in others:
        same = (_way(other), other.width, other.link) == (
            _way(candidate),
            candidate.width,
            candidate.link,
        )
        if same and torch.allclose(mine, _direction(other, diagnosis), atol=1e-6):
            return other
    return None


def _way(candidate: Candidate) -> str:
    """How outputs become predictions; classes do so alike however their labels are coded."""
    return candidate.coding if candidate.coding in ("standard", "raw") else "class"


def _pick(fit: list[Candidate], diagnosis: Diagnosis) -> tuple[list[Candidate], list[Refusal]]:
    """The baseline and the most promising others, different in what they elicit."""
    baseline, *others = fit
    picked = [baseline]
    while others and len(picked) < MOST_CANDIDATES:
        best = max(others, key=lambda one: _promise(one, picked, diagnosis))
        others.remove(best)
        picked.append(best)
    reason = say("refuse.late", count=MOST_CANDIDATES)
    return picked, [Refusal(one.label, reason) for one in others]


def _promise(candidate: Candidate, picked: list[Candidate], diagnosis: Diagnosis) -> float:
    """Points: 3 for agreeing with the metric, 2 for each finding, minus 1 for each look-alike."""
    card = find_card(candidate.name)
    speaks = sum(candidate.name in finding.speaks_for for finding in diagnosis.findings)
    against = sum(candidate.name in finding.speaks_against for finding in diagnosis.findings)
    alike = sum(find_card(one.name).elicits == card.elicits for one in picked)
    return 3 * candidate.agrees + 2 * (speaks - against) - alike + (diagnosis.kind in card.tasks)
