"""The drawings of a report: inline SVG, coloured by the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH = 480
_HEIGHT = 56


def area_chart(label: str, allocated: Sequence[float], used: Sequence[float]) -> str:
    """Return two areas over time: what was allocated of a node, and in it what was used.

    Args:
        label: For those who cannot see it.
        allocated: Shares of the capacity, one for each step.
        used: The same, of what was measured.
    """
    tallest = max(1.0, *allocated, *used) if allocated or used else 1.0
    # Peaks of calls that did not coincide may add up to more than the node has.
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(label)}">'
        f'<rect class="room" width="{_WIDTH}" height="{_HEIGHT}"/>'
        f'<path class="allocated" d="{_area(allocated, tallest)}"/>'
        f'<path class="used" d="{_area(used, tallest)}"/>'
        f'<line class="full" x1="0" x2="{_WIDTH}" y1="{_y(1.0, tallest)}"'
        f' y2="{_y(1.0, tallest)}"/></svg>'
    )


def _y(share: float, tallest: float) -> str:
    return _number(_HEIGHT * (1 - share / tallest))


def _area(shares: Sequence[float], tallest: float) -> str:
    """Return the outline of a row of steps, each as tall as its share."""
    if not any(shares):
        return ""
    width = _WIDTH / len(shares)
    path = [f"M0 {_HEIGHT}"]
    before = None
    for at, share in enumerate(shares):
        y = _y(share, tallest)
        if y != before:
            path.append(f"H{_number(at * width)}V{y}")
            before = y
    path.append(f"H{_WIDTH}V{_HEIGHT}Z")
    return "".join(path)


def histogram(label: str, bars: Sequence[int], mark: float | None) -> str:
    """Return bars from the left to the right, and a line at ``mark`` (0 to 1)."""
    most = max(bars, default=0)
    drawn = "".join(
        f'<rect class="used" x="{at * 5}" y="{_number(24 - max(1.5, 24 * count / most))}"'
        f' width="4" height="{_number(max(1.5, 24 * count / most))}"/>'
        for at, count in enumerate(bars)
        if count
    )
    line = ""
    if mark is not None:
        x = _number(mark * len(bars) * 5)
        line = f'<line class="mark" x1="{x}" x2="{x}" y1="0" y2="24"/>'
    return (
        f'<svg class="bars" viewBox="0 0 {len(bars) * 5} 24" role="img"'
        f' aria-label="{escape(label)}"><title>{escape(label)}</title>{drawn}{line}</svg>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
