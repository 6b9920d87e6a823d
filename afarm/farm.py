"""`Farm`: what the user holds. Checks what it is given and hands it on to the scheduler."""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import types
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from . import explanation, views
from . import sizing as sizers
from .call import IN_THREAD, StreamState
from .errors import NodeError
from .explanation import Explanation
from .invocation import Invocation, Ref
from .iteration import Mapping as MapInProgress
from .iteration import Stream
from .laid import Files
from .life import Life
from .options import CallOptions, check_isolation, check_options, check_retries
from .payload.arguments import dump
from .sizing import Sizer
from .submission import Submission
from .tally import Stats
from .transport.hosts import NodeSpec, expand
from .views import NodeInfo

T = TypeVar("T")


class Farm:
    """Machines as one pool for Python functions.

    Args:
        nodes: What to run on: strings (``"local"``, ``"[user@]host[:port]"``, a file of
            them) and node objects, mixed. ``None``: this machine.
        sizing: How an invocation whose needs were not stated is sized: ``"auto"``,
            ``"whole-node"``, ``"unmanaged"``, or any `Sizer`.
        isolation: ``"fork"``: a clean process for each invocation; ``"reuse"``: a warm process
            serves many; ``"auto"``: fresh ones until a category has shown that its calls
            are so short that starting processes would dominate.
        retries: How often an invocation is tried again after a fault that is not its own.
        record: A file that keeps every invocation, its attempts and usage, and the sizes
            learned, with which a later run begins; see `afarm.record`.
        progress: Whether to show how it stands on standard error; ``None``: where that is
            a terminal or a notebook.
        show_output: Whether what functions print appears here, each line with its origin.
        silence: Seconds without a sign of life from here after which a node ends what it
            runs although the connection is open.

    Raises:
        ValueError, TypeError: If an argument makes no sense; says which.
    """

    def __init__(
        self,
        nodes: NodeSpec | Iterable[NodeSpec] | None = None,
        *,
        sizing: str | Sizer = "auto",
        isolation: str = "auto",
        retries: int = 3,
        record: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        show_output: bool = False,
        silence: float = 300,
    ) -> None:
        if not silence > 0:
            raise ValueError(f"silence is a time above 0 seconds, not {silence!r}")
        sizer = sizers.sizer_named(sizing) if isinstance(sizing, str) else sizing
        if not callable(getattr(sizer, "allocate", None)):
            raise TypeError(f"sizing is the name of a sizer, or has the methods of one: {sizing!r}")
        self._life = Life(expand(nodes), sizer, progress, record)
        self._show_output = show_output
        self._silence = silence
        self._options = CallOptions(
            isolation=check_isolation(isolation), retries=check_retries(retries), priority=0.0
        )
        self._submission = Submission(self._life, self._options)

    def __repr__(self) -> str:
        names = ", ".join(node.name for node in self._life.nodes[:4])
        more = "" if len(self._life.nodes) <= 4 else f" and {len(self._life.nodes) - 4} more"
        return f"<Farm of {names}{more}, {self._life.phase}>"

    # --- life

    async def open(self) -> Self:
        """Open the nodes; return when the first is up. The rest join when they are ready.

        Raises:
            NoNodesError: If none could be opened; one line for each says why.
            RecordError: If the record cannot be used.
            RuntimeError: If the farm was opened before.
        """
        await self._life.open(silence=self._silence, show_output=self._show_output)
        return self

    async def close(self, cancel: bool = False) -> None:
        """Wait for what was submitted, then end everything on the nodes.

        Args:
            cancel: Cancel what is not over instead of waiting for it.

        If this wait is itself cancelled, everything is cancelled, and it still waits for
        the process trees to be gone; cancelled again, it leaves that to the nodes. Called
        while the farm closes, it waits for the same end.
        """
        await self._life.close(cancel=cancel)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        await self._life.close(
            cancel=error is not None, interrupted=isinstance(error, asyncio.CancelledError)
        )

    # --- calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Invocation[Any]:
        """Call a function on the farm; return its `Invocation` at once.

        Arguments are taken as they are now; only buffers above 1 MB are not copied and must
        not be changed until the invocation is done. Coroutine functions may be submitted.

        Raises:
            RuntimeError: If the farm is not open, or this is not its loop. Every other
                error arrives through the invocation.
        """
        return self._submission.call(fn, args, kwargs)[1]

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = True,
        window: int | None = None,
        return_exceptions: bool = False,
    ) -> AsyncIterator[T]:
        """Call a function for each item, or for each tuple of items of several iterables.

        Args:
            fn: What to call.
            iterables: Also endless ones, and async iterables. The shortest ends it.
            ordered: Whether results come in the order of the inputs, or as they are ready.
            window: How many inputs are pulled and not yet handed out as results; default a few
                times the farm's slots.
            return_exceptions: Whether an exception is handed out in the place of its result.

        Yields:
            The results. An exception ends the iteration at its place and cancels what is
            outstanding, as leaving the loop does.
        """
        self._life.running()
        if not iterables:
            raise TypeError("map() takes a function and at least one iterable")
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        return MapInProgress(
            functools.partial(self.submit, fn),
            iterables,
            ordered=ordered,
            window=window,
            return_exceptions=return_exceptions,
            slots=self._slots,
        ).results()

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Call a generator or async generator function; yield its items while it runs.

        A node sends a few items ahead of what the caller has taken. If its node is lost the
        function runs again, and the items that the caller has had are passed over.
        """
        call, invocation = self._submission.call(fn, args, kwargs, stream=True)
        if call.stream is None:  # refused
            call.stream = StreamState()
        return Stream(self._life.running(), call, invocation)

    def options(
        self,
        *,
        category: str | None = None,
        cores: float | None = None,
        memory: int | str | None = None,
        disk: int | str | None = None,
        gpus: int | None = None,
        wall_time: float | None = None,
        cpu_time: float | None = None,
        processes: int | None = None,
        retries: int | None = None,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | None = None,
        isolation: str | None = None,
        node: str | None = None,
        priority: float | None = None,
        env: Mapping[str, str] | None = None,
        memo: bool | None = None,
        cwd: str | os.PathLike[str] | None = None,
        packages: Sequence[str] | None = None,
        modules: Sequence[str | types.ModuleType] | None = None,
        files: Files | None = None,
        trace: bool | None = None,
    ) -> Farm:
        """Return a view of this farm with these settings for its calls. Views nest.

        Args:
            category: Whose invocations are sized alike; default: one for each function.
            cores: CPU cores; fractions allowed.
            memory: Bytes, or ``"1.5 GiB"``; of the whole process tree. A stated limit is hard.
            disk: Bytes in the scratch directory.
            gpus: Whole GPUs: the call sees its own, and no others, by ``CUDA_VISIBLE_DEVICES``. On
                a node that has GPUs a call that states none sees none, so that it does not
                take one from those that do (Ray does the same); ``env=`` can show it some.
            wall_time: Seconds from start to end.
            cpu_time: Seconds of CPU of the whole process tree.
            processes: Processes alive at once.
            retries: See `Farm`; 0: at most once.
            retry_on: Exceptions of the function after which it is tried again.
            isolation: See `Farm`.
            node: The name of the only node to run on.
            priority: Higher ones start first.
            env: Environment variables.
            memo: Whether a call that was made before, by this farm or an earlier one with the
                same record, is not made again: one of the same function, with the same
                arguments, packages and own modules. Only for functions whose result depends on
                nothing else. Items of streams are not kept.
            cwd: The working directory, instead of an empty one that is removed afterwards.
            packages: Installed distributions to take along though nothing seen imports them:
                plug-ins, extras: ``"pandas[parquet]"``.
            modules: Modules to take along, the user's own too.
            files: Paths, or paths by name, of files and folders that each call finds in its
                directory, to be read. Each node is sent a file once, and again when it has
                changed.
            trace: Whether the processes that a call starts are traced (ptrace), so that each
                one's peak is known exactly however short it lives. Meanwhile no debugger can
                attach to them, and setuid programs run without their rights. Default: for
                the first calls of a category that start processes.

        Raises:
            ValueError, TypeError: If a setting makes no sense; says which.
        """
        stated = check_options(
            category=category,
            cores=cores,
            memory=memory,
            disk=disk,
            gpus=gpus,
            wall_time=wall_time,
            cpu_time=cpu_time,
            processes=processes,
            retries=retries,
            retry_on=retry_on,
            isolation=isolation,
            node=node,
            priority=priority,
            env=env,
            memo=memo,
            cwd=cwd,
            packages=packages,
            modules=modules,
            files=files,
            trace=trace,
        )
        if memo and self._life.recording is None:
            raise ValueError(
                "memo=True keeps results in the farm's record, and this farm has none: "
                "Farm(record='farm.db')"
            )
        view = copy.copy(self)
        view._options = self._options.under(stated)
        view._submission = Submission(self._life, view._options)
        return view

    # --- objects

    def put(self, obj: T) -> Ref[T]:
        """Return a `Ref` of an object that each node that needs it is sent once.

        It lives until the Ref is collected or the farm closes.

        Raises:
            SerializationError: If it cannot be pickled.
        """
        scheduler = self._life.running()
        ref: Ref[T] = Ref(next(scheduler.numbers), dump(obj), scheduler)
        weakref.finalize(ref, scheduler.forget_soon, ref.blob).atexit = False
        return ref

    async def get(self, ref: Ref[T]) -> T:
        """Return the object of a `Ref`.

        Raises:
            TypeError: If it is none.
        """
        self._life.running()
        if not isinstance(ref, Ref):
            raise TypeError(f"get() takes what put() returned, not {ref!r}")
        if ref.packed.size > IN_THREAD:
            return await asyncio.to_thread(ref._load)
        return ref._load()

    # --- nodes

    async def add_node(self, spec: NodeSpec) -> None:
        """Add a node and wait until it is up.

        Raises:
            NodeError: If it cannot be opened; the farm then goes on without it.
            ValueError: If the farm has a node of that name.
        """
        scheduler = self._life.running()
        found = expand(spec)
        if len(found) != 1:
            raise ValueError(f"{spec!r} names {len(found)} nodes: add them one by one")
        [node] = found
        if node.name in scheduler.specs:
            raise ValueError(f"the farm has a node {node.name!r}; give this one another name=")
        reason = await scheduler.add_node(node)
        if reason is not None:
            await scheduler.remove_node(node.name, drain=False)
            raise NodeError(reason, node=node.name)
        self._life.nodes.append(node)

    async def remove_node(self, name: str, drain: bool = True) -> None:
        """Remove a node.

        Args:
            name: Its name.
            drain: Let what runs there end; else it is run again elsewhere, at no cost to its
                retries.

        Raises:
            ValueError: If there is no such node.
        """
        scheduler = self._life.running()
        if name not in scheduler.specs:
            known = ", ".join(scheduler.specs) or "none"
            raise ValueError(f"the farm has no node {name!r}; its nodes: {known}")
        await scheduler.remove_node(name, drain=drain)
        self._life.nodes = [node for node in self._life.nodes if node.name != name]

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        """The nodes as they are now."""
        scheduler = self._life.scheduler
        return views.nodes(scheduler) if scheduler is not None else ()

    def stats(self) -> Stats:
        """Return how the work stands: counts by state, throughput, utilisation, efficiency."""
        scheduler = self._life.scheduler
        return views.stats(scheduler) if scheduler is not None else Stats()

    def explain(self, invocation: Invocation[Any]) -> Explanation:
        """Return why an invocation waits, or where it went and why; ``print`` shows it.

        Raises:
            TypeError: If it is no invocation.
            ValueError: If it belongs to another farm.
        """
        if not isinstance(invocation, Invocation):
            raise TypeError(f"explain() takes what submit() returned, not {invocation!r}")
        scheduler = self._life.scheduler
        if scheduler is None or invocation._scheduler is not scheduler:
            raise ValueError(f"{invocation!r} belongs to another farm")
        return explanation.explain(scheduler, invocation._call)

    def write_report(self, path: str | os.PathLike[str]) -> None:
        """Write a page (HTML) on what this farm has done: needs nothing else to be looked at.

        Works while the farm is open and after it is closed. It reads the record, 20 us for each
        call: in a program that must not wait, ``await asyncio.to_thread(farm.write_report, path)``.

        Raises:
            ValueError: If the farm keeps no record, or was not opened.
            OSError: If the page cannot be written.
        """
        recording = self._life.recording
        if recording is None or not recording.run:
            raise ValueError(
                "a report is made from the farm's record: Farm(record='farm.db'), once it is open"
            )
        from . import report

        recording.wait_written()
        report.write(recording.path, path, run=recording.run)

    def _slots(self) -> int:
        scheduler = self._life.scheduler
        return views.slots(scheduler) if scheduler is not None else 1
