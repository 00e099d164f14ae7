"""``linear_head`` against the loss of all logits in float64, in blocks of a few rows."""

import math
import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith as lm
from lossmith.core.memory import peak_bytes
from lossmith.engines import linear_blocks, linear_head, linear_products

CLASSES, FEATURES = 41, 5
TWO_ROWS = 2 * 8 * CLASSES  # bytes of memory for two rows in float64, four in float32


@pytest.fixture(autouse=True)
def blocks_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_head, "FEW", 0)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def layer(*lead: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Hidden states, weight, bias."""
    shapes = ((*lead, FEATURES), (CLASSES, FEATURES), (CLASSES,))
    return [
        draw(*shape, seed=10 * seed + i, dtype=dtype).requires_grad_()
        for i, shape in enumerate(shapes)
    ]


def labels(*lead: int, seed: int = 0) -> Tensor:
    return torch.randint(CLASSES, lead, generator=torch.Generator().manual_seed(seed))


def dense(tensors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The same numbers in float64, and their logits, one row per sample."""
    hidden, weight, bias = (t.detach().double().requires_grad_() for t in tensors)
    return [hidden, weight, bias], (hidden @ weight.T + bias).flatten(0, -2)


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for ours, truth in zip(found, expected, strict=True):
        assert ours.shape == truth.shape
        error = (ours.double() - truth).abs().max()
        assert error <= tolerance * truth.abs().max()


OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"weight": True},
    {"weight": True, "label_smoothing": 0.3},
    {"ignore_index": 7},
]
CPUS = ["matrices", "pairs", "widened"]
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    # where the CPU multiplies bfloat16 itself, slopes are rounded before they are multiplied
    torch.bfloat16: 2**-8 * 1.01 if linear_products.CPU == "widened" else 2**-7,
    torch.float16: 2**-11 * 1.1,
}


@pytest.mark.parametrize("memory", [None, TWO_ROWS, 7 * TWO_ROWS])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_cross_entropy_is_that_of_the_logits(dtype, reduction, options, memory):
    tensors, target = layer(3, 5, dtype=dtype), labels(3, 5)
    target[0, 2:4] = options.get("ignore_index", -100)
    options = dict(options)
    if "weight" in options:
        options["weight"] = draw(CLASSES, seed=3, dtype=dtype).abs()
        options["weight"][2] = 0
        target[1, 1] = 2
    loss = lm.linear_head(lm.cross_entropy, memory=memory)
    value = loss(*tensors[:2], target, bias=tensors[2], reduction=reduction, **options)
    assert value.dtype is dtype
    grad = draw(*value.shape, seed=4)
    found = torch.autograd.grad(value, tensors, grad.to(dtype))
    assert [f.dtype for f in found] == [dtype] * 3

    leaves, logits = dense(tensors)
    options = {k: v.double() if k == "weight" else v for k, v in options.items()}
    truth = F.cross_entropy(logits, target.flatten(), reduction=reduction, **options)
    truth = truth.view(value.shape)
    expected = torch.autograd.grad(truth, leaves, grad.to(dtype).double())
    agree((value, *found), (truth.detach(), *expected), TOLERANCE[dtype])


@pytest.mark.parametrize("memory", [None, TWO_ROWS])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("depth", "scale"), [(0.0, 1.0), (12.0, 1.0), (3.0, 1.6)])
def test_z_loss_and_scale_are_those_of_the_logits(depth, scale, reduction, options, memory):
    """With the bias far below 0 the log-sum-exp is negative, and so are its slopes."""
    tensors, target = layer(9), labels(9)
    tensors[2] = (tensors[2] - depth).detach().requires_grad_()
    target[2] = options.get("ignore_index", -100)
    options = {**options, "reduction": reduction}
    if "weight" in options:
        options["weight"] = draw(CLASSES, seed=3).abs()
    roomy = lm.linear_head(lm.cross_entropy, memory=9 * 8 * CLASSES)
    more = {"z_loss": 0.07, "logit_scale": scale}
    path = lm.explain_path(roomy, *tensors[:2], target, **more, **options)
    assert str(path) == "blocks: 1 of up to 9 rows"  # in place, without temporaries
    loss = lm.linear_head(lm.cross_entropy, memory=memory)
    value = loss(*tensors[:2], target, bias=tensors[2], **more, **options)
    leaves, logits = dense(tensors)
    logits = scale * logits
    plain = F.cross_entropy(logits, target, **{**options, "reduction": "none"})
    present = target != options.get("ignore_index", -100)
    truth = (plain + 0.07 * logits.logsumexp(1).square()) * present
    if reduction == "mean":
        factor = options.get("weight", torch.ones(CLASSES).double())
        truth = truth.sum() / (factor[target.where(present, 0)] * present).sum()
    grad = draw(*value.shape, seed=4)
    found = torch.autograd.grad(value, tensors, grad)
    expected = torch.autograd.grad(truth, leaves, grad)
    agree((value, *found), (truth.detach(), *expected), 1e-12)


