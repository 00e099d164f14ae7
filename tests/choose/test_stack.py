"""The stack trains each model as if it were alone, in as many calls for many as for two."""

import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith
from lossmith.choose.networks import build
from lossmith.choose.stack import Stack
from lossmith.tabular.networks import Body


class Plain(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))

    def forward(self, x):
        return self.body(x)


class Normed(Plain):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        # a bias in front of the norm has gradient 0, of which AdamW makes steps from rounding
        self.body[0] = nn.Linear(inputs, 8, bias=False)
        self.body.insert(1, nn.BatchNorm1d(8))


class Looking(Plain):
    """Control flow that depends on values, which no vmap can follow."""

    def forward(self, x):
        return self.body(x) if float(x.sum().detach()) > 0 else -self.body(x)


def _alone(factory, seed, x, y, rate, steps):
    """torch's own AdamW on one module."""
    (model,) = build(factory, x.shape[1], 1, [seed])
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        lossmith.huber_loss(model(x).squeeze(-1), y).backward()
        optimiser.step()
    return model.eval()(x).detach()


def _together(factory, seeds, x, y, rates, steps):
    stack = Stack(build(factory, x.shape[2], 1, seeds), torch.tensor(rates), 0.01, "adamw")
    stack.probe(x[:, :2])
    for _ in range(steps):
        outputs = stack(x).squeeze(-1)
        stack.step(lossmith.huber_loss(outputs, y, reduction="none").mean(1).sum())
    return stack


@pytest.mark.parametrize("factory", [Body, Plain, Normed, Looking])
def test_each_model_is_trained_as_if_it_were_alone(factory):
    generator = torch.Generator().manual_seed(0)
    seeds, rates = [3, 4, 5], [0.01, 0.003, 0.03]
    x = torch.randn(3, 20, 4, generator=generator)
    y = torch.randn(3, 20, generator=generator)
    stack = _together(factory, seeds, x, y, rates, 10)
    made = stack.evaluate(x)
    for place, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        alone = _alone(factory, seed, x[place], y[place], rate, 10)
        torch.testing.assert_close(made[place], alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("factory", "one_by_one"), [(Plain, False), (Looking, True)])
def test_what_vmap_cannot_run_is_run_one_by_one_and_says_so(factory, one_by_one):
    stack = Stack(build(factory, 4, 1, [0, 1]), torch.ones(2), 0.0, "adamw")
    stack.probe(torch.ones(2, 2, 4))
    assert bool(stack.sequential) == one_by_one


def test_the_probe_leaves_running_statistics_alone():
    stack = Stack(build(Normed, 4, 1, [0, 1]), torch.ones(2), 0.0, "adamw")
    before = {name: one.clone() for name, one in stack.buffers.items()}
    stack.probe(torch.randn(2, 2, 4))
    assert before
    for name, one in stack.buffers.items():
        torch.testing.assert_close(one, before[name])


def test_letting_models_go_leaves_the_others_as_they_were():
    x, y = torch.randn(4, 10, 3), torch.randn(4, 10)
    whole, part = (_together(Body, [0, 1, 2, 3], x, y, [0.01] * 4, 3) for _ in range(2))
    kept = torch.tensor([0, 2])
    part.keep(kept)
    for stack, chosen in ((whole, torch.arange(4)), (part, kept)):
        outputs = stack(x[chosen]).squeeze(-1)
        stack.step(lossmith.mse_loss(outputs, y[chosen], reduction="none").mean(1).sum())
    torch.testing.assert_close(whole.evaluate(x)[kept], part.evaluate(x[kept]))


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func] += 1
        return func(*args, **(kwargs or {}))


def _calls(models):
    x, y = torch.randn(models, 16, 5), torch.randn(models, 16)
    stack = Stack(build(Body, 5, 1, list(range(models))), torch.full((models,), 0.01), 0.0, "adamw")
    with Counting() as counting:
        outputs = stack(x).squeeze(-1)
        stack.step(lossmith.mse_loss(outputs, y, reduction="none").mean(1).sum())
    return counting.calls.total()


