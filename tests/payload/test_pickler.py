"""How what cannot be imported elsewhere is pickled."""

from __future__ import annotations

import pickle

from afarm.payload.pickler import dumps


def test_code_that_travels_by_value_keeps_the_name_of_its_file() -> None:
    def outer(value: int) -> int:
        def inner() -> int:
            return value + 1

        return inner()

    copy = pickle.loads(dumps(outer))
    assert copy(1) == 2
    assert copy.__code__.co_filename == __file__
    assert copy.__code__ == outer.__code__
    [inner] = [each for each in copy.__code__.co_consts if hasattr(each, "co_filename")]
    assert inner.co_filename == __file__