def test_a_z_loss_that_undoes_the_pull_leaves_the_other_slopes():
    """``1 + 2 z lse`` is 0: nothing is left of p, and the whole pull at the target."""
    hidden, weight = torch.zeros(2, 1), torch.zeros(8, 1)
    bias = torch.full((8,), -math.log(8) - 4.0).requires_grad_()
    loss = lm.linear_head(lm.cross_entropy)
    loss(hidden, weight, torch.tensor([0, 3]), bias=bias, z_loss=0.125, reduction="sum").backward()
    expected = torch.zeros(8).index_fill(0, torch.tensor([0, 3]), -1.0)
    torch.testing.assert_close(bias.grad, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("z_loss", "options"),
    [
        (0.125, {"label_smoothing": 1.0}),
        (0.046875, {"label_smoothing": 0.5, "weight": [0.0, 1, 1, 0, 1, 1, 1, 1]}),
    ],
)
def test_a_z_loss_that_undoes_smoothing_leaves_its_even_part(z_loss, options):
    """Nothing is left of p, and no pull at the target either."""
    options = {k: torch.tensor(v) if k == "weight" else v for k, v in options.items()}
    bias = torch.full((8,), -math.log(8) - 4.0)
    loss, found = lm.linear_head(lm.cross_entropy), []
    for dtype in (torch.float32, torch.float64):
        leaf = bias.to(dtype).requires_grad_()
        logits = leaf.expand(2, 8)
        call = {**options, "z_loss": z_loss, "reduction": "sum"}
        target = torch.tensor([0, 3])
        if dtype is torch.float32:
            value = loss(torch.zeros(2, 1), torch.zeros(8, 1), target, bias=leaf, **call)
        else:
            value = lm.cross_entropy(logits, target, **call)
        found.append(torch.autograd.grad(value, leaf)[0].float())
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
    assert found[0].abs().max() > 0.1


@pytest.mark.parametrize("memory", [None, 8 * TWO_ROWS, 20 * TWO_ROWS])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal_loss", {"gamma": 1.5}),
        ("focal_loss", {"weight": True}),  # divides its mean by these weights
        ("generalized_cross_entropy_loss", {}),
        ("multi_margin_loss", {}),
        ("entropy", {}),
    ],
)
def test_any_row_loss_is_that_of_its_logits(name, options, reduction, memory):
    function, tensors = getattr(lm, name), layer(3, 6)
    rest = [] if name == "entropy" else [labels(3, 6)]
    sample_weight = draw(3, 6, seed=5).abs()
    sample_weight[1] = 0
    if "weight" in options:
        options = {"weight": draw(CLASSES, seed=3).abs()}
    loss = lm.linear_head(function, memory=memory)
    value = loss(
        *tensors[:2],
        *rest,
        bias=tensors[2],
        sample_weight=sample_weight,
        reduction=reduction,
        **options,
    )
    leaves, logits = dense(tensors)
    flat = [t.flatten() for t in rest]
    truth = function(
        logits, *flat, sample_weight=sample_weight.flatten(), reduction=reduction, **options
    ).view(value.shape)
    grad = draw(*value.shape, seed=4)
    found = torch.autograd.grad(value, tensors, grad)
    expected = torch.autograd.grad(truth, leaves, grad)
    agree((value, *found), (truth.detach(), *expected), 1e-12)


def test_what_ends_in_blocks_says_so():
    tensors, target = layer(7), labels(7)
    few = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)
    assert str(lm.explain_path(few, *tensors[:2], target)) == "blocks: 4 of up to 2 rows"
    user = lm.linear_head(lambda logits, target: logits.exp().sum(1), memory=7 * TWO_ROWS)
    assert str(lm.explain_path(user, *tensors[:2], target)) == "blocks: 4 of up to 2 rows"


def test_slopes_in_bfloat16_are_part_of_the_memory(monkeypatch):
    tensors, head = layer(12, dtype=torch.bfloat16), lm.linear_head(lm.cross_entropy, memory=984)
    for cpu, rows in (("widened", 6), ("pairs", 4)):  # of 164 bytes, and of 246
        monkeypatch.setattr(linear_products, "CPU", cpu)
        assert str(lm.explain_path(head, *tensors[:2], labels(12))).endswith(f"up to {rows} rows")


