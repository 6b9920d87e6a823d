"""What ``__main__`` defines with functools, taken apart and made again."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import pytest

from afarm._agent import remade
from afarm.payload.pickler import dumps


def made_in_main(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(f"import functools\n{source}", scope)
    return scope["made"]


def again(value: object) -> Any:
    return pickle.loads(dumps(value))


def test_a_cached_function_keeps_its_bounds_and_begins_empty() -> None:
    made = made_in_main("@functools.lru_cache(3, typed=True)\ndef made(x): return [x]")
    made(1)

    found = again(made)

    assert found.cache_info() == (0, 0, 3, 0)
    assert found.cache_parameters() == made.cache_parameters()
    assert found(1) is found(1)
    assert found.__name__ == "made"


def test_a_cached_function_may_call_itself() -> None:
    fib = made_in_main(
        "@functools.cache\ndef made(n): return n if n < 2 else made(n - 1) + made(n - 2)"
    )

    found = again(fib)

    assert found(50) == 12586269025
    assert found.cache_info().misses == 51


def test_a_generic_function_keeps_its_implementations_and_may_call_itself() -> None:
    made = made_in_main(
        "@functools.singledispatch\ndef made(x): return 'other'\n"
        "@made.register\ndef _(x: list): return [made(each) for each in x]\n"
        "@made.register(int)\n@made.register(float)\ndef _(x): return 'number'\n"
    )

    found = again(made)

    assert found([1, 2.0, "a", [True]]) == ["number", "number", "other", ["number"]]
    assert found.__name__ == "made"
    found.register(str, lambda _: "text")
    assert found("a") == "text"
    assert made("a") == "other"


def test_generic_methods_and_cached_properties_work_in_the_class_that_comes_with_them() -> None:
    cls = made_in_main(
        "class made:\n"
        "  @functools.singledispatchmethod\n  def m(self, x): return 'other'\n"
        "  @m.register\n  def _(self, x: int): return 'number'\n"
        "  @functools.cached_property\n  def p(self):\n    'What it is.'\n    return [self.m(1)]\n"
    )

    value = again(cls())

    assert (value.m(1), value.m("a")) == ("number", "other")
    assert value.p is value.p
    assert value.p == ["number"]
    assert type(value).p.__doc__ == "What it is."


@functools.cache
def cached_here() -> int:
    return 1


@functools.singledispatch
def generic_here(x: object) -> int:
    return 1


@pytest.mark.parametrize("value", [cached_here, generic_here])
def test_what_can_be_imported_goes_by_its_name(value: object) -> None:
    assert again(value) is value
    assert len(dumps(value)) < 100


def test_a_property_that_no_class_has_named_yet_has_no_name() -> None:
    assert remade.cached_property(len, None).attrname is None
