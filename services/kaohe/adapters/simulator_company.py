"""A whole company made up from a seed: departments, sites in two time zones, months of work, and what is said about it.

Theory of operation. Where ``simulator`` shows the traffic of one floor second by second, this one tells the slow story
that appraisal is about, with few events for each person and day: complaints with their whole course, surveys, tasks,
mistakes, trainings, audits, inspections, pay, and people who join, move to another department or site, or leave. Who
works when, comes, logs in and is on leave is ``simulator_rota``; what is said about people when a month is over
(assessments, results, appeals, the steps of the calendar) is ``simulator_appraisal``.

Calls and requests are a *sample*, about one call a shift and a request on two days of three: enough for every monthly
quotient, and far less than a telephone system would tell. Now and then there is a rush, an hour in which one to three
people of a department do nothing but take calls: too many, too long ones, or so few that they were not needed. Only
then they are ready for calls; the rest of the day they are logged in for other work.

``_Company`` goes through the days. What a day starts is drawn at once and put into a heap by the moment at which it
*arrives*: nearly always when it happens; sometimes seconds or minutes later, and what people fill in by hand sometimes
days later, after the month was closed. Some events arrive twice. Clock, roster and pay arrive when they happen. All
moments are whole seconds. Each family of events has a random generator of its own, seeded from ``seed`` and the
family's name, so that the same arguments give the same events byte for byte.

Work is done inside of the months alone; what follows from it (an answer, an assessment, the last month's results) may
come until ``AFTER_DAYS`` after them, and nothing comes later.
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
from kaohe.adapters.simulator_appraisal import SAID, Appraisals, Incident, Member
from kaohe.adapters.simulator_rota import Rota
from kaohe.adapters.simulator_work import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, moment
from kaohe.adapters.simulator_world import local_ms
from kaohe.errors import UsageError
from kaohe.events import ENVELOPES, Envelope, Growth, Payload, Rating, Satisfaction

FIRST_MONTH = date(2025, 12, 1)
MAX_PEOPLE = 2_000
MAX_MONTHS = 36
AFTER_DAYS = 13
"""How long after the last month its appraisal goes on."""
SITES = {"shanghai": "Asia/Shanghai", "berlin": "Europe/Berlin"}
"""The company's sites and their time zones; the second one has a daylight-saving change."""
MOVING_DAYS = range(12, 21)
"""The days of a month on which people change department or site: when the month before is settled."""


class Department(msgspec.Struct, frozen=True):
    """A department: the policies its people are under, and how many of each hundred people work in it.

    ``public_days`` says that it works by a rota on the public calendar's working days alone, ``office_hours`` that its
    hours are those of an office and no shifts are told. All others work by a rota on any day.
    """

    name: str
    packs: tuple[str, ...]
    share: int
    leader: str = "deputy-operations"
    public_days: bool = False
    office_hours: bool = False


