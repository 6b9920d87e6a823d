"""A call whose results are the items of a generator, sent while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from .._wire.messages import Item, More, decode, encode
from .._wire.payloads import INLINE, pack_layout
from .inbox import Inbox
from .results import dump_result
from .values import Disconnected


class UnpicklableItem(Exception):
    """An item cannot be sent; the cause says why, the text which."""


class Stream:
    """Sends items as far as the caller takes them.

    Args:
        invocation: Whose items they are.
        attempt: Which attempt of it.
        credit: How many may be sent before the caller asks for more.
        inbox: The socket to the agent.
    """

    def __init__(self, invocation: int, attempt: int, credit: int, inbox: Inbox) -> None:
        self._invocation = invocation
        self._attempt = attempt
        self._credit = credit
        self._inbox = inbox
        self._index = 0

    def send_all(self, value: Any) -> Any:
        """Send every item of what the function returned; return the generator's own result.

        Raises:
            TypeError: If it is nothing that can be iterated over.
            Disconnected: If the agent goes away.
            Exception: Whatever the generator raises.
        """
        if hasattr(value, "__await__") and not hasattr(value, "__aiter__"):
            import asyncio

            value = asyncio.run(_result_of(value))
        if hasattr(value, "__aiter__"):
            import asyncio

            return asyncio.run(self._send_async(value))
        return self._send_items(value)

    def _send_items(self, items: Iterable[Any]) -> Any:
        iterator = iter(items)
        while True:
            # Before an item is asked for, not before it is sent: a generator that nobody
            # reads does not work ahead.
            self._wait_for_credit()
            try:
                item = next(iterator)
            except StopIteration as end:
                return end.value
            self._send(item)

    async def _send_async(self, items: AsyncIterator[Any]) -> None:
        async for item in items:
            self._wait_for_credit()
            self._send(item)

    def _wait_for_credit(self) -> None:
        while self._credit <= 0:
            with self._inbox.turn():
                frame = self._inbox.receive_kind(More.kind)
            if frame is None:
                raise Disconnected
            message = decode(frame)
            assert isinstance(message, More)
            if (message.invocation, message.attempt) == (self._invocation, self._attempt):
                self._credit += message.items

    def _send(self, value: object) -> None:
        try:
            payload = dump_result(value)
        except Exception as exc:  # whatever a __reduce__ of the user's raises
            raise UnpicklableItem(
                f"item {self._index}, of type {type(value).__qualname__}"
            ) from exc
        inline = payload.size <= INLINE
        item = Item(
            self._invocation, self._attempt, self._index, payload.size,
            pack_layout([payload.lengths]), b"".join(payload.parts) if inline else b"",
        )  # fmt: skip
        with self._inbox.turn():
            self._inbox.send(encode(item))
            if not inline:
                self._inbox.send_bulk(self._invocation, payload.parts)
        self._index += 1
        self._credit -= 1


async def _result_of(awaitable: Any) -> Any:
    return await awaitable
