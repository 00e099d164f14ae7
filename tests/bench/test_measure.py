"""One measurement: who takes part, whose error is seen, and what is recorded."""

import json

import pytest
import torch

from lossmith.bench.limits import Limits, Work
from lossmith.bench.measure import measure
from lossmith.bench.results import ENTRY, ROW
from lossmith.bench.row import Absent, Direct, Draw, Row, compiled, folder_of, of, package

CPU = torch.device("cpu")
RATES = Limits(bandwidth=1e9, flops={torch.float32: 1e9, torch.bfloat16: 1e9})


def square(x, y):
    return ((x - y) ** 2).sum()


def tilted(x, y):
    return 1.01 * square(x, y)


def overwriting(x, y):
    value = square(x, y)
    with torch.no_grad():
        x.zero_()
    return value


def failing(x, y):
    raise RuntimeError("no kernel for this\nand a long story")


def run(ours=square, without=(), dtype=torch.float32, **peers):
    row = Row(
        "square",
        make=lambda draw, N: (draw.normal(N), draw.normal(N)),
        ours=ours,
        peers=peers,
        truth=square,
        work=lambda s, N: Work(bytes=3.0 * s * N),
        small=({"N": 1000},),
        cpu=(),
        gpu=(),
    )
    return measure(row, {"N": 1000}, dtype, device=CPU, limits=RATES, seconds=0.01, without=without)


def test_record_has_the_schema_and_is_json():
    found = run(torch=of(square))
    assert set(found) == ROW
    assert set(found["entries"]["lossmith"]) >= ENTRY
    assert {"ratio", "ratio_low", "ratio_high", "ratio_of_best"} <= set(found["entries"]["torch"])
    assert "ratio" not in found["entries"]["lossmith"]
    json.dumps(found, allow_nan=False)


def test_limit_is_the_share_of_the_least_time():
    found = run()
    assert found["work"]["ms"] == pytest.approx(0.012)  # 12 kB at 1 GB/s
    ours = found["entries"]["lossmith"]
    assert ours["limit_percent"] == pytest.approx(100 * 0.012 / ours["ms"], rel=1e-2)
    assert found["gradient_mib"] == pytest.approx(4000 / 2**20)
    assert ours["peak_mib"] >= found["gradient_mib"]


def test_an_error_is_seen_in_value_and_gradient():
    found = run(torch=of(tilted))["entries"]
    assert found["lossmith"]["gradient_error"] < 1e-6
    assert found["torch"]["gradient_error"] == pytest.approx(0.01, rel=1e-3)
    assert found["torch"]["value_error"] == pytest.approx(0.01, rel=1e-3)


def test_a_slower_peer_has_a_ratio_below_one():
    def slow(x, y):
        return torch.stack([square(x, y) for _ in range(30)]).mean()

    assert run(torch=of(slow))["entries"]["torch"]["ratio"] < 0.5


def test_error_is_of_the_inputs_as_they_were_rounded():
    assert run(dtype=torch.bfloat16)["entries"]["lossmith"]["gradient_error"] < 5e-3


def test_a_peer_that_writes_into_its_arguments_harms_nobody():
    """Peers share their tensors, but for such a one."""
    seen: dict[int, set[float]] = {}

    def watching(x, y):
        seen.setdefault(x.data_ptr(), set()).add(x.detach().sum().item())
        return square(x, y)

    found = run(bad=of(overwriting), torch=of(watching), other=of(watching))["entries"]
    assert found["torch"]["gradient_error"] < 1e-6
    assert len(set().union(*seen.values())) == 1


def test_a_peer_without_autograd():
    direct = Direct(lambda x, y: (square(x, y), 2 * (x - y)))
    found = run(direct=lambda: direct)["entries"]
    assert found["direct"]["gradient_error"] < 1e-6


def test_a_missing_package_is_reported():
    found = run(gone=lambda: package("no_such_package.losses"))
    assert found["entries"]["gone"] == {"absent": "no_such_package is not installed"}
    assert found["entries"]["lossmith"]["ms"] > 0


def test_a_broken_package_is_reported(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    found = run(gone=lambda: package("broken_package"))["entries"]["gone"]
    assert found == {"absent": "cannot be imported: built for another torch"}


def test_a_folder_of_a_package_needs_nothing_of_the_rest(tmp_path, monkeypatch):
    (tmp_path / "models" / "losses").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('wants a GPU')")
    (tmp_path / "models" / "losses" / "__init__.py").write_text("from .one import factor")
    (tmp_path / "models" / "losses" / "one.py").write_text("factor = 3")
    (tmp_path / "models" / "odd").mkdir()
    (tmp_path / "models" / "odd" / "__init__.py").write_text("raise RuntimeError('odd')")
    monkeypatch.syspath_prepend(tmp_path)
    assert folder_of("models", "losses").factor == 3
    with pytest.raises(Absent, match="cannot be imported: odd"):
        folder_of("models", "odd")
    with pytest.raises(Absent, match="no_such_package is not installed"):
        folder_of("no_such_package", "losses")


def test_without_room_for_a_plain_computation_peers_are_not_run(monkeypatch):
    monkeypatch.setattr("lossmith.bench.measure.memory", lambda device: 8 * 8000 - 1)
    found = run(torch=lambda: pytest.fail("made"))["entries"]
    assert found["torch"] == {"absent": "no room for tensors of 0 GiB"}
    assert found["lossmith"]["ms"] > 0
    monkeypatch.setattr("lossmith.bench.measure.memory", lambda device: 8 * 8000)
    assert run(torch=of(square))["entries"]["torch"]["ms"] > 0


def test_a_peer_that_fails_is_reported_in_one_line():
    assert run(bad=of(failing))["entries"]["bad"] == {"absent": "failed: no kernel for this"}


def test_an_error_of_our_own_is_an_error():
    with pytest.raises(RuntimeError, match="no kernel"):
        run(ours=failing, torch=of(square))


def test_left_out_peers_are_not_even_made():
    found = run(without=("torch",), torch=lambda: pytest.fail("made"))
    assert list(found["entries"]) == ["lossmith"]


def test_draws_are_the_same_each_time():
    assert Draw(CPU).normal(5).equal(Draw(CPU).normal(5))
    assert Draw(CPU).whole(2, 4, 100).unique().tolist() == [2, 3]


@pytest.mark.slow
def test_the_compiler_is_a_peer_too():
    assert run(compile=compiled(square))["entries"]["compile"]["gradient_error"] < 1e-6
