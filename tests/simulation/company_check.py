"""An independent appraisal of the simulated company: the same policies, worked out a second time by plain SQL.

Nothing here comes from the engine. Events are read from their JSON into one SQLite table, figures from the packs'
``parameters.yaml``; every clause is a query or two, written from the policy's words. What is compared in the end are
the final entries (``Entry``), scores and grades. Cards of weighted items (reception, company KPI) are in
``company_cards``, who was due and came in ``company_rota``, risks in ``company_risks``, pay in ``company_pay``.

How the policy was read, where its words leave a choice:

- A month is the calendar month of a person's site, of the company's zone for a department; who moves to another site
  keeps the month that is running by its name. It is judged when it has been over for the policy's days of grace; what
  arrives later changes nothing in it, and the difference is charged or given back in the month in which it arrives.
- What an upheld appeal takes back is given back in the month in which it is decided.
- "Tasks due", "requests" and "required trainings" count in the month in which they were done in time, or else in the
  month in which their time ran out.
- Who is under a policy at the end of a month is judged by it for the month, and nobody for a month after leaving;
  single incidents by the policy of their moment.
- A day of a shift belongs to the month of the day that the rota names. Lateness and early leave are stepped together.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ruamel.yaml import YAML

from tests.simulation.company_rota import MINUTE_MS, Rota, Shift, works

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
COMPANY_ZONE = "Asia/Shanghai"
SITE_ZONES = {"shanghai": "Asia/Shanghai", "berlin": "Europe/Berlin"}
CONTENT = "('very_satisfied', 'satisfied')"
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)

SCHEMA = """
create table event (
    pos integer primary key, type text, id text, agent text, team text, queue text, site text, at_ms integer,
    arrived_ms integer, month text, team_month text, item text, word text, part integer, whole integer, due_ms integer,
    day text, until text, begin_ms integer, finish_ms integer, data text
);
create index event_type on event (type, agent, month);
create index event_item on event (type, agent, item);
create table month (zone text, label text, begin_ms integer, end_ms integer);
"""

WORDS = ("satisfaction", "rating", "growth", "service", "kind", "severity")
ITEMS = (
    "ticket_id",
    "task_id",
    "training_id",
    "complaint_id",
    "audit_id",
    "shift_id",
    "leave_id",
    "incident",
    "appeal_id",
)


class Entry(NamedTuple):
    """A line of a person's (or department's) ledger: what counts in the end."""

    rule: str
    subject: str
    period: str
    incident: str
    adjusts: str
    points: Fraction


class Score(NamedTuple):
    """A final score and its grade."""

    pack: str
    subject: str
    period: str
    score: Fraction
    grade: str


def to_ms(text: str) -> int:
    return (datetime.fromisoformat(text) - _ORIGIN) // timedelta(milliseconds=1)


class Line(NamedTuple):
    """What the roster says about a person from a moment on."""

    from_ms: int
    team: str
    site: str
    packs: list[str]
    left_on: str
    hired_on: str
    pay_minor: int


class Figures:
    """The figures of one policy with the days from which they hold."""

    def __init__(self, rules: Path, pack: str) -> None:
        # Everything as it is written: a float would not be the decimal that the policy states.
        yaml = YAML(typ="base", pure=True)
        self._values = {
            name: sorted((date.fromisoformat(str(day)), value) for day, value in line["values"].items())
            for name, line in yaml.load(rules / pack / "parameters.yaml").items()
        }
        grace = str(yaml.load(rules / pack / "pack.yaml")["grace"])
        assert grace.endswith("h"), grace
        self.grace_ms = int(grace[:-1]) * HOUR_MS

    def word(self, name: str, day: date) -> Any:
        """What is in force on a day, as it is written: a word, or a table of words."""
        lines = self._values[name]
        return lines[bisect_right([since for since, _ in lines], day) - 1][1]

    def on(self, name: str, day: date) -> Fraction:
        """The number in force on a day."""
        return Fraction(self.word(name, day))

    def table(self, name: str, day: date) -> dict[str, Fraction]:
        """The table in force on a day."""
        return {word: Fraction(number) for word, number in self.word(name, day).items()}


class Company:
    """The events of the company, ready to be asked."""

    def __init__(self, lines: Iterable[bytes], rules: Path, packs: Iterable[str]) -> None:
        self.packs = tuple(packs)
        self.figures = {pack: Figures(rules, pack) for pack in self.packs}
        self.db = sqlite3.connect(":memory:")
        self.db.executescript(SCHEMA)
        self.roster: dict[str, list[Line]] = {}
        self._ends: dict[str, list[int]] = {}
        self._labels: list[str] = []
        self._load(lines)

    # --- loading ------------------------------------------------------------------------------------------------------

    def _load(self, lines: Iterable[bytes]) -> None:
        events = [json.loads(line) for line in lines]
        first = min(event["time"] for event in events)
        last = max(event["time"] for event in events)
        self._make_months(date.fromisoformat(first[:10]), date.fromisoformat(last[:10]))
        for event in events:
            if event["type"] == "roster.changed":
                self._enrol(event)
        seen: set[str] = set()
        clock_ms = 0
        rows = []
        for pos, event in enumerate(events):
            at_ms = to_ms(event["time"])
            clock_ms = max(clock_ms, at_ms // 1000 * 1000)
            if event["id"] not in seen:
                seen.add(event["id"])
                rows.append(self._row(pos, event, at_ms, clock_ms))
        self.first_month = self.month_of(COMPANY_ZONE, to_ms(first))
        self.db.executemany(
            f"insert into event values ({', '.join('?' * 21)})",  # noqa: S608
            rows,
        )

    def _make_months(self, first: date, last: date) -> None:
        year, number = first.year, first.month
        if number == 1:
            year, number = year - 1, 13
        months = [date(year, number - 1, 1)]
        while months[-1] <= last + timedelta(days=31):
            months.append((months[-1] + timedelta(days=31)).replace(day=1))
        self._labels = [f"{month:%Y-%m}" for month in months[:-1]]
        for zone in {*SITE_ZONES.values(), COMPANY_ZONE}:
            moments = [
                to_ms(datetime(one.year, one.month, 1, tzinfo=ZoneInfo(zone)).isoformat()) for one in months
            ]
            self._ends[zone] = moments[1:]
            rows = [(zone, label, *pair) for label, pair in zip(self._labels, pairwise(moments), strict=True)]
            self.db.executemany("insert into month values (?, ?, ?, ?)", rows)

    def _enrol(self, event: dict[str, Any]) -> None:
        data = event["data"]
        line = Line(
            to_ms(event["time"]), data["team"], data["site"], data.get("packs", []), data.get("left_on") or "",
            data["hired_on"], data["pay_base_minor"],
        )  # fmt: skip
        self.roster.setdefault(data["agent"], []).append(line)

    def line_at(self, agent: str, at_ms: int) -> Line:
        """The roster's line about a person at a moment."""
        lines = self.roster[agent]
        return lines[max(0, bisect_right([line[0] for line in lines], at_ms) - 1)]

    def month_of(self, zone: str, at_ms: int) -> str:
        return self._labels[bisect_right(self._ends[zone], at_ms)]

    def _row(self, pos: int, event: dict[str, Any], at_ms: int, clock_ms: int) -> tuple[Any, ...]:
        data = event["data"]
        agent = data.get("agent", "")
        team, site = data.get("team", ""), data.get("site", "")
        zone = SITE_ZONES.get(site, COMPANY_ZONE)
        if agent:
            line = self.line_at(agent, at_ms)
            team, site, zone = team or line[1], site or line[2], SITE_ZONES[line[2]]
        word = next((data[name] for name in WORDS if data.get(name)), "")
        item = next((data[name] for name in ITEMS if data.get(name)), "")
        part, whole = data.get("wait_ms", 0), 1
        if event["type"] == "complaint.resolved":
            part = data.get("handling_ms", 0)
        if event["type"] == "flow.audited":
            part, whole = data.get("steps_followed", 0), data["steps_checked"]
        if event["type"] == "area.inspected":
            part, word = data["score"], word or "area"
        if event["type"] == "complaint.upheld":
            part, whole = int(data.get("bad_attitude", False)), int(data.get("improper_handling", False))
        due_ms, begin_ms, finish_ms = (
            to_ms(text) if text else None
            for text in (
                data.get("due_at"),
                data.get("starts_at") or data.get("clocked_at"),
                data.get("ends_at"),
            )
        )
        day, until = data.get("day") or data.get("first_day"), data.get("last_day")
        return (
            pos, event["type"], event["id"], agent, team, data.get("queue", ""), site, at_ms, clock_ms,
            self.month_of(zone, at_ms), self.month_of(COMPANY_ZONE, at_ms), item, word, part, whole, due_ms,
            day, until, begin_ms, finish_ms, json.dumps(data),
        )  # fmt: skip

    # --- time ---------------------------------------------------------------------------------------------------------

    def zone_at(self, subject: str, at_ms: int) -> str:
        """The zone of a person's site at a moment; the company's for whoever is no person."""
        return SITE_ZONES[self.line_at(subject, at_ms).site] if subject in self.roster else COMPANY_ZONE

    def month_at(self, subject: str, at_ms: int) -> str:
        """The month in which a moment lies for somebody."""
        return self.month_of(self.zone_at(subject, at_ms), at_ms)

    def zone_end(self, zone: str, label: str) -> int:
        return self._ends[zone][self._labels.index(label)]

    def end_of(self, subject: str, label: str) -> int:
        """When a month ends for somebody: nobody changes the site within hours of it."""
        zone = self.zone_at(subject, self.zone_end(COMPANY_ZONE, label))
        return self.zone_end(zone, label)

    def close_of(self, subject: str, label: str, pack: str) -> int:
        """When a month is judged for good under a policy."""
        return self.end_of(subject, label) + self.figures[pack].grace_ms

    def months(self) -> list[str]:
        """The months of the log."""
        return [label for label in self._labels if label >= self.first_month]

    def is_closed(self, subject: str, label: str, pack: str, until_ms: int) -> bool:
        """Whether a month of the log has been judged for good at a moment."""
        return label in self._labels and self.close_of(subject, label, pack) <= until_ms

    def closed_months(self, subject: str, pack: str, until_ms: int) -> list[str]:
        """The months of the log that have been judged for good at a moment."""
        return [one for one in self.months() if self.close_of(subject, one, pack) <= until_ms]

    # --- quotients of a month -----------------------------------------------------------------------------------------

    def quotients(
        self, part: str, whole: str, who: str = "agent", month: str = "month"
    ) -> Iterator[tuple[Any, ...]]:
        """(subject, month, arrived_ms, part, whole) of each event that is in ``part`` or ``whole`` of a quotient."""
        query = f"""
            select {who}, {month}, arrived_ms, {part} as above, {whole} as below from event
            where {who} != '' and (above != 0 or below != 0) order by arrived_ms
        """  # noqa: S608 - the parts are written in this module
        yield from self.db.execute(query)

    def deadline(
        self, opens: str, met_by: str, due: str, where: str = "1", cancelled_by: str = "('')"
    ) -> Iterator[tuple[Any, ...]]:
        """The same for what had to follow in time. ``due`` says by when, ``cancelled_by`` what makes it needless.

        What is known changes: an answer that happened in time and is reported late turns a miss into a success.
        """
        query = f"""
            select o.agent, o.item, o.arrived_ms, {due} as due, e.at_ms, e.arrived_ms, e.type in {met_by}
            from event o left join event e
                on (e.type in {met_by} or e.type in {cancelled_by}) and e.item = o.item and e.agent = o.agent
            where o.type = '{opens}' and o.agent != '' and {where} order by o.pos, e.arrived_ms
        """  # noqa: S608
        found: dict[tuple[str, str, int, int], list[tuple[int, int, bool]]] = defaultdict(list)
        for agent, item, opened_ms, due_ms, at_ms, arrived_ms, met in self.db.execute(query):
            ends = found[agent, item, opened_ms, due_ms]
            if at_ms is not None:
                ends.append((at_ms, max(arrived_ms, opened_ms), bool(met)))
        for (agent, _, opened_ms, due_ms), ends in found.items():
            yield from self._changes(agent, opened_ms, due_ms, ends)

    def _changes(
        self, agent: str, opened_ms: int, due_ms: int, ends: list[tuple[int, int, bool]]
    ) -> Iterator[tuple[Any, ...]]:
        """Whenever more is known, what counted before is taken out and what counts now is put in."""
        missed_ms = max(opened_ms, due_ms + 1)
        before: tuple[str, int, int] | None = None
        for now_ms in sorted({missed_ms, *(arrived_ms for _, arrived_ms, _ in ends)}):
            known = min((end for end in ends if end[1] <= now_ms), default=None)
            now: tuple[str, int, int] | None = None
            if known is not None and known[0] <= due_ms:
                now = (self.month_at(agent, known[0]), 1, 1) if known[2] else None
            elif now_ms >= missed_ms:
                now = (self.month_at(agent, due_ms), 0, 1)
            if now != before:
                if before is not None:
                    yield agent, before[0], now_ms, -before[1], -before[2]
                if now is not None:
                    yield agent, now[0], now_ms, now[1], now[2]
            before = now


