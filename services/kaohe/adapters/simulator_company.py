"""A whole company made up from a seed: departments, sites in two time zones, months of work, and what is said about it.

Theory of operation. Where ``simulator`` shows the traffic of one floor second by second, this one tells the slow story
that appraisal is about, with few events for each person and day: shifts and clockings, leave and exemptions, some calls
and requests, complaints with their whole course, surveys, tasks, mistakes, trainings, audits, inspections, pay, and
people who join, move to another department, or leave.

``_Company`` goes through the days. What a day starts is drawn at once and put into a heap by the moment at which it
*arrives*: nearly always when it happens; sometimes seconds or minutes later, and what people fill in by hand sometimes
days later, after the month was closed. Some events arrive twice. Clock, roster and pay arrive when they happen. All
moments are whole seconds. Each family of events has a random generator of its own, seeded from ``seed`` and the
family's name, so that the same arguments give the same events byte for byte.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import date, timedelta
from random import Random
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from kaohe import events as ev
from kaohe.adapters.simulator_work import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, moment
from kaohe.adapters.simulator_world import local_ms
from kaohe.errors import UsageError
from kaohe.events import ENVELOPES, Envelope, Growth, LeaveKind, Payload, Rating, Satisfaction

FIRST_MONTH = date(2025, 12, 1)
MAX_PEOPLE = 2_000
MAX_MONTHS = 36
SITES = {"shanghai": "Asia/Shanghai", "berlin": "Europe/Berlin"}
"""The company's sites and their time zones; the second one has a daylight-saving change."""


class Department(msgspec.Struct, frozen=True):
    """A department: the policies its people are under, and how many of each hundred people work in it."""

    name: str
    packs: tuple[str, ...]
    share: int


EVERYBODY = ("company-kpi", "full-attendance")
DEPARTMENTS = (
    Department("front-desk", ("front-desk", *EVERYBODY), 24),
    Department("logistics", ("logistics-service", *EVERYBODY), 24),
    Department("hotline", ("front-desk", "logistics-service", *EVERYBODY), 28),
    Department("complaints", ("front-desk", *EVERYBODY), 10),
    Department("back-office", ("logistics-service", *EVERYBODY), 14),
)
SHIFTS = ((8, 16), (10, 18), (13, 21), (21, 29))
"""First and last hour of a shift by the wall clock; the night shift ends on the next day."""


class Delays(msgspec.Struct, frozen=True):
    """How imperfect the sources are: shares of all events, and in seconds how far the faults go.

    ``by_hand_share`` is the share of what people write down by hand that arrives up to ``by_hand_s`` later.
    """

    late_share: float = 0.004
    late_s: int = 900
    duplicate_share: float = 0.003
    by_hand_share: float = 0.03
    by_hand_s: int = 10 * 86_400


SOME_DELAYS = Delays()
NO_DELAYS = Delays(0.0, 1, 0.0, 0.0, 1)
LOOK_BACK_MS = 5 * DAY_MS
"""No day brings anything that happened longer than this before its own end."""
BY_HAND = frozenset(
    {"survey.colleague", "survey.cross_department", "survey.customer", "complaint.upheld", "complaint.responded",
     "error.recorded", "flow.audited", "task.completed", "training.attended", "training.assessed"}
)  # fmt: skip
"""What people write down; the rest comes from systems."""
PUNCTUAL = frozenset({"roster.changed", "pay.stated"})
"""What never comes late or twice: the frame in which the rest is judged."""


class Member(msgspec.Struct):
    """A member of the staff, from ``joins`` until the day before ``leaves``, with traits that are factors around 1."""

    id: str
    department: Department
    site: str
    zone: ZoneInfo
    joins: date
    leaves: date | None
    pay_minor: int
    annual: bool
    care: float
    manners: float
    punctuality: float
    away_until: date


def simulate_company(
    seed: int,
    people: int = 300,
    months: int = 14,
    start: date = FIRST_MONTH,
    delays: Delays = SOME_DELAYS,
) -> Iterator[Envelope]:
    """The events of a company of ``people`` from the first day of a month on, in the order in which they arrive.

    UsageError for a size that cannot be.
    """
    if not len(DEPARTMENTS) <= people <= MAX_PEOPLE:
        raise UsageError(
            f"a company of {people} people cannot be simulated; from {len(DEPARTMENTS)} to {MAX_PEOPLE} can"
        )
    if not 1 <= months <= MAX_MONTHS:
        raise UsageError(f"{months} months of a company cannot be simulated; from 1 to {MAX_MONTHS} can")
    if start.day != 1:
        raise UsageError(f"a simulated company begins on the first day of a month, not on {start}")
    return _Company(seed, people, months, start, delays).events()


