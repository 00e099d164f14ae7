"""Documents, their file format, and the page that is made of them."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from lossmith.bench import page, results
from lossmith.bench.catalogue import FAMILIES, chosen
from lossmith.bench.limits import Limits
from lossmith.bench.run import points, run

CPU = torch.device("cpu")
RATES = Limits(bandwidth=1e10, flops={torch.float32: 1e11, torch.bfloat16: 2e11})
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def document():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossmith.bench.limits.measured", lambda device: RATES)
        without = ("compile", "blocks")
        families = chosen(["huber"])
        found = list(run(families, device=CPU, scale="small", seconds=0.001, without=without))
    assert [len(one["rows"]) for one in found] == [3, 3, 3]  # one list, which grows
    assert len(points(families[0], "small")) == 3
    return found[-1]


def test_a_document_survives_the_file(document, tmp_path):
    path = tmp_path / "a" / "huber.json"
    results.write(path, document)
    assert results.read(path) == document
    assert set(document) == results.DOCUMENT
    assert document["limits"]["bfloat16_gflops"] == 200.0
    assert {"date", "cpu", "threads", "versions"} <= set(document["machine"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(schema=0), "must have schema 1"),
        (lambda d: d.pop("machine"), "must have machine"),
        (lambda d: d["rows"][0].pop("dims"), "must have dims"),
        (lambda d: d["rows"][0]["entries"]["lossmith"].pop("ms"), "must have ms"),
    ],
)
def test_a_document_that_lacks_something_is_refused(document, tmp_path, spoil, message):
    path, spoiled = tmp_path / "huber.json", json.loads(json.dumps(document))
    spoil(spoiled)
    results.write(path, spoiled)
    with pytest.raises(ValueError, match=message):
        results.read(path)


def test_the_page_has_a_line_for_each_measurement(document):
    text = page.markdown([document], "images")
    lines = [line for line in text.splitlines() if line.startswith("| huber |")]
    assert len(lines) == 3
    assert "| huber | float32 | N 4096 |" in lines[-1]
    assert len({line.count("|") for line in lines}) == 1
    assert "(images/one_pass.svg)" in text


def test_the_page_shows_the_spread(document):
    changed = json.loads(json.dumps(document))
    changed["rows"][0]["entries"]["lossmith"].update(ms=2.0, ms_low=1.9, ms_high=2.3)
    line = page.markdown([changed], "images").split("| huber | float32 | N 64 |")[1]
    assert line.startswith(" 2 | 10 % |")


def test_absent_peers_and_options_are_on_the_page(document):
    changed = json.loads(json.dumps(document))
    changed["rows"][0]["entries"]["monai"] = {"absent": "monai is not installed"}
    changed["options"] = {"weight": ["lossmith", "torch"], "mask": ["lossmith"]}
    text = page.markdown([changed], "images")
    assert "- monai: monai is not installed" in text
    assert "| mask | yes |  |" in text
    assert "| **count** | **2** | **1** |" in text


def test_the_plot_is_the_same_text_each_time_and_shows_every_peer(document):
    drawn = page.figure(document)
    assert drawn == page.figure(document)
    assert "date" not in drawn.lower()
    words = {text.text for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}
    assert {"huber", "lossmith", "torch", "limit", "MiB beyond the inputs"} <= words


KEPT = sorted(set(FOLDER.glob("*.json")) - {FOLDER / "cold_start.json"})


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_results_fit_the_format(path):
    found = results.read(path)
    assert path.stem == found["family"]
    assert path.stem in FAMILIES
