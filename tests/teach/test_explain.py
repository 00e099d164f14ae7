"""An explanation shows the library's own value, and arithmetic that leads to it."""

import math
import sys
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

import lossmith
from lossmith.contract.cases import cases
from lossmith.core.loss import REGISTRY
from lossmith.core.module import Loss
from lossmith.teach import write
from lossmith.teach.explain import Explanation, explain
from lossmith.teach.trace import watch

ALL = [case for card in lossmith.cards().values() for case in cases(card)]


def section(explanation: Explanation, heading: str) -> dict[str, str]:
    return {line.left: line.right for line in dict(explanation.sections).get(heading, ())}


def arithmetic(text: str) -> float:
    """The number that a reader gets from the line."""
    return eval(text, {"sqrt": math.sqrt, "nan": math.nan, "inf": math.inf})


@pytest.mark.parametrize("case", ALL, ids=str)
def test_value_is_the_library_value_and_the_board_agrees(case) -> None:
    tensors = case.sample(N=2)
    options = case.options_like(tensors)
    explanation = explain(case.card.name, *tensors, **options)
    expected = case(*tensors)
    assert torch.equal(explanation.value, expected)
    ((name, shown),) = section(explanation, "Value").items()
    assert (name, shown) == (case.card.name, write.tensor(expected))
    reduction = section(explanation, "Reduction")["mean"]
    if "..." not in reduction:  # too many terms to write out
        # six digits are shown of each term; large terms of both signs may cancel
        tolerance = 1e-4 * max(1.0, abs(expected.item()))
        assert arithmetic(reduction) == pytest.approx(expected.item(), rel=1e-4, abs=tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reduction_of_weighted_losses_is_written_with_the_numbers(reduction: str) -> None:
    explanation = explain(
        "huber_loss",
        torch.tensor([0.5, -3.0]),
        torch.zeros(2),
        sample_weight=torch.tensor([1.0, 3.0]),
        reduction=reduction,
    )
    written = {
        "mean": {"mean": "(1 * 0.125 + 3 * 2.5) / (1 + 3)"},
        "sum": {"sum": "(1 * 0.125 + 3 * 2.5)"},
        "none": {"weight": "[1, 3]"},
    }
    assert section(explanation, "Reduction") == written[reduction]


def test_steps_are_the_statements_of_the_source() -> None:
    explanation = explain("huber_loss", torch.tensor([0.5, -3.0]), torch.zeros(2), delta=2.0)
    assert section(explanation, "Step by step") == {
        "residual = input - target": "[0.5, -3]",
        "pull = residual.clamp(-delta, delta)": "[0.5, -2]",
    }
    assert section(explanation, "Before the reduction") == {
        "pull * (residual - 0.5 * pull)": "[0.125, 4]"
    }


def test_given_shows_defaults_and_not_what_is_absent() -> None:
    explanation = explain("huber_loss", torch.tensor([1.0]), torch.tensor([0.0]))
    assert section(explanation, "Given") == {"input": "[1]", "target": "[0]", "delta": "1"}


def test_class_weights_and_sample_weights_multiply_in_the_divisor() -> None:
    explanation = explain(
        "cross_entropy",
        torch.tensor([[2.0, 0.0], [0.0, 5.0]]),
        torch.tensor([0, 1]),
        weight=torch.tensor([3.0, 1.0]),
        sample_weight=torch.tensor([2.0, 1.0]),
    )
    mean = section(explanation, "Reduction")["mean"]
    assert mean.endswith(" / (6 + 1)")
    assert arithmetic(mean) == pytest.approx(explanation.value.item(), rel=1e-4)


def test_random_draws_and_state_are_those_of_one_call() -> None:
    """The loss is run twice, for its value and for its steps; nobody may notice."""
    lossmith.cards()  # loaded before the patch, so that they stay when it is undone
    card = replace(lossmith.card("huber_loss"), options={}, variants=(), name="")
    with patch.dict(REGISTRY):

        @lossmith.loss(card)
        def noisy_loss(input, target, *, sample_weight=None, reduction="mean"):
            noise = torch.rand_like(input)
            return (input - target) * noise

        class NoisyLoss(Loss):
            function = staticmethod(noisy_loss)
            calls = 0

            def forward(self, *tensors, **named):
                self.calls += 1
                return super().forward(*tensors, **named)

        torch.manual_seed(0)
        module = NoisyLoss()
        explanation = explain(module, torch.ones(1), torch.zeros(1))
        following = torch.rand(1)
    assert module.calls == 1
    assert section(explanation, "Step by step") == {
        "noise = torch.rand_like(input)": write.tensor(explanation.value.view(1))
    }
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1)[0], explanation.value)
    assert torch.equal(torch.rand(1), following)


