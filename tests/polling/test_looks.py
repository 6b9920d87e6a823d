"""The most cores over a second."""

from __future__ import annotations

import pytest

from afarm.polling.looks import CoresPeak


def test_the_busiest_second_counts() -> None:
    peak = CoresPeak()
    for elapsed, cpu_time in [(0.5, 0.5), (1.0, 1.0), (1.5, 2.0), (2.0, 3.0), (3.0, 3.0)]:
        peak.add(elapsed, cpu_time)
    assert peak.most == pytest.approx(2.0)


def test_less_than_a_second_has_no_peak() -> None:
    peak = CoresPeak()
    peak.add(0.1, 0.4)
    peak.add(0.9, 0.9)
    assert peak.most == 0.0