@pytest.mark.parametrize("cpu", CPUS)
def test_no_features_leave_the_bias(cpu, monkeypatch):
    monkeypatch.setattr(linear_products, "CPU", cpu)
    hidden, weight = (torch.zeros(n, 0, dtype=torch.bfloat16) for n in (6, CLASSES))
    leaves = [each.requires_grad_() for each in (hidden, weight, draw(CLASSES).bfloat16())]
    lm.linear_head(lm.cross_entropy)(*leaves[:2], labels(6), bias=leaves[2]).backward()
    assert leaves[2].grad.any()
    assert [each.grad.shape for each in leaves] == [each.shape for each in leaves]


@pytest.mark.parametrize("wide", [0, 1])
def test_two_heads_may_differ_in_dtype(wide):
    student, teacher = layer(9), layer(9, seed=5)
    heads = [
        [t.detach().to(torch.float64 if i == wide else torch.float32) for t in head]
        for i, head in enumerate((student, teacher))
    ]
    leaves = [t.clone().requires_grad_() for head in heads for t in head]
    distil = lm.linear_head(lm.js_div_from_logits_loss, heads=2, memory=4 * TWO_ROWS)
    value = distil(*leaves[:2], *leaves[3:5], bias=leaves[2], target_bias=leaves[5])
    exact = [t.detach().double().requires_grad_() for t in leaves]
    sides = [exact[i] @ exact[i + 1].T + exact[i + 2] for i in (0, 3)]
    expected = lm.js_div_from_logits_loss(*sides)
    found = torch.autograd.grad(value, leaves)
    agree((value, *found), (expected.detach(), *torch.autograd.grad(expected, exact)), 2e-6)


def test_few_logits_are_computed_at_once(monkeypatch):
    monkeypatch.undo()
    tensors, target = layer(7), labels(7)
    loss = lm.linear_head(lm.cross_entropy)
    path = lm.explain_path(loss, *tensors[:2], target)
    assert str(path) == "plain: 287 logits, and up to 4194304 blocks gain nothing"
    value = loss(*tensors[:2], target, bias=tensors[2])
    leaves, logits = dense(tensors)
    truth = F.cross_entropy(logits, target)
    found, expected = torch.autograd.grad(value, tensors), torch.autograd.grad(truth, leaves)
    agree((value, *found), (truth.detach(), *expected), 1e-13)


def test_float32_is_no_less_accurate_than_all_logits():
    tensors = [t.detach().float().requires_grad_() for t in layer(401)]
    target, worst = labels(401), {}
    leaves, logits = dense(tensors)
    truth = F.cross_entropy(logits, target)
    expected = (truth, *torch.autograd.grad(truth, leaves))
    values = {
        "blocks": lm.linear_head(lm.cross_entropy, memory=41 * 4 * CLASSES)(
            *tensors[:2], target, bias=tensors[2]
        ),
        "torch": F.cross_entropy(F.linear(*tensors), target),
    }
    for name, value in values.items():
        found = (value, *torch.autograd.grad(value, tensors))
        worst[name] = [
            ((f.double() - e).norm() / e.norm()).item()
            for f, e in zip(found, expected, strict=True)
        ]
    for ours, torchs in zip(worst["blocks"], worst["torch"], strict=True):
        assert ours <= 1.1 * torchs + 2**-24


@pytest.mark.parametrize("cpu", CPUS)
def test_half_precision_logits_are_float32(cpu, monkeypatch):
    """Rounded to bfloat16 they would be off by up to 1 %, as these are large and close."""
    monkeypatch.setattr(linear_products, "CPU", cpu)
    hidden, weight, _ = layer(64, dtype=torch.bfloat16)
    hidden = (8 * hidden.detach()).requires_grad_()
    target = labels(64)
    value = lm.linear_head(lm.cross_entropy)(hidden, weight, target, reduction="none")
    exact = F.cross_entropy(hidden.double() @ weight.double().T, target, reduction="none")
    assert ((value.double() - exact).abs() <= 2**-8 * exact).all()
    found = torch.autograd.grad(value.sum(), weight)[0]
    (expected,) = torch.autograd.grad(exact.sum(), weight)
    digits = 2**-8 if cpu == "widened" else 2**-7
    assert (found - expected).abs().max() <= digits * expected.abs().max()


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("step", [1, 7, CLASSES])
def test_gradients_of_bfloat16_are_added_up_in_float32(cpu, step, monkeypatch):
    """Blocks of a few rows, tiles of a few classes: sums in bfloat16 would stand still."""
    hidden, weight, _ = layer(2000, dtype=torch.bfloat16)
    monkeypatch.setattr(linear_products, "CPU", cpu)
    monkeypatch.setattr(linear_products, "TILE", step * 4 * FEATURES)
    monkeypatch.setattr(linear_products, "COARSE_TILE", step * FEATURES)
    target = labels(2000)
    value = lm.linear_head(lm.cross_entropy, memory=20 * TWO_ROWS)(hidden, weight, target)
    found = torch.autograd.grad(value, [hidden, weight])
    exact = [hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()]
    truth = F.cross_entropy(exact[0] @ exact[1].T, target)
    expected = torch.autograd.grad(truth, exact)
    agree((value, *found), (truth.detach(), *expected), 2**-8 * 1.01 if cpu == "widened" else 2**-7)


