"""Rates of the machine, and the least time they allow."""

import pytest
import torch

from lossmith.bench import limits
from lossmith.bench.catalogue import families
from lossmith.bench.limits import Limits, Work

CPU = torch.device("cpu")


def test_rates_are_positive_and_believable(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.01)
    monkeypatch.setattr(limits, "MEBIBYTES", {"cpu": 8})
    monkeypatch.setattr(limits, "SIDE", {"cpu": 128})
    found = limits.measured.__wrapped__(CPU)
    assert 1e8 < found.bandwidth < 1e13
    assert set(found.flops) == {torch.float32, torch.bfloat16}
    assert all(1e8 < rate < 1e16 for rate in found.flops.values())


def test_half_precision_may_go_by_way_of_float32(monkeypatch):
    rates = {torch.float32: 5.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(limits, "_product", lambda device, dtype: rates[dtype])
    monkeypatch.setattr(limits, "_bandwidth", lambda device: 1.0)
    assert limits.measured.__wrapped__(CPU).flops[torch.bfloat16] == 5.0
    rates[torch.bfloat16] = 50.0
    assert limits.measured.__wrapped__(CPU).flops == rates


def test_the_slower_of_memory_and_arithmetic_decides():
    rates = Limits(bandwidth=10.0, flops={torch.float32: 5.0, torch.bfloat16: 50.0})
    assert rates.seconds(Work(bytes=20, flops=5), torch.float32) == 2.0
    assert rates.seconds(Work(bytes=20, flops=50), torch.float32) == 10.0
    assert rates.seconds(Work(bytes=20, flops=50), torch.bfloat16) == 2.0


def work(family: str, name: str, itemsize: int, **dims: int) -> Work:
    rows = next(f for f in families() if f.name == family).rows
    return next(row for row in rows if row.name == name).work(itemsize, **dims)


@pytest.mark.parametrize(
    ("found", "milliseconds"),
    [  # worked out by hand for 4.8 TB/s and 989 TFLOP/s in bfloat16
        (work("cross_entropy", "labels", 2, N=8192, V=128256), 0.876),
        (work("divergence", "KL", 2, N=8192, V=128256), 1.313),
        (work("linear_cross_entropy", "linear cross-entropy", 2, M=8192, H=4096, V=128256), 26.1),
        (work("pairs", "CLIP", 2, N=32768, D=768), 6.67),
        (work("pairs", "SigLIP", 2, N=32768, D=768), 5.0),
        (work("one_pass", "focal", 4, N=1 << 26), 0.168),
    ],
)
def test_work_of_a_row_gives_the_known_limit(found, milliseconds):
    rates = Limits(bandwidth=4.8e12, flops={torch.bfloat16: 989e12})
    assert 1e3 * rates.seconds(found, torch.bfloat16) == pytest.approx(milliseconds, rel=5e-3)
