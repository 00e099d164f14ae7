"""The tests of the tests: every law refuses a loss that breaks it, and accepts an honest one."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import lossmith as lm
from lossmith.contract import ContractError, check_loss
from lossmith.contract.api import pairs
from lossmith.contract.cases import Case
from lossmith.contract.registry import CHECKS
from lossmith.core import catalogue
from lossmith.core.card import Card, Point
from lossmith.core.domain import CLASS, NONNEGATIVE, POSITIVE, REAL, SIGN, Whole
from lossmith.core.loss import REGISTRY, loss
from lossmith.core.module import MODULES, Loss
from lossmith.core.numerics import class_nll, safe_norm
from lossmith.core.signature import Signature, elementwise

LAW = {law.name: law for law in CHECKS}


@loss(
    Card(
        task="regression",
        coupling="element",
        formula="s r^2",
        signatures=elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 2.0}, {"scale": 0.5}),
        exact=lambda mp, x, y, scale=1.0: scale * (x - y) ** 2,
        points=(Point(1.0, 0.0, value=1.0, gradient=2.0),) * 3,
        convex=True,
        symmetric=True,
        zero_at_target=True,
        same_as="torch.nn.functional.mse_loss",
        use_when="an honest loss is needed",
        avoid_when="it is not",
        source="Legendre 1805, Nouvelles methodes pour la determination des orbites (Courcier)",
    )
)
def honest_loss(input, target, *, scale=1.0, sample_weight=None, reduction="mean"):
    """Scaled squared error.

    Args:
        input: Output.
        target: Target.
        scale: Factor.
        sample_weight: Weights.
        reduction: Reduction.

    Returns:
        A tensor.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> 1 + 1
        2
    """
    return scale * (input - target) ** 2


class HonestLoss(Loss):
    """Module form."""

    scale: float = 1.0
    function = staticmethod(honest_loss)


@loss(
    Card(
        task="multiclass",
        coupling="row",
        formula="-log p",
        signatures=(Signature(input=REAL("N C"), target=CLASS("N"), out="N"),),
        options={"ignore_index": Whole()},
        gradient_bound=1.0,
        use_when="an honest row loss is needed",
        avoid_when="it is not",
        source="Good 1952",
    )
)
def honest_row_loss(input, target, *, ignore_index=-100, sample_weight=None, reduction="mean"):
    """Cross-entropy."""
    return class_nll(input, target)


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula="|a - b|",
        signatures=(Signature(input=REAL("N D"), target=REAL("N D"), out="N"),),
        use_when="an honest distance is needed",
        avoid_when="it is not",
        source="Euclid 1900",
    )
)
def honest_distance_loss(input, target, *, sample_weight=None, reduction="mean"):
    """Distance."""
    return safe_norm(input - target)


@loss(
    Card(
        task="binary",
        coupling="element",
        formula="|x - y|",
        signatures=elementwise(input=REAL, target=SIGN),
        exact=lambda mp, x, y: abs(x - y),
        use_when="honest labels are needed",
        avoid_when="they are not",
        source="Nobody 1900",
    )
)
def honest_label_loss(input, target, *, sample_weight=None, reduction="mean"):
    """Distance to a label."""
    return (input - target).abs()


for honest in ("honest_loss", "honest_row_loss", "honest_distance_loss", "honest_label_loss"):
    REGISTRY.pop(honest)  # the catalogue is for real losses


def broken(card: Card, function: Callable[..., Any], **claims: Any) -> Case:
    """A case whose function replaces the honest one; the signature stays."""
    original = card.function
    wrapped = functools.wraps(original)(lambda *t, **o: function(original, *t, **o))
    return Case(replace(card, function=wrapped, **claims), card.signatures[0], {})


BASE, ROW = honest_loss.card, honest_row_loss.card
DISTANCE, LABEL = honest_distance_loss.card, honest_label_loss.card
LOGIT = catalogue.card("binary_cross_entropy_with_logits")


def lenient(original, *tensors, sample_weight=None, reduction="mean", **options):
    """What one writes in an afternoon: no checks, no weights, broadcasting."""
    value = (torch.as_tensor(tensors[0]) - torch.as_tensor(tensors[1])) ** 2
    return value if reduction == "none" else value.sum() if reduction == "sum" else value.mean()


def cancelling(original, input, target, **options):
    return torch.nn.functional.softplus(input) - input * target


def cut(original, input, target, **options):
    return original(input.detach(), target, **options)


def half_gradient(original, input, target, **options):
    return 0.5 * original(input, target, **options) + 0.5 * original(
        input.detach(), target.detach(), **options
    )


class _OneWay(torch.autograd.Function):
    """A right gradient that cannot be differentiated again, nor forward."""

    @staticmethod
    def forward(ctx, input, target):
        ctx.save_for_backward(input, target)
        return ((input - target) ** 2).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        input, target = ctx.saved_tensors
        pull = 2 * (input - target) / input.numel() * grad
        return pull, -pull


class _WrongSecond(torch.autograd.Function):
    """A right gradient whose own derivative is wrong."""

    @staticmethod
    def forward(ctx, input, target):
        ctx.save_for_backward(input, target)
        return ((input - target) ** 2).mean()

    @staticmethod
    def backward(ctx, grad):
        input, target = ctx.saved_tensors
        pull = 2 * (input - target).detach() / input.numel() * grad + 0 * input
        return pull, -pull


def one_way(original, input, target, **options):
    return _OneWay.apply(input, target)


def wrong_second(original, input, target, **options):
    return _WrongSecond.apply(input, target)


class _Looks(torch.autograd.Function):
    """A right value whose gradient is looked at, as that of a batch cannot be."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad if grad.ndim or grad.item() == 1 else 1 * grad


