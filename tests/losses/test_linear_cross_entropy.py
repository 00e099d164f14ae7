"""The linear head: its bias, its extra dimensions, its Module, and torch's loss of that name."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lossmith as lm

# torch has both from 2.13 on
TWIN = getattr(F, "linear_cross_entropy", None)
TWIN_MODULE = getattr(nn, "LinearCrossEntropyLoss", None)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def samples(*star: int):
    """Input (3, 5), weight and bias of 4 classes, indices, probabilities."""
    target = torch.randint(4, (3, *star), generator=torch.Generator().manual_seed(1))
    probabilities = draw(3, 4, *star, seed=3).softmax(1)
    return draw(3, 5), draw(4, *star, 5, seed=1), draw(4, *star, seed=2), target, probabilities


@pytest.mark.parametrize("star", [(), (2,), (2, 3)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_it_is_cross_entropy_of_the_logits(star, reduction):
    hidden, head, bias, indices, probabilities = samples(*star)
    logits = torch.einsum("nd,c...d->nc...", hidden, head) + bias
    options = {"weight": torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), "label_smoothing": 0.2}
    for target in (indices, probabilities):
        expected = F.cross_entropy(logits, target, reduction=reduction, **options)
        call = {"linear_bias": bias, "reduction": reduction, **options}
        found = lm.linear_cross_entropy(hidden, head, target, **call)
        torch.testing.assert_close(found, expected)
        if TWIN is not None:
            torch.testing.assert_close(found, TWIN(hidden, head, target, **call))


@pytest.mark.parametrize("ignore_index", [None, -100, 2])
def test_ignored_positions_do_not_count(ignore_index):
    hidden, head, _, indices, _ = samples(2)
    dropped = -100 if ignore_index is None else ignore_index
    indices = indices.clone()
    indices[indices == 2] = 3
    indices[0] = dropped  # a whole row, with NaN behind it
    indices[1, 1] = dropped  # a single position
    rows = lm.linear_cross_entropy(hidden, head, indices.clamp(min=0), reduction="none")
    kept = [rows[1, 0], rows[2, 0], rows[2, 1]]
    hidden[0] = torch.nan
    hidden.requires_grad_()
    found = lm.linear_cross_entropy(hidden, head, indices, ignore_index=ignore_index)
    torch.testing.assert_close(found, sum(kept) / 3)
    found.backward()
    assert (hidden.grad[0] == 0).all()
    assert hidden.grad.isfinite().all()


def test_bad_arguments_are_refused():
    hidden, head, _, indices, probabilities = samples(2)
    with pytest.raises(ValueError, match=r"linear_bias must have shape \(4, 2\), got"):
        lm.linear_cross_entropy(hidden, head, indices, linear_bias=torch.zeros(4).double())
    with pytest.raises(ValueError, match=r"ignore_index must be None where .* got 1"):
        lm.linear_cross_entropy(hidden, head, probabilities, ignore_index=1)
    with pytest.raises(TypeError, match=r"options must be a torch\.nn\.Linear.* got str"):
        lm.linear_cross_entropy(hidden, head, indices, options="fast")
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        lm.LinearCrossEntropyLoss(5, 0)
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\), got"):
        lm.LinearCrossEntropyLoss(5, 4, weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\], got 2"):
        lm.LinearCrossEntropyLoss(5, 4, label_smoothing=2.0)


@pytest.mark.parametrize("star", [(), (2,)])
def test_module_equals_function_and_survives(star):
    hidden, _, _, indices, probabilities = samples(*star)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    torch.manual_seed(0)
    module = lm.LinearCrossEntropyLoss(5, 4, out_features=star, bias=True, weight=weight).double()
    head, bias = module.linear.weight.view(4, *star, 5), module.linear.bias.view(4, *star)
    for target in (indices, probabilities):
        expected = lm.linear_cross_entropy(
            hidden, head, target, linear_bias=bias, weight=weight.double()
        )
        assert torch.equal(module(hidden, target), expected)
        assert torch.equal(module(input=hidden, target=target), expected)
        for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            assert torch.equal(again(hidden, target), expected)
        if TWIN_MODULE is not None:
            twin = TWIN_MODULE(5, 4, out_features=star, bias=True, weight=weight).double()
            twin.load_state_dict(module.state_dict(), strict=True)
            torch.testing.assert_close(twin(hidden, target), expected)
    with pytest.raises(TypeError):
        module(hidden, indices, indices)
    with pytest.raises(TypeError):
        module(hidden)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    module = lm.LinearCrossEntropyLoss(5, 4)
    hidden, indices = draw(3, 5).float(), torch.tensor([0, 1, 2])
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    before = module(hidden, indices).item()
    for _ in range(20):
        optimiser.zero_grad()
        module(hidden, indices).backward()
        optimiser.step()
    assert module(hidden, indices).item() < 0.2 * before


def test_half_precision_logits_are_worked_out_in_float32():
    hidden, head, _, indices, _ = samples()
    low = lm.linear_cross_entropy(hidden.bfloat16(), head.bfloat16(), indices, reduction="none")
    exact = F.cross_entropy(
        hidden.bfloat16().double() @ head.bfloat16().double().T, indices, reduction="none"
    )
    assert low.dtype is torch.bfloat16
    assert ((low.double() - exact).abs() <= 2**-8 * exact).all()  # one rounding, of the result
