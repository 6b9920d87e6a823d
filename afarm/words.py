"""Numbers as people read them."""

from __future__ import annotations


def count(number: float, one: str, more: str = "") -> str:
    """Return how many of something there are: ``1 core``, ``2.5 cores``."""
    return f"{number:,g} {one if number == 1 else more or one + 's'}"


def duration(seconds: float) -> str:
    """Return a time for people: ``12 ms``, ``3.4 s``, ``5 min 20 s``, ``2 h 5 min``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 119.5:
        return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"
