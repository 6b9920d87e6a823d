"""The page of a report: one file that needs nothing else, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from string import Template

from ..resources import format_bytes
from ..words import count, duration, percent
from .charts import area_chart, histogram
from .rows import CategoryRow, FailureRow, FeatureRow, LossRow, NodeLine, ReportData
from .style import STYLE

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$heading</h1>
<p class="facts">$facts</p>
</header>
<main>
$tiles
$sections
</main>
<footer>Made by afarm $version from its record. Memory is the peak of each call's own process
tree.</footer>
</body>
</html>
""")


def render(data: ReportData) -> str:
    """Return the page."""
    run = data.run
    began = datetime.fromtimestamp(run.began, UTC)
    state = "" if run.closed else " · open when this was written, or killed"
    sections = [
        _nodes(data.nodes, run.seconds),
        _categories(data.categories),
        _failures(data.failures),
        _losses(data.losses),
    ]
    return _PAGE.substitute(
        title=escape(f"afarm: run {run.run} of {began:%Y-%m-%d %H:%M}"),
        style=STYLE,
        heading=escape(f"Run {run.run}" + (f" of {data.runs}" if data.runs > 1 else "")),
        facts=escape(
            f"{began:%Y-%m-%d %H:%M:%S} UTC · {duration(run.seconds)}{state} · {run.program or '-'}"
            f" on {run.host} · Python {run.python} · sizes by {run.sizer}"
        ),
        tiles=_tiles(data),
        sections="\n".join(section for section in sections if section),
        version=escape(run.afarm),
    )


# --- parts


def _tiles(data: ReportData) -> str:
    run = data.run
    done = run.returned + run.recalled
    retried = max(0, data.attempts - sum(row.calls for row in data.categories))
    tiles = [
        ("calls done", f"{done:,}", f"{run.recalled:,} from the record" if run.recalled else ""),
        ("failed", f"{run.failed:,}", "bad" if run.failed else ""),
        ("a second", f"{done / run.seconds:,.1f}" if run.seconds else "-", "calls, on average"),
        ("CPU time", duration(data.cpu), ""),
        (
            "memory used of allocated",
            "-" if data.efficiency is None else percent(data.efficiency),
            "as peaks, weighted by time",
        ),
        (
            "lost in failed tries",
            duration(data.lost_time),
            f"{count(retried, 'retry', 'retries')}, {count(run.evictions, 'eviction')}",
        ),
    ]
    if run.cancelled:
        tiles.insert(2, ("cancelled", f"{run.cancelled:,}", ""))
    if not run.closed:
        tiles.append(("not over", f"{run.waiting + run.running:,}", f"{run.running:,} running"))
    if run.unrecorded:
        tiles.append(("not recorded", f"{run.unrecorded:,}", "the disk could not follow"))
    shown = "".join(
        f'<div class="tile{" bad" if note == "bad" else ""}"><b>{escape(value)}</b>'
        f"<span>{escape(name)}</span>"
        + (f"<small>{escape(note)}</small>" if note and note != "bad" else "")
        + "</div>"
        for name, value, note in tiles
    )
    return f'<section class="tiles">{shown}</section>'


def _nodes(nodes: Sequence[NodeLine], seconds: float) -> str:
    if not nodes:
        return ""
    rows = []
    for node in nodes:
        has = "never up"
        if node.cores:
            has = f"{count(node.cores, 'core')}, {format_bytes(node.memory)}"
        rows.append(
            f'<div class="node"><div class="name"><b>{escape(node.name)}</b>'
            f"<small>{escape(has)}<br>{count(node.attempts, 'attempt')}</small></div>"
            f"{_chart('cores', node.cores_allocated, node.cores_used)}"
            f"{_chart('memory', node.memory_allocated, node.memory_used)}</div>"
        )
    legend = (
        '<p class="legend"><span class="key allocated"></span>allocated'
        '<span class="key used"></span>used (of memory: peaks added up)'
        '<span class="key full"></span>all that the node has</p>'
    )
    return (
        f"<section><h2>Nodes over time</h2>{legend}{''.join(rows)}"
        f'<div class="node axis"><div></div>{_axis(seconds)}{_axis(seconds)}</div></section>'
    )


