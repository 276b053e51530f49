"""A contact centre made up from a seed: everything that Kaohe takes in, at any size, the same for the same seed.

Theory of operation. ``simulate`` builds the people and queues (``simulator_world``), then goes through the days. Each
day it plans the rota, attendance and breaks, draws the day's callers (a Poisson process whose rate follows staff and
hour), and lets the floor (``simulator_queue``) run. What happens there becomes events, and brings tickets,
complaints, surveys and the rest (``simulator_work``). Events come out in order of time; memory holds only what is under
way and what is still to come before the end, never a whole day.

Randomness comes from generators of their own for each purpose, all seeded from ``seed`` and the purpose's name. Same
arguments give the same events byte for byte.

Real sources are not perfect: ``Faults`` makes some events late, some double, and some swapped with their neighbours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from math import exp
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from kaohe import events as ev
from kaohe.adapters.simulator_queue import Caller, Floor, Happening, plain_queue
from kaohe.adapters.simulator_work import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Desk, Outbox, moment
from kaohe.adapters.simulator_world import (
    HOLD_S,
    HOLD_SHARE,
    OPEN_HOUR,
    SLOT_MINUTES,
    SLOTS,
    WRAP_S,
    Person,
    Shift,
    local_ms,
    make_world,
    shifts_of,
)
from kaohe.errors import UsageError
from kaohe.events import Envelope

START = date(2026, 8, 3)
ZONE = ZoneInfo("Asia/Shanghai")
MAX_AGENTS = 20_000
MAX_DAYS = 3_660

LOAD = 0.79
"""Work offered per agent on shift. Breaks take about an eighth of a shift, so those at work are busy nine tenths."""
PATIENCE_S = 150.0
RING_S = 4.0
RING_CYCLE_MS = 5 * SECOND_MS
VOICE_UNIT_SHARE = 0.05
TRANSFER_SHARE = 0.05
CUSTOMERS_PER_AGENT = 30


class Faults(msgspec.Struct, frozen=True):
    """How imperfect the sources are: shares of all events, and how far the faults go.

    ``late_share`` come up to ``late_s`` after their time; ``duplicate_share`` come twice, up to ``late_s`` apart;
    ``out_of_order`` come up to ``swap_s`` after their time.
    """

    late_share: float = 0.001
    duplicate_share: float = 0.001
    out_of_order: float = 0.005
    late_s: int = 900
    swap_s: int = 3


SOME_FAULTS = Faults()
NO_FAULTS = Faults(0.0, 0.0, 0.0)


def simulate(
    seed: int,
    agents: int,
    days: int,
    start: date = START,
    zone: ZoneInfo = ZONE,
    faults: Faults = SOME_FAULTS,
) -> Iterator[Envelope]:
    """The events of ``days`` days of a contact centre from local midnight of ``start`` on, the roster first.

    In order of time but for ``faults``. UsageError for a size that cannot be.
    """
    if not 1 <= agents <= MAX_AGENTS:
        raise UsageError(f"{agents} agents cannot be simulated; from 1 to {MAX_AGENTS} can")
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"{days} days cannot be simulated; from 1 to {MAX_DAYS} can")
    return with_faults(_Centre(seed, agents, days, start, zone).events(), faults, seed)


def with_faults(events: Iterable[Envelope], faults: Faults, seed: int) -> Iterator[Envelope]:
    """The same events as imperfect sources deliver them. Roster, pack and clock events are never touched."""
    rng = Random(f"{seed}/faults")
    held: list[tuple[datetime, int, Envelope]] = []
    late = faults.late_share
    double = late + faults.duplicate_share
    swapped = double + faults.out_of_order
    assert 0 <= late <= double <= swapped <= 1
    for number, event in enumerate(events):
        while held and held[0][0] <= event.time:
            yield heapq.heappop(held)[2]
        chance = rng.random()
        if chance >= swapped or isinstance(event.data, ev.RosterChanged | ev.PackActivated | ev.ClockTick):
            yield event
            continue
        longest_s = faults.late_s if chance < double else faults.swap_s
        release = event.time + timedelta(milliseconds=rng.randrange(1, max(2, longest_s * 1000)))
        heapq.heappush(held, (release, number, event))
        if late <= chance < double:
            yield event
    while held:
        yield heapq.heappop(held)[2]


class _Centre:
    """One run of the contact centre."""

    def __init__(self, seed: int, agents: int, days: int, start: date, zone: ZoneInfo) -> None:
        self._days = [start + timedelta(days=day) for day in range(days)]
        self._zone = zone
        self._start_ms = local_ms(start, zone)
        self._world = make_world(seed, agents, start)
        self._outbox = Outbox(seed, local_ms(start + timedelta(days=days), zone))
        self._desk = Desk(seed, self._world, self._outbox)
        people = self._world.people
        pace = [round(person.pace * 1000) for person in people]
        self._floor = Floor([person.skills for person in people], len(self._world.queues), pace)
        self._put = self._outbox.put
        self._stream = self._desk.stream
        self._on_leave: dict[int, tuple[date, date]] = {}
        self._calls = [0] * len(self._world.queues)
        self._at_work: dict[int, Shift] = {}
        self._states = 0

    def events(self) -> Iterator[Envelope]:
        self._roster()
        self._desk.certificates(self._start_ms)
        shifts = self._publish(self._days[0], self._start_ms + 2 * SECOND_MS)
        for day in self._days:
            midnight_ms = local_ms(day, self._zone)
            tomorrow = day + timedelta(days=1)
            end_ms = local_ms(tomorrow, self._zone)
            self._desk.begin_day(midnight_ms)
            self._desk.teams(day, midnight_ms, day == self._days[0])
            self._work_day(day, shifts)
            self._callers_of(day, shifts)
            shifts = self._publish(tomorrow, midnight_ms + 18 * HOUR_MS)
            for happening in self._floor.run(end_ms):
                yield from self._outbox.until(happening.at_ms)
                self._tell(happening)
            yield from self._outbox.until(end_ms - 1)

    # --- people ---

    def _roster(self) -> None:
        for person in self._world.people:
            data = ev.RosterChanged(
                agent=person.id,
                team=person.team,
                site=person.site,
                position="agent",
                superior=person.superior,
                hired_on=person.hired_on.isoformat(),
                pay_base_minor=person.pay_base_minor,
            )
            self._put(self._start_ms, "roster.changed", f"roster-{person.id}", person.id, data)
        rng = self._stream("promotions")
        for person in self._world.people:
            if rng.random() < 0.02:
                on = self._days[min(len(self._days) - 1, rng.randrange(7, 28))]
                data = ev.RosterChanged(
                    agent=person.id,
                    team=person.team,
                    site=person.site,
                    position="senior agent",
                    superior=person.superior,
                    hired_on=person.hired_on.isoformat(),
                    pay_base_minor=person.pay_base_minor * 11 // 10,
                )
                at_ms = local_ms(on, self._zone, 7)
                self._put(at_ms, "roster.changed", f"roster-{person.id}-promoted", person.id, data)

    def _publish(self, day: date, at_ms: int) -> list[Shift]:
        """Announce the shifts of ``day``; a few are moved or called off afterwards."""
        rng = self._stream("rota")
        shifts = shifts_of(self._world, day, self._zone)
        for shift in shifts:
            agent = self._world.people[shift.person].id
            common: dict[str, Any] = {"agent": agent, "shift_id": shift.id, "day": shift.day.isoformat()}
            data = ev.ShiftScheduled(
                **common, starts_at=moment(shift.starts_ms), ends_at=moment(shift.ends_ms)
            )
            self._put(at_ms, "shift.scheduled", f"shift-{shift.id}", agent, data)
            if rng.random() < 0.015:
                if rng.random() < 0.25:
                    shift.cancelled = True
                else:
                    moved_ms = rng.choice((-HOUR_MS, HOUR_MS // 2, HOUR_MS))
                    shift.starts_ms += moved_ms
                    shift.ends_ms += moved_ms
                changed = ev.ShiftChanged(
                    **common,
                    starts_at=moment(shift.starts_ms),
                    ends_at=moment(shift.ends_ms),
                    cancelled=shift.cancelled,
                )
                self._put(
                    at_ms + 90 * MINUTE_MS, "shift.changed", f"shift-{shift.id}-changed", agent, changed
                )
        return shifts

    def _work_day(self, day: date, shifts: list[Shift]) -> None:
        """Who comes when, and what the day brings to them beside calls."""
        self._on_leave = {who: days for who, days in self._on_leave.items() if days[1] >= day}
        for shift in shifts:
            person = self._world.people[shift.person]
            rng = self._stream("attendance")
            # Always the same number of draws a shift, so that one person's leave does not move another's lateness.
            absent, late, early, minutes, way, break_at = (rng.random() for _ in range(6))
            away = self._on_leave.get(shift.person)
            if shift.cancelled or (away is not None and away[0] <= day <= away[1]):
                continue
            if absent < 0.004 * person.punctuality:
                continue
            self._attend(shift, person, late, early, minutes, way, break_at)
            self._desk.routine(shift)
            asked = self._desk.leave(shift.starts_ms + HOUR_MS, person, day)
            if asked is not None:
                self._on_leave[shift.person] = asked

    def _attend(
        self,
        shift: Shift,
        person: Person,
        late: float,
        early: float,
        minutes: float,
        way: float,
        break_at: float,
    ) -> None:
        """Clocking in and out, logging in and out, breaks. The chances are numbers from 0 to 1."""
        agent = person.id
        arrives_ms = shift.starts_ms - round((2 + 13 * way) * MINUTE_MS)
        if late < 0.03 * person.punctuality:
            arrives_ms = shift.starts_ms + round((1 + 40 * minutes**2) * MINUTE_MS)
            self._desk.exemption(shift.starts_ms + DAY_MS, person, shift.id)
        leaves_ms = shift.ends_ms
        if early < 0.012 * person.punctuality:
            leaves_ms -= round((3 + 45 * minutes**2) * MINUTE_MS)
        self._put(arrives_ms, "clock.in", f"{shift.id}-in", agent, ev.ClockIn(agent=agent, shift_id=shift.id))
        self._at_work[shift.person] = shift
        order = self._floor.order
        who = shift.person
        order(arrives_ms + round((20 + 60 * way) * SECOND_MS), who, "log_in")
        half_ms = (shift.starts_ms + shift.ends_ms) // 2
        order(half_ms + round((break_at - 0.5) * 100) * MINUTE_MS, who, "break", 35 * MINUTE_MS, "lunch")
        order(shift.starts_ms + round((60 + 60 * minutes) * MINUTE_MS), who, "break", 12 * MINUTE_MS, "break")
        order(shift.ends_ms - round((60 + 60 * minutes) * MINUTE_MS), who, "break", 10 * MINUTE_MS, "break")
        if way < 0.05:
            order(shift.starts_ms + 3 * HOUR_MS, who, "break", 25 * MINUTE_MS, "meeting")
        order(leaves_ms, who, "log_out")

    # --- callers ---

    def _callers_of(self, day: date, shifts: list[Shift]) -> None:
        """Let the day's callers come to each queue, as many as its planned staff can serve in each quarter hour."""
        open_ms = local_ms(day, self._zone, OPEN_HOUR)
        capacity = [[0.0] * SLOTS for _ in self._world.queues]
        for shift in shifts:
            skills = self._world.people[shift.person].skills
            total = sum(self._world.queues[queue][2].share for queue in skills)
            first = max(0, (shift.starts_ms - open_ms) // (SLOT_MINUTES * MINUTE_MS))
            last = min(SLOTS, (shift.ends_ms - open_ms) // (SLOT_MINUTES * MINUTE_MS))
            for queue in skills:
                part = self._world.queues[queue][2].share / total
                for slot in range(first, last):
                    capacity[queue][slot] += part
        mood = exp(self._stream("days").gauss(0.0, 0.07))
        for queue, slots in enumerate(capacity):
            service = self._world.queues[queue][2]
            handle_ms = (service.talk_s + HOLD_SHARE * HOLD_S + WRAP_S + RING_S) * SECOND_MS
            rates = [LOAD * mood * _hour_factor(slot) * part / handle_ms for slot, part in enumerate(slots)]
            self._floor.feed(self._callers(queue, open_ms, rates))

    def _callers(self, queue: int, open_ms: int, rates: list[float]) -> Iterator[Caller]:
        """A Poisson process whose rate per millisecond is constant in each slot, with what each caller brings along."""
        arrivals = self._stream(f"arrivals/{queue}")
        rng = self._stream(f"callers/{queue}")
        talk_s = self._world.queues[queue][2].talk_s
        customers = CUSTOMERS_PER_AGENT * len(self._world.people)
        slot_ms = SLOT_MINUTES * MINUTE_MS
        for slot, rate in enumerate(rates):
            if rate <= 0:
                continue
            at_ms = float(open_ms + slot * slot_ms)
            end_ms = at_ms + slot_ms
            while (at_ms := at_ms + arrivals.expovariate(rate)) < end_ms:
                self._calls[queue] += 1
                hold = rng.random()
                yield Caller(
                    number=self._calls[queue],
                    queue=queue,
                    at_ms=int(at_ms),
                    patience_ms=round(rng.expovariate(1 / PATIENCE_S) * SECOND_MS),
                    talk_ms=round(rng.lognormvariate(-0.18, 0.6) * talk_s * SECOND_MS),
                    ring_ms=round(rng.expovariate(1 / RING_S) * SECOND_MS) + 1,
                    hold_ms=round(rng.expovariate(1 / HOLD_S) * SECOND_MS) if hold < HOLD_SHARE else 0,
                    wrap_ms=round(rng.expovariate(1 / WRAP_S) * SECOND_MS),
                    customer=rng.randrange(customers),
                    voice_unit_ms=round(rng.lognormvariate(2.4, 0.5) * SECOND_MS),
                    in_voice_unit=rng.random() < VOICE_UNIT_SHARE,
                )

    # --- telling ---

    def _tell(self, happening: Happening) -> None:
        """Turn what happened on the floor into events."""
        at_ms, kind, agent, caller, wait_ms, _ = happening
        if caller is None:
            self._tell_state(happening)
            return
        name, site, service = self._world.queues[caller.queue]
        call = f"call-{caller.queue}-{caller.number}"
        customer = self._desk.customer(caller.customer)
        put = self._put
        common: dict[str, Any] = {
            "queue": name,
            "call_id": call,
            "customer": customer,
            "service": service.name,
        }
        if kind == "completed":
            person = self._world.people[agent]
            data = ev.CallCompleted(
                **common,
                agent=person.id,
                talk_ms=caller.talk_ms,
                hold_ms=caller.hold_ms,
                wrap_ms=caller.wrap_ms,
            )
            put(at_ms, "call.completed", call + "-completed", person.id, data)
            self._desk.after_call(at_ms, person, service, call, customer, caller.talk_ms)
        elif kind == "offered":
            if wait_ms:
                put(at_ms, "call.queued", call + "-queued", name, ev.CallQueued(**common, site=site))
            put(at_ms, "call.offered", call + "-offered", name, ev.CallOffered(**common, site=site))
        elif kind == "answered":
            self._tell_answer(at_ms, self._world.people[agent].id, caller, call, common, wait_ms)
        elif kind == "abandoned":
            gone = ev.CallAbandoned(**common, site=site, wait_ms=wait_ms)
            put(at_ms, "call.abandoned", call + "-abandoned", name, gone)
        else:
            heard = ev.CallVoiceUnitAbandoned(**common, site=site, voice_unit_ms=caller.voice_unit_ms)
            put(at_ms, "call.voice_unit_abandoned", call + "-voice", name, heard)

    def _tell_answer(
        self, at_ms: int, agent: str, caller: Caller, call: str, common: dict[str, Any], wait_ms: int
    ) -> None:
        rings = 1 + caller.ring_ms // RING_CYCLE_MS
        answered = ev.CallAnswered(**common, agent=agent, wait_ms=wait_ms, rings=rings)
        self._put(at_ms, "call.answered", call + "-answered", agent, answered)
        if caller.hold_ms:
            held = ev.CallHeld(**common, agent=agent, hold_ms=caller.hold_ms)
            self._put(at_ms + caller.talk_ms // 2 + caller.hold_ms, "call.held", call + "-held", agent, held)
        rng = self._stream("transfers")
        if rng.random() < TRANSFER_SHARE:
            data = ev.CallTransferred(
                **common, agent=agent, to=rng.choice(("back-office", "billing")), warm=rng.random() < 0.6
            )
            over_ms = at_ms + caller.talk_ms + caller.hold_ms
            self._put(over_ms, "call.transferred", call + "-transferred", agent, data)

    def _tell_state(self, happening: Happening) -> None:
        at_ms, kind, who, _, _, reason = happening
        agent = self._world.people[who].id
        self._states += 1
        ident = f"state-{self._states}"
        if kind == "ready":
            self._put(at_ms, "agent.ready", ident, agent, ev.AgentReady(agent=agent))
        elif kind == "not_ready":
            self._put(at_ms, "agent.not_ready", ident, agent, ev.AgentNotReady(agent=agent, reason=reason))
        elif kind == "logged_in":
            self._put(at_ms, "agent.logged_in", ident, agent, ev.AgentLoggedIn(agent=agent))
        else:
            self._put(at_ms, "agent.logged_out", ident, agent, ev.AgentLoggedOut(agent=agent))
            shift = self._at_work.pop(who, None)
            if shift is not None:
                self._clock_out(at_ms + 2 * MINUTE_MS, agent, shift)

    def _clock_out(self, at_ms: int, agent: str, shift: Shift) -> None:
        """Clocking out. Some forget it; most of those have it put right the next day."""
        rng = self._stream("forgotten")
        forgotten, corrected = rng.random() < 0.01, rng.random() < 0.8
        if not forgotten:
            out = ev.ClockOut(agent=agent, shift_id=shift.id)
            self._put(at_ms, "clock.out", f"{shift.id}-out", agent, out)
        elif corrected:
            right = ev.ClockCorrected(
                agent=agent,
                correction_id=f"{shift.id}-corrected",
                shift_id=shift.id,
                punch="out",
                clocked_at=moment(at_ms),
                by=self._world.people[shift.person].superior,
                reason="forgot to clock out",
            )
            self._put(
                shift.starts_ms + DAY_MS + HOUR_MS, "clock.corrected", right.correction_id, agent, right
            )


def _hour_factor(slot: int) -> float:
    """How much more than usual people call in a quarter hour: peaks at half past ten and half past three."""
    hour = OPEN_HOUR + (slot + 0.5) * SLOT_MINUTES / 60
    return 0.86 + 0.26 * exp(-((hour - 10.5) ** 2) / 2.0) + 0.20 * exp(-((hour - 15.5) ** 2) / 3.0)


def plain_events(
    seed: int,
    *,
    agents: int,
    arrivals: float,
    services: float,
    impatience: float = 0.0,
    seconds: int,
    start: date = START,
) -> Iterator[Envelope]:
    """The calls of one M/M/n or M/M/n+M queue (rates per second) as events, from midnight UTC of ``start`` on."""
    start_ms = local_ms(start, ZoneInfo("UTC"))
    source = f"plain-{seed}"
    for at_ms, kind, agent, caller, wait_ms, _ in plain_queue(
        seed, agents=agents, arrivals=arrivals, services=services, impatience=impatience, seconds=seconds
    ):
        if caller is None:
            continue
        name = f"a-{agent + 1:03d}" if agent >= 0 else ""
        common: dict[str, Any] = {"agent": name, "queue": "plain", "call_id": f"call-{caller.number}"}
        data: ev.Payload
        if kind == "offered":
            data = ev.CallOffered(**common)
        elif kind == "answered":
            data = ev.CallAnswered(**common, wait_ms=wait_ms)
        elif kind == "abandoned":
            data = ev.CallAbandoned(**common, wait_ms=wait_ms)
        else:
            data = ev.CallCompleted(**common, talk_ms=caller.talk_ms)
        yield ev.make(
            f"call.{kind}",
            id=f"call-{caller.number}-{kind}",
            source=source,
            subject=name or "plain",
            time=moment(start_ms + at_ms),
            data=data,
        )
