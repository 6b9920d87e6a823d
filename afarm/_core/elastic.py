"""Allocations of running calls that grow and shrink, and who has to go when room runs out.

Three ways of packing a node's memory:

- *hard*: what an attempt was given at its start is set aside for it until it ends;
- *elastic*: that grows where its node has room, and shrinks when newer evidence says so; the
  cores too that a call is charged with are soon those that it keeps busy;
- *live*: a node is charged with what its calls use now, and a part of what they are still
  predicted to grow, since peaks do not coincide: a call's running maximum averages 47 to 66 %
  of its peak (measured over 20 traces). The part follows how it went: less and less while all
  goes well, half of what was gained is given up with each eviction.

What the user stated is hard in all of them. Cores never stop a call: who uses more than its
share only makes others slower. So calls that mostly wait share cores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum

from ..resources import Seconds, Usage
from . import actions as do
from .actions import Action
from .grant import CORE
from .invocation import Invocation, State
from .node import Node
from .queues import Group
from .sizers.base import Sizer


class Packing(Enum):
    """How the memory of nodes is packed."""

    HARD = "hard"
    ELASTIC = "elastic"
    LIVE = "live"


# An attempt that outgrew its allocation gets so much more than it uses, if the sizer has
# nothing to say; and so little where there is no room for more.
_ROOM_TO_GROW = 1.25
_AT_LEAST = 1.05

# An allocation shrinks when what is thought to be enough is less than this share of it.
_WORTH_SHRINKING = 0.8

# From so many seconds on it tells how many cores a call keeps busy. It is charged with so much
# more than that, and with no less than this, in millionths of a core.
_TELLS_CORES = 0.3
_CORES_TO_SPARE = 1.05
_LEAST_CORES = CORE // 10

# Where so much of a node's cores is in use, a call that keeps few busy may be waiting for one:
# it is not taken for one that could do with less.
ALL_BUSY = 0.9

# Shorter calls (s) do not tell, and are many.
_WAITS = 0.01

# Live: the part of the growth still predicted that is charged. Additive increase of what is
# risked with each call that returns, multiplicative decrease with each eviction (the rule of
# TCP; Chiu and Jain, 1989).
_RISK_AT_FIRST = 0.3
_MOST_RISK = 0.9
_RISK_MORE = 0.03
_RISK_LESS = 0.5

# Live: what is left free for what grows between two readings: a part of the node, or what was
# seen to come at once.
_LEAST_HEADROOM = 0.02
_GROWTH_FADES = 0.95

# Live: nothing starts on a node where something waits for memory for so much of the time
# (PSI, "some"); a healthy one shows 0.
_PRESSED = 0.1

# Live: an eviction frees at least so much of a node more than is missing, lest it be the first of
# many. (With none, or an eighth, single traces took a tenth to a third longer.)
_WORTH_EVICTING = 0.05

# Live: who uses more than it was given goes before one that keeps to it, unless it has worked for
# so many times as long: an eviction costs the time that was worked.
_MUCH_LONGER = 4.0

# After so many evictions a call gets its whole prediction set aside.
EVICTIONS_BEFORE_RESERVED = 3


class Elastic:
    """What running calls have beyond the grants of their groups.

    Args:
        packing: How memory is packed.
        sizer: Says what is enough for a call that runs.
    """

    def __init__(self, packing: Packing, sizer: Sizer) -> None:
        self.packing = packing
        self._sizer = sizer
        self._risk = _RISK_AT_FIRST if packing is Packing.LIVE else 0.0

    @property
    def charged(self) -> float:
        """The part of a prediction that a node is charged with when a call starts."""
        return 1.0 - self._risk

    def returned(self) -> None:
        """A call has returned: so far it goes well."""
        if self.packing is Packing.LIVE:
            self._risk = min(_MOST_RISK, self._risk + _RISK_MORE * (1 - self._risk))

    # --- readings

    def read(
        self, invocation: Invocation, group: Group, usage: Usage, at: Seconds,
        actions: list[Action],
    ) -> bool:  # fmt: skip
        """Take what a running attempt uses; return whether its node has more room than before."""
        grant = group.grant
        if (
            self.packing is Packing.HARD
            or invocation.state is not State.RUNNING
            or invocation.handed_on
            or invocation.evicting
        ):
            return False
        node = group.node
        cores = node.cores
        self._follow_cores(invocation, group, usage)
        if grant.allocation.memory is None or group.queue.profile.stated.memory is not None:
            return node.cores > cores
        jump = usage.memory - invocation.used
        invocation.used = max(invocation.used, usage.memory)
        if invocation.started_reading and jump > 0:
            node.growth = max(jump, node.growth * _GROWTH_FADES)
        invocation.started_reading = True
        before = node.memory
        told = self._enough(invocation, group, usage)
        if self.packing is Packing.LIVE:
            self._charge(invocation, group, max(told, invocation.used))
            self._tell(invocation, group, told, actions)
            self._make_room(node, at, actions)
        else:
            self._fit(invocation, group, told, actions)
        return node.memory > before or node.cores > cores

    def _follow_cores(self, invocation: Invocation, group: Group, usage: Usage) -> None:
        """Charge an attempt with the cores that it keeps busy: the most of lately and so far."""
        if group.queue.profile.stated.cores is not None or group.queued:
            return
        wall_time, cpu_time = invocation.cores_read
        passed = usage.wall_time - wall_time
        if usage.wall_time < _TELLS_CORES or passed <= 0:
            return
        invocation.cores_read = (usage.wall_time, usage.cpu_time)
        busy = max(usage.cores, (usage.cpu_time - cpu_time) / passed)
        wanted = max(_LEAST_CORES, math.ceil(_CORES_TO_SPARE * busy * CORE))
        node = group.node
        more = wanted - (group.grant.cores + invocation.cores_grown)
        # No more than there is: it makes others slower, whoever it is charged to.
        more = int(min(more, max(0, node.cores)))
        if more > 0 or (more < 0 and not node.busy):
            self._change(invocation, group, 0, more)

    def give_back(self, invocation: Invocation, group: Group) -> bool:
        """Let a node have back what an attempt was charged with beyond its group's grant.

        Returns:
            Whether that was anything.
        """
        if not invocation.grown and not invocation.cores_grown:
            return False
        self._change(invocation, group, -invocation.grown, -invocation.cores_grown)
        return True

    def _enough(self, invocation: Invocation, group: Group, usage: Usage) -> int:
        """Return the bytes that are thought to be enough for it now."""
        queue = group.queue
        largest = queue.largest or group.node.capacity
        assert largest is not None
        sized = self._sizer.allocate(
            queue.profile.category,
            invocation.request.sizing_features,
            attempt=invocation.tries,
            previous=None,
            largest=largest,
            running=usage,
        ).memory
        held = invocation.held(group)
        if invocation.used > held:
            enough = max(sized or 0, math.ceil(_ROOM_TO_GROW * invocation.used))
        else:
            enough = held if sized is None else max(sized, math.ceil(1.1 * invocation.used))
            if invocation.tries and invocation.retry is not None:
                enough = max(enough, min(held, invocation.retry.previous.memory or 0))
            if enough > _WORTH_SHRINKING * held:
                enough = max(held, min(enough, held))
        total = group.node.total[1]
        return int(min(enough, total))

    # --- elastic

    def _fit(
        self, invocation: Invocation, group: Group, enough: int, actions: list[Action]
    ) -> None:
        """Give an attempt what is enough for it, as far as its node has it; else make room."""
        node = group.node
        held = invocation.held(group)
        if enough <= held:
            if enough < held and not group.queued:
                self._resize(invocation, group, enough, actions)
            return
        if enough - held > node.memory:
            enough = math.ceil(_AT_LEAST * invocation.used)
        if enough - held <= node.memory:
            self._resize(invocation, group, enough, actions)
            return
        victim = self._newest_over(node)
        if victim is not None:
            self._evict(victim, actions)

    def _resize(
        self, invocation: Invocation, group: Group, size: int, actions: list[Action]
    ) -> None:
        node = group.node
        self._change(invocation, group, size - invocation.held(group))
        invocation.told = size
        actions.append(
            do.Resize(
                invocation.id, invocation.attempt, node.name,
                replace(group.grant.allocation, memory=size),
            )
        )  # fmt: skip

    # --- live

    def _charge(self, invocation: Invocation, group: Group, enough: int) -> None:
        """Charge the node with what the attempt uses, and a part of what it may still take."""
        if invocation.evictions >= EVICTIONS_BEFORE_RESERVED:
            charge = enough
        else:
            charge = math.ceil(invocation.used + self.charged * (enough - invocation.used))
        more = charge - invocation.charge(group)
        if invocation.grown + more >= 0 or not group.queued:
            self._change(invocation, group, more)

    @staticmethod
    def _change(invocation: Invocation, group: Group, memory: int, cores: int = 0) -> None:
        """Charge an attempt's node with so much more for it."""
        group.shrunk -= invocation.grown < 0 or invocation.cores_grown < 0
        invocation.grown += memory
        invocation.cores_grown += cores
        group.shrunk += invocation.grown < 0 or invocation.cores_grown < 0
        group.node.memory -= memory
        group.node.cores -= cores

    def _tell(
        self, invocation: Invocation, group: Group, enough: int, actions: list[Action]
    ) -> None:
        """Let its node tell early when it goes over what is now thought to be enough."""
        told = invocation.told or group.grant.allocation.memory or 0
        if invocation.used >= told and enough > told:
            invocation.told = enough
            allocation = replace(group.grant.allocation, memory=enough)
            actions.append(
                do.Resize(invocation.id, invocation.attempt, group.node.name, allocation)
            )

    def _make_room(self, node: Node, at: Seconds, actions: list[Action]) -> None:
        """Evict while what is used leaves too little free for what may come at once."""
        total = node.total[1]
        if math.isinf(total):
            return
        running = list(node.running.values())
        if len(running) < 2:
            return
        used = sum(each.used for each in running if not each.evicting)
        headroom = max(_LEAST_HEADROOM * total, min(node.growth, 0.1 * total))
        while (missing := used + headroom - min(total, node.available_total)) > 0:
            victim = self._victim(node, missing + _WORTH_EVICTING * total, at)
            if victim is None:
                return
            used -= victim.used
            self._risk *= _RISK_LESS
            self._evict(victim, actions)

    def weigh(self, node: Node, available: int, pressure: float) -> bool:
        """Take how a node stands; return whether something may start there that might not before.

        Args:
            node: The node.
            available: Bytes that a new process could have there.
            pressure: The share of time that something waited for memory, or -1: unknown.
        """
        if self.packing is not Packing.LIVE or math.isinf(node.total[1]):
            return False
        used = sum(each.used for each in node.running.values())
        node.available_total = used + max(0, available)
        before = node.pressed
        node.pressed = pressure > _PRESSED or available < _LEAST_HEADROOM * node.total[1]
        return before and not node.pressed

    # --- evictions

    @staticmethod
    def _able(node: Node) -> list[Invocation]:
        """Return those that may be stopped and run again for their node's sake."""
        return [
            each
            for each in node.running.values()
            if each.state is State.RUNNING
            and not each.evicting
            and not each.handed_on
            and each.request.stated.memory is None
            and each.request.retries > 0
        ]

    def _newest_over(self, node: Node) -> Invocation | None:
        """Return the newest attempt that uses more than it was given at its start."""
        over = filter(_is_over, self._able(node))
        return max(over, key=lambda each: (each.started, each.id), default=None)

    def _victim(self, node: Node, missing: float, at: Seconds) -> Invocation | None:
        """Return who makes room: of those that use as much as is missing, who loses the least work.

        Where nobody uses as much, several have to go: first who frees the most for what it
        loses. At least one stays.
        """
        able = self._able(node)
        if len(able) < 2:
            return self._newest_over(node)

        def lost(invocation: Invocation) -> float:
            worked = at - invocation.started
            return worked / _MUCH_LONGER if _is_over(invocation) else worked

        enough = [each for each in able if each.used >= missing]
        if enough:
            return min(enough, key=lambda each: (lost(each), -each.id))
        return max(able, key=lambda each: (each.used / (lost(each) + 1.0), each.id))

    def _evict(self, invocation: Invocation, actions: list[Action]) -> None:
        assert invocation.group is not None
        invocation.evicting = True
        invocation.evictions += 1
        node = invocation.group.node.name
        actions.append(do.Kill(invocation.id, invocation.attempt, node, evicted=True))


def _is_over(invocation: Invocation) -> bool:
    """Tell whether an attempt uses more than it was given at its start."""
    return invocation.group is not None and invocation.used > invocation.group.grant.memory


def unhindered(usage: Usage, group: Group) -> Usage:
    """Return what a call would have used, as far as is known, had it never waited for a core.

    Where nearly all of its node's cores are in use, one that kept fewer busy than it was given may
    have been kept from it, by whatever else runs there. Taken at its word it would be given less,
    more such calls would share the cores, and each would show still less.
    """
    if not group.node.busy or usage.wall_time < _WAITS:
        return usage
    given = usage.wall_time * group.grant.cores / CORE
    if usage.cpu_time >= given:
        return usage
    return replace(usage, cpu_user=given - usage.cpu_system)