def steered_by_values(original, input, target, **options):
    value = original(input, target, **options)
    return value if input.sum().item() > -1e9 else -value


def modifies(original, input, target, **options):
    value = original(input, target, **options)
    with torch.no_grad():
        input.add_(1)
    return value


def random_part(original, input, target, **options):
    return original(input, target, **options) * (1 + 1e-9 * torch.rand((), dtype=torch.float64))


def widened(original, input, target, **options):
    return original(input, target, **options).double()


def multiplied(original, input, target, **options):
    product = input.unsqueeze(-1) @ input.new_ones(1, 1)  # autocast would round it
    return original(product.squeeze(-1).to(input), target, **options)


def no_nan(original, input, target, **options):
    return original(input.nan_to_num(), target, **options)


def centred(original, input, target, **options):
    return original(input - input.mean(), target, **options)


def unchecked_under_compile(original, input, target, **options):
    if torch.compiler.is_compiling():
        return (input - target).abs().mean()
    return original(input, target, **options)


def wrong_under_compile(original, input, target, **options):
    value = original(input, target, **options)
    return 2 * value if torch.compiler.is_compiling() else value


def asymmetric_gradient(original, input, target, **options):
    """Right only when both arguments want a gradient."""
    if input.requires_grad and target.requires_grad:
        return original(input, target, **options)
    return original(input, target, **options) * 3


def sums_in_half(original, input, target, *, reduction="mean", **options):
    each = original(input, target, reduction="none", **options)
    if reduction == "none" or input.dtype not in (torch.float16, torch.bfloat16):
        return original(input, target, reduction=reduction, **options)
    total = each.cumsum(0)[-1]
    return total.sum() if reduction == "sum" else total.sum() / each.numel()


def ignored_but_weighed(original, input, target, *, ignore_index=-100, reduction="mean", **options):
    """The classic: the ignored rows are masked after the loss, and still counted by the mean."""
    each = class_nll(input, target.clamp(0, input.shape[1] - 1))
    each = torch.where(target == ignore_index, 0.0, each)
    return each.mean() if reduction == "mean" else each