EVERYBODY = ("company-kpi", "full-attendance")
DEPARTMENTS = (
    Department("front-desk", ("front-desk", *EVERYBODY), 24),
    Department("logistics", ("logistics-service", *EVERYBODY), 24, public_days=True),
    Department("hotline", ("front-desk", "logistics-service", *EVERYBODY), 28),
    Department("reception", ("reception", *EVERYBODY), 10),
    Department("back-office", ("logistics-service", *EVERYBODY), 14, "deputy-support", office_hours=True),
)
ASSESSORS = {"quality-1": 1, "quality-2": 0, "quality-3": 2, "quality-4": -12}
"""Who scores monitored calls, and by how many points of a hundred each is kinder than a fair judge."""
TASKS = ("work", "cooperation", "development", "improvement", "key")
RUSHES = ((540, 60), (600, 5), (700, 90), (60, 240), (180, 120))
"""For how long a call of a rush is talked about, and until the next one comes (s)."""
RUSH_SHARE = 0.03
"""How likely a rush is in each department of each site on a day."""


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
    {"survey.colleague", "survey.cross_department", "survey.customer", "complaint.upheld", "error.recorded",
     "flow.audited", "task.completed", "training.attended", "training.assessed"}
)  # fmt: skip
"""What people write down; the rest comes from systems."""
PUNCTUAL = frozenset({"roster.changed", "pay.stated", "department.changed", "hours.assigned"}) | SAID
"""What never comes late or twice: the frame in which the rest is judged, and what is said about a month."""


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
        end = self._end + timedelta(days=AFTER_DAYS)
        self._end_ms = min(local_ms(end, ZoneInfo(zone)) for zone in SITES.values())
        self._staff = self._hire(people, months)
        self._appraisals = Appraisals(self._staff, [(one.name, one.leader) for one in DEPARTMENTS], self)
        self._rota = Rota(self._staff, self, self._end)

    def stream(self, name: str) -> Random:
        """The random numbers of one family of events."""
        rng = self._streams.get(name)
        if rng is None:
            rng = self._streams[name] = Random(f"{self._seed}/company/{name}")
        return rng

    def next(self, kind: str) -> str:
        """A name that nothing else of this kind has."""
        self._numbers[kind] = number = self._numbers.get(kind, 0) + 1
        return f"{kind}-{number}"

    def put(
        self, at_ms: int, tag: str, subject: str, data: Payload, told_ms: int | None = None
    ) -> tuple[str, int]:
        """Let an event happen at ``at_ms``, and arrive then or later; its id, and how much later (ms).

        ``told_ms`` is when people came to tell it, if they did not at once and may do so.
        """
        at_ms -= at_ms % SECOND_MS
        if at_ms >= self._end_ms:
            return "", 0
        envelope = ENVELOPES[tag](
            id=self.next(tag), source=f"company-{self._seed}", subject=subject, time=moment(at_ms), data=data
        )
        arrives_ms = at_ms
        if told_ms is not None and self._delays.by_hand_share:
            arrives_ms = told_ms - told_ms % SECOND_MS
        if tag not in PUNCTUAL:
            delays, rng = self._delays, self.stream("delays")
            by_hand, chance, delay = rng.random(), rng.random(), rng.random()
            if tag in BY_HAND and by_hand < delays.by_hand_share:
                arrives_ms += round(delay * delays.by_hand_s) * SECOND_MS
            elif chance < delays.late_share:
                arrives_ms += round(delay * delays.late_s) * SECOND_MS
            elif chance < delays.late_share + delays.duplicate_share:
                self._push(at_ms + round(delay * delays.late_s) * SECOND_MS, envelope)
        self._push(arrives_ms, envelope)
        return envelope.id, arrives_ms - at_ms

    def _push(self, at_ms: int, envelope: Envelope) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ms, self._sequence, envelope))

    def events(self) -> Iterator[Envelope]:
        """Everything, by the moment at which it arrives."""
        for member in self._staff:
            self._enrol(member)
        self._appraisals.begin(self._start)
        day = self._start
        while day < self._end:
            self._rota.swaps(day)
            present = [(member, *hours) for member in self._staff for hours in self._day(member, day)]
            self._rushes(present)
            self._inspections(day)
            day += timedelta(days=1)
            if day.day == 1:
                self._appraisals.month(month_after(day, -1), day)
            # What is drawn for a day reaches back no further than to the asking for leave.
            yield from self._until(local_ms(day, ZoneInfo(SITES["shanghai"])) - LOOK_BACK_MS)
        yield from self._until(self._end_ms)

    def _until(self, at_ms: int) -> Iterator[Envelope]:
        while self._heap and self._heap[0][0] <= at_ms:
            yield heapq.heappop(self._heap)[2]

    # --- people -------------------------------------------------------------------------------------------------------

    def _hire(self, people: int, months: int) -> list[Member]:
        rng = self.stream("people")
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
                    department=(department := seats[index * len(seats) // people]).name,
                    packs=department.packs,
                    leader=department.leader,
                    public_days=department.public_days,
                    office_hours=department.office_hours,
                    site=site,
                    zone=ZoneInfo(SITES[site]),
                    hired=joins - timedelta(days=rng.randrange(30, 3000) if joins == self._start else 0),
                    joins=joins,
                    leaves=leaves,
                    pay_minor=rng.randrange(3000, 16000, 50) * 100 + rng.randrange(100),
                    annual=rng.random() < 0.1,
                    care=min(4.0, rng.lognormvariate(-0.1, 0.6)),
                    manners=min(4.0, rng.lognormvariate(-0.1, 0.6)),
                    punctuality=min(5.0, rng.lognormvariate(-0.2, 0.7)),
                    skill=min(0.97, max(0.55, rng.gauss(0.9, 0.07))),
                    away_until=date.min,
                )
            )
        return staff

    def _roster(self, member: Member, at_ms: int, left_on: date | None = None) -> None:
        data = ev.RosterChanged(
            agent=member.id,
            team=member.department,
            department=member.department,
            site=member.site,
            position="agent",
            superior=member.superior,
            leader=member.leader,
            hired_on=member.hired.isoformat(),
            left_on=left_on.isoformat() if left_on else None,
            pay_base_minor=member.pay_minor,
            packs=list(member.packs),
        )
        self.put(at_ms, "roster.changed", member.id, data)

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
            self.put(begins_ms + HOUR_MS, "pay.stated", member.id, data)
        self._rota.assign(member, member.joins, begins_ms)

    def _moves(self, member: Member, day: date) -> None:
        """Some change the department, others the site, at seven in the morning of a day after a free one."""
        rng = self.stream("moves")
        if day.day not in MOVING_DAYS or rng.random() >= 1 / 80:
            return
        before = day - timedelta(days=1)
        if self._rota.works(member, before) or self._rota.is_bound(member, before) or day <= member.joins:
            return
        if rng.random() < 0.4:
            member.site = next(site for site in SITES if site != member.site)
            member.zone = ZoneInfo(SITES[member.site])
        else:
            other = rng.choice([one for one in DEPARTMENTS if one.name != member.department])
            member.department, member.packs, member.leader = other.name, other.packs, other.leader
            member.public_days, member.office_hours = other.public_days, other.office_hours
            self._rota.assign(member, day, local_ms(day, member.zone, 7))
        self._roster(member, local_ms(day, member.zone, 7))

    # --- a day --------------------------------------------------------------------------------------------------------

    def _day(self, member: Member, day: date) -> list[tuple[int, int]]:
        """One person's day; from when to when (ms) the person works on it."""
        if day < member.joins or (member.leaves is not None and day > member.leaves):
            return []
        if day == member.leaves:
            at_ms = local_ms(day, member.zone, 7)
            self._rota.leave(member, day, at_ms)
            self._roster(member, at_ms, left_on=day)
            return []
        self._moves(member, day)
        worked = self._rota.day(member, day)
        if worked:
            starts_ms, ends_ms = worked[0]
            self._calls(member, starts_ms, ends_ms)
            self._requests(member, starts_ms, ends_ms)
            self._complaints(member, starts_ms, ends_ms)
            self._small_things(member, starts_ms)
            self._learning(member, starts_ms)
            self._quality(member, starts_ms)
        return worked

    # --- work ---------------------------------------------------------------------------------------------------------

    def _calls(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        rng = self.stream("calls")
        queue = f"{member.site}-{member.department}"
        for _ in range(rng.choice((0, 1, 1, 2))):
            at_ms = rng.randrange(starts_ms, ends_ms - HOUR_MS, MINUTE_MS)
            wait_ms = round(rng.expovariate(1 / (95_000 * member.manners**0.5)))
            talk_ms = round(rng.lognormvariate(0, 0.5) * 180) * SECOND_MS
            call = self.next("call")
            self.put(
                at_ms,
                "call.answered",
                member.id,
                ev.CallAnswered(
                    agent=member.id,
                    queue=queue,
                    call_id=call,
                    wait_ms=wait_ms,
                    rings=4 if rng.random() < 0.04 * member.care else rng.randrange(4),
                ),
            )
            self.put(
                at_ms + talk_ms + MINUTE_MS,
                "call.completed",
                member.id,
                ev.CallCompleted(
                    agent=member.id, queue=queue, call_id=call, talk_ms=talk_ms, wrap_ms=MINUTE_MS
                ),
            )
            if "reception" in member.packs and rng.random() < 0.15:
                passed_on = ev.CallTransferred(
                    agent=member.id, queue=queue, call_id=call, to="back-office", warm=rng.random() < 0.85
                )
                self.put(at_ms + talk_ms, "call.transferred", member.id, passed_on)
            if rng.random() < 0.45:
                self._survey(member, rng, at_ms + talk_ms + HOUR_MS, queue)

    def _survey(self, member: Member, rng: Random, at_ms: int, queue: str) -> None:
        data = ev.SurveyCustomer(
            agent=member.id,
            queue=queue,
            survey_id=self.next("survey"),
            satisfaction=_satisfaction(rng, 0.075 * member.manners),
            channel="call_back" if rng.random() < 0.2 else "survey",
        )
        self.put(at_ms, "survey.customer", member.id, data)

    def _requests(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        """A request, answered mostly in time, sometimes never; and a task with its due time."""
        rng = self.stream("requests")
        agent = member.id
        if rng.random() < 0.6:
            ticket = self.next("ticket")
            service, limit_min = rng.choice((("enquiry", 30), ("urgent", 10), ("repair", 60), ("order", 30)))
            at_ms = rng.randrange(starts_ms, ends_ms - 2 * HOUR_MS, MINUTE_MS)
            due_at = moment(at_ms + 2 * HOUR_MS) if rng.random() < 0.06 else None
            self.put(
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
            solved_ms = rng.randrange(5, 60) * MINUTE_MS
            if pace < 0.985:
                self.put(answered_ms, "ticket.first_response", agent, answer)
                done = ev.TicketResolved(
                    agent=agent,
                    ticket_id=ticket,
                    service=service,
                    handling_ms=answered_ms + solved_ms - at_ms,
                    first_contact=rng.random() < 0.78,
                )
                self.put(answered_ms + solved_ms, "ticket.resolved", agent, done)
        if rng.random() < 0.2:
            task, due_ms = self.next("task"), starts_ms + rng.randrange(1, 9) * DAY_MS
            kind = rng.choice(TASKS) if "reception" in member.packs else "work"
            self.put(
                starts_ms + HOUR_MS,
                "task.assigned",
                agent,
                ev.TaskAssigned(agent=agent, task_id=task, kind=kind, due_at=moment(due_ms)),
            )
            pace = rng.random()
            done_ms = due_ms - round(rng.random() * DAY_MS * 0.9)
            if pace < 0.05 * member.care:
                done_ms = due_ms + round(rng.random() * 3 * DAY_MS) + SECOND_MS
            if pace < 0.98:
                self.put(
                    done_ms, "task.completed", agent, ev.TaskCompleted(agent=agent, task_id=task, kind=kind)
                )

    def _complaints(self, member: Member, starts_ms: int, ends_ms: int) -> None:
        """A complaint with its course: answered, settled or dismissed, found right, and how the customer liked it."""
        rng = self.stream("complaints")
        if rng.random() >= 0.05 * member.manners:
            return
        # A few name no agent: they are their queue's.
        agent, queue = member.id, f"{member.site}-{member.department}"
        if rng.random() < 0.06:
            agent = ""
        who = agent or queue
        at_ms = rng.randrange(starts_ms, ends_ms, MINUTE_MS)
        severity = rng.choice(("minor", "minor", "major", "critical"))
        common = {
            "agent": agent,
            "queue": queue,
            "site": "" if agent else member.site,
            "complaint_id": self.next("complaint"),
            "severity": severity,
        }
        self._log_complaint(member, rng, at_ms, who, common)
        answered_ms = at_ms + round(rng.expovariate(1 / (90 * member.care))) * MINUTE_MS
        way = rng.random()
        if way < 0.97:
            self.put(answered_ms, "complaint.responded", who, ev.ComplaintResponded(**common))  # type: ignore[arg-type]
        if way < 0.15:
            dropped = ev.ComplaintDismissed(**common, reason="nothing was wrong")  # type: ignore[arg-type]
            self.put(at_ms + rng.randrange(1, 100) * HOUR_MS, "complaint.dismissed", who, dropped)
            return
        settled_ms = answered_ms + round(rng.expovariate(1 / (30 * member.care))) * HOUR_MS
        if way < 0.95:
            settled = ev.ComplaintResolved(**common, handling_ms=settled_ms - at_ms)  # type: ignore[arg-type]
            self.put(settled_ms, "complaint.resolved", who, settled)
        if way < 0.75:
            blame = rng.random()
            right = ev.ComplaintUpheld(**common, bad_attitude=blame < 0.1, improper_handling=blame > 0.85)  # type: ignore[arg-type]
            self.put(settled_ms + 20 * HOUR_MS, "complaint.upheld", who, right)
        if way < 0.60:
            liked = ev.SurveyComplaintFollowUp(
                agent=agent,
                queue=queue,
                site=common["site"],
                complaint_id=common["complaint_id"],
                satisfaction=_satisfaction(rng, 0.15 * member.manners),
            )
            self.put(settled_ms + 2 * DAY_MS, "survey.complaint_follow_up", who, liked)

    def _log_complaint(
        self, member: Member, rng: Random, at_ms: int, who: str, common: dict[str, str]
    ) -> None:
        """A difficult complaint is handed to the superior with a promised time; a few records have gaps."""
        difficult, way = common["severity"] != "minor", rng.random()
        complete = way > 0.12 or not difficult
        logged = ev.ComplaintLogged(
            **common,  # type: ignore[arg-type]
            complete=complete,
            handed_to=member.superior if difficult and way > 0.06 else "",
            promised_at=moment(at_ms + rng.randrange(4, 30) * HOUR_MS) if difficult and way > 0.5 else None,
        )
        self.put(at_ms, "complaint.logged", who, logged)
        if complete or not common["agent"]:
            return
        if rng.random() < 0.2:
            excused = ev.ExemptionGranted(
                agent=who,
                exemption_id=f"ex-{logged.complaint_id}",
                incident=logged.complaint_id,
                reason="the form was out of order",
                by=member.superior,
            )
            self.put(at_ms + 2 * DAY_MS, "exemption.granted", who, excused)
            return
        self._appraisals.note(
            Incident(who, member.zone, at_ms, "company-kpi", "ck-record-incomplete", logged.complaint_id)
        )

    def _small_things(self, member: Member, starts_ms: int) -> None:
        """Mistakes, what colleagues and other departments say, audits of the reception flow."""
        rng = self.stream("small things")
        agent = member.id
        mistake, colleague, other, audit = (rng.random() for _ in range(4))
        if mistake < 0.045 * member.care:
            # Most mistakes are small; one of a hundred is so grave that it decides the month.
            grave = self.stream("gravity").random()
            wrong = ev.ErrorRecorded(
                agent=agent,
                error_id=self.next("error"),
                severity="critical" if grave < 0.01 else "major" if grave < 0.1 else "minor",
            )
            self.put(starts_ms + 3 * HOUR_MS, "error.recorded", agent, wrong)
        if colleague < 0.18:
            said = ev.SurveyColleague(
                agent=agent,
                by=f"e-{rng.randrange(1, 300):03d}",
                satisfaction=_satisfaction(rng, 0.1 * member.manners),
            )
            self.put(starts_ms + 4 * HOUR_MS, "survey.colleague", agent, said)
        if other < 0.05:
            ratings: tuple[Rating, ...] = ("excellent", "good", "good", "fair", "poor")
            rated = ev.SurveyCrossDepartment(
                agent=agent, by=rng.choice(DEPARTMENTS).name, rating=rng.choice(ratings)
            )
            at_ms = starts_ms + 5 * HOUR_MS
            event_id, late_ms = self.put(at_ms, "survey.cross_department", agent, rated)
            if rated.rating == "poor" and "logistics-service" in member.packs and late_ms < DAY_MS:
                self._appraisals.note(
                    Incident(agent, member.zone, at_ms, "logistics-service", "ls-cooperation", event_id)
                )
        if audit < 0.05 and {"front-desk", "reception"} & set(member.packs):
            followed = 12 - min(12, round(rng.expovariate(1 / member.care) * 0.6))
            audited = ev.FlowAudited(
                agent=agent,
                audit_id=self.next("audit"),
                steps_checked=12,
                steps_followed=followed,
                by="quality",
            )
            self.put(starts_ms + 6 * HOUR_MS, "flow.audited", agent, audited)

    def _learning(self, member: Member, starts_ms: int) -> None:
        """A training to attend, mostly with a date; afterwards sometimes a judgement of growth."""
        rng = self.stream("learning")
        if rng.random() >= 0.06:
            return
        agent, course = member.id, rng.choice(("flow", "products", "manners"))
        training, limit_days = self.next("training"), rng.randrange(3, 21)
        due_at = moment(starts_ms + limit_days * DAY_MS) if rng.random() < 0.8 else None
        assigned = ev.TrainingAssigned(agent=agent, training_id=training, course=course, due_at=due_at)
        self.put(starts_ms + HOUR_MS, "training.assigned", agent, assigned)
        way = rng.random()
        if way < 0.06 * member.care:
            return
        attended_ms = starts_ms + HOUR_MS + round(rng.random() * (limit_days - 1) * 24) * HOUR_MS
        attended = ev.TrainingAttended(agent=agent, training_id=training, course=course)
        self.put(attended_ms, "training.attended", agent, attended)
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
            self.put(attended_ms + 26 * HOUR_MS, "training.assessed", agent, judged)

    def _quality(self, member: Member, starts_ms: int) -> None:
        """Monitored calls, now and then a mystery shopper, and of receptionists the records."""
        rng = self.stream("quality")
        agent, monitored, mystery, record = member.id, rng.random(), rng.random(), rng.random()
        if monitored < 0.12:
            by = rng.choice(tuple(ASSESSORS))
            score = round(rng.gauss(90 - 4 * (member.care - 1), 6) + ASSESSORS[by]) * 100
            heard = ev.QualityEvaluated(
                agent=agent,
                evaluation_id=self.next("evaluation"),
                score=min(10_000, max(0, score)),
                by=by,
            )
            self.put(starts_ms + 4 * HOUR_MS, "quality.evaluated", agent, heard)
        if mystery < 0.015:
            shopped = ev.SurveyMysteryShopper(
                agent=agent, by="agency", score=min(10_000, max(0, round(rng.gauss(86, 8)) * 100))
            )
            self.put(starts_ms + 5 * HOUR_MS, "survey.mystery_shopper", agent, shopped)
        if record < 0.1 and "reception" in member.packs:
            right = 12 - min(12, round(rng.expovariate(1 / member.care) * 0.5))
            audited = ev.RecordAudited(
                agent=agent,
                record_id=self.next("record"),
                fields_checked=12,
                fields_right=right,
                complete=right == 12,
                by="quality",
            )
            self.put(starts_ms + 6 * HOUR_MS, "record.audited", agent, audited)

    def _rushes(self, present: list[tuple[Member, int, int]]) -> None:
        """Now and then, in one department of one site, a few people do nothing but take calls for an hour."""
        rng = self.stream("rushes")
        desks: dict[tuple[str, str], list[tuple[Member, int, int]]] = {}
        for one in present:
            desks.setdefault((one[0].department, one[0].site), []).append(one)
        for desk in desks.values():
            if rng.random() >= RUSH_SHARE:
                continue
            _, starts_ms, ends_ms = rng.choice(desk)
            if ends_ms - starts_ms < 3 * HOUR_MS:
                continue
            begins_ms = rng.randrange(starts_ms + 20 * MINUTE_MS, ends_ms - 100 * MINUTE_MS, SECOND_MS)
            until_ms, pace = begins_ms + rng.randrange(50, 85) * MINUTE_MS, rng.choice(RUSHES)
            here = [
                one for one, first, last in desk if first + HOUR_MS // 3 <= begins_ms and until_ms <= last
            ]
            for member in here[: rng.choice((1, 1, 2, 3))]:
                self._rush(member, begins_ms, until_ms, pace)

    def _rush(self, member: Member, begins_ms: int, until_ms: int, pace: tuple[int, int]) -> None:
        rng, queue = self.stream("rushes"), f"{member.site}-{member.department}"
        self.put(begins_ms, "agent.ready", member.id, ev.AgentReady(agent=member.id))
        at_ms = begins_ms
        while at_ms < until_ms:
            call, talk_ms = self.next("call"), round(pace[0] * rng.uniform(0.9, 1.1)) * SECOND_MS
            answered = ev.CallAnswered(
                agent=member.id, queue=queue, call_id=call, wait_ms=rng.randrange(300) * SECOND_MS,
                rings=rng.randrange(4),
            )  # fmt: skip
            self.put(at_ms, "call.answered", member.id, answered)
            at_ms += talk_ms
            done = ev.CallCompleted(agent=member.id, queue=queue, call_id=call, talk_ms=talk_ms)
            self.put(at_ms, "call.completed", member.id, done)
            at_ms += pace[1] * SECOND_MS
        if rng.random() < 0.9:  # some stay ready for what does not come
            done_with = ev.AgentNotReady(agent=member.id, reason="other work")
            self.put(at_ms, "agent.not_ready", member.id, done_with)

    # --- sites --------------------------------------------------------------------------------------------------------

    def _inspections(self, day: date) -> None:
        """Each site's areas are inspected every ten days and patrolled once a month, unless somebody forgets."""
        rng = self.stream("inspections")
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
                self.put(local_ms(day, ZoneInfo(zone), 15), "area.inspected", site, data)


def _satisfaction(rng: Random, discontent: float) -> Satisfaction:
    """How content somebody is; ``discontent`` is the share of those who are not."""
    chance = rng.random()
    if chance < discontent:
        return "dissatisfied" if chance < discontent / 2 else "neutral"
    return "very_satisfied" if chance > 0.5 else "satisfied"
