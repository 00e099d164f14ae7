"""Barron's family: its members, its derivative in the shape, its density, and what learns."""

import math
from collections.abc import Callable

import pytest
import torch
from mpmath import mp
from torch import Tensor

import lossmith

RESIDUAL = torch.tensor([-40.0, -3.0, -0.6, -1e-3, 0.0, 0.2, 1.0, 7.0], dtype=torch.float64)
ZERO = torch.zeros_like(RESIDUAL)


def exact(residual: float, alpha: float) -> mp.mpf:
    """The loss at scale 1, plainly, in 50 digits."""
    square, gap = mp.mpf(residual) ** 2, 2 - mp.mpf(alpha)
    if gap == 0:
        return square / 2
    if alpha == 0:
        return mp.log1p(square / 2)
    return gap / mp.mpf(alpha) * ((square / gap + 1) ** (mp.mpf(alpha) / 2) - 1)


def log_partition(alpha: float) -> mp.mpf:
    """The logarithm of the integral, by adaptive quadrature; cut where its core changes scale."""
    core = mp.sqrt(max(2 - mp.mpf(alpha), mp.mpf("1e-20")))
    cuts = sorted([mp.zero, core, 10 * core, mp.one, mp.mpf(5), mp.mpf(40), mp.inf])
    return mp.log(2 * mp.quad(lambda x: mp.exp(-exact(x, alpha)), cuts))


@pytest.mark.parametrize(
    ("alpha", "member"),
    [
        (2.0, lossmith.half_mse_loss),
        (1.0, lossmith.pseudo_huber_loss),
        (0.0, lossmith.cauchy_loss),
        (-2.0, lossmith.geman_mcclure_loss),
        (-math.inf, lossmith.welsch_loss),
    ],
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_limits_are_the_named_members(
    alpha: float, member: Callable[..., Tensor], as_tensor: bool
) -> None:
    shape = torch.tensor([alpha], dtype=torch.float64) if as_tensor else alpha
    ours = lossmith.barron_loss(RESIDUAL, ZERO, alpha=shape, reduction="none")
    torch.testing.assert_close(ours, member(RESIDUAL, ZERO, reduction="none"), rtol=4e-15, atol=0)


@pytest.mark.parametrize(
    "alpha", [2 - 1e-12, 2 - 1e-4, 1.3, 1.0, 1 - 1e-9, 1e-3, 1e-12, -1e-9, -5.0]
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_shapes_beside_a_limit_are_exact(alpha: float, as_tensor: bool) -> None:
    shape = torch.tensor([alpha], dtype=torch.float64) if as_tensor else alpha
    ours = lossmith.barron_loss(RESIDUAL, ZERO, alpha=shape, reduction="none")
    with mp.workdps(50):
        truth = [float(exact(r, alpha)) for r in RESIDUAL.tolist()]
    torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64), rtol=4e-15, atol=0)


@pytest.mark.parametrize("alpha", [2 - 1e-6, 1.5, 1.0, 0.5, 1e-5, 0.0, -1e-5, -3.0])
def test_derivative_in_the_shape_is_exact(alpha: float) -> None:
    shape = torch.full_like(RESIDUAL, alpha).requires_grad_()
    value = lossmith.barron_loss(RESIDUAL, ZERO, alpha=shape, reduction="none")
    (ours,) = torch.autograd.grad(value.sum(), shape)
    with mp.workdps(50):
        step = mp.mpf("1e-15")
        truth = [
            float((exact(r, alpha + step) - exact(r, alpha - step)) / (2 * step))
            for r in RESIDUAL.tolist()
        ]
    # the derivative begins with the sixth power of the residual: below that only rounding is left
    expected = torch.tensor(truth, dtype=torch.float64)
    assert ((ours - expected).abs() <= 1e-13 * expected.abs() + 4e-15 * value.detach()).all()


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.3, 1.0, 1.9, 1.99999, 2.0])
def test_density_is_normalised_for_every_shape(alpha: float) -> None:
    origin = torch.zeros(1, dtype=torch.float64)
    ours = lossmith.barron_nll_loss(origin, origin, alpha=alpha).item()
    with mp.workdps(30):
        assert abs(ours - log_partition(alpha)) < 1e-14


