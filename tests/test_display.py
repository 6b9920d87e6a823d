"""The display, judged without a farm."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest

from afarm import display
from afarm.display import Display, NodeProgress, Progress, Rate, choose_style, describe_progress

UP = NodeProgress("lab1", "up", 2, 2.0, 4.0, 1 << 30, 4 << 30)
LOST = NodeProgress("lab2", "lost")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let displays draw every few milliseconds."""
    monkeypatch.setattr(display, "LIVE_INTERVAL", 0.005)
    monkeypatch.setattr(display, "PLAIN_INTERVAL", 0.005)


async def wait_for_text(stream: io.StringIO, text: str) -> None:
    async with asyncio.timeout(10):
        while text not in stream.getvalue():
            await asyncio.sleep(0.002)


def test_a_terminal_gets_a_live_display_and_a_file_gets_lines() -> None:
    assert choose_style(None, Terminal()) == "live"
    assert choose_style(True, Terminal()) == "live"
    assert choose_style(None, io.StringIO()) == "plain"
    assert choose_style(False, Terminal()) == "off"


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert choose_style(None, Terminal()) == "plain"


def test_a_line_says_how_much_is_done_and_what_failed() -> None:
    progress = Progress(waiting=5, running=2, done=8, failed=1, nodes=(UP, LOST))
    line = describe_progress(progress, 12.34)
    assert line == "9 of 16 done, 2 running, 1 failed, 1 of 2 nodes up, 12.3/s"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.update(0.0, 0) == 0.0
    assert rate.update(10.0, 100) == pytest.approx(10.0)
    for second in range(11, 40):
        slow = rate.update(float(second), 100 + second - 10)
    assert slow == pytest.approx(1.0)


@pytest.mark.usefixtures("quick")
async def test_a_plain_display_writes_a_line_only_when_something_changed() -> None:
    stream = io.StringIO()
    now = Progress(waiting=3, running=1, nodes=(UP,))
    asked = 0

    def read() -> Progress:
        nonlocal asked
        asked += 1
        return now

    shown = Display(read, stream=stream)
    shown.start()
    await wait_for_text(stream, "0 of 4 done")
    before = asked
    async with asyncio.timeout(10):
        while asked < before + 5:
            await asyncio.sleep(0.002)
    assert stream.getvalue().count("\n") == 1
    now = Progress(done=4, nodes=(UP,))
    await shown.stop()
    assert "4 of 4 done" in stream.getvalue().splitlines()[-1]


async def test_a_farm_that_is_over_at_once_writes_nothing() -> None:
    stream = io.StringIO()
    shown = Display(lambda: Progress(done=1), stream=stream)
    shown.start()
    await shown.stop()
    assert stream.getvalue() == ""


async def test_who_asked_for_progress_gets_a_last_line_even_then() -> None:
    stream = io.StringIO()
    shown = Display(lambda: Progress(done=1), progress=True, stream=stream)
    shown.start()
    await shown.stop()
    assert "1 of 1 done" in stream.getvalue()


@pytest.mark.usefixtures("quick")
async def test_a_live_display_shows_nodes_and_gives_the_cursor_back() -> None:
    stream = Terminal()
    shown = Display(lambda: Progress(running=1, done=2, nodes=(UP, LOST)), stream=stream)
    shown.start()
    await wait_for_text(stream, "lab2")
    await shown.stop()
    drawn = stream.getvalue()
    assert "2/3" in drawn
    assert "1.0 GiB of 4.0 GiB" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.index("\x1b[?25l")


@pytest.mark.usefixtures("quick")
async def test_a_stream_that_is_gone_ends_the_display_and_nothing_else() -> None:
    stream = io.StringIO()
    shown = Display(lambda: Progress(done=1), progress=True, stream=stream)
    shown.start()
    await wait_for_text(stream, "1 of 1 done")
    stream.close()
    await shown.stop()


async def test_a_display_that_is_off_asks_nothing() -> None:
    def read() -> Progress:
        raise AssertionError("asked although nothing is shown")

    shown = Display(read, progress=False, stream=Terminal())
    shown.start()
    await shown.stop()
