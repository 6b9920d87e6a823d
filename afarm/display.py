"""What a farm shows while it works: a live display, or a plain line now and then.

The display knows nothing of a farm. It is given a callable that says how things are,
and it asks that callable on the event loop; drawing happens in a thread, because a
terminal that does not take what is written to it must not stop the loop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from .resources import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

Style = Literal["off", "live", "plain"]

# Four times a second a display looks alive and costs less than 1 % of a core.
LIVE_INTERVAL = 0.25
# A log that grows by six lines a minute can still be read the next morning.
PLAIN_INTERVAL = 10.0
# Over which the rate is averaged: long enough to be calm, short enough to be of now.
RATE_WINDOW = 10.0

_log = logging.getLogger("afarm")


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node, as the display shows it.

    Attributes:
        name: The node's name.
        state: In a word: ``"up"``, ``"connecting"``, ``"lost"``...
        running: Invocations running on it.
        cores_used: Cores allocated.
        cores: Cores it has; 0 while that is not known.
        memory_used: Bytes allocated.
        memory: Bytes it has; 0 while that is not known.
    """

    name: str
    state: str
    running: int = 0
    cores_used: float = 0.0
    cores: float = 0.0
    memory_used: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How a farm's work stands: invocations by state, and its nodes."""

    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    nodes: tuple[NodeProgress, ...] = ()

    @property
    def submitted(self) -> int:
        """Everything that was submitted so far."""
        return self.waiting + self.running + self.done + self.failed

    @property
    def ended(self) -> int:
        """Everything that is over, well or not."""
        return self.done + self.failed


class _Painter(Protocol):
    def start(self) -> None: ...
    def paint(self, progress: Progress, rate: float) -> None: ...
    def finish(self, progress: Progress, rate: float) -> None: ...


def choose_style(progress: bool | None, stream: TextIO) -> Style:
    """Return how to show progress on ``stream``.

    Args:
        progress: As in ``Farm(progress=)``: ``False`` for nothing.
        stream: Where it goes, usually standard error.

    Returns:
        ``"live"`` on a terminal or in a notebook where rich is installed, else ``"plain"``.
    """
    if progress is False:
        return "off"
    if not (stream.isatty() or _in_notebook()):
        return "plain"
    try:
        import rich.live  # noqa: F401
    except ImportError:
        return "plain"
    return "live"


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and hasattr(instance, "kernel")


class Rate:
    """Invocations per second over the last `RATE_WINDOW` seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, at: float, ended: int) -> float:
        """Take note that ``ended`` are over at time ``at``; return the rate."""
        self._seen.append((at, ended))
        while len(self._seen) > 2 and at - self._seen[0][0] > RATE_WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (ended - before) / (at - since) if at > since else 0.0


def describe_progress(progress: Progress, rate: float) -> str:
    """Return one line: ``120 of 400 done, 8 running, 3 failed, 2 of 3 nodes, 12.5/s``."""
    parts = [f"{progress.ended} of {progress.submitted} done", f"{progress.running} running"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    up = sum(node.state == "up" for node in progress.nodes)
    parts.append(f"{up} of {len(progress.nodes)} nodes up")
    parts.append(f"{rate:.1f}/s")
    return ", ".join(parts)


class Display:
    """Shows how a farm's work stands until it is stopped.

    Args:
        read: Says how it stands; called on the event loop, so it must be quick.
        progress: As in ``Farm(progress=)``. ``None`` and ``True`` choose the same display;
            with ``True`` a plain one also writes a first and a last line.
        stream: Where to; standard error as it is when the display starts.
    """

    def __init__(
        self,
        read: Callable[[], Progress],
        *,
        progress: bool | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._read = read
        self._progress = progress
        self._stream = stream
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to show. Needs a running loop; does nothing where nothing is to be shown."""
        stream = self._stream or sys.stderr
        # Some hosts (pythonw, daemons) have no standard error at all.
        if self._task is not None or stream is None or stream.closed:
            return
        style = choose_style(self._progress, stream)
        if style == "off":
            return
        painter = _Live(stream) if style == "live" else _Plain(stream, bool(self._progress))
        interval = LIVE_INTERVAL if style == "live" else PLAIN_INTERVAL
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._show(painter, interval), name="afarm-display")

    async def stop(self) -> None:
        """Show the last state and leave the terminal as it was."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        try:
            await task
        except (OSError, ValueError) as exc:
            # The stream is gone (a closed pipe or file): nobody looks any more.
            _log.info("the display ended early: %s", exc)

    async def _show(self, painter: _Painter, interval: float) -> None:
        rate = Rate()
        self._look(rate)  # where the rate counts from
        started = False
        # The first wait keeps a farm that is over in no time from flickering.
        while not await self._wait_stopping(interval):
            if not started:
                await asyncio.to_thread(painter.start)
                started = True
            await asyncio.to_thread(painter.paint, *self._look(rate))
        if started or self._progress:
            await asyncio.to_thread(painter.finish, *self._look(rate))

    def _look(self, rate: Rate) -> tuple[Progress, float]:
        progress = self._read()
        return progress, rate.update(time.monotonic(), progress.ended)

    async def _wait_stopping(self, seconds: float) -> bool:
        """Wait for the end of the display; return whether it came within ``seconds``."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


class _Plain:
    """Writes a line when something has changed."""

    def __init__(self, stream: TextIO, eager: bool) -> None:
        self._stream = stream
        self._last = "" if eager else describe_progress(Progress(), 0.0)

    def start(self) -> None:
        pass

    def paint(self, progress: Progress, rate: float) -> None:
        line = describe_progress(progress, rate)
        # The rate alone is no news.
        if line.rpartition(",")[0] == self._last.rpartition(",")[0]:
            return
        self._last = line
        self._stream.write(f"afarm: {line}\n")
        self._stream.flush()

    def finish(self, progress: Progress, rate: float) -> None:
        self.paint(progress, rate)


class _Live:
    """Draws a bar and a line for each node with rich."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        # What the program prints meanwhile goes above the display, but only where both
        # are seen: standard output that goes to a file stays there.
        self._live = Live(
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )

    def start(self) -> None:
        self._live.start()

    def paint(self, progress: Progress, rate: float) -> None:
        self._live.update(_drawing(progress, rate), refresh=True)

    def finish(self, progress: Progress, rate: float) -> None:
        self._live.stop()


# More nodes than fit on a screen are summed up in the first line.
_MOST_NODES = 12


def _drawing(progress: Progress, rate: float) -> RenderableType:
    """Return the live display: one bar of all calls, one of each node's cores."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_row(
        "calls",
        ProgressBar(total=max(progress.submitted, 1), completed=progress.ended, width=24),
        f"{progress.ended}/{progress.submitted}",
        f"{progress.running} running, {progress.failed} failed, {rate:.1f}/s",
    )
    for node in progress.nodes[:_MOST_NODES]:
        if node.cores:
            memory = f"{format_bytes(node.memory_used)} of {format_bytes(node.memory)}"
            bar = ProgressBar(total=node.cores, completed=node.cores_used, width=24)
            table.add_row(node.name, bar, f"{node.cores_used:g}/{node.cores:g} cores", memory)
        else:
            table.add_row(node.name, "", node.state, "")
    if len(progress.nodes) > _MOST_NODES:
        return Group(table, f"and {len(progress.nodes) - _MOST_NODES} more nodes")
    return table
