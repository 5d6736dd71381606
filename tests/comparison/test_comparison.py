"""A comparison is all that is shown: panels and quantities of the same groups, looked at in the same way."""

from parsed_page import two_groups

from grpo.comparison.quantities import make_quantities


def test_every_group_is_in_every_panel_and_quantity(tmp_path):
    comparison = two_groups(tmp_path)
    assert (comparison.title, [group.label for group in comparison.groups]) == ("A title & more", ["one", "two"])
    assert len(comparison.panels) == 7 and {len(panel.curves) for panel in comparison.panels} == {2}
    assert comparison.view.horizon == 10 and len(comparison.quantities) > 10
    shapes = {(len(each.values), len(each.estimates), len(each.differences)) for each in comparison.quantities}
    assert shapes == {(2, 2, 1)}
    (first, *_) = comparison.quantities
    assert first.estimates == make_quantities(comparison.groups, comparison.view)[0].estimates
