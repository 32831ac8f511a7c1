"""JSON of strangers is refused with a sentence, whatever is wrong with it."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadunits_tb import strict_json
from deadunits_tb.errors import FormatError
from deadunits_tb.strict_json import Fields


def load(data: bytes) -> Fields:
    return strict_json.loads(data, limit=10_000_000, what="the thing")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "strict JSON"),
        (b"\xff{}", "strict JSON"),
        (b"[]", "a list, not a JSON object"),
        (b'"text"', "'text', not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "5001 digits"),
        (b'{"a":' + b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 1_000_000, "nested too deeply"),
        (b"{" + b" " * 10_000_000, "at most 10,000,000"),
    ],
)
def test_what_is_not_strict_json_is_refused(data, reason):
    with pytest.raises(FormatError, match=r"^the thing .*") as caught:
        load(data)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ['"1"', "1.5", "true", "null", "[]", "{}", "-1", "99999999999999999999"])
def test_a_count_is_a_whole_number_within_bounds(value):
    with pytest.raises(FormatError, match="'n'"):
        load(b'{"n": %s}' % value.encode()).whole("n")


@pytest.mark.parametrize("read", [Fields.text, Fields.flag, Fields.number, Fields.object, Fields.array])
def test_a_value_of_another_type_is_refused(read):
    wrong = {Fields.text: 1, Fields.flag: 0, Fields.number: True, Fields.object: [], Fields.array: {}}[read]
    with pytest.raises(FormatError, match=r"'key' is .*, not "):
        read(Fields({"key": wrong}, "the thing"), "key")


def test_a_missing_key_is_named_unless_it_may_be_missing():
    fields = Fields({"there": None}, "the thing")
    with pytest.raises(FormatError, match="the thing has no 'missing'"):
        fields.text("missing")
    assert fields.text("missing", "default") == "default"
    assert fields.text("there", None) is None
    with pytest.raises(FormatError, match="'there' is None"):
        fields.text("there")


def test_a_choice_names_what_exists():
    with pytest.raises(FormatError, match="'green', not one of red, blue"):
        Fields({"colour": "green"}, "the thing").choice("colour", ["red", "blue"])


@given(st.floats())
def test_every_float_survives(value):
    data = strict_json.dumps({"x": strict_json.number(value)})
    found = load(data).number("x")
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_a_number_that_must_be_finite_is():
    for value in ('"NaN"', '"Infinity"', "1e999"):
        with pytest.raises(FormatError, match="'x'"):
            load(b'{"x": %s}' % value.encode()).number("x", finite=True)


def test_half_a_surrogate_pair_harms_nobody():
    assert load(strict_json.dumps({"name": "a\ud800b"})).text("name") == "a?b"
    assert load(b'{"name": "a\\ud800b"}').text("name") == "a?b"


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text()))))
def test_no_value_makes_a_reader_raise_anything_else(values):
    fields = Fields(values, "the thing")
    for key in values:
        for read in (fields.text, fields.flag, fields.whole, fields.number, fields.array, fields.object, fields.texts):
            with contextlib.suppress(FormatError):
                read(key)
