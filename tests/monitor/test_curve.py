"""The curve of a call: bounded, in order, and no peak is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._monitor.curve import MOST, Curve, unpack
from afarm.resources import Moment

looks = st.lists(st.tuples(st.floats(0.001, 5.0), st.integers(0, 1 << 40)), max_size=400)


@given(looks)
def test_a_curve_is_bounded_in_order_and_keeps_the_peak_and_the_end(
    looks: list[tuple[float, int]],
) -> None:
    curve, now = Curve(), 0.0
    for pause, memory in looks:
        now += pause
        curve.add(Moment(now, memory, now / 2, 1))
    kept = unpack(curve.pack())

    assert len(kept) <= MOST
    assert list(kept) == sorted(kept, key=lambda moment: moment.time)
    assert max((moment.memory for moment in kept), default=0) == max(
        (memory for _, memory in looks), default=0
    )
    if looks:
        assert kept[-1].time == now


@pytest.mark.parametrize("packed", [b"x", b"\0" * 32 * 200])
def test_what_is_no_curve_is_said(packed: bytes) -> None:
    with pytest.raises(ValueError, match="no curve"):
        unpack(packed)
