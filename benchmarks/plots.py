"""Plots of figures, as SVG that needs nothing else: dots on a scale, and bars of several parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Colours that the colour-blind can tell apart: M. Okabe and K. Ito, "Color universal design",
# https://jfly.uni-koeln.de/color/. Whoever comes after them begins again with squares.
_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#999999",
)  # fmt: skip
_GREY = _COLOURS.index("#999999")

_NAMES = 250  # px for what stands at the left
_WIDTH = 560  # of the scale
_ROW = 26
_TOP = 58
_MARGIN = 20
_LEGEND = 18

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1d2327}"
    ".title{font-size:15px;font-weight:600}.faint{fill:#5f6b73}.end{text-anchor:end}"
    ".middle{text-anchor:middle}.grid{stroke:#e1e5e8}.one{stroke:#5f6b73;stroke-dasharray:4 3}"
    ".mean{stroke:#1d2327;stroke-width:3}"
)


@dataclass(frozen=True, slots=True)
class Dot:
    """One value of a row.

    Attributes:
        kind: What it is of: those of one kind have one colour in all rows.
        value: Where it stands; infinite: beyond the end of the scale.
        variant: Under which circumstances: all but the first are hollow.
    """

    kind: str
    value: float
    variant: str = ""

    @property
    def told(self) -> str:
        """What it is, in words."""
        return f"{self.kind}, {self.variant}" if self.variant else self.kind


def dots(
    title: str,
    rows: Mapping[str, Sequence[Dot]],
    means: Mapping[str, float],
    *,
    logarithmic: bool = False,
) -> str:
    """Return rows of dots on one scale.

    Args:
        title: What is shown, with its unit.
        rows: The dots of each row, in the order of the rows.
        means: For each row where a line stands.
        logarithmic: Whether equal factors are equally far apart, and not equal differences.
    """
    finite = [dot.value for row in rows.values() for dot in row if math.isfinite(dot.value)]
    finite += [mean for mean in means.values() if math.isfinite(mean)]
    scale = _Logarithmic(finite) if logarithmic else _Linear(finite)
    kinds = list(dict.fromkeys(dot.kind for row in rows.values() for dot in row))
    variants = list(dict.fromkeys(dot.variant for row in rows.values() for dot in row))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    drawn = [_frame(title, scale, list(rows))]
    for number, (name, row) in enumerate(rows.items()):
        y = _TOP + _ROW * number + _ROW / 2
        mean = means.get(name, math.inf)
        if math.isfinite(mean):
            x = scale.at(mean)
            told = f"<title>{escape(name)}: {_short(mean)} on average</title>"
            drawn.append(
                f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{y + 9}">'
                f"{told}</line>"
            )
        drawn += [
            _dot(dot, scale, y, numbers[dot.kind], hollow=dot.variant != variants[0]) for dot in row
        ]
    entries = [(kind, number, False) for kind, number in numbers.items()]
    if variants != [""]:
        entries += [(name, _GREY, place > 0) for place, name in enumerate(variants)]
    drawn.append(_legend(len(rows), entries))
    return _svg(drawn, len(rows), len(entries))


def bars(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return a bar for each row, made of parts that follow each other.

    Args:
        title: What is shown, with its unit.
        rows: The parts of each row, by what they are.
    """
    scale = _Linear([sum(parts.values()) for parts in rows.values()])
    kinds = list(dict.fromkeys(kind for parts in rows.values() for kind in parts))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    drawn = [_frame(title, scale, list(rows))]
    for number, (name, parts) in enumerate(rows.items()):
        y = _TOP + _ROW * number + 5
        begin = 0.0
        for kind, value in parts.items():
            x, end = scale.at(begin), scale.at(begin + value)
            begin += value
            told = f"<title>{escape(name)}, {escape(kind)}: {_short(value)}</title>"
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{end - x:.1f}" height="{_ROW - 10}"'
                f" {_paint(numbers[kind])}>{told}</rect>"
            )
        drawn.append(
            f'<text class="faint" x="{scale.at(begin) + 6:.1f}" y="{y + 13}">{_short(begin)}</text>'
        )
    drawn.append(_legend(len(rows), [(kind, number, False) for kind, number in numbers.items()]))
    return _svg(drawn, len(rows), len(kinds))


# --- scales

