"""The page in headless Chromium: nothing complained of, nothing fetched, nothing too wide."""

import html
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from lossmith.choose import choose
from lossmith.report import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium on the path")
PHONE = 390
LONG = "a" * 10_000
# The page in a frame as wide as a phone; the title says how wide it wants to be.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe style="border:0;width:{width}px;height:800px" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  const wide = [...page.querySelectorAll("main *")].filter(
    (one) => one.getBoundingClientRect().right > {width} + 0.5 && !one.closest("svg"));
  document.title = JSON.stringify({{
    width: page.documentElement.scrollWidth, names: wide.map((one) => one.outerHTML.slice(0, 90)),
    asked: frame.performance.getEntriesByType("resource").map((one) => one.name),
    bar: Math.max(0, ...[...page.querySelectorAll(".bar")].map((one) => one.offsetWidth)),
    text: page.body.innerText.length, figures: page.querySelectorAll("svg path").length,
  }});
}};
</script>"""


def browse(page, folder, width=PHONE):
    """What a browser says of the page: measures and addresses it asked for, and complaints."""
    framed = folder / "framed.html"
    framed.write_text(FRAME.format(page=html.escape(page), width=width), encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    words += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", str(framed)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    seen = json.loads(html.unescape(done.stdout.split("<title>")[1].split("</title>")[0]))
    return seen, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def hostile():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(120)
    target = np.where(x + rng.standard_normal(120) > 0, LONG, "<img src=http://127.0.0.1/x>")
    names = {"x": x, LONG: rng.choice(["<b>", LONG, "$a_{b$"], 120), "t" + LONG: target}
    losses = "sigmoid_focal_loss"
    asked = {"losses": losses, "folds": "3x1", "epochs": 3, "trials": 1}
    return choose(pd.DataFrame(names), "t" + LONG, **asked)


@needs_browser
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_phone_shows_the_page_of_hostile_names_whole_and_in_silence(hostile, language, tmp_path):
    seen, complaints = browse(render(hostile, language), tmp_path)
    assert seen["width"] <= PHONE, seen["names"]
    assert complaints == []
    assert seen["asked"] == []
    assert seen["bar"] > 80
    assert seen["text"] > 1000
    assert seen["figures"] > 50


@needs_browser
def test_the_browser_would_notice_each_of_the_three(tmp_path):
    page = (
        f"<main><p style='white-space:nowrap'>{LONG}</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('wrong')</script></main>"
    )
    seen, complaints = browse(page, tmp_path)
    assert seen["width"] > PHONE
    assert any("wrong" in one for one in complaints)
    assert seen["asked"] == ["http://127.0.0.1:9/x.png"]


def test_the_chinese_page_is_chinese_and_names_stay(hostile):
    text = render(hostile, "zh").split("</style>", 1)[1]
    assert '<html lang="zh">' in render(hostile, "zh")
    for word in ("排名", "效应", "无法判断", "各组行", "预测", "方法"):
        assert word in text
    english = (
        "Ranking",
        "Effects",
        "Cannot tell",
        "cells won",
        "predicted probability",
        "Why these",
    )
    assert [word for word in english if word in text] == []
    assert "sigmoid_focal_loss" in text
    assert hostile.command.split(" ")[-1] in text


def test_an_unknown_language_is_refused(hostile):
    with pytest.raises(ValueError, match="language must be one of en, zh, got 'fr'"):
        render(hostile, "fr")
