"""From a function and its arguments to a call, as the options of one view say."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import explanation
from ._core.request import Request
from .call import Call, StreamState, Target
from .errors import FarmError, SerializationError
from .invocation import Invocation, Ref
from .iteration import STREAM_AHEAD
from .laid import LaidFiles
from .life import Life
from .options import CallOptions
from .payload import (
    Arguments,
    category_of,
    dump_arguments,
    features_of,
    parameters,
    sizes_of_results,
)
from .payload.arguments import NO_NEEDS
from .payload.content import code_digest
from .payload.needs import Need
from .scheduler import Scheduler
from .software import Added

if TYPE_CHECKING:
    from .memo import Question

# Of the needs of a function's arguments, so many are analysed ahead. Where they are of new
# code each time, what they import is left to the nodes' import hook.
MOST_NEEDS = 1000


class Submission:
    """Makes the calls of one view of a farm.

    Args:
        life: The farm's.
        options: The view's.
    """

    def __init__(self, life: Life, options: CallOptions) -> None:
        self._life = life
        self._options = options
        self._targets: dict[tuple[int, bool], Target] = {}
        self._laid: LaidFiles | None = None

    def call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        arguments: Arguments | None = None,
        features: Mapping[str, float] | None = None,
        stream: bool = False,
    ) -> tuple[Call, Invocation[Any]]:
        """Submit one call.

        Args:
            fn: What to call.
            args: What with, unless ``arguments`` has it pickled.
            kwargs: Likewise.
            arguments: What was pickled elsewhere.
            features: What those arguments tell, if that is of use.
            stream: Whether ``fn`` is a generator whose items are wanted.

        Raises:
            RuntimeError: If the farm is not open, or this is not its loop.
            TypeError: If there is nothing to call.
        """
        scheduler = self._life.running()
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

    def features(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Mapping[str, float] | None:
        """Return what the arguments of a call tell, if that is of use; from any thread."""
        category = self._options.category or category_of(fn)
        if not self._wants_features(category, args, kwargs):
            return None
        return features_of(parameters(fn), args, kwargs)

    def _wants_features(
        self, category: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        """Return whether what the arguments tell is of use: where memory is stated it is not."""
        return (
            bool(args or kwargs)
            and self._options.stated.memory is None
            and self._life.wants_features(category)
        )

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


def _check_refs(refs: Iterable[Ref[Any]], scheduler: Scheduler) -> None:
    """Refuse objects of another farm: nodes know them by number."""
    for ref in refs:
        if ref.owner is not scheduler:
            raise SerializationError(
                f"{ref!r} is an object of another farm: put() it into this one too",
                part="arguments",
            )
