"""Functions are pickled once, and again when something they refer to has been rebound."""

from __future__ import annotations

import functools
import json
import os.path
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from afarm.errors import SerializationError
from afarm.payload import FunctionPickles, category_of


def made_in(namespace: dict[str, Any], source: str, name: str) -> Any:
    """Return a function as a script's ``__main__`` has it: it can only travel by value."""
    namespace.setdefault("__name__", "__main__")
    exec(source, namespace)
    return namespace[name]


def test_a_function_of_a_module_goes_by_reference() -> None:
    pickled = FunctionPickles().pickle(json.dumps)
    assert pickled.by_reference
    assert pickle.loads(pickled.data) is json.dumps
    assert len(pickled.data) < 100


def test_a_function_that_is_not_changed_is_pickled_once() -> None:
    pickles = FunctionPickles()
    function = made_in({"K": 3}, "def f(x): return x + K", "f")
    assert pickles.pickle(function) is pickles.pickle(function)


def test_a_rebound_global_travels() -> None:
    space: dict[str, Any] = {"K": 3}
    pickles = FunctionPickles()
    function = made_in(space, "def f(x): return x + K", "f")
    before = pickles.pickle(function)
    space["K"] = 4
    after = pickles.pickle(function)
    assert before.digest != after.digest
    assert pickle.loads(after.data)(1) == 5


def test_a_rebound_global_of_a_helper_travels() -> None:
    space: dict[str, Any] = {"K": 3}
    pickles = FunctionPickles()
    made_in(space, "def g(x): return x + K", "g")
    function = made_in(space, "def f(x): return g(x)", "f")
    pickles.pickle(function)
    space["K"] = 10
    assert pickle.loads(pickles.pickle(function).data)(1) == 11


def test_a_helper_that_is_defined_later_travels() -> None:
    space: dict[str, Any] = {}
    pickles = FunctionPickles()
    function = made_in(space, "def f(): return helper()", "f")
    pickles.pickle(function)
    made_in(space, "def helper(): return 7", "helper")
    assert pickle.loads(pickles.pickle(function).data)() == 7


def test_a_changed_cell_travels() -> None:
    def outer() -> tuple[Callable[[], int], Callable[[int], None]]:
        value = 1

        def inner() -> int:
            return value

        def change(to: int) -> None:
            nonlocal value
            value = to

        return inner, change

    inner, change = outer()
    pickles = FunctionPickles()
    assert pickle.loads(pickles.pickle(inner).data)() == 1
    change(5)
    assert pickle.loads(pickles.pickle(inner).data)() == 5


def test_a_container_that_is_changed_in_place_travels() -> None:
    space: dict[str, Any] = {"items": [1]}
    pickles = FunctionPickles()
    function = made_in(space, "def f(): return sum(items)", "f")
    pickles.pickle(function)
    space["items"].append(2)
    assert pickle.loads(pickles.pickle(function).data)() == 3


def test_what_cannot_be_pickled_is_said_with_the_function() -> None:
    function = made_in({"lock": threading.Lock()}, "def guarded(): return lock", "guarded")
    with pytest.raises(SerializationError, match="guarded cannot be pickled") as caught:
        FunctionPickles().pickle(function)
    assert caught.value.part == "function"


def test_what_is_collected_is_forgotten() -> None:
    pickles = FunctionPickles()
    function = made_in({}, "def f(): return 1", "f")
    pickles.pickle(function)
    del function
    import gc

    gc.collect()
    assert not pickles._known


def test_categories_are_named_after_the_function_behind_it_all() -> None:
    assert category_of(json.dumps) == "json.dumps"
    assert category_of(functools.partial(functools.partial(os.path.join, "a"), "b")).endswith(
        ".join"
    )
    assert ":" in category_of(lambda: 1)
    first, second = (
        lambda: 1,
        lambda: 2,
    )
    assert category_of(first) != category_of(second)
