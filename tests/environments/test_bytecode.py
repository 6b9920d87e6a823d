"""Imports and names read from code objects."""

from __future__ import annotations

from textwrap import dedent

from afarm.environments.bytecode import CodeFacts, ImportSite, read_code


def read(source: str) -> CodeFacts:
    return read_code(compile(dedent(source), "made_up.py", "exec"))


def imports(source: str) -> dict[str, ImportSite]:
    return {site.module: site for site in read(source).imports}


def test_an_import_is_told_with_its_line_and_the_names_taken_from_it() -> None:
    found = read(
        """
        import os.path
        from a.b import c, d as e
        from ..f import g
        from . import h
        """
    ).imports

    assert [(site.module, site.level, site.members, site.line) for site in found] == [
        ("os.path", 0, (), 2),
        ("a.b", 0, ("c", "d"), 3),
        ("f", 2, ("g",), 4),
        ("", 1, ("h",), 5),
    ]
    assert not any(site.optional or site.lazy for site in found)


def test_an_import_in_a_function_is_lazy_and_one_in_a_class_body_is_not() -> None:
    found = imports(
        """
        class A:
            import a
            def method(self):
                import b
                return [(lambda: __import__("c"))() for _ in range(3)]
        """
    )

    assert {name: site.lazy for name, site in found.items()} == {"a": False, "b": True, "c": True}


def test_an_import_whose_failure_is_caught_is_optional() -> None:
    found = imports(
        """
        try:
            import guarded
        except ImportError:
            import fallback
        try:
            import by_name
        except (KeyError, ModuleNotFoundError):
            by_name = None
        try:
            import anything
        except:
            anything = None
        try:
            try:
                import inner
            finally:
                print()
        except Exception:
            inner = None
        with contextlib.suppress(ImportError):
            import suppressed
        """
    )

    assert all(site.optional for site in found.values())
    assert set(found) == {"guarded", "fallback", "by_name", "anything", "inner", "suppressed"}


def test_an_import_whose_failure_is_not_caught_is_needed() -> None:
    found = imports(
        """
        try:
            import wrong_error
        except KeyError:
            pass
        try:
            import cleaned_up
        finally:
            print()
        with open("x"):
            import inside
        try:
            print()
        except ImportError:
            pass
        import afterwards
        """
    )

    assert not any(site.optional for site in found.values())
    assert len(found) == 4


def test_an_import_under_a_condition_is_optional() -> None:
    found = imports(
        """
        if sys.version_info < (3, 12):
            import old
        else:
            import new
        for name in names:
            import looped
        import always
        """
    )

    optional = {name: site.optional for name, site in found.items()}
    assert optional == {"old": True, "new": True, "looped": True, "always": False}


def test_what_only_a_type_checker_imports_is_left_out() -> None:
    found = imports(
        """
        import typing
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import one
        if typing.TYPE_CHECKING:
            import two
        else:
            import three
        """
    )

    assert set(found) == {"typing", "three"}


def test_literal_dynamic_imports_are_read_and_computed_ones_are_not() -> None:
    found = imports(
        """
        import_module("one")
        importlib.import_module("two.three")
        __import__("four")
        importlib.import_module(".six", "five")
        importlib.import_module(".nowhere")
        import_module("comp" + suffix)
        import_module(name)
        """
    )

    assert set(found) == {"one", "two.three", "four", "five.six"}


def test_global_names_come_with_the_attributes_looked_up_on_them() -> None:
    def function() -> object:
        return np.linalg.norm(x), (lambda: helper(y.z))  # type: ignore[name-defined] # noqa: F821

    found = read_code(function.__code__).names

    names = [chain for chain, _ in found]
    assert {line for _, line in found} == {function.__code__.co_firstlineno + 1}
    assert ("np", "linalg", "norm") in names
    assert ("x",) in names
    assert ("helper",) in names
    assert ("y", "z") in names
