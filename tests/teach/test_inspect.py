"""Each remark of ``inspect``: a call that deserves it, and a near neighbour that does not."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import lossmith
from lossmith.core.card import Card
from lossmith.core.domain import BINARY, CLASS, LOG_PROBABILITIES, NONNEGATIVE, REAL, SIGN
from lossmith.core.loss import REGISTRY
from lossmith.core.signature import Signature, elementwise

ADVICE: dict[str, Any] = {"use_when": "a test", "avoid_when": "else", "source": "none"}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def element(link: str, **tensors: Any) -> Card:
    return Card(
        task="regression",
        coupling="element",
        formula="f",
        signatures=elementwise(**tensors),
        link=link,
        **ADVICE,
    )


@pytest.fixture(autouse=True)
def losses() -> Iterator[None]:
    """A loss for each format of the target, away from the catalogue once the test is over."""
    log = Signature(out="N", input=LOG_PROBABILITIES("N C"), target=CLASS("N"))
    row = Card(task="multiclass", coupling="row", formula="f", signatures=(log,), **ADVICE)
    lossmith.cards()  # loaded before the patch, so that they stay when it is undone
    with patch.dict(REGISTRY):

        @lossmith.loss(element("identity", input=REAL, target=REAL))
        def square_loss(input, target, *, sample_weight=None, reduction="mean"):
            return (input - target) ** 2

        @lossmith.loss(element("log", input=REAL, target=NONNEGATIVE))
        def count_loss(input, target, *, sample_weight=None, reduction="mean"):
            return input.exp() - target * input

        @lossmith.loss(element("none", input=REAL, target=SIGN))
        def sign_loss(input, target, *, sample_weight=None, reduction="mean"):
            return (1 - input * target).clamp_min(0)

        @lossmith.loss(element("logit", input=REAL, target=BINARY))
        def binary_loss(input, target, *, sample_weight=None, reduction="mean"):
            return torch.nn.functional.softplus(input) - input * target

        @lossmith.loss(row)
        def log_loss(input, target, *, sample_weight=None, reduction="mean"):
            return -input.gather(1, target.unsqueeze(1)).squeeze(1)

        yield


def codes(loss: str, *tensors: Tensor, **options: Any) -> set[str]:
    return {finding.code for finding in lossmith.inspect(loss, *tensors, **options)}


ONE_FAR = torch.cat([torch.full((199,), 0.1), torch.tensor([1000.0])])
LOGITS = noise(4, 3)
FIRST = torch.tensor([0, 1, 2, 0])
EVEN = torch.arange(40) % 2
RARE = (torch.arange(40) == 0).long()

PAIRS = [
    # code, loss, tensors that deserve it, tensors that do not
    ("nan", "square_loss", (torch.tensor([torch.nan, 1]), noise(2)), (noise(2), noise(2))),
    ("inf", "square_loss", (noise(2), torch.tensor([torch.inf, 1])), (noise(2), noise(2))),
    ("broadcast", "square_loss", (noise(4), noise(4, 1)), (noise(4, 1), noise(4, 1))),
    ("broadcast", "square_loss", (noise(4), noise(4, 1)), (noise(4), noise(3))),
    (
        "probabilities",
        "cross_entropy",
        (LOGITS.softmax(1), FIRST),
        (LOGITS.sigmoid(), FIRST),  # in [0, 1], but the rows do not add up
    ),
    ("probabilities", "binary_loss", (noise(9).sigmoid(), RARE[:9]), (noise(9), RARE[:9])),
    (
        "not_log_probabilities",
        "log_loss",
        (LOGITS, FIRST),
        (LOGITS.log_softmax(1).half(), FIRST),
    ),
    ("zero_one_labels", "sign_loss", (noise(40), EVEN), (noise(40), 2 * EVEN - 1)),
    ("sign_labels", "binary_loss", (noise(40), 2 * EVEN - 1), (noise(40), EVEN)),
    ("one_hot", "log_loss", (LOGITS.log_softmax(1), torch.eye(3)[FIRST]), (LOGITS, FIRST)),
    ("one_hot", "cross_entropy", (LOGITS, torch.eye(3).long()[FIRST]), (LOGITS, FIRST)),
    ("float_labels", "cross_entropy", (LOGITS, FIRST.float()), (LOGITS, FIRST)),
    ("scale", "square_loss", (noise(40), 3e6 + 1e6 * noise(40)), (noise(40), 2 * noise(40))),
    ("float_labels", "log_loss", (LOGITS.log_softmax(1), FIRST.float()), (LOGITS, FIRST)),
    ("outside", "count_loss", (noise(3), torch.tensor([1, -2.0, 3])), (noise(3), noise(3).abs())),
    ("outside", "cross_entropy", (LOGITS, FIRST + 1), (LOGITS, FIRST)),
    ("outside", "sign_loss", (noise(3), torch.tensor([3.0, 1, 1])), (noise(1), torch.ones(1))),
    (
        "outside",
        "cross_entropy",
        (LOGITS, FIRST - 1),
        (LOGITS, torch.where(FIRST > 0, FIRST, -100)),
    ),
    ("imbalance", "binary_loss", (noise(40), RARE), (noise(40), EVEN)),
    ("imbalance", "cross_entropy", (noise(40, 2), RARE), (noise(40, 2), EVEN)),
    ("imbalance", "binary_loss", (noise(40), RARE), (noise(9), RARE[:9])),  # too few to say
    ("scale", "square_loss", (noise(40), 100 + noise(40, seed=1)), (noise(40), noise(40, seed=1))),
    (
        "column",
        "square_loss",
        (noise(9, 2), noise(9, 2, seed=1) * torch.tensor([1, 100])),
        (noise(9, 2), noise(9, 2, seed=1)),
    ),
    ("concentrated", "square_loss", (noise(200) * 0, ONE_FAR), (noise(200), noise(200, seed=1))),
    (
        "flat",
        "sign_loss",
        (torch.cat([torch.full((39,), 5.0), -torch.ones(1)]), torch.ones(40)),
        (torch.full((40,), 0.5), torch.ones(40)),
    ),
    ("refused", "square_loss", (noise(4), noise(3)), (noise(4), noise(4))),
    (
        "loss_not_finite",
        "square_loss",
        (torch.tensor([1e30]), torch.zeros(1)),
        (noise(1), noise(1)),
    ),
]


@pytest.mark.parametrize(
    ("code", "loss", "bad", "good"), PAIRS, ids=[f"{p[0]}-{i}" for i, p in enumerate(PAIRS)]
)
def test_remark(code: str, loss: str, bad: tuple[Tensor, ...], good: tuple[Tensor, ...]) -> None:
    assert code in codes(loss, *bad)
    assert code not in codes(loss, *good)


def test_an_ordinary_call_has_no_remarks() -> None:
    assert codes("square_loss", noise(50), noise(50, seed=1)) == set()
    assert codes("cross_entropy", noise(60, 3), torch.arange(60) % 3) == set()
    assert codes("binary_loss", noise(40), EVEN.float()) == set()


def test_number_is_the_figure_behind_the_sentence() -> None:
    far = torch.tensor([1.0, -2.0, -30.0])
    (finding,) = [f for f in lossmith.inspect("count_loss", noise(3), far) if f.code == "outside"]
    assert finding.number == 2
    assert "2 of 3 elements of target are refused: it must be >= 0" in finding.sentence
    assert str(finding) == f"[outside] {finding.sentence} {finding.suggestion}"


def test_share_of_the_gradient_is_exact_and_a_robust_loss_tames_it() -> None:
    """Squared error: gradients 0.1 (198 of them) against 0.1 and 1000 in the largest 1 %."""
    (finding,) = lossmith.inspect("huber_loss", torch.zeros(200), ONE_FAR, delta=1000.0)
    assert finding.code == "concentrated"
    assert finding.number == pytest.approx(1000.1 / (1000 + 199 * 0.1))
    assert lossmith.inspect("huber_loss", torch.zeros(200), ONE_FAR, delta=1.0) == []


def test_ignored_labels_are_not_outside_and_not_counted() -> None:
    target = torch.cat([EVEN, torch.full((400,), 7)])
    found = codes("cross_entropy", noise(440, 2), target, ignore_index=7)
    assert not found & {"outside", "imbalance"}


def test_empty_tensors_are_no_cause_for_remarks() -> None:
    assert codes("square_loss", noise(0), noise(0)) == set()
    assert codes("cross_entropy", noise(0, 3), FIRST[:0]) == set()


def test_module_is_inspected_and_not_changed() -> None:
    module = lossmith.HuberLoss(reduction="none")
    input = noise(3).requires_grad_()
    assert codes(module, input, noise(3, seed=1)) == set()
    assert input.grad is None


def test_misuse_of_inspect_itself_raises() -> None:
    with pytest.raises(ValueError, match="loss must be a name in the catalogue"):
        lossmith.inspect("no_such_loss", noise(1), noise(1))
    with pytest.raises(TypeError, match="tensors must be input, target, as huber_loss takes them"):
        lossmith.inspect("huber_loss", noise(1))
    with pytest.raises(TypeError, match="target must be a tensor, got list"):
        lossmith.inspect("huber_loss", noise(1), [1.0])


def test_a_value_outside_is_quoted_with_its_sign() -> None:
    (finding,) = [
        one
        for one in lossmith.inspect("sign_loss", noise(3), torch.tensor([0.5, -7.0, 1]))
        if one.code == "outside"
    ]
    assert "and holds -7." in finding.sentence


def test_a_sum_is_inspected_part_by_part() -> None:
    both = lossmith.CrossEntropyLoss() + lossmith.FocalLoss()
    found = [one.code for one in lossmith.inspect(both, LOGITS.softmax(1), FIRST)]
    assert found.count("probabilities") == 2
