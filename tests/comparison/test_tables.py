"""The page's tables: their numbers are the hand-computed ones, and every setting and run is told."""

from parsed_page import Page, two_groups
from synthetic_runs import make_run, ramp

from grpo.comparison.comparison import compare
from grpo.comparison.groups import group_runs
from grpo.comparison.tables import differences_section, runs_table, settings_section, values_table
from grpo.comparison.view import make_view


def test_the_numbers_are_the_hand_computed_ones(tmp_path):
    comparison = two_groups(tmp_path)
    values, differences = Page(values_table(comparison)), Page(differences_section(comparison))
    assert values.cells("growth of length, incorrect") == ["+16.0|[−3.9, +35.9]", "+8.0|[−11.9, +27.9]"]
    assert differences.cells("growth of length, incorrect") == ["−8.0|[−26.1, +10.1], p = 0.29"]
    assert values.cells("held-out accuracy") == ["90.0%|[90.0%, 90.0%]"] * 2
    assert differences.cells("held-out accuracy") == ["+0.0 points"]
    assert values.cells("steps to 80%") == ["8|[8, 8]"] * 2 and differences.cells("steps to 80%") == ["+0"]
    assert values.cells("tokens generated")[0] == "610|[473, 747]"  # 555, 610 and 665: 610 ± 4.302653 * 55 / sqrt(3)


def test_a_cell_names_its_seeds_values(tmp_path):
    titles = [attributes.get("title") for _, attributes in Page(values_table(two_groups(tmp_path))).elements]
    assert "seeds: 8.0, 16.0, 24.0" in titles and "seeds: 555, 610, 665" in titles


def test_what_is_clear_is_marked(tmp_path):
    """Growths of 9 and 9.09, and of 18 and 18.09, tokens; the accuracies are the same."""
    runs = [
        make_run(tmp_path / f"{name}-seed{seed}", ramp(20.0, growth=g + seed / 100))
        for name, g in (("one", 1.0), ("two", 2.0))
        for seed in (0, 1)
    ]
    text = differences_section(compare(group_runs(runs), make_view(runs), "t"))
    rows = {row.partition("<small>")[0]: row for row in text.split('<th scope="row">')}
    assert '<td class="clear">+9.0<small>' in rows["growth of length, incorrect"]
    assert "clear" not in rows["held-out accuracy"]


def test_each_run_is_told_once(tmp_path):
    found = Page(runs_table(two_groups(tmp_path)))
    assert [row[0].split("|")[0] for row in found.rows] == ["run", "0-1", "0-2", "0-3", "1-0", "1-1", "1-2"]


def test_settings_are_the_configured_values(tmp_path):
    """Of grpo and dr_grpo: the row's name and every cell in which the rows differ."""
    dr = {"algo": "dr_grpo", "advantage": "centered", "aggregation": "constant", "kl_coef": 0.0, "seed": 5}
    runs = [make_run(tmp_path / name, ramp(20.0), config) for name, config in (("a", {}), ("b", dr))]
    found = Page(settings_section(compare(group_runs(runs), make_view(runs), "t")))
    assert found.cells("differs") == ["grpo", "dr_grpo"]
    assert found.cells("kl_coef") == ["0.04", "0"] and found.cells("advantage") == ["group_normalized", "centered"]
    assert found.cells("learning_rate") == ["2e-4"] and not found.cells("seed")  # told by the table of runs


def test_no_settings_without_a_config(tmp_path):
    assert settings_section(two_groups(tmp_path)) == ""


def test_runs_of_changed_code_are_told_apart(tmp_path):
    commits = {"a": "0123456789abcdef", "b": "0123456789abcdef+changes"}
    runs = [make_run(tmp_path / name, ramp(20.0), {"commit": commit}) for name, commit in commits.items()]
    found = Page(runs_table(compare(group_runs(runs), make_view(runs), "t")))
    assert [found.cells(name)[3] for name in "ab"] == ["0123456789", "0123456789+changes"]
