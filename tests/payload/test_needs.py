"""What a node must have to unpickle arguments, noted while they are pickled."""

from __future__ import annotations

import dataclasses
import decimal
import functools
import json
import xml.dom.minidom
from types import SimpleNamespace
from typing import Any

import mdurl
import numpy as np
import pytest

from afarm.payload.arguments import dump_arguments
from afarm.payload.needs import ByValue
from tests.farm import functions as do


@dataclasses.dataclass
class Point:
    x: object


def made_in_main(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["made"]


@pytest.mark.parametrize(
    "value",
    [1, "a", [{"a": (1, {2})}], decimal.Decimal(1), json.dumps, xml.dom.minidom, SimpleNamespace()],
)
def test_what_every_node_has_is_no_need(value: object) -> None:
    assert dump_arguments((value,), {}).needs == frozenset()


def test_modules_of_classes_functions_and_modules_are_needed() -> None:
    found = dump_arguments((Point(mdurl), [do.add]), {"array": {"x": np.ones(2)}}).needs

    modules = {need for need in found if isinstance(need, str)}
    assert {__name__, "mdurl", "tests.farm.functions"} <= modules
    assert {name.partition(".")[0] for name in modules} == {"tests", "mdurl", "numpy"}


def test_what_travels_by_value_is_itself_the_need() -> None:
    cls = made_in_main("class made:\n  def __call__(self): import mdurl")

    needs = dump_arguments((cls(), cls()), {}).needs

    assert {need.value for need in needs if isinstance(need, ByValue)} == {cls, cls.__call__}
    assert len(needs) == 2


def test_functions_of_the_same_code_are_one_need() -> None:
    def make(number: int) -> Any:
        return lambda: number

    found = [dump_arguments((make(number),), {}).needs for number in range(2)]
    other = dump_arguments((lambda: 1,), {}).needs

    assert found[0] == found[1]
    assert len(found[0]) == 1
    assert found[0] != other
    assert dump_arguments((functools.partial(do.add, 1),), {}).needs == {"tests.farm.functions"}
