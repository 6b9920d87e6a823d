"""What arguments tell of a call's needs."""

from __future__ import annotations

import enum
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.payload import named_files
from afarm.payload.features import MOST_FEATURES, features_of, parameters
from afarm.payload.named_files import NamedFiles, may_name_a_file


def of(*args: Any, **kwargs: Any) -> dict[str, float]:
    names = tuple("abcdefghij"[: len(args)])
    return features_of(names, args, kwargs)


@dataclass
class Settings:
    depth: int
    tags: list[str]
    name: str = "x"


class Named(enum.Enum):
    ONE = 1


class Mine(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("not to be asked")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, {"a": 3.0}),
        (-2.5, {"a": -2.5}),
        (np.float32(1.5), {"a": 1.5}),
        (np.int64(7), {"a": 7.0}),
        (Fraction(1, 4), {"a": 0.25}),
        ("word", {"len(a)": 4.0}),
        (b"12345", {"size(a)": 5.0}),
        (bytearray(6), {"size(a)": 6.0}),
        ([1, 2], {"len(a)": 2.0}),
        ((), {"len(a)": 0.0}),
        ({"x": 1}, {"len(a)": 1.0}),
        ({1, 2, 3}, {"len(a)": 3.0}),
        (deque([1]), {"len(a)": 1.0}),
        (range(10), {"len(a)": 10.0}),
        (Mine([1, 2]), {"len(a)": 2.0}),
        (np.zeros((10, 10)), {"size(a)": 800.0}),
        (memoryview(b"1234"), {"size(a)": 4.0}),
        (Settings(3, ["x", "y"]), {"a.depth": 3.0, "len(a.tags)": 2.0}),
        (None, {}),
        (True, {}),
        (1j, {}),
        (Named.ONE, {}),
        (object(), {}),
        (math.nan, {}),
        (math.inf, {}),
        (10**400, {}),
        (range(10**400), {}),
        (len, {}),
    ],
)
def test_what_one_argument_tells(value: object, told: dict[str, float]) -> None:
    assert of(value) == told


def test_a_table_tells_its_cells() -> None:
    pandas = pytest.importorskip("pandas")
    assert of(pandas.DataFrame({"nbytes": [1, 2], "y": [3, 4]})) == {"cells(a)": 4.0}
    assert of(pandas.Series([1.0, 2.0])) == {"size(a)": 16.0}


def test_an_argument_has_one_name_however_it_is_passed() -> None:
    def function(n: int, *rest: int, scale: float = 1.0) -> None: ...

    class Holder:
        def method(self, n: int) -> None: ...

    names = parameters(function)
    assert features_of(names, (3,), {}) == features_of(names, (), {"n": 3})
    assert features_of(names, (3, 4), {"scale": 2}) == {"n": 3, "argument 2": 4, "scale": 2}
    assert parameters(Holder().method) == ("n",)


@pytest.mark.parametrize("function", [len, int, Settings, np.sin, object()])
def test_of_what_is_no_function_arguments_are_named_by_place(function: Any) -> None:
    assert parameters(function) == ()
    assert features_of((), ("word",), {}) == {"len(argument 1)": 4.0}


def test_no_more_is_told_than_sizers_look_at() -> None:
    many = {f"x{n}": n for n in range(100)}
    assert list(of(**many)) == list(many)[:MOST_FEATURES]
    assert len(of(*range(6), Settings(1, []), **many)) == MOST_FEATURES


def _raise(*_: object) -> Any:
    raise ValueError("hostile")


HOSTILE: list[Callable[[], object]] = [
    lambda: type("Length", (), {"__len__": _raise})(),
    lambda: type("Bytes", (), {"nbytes": property(_raise)})(),
    lambda: type("Shape", (), {"shape": property(_raise)})(),
    lambda: type("Odd", (), {"nbytes": "much", "shape": "wide"})(),
    lambda: type("Number", (int,), {"__float__": _raise})(3),
    lambda: type("Text", (str,), {"__len__": _raise, "__str__": _raise})("some.txt"),
    lambda: type("Any", (), {"__getattr__": _raise, "__getattribute__": _raise})(),
    lambda: type("Path", (os.PathLike,), {"__fspath__": _raise})(),
    lambda: type("Class", (), {"__class__": property(_raise)})(),
]

# Hypothesis looks at what it draws: hostile objects are made afterwards.
values = st.one_of(
    st.sampled_from(HOSTILE),
    st.one_of(
        st.floats(),
        st.integers(),
        st.text(),
        st.binary(max_size=10),
        st.integers(-(10**400), 10**400),
        st.lists(st.integers(), max_size=3),
        st.builds(Settings, st.integers(), st.lists(st.text(), max_size=2)),
    ).map(lambda value: lambda: value),
)


@given(st.lists(values, max_size=5), st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_whatever_the_arguments_do_a_few_finite_numbers_come_back(
    args: list[Callable[[], object]], kwargs: dict[str, Callable[[], object]]
) -> None:
    made = {name: make() for name, make in kwargs.items()}
    told = features_of(("a", "b"), tuple(make() for make in args), made)
    assert len(told) <= MOST_FEATURES
    assert all(type(number) is float and math.isfinite(number) for number in told.values())


# --- files


def test_a_file_that_is_named_tells_its_size(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(1234))
    link = tmp_path / "link.bin"
    link.symlink_to(path)
    for _ in range(2):  # the second time its folder is known
        assert of(path) == of(str(path)) == of(str(link)) == {"size(a)": 1234.0}
        assert of(tmp_path) == {}
        assert of(tmp_path / "missing") == {}
        assert of(str(tmp_path / "missing")) == {"len(a)": float(len(str(tmp_path / "missing")))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.csv", True),
        ("../a b/data", True),
        ("scan.tar.gz", True),
        ("word", False),
        ("3.5", False),
        ("One sentence. Another.", False),
        ("https://example.org/data.csv", False),
        ("a/b\nc", False),
        ("a/b\0c", False),
        ("x" * 2000 + ".csv", False),
    ],
)
def test_what_looks_like_a_path(text: str, expected: bool) -> None:
    assert may_name_a_file(text) is expected


def test_a_file_system_that_hangs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"12")
    asked: list[str] = []
    released, back = threading.Event(), threading.Event()
    answer = named_files._answer

    def hang(name: str, local: dict[int, bool]) -> Any:
        asked.append(name)
        released.wait(20)
        try:
            return answer(name, local)
        finally:
            back.set()

    monkeypatch.setattr(named_files, "_answer", hang)
    files = NamedFiles()
    assert files.size(str(path)) is None
    assert files.size(str(path)) is None
    assert len(asked) == 1  # nobody waits behind it
    released.set()
    assert back.wait(20)
    unanswered = files._unanswered
    assert unanswered is not None
    assert unanswered.acquire(timeout=20)  # the answer is there
    unanswered.release()
    assert files.size(str(path)) == 2


def test_files_are_not_asked_for_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"12")
    now = 0.0

    def slow() -> float:  # each look at the clock costs 50 ms
        nonlocal now
        now += 0.05
        return now

    monkeypatch.setattr(named_files, "_LOCAL", frozenset())
    monkeypatch.setattr(named_files.time, "monotonic", slow)
    files = NamedFiles()
    told = [files.size(str(path)) for _ in range(20)]
    assert told[0] == 2
    assert told[-1] is None
    now += 60.0
    assert files.size(str(path)) == 2
