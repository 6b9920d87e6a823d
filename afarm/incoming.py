"""Results and items on their way in from one node, until the last byte of each is here.

Sans-IO: what arrives is handed in, what is complete is handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from ._wire import flow
from ._wire import messages as wire
from ._wire.frames import Fragment
from ._wire.payloads import Buffer, Gather, slices, unpack_layout
from .errors import RemoteProtocolError

Announced: TypeAlias = wire.Ended | wire.Item

# Ends after which nothing more comes of the items before them.
_CUT_SHORT = frozenset({wire.Outcome.KILLED, wire.Outcome.CRASHED, wire.Outcome.EXHAUSTED})

# A payload that a node announces is not believed beyond this: no machine that runs a
# farm holds it, and a hostile length must not take memory.
PAYLOAD_LIMIT = 1 << 40


class _Payload:
    """A payload on its way in, and the message that announced it."""

    __slots__ = ("gather", "message", "unrenewed")

    def __init__(self, message: Announced) -> None:
        self.message = message
        self.gather = Gather(unpack_layout(message.layout, message.size))
        self.unrenewed = 0


class Incoming:
    """The payloads of all attempts on one node.

    Args:
        arrived: Is given each message with the parts of its payload when that is complete, those
            of one invocation in their order.
        handed_on: Is told of an end whose result is still on its way, but whose lane another
            attempt has taken over.
        credit: Is told of which subject how many bytes were consumed.
    """

    def __init__(
        self,
        arrived: Callable[[Announced, list[Buffer]], None],
        handed_on: Callable[[wire.Ended], None],
        credit: Callable[[int, int], None],
    ) -> None:
        self._arrived = arrived
        self._handed_on = handed_on
        self._credit = credit
        self._waiting: dict[int, deque[_Payload]] = {}  # by invocation

    def __bool__(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._waiting)

    def __contains__(self, invocation: int) -> bool:
        """Whether something of an invocation is on its way."""
        return invocation in self._waiting

    def announce(self, message: Announced) -> None:
        """Take a message with a payload: hand it on, or wait until that has arrived.

        Raises:
            RemoteProtocolError: If its size cannot be true.
        """
        if message.size > PAYLOAD_LIMIT or message.size < 0:
            raise RemoteProtocolError(f"a payload of {message.size} bytes")
        invocation = message.invocation
        queue = self._waiting.get(invocation)
        if message.size == len(message.body) and not queue:
            self._arrived(message, _parts_in(message))
            return
        if isinstance(message, wire.Ended):
            if message.outcome in _CUT_SHORT:  # what was on its way before it will not come
                self._waiting.pop(invocation, None)
                if queue:
                    self.announce(message)
                else:
                    self._arrived(message, [])
                return
            if message.next:
                # Its successor may end before the last byte of this result is here.
                self._handed_on(message)
                message = replace(message, next=0)
        payload = _Payload(message)
        if message.body:
            payload.gather.feed(message.body)
        if queue is None:
            queue = self._waiting[invocation] = deque()
        queue.append(payload)

    def feed(self, fragment: Fragment) -> None:
        """Take bytes of the payload that comes next for an invocation."""
        queue = self._waiting.get(fragment.subject)
        if queue is None:
            return  # of an attempt that was given up
        payload = queue[0]
        payload.gather.feed(fragment.data)
        payload.unrenewed += len(fragment.data)
        if payload.gather.complete:
            self._finish(fragment.subject, queue)
        elif payload.unrenewed >= flow.CREDIT_STEP:
            self._credit(fragment.subject, payload.unrenewed)
            payload.unrenewed = 0

    def _finish(self, invocation: int, queue: deque[_Payload]) -> None:
        while queue and queue[0].gather.complete:
            done = queue.popleft()
            if done.unrenewed and isinstance(done.message, wire.Item):
                self._credit(invocation, done.unrenewed)
            self._arrived(done.message, list(done.gather.groups[0]))
        if not queue:
            self._waiting.pop(invocation, None)

    def drop(self, invocation: int) -> None:
        """Forget what is on its way for an invocation: its attempt was given up."""
        self._waiting.pop(invocation, None)

    def give_up(self, invocation: int) -> wire.Ended | None:
        """Forget what will not come; return the end whose result that was, if it was one."""
        ends = [each.message for each in self._waiting.pop(invocation)]
        return next((end for end in ends if isinstance(end, wire.Ended)), None)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()


def _parts_in(message: Announced) -> list[Buffer]:
    """Return the parts of a payload that came with its message."""
    if not message.layout:
        return [message.body]
    groups = slices(message.body, unpack_layout(message.layout, message.size))
    # Arrays that are made of these must be writable, like those of large results.
    return [groups[0][0], *(bytearray(part) for part in groups[0][1:])]
