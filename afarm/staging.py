"""What there must be before a call can start on a node, each sent once, and its start."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._core import actions as do
from ._core import events as event
from ._wire import messages as wire
from ._wire.payloads import INLINE, Buffer, pack_layout
from .call import Call, Target
from .errors import InvocationError
from .link import Link
from .payload import PickledFunction
from .resources import format_bytes
from .software import Software, SoftwareLibrary

if TYPE_CHECKING:
    from .environments import Bundle, Environment

log = logging.getLogger("afarm")

# Functions that nothing waits for are kept on the nodes up to this number: a loop that
# submits a new lambda each time must not fill them.
IDLE_FUNCTIONS = 256

# What a call makes travel beyond this is told as a warning: it waits for it.
_LARGE = 256 << 20


@dataclass(slots=True)
class _FunctionBlob:
    id: int
    pickled: PickledFunction
    calls: int = 0


class Staging:
    """Knows the blobs of one farm and brings them to the nodes.

    Args:
        library: What software each function needs.
        numbers: Where the numbers of blobs come from.
    """

    def __init__(self, library: SoftwareLibrary, numbers: itertools.count[int]) -> None:
        self._library = library
        self._numbers = numbers
        self._functions: OrderedDict[str, _FunctionBlob] = OrderedDict()
        self._bundles: dict[str, tuple[int, Bundle]] = {}
        self._bundle_of: dict[int, Bundle] = {}
        self._shipped: dict[int, Software] = {}

    def hold(self, function: PickledFunction) -> None:
        """Note that a call needs a function."""
        blob = self._functions.get(function.digest)
        if blob is None:
            blob = _FunctionBlob(next(self._numbers), function)
            self._functions[function.digest] = blob
        blob.calls += 1

    def release(self, function: PickledFunction, links: dict[str, Link]) -> None:
        """Note that a call needs a function no more."""
        blob = self._functions[function.digest]
        blob.calls -= 1
        if blob.calls or len(self._functions) <= IDLE_FUNCTIONS:
            return
        for digest, idle in self._functions.items():
            if not idle.calls:
                del self._functions[digest]
                for link in links.values():
                    link.forget(idle.id)
                return

    async def analyze(self, target: Target, *, ship: bool) -> event.Request:
        """Find out what a function needs, and return what the core must know of its calls.

        Args:
            target: The function; its environment is noted there.
            ship: Whether a node may lack it.

        Raises:
            DependencyError: If something it imports cannot be found.
        """
        function = target.held
        assert function is not None
        software = await self._library.find(function, ship=ship, added=target.added)
        if target.request is None:  # or another of its calls was faster
            target.software = software
            target.request = replace(target.proto, environment=software.id)
            target.held = None
        return target.request

    def ready(self, call: Call, link: Link) -> bool:
        """Whether all that the node may lack can be sent at once."""
        software = call.target.software
        assert software is not None
        return link.node.in_place or software.id in link.known

    async def prepare(self, call: Call, link: Link) -> None:
        """Find out and pack what the node may lack.

        Raises:
            DependencyError: If something the function imports cannot be found or packed.
        """
        software = call.target.software
        assert software is not None
        environment = await self._library.ship(software)
        self._shipped[software.id] = software
        self._describe(link, software.id, environment)

    def _describe(self, link: Link, id: int, environment: Environment) -> None:
        """Tell a node what an environment is made of, once."""
        if id in link.known:
            return
        link.known.add(id)
        numbers = {}
        for bundle in environment.bundles:
            if bundle.digest not in self._bundles:
                number = next(self._numbers)
                self._bundles[bundle.digest] = (number, bundle)
                self._bundle_of[number] = bundle
            numbers[bundle.digest] = self._bundles[bundle.digest][0]
        link.send(wire.Environment(id, environment.describe(numbers)))

    async def supply(self, link: Link, missing: wire.Missing, call: Call | None) -> None:
        """Answer a node on which a call misses a module, and take it along from then on.

        Args:
            link: The connection to the node.
            missing: The question.
            call: The call, if it is not over meanwhile.
        """
        software = self._shipped.get(missing.environment)
        supply = None
        try:
            if software is not None:
                supply = await self._library.supply(software, missing.name)
        finally:
            # Whatever happens: the call would wait for ever.
            provider = supply.id if supply is not None else 0
            link.send(wire.Module(missing.environment, provider, missing.name))
        if supply is None:
            return
        self._describe(link, supply.id, supply.environment)
        if call is not None:
            _tell(call, link, missing.name, supply.brought)
            function = call.target.function()
            if function is not None:
                await asyncio.to_thread(_remember, function, missing.name)

    def start(self, call: Call, link: Link, action: do.Start, *, soft: bool) -> None:
        """Queue what the node lacks, then the call itself.

        Args:
            call: The call.
            link: The connection to the node.
            action: What the core has decided.
            soft: Whether its memory is a prediction that it may outgrow.
        """
        arguments = call.arguments
        assert arguments is not None
        assert call.target.software is not None
        call.state = "running"
        self._send_lacking(call, link)
        pieces: Sequence[Buffer] = arguments.pieces
        groups = [arguments.lengths]
        if call.passed:
            pieces = [*pieces, *(piece for packed in call.passed for piece in packed.pieces)]
            groups += [packed.lengths for packed in call.passed]
        size = sum(map(sum, groups))
        inline = size <= INLINE
        target = call.target
        link.send(
            wire.Run(
                call.id,
                action.attempt,
                action.group,
                action.queued,
                soft,
                wire.Isolation.REUSE if action.reuse else wire.Isolation.FORK,
                call.target.software.id,
                self._function_blob(call),
                action.allocation,
                size,
                pack_layout(groups),
                _ref_blobs(call),
                target.tracing.settings(target.settings, target.trace),
                b"".join(pieces) if inline else b"",
            )
        )
        if not inline:
            link.send_bulk(call.id, pieces)

    def _send_lacking(self, call: Call, link: Link) -> None:
        software = call.target.software
        function = call.function
        assert software is not None
        assert function is not None
        known = link.known
        if software.id not in known:
            known.add(software.id)
            link.send(wire.Environment(software.id, software.in_place.describe({})))
        blob = self._functions[function.digest]
        if blob.id not in known:
            data = blob.pickled.data
            message = wire.Blob(blob.id, len(data), "", "function", call.category)
            link.send_blob(message, (data,))
        if call.arguments is not None and call.arguments.refs:
            for ref in call.arguments.refs:
                if ref.blob not in known:
                    pieces = ref.pieces()
                    size = sum(memoryview(piece).nbytes for piece in pieces)
                    link.send_blob(wire.Blob(ref.blob, size, "", "object", ""), pieces)

    def _function_blob(self, call: Call) -> int:
        assert call.function is not None
        return self._functions[call.function.digest].id

    def blob_state(self, link: Link, state: wire.Stored | wire.Lost) -> None:
        """Send a bundle that the node says it lacks."""
        bundle = self._bundle_of.get(state.blob)
        if bundle is None or isinstance(state, wire.Stored):
            if bundle is None and isinstance(state, wire.Lost):
                # An object or function: the next call that needs it brings it again.
                link.known.discard(state.blob)
            return
        if state.reason != "absent":  # its environment's state says what that means
            log.warning("%s could not keep %s: %s", link.node.name, bundle.name, state.reason)
            return
        link.send_bundle(state.blob, bundle)


def _tell(call: Call, link: Link, module: str, brought: Sequence[Bundle]) -> None:
    """Say what a call makes travel that nobody could foresee."""
    size = sum(bundle.size for bundle in brought)
    what = ", ".join(bundle.name for bundle in brought) or "what an earlier call missed"
    log.log(
        logging.WARNING if size > _LARGE else logging.INFO,
        "%s imports %s, as only running it could tell: node %s gets %s (%s). It travels with "
        "that function from its next analysis on",
        call.category, module, link.node.name, what, format_bytes(size),
    )  # fmt: skip


def _remember(function: Callable[..., Any], module: str) -> None:
    from .environments import remember

    remember(function, module)


async def take_arguments(call: Call) -> None:
    """Wait for the results of earlier invocations among a call's arguments; take their bytes.

    Raises:
        InvocationError: If one of them has none.
    """
    assert call.arguments is not None
    passed = []
    for earlier in call.arguments.invocations:
        try:
            passed.append(await earlier._packed())
        except Exception as exc:
            raise InvocationError(
                f"{call.category} was not run: its argument, the result of "
                f"{earlier.category}, is not to be had: {type(exc).__name__}: {exc}"
            ) from exc
    call.passed = passed or None


def _ref_blobs(call: Call) -> bytes:
    """Return the numbers of the objects that a call's arguments refer to."""
    if call.arguments is None or not call.arguments.refs:
        return b""
    numbers = list(dict.fromkeys(ref.blob for ref in call.arguments.refs))
    return struct.pack(f"<{len(numbers)}Q", *numbers)
