r"""rewards/_math/units.py: units are products of powers, words are words, and no other unit or number passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards._math.compare import equal
from rewards._math.units import APART, COMPOUND, GLUED, KNOWN, agree, is_plain_unit, stem, unit_of

LINES = [line.split() for table in (GLUED, APART) for line in table.replace("\n", "|").split("|")]
SPELT = [  # of one unit each: any of them is any other
    ["18 newtons", r"18\text{ N}", r"18 \text{ newtons}", "18 newton"],
    ["5 liters", "5 litres", r"5\text{ L}", r"5 \text{ liters}"],
    [r"60\text{ mph}", "60 miles per hour", "60 miles/hour", "60 mph", r"60\frac{\text{mi}}{\text{h}}"],
    [r"60\text{ km/h}", "60 kilometers per hour", "60 kph", r"60 \mathrm{~km} / \mathrm{h}", "60 km/hr"],
    [r"9.8\text{ m/s}^2", "9.8 m/s^2", r"9.8\text{ meters per second squared}", r"9.8\text{ m s}^{-2}", "9.8 m/s²"],
    [r"20\text{ square meters}", r"20\text{ m}^2", r"20\text{ sq m}", r"20\text{ metres}^2"],
    ["20 cm³", r"20\text{ cubic centimetres}", "20 cm^3", r"20\text{ cubic centimeters}"],
    ["30 °C", "30℃", "30 degrees Celsius", r"30^\circ\text{C}", r"30^\circ C"],
    [r"3\text{ kWh}", r"3\text{ kilowatt-hours}", "3 kilowatt hours"],
    ["5 dollars", r"\$5", r"\$5.00", "5 bucks"],
    [r"3\text{ µm}", "3 micrometers", r"3\ \mu m"],
    [r"10\ \Omega", "10 Ω", "10 ohms"],
    ["25 miles per gallon", "25 mpg", "25 mi/gal"],
    ["5%", "5 percent", "0.05"],
    ["100 square feet", "100 sq ft", "100 ft²"],
    ["5 thousand", "5000", "5,000"],
    ["8 p.m.", "8 pm"],
]
RIGHT = [  # answer, gold
    *[("12 J", "12 joules"), (r"3 m", r"3\text{ meters}"), ("12 joules", r"12\text{ J}"), ("3 s", r"3\text{ seconds}")],
    *[("5 N m", r"5\text{ N m}"), ("3 m/s", r"3\text{ m/s}"), ("5 h", "5 hours")],
    *[("5 apples", "5"), ("5", "5 apples"), ("5 apple", "5 apples"), ("5 red apples", "5 apples"), ("7 days", "7")],
    *[("3 children", "3 child"), ("72 boxes", "72 box"), ("18 eggs per day", "18 eggs/day"), ("5 cm long", "5 cm")],
    *[("4 cups of sugar", "4 cups"), ("5 cookies each", "5 cookies"), ("5 more apples", "5"), ("5 dozen", "5 dozen")],
    *[("20 square units", r"20\text{ units}^2"), ("20", "20 square units"), ("5 units", "5 cm"), ("5 dozen", "5")],
]
WRONG = [  # answer, gold
    *[("5 apples", "5 oranges"), ("5 apples", r"5\text{ cm}"), ("5 cm", "5 apples"), ("5 boys", "5 girls")],
    *[("5 m", "5 min"), ("5 mi", "5 m"), ("5 cm", "5 m"), ("500 cm", "5 m"), ("5 kg", "5 g"), ("5 hours", "5 minutes")],
    *[(r"3\text{ m}^2", r"3\text{ m}"), (r"3\text{ m}^3", r"3\text{ m}^2"), (r"3\text{ m}", r"3\text{ m}^2")],
    *[("60 km", "60 km/h"), (r"5\text{ s/m}", r"5\text{ m/s}"), (r"5\text{ m/s}", r"5\text{ m/s}^2")],
    *[("5 miles per gallon", "5 gallons per mile"), ("5 hours", "5 per hour"), ("18 eggs per day", "18 ducks per day")],
    *[(r"\$5", "5 cents"), ("5 cents", r"\$5"), ("5 cents", "5 dollars"), ("5%", "5 dollars"), ("8 am", "8 pm")],
    *[("90°C", r"90^\circ"), (r"90^\circ", "90 degrees Celsius"), ("90 degrees Celsius", "90 degrees Fahrenheit")],
    *[("2", "2h"), ("2h", "2"), ("5", "5N"), ("5 N", "5"), ("3 x", "3"), ("3", "3x"), ("5nm", "5"), ("5 x y", "5")],
    *[("5 choose k", "5"), ("5 sin m", "5"), ("5 n m", "5"), ("5 log n", "5"), ("5 mod m", "5"), ("5 cm x", "5")],
    *[
        ("5ns", "5"),
        ("5 plus", "5"),
        ("5 times six", "5"),
        ("5 theta", "5"),
        ("5 infinity", "5"),
        ("5 base seven", "5"),
    ],
    *[("5 over six", "5"), ("5 point five", "5"), ("5 minus two", "5"), ("5 negative", "5"), ("5 inverse", "5")],
    *[("2 dozen eggs", "2 eggs"), ("20 square units", r"20\text{ cm}^2"), ("5 hundred", "5"), ("5 thousand", "5")],
    *[("5 tenths", "5"), ("5 halves", "5"), ("1 third", "1"), ("5 hundredths", "5"), ("5 squared", "5")],
    *[("5 cubed", "5"), ("5 factorial", "5"), ("5 plus 3", "5"), ("5 square", "5"), (r"5\text{ or }6", "5")],
]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("kilometers per hour", {"km": 1, "h": -1}),
        (r"\text{m}/\text{s}^2", {"m": 1, "s": -2}),
        (r"\frac{\text{ kg}}{\text{m}^{3}}", {"kg": 1, "m": -3}),
        ("square feet of carpet", {"carpet": 1, "ft": 2}),
        ("meters per second per second", {"m": 1, "s": -2}),
        ("kilowatt-hours", {"h": 1, "kw": 1}),
        ("m m", {"m": 2}),
        ("m/m", {}),
        ("units", {}),
        ("square units", {"unit": 2}),
        ("berries", {"berry": 1}),
        ("tenths", None),
        ("square", None),
        ("^2", None),
        ("cm " * 30, None),
    ],
)
def test_a_unit_is_a_product_of_powers(text, unit):
    assert unit_of(text) == unit


@pytest.mark.parametrize("texts", SPELT, ids=lambda texts: texts[0])
def test_one_unit_may_be_spelt_in_many_ways(texts):
    for answer in texts:
        assert [equal(answer, gold) for gold in texts] == [True] * len(texts), answer


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_a_missing_unit_and_more_words_are_forgiven(answer, gold):
    assert equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_another_unit_another_noun_or_another_number_is_wrong(answer, gold):
    assert not equal(answer, gold)


@given(st.sampled_from(LINES), st.sampled_from(LINES), st.data())
def test_every_spelling_of_a_unit_is_that_unit_and_no_other(one, other, data):
    spelt, name = data.draw(st.sampled_from(one)), COMPOUND.get(one[0], {one[0]: 1})
    for text in (spelt, spelt + "s") if spelt.isalpha() and len(spelt) > 2 else (spelt,):
        assert unit_of(text) == ({} if one[0] == "unit" else name)
    power = data.draw(st.sampled_from([-3, -2, 2, 3]))
    raised = unit_of(f"\\text{{ {spelt}}}^{{{power}}}")
    assert raised == {key: each * power for key, each in name.items()}
    assert not agree(raised, unit_of(other[0]) or {"m": 1})  # of another power
    same = name == COMPOUND.get(other[0], {other[0]: 1})  # `kph` and `kmh` are
    assert agree(unit_of(spelt) or {}, unit_of(other[0]) or {}) == (same or "unit" in (one[0], other[0]))


@given(st.lists(st.sampled_from([line[0] for line in LINES if line[0].isalpha()]), min_size=1, max_size=4))
def test_the_order_of_factors_is_nothing_and_division_is_a_negative_power(names):
    forward, backward = unit_of(" ".join(names)), unit_of(" ".join(reversed(names)))
    assert forward == backward
    if not {"c", "f"} & set(names):  # they take the sign of a degree away
        assert (
            unit_of("/ " + " ".join(names))
            == {name: -power for name, power in forward.items() if name != "unit" or power != 1}
            or "unit" in names
        )
    assert agree(forward, backward) and agree(forward, {}) and agree({}, forward)


@given(st.text("abcdefghijklmnopqrstuvwxyz /.^{}23-°%μΩ\\", max_size=60))
def test_any_text_is_read_and_agrees_with_itself_both_ways(text):
    unit = unit_of(text)
    if unit is not None:
        assert agree(unit, unit) and all(unit.values())
        for other in ({"m": 1}, {"apple": 1}, {"h": -1}):
            assert agree(unit, other) == agree(other, unit)


@pytest.mark.parametrize(
    "pair",
    "box boxes|horse horses|bus buses|berry berries|cookie cookies|pie pies|apple apples|glass glasses|child children"
    "|person people|house houses|watch watches|axe axes|gas gases|cat cats|month months|people people".split("|"),
)
def test_a_singular_and_its_plural_have_one_stem(pair):
    one, many = pair.split()
    assert stem(one) == stem(many)


def test_letters_behind_a_number_are_names_unless_they_can_only_be_a_unit():
    assert (
        is_plain_unit("cm", apart=False) and is_plain_unit("apples", apart=True) and is_plain_unit("m/s", apart=False)
    )
    assert not is_plain_unit("m", apart=True) and not is_plain_unit("apples", apart=False)
    assert not is_plain_unit("nm", apart=False) and is_plain_unit("nm", apart=True)
    assert not is_plain_unit("x y", apart=True) and not is_plain_unit("of", apart=True)


def test_symbols_are_their_own_names():
    assert {"km", "μm", "°", "%", "dozen"} <= KNOWN and "apple" not in KNOWN
