"""What is the same has the same digest, in every process; what is not, has another."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.errors import SerializationError
from afarm.payload.content import Content, TooMuch, code_digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


def digest(value: object) -> str:
    content = Content()
    content.add(value)
    return content.digest()


def exact(value: Any) -> object:
    """What tells apart all that a function could tell apart."""
    if isinstance(value, (list, tuple)):
        return (type(value), [exact(item) for item in value])
    if isinstance(value, dict):
        return (dict, [(exact(key), exact(item)) for key, item in value.items()])
    if isinstance(value, frozenset):
        return (frozenset, sorted(repr(exact(item)) for item in value))
    return (type(value), repr(value))


@given(plain, plain)
def test_values_have_one_digest_only_if_nothing_tells_them_apart(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == (exact(a) == exact(b))


@given(plain)
def test_whether_equal_parts_are_one_object_does_not_matter(value: Any) -> None:
    import copy

    assert digest([value, value]) == digest([value, copy.deepcopy(value)])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        ([1], (1,)),
        ([], ()),
        ([[1], 2], [[1, 2]]),
        (["ab", "c"], ["a", "bc"]),
        ({"a": [1]}, {"a": (1,)}),
        (np.zeros(2), np.zeros(2, np.int64)),
        (np.zeros(2), bytes(16)),
        (np.float64(1), 1.0),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(400_000), np.zeros(400_001)),
        (bytearray(b"a"), b"a"),
        (Path("a"), "a"),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (max, min),
        ([].append, [1].append),
    ],
    ids=repr,
)
def test_what_differs_in_type_or_shape_has_another_digest(a: object, b: object) -> None:
    assert digest(a) != digest(b)


def test_large_arrays_are_told_by_their_content_and_not_copied() -> None:
    array = np.arange(1_000_000)
    content = Content()
    content.add(array)
    before = content.digest()
    assert before == digest(array.copy())
    array[5] = 0
    assert content.digest() != before  # it was referred to


def test_what_contains_itself_has_a_digest() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [1]
    other.append(other)
    assert digest(loop) == digest(other)


def test_too_much_is_said_and_not_looked_at() -> None:
    with pytest.raises(TooMuch):
        digest([[object()] for _ in range(10_000)])
    digest(list(range(1_000_000)))  # of plain values there may be any number


# --- functions


def make(text: str) -> Any:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "somewhere.py", "exec"), space)
    return space["f"]


def test_a_function_is_what_it_does_wherever_it_stands() -> None:
    one = make("def f(x, y=2):\n    return {x: y, 'a': {1, 2}}\n")
    same = make("\n\n# moved\ndef f(x, y=2):\n    return {x: y, 'a': {1, 2}}\n")
    assert digest(one) == digest(same)
    assert code_digest(one) == code_digest(same)


@pytest.mark.parametrize(
    "text",
    [
        "def f(x, y=3):\n    return x + y + K",
        "def f(x, y=2):\n    return x - y + K",
        "def f(x, y=2):\n    return x + y + L",
        "def f(x, *, y=2):\n    return x + y + K",
        "def f(x, y=2):\n    return (lambda: x + y + K)()",
    ],
)
def test_a_function_that_does_something_else_has_another_digest(text: str) -> None:
    assert digest(make("K = L = 1\n" + text)) != digest(
        make("K = L = 1\ndef f(x, y=2):\n    return x + y + K")
    )


def test_what_a_function_refers_to_counts() -> None:
    text = "def g(x):\n    return x {}\nK = {}\ndef f(x):\n    return g(x) + K"
    first = digest(make(text.format("+ 1", 1)))
    assert digest(make(text.format("+ 1", 1))) == first
    assert digest(make(text.format("+ 2", 1))) != first
    assert digest(make(text.format("+ 1", 2))) != first


def test_a_closure_counts() -> None:
    def make_adder(n: int) -> Any:
        return lambda x: x + n

    assert digest(make_adder(1)) == digest(make_adder(1))
    assert digest(make_adder(1)) != digest(make_adder(2))
    assert code_digest(make_adder(1)) == code_digest(make_adder(2))


CLASS = """
import dataclasses, enum

class Colour(enum.Enum):
    RED = 1
    BLUE = {blue}

@dataclasses.dataclass
class Point:
    x: int
    y: int = {default}
    colour: Colour = Colour.RED

    @property
    def sum(self):
        return self.x {sign} self.y

class Names(list):
    __slots__ = ("extra",)

def f():
    names = Names([Point(1), "a"])
    names.extra = {{"b": (1, 2)}}
    return [Point, Point(3, 4), Colour.BLUE, names]
"""


def things(blue: int = 2, default: int = 5, sign: str = "+") -> Any:
    return make(CLASS.format(blue=blue, default=default, sign=sign))()


def test_classes_of_a_script_are_what_they_define() -> None:
    assert digest(things()) == digest(things())
    for changed in (things(blue=3), things(default=6), things(sign="-")):
        assert digest(changed) != digest(things())
    point = things()[1]
    before = digest(point)
    point.y = 40
    assert digest(point) != before


def test_a_class_of_a_module_is_its_name() -> None:
    assert digest(Path) != digest(Content)
    assert digest([Path("a")]) != digest([Path("b")])


def test_what_cannot_be_pickled_is_said() -> None:
    import threading

    class Holder:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("not me")

    for value in (threading.Lock(), Holder(), [Holder()]):
        with pytest.raises(SerializationError):
            digest(value)


def test_a_function_that_calls_itself_has_a_digest() -> None:
    text = "def f(n):\n    return n * f(n - 1) if n else 1"
    assert digest(make(text)) == digest(make(text))


@pytest.mark.slow
def test_the_digest_is_the_same_in_another_process() -> None:
    program = """if True:
        from tests.payload.test_content import digest, make
        from tests.payload.test_content import things
        f = make("def f(x):\\n    return x in {'a', 'b', 'c'} or x in K\\nK = {'x', 'y', (1, 'z')}")
        print(digest([f, things(), {"one", "two", "three"}, {("a", 1), ("b", 2)}, {"k": {b"x"}}]))
    """
    found = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_code_digests_look_through_partials_and_methods() -> None:
    work = make("def f(self, x):\n    return x")
    assert code_digest(functools.partial(work, 1)) == code_digest(work)
    assert code_digest(len) == code_digest(len)
    assert code_digest(len) != code_digest(max)
