"""`Farm`: what the user holds. Checks what it is given and hands it on to the scheduler."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import os
import types
import weakref
from asyncio import _get_running_loop
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import explanation, views
from . import sizing as sizers
from ._core.request import Request
from ._core.sizers.base import features_wanted
from .call import IN_THREAD, Call, StreamState, Target
from .display import Display
from .errors import FarmError, NodeError, NoNodesError, SerializationError
from .explanation import Explanation
from .invocation import Invocation, Ref
from .iteration import STREAM_AHEAD, Stream
from .iteration import Mapping as MapInProgress
from .laid import Files, LaidFiles
from .options import CallOptions, check_isolation, check_options, check_retries
from .payload import (
    Arguments,
    category_of,
    dump_arguments,
    features_of,
    parameters,
    sizes_of_results,
)
from .payload.arguments import NO_NEEDS, dump
from .payload.content import code_digest
from .payload.needs import Need
from .scheduler import Scheduler
from .sizing import Sizer
from .software import Added
from .tally import Stats
from .tracing import Tracings
from .transport.hosts import NodeSpec, expand
from .views import NodeInfo

if TYPE_CHECKING:
    from .memo import Question
    from .recording import Recording

T = TypeVar("T")

log = logging.getLogger("afarm")

# Of the needs of a function's arguments, so many are analysed ahead. Where they are of new
# code each time, what they import is left to the nodes' import hook.
MOST_NEEDS = 1000


class _Life:
    """What all views of one farm share."""

    def __init__(
        self,
        nodes: list[Any],
        sizer: Sizer,
        progress: bool | None,
        record: str | os.PathLike[str] | None,
    ) -> None:
        self.nodes = nodes
        self.sizer = sizer
        self.wants_features = features_wanted(sizer)
        self.tracings = Tracings()
        self.recording: Recording | None = None
        if record is not None:
            # Who keeps no record need not wait for a database to be imported.
            from .recording import Recording

            self.recording = Recording(record, sizer)
        self.progress = progress
        self.phase = "new"  # new, opening, open, closing, closed
        self.closed: asyncio.Future[None] | None = None  # what a second `close` waits for
        self.loop: asyncio.AbstractEventLoop | None = None
        self.scheduler: Scheduler | None = None
        self.display: Display | None = None

    def misuse(self) -> RuntimeError:
        """Return the error for a call that cannot be taken now, or here."""
        if self.phase in ("closing", "closed"):
            return RuntimeError("this farm is closed: make a new Farm")
        if self.phase != "open":
            return RuntimeError(
                "this farm is not open: use it inside 'async with Farm(...) as farm:' or call "
                "'await farm.open()' first"
            )
        return RuntimeError(
            "a farm is used on the event loop that opened it, and this is another thread or "
            "loop: from synchronous code use afarm.Executor"
        )


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
        self._life = _Life(expand(nodes), sizer, progress, record)
        self._show_output = show_output
        self._silence = silence
        self._options = CallOptions(
            isolation=check_isolation(isolation), retries=check_retries(retries), priority=0.0
        )
        self._targets: dict[tuple[int, bool], Target] = {}
        self._laid: LaidFiles | None = None

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
        life = self._life
        if life.phase != "new":
            raise RuntimeError("a farm is opened once: make a new Farm")
        life.phase = "opening"
        life.loop = asyncio.get_running_loop()
        if life.recording is not None:
            try:
                await life.recording.open()
            except BaseException:
                life.phase = "closed"
                raise
        life.scheduler = Scheduler(
            life.sizer,
            silence=self._silence,
            show_output=self._show_output,
            recorder=life.recording,
        )
        try:
            tries = [life.scheduler.add_node(node) for node in life.nodes]
            await self._wait_first_node(tries)
        except BaseException:
            life.phase = "closed"
            await life.scheduler.close()
            if life.recording is not None:
                await life.recording.close()
            raise
        life.phase = "open"
        if life.recording is not None:
            life.recording.follow(life.scheduler)
        life.display = Display(
            functools.partial(views.progress, life.scheduler), progress=life.progress
        )
        life.display.start()
        return self

    async def _wait_first_node(self, tries: Sequence[asyncio.Future[str | None]]) -> None:
        """Return when one try succeeded; raise when all have failed."""
        waiting: set[asyncio.Future[str | None]] = set(tries)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(one.result() is None for one in done):
                return
        reasons = {
            node.name: str(one.result()) for node, one in zip(self._life.nodes, tries, strict=True)
        }
        lines = "\n".join(f"  {reason}" for reason in reasons.values())
        raise NoNodesError(f"no node could be opened:\n{lines}", reasons=reasons)

    async def close(self, cancel: bool = False) -> None:
        """Wait for what was submitted, then end everything on the nodes.

        Args:
            cancel: Cancel what is not over instead of waiting for it.

        If this wait is itself cancelled, everything is cancelled, and it still waits for
        the process trees to be gone; cancelled again, it leaves that to the nodes. Called
        while the farm closes, it waits for the same end.
        """
        await self._close(cancel=cancel)

    async def _close(self, *, cancel: bool, interrupted: bool = False) -> None:
        life = self._life
        scheduler = life.scheduler
        if life.phase == "new":
            life.phase = "closed"
        if scheduler is None or life.phase not in ("open", "closing"):
            return
        if cancel:
            scheduler.cancel_all()
        if life.closed is not None:
            await asyncio.shield(life.closed)
            return
        life.phase = "closing"
        life.closed = asyncio.get_running_loop().create_future()
        try:
            await self._end(scheduler, interrupted)
        finally:
            if life.recording is not None:
                await life.recording.close()
            life.phase = "closed"
            life.closed.set_result(None)
            if life.display is not None:
                await life.display.stop()
            scheduler.tell_unseen()

    @staticmethod
    async def _end(scheduler: Scheduler, interrupted: bool) -> None:
        """Wait until nothing runs, then close the connections.

        Args:
            scheduler: Of this farm.
            interrupted: Whether this is already the answer to a cancellation, as to a
                first Ctrl-C: at the next one it does not wait any more.
        """
        # Of these nobody will take another item, and their nodes would wait for that.
        scheduler.cancel_streams_of(asyncio.current_task())
        scheduler.give_up_without_nodes()
        hurry = True
        try:
            try:
                await scheduler.wait_idle()
            except asyncio.CancelledError:
                scheduler.cancel_all()
                if not interrupted:
                    await scheduler.wait_idle()
                    hurry = False
                raise
            hurry = False
        finally:
            await scheduler.close(hurry=hurry)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        await self._close(
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
        return self._submit(fn, args, kwargs)[1]

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        arguments: Arguments | None = None,
        features: Mapping[str, float] | None = None,
        stream: bool = False,
    ) -> tuple[Call, Invocation[Any]]:
        scheduler = self._scheduler()
        called = (args, kwargs) if arguments is None else None
        problem = self._look_at_files(scheduler) if self._options.files else None
        target = self._targets.get((id(fn), stream))
        if target is None or target.function() is not fn:
            target = self._new_target(fn, stream)
        try:
            if problem is not None:
                raise problem
            pickled = scheduler.functions.pickle(fn)
            if arguments is None:
                arguments = dump_arguments(args, kwargs)
            if arguments.refs:
                _check_refs(arguments.refs, scheduler)
            if self._laid is not None:
                for file in self._laid:
                    arguments.add_ref(file)
            known = target.added.carried
            if arguments.needs and not arguments.needs <= known and len(known) < MOST_NEEDS:
                target = self._new_target(fn, stream, known | arguments.needs)
        except FarmError as exc:
            call = Call(next(scheduler.numbers), target, None, Arguments())
            invocation: Invocation[Any] = Invocation(call, scheduler)
            scheduler.refuse(call, exc)
            return call, invocation
        call = Call(next(scheduler.numbers), target, pickled, arguments)
        if called is not None and self._wants_features(target.category, *called):
            call.features = features_of(target.parameters, args, kwargs)
            if arguments.invocations:
                call.awaited = sizes_of_results(
                    target.parameters, args, kwargs, arguments.invocations
                )
        else:
            call.features = features
        if stream:
            call.stream = StreamState()
        elif self._options.memo:
            call.memo = self._ask(fn, called, call)
        invocation = Invocation(call, scheduler)
        scheduler.submit(call)
        return call, invocation

    def _wants_features(
        self, category: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        """Return whether what the arguments tell is of use: where memory is stated it is not."""
        return (
            bool(args or kwargs)
            and self._options.stated.memory is None
            and self._life.wants_features(category)
        )

    def _features(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Mapping[str, float] | None:
        """Return what the arguments of a call tell, if that is of use; from any thread."""
        category = self._options.category or category_of(fn)
        if not self._wants_features(category, args, kwargs):
            return None
        return features_of(parameters(fn), args, kwargs)

    def _look_at_files(self, scheduler: Scheduler) -> FarmError | None:
        """Note what the files of this view are now; return what is wrong with one."""
        if self._laid is None:
            self._laid = LaidFiles(self._options.files or {}, scheduler)
        try:
            if self._laid.refresh():
                self._targets.clear()  # they name the blobs of the files
        except FarmError as exc:
            return exc
        return None

    def _ask(
        self,
        fn: Callable[..., Any],
        called: tuple[tuple[Any, ...], Mapping[str, Any]] | None,
        call: Call,
    ) -> Question:
        """Return the question whether a call was made before."""
        from .memo import ask

        assert call.function is not None
        assert call.arguments is not None
        question = ask(
            fn,
            called,
            pickled=call.function,
            arguments=call.arguments,
            settings=self._options.settings(None),
        )
        if self._laid is not None:
            for name, file in zip(self._laid.blobs(), self._laid, strict=True):
                question.content.add(name)
                question.content.refer(file)
        return question

    def _scheduler(self) -> Scheduler:
        """Return the scheduler if calls can be taken now and here."""
        life = self._life
        if life.phase != "open" or _get_running_loop() is not life.loop:
            raise life.misuse()
        assert life.scheduler is not None
        return life.scheduler

    def _new_target(
        self, fn: Callable[..., Any], stream: bool, carried: frozenset[Need] = NO_NEEDS
    ) -> Target:
        """Return how a function is to be called in this view.

        Args:
            fn: The function.
            stream: Whether it is a generator whose items are wanted.
            carried: What its arguments have needed so far.
        """
        if not callable(fn):
            raise TypeError(f"submit() takes a function and its arguments, not {fn!r}")
        options = self._options
        category = options.category or category_of(fn)
        code = told = ""
        recording = self._life.recording
        if recording is not None:
            code = code_digest(fn)
            told = explanation.describe_stated(options.stated)
            recording.prime(category, code)
        key = (id(fn), stream)
        function: Callable[[], Callable[..., Any] | None]
        try:
            function = weakref.ref(fn, lambda _: self._targets.pop(key, None))
        except TypeError:
            function = lambda: fn  # noqa: E731
        target = Target(
            function=function,
            held=fn,
            category=category,
            proto=Request(
                category=category,
                stated=options.stated,
                isolation=options.isolation or "auto",
                retries=3 if options.retries is None else options.retries,
                priority=options.priority or 0.0,
                node=options.node,
            ),
            settings=options.settings(
                STREAM_AHEAD if stream else None, self._laid.blobs() if self._laid else None
            ),
            retry_on=options.retry_on or (),
            added=options.added.also(Added(carried=carried)),
            code=code,
            told=told,
            parameters=parameters(fn),
            trace=options.trace,
            tracing=self._life.tracings.of(category),
        )
        if isinstance(function, weakref.ref) and not isinstance(fn, types.MethodType):
            self._targets[key] = target
        return target

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
        self._scheduler()
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
        call, invocation = self._submit(fn, args, kwargs, stream=True)
        if call.stream is None:  # refused
            call.stream = StreamState()
        return Stream(self._scheduler(), call, invocation)

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
        view._targets = {}
        view._laid = None
        return view

    # --- objects

    def put(self, obj: T) -> Ref[T]:
        """Return a `Ref` of an object that each node that needs it is sent once.

        It lives until the Ref is collected or the farm closes.

        Raises:
            SerializationError: If it cannot be pickled.
        """
        scheduler = self._scheduler()
        ref: Ref[T] = Ref(next(scheduler.numbers), dump(obj), scheduler)
        weakref.finalize(ref, scheduler.forget_soon, ref.blob).atexit = False
        return ref

    async def get(self, ref: Ref[T]) -> T:
        """Return the object of a `Ref`.

        Raises:
            TypeError: If it is none.
        """
        self._scheduler()
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
        scheduler = self._scheduler()
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
        scheduler = self._scheduler()
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


def _check_refs(refs: Iterable[Ref[Any]], scheduler: Scheduler) -> None:
    """Refuse objects of another farm: nodes know them by number."""
    for ref in refs:
        if ref.owner is not scheduler:
            raise SerializationError(
                f"{ref!r} is an object of another farm: put() it into this one too",
                part="arguments",
            )
