"""The one-pass engine: which calls it takes, functions of one's own, and what it falls back to."""

import functools
import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

import lossmith as lm
from lossmith.engines import lines, one_pass

N = 40000  # above the size from which calls are offered to an engine


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, N, generator=generator)
    return x.requires_grad_(), y


pytestmark = pytest.mark.usefixtures("without_inductor")


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_same_value_and_gradient(name: str, reduction: str, pair) -> None:
    x, y = pair
    weight = torch.arange(N) % 3 / 2
    expected = lm.log_cosh_loss(x, y, sample_weight=weight, reduction=reduction)
    factor = torch.rand_like(expected)
    (slope,) = torch.autograd.grad(expected, x, factor)
    with lm.engine(name):
        value = lm.log_cosh_loss(x, y, sample_weight=weight, reduction=reduction)
    assert "Known" in type(value.grad_fn).__name__
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, x, factor)[0], slope)


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_function_of_ones_own(name: str, pair) -> None:
    x, y = pair
    cube = lm.one_pass(lambda input, target, k=3: (input - target).abs() ** k, engine=name)
    value = cube(x, y, k=3, reduction="sum")
    expected = ((x - y).abs() ** 3).sum()
    torch.testing.assert_close(value, expected)
    got, wanted = (torch.autograd.grad(v, x)[0] for v in (value, expected))
    torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="target must have the shape of input"):
        cube(x, y[:-1])
    with pytest.raises(TypeError, match="target must be a tensor, got int"):
        cube(x, 3)


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_rows_of_ones_own_may_differ_in_shape_and_dtype(name: str) -> None:
    scores = torch.randn(4000, 11, requires_grad=True)
    index = torch.arange(4000) % 11
    nll = lm.one_pass(
        lambda scores, index: -scores.log_softmax(1).gather(1, index[:, None]).squeeze(1),
        engine=name,
        coupling="row",
    )
    value, expected = nll(scores, index), F.cross_entropy(scores, index)
    torch.testing.assert_close(value, expected)
    got, wanted = (torch.autograd.grad(v, scores)[0] for v in (value, expected))
    torch.testing.assert_close(got, wanted)


