"""The README runs, and points to files that exist."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_two_examples() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("number", range(2))
def test_example_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    exec(compile(BLOCKS[number], f"README example {number}", "exec"), {})
    printed = capsys.readouterr().out
    expected = (("focal_loss", "huber_loss"), ("docstring_is_complete",))[number]
    assert all(word in printed for word in expected)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