def switches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How float32 products are set as each product of a linear head is called."""
    seen: list[str] = []
    multiply = linear_products._multiply

    def watched(*args: Tensor, **options: bool) -> None:
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        multiply(*args, **options)

    # threads that other tests have left behind are none of these tests' affair
    others = set(threading.enumerate()) - {threading.current_thread()}
    every = threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [t for t in every() if t not in others])
    monkeypatch.setattr(linear_products, "_multiply", watched)
    monkeypatch.setattr(linear_products, "CPU", "matrices")
    return seen


def products_of(dtype: torch.dtype) -> None:
    tensors = layer(6, dtype=dtype)
    lm.linear_head(lm.cross_entropy)(*tensors[:2], labels(6), bias=tensors[2]).backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_float32_products_round_for_bfloat16_only_and_never_after(monkeypatch):
    seen = switches(monkeypatch)
    products_of(torch.bfloat16)
    assert set(seen) == {"bf16"}
    seen.clear()
    products_of(torch.float32)
    products_of(torch.float16)
    assert set(seen) == {"none"}


def test_the_switch_of_all_threads_is_left_alone_where_another_works(monkeypatch):
    seen, done = switches(monkeypatch), threading.Event()
    worker = threading.Thread(target=done.wait)
    worker.start()
    try:
        products_of(torch.bfloat16)
    finally:
        done.set()
        worker.join()
    assert set(seen) == {"none"}
    seen.clear()
    watcher = threading.Thread(target=done.wait, daemon=True)
    done.clear()
    watcher.start()
    products_of(torch.bfloat16)
    done.set()
    assert set(seen) == {"bf16"}


def test_the_switch_of_a_user_is_left_alone(monkeypatch):
    seen, switch = switches(monkeypatch), torch.backends.mkldnn.matmul
    tensors = layer(6, dtype=torch.bfloat16)
    switch.fp32_precision = "ieee"
    try:
        lm.linear_head(lm.cross_entropy)(*tensors[:2], labels(6)).backward()
        assert switch.fp32_precision == "ieee"
    finally:
        switch.fp32_precision = "none"
    assert set(seen) == {"ieee"}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction):
    tensors, target = layer(3), labels(3)
    loss = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)

    def call(hidden, weight, bias):
        return loss(hidden, weight, target, bias=bias, reduction=reduction)

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


def test_distillation_reaches_student_and_teacher():
    student, teacher = layer(3, 4), layer(3, 4, seed=1)
    for hidden in (student[0], teacher[0]):  # layers of different widths
        assert hidden.shape == (3, 4, FEATURES)
    teacher[:2] = [torch.cat([t.detach(), t.detach()], -1).requires_grad_() for t in teacher[:2]]
    loss = lm.linear_head(lm.kl_div_from_logits_loss, heads=2, memory=30 * TWO_ROWS)
    value = loss(*student[:2], *teacher[:2], target_bias=teacher[2], bias=student[2])
    leaves, logits = dense(student)
    others, target = dense(teacher)
    truth = F.kl_div(logits.log_softmax(1), target.softmax(1), reduction="batchmean")
    found = torch.autograd.grad(value, student + teacher, retain_graph=True)
    expected = torch.autograd.grad(truth, leaves + others)
    agree((value, *found), (truth.detach(), *expected), 1e-12)
    frozen = [t.detach() for t in teacher]
    value = loss(*student[:2], *frozen[:2], target_bias=frozen[2], bias=student[2])
    agree(torch.autograd.grad(value, student), expected[:3], 1e-12)


def test_preference_loss_of_log_probabilities():
    """DPO: one factor per sequence, so that every token of a pair has its own gradient."""
    tensors, target = layer(4, 6), labels(4, 6)
    target[:, 4:] = -100
    loss = lm.linear_head(lm.cross_entropy, memory=7 * TWO_ROWS)
    log_p = -loss(*tensors[:2], target, bias=tensors[2], reduction="none").sum(1)
    value = -F.logsigmoid(0.1 * (log_p[:2] - log_p[2:])).mean()
    leaves, logits = dense(tensors)
    own = logits.log_softmax(1).view(4, 6, -1)[:, :4].gather(2, target[:, :4, None])
    exact = own.squeeze(2).sum(1)
    truth = -F.logsigmoid(0.1 * (exact[:2] - exact[2:])).mean()
    found, expected = torch.autograd.grad(value, tensors), torch.autograd.grad(truth, leaves)
    agree((value, *found), (truth.detach(), *expected), 1e-12)


def test_probabilities_as_targets():
    tensors, target = layer(3, 4), draw(3, 4, CLASSES, seed=2).softmax(-1)
    value = lm.linear_head(lm.cross_entropy, memory=7 * TWO_ROWS)(*tensors[:2], target)
    leaves, logits = dense([*tensors[:2], torch.zeros(CLASSES)])
    truth = F.cross_entropy(logits, target.flatten(0, 1))
    found, expected = (
        torch.autograd.grad(value, tensors[:2]),
        torch.autograd.grad(truth, leaves[:2]),
    )
    agree((value, *found), (truth.detach(), *expected), 1e-12)
    # a gradient of the target is the plain function's affair
    wanted = target.clone().requires_grad_()
    loss = lm.linear_head(lm.cross_entropy)
    assert "more than hidden" in str(lm.explain_path(loss, *tensors[:2], wanted))
    (pull,) = torch.autograd.grad(loss(*tensors[:2], wanted), wanted)
    torch.testing.assert_close(pull.flatten(0, 1), -logits.detach().log_softmax(1) / 12)


def test_masks_and_shared_tensors_go_with_their_rows():
    tensors, relevance = layer(5), torch.randint(3, (5, CLASSES)).double()
    mask = torch.rand(5, CLASSES) < 0.7
    loss = lm.linear_head(lm.listnet_loss, memory=7 * TWO_ROWS)
    value = loss(*tensors[:2], relevance, mask=mask)
    _, logits = dense([*tensors[:2], torch.zeros(CLASSES)])
    torch.testing.assert_close(value, lm.listnet_loss(logits, relevance, mask=mask))


class Products(TorchDispatchMode):
    """Counts matrix products, and the largest tensor that comes out of anything."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count += func.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize(
    ("wanted", "reduction", "products"),
    [
        ((True, True), "mean", 3),
        ((True, False), "mean", 2),
        ((False, True), "mean", 2),
        ((False, False), "mean", 1),
        ((True, False), "none", 2),
        ((True, True), "none", 4),
        ((False, False), "none", 1),
    ],
)
def test_what_is_frozen_costs_no_product(wanted, reduction, products):
    tensors, target = layer(8)[:2], labels(8)
    for tensor, want in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(want)
    with Products() as seen:
        value = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)(
            *tensors, target, reduction=reduction
        )
        if any(wanted):
            value.sum().backward()
    assert seen.count == 4 * products + 1 + (reduction == "none" and all(wanted))  # and a first row
    assert [t.grad is not None for t in tensors] == list(wanted)