SUMS = {"front-desk": "fd-", "full-attendance": "fa-", "logistics-service": "ls-"}
"""The policies whose score is a base and the points of the month's entries, and how their rules' names begin."""


class Charge(NamedTuple):
    """A monthly clause: every full ``step`` over (or under) ``limit`` costs ``points``, at most ``cap``."""

    rule: str
    pack: str
    over: bool
    limit: str
    step: str | Fraction
    points: str
    cap: str


POINT = Fraction(1, 100)
CHARGES = (
    Charge("ls-complaint-rate", "logistics-service", True, "complaint_rate_limit", POINT, "complaint_rate_step_points",
           "complaint_rate_cap"),
    Charge("ls-satisfaction", "logistics-service", False, "service_satisfaction_target", POINT,
           "service_satisfaction_step_points", "service_satisfaction_cap"),
    Charge("ls-response-timeliness", "logistics-service", False, "response_timeliness_target", POINT,
           "response_timeliness_step_points", "response_timeliness_cap"),
    Charge("ls-task-completion", "logistics-service", False, "task_completion_target", POINT,
           "task_completion_step_points", "task_completion_cap"),
    Charge("ls-error-rate", "logistics-service", True, "error_rate_limit", POINT, "error_rate_step_points",
           "error_rate_cap"),
    Charge("ls-colleague-satisfaction", "logistics-service", False, "colleague_satisfaction_target", POINT,
           "colleague_satisfaction_step_points", "colleague_satisfaction_cap"),
    Charge("ls-training-participation", "logistics-service", False, "training_participation_target", POINT,
           "training_participation_step_points", "training_participation_cap"),
    Charge("fd-waiting-month", "front-desk", True, "waiting_limit", "waiting_step", "waiting_step_points",
           "waiting_points_cap"),
    Charge("fd-satisfaction", "front-desk", False, "satisfaction_target", POINT, "satisfaction_step_points",
           "satisfaction_points_cap"),
    Charge("fd-complaint-handling-slow", "front-desk", True, "complaint_handling_limit", "complaint_handling_step",
           "complaint_handling_points", "complaint_handling_cap"),
    Charge("fd-complaint-rating-low", "front-desk", False, "complaint_rating_target", "complaint_rating_step",
           "complaint_rating_points", "complaint_rating_cap"),
    Charge("ck-rings", "company-kpi", False, "rings_target", "rings_step", "rings_step_points", "rings_cap"),
)  # fmt: skip


