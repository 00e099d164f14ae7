"""The page: one small offline file in which foreign text stays text."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lossmith.choose import choose
from lossmith.report import render, write

EVIL = (
    "<script>alert(1)</script></style></svg></title><!-- \"><img src=x onerror='alert(2)'> "
    "]]> &lt; {{ 7 }} \x00\x01\x1b[2J\x7f\x85\r\n\u202e"
)
ENDLESS = "n" * 10_000


class Elements(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.handlers = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v[:1] != "#"]


@pytest.fixture(scope="module")
def evil():
    rng = np.random.default_rng(0)
    target = np.where(rng.random(90) < 0.5, EVIL, "$a_{b$")
    names = {EVIL: rng.standard_normal(90), ENDLESS: rng.choice([EVIL, ENDLESS, "'"], 90)}
    table = pd.DataFrame({**names, "t" + EVIL: target})
    return choose(
        table, "t" + EVIL, metric="accuracy", losses="hinge_loss", folds="3x1", epochs=3, trials=1
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_markup_in_names_and_cells_stays_text(evil, language):
    text = render(evil, language)
    found = Elements(text)
    assert not found.tags & {"script", "img"}
    assert found.handlers == []
    assert "&lt;script&gt;" in text
    assert text.count("</style>") == text.count("<style")
    assert len(text) < 1_000_000


def test_characters_that_nobody_sees_are_shown(evil):
    text = render(evil)
    assert [one for one in text if not one.isprintable() and one != "\n"] == []
    assert "\\x1b[2J\\x7f\\x85\\r" in text


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
