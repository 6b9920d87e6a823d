"""The peaks of GPU memory that a call was seen to use."""

from __future__ import annotations

import pytest

from afarm._monitor.gpu_memory import Peaks, unpack


def test_processes_of_one_call_are_summed_on_each_gpu() -> None:
    peaks = Peaks()
    assert peaks.look([{1: 100, 2: 10, 9: 5000}, {9: 1}, {2: 7}], {1, 2, 3})
    assert unpack(peaks.pack()) == (110, 7)


def test_a_peak_is_the_most_of_one_look() -> None:
    peaks = Peaks()
    assert peaks.look([{1: 100}], {1, 2})
    assert not peaks.look([{2: 90}], {1, 2})
    assert peaks.look([{1: 50, 2: 60}], {1, 2})
    assert unpack(peaks.pack()) == (110,)


def test_who_uses_no_gpu_has_no_peak() -> None:
    peaks = Peaks()
    assert not peaks.look([{1: 100}, {}], {2})
    assert peaks.pack() == b""
    assert unpack(b"") == ()


@pytest.mark.parametrize("size", [1, 7, 9, 8 * 1025])
def test_what_is_no_peaks_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes are no peaks"):
        unpack(bytes(size))
