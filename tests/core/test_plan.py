"""What is decided once for each kind of call: no two are taken for one, and nothing is kept."""

import gc
import weakref

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core.card import Card
from lossmith.core.domain import REAL
from lossmith.core.loss import build
from lossmith.core.plan import same
from lossmith.core.signature import elementwise


def test_numbers_are_the_same_by_value_and_flags_are_no_numbers() -> None:
    assert same(0, 0.0)
    assert same(-100, -100)
    assert same(None, None)
    assert not same(1, True)
    assert not same(True, 1.0)
    assert not same(0.0, None)
    assert not same("none", None)


@pytest.mark.parametrize("named", [{}, {"label_smoothing": 0}, {"label_smoothing": 0.0}])
@pytest.mark.parametrize("module", [False, True])
def test_options_at_their_defaults_keep_the_quick_way(named, module) -> None:
    logits, index = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    loss = lm.CrossEntropyLoss(**named) if module else lm.cross_entropy
    value = loss(logits, index, **({} if module else named))
    assert "NllLoss" in value.grad_fn.name()


def test_a_subclass_of_tensor_is_another_kind() -> None:
    called: set[str] = set()

    class Marked(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            called.add(function.__name__)
            return super().__torch_function__(function, types, args, kwargs or {})

    logits, index = torch.randn(8, 10), torch.arange(8)
    expected = lm.cross_entropy(logits, index)
    value = lm.cross_entropy(logits.as_subclass(Marked), index)
    torch.testing.assert_close(value.as_subclass(Tensor), expected)
    assert called
    assert "cross_entropy_loss" not in called


def test_a_wrong_type_that_equals_the_default_is_refused() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match="ignore_index"):
            lm.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), ignore_index=-100.0)
    with pytest.raises(TypeError, match="ignore_index"):
        lm.CrossEntropyLoss(ignore_index=-100.0)


def test_a_label_outside_is_refused_each_time() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="target must be a class index"):
            lm.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 3]))
        assert lm.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 2])) > 1


def test_no_function_is_kept_alive() -> None:
    a = torch.randn(3, 4)

    def distance() -> tuple[object, weakref.ref]:
        large = torch.zeros(100)

        def apart(left: Tensor, right: Tensor) -> Tensor:
            return (left - right).abs().sum(-1) + large.sum()

        return apart, weakref.ref(large)

    function, large = distance()
    for _ in range(2):
        lm.triplet_margin_with_distance_loss(a, a + 1, a - 1, distance_function=function)
    del function
    gc.collect()
    assert large() is None


def test_options_of_a_loss_that_takes_any() -> None:
    def powered(input, target, *, sample_weight=None, reduction="mean", **options):
        return (input - target) ** 2 * options.get("k", 1.0)

    signatures = elementwise(input=REAL, target=REAL)
    words = {"use_when": "a test", "avoid_when": "anything else", "source": "no paper"}
    card = Card(
        task="regression", coupling="element", formula="k r^2", signatures=signatures,
        options={"k": REAL}, exact=lambda mp, x, y, k=1.0: k * (x - y) ** 2, **words,
    )  # fmt: skip
    value = build(card, powered)(torch.ones(3), torch.zeros(3), k=2.0)
    assert value == 2
