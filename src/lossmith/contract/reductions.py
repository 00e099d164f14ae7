"""Laws about reductions, weights, absent samples and empty batches."""

import math

import torch
from torch import Tensor

from lossmith.contract.cases import Case
from lossmith.contract.registry import check, gradients, same
from lossmith.core.domain import UNIT, Interval


def weights(case: Case, tensors: tuple[Tensor, ...]) -> Tensor:
    """Positive weights for the unreduced loss."""
    shape = case.way.out_shape(tensors, case.way.sizes(tensors))
    generator = torch.Generator().manual_seed(11)
    return 0.25 + torch.rand(shape, generator=generator, dtype=torch.float64)


def plain_mean(case: Case) -> bool:
    """Whether the mean is that of the unreduced values, divided by nothing else."""
    return case.card.plain_mean and case.options.get("weight") is None


@check(plain_mean)
def reductions_agree(case: Case) -> None:
    """Sum and mean are those of the unreduced loss."""
    tensors = case.sample(20)
    each = case(*tensors, reduction="none")
    expected = case.way.out_shape(tensors, case.way.sizes(tensors))
    assert tuple(each.shape) == expected, f"unreduced shape {tuple(each.shape)}, card {expected}"
    same(case(*tensors, reduction="sum"), each.sum(), "sum")
    same(case(*tensors, reduction="mean"), each.mean(), "mean")
    same(case(*tensors), case(*tensors, reduction="mean"), "default reduction")


@check(lambda case: case.separable and plain_mean(case))
def weighted_mean_divides_by_the_sum_of_the_weights(case: Case) -> None:
    """The mean is sum(w l) / sum(w), the sum is sum(w l), and "none" gives w l."""
    tensors = case.sample(21)
    weight = weights(case, tensors)
    each = case(*tensors, reduction="none")
    same(case(*tensors, sample_weight=weight, reduction="none"), weight * each, "none")
    same(case(*tensors, sample_weight=weight, reduction="sum"), (weight * each).sum(), "sum")
    mean = (weight * each).sum() / weight.sum()
    same(case(*tensors, sample_weight=weight), mean, "mean")


@check(lambda case: case.batched)
def weight_zero_means_absent(case: Case) -> None:
    """Value and gradient equal those without the sample, though NaN stands in its place."""
    keep = torch.tensor([0, 2])
    for reduction in case.card.reductions:
        if reduction == "none":
            continue
        tensors = case.sample(22)
        weight = weights(case, tensors)
        weight[1] = 0
        spoiled = tuple(_spoil(case, tensors, position) for position in range(len(tensors)))
        for index in case.differentiable():
            spoiled[index].requires_grad_()
        few = tuple(_rows(case, t, p, keep) for p, t in enumerate(tensors))
        for index in case.differentiable():
            few[index].requires_grad_()
        value = case(*spoiled, sample_weight=weight, reduction=reduction)
        expected = case(*few, sample_weight=weight[keep], reduction=reduction)
        same(value.detach(), expected.detach(), f"{reduction} without the absent sample")
        ours = gradients(case, spoiled, value)
        theirs = gradients(case, few, expected)
        for position, left, right in zip(case.differentiable(), ours, theirs, strict=True):
            if _axis(case, position) is None:
                same(left, right, "gradient of a shared argument")
                continue
            same(_rows(case, left, position, keep), right, "gradient of the present samples")
            gone = _rows(case, left, position, torch.tensor([1]))
            assert (gone == 0).all(), f"gradient at the absent sample is {gone}"


def _axis(case: Case, position: int) -> int | None:
    """The dimension of an argument that the first dimension of the output runs along."""
    dims = tuple(case.way.tensors.values())[position].dims
    first = case.way.out[0]
    if first not in dims:
        return None
    return dims.index(first)


def _rows(case: Case, tensor: Tensor, position: int, keep: Tensor) -> Tensor:
    axis = _axis(case, position)
    return tensor if axis is None else tensor.index_select(axis, keep).detach().clone()


def _spoil(case: Case, tensors: tuple[Tensor, ...], position: int) -> Tensor:
    axis, tensor = _axis(case, position), tensors[position].clone()
    if axis is None:
        return tensor
    row = tensor.select(axis, 1)
    row.fill_(math.nan if tensor.is_floating_point() else 0)
    return tensor


@check(lambda case: case.separable and case.batched and plain_mean(case))
def weight_two_is_repetition(case: Case) -> None:
    """A sample of weight 2 counts like the sample given twice."""
    tensors = case.sample(23)
    weight = torch.ones_like(weights(case, tensors))
    weight[0] = 2
    order = torch.tensor([0, 0, 1, 2])[: tensors_length(case, tensors) + 1]
    twice = tuple(_rows(case, t, p, order) for p, t in enumerate(tensors))
    for reduction in ("mean", "sum"):
        same(
            case(*tensors, sample_weight=weight, reduction=reduction),
            case(*twice, reduction=reduction),
            f"{reduction} with a repeated sample",
        )


def tensors_length(case: Case, tensors: tuple[Tensor, ...]) -> int:
    """Number of samples along the first dimension of the output."""
    for position, tensor in enumerate(tensors):
        axis = _axis(case, position)
        if axis is not None:
            return tensor.shape[axis]
    return 0


