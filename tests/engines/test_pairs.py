"""The pairs engine: stripes that divide nothing evenly, learnable options, memory, explanations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as lm
from lossmith.core.memory import peak_bytes
from lossmith.engines import pairs

N, D = 23, 7
Made = tuple[Callable[..., Tensor], dict[str, Any], int]


def learn(**values: float) -> dict[str, Tensor]:
    return {key: torch.tensor([value], dtype=torch.float64) for key, value in values.items()}


# the loss, its learnable options, the number of embeddings; a labelled one where that is 1
CASES: dict[str, Made] = {
    "info_nce": (lm.info_nce_loss, learn(temperature=0.3), 2),
    "clip": (lambda *t, **o: lm.info_nce_loss(*t, symmetric=True, **o), learn(temperature=0.3), 2),
    "nt_xent": (lm.nt_xent_loss, learn(temperature=0.3), 2),
    "siglip": (lm.siglip_loss, learn(temperature=0.3, bias=-2.0), 2),
    "supcon": (lm.supcon_loss, learn(temperature=0.3), 1),
    "multi_similarity": (lm.multi_similarity_loss, {}, 1),
    "batch_all": (lm.batch_all_triplet_loss, {}, 1),
    "semi_hard": (lm.semi_hard_triplet_loss, {}, 1),
    "batch_hard": (lm.batch_hard_triplet_loss, {}, 1),
    "mmd": (lm.mmd_loss, learn(bandwidth=2.0), 2),
}
cases = pytest.mark.parametrize("name", CASES)


def sample(name: str, count: int = N) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
    """Embeddings, learnable options, and what follows the embeddings in a call."""
    generator = torch.Generator().manual_seed(5)
    _, options, number = CASES[name]
    leaves = [
        torch.randn(count, D, dtype=torch.float64, generator=generator) for _ in range(number)
    ]
    target = torch.randint(5, (count,), generator=generator)
    return leaves, options, [target] if number == 1 else []


def run(
    name: str, dtype: torch.dtype = torch.float64, count: int = N, **more: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Value, and gradients by embeddings and learnable options under an uneven force."""
    loss = CASES[name][0]
    given, options, rest = sample(name, count)
    leaves = [t.to(dtype).requires_grad_() for t in given]
    learnable = {k: t.to(dtype).requires_grad_() for k, t in options.items()}
    value = loss(*leaves, *rest, **learnable, **more)
    force = torch.linspace(0.5, 2.0, value.numel(), dtype=torch.float64).view(value.shape)
    total = (value.double() * force).sum()
    return value, torch.autograd.grad(total, [*leaves, *learnable.values()])


def tile(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(pairs, "SMALL", 0)
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: rows)


