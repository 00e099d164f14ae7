"""Losses worked out block by block: the small tensors of the other tests never reach it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import lossmith as lm
from lossmith.engines import in_cache

Loss = Callable[..., torch.Tensor]
ROWS, CLASSES = 13, 11  # several blocks of 32 elements, the last of them shorter


def numbers(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64) * 4


def lists() -> torch.Tensor:
    """From no true class to all of them, with garbage behind the end."""
    target = torch.stack([torch.randperm(CLASSES) for _ in range(ROWS)])
    for row in range(ROWS):
        if row < CLASSES:
            target[row, row] = -1
    return target


UNIT, HARD = numbers(1).sigmoid(), (numbers(1) > 0).double()
ARGUMENTS: dict[str, tuple[Loss, torch.Tensor, torch.Tensor]] = {
    "soft labels": (lm.binary_cross_entropy_with_logits, numbers(0), UNIT),
    "hard labels": (lm.binary_cross_entropy_with_logits, numbers(0), HARD),
    "faded": (functools.partial(lm.sigmoid_focal_loss, alpha=0.25), numbers(0), HARD),
    "faded fast": (functools.partial(lm.sigmoid_focal_loss, gamma=3), numbers(0), HARD),
    "several labels": (lm.multilabel_soft_margin_loss, numbers(0), UNIT),
    "signs": (lm.soft_margin_loss, numbers(0), HARD * 2 - 1),
    "probabilities": (lm.binary_cross_entropy, numbers(0).sigmoid(), UNIT),
    "counts": (lm.poisson_nll_loss, numbers(0), numbers(1).exp().floor()),
    "distributions": (lm.kl_div, numbers(0).log_softmax(1), numbers(1).softmax(1) * HARD),
    "margins": (lm.multi_margin_loss, numbers(0), torch.arange(ROWS) % CLASSES),
    "squares": (
        lambda *tensors, **options: lm.multi_margin_loss(*tensors, p=2, margin=3.0, **options),
        numbers(0),
        torch.arange(ROWS) % CLASSES,
    ),
    "lists": (lm.multilabel_margin_loss, numbers(0), lists()),
}
EVERY = pytest.mark.parametrize(("loss", "input", "target"), ARGUMENTS.values(), ids=ARGUMENTS)


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks of 32 elements for any tensor; how often they served a call with a gradient."""
    monkeypatch.setattr(in_cache, "SMALL", 0)
    monkeypatch.setattr(in_cache, "NARROW", 1)
    monkeypatch.setattr(in_cache, "BLOCK", 32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    calls: list[int] = []
    ordinary = in_cache.with_pull
    monkeypatch.setattr(in_cache, "with_pull", lambda *a, **k: calls.append(1) or ordinary(*a, **k))
    return calls


def in_plain(loss: Loss, *tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    """The plain function, which is what serves under ``vmap``."""
    return torch.vmap(lambda *t: loss(*t, **options))(*(t.unsqueeze(0) for t in tensors)).squeeze(0)


@EVERY
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_blocks_equal_the_plain_function(loss, input, target, reduction, served):
    for dtype, digits in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        x = input.to(dtype, copy=True).requires_grad_()
        y = target.to(dtype) if target.is_floating_point() else target
        value = loss(x, y, reduction=reduction)
        truth = x.detach().double().requires_grad_()
        plain = in_plain(
            loss, truth, y.double() if y.is_floating_point() else y, reduction=reduction
        )
        torch.testing.assert_close(value.double(), plain, rtol=digits, atol=digits)
        pulls = torch.linspace(1, 2, value.numel(), dtype=dtype).view_as(value)
        (slope,) = torch.autograd.grad(value, x, pulls)
        (expected,) = torch.autograd.grad(plain, truth, pulls.double())
        torch.testing.assert_close(slope.double(), expected, rtol=4 * digits, atol=4 * digits)
    assert len(served) == 2


@EVERY
def test_without_a_gradient_the_value_is_the_same(loss, input, target, served):
    value = loss(input.clone().requires_grad_(), target)
    assert loss(input, target).item() == value.item()
    with torch.no_grad():
        assert loss(input.clone().requires_grad_(), target).item() == value.item()
    assert len(served) == 1


@EVERY
def test_first_and_second_derivatives_match_differences(loss, input, target, served):
    few = target[:3] if loss is not lm.multilabel_margin_loss else target[4:7]
    given = (lambda x: loss(x, few)), (input[:3].clone().requires_grad_(),)
    assert torch.autograd.gradcheck(*given)
    assert torch.autograd.gradgradcheck(*given)
    assert served


@EVERY
def test_a_kept_graph_gives_the_same_gradient_twice(loss, input, target):
    x = input.clone().requires_grad_()
    value = loss(x, target)
    value.backward(retain_graph=True)
    first = x.grad.clone()
    value.backward()
    torch.testing.assert_close(x.grad, 2 * first, rtol=0, atol=0)


@EVERY
def test_strides_and_a_row_alone_do_not_matter(loss, input, target):
    x = input.t().contiguous().t().requires_grad_()
    straight = input.clone().requires_grad_()
    for each in (x, straight):
        loss(each, target, reduction="sum").backward()
    torch.testing.assert_close(x.grad, straight.grad, rtol=0, atol=0)
    alone = input[5].clone().requires_grad_()
    loss(alone, target[5], reduction="sum").backward()
    torch.testing.assert_close(alone.grad, straight.grad[5], rtol=1e-14, atol=0)


@EVERY
def test_a_number_that_is_none_is_seen(loss, input, target):
    broken = input.clone()
    broken[9] = math.nan
    if loss is lm.binary_cross_entropy:
        with pytest.raises(ValueError, match="input must lie in"):
            loss(broken, target)
    else:
        assert loss(broken, target).isnan()


@EVERY
def test_a_target_outside_is_refused_in_any_block(loss, input, target):
    wrong = target.clone()
    wrong[-1:] = -3
    with pytest.raises(ValueError, match="target must"):
        loss(input.clone().requires_grad_(), wrong)


X = [-1e4, -40.0, -15.0, -1.0, 0.0, 0.5, 3.0, 20.0, 1e4]


@pytest.mark.parametrize(
    ("loss", "yes", "no"),
    [(lm.soft_margin_loss, 1.0, -1.0), (lm.binary_cross_entropy_with_logits, 1.0, 0.0)],
)
def test_likely_labels_keep_all_their_digits(loss, yes, no, served):
    x = torch.tensor([*X, *X], requires_grad=True)
    label = torch.tensor([yes] * len(X) + [no] * len(X))
    value = loss(x, label, reduction="none")
    sign = torch.tensor([-1.0] * len(X) + [1.0] * len(X), dtype=torch.float64)
    z = sign * x.detach().double()
    truth = torch.where(z > 30, z, torch.log1p(torch.exp(z.clamp(max=30))))
    torch.testing.assert_close(value.double(), truth, rtol=3e-7, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient.double(), sign * torch.sigmoid(z), rtol=5e-7, atol=0)
    assert served


def test_a_zero_probability_costs_nothing(served):
    target = torch.tensor([0.0, 1e-44, 1e-38, 0.5])
    x = torch.tensor([-2.0, -2.0, -2.0, -2.0], requires_grad=True)
    value = lm.kl_div(x, target, reduction="none")
    q = target.double()
    truth = torch.special.xlogy(q, q) + 2 * q
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=2e-45)
    assert served


def test_the_slope_itself_becomes_the_gradient(monkeypatch):
    """No further pass over memory when the gradient of the value is 1."""
    found: list[int] = []
    ordinary = in_cache._pull

    def spy(grad, needed, leaves, slope):
        found.append(slope.data_ptr())
        return ordinary(grad, needed, leaves, slope)

    monkeypatch.setattr(in_cache, "_pull", spy)
    x = torch.randn(100, requires_grad=True)
    lm.soft_margin_loss(x, torch.ones(100)).backward()
    assert found == [x.grad.data_ptr()]


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, -1.0, 0.5, 2.0])
def test_hard_labels_are_told_from_any_other(odd: float) -> None:
    assert in_cache.zeros_and_ones(torch.tensor([0.0, 1.0, -0.0]))
    assert not in_cache.zeros_and_ones(torch.tensor([0.0, 1.0, odd]))


