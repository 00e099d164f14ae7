"""No loss waits for a device: each runs on one whose values nobody can read.

Tensors of the device "meta" have shapes and a history, but no values: a look at one is an error
there, where on a GPU it would be a wait.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith as lm
from lossmith.contract.cases import Case, cases
from lossmith.core import route
from lossmith.core.domain import Vector
from lossmith.core.sequences import Lengths
from lossmith.engines import eligible

CARDS = lm.cards()


@pytest.fixture(params=["plain", "kernels"])
def launched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device counts as one without Triton, or as a GPU where whatever is launched is noted."""
    found: list[str] = []
    if request.param == "kernels":
        if not importlib.util.find_spec("triton"):
            pytest.skip("Triton is not installed")
        from triton.runtime.jit import JITFunction

        def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
            found.append(self.fn.__name__)

        monkeypatch.setattr(JITFunction, "run", run)
        monkeypatch.setattr(eligible, "TRITON", {"meta"})
        monkeypatch.setattr(route, "SMALL", 0)
    return found


def run(case: Case, star: tuple[int, ...] | None, **sizes: int) -> None:
    """Value and gradient, in each reduction."""
    given = case.sample(70, torch.float32, grad=True, star=star, **sizes)
    tensors = [t.detach().to("meta").requires_grad_(t.requires_grad) for t in given]
    options = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in case.options.items()}
    for reduction in case.card.reductions:
        value = case.with_options(**options)(*tensors, reduction=reduction)
        assert value.device.type == "meta"
        if value.requires_grad:
            leaves = [t for t in tensors if t.requires_grad]
            for slope in torch.autograd.grad(value.sum(), leaves, allow_unused=True):
                assert slope is None or slope.device.type == "meta"


@pytest.mark.parametrize("name", CARDS)
def test_no_value_is_read(name: str, launched: list[str]) -> None:
    for case in cases(CARDS[name]):
        run(case, None)
        run(case, (64, 64), N=40)


@pytest.mark.parametrize("launched", ["kernels"], indirect=True)
@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("cross_entropy", "_slopes"),
        ("js_div_from_logits_loss", "_divergence_slopes"),
        ("dice_loss", "_label_slopes"),
        ("binary_dice_loss", "_mask_slopes"),
        ("info_nce_loss", "_exponentials"),
        ("siglip_loss", "_logistic"),
        ("ctc_with_logits_loss", "_walk"),
    ],
)
def test_kernels_are_launched(name: str, kernel: str, launched: list[str]) -> None:
    for case in cases(CARDS[name]):
        run(case, (64, 64), N=600)
    assert kernel in launched


VIEWS = {
    "view",
    "detach",
    "expand",
    "select",
    "slice",
    "squeeze",
    "unsqueeze",
    "unbind",
    "alias",
    "permute",
}
MADE = {"empty", "empty_like", "new_empty", "scalar_tensor", "promote_types"}  # on no device


class Counted(TorchDispatchMode):
    """Notes what would be launched."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS | MADE:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("launched", ["kernels"], indirect=True)
@pytest.mark.parametrize("rows", [2, 8192], ids="{} rows".format)
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("cross_entropy", 8),  # torch's own has 5
        ("logit_adjusted_loss", 11),
        ("focal_loss", 26),
        ("kl_div_from_logits_loss", 16),
        ("js_div_from_logits_loss", 16),
        ("dice_loss", 46),
    ],
)
def test_launches_are_few(
    name: str, most: int, rows: int, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a small call take longer than all its arithmetic."""
    monkeypatch.setattr(route, "SMALL", 1 << 15)  # as it is: small calls go this way too
    case = next(cases(CARDS[name]))
    star = (4, 4) if name == "dice_loss" else ()
    given = case.sample(70, torch.float32, grad=True, N=rows, star=star)
    tensors = [t.detach().to("meta").requires_grad_(t.requires_grad) for t in given]
    options = {"prior": torch.ones(4, device="meta")} if name.startswith("logit_adj") else {}
    with Counted(launched):
        case.card.function(*tensors, **options).backward()
    assert 0 < len(launched) <= most


