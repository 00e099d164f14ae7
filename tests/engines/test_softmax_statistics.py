"""What a softmax says of each row: against mpmath, in any layout, where numbers are extreme."""

import functools
from typing import Any

import pytest
import torch
from mpmath import mp
from torch import Tensor

import lossmith as lm

# rows, short rows, positions, channels last, one row without a batch, several pieces
SHAPES = ((7, 41), (50, 3), (2, 5, 3, 4), (2, 5, 3, 4, "last"), (6,), (3, 1))
OPTIONS = ({}, {"softcap": 3.0}, {"logit_scale": 0.25}, {"softcap": 9.0, "logit_scale": 2.0})
NAMES = ("log_prob", "entropy", "lse")


def by_definition(
    row: list[float], label: int, softcap: float | None = None, logit_scale: float = 1.0
) -> list[Any]:
    """Log-probability, entropy, log-sum-exp and accuracy of a row, number by number."""
    with mp.workdps(60):
        bent = [mp.mpf(x) * mp.mpf(logit_scale) for x in row]
        if softcap is not None:
            bent = [softcap * mp.tanh(x / softcap) for x in bent]
        lse = mp.log(mp.fsum(mp.exp(x) for x in bent))
        shares = [mp.exp(x - lse) for x in bent]
        # p (lse - x), and nothing of a class that is excluded
        entropy = mp.fsum(p * (lse - x) for p, x in zip(shares, bent, strict=True) if p)
        return [bent[label] - lse, entropy, lse, bent[label] == max(bent)]


