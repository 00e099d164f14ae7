"""Every row of the benchmark runs, and all peers compute the same."""

import inspect
import re

import pytest
import torch

import lossmith
from lossmith.bench.catalogue import FAMILIES, chosen, families
from lossmith.bench.limits import Limits
from lossmith.bench.measure import measure

CPU = torch.device("cpu")
RATES = Limits(bandwidth=1e10, flops={torch.float32: 1e11, torch.bfloat16: 1e11})
# Gradient errors in units of the largest entry: a few roundings
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ROWS = [
    pytest.param(row, dtype, id=f"{family.name}-{row.name}-{dtype}")
    for family in families()
    for row in family.rows
    for dtype in row.dtypes
]


def smoke(row, dtype, without=()):
    for dims in row.small:
        found = measure(row, dims, dtype, device=CPU, limits=RATES, seconds=0.001, without=without)
        for name, entry in found["entries"].items():
            if "absent" in entry:
                assert re.search("not installed|cannot be imported|GPU only", entry["absent"]), name
                continue
            assert entry["ms"] > 0
            assert entry["limit_percent"] > 0
            assert entry["gradient_error"] < BOUND[dtype], name
            assert entry["value_error"] < BOUND[dtype], name


@pytest.mark.parametrize(("row", "dtype"), ROWS)
def test_row_runs_and_all_agree(row, dtype):
    smoke(row, dtype, without=("compile",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "dtype"), [param for param in ROWS if "compile" in param.values[0].peers]
)
def test_row_runs_through_the_compiler(row, dtype):
    smoke(row, dtype, without=tuple(row.peers.keys() - {"compile"}))


@pytest.mark.parametrize(("row", "dtype"), ROWS)
def test_row_is_described_at_every_scale(row, dtype):
    for scale in ("small", "cpu", "gpu"):
        assert row.dims(scale)
        for dims in row.dims(scale):
            work = row.work(dtype.itemsize, **dims)
            assert work.bytes > 0
            assert work.flops >= 0
    if row.grows:
        assert len(row.small) > 2
        assert len(row.cpu) > 2
    tensors = row.tensors(row.small[0], dtype, CPU)
    assert all(tensors[i].is_floating_point() for i in row.wanted)


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_names_are_unique_and_options_are_of_the_peers(family):
    names = [row.name for row in family.rows]
    assert len(set(names)) == len(names)
    known = {"lossmith", "liger"} | {peer for row in family.rows for peer in row.peers}
    assert known >= {who for text in family.options.values() for who in text.split()}


REGIONS = [
    "dice",
    "dice over the batch",
    "tversky",
    "dice and cross-entropy",
    "dice by volume",
]
FUNCTIONS = {
    "cross_entropy": lossmith.cross_entropy,
    "linear_cross_entropy": lossmith.cross_entropy,
    "divergence": lossmith.kl_div_from_logits_loss,
    "region": lossmith.dice_loss,
    "pairs": lossmith.info_nce_loss,
    "sequence": lossmith.ctc_with_logits_loss,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_with_the_name_of_a_keyword_are_keywords(name):
    taken = inspect.signature(FUNCTIONS[name]).parameters
    family = next(family for family in families() if family.name == name)
    words = [option for option in family.options if option.isidentifier()]
    assert words
    assert all((option in taken) == ("lossmith" in family.options[option]) for option in words)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["huber"], {"one_pass": ["huber"]}),
        (["HUBER_"], {"torch_losses": ["huber_loss"]}),
        (["region"], {"region": REGIONS}),
        (["dice by", "js"], {"divergence": ["JS"], "region": ["dice by volume"]}),
        (["logistic"], {"pointwise": ["logistic"], "samples": ["logistic"]}),
    ],
)
def test_a_word_names_a_family_a_row_or_a_beginning(words, found):
    assert {f.name: [row.name for row in f.rows] for f in chosen(words)} == found


def test_no_word_names_everything_and_a_strange_one_is_refused():
    assert [family.name for family in chosen([])] == list(FAMILIES)
    with pytest.raises(ValueError, match="got 'speed'"):
        chosen(["huber", "speed"])


@pytest.mark.parametrize("row", families()[0].rows, ids=lambda row: row.name)
def test_the_torch_family_draws_as_many_elements_as_it_says(row):
    sizes = [t.numel() for t in row.tensors({"elements": 4096}, torch.float32, CPU)]
    assert 0.9 < sizes[0] / 4096 < 1.1
    assert max(sizes) == sizes[0]


def test_the_torch_family_holds_every_loss_that_equals_one_of_torch():
    named = {row.name for row in families()[0].rows}
    twins = {
        c.name for c in lossmith.cards().values() if "torch.nn.functional" in (c.same_as or "")
    }
    assert twins | {"ctc_loss"} == {name.removesuffix(" (hard labels)") for name in named}
