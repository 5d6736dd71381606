"""The page's panels: the numbers that its script draws, thinned where a run is long."""

import json

from parsed_page import HOSTILE, Page, make_page, two_groups

from grpo.comparison.charts import MOST_POINTS, chart_data, figure, legend_button, one_step_in
from grpo.comparison.styles import styles


def test_the_curves_are_embedded(tmp_path):
    found = Page(make_page(tmp_path))
    data = json.loads(next(text for text in found.texts["script"] if text.startswith('{"groups"')))
    assert [(each["label"], each["seeds"]) for each in data["groups"]] == [("one", 3), ("two", 3)]
    accuracy = next(panel for panel in data["panels"] if panel["key"] == "eval/accuracy")["curves"][0]
    assert (accuracy["x"], accuracy["y"], accuracy["n"]) == ([0, 5, 10], [0.5, 0.7, 0.9], [3, 3, 3])
    assert [seed["y"] for seed in accuracy["seeds"]] == [[0.5, 0.7, 0.9]] * 3


def test_long_curves_are_thinned(tmp_path):
    comparison = two_groups(tmp_path / "long", steps=2 * MOST_POINTS + 50)
    assert one_step_in(comparison) == 3
    curves = {panel["key"]: panel["curves"][0] for panel in chart_data(comparison, styles(["one", "two"]))["panels"]}
    reward = curves["reward/mean"]
    assert reward["steps"][:3] == [3, 6, 9] and reward["steps"][-1] == 1050
    assert len(reward["x"]) == len(reward["y"]) == 350
    assert curves["eval/accuracy"]["steps"][:3] == [0, 5, 10]  # evaluations are few, and all are shown
    assert one_step_in(two_groups(tmp_path / "short", steps=MOST_POINTS)) == 1


def test_numbers_are_those_of_json(tmp_path):
    data = chart_data(two_groups(tmp_path), styles(["one", "two"]))
    json.dumps(data, allow_nan=False)
    growth = next(panel for panel in data["panels"] if panel["key"] == "length/incorrect")["curves"][0]
    assert growth["y"][:3] == [22, 24, 26] and growth["low"][1] == 19.0317  # 24 - 4.302653 * 2 / sqrt(3)


def test_places_and_legend_are_well_formed_and_labels_text(tmp_path):
    panel = two_groups(tmp_path).panels[0]
    found = Page(figure(3, panel) + legend_button(HOSTILE, *styles(["one"]), "3 seeds"))
    assert ("div", {"class": "chart", "id": "panel-3"}) in found.elements
    assert "".join(found.texts["span"]) == f"Reward{HOSTILE} (3 seeds)"
