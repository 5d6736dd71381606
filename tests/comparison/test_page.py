"""The page: whole and well-formed, labels are text, nothing is fetched, a real browser draws it."""

import json
import re
import shutil
import subprocess

import pytest
from parsed_page import HOSTILE, Page, make_page

from grpo.comparison.charts import MOST_POINTS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_nothing_is_fetched(tmp_path):
    text = make_page(tmp_path)
    found = Page(text)
    for tag, attributes in found.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert re.match("data:|$", attributes.get(name, "")), (tag, attributes)
    assert not re.search(r"https?:|url\((?!#)|@import|fetch\(|XMLHttp|\bimport\b", text)
    policy = next(a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_labels_and_responses_are_text(tmp_path):
    text = make_page(tmp_path, names=(HOSTILE, "${two}"), command=("python", HOSTILE))
    found = Page(text)
    images = [attributes for tag, attributes in found.elements if tag == "img"]
    assert len(images) == 1 and images[0]["class"] == "picture"
    assert HOSTILE in "".join(found.texts["span"]) and HOSTILE in found.texts["pre"]
    assert [tag for tag, _ in found.elements].count("script") == 2
    assert "${two}" in "".join(found.texts["h2"]) or "${two}" in "".join(found.texts["th"])


def test_it_has_its_groups_numbers_and_how_it_was_made(tmp_path):
    found = Page(make_page(tmp_path, command=("python", "-m", "x y")))
    said = " ".join(text for texts in found.texts.values() for text in texts)
    assert "6 runs in 2 groups, compared at step 10" in said and "Made by: python -m 'x y'" in said
    assert found.cells("growth of length, incorrect") == [
        "+16.0|[−3.9, +35.9]", "+8.0|[−11.9, +27.9]", "−8.0|[−26.1, +10.1], p = 0.29",
    ]  # fmt: skip
    assert "step 1 · reward 1.0" in found.texts["p"] and "Growth of length, incorrect" in said


def test_a_thinned_page_says_so(tmp_path):
    text = make_page(tmp_path, steps=2 * MOST_POINTS + 50)
    assert "Training curves show one step in 3." in text and len(text) < 2_000_000


def in_chromium(tmp_path, html, script, width=390, height=844):
    """What `script` gives, run in the page after it has been drawn in a frame of that size."""
    found = "document.body.dataset.found = JSON.stringify({errors, found: (() => {" + script + "})()})"
    watched = "<script>const errors = []; addEventListener('error', event => errors.push(event.message));"
    asked = f"<script>setTimeout(() => {{ {found} }}, 600)</script></body>"
    (tmp_path / "page.html").write_text(html.replace("<script>", watched, 1).replace("</body>", asked))
    (tmp_path / "frame.html").write_text(
        f'<iframe src="page.html" width="{width}" height="{height}"></iframe><script>'
        "addEventListener('load', () => setTimeout(() => document.title = document.querySelector('iframe')"
        ".contentDocument.body.dataset.found, 1200))</script>"
    )
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
        (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search("<title>(.*)</title>", run.stdout)
    assert title, run.stdout[-500:] + run.stderr[-2000:]
    return json.loads(title[1].replace("&amp;", "&"))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width,across", [(360, 1), (1280, 3), (2560, 4)])
def test_a_browser_draws_every_panel_and_clips_nothing(tmp_path, width, across):
    script = """
      const box = element => element.getBoundingClientRect(), figures = [...document.querySelectorAll("figure")];
      const outside = [...document.querySelectorAll(".chart text")].filter(text => {
        const svg = box(text.closest("svg")), own = box(text);
        return own.left < svg.left - 1 || own.right > svg.right + 1 || own.bottom > svg.bottom + 1;
      });
      return {
        charts: document.querySelectorAll(".chart svg").length, means: document.querySelectorAll(".mean").length,
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        across: figures.filter(figure => box(figure).top === box(figures[0]).top).length,
        outside: outside.map(text => text.textContent),
        broken: document.querySelectorAll("[d*=NaN], [d*=Infinity]").length,
      };
    """
    found = in_chromium(tmp_path, make_page(tmp_path, names=(HOSTILE, "two")), script, width=width)
    assert found == {
        "errors": [],
        "found": {"charts": 7, "means": 14, "overflow": 0, "across": across, "outside": [], "broken": 0},
    }


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_reads_off_hides_and_enlarges(tmp_path):
    script = """
      const svg = () => document.querySelectorAll(".chart svg");
      svg()[3].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
      svg()[3].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
      const tip = document.querySelector(".tip").innerText, dots = document.querySelectorAll(".dot").length;
      document.querySelector(".legend button").click();
      const one = document.querySelectorAll(".mean").length;
      document.querySelector("input[name=seeds]").click();
      const seeds = document.querySelectorAll(".seed").length, before = svg()[0].clientWidth;
      document.querySelector("figcaption button").click();
      return {tip: tip.replace(/\\s+/g, " "), dots, one, seeds, wider: svg()[0].clientWidth > before};
    """
    found = in_chromium(tmp_path, make_page(tmp_path), script, width=1280)
    # Step 2: 20 + 2, 24 and 26 tokens, mean 24; 20, 22 and 24 tokens, mean 22; t interval 4.302653 * 2 / sqrt(3)
    tip = "step 2 one 24.0 [19.0, 29.0] two 22.0 [17.0, 27.0]"
    assert found == {"errors": [], "found": {"tip": tip, "dots": 10, "one": 7, "seeds": 0, "wider": True}}
