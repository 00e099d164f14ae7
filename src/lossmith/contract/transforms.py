"""Laws about derivatives of any order, torch.func, torch.compile, layouts and determinism."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lossmith.contract.cases import Case
from lossmith.contract.registry import check, gradients, same
from lossmith.core.domain import ClassIndex, Interval, Labels


def smooth(case: Case) -> bool:
    """Whether there is a gradient to look at."""
    return case.card.differentiable


def _of_leaves(case: Case, tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """The loss as a function of its differentiable arguments alone."""
    positions = case.differentiable()

    def function(*leaves: Tensor) -> Tensor:
        arguments = list(tensors)
        for position, leaf in zip(positions, leaves, strict=True):
            arguments[position] = leaf
        return case(*arguments)

    return function


def _leaves(case: Case, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensors[i].detach().clone().requires_grad_() for i in case.differentiable())


@check(smooth)
def gradcheck_passes(case: Case) -> None:
    """First derivatives against finite differences in float64, forward mode included."""
    tensors = case.sample(60)
    function, leaves = _of_leaves(case, tensors), _leaves(case, tensors)
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)


@check(smooth)
def gradgradcheck_passes(case: Case) -> None:
    """Second derivatives against finite differences in float64."""
    tensors = case.sample(61)
    function, leaves = _of_leaves(case, tensors), _leaves(case, tensors)
    value = function(*leaves)
    first = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    if not any(g is not None and g.requires_grad for g in first):
        return  # piecewise linear: the second derivative is 0 and cut from the graph
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@check(smooth)
def jvp_equals_vjp(case: Case) -> None:
    """Forward and reverse mode give one directional derivative."""
    tensors = case.sample(62)
    function = _of_leaves(case, tensors)
    leaves = tuple(leaf.detach() for leaf in _leaves(case, tensors))
    generator = torch.Generator().manual_seed(1)
    tangents = tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in leaves)
    value, forward, *_ = torch.func.jvp(function, leaves, tangents)
    value_again, pull, *_ = torch.func.vjp(function, *leaves)
    slopes = pull(torch.ones_like(value))
    terms = torch.cat([(g * t).flatten() for g, t in zip(slopes, tangents, strict=True)])
    same(value, value_again, "value")
    # What the sum leaves may be far smaller than what was added: roundings are those of the terms.
    size = terms.abs().sum().item()
    same(forward, terms.sum(), "directional derivative", factor=64, scale=size)


@check(smooth)
def hessian_is_symmetric_and_agrees(case: Case) -> None:
    """``torch.func.hessian`` equals autograd's, and equals its own transpose."""
    tensors = case.sample(63)
    position = case.differentiable()[0]

    def function(leaf: Tensor) -> Tensor:
        arguments = list(tensors)
        arguments[position] = leaf
        return case(*arguments)

    leaf = tensors[position]
    size = leaf.numel()
    forward = torch.func.hessian(function)(leaf).reshape(size, size)
    reverse = torch.autograd.functional.hessian(function, leaf).reshape(size, size)
    same(forward, reverse, "hessian", factor=1e4)
    same(forward, forward.T, "transposed hessian", factor=1e4)


@check()
def vmap_equals_a_loop(case: Case) -> None:
    """A stack of batches in one call equals the batches one by one, gradient included."""
    stacks = [
        torch.stack(parts) for parts in zip(*(case.sample(s) for s in (64, 65, 66)), strict=True)
    ]
    for reduction in case.card.reductions:
        together = torch.vmap(functools.partial(case, reduction=reduction))(*stacks)
        for index in range(3):
            alone = case(*(s[index] for s in stacks), reduction=reduction)
            same(together[index], alone, f"batch {index}, reduction {reduction}", factor=64)
    if case.card.differentiable:
        position = case.differentiable()[0]
        together = torch.vmap(torch.func.grad(case, argnums=position))(*stacks)
        for index in range(3):
            alone = torch.func.grad(case, argnums=position)(*(s[index] for s in stacks))
            same(together[index], alone, f"gradient of batch {index}", factor=64)


