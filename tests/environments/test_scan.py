"""Every shape in which a function can refer to a module."""

from __future__ import annotations

import decimal
import fractions
import functools
import importlib
import json.decoder
import sys
import types
import xml.dom.minidom
from collections.abc import Callable
from typing import Any

import pytest

from afarm.environments.scan import Import, scan
from tests.environments.made_up import Project


def modules(*roots: object, own: Callable[[str], bool] = lambda _: True) -> set[str]:
    found = {needed.module for needed in scan(roots, own=own).imports}
    return found - {__name__, "functools", "types"}


def by_value(source: str, **names: object) -> Any:
    """Return ``f`` of a source that pickle would take by value, as from ``__main__``."""
    scope: dict[str, object] = {"__name__": "__main__", **names}
    exec(source, scope)
    return scope["f"]


def test_an_import_in_the_function() -> None:
    fn = by_value("def f():\n  import a.b\n  from c import d\n  return a, d")

    found = scan([fn], own=lambda _: False).imports

    assert Import("a.b", "f (<string>:2)") in found
    assert Import("c", "f (<string>:3)", ("d",)) in found


def test_a_module_among_the_globals() -> None:
    assert modules(by_value("def f(): return m.dumps(1)", m=json)) == {"json"}


def test_a_submodule_reached_through_its_package() -> None:
    found = modules(by_value("def f(): return xml.dom.minidom.parseString", xml=xml))

    assert found == {"xml.dom.minidom"}


def test_a_global_that_is_not_looked_up_is_not_needed() -> None:
    assert modules(by_value("def f(): return 1", m=json)) == set()


def test_a_function_and_a_class_of_a_module_among_the_globals() -> None:
    fn = by_value("def f(): return g(1), C", g=json.dumps, C=decimal.Decimal)

    assert modules(fn, own=lambda _: False) == {"json", "decimal"}


def test_a_helper_by_value_is_looked_into_with_its_helpers() -> None:
    fn = by_value("def h(): import far\ndef g(): return h()\ndef f(): return g()")

    assert modules(fn) == {"far"}


def test_a_lambda_a_nested_function_and_a_comprehension() -> None:
    fn = by_value(
        "def f():\n  def inner():\n    import a\n"
        "  return [(lambda: __import__('b'))() for _ in range(2)]"
    )

    assert modules(fn) == {"a", "b"}
    assert modules(by_value("f = lambda: m.loads", m=json)) == {"json"}


def test_closure_cells_and_defaults() -> None:
    def make(module: types.ModuleType) -> Callable[..., object]:
        def inner(a: object = decimal, *, b: object = fractions) -> object:
            return module, a, b

        return inner

    assert modules(make(json)) == {"json", "decimal", "fractions"}


def test_a_cell_that_is_not_assigned_yet_is_passed_over() -> None:
    def make() -> Callable[..., object]:
        def inner() -> object:
            return later

        if inner is None:
            later = 1
        return inner

    assert modules(make()) == set()


def test_a_decorated_function_and_its_decorator() -> None:
    def decorate(fn: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(fn)
        def wrapper(*args: object) -> object:
            import outer  # type: ignore[import-not-found]

            return outer, fn(*args)

        return wrapper

    @decorate
    def fn() -> object:
        import inner  # type: ignore[import-not-found]

        return inner

    assert modules(fn) == {"outer", "inner"}
    assert modules(functools.lru_cache(by_value("def f(): import cached"))) == {"cached"}


def test_a_partial_with_its_arguments() -> None:
    fn = by_value("def f(*args): import a")

    assert modules(functools.partial(fn, json.JSONDecoder, x=[decimal.Decimal])) >= {
        "a",
        "json.decoder",
        "decimal",
    }


def test_bound_methods_class_methods_and_callable_objects() -> None:
    cls: Any = by_value(
        "class f:\n"
        "  def method(self): import a\n"
        "  @classmethod\n  def made(cls): import b\n"
        "  @staticmethod\n  def plain(): import c\n"
        "  @property\n  def value(self): import d\n"
        "  def __call__(self): return self.method()\n"
    )

    assert modules(cls().method) == {"a", "b", "c", "d"}
    assert modules(cls.made) == {"a", "b", "c", "d"}
    assert modules(cls()) == {"a", "b", "c", "d"}


def test_base_classes_and_attributes_of_an_instance() -> None:
    base = by_value("class f:\n  def m(self): import a")
    cls = by_value("class f(base): pass", base=base)
    value = cls()
    value.tool = decimal.Decimal(1)

    fn = by_value("def f(): return value", value=value)

    assert modules(fn) == {"a", "decimal"}


def test_what_stands_in_containers() -> None:
    table = {"x": [json.dumps, (decimal.Decimal, {fractions.Fraction})]}

    assert modules(by_value("def f(): return table", table=table), own=lambda _: False) == {
        "json",
        "decimal",
        "fractions",
    }


def test_a_module_made_at_run_time_is_looked_into() -> None:
    made = types.ModuleType("made_up_module")
    made.helper = by_value("def f(): import a")  # type: ignore[attr-defined]

    assert modules(by_value("def f(): return made.helper()", made=made)) == {"a"}


def test_structures_that_contain_themselves_end() -> None:
    loop: list[object] = [json]
    loop.append(loop)

    assert modules(by_value("def f(): return f, loop", loop=loop)) == {"json"}


def test_a_proxy_is_not_asked_for_what_it_stands_for() -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError("not bound to anything")

    assert modules(by_value("def f(): return proxy", proxy=Proxy())) == set()


def test_relative_imports_are_relative_to_the_functions_package() -> None:
    fn = by_value("def f():\n  from . import a\n  from ..b import c", __package__="top.sub")

    found = {(needed.module, needed.members) for needed in scan([fn], own=lambda _: True).imports}

    assert found == {("top.sub", ("a",)), ("top.b", ("c",))}


def test_a_function_of_an_own_module_is_named_and_looked_into(project: Project) -> None:
    project.write(
        {"own_one.py": "import json\ndef f():\n  import lazily\n  return json.dumps(1)\n"}
    )
    fn = project.load("own_one").f

    assert modules(fn, own=lambda name: name == "own_one") == {"own_one", "lazily", "json"}
    assert modules(fn, own=lambda _: False) == {"own_one"}


def test_a_binding_notices_another_helper_but_not_another_number() -> None:
    scope: dict[str, Any] = {"__name__": "__main__", "number": 1, "helper": json.dumps}
    exec("def f(): return helper(number)", scope)
    bindings = scan([scope["f"]], own=lambda _: False).bindings

    scope["number"] = 2
    assert all(binding.holds() for binding in bindings)
    scope["helper"] = importlib.import_module
    assert not all(binding.holds() for binding in bindings)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="says where C functions come from")
def test_functions_made_in_c_name_their_module() -> None:
    import math

    assert modules(by_value("def f(): return sin(1)", sin=math.sin)) == {"math"}
