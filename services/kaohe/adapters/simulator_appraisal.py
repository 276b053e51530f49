"""What is said about the people of a simulated company when a month is over: assessments, results, appeals, interviews.

Theory of operation. ``Appraisals.month`` is called once for every month that is over. It lets everybody speak who may:
the employee, the superior and the leader in charge about each person, colleagues about receptionists, heads, other
departments and leaders about departments; some do not speak at all, some say something twice, a few come after the
month was closed and are not heard. Then the results are announced, interviews are held, and who was charged for an
incident of the month (``note`` was told of it) may appeal: in time or late, accepted or rejected, upheld or dismissed.
The steps of the appraisal's calendar are done on their days, or late, or not at all. Goals are proposed for the month
that begins, and signed by both, or by one alone.

How good somebody is was drawn once, so that most months are good ones, some are excellent and few are poor. Who appeals
names the decision as it stands on the statement: by the id that follows from rule, person, month and incident.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from kaohe import events as ev
from kaohe.adapters.simulator_work import DAY_MS, HOUR_MS, MINUTE_MS, moment
from kaohe.adapters.simulator_world import local_ms
from kaohe.decisions import decision_id, grade_id
from kaohe.events import Payload

SAID = frozenset(
    {"assessment.submitted", "assessment.decided", "result.announced", "interview.held", "improvement.planned",
     "improvement.done", "goal.proposed", "goal.signed", "step.done", "appeal.filed", "appeal.accepted",
     "appeal.rejected", "appeal.heard", "appeal.decided"}
)  # fmt: skip
"""What is said about a month: it comes in a stated order and once."""
WORK_ITEMS = {"completion": 60, "execution": 20, "attitude": 20}
"""What employee, superior and leader assess of everybody, and the points of each (the pack's own defaults)."""
OBSERVED_ITEMS = {"attitude": 15, "communication": 15, "professionalism": 15}
DEPARTMENT_ITEMS = {
    "work": 70, "execution": 10, "guidance": 5, "safety": 5, "discipline": 5, "spirit": 5,
}  # fmt: skip
WORDS = (("excellent", 0.95), ("good", 0.78), ("fair", 0.5), ("poor", 0.0))
"""The words of an assessment, and from which share of an item's points on they are said."""
STEPS = (
    ("assessments", 5), ("results", 8), ("summary", 10), ("finance-notice", 12), ("settle", 13), ("export", 14),
)  # fmt: skip
"""The company's steps after a month, and the days by which they are due."""
SIGNING_DAYS = 5
"""In how many days both have to sign a goal: some do so at their very end."""
APPEALED = ("company-kpi", "logistics-service")
"""The packs whose results people may appeal against."""


class Member(msgspec.Struct):
    """A member of the staff, from ``joins`` until the day before ``leaves``, with traits that are factors around 1.

    ``skill`` is the share of an assessment's points that the person usually earns.
    """

    id: str
    department: str
    packs: tuple[str, ...]
    leader: str
    public_days: bool
    office_hours: bool
    site: str
    zone: ZoneInfo
    hired: date
    joins: date
    leaves: date | None
    pay_minor: int
    annual: bool
    care: float
    manners: float
    punctuality: float
    skill: float
    away_until: date

    @property
    def superior(self) -> str:
        """The head of the person's department."""
        return f"head-{self.department}"


class Incident(msgspec.Struct, frozen=True):
    """Something that a rule charged somebody for at once: whom, when, and by which rule of which pack."""

    agent: str
    zone: ZoneInfo
    at_ms: int
    pack: str
    rule: str
    incident: str


class Office(Protocol):
    """What tells the events on: random numbers by family, names, and the log."""

    def stream(self, name: str) -> Random:
        """The random numbers of one family of events."""

    def next(self, kind: str) -> str:
        """A name that nothing else of this kind has."""

    def put(
        self, at_ms: int, tag: str, subject: str, data: Payload, told_ms: int | None = None
    ) -> tuple[str, int]:
        """Let an event happen, which people tell at once or at ``told_ms``."""


class Appraisals:
    """What is said about the staff, month by month."""

    def __init__(
        self, staff: Sequence[Member], departments: Iterable[tuple[str, str]], office: Office
    ) -> None:
        self._staff = staff
        self._leaders = dict(departments)
        self._office = office
        self._incidents: list[Incident] = []
        self._told: set[tuple[str, str, str]] = set()

    def note(self, incident: Incident) -> None:
        """Remember what somebody may appeal against when the month is over."""
        self._incidents.append(incident)

    def begin(self, first: date) -> None:
        """Say who leads the departments, and what was planned for the first month."""
        at_ms = local_ms(first, ZoneInfo("Asia/Shanghai"), 5)
        for name, leader in self._leaders.items():
            data = ev.DepartmentChanged(department=name, head=f"head-{name}", leader=leader)
            self._office.put(at_ms, "department.changed", name, data)

    def month(self, first: date, after: date) -> None:
        """All about the month from ``first`` to the day before ``after``."""
        label = f"{first:%Y-%m}"
        self._calendar(label, after)
        for name in self._leaders:
            self._department(name, label, after)
        for member in self._staff:
            if member.joins >= after or (member.leaves is not None and member.leaves < after):
                continue
            self._person(member, label, after)
            self._talk(member, label, after)
            self._goals(member, after)
            self._restate(member, label, after)
        self._appeals(label, after)

    # --- the calendar -------------------------------------------------------------------------------------------------

    def _calendar(self, label: str, after: date) -> None:
        """The steps of the month's appraisal; the plans of the month after the next are due on the 28th."""
        rng = self._office.stream("calendar")
        following = after + timedelta(days=31)
        dues = [(step, label, after.replace(day=day), "") for step, day in STEPS]
        for name in self._leaders:
            dues.append(("feedback", label, after.replace(day=12), name))
            dues.append(("plans", f"{following:%Y-%m}", after.replace(day=28), name))
        for step, period, due, department in dues:
            way = rng.random()
            if way < 0.04:
                continue
            done = due + timedelta(days=rng.randrange(1, 4)) if way < 0.14 else due - timedelta(days=1)
            by = f"head-{department}" if step == "plans" else "office"
            data = ev.StepDone(pack="company-kpi", period=period, step=step, by=by, department=department)
            subject = department or "company-kpi"
            self._office.put(local_ms(done, ZoneInfo("Asia/Shanghai"), 16), "step.done", subject, data)

    # --- assessments --------------------------------------------------------------------------------------------------

    def _person(self, member: Member, label: str, after: date) -> None:
        """What is said about one person; superiors hear the employee first."""
        rng = self._office.stream("assessments")
        form = min(1.0, max(0.2, rng.gauss(member.skill, 0.05)))
        base_ms = local_ms(after, member.zone, 9)
        if rng.random() < 0.85:
            for item, most in WORK_ITEMS.items():
                self._say(
                    member, label, item, most, "self", member.id, form + 0.04, base_ms + _within(rng, 0, 30)
                )
        if rng.random() < 0.97:
            for item, most in WORK_ITEMS.items():
                at_ms = base_ms + _within(rng, 32, 80)
                self._say(member, label, item, most, "superior", member.superior, form, at_ms)
                if rng.random() < 0.01:  # thought better of it
                    later_ms = at_ms + 6 * HOUR_MS
                    self._say(member, label, item, most, "superior", member.superior, form - 0.1, later_ms)
        if rng.random() < 0.4:
            for item, most in WORK_ITEMS.items():
                at_ms = base_ms + _within(rng, 82, 110)
                self._say(member, label, item, most, "leader", member.leader, form - 0.01, at_ms)
        if rng.random() < 0.01:  # after the month was closed
            late_ms = base_ms + _within(rng, 8 * 24, 9 * 24)
            self._say(member, label, "execution", 20, "self", member.id, 1.0, late_ms)
        if "reception" in member.packs:
            self._observe(member, label, rng, form, base_ms)
        if rng.random() < 0.03:
            self._decide(member, label, rng, form, base_ms + _within(rng, 112, 140))

    def _say(
        self, member: Member, label: str, item: str, most: int, role: str, by: str, share: float, at_ms: int,
        pack: str = "company-kpi",
    ) -> None:  # fmt: skip
        """One assessment: a score or, by one in three, a word."""
        rng = self._office.stream("voices")
        share = min(1.0, max(0.0, share + rng.gauss(0, 0.03)))
        told = {"agent": member.id, "pack": pack, "window": "month", "period": label, "item": item, "by": by}
        if rng.random() < 1 / 3:
            word = next(word for word, least in WORDS if share >= least)
            data = ev.AssessmentSubmitted(**told, role=role, grade=word)  # type: ignore[arg-type]
        else:
            data = ev.AssessmentSubmitted(**told, role=role, score=round(share * most * 100))  # type: ignore[arg-type]
        self._office.put(at_ms, "assessment.submitted", member.id, data)

    def _observe(self, member: Member, label: str, rng: Random, form: float, base_ms: int) -> None:
        """Receptionists are watched by two colleagues and by their superior."""
        others = [one.id for one in self._staff if one.id != member.id]
        voices = [("peer", by) for by in rng.sample(others, 2)] + [("superior", member.superior)]
        for role, by in voices:
            for item, most in OBSERVED_ITEMS.items():
                self._say(
                    member, label, item, most, role, by, form, base_ms + _within(rng, 0, 80), "reception"
                )
        for item, most, (role, by) in (
            ("peer_rating", 15, voices[0]), ("superior_rating", 15, voices[2]), ("conduct", 10, voices[2])
        ):  # fmt: skip
            self._say(member, label, item, most, role, by, form, base_ms + _within(rng, 0, 80), "reception")

    def _decide(self, member: Member, label: str, rng: Random, form: float, at_ms: int) -> None:
        """The final word of the leader in charge: on one item, on the score, or on the grade."""
        told = {
            "agent": member.id, "pack": "company-kpi", "window": "month", "period": label, "by": member.leader,
            "reason": "all was weighed together",
        }  # fmt: skip
        way = rng.random()
        if way < 0.4:
            data = ev.AssessmentDecided(**told, item="completion", score=round(form * 60) * 100)  # type: ignore[arg-type]
        elif way < 0.7:
            data = ev.AssessmentDecided(**told, score=round(form * 1000) * 10)  # type: ignore[arg-type]
        else:
            data = ev.AssessmentDecided(**told, grade=rng.choice("BBC"))  # type: ignore[arg-type]
        self._office.put(at_ms, "assessment.decided", member.id, data)

    def _department(self, name: str, label: str, after: date) -> None:
        """What head, two other departments and the leader in charge say about a department."""
        rng = self._office.stream("departments")
        form = rng.gauss(0.87, 0.07)
        base_ms = local_ms(after, ZoneInfo("Asia/Shanghai"), 9)
        others = rng.sample([one for one in self._leaders if one != name], 2)
        voices = [("self", f"head-{name}", ""), ("leader", self._leaders[name], "")]
        voices += [("department", f"head-{other}", other) for other in others]
        for role, by, speaks_for in voices:
            for item, most in DEPARTMENT_ITEMS.items():
                share = min(1.0, max(0.0, rng.gauss(form, 0.05)))
                data = ev.AssessmentSubmitted(
                    department=name, pack="company-kpi", window="month", period=label, item=item, role=role,  # type: ignore[arg-type]
                    by=by, by_department=speaks_for, score=round(share * most * 100),
                )  # fmt: skip
                self._office.put(base_ms + _within(rng, 0, 90), "assessment.submitted", name, data)

    # --- feedback -----------------------------------------------------------------------------------------------------

    def _restate(self, member: Member, label: str, after: date) -> None:
        """Some pay turns out to have been noted wrongly, when the month is settled already."""
        rng = self._office.stream("pay")
        if rng.random() >= 0.04 or member.annual:
            return
        data = ev.PayStated(
            agent=member.id, period=label, gross_minor=member.pay_minor + rng.randrange(-50_000, 50_000),
            by="human-resources",
        )  # fmt: skip
        at_ms = local_ms(after.replace(day=rng.randrange(20, 26)), member.zone, 10)
        self._office.put(at_ms, "pay.stated", member.id, data)

    def _talk(self, member: Member, label: str, after: date) -> None:
        """Results are announced, interviews held, measures planned."""
        rng, agent = self._office.stream("talks"), member.id
        told_ms = local_ms(after.replace(day=9), member.zone, 9)
        for pack in APPEALED:
            if pack in member.packs and rng.random() < 0.95:
                self._told.add((agent, pack, label))
                data = ev.ResultAnnounced(
                    agent=agent, pack=pack, window="month", period=label, by=member.superior
                )
                self._office.put(told_ms, "result.announced", agent, data)
        for pack, day in (("logistics-service", 7), ("reception", 9)):
            if pack in member.packs and rng.random() < 0.96:
                at_ms = local_ms(after.replace(day=day), member.zone, 10) + _within(rng, 0, 5)
                self._interview(member, f"{pack}/{agent}/{label}", at_ms, rng)

    def _goals(self, member: Member, after: date) -> None:
        """Some get a monthly goal out of their department's for the year; not all are signed by both, or in time."""
        rng, agent = self._office.stream("goals"), member.id
        if rng.random() >= 0.4:
            return
        goal, at_ms = self._office.next("goal"), local_ms(after, member.zone, 11)
        proposed = ev.GoalProposed(
            agent=agent, goal_id=goal, period=f"{after:%Y-%m}", indicator="satisfied customers", target="95 %",
            of=f"{member.department}-{after:%Y}", by=member.superior,
        )  # fmt: skip
        self._office.put(at_ms, "goal.proposed", agent, proposed)
        for who, by in (("employee", agent), ("supervisor", member.superior)):
            way, signed_ms = rng.random(), at_ms + _within(rng, 1, 40)
            if way < 0.05:
                continue
            if way < 0.2:
                signed_ms = at_ms + SIGNING_DAYS * DAY_MS + rng.choice((0, 0, 1, 30)) * HOUR_MS
            signed = ev.GoalSigned(agent=agent, goal_id=goal, who=who, by=by)  # type: ignore[arg-type]
            self._office.put(signed_ms, "goal.signed", agent, signed)

    def _interview(self, member: Member, appraisal: str, at_ms: int, rng: Random) -> None:
        """An interview, and by one in five a measure that is carried out, mostly in time."""
        interview = self._office.next("interview")
        data = ev.InterviewHeld(
            agent=member.id, interview_id=interview, appraisal_id=appraisal, by=member.superior,
            employee_signed=rng.random() < 0.98, supervisor_signed=True,
        )  # fmt: skip
        self._office.put(at_ms, "interview.held", member.id, data)
        if rng.random() >= 0.2:
            return
        plan, due_ms = self._office.next("plan"), at_ms + 14 * DAY_MS
        planned = ev.ImprovementPlanned(
            agent=member.id, plan_id=plan, measure="listen to ten own calls", owner=member.superior,
            interview_id=interview, due_at=moment(due_ms),
        )  # fmt: skip
        self._office.put(at_ms + HOUR_MS, "improvement.planned", member.id, planned)
        done_ms = due_ms + round(rng.gauss(-3, 2.5)) * DAY_MS
        done = ev.ImprovementDone(agent=member.id, plan_id=plan, by=member.superior)
        self._office.put(max(done_ms, at_ms + 2 * HOUR_MS), "improvement.done", member.id, done)

    # --- appeals ------------------------------------------------------------------------------------------------------

    def _appeals(self, label: str, after: date) -> None:
        """Some of those who were charged in the month appeal against the charge, or against the grade."""
        rng = self._office.stream("appeals")
        here = {one.id: one for one in self._staff if one.leaves is None or one.leaves >= after}
        mine = [one for one in self._incidents if one.at_ms < local_ms(after, one.zone)]
        self._incidents = [one for one in self._incidents if one.at_ms >= local_ms(after, one.zone)]
        for incident in mine:
            member = here.get(incident.agent)
            if member is None or rng.random() >= 0.8:
                continue
            if (member.id, incident.pack, label) not in self._told:
                continue
            if member.zone is not incident.zone:  # who has moved meanwhile has other things to do
                continue
            self._appeal(member, incident, label, after, rng)

    def _appeal(self, member: Member, incident: Incident, label: str, after: date, rng: Random) -> None:
        charge = decision_id(
            incident.pack, incident.rule, "0", "agent", member.id, "month", label, incident.incident, ""
        )
        grade = grade_id(incident.pack, "agent", member.id, "month", label)
        appeal, against_grade = self._office.next("appeal"), rng.random() < 0.3
        filed_ms = local_ms(after.replace(day=9), member.zone, 12) + _within(rng, 0, 70)
        if rng.random() < 0.15:
            filed_ms += 16 * DAY_MS
        filed = ev.AppealFiled(
            agent=member.id, appeal_id=appeal, against=grade if against_grade else charge,
            text=f"it was not my doing: {incident.incident}",
        )  # fmt: skip
        self._office.put(filed_ms, "appeal.filed", member.id, filed)
        if filed_ms >= local_ms(after.replace(day=20), member.zone):
            return
        common = {"agent": member.id, "appeal_id": appeal}
        answered_ms = filed_ms + _within(rng, 4, 40)
        if rng.random() < 0.2:
            refused = ev.AppealRejected(**common, by="office", reason="nothing new is said")
            self._office.put(answered_ms, "appeal.rejected", member.id, refused)
            return
        accepted = ev.AppealAccepted(**common, by="office", reason="it will be looked into")
        self._office.put(answered_ms, "appeal.accepted", member.id, accepted)
        for hours, who, by in ((30, "employee", member.id), (40, "supervisor", member.superior)):
            heard = ev.AppealHeard(**common, who=who, by=by)  # type: ignore[arg-type]
            self._office.put(answered_ms + hours * HOUR_MS, "appeal.heard", member.id, heard)
        upheld = rng.random() < 0.6
        decided = ev.AppealDecided(
            **common, upheld=upheld, by=member.leader, reason="the record shows it",  # type: ignore[arg-type]
            responsible=member.superior if upheld else "", reversals=[charge] if upheld and against_grade else [],
        )  # fmt: skip
        self._office.put(answered_ms + _within(rng, 50, 220), "appeal.decided", member.id, decided)


def _within(rng: Random, first_h: int, last_h: int) -> int:
    """A time from the first to the last hour (ms)."""
    return rng.randrange(first_h * 60, last_h * 60) * MINUTE_MS