def test_ignored_rows_have_weight_zero() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    explanation = explain("cross_entropy", logits, torch.tensor([0, -100]))
    mean = section(explanation, "Reduction")["mean"]
    assert mean.startswith("(1 * 0.126928 + 0 * ")
    assert mean.endswith("/ (1 + 0)")


def test_nothing_to_average_is_zero() -> None:
    explanation = explain("huber_loss", torch.ones(2), torch.zeros(2), sample_weight=torch.zeros(2))
    assert section(explanation, "Reduction") == {"mean": "(0 * 0 + 0 * 0) / 1"}
    assert explanation.value == 0


def test_module_and_name_and_function_say_the_same() -> None:
    tensors = torch.tensor([0.5, 3.0]), torch.zeros(2)
    by_module = explain(lossmith.HuberLoss(delta=0.25, reduction="sum"), *tensors)
    by_name = explain("huber_loss", *tensors, delta=0.25, reduction="sum")
    by_function = explain(lossmith.huber_loss, *tensors, delta=0.25, reduction="sum")
    assert str(by_module) == str(by_name) == str(by_function)


def test_sum_of_losses_shows_parts_and_scales() -> None:
    loss = lossmith.HuberLoss() + 0.5 * lossmith.HuberLoss(delta=2.0)
    explanation = explain(loss, torch.tensor([3.0]), torch.tensor([0.0]))
    assert section(explanation, "Sum") == {"(1 * 2.5 + 0.5 * 4)": "4.5"}
    assert explanation.value.item() == 4.5


def test_large_tensors_are_shortened() -> None:
    explanation = explain("huber_loss", torch.linspace(0, 1, 1000), torch.zeros(1000))
    assert section(explanation, "Given")["input"] == "0, ..., 1: shape (1000,), from 0 to 1"
    assert section(explanation, "Reduction")["mean"].endswith(" + ... + 0.5) / 1000")


def test_markdown_holds_the_formula_and_every_line() -> None:
    explanation = explain("huber_loss", torch.tensor([0.5]), torch.tensor([0.0]))
    page = explanation.markdown()
    assert f"$${lossmith.card('huber_loss').formula}$$" in page
    for _, lines in explanation.sections:
        for line in lines:
            assert f"- `{line.left}` = `{line.right}`" in page
    assert explanation._repr_markdown_() == page


def test_errors_are_those_of_the_loss() -> None:
    with pytest.raises(ValueError, match=r"delta must be > 0, got -1\.0"):
        explain("huber_loss", torch.zeros(1), torch.zeros(1), delta=-1.0)
    with pytest.raises(ValueError, match=r"loss must be a name in the catalogue \(close: huber"):
        explain("hubber_loss", torch.zeros(1), torch.zeros(1))


def test_neither_the_random_state_nor_an_outer_tracer_is_moved() -> None:
    before, tracer = torch.random.get_rng_state(), sys.gettrace()
    seen: list[str] = []

    def outer(frame, event, argument):
        seen.append(event)

    sys.settrace(outer)
    try:
        explain("huber_loss", torch.zeros(1), torch.zeros(1))
        kept = sys.gettrace()
    finally:
        sys.settrace(tracer)
    assert kept is outer
    assert torch.equal(torch.random.get_rng_state(), before)


def body(x, n):
    total = torch.zeros(())
    for i in range(n):
        total = total + helper(x, i)
    total += 1.0
    return total * 2.0


def helper(x, i):
    part = x * i
    return part + 0


def test_trace_sees_loops_helpers_and_changes_in_place() -> None:
    trace = watch(body, lambda: body(torch.tensor(3.0), 3))
    found = [
        (step.inside, step.source, [v.item() for v in step.values.values()]) for step in trace.steps
    ]
    assert found == [
        ("", "total = torch.zeros(())", [0.0]),
        ("helper", "part = x * i", [0.0]),
        ("", "total = total + helper(x, i)", [0.0]),
        ("helper", "part = x * i", [3.0]),
        ("", "total = total + helper(x, i)", [3.0]),
        ("helper", "part = x * i", [6.0]),
        ("", "total = total + helper(x, i)", [9.0]),
        ("", "total += 1.0", [10.0]),
    ]
    assert trace.returned.item() == 20.0
    assert trace.expression == "total * 2.0"


def test_trace_of_a_call_that_skips_the_body_is_empty() -> None:
    assert not watch(body, lambda: helper(torch.tensor(3.0), 1)).captured
