"""Exponentials of depths: their digits by either kernel, and which kernel serves."""

import math

import pytest
import torch
from torch import Tensor

from lossmith.engines import exponential


def depths(dtype: torch.dtype) -> Tensor:
    """From what vanishes up to 0, with an excluded class and a broken one before."""
    deepest = 1.1 * math.log(torch.finfo(dtype).tiny)
    made = torch.linspace(deepest, 0.0, 100_000, dtype=dtype)
    made[0], made[1] = -math.inf, math.nan
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_exponential_of_mkl_is_denormal(dtype, monkeypatch) -> None:
    """Each would cost as much as a hundred others."""
    monkeypatch.setattr(exponential, "BY_TWO", False)
    given = depths(dtype)[:, None]
    found = exponential.exp_of(given, torch.empty_like(given)).squeeze(1)
    assert found[0] == 0
    assert found[1].isnan()
    found, truth = found[2:], given[2:, 0].double().exp()
    there = found > 0
    assert there.double().mean() > 0.8
    assert (found[there] > 100 * torch.finfo(dtype).tiny).all()
    assert ((found - truth)[there].abs() <= torch.finfo(dtype).eps * truth[there]).all()
    assert truth[~there].max() < (1e-34 if dtype is torch.float32 else 1e-303)


def test_exponentials_by_powers_of_two_are_as_exact_as_their_depths(monkeypatch) -> None:
    """In float32; those of float64 come from the other kernel."""
    monkeypatch.setattr(exponential, "BY_TWO", True)
    given = depths(torch.float32)[:, None]
    found = exponential.exp_of(given, torch.empty_like(given)).squeeze(1)
    assert found[0] == 0
    assert found[1].isnan()
    assert found[-1] == 1
    exact = given[2:, 0].double()
    known = exact > math.log(torch.finfo(torch.float32).tiny)
    error = (found[2:] / exact.exp() - 1).abs()
    assert (error <= 8e-8 * (2 - exact))[known].all()
    assert not exponential.by_two(given.double())


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("shift", [0.0, -3000.0, 1e6, 1e9, -1e30])
def test_lowered_exponentials_are_in_proportion_to_a_softmax(two, shift, monkeypatch) -> None:
    monkeypatch.setattr(exponential, "BY_TWO", two)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 300, generator=generator) * 4 + shift
    found = exponential.lowered_exp(logits, logits.amax(1, keepdim=True), torch.empty_like(logits))
    assert found.amax(1).min() > 0.5
    assert found.max() < 2
    truth = logits.double().softmax(1)
    share = found.double() / found.double().sum(1, keepdim=True)
    assert (share - truth).abs().max() <= 1.2e-7
    assert (share / truth - 1).abs().max() <= 6e-8 * 40


@pytest.mark.parametrize(
    ("name", "mkl", "wanted"),
    [
        ("AMD EPYC", True, True),
        ("Intel(R) Xeon(R) Processor", True, False),
        ("Neoverse", False, False),
        (None, True, False),
    ],
)
def test_powers_of_two_serve_where_mkl_is_slow(name, mkl, wanted, monkeypatch) -> None:
    told = {} if name is None else {"cpu_name": name}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert exponential._prefers_powers_of_two() is wanted


def test_a_torch_that_does_not_tell_the_processor(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert exponential._prefers_powers_of_two() is False
