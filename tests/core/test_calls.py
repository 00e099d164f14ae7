"""What a call refuses, and what it makes of tensors where a number is expected."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import lossmith as lm
from lossmith.core.domain import Interval, Optional
from lossmith.core.loss import REGISTRY

X, Y = torch.zeros(3, 2), torch.ones(3, 2) * 2
CLASSES = torch.tensor([0, 1, 1])


def numbers() -> list[tuple[str, str]]:
    """Options that are one number, by the name of their loss."""
    found = []
    for name, card in lm.cards().items():
        for option, rule in card.options.items():
            inner = rule.rule if isinstance(rule, Optional) else rule
            if isinstance(inner, Interval) and not inner.several:
                found.append((name, option))
    return found


@pytest.mark.parametrize(("name", "option"), numbers())
def test_no_option_that_is_a_number_spreads_the_loss(name: str, option: str) -> None:
    """Broadcast against the loss it would give other values, silently, and of another shape."""
    with pytest.raises(ValueError, match=f"{option} must be a number or have one element, got"):
        REGISTRY[name].options[option].check_option(option, torch.full((4, 1, 1), 0.5))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_a_tensor_of_one_element_is_a_number(shape: tuple[int, ...]) -> None:
    delta = torch.full(shape, 0.5, requires_grad=True)
    value = lm.huber_loss(X, Y, delta=delta, reduction="none")
    assert value.shape == X.shape
    assert torch.equal(value, lm.huber_loss(X, Y, delta=0.5, reduction="none"))
    assert torch.autograd.grad(value.sum(), delta)[0].shape == shape
    assert lm.huber_loss(X[0, 0], Y[0, 0], delta=delta, reduction="none").shape == ()


def test_several_are_refused_in_the_call_and_in_the_module() -> None:
    several = torch.ones(4, 1, 1)
    for call in (
        lambda: lm.huber_loss(X, Y, delta=several),
        lambda: lm.HuberLoss(delta=several),
        lambda: lm.HuberLoss()(X, Y, delta=several),
    ):
        with pytest.raises(ValueError, match="delta must be a number or have one element"):
            call()
    with pytest.raises(ValueError, match="p must be one of 1, 2, got a tensor of shape"):
        lm.multi_margin_loss(X, CLASSES, p=several)


def test_where_an_infinite_number_has_a_meaning_it_is_taken() -> None:
    """The limit of the formula, as torch gives it; elsewhere it would be NaN for finite input."""
    expected = {("barron_loss", "alpha"), ("huber_loss", "delta"), ("triplet_margin_loss", "p")}
    endless = {
        (name, option)
        for name, card in lm.cards().items()
        for option, rule in card.options.items()
        if isinstance(rule, Interval) and rule.endless
    }
    assert endless == expected
    assert torch.equal(lm.huber_loss(X, Y, delta=math.inf), 0.5 * lm.mse_loss(X, Y))
    with pytest.raises(ValueError, match="delta must be > 0 and finite, got inf"):
        lm.pseudo_huber_loss(X, Y, delta=math.inf)
    with pytest.raises(ValueError, match="bias must be real and finite, got -inf"):
        lm.siglip_loss(X, X, bias=-math.inf)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.array])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    """In the call, in the Module and as a factor; an array of several is none."""
    x = torch.tensor([0.5, -3.0], requires_grad=True)
    y, two = torch.zeros(2), kind(2)
    expected = lm.huber_loss(x, y, delta=2.0)
    for _ in range(2):
        assert torch.equal(lm.huber_loss(x, y, delta=two), expected)
    module = lm.HuberLoss(delta=two)
    assert type(module.delta) in (int, float)
    assert torch.equal(module(x, y), expected)
    assert torch.equal((module * two)(x, y), 2 * expected)
    assert torch.equal((two * module)(x, y), 2 * expected)
    with pytest.raises(ValueError, match="delta must be > 0, got -2"):
        lm.huber_loss(x, y, delta=-two)
    with pytest.raises(TypeError, match="delta must be a number, got ndarray"):
        lm.huber_loss(x, y, delta=np.ones(2))
    flags = {"ignore_index": np.int64(1), "label_smoothing": np.float32(0.25)}
    left = lm.cross_entropy(X, CLASSES, **flags)
    assert torch.equal(left, lm.cross_entropy(X, CLASSES, ignore_index=1, label_smoothing=0.25))


def test_a_sparse_tensor_is_named() -> None:
    y = torch.ones(3, 5, 2)
    for call, name in (
        (lambda: lm.huber_loss(y.to_sparse(), y), "input"),
        (lambda: lm.huber_loss(y, y.to_sparse()), "target"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be a dense tensor, got one of layout"):
            call()


def test_calls_that_the_dtypes_would_fit_are_named_too() -> None:
    """An index with a dimension too many is as likely a slip as a target of a wrong dtype."""
    rule = (
        r"target must be floating point in the call .*, or fit the call .* target \(\) -> \(\), got"
    )
    with pytest.raises(TypeError, match=rule):
        lm.cross_entropy(torch.zeros(3), torch.tensor([1]))
    rule = (
        r"be of an integer dtype in the call .*, or fit the call input \(N, C, \*\), target \(N, C"
    )
    with pytest.raises(TypeError, match=rule):
        lm.cross_entropy(X, CLASSES.float())


def test_options_by_position_are_named() -> None:
    """As torch's signature has them: the rule says where they go."""
    rule = "cross_entropy.. takes input, target by position and weight, .* by keyword, got a tensor"
    with pytest.raises(TypeError, match=rule):
        lm.cross_entropy(X, CLASSES, torch.ones(2))
    with pytest.raises(TypeError, match=r"huber_loss.. takes .* by keyword, got 2\.0$"):
        lm.huber_loss(X, Y, 2.0)


