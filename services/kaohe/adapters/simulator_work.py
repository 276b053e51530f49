"""What follows from the work of a simulated contact centre, and what happens beside it.

``Outbox`` holds the events that are still to come, in order of time; everything that starts now and ends later (a
ticket, a complaint, a training) puts its whole course there at once. ``Desk`` draws the courses. Each family of events
has a random generator of its own, so that changing one family leaves the others as they were.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any, Literal

from kaohe import events as ev
from kaohe.adapters.simulator_world import CLOSE_HOUR, OPEN_HOUR, Person, Service, Shift, World
from kaohe.events import ENVELOPES, Envelope, Growth, LeaveKind, Payload, Priority, Rating, Satisfaction

SECOND_MS = 1000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

Severity = Literal["minor", "major", "critical"]
_SEVERITIES: tuple[Severity, ...] = ("minor", "minor", "minor", "major", "critical")

_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_SYSTEMS = {
    "call": "acd", "agent": "acd", "ticket": "crm", "complaint": "crm", "survey": "crm", "promise": "crm",
    "task": "hr", "error": "quality", "record": "quality", "quality": "quality", "flow": "quality", "area": "quality",
    "shift": "hr", "clock": "hr", "leave": "hr", "exemption": "hr", "training": "hr", "certificate": "hr",
    "cost": "finance", "budget": "finance", "roster": "hr", "pack": "hr",
}  # fmt: skip
"""Which system reports an event, by the first part of its type."""


def moment(at_ms: int) -> datetime:
    """Milliseconds since 1970 as a moment."""
    return _ORIGIN + timedelta(milliseconds=at_ms)


class Outbox:
    """The events to come before ``end_ms``, handed out in order of time; what lies beyond the end is dropped."""

    def __init__(self, seed: int, end_ms: int) -> None:
        self._end_ms = end_ms
        self._heap: list[tuple[int, int, Envelope]] = []
        self._sequence = 0
        self._sources = {tag: f"sim-{seed}/{_SYSTEMS.get(tag.partition('.')[0], 'acd')}" for tag in ENVELOPES}

    def put(self, at_ms: int, tag: str, ident: str, subject: str, data: Payload) -> None:
        """Let an event happen at ``at_ms``."""
        if at_ms >= self._end_ms:
            return
        self._sequence += 1
        envelope = ENVELOPES[tag](
            id=ident, source=self._sources[tag], subject=subject, time=moment(at_ms), data=data
        )
        heapq.heappush(self._heap, (at_ms, self._sequence, envelope))

    def until(self, at_ms: int) -> Iterator[Envelope]:
        """The events up to and with ``at_ms``."""
        heap = self._heap
        while heap and heap[0][0] <= at_ms:
            yield heapq.heappop(heap)[2]


class Desk:
    """Draws what follows from calls and what a working day brings."""

    def __init__(self, seed: int, world: World, outbox: Outbox) -> None:
        self._seed = seed
        self._world = world
        self._put = outbox.put
        self._streams: dict[str, Random] = {}
        self._numbers: dict[str, int] = {}
        self._customers: dict[int, str] = {}
        self._open_ms = 0
        self._close_ms = 0

    def begin_day(self, midnight_ms: int) -> None:
        """Office hours of the day that begins at ``midnight_ms``."""
        self._open_ms = midnight_ms + OPEN_HOUR * HOUR_MS
        self._close_ms = midnight_ms + CLOSE_HOUR * HOUR_MS

    def stream(self, name: str) -> Random:
        """The random generator of one family of events."""
        rng = self._streams.get(name)
        if rng is None:
            rng = self._streams[name] = Random(f"{self._seed}/{name}")
        return rng

    def customer(self, number: int) -> str:
        """A customer's pseudonym; there are as many as the callers' numbers allow."""
        known = self._customers.get(number)
        if known is None:
            digest = blake2b(f"{self._seed}/{number}".encode(), digest_size=8).hexdigest()
            known = self._customers[number] = f"c-{digest}"
        return known

    def _next(self, kind: str) -> str:
        number = self._numbers.get(kind, 0) + 1
        self._numbers[kind] = number
        return f"{kind}-{number}"

    def _office(self, at_ms: int) -> int:
        """That moment when only office hours count from the close of today on."""
        if at_ms <= self._close_ms:
            return at_ms
        length = self._close_ms - self._open_ms
        days, rest = divmod(at_ms - self._close_ms, length)
        return self._open_ms + (days + 1) * DAY_MS + rest

    # --- after a call ---

    def after_call(
        self, at_ms: int, person: Person, service: Service, call: str, customer: str, talk_ms: int
    ) -> None:
        """What a finished call brings: a request, a complaint, a survey, a promise, a mistake, a check."""
        if self.stream("tickets").random() < 0.30:
            self._ticket(at_ms, person, service, customer, talk_ms)
        if self.stream("complaints").random() < 0.004 * person.manners:
            self._complaint(at_ms, person, customer)
        if self.stream("surveys").random() < 0.12:
            self._survey(at_ms, person, call, customer)
        if self.stream("promises").random() < 0.03:
            self._promise(at_ms, person, customer)
        if self.stream("errors").random() < 0.006 * person.care:
            rng = self.stream("errors")
            error = self._next("error")
            severity: Severity = rng.choice(_SEVERITIES)
            data = ev.ErrorRecorded(
                agent=person.id,
                error_id=error,
                work_id=call,
                severity=severity,
                category=rng.choice(("data", "advice")),
            )
            self._put(self._office(at_ms + rng.randrange(HOUR_MS)), "error.recorded", error, person.id, data)
        self._checks(at_ms, person, call)

    def _checks(self, at_ms: int, person: Person, call: str) -> None:
        rng = self.stream("checks")
        chance = rng.random()
        later = at_ms + 10 * MINUTE_MS
        agent = person.id
        if chance < 0.020:
            right = sum(rng.random() > 0.02 * person.care for _ in range(12))
            record = self._next("record")
            audit = ev.RecordAudited(
                agent=agent,
                record_id=record,
                fields_checked=12,
                fields_right=right,
                complete=right == 12,
                by="qa-1",
            )
            self._put(later, "record.audited", record, agent, audit)
        elif chance < 0.030:
            evaluation = self._next("evaluation")
            quality = ev.QualityEvaluated(
                agent=agent, evaluation_id=evaluation, call_id=call, score=_score(rng, person.care), by="qa-2"
            )
            self._put(later, "quality.evaluated", evaluation, agent, quality)
        elif chance < 0.034:
            followed = sum(rng.random() > 0.03 * person.care for _ in range(10))
            flow = self._next("flow")
            data = ev.FlowAudited(
                agent=agent, audit_id=flow, steps_checked=10, steps_followed=followed, by="qa-1"
            )
            self._put(later, "flow.audited", flow, agent, data)

    def _ticket(self, at_ms: int, person: Person, service: Service, customer: str, talk_ms: int) -> None:
        rng = self.stream("tickets")
        ticket = self._next("ticket")
        agent = person.id
        urgent = service.name == "urgent"
        priority: Priority = "urgent" if urgent else rng.choice(("high", "normal", "normal", "normal", "low"))
        common: dict[str, Any] = {
            "agent": agent, "ticket_id": ticket, "customer": customer, "service": service.name, "priority": priority,
        }  # fmt: skip
        due = moment(at_ms + 4 * HOUR_MS) if service.name == "order" and rng.random() < 0.1 else None
        self._put(at_ms, "ticket.opened", f"{ticket}-opened", agent, ev.TicketOpened(**common, due_at=due))
        at_once = rng.random() < 0.55 / max(0.7, person.care)
        if at_once:
            responded = at_ms + SECOND_MS
            resolved = responded + SECOND_MS
        else:
            minutes = service.first_response_min * person.care**0.5 * rng.lognormvariate(-0.6, 0.6)
            responded = self._office(at_ms + round(minutes * MINUTE_MS))
            resolved = self._office(responded + round(rng.expovariate(1 / (5 * HOUR_MS))))
        self._put(
            responded, "ticket.first_response", f"{ticket}-response", agent, ev.TicketFirstResponse(**common)
        )
        spent_ms = talk_ms if at_once else talk_ms + rng.randrange(2, 40) * MINUTE_MS
        data = ev.TicketResolved(**common, first_contact=at_once, handling_ms=spent_ms)
        self._put(resolved, "ticket.resolved", f"{ticket}-resolved", agent, data)
        if rng.random() < 0.04 * person.care:
            reopened = self._office(resolved + rng.randrange(2 * HOUR_MS, 2 * DAY_MS))
            resolved = self._office(reopened + rng.randrange(HOUR_MS, 12 * HOUR_MS))
            self._put(reopened, "ticket.reopened", f"{ticket}-reopened", agent, ev.TicketReopened(**common))
            again = ev.TicketResolved(**common, handling_ms=spent_ms)
            self._put(resolved, "ticket.resolved", f"{ticket}-resolved-again", agent, again)
        if rng.random() < 0.9:
            closed = resolved + rng.randrange(12 * HOUR_MS, 3 * DAY_MS)
            self._put(closed, "ticket.closed", f"{ticket}-closed", agent, ev.TicketClosed(**common))

    def _complaint(self, at_ms: int, person: Person, customer: str) -> None:
        rng = self.stream("complaints")
        complaint = self._next("complaint")
        agent = person.id
        severity: Severity = rng.choice(_SEVERITIES)
        common: dict[str, Any] = {
            "agent": agent,
            "complaint_id": complaint,
            "customer": customer,
            "severity": severity,
        }
        logged = at_ms + rng.randrange(MINUTE_MS, 4 * HOUR_MS)
        logged = self._office(logged)
        hard = severity != "minor"
        data = ev.ComplaintLogged(
            **common,
            category=rng.choice(("wait", "attitude", "wrong advice", "delivery")),
            promised_at=moment(logged + DAY_MS) if hard else None,
            handed_to=person.superior if hard else "",
            complete=rng.random() > 0.05 * person.care,
        )
        self._put(logged, "complaint.logged", f"{complaint}-logged", agent, data)
        responded = self._office(logged + round(rng.lognormvariate(0.0, 0.8) * person.care**0.5 * HOUR_MS))
        self._put(
            responded, "complaint.responded", f"{complaint}-responded", agent, ev.ComplaintResponded(**common)
        )
        resolved = self._office(responded + round(rng.lognormvariate(0.0, 0.7) * 8 * HOUR_MS))
        settled = ev.ComplaintResolved(**common, handling_ms=resolved - logged)
        self._put(resolved, "complaint.resolved", f"{complaint}-resolved", agent, settled)
        verdict = self._office(resolved + rng.randrange(HOUR_MS, 6 * HOUR_MS))
        if rng.random() < 0.55:
            upheld = ev.ComplaintUpheld(
                **common,
                improper_handling=rng.random() < 0.3,
                bad_attitude=rng.random() < 0.15 * person.manners,
            )
            self._put(verdict, "complaint.upheld", f"{complaint}-upheld", agent, upheld)
        else:
            dismissed = ev.ComplaintDismissed(**common, reason="nothing found that was done wrong")
            self._put(verdict, "complaint.dismissed", f"{complaint}-dismissed", agent, dismissed)
        if rng.random() < 0.9:
            called = self._office(verdict + rng.randrange(HOUR_MS, 2 * DAY_MS))
            self._put(
                called,
                "complaint.followed_up",
                f"{complaint}-called",
                agent,
                ev.ComplaintFollowedUp(**common),
            )
            if rng.random() < 0.7:
                answer = ev.SurveyComplaintFollowUp(
                    agent=agent,
                    complaint_id=complaint,
                    customer=customer,
                    satisfaction=_satisfaction(rng, 2.0),
                )
                self._put(
                    called + 5 * MINUTE_MS, "survey.complaint_follow_up", f"{complaint}-survey", agent, answer
                )

    def _survey(self, at_ms: int, person: Person, call: str, customer: str) -> None:
        rng = self.stream("surveys")
        survey = f"{call}-survey"
        by_call = rng.random() < 0.2
        data = ev.SurveyCustomer(
            agent=person.id,
            survey_id=survey,
            customer=customer,
            satisfaction=_satisfaction(rng, person.manners),
            channel="call_back" if by_call else "survey",
        )
        delay = rng.randrange(HOUR_MS, DAY_MS) if by_call else rng.randrange(10 * SECOND_MS, 30 * MINUTE_MS)
        self._put(at_ms + delay, "survey.customer", survey, person.id, data)

    def _promise(self, at_ms: int, person: Person, customer: str) -> None:
        rng = self.stream("promises")
        promise = self._next("promise")
        agent = person.id
        due = self._office(at_ms + rng.randrange(2, 49) * HOUR_MS)
        made = ev.PromiseMade(agent=agent, promise_id=promise, customer=customer, due_at=moment(due))
        self._put(at_ms, "promise.made", f"{promise}-made", agent, made)
        luck = rng.random()
        if luck < 1 - 0.05 * person.care:
            kept_at = at_ms + round((due - at_ms) * rng.uniform(0.2, 0.98))
        elif luck < 1 - 0.02 * person.care:
            kept_at = due + rng.randrange(HOUR_MS, DAY_MS)
        else:
            return
        kept = ev.PromiseKept(agent=agent, promise_id=promise, customer=customer)
        self._put(kept_at, "promise.kept", f"{promise}-kept", agent, kept)

    # --- beside the calls ---

    def routine(self, shift: Shift) -> None:
        """What a working day brings to one person beside calls."""
        person = self._world.people[shift.person]
        agent = person.id
        rng = self.stream("routine")
        at = [rng.randrange(shift.starts_ms, shift.ends_ms) for _ in range(6)]
        chances = [rng.random() for _ in range(6)]
        if chances[0] < 0.06:
            survey = self._next("colleague")
            data = ev.SurveyColleague(
                agent=agent, by=f"{person.team}-member", satisfaction=_satisfaction(rng, 0.8)
            )
            self._put(at[0], "survey.colleague", survey, agent, data)
        if chances[1] < 0.03:
            survey = self._next("cooperation")
            rating: Rating = rng.choice(("excellent", "good", "good", "good", "fair", "fair", "poor"))
            rated = ev.SurveyCrossDepartment(
                agent=agent, by=rng.choice(("logistics", "billing")), rating=rating
            )
            self._put(at[1], "survey.cross_department", survey, agent, rated)
        if chances[2] < 0.03:
            visit = self._next("shopper")
            shopped = ev.SurveyMysteryShopper(
                agent=agent, by="shoppers", score=_score(rng, person.manners), category="reception"
            )
            self._put(at[2], "survey.mystery_shopper", visit, agent, shopped)
        if chances[3] < 0.08:
            seen = self._next("inspection")
            area = ev.AreaInspected(
                agent=agent, area=f"desk-{agent}", score=_score(rng, person.care), by=person.superior
            )
            self._put(at[3], "area.inspected", seen, agent, area)
        if chances[4] < 0.15:
            self._task(at[4], person)
        if chances[5] < 0.03:
            self._training(at[5], person)

    def _task(self, at_ms: int, person: Person) -> None:
        rng = self.stream("tasks")
        task = self._next("task")
        agent = person.id
        kind = rng.choice(("work", "work", "work", "improvement", "coaching"))
        due = self._office(at_ms + rng.randrange(4 * HOUR_MS, 4 * DAY_MS))
        starts = moment(at_ms) if kind == "improvement" else None
        assigned = ev.TaskAssigned(
            agent=agent, task_id=task, kind=kind, due_at=moment(due), starts_at=starts, owner=person.superior
        )
        self._put(at_ms, "task.assigned", f"{task}-assigned", agent, assigned)
        luck = rng.random()
        if luck < 1 - 0.06 * person.care:
            done_at = at_ms + round((due - at_ms) * rng.uniform(0.1, 0.99))
        elif luck < 1 - 0.03 * person.care:
            done_at = due + rng.randrange(HOUR_MS, DAY_MS)
        else:
            return
        data = ev.TaskCompleted(agent=agent, task_id=task, kind=kind)
        self._put(done_at, "task.completed", f"{task}-completed", agent, data)

    def _training(self, at_ms: int, person: Person) -> None:
        rng = self.stream("trainings")
        training = self._next("training")
        agent = person.id
        common: dict[str, Any] = {
            "agent": agent, "training_id": training,
            "course": rng.choice(("reception", "complaint handling", "products", "systems")),
        }  # fmt: skip
        assigned = ev.TrainingAssigned(**common, due_at=moment(at_ms + 7 * DAY_MS))
        self._put(at_ms, "training.assigned", f"{training}-assigned", agent, assigned)
        attended = self._office(at_ms + rng.randrange(DAY_MS, 6 * DAY_MS))
        if rng.random() < 0.06 * person.punctuality:
            return
        self._put(attended, "training.attended", f"{training}-attended", agent, ev.TrainingAttended(**common))
        score = _score(rng, person.care)
        growth: Growth | None = (
            rng.choice(("marked", "some", "little", "none")) if rng.random() < 0.5 else None
        )
        assessed = self._office(attended + DAY_MS)
        judged = ev.TrainingAssessed(**common, score=score, passed=score >= 6000, growth=growth)
        self._put(assessed, "training.assessed", f"{training}-assessed", agent, judged)
        if score >= 6000 and rng.random() < 0.5:
            earned = ev.CertificateEarned(
                agent=agent, certificate=common["course"], expires_at=moment(assessed + 365 * DAY_MS)
            )
            self._put(assessed + HOUR_MS, "certificate.earned", f"{training}-certificate", agent, earned)

    def leave(self, at_ms: int, person: Person, today: date) -> tuple[date, date] | None:
        """Now and then somebody asks for leave; the days when it is approved."""
        rng = self.stream("leave")
        if rng.random() >= 0.03:
            return None
        leave = self._next("leave")
        agent = person.id
        first = today + timedelta(days=rng.randrange(2, 10))
        last = first + timedelta(days=rng.choice((0, 0, 0, 1, 2)))
        kind: LeaveKind = rng.choice(("personal", "personal", "sick", "sick", "annual", "annual", "marriage"))
        common: dict[str, Any] = {
            "agent": agent, "leave_id": leave, "kind": kind,
            "first_day": first.isoformat(), "last_day": last.isoformat(),
        }  # fmt: skip
        self._put(at_ms, "leave.requested", f"{leave}-requested", agent, ev.LeaveRequested(**common))
        decided = self._office(at_ms + rng.randrange(HOUR_MS, 8 * HOUR_MS))
        if rng.random() < 0.25:
            if self.stream("withdrawn").random() < 0.3:
                withdrawn = ev.LeaveCancelled(**common, by=agent)
                self._put(decided, "leave.cancelled", f"{leave}-cancelled", agent, withdrawn)
                return None
            data = ev.LeaveRejected(**common, by=person.superior, reason="too few people on those days")
            self._put(decided, "leave.rejected", f"{leave}-rejected", agent, data)
            return None
        approved = ev.LeaveApproved(**common, by=person.superior)
        self._put(decided, "leave.approved", f"{leave}-approved", agent, approved)
        return first, last

    def exemption(self, at_ms: int, person: Person, incident: str) -> None:
        """Some lateness is excused afterwards."""
        rng = self.stream("exemptions")
        if rng.random() < 0.25:
            exemption = self._next("exemption")
            data = ev.ExemptionGranted(
                agent=person.id,
                exemption_id=exemption,
                incident=incident,
                reason="the metro stood still",
                by=person.superior,
            )
            self._put(at_ms, "exemption.granted", exemption, person.id, data)

    def certificates(self, start_ms: int) -> None:
        """Everybody holds the reception certificate at the start; a few lapse soon, which is announced."""
        rng = self.stream("certificates")
        for person in self._world.people:
            soon = rng.random() < 0.15
            expires = start_ms + (rng.randrange(5, 45) if soon else rng.randrange(90, 700)) * DAY_MS
            at = start_ms + SECOND_MS
            earned = ev.CertificateEarned(
                agent=person.id, certificate="reception", expires_at=moment(expires)
            )
            self._put(at, "certificate.earned", f"reception-{person.id}", person.id, earned)
            if soon:
                announced = max(start_ms + 9 * HOUR_MS, expires - 30 * DAY_MS)
                lapsing = ev.CertificateExpiring(
                    agent=person.id, certificate="reception", expires_at=moment(expires)
                )
                self._put(
                    announced, "certificate.expiring", f"reception-{person.id}-expiring", person.id, lapsing
                )

    def teams(self, day: date, midnight_ms: int, first_day: bool) -> None:
        """What is booked and looked at per team: budgets by the month, costs by the day, a patrol by the week."""
        rng = self.stream("teams")
        for team, site in self._world.teams:
            if first_day or day.day == 1:
                data = ev.BudgetBooked(
                    team=team,
                    site=site,
                    booking_id=f"budget-{team}-{day}",
                    account="operations",
                    amount_minor=30_000_00,
                )
                self._put(midnight_ms + HOUR_MS, "budget.booked", f"budget-{team}-{day}", team, data)
            cost = f"cost-{team}-{day}"
            amount = rng.randrange(700_00, 1_250_00)
            booked = ev.CostBooked(
                team=team, site=site, booking_id=cost, account="operations", amount_minor=amount
            )
            self._put(midnight_ms + 22 * HOUR_MS, "cost.booked", cost, team, booked)
            if day.weekday() == 2:
                patrol = ev.AreaInspected(
                    team=team,
                    site=site,
                    area=f"floor-{site}",
                    score=_score(rng, 1.0),
                    kind="patrol",
                    by="operations",
                )
                self._put(midnight_ms + 15 * HOUR_MS, "area.inspected", f"patrol-{team}-{day}", team, patrol)


def _satisfaction(rng: Random, badness: float) -> Satisfaction:
    luck = rng.random()
    if luck < 0.03 * badness:
        return "dissatisfied"
    if luck < 0.03 * badness + 0.06:
        return "neutral"
    return "satisfied" if luck < 0.55 + 0.05 * badness else "very_satisfied"


def _score(rng: Random, badness: float) -> int:
    """A score in hundredths around 90, worse for the careless."""
    return max(0, min(10_000, round(rng.gauss(9600 - 700 * badness, 600))))