# What is smaller cannot be divided into ten parts.
_NOTHING = 1e-300


class _Linear:
    """From nothing to the largest."""

    def __init__(self, values: Sequence[float]) -> None:
        largest = max(values, default=0.0)
        if largest < _NOTHING:
            largest = 1.0
        step = 10.0 ** math.floor(math.log10(largest))
        for smaller in (0.1, 0.2, 0.5):
            if largest / (step * smaller) <= 10:
                step *= smaller
                break
        count = math.ceil(largest / step - 1e-9)
        self.end = count * step
        self.ticks = [number * step for number in range(count + 1)]

    def at(self, value: float) -> float:
        """Return where on the page a value stands."""
        return _NAMES + _WIDTH * min(1.0, value / self.end)


class _Logarithmic:
    """From the smallest to the largest."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._low, self._high = 0.9 * min(positive), 1.1 * max(positive)
        steps = (
            factor * 10**power
            for power in range(math.floor(math.log10(self._low)), 1 + int(math.log10(self._high)))
            for factor in (1, 1.5, 2, 3, 5, 7)
        )
        self.ticks = [tick for tick in steps if self._low <= tick <= self._high]
        self.end = self._high

    def at(self, value: float) -> float:
        """Return where on the page a value stands."""
        clamped = min(max(value, self._low), self._high)
        return _NAMES + _WIDTH * math.log(clamped / self._low) / math.log(self._high / self._low)


# --- parts


def _frame(title: str, scale: _Linear | _Logarithmic, names: Sequence[str]) -> str:
    """Return the title, the scale and the names of the rows."""
    bottom = _TOP + _ROW * len(names)
    drawn = [f'<text class="title" x="{_MARGIN}" y="24">{escape(title)}</text>']
    for tick in scale.ticks:
        x = scale.at(tick)
        kind = "one" if tick == 1.0 else "grid"
        drawn.append(
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text class="faint middle" x="{x:.1f}" y="{_TOP - 6}">{_short(tick)}</text>'
        )
    for number, name in enumerate(names):
        y = _TOP + _ROW * number + _ROW / 2 + 4
        drawn.append(f'<text class="end" x="{_NAMES - 14}" y="{y}">{escape(name)}</text>')
    return "".join(drawn)


def _dot(dot: Dot, scale: _Linear | _Logarithmic, y: float, number: int, *, hollow: bool) -> str:
    told = f"<title>{escape(dot.told)}: {_short(dot.value)}</title>"
    if math.isfinite(dot.value):
        return _mark(scale.at(dot.value), y, number, told, hollow=hollow)
    x = _NAMES + _WIDTH + 12
    path = f"M{x - 4} {y - 4}l8 8m0 -8l-8 8"
    return f'<path d="{path}" fill="none" stroke="#d55e00" stroke-width="2">{told}</path>'


def _mark(x: float, y: float, number: int, told: str = "", *, hollow: bool = False) -> str:
    paint = _paint(number, hollow=hollow)
    if number // len(_COLOURS) % 2:
        return f'<rect x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" {paint}>{told}</rect>'
    return f'<circle cx="{x:.1f}" cy="{y}" r="4.5" {paint}>{told}</circle>'


def _paint(number: int, *, hollow: bool = False) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    if hollow:
        return f'fill="none" stroke="{colour}" stroke-width="2"'
    return f'fill="{colour}" fill-opacity="0.8"'


def _legend(rows: int, entries: Iterable[tuple[str, int, bool]]) -> str:
    """Return what the colours mean, in two columns: a word, a colour, whether it is hollow."""
    drawn = []
    for place, (word, number, hollow) in enumerate(entries):
        x = _NAMES + (place % 2) * _WIDTH / 2
        y = _TOP + _ROW * rows + 24 + _LEGEND * (place // 2)
        drawn.append(_mark(x + 5, y, number, hollow=hollow))
        drawn.append(f'<text x="{x + 18}" y="{y + 4}">{escape(word)}</text>')
    return "".join(drawn)


def _svg(drawn: Sequence[str], rows: int, kinds: int) -> str:
    width = _NAMES + _WIDTH + 3 * _MARGIN
    height = _TOP + _ROW * rows + 24 + _LEGEND * math.ceil(kinds / 2) + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(drawn)}</svg>\n'
    )


def _short(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.3g}"