def problem(shape: tuple[Any, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = [size for size in shape if size != "last"]
    logits = (3 * torch.randn(sizes, generator=generator)).to(dtype)
    if "last" in shape:
        logits = logits.contiguous(memory_format=torch.channels_last)
    classes, rest = (sizes[0], []) if len(sizes) == 1 else (sizes[1], [sizes[0], *sizes[2:]])
    target = torch.randint(classes, rest, generator=generator)
    return logits, target


def rows_of(logits: Tensor) -> Tensor:
    return logits.unsqueeze(0) if logits.ndim == 1 else logits.movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_is_that_of_its_definition(shape, options) -> None:
    logits, target = problem(shape)
    found = lm.softmax_statistics(logits, target, **options)
    truth = [
        by_definition(row.tolist(), label.item(), **options)
        for row, label in zip(rows_of(logits), target.reshape(-1), strict=True)
    ]
    for number, column in zip(found, zip(*truth, strict=True), strict=True):
        assert number.shape == target.shape
        if number.dtype is torch.bool:
            assert number.reshape(-1).tolist() == list(column)
        else:
            expected = torch.tensor([float(each) for each in column], dtype=torch.float64)
            torch.testing.assert_close(number.reshape(-1), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slopes_are_the_quotients_of_differences(shape, options, name) -> None:
    logits, target = problem(shape)
    if target.ndim:
        target = target.clone()
        target.view(-1)[0] = -100
    one = functools.partial(lm.softmax_statistics, target=target, **options)
    leaf = logits.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: getattr(one(x), name), leaf)
    if logits.numel() < 100:
        assert torch.autograd.gradgradcheck(lambda x: getattr(one(x), name), leaf)


def test_slopes_of_all_numbers_add_up() -> None:
    logits, target = problem((7, 41))
    leaf = logits.detach().requires_grad_()
    found = lm.softmax_statistics(leaf, target)
    factors = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    numbers = [getattr(found, name) for name in NAMES]
    (together,) = torch.autograd.grad(numbers, leaf, list(factors), retain_graph=True)
    apart = [
        torch.autograd.grad(number, leaf, factor, retain_graph=True)[0]
        for number, factor in zip(numbers, factors, strict=True)
    ]
    torch.testing.assert_close(together, sum(apart))


@pytest.mark.parametrize("shape", [(300, 7001), (3, 2100, 400), (700_000, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_pieces_are_as_one(shape, dtype) -> None:
    """In more elements than a piece has, value and slope are those of each row alone."""
    logits, target = problem(shape, dtype)
    leaf = logits.detach().requires_grad_()
    found = lm.softmax_statistics(leaf, target)
    total = found.log_prob.sum() - found.entropy.sum() + 2 * found.lse.sum()
    (slope,) = torch.autograd.grad(total, leaf)
    log_p = logits.double().log_softmax(1)
    p, own = log_p.exp(), log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    entropy = -(p * log_p).sum(1, keepdim=True)
    expected = p * (log_p + entropy) + p  # - dH/dx, then 2 p of lse and - p of log_prob
    expected.scatter_add_(1, target.unsqueeze(1), torch.ones_like(target, dtype=p.dtype)[:, None])
    digits = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.log_prob.double(), own, **digits)
    torch.testing.assert_close(found.entropy.double(), entropy.squeeze(1), **digits)
    torch.testing.assert_close(found.lse.double(), logits.double().logsumexp(1), **digits)
    coarse = {"rtol": 8e-3, "atol": 1e-5} if dtype is torch.bfloat16 else digits
    torch.testing.assert_close(slope.double(), expected, **coarse)


def test_extreme_rows_keep_their_digits() -> None:
    inf = float("inf")
    logits = torch.tensor([[40.0, 0.0, -inf], [1e30, 0.0, -1e30], [-2e4, -2e4, -3e4]])
    leaf = logits.clone().requires_grad_()
    found = lm.softmax_statistics(leaf, torch.tensor([0, 1, 1]))
    rest = 4.248354255291589e-18  # e^-40
    half = 0.69314718
    expected = torch.tensor(
        [[-rest, 41 * rest, 40.0], [-1e30, 0.0, 1e30], [-half, half, -19999.307]]
    )
    torch.testing.assert_close(torch.stack(found[:3], 1), expected, rtol=1e-6, atol=0)
    assert found.correct.tolist() == [True, False, True]  # a tie counts
    (slope,) = torch.autograd.grad(found.log_prob.sum() + found.entropy.sum(), leaf)
    assert slope.isfinite().all()


def test_absent_rows_are_zero_whatever_they_hold() -> None:
    logits, target = problem((4, 5))
    logits[1], target[1] = float("nan"), 7
    leaf = logits.requires_grad_()
    found = lm.softmax_statistics(leaf, target, ignore_index=7)
    assert all(number[1] == 0 for number in found)
    (slope,) = torch.autograd.grad(sum(number.sum() for number in found[:3]), leaf)
    assert (slope[1] == 0).all()
    assert slope.isfinite().all()


def test_autocast_rounds_nothing() -> None:
    logits, target = problem((64, 10), torch.float32)  # rows so short are added up by a product
    truth = lm.softmax_statistics(logits, target)
    with torch.autocast("cpu", torch.bfloat16):
        found = lm.softmax_statistics(logits, target)
    assert all(torch.equal(one, other) for one, other in zip(found, truth, strict=True))


@pytest.mark.parametrize("shape", [(0, 4), (2, 4, 0)], ids=str)
def test_no_rows_give_no_numbers(shape) -> None:
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
    leaf = torch.zeros(shape, requires_grad=True)
    found = lm.softmax_statistics(leaf, target)
    assert all(number.shape == target.shape for number in found)
    found.entropy.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.shape == shape


def test_transforms_take_the_plain_function() -> None:
    logits, target = problem((6, 5))
    truth = lm.softmax_statistics(logits, target).entropy
    one = torch.func.vmap(lambda x, y: lm.softmax_statistics(x, y).entropy)
    torch.testing.assert_close(one(logits, target), truth)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": 1.0}, TypeError, "input must be a tensor, got float"),
        (
            {"input": torch.ones(2, 3, dtype=torch.long)},
            TypeError,
            "floating point, got torch.int64",
        ),
        ({"target": torch.ones(2)}, TypeError, "target must be of an integer dtype"),
        ({"target": torch.tensor([0])}, ValueError, "shape"),
        ({"target": torch.tensor([0, 3])}, ValueError, r"target must be a class index in \[0, 2\]"),
        ({"softcap": 0.0}, ValueError, "softcap"),
        ({"logit_scale": -1.0}, ValueError, "logit_scale"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(changed, error, message) -> None:
    given = {"input": torch.zeros(2, 3), "target": torch.tensor([0, 2]), **changed}
    with pytest.raises(error, match=message):
        lm.softmax_statistics(**given)


def test_a_masked_class_has_no_slope_however_large_the_factor() -> None:
    """Gradient scaling of half precision multiplies by 65536."""
    x = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    entropy = lm.softmax_statistics(x, torch.tensor([0])).entropy.sum()
    (one,) = torch.autograd.grad(entropy, x, retain_graph=True)
    (many,) = torch.autograd.grad(65536 * entropy, x)
    torch.testing.assert_close(many, 65536 * one)
    assert many[0, 2] == 0


@pytest.mark.parametrize("row", [[16.0, 0.0, -1.0], [1e4, 1e4 + 1, 1e4 + 3], [0.1, 0.0, 0.05]])
def test_slopes_keep_their_digits(row: list[float]) -> None:
    """Of a likely class, and where all logits have something large in common."""
    x = torch.tensor([row], requires_grad=True)
    found = lm.softmax_statistics(x, torch.tensor([0]))
    slopes = [torch.autograd.grad(each, x, retain_graph=True)[0] for each in found[:2]]
    with mp.workdps(60):
        exact = [mp.mpf(number) for number in x[0].tolist()]
        whole = mp.fsum(mp.exp(number) for number in exact)
        shares = [mp.exp(number) / whole for number in exact]
        entropy = -mp.fsum(p * mp.log(p) for p in shares)
        of_prob = [float((place == 0) - p) for place, p in enumerate(shares)]
        of_entropy = [float(-p * (mp.log(p) + entropy)) for p in shares]
    for slope, expected in zip(slopes, (of_prob, of_entropy), strict=True):
        torch.testing.assert_close(slope[0], torch.tensor(expected), rtol=1e-5, atol=0)
