"""The independent appraisal's pay: CK-02, CK-06, LS-14, FA-13 and the pay guard, from the check's grades and entries.

Every month is settled on the twelfth of the next one. How the policy was read, where its words leave a choice:

- Who comes or goes in a month is paid for its working days from the first to the last day of being employed.
- The pay base is rounded first, each line once, halves away from nothing; the guard's limit is rounded down.
- Points of attendance are money: awards always, as performance or year-end bonus, penalties where fines are on. What
  comes late is paid with the month in which it comes; what gives a penalty back belongs to penalties.
- Deductions are counted cause by cause, each with what gave something of it back.
- Pay that is stated anew for a month that is settled changes that month's lines; the difference comes with the next.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import NamedTuple

from tests.simulation.company_check import COMPANY_ZONE, Appraisal, Entry, Figures, Score, to_ms
from tests.simulation.company_rota import works

KPI, ATTENDANCE, LOGISTICS = "company-kpi", "full-attendance", "logistics-service"
AWARDS = {"fa-attendance-high": "PERFBONUS", "fa-full-month": "PERFBONUS", "fa-year-bonus": "YEARBONUS"}
"""FA-13: which awards are the performance bonus, and which the year-end bonus."""


class Line(NamedTuple):
    """What a statement pays for one component and one month, in minor units."""

    batch_month: str
    agent: str
    component: str
    effective: str
    amount_minor: int


class Sheet(NamedTuple):
    """The figures of a statement, in minor units."""

    month: str
    agent: str
    gross_minor: int
    base_minor: int
    fixed_minor: int
    pay_minor: int


class Stated(NamedTuple):
    """What was said about somebody's pay, and when."""

    at_ms: int
    period: str
    gross_minor: int | None
    annual_minor: int | None


def half_up(amount: Fraction | int) -> int:
    """The nearest whole number, halves away from nothing."""
    half = Fraction(1, 2)
    return -floor(half - amount) if amount < 0 else floor(half + amount)