def _is(*types: str) -> str:
    return "type in ({})".format(", ".join(f"'{one}'" for one in types))


SURVEYS = {
    "ls-satisfaction": "survey.customer",
    "fd-satisfaction": "survey.customer",
    "ls-colleague-satisfaction": "survey.colleague",
    "fd-complaint-rating-low": "survey.complaint_follow_up",
}
MEANS = {"fd-waiting-month": "call.answered", "fd-complaint-handling-slow": "complaint.resolved"}


def changes_of(company: Company, rule: str) -> Iterator[tuple[Any, ...]]:
    """What a monthly figure is made of: (subject, month, arrived_ms, above the line, below the line)."""
    served = ("call.completed", "ticket.resolved")
    if rule in SURVEYS:
        asked = _is(SURVEYS[rule])
        return company.quotients(f"{asked} and word in {CONTENT}", asked)
    if rule in MEANS:
        return company.quotients(f"part * ({_is(MEANS[rule])})", _is(MEANS[rule]))
    if rule == "ls-complaint-rate":
        return company.quotients(_is("complaint.upheld"), _is(*served))
    if rule == "ls-error-rate":
        return company.quotients(_is("error.recorded"), _is(*served, "task.completed"))
    if rule == "ck-rings":
        rung = f"{_is('call.answered')} and coalesce(json_extract(data, '$.rings'), 0)"
        limit = company.figures["company-kpi"].on("rings_limit", date(2026, 1, 1))
        return company.quotients(f"{rung} between 1 and {limit}", f"{rung} >= 1")
    return timely(company, rule)