def test_linear_heads_read_none(launched: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, teacher = torch.randn(2, 600, 16, generator=generator).to("meta")
    weight, other = torch.randn(2, 1000, 16, generator=generator).to("meta")
    target = torch.zeros(600, dtype=torch.int64, device="meta")
    calls = [
        (lm.linear_head(lm.cross_entropy), (hidden, weight, target), {}),
        (lm.linear_head(lm.cross_entropy), (hidden, weight, target), {"label_smoothing": 0.1}),
        (lm.linear_head(lm.cross_entropy), (hidden, weight, target), {"bias": weight[:, 0]}),
        (lm.linear_head(lm.focal_loss), (hidden, weight, target), {"reduction": "none"}),
        (lm.linear_head(lm.js_div_from_logits_loss, heads=2), (hidden, weight, teacher, other), {}),
    ]
    for head, tensors, options in calls:
        for dtype in (torch.float32, torch.bfloat16):
            given = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
            leaves = [t.requires_grad_() for t in given if t.is_floating_point()]
            more = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in options.items()}
            value = head(*given, **more)
            slopes = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
            assert all(s.dtype is dtype for s in slopes if s is not None)


def test_statistics_read_none() -> None:
    logits = torch.empty(600, 100, device="meta", requires_grad=True)
    found = lm.softmax_statistics(logits, torch.zeros(600, dtype=torch.int64, device="meta"))
    (found.log_prob + found.entropy).sum().backward()
    assert found.correct.device.type == "meta"
    volume = torch.empty(2, 3, 64, 64, device="meta", requires_grad=True)
    sums = lm.RegionStatistics.from_logits(volume, torch.zeros(2, 64, 64, device="meta").long())
    (sums + sums).dice_loss().sum().backward()


def away(case: Case, elsewhere: str | None) -> Callable[[], Tensor]:
    """A call on "meta" whose argument or option ``elsewhere`` stays on the CPU."""
    # Sizes that no other test has: tensors are looked at once for each kind of call.
    given = case.sample(71, torch.float32, N=13, D=11)
    named = {**dict(zip(case.way.tensors, given, strict=True)), **case.options_like(given)}
    moved = {
        key: value.to("meta") if isinstance(value, Tensor) and key != elsewhere else value
        for key, value in named.items()
    }
    tensors = [moved.pop(name) for name in case.way.tensors]
    return lambda: case.with_options(**moved)(*tensors)


@pytest.mark.parametrize("name", CARDS)
def test_a_tensor_on_another_device_is_named(name: str) -> None:
    """Lengths of sequences may stay on the CPU, as torch's losses have it."""
    batched = [
        case for case in cases(CARDS[name]) if case.batched or len(case.card.signatures) == 1
    ]
    assert batched
    for case in batched:
        tensors = dict(list(case.way.tensors.items())[1:])
        lengths = [key for key, domain in tensors.items() if isinstance(domain, Lengths)]
        vectors = [key for key, rule in case.card.options.items() if isinstance(rule, Vector)]
        for key in (*tensors, *vectors):
            if key not in lengths and (key in tensors or case.options.get(key) is not None):
                with pytest.raises(ValueError, match=f"{key} must be on meta .* one on cpu"):
                    away(case, key)()
        for key in lengths:
            assert away(case, key)().device.type == "meta"


def test_a_weight_on_another_device_is_named() -> None:
    x = torch.zeros(7, 11, device="meta")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"sample_weight must be on meta .* on cpu"):
            lm.huber_loss(x, x, sample_weight=torch.ones(7, 11))


def test_lengths_are_checked_before_they_leave_the_cpu() -> None:
    x, y = torch.zeros(9, 2, 5, device="meta"), torch.ones(2, 3, dtype=torch.long, device="meta")
    for lengths, rule in (
        (([9, 10], [3, 3]), r"input_lengths must lie in \[0, 9\], got 10"),
        (([9, 9], [3, -1]), r"target_lengths must lie in \[0, 3\], got -1"),
    ):
        for given in (lengths, [torch.tensor(one) for one in lengths]):
            with pytest.raises(ValueError, match=rule):
                lm.ctc_loss(x, y, *given)
    assert lm.ctc_loss(x, y.flatten(), [9, 9], (3, 3)).device.type == "meta"
    with pytest.raises(ValueError, match="targets must hold 5 symbols, the sum of target_lengths"):
        lm.ctc_loss(x, y.flatten(), [9, 9], (3, 2))
    with pytest.raises(ValueError, match=r"logit_lengths must lie in \[1, 4\], got 0"):
        lm.rnnt_loss(torch.zeros(2, 4, 4, 5, device="meta"), y, (4, 0), [3, 3])
    mask = torch.tensor([[True, False], [True, True]])
    x, table = torch.zeros(2, 2, 5, device="meta"), torch.zeros(5, 5, device="meta")
    assert lm.crf_loss(x, y[:, :2], mask, table).device.type == "meta"
    assert lm.crf_loss(x, y[:, :2], (1, 2), table).device.type == "meta"