def transposed_only(original, input, target, **options):
    scale = 1.0 if input.is_contiguous() else 2.0
    return original(input, target, **options) * scale


def naive_norm(original, input, target, *, reduction="mean", **options):
    value = ((input - target) ** 2).sum(-1).sqrt()
    return value.mean() if reduction == "mean" else value


def overflowing(original, input, target, *, reduction="mean", **options):
    value = torch.log(torch.exp((input - target) ** 2))
    return value.mean() if reduction == "mean" else value


def named(name: str) -> Callable[..., Any]:
    def function(input, target, *, scale=1.0, sample_weight=None, reduction="mean"):
        """Computes a thing."""

    function.__name__ = name
    return function


def with_function(function: Callable[..., Any], **claims: Any) -> Case:
    return Case(replace(BASE, function=function, **claims), BASE.signatures[0], {})


def _module_case(module: type[Loss]) -> Case:
    MODULES["honest_loss"] = module
    return Case(BASE, BASE.signatures[0], {})


def module_with_other_default() -> Case:
    class OtherLoss(Loss):
        """Another default."""

        scale: float = 3.0
        function = staticmethod(honest_loss)

    return _module_case(OtherLoss)


def module_that_forgets() -> Case:
    class ForgetfulLoss(Loss):
        """Computes something else."""

        scale: float = 1.0
        function = staticmethod(honest_loss)

        def forward(self, *tensors, **options):
            return 2 * super().forward(*tensors, **options)

    return _module_case(ForgetfulLoss)


def module_that_looks() -> Case:
    class LookingLoss(Loss):
        """Depends on a value."""

        scale: float = 1.0
        function = staticmethod(honest_loss)

        def forward(self, *tensors, **options):
            value = super().forward(*tensors, **options)
            return value if tensors[0].sum() > -1e9 else -value

    return _module_case(LookingLoss)


def module_with_parameter() -> Case:
    class HeavyLoss(Loss):
        """Adds a parameter."""

        scale: float = 1.0
        function = staticmethod(honest_loss)

        def _check(self):
            self.extra = torch.nn.Parameter(torch.ones(1))

    return _module_case(HeavyLoss)


def module_that_takes_anything() -> Case:
    class OpenLoss(HonestLoss):
        """Accepts every keyword."""

        def __new__(cls, **fields):
            return HonestLoss()

    return _module_case(OpenLoss)


def unsummed(original, *tensors, reduction="mean", **options):
    value = original(*tensors, reduction=reduction, **options)
    return value * 2 if reduction == "sum" else value


def divides_by_count(original, input, target, *, sample_weight=None, reduction="mean", **options):
    each = original(input, target, reduction="none", **options)
    if sample_weight is not None:
        each = each * sample_weight
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def nan_over_nothing(original, input, target, *, sample_weight=None, reduction="mean", **options):
    if sample_weight is None and input.numel():
        return original(input, target, reduction=reduction, **options)
    each = original(input, target, reduction="none", **options)
    each = each if sample_weight is None else each * sample_weight
    total = each.numel() if sample_weight is None else sample_weight.sum()
    return each.sum() / total if reduction == "mean" else each


def constant_gradient_scale(original, *tensors, **options):
    value = original(*tensors, **options)
    value.requires_grad and value.register_hook(lambda grad: torch.ones_like(grad))
    return value