def test_kept_slopes_save_products():
    tensors, target = layer(8)[:2], labels(8)
    counts = []
    for memory in (TWO_ROWS, 2 * TWO_ROWS, 4 * TWO_ROWS):
        with Products() as seen:
            loss = lm.linear_head(lm.cross_entropy, memory=memory)
            loss(*tensors, target, reduction="none").sum().backward()
        counts.append(seen.count)
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", ["cross_entropy", "generalized_cross_entropy_loss"])
def test_memory_is_bounded(name, reduction):
    """No tensor has more elements than the budget allows, and never all logits."""
    hidden, weight = draw(96, 2).requires_grad_(), draw(500, 2).requires_grad_()
    target = torch.zeros(96, dtype=torch.long)
    with Products() as seen:
        loss = lm.linear_head(getattr(lm, name), memory=96 * 500)
        loss(hidden, weight, target, reduction=reduction).sum().backward()
    assert 0 < seen.largest <= 96 * 500 / 8


def test_peak_memory_is_a_fraction():
    hidden = draw(2048, 8, dtype=torch.float32).requires_grad_()
    weight = draw(2000, 8, dtype=torch.float32).requires_grad_()
    target = torch.randint(2000, (2048,))

    head, cpu = lm.linear_head(lm.cross_entropy), torch.device("cpu")
    whole = peak_bytes(lambda: F.cross_entropy(F.linear(hidden, weight), target).backward(), cpu)
    hidden.grad = weight.grad = None
    ours = peak_bytes(lambda: head(hidden, weight, target).backward(), cpu)
    assert ours <= 0.35 * whole


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("lead", [(0,), (0, 3), (2, 0), (4,)])
def test_empty_and_ignored_batches_give_zero(lead, reduction):
    tensors = layer(*lead)
    target = torch.full(lead, -100)
    hidden = tensors[0].detach().fill_(math.nan).requires_grad_()
    loss = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)
    value = loss(hidden, tensors[1], target, bias=tensors[2], reduction=reduction)
    assert (value == 0).all()
    assert value.shape == (lead if reduction == "none" else ())
    for pull in torch.autograd.grad(value.sum(), [hidden, *tensors[1:]]):
        assert (pull == 0).all()


