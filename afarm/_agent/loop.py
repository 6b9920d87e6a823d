"""The agent's event loop: descriptors that are ready, channels to be flushed, timers."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

from .channel import Channel

Callback = Callable[[], None]


class Loop:
    """Calls back when a descriptor can be read, or when it is time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Callback]] = []
        self._count = itertools.count()
        self._dirty: dict[Channel, None] = {}
        self.now = time.monotonic()

    def read(self, descriptor: int, callback: Callback) -> None:
        """Call back whenever a descriptor can be read."""
        self._readers[descriptor] = callback
        self._update(descriptor)

    def pause(self, descriptor: int) -> None:
        """Do not call back for reading until `read` is called again."""
        if self._readers.pop(descriptor, None) is not None:
            self._update(descriptor)

    def write(self, descriptor: int, callback: Callback | None) -> None:
        """Call back whenever a descriptor can be written; ``None``: no more."""
        if callback is None:
            if self._writers.pop(descriptor, None) is None:
                return
        else:
            self._writers[descriptor] = callback
        self._update(descriptor)

    def forget(self, descriptor: int) -> None:
        """Forget a descriptor that is about to be closed."""
        self._readers.pop(descriptor, None)
        self._writers.pop(descriptor, None)
        self._update(descriptor)

    def _update(self, descriptor: int) -> None:
        events = (selectors.EVENT_READ if descriptor in self._readers else 0) | (
            selectors.EVENT_WRITE if descriptor in self._writers else 0
        )
        known = self._selector.get_map().get(descriptor)
        if not events:
            if known is not None:
                self._selector.unregister(descriptor)
        elif known is None:
            self._selector.register(descriptor, events)
        elif known.events != events:
            self._selector.modify(descriptor, events)

    def later(self, seconds: float, callback: Callback) -> None:
        """Call back once, after so many seconds."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._count), callback))

    def touch(self, channel: Channel) -> None:
        """See to it that what was queued on a channel is written at the end of this turn."""
        self._dirty[channel] = None

    def turn(self) -> None:
        """Wait for something to happen, and call back for all of it."""
        timeout = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        ready = self._selector.select(timeout)
        self.now = time.monotonic()
        for key, events in ready:
            if events & selectors.EVENT_READ and (reader := self._readers.get(key.fd)):
                reader()
            if events & selectors.EVENT_WRITE and (writer := self._writers.get(key.fd)):
                writer()
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        self.flush()

    def flush(self) -> None:
        """Write what was queued on channels; go on with the rest when they have room."""
        dirty, self._dirty = self._dirty, {}
        for channel in dirty:
            self._flush(channel)

    def _flush(self, channel: Channel) -> None:
        if channel.closed:
            return
        done = channel.flush()
        self.write(channel.sock.fileno(), None if done else lambda: self._flush(channel))
        if channel.drained is not None:
            channel.drained()