def settled_ms(month: str) -> int:
    """When a month is settled."""
    year, number = int(month[:4]), int(month[5:])
    following = date(year + number // 12, number % 12 + 1, 12)
    return to_ms(f"{following}T09:00:00+08:00")


class PaySheets:
    """Everybody's pay of every month that is settled."""

    def __init__(
        self,
        appraisal: Appraisal,
        rules: Path,
        scores: Iterable[Score],
        entries: Iterable[Entry],
        until_ms: int,
    ) -> None:
        self.company = appraisal.company
        self.kpi, self.attendance, self.logistics = (
            Figures(rules, one) for one in (KPI, ATTENDANCE, LOGISTICS)
        )
        self._grades = {(one.pack, one.subject, one.period): one.grade for one in scores}
        self._owed: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.rule.startswith("fa-"):
                month = f"{entry.period}-12" if len(entry.period) == 4 else entry.period
                self._owed[entry.subject, month].append(entry)
        self._stated: dict[str, list[Stated]] = defaultdict(list)
        query = "select agent, at_ms, data from event where type = 'pay.stated' order by pos"
        for agent, at_ms, text in self.company.db.execute(query):
            data = json.loads(text)
            said = Stated(at_ms, data["period"], data.get("gross_minor"), data.get("annual_salary_minor"))
            self._stated[agent].append(said)
        self.sheets: list[Sheet] = []
        self._sums: Counter[tuple[str, str, str, str]] = Counter()
        self._booked: dict[tuple[str, str], Counter[str]] = {}
        self._adjusted: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self.held = self.restated = 0
        months = [one for one in self.company.months() if settled_ms(one) <= until_ms]
        for month in months:
            self._settle(month, months)
        self.lines = Counter(Line(*key, amount) for key, amount in self._sums.items() if amount)

    # --- what somebody earns ------------------------------------------------------------------------------------------

    def _gross(self, agent: str, month: str, known_ms: int) -> tuple[Fraction, Fraction]:
        """CK-02: a month's gross pay, or the part of an annual salary that counts as a month's; and the part of the
        month's working days for which it is paid.
        """
        said = [one for one in self._stated[agent] if one.at_ms < known_ms]
        own = [one for one in said if one.period == month]
        annual = [one for one in said if one.period < month and one.annual_minor is not None]
        if not own and not annual:
            line = self.company.line_at(agent, self.company.zone_end(COMPANY_ZONE, month) - 1)
            return Fraction(line.pay_minor), self._part(agent, month)
        chosen = (own or annual)[-1]
        if chosen.annual_minor is None:
            return Fraction(chosen.gross_minor or 0), Fraction(1)
        share = self.kpi.on("annual_share", date.fromisoformat(f"{month}-01"))
        return Fraction(chosen.annual_minor, 12) * share, self._part(agent, month)

    def _part(self, agent: str, month: str) -> Fraction:
        """For which part of the month's working days somebody was employed."""
        first = date.fromisoformat(f"{month}-01")
        assert self.kpi.word("pay_days", first) == "workdays"
        days = [day for number in range(31) if (day := first + timedelta(days=number)).month == first.month]
        working = [day.isoformat() for day in days if works(day)]
        line = self.company.line_at(agent, self.company.zone_end(COMPANY_ZONE, month) - 1)
        own = [day for day in working if line.hired_on <= day <= (line.left_on or day)]
        return Fraction(len(own), len(working))

    def _is_staff(self, agent: str, month: str) -> bool:
        """Whether the roster has somebody under the scheme in a month."""
        end_ms = self.company.zone_end(COMPANY_ZONE, month)
        if self.company.roster[agent][0].from_ms >= end_ms:
            return False
        line = self.company.line_at(agent, end_ms - 1)
        return KPI in line.packs and not (line.left_on and line.left_on < f"{month}-01")

    # --- one month of one person --------------------------------------------------------------------------------------

    def _own(
        self, agent: str, month: str, known_ms: int, adjusted: Iterable[tuple[str, int]]
    ) -> tuple[Sheet, Counter[str]]:
        """A month's own lines by component; ``adjusted`` is what the statement has of earlier months."""
        day = date.fromisoformat(f"{month}-01")
        gross, part = self._gross(agent, month, known_ms)
        gross_minor = half_up(gross * part)
        # Pay by days is rounded to the month's gross pay first.
        base = half_up((gross if part == 1 else gross_minor) * self.kpi.on("pay_share", day))
        lines: Counter[str] = Counter()
        grade = self._grades.get((KPI, agent, month))
        if grade is not None:
            bonuses = self.kpi.table("bonuses", day)
            lines["PERF"] += half_up(base * self.kpi.table("coefficients", day)[grade])
            lines["BONUS"] += half_up(base * bonuses.get(grade, bonuses["*"]))
        grade = self._grades.get((LOGISTICS, agent, month))
        if grade is not None:
            share = (
                self.logistics.on("bonus_share", day) * self.logistics.table("bonus_coefficients", day)[grade]
            )
            lines["GRADEBONUS"] += half_up(base * share)
        deducted = self._points(agent, month, day, lines)
        before: Counter[str] = Counter()
        for closed, amount in adjusted:
            before[closed] += amount
        deducted += sum(max(0, -amount) for amount in before.values())
        by_limit = max(0, deducted - floor(gross_minor * self.kpi.on("deduction_limit", day)))
        least = min(int(self.kpi.on("pay_floor", day)), gross_minor)
        pay = gross_minor - base + sum(lines.values()) + sum(before.values())
        lines["GUARD"] += by_limit + max(0, least - pay - by_limit)
        return Sheet(month, agent, gross_minor, base, gross_minor - base, pay + lines["GUARD"]), lines

    def _points(self, agent: str, month: str, day: date, lines: Counter[str]) -> int:
        """FA-13: what the month's entries pay and cost; the sum of what is deducted."""
        causes: Counter[tuple[str, str, str]] = Counter()
        for entry in self._owed[agent, month]:
            component, amount = self._worth(entry, day)
            lines[component] += amount
            if amount < 0:
                causes[entry.rule, entry.incident, entry.adjusts or entry.period] += amount
        return sum(max(0, -amount) for amount in causes.values())

    def _worth(self, entry: Entry, day: date) -> tuple[str, int]:
        """The component of an entry, and what it pays or costs."""
        amount = half_up(entry.points * self.attendance.on("point_value", day))
        if entry.rule in AWARDS:
            return AWARDS[entry.rule], amount
        if amount > 0:
            return "PENALTY", amount
        return "PENALTY", amount if self.attendance.word("fines", day) == "on" else 0

    # --- all of a month -----------------------------------------------------------------------------------------------

    def _settle(self, month: str, months: Iterable[str]) -> None:
        known_ms = settled_ms(month)
        for agent in sorted(self.company.roster):
            adjusted: list[tuple[str, int]] = []
            for closed in months:
                if closed < month and (agent, closed) in self._booked:
                    adjusted += self._changes(agent, closed, month, known_ms)
            if not self._is_staff(agent, month):
                assert not adjusted, "whoever has left is not paid anew here"
                continue
            self._adjusted[agent, month] = adjusted
            sheet, lines = self._own(agent, month, known_ms, adjusted)
            self._booked[agent, month] = lines
            self.held += lines["GUARD"] > 0
            self.sheets.append(sheet)
            self._note(month, agent, month, lines)
            for entry in self._owed[agent, month]:
                if entry.adjusts:  # the line names the month that it is about
                    component, amount = self._worth(entry, date.fromisoformat(f"{month}-01"))
                    self._note(month, agent, month, {component: -amount})
                    self._note(month, agent, entry.adjusts, {component: amount})

    def _changes(self, agent: str, closed: str, month: str, known_ms: int) -> list[tuple[str, int]]:
        """What a settled month's lines came to since."""
        _, now = self._own(agent, closed, known_ms, self._adjusted[agent, closed])
        booked = self._booked[agent, closed]
        changed = Counter({part: now[part] - booked[part] for part in now.keys() | booked.keys()})
        self._booked[agent, closed] = now
        self._note(month, agent, closed, changed)
        found = [(closed, amount) for amount in changed.values() if amount]
        self.restated += bool(found)
        return found

    def _note(self, month: str, agent: str, effective: str, amounts: Mapping[str, int]) -> None:
        for component, amount in amounts.items():
            self._sums[month, agent, component, effective] += amount
