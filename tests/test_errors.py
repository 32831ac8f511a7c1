"""Errors form the tree that their docstring draws, and say what exists."""

import inspect
import re

import pytest

from deadunits_tb import errors
from deadunits_tb.errors import DeadUnitsError, UnknownNameError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, DeadUnitsError)]


def test_the_docstring_draws_the_tree_as_it_is():
    drawn = {}
    above = []
    for line in errors.__doc__.splitlines():
        match = re.search(r"([├└]── )?(\w+Error)(?: \(also (\w+)\))?", line)
        if match and (match[1] or match[2] == "DeadUnitsError"):
            depth = match.start(2) // 4 if match[1] else 1
            above[depth - 1 :] = [match[2]]
            drawn[match[2]] = (above[-2] if len(above) > 1 else "Exception", match[3])
    assert set(drawn) == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        parent, also = drawn[cls.__name__]
        assert cls.__bases__[0].__name__ == parent
        assert also is None or also in {base.__name__ for base in cls.__mro__}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_explained_and_shows_its_message_as_it_is(cls):
    assert cls.__doc__
    assert str(cls("what was wrong, what exists")) == "what was wrong, what exists"


def test_an_unknown_name_lists_what_exists_and_what_is_close():
    assert str(UnknownNameError.of("layer", "dense_l", ["dense", "dense_1", "conv"])) == (
        "there is no layer 'dense_l'. Did you mean 'dense_1'? Known: 'dense', 'dense_1', 'conv'."
    )
    assert str(UnknownNameError.of("run", "x", [])) == "there is no run 'x'. Known: none."
    assert str(UnknownNameError.of("unit", 99, range(30))).endswith("'9' and 20 more.")


def test_an_unknown_name_can_be_caught_as_a_lookup():
    with pytest.raises(LookupError, match="there is no run"):
        raise UnknownNameError.of("run", "x", ["y"])