def timely(company: Company, rule: str) -> Iterator[tuple[Any, ...]]:
    """The same for what had to be done in time."""
    figures = company.figures["logistics-service"]
    if rule == "ls-response-timeliness":
        limits = figures.table("response_limit", date(2026, 1, 1))
        cases = " ".join(f"when '{word}' then {minutes}" for word, minutes in limits.items() if word != "*")
        due = f"coalesce(o.due_ms, o.at_ms + 60000 * case o.word {cases} else {limits['*']} end)"
        return company.deadline("ticket.opened", "('ticket.first_response', 'ticket.resolved')", due)
    if rule == "ls-task-completion":
        return company.deadline("task.assigned", "('task.completed')", "o.due_ms")
    assert rule == "ls-training-participation", rule
    days = figures.on("training_time_limit", date(2026, 1, 1))
    due = f"coalesce(o.due_ms, o.at_ms + {DAY_MS} * {days})"
    return company.deadline("training.assigned", "('training.attended')", due)


# --- attendance ---------------------------------------------------------------------------------------------------


class Day(NamedTuple):
    """What became of a day with work, in halves; ``minor`` counts lateness and early leave.

    ``absent`` tells the halves of unexcused absence with the shift in which each was.
    """

    day: date
    full: bool
    attended: int
    minor: int
    absent: tuple[tuple[str, int], ...] = ()

    @property
    def month(self) -> str:
        return f"{self.day:%Y-%m}"