@pytest.mark.parametrize("alpha", [1e-5, 1 - 1e-5])
def test_a_small_share_of_focal_loss_keeps_its_digits(alpha: float) -> None:
    x, y = numbers(0).float(), HARD.float()
    value = lm.sigmoid_focal_loss(x, y, alpha=alpha, reduction="none")
    wrong = torch.where(HARD == 1, -x.double(), x.double())
    share = torch.where(HARD == 1, alpha, 1 - alpha)
    truth = share * wrong.sigmoid().square() * torch.log1p(wrong.exp())
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [lm.binary_cross_entropy_with_logits, lm.sigmoid_focal_loss])
def test_second_derivative_at_infinite_logits(loss: Loss) -> None:
    sure = torch.tensor([-math.inf, math.inf, 0.5]).requires_grad_()
    target = torch.tensor([0.0, 1.0, 1.0])
    (slope,) = torch.autograd.grad(loss(sure, target), sure, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), sure)
    assert bend[:2].tolist() == [0.0, 0.0]
    assert 0 < bend[2].item() < 1


@pytest.mark.parametrize("option", ["weight", "pos_weight", "alpha"])
def test_second_derivative_far_out_is_no_zero(option: str) -> None:
    """``p (1 - p)``, of which torch's softplus keeps no digit from 17 on."""
    far = torch.tensor([17.0, -17.0]).requires_grad_()
    one = 0.5 if option == "alpha" else torch.ones(2)  # halves both sides
    loss = lm.binary_cross_entropy_with_logits(
        far, torch.tensor([0.0, 1.0]), reduction="sum", **{option: one}
    )
    (slope,) = torch.autograd.grad(loss, far, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), far)
    exact = math.exp(-17) / (1 + math.exp(-17)) ** 2 * (0.5 if option == "alpha" else 1.0)
    torch.testing.assert_close(bend, torch.full((2,), exact), rtol=1e-6, atol=0.0)
