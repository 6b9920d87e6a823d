"""One invocation as the scheduler keeps it, and what of it people may look at."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ._core.events import Request
from ._monitor import curve, gpu_memory
from ._wire import messages as wire
from ._wire.payloads import Buffer
from .errors import SerializationError
from .output import OutputLog
from .payload import Arguments, Packed, PickledFunction, load
from .resources import Resources, Usage
from .software import NOTHING_ADDED, Added
from .tracing import Tracing

if TYPE_CHECKING:
    from .link import Link
    from .memo import Question
    from .software import Software

_AttemptRow = tuple[int, str, Resources, "Usage | None", str]

# Above this, unpickling a result takes longer than anybody else's turn of the loop should
# have to wait: it is done in a thread. 1 MiB of small objects take about 20 ms.
IN_THREAD = 256 << 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of an invocation.

    Attributes:
        number: From 1.
        node: The name of its node.
        allocation: What it might use.
        usage: What it used, where that was measured.
        outcome: ``"running"``, ``"returned"``, ``"raised"``, ``"exhausted memory"``,
            ``"crashed"``, ``"killed"``, ``"lost"`` ...
    """

    number: int
    node: str
    allocation: Resources
    usage: Usage | None = None
    outcome: str = "running"


@dataclass(slots=True)
class StreamState:
    """The items of a stream on this side.

    Attributes:
        items: Arrived and not yet handed out.
        arrived: How many have arrived over all attempts; items of a second attempt that the
            caller has had from the first are passed over.
        taken: Handed out since the node was last told that there is room.
        waiter: Who waits for the next.
        consumer: The task that takes them: the one that asked for the last.
    """

    items: deque[Sequence[Buffer]] = field(default_factory=deque)
    arrived: int = 0
    taken: int = 0
    waiter: asyncio.Future[None] | None = None
    consumer: asyncio.Task[Any] | None = None

    def wake(self) -> None:
        """Let the caller look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Unopened:
    """A result that was only passed on as bytes, until somebody here asks for it."""

    __slots__ = ("_error", "_loaded", "_lock", "parts", "value")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = parts
        self.value: Any = None
        self._lock = threading.Lock()  # large ones are opened in threads
        self._loaded = False
        self._error: SerializationError | None = None

    @property
    def size(self) -> int:
        """Bytes of the pickle and its buffers."""
        return sum(map(len, self.parts))

    def open(self, invocation: object) -> Any:
        """Return the result, unpickled once.

        Raises:
            SerializationError: If it cannot be unpickled here.
        """
        with self._lock:
            if not self._loaded:
                self._load(invocation)
        if self._error is not None:
            raise self._error
        return self.value

    def _load(self, invocation: object) -> None:
        self._loaded = True
        try:
            self.value = load(self.parts)
        except Exception as exc:  # whatever a __setstate__ of the user's raises
            self._error = SerializationError(
                f"the result of {invocation!r} cannot be unpickled here: {exc!r}",
                part="result",
            )
            self._error.__cause__ = exc


@dataclass(slots=True, eq=False)
class Target:
    """A function as one view of the farm calls it: what all of its invocations share.

    Attributes:
        function: Returns what is called, while somebody else holds it.
        held: The function itself until its environment has been found out.
        category: Of its invocations.
        proto: What the core needs to know, but for the environment.
        request: The same with the environment, once that has been found out.
        software: The environment, once that has been found out.
        settings: JSON for the worker.
        retry_on: Exceptions after which an invocation is tried again.
        added: What the user wants to be taken along with the function.
        code: A digest of the function's code; empty where no record is kept.
        told: What the user stated, in words; empty where no record is kept.
        environment: A digest of the software, once a call was looked for in a record.
        parameters: The names of the function's positional parameters.
        trace: Whether the user wants its processes traced, if anything was stated.
        tracing: What is known of its category's processes.
    """

    function: Callable[[], Callable[..., Any] | None]
    held: Callable[..., Any] | None
    category: str
    proto: Request
    settings: str
    retry_on: tuple[type[BaseException], ...]
    code: str = ""
    added: Added = NOTHING_ADDED
    told: str = ""
    environment: str = ""
    parameters: tuple[str, ...] = ()
    trace: bool | None = None
    tracing: Tracing = field(default_factory=Tracing)
    request: Request | None = None
    software: Software | None = None


class Call:
    """What the scheduler knows of one invocation, until it is complete and after.

    Attributes:
        id: Its number in the farm; also the subject of its messages.
        target: What its function's invocations share.
        function: The function as it was when this was submitted.
        arguments: Its pickled arguments; released when it is complete.
        future: The caller's `Invocation`; ``None`` once it is resolved.
        state: ``"waiting"``, ``"staging"``, ``"running"`` or ``"done"``.
        attempt: The number of the last attempt.
        attempts: (number, node, allocation, usage, outcome) of each.
        link: The connection of the last attempt.
        entered: Whether the core knows it.
        passed: Results of earlier invocations among its arguments.
        takers: Calls that wait for this one's result as bytes.
        ended: The last attempt's end and its payload.
        error: What is to be raised instead of what the end itself says.
        stream: Its items, if it is a stream.
        memo: Whether it was made before, if that is asked.
        features: What its arguments tell of its needs, if the sizer wants to know.
        awaited: What the sizes of earlier results among its arguments are called as features,
            and their places among its arguments' invocations.
        sized_by: The feature that its memory was last predicted from, and its value.
        details: What of its usage few have, until its end comes.
    """

    __slots__ = (
        "arguments",
        "attempt",
        "attempts",
        "awaited",
        "details",
        "ended",
        "entered",
        "error",
        "features",
        "function",
        "future",
        "id",
        "link",
        "memo",
        "output",
        "passed",
        "sized_by",
        "state",
        "stream",
        "takers",
        "target",
        "usage",
    )

    def __init__(
        self, id: int, target: Target, function: PickledFunction | None, arguments: Arguments
    ) -> None:
        self.id = id
        self.target = target
        self.function = function
        self.arguments: Arguments | None = arguments
        self.future: asyncio.Future[Any] | None = None
        self.state = "waiting"
        self.attempt = 0
        self.attempts: tuple[_AttemptRow, ...] = ()
        self.usage: Usage | None = None
        self.output: OutputLog | None = None
        self.link: Link | None = None
        self.entered = False
        self.passed: list[Packed] | None = None
        self.takers: list[asyncio.Future[Packed]] | None = None
        self.ended: tuple[wire.Ended, list[Buffer]] | None = None
        self.error: BaseException | None = None
        self.stream: StreamState | None = None
        self.memo: Question | None = None
        self.features: Mapping[str, float] | None = None
        self.awaited: tuple[tuple[str, int], ...] = ()
        self.sized_by: tuple[str, float] | None = None
        self.details: Usage | None = None

    @property
    def category(self) -> str:
        """The category it belongs to."""
        return self.target.category

    @property
    def stated(self) -> Resources:
        """What the user stated of its needs."""
        return self.target.proto.stated

    def take_sizes(self) -> None:
        """Count among its features how large the earlier results are that it was given."""
        if self.awaited and self.passed:
            sizes = {name: float(self.passed[place].size) for name, place in self.awaited}
            self.features = {**(self.features or {}), **sizes}

    def begin(
        self,
        attempt: int,
        node: str,
        allocation: Resources,
        predicted_by: Callable[[str], str | None],
    ) -> None:
        """Note that an attempt was given to a node.

        Args:
            attempt, node, allocation: Of it.
            predicted_by: Tells which feature predictions for a category follow from now.
        """
        self.attempt = attempt
        self.details = None
        if self.features:
            self.sized_by = self.follows(predicted_by(self.category))
        self.attempts = (*self.attempts, (attempt, node, allocation, None, "running"))

    def follows(self, feature: str | None) -> tuple[str, float] | None:
        """Return the feature with the value of this call, if its memory is predicted from it."""
        if feature is None or self.stated.memory is not None or not self.features:
            return None
        value = self.features.get(feature)
        return None if value is None else (feature, value)

    def resize(self, allocation: Resources) -> None:
        """Note that the running attempt has another allocation by now."""
        *earlier, (number, node, _, usage, outcome) = self.attempts
        self.attempts = (*earlier, (number, node, allocation, usage, outcome))

    def take_back(self, attempt: int) -> None:
        """Note that an attempt did not start on the node it was given to."""
        if self.attempts and self.attempts[-1][0] == attempt:
            self.attempts = self.attempts[:-1]

    def note_details(self, details: wire.Details) -> None:
        """Note what the running attempt used that does not lie in a `Usage` on the wire.

        Raises:
            ValueError: If it cannot be understood.
        """
        known = self.details or Usage()
        self.details = replace(
            known,
            curve=curve.unpack(details.body) or known.curve,
            gpu_memory=gpu_memory.unpack(details.gpu_memory) or known.gpu_memory,
        )

    def end(self, usage: Usage | None, outcome: str) -> None:
        """Note how the running attempt ended."""
        if usage is not None:
            if usage.processes > 1:
                self.target.tracing.observe(usage)
            if (known := self.details) is not None:
                usage = replace(usage, curve=known.curve, gpu_memory=known.gpu_memory)
                self.details = None
            self.usage = usage
        if self.attempts:
            number, node, allocation, _, _ = self.attempts[-1]
            self.attempts = (*self.attempts[:-1], (number, node, allocation, usage, outcome))

    @property
    def node(self) -> str | None:
        """The name of the node of its last attempt."""
        return self.attempts[-1][1] if self.attempts else None

    def print(self, data: bytes, dropped: int = 0) -> None:
        """Note what it printed."""
        if self.output is None:
            self.output = OutputLog()
        self.output.add(data, dropped)