class Attendance:
    """FA-01 to FA-07: shifts, clockings, leave and exemptions.

    All of it arrives long before its month is closed, so that only what is known in the end counts.
    """

    def __init__(
        self,
        company: Company,
        until_ms: int,
        judged: Callable[[str, str, str], bool],
        pack: str = "full-attendance",
    ) -> None:
        self.company = company
        self.pack = pack
        self.figures = company.figures[pack]
        self.until_ms = until_ms
        self.judged = judged
        self.entries: list[Entry] = []
        self.rota = Rota(company, pack, until_ms)
        self._taken: dict[tuple[str, str, str], int] = defaultdict(int)
        self._given = self._leaves()
        days = {
            agent: [self._day(*one) for one in sorted(own.items())] for agent, own in self.rota.days.items()
        }
        self.days = days
        for agent in company.roster if pack == "full-attendance" else ():
            self._months(agent, days.get(agent, []))

    def _leaves(self) -> dict[str, list[tuple[str, date, date]]]:
        """The leaves that were approved: (kind, first day, last day) by person, in their order."""
        given: dict[str, list[tuple[str, date, date]]] = defaultdict(list)
        query = "select agent, word, day, until from event where type = 'leave.approved' order by day"
        for agent, kind, first, last in self.company.db.execute(query):
            given[agent].append((kind, date.fromisoformat(first), date.fromisoformat(last)))
        return given

    def _day(self, day: date, shifts: Sequence[Shift]) -> Day:
        """Every day with a shift: one of two shifts is half of it."""
        agent = shifts[0].agent
        for kind, first, last in self._given[agent]:
            if first <= day <= last:
                return self._on_leave(agent, kind, day)
        absent, minor, missed, full = [], 0, 0, True
        for shift in shifts:
            halves, incidents, forgotten = self._came_and_went(shift, 2 if len(shifts) == 1 else 1)
            missed += halves
            excused = (agent, shift.id) in self.rota.excused
            # What is excused leaves the day full; a clocking out that stays missing does not.
            full = full and (excused or not (halves or incidents or forgotten))
            minor += 0 if excused else incidents
            absent += [(shift.id, halves)] if halves and not excused else []
        return Day(day, full, max(0, 2 - missed), minor, tuple(absent))

    def _came_and_went(self, shift: Shift, most: int) -> tuple[int, int, bool]:
        """What became of a shift: halves missed, times late or gone early, and whether the clocking out is missing."""
        came_ms, went_ms = self.rota.came_ms(shift), self.rota.went_ms(shift)
        if came_ms is None:
            return most, 0, False
        late_after, early_after, absent_after = (
            self.figures.on(name, shift.day) * MINUTE_MS
            for name in ("late_after", "early_after", "absent_after")
        )
        late_ms = came_ms - shift.begin_ms
        early_ms = shift.end_ms - went_ms if went_ms is not None else 0
        # So late, or gone so early, that it is no lateness any more: half of the day is missing.
        missed = int(late_ms > absent_after) + int(early_ms >= absent_after)
        minor = int(absent_after >= late_ms > late_after) + int(not missed and early_ms > early_after)
        return min(missed, most), minor, went_ms is None

    def _on_leave(self, agent: str, kind: str, day: date) -> Day:
        """A day of leave counts as its kind says, unless the year's quota is used up."""
        quota = self.figures.table("leave_quota", day)[kind]
        used = self._taken[agent, kind, f"{day:%Y}"]
        over = used + 1 > quota
        if kind in ("marriage", "bereavement"):  # granted in working days of the public calendar
            over = works(day) and self._working_days(agent, kind, day) + 1 > quota
        self._taken[agent, kind, f"{day:%Y}"] += 1
        breaks = over or self.figures.table("leave_breaks_full", day)[kind] == 1
        attended = 2 if self.figures.table("leave_counts_attended", day)[kind] == 1 and not over else 0
        return Day(day, not breaks, attended, 0)

    def _working_days(self, agent: str, kind: str, day: date) -> int:
        """The working days of this kind of leave before ``day`` in its year."""
        spent = 0
        for other, first, last in self._given[agent]:
            one = max(first, date(day.year, 1, 1))
            while other == kind and one <= last and one < day:
                spent += works(one)
                one += timedelta(days=1)
        return spent

    def _months(self, agent: str, days: list[Day]) -> None:
        company, streak = self.company, 0
        full_months: Counter[str] = Counter()
        for month in company.closed_months(agent, self.pack, self.until_ms):
            own = [day for day in days if day.month == month]
            first = date.fromisoformat(f"{month}-01")
            if self.judged("full-attendance", agent, month):
                self._charges(agent, month, first, own)
            if len(own) < self.figures.on("full_month_days", first):
                continue  # too few days neither make a streak nor break it
            streak = streak + 1 if all(day.full for day in own) else 0
            if streak:
                full_months[month[:4]] += 1
                points = min(
                    streak * self.figures.on("streak_points", first),
                    self.figures.on("streak_points_cap", first),
                )
                self.entries.append(Entry("fa-full-month", agent, month, month, "", points))
        self._year_bonus(agent, full_months)

    def _charges(self, agent: str, month: str, first: date, days: list[Day]) -> None:
        """FA-02 to FA-04 of one month."""
        figures = self.figures
        required, attended = 2 * len(days), sum(day.attended for day in days)
        if required:
            rate = Fraction(attended, required)
            if rate < figures.on("attendance_rate_low", first):
                self._add("fa-attendance-low", agent, month, "", -figures.on("attendance_low_points", first))
            if rate > figures.on("attendance_rate_high", first):
                self._add("fa-attendance-high", agent, month, "", figures.on("attendance_high_points", first))
        free, cap = figures.on("lateness_warnings", first), figures.on("lateness_points_cap", first)
        step = figures.on("lateness_points", first)
        cost = Fraction(0)
        for number in range(1, sum(day.minor for day in days) + 1):
            cost += min(max(Fraction(0), number - free) * step, cap)
        self._add("fa-03", agent, month, "", -cost)
        half = figures.on("absence_half_points", first)
        for shift, halves in (one for day in days for one in day.absent):
            self._add("fa-absent", agent, month, shift, -halves * half)

    def _year_bonus(self, agent: str, full_months: Counter[str]) -> None:
        company = self.company
        closed = company.closed_months(agent, self.pack, self.until_ms)
        for year, count in full_months.items():
            first = date(int(year), 1, 1)
            if f"{year}-12" in closed and count >= self.figures.on("year_bonus_months", first):
                self._add("fa-year-bonus", agent, year, "", self.figures.on("year_bonus_points", first))

    def _add(self, rule: str, agent: str, period: str, incident: str, points: Fraction) -> None:
        if points:
            self.entries.append(Entry(rule, agent, period, incident, "", points))


# --- the appraisal ----------------------------------------------------------------------------------------------------


