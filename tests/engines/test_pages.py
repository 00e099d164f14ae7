"""Large new tensors are asked for in huge pages, within their own memory only."""

import mmap
from pathlib import Path
from typing import Any

import pytest
import torch

import lossmith as lm
from lossmith.engines import pages

THERE = Path("/sys/kernel/mm/transparent_hugepage")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pages, "_advise", lambda *call: calls.append(call))
    return calls


def test_whole_pages_of_a_large_tensor_and_no_other(asked) -> None:
    tensor = pages.in_huge_pages(torch.empty(pages.FRESH // 4 + 1001))
    ((first, length, advice),) = asked
    assert advice == getattr(mmap, "MADV_HUGEPAGE", None)
    assert first % mmap.PAGESIZE == length % mmap.PAGESIZE == 0
    assert 0 <= first - tensor.data_ptr() < mmap.PAGESIZE
    end = tensor.data_ptr() + tensor.nbytes
    assert 0 <= end - (first + length) < mmap.PAGESIZE


def test_small_tensors_are_left_alone(asked) -> None:
    pages.in_huge_pages(torch.empty(pages.FRESH // 4))
    assert not asked


@pytest.mark.skipif(not THERE.exists(), reason="the system has no huge pages")
def test_the_system_takes_the_advice() -> None:
    tensor = torch.empty(pages.FRESH // 4 + 1001)
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    assert pages._advise is not None
    assert pages._advise(first, mmap.PAGESIZE, mmap.MADV_HUGEPAGE) == 0


def test_without_them_all_is_as_before(monkeypatch) -> None:
    monkeypatch.setattr(pages, "_advise", None)
    assert pages.in_huge_pages(torch.empty(pages.FRESH // 4 + 1)).numel() == pages.FRESH // 4 + 1


def test_a_large_gradient_asks(asked, monkeypatch) -> None:
    monkeypatch.setattr(pages, "FRESH", 1 << 20)
    logits = torch.randn(600, 2000, requires_grad=True)
    lm.cross_entropy(logits, torch.zeros(600, dtype=torch.long)).backward()
    assert len(asked) == 1
