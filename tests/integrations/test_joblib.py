"""joblib's Parallel on a farm."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import pytest

import afarm
from tests.integrations.functions import inner, where

joblib = pytest.importorskip("joblib")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def backend(executor: afarm.Executor) -> Iterator[None]:
    from afarm.integrations.joblib import register

    register()
    with joblib.parallel_config("afarm", executor=executor):
        yield


def test_results_come_back_in_order() -> None:
    found = joblib.Parallel(n_jobs=-1)(joblib.delayed(math.sqrt)(n) for n in range(30))
    assert found == [math.sqrt(n) for n in range(30)]


def test_calls_run_on_the_farm_and_as_many_as_it_has_slots() -> None:
    parallel = joblib.Parallel(n_jobs=-1)
    pids = parallel(joblib.delayed(where)(n) for n in range(8))
    assert os.getpid() not in pids
    assert parallel._effective_n_jobs() == 2


def test_an_exception_is_raised_and_ends_the_others() -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel(n_jobs=-1)([joblib.delayed(time.sleep)(60), joblib.delayed(divmod)(1, 0)])
    assert time.monotonic() - began < 30


def test_a_call_may_call_parallel_itself() -> None:
    assert joblib.Parallel(n_jobs=-1)(joblib.delayed(inner)(n) for n in (3, 4)) == [3, 6]


def test_scikit_learn_searches_on_the_farm() -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    search = GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=3, n_jobs=-1)
    search.fit(*load_iris(return_X_y=True))
    assert search.best_score_ > 0.9
