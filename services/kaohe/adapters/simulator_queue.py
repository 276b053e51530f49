"""The queues and the agents of a simulated contact centre, as a discrete-event simulation.

Theory of operation. One heap of timed happenings is worked off in order; time is whole milliseconds. A caller who comes
takes the agent that has been idle longest among those with the skill, or waits in his queue until an agent becomes free
or his patience ends. An agent who becomes free takes the caller that has waited longest in any of his queues. Orders
from the rota (log in, break, log out) reach a busy agent when the call in hand is over.

The same code runs the whole contact centre and the plain M/M/n and M/M/n+M queues that are checked against Erlang's
formulas, so the check is a check of the simulator itself. It draws nothing at random: callers bring their patience and
their handling times along.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from kaohe.errors import KaoheError

MAX_WAITING = 1_000_000
"""More callers than this in one queue means that the agents can never keep up."""

NEVER = -1
"""A patience without an end."""


class Caller(msgspec.Struct, gc=False):
    """One who calls. Durations in milliseconds; ``ring_ms`` passes between the choice of an agent and the answer."""

    number: int
    queue: int
    at_ms: int
    patience_ms: int
    talk_ms: int
    ring_ms: int = 0
    hold_ms: int = 0
    wrap_ms: int = 0
    customer: int = 0
    voice_unit_ms: int = 0
    in_voice_unit: bool = False
    waiting: bool = False


Kind = Literal[
    "voice_unit",
    "offered",
    "answered",
    "abandoned",
    "completed",
    "logged_in",
    "ready",
    "not_ready",
    "logged_out",
]


class Happening(NamedTuple):
    """What happened at ``at_ms``: to a caller, to an agent (index, −1 for none), or to both.

    ``wait_ms`` is the wait until the answer or the hanging up; for "offered" it is 1 when the caller has to wait.
    """

    at_ms: int
    kind: Kind
    agent: int
    caller: Caller | None
    wait_ms: int = 0
    reason: str = ""


Order = Literal["log_in", "break", "log_out"]
_OFF, _IDLE, _BUSY, _AWAY = range(4)
_CALL, _IMPATIENT, _ANSWER, _FINISH, _ORDER, _BACK = range(6)


class Floor:
    """Agents with skills, and their queues.

    ``skills[agent]`` are the queues the agent serves; ``pace_permille[agent]`` scales talk and ring times.
    """

    def __init__(
        self, skills: Sequence[Sequence[int]], queues: int, pace_permille: Sequence[int] | None = None
    ) -> None:
        self._skills = [tuple(each) for each in skills]
        assert all(0 <= queue < queues for each in self._skills for queue in each)
        self._pace = list(pace_permille) if pace_permille is not None else [1000] * len(self._skills)
        self._state = [_OFF] * len(self._skills)
        self._stamp = [0] * len(self._skills)
        self._pending: list[tuple[Order, int, str] | None] = [None] * len(self._skills)
        self._waiting: list[deque[Caller]] = [deque() for _ in range(queues)]
        self._idle: list[deque[tuple[int, int]]] = [deque() for _ in range(queues)]
        self._heap: list[tuple[int, int, int, Any, Any]] = []
        self._sequence = 0
        self._out: list[Happening] = []

    def feed(self, callers: Iterator[Caller]) -> None:
        """Let these callers come; the iterator gives them in order of time and is asked one caller ahead."""
        caller = next(callers, None)
        if caller is not None:
            self._push(caller.at_ms, _CALL, caller, callers)

    def order(self, at_ms: int, agent: int, order: Order, duration_ms: int = 0, reason: str = "") -> None:
        """Have an agent log in, take a break of ``duration_ms``, or log out at that time or after the call in hand."""
        self._push(at_ms, _ORDER, agent, (order, duration_ms, reason))

    def run(self, until_ms: int) -> Iterator[Happening]:
        """What happens before ``until_ms``, in order of time. KaoheError when a queue grows without end."""
        heap = self._heap
        while heap and heap[0][0] < until_ms:
            at_ms, _, kind, subject, detail = heapq.heappop(heap)
            if kind == _CALL:
                self._arrive(at_ms, subject)
                self.feed(detail)
            elif kind == _IMPATIENT:
                if subject.waiting:
                    subject.waiting = False
                    self._out.append(Happening(at_ms, "abandoned", -1, subject, at_ms - subject.at_ms))
            elif kind == _ANSWER:
                self._answer(at_ms, subject, detail)
            elif kind == _FINISH:
                self._out.append(Happening(at_ms, "completed", subject, detail))
                self._free(at_ms, subject)
            elif kind == _ORDER:
                self._obey(at_ms, subject, detail)
            elif self._state[subject] == _AWAY and self._stamp[subject] == detail:
                self._ready(at_ms, subject)
            if self._out:
                yield from self._out
                self._out.clear()

    def _push(self, at_ms: int, kind: int, subject: Any, detail: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ms, self._sequence, kind, subject, detail))

    # --- callers ---

    def _arrive(self, at_ms: int, caller: Caller) -> None:
        if caller.in_voice_unit:
            self._out.append(Happening(at_ms, "voice_unit", -1, caller))
            return
        agent = self._longest_idle(caller.queue)
        self._out.append(Happening(at_ms, "offered", -1, caller, 1 if agent is None else 0))
        if agent is not None:
            self._take(at_ms, agent, caller)
            return
        caller.waiting = True
        queue = self._waiting[caller.queue]
        if len(queue) >= MAX_WAITING:
            raise KaoheError(
                f"more than {MAX_WAITING} callers wait in one simulated queue; it needs more agents"
            )
        queue.append(caller)
        if caller.patience_ms != NEVER:
            self._push(at_ms + caller.patience_ms, _IMPATIENT, caller, None)

    def _take(self, at_ms: int, agent: int, caller: Caller) -> None:
        self._state[agent] = _BUSY
        self._stamp[agent] += 1
        caller.waiting = False
        pace = self._pace[agent]
        caller.talk_ms = caller.talk_ms * pace // 1000
        caller.ring_ms = caller.ring_ms * pace // 1000
        if caller.ring_ms:
            self._push(at_ms + caller.ring_ms, _ANSWER, agent, caller)
        else:
            self._answer(at_ms, agent, caller)

    def _answer(self, at_ms: int, agent: int, caller: Caller) -> None:
        self._out.append(Happening(at_ms, "answered", agent, caller, at_ms - caller.at_ms))
        self._push(at_ms + caller.talk_ms + caller.hold_ms + caller.wrap_ms, _FINISH, agent, caller)

    def _longest_idle(self, queue: int) -> int | None:
        idle = self._idle[queue]
        while idle:
            agent, stamp = idle.popleft()
            if self._state[agent] == _IDLE and self._stamp[agent] == stamp:
                return agent
        return None

    # --- agents ---

    def _free(self, at_ms: int, agent: int) -> None:
        """The agent can do the next thing: an order that waited, a caller who waits, or nothing."""
        self._state[agent] = _IDLE
        pending = self._pending[agent]
        if pending is not None:
            self._pending[agent] = None
            self._obey(at_ms, agent, pending)
            return
        longest: Caller | None = None
        for queue in self._skills[agent]:
            waiting = self._waiting[queue]
            while waiting and not waiting[0].waiting:
                waiting.popleft()
            if waiting and (longest is None or waiting[0].at_ms < longest.at_ms):
                longest = waiting[0]
        if longest is not None:
            self._waiting[longest.queue].popleft()
            self._take(at_ms, agent, longest)
            return
        self._stamp[agent] += 1
        for queue in self._skills[agent]:
            idle = self._idle[queue]
            if len(idle) > 8 * len(self._skills) + 64:  # mostly entries of agents who have moved on
                fresh = [
                    each for each in idle if self._stamp[each[0]] == each[1] and self._state[each[0]] == _IDLE
                ]
                idle.clear()
                idle.extend(fresh)
            idle.append((agent, self._stamp[agent]))

    def _ready(self, at_ms: int, agent: int) -> None:
        self._out.append(Happening(at_ms, "ready", agent, None))
        self._free(at_ms, agent)

    def _obey(self, at_ms: int, agent: int, detail: tuple[Order, int, str]) -> None:
        order, duration_ms, reason = detail
        state = self._state[agent]
        if order == "log_in":
            if state == _OFF:
                self._out.append(Happening(at_ms, "logged_in", agent, None))
                self._ready(at_ms, agent)
        elif state == _BUSY:
            if order == "log_out" or self._pending[agent] is None:  # going home beats a break
                self._pending[agent] = detail
        elif order == "log_out":
            if state != _OFF:
                self._state[agent] = _OFF
                self._stamp[agent] += 1
                self._out.append(Happening(at_ms, "logged_out", agent, None))
        elif state == _IDLE:
            self._state[agent] = _AWAY
            self._stamp[agent] += 1
            self._out.append(Happening(at_ms, "not_ready", agent, None, 0, reason))
            self._push(at_ms + duration_ms, _BACK, agent, self._stamp[agent])


def plain_queue(
    seed: int, *, agents: int, arrivals: float, services: float, impatience: float = 0.0, seconds: int
) -> Iterator[Happening]:
    """One queue with equal agents: M/M/n, or M/M/n+M with an impatience rate above 0. Rates are per second."""
    streams = {name: Random(f"{seed}/plain/{name}") for name in ("arrivals", "services", "patience")}

    def callers() -> Iterator[Caller]:
        at_s = 0.0
        number = 0
        while True:
            at_s += streams["arrivals"].expovariate(arrivals)
            talk_ms = round(streams["services"].expovariate(services) * 1000)
            patience_ms = round(streams["patience"].expovariate(impatience) * 1000) if impatience else NEVER
            number += 1
            yield Caller(number, 0, round(at_s * 1000), patience_ms, talk_ms)

    floor = Floor([(0,)] * agents, 1)
    for agent in range(agents):
        floor.order(0, agent, "log_in")
    floor.feed(callers())
    return floor.run(seconds * 1000)
