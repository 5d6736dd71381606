"""Grouping: seeds come together, whatever else differs keeps runs apart and names them."""

import pytest
from synthetic_runs import make_run, row

from grpo.algorithm.table import ALGORITHMS
from grpo.comparison.groups import group_runs, show_setting
from grpo.errors import UserError

ROWS = [row(1, 0, (1, 1), (1, 1))]
DR = {"algo": "dr_grpo", "advantage": "centered", "aggregation": "constant", "kl_coef": 0.0}


def grouped(tmp_path, *configs, labels=()):
    runs = [make_run(tmp_path / f"run-{chr(97 + i)}", ROWS, config) for i, config in enumerate(configs)]
    return [(group.label, "".join(run.name[-1] for run in group.runs)) for group in group_runs(runs, labels)]


def test_seeds_come_together_in_the_order_of_their_first(tmp_path):
    found = grouped(tmp_path, DR, {"seed": 1}, DR | {"seed": 1}, {"seed": 2, "name": "z", "runs_dir": "r"})
    assert found == [("dr_grpo", "ac"), ("grpo", "bd")]


def test_how_far_and_how_often_is_no_difference(tmp_path):
    same = {"steps": 99, "eval_every": 5, "wandb": "off", "micro_batch_tokens": 1, "versions": {}, "commit": None}
    assert grouped(tmp_path, {}, same) == [("grpo", "ab")]


@pytest.mark.parametrize(
    "first,second,labels",
    [
        ({}, DR, ("grpo", "dr_grpo")),
        ({}, {"learning_rate": 1e-4}, ("learning rate 2e-4", "learning rate 1e-4")),
        ({}, DR | {"learning_rate": 1e-4}, ("grpo, learning rate 2e-4", "dr_grpo, learning rate 1e-4")),
        ({}, {"kl_coef": 0.1}, ("grpo", "grpo, kl coef 0.1")),
        ({}, {"loss_constant": 50.0}, ("grpo", "grpo, loss constant 50")),
        (DR, DR | {"kl_coef": 0.04}, ("dr_grpo", "dr_grpo, kl coef 0.04")),
        ({}, {"model": "other/large"}, ("tiny", "large")),
        ({}, {"model": "n/tiny"}, ("tiny (run-a)", "tiny (run-b)")),
        ({"kl_coef": 0.0}, DR, ("grpo", "dr_grpo")),  # a flag's 0 and the row's own
        ({"log_kl": True}, {"log_kl": False}, ("log kl on", "log kl off")),
        ({"reward": ["math_answer"]}, {"reward": ["a", "b=0.1"]}, ("math_answer", "a + b=0.1")),
    ],
)
def test_a_label_is_what_differs(tmp_path, first, second, labels):
    assert grouped(tmp_path, first, second) == [(labels[0], "a"), (labels[1], "b")]


def test_the_embedded_model_is_the_same_in_every_checkout(tmp_path):
    assert grouped(tmp_path, {"model": "/x/grpo/tiny_model"}, {"model": "/y/grpo/tiny_model"}) == [("grpo", "ab")]


def test_a_flag_that_older_runs_lack_keeps_no_seeds_apart(tmp_path):
    assert grouped(tmp_path, {}, {"new_flag": 1}) == [("grpo", "ab")]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_row_needs_no_more_than_its_name(tmp_path, name):
    row = ALGORITHMS[name]
    config = {"algo": name} | {key: list(v) if isinstance(v, tuple) else v for key, v in vars(row).items()}
    base = {key: None for key in config} | {"algo": "other"}
    assert grouped(tmp_path, config, base) == [(name, "a"), ("other", "b")]


def test_without_a_config_the_folder_names(tmp_path):
    names = ["grpo-seed1", "grpo-seed22", "dr_grpo_s3", "dr_grpo_s4", "final", "7"]
    groups = group_runs([make_run(tmp_path / name, ROWS) for name in names])
    assert [(group.label, len(group.runs)) for group in groups] == [("grpo", 2), ("dr_grpo", 2), ("final", 1), ("7", 1)]


def test_with_and_without_a_config(tmp_path):
    runs = [make_run(tmp_path / "old", ROWS), make_run(tmp_path / "a", ROWS, {}), make_run(tmp_path / "b", ROWS, DR)]
    groups = group_runs(runs)
    assert [group.label for group in groups] == ["old", "grpo", "dr_grpo"]


def test_labels_are_forced(tmp_path):
    found = grouped(tmp_path, {}, DR, DR | {"seed": 1}, labels=("second=run-[bc]", "first=*"))
    assert found == [("second", "bc"), ("first", "a")]


@pytest.mark.parametrize(
    "label,message", [("name", "is not LABEL=PATTERN"), ("=x", "is not LABEL"), ("x=y*", "There are: run-a, run-b")]
)
def test_a_label_that_fits_no_run_is_refused(tmp_path, label, message):
    with pytest.raises(UserError, match=message):
        grouped(tmp_path, {}, DR, labels=(label,))


@pytest.mark.parametrize(
    "value,text",
    [
        (1e-6, "1e-6"),
        (2e-4, "2e-4"),
        (1e20, "1e20"),
        (0.04, "0.04"),
        (True, "on"),
        (8, "8"),
        ([], "none"),
        (None, "none"),
    ],
)
def test_values_as_text(value, text):
    assert show_setting(value) == text


def test_a_run_of_an_earlier_version_is_a_seed_of_todays(tmp_path):
    """Its config.json has the advantage under its former name."""
    old, new = {"advantage": "group_normalised", "seed": 1}, {"advantage": "group_normalized"}
    assert grouped(tmp_path, old, new) == [("grpo", "ab")]
