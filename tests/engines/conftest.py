"""What tests of several engines share."""

import functools

import pytest

from lossmith.engines import one_pass


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled calls of any size are traced and differentiated, but no C++ is generated."""
    quicker = functools.partial(one_pass._compiled, backend="aot_eager")
    monkeypatch.setattr(one_pass, "_compiled", quicker)
    monkeypatch.setattr(one_pass, "WORTH", 0)
    monkeypatch.setattr(one_pass, "_kernels", {})
    monkeypatch.setattr(one_pass, "_failed", {})
    monkeypatch.setattr(one_pass, "_asked", {})
    monkeypatch.setattr(one_pass, "_brings", set())
