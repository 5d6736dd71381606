"""The names that flags are read by are those that something computes under, in their order, and the rows use them."""

from dataclasses import replace

import pytest

from grpo.algorithm import choices
from grpo.algorithm.advantages import ADVANTAGES
from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.ingredients import load_advantage, one_response
from grpo.algorithm.kl import KL_ESTIMATORS
from grpo.algorithm.ratios import RATIOS
from grpo.algorithm.surrogates import SURROGATES
from grpo.algorithm.table import ALGORITHMS


@pytest.mark.parametrize(
    "names,functions",
    [
        (choices.ADVANTAGE_NAMES, ADVANTAGES),
        (choices.AGGREGATION_NAMES, AGGREGATIONS),
        (choices.SURROGATE_NAMES, SURROGATES),
        (choices.RATIO_NAMES, RATIOS),
        (choices.KL_ESTIMATOR_NAMES, KL_ESTIMATORS),
    ],
)
def test_each_name_has_its_function_and_each_function_its_name(names, functions):
    assert names == tuple(functions)


def test_a_group_of_one_is_taught_by_what_compares_nothing_alone():
    taught = [name for name in ADVANTAGES if load_advantage(name)(one_response()).any()]
    assert tuple(taught) == choices.WITHOUT_COMPARISON


def test_limits_are_the_row_s_or_those_of_its_kind():
    row = ALGORITHMS["dr_grpo"]
    assert set(choices.LIMITS) | {"none"} == set(choices.IMPORTANCE)
    assert choices.limits(row) == (0.0, 2.0)
    assert choices.limits(replace(row, importance="mask", importance_low=0.25)) == (0.25, 5.0)
    assert choices.limits(replace(row, importance="mask", importance_cap=0.0)) == (0.5, 0.0)
    assert choices.limits(replace(row, importance="none")) == (0.0, 0.0)