def test_a_step_takes_as_many_calls_for_many_models_as_for_two():
    assert _calls(150) == _calls(2)


@pytest.mark.slow
def test_150_small_models_train_many_times_faster_than_one_by_one():
    rows, batch, steps = 354, 64, 60
    x, y = torch.randn(150, rows, 10), torch.randn(150, rows)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ratios = []
    for _ in range(3):
        start = time.process_time()
        stack = Stack(build(_Mlp, 10, 1, list(range(150))), torch.full((150,), 0.003), 0.0, "adamw")
        for step in range(steps):
            part = torch.arange(step * batch, (step + 1) * batch) % rows
            outputs = stack(x[:, part]).squeeze(-1)
            stack.step(lossmith.mse_loss(outputs, y[:, part], reduction="none").mean(1).sum())
        middle = time.process_time()
        for place in range(5):
            (model,) = build(_Mlp, 10, 1, [place])
            optimiser = torch.optim.AdamW(model.parameters(), lr=0.003)
            for step in range(steps):
                part = torch.arange(step * batch, (step + 1) * batch) % rows
                optimiser.zero_grad()
                outputs = model(x[place, part]).squeeze(-1)
                lossmith.mse_loss(outputs, y[place, part]).backward()
                optimiser.step()
        ratios.append(30 * (time.process_time() - middle) / (middle - start))
    torch.set_num_threads(before)
    print("times faster:", np.round(ratios, 1))
    assert max(ratios) > 10


class _Mlp(nn.Sequential):
    def __init__(self, inputs, outputs, hidden=32):
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Dropping(Plain):
    """Draws on the way."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.body.insert(1, nn.Dropout(0.5))


class DroppingAndLooking(Dropping):
    """Draws on the way, and cannot be run by vmap."""

    def forward(self, x):
        return self.body(x) if float(x.sum().detach()) < 1e9 else -self.body(x)


class DroppingAtLength(Dropping):
    """Draws what it needs itself, in place."""

    def forward(self, x):
        hidden = self.body[0](x)
        return self.body[3](torch.tanh(hidden * torch.empty(8).bernoulli_(0.5)))


def _drawing(factory, seeds):
    initial = build(factory, 4, 1, [3]) * len(seeds)
    rates = torch.full((len(seeds),), 0.01)
    return Stack(initial, rates, 0.0, "adamw", torch.tensor(seeds))


@pytest.mark.parametrize("factory", [Dropping, DroppingAndLooking, DroppingAtLength])
def test_models_of_one_seed_draw_the_same_and_others_do_not(factory):
    seeds = [5, 6, 5, 2**32 - 1, 6]
    x = torch.randn(1, 20, 4).expand(5, -1, -1)
    stack = _drawing(factory, seeds)
    stack.probe(x[:, :2])
    assert (stack.draws, bool(stack.sequential)) == (True, factory is DroppingAndLooking)
    state = torch.get_rng_state()
    first = stack(x).detach()
    assert torch.equal(state, torch.get_rng_state())
    for one in range(5):
        for other in range(one):
            assert torch.equal(first[one], first[other]) == (seeds[one] == seeds[other])
    stack.step(stack(x).sum())
    stack.steps, kept = 0, torch.tensor([1, 2])
    now = stack(x)
    stack.keep(kept)
    assert torch.equal(now[kept], stack(x[kept]))  # whoever is beside
    before = stack(x[kept])
    stack.steps += 1
    assert not torch.equal(before, stack(x[kept]))  # each step draws anew


def test_what_is_drawn_is_the_same_one_by_one():
    x, seeds = torch.randn(3, 20, 4), [5, 6, 5]
    together, apart = _drawing(Dropping, seeds), _drawing(DroppingAndLooking, seeds)
    for stack in (together, apart):
        stack.probe(x[:, :2])
    torch.testing.assert_close(together(x), apart(x))


def test_what_draws_nothing_is_run_at_once():
    stack = Stack(build(Plain, 4, 1, [0, 1]), torch.ones(2), 0.0, "adamw")
    stack.probe(torch.ones(2, 2, 4))
    assert not stack.draws
