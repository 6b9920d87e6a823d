"""The demonstration's calls, on what the packages ship."""

from __future__ import annotations

import importlib.util
import math

import pytest

import afarm.demo.plan as plans
from afarm.demo import work

needs_packages = pytest.mark.skipif(
    importlib.util.find_spec("rdkit") is None or importlib.util.find_spec("sklearn") is None,
    reason="needs the packages of afarm[demo]",
)


def test_without_its_packages_the_plan_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(plans.MissingInput, match=r"pip install 'afarm\[demo\]'"):
        plans.make_plan(10)


@needs_packages
@pytest.mark.slow
def test_every_category_has_its_calls() -> None:
    calls = plans.make_plan(100, quick=True)
    assert len(calls) == 100
    assert {call.category for call in calls} == set(plans.CATEGORIES)


@needs_packages
@pytest.mark.slow
def test_one_call_of_each_category_computes_something() -> None:
    calls = {call.category: call for call in plans.make_plan(10, quick=True)}
    results = {name: call.function(*call.arguments) for name, call in calls.items()}
    assert all(len(found) > 200 for found in results["descriptors"])
    assert any(energy is not None and math.isfinite(energy) for energy in results["conformers"])
    assert 0.3 < results["neighbours"] < 1
    assert 0.5 < sum(results["texture"]) <= 1
    assert 0.8 < results["classify"] <= 1


@needs_packages
def test_a_molecule_that_cannot_be_read_has_no_energy() -> None:
    assert work.make_fold()(["no molecule", "[Na+].[Cl-]"])[0] is None
