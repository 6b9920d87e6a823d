"""What is asked of the farm: a `Request`, shared by all calls made in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from ..resources import Resources

# A feature added where the user stated cores: a call with more threads usually needs
# more of the rest.
STATED_CORES = "stated.cores"

ISOLATIONS = frozenset({"fork", "reuse", "auto"})
_UNSTATED = Resources()
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Profile:
    """What invocations have in common that may wait in one queue and run in one group."""

    category: str
    environment: int
    isolation: str
    stated: Resources
    node: str | None
    priority: float
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Profiles are dictionary keys on the path of every call, and hashing the
        # resources anew costs a microsecond.
        key = (
            self.category,
            self.environment,
            self.isolation,
            self.stated,
            self.node,
            self.priority,
        )
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """How an invocation is to be run.

    All calls of one function through one options view share an object, but for those of whose
    arguments something is known; it is compared by identity.

    Attributes:
        category: Invocations of one category are expected to need alike.
        stated: What the user stated; hard, never changed by a prediction.
        features: What is known of the arguments, for sizers.
        environment: The software it needs; nodes that have it are preferred.
        isolation: ``"fork"``, ``"reuse"`` or ``"auto"``.
        retries: How often it is tried again after a fault that is not its own;
            0 means that it runs at most once.
        priority: Higher ones start first.
        node: The only node it may run on, if not ``None``.
        profile: What of this decides with whom it waits and runs.
    """

    category: str
    stated: Resources = _UNSTATED
    features: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    environment: int = 0
    isolation: str = "auto"
    retries: int = 3
    priority: float = 0.0
    node: str | None = None
    profile: Profile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.isolation not in ISOLATIONS:
            raise ValueError(f"isolation is one of {sorted(ISOLATIONS)}, not {self.isolation!r}")
        if self.retries < 0:
            raise ValueError(f"retries cannot be {self.retries}")
        features = MappingProxyType(dict(self.features)) if self.features else _NOTHING
        profile = Profile(
            self.category, self.environment, self.isolation, self.stated, self.node, self.priority
        )
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "profile", profile)

    def with_features(self, features: Mapping[str, float]) -> Request:
        """Return the same for a call of whose arguments this is known; it is not copied.

        A call has its own, so nothing is checked or worked out anew: 1 us instead of 8.
        """
        made = object.__new__(Request)
        for name in _COPIED:
            object.__setattr__(made, name, getattr(self, name))
        object.__setattr__(made, "features", features)
        return made

    @property
    def features_key(self) -> tuple[tuple[str, float], ...]:
        """The features, to be compared."""
        return tuple(sorted(self.features.items()))

    @property
    def sizing_features(self) -> Mapping[str, float]:
        """The features, and the cores that are stated."""
        cores = self.stated.cores
        return self.features if cores is None else {**self.features, STATED_CORES: cores}


_COPIED = tuple(each.name for each in fields(Request) if each.name != "features")
