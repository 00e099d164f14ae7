"""The page on other libraries runs, block by block."""

import os
import re
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "neighbours.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SECTIONS = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def _language_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=8, n_layer=1, n_embd=16, n_head=2, **ends))


# what the libraries say of their own accord
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*valid feature names.*:UserWarning")
def test_every_block_runs_on_what_the_ones_before_it_made(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope = {"language_model": _language_model()}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"block {number} of {PAGE.name}", "exec"), scope)
    assert (scope["y"] < scope["upper"]).mean() > 0.6
    assert scope["chances"].sum(1) == pytest.approx(1, abs=1e-5)
    assert abs(scope["made"] - scope["y"]).mean() < 60
    assert {"net", "absolute_error"} < set(scope["done"].table["loss"])
    assert scope["best"].loss in ("mse_loss", "huber_loss")


def test_each_neighbour_has_a_section_with_a_block_of_a_few_lines() -> None:
    assert len(BLOCKS) == len(SECTIONS) + 1
    for block in BLOCKS[1:]:
        code = [line for line in block.splitlines() if line and "import" not in line]
        assert 3 <= len(code) <= 5
