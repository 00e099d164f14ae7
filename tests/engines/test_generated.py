"""The kernels that Inductor generates: no less accurate than the plain function."""

import pytest
import torch
from torch._inductor.utils import run_and_get_code

import lossmith as lm
from lossmith.contract.cases import Case, cases
from lossmith.core import route
from lossmith.core.catalogue import cards
from lossmith.core.route import follow
from lossmith.engines import one_pass

DIMENSIONS = {"N": 70, "C": 33, "D": 12, "L": 20, "K": 5, "M": 7}


def served() -> list[Case]:
    """The losses that have no engine of their own."""
    own = (c for c in cards().values() if c.function.__module__.startswith("lossmith.losses."))
    firsts = [next(cases(c)) for c in own if c.coupling in ("element", "row") and c.differentiable]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "SMALL", 0)
        patch.setattr(one_pass, "WORTH", 0)
        return [c for c in firsts if lm.explain_path(c, *c.sample(0)).how == "compiled"]


def outcome(case: Case, tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Value and gradients in float64."""
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in tensors]
    value = case(*leaves)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    slopes = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    return [part.detach().double() for part in (value, *slopes)]


@pytest.mark.slow
@pytest.mark.parametrize("case", served(), ids=str)
def test_generated_kernel_is_as_accurate_as_the_plain_function(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "SMALL", 0)
    monkeypatch.setattr(one_pass, "WORTH", 0)
    tensors = case.sample(7, torch.float32, **DIMENSIONS)
    truth = outcome(case, tuple(t.double() if t.is_floating_point() else t for t in tensors))
    before = follow(lambda call: call.compute())  # the plain function, and no native kernel
    try:
        plain = outcome(case, tensors)
    finally:
        follow(before)
    with lm.engine("one_pass"):
        generated = outcome(case, tensors)
    for exact, usual, found in zip(truth, plain, generated, strict=True):
        allowed = 2 * (usual - exact).abs().max() + 4 * 6e-8 * exact.abs().max()
        assert (found - exact).abs().max() <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("loss", [lm.huber_loss, lm.sigmoid_focal_loss])
def test_millions_of_elements_are_added_up_in_the_loop_of_the_gradient(loss) -> None:
    """One after the other in float32 they would be 4e-7 off, in float64 another third slower."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1 << 22, generator=generator)
    y = (y > 0).float()
    fast = lm.one_pass(loss)
    value, (code,) = run_and_get_code(fast, x.requires_grad_(), y)
    assert code.count("for(int64_t x0=") == 2  # values and gradient; the sums of the lines
    assert "VectorizedN<double" not in code[: code.rindex("for(int64_t x0=")].rpartition("}")[0]
    exact = loss(x.detach().double(), y.double())
    assert abs(value.item() - exact.item()) <= 6e-8 * exact.item()