class Appraisal:
    """Everything the policies give for the company up to ``until_ms``."""

    def __init__(self, company: Company, until_ms: int) -> None:
        self.company = company
        self.until_ms = until_ms
        self.entries: list[Entry] = []
        for charge in CHARGES:
            if charge.pack in company.packs:
                self._monthly(charge)
        if "logistics-service" in company.packs:
            self._rated("ls-cooperation", "survey.cross_department", "cooperation_points")
            self._rated("ls-growth", "training.assessed", "growth_points")
        if "front-desk" in company.packs:
            self._breaches()
            self._complaints_fell()
        if "full-attendance" in company.packs:
            self.attendance = Attendance(company, until_ms, self.judged)
            self.entries += self.attendance.entries
            self._verified()
        if "company-kpi" in company.packs:
            self._incomplete()
        self._appealed()
        self.scores = [score for pack in SUMS for score in self._scores(pack)]

    def under(self, pack: str, agent: str, at_ms: int) -> bool:
        """Whether a person comes under a policy at a moment."""
        return pack in self.company.line_at(agent, at_ms).packs

    def judged(self, pack: str, agent: str, month: str, begins: str = "") -> bool:
        """Whether a person is judged by a policy for a month: by the one of its end, unless they left before it.

        ``begins`` is the first month of a longer time that ends with this one.
        """
        last_ms = self.company.end_of(agent, month) - 1
        left_on = self.company.line_at(agent, last_ms).left_on
        return self.under(pack, agent, last_ms) and not (left_on and left_on < f"{begins or month}-01")

    def _monthly(self, charge: Charge) -> None:
        by_month: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
        for subject, month, arrived_ms, above, below in changes_of(self.company, charge.rule):
            by_month[subject, month].append((arrived_ms, above, below))
        for (agent, month), changes in by_month.items():
            closes_ms = self.company.close_of(agent, month, charge.pack)
            if closes_ms > self.until_ms or not self.judged(charge.pack, agent, month):
                continue
            self._charge(charge, agent, month, changes)

    def _charge(self, charge: Charge, agent: str, month: str, changes: list[tuple[int, int, int]]) -> None:
        """The entry of a month, and one for each later month in which something about it came late."""
        close_ms = self.company.close_of(agent, month, charge.pack)

        def worth(before_ms: int) -> Fraction:
            known = [change for change in changes if change[0] < before_ms]
            return self._points(charge, month, sum(c[1] for c in known), sum(c[2] for c in known))

        charged = worth(close_ms)
        if charged:
            self.entries.append(Entry(charge.rule, agent, month, "", "", charged))
        if self.until_ms <= close_ms:
            return
        late = {self.company.month_at(agent, change[0]) for change in changes if close_ms <= change[0]}
        for running in sorted(late):
            end_ms = self.company.end_of(agent, running)
            now = worth(min(end_ms, self.until_ms))
            if now != charged:
                self.entries.append(Entry(charge.rule, agent, running, "", month, now - charged))
                charged = now

    def _points(self, charge: Charge, month: str, above: int, below: int) -> Fraction:
        if below == 0 or (charge.rule == "ck-rings" and below < self._rings_judged(month)):
            return Fraction(0)
        day = date.fromisoformat(f"{month}-01")
        figures = self.company.figures[charge.pack]
        limit = figures.on(charge.limit, day)
        step = charge.step if isinstance(charge.step, Fraction) else figures.on(charge.step, day)
        value = Fraction(above, below)
        if charge.rule in ("fd-waiting-month", "fd-complaint-handling-slow"):
            value /= 1000  # measured in milliseconds, limited in seconds
        beyond = value - limit if charge.over else limit - value
        steps = max(0, floor(beyond / step))
        return -min(steps * figures.on(charge.points, day), figures.on(charge.cap, day))

    # --- single incidents ---

    def _incidents(self, rule: str, pack: str, query: str) -> Iterator[tuple[str, str, str, str, Any]]:
        """(agent, period, adjusts, incident, word) of each incident, in the month in which it counts."""
        for agent, incident, at_ms, arrived_ms, word in self.company.db.execute(query):
            if not self.under(pack, agent, at_ms):
                continue
            month = self.company.month_at(agent, at_ms)
            if arrived_ms >= self.company.close_of(agent, month, pack):
                yield agent, self.company.month_at(agent, arrived_ms), month, incident, word
            else:
                yield agent, month, "", incident, word

    def _rated(self, rule: str, event: str, table: str) -> None:
        query = f"select agent, id, at_ms, arrived_ms, word from event where type = '{event}' and word != ''"  # noqa: S608
        for agent, period, adjusts, incident, word in self._incidents(rule, "logistics-service", query):
            day = date.fromisoformat(f"{adjusts or period}-01")
            points = self.company.figures["logistics-service"].table(table, day)[word]
            if points:
                self.entries.append(Entry(rule, agent, period, incident, adjusts, points))

    def _breaches(self) -> None:
        query = """
            select agent, item, at_ms, arrived_ms, '' from event where type = 'flow.audited' and part < whole
        """
        for agent, period, adjusts, incident, _ in self._incidents("fd-flow-breach", "front-desk", query):
            day = date.fromisoformat(f"{adjusts or period}-01")
            points = -self.company.figures["front-desk"].on("flow_breach_points", day)
            self.entries.append(Entry("fd-flow-breach", agent, period, incident, adjusts, points))

    def _verified(self) -> None:
        """FA-08, FA-09, RD-04: complaints that were found right, about attitude or about how they were handled."""
        for rule, pack, blame, points in (
            ("fa-bad-attitude", "full-attendance", "part", "attitude_points"),
            ("fa-mishandled-complaint", "full-attendance", "whole", "mishandling_points"),
            ("rd-attitude", "reception", "part", "attitude_complaint_points"),
        ):
            if pack not in self.company.packs:
                continue
            query = f"""
                select agent, item, at_ms, arrived_ms, '' from event
                where type = 'complaint.upheld' and agent != '' and {blame} = 1
            """  # noqa: S608 - words of this module
            for agent, period, adjusts, incident, _ in self._incidents(rule, pack, query):
                day = date.fromisoformat(f"{adjusts or period}-01")
                worth = -self.company.figures[pack].on(points, day)
                self.entries.append(Entry(rule, agent, period, incident, adjusts, worth))

    def _incomplete(self) -> None:
        """CK-16: a difficult complaint whose record has gaps, or that was handed to nobody, unless it is excused."""
        query = """
            select agent, item, at_ms, arrived_ms, '' from event o
            where type = 'complaint.logged' and agent != '' and word in ('major', 'critical')
            and (json_extract(data, '$.complete') = 0 or coalesce(json_extract(data, '$.handed_to'), '') = '')
            and not exists (select 1 from event e
                where e.type = 'exemption.granted' and e.agent = o.agent and e.item = o.item)
        """
        for agent, period, adjusts, incident, _ in self._incidents("", "company-kpi", query):
            day = date.fromisoformat(f"{adjusts or period}-01")
            points = -self.company.figures["company-kpi"].on("record_error_points", day)
            self.entries.append(Entry("ck-record-incomplete", agent, period, incident, adjusts, points))

    def _rings_judged(self, month: str) -> Fraction:
        """CK-14: the fewest calls on which a month is judged."""
        return self.company.figures["company-kpi"].on("rings_judged_min", date.fromisoformat(f"{month}-01"))

    # --- appeals ---

    def _appealed(self) -> None:
        """LS-15, CK-12: what was appealed against in time, accepted and upheld is given back by an entry of its own.

        The appeal's text names the incident. What was appealed against once is not heard again.
        """
        query = """
            select f.agent, json_extract(f.data, '$.text'), json_extract(f.data, '$.against'), f.at_ms, d.at_ms,
                json_extract(d.data, '$.upheld'), (select count(*) from event e
                    where e.type like 'appeal.%' and e.type != 'appeal.filed' and e.item = f.item)
            from event f left join event d on d.type = 'appeal.decided' and d.item = f.item
            where f.type = 'appeal.filed' order by f.pos
        """
        self.upheld = self.unheard = 0
        heard: set[str] = set()
        charges = {
            (entry.subject, entry.incident): entry
            for entry in self.entries
            if entry.rule in ("ls-cooperation", "ck-record-incomplete") and entry.points < 0
        }
        for agent, text, against, filed_ms, decided_ms, upheld, answers in self.company.db.execute(query):
            charge = charges[agent, text.split()[-1]]
            pack = "company-kpi" if charge.rule.startswith("ck") else "logistics-service"
            if against in heard or not self._in_time(pack, agent, charge.period, filed_ms):
                self.unheard += answers
                continue
            heard.add(against)
            if not upheld:
                continue
            self.upheld += 1
            running = self.company.month_at(agent, decided_ms)
            self.entries.append(charge._replace(period=running, adjusts=charge.period, points=-charge.points))

    def _in_time(self, pack: str, agent: str, month: str, filed_ms: int) -> bool:
        """Whether an appeal came inside its working days from the announcement of the month's result."""
        query = """
            select min(at_ms) from event where type = 'result.announced' and agent = ?
            and json_extract(data, '$.pack') = ? and json_extract(data, '$.period') = ?
        """
        ((told_ms,),) = self.company.db.execute(query, (agent, pack, month)).fetchall()
        zone = ZoneInfo(self.company.zone_at(agent, filed_ms))
        last, filed = (datetime.fromtimestamp(one / 1000, zone).date() for one in (told_ms, filed_ms))
        days = self.company.figures[pack].on("appeal_window", last)
        while days:
            last += timedelta(days=1)
            days -= works(last)
        return filed <= last

    # --- departments ---

    def _complaints_fell(self) -> None:
        """FD-03: a department's complaints of the month against those of the baseline month."""
        company, figures = self.company, self.company.figures["front-desk"]
        logged: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
        for team, month, arrived_ms, one, _ in company.quotients(
            _is("complaint.logged"), "0", "team", "team_month"
        ):
            logged[team, month].append((arrived_ms, one, 0))
        teams = [row[0] for row in company.db.execute("select distinct team from event where team != ''")]
        for team in teams:
            for month in company.closed_months("", "front-desk", self.until_ms):
                day = date.fromisoformat(f"{month}-01")
                baseline = figures.word("complaint_baseline_month", day)
                close_ms = company.close_of("", month, "front-desk")
                before = sum(1 for one in logged[team, baseline] if one[0] < close_ms)
                now = sum(1 for one in logged[team, month] if one[0] < close_ms)
                if not before:
                    continue
                beyond = Fraction(now, before) - 1 - figures.on("complaint_change_limit", day)
                steps = max(0, floor(beyond / figures.on("complaint_excess_step", day)))
                points = min(
                    steps * figures.on("complaint_excess_points", day),
                    figures.on("complaint_excess_cap", day),
                )
                if points:
                    self.entries.append(Entry("fd-complaint-reduction", team, month, "", "", -points))

    # --- alerts ---

    def complaint_alerts(self) -> Iterator[tuple[str, str, str]]:
        """FD-06: (rule, who, complaint) of each complaint that had no answer, or was not closed, inside its time."""
        figures = self.company.figures["front-desk"]
        for what, ends in (
            ("response", "'complaint.responded', 'complaint.resolved', 'complaint.dismissed'"),
            ("resolution", "'complaint.resolved', 'complaint.dismissed'"),
        ):
            limit_ms = int(figures.on(f"complaint_{what}_limit", date(2026, 1, 1)) * 3_600_000)
            query = f"""
                select agent, queue, item, at_ms + {limit_ms} as due from event o
                where type = 'complaint.logged' and due < {self.until_ms} and not exists (
                    select 1 from event e where e.type in ({ends}) and e.item = o.item and e.agent = o.agent
                    and e.at_ms <= due and e.arrived_ms <= due)
            """  # noqa: S608 - numbers and words of this module
            for agent, queue, complaint, due_ms in self.company.db.execute(query):
                if not agent:
                    yield f"fd-complaint-{what}-missed-queue", queue, complaint
                elif self.under("front-desk", agent, due_ms):
                    yield f"fd-complaint-{what}-missed", agent, complaint

    def inspection_alerts(self) -> Iterator[tuple[str, str, str]]:
        """FD-07: (rule, site, inspection or month) of each inspection that was failed, or not made at all."""
        company, figures = self.company, self.company.figures["front-desk"]
        pass_score = figures.on("inspection_pass_score", date(2026, 1, 1)) * 100
        failed = "select site, id, part from event where type = 'area.inspected'"
        for site, inspection, score in company.db.execute(failed):
            if score < pass_score:
                yield "fd-inspection-failed", site, inspection
        made = Counter(
            company.db.execute("select site, month, word from event where type = 'area.inspected'").fetchall()
        )
        for site, zone in SITE_ZONES.items():
            grace_ms = figures.grace_ms
            for month in company.months():
                if company.zone_end(zone, month) + grace_ms > self.until_ms:
                    continue
                day = date.fromisoformat(f"{month}-01")
                for kind, rule, due in (
                    ("area", "fd-inspection-missing", "area_inspections_due"),
                    ("patrol", "fd-patrol-missing", "patrols_due"),
                ):
                    if made[site, month, kind] < figures.on(due, day):
                        yield rule, site, month

    def goals(self) -> Iterator[tuple[str, str, str]]:
        """LS-11: (what, who, goal): in force when both have signed; unsigned, which alerts, and signed after all."""
        company, signed = self.company, defaultdict(dict)  # type: tuple[Company, dict[str, dict[str, tuple[int, int]]]]
        query = """
            select json_extract(data, '$.goal_id'), json_extract(data, '$.who'), at_ms, arrived_ms from event
            where type = 'goal.signed' order by pos desc
        """
        for goal, who, *moments in company.db.execute(query):
            signed[goal][who] = tuple(moments)
        proposed = (
            "select agent, json_extract(data, '$.goal_id'), at_ms from event where type = 'goal.proposed'"
        )
        for agent, goal, at_ms in company.db.execute(proposed):
            if not self.under("logistics-service", agent, at_ms):
                continue
            days = company.figures["logistics-service"].on("goal_signing_time", date(2026, 1, 1))
            due_ms = at_ms + days * DAY_MS
            both = len(signed[goal]) == 2
            if both:
                yield "in force", agent, goal
            in_time = both and all(moment <= due_ms for one in signed[goal].values() for moment in one)
            if not in_time and due_ms < self.until_ms:
                yield "unsigned", agent, goal
                if both:
                    yield "signed after all", agent, goal

    def missed_interviews(self) -> Iterator[tuple[str, str]]:
        """LS-13: (who, appraisal) of each appraisal after which no interview was held inside its days."""
        company = self.company
        held: dict[str, int] = {}
        query = "select json_extract(data, '$.appraisal_id'), at_ms from event where type = 'interview.held'"
        for appraisal, at_ms in company.db.execute(query):
            held[appraisal] = min(at_ms, held.get(appraisal, at_ms))
        for score in self.scores:
            if score.pack != "logistics-service":
                continue
            month = score.period if len(score.period) == 7 else f"{score.period}-12"
            days = company.figures[score.pack].on("interview_time", date.fromisoformat(f"{month}-01"))
            due_ms = company.close_of(score.subject, month, score.pack) + days * DAY_MS
            appraisal = f"{score.pack}/{score.subject}/{score.period}"
            if due_ms < self.until_ms and held.get(appraisal, due_ms + 1) > due_ms:
                yield score.subject, appraisal

    # --- scores and grades ---

    def _scores(self, pack: str) -> Iterator[Score]:
        """The final score and grade of each person, policy and month: base and points, within the bounds."""
        company, figures = self.company, self.company.figures[pack]
        own = [entry for entry in self.entries if entry.rule.startswith(SUMS[pack])]
        points: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
        for entry in own:
            points[entry.subject, entry.period] += entry.points
        for agent, lines in company.roster.items():
            monthly: dict[str, list[Fraction]] = defaultdict(list)
            closed = company.closed_months(agent, pack, self.until_ms)
            for month in closed:
                end_ms = company.end_of(agent, month)
                if lines[0][0] >= end_ms or not self.judged(pack, agent, month):
                    continue
                day = date.fromisoformat(f"{month}-01")
                base, lowest, highest = (
                    figures.on(name, day) for name in ("base_score", "lowest_score", "highest_score")
                )
                score = min(max(base + points[agent, month], lowest), highest)
                bands = figures.table("grade_bands", day)
                grade = max((least, name) for name, least in bands.items() if score >= least)[1]
                monthly[month[:4]].append(score)
                yield Score(pack, agent, month, score, grade)
            if pack == "logistics-service":
                yield from self._years(
                    pack,
                    agent,
                    {
                        year: found
                        for year, found in monthly.items()
                        if f"{year}-12" in closed and self.judged(pack, agent, f"{year}-12", f"{year}-01")
                    },
                )

    @cached_property
    def _entries_of(self) -> dict[tuple[str, str], list[Entry]]:
        found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[entry.subject, entry.period].append(entry)
        return found

    def score_without(self, pack: str, agent: str, month: str, left: Collection[str]) -> Fraction:
        """The month's score under a policy of base and points, without what some of its rules gave or took."""
        own = [
            entry.points
            for entry in self._entries_of[agent, month]
            if entry.rule.startswith(SUMS[pack]) and entry.rule not in left
        ]
        day = date.fromisoformat(f"{month}-01")
        base, lowest, highest = (
            self.company.figures[pack].on(name, day)
            for name in ("base_score", "lowest_score", "highest_score")
        )
        return min(max(base + sum(own, Fraction(0)), lowest), highest)

    def _years(self, pack: str, agent: str, years: Mapping[str, list[Fraction]]) -> Iterator[Score]:
        """LS-10: the annual score is the mean of the months, out of 100, to the hundredth; half goes up."""
        for year, months in years.items():
            mean = min(sum(months, Fraction(0)) / len(months), Fraction(100))
            score = Fraction(floor(mean * 100 + Fraction(1, 2)), 100)
            bands = self.company.figures[pack].table("annual_grade_bands", date(int(year), 1, 1))
            grade = max((least, name) for name, least in bands.items() if score >= least)[1]
            yield Score(pack, agent, year, score, grade)
