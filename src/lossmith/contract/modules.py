"""Laws about the Module form and about what a reader of the loss is told."""

import copy
import doctest
import inspect
import pickle
import re
from typing import Any

import torch

from lossmith.contract.cases import Case
from lossmith.contract.registry import check
from lossmith.core.module import MODULES, Loss

# One meaning per word, everywhere.
RESERVED = {
    "sample_weight", "weight", "ignore_index", "reduction", "dim", "delta", "gamma", "alpha",
    "temperature", "margin", "label_smoothing", "eps",
}  # fmt: skip
SECTIONS = ("Args", "Returns", "Raises", "Example")


def _module(case: Case) -> type[Loss] | None:
    return MODULES.get(case.card.name)


def fields_only(case: Case) -> bool:
    """Whether the loss has a Module whose constructor is made of its fields."""
    module = _module(case)
    return module is not None and "__init__" not in module.__dict__


def build(case: Case, dtype: torch.dtype = torch.float64) -> Loss:
    """The Module with the options of the case."""
    module = _module(case)
    assert module is not None
    return module(**case.options).to(dtype)


@check(fields_only)
def module_equals_function(case: Case) -> None:
    """Same options, same bits."""
    tensors = case.sample(80)
    assert torch.equal(build(case)(*tensors), case(*tensors))


@check(fields_only, once=True)
def module_fields_are_the_keywords(case: Case) -> None:
    """Same names, same defaults."""
    assert case.card.function is not None
    module = _module(case)
    assert module is not None
    parameters = inspect.signature(case.card.function).parameters
    keywords = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != "sample_weight"
    }
    assert module.fields == keywords, f"fields {module.fields}, keywords {keywords}"


@check()
def defaults_may_be_named(case: Case) -> None:
    """A call that names every option, and that of a Module, goes the way of one that names none."""
    assert case.card.function is not None
    parameters = inspect.signature(case.card.function).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    tensors = case.sample(82, torch.float32, grad=True)
    expected = case(*tensors)
    ways = [case(*tensors, **{k: v for k, v in keywords.items() if k not in case.options})]
    if fields_only(case):
        ways.append(build(case, torch.float32)(*tensors))
    for value in ways:
        assert torch.equal(value, expected)
        assert type(value.grad_fn) is type(expected.grad_fn), f"{value.grad_fn}"


@check(fields_only)
def module_compiles_to_one_graph(case: Case) -> None:
    """``torch.compile(fullgraph=True)`` of the Module, in a step that keeps a log besides."""
    torch._dynamo.reset()
    module, tensors, log = build(case), case.sample(83), {}

    def step(*tensors: torch.Tensor) -> torch.Tensor:
        log["seen"] = tensors[0].shape[0]
        return module(*tensors)

    found = torch.compile(step, fullgraph=True, backend="eager")(*tensors)
    torch.testing.assert_close(found, module(*tensors), equal_nan=True)


@check(fields_only)
def module_survives_pickle_copy_and_state_dict(case: Case) -> None:
    """pickle, deepcopy, state_dict, dtype moves; no parameters; a repr that can be typed."""
    module, tensors = build(case), case.sample(81)
    expected = module(*tensors)
    again: Any
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(again(*tensors), expected)
        assert repr(again) == repr(module)
    fresh = build(case)
    fresh.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(fresh(*tensors), expected)
    assert not list(module.parameters()), "a loss of fields adds no parameters"
    assert module.half()(*case.sample(81, torch.float16)).dtype is torch.float16
    for name in type(module).fields:
        assert name in repr(module), f"repr {module!r} lacks {name}"


@check(fields_only, once=True)
def module_refuses_unknown_fields(case: Case) -> None:
    """A typing error in the constructor is an error."""
    module = _module(case)
    assert module is not None
    try:
        module(no_such_option=1)
    except TypeError as error:
        message = str(error)
    else:
        raise AssertionError(f"{module.__name__}(no_such_option=1) was accepted")
    assert "no_such_option" in message, f"the message does not name the option: {message}"


@check(once=True)
def card_is_complete(case: Case) -> None:
    """Advice in one line, a formula, a source with a year, variants that vary every option."""
    card = case.card
    for advice in (card.use_when, card.avoid_when):
        assert advice, "advice is missing"
        assert len(advice) <= 90, f"advice is longer than 90 characters: {advice!r}"
        for library in ("torch", "keras", "sklearn", "scikit"):
            assert library not in advice.lower(), f"advice names a library: {advice!r}"
    assert card.formula.strip()
    assert re.search(r"\b(1[789]|20)\d\d\b", card.source), f"source without a year: {card.source!r}"
    for identifier in re.findall(r"doi:(\S+?)(?:[;,]|$)", card.source):
        assert re.fullmatch(r"10\.\d{4,9}/\S+", identifier), f"not a DOI: {identifier}"
    for identifier in re.findall(r"arXiv:(\S+?)(?:[;,]|$)", card.source):
        assert re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", identifier), f"not arXiv: {identifier}"
    if card.coupling == "element":
        assert card.exact is not None, "an element loss needs `exact`"
        assert len(card.points) >= 3, "an element loss needs three points"


@check(once=True)
def docstring_is_complete(case: Case) -> None:
    """One line, sections in order, every parameter described, an example that runs."""
    function = case.card.function
    assert function is not None
    text = inspect.getdoc(function) or ""
    summary = text.split("\n", 1)[0]
    assert summary, "no docstring"
    assert len(summary) <= 80, f"summary is longer than 80 characters: {summary!r}"
    assert not summary.lower().startswith(("this function", "computes", "compute "))
    places = [text.find(f"\n{section}:") for section in SECTIONS]
    assert all(place > 0 for place in places), f"sections {SECTIONS} are not all there"
    assert places == sorted(places), f"sections are not in the order {SECTIONS}"
    described = text[places[0] : places[1]]
    for name in inspect.signature(function).parameters:
        assert f"\n    {name}: " in described, f"Args does not describe {name}"
    assert "+SKIP" not in text
    own = dict(getattr(inspect.unwrap(function), "__globals__", {}))  # as doctest itself has it
    examples = doctest.DocTestParser().get_doctest(text, own, case.card.name, None, 0)
    assert examples.examples, "no example"
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(examples, out=report.append)
    assert not runner.failures, "the example fails:\n" + "".join(report)


@check(once=True)
def names_follow_the_rules(case: Case) -> None:
    """``x_loss`` / ``XLoss`` (torch's own names excepted), documented Module, known words."""
    function, module = case.card.function, _module(case)
    assert function is not None
    torchs = hasattr(torch.nn.functional, case.card.name)
    name = case.card.name
    free = torchs or name in {"entropy", "js_div"}
    assert free or name.endswith("_loss"), f"{name} does not end in _loss"
    if module is not None:
        assert module.__name__.endswith("Loss")
        assert module.__doc__, f"{module.__name__} has no docstring"
    close = {"smoothing": "label_smoothing", "tau": "temperature", "epsilon": "eps", "m": "margin",
             "sample_weights": "sample_weight", "weights": "weight", "axis": "dim"}  # fmt: skip
    for word in inspect.signature(function).parameters:
        assert word not in close, f"{word} must be called {close.get(word)}"