PLANTED: dict[str, Callable[[], Case]] = {
    "points_of_the_card_hold": lambda: broken(BASE, lambda f, *t, **o: 2 * f(*t, **o)),
    "values_are_exact": lambda: broken(BASE, lambda f, *t, **o: f(*t, **o) * (1 + 1e-5)),
    "gradients_are_exact": lambda: broken(BASE, half_gradient),
    "value_and_gradient_are_finite_over_the_domain": lambda: broken(BASE, overflowing),
    "value_and_gradient_are_finite_at_every_scale": lambda: broken(DISTANCE, naive_norm),
    "infinite_logits_reach_the_limit": lambda: broken(LOGIT, cancelling),
    "gradient_is_finite_where_arguments_coincide": lambda: broken(DISTANCE, naive_norm),
    "loss_is_convex": lambda: broken(BASE, lambda f, *t, **o: f(*t, **o).log1p()),
    "loss_is_symmetric": lambda: broken(BASE, lambda f, x, y, **o: f(x, y, **o) + x),
    "loss_is_zero_at_the_target": lambda: broken(BASE, lambda f, *t, **o: f(*t, **o) + 1e-6),
    "loss_is_never_negative": lambda: broken(BASE, lambda f, *t, **o: f(*t, **o) - 0.01),
    "loss_can_be_negative_as_the_card_says": lambda: Case(
        replace(BASE, nonnegative=False), BASE.signatures[0], {}
    ),
    "gradient_bound_holds_and_is_tight": lambda: Case(
        replace(ROW, gradient_bound=2.0), ROW.signatures[0], {}
    ),
    "loss_equals_its_twin": lambda: broken(BASE, lambda f, *t, **o: 0.5 * f(*t, **o)),
    "half_precision_is_no_worse_than_the_twin": lambda: broken(
        BASE, lambda f, *t, **o: f(*t, **o) * (1 + 1e-2)
    ),
    "reductions_agree": lambda: broken(BASE, unsummed),
    "weighted_mean_divides_by_the_sum_of_the_weights": lambda: broken(BASE, divides_by_count),
    "weight_zero_means_absent": lambda: broken(BASE, divides_by_count),
    "weight_two_is_repetition": lambda: broken(BASE, divides_by_count),
    "empty_batch_gives_zero": lambda: broken(BASE, nan_over_nothing),
    "all_weights_zero_gives_zero": lambda: broken(BASE, nan_over_nothing),
    "ignoring_equals_removing": lambda: broken(ROW, ignored_but_weighed),
    "grad_output_is_honoured": lambda: broken(BASE, constant_gradient_scale),
    "sample_does_not_depend_on_its_batch_mates": lambda: broken(BASE, centred),
    "nan_stays_visible_in_its_own_sample": lambda: broken(BASE, no_nan),
    "half_precision_sums_do_not_overflow": lambda: broken(BASE, sums_in_half),
    "shapes_that_do_not_fit_are_refused": lambda: broken(BASE, lenient),
    "wrong_types_are_refused": lambda: broken(BASE, lenient),
    "values_outside_the_domain_are_refused": lambda: broken(LABEL, lenient),
    "options_outside_their_range_are_refused": lambda: broken(BASE, lenient),
    "reductions_and_weights_are_checked": lambda: broken(BASE, lenient),
    "surplus_arguments_are_refused": lambda: broken(
        BASE, lambda f, *t, no_such_option=None, **o: f(*t, **o)
    ),
    "tensors_go_by_keyword_too": lambda: broken(BASE, lambda f, *t, **o: f(t[0], t[1], **o)),
    "options_have_rules": lambda: Case(replace(BASE, options={}), BASE.signatures[0], {}),
    "learned_options_have_their_gradient": lambda: broken(
        BASE, lambda f, *t, **o: f(*t, **{**o, "scale": float(o.get("scale", 1.0))})
    ),
    "gradcheck_passes": lambda: broken(BASE, half_gradient),
    "gradgradcheck_passes": lambda: broken(BASE, wrong_second),
    "jvp_equals_vjp": lambda: broken(BASE, one_way),
    "hessian_is_symmetric_and_agrees": lambda: broken(BASE, one_way),
    "gradients_come_in_batches": lambda: broken(BASE, lambda f, *t, **o: _Looks.apply(f(*t, **o))),
    "vmap_equals_a_loop": lambda: broken(BASE, steered_by_values),
    "compiles_to_one_graph": lambda: broken(BASE, steered_by_values),
    "compiled_code_refuses_bad_values": lambda: broken(LABEL, unchecked_under_compile),
    "inductor_agrees": lambda: broken(BASE, wrong_under_compile),
    "layouts_do_not_matter": lambda: broken(BASE, transposed_only),
    "runs_are_bitwise_repeatable": lambda: broken(BASE, random_part),
    "every_float_dtype_works": lambda: broken(BASE, widened),
    "autocast_changes_nothing": lambda: broken(BASE, multiplied),
    "autocast_gives_float32": lambda: broken(BASE, lambda f, *t, **o: f(*t, **o).to(t[0].dtype)),
    "partial_gradients_agree": lambda: broken(BASE, asymmetric_gradient),
    "defaults_may_be_named": lambda: broken(
        BASE, lambda f, *t, **o: f(*t, **o) + 0 if "scale" in o else f(*t, **o)
    ),
    "module_equals_function": module_that_forgets,
    "module_fields_are_the_keywords": module_with_other_default,
    "module_compiles_to_one_graph": module_that_looks,
    "module_survives_pickle_copy_and_state_dict": module_with_parameter,
    "module_refuses_unknown_fields": module_that_takes_anything,
    "card_is_complete": lambda: Case(replace(BASE, source="a blog"), BASE.signatures[0], {}),
    "docstring_is_complete": lambda: with_function(named("x_loss")),
    "names_follow_the_rules": lambda: with_function(named("x"), name="x"),
}