@cases
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_stripes_equal_the_matrix(
    name: str, reduction: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = None
    if name != "mmd":
        weight = torch.arange(N) % 4 / 2  # every fourth sample is absent
    expected, slopes = run(name, reduction=reduction, sample_weight=weight)
    tile(monkeypatch, rows)
    value, found = run(name, reduction=reduction, sample_weight=weight)
    assert "Known" in type(value.grad_fn).__name__
    torch.testing.assert_close(value, expected)
    for left, right in zip(found, slopes, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@cases
@pytest.mark.parametrize("count", [1, 2])
def test_one_row_and_one_column(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, slopes = run(name, count=count)
    tile(monkeypatch, 1)
    value, found = run(name, count=count)
    torch.testing.assert_close(value, expected)
    for left, right in zip(found, slopes, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_less_accurate_than_the_matrix(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64 from the same rounded inputs; a rounding of the result is granted."""
    given = sample(name, 401)
    rounded = ([t.to(dtype).double() for t in given[0]], given[1], given[2])
    monkeypatch.setattr(f"{__name__}.sample", lambda *_: rounded)
    exact = run(name, count=401)
    plain = run(name, dtype, count=401)
    tile(monkeypatch, 48)
    found = run(name, dtype, count=401)
    eps = torch.finfo(dtype).eps
    for truth, left, right in zip(*(((v, *s)) for v, s in (exact, plain, found)), strict=True):
        scale = truth.abs().max()
        by_matrix, by_stripes = ((t.double() - truth).abs().max() / scale for t in (left, right))
        assert by_stripes <= 1.5 * by_matrix + 2 * eps


@cases
def test_value_alone_and_partial_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, options, _ = CASES[name]
    given, _, rest = sample(name)
    expected, slopes = run(name)
    tile(monkeypatch, 5)
    torch.testing.assert_close(loss(*given, *rest, **options), expected.detach())
    force = 0.5 if expected.ndim == 0 else None
    for position, _ in enumerate(given):
        leaves = [t.clone().requires_grad_(i == position) for i, t in enumerate(given)]
        value = loss(*leaves, *rest, **options)
        (found,) = torch.autograd.grad(value, leaves[position])
        torch.testing.assert_close(force * found, slopes[position], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["clip", "siglip", "supcon"])
def test_double_backward_takes_the_plain_function(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, _, _ = CASES[name]

    def bend() -> Tensor:
        given, options, rest = sample(name)
        leaves = [t.clone().requires_grad_() for t in (*given, *options.values())]
        value = loss(
            *leaves[: len(given)], *rest, **dict(zip(options, leaves[len(given) :], strict=True))
        )
        slopes = torch.autograd.grad(value, leaves, create_graph=True)
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves[0])[0]

    expected = bend()
    tile(monkeypatch, 5)
    torch.testing.assert_close(bend(), expected)


def test_gradient_scaled_for_half_precision_does_not_vanish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loss scale of 2^15 comes with the backward pass: slopes must not be rounded before."""
    tile(monkeypatch, 64)
    query, key = torch.randn(2, 2048, 4, generator=torch.Generator().manual_seed(1)).half()
    query.requires_grad_()
    value = lm.info_nce_loss(query, key, temperature=100.0).float()
    (found,) = torch.autograd.grad(value * 2.0**15, query)
    exact = query.detach().double().requires_grad_()
    value = lm.info_nce_loss(exact, key.double(), temperature=100.0)
    (expected,) = torch.autograd.grad(value * 2.0**15, exact)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["info_nce", "clip", "nt_xent", "siglip", "supcon", "mmd"])
@pytest.mark.filterwarnings("ignore:Memory block of unknown size")
def test_memory_grows_with_the_number_of_samples(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the samples, twice the memory, far less than the matrix would take."""
    monkeypatch.setattr(pairs, "stripe_rows", lambda right, copies: 16)
    loss, _, number = CASES[name]

    def cost(count: int) -> int:
        leaves = [torch.randn(count, 16, requires_grad=True) for _ in range(number)]
        rest = [torch.arange(count) % 50] if number == 1 else []
        return peak_bytes(lambda: loss(*leaves, *rest).backward(), torch.device("cpu"))

    small, large = cost(600), cost(1200)
    assert large <= 2.1 * small
    rows = 2400 if name in ("mmd", "nt_xent") else 1200  # both sets are rows
    assert large < rows * rows * 4 / 2


def test_stripes_keep_to_their_budget() -> None:
    """By the cost model, in bytes: the budget while it lasts, then a number of rows."""
    for columns in (1000, 16384, 32768, 10**6):
        right = torch.empty(columns, 1)
        for copies in (2, 10, 30):
            size = pairs.stripe_rows(right, copies) * copies * columns * 4
            assert size <= max(pairs.BUDGET["cpu"], pairs.LEAST * columns * 4)
    assert pairs.stripe_rows(torch.empty(16384, 1), 2) == 128
    assert pairs.stripe_rows(torch.empty(2 * 10**9, 1, device="meta"), 300) == 1


def test_path_is_explained() -> None:
    few, many = torch.randn(2, 100, 3), torch.randn(2, 700, 3, requires_grad=True)

    def how(*given: Tensor, **options: Any) -> str:
        return str(lm.explain_path(lm.info_nce_loss, *given, **options))

    assert how(*few) == "plain: 100 x 100 similarities fit the cache as a whole"
    assert how(*many) == "tiles: 700 x 700 similarities come in stripes of rows"
    temperature = torch.ones(1, requires_grad=True)
    assert how(*many, temperature=temperature).startswith("tiles: ")
    weight = torch.ones(700, requires_grad=True)
    assert how(*many, sample_weight=weight) == "plain: sample_weight wants a gradient"
    stacked = lm.explain_path(lm.nt_xent_loss, *many)
    assert str(stacked) == "tiles: 1400 x 1400 similarities come in stripes of rows"
    inside: list[str] = []
    torch.func.vmap(lambda a, b: (inside.append(how(a, b)), a.sum())[1])(*(t[None] for t in many))
    assert inside == ["plain: a transform, forward-mode AD or a tensor subclass is at work"]


def test_every_engine_leaves_pairs_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tile(monkeypatch, 5)
    query, key = torch.randn(2, N, D, requires_grad=True)
    for name in ("plain", "one_pass", "blocks"):
        with lm.engine(name):
            assert "Known" in type(lm.info_nce_loss(query, key).grad_fn).__name__


def test_arguments_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tile(monkeypatch, 5)
    for name in CASES:
        given, options, rest = sample(name)
        before = [t.clone() for t in given]
        CASES[name][0](*(t.requires_grad_() for t in given), *rest, **options).backward()
        for tensor, copy in zip(given, before, strict=True):
            assert torch.equal(tensor.detach(), copy)
