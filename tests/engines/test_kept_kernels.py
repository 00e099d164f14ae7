"""What one_pass remembers of a call: nothing that the next call, or another thread, may not use."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core import route
from lossmith.engines import one_pass

N = 40000  # above the size from which calls are offered to an engine

pytestmark = pytest.mark.usefixtures("without_inductor")
BOTH = pytest.mark.parametrize("name", ["one_pass", "blocks"])


def drawn(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def alone(gap: Tensor) -> Tensor:
    return gap.abs()


def together(gap: Tensor) -> Tensor:
    return (gap - gap.mean() - gap.mean(-1, keepdim=True)).abs()


measure = alone


@BOTH
@pytest.mark.parametrize(
    "place", ["global", "cell", "default", "attribute", "option", "list", "layer"]
)
def test_elements_that_stood_alone_may_come_to_know_of_each_other(place: str, name: str) -> None:
    global measure
    x, y = drawn(600, 600) + torch.linspace(0, 9, 600)  # two blocks
    cell = alone
    bare = [lambda a, b: cell(a - b)]

    def by_default(a: Tensor, b: Tensor, given=alone) -> Tensor:
        return given(a - b)

    class Own:
        measure = staticmethod(alone)

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            return self.measure(a - b)

    own, layer = Own(), torch.nn.Identity()
    layer.forward = alone
    function = {
        "global": lambda a, b: measure(a - b),
        "cell": lambda a, b: cell(a - b),
        "default": by_default,
        "attribute": own,
        "option": lambda a, b, given=alone: given(a - b),
        "list": lambda a, b: bare[0](a, b),
        "layer": lambda a, b: layer(a - b),
    }[place]
    loss = lm.one_pass(function, engine=name)
    more = {"given": lambda gap: measure(gap)} if place == "option" else {}
    torch.testing.assert_close(loss(x, y, **more), alone(x - y).mean())
    try:
        cell = measure = own.measure = layer.forward = together
        by_default.__defaults__ = (together,)
        bare[0] = lambda a, b: together(a - b)
        torch.testing.assert_close(loss(x, y, **more), together(x - y).mean())
    finally:
        measure = alone


@BOTH
def test_options_are_told_apart_by_what_they_are(name: str) -> None:
    class Table:
        """Prints the same, whatever it holds."""

        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __repr__(self) -> str:
            return "Table()"

    x, y = drawn(N)
    loss = lm.one_pass(lambda a, b, table=None: table.factor * (a - b).abs(), engine=name)
    for factor in (1.0, 2.0):
        found = loss(x, y, table=Table(factor))
        torch.testing.assert_close(found, factor * (x - y).abs().mean())
    path = lm.explain_path(loss, x, y, table=Table(1.0))
    assert str(path) == "plain: an option is neither a number nor a word, a function or a tensor"
    several = lm.one_pass(lambda a, b, powers=(): (a - b).abs() ** powers[0], engine=name)
    for power in (1, 2):
        torch.testing.assert_close(several(x, y, powers=(power,)), ((x - y).abs() ** power).mean())


@BOTH
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_that_are_learned_get_their_gradient(name: str, reduction: str) -> None:
    x, y = drawn(N)
    weight = (torch.arange(N) % 5 / 2).requires_grad_()
    leaves = x.requires_grad_(), weight
    expected = lm.log_cosh_loss(x, y, sample_weight=weight, reduction=reduction)
    with lm.engine(name):
        value = lm.log_cosh_loss(x, y, sample_weight=weight, reduction=reduction)
    assert "Known" in type(value.grad_fn).__name__
    wanted = torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(torch.autograd.grad(value, leaves), wanted)


@BOTH
def test_slopes_of_a_mean_do_not_vanish_in_float16_before_they_are_scaled(name: str) -> None:
    """A scaler's factor comes in the backward pass; 1 / 2^20 is 16 steps of float16."""
    x, y = drawn(1 << 20).half()
    factor = 2.0**14
    exact = x.double().requires_grad_()
    lm.cauchy_loss(exact, y.double()).mul(factor).backward()
    with lm.engine(name):
        value = lm.cauchy_loss(x.requires_grad_(), y)
    assert value.dtype == torch.float16
    value.mul(factor).backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float16
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=6e-4, atol=6e-8)


@BOTH
def test_another_thread_does_as_before(name: str) -> None:
    """Routes were the program's, and threads that overlapped left theirs behind."""
    x, y = drawn(N)
    inside, go = threading.Event(), threading.Event()

    def slow(a: Tensor, b: Tensor) -> Tensor:
        inside.set()
        assert go.wait(60)
        return (a - b).abs()

    worker = threading.Thread(target=lm.one_pass(slow, engine=name), args=(x, y))
    before = route.chosen()
    worker.start()
    assert inside.wait(60)
    try:
        assert route.chosen() is before
        with lm.engine("plain"):
            go.set()
            worker.join()
        assert route.chosen() is before
    finally:
        go.set()
        worker.join()


def test_an_engine_of_the_program_serves_all_its_threads() -> None:
    x, y = drawn(N)
    found: list[Tensor] = []
    with lm.engine("blocks"):
        worker = threading.Thread(
            target=lambda: found.append(lm.log_cosh_loss(x.requires_grad_(), y))
        )
        worker.start()
        worker.join()
    assert "Known" in type(found[0].grad_fn).__name__


def test_kernels_are_made_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two at once Dynamo makes an error, which would count as the compiler's."""
    x, y = drawn(N)
    busy, overlaps, generate = threading.Lock(), list[str](), one_pass._generate

    def watched(*given: Any) -> Callable[..., Any]:
        kernel = generate(*given)

        def first(*tensors: Any) -> Any:
            if not busy.acquire(blocking=False):
                overlaps.append("two at once")
                return kernel(*tensors)
            try:
                time.sleep(0.05)
                return kernel(*tensors)
            finally:
                busy.release()

        return first

    monkeypatch.setattr(one_pass, "_generate", watched)
    losses = [lm.one_pass(lambda a, b, k=k: (a - b).abs() ** k) for k in (1, 2, 3)]
    values: dict[int, Tensor] = {}
    workers = [
        threading.Thread(target=lambda k=k, loss=loss: values.update({k: loss(x, y)}))
        for k, loss in enumerate(losses, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not overlaps
    assert not one_pass._failed
    assert len(values) == 3
    for k, value in values.items():
        torch.testing.assert_close(value, ((x - y).abs() ** k).mean())


@BOTH
def test_functions_made_anew_for_each_call_do_not_pile_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "MOST", 3)
    x, y = drawn(N)
    for k in range(8):
        loss = lm.one_pass(lambda a, b, k=k: k * (a - b).abs(), engine=name)
        torch.testing.assert_close(loss(x, y), k * (x - y).abs().mean())
    kept = one_pass._kernels, one_pass._asked, one_pass._failed
    assert max(map(len, kept)) <= 3