def test_weights_are_real() -> None:
    with pytest.raises(TypeError, match=r"sample_weight must be real, got torch\.complex64"):
        lm.huber_loss(X, Y, sample_weight=torch.ones(3, 2, dtype=torch.complex64))


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_factors_of_a_sum_are_finite(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be finite"):
        factor * lm.MSELoss()


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (lm.barlow_twins_loss, ((6, 4), (6, 4))),
        (lm.info_nce_loss, ((6, 4), (6, 4))),
        (lm.siglip_loss, ((6, 4), (6, 4))),
        (lm.listnet_loss, ((6, 4), (6, 4))),
    ],
)
@pytest.mark.parametrize("wide", [0, 1])
def test_two_dtypes_give_the_loss_of_the_wider(loss, shapes, wide: int) -> None:
    generator = torch.Generator().manual_seed(0)
    both = [torch.rand(shape, generator=generator) for shape in shapes]
    mixed = [t.double() if i == wide else t for i, t in enumerate(both)]
    leaf = mixed[0].clone().requires_grad_()
    value = loss(leaf, mixed[1])
    assert value.dtype is leaf.dtype
    torch.testing.assert_close(value.double(), loss(both[0].double(), both[1].double()))
    assert torch.autograd.grad(value, leaf)[0].dtype is leaf.dtype


def test_a_linear_layer_may_differ_from_its_input() -> None:
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    expected = lm.linear_cross_entropy(hidden.double(), weight.double(), CLASSES)
    for one, other in ((hidden.double(), weight), (hidden, weight.double())):
        value = lm.linear_cross_entropy(one, other, CLASSES)
        assert value.dtype is one.dtype
        torch.testing.assert_close(value.double(), expected)


def test_a_module_asks_for_what_it_holds_now() -> None:
    """Options that are tensors lie elsewhere in a Module, and any may be set anew."""
    x, weight = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([1.0, 5.0])
    module = lm.CrossEntropyLoss(weight=weight)
    assert torch.equal(module(x, CLASSES), lm.cross_entropy(x, CLASSES, weight=weight))
    module.weight = None
    assert torch.equal(module(x, CLASSES), lm.cross_entropy(x, CLASSES))
    module.label_smoothing = 0.1
    assert torch.equal(module(x, CLASSES), lm.cross_entropy(x, CLASSES, label_smoothing=0.1))
    module.label_smoothing, module.reduction = 0.0, "sum"
    assert torch.equal(module(x, CLASSES), lm.cross_entropy(x, CLASSES, reduction="sum"))
