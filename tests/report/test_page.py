"""The page: one small offline file in which foreign text stays text."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lossmith.choose import choose
from lossmith.report import render, write

EVIL = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v[:1] != "#"]


@pytest.fixture(scope="module")
def evil():
    rng = np.random.default_rng(0)
    target = np.where(rng.random(90) < 0.5, EVIL, "$a_{b$")
    table = pd.DataFrame({EVIL: rng.standard_normal(90), "t" + EVIL: target})
    return choose(
        table, "t" + EVIL, metric="accuracy", losses="hinge_loss", folds="3x1", epochs=3, trials=1
    )


def test_markup_in_names_and_cells_stays_text(evil):
    text = render(evil)
    assert "script" not in Elements(text).tags
    assert "&lt;script&gt;" in text


def test_nothing_is_loaded_from_elsewhere(evil):
    found = Elements(render(evil))
    assert found.links == []
    assert not found.tags & {"link", "iframe", "img", "object"}
    assert "url(http" not in render(evil)


@pytest.mark.parametrize(
    ("data", "metric"),
    [
        ("stackloss", "mae"),
        ("breast_cancer", "auc"),
        ("breast_cancer", "log_loss"),
        ("wine", "f1"),
        ("iris", "log_loss"),
    ],
)
def test_every_kind_of_metric_has_a_page_below_a_megabyte(data, metric, tmp_path):
    done = choose(data, metric=metric, folds="3x1", epochs=2, trials=1)
    path = write(done, tmp_path / "deep" / "page.html")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 1_000_000
    assert done.command in text.replace("&#39;", "'")
    assert text.index('class="verdict') < text.index('class="ranking"') < text.index("<svg")
    for one in done.outcome.standings:
        assert one.label in text
    assert "nan" not in text.split("</style>")[1].split("<svg")[0]
