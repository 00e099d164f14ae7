"""The one-pass logistic loss: the small tensors of the other tests never reach it."""

import pytest
import torch

import lossmith as lm
from lossmith.engines import element

X = [-1e4, -40.0, -15.0, -1.0, 0.0, 0.5, 3.0, 20.0, 1e4]
LOSSES = [(lm.soft_margin_loss, 1.0, -1.0), (lm.binary_cross_entropy_with_logits, 1.0, 0.0)]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(element, "SMALL", 0)


@pytest.mark.parametrize(("loss", "yes", "no"), LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_and_gradient_are_those_of_the_logistic_loss(loss, yes, no, reduction):
    x = torch.tensor([*X, *X], requires_grad=True)
    label = torch.tensor([yes] * len(X) + [no] * len(X))
    value = loss(x, label, reduction=reduction)
    assert "Known" in type(value.grad_fn).__name__
    sign = torch.tensor([-1.0] * len(X) + [1.0] * len(X), dtype=torch.float64)
    z = sign * x.detach().double()
    truth = torch.where(z > 30, z, torch.log1p(torch.exp(z.clamp(max=30))))
    count = len(truth) if reduction == "mean" else 1
    expected = truth if reduction == "none" else truth.sum() / count
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(value, x, torch.full_like(value, 3.0))
    slope = sign * torch.sigmoid(z) * 3 / count
    # e^-1e4 is 0 in float64 as well
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("loss", "yes", "no"), LOSSES)
def test_first_and_second_derivatives_match_differences(loss, yes, no):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64).requires_grad_()
    label = torch.tensor([yes, no, yes, no, yes, no, yes], dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (x, label))
    assert torch.autograd.gradgradcheck(loss, (x, label))
