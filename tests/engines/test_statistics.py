"""The engine of region losses: digits, layouts, memory, and when it steps aside."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import lossmith as lm
from lossmith.core import route
from lossmith.core.memory import peak_bytes
from lossmith.engines import generated_label_maps, label_maps, one_pass, passes, statistics

SHAPE = (2, 4, 40, 45, 11)  # more elements than a call that an engine leaves alone

CPU = torch.device("cpu")


def image(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE):
    generator = torch.Generator().manual_seed(5)
    logits = (2 * torch.randn(shape, generator=generator)).to(dtype)
    label = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits, label


def outcome(loss: Callable[..., Tensor], logits: Tensor, target: Tensor, **options: object):
    leaf = logits.detach().requires_grad_()
    value = loss(leaf, target, **options)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def plainly(monkeypatch: pytest.MonkeyPatch, *given: object, **options: object):
    with monkeypatch.context() as patch:
        patch.setattr(route, "SMALL", math.inf)
        return outcome(*given, **options)


LOSSES = {
    "dice": (lm.dice_loss, {}),
    "squared": (lm.dice_loss, {"squared": True}),
    "batch": (lm.tversky_loss, {"batch": True}),
    "ignored": (lm.jaccard_loss, {"ignore_index": 2}),
    "ce": (lm.dice_ce_loss, {"weight": torch.tensor([1.0, 0.5, 2.0, 0.0])}),
    "focal": (lm.dice_focal_loss, {"gamma": 1.5, "include_background": False}),
    "generalized": (lm.generalized_dice_loss, {}),
    "mcc": (lm.mcc_loss, {}),
}


# an image that is one piece, and the same in many
in_one_piece_or_many = pytest.mark.parametrize("block", [1 << 30, 1 << 12])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@in_one_piece_or_many
def test_as_accurate_as_the_plain_function(name, dtype, block, monkeypatch) -> None:
    monkeypatch.setattr(passes, "BLOCK", block)
    loss, options = LOSSES[name]
    logits, label = image(dtype)
    truth = plainly(monkeypatch, loss, logits.double(), label, **options)
    usual = plainly(monkeypatch, loss, logits, label, **options)
    found = outcome(loss, logits, label, **options)
    # in float64 the plain function is its own truth, and what it lost is not seen
    slack = torch.finfo(dtype).eps * (16 if dtype is torch.float64 else 4)
    for exact, plain, ours in zip(truth, usual, found, strict=True):
        assert ours.dtype is dtype
        limit = 2 * (plain.double() - exact).abs().max() + slack * exact.abs().max()
        assert (ours.double() - exact).abs().max() <= limit


@pytest.mark.parametrize("loss", [lm.dice_ce_loss, lm.binary_dice_focal_loss])
def test_layouts_and_dtypes_of_the_target_do_not_matter(loss, monkeypatch) -> None:
    logits, label = image(shape=(2, 4, 75, 80))
    if loss is not lm.dice_ce_loss:
        label = (logits > 0.3).to(torch.uint8)
    expected = plainly(monkeypatch, loss, logits, label)
    kinds = (torch.uint8, torch.int32) if loss is lm.dice_ce_loss else (torch.bool, torch.float64)
    strided = torch.stack([logits, logits], -1)[..., 0]
    for other in (logits.contiguous(memory_format=torch.channels_last), strided, logits.mT.mT):
        for kind in kinds:
            found = outcome(loss, other, label.to(kind))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_gradient_of_memberships(monkeypatch) -> None:
    logits, _ = image()
    target = logits.flip(1).softmax(1).requires_grad_()

    def both(_: Tensor, leaf: Tensor) -> Tensor:
        return lm.dice_ce_loss(logits, leaf, squared=True)

    expected = plainly(monkeypatch, lambda leaf, _: both(leaf, leaf), target, target)
    found = outcome(lambda leaf, _: both(leaf, leaf), target, target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_that_of_the_gradient_and_of_a_piece(dtype, monkeypatch) -> None:
    monkeypatch.setattr(passes, "BLOCK", 1 << 12)
    logits, label = image(dtype)
    logits.requires_grad_()
    label = label.to(torch.uint8)

    def run() -> None:
        lm.dice_ce_loss(logits, label).backward()

    gradient = logits.numel() * logits.itemsize
    assert gradient <= peak_bytes(run, CPU) <= gradient + 12 * 4 * passes.BLOCK
    logits.grad = None
    monkeypatch.setattr(route, "SMALL", math.inf)
    assert peak_bytes(run, CPU) > 6 * gradient


@pytest.mark.parametrize("ignore", [2, -1, 255])
@pytest.mark.parametrize("scale", [1, 100])
@in_one_piece_or_many
def test_ignored_positions_and_vanishing_labels(ignore, scale, block, monkeypatch) -> None:
    """The cost of a label whose probability vanishes, beside positions that cost nothing."""
    monkeypatch.setattr(passes, "BLOCK", block)
    logits, label = image()
    label[label == 2] = ignore
    given = lm.dice_focal_loss, scale * logits.double(), label
    truth = plainly(monkeypatch, *given, ignore_index=ignore, gamma=0.0)
    found = outcome(given[0], scale * logits, label, ignore_index=ignore, gamma=0.0)
    for here, there in zip(found, truth, strict=True):
        torch.testing.assert_close(here.double(), there, rtol=2e-5, atol=1e-6 * there.abs().max())


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (lm.mcc_loss, {}),
        (lm.generalized_dice_loss, {}),
        (lm.dice_loss, {"smooth": 0.0, "squared": True}),
    ],
    ids=["mcc", "generalized", "squared"],
)
@pytest.mark.parametrize("engine", ["plain", "one_pass"])
def test_an_unlikely_label_whose_slope_is_large(loss, options, engine, monkeypatch) -> None:
    """Nobody else at its position is measured from it: its size would take their digits."""
    monkeypatch.setattr(generated_label_maps, "PIECE", 1 << 10)
    logits, label = image(shape=(2, 8, 3000))
    logits[:, 0] += 14
    label.clamp_(min=1)
    given = {"reduction": "sum", **options}
    truth = plainly(monkeypatch, loss, logits.double(), label, **given)[1]
    with lm.engine(engine):
        slope = outcome(loss, logits, label, **given)[1]
    assert (slope - truth).abs().max() <= 1e-6 * truth.abs().max()


def test_sums_over_a_long_piece_keep_their_digits() -> None:
    """Of labels that are nearly certain: numbers that are all rounded to the same side."""
    logits, label = image(shape=(1, 2, 1 << 18))
    logits[0, 0] += 12
    statistics = lm.RegionStatistics.from_logits(logits, torch.zeros_like(label))
    truth = logits.double().softmax(1).sum(2)[0]
    hit, false_alarm = statistics.sums[0, 0, passes.HIT], statistics.sums[0, 1, passes.FALSE_ALARM]
    assert abs(hit - truth[0]) <= 3e-7 * truth[0]
    assert abs(false_alarm - truth[1]) <= 3e-7 * truth[1]


@pytest.mark.parametrize("options", [{}, {"ignore_index": 1}, {"squared": True}], ids=str)
@in_one_piece_or_many
def test_the_gradient_can_be_asked_for_twice(options, block, monkeypatch) -> None:
    """It is written over the probabilities that the first pass left, which are gone then."""
    monkeypatch.setattr(passes, "BLOCK", block)
    logits, label = image()
    leaf = logits.requires_grad_()
    value = lm.dice_ce_loss(leaf, label, **options)
    first, again = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    assert first.data_ptr() != again.data_ptr()
    assert torch.equal(first, again)


def test_statistics_of_parts_add_up_to_those_of_the_whole() -> None:
    logits, label = image(torch.float64)
    whole = lm.RegionStatistics.from_logits(logits, label, gamma=0.0, batch=True)
    parts = [
        lm.RegionStatistics.from_logits(x, y, gamma=0.0, batch=True)
        for x, y in zip(logits.split(1), label.split(1), strict=True)
    ]
    torch.testing.assert_close((parts[0] + parts[1]).sums, whole.sums)
    value = whole.dice_loss().mean() + whole.cost().squeeze()
    torch.testing.assert_close(value, lm.dice_ce_loss(logits, label, batch=True))
    with pytest.raises(TypeError):
        whole + 1


def test_several_losses_from_one_pair_of_passes(monkeypatch) -> None:
    seen = []
    sums = label_maps.LabelMaps.sums
    monkeypatch.setattr(
        label_maps.LabelMaps, "sums", lambda *a: (seen.append(1), sums(*a))[1], raising=True
    )
    logits, label = image(torch.float64)
    leaf = logits.requires_grad_()
    both = lm.RegionStatistics.from_logits(leaf, label)
    value = (both.dice_loss() + both.tversky_loss(alpha=0.5, beta=0.5)).mean(1).mean()
    (slope,) = torch.autograd.grad(value, leaf)
    assert len(seen) == 1
    expected = lm.dice_loss(leaf, label) + lm.tversky_loss(leaf, label, alpha=0.5, beta=0.5)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, leaf)[0])


def test_infinite_and_missing_logits_are_left_to_the_plain_function(monkeypatch) -> None:
    for stranger in (math.inf, -math.inf, math.nan):
        logits, label = image()
        logits[0, 1, 3, 4, 5] = stranger
        found = outcome(lm.dice_loss, logits, label)
        expected = plainly(monkeypatch, lm.dice_loss, logits, label)
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-5, atol=1e-9)


def test_path_is_explained(monkeypatch) -> None:
    logits, label = image()

    def how(*given: object) -> str:
        return str(lm.explain_path(*given))

    assert how(lm.dice_loss, logits[..., :1], label[..., :1]).startswith("plain: 14400 elements")
    assert how(lm.dice_loss, logits, label).startswith("blocks: ")
    assert how(lm.dice_loss, logits, logits.softmax(1)).startswith("blocks: ")
    assert how(lm.BinaryDiceLoss(), logits, logits > 0).startswith("blocks: ")
    monkeypatch.setattr(generated_label_maps, "PIECE", 1 << 10)
    assert how(lm.dice_loss, logits, label).startswith("compiled: ")
    monkeypatch.setattr(statistics, "missing_compiler", lambda device: "there is no C++ compiler")
    assert how(lm.dice_loss, logits, label) == "blocks: there is no C++ compiler"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_kernel_before_it_is_generated(name, dtype, monkeypatch) -> None:
    """The kernels as they are written, in several pieces; the last one does not fill its rows."""
    sizes = {"ROWS": 10, "MOST_ROWS": 100, "LENGTH": 64, "PIECE": 640}
    for key, value in {**sizes, "_kernels": {}}.items():
        monkeypatch.setattr(generated_label_maps, key, value)
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)
    loss, options = LOSSES[name]
    logits, label = image(dtype)
    truth = plainly(monkeypatch, loss, logits.double(), label, **options)
    with lm.engine("one_pass"):
        found = outcome(loss, logits, label, **options)
    assert generated_label_maps._kernels
    eps = torch.finfo(dtype).eps
    for exact, ours in zip(truth, found, strict=True):
        assert (ours.double() - exact).abs().max() <= 16 * eps * exact.abs().max()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.bool])
def test_kernel_before_it_is_generated_asked_twice(kind: torch.dtype, monkeypatch) -> None:
    """By labels of other dtypes; the probabilities that the first pass left are gone then."""
    sizes = {"ROWS": 10, "MOST_ROWS": 100, "LENGTH": 64, "PIECE": 640}
    for key, value in {**sizes, "_kernels": {}}.items():
        monkeypatch.setattr(generated_label_maps, key, value)
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)
    logits, label = image()
    leaf, label = logits.requires_grad_(), label % 2
    with lm.engine("one_pass"):
        value = lm.dice_focal_loss(leaf, label.to(kind))
    first, again = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    assert first.data_ptr() != again.data_ptr()
    assert torch.equal(first, again)
    _, expected = plainly(monkeypatch, lm.dice_focal_loss, logits, label)
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_generated_kernel(memory: torch.memory_format, monkeypatch) -> None:
    """With an odd number of positions, and with classes side by side; two graphs for all sizes."""
    monkeypatch.setattr(generated_label_maps, "_kernels", {})
    if one_pass.missing_compiler("cpu"):
        pytest.skip("there is no C++ compiler")
    logits, label = image(shape=(2, 3, 299, 301))
    logits = logits.contiguous(memory_format=memory)
    expected = outcome(lm.dice_ce_loss, logits, label)
    with lm.engine("one_pass"):
        found = outcome(lm.dice_ce_loss, logits, label)
    assert generated_label_maps._kernels
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-10)
    counters.clear()
    with lm.engine("one_pass"):
        outcome(lm.dice_ce_loss, *image(shape=(1, 3, 512, 500)))
        outcome(lm.dice_ce_loss, *image(shape=(3, 3, 41, 43, 47)))
    assert not counters["stats"]["unique_graphs"]


def test_failing_compiler_leads_to_blocks(monkeypatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no disk left")

    monkeypatch.setattr(generated_label_maps, "_kernels", {})
    monkeypatch.setattr(statistics, "_failed", {})
    monkeypatch.setattr(generated_label_maps, "PIECE", 1 << 10)
    monkeypatch.setattr(torch, "compile", broken)
    logits, label = image()
    expected = lm.dice_loss(logits, label)
    with lm.engine("one_pass"):
        torch.testing.assert_close(lm.dice_loss(logits, label), expected)
    path = lm.explain_path(lm.dice_loss, logits, label)
    assert str(path) == "blocks: the compiler failed (RuntimeError)"


def test_autocast_rounds_neither_sums_nor_slopes() -> None:
    logits, label = image()
    truth = outcome(lm.dice_ce_loss, logits, label)
    sums = lm.RegionStatistics.from_logits(logits, label, squared=True, gamma=2.0).sums
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(lm.dice_ce_loss, logits, label)
        assert torch.equal(
            lm.RegionStatistics.from_logits(logits, label, squared=True, gamma=2.0).sums, sums
        )
    assert all(torch.equal(one, other) for one, other in zip(found, truth, strict=True))