@check(lambda case: case.card.differentiable)
def gradients_come_in_batches(case: Case) -> None:
    """Several incoming gradients at once (``is_grads_batched``) give what each gives alone."""
    for reduction in ("mean", "none"):
        tensors = case.sample(68, grad=True)
        leaves = [tensors[index] for index in case.differentiable()]
        value = case(*tensors, reduction=reduction)
        seeds = torch.stack([torch.ones_like(value), torch.full_like(value, -2.5)])

        slopes = functools.partial(
            torch.autograd.grad, value, leaves, retain_graph=True, allow_unused=True
        )
        all = slopes(seeds, is_grads_batched=True)
        for index, seed in enumerate(seeds):
            for together, alone in zip(all, slopes(seed), strict=True):
                if alone is not None and together is not None:
                    same(together[index], alone, f"gradient {index} of {reduction}", factor=64)


def _compiled(case: Case, backend: str, *counts: int) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(case, fullgraph=True, backend=backend)
    for count in counts:
        tensors = case.sample(67, N=count, grad=True)
        again = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in tensors)
        expected, found = case(*tensors), compiled(*again)
        same(found.detach(), expected.detach(), f"{backend} value at N={count}", factor=64)
        for left, right in zip(
            gradients(case, again, found), gradients(case, tensors, expected), strict=True
        ):
            same(left, right, f"{backend} gradient at N={count}", factor=256)


@check()
def compiles_to_one_graph(case: Case) -> None:
    """``torch.compile(fullgraph=True)``, static and dynamic shapes, through AOTAutograd."""
    _compiled(case, "aot_eager", 3, 5)  # the second size makes the first dimension dynamic


@check(lambda case: bool(refusals(case)), once=True)
def compiled_code_refuses_bad_values(case: Case) -> None:
    """The value checks are part of the graph."""
    torch._dynamo.reset()
    compiled = torch.compile(case, fullgraph=True, backend="aot_eager")
    tensors = [t.clone() for t in case.sample(67)]
    compiled(*tensors)
    position, stranger = refusals(case)[0]
    tensors[position].view(-1)[-1] = stranger
    name = tuple(case.way.tensors)[position]
    try:
        value = compiled(*tensors)
    except RuntimeError as error:
        message = str(error)
    else:
        raise AssertionError(f"{stranger} in {name} gave {value} under compile")
    assert name in message, f"the message does not name {name}: {message}"


def refusals(case: Case) -> list[tuple[int, float]]:
    """Arguments whose values are checked, each with a value outside its domain."""
    found: list[tuple[int, float]] = []
    for position, domain in enumerate(case.way.tensors.values()):
        if isinstance(domain, ClassIndex):
            found.append((position, case.sizes()[domain.classes] + 7))
        elif isinstance(domain, Labels):
            found.append((position, max(domain.values) + 7))
        elif isinstance(domain, Interval) and domain.checks_values:
            below = domain.low > -torch.inf
            found.append((position, domain.low - 7 if below else domain.high + 7))
    return found


@check(slow=True, once=True)
def inductor_agrees(case: Case) -> None:
    """The same with generated code, of one size: each takes a compiler seconds."""
    _compiled(case, "inductor", 3)


@check()
def layouts_do_not_matter(case: Case) -> None:
    """Strided, transposed, offset and channels-last tensors; no argument is modified."""
    tensors = case.sample(68, star=(2, 3))
    before = [t.clone() for t in tensors]
    value = case(*tensors, reduction="none")
    for what, change in (
        ("strided", _strided),
        ("transposed", _transposed),
        ("offset", _offset),
        ("channels-last", _channels_last),
    ):
        changed = tuple(change(t) for t in tensors)
        for index in case.differentiable():
            changed[index].requires_grad_()
        same(case(*changed, reduction="none").detach(), value.detach(), what)
        plain = tuple(t.clone() for t in tensors)
        for index in case.differentiable():
            plain[index].requires_grad_()
        ours = gradients(case, changed, case(*changed))
        theirs = gradients(case, plain, case(*plain))
        for left, right in zip(ours, theirs, strict=True):
            same(left, right, f"gradient of {what}")
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy), "an argument was modified"