@pytest.fixture(autouse=True)
def _own_module() -> Iterator[None]:
    MODULES["honest_loss"] = HonestLoss
    yield
    MODULES["honest_loss"] = HonestLoss


def test_every_law_has_a_planted_bug() -> None:
    assert set(PLANTED) == set(LAW)


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_law_refuses_its_planted_bug(name: str) -> None:
    case = PLANTED[name]()
    assert LAW[name].applies(case), f"{name} does not even look at the planted bug"
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any failure of the law will do
        LAW[name].run(case)
    assert not isinstance(caught.value, (NameError, ImportError)), "the bug is in this test"


@pytest.mark.parametrize("name", sorted(set(LAW) - {"inductor_agrees"}))
def test_law_accepts_an_honest_loss(name: str) -> None:
    law = LAW[name]
    for card in (BASE, ROW, DISTANCE, LABEL):
        case = Case(card, card.signatures[0], {})
        documented = name in ("docstring_is_complete", "card_is_complete")
        if law.applies(case) and not (documented and card is not BASE):
            law.run(case)


def test_check_loss_lists_every_broken_law_of_a_plain_function() -> None:
    card = replace(BASE, function=None, name="", same_as=None, options={}, variants=())

    def wrong_loss(input, target, *, sample_weight=None, reduction="mean"):
        """Off by one part in a thousand."""
        return (input - target) ** 2 * 1.001

    with pytest.raises(ContractError) as caught:
        check_loss(wrong_loss, card)
    text = str(caught.value)
    REGISTRY.pop("wrong_loss")
    assert "values_are_exact" in text
    assert "points_of_the_card_hold" in text
    assert "gradcheck_passes" not in text


def test_check_loss_names_what_is_no_card() -> None:
    with pytest.raises(TypeError, match="card must be a Card or None, got str 'huber'"):
        check_loss(lm.huber_loss, "huber")


def test_check_loss_asks_for_a_card() -> None:
    with pytest.raises(TypeError, match="card must be given"):
        check_loss(lambda input, target: input)


def test_nonnegative_domain_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be >= 0, got nan"):
        NONNEGATIVE.check_tensor("x", torch.tensor([1.0, math.nan]), {})
    assert inspect.signature(honest_loss).parameters["scale"].default == 1.0
    assert len(list(pairs(BASE))) > 40
