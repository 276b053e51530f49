"""The independent appraisal's rota: who was due when, came, went and was logged in, as far as was known at a moment.

How the policy was read, where its words leave a choice:

- Two people who swap are both held to the new rota: who gave a shift away is not due on it, who took it over is. What
  was said last about a shift holds.
- A change of the rota known later than the policy's notice before the shift, be it the old or the new one, is never
  held against anybody: who keeps to the hours that both have in common has done all that was due.
- Office hours are worked on the working days of the public calendar, be they weekends that are worked for a holiday, by
  the clock of the site. A rota goes over them, and over holidays. Nobody is due after leaving.
- A clocking that names no shift is one of the office hours of its day.
- Who logged in is so until logging out, or for sixteen hours. Not clocked in, or not logged in, by the end of the grace
  alerts then, on what is known then; leave that is approved afterwards prevents nothing.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from chinese_calendar import is_workday

if TYPE_CHECKING:
    from tests.simulation.company_check import Company

MINUTE_MS = 60_000
LOGGED_IN_MS = 16 * 3_600_000
KINDS = ("shift.scheduled", "shift.changed", "shift.swapped")


def works(day: date) -> bool:
    """Whether the public calendar has a working day."""
    try:
        return bool(is_workday(day))
    except NotImplementedError:  # a year that was not announced yet
        return day.weekday() < 5


def moment_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


class Shift(NamedTuple):
    """A stretch of work that was due."""

    agent: str
    id: str
    day: date
    begin_ms: int
    end_ms: int


class Hours(NamedTuple):
    """Office hours as they were told."""

    id: str
    first: date
    last: date
    starts: time
    ends: time


class Told(NamedTuple):
    """When something happened, when that was known, and what it was."""

    at_ms: int
    arrived_ms: int
    what: str


class Rota:
    """The company's rota under the figures of one policy."""

    def __init__(self, company: Company, pack: str, until_ms: int) -> None:
        self.company = company
        self.figures = company.figures[pack]
        self.until_ms = until_ms
        self.days: dict[str, dict[date, list[Shift]]] = defaultdict(lambda: defaultdict(list))
        for (agent, shift), (day, begin_ms, end_ms) in self._shifts().items():
            self.days[agent][day].append(Shift(agent, shift, day, begin_ms, end_ms))
        self.office: set[str] = set()
        self._add_office_days()
        self.clocked: dict[tuple[str, str], list[Told]] = defaultdict(list)
        self._read_clockings()
        self.excused = set(
            company.db.execute("select agent, item from event where type = 'exemption.granted'").fetchall()
        )

    # --- who was due --------------------------------------------------------------------------------------------------

    def _shifts(self) -> dict[tuple[str, str], tuple[date, int, int]]:
        """The shifts that hold, by person and name."""
        held: dict[tuple[str, str], tuple[date, int, int]] = {}
        query = "select type, agent, at_ms, data from event where type like 'shift.%'"
        told = sorted(
            self.company.db.execute(query),
            key=lambda one: (one[2], KINDS.index(one[0]), json.loads(one[3])["shift_id"]),
        )
        self.short = self.swapped = 0
        for kind, agent, at_ms, text in told:
            data = json.loads(text)
            key = agent, data["shift_id"]
            if kind == "shift.swapped":
                held.pop(key, None)
                self.swapped += 1
                if data.get("taken_id"):
                    held[agent, data["taken_id"]] = _hours(data, "taken_")
            elif data.get("cancelled"):
                held.pop(key, None)
            elif kind == "shift.changed" and key in held:
                held[key] = self._changed(held[key], _hours(data), at_ms)
            else:
                held[key] = _hours(data)
        return held

    def _changed(
        self, before: tuple[date, int, int], after: tuple[date, int, int], at_ms: int
    ) -> tuple[date, int, int]:
        """What is due after a change of hours on the same day."""
        assert before[0] == after[0], "shifts of the company stay on their day"
        notice_ms = self.figures.on("short_notice", after[0]) * 60 * MINUTE_MS
        common = (after[0], max(before[1], after[1]), min(before[2], after[2]))
        if min(before[1], after[1]) - at_ms >= notice_ms:
            return after
        self.short += 1
        assert common[1] < common[2], "a shift of the company is moved by a few hours"
        return common

    def _add_office_days(self) -> None:
        told: dict[str, list[Hours]] = defaultdict(list)
        query = "select agent, data from event where type = 'hours.assigned' order by at_ms, pos"
        for agent, text in self.company.db.execute(query):
            data = json.loads(text)
            told[agent].append(
                Hours(
                    data["hours_id"], date.fromisoformat(data["first_day"]),
                    date.fromisoformat(data.get("last_day") or "9999-12-31"),
                    time.fromisoformat(data["starts"]), time.fromisoformat(data["ends"]),
                )
            )  # fmt: skip
        end = datetime.fromtimestamp(self.until_ms / 1000, ZoneInfo("UTC")).date()
        for agent, hours in told.items():
            day = min(one.first for one in hours)
            while day <= end:
                own = [one for one in hours if one.first <= day <= one.last]
                if own and own[-1].starts != own[-1].ends and works(day) and not self.days[agent].get(day):
                    self._add_office_day(agent, own[-1], day)
                day += timedelta(days=1)

    def _add_office_day(self, agent: str, hours: Hours, day: date) -> None:
        noon_ms = moment_ms(f"{day}T12:00:00+00:00")
        zone = ZoneInfo(self.company.zone_at(agent, noon_ms))
        begin_ms, end_ms = (
            int(datetime.combine(day, one, zone).timestamp()) * 1000 for one in (hours.starts, hours.ends)
        )
        left_on = self.company.line_at(agent, begin_ms).left_on
        if begin_ms < self.until_ms and not (left_on and date.fromisoformat(left_on) < day):
            shift = Shift(agent, f"{hours.id}@{day}", day, begin_ms, end_ms)
            self.days[agent][day].append(shift)
            self.office.add(shift.id)

    # --- who came -----------------------------------------------------------------------------------------------------

    def _read_clockings(self) -> None:
        query = """
            select type, agent, at_ms, arrived_ms, item, begin_ms, json_extract(data, '$.punch') from event
            where type like 'clock.%' order by at_ms, pos
        """
        for kind, agent, at_ms, arrived_ms, item, clocked_ms, punch in self.company.db.execute(query):
            shift = item
            if not shift:
                zone = ZoneInfo(self.company.zone_at(agent, at_ms))
                day = datetime.fromtimestamp(at_ms / 1000, zone).date()
                office = [one.id for one in self.days[agent].get(day, ()) if one.id in self.office]
                shift = office[0] if office else ""
            if kind == "clock.corrected":
                self.clocked[agent, shift].append(Told(clocked_ms, arrived_ms, f"{punch}, after all"))
            else:
                self.clocked[agent, shift].append(Told(at_ms, arrived_ms, kind.removeprefix("clock.")))

    def came_ms(self, shift: Shift, known_ms: int | None = None) -> int | None:
        """When somebody came to a shift, as far as it was known at a moment."""
        known_ms = self.until_ms if known_ms is None else known_ms
        came = [
            one.at_ms
            for one in self.clocked[shift.agent, shift.id]
            if one.what == "in" and one.arrived_ms <= known_ms and one.at_ms <= shift.end_ms
        ]
        return min(came, default=None)

    def went_ms(self, shift: Shift) -> int | None:
        """When somebody went from a shift: as it was corrected, or else the last time."""
        own = self.clocked[shift.agent, shift.id]
        corrected = [one.at_ms for one in own if one.what == "out, after all"]
        return (
            corrected[-1] if corrected else max((one.at_ms for one in own if one.what == "out"), default=None)
        )

    # --- alerts -------------------------------------------------------------------------------------------------------

    def not_in(self) -> Iterator[tuple[str, str, int]]:
        """FA-03: (who, shift, when) of each shift to which nobody had come by the end of the grace."""
        for shift, grace_ms in self._graces("clock_in_grace"):
            came_ms = self.came_ms(shift, grace_ms)
            if came_ms is None or came_ms > grace_ms:
                yield shift.agent, shift.id, grace_ms

    def not_logged_in(self) -> Iterator[tuple[str, str, int]]:
        """CK-15: (who, shift, when) of each shift in which nobody was logged in by the end of the grace.

        By what was known then, or by what was told later: whoever had forgotten to log out was not logged in.
        """
        told: dict[str, list[Told]] = defaultdict(list)
        query = """
            select agent, at_ms, arrived_ms, type from event
            where type in ('agent.logged_in', 'agent.logged_out') order by agent, at_ms, type
        """
        for agent, *one in self.company.db.execute(query):
            told[agent].append(Told(*one))
        moments = {agent: [one.at_ms for one in own] for agent, own in told.items()}
        for shift, grace_ms in self._graces("login_grace"):
            first = bisect_right(moments.get(shift.agent, []), shift.begin_ms - LOGGED_IN_MS)
            last = bisect_right(moments.get(shift.agent, []), grace_ms)
            true = told[shift.agent][first:last]
            known = [one for one in true if one.arrived_ms <= grace_ms]
            if not (_is_logged_in(known, shift) and _is_logged_in(true, shift)):
                yield shift.agent, shift.id, grace_ms

    def _graces(self, name: str) -> Iterator[tuple[Shift, int]]:
        """Each shift that was due as far as was known at the end of its grace, and that moment."""
        leaves: dict[str, list[tuple[date, date, int]]] = defaultdict(list)
        query = "select agent, day, until, arrived_ms from event where type = 'leave.approved'"
        for agent, first, last, arrived_ms in self.company.db.execute(query):
            leaves[agent].append((date.fromisoformat(first), date.fromisoformat(last), arrived_ms))
        for agent, days in self.days.items():
            for day, shifts in days.items():
                grace_ms = int(self.figures.on(name, day)) * MINUTE_MS
                for shift in shifts:
                    ends_ms = min(shift.begin_ms + grace_ms, shift.end_ms)
                    away = any(
                        first <= day <= last and known_ms <= ends_ms
                        for first, last, known_ms in leaves[agent]
                    )
                    if not away and ends_ms < self.until_ms:
                        yield shift, ends_ms


def _is_logged_in(told: list[Told], shift: Shift) -> bool:
    """Whether somebody logged in after the beginning of a shift, or was logged in at it."""
    during = any(one.at_ms > shift.begin_ms and one.what == "agent.logged_in" for one in told)
    before = [one for one in told if one.at_ms <= shift.begin_ms]
    return during or bool(before and before[-1].what == "agent.logged_in")


def _hours(data: dict[str, str], prefix: str = "") -> tuple[date, int, int]:
    return (
        date.fromisoformat(data[f"{prefix}day"]), moment_ms(data[f"{prefix}starts_at"]),
        moment_ms(data[f"{prefix}ends_at"]),
    )  # fmt: skip