def test_a_single_row():
    tensors, target = layer(), labels()
    value = lm.linear_head(lm.cross_entropy)(*tensors[:2], target, reduction="none")
    exact = F.cross_entropy(tensors[1] @ tensors[0], target)
    torch.testing.assert_close(value, exact)


def test_layouts_do_not_matter_and_nothing_is_overwritten():
    base, weight, _ = layer(6, 4)
    target = labels(4, 6).t()
    turned = base.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    broad = weight.detach().t().contiguous().t().requires_grad_()
    spread = torch.stack([weight.detach(), -weight.detach()], -1)[..., 0].requires_grad_()
    before = [t.detach().clone() for t in (turned, broad, spread)]
    loss = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)
    expected = torch.autograd.grad(loss(base, weight, target), [base, weight])
    for hidden, other in ((turned, broad), (turned, spread), (base, spread)):
        found = torch.autograd.grad(loss(hidden, other, target), [hidden, other])
        agree(found, expected, 1e-14)
    for tensor, copy in zip((turned, broad, spread), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_graph_can_be_used_twice_and_guards_its_tensors(reduction):
    hidden, weight, _ = layer(6)
    loss = lm.linear_head(lm.cross_entropy, memory=2 * TWO_ROWS)
    value = loss(hidden, weight, labels(6), reduction=reduction).sum()
    value.backward(retain_graph=True)
    once = weight.grad.clone()
    value.backward(retain_graph=True)
    torch.testing.assert_close(weight.grad, 2 * once)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_float16_gradients_of_a_mean_survive_until_they_are_scaled():
    """Unscaled they lie below the range of float16, and that is what loss scaling is for."""
    hidden, weight, _ = layer(4096, dtype=torch.float16)
    hidden = (1e-3 * hidden.detach()).requires_grad_()
    value = lm.linear_head(lm.cross_entropy)(hidden, weight, labels(4096))
    found = torch.autograd.grad(value, hidden, torch.tensor(2.0**14, dtype=torch.float16))[0]
    leaf = hidden.detach().double().requires_grad_()
    exact = F.cross_entropy(leaf @ weight.double().T, labels(4096)) * 2**14
    (expected,) = torch.autograd.grad(exact, leaf)
    agree((found,), (expected,), 2**-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_infinite_logits_mean_certainty(smoothing):
    """As in the loss of the logits: the bias rules classes out, or in."""
    hidden, weight, bias = (t.detach() for t in layer(6))
    weight, bias = weight.requires_grad_(), bias.clone()
    bias[3], bias[5] = -math.inf, -math.inf
    factors = torch.ones(CLASSES).double()
    factors[3] = factors[5] = 0
    target = torch.tensor([0, 1, 2, 4, 6, 7])
    loss = lm.linear_head(lm.cross_entropy, memory=TWO_ROWS)
    options = {"weight": factors, "label_smoothing": smoothing}
    value = loss(hidden, weight, target, bias=bias, **options)
    logits = hidden @ weight.T + bias
    expected = lm.cross_entropy(logits, target, **options)
    torch.testing.assert_close(value, expected)
    found, truth = (torch.autograd.grad(v, weight)[0] for v in (value, expected))
    assert found.isfinite().all()
    torch.testing.assert_close(found, truth)
    bias[2] = math.inf
    value = loss(hidden, weight, target, bias=bias, reduction="none")
    expected = lm.cross_entropy(hidden @ weight.T + bias, target, reduction="none")
    torch.testing.assert_close(value, expected)


def test_what_an_infinite_bias_takes_has_room_in_the_blocks():
    """The pass in place declines it with smoothing, and autograd needs seven times the memory."""
    tensors, target = layer(6), labels(6)
    bias = tensors[2].detach().clone()
    loss = lm.linear_head(lm.cross_entropy, memory=7 * TWO_ROWS)
    options = {"weight": torch.ones(CLASSES).double().scatter(0, target[:1], 0.0)}
    options |= {"label_smoothing": 0.1}
    finite = lm.explain_path(loss, *tensors[:2], target, bias=bias, **options)
    assert str(finite) == "blocks: 1 of up to 6 rows"
    bias[target[0]] = -math.inf
    infinite = lm.explain_path(loss, *tensors[:2], target, bias=bias, **options)
    assert str(infinite) == "blocks: 3 of up to 2 rows"


def test_a_likely_class_keeps_its_digits():
    hidden, weight = torch.eye(2), torch.tensor([[20.0, 0.0], [0.0, 30.0]], requires_grad=True)
    loss = lm.linear_head(lm.cross_entropy)
    value = loss(hidden, weight, torch.tensor([0, 1]), reduction="none")
    exact = torch.tensor([20.0, 30.0]).double().neg().exp().log1p()
    # a depth of 30 is rounded to 2e-6 where exponentials are powers of two
    torch.testing.assert_close(value.double(), exact, rtol=3e-6, atol=0)
    (pull,) = torch.autograd.grad(value.sum(), weight)
    assert pull[0, 0] == pytest.approx(-math.exp(-20), rel=3e-6)


def test_labels_outside_are_refused():
    hidden, weight, _ = layer(3)
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 40\], got 41"):
        lm.linear_head(lm.cross_entropy)(hidden, weight, torch.tensor([0, 41, 2]))


def test_own_functions_modules_and_engines():
    tensors, target = layer(3, 4), labels(3, 4)
    flat = target.flatten()

    def squared(logits, target, *, power=2.0):
        return (1 - logits.softmax(1).gather(1, target[:, None])[:, 0]) ** power

    leaves, logits = dense(tensors)
    truth = squared(logits, flat, power=3.0).mean()
    expected = torch.autograd.grad(truth, leaves)
    loss = lm.linear_head(squared, memory=7 * TWO_ROWS)
    value = loss(*tensors[:2], target, bias=tensors[2], power=3.0)
    found = torch.autograd.grad(value, tensors)
    agree((value, *found), (truth.detach(), *expected), 1e-12)
    module = lm.FocalLoss(gamma=1.0, reduction="sum")
    value = lm.linear_head(module)(*tensors[:2], target, bias=tensors[2])
    torch.testing.assert_close(value, module(logits, flat))
    with lm.engine("blocks"):
        again = lm.linear_head(module)(*tensors[:2], target, bias=tensors[2])
    torch.testing.assert_close(again, value)


def test_what_cannot_be_served_falls_back_and_says_so():
    tensors, target = layer(4), labels(4)
    loss = lm.linear_head(lm.cross_entropy)

    def call(hidden):
        return loss(hidden, tensors[1], target)

    plain = F.cross_entropy(tensors[0] @ tensors[1].T, target)
    torch.testing.assert_close(torch.func.vmap(call)(tensors[0].expand(2, 4, 5))[0], plain)
    _, slope = torch.func.jvp(call, (tensors[0],), (torch.ones_like(tensors[0]),))
    (pull,) = torch.autograd.grad(plain, tensors[0])
    torch.testing.assert_close(slope, pull.sum())
    seen = []

    def look(hidden):
        seen.append(str(lm.explain_path(loss, hidden, tensors[1], target)))
        return hidden.sum()

    torch.func.grad(look)(tensors[0])
    assert seen == ["plain: a transform, forward-mode AD or a tensor subclass is at work"]


def test_it_compiles_in_one_graph():
    tensors, target = layer(4), labels(4)
    loss = lm.linear_head(lm.cross_entropy)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, expected = (f(*tensors[:2], target, label_smoothing=0.1) for f in (compiled, loss))
    torch.testing.assert_close(value, expected)
    found, truth = (torch.autograd.grad(v, tensors[:2]) for v in (value, expected))
    torch.testing.assert_close(found, truth)


def test_autocast_leaves_the_logits_in_float32():
    tensors, target = layer(6, dtype=torch.float32), labels(6)
    loss = lm.linear_head(lm.cross_entropy)
    outside = loss(*tensors[:2], target)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*tensors[:2], target)
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("rows", [6, 90])
def test_autocast_chooses_the_products_where_that_makes_them_faster(rows, monkeypatch):
    """As on a GPU: parameters are float32 there, and products in it take many times as long."""
    monkeypatch.setattr("lossmith.transform.linear_head.FASTER", {"cpu"})
    tensors, target = layer(rows, dtype=torch.float32), labels(rows)
    loss = lm.linear_head(lm.cross_entropy)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*tensors[:2], target)
        wanted = loss(*(t.bfloat16() for t in tensors[:2]), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    slopes = torch.autograd.grad(found, tensors[:2])
    assert [slope.dtype for slope in slopes] == [torch.float32] * 2
    torch.testing.assert_close(slopes, torch.autograd.grad(wanted, tensors[:2]))


def test_losses_without_logits_are_refused():
    with pytest.raises(TypeError, match="loss must be a loss or a function, got str"):
        lm.linear_head("cross_entropy")
    with pytest.raises(ValueError, match=r"loss must be a row loss of logits \(N, C\), got huber"):
        lm.linear_head(lm.huber_loss)
    with pytest.raises(ValueError, match=r"loss must be a row loss of logits .* got nll_loss"):
        lm.linear_head(lm.nll_loss)
    with pytest.raises(ValueError, match=r"loss must be a row loss of logits .* got lovasz"):
        lm.linear_head(lm.lovasz_softmax_loss)
    with pytest.raises(ValueError, match=r"loss must be a row loss of 2 tensors of logits"):
        lm.linear_head(lm.cross_entropy, heads=2)
    with pytest.raises(ValueError, match="loss must be one loss, got Sum"):
        lm.linear_head(lm.CrossEntropyLoss() + lm.CrossEntropyLoss())
    with pytest.raises(ValueError, match="heads must be >= 1, got 0"):
        lm.linear_head(lm.cross_entropy, heads=0)
    with pytest.raises(TypeError, match="memory must be a whole number, got float"):
        lm.linear_head(lm.cross_entropy, memory=1e6)
    wrong = lm.linear_head(lambda logits, target: logits, memory=1)
    with pytest.raises(ValueError, match=r"loss must return the unreduced loss, of shape \(1,\)"):
        wrong(draw(2, 5), draw(3, 5), torch.zeros(2))


def test_arguments_that_do_not_fit_are_refused():
    hidden, weight, bias = layer(2, 3)
    loss = lm.linear_head(lm.cross_entropy)
    with pytest.raises(ValueError, match=r"target must begin with the dimensions \(2, 3\)"):
        loss(hidden, weight, labels(3, 2))
    with pytest.raises(ValueError, match=r"sample_weight must begin with the dimensions"):
        loss(hidden, weight, labels(2, 3), sample_weight=torch.ones(6).double())
    with pytest.raises(ValueError, match=r"weight must have the shape \(C, features\)"):
        loss(hidden, weight[:, 1:], labels(2, 3))
    with pytest.raises(ValueError, match=r"bias must have shape \(41,\)"):
        loss(hidden, weight, labels(2, 3), bias=bias[1:])
    with pytest.raises(TypeError, match=r"takes hidden, weight, target by position, got 2"):
        loss(hidden, weight)
    with pytest.raises(TypeError, match="hidden must be a tensor"):
        loss(None, weight, labels(2, 3))
    with pytest.raises(TypeError, match=r"takes .* by keyword, got temperature"):
        loss(hidden, weight, labels(2, 3), temperature=2.0)


def test_rows_fill_the_memory_evenly():
    """1000 rows in at most 300: four blocks of 250, not three of 300 and one of 100."""
    hidden, weight = draw(1000, 2), draw(10, 2)
    loss = lm.linear_head(lm.cross_entropy, memory=300 * 10 * 8)
    path = lm.explain_path(loss, hidden, weight, torch.zeros(1000, dtype=torch.long))
    assert str(path) == "blocks: 4 of up to 250 rows"
    assert linear_blocks.ENOUGH_ON_CPU >= 300


def test_beside_the_gradients_of_a_wide_layer_blocks_may_be_large(monkeypatch):
    """These take 352 kB, all logits 24: each block would read the weight once more."""
    monkeypatch.setattr(linear_blocks, "LEAST_MEMORY", 0)
    hidden, weight, target = draw(60, 400), draw(50, 400), torch.zeros(60, dtype=torch.long)
    path = lm.explain_path(lm.linear_head(lm.cross_entropy), hidden, weight, target)
    assert str(path) == "blocks: 1 of up to 60 rows"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_on_a_gpu_without_synchronising(dtype, reduction):
    tensors, target = [t.detach() for t in layer(301, dtype=dtype)], labels(301)
    target[5] = -100
    gpu = [t.cuda().requires_grad_() for t in tensors]
    at, grad = target.cuda(), torch.rand(()).cuda().to(dtype)
    loss = lm.linear_head(lm.cross_entropy, memory=50 * 4 * CLASSES)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(*gpu[:2], at, bias=gpu[2], label_smoothing=0.1, reduction=reduction)
        found = torch.autograd.grad(value.sum(), gpu, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    leaves, logits = dense(tensors)
    truth = F.cross_entropy(logits, target, label_smoothing=0.1, reduction=reduction)
    expected = torch.autograd.grad(truth.sum(), leaves, grad.cpu().double())
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    agree(tuple(f.cpu() for f in (value, *found)), (truth.detach(), *expected), tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_label_outside_poisons_its_own_row_on_a_gpu():
    hidden, weight, _ = (t.detach().cuda() for t in layer(3))
    target = torch.tensor([0, CLASSES, 2]).cuda()
    value = lm.linear_head(lm.cross_entropy)(hidden, weight, target, reduction="none")
    assert value.isnan().tolist() == [False, True, False]