@check(lambda case: case.batched)
def empty_batch_gives_zero(case: Case) -> None:
    """No samples: 0, connected, with a gradient of zeros (torch gives NaN)."""
    none = torch.tensor([], dtype=torch.int64)
    tensors = tuple(_rows(case, t, p, none) for p, t in enumerate(case.sample(24)))
    for index in case.differentiable():
        tensors[index].requires_grad_()
    for reduction in case.card.reductions:
        value = case(*tensors, reduction=reduction)
        total = value.sum()
        assert total.item() == 0, f"{reduction} over nothing is {total.item()}"
        if case.card.differentiable:
            assert value.requires_grad, f"{reduction} over nothing is cut from the graph"
            for gradient in gradients(case, tensors, total):
                assert (gradient == 0).all()


@check(lambda case: case.batched)
def all_weights_zero_gives_zero(case: Case) -> None:
    """Every sample absent: 0 with zero gradient."""
    tensors = case.sample(25, torch.float32, grad=True)
    value = case(*tensors, sample_weight=torch.zeros_like(weights(case, tensors)))
    assert value.item() == 0, f"mean over absent samples is {value.item()}"
    for gradient in gradients(case, tensors, value):
        assert (gradient == 0).all(), f"gradient over absent samples is {gradient}"


def _ignores(case: Case) -> bool:
    import inspect

    assert case.card.function is not None
    takes = "ignore_index" in inspect.signature(case.card.function).parameters
    return takes and case.way.label is not None and case.batched


@check(_ignores)
def ignoring_equals_removing(case: Case) -> None:
    """Rows labelled ``ignore_index`` are as if they were not there, even rows of NaN and -inf."""
    assert case.way.label is not None
    _, label, _ = case.way.label
    keep = torch.tensor([0, 2])
    for ignore_index in (-100, 255, 0):
        for spoiler in (math.nan, -math.inf, math.inf):
            tensors = [t.clone() for t in case.sample(26)]
            target = tensors[label]
            if ignore_index == 0:
                target.clamp_(min=1)
            few = tuple(_rows(case, t, p, keep) for p, t in enumerate(tensors))
            few[0].requires_grad_()
            target[1] = ignore_index
            tensors[0][1] = spoiler
            tensors[0].requires_grad_()
            value = case(*tensors, ignore_index=ignore_index)
            expected = case(*few, ignore_index=ignore_index)
            same(
                value.detach(), expected.detach(), f"ignore_index {ignore_index}, {spoiler} behind"
            )
            (gradient,) = torch.autograd.grad(value, tensors[0])
            (other,) = torch.autograd.grad(expected, few[0])
            same(gradient[keep], other, "gradient of the others")
            assert (gradient[1] == 0).all(), "the ignored row has a gradient"
    target = torch.full_like(case.sample(26)[label], -100)
    tensors = [t.clone() for t in case.sample(26)]
    tensors[label] = target
    tensors[0].requires_grad_()
    value = case(*tensors)
    assert value.item() == 0, f"mean over ignored samples is {value.item()}"
    (gradient,) = torch.autograd.grad(value, tensors[0])
    assert (gradient == 0).all()


@check(lambda case: case.card.differentiable)
def grad_output_is_honoured(case: Case) -> None:
    """Scaling the loss scales the gradient, for every reduction; by 4, as nothing rounds then."""
    for reduction in case.card.reductions:
        tensors = case.sample(27, grad=True)
        value = case(*tensors, reduction=reduction)
        once = gradients(case, tensors, value.sum())
        value = case(*tensors, reduction=reduction)
        scaled = gradients(case, tensors, (value * -4.0).sum())
        for left, right in zip(scaled, once, strict=True):
            same(left, -4.0 * right, f"gradient of -4 x {reduction}")


@check(lambda case: case.separable and case.batched)
def sample_does_not_depend_on_its_batch_mates(case: Case) -> None:
    """Alone or in company, a sample has the same loss."""
    tensors = case.sample(28)
    together = case(*tensors, reduction="none")
    alone = tuple(_rows(case, t, p, torch.tensor([1])) for p, t in enumerate(tensors))
    same(case(*alone, reduction="none")[0], together[1], "the sample alone")


@check(lambda case: case.separable and case.batched)
def nan_stays_visible_in_its_own_sample(case: Case) -> None:
    """A NaN input gives a NaN loss there and nowhere else."""
    tensors = [t.clone() for t in case.sample(29)]
    clean = case(*tensors, reduction="none")
    domain = next(iter(case.way.tensors.values()))
    if isinstance(domain, Interval) and domain.checks_values:
        return  # the range check refuses NaN there
    axis = _axis(case, 0)
    if axis is None:
        return
    tensors[0].select(axis, 1).fill_(math.nan)
    value = case(*tensors, reduction="none")
    assert value[1].isnan().all(), f"NaN input gives {value[1]}"
    others = torch.tensor([0, 2])
    same(value[others], clean[others], "the other samples")
    names = [each.name for each in case.way.tensors.values()]
    for side in (0.0, 1.0) if names[1:2] == [UNIT.name] else ():  # what one hides, the other shows
        tensors[1].select(axis, 1).fill_(side)
        value = case(*tensors, reduction="none")[1]
        assert value.isnan().all(), f"NaN input gives {value} for a target of {side}"


@check(lambda case: case.separable and case.batched)
def half_precision_sums_do_not_overflow(case: Case) -> None:
    """A mean over many float16 samples is as finite as each of them."""
    tensors = case.sample(30, torch.float16)
    many = torch.arange(40_000) % 3
    crowd = tuple(_rows(case, t, p, many) for p, t in enumerate(tensors))
    value = case(*crowd)
    assert value.dtype == torch.float16, f"dtype {value.dtype}"
    assert value.isfinite(), f"mean over 40,000 float16 samples is {value.item()}"
