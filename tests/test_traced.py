"""``torch.jit.trace`` and tensors without values: nothing is looked at that is not there."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import lossmith as lm
from lossmith.contract.cases import cases

CARDS = lm.cards()
# torch warns of every shape that is looked at
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("count", [3, 70])
@pytest.mark.parametrize("name", CARDS)
def test_a_trace_gives_the_loss_of_other_tensors(name: str, count: int) -> None:
    case = next(cases(CARDS[name]))
    seen, others = (case.sample(seed, torch.float32, N=count) for seed in (0, 1))
    trace = torch.jit.trace(lambda *tensors: case(*tensors), seen, check_trace=False)
    torch.testing.assert_close(trace(*others), case(*others), rtol=1e-4, atol=1e-5)


def test_what_a_trace_has_not_seen() -> None:
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    few = torch.jit.trace(
        lambda a, b: lm.cross_entropy(a, b, ignore_index=2), (logits, labels % 2), check_trace=False
    )
    torch.testing.assert_close(
        few(logits, labels), lm.cross_entropy(logits, labels, ignore_index=2)
    )
    trace = torch.jit.trace(lm.cross_entropy, (logits, labels), check_trace=False)
    absent, certain = labels.clone(), logits.clone()
    absent[0], certain[0, 1] = -100, -torch.inf
    torch.testing.assert_close(trace(logits, absent), lm.cross_entropy(logits, absent))
    torch.testing.assert_close(trace(certain, labels), lm.cross_entropy(certain, labels))


@pytest.mark.parametrize("name", CARDS)
def test_tensors_without_values_pass_through(name: str) -> None:
    """As memory is estimated before a training."""
    case = next(cases(CARDS[name]))
    with FakeTensorMode() as mode:
        tensors = [mode.from_tensor(t) for t in case.sample(0, torch.float32, grad=True, N=70)]
        value = case(*tensors)
        assert value.shape == ()
        if value.requires_grad:
            value.backward()