def test_path_is_explained(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair

    def how(*given: object, **options: object) -> str:
        return str(lm.explain_path(*given, **options))

    assert how(lm.huber_loss, x[:9], y[:9]).startswith("plain: 9 elements")
    assert how(lm.huber_loss, x, y).startswith("compiled: ")
    assert how(lm.HuberLoss(), x, y).startswith("compiled: ")
    assert how(lm.one_pass(lm.huber_loss), x, y).startswith("compiled: ")
    assert how(lm.rmse_loss, x, y) == "plain: the values of a statistics loss hang together"
    alpha = torch.tensor(1.5, requires_grad=True)
    shared = how(lm.barron_loss, x, y, alpha=alpha, reduction="none")
    assert shared == "plain: a tensor that all samples share wants a gradient from each"
    assert how(lm.barron_loss, x, y, alpha=alpha).startswith("compiled: ")
    monkeypatch.setattr(one_pass, "WORTH", N + 1)
    few = how(lm.huber_loss, x, y)
    assert few == "plain: it has a kernel, which 40000 elements are too few to beat"
    assert how(lm.log_cosh_loss, x, y).startswith("compiled: ")


def test_the_path_is_that_of_the_engine_that_was_chosen(pair) -> None:
    def how(loss) -> str:
        return str(lm.explain_path(loss, *pair))

    assert how(lm.one_pass(lm.log_cosh_loss, engine="plain")) == "plain: it was asked for"
    assert how(lm.one_pass(lm.log_cosh_loss, engine="blocks")) == "blocks: blocks were asked for"
    with lm.engine("blocks"):
        assert how(lm.log_cosh_loss) == "blocks: blocks were asked for"
        assert how(lm.one_pass(lm.log_cosh_loss)).startswith("compiled: ")


def test_failing_compiler_leads_to_blocks(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no disk left")

    monkeypatch.setattr(one_pass, "_compiled", broken)
    expected = lm.log_cosh_loss(x, y)
    with lm.engine("one_pass"):
        value = lm.log_cosh_loss(x, y)
    torch.testing.assert_close(value, expected)
    path = lm.explain_path(lm.log_cosh_loss, x, y)
    assert str(path) == "blocks: the compiler failed (RuntimeError)"


def test_missing_compiler_leads_to_blocks(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair
    monkeypatch.setattr(one_pass, "missing_compiler", lambda device: "there is no C++ compiler")
    path = lm.explain_path(lm.log_cosh_loss, x, y)
    assert str(path) == "blocks: there is no C++ compiler"
    expected = lm.log_cosh_loss(x, y)
    with lm.engine("one_pass"):
        torch.testing.assert_close(lm.log_cosh_loss(x, y), expected)
    kept = lm.explain_path(lm.huber_loss, x, y)
    assert str(kept).endswith("this loss has a kernel that blocks cannot beat")


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_higher_derivatives_and_transforms_take_the_plain_function(name: str, pair) -> None:
    x, y = pair
    with lm.engine(name):
        (slope,) = torch.autograd.grad(lm.log_cosh_loss(x, y), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x)
        mapped = torch.func.vmap(lambda a, b: lm.huber_loss(a, b))(x.view(2, -1), y.view(2, -1))
    expected = 1 / torch.cosh(x - y) ** 2 / N
    torch.testing.assert_close(bend, expected, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(mapped.mean(), F.huber_loss(x, y))


def test_one_kernel_serves_all_sizes(pair) -> None:
    x, y = pair
    with lm.engine("one_pass"):
        for size in (N, N - 1, N - 500):
            lm.huber_loss(x[:size], y[:size])
        assert len(one_pass._kernels) == 1
        for size in (39989, 39983):  # primes, which no lines of equal length have
            lm.huber_loss(x[:size], y[:size])
    assert len(one_pass._kernels) == 2


class Setting:
    """What a function may look up."""

    factor = 2.0


SETTING, TABLE = Setting(), {"power": 2.0}


@pytest.mark.parametrize("place", ["global", "table", "cell", "option"])
def test_what_a_function_looks_up_may_change(place: str, pair) -> None:
    """The guards that are left out are those of torch's code and lossmith's own."""
    x, y = pair
    cell, table, setting = 2.0, dict(TABLE), Setting()

    def own(input: torch.Tensor, target: torch.Tensor, setting: Setting = SETTING) -> torch.Tensor:
        return cell * setting.factor * (input - target).abs() ** TABLE["power"]

    loss = lm.one_pass(own)
    more = {"setting": setting} if place == "option" else {}

    def agrees() -> None:
        torch.testing.assert_close(loss(x, y, **more), own(x, y, **more).mean())

    agrees()
    try:
        match place:
            case "global":
                SETTING.factor = 3.0
            case "table":
                TABLE["power"] = 3.0
            case "cell":
                cell = 3.0
            case _:
                setting.factor = 3.0
        agrees()
    finally:
        TABLE["power"] = table["power"]
        SETTING.factor = Setting.factor


NEIGHBOURLY = {
    "mean": lambda gap: (gap - gap.mean()).abs(),
    "column": lambda gap: gap.abs() * torch.arange(gap.shape[-1]),
    "length": lambda gap: gap.abs() / len(gap),
    "running": lambda gap: gap.abs().cumsum(-1),
    "weights": lambda gap: gap.abs() * torch.linspace(0, 1, gap.shape[-1]),
    "rank": lambda gap: gap.abs() / gap.ndim,
}


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
@pytest.mark.parametrize("kind", NEIGHBOURLY)
@pytest.mark.parametrize("shape", [(160000,), (400, 400), (4, 40000)], ids=str)
def test_elements_that_know_of_each_other_are_not_parted(kind: str, shape, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, *shape, generator=generator) + torch.linspace(0, 9, shape[-1])
    x.requires_grad_()
    expected = NEIGHBOURLY[kind](x - y).mean()
    loss = lm.one_pass(lambda input, target: NEIGHBOURLY[kind](input - target), engine=name)
    value = loss(x, y)
    torch.testing.assert_close(value, expected)
    got, wanted = (torch.autograd.grad(v, x)[0] for v in (value, expected))
    torch.testing.assert_close(got, wanted)
    if name == "blocks":
        why = "plain: blocks were asked for, and a value may depend on more than its element"
        assert str(lm.explain_path(loss, x, y)) == why


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_no_data_hides_that_elements_know_of_each_other(name: str) -> None:
    """Where the first call has zeros only, a mean changes no value."""
    centred = lm.one_pass(lambda a, b: (a - a.mean(0) - b).square(), engine=name)
    x = torch.randn(90, 700, generator=torch.Generator().manual_seed(0)) + torch.arange(700)
    zeros = torch.zeros(90, 700)
    for a in (zeros, x):
        torch.testing.assert_close(centred(a, zeros), (a - a.mean(0)).square().mean())


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
@pytest.mark.parametrize("coupling", ["element", "row"])
def test_a_tensor_that_a_function_brings_along_gets_its_gradient(name: str, coupling) -> None:
    factor = torch.tensor(2.0, requires_grad=True)
    x, y = torch.randn(2, 600, 100, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()

    def gap(a, b):
        each = (factor * (a - b)).square()
        return each if coupling == "element" else each.sum(1)

    loss = lm.one_pass(gap, engine=name, coupling=coupling)
    for _ in range(2):
        wanted = torch.autograd.grad(gap(x, y).mean(), (x, factor))
        torch.testing.assert_close(torch.autograd.grad(loss(x, y), (x, factor)), wanted)
    with torch.no_grad():
        torch.testing.assert_close(loss(x, y), gap(x, y).mean())


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_rows_share_what_comes_by_keyword(name: str) -> None:
    x = torch.randn(60000, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 2.0, 3.0])
    loss = lm.one_pass(lambda a, w=None: a @ w, coupling="row", engine=name)
    torch.testing.assert_close(loss(x.requires_grad_(), w=weight), (x @ weight).mean())


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_a_function_that_writes_over_its_input_is_run_once(name: str) -> None:
    def halved(a, b):
        a /= 2
        return (a - b).square()

    x = torch.ones(400, 100)
    assert lm.one_pass(halved, engine=name)(x, torch.zeros(400, 100)).item() == 0.25
    assert x.unique().item() == 0.5


def test_functions_of_ones_own_take_what_python_lets_them() -> None:
    x, y = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    wanted = (x - y).square().mean()
    square = lm.one_pass(lambda input, target: (input - target) ** 2)
    assert square(input=x, target=y) == square(x, target=y) == square(x, y) == wanted
    assert lm.one_pass(lambda a, *rest: (a - rest[0]) ** 2)(x, y) == wanted
    assert lm.one_pass(lambda *both: (both[0] - both[1]) ** 2)(x, y) == wanted
    assert lm.one_pass(lambda a, b, **rest: (a - b) ** 2)(x, y) == wanted
    assert lm.one_pass(lambda a, *, b: (a - b) ** 2)(x, b=y) == wanted
    assert lm.one_pass(lambda a, b, w=2: w * (a - b) ** 2)(x, y, 4) == 4 * wanted
    assert square(x, y.double()).dtype is torch.float32
    with pytest.raises(TypeError, match=r"input must be floating point, got torch\.int64"):
        square(torch.arange(5), torch.rand(5))
    with pytest.raises(TypeError, match="missing a required argument: 'target'"):
        square(x)
    with pytest.raises(ValueError, match="function must take a tensor first"):
        lm.one_pass(lambda: 3)


def test_a_function_with_luck_is_left_whole() -> None:
    """In blocks it would draw other numbers than the generator is due to give it."""

    def noisy(input, target):
        return (input + torch.randn_like(input) - target).abs()

    x = torch.zeros(1 << 19)
    loss = lm.one_pass(noisy, engine="blocks")
    assert str(lm.explain_path(loss, x, x)).startswith("plain: blocks were asked for")
    torch.manual_seed(0)
    wanted = noisy(x, x).mean()
    torch.manual_seed(0)
    assert loss(x, x) == wanted


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_layouts_and_shapes_give_the_same(name: str) -> None:
    """Transposed tensors have no lines; a scalar option is in none."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, 50, 40, generator=generator)
    alpha = torch.tensor(0.7, requires_grad=True)
    for a, b in ((x, y), (x.mT, y.mT), (x, y.mT.contiguous().mT), (x.flatten(), y.flatten())):
        a = a.detach().requires_grad_()
        expected = lm.barron_loss(a, b, alpha=alpha)
        slopes = torch.autograd.grad(expected, (a, alpha))
        with lm.engine(name):
            value = lm.barron_loss(a, b, alpha=alpha)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, (a, alpha)), slopes)
    assert not one_pass._failed


@pytest.mark.parametrize(
    ("elements", "length"),
    [(1 << 22, 1024), (960 * 1031, 960), (39999, 597), (37 * 113341, 37), (31 * 1361, 0)],
)
def test_lines_are_as_long_as_they_may_be(elements: int, length: int) -> None:
    assert lines._divisor(elements) == length


@pytest.mark.parametrize("loss", [lm.binary_cross_entropy_with_logits, lm.sigmoid_focal_loss])
def test_infinite_logits_have_a_kernel_of_their_own(loss, pair) -> None:
    """On the CPU; the one for finite logits, which comes first, would make NaN of them."""
    x, y = pair[0].detach(), pair[1].sigmoid()
    far, label = x.clone(), y.clone()
    far[:3], label[:3] = torch.tensor([torch.inf, -torch.inf, -torch.inf]), torch.eye(3)[0]
    for logits, target in ((x, y), (far, label), (-far, label)):
        logits.requires_grad_()
        expected = loss(logits, target)
        (slope,) = torch.autograd.grad(expected, logits)
        with lm.engine("one_pass"):
            value = loss(logits, target)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], slope)
    assert expected.item() == torch.inf  # of the last: certain, and wrong
    assert len(one_pass._kernels) == 2


def test_finite_half_precision_logits_are_seen_as_finite(pair) -> None:
    """Their sum is beyond the range of float16."""
    x, y = pair[0].detach().half() + 4, pair[1].sigmoid().half()
    with lm.engine("one_pass"):
        for logits in (x - 4, x):
            lm.binary_cross_entropy_with_logits(logits.requires_grad_(), y).backward()
    assert len(one_pass._kernels) == 1


def test_no_tensor_of_a_call_lives_on() -> None:
    x, y = torch.randn(N, requires_grad=True), torch.randn(N)
    watch = weakref.ref(y)
    with lm.engine("one_pass"):
        lm.huber_loss(x, y).backward()
    del y
    gc.collect()
    assert watch() is None


def test_engine_stays_until_another_is_chosen(pair) -> None:
    x, y = pair
    before = lm.engine("blocks")
    assert "Known" in type(lm.log_cosh_loss(x, y).grad_fn).__name__
    before.__exit__(None, None, None)
    assert "Known" not in type(lm.log_cosh_loss(x, y).grad_fn).__name__
    with before:  # a second time
        assert "Known" in type(lm.log_cosh_loss(x, y).grad_fn).__name__
    assert "Known" not in type(lm.log_cosh_loss(x, y).grad_fn).__name__


@pytest.mark.parametrize("name", ["plain", "one_pass", "blocks"])
def test_a_function_that_reduces_is_refused(name: str, pair) -> None:
    x, y = pair
    partial = lm.one_pass(functools.partial(lm.huber_loss, delta=0.5), engine=name)
    with pytest.raises(ValueError, match=r"unreduced loss, of shape \(40000,\), got \(\)"):
        partial(x, y)
    rows = lm.one_pass(lambda input, target: (input - target).mean(0), coupling="row", engine=name)
    with pytest.raises(ValueError, match=r"of shape \(40000,\), got \(1,\)"):
        rows(x[:, None], y[:, None])


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_one_pass_of_what_has_an_engine_already(name: str, pair) -> None:
    x, y = pair
    twice = lm.one_pass(lm.one_pass(lambda a, b: (a - b) ** 2), engine=name)
    torch.testing.assert_close(twice(x, y), (x - y).square().mean())
    assert lm.explain_path(twice, x, y).how == {"one_pass": "compiled"}.get(name, name)
    hidden, weight, labels = x.view(-1, 8), y[:400].view(50, 8), torch.arange(N // 8) % 50
    for loss in (lm.cross_entropy, lambda a, t: F.cross_entropy(a, t, reduction="none")):
        head = lm.linear_head(loss)
        found, expected = (
            f(hidden, weight, labels) for f in (lm.one_pass(head, engine=name), head)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_an_option_may_hold_a_number_for_each_row(name: str, pair) -> None:
    x, y = (each.view(-1, 4) for each in pair)
    factor = torch.rand(len(x)).requires_grad_()
    loss = lm.one_pass(
        lambda a, b, factor=None: ((a - b) ** 2 * factor[:, None]).sum(1),
        coupling="row",
        engine=name,
    )
    value, expected = loss(x, y, factor=factor), ((x - y) ** 2 * factor[:, None]).sum(1).mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(loss(x, y, factor=factor.detach()), expected)
    wanted = torch.autograd.grad(expected, (x, factor))
    torch.testing.assert_close(torch.autograd.grad(value, (x, factor)), wanted)


@pytest.mark.parametrize("name", ["one_pass", "blocks"])
def test_targets_may_come_from_inference_mode(name: str, pair) -> None:
    x, y = pair
    with torch.inference_mode():
        frozen = y.clone()
    with lm.engine(name):
        (slope,) = torch.autograd.grad(lm.log_cosh_loss(x, frozen), x)
    torch.testing.assert_close(slope, torch.autograd.grad(lm.log_cosh_loss(x, y), x)[0])


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'fast'"):
        lm.engine("fast")
    with pytest.raises(ValueError, match="coupling must be 'element' or 'row', got 'pair'"):
        lm.one_pass(lambda input, target: input, coupling="pair")
    with pytest.raises(TypeError, match="function must be a loss or a function, got int"):
        lm.one_pass(3)


def test_explain_path_takes_a_name_and_nothing_else() -> None:
    pair = torch.zeros(3), torch.zeros(3)
    assert lm.explain_path("huber", *pair) == lm.explain_path(lm.huber_loss, *pair)
    with pytest.raises(TypeError, match="loss must be a loss, a function or a name, got int 3"):
        lm.explain_path(3, *pair)
    with pytest.raises(ValueError, match=r"loss must be a name in the catalogue .*, got 'hubre'"):
        lm.explain_path("hubre", *pair)


def test_blocks_add_up_weights_in_the_dtype_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20_000, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(20_000, 3, generator=generator)
    expected = lm.log_cosh_loss(x, y, sample_weight=weight)
    with lm.engine("blocks"):
        found = lm.log_cosh_loss(x, y, sample_weight=weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