def _strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, tensor], -1).detach()[..., 0]


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.detach().T.contiguous().T if tensor.ndim == 2 else _reversed_strides(tensor)


def _reversed_strides(tensor: Tensor) -> Tensor:
    order = tuple(reversed(range(tensor.ndim)))
    return tensor.detach().permute(order).contiguous().permute(order)


def _offset(tensor: Tensor) -> Tensor:
    flat = torch.cat([torch.zeros(3, dtype=tensor.dtype), tensor.detach().flatten()])
    return flat[3:].view(tensor.shape)


def _channels_last(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4:
        return tensor.detach().clone()
    return tensor.detach().contiguous(memory_format=torch.channels_last)


@check()
def runs_are_bitwise_repeatable(case: Case) -> None:
    """Twice the same call, twice the same bits, in deterministic mode too."""
    tensors = case.sample(69, grad=True)
    value = case(*tensors)
    first = gradients(case, tensors, value)
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        again = case(*tensors)
        second = gradients(case, tensors, again)
    finally:
        torch.use_deterministic_algorithms(was)
    assert torch.equal(value, again)
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left, right)


@check(lambda case: not case.card.layered)
def autocast_changes_nothing(case: Case) -> None:
    """Layers compute in half precision under autocast, losses do not.

    The backward pass is outside, where torch wants it.
    """
    tensors = case.sample(68, torch.float32, grad=True)
    value = case(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        again = case(*tensors)
    assert torch.equal(value, again)
    slopes = (gradients(case, tensors, each) for each in (value, again))
    for left, right in zip(*slopes, strict=True):
        assert torch.equal(left, right)


@check()
def autocast_gives_float32(case: Case) -> None:
    """A loss of half precision there has the digits and the range of float32, as torch's have."""
    for dtype in (torch.float16, torch.bfloat16):
        tensors = case.sample(72, dtype, grad=True)
        wide = tuple(t.float() if t.dtype == dtype else t for t in tensors)
        with torch.autocast("cpu", dtype):
            value = case(*tensors)
            expected = case(*wide, **case.options_like(tensors))
        assert value.dtype == torch.float32, f"{dtype} under autocast gives {value.dtype}"
        same(value.detach(), expected.detach(), f"{dtype} under autocast", factor=64)
        for slope in gradients(case, tensors, value):
            assert slope.dtype == dtype, f"a gradient of {dtype} is {slope.dtype}"


@check()
def every_float_dtype_works(case: Case) -> None:
    """float16, bfloat16, float32, float64: the result has the dtype of the first argument."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        tensors = case.sample(70, dtype, grad=True)
        for reduction in case.card.reductions:
            value = case(*tensors, reduction=reduction)
            assert value.dtype is dtype, f"{reduction} of {dtype} is {value.dtype}"
            for gradient in gradients(case, tensors, value.sum()):
                assert gradient.dtype is dtype
                assert gradient.isfinite().all()


@check(smooth)
def partial_gradients_agree(case: Case) -> None:
    """Asking for one argument's gradient alone gives the same as asking for all."""
    tensors = case.sample(71, grad=True)
    everything = gradients(case, tensors, case(*tensors))
    for number, position in enumerate(case.differentiable()):
        alone = tuple(
            t.detach().clone().requires_grad_(i == position) for i, t in enumerate(tensors)
        )
        value = case(*alone)
        if not value.requires_grad:
            assert (everything[number] == 0).all()
            continue
        (gradient,) = torch.autograd.grad(value, alone[position], allow_unused=True)
        found = torch.zeros_like(alone[position]) if gradient is None else gradient
        same(found, everything[number], "gradient alone")