def month_after(day: date, months: int = 1) -> date:
    """The first day of the month that lies so many months after that of ``day``."""
    number = day.year * 12 + day.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


class _Company:
    """One run."""

    def __init__(self, seed: int, people: int, months: int, start: date, delays: Delays) -> None:
        self._seed = seed
        self._start = start
        self._end = month_after(start, months)
        self._delays = delays
        self._streams: dict[str, Random] = {}
        self._numbers: dict[str, int] = {}
        self._heap: list[tuple[int, int, Envelope]] = []
        self._sequence = 0
        self._end_ms = max(local_ms(self._end, ZoneInfo(zone)) for zone in SITES.values())
        self._staff = self._hire(people, months)

    def _stream(self, name: str) -> Random:
        rng = self._streams.get(name)
        if rng is None:
            rng = self._streams[name] = Random(f"{self._seed}/company/{name}")
        return rng

    def _next(self, kind: str) -> str:
        self._numbers[kind] = number = self._numbers.get(kind, 0) + 1
        return f"{kind}-{number}"

    def _put(self, at_ms: int, tag: str, subject: str, data: Payload) -> None:
        """Let an event happen at ``at_ms``, and arrive then or later."""
        at_ms -= at_ms % SECOND_MS
        if at_ms >= self._end_ms:
            return
        envelope = ENVELOPES[tag](
            id=self._next(tag), source=f"company-{self._seed}", subject=subject, time=moment(at_ms), data=data
        )
        arrives_ms = at_ms
        if tag not in PUNCTUAL:
            delays, rng = self._delays, self._stream("delays")
            by_hand, chance, delay = rng.random(), rng.random(), rng.random()
            if tag in BY_HAND and by_hand < delays.by_hand_share:
                arrives_ms += round(delay * delays.by_hand_s) * SECOND_MS
            elif chance < delays.late_share:
                arrives_ms += round(delay * delays.late_s) * SECOND_MS
            elif chance < delays.late_share + delays.duplicate_share:
                self._push(at_ms + round(delay * delays.late_s) * SECOND_MS, envelope)
        self._push(arrives_ms, envelope)

    def _push(self, at_ms: int, envelope: Envelope) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ms, self._sequence, envelope))

    def events(self) -> Iterator[Envelope]:
        """Everything, by the moment at which it arrives."""
        for member in self._staff:
            self._enrol(member)
        day = self._start
        while day < self._end:
            for member in self._staff:
                self._day(member, day)
            self._inspections(day)
            day += timedelta(days=1)
            # What is drawn for a day reaches back no further than to the asking for leave.
            yield from self._until(local_ms(day, ZoneInfo(SITES["shanghai"])) - LOOK_BACK_MS)
        yield from self._until(self._end_ms + DAY_MS * 30)

    def _until(self, at_ms: int) -> Iterator[Envelope]:
        while self._heap and self._heap[0][0] <= at_ms:
            yield heapq.heappop(self._heap)[2]

    # --- people -------------------------------------------------------------------------------------------------------

    def _hire(self, people: int, months: int) -> list[Member]:
        rng = self._stream("people")
        seats = [department for department in DEPARTMENTS for _ in range(department.share)]
        staff = []
        for index in range(people):
            site = "berlin" if index % 5 == 4 else "shanghai"
            joins, leaves = self._start, None
            if months > 1 and rng.random() < 0.08:
                joins += timedelta(days=rng.randrange(5, months * 28 - 20))
            if months > 1 and rng.random() < 0.08:
                leaves = joins + timedelta(days=rng.randrange(15, months * 28))
                leaves = leaves if leaves < self._end else None
            staff.append(
                Member(
                    id=f"e-{index + 1:03d}",
                    department=seats[index * len(seats) // people],
                    site=site,
                    zone=ZoneInfo(SITES[site]),
                    joins=joins,
                    leaves=leaves,
                    pay_minor=rng.randrange(3000, 16000, 50) * 100 + rng.randrange(100),
                    annual=rng.random() < 0.1,
                    care=min(4.0, rng.lognormvariate(-0.1, 0.6)),
                    manners=min(4.0, rng.lognormvariate(-0.1, 0.6)),
                    punctuality=min(5.0, rng.lognormvariate(-0.2, 0.7)),
                    away_until=date.min,
                )
            )
        return staff

    def _roster(self, member: Member, at_ms: int, left_on: date | None = None) -> None:
        data = ev.RosterChanged(
            agent=member.id,
            team=member.department.name,
            site=member.site,
            position="agent",
            superior=f"head-{member.department.name}",
            hired_on=member.joins.isoformat(),
            left_on=left_on.isoformat() if left_on else None,
            pay_base_minor=member.pay_minor,
            packs=list(member.department.packs),
        )
        self._put(at_ms, "roster.changed", member.id, data)

    def _enrol(self, member: Member) -> None:
        begins_ms = local_ms(member.joins, member.zone, 6)
        self._roster(member, begins_ms)
        if member.annual:
            data = ev.PayStated(
                agent=member.id,
                period=f"{member.joins:%Y-%m}",
                annual_salary_minor=member.pay_minor * 13,
                by="human-resources",
            )
            self._put(begins_ms + HOUR_MS, "pay.stated", member.id, data)

    def _moves(self, member: Member, day: date) -> None:
        """Some change the department, at seven in the morning."""
        rng = self._stream("moves")
        if day.day == 1 or rng.random() >= 1 / 1_000:
            return
        others = [one for one in DEPARTMENTS if one is not member.department]
        member.department = rng.choice(others)
        self._roster(member, local_ms(day, member.zone, 7))

    # --- a day --------------------------------------------------------------------------------------------------------

    def _day(self, member: Member, day: date) -> None:
        if day < member.joins or (member.leaves is not None and day > member.leaves):
            return
        if day == member.leaves:
            self._roster(member, local_ms(day, member.zone, 7), left_on=day)
            return
        self._moves(member, day)
        number = int(member.id[2:])
        if (day.toordinal() + number * 3) % 7 >= 5:
            return
        shifts = len(SHIFTS) if member.department.name == "hotline" else 3
        begins, ends = SHIFTS[(number // 3 + day.toordinal() // 7) % shifts]
        starts_ms = local_ms(day, member.zone, begins)
        ends_day = day + timedelta(days=ends // 24)
        ends_ms = local_ms(ends_day, member.zone, ends % 24)
        present = self._attend(member, day, starts_ms, ends_ms)
        if present:
            self._calls(member, starts_ms, ends_ms)
            self._requests(member, starts_ms, ends_ms)
            self._complaints(member, starts_ms, ends_ms)
            self._small_things(member, starts_ms)
            self._learning(member, starts_ms)

    def _attend(self, member: Member, day: date, starts_ms: int, ends_ms: int) -> bool:
        """The shift and its clockings; whether the person came."""
        rng = self._stream("attendance")
        agent, shift = member.id, f"{member.id}-{day.isoformat()}"
        absent, late, early, minutes, way, clumsy = (rng.random() for _ in range(6))
        plan = ev.ShiftScheduled(
            agent=agent,
            shift_id=shift,
            day=day.isoformat(),
            starts_at=moment(starts_ms),
            ends_at=moment(ends_ms),
        )
        self._put(self._known(member, starts_ms - 6 * HOUR_MS), "shift.scheduled", agent, plan)
        if clumsy > 0.992:
            called_off = ev.ShiftChanged(
                agent=agent,
                shift_id=shift,
                day=day.isoformat(),
                starts_at=moment(starts_ms),
                ends_at=moment(ends_ms),
                cancelled=True,
            )
            self._put(self._known(member, starts_ms - HOUR_MS), "shift.changed", agent, called_off)
            return False
        if day < member.away_until or self._leave(member, day, starts_ms):
            return False
        if absent < 0.003 * member.punctuality:
            return False
        arrives_ms = starts_ms - round((2 + 13 * way) * MINUTE_MS)
        if late < 0.03 * member.punctuality:
            arrives_ms = starts_ms + round(1 + 50 * minutes**2) * MINUTE_MS
            self._excuse(member, shift, starts_ms)
        leaves_ms = ends_ms + round(5 * way) * MINUTE_MS
        if early < 0.012 * member.punctuality:
            leaves_ms = ends_ms - round(1 + 50 * minutes**2) * MINUTE_MS
        self._put(arrives_ms, "clock.in", agent, ev.ClockIn(agent=agent, shift_id=shift))
        if clumsy < 0.005:
            fixed = ev.ClockCorrected(
                agent=agent,
                correction_id=f"fix-{shift}",
                shift_id=shift,
                punch="out",
                clocked_at=moment(leaves_ms - leaves_ms % SECOND_MS),
                by=f"head-{member.department.name}",
                reason="forgot to clock out",
            )
            self._put(leaves_ms + 18 * HOUR_MS, "clock.corrected", agent, fixed)
        else:
            self._put(leaves_ms, "clock.out", agent, ev.ClockOut(agent=agent, shift_id=shift))
        return True

    @staticmethod
    def _known(member: Member, at_ms: int) -> int:
        """That moment, but not before the person is known."""
        return max(at_ms, local_ms(member.joins, member.zone, 6) + MINUTE_MS)

    def _excuse(self, member: Member, shift: str, starts_ms: int) -> None:
        rng = self._stream("exemptions")
        if rng.random() < 0.25:
            data = ev.ExemptionGranted(
                agent=member.id,
                exemption_id=f"ex-{shift}",
                incident=shift,
                reason="the underground stood still",
                by=f"head-{member.department.name}",
            )
            self._put(starts_ms + rng.randrange(4, 60) * HOUR_MS, "exemption.granted", member.id, data)

    def _leave(self, member: Member, day: date, starts_ms: int) -> bool:
        """Whether a leave begins on this day: asked for three days before, and mostly approved."""
        rng = self._stream("leave")
        if rng.random() >= 0.012:
            return False
        kinds: tuple[LeaveKind, ...] = (
            "personal",
            "sick",
            "annual",
            "annual",
            "annual",
            "marriage",
            "bereavement",
        )
        last = day + timedelta(days=rng.randrange(5))
        common = {"leave_id": self._next("leave"), "agent": member.id, "kind": rng.choice(kinds)}
        days = {"first_day": day.isoformat(), "last_day": last.isoformat()}
        asked_ms, answered = self._known(member, starts_ms - 3 * DAY_MS), rng.random()
        boss = f"head-{member.department.name}"
        self._put(asked_ms, "leave.requested", member.id, ev.LeaveRequested(**common, **days))  # type: ignore[arg-type]
        if answered < 0.1:
            data: Payload = ev.LeaveRejected(**common, **days, by=boss, reason="the rota is thin")  # type: ignore[arg-type]
            self._put(asked_ms + 5 * HOUR_MS, "leave.rejected", member.id, data)
            return False
        # One in ten is approved only afterwards.
        approved_ms = asked_ms + (HOUR_MS if answered < 0.9 else 4 * DAY_MS)
        data = ev.LeaveApproved(**common, **days, by=boss)  # type: ignore[arg-type]
        self._put(approved_ms, "leave.approved", member.id, data)
        member.away_until = last + timedelta(days=1)
        return True

    # --- work ---------------------------------------------------------------------------------------------------------

    def _calls(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        rng = self._stream("calls")
        queue = f"{member.site}-{member.department.name}"
        for _ in range(rng.randrange(1, 5)):
            at_ms = rng.randrange(starts_ms, ends_ms - HOUR_MS, MINUTE_MS)
            wait_ms = round(rng.expovariate(1 / (95_000 * member.manners**0.5)))
            talk_ms = round(rng.lognormvariate(0, 0.5) * 180) * SECOND_MS
            call = self._next("call")
            self._put(
                at_ms,
                "call.answered",
                member.id,
                ev.CallAnswered(
                    agent=member.id, queue=queue, call_id=call, wait_ms=wait_ms, rings=rng.randrange(5)
                ),
            )
            self._put(
                at_ms + talk_ms + MINUTE_MS,
                "call.completed",
                member.id,
                ev.CallCompleted(
                    agent=member.id, queue=queue, call_id=call, talk_ms=talk_ms, wrap_ms=MINUTE_MS
                ),
            )
            if rng.random() < 0.22:
                self._survey(member, rng, at_ms + talk_ms + HOUR_MS, queue)

    def _survey(self, member: Member, rng: Random, at_ms: int, queue: str) -> None:
        data = ev.SurveyCustomer(
            agent=member.id,
            queue=queue,
            survey_id=self._next("survey"),
            satisfaction=_satisfaction(rng, 0.075 * member.manners),
            channel="call_back" if rng.random() < 0.2 else "survey",
        )
        self._put(at_ms, "survey.customer", member.id, data)

    def _requests(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        """A request, answered mostly in time, sometimes never; and a task with its due time."""
        rng = self._stream("requests")
        agent = member.id
        if rng.random() < 0.6:
            ticket = self._next("ticket")
            service, limit_min = rng.choice((("enquiry", 30), ("urgent", 10), ("repair", 60), ("order", 30)))
            at_ms = rng.randrange(starts_ms, ends_ms - 2 * HOUR_MS, MINUTE_MS)
            due_at = moment(at_ms + 2 * HOUR_MS) if rng.random() < 0.06 else None
            self._put(
                at_ms,
                "ticket.opened",
                agent,
                ev.TicketOpened(agent=agent, ticket_id=ticket, service=service, due_at=due_at),
            )
            pace, answer = (
                rng.random(),
                ev.TicketFirstResponse(agent=agent, ticket_id=ticket, service=service),
            )
            tardy = pace < 0.05 * member.care
            answered_ms = (
                at_ms + round(limit_min * (rng.uniform(1.0, 3.0) if tardy else rng.random())) * MINUTE_MS
            )
            if pace < 0.985:
                self._put(answered_ms, "ticket.first_response", agent, answer)
                done = ev.TicketResolved(
                    agent=agent, ticket_id=ticket, service=service, handling_ms=answered_ms + HOUR_MS - at_ms
                )
                self._put(answered_ms + HOUR_MS, "ticket.resolved", agent, done)
        if rng.random() < 0.22:
            task, due_ms = self._next("task"), starts_ms + rng.randrange(1, 9) * DAY_MS
            self._put(
                starts_ms + HOUR_MS,
                "task.assigned",
                agent,
                ev.TaskAssigned(agent=agent, task_id=task, due_at=moment(due_ms)),
            )
            pace = rng.random()
            done_ms = due_ms - round(rng.random() * DAY_MS * 0.9)
            if pace < 0.05 * member.care:
                done_ms = due_ms + round(rng.random() * 3 * DAY_MS) + SECOND_MS
            if pace < 0.98:
                self._put(done_ms, "task.completed", agent, ev.TaskCompleted(agent=agent, task_id=task))

    def _complaints(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        """A complaint with its course: answered, settled or dismissed, found right, and how the customer liked it."""
        rng = self._stream("complaints")
        if rng.random() >= 0.05 * member.manners:
            return
        # A few name no agent: they are their queue's.
        agent, queue = member.id, f"{member.site}-{member.department.name}"
        if rng.random() < 0.06:
            agent = ""
        who = agent or queue
        at_ms = rng.randrange(starts_ms, ends_ms, MINUTE_MS)
        severity = rng.choice(("minor", "minor", "major", "critical"))
        common = {
            "agent": agent,
            "queue": queue,
            "site": "" if agent else member.site,
            "complaint_id": self._next("complaint"),
            "severity": severity,
        }
        self._put(at_ms, "complaint.logged", who, ev.ComplaintLogged(**common))  # type: ignore[arg-type]
        answered_ms = at_ms + round(rng.expovariate(1 / (90 * member.care))) * MINUTE_MS
        way = rng.random()
        if way < 0.97:
            self._put(answered_ms, "complaint.responded", who, ev.ComplaintResponded(**common))  # type: ignore[arg-type]
        if way < 0.15:
            dropped = ev.ComplaintDismissed(**common, reason="nothing was wrong")  # type: ignore[arg-type]
            self._put(at_ms + rng.randrange(1, 100) * HOUR_MS, "complaint.dismissed", who, dropped)
            return
        settled_ms = answered_ms + round(rng.expovariate(1 / (30 * member.care))) * HOUR_MS
        if way < 0.95:
            settled = ev.ComplaintResolved(**common, handling_ms=settled_ms - at_ms)  # type: ignore[arg-type]
            self._put(settled_ms, "complaint.resolved", who, settled)
        if way < 0.75:
            blame = rng.random()
            right = ev.ComplaintUpheld(**common, bad_attitude=blame < 0.1, improper_handling=blame > 0.85)  # type: ignore[arg-type]
            self._put(settled_ms + 20 * HOUR_MS, "complaint.upheld", who, right)
        if way < 0.60:
            liked = ev.SurveyComplaintFollowUp(
                agent=agent,
                queue=queue,
                site=common["site"],
                complaint_id=common["complaint_id"],
                satisfaction=_satisfaction(rng, 0.15 * member.manners),
            )
            self._put(settled_ms + 2 * DAY_MS, "survey.complaint_follow_up", who, liked)

    def _small_things(self, member: Member, starts_ms: int) -> None:
        """Mistakes, what colleagues and other departments say, audits of the reception flow."""
        rng = self._stream("small things")
        agent = member.id
        mistake, colleague, other, audit = (rng.random() for _ in range(4))
        if mistake < 0.045 * member.care:
            wrong = ev.ErrorRecorded(agent=agent, error_id=self._next("error"), severity="minor")
            self._put(starts_ms + 3 * HOUR_MS, "error.recorded", agent, wrong)
        if colleague < 0.18:
            said = ev.SurveyColleague(
                agent=agent,
                by=f"e-{rng.randrange(1, 300):03d}",
                satisfaction=_satisfaction(rng, 0.1 * member.manners),
            )
            self._put(starts_ms + 4 * HOUR_MS, "survey.colleague", agent, said)
        if other < 0.03:
            ratings: tuple[Rating, ...] = ("excellent", "good", "good", "fair", "poor")
            rated = ev.SurveyCrossDepartment(
                agent=agent, by=rng.choice(DEPARTMENTS).name, rating=rng.choice(ratings)
            )
            self._put(starts_ms + 5 * HOUR_MS, "survey.cross_department", agent, rated)
        if audit < 0.05 and "front-desk" in member.department.packs:
            followed = 12 - min(12, round(rng.expovariate(1 / member.care) * 0.6))
            audited = ev.FlowAudited(
                agent=agent,
                audit_id=self._next("audit"),
                steps_checked=12,
                steps_followed=followed,
                by="quality",
            )
            self._put(starts_ms + 6 * HOUR_MS, "flow.audited", agent, audited)

    def _learning(self, member: Member, starts_ms: int) -> None:
        """A training to attend, mostly with a date; afterwards sometimes a judgement of growth."""
        rng = self._stream("learning")
        if rng.random() >= 0.06:
            return
        agent, course = member.id, rng.choice(("flow", "products", "manners"))
        training, limit_days = self._next("training"), rng.randrange(3, 21)
        due_at = moment(starts_ms + limit_days * DAY_MS) if rng.random() < 0.8 else None
        assigned = ev.TrainingAssigned(agent=agent, training_id=training, course=course, due_at=due_at)
        self._put(starts_ms + HOUR_MS, "training.assigned", agent, assigned)
        way = rng.random()
        if way < 0.06 * member.care:
            return
        attended_ms = starts_ms + HOUR_MS + round(rng.random() * (limit_days - 1) * 24) * HOUR_MS
        attended = ev.TrainingAttended(agent=agent, training_id=training, course=course)
        self._put(attended_ms, "training.attended", agent, attended)
        if way > 0.4:
            growths: tuple[Growth | None, ...] = (None, None, None, "marked", "some", "little", "none")
            score = rng.randrange(4000, 10_001, 50)
            judged = ev.TrainingAssessed(
                agent=agent,
                training_id=training,
                course=course,
                score=score,
                passed=score >= 6000,
                growth=rng.choice(growths),
            )
            self._put(attended_ms + 26 * HOUR_MS, "training.assessed", agent, judged)

    # --- sites --------------------------------------------------------------------------------------------------------

    def _inspections(self, day: date) -> None:
        """Each site's areas are inspected every ten days and patrolled once a month, unless somebody forgets."""
        rng = self._stream("inspections")
        for site, zone in SITES.items():
            kinds: tuple[Literal["area", "patrol"], ...] = ()
            if day.day in (5, 15, 25):
                kinds = ("area",)
            if day.day == 18:
                kinds = ("patrol",)
            for kind in kinds:
                if rng.random() < 0.3:
                    continue
                data = ev.AreaInspected(
                    site=site, area="lobby", score=rng.randrange(7000, 10_001, 50), kind=kind, by="quality"
                )
                self._put(local_ms(day, ZoneInfo(zone), 15), "area.inspected", site, data)


def _satisfaction(rng: Random, discontent: float) -> Satisfaction:
    """How content somebody is; ``discontent`` is the share of those who are not."""
    chance = rng.random()
    if chance < discontent:
        return "dissatisfied" if chance < discontent / 2 else "neutral"
    return "very_satisfied" if chance > 0.5 else "satisfied"
