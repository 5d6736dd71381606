"""A comparison of known numbers, and its page taken apart: elements, rows of tables and texts."""

import json
from html.parser import HTMLParser

from synthetic_runs import group, make_run, ramp

from grpo.comparison.comparison import Comparison, compare
from grpo.comparison.page import page
from grpo.comparison.view import make_view

PICTURE = b"\x89PNG"
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'${1}"
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


def two_groups(tmp_path, *, names=("one", "two"), steps=10) -> Comparison:
    """Two groups of three seeds; incorrect responses grow by 8, 16, 24 in the first and by 0, 8, 16 in the second."""
    groups = [
        group(name, *(make_run(tmp_path / f"{i}-{g}", ramp(20.0, steps, growth=g)) for g in growths))
        for i, (name, growths) in enumerate(zip(names, ((1, 2, 3), (0, 1, 2)), strict=True))
    ]
    runs = [run for each in groups for run in each.runs]
    samples = [{"step": s, "prompt": f"p{s}", "response": HOSTILE, "reward": 1.0} for s in range(1, 10) for _ in "abc"]
    (runs[0].folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    return compare(groups, make_view(runs, final=0.2, reach=(0.8,)), "A title & more")


def make_page(tmp_path, *, command=("x",), **options) -> str:
    return page(two_groups(tmp_path, **options), PICTURE, command)