def _axis(seconds: float) -> str:
    return f"<div class='ends'><span>0 s</span><span>{escape(duration(seconds))}</span></div>"


def _chart(what: str, allocated: Sequence[float], used: Sequence[float]) -> str:
    told = f"{what}: {_mean(allocated)} allocated, {_mean(used)} used on average"
    return f"<figure>{area_chart(told, allocated, used)}<figcaption>{told}</figcaption></figure>"


def _mean(shares: Sequence[float]) -> str:
    return percent(sum(shares) / len(shares)) if shares else "nothing"


_NAME = 60  # characters of a feature's name

_CATEGORY_HEADS = (
    "category",
    "calls",
    "failed",
    "retries",
    "wall time",
    "median",
    "longest",
    "CPU",
    "memory, median",
    "peak",
    "allocated, median",
    "used of it",
    "memory by",
    "peaks of the attempts",
)


def _categories(rows: Sequence[CategoryRow]) -> str:
    if not rows:
        return "<section><h2>Categories</h2><p>No call has ended.</p></section>"
    body = [
        (
            escape(row.name),
            f"{row.calls:,}",
            f"{row.outcomes['failed']:,}" if row.outcomes["failed"] else "",
            f"{max(0, row.attempts - row.calls + row.outcomes['recalled']):,}",
            duration(row.wall_total),
            duration(row.wall_median),
            duration(row.wall_max),
            duration(row.cpu),
            format_bytes(row.memory_median),
            format_bytes(row.memory_max),
            "-" if row.allocated_median is None else format_bytes(row.allocated_median),
            "-" if row.efficiency is None else percent(row.efficiency),
            _sized_by(row.sized_by),
            _distribution(row),
        )
        for row in rows
    ]
    note = (
        "<p>In the last column each bar is a step of memory, from nothing to the largest, and the "
        "line the median allocation.</p>"
    )
    table = _table(_CATEGORY_HEADS, body, text=(0, 12))
    return f"<section><h2>Categories</h2>{table}{note}</section>"


def _sized_by(feature: FeatureRow | None) -> str:
    """Return what of the arguments sizes follow from: ``size(table): 2.0 MiB to 3.1 GiB``."""
    if feature is None:
        return ""
    name = feature.name if len(feature.name) <= _NAME else feature.name[: _NAME - 1] + "…"
    show = format_bytes if name.startswith("size(") else "{:.6g}".format
    least, most = show(feature.least), show(feature.most)
    values = least if least == most else f"{least} to {most}"
    return f"{escape(name)}<br><small>{values}, {count(feature.calls, 'call')}</small>"


def _distribution(row: CategoryRow) -> str:
    mark = None
    if row.allocated_median is not None and row.scale:
        mark = row.allocated_median / row.scale
    label = f"peaks of {count(row.attempts, 'attempt')} from 0 to {format_bytes(row.scale)}"
    return histogram(label, row.histogram, mark)


def _failures(rows: Sequence[FailureRow]) -> str:
    if not rows:
        return ""
    body = [
        (escape(row.category), f"{row.calls:,}", f"{row.first}", _reason(row.error)) for row in rows
    ]
    heads = ("category", "calls", "first", "why")
    return f"<section><h2>Failures</h2>{_table(heads, body, text=(0, 3))}</section>"


def _reason(error: str) -> str:
    head, _, rest = error.partition("\n")
    if not rest.strip():
        return escape(head)
    return f"<details><summary>{escape(head)}</summary><pre>{escape(rest)}</pre></details>"


def _losses(rows: Sequence[LossRow]) -> str:
    if not rows:
        return ""
    body = [
        (escape(row.outcome), escape(row.node), f"{row.attempts:,}", duration(row.seconds))
        for row in rows
    ]
    heads = ("how it ended", "node", "attempts", "time lost")
    return (
        "<section><h2>Attempts that did not return</h2>"
        f"{_table(heads, body, text=(0, 1))}</section>"
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)
) -> str:
    """Return a table; cells are HTML, heads are text; ``text`` columns stand to the left."""
    kinds = [' class="text"' if at in text else "" for at in range(len(heads))]
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, heads, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
