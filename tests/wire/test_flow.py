"""The pacer against simulated links: nothing urgent waits long, and the link is kept busy."""

from __future__ import annotations

import heapq

import pytest

from afarm._wire import flow


def run(rate: float, trip: float, total: int, chunk: int = 65536) -> tuple[float, float]:
    """Send ``total`` bytes over a link; return (share of its rate used, longest queue in s)."""
    pacer = flow.Pacer()
    pacer.on_round_trip(trip)
    now = free = longest = 0.0
    acknowledgements: list[tuple[float, int]] = []
    left = total
    while left or acknowledgements:
        while left and pacer.allowance() >= 4096:
            count = min(chunk, pacer.allowance(), left)
            free = max(free, now) + count / rate
            longest = max(longest, free - now)
            left -= count
            pacer.on_sent(count, now)
            heapq.heappush(acknowledgements, (free + trip, pacer.sent))
        now, acknowledged = heapq.heappop(acknowledgements)
        assert pacer.on_acknowledged(acknowledged, now)
    return total / rate / now, longest


@pytest.mark.parametrize(
    ("rate", "trip"), [(2.5e6, 0.02), (2.5e6, 0.0002), (12.5e6, 0.2), (1e9, 0.0002)]
)
def test_a_control_frame_waits_little_and_the_link_is_busy(rate: float, trip: float) -> None:
    used, longest = run(rate, trip, total=int(rate * 10))
    assert longest <= flow.QUEUE + flow.GROWTH * trip + flow.LEAST_WINDOW / rate
    assert used > (0.9 if trip < 0.1 else 0.8)  # a long link takes some trips to fill


def test_more_acknowledged_than_sent_is_noticed() -> None:
    pacer = flow.Pacer()
    pacer.on_sent(10, 0.0)
    assert not pacer.on_acknowledged(11, 1.0)


def test_acknowledgements_do_not_go_back() -> None:
    pacer = flow.Pacer()
    pacer.on_sent(10, 0.0)
    assert pacer.on_acknowledged(10, 1.0)
    assert not pacer.on_acknowledged(9, 2.0)


def test_the_window_stays_within_its_bounds() -> None:
    pacer = flow.Pacer()
    pacer.on_sent(flow.LEAST_WINDOW, 0.0)
    assert pacer.allowance() == 0
    assert pacer.on_acknowledged(flow.LEAST_WINDOW, 1e-9)
    assert pacer.window == flow.LARGEST_WINDOW


def test_what_came_is_acknowledged_at_once_and_then_not_too_often() -> None:
    receipt = flow.Receipt()
    receipt.received = flow.ACK_EVERY - 1
    assert receipt.wait(1.0) is None
    receipt.received += 1
    assert receipt.wait(1.0) == 0.0
    assert receipt.acknowledge(1.0) == flow.ACK_EVERY
    assert receipt.due == 0
    receipt.received += flow.ACK_EVERY
    assert receipt.wait(1.0) == pytest.approx(flow.ACK_PAUSE)
    assert receipt.wait(1.0 + 2 * flow.ACK_PAUSE) == 0.0
    assert receipt.acknowledge(1.1) == 2 * flow.ACK_EVERY