def test_partition_has_its_closed_forms() -> None:
    origin = torch.zeros(3, dtype=torch.float64)
    shape = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    ours = lossmith.barron_nll_loss(origin, origin, alpha=shape, reduction="none")
    closed = [math.pi * math.sqrt(2), 2 * math.e * float(mp.besselk(1, 1)), math.sqrt(2 * math.pi)]
    torch.testing.assert_close(
        ours.exp(), torch.tensor(closed, dtype=torch.float64), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("alpha", [0.01, 0.7, 1.0, 1.6, 1.99])
def test_derivative_of_the_partition_is_exact(alpha: float) -> None:
    origin = torch.zeros(1, dtype=torch.float64)
    shape = torch.tensor([alpha], dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(lossmith.barron_nll_loss(origin, origin, alpha=shape), shape)
    with mp.workdps(30):
        step = mp.mpf("1e-10")
        truth = (log_partition(alpha + step) - log_partition(alpha - step)) / (2 * step)
        assert abs(ours.item() - truth) < 1e-12


def test_derivative_at_squared_error_is_large_and_of_the_right_sign() -> None:
    shape = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    value = lossmith.barron_nll_loss(ZERO, ZERO, alpha=shape)
    (gradient,) = torch.autograd.grad(value, shape)
    # Z grows without bound in slope as alpha falls from 2; the derivative itself is infinite
    assert -100 < gradient.item() < -5


def test_derivatives_of_shape_and_scale_pass_gradcheck() -> None:
    residual = torch.tensor([[0.4, -2.0, 9.0]], dtype=torch.float64, requires_grad=True)
    shape = torch.tensor([0.2, 1.0 + 1e-3, 1.7], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def value(r: Tensor, a: Tensor, c: Tensor) -> Tensor:
        return lossmith.barron_nll_loss(r, torch.zeros_like(r), alpha=a, scale=c)

    leaves = (residual, shape, scale)
    assert torch.autograd.gradcheck(value, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, leaves)


def test_one_shape_per_entry_of_the_last_dimension() -> None:
    generator = torch.Generator().manual_seed(0)
    residual = 3 * torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    zero, shape = torch.zeros_like(residual), torch.tensor([-1.0, 0.5, 1.5], dtype=torch.float64)
    together = lossmith.barron_loss(residual, zero, alpha=shape, reduction="none")
    for entry, alpha in enumerate(shape.tolist()):
        alone = lossmith.barron_loss(residual, zero, alpha=alpha, reduction="none")
        torch.testing.assert_close(together[..., entry], alone[..., entry], rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [torch.ones(2), torch.ones(1, 3), torch.ones(4)])
def test_a_shape_that_does_not_fit_is_refused(shape: Tensor) -> None:
    with pytest.raises(ValueError, match=r"alpha must .*last dimension, got a tensor"):
        lossmith.barron_loss(torch.ones(4, 3), torch.ones(4, 3), alpha=shape)


def test_a_shape_above_two_is_refused_in_a_tensor_too() -> None:
    with pytest.raises(ValueError, match="alpha must be <= 2, got"):
        lossmith.barron_loss(torch.ones(3), torch.ones(3), alpha=torch.tensor([2.5]))


def fit(errors: Tensor) -> lossmith.AdaptiveBarronLoss:
    """The shape and scale that describe some errors best."""
    criterion = lossmith.AdaptiveBarronLoss().double()
    optimiser = torch.optim.LBFGS(
        criterion.parameters(), max_iter=60, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimiser.zero_grad()
        value = criterion(errors, torch.zeros_like(errors))
        value.backward()
        return value

    optimiser.step(step)
    return criterion


def test_normal_errors_are_recognised_with_their_standard_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    fitted = fit(3 * torch.randn(4000, generator=generator, dtype=torch.float64))
    assert fitted.alpha.item() > 1.8
    assert fitted.scale.item() == pytest.approx(3.0, rel=0.1)


def test_cauchy_errors_are_recognised_with_their_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(4000, generator=generator, dtype=torch.float64) - 0.5
    # the density at alpha 0 and scale c is a Cauchy density of half width sqrt(2) c
    fitted = fit(2 * math.sqrt(2) * torch.tan(math.pi * share))
    assert fitted.alpha.item() < 0.1
    assert fitted.scale.item() == pytest.approx(2.0, rel=0.1)


def test_parameters_are_vectors_that_travel() -> None:
    first = lossmith.AdaptiveBarronLoss(entries=3, alpha=0.5, scale=2.0)
    assert {name: tuple(p.shape) for name, p in first.named_parameters()} == {
        "alpha_logit": (3,),
        "log_scale": (3,),
    }
    torch.testing.assert_close(first.alpha, torch.full((3,), 0.5))
    torch.testing.assert_close(first.scale, torch.full((3,), 2.0))
    second = lossmith.AdaptiveBarronLoss(entries=3)
    second.load_state_dict(first.state_dict())
    residual = torch.ones(2, 3)
    assert torch.equal(first(residual, 0 * residual), second(residual, 0 * residual))
    assert first.half()(residual.half(), 0 * residual.half()).dtype is torch.float16


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [({"alpha": 2.0}, r"alpha must lie in \(0, 2\)"), ({"scale": 0.0}, "scale must")],
)
def test_a_start_outside_the_range_is_refused(wrong: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        lossmith.AdaptiveBarronLoss(**wrong)
