"""The page: its numbers are the hand-computed ones, labels are text, nothing is fetched, a real browser draws it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from synthetic_runs import group, make_run, ramp

from grpo.comparison import compare
from grpo.comparison.groups import group_runs
from grpo.comparison.page import MOST_POINTS, page
from grpo.comparison.view import make_view

PICTURE = b"\x89PNG"
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'${1}"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EMPTY = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each table's rows, and whether tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.rows, self.texts = [], [], [], {}
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += ("|" if self.open[-1] == "small" else "") + data
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def cells(self, title):
        """The cells of the rows of that title, in the order of the tables: values, then differences."""
        return [cell for first, *cells in self.rows if first.split("|")[0] == title for cell in cells]


def make_page(tmp_path, *, names=("one", "two"), steps=10, command=("x",)):
    """Two groups of three seeds; incorrect responses grow by 8, 16, 24 in the first and by 0, 8, 16 in the second."""
    groups = [
        group(name, *(make_run(tmp_path / f"{i}-{g}", ramp(20.0, steps, growth=g)) for g in growths))
        for i, (name, growths) in enumerate(zip(names, ((1, 2, 3), (0, 1, 2)), strict=True))
    ]
    runs = [run for each in groups for run in each.runs]
    samples = [{"step": s, "prompt": f"p{s}", "response": HOSTILE, "reward": 1.0} for s in range(1, 10) for _ in "abc"]
    (runs[0].folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    comparison = compare(groups, make_view(runs, final=0.2, reach=(0.8,)), "A title & more")
    return page(comparison, PICTURE, command)


def test_the_numbers_are_the_hand_computed_ones(tmp_path):
    found = Page(make_page(tmp_path))
    assert found.cells("growth of length, incorrect") == [
        "+16.0|[−3.9, +35.9]", "+8.0|[−11.9, +27.9]", "−8.0|[−26.1, +10.1], p = 0.29",
    ]  # fmt: skip
    assert found.cells("held-out accuracy") == ["90.0%|[90.0%, 90.0%]"] * 2 + ["+0.0 points"]
    assert found.cells("steps to 80%") == ["8|[8, 8]"] * 2 + ["+0"]
    assert found.cells("tokens generated")[0] == "610|[473, 747]"  # 555, 610 and 665: 610 ± 4.302653 * 55 / sqrt(3)
    assert [row[0].split("|")[0] for row in found.rows].count("0-1") == 1  # each run once in the table of runs


def test_the_curves_are_embedded(tmp_path):
    found = Page(make_page(tmp_path))
    data = json.loads(next(text for text in found.texts["script"] if text.startswith('{"groups"')))
    assert [(each["label"], each["seeds"]) for each in data["groups"]] == [("one", 3), ("two", 3)]
    accuracy = next(panel for panel in data["panels"] if panel["key"] == "eval/accuracy")["curves"][0]
    assert (accuracy["x"], accuracy["y"], accuracy["n"]) == ([0, 5, 10], [0.5, 0.7, 0.9], [3, 3, 3])
    assert [seed["y"] for seed in accuracy["seeds"]] == [[0.5, 0.7, 0.9]] * 3


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


def test_responses_of_three_steps_are_shown(tmp_path):
    found = Page(make_page(tmp_path))
    assert [text for text in found.texts["pre"] if text != HOSTILE] == ["p1", "p1", "p5", "p5", "p9", "p9"]


def test_settings_are_the_configured_values(tmp_path):
    """Of grpo and dr_grpo: the row's name and every cell in which the rows differ."""
    dr = {"algo": "dr_grpo", "advantage": "centered", "aggregation": "constant", "kl_coef": 0.0, "seed": 5}
    runs = [make_run(tmp_path / name, ramp(20.0), config) for name, config in (("a", {}), ("b", dr))]
    found = Page(page(compare(group_runs(runs), make_view(runs), "t"), PICTURE, ()))
    assert found.cells("differs") == ["grpo", "dr_grpo"]
    assert found.cells("kl_coef") == ["0.04", "0"] and found.cells("advantage") == ["group_normalized", "centered"]
    assert found.cells("learning_rate") == ["2e-4"] and not found.cells("seed")  # told by the table of runs


def test_runs_of_changed_code_are_told_apart(tmp_path):
    commits = {"a": "0123456789abcdef", "b": "0123456789abcdef+changes"}
    runs = [make_run(tmp_path / name, ramp(20.0), {"commit": commit}) for name, commit in commits.items()]
    found = Page(page(compare(group_runs(runs), make_view(runs), "t"), PICTURE, ()))
    assert [found.cells(name)[3] for name in "ab"] == ["0123456789", "0123456789+changes"]


def test_long_curves_are_thinned_and_the_page_says_so(tmp_path):
    text = make_page(tmp_path, steps=2 * MOST_POINTS + 50)
    data = json.loads(next(part for part in Page(text).texts["script"] if part.startswith('{"groups"')))
    curve = data["panels"][0]["curves"][0]
    assert curve["steps"][:3] == [3, 6, 9] and curve["steps"][-1] == 1050 and len(curve["x"]) == len(curve["y"]) == 350
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
