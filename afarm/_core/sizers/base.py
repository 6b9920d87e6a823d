"""What a sizer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from ...resources import Resources, Usage

# What the sizers here remember categories for. Beyond it the oldest is forgotten: names
# may be made up for each call.
MOST_CATEGORIES = 4096


class Sizer(Protocol):
    """Chooses what an invocation may use where its user stated nothing. Pure: no clock, no I/O.

    The core lays what is stated over the answer, and clamps what is predicted to the
    largest node. What a category gets is asked again after each observation of it, and
    kept until then.

    A sizer that ignores features says so with an attribute ``uses_features = False``:
    then all invocations of a category wait in one queue, whatever their arguments are. One
    that need not tell close values apart says which are close with a method
    ``similar(category, features)``, which returns something hashable, ``None`` without features:
    calls for which it is equal wait in one queue, and are sized for the features of one of them.
    Where the answer depends on what was learned, ``telling(category)`` returns what of it, mostly
    the name of a feature: when that changes, those who wait are put into queues anew. Where
    features are of no use any more it says so with ``wants_features(category)``, asked for each
    call, and with ``predicted_by(category)`` which one its predictions follow from, for people.
    """

    def allocate(
        self,
        category: str,
        features: Mapping[str, float],
        *,
        attempt: int,
        previous: Resources | None,
        largest: Resources,
        running: Usage | None = None,
    ) -> Resources:
        """Return what the next attempt may use; ``None`` in a field: not limited.

        Args:
            category: Whose kind it is.
            features: Numbers known of its arguments; ``stated.cores`` where its user
                stated cores.
            attempt: How many tries exhausted their allocation before.
            previous: The allocation that did not do, or ``None`` at first. Only the
                resource that ran out will follow the answer; the others stay.
            largest: The capacity of the largest node that could hold it.
            running: Its usage so far, when the question is about one that runs.
        """

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Take what an attempt used; with ``exhausted``, what it used at least."""


@runtime_checkable
class Remembering(Protocol):
    """What a sizer has besides if its knowledge is to outlive a run, in the farm's record."""

    def dump(self, categories: Iterable[str] | None = None) -> Mapping[str, object]:
        """Return what it knows of these categories, or of all; each value is plain JSON."""

    def load(self, state: Mapping[str, object], *, trust: float = 1.0) -> None:
        """Take what `dump` returned in an earlier run, or a part of it.

        What was observed since stays. Values are what JSON makes of them, and may be of an
        older version of the sizer: what it cannot read it leaves out.

        Args:
            state: By category.
            trust: 1 where the functions' code is what it was; less where it has changed,
                so that what was learned counts as so much less evidence.
        """


def features_wanted(sizer: Sizer) -> Callable[[str], bool]:
    """Return what tells whether features of a category's next call are worth finding out."""
    wants: Callable[[str], bool] | None = getattr(sizer, "wants_features", None)
    if wants is not None:
        return wants
    used = bool(getattr(sizer, "uses_features", True))
    return lambda category: used


def make_room(name: str, *known: dict[str, Any]) -> None:
    """Forget the oldest category where a new one would be one too many.

    Args:
        name: The category that comes.
        known: What is known by category; the first has them all, in the order they came.
    """
    if name not in known[0] and len(known[0]) >= MOST_CATEGORIES:
        oldest = next(iter(known[0]))
        for each in known:
            each.pop(oldest, None)


def sizer_named(name: str) -> Sizer:
    """Return a new sizer for ``Farm(sizing=name)``.

    Raises:
        ValueError: If there is none of that name; the message names those there are.
    """
    from .auto import AutoSizer
    from .baselines import Unmanaged, WholeNode

    made: dict[str, Callable[[], Sizer]] = {
        "auto": AutoSizer,
        "whole-node": WholeNode,
        "unmanaged": Unmanaged,
    }
    if name not in made:
        raise ValueError(f"sizing is one of {', '.join(map(repr, made))} or a Sizer, not {name!r}")
    return made[name]()
