"""The independent appraisal's cards: reception (RD-02 to RD-13) and company KPI (CK-03 to CK-11, CK-13, CK-20).

A card is worked out from the policy's words: every item earns a share of its points, a dimension the points of its
items out of those that have data, the score 100 times the weighted mean of the dimensions that have data, plus the
points of the month's entries; rounded once, half a step upwards. Nothing here comes from the engine; figures are those
of the packs' ``parameters.yaml``.

How the policy was read, where its words leave a choice:

- What arrives or is said after a month was judged moves nothing in it. Of two words of one person about one item the
  later one holds. A role that is silent leaves its weight to the others; without the superior's word an item of one's
  work has no data, a department's without the leader's.
- The leader's final word goes before everything else: the errors that hold a grade down, and the calibration.
- Where the grade is not the one of the score, the score moves to the nearest one of the grade's band.
- Calibration takes half of the difference between an assessor's mean and that of all the others out of the scores, at
  most a tenth either way; an assessor with too few scores, or without enough others, is left alone. A score that counts
  in nobody's month, because it is the only one, does not count in the calibration either.
- The year's score is the mean of the months' final scores; of receptionists, with the quarters, as they are weighed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

from tests.simulation.company_check import (
    CONTENT,
    DAY_MS,
    HOUR_MS,
    Appraisal,
    Attendance,
    Company,
    Figures,
    Score,
    to_ms,
)

TENTH = Fraction(1, 10)
ONE = Fraction(1)
Change = tuple[Any, ...]


class Part(NamedTuple):
    """An item of a card: its dimension, its greatest points, and the share that was earned (None: no data)."""

    dimension: str
    most: Fraction
    share: Fraction | None


class Result(NamedTuple):
    """A month's result of one person before the company as a whole is looked at."""

    agent: str
    department: str
    exact: Fraction
    work: Fraction
    score: Fraction
    grade: str
    caps: tuple[str, ...]
    ruled: bool
    monitored: Fraction
    evaluations: tuple[tuple[str, int, int], ...]
    hired_on: str


class Proposed(NamedTuple):
    """CK-07, CK-08: what repeated grades lead to."""

    rule: str
    subject: str
    period: str


def worked(parts: Iterable[Part], weights: Mapping[str, Fraction]) -> dict[str, Fraction] | None:
    """What each dimension contributes to the hundred; None when nothing has data."""
    most: dict[str, Fraction] = defaultdict(Fraction)
    earned: dict[str, Fraction] = defaultdict(Fraction)
    for part in parts:
        if part.share is not None:
            most[part.dimension] += part.most
            earned[part.dimension] += part.most * part.share
    total = sum((weights[name] for name in most), Fraction(0))
    if not total:
        return None
    return {name: 100 * weights[name] / total * earned[name] / most[name] for name in most}


def to_step(value: Fraction, step: Fraction = TENTH) -> Fraction:
    return floor(value / step + Fraction(1, 2)) * step


def inside(value: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return max(low, min(high, value))


class Bands:
    """The grades of a policy, best first, with the lowest score of each."""

    def __init__(self, figures: Figures, day: date, name: str = "grade_bands") -> None:
        self.least = figures.table(name, day)
        self.order = sorted(self.least, key=lambda grade: -self.least[grade])

    def of(self, score: Fraction, caps: Iterable[str] = ()) -> str:
        """The grade of a score, no better than any of ``caps``."""
        rank = next(index for index, grade in enumerate(self.order) if score >= self.least[grade])
        return self.order[max([rank, *(self.order.index(cap) for cap in caps)])]

    def moved(self, score: Fraction, grade: str) -> Fraction:
        """The score of a grade's band that is nearest to ``score``."""
        rank = self.order.index(grade)
        high = self.least[self.order[rank - 1]] - TENTH if rank else Fraction(100)
        return inside(score, self.least[grade], high)


class Voices:
    """What people said of a person or department for one period under one policy."""

    def __init__(self, figures: Figures, day: date) -> None:
        self.figures = figures
        self.day = day
        self.said: dict[str, dict[tuple[str, str], tuple[int, dict[str, Any]]]] = defaultdict(dict)
        self.ruled: dict[str, tuple[int, dict[str, Any]]] = {}

    def hear(self, kind: str, at_ms: int, data: dict[str, Any]) -> None:
        item = data.get("item", "")
        if kind == "assessment.decided":
            self.ruled[item] = max(self.ruled.get(item, (0, {})), (at_ms, data), key=lambda one: one[0])
            return
        who = data["role"], data.get("by_department") or data["by"]
        before = self.said[item].get(who, (0, {}))
        self.said[item][who] = max(before, (at_ms, data), key=lambda one: one[0])

    def _worth(self, data: Mapping[str, Any], most: Fraction) -> Fraction:
        if data.get("grade"):
            return self.figures.table("word_shares", self.day)[data["grade"]]
        return Fraction(data.get("score", 0), 100) / most

    def share(self, item: str, most: Fraction, roles: str, required: str = "") -> Fraction | None:
        """The share of an item's points that those who spoke give, by the weights of their roles."""
        if item in self.ruled:
            return self._worth(self.ruled[item][1], most)
        weights = self.figures.table(roles, self.day)
        by_role: dict[str, list[Fraction]] = defaultdict(list)
        for (role, _), (_, data) in self.said[item].items():
            by_role[role].append(self._worth(data, most))
        heard = {role: weight for role, weight in weights.items() if role in by_role}
        if not heard or (required and required not in by_role):
            return None
        mean = sum(
            (weight * sum(by_role[role], Fraction(0)) / len(by_role[role]) for role, weight in heard.items()),
            Fraction(0),
        )
        return mean / sum(heard.values(), Fraction(0))


class Cards:
    """The cards of one company."""

    def __init__(self, appraisal: Appraisal) -> None:
        self.appraisal = appraisal
        self.company = appraisal.company
        self.until_ms = appraisal.until_ms
        self.late_voices = 0
        self.scores: list[Score] = []
        self.proposed: list[Proposed] = []
        self.missed_quota = 0
        self.shifted: set[str] = set()

    # --- what both policies need --------------------------------------------------------------------------------------

    def voices(self, pack: str, subject_kind: str) -> dict[tuple[str, str], Voices]:
        """What was said in time, by person or department and month."""
        found: dict[tuple[str, str], Voices] = {}
        figures = self.company.figures[pack]
        query = """
            select type, at_ms, arrived_ms, data from event
            where type in ('assessment.submitted', 'assessment.decided') order by pos
        """
        for kind, at_ms, arrived_ms, text in self.company.db.execute(query):
            data = json.loads(text)
            subject = data.get(subject_kind, "")
            if data["pack"] != pack or not subject:
                continue
            key = subject, data["period"]
            if arrived_ms >= self.company.close_of(*key, pack):
                self.late_voices += 1
                continue
            if key not in found:
                found[key] = Voices(figures, date.fromisoformat(f"{data['period']}-01"))
            found[key].hear(kind, at_ms, data)
        return found

    def ratios(self, pack: str, changes: Iterable[Change]) -> dict[tuple[str, str], Fraction]:
        """The value of a monthly quotient as it was known when the month was judged."""
        sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for agent, month, arrived_ms, above, below in changes:
            if arrived_ms < self.company.close_of(agent, month, pack):
                sums[agent, month][0] += above
                sums[agent, month][1] += below
        return {key: Fraction(above, below) for key, (above, below) in sums.items() if below}

    def entries(self, prefix: str) -> dict[tuple[str, str], Fraction]:
        """The points of a month's entries by person and month."""
        points: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
        for entry in self.appraisal.entries:
            if entry.rule.startswith(prefix):
                points[entry.subject, entry.period] += entry.points
        return points

    def staff(self, pack: str, month: str, begins: str = "") -> list[str]:
        """Everybody whom a policy judges for a month (or from ``begins`` to it), once that is over for good."""
        company = self.company
        return [
            agent
            for agent, lines in sorted(company.roster.items())
            if company.close_of(agent, month, pack) <= self.until_ms
            and lines[0].from_ms < company.end_of(agent, month)
            and self.appraisal.judged(pack, agent, month, begins)
        ]


def count_of(where: str, among: str) -> tuple[str, str]:
    """Numerator and denominator of a share among events."""
    return f"({among}) and ({where})", among


def sum_of(part: str, whole: str, kind: str) -> tuple[str, str]:
    """Numerator and denominator that are sums of fields of one kind of event."""
    is_kind = f"(type = '{kind}')"
    return f"{is_kind} * {part}", f"{is_kind} * {whole}"


def field(name: str) -> str:
    return f"coalesce(json_extract(data, '$.{name}'), 0)"


# --- company KPI ------------------------------------------------------------------------------------------------------

WORK = {"completion": "completion_most", "execution": "execution_most", "attitude": "conduct_most"}
DEPARTMENT = ("work", "execution", "guidance", "safety", "discipline", "spirit")


class CompanyKpi(Cards):
    """The company's own scheme: people, departments, quota, calibration, repeated grades."""

    PACK = "company-kpi"

    def __init__(self, appraisal: Appraisal) -> None:
        super().__init__(appraisal)
        self.figures = self.company.figures[self.PACK]
        self._said = self.voices(self.PACK, "agent")
        self._duties = self._measure()
        self._heard = self._evaluations()
        self._caps = self._held_down()
        self._points = self.entries("ck-")
        self.final: dict[str, dict[str, tuple[Fraction, str]]] = defaultdict(dict)
        for month in self.company.months():
            staff = self.staff(self.PACK, month)
            if all(
                self.company.close_of(one, month, self.PACK) <= self.until_ms
                for one in ("", *self.company.roster)
            ):
                self._month(month, staff)
        self._years()
        self._departments()

    def _measure(self) -> dict[str, dict[tuple[str, str], Fraction]]:
        """The duties that are measured: promises, mystery shoppers, surveys."""
        company, figures = self.company, self.figures
        hours = figures.on("reply_limit", date(2026, 1, 1))
        promises = company.deadline(
            "complaint.logged", "('complaint.responded', 'complaint.resolved')",
            f"coalesce({promised('o.data')}, o.at_ms + {hours} * {HOUR_MS})",
            where="o.word in ('major', 'critical')", cancelled_by="('complaint.dismissed')",
        )  # fmt: skip
        asked = "type = 'survey.customer'"
        return {
            "promises": self.ratios(self.PACK, promises),
            "mystery": self.ratios(
                self.PACK, company.quotients(*sum_of(field("score"), "10000", "survey.mystery_shopper"))
            ),
            "survey": self.ratios(self.PACK, company.quotients(*count_of(f"word in {CONTENT}", asked))),
        }

    def _evaluations(self) -> dict[tuple[str, str], dict[str, list[int]]]:
        """CK-20: the scores of monitored calls, by person and month, and by assessor."""
        found: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        query = "select agent, at_ms, data from event where type = 'quality.evaluated' order by pos"
        for agent, at_ms, text in self.company.db.execute(query):
            data = json.loads(text)
            found[agent, self.company.month_at(agent, at_ms)][data["by"]].append(data["score"])
        return found

    def _held_down(self) -> dict[tuple[str, str], list[str]]:
        """CK-04: a major error makes the grade D, several errors C at best."""
        company = self.company
        caps: dict[tuple[str, str], list[str]] = defaultdict(list)
        errors: Counter[tuple[str, str]] = Counter()
        query = """
            select agent, at_ms, arrived_ms, word, 1 from event where type = 'error.recorded'
            union all
            select agent, at_ms, arrived_ms, '', 0 from event
            where type = 'complaint.logged' and agent != '' and word in ('major', 'critical')
            and (json_extract(data, '$.complete') = 0 or coalesce(json_extract(data, '$.handed_to'), '') = '')
        """
        for agent, at_ms, arrived_ms, word, _ in company.db.execute(query):
            month = company.month_at(agent, at_ms)
            late = arrived_ms >= company.close_of(agent, month, self.PACK)
            if word == "critical":
                # What is found out late counts in the month in which it is.
                caps[agent, company.month_at(agent, arrived_ms) if late else month].append("D")
            errors[agent, month] += not late
        for (agent, month), count in errors.items():
            if count >= self.figures.on("occasional_errors", date.fromisoformat(f"{month}-01")):
                caps[agent, month].append("C")
        return caps

    # --- people ---

    def _result(self, agent: str, month: str) -> Result | None:
        """One person's month."""
        figures, day = self.figures, date.fromisoformat(f"{month}-01")
        voices = self._said.get((agent, month)) or Voices(figures, day)
        parts = []
        for item, most in WORK.items():
            points = figures.on(most, day)
            parts.append(Part("work", points, voices.share(item, points, "assessor_roles", "superior")))
        for item, values in self._duties.items():
            value = values.get((agent, month))
            if value is not None:
                hundred = 100 if item == "mystery" else 1
                none, full = (figures.on(f"{item}_{end}", day) / hundred for end in ("none", "full"))
                share = inside((value - none) / (full - none), Fraction(0), ONE)
                parts.append(Part("duties", figures.on(f"{item}_most", day), share))
        heard = self._heard.get((agent, month), {})
        scores = [score for given in heard.values() for score in given]
        monitored = None
        if len(scores) >= figures.on("contacts_min", day):
            monitored = Part(
                "duties", figures.on("monitored_most", day), Fraction(sum(scores), 10_000 * len(scores))
            )
            parts.append(monitored)
        weights = figures.table("dimension_weights", day)
        dimensions = worked(parts, weights)
        ruling = voices.ruled.get("")
        if dimensions is None and ruling is None:
            return None
        exact = sum((dimensions or {}).values(), Fraction(0)) + self._points[agent, month] * (
            dimensions is not None
        )
        pull = Fraction(0)
        if monitored is not None:
            known = [part for part in parts if part.share is not None]
            total = sum((weights[name] for name in {part.dimension for part in known}), Fraction(0))
            duties = sum((part.most for part in known if part.dimension == "duties"), Fraction(0))
            pull = 100 * weights["duties"] / total * monitored.most / duties
        score, grade = self._graded(exact, self._caps[agent, month], day, ruling[1] if ruling else None)
        line = self.company.line_at(agent, self.company.end_of(agent, month) - 1)
        return Result(
            agent, line.team, exact, (dimensions or {}).get("work", Fraction(0)), score, grade,
            tuple(self._caps[agent, month]), ruling is not None, pull,
            tuple((by, len(given), sum(given)) for by, given in sorted(heard.items()) if monitored), line.hired_on,
        )  # fmt: skip

    def _graded(
        self, exact: Fraction, caps: Sequence[str], day: date, ruling: Mapping[str, Any] | None = None
    ) -> tuple[Fraction, str]:
        """The score and the grade that goes with it."""
        bands = Bands(self.figures, day)
        low, high = (self.figures.on(name, day) for name in ("lowest_score", "highest_score"))
        score = inside(to_step(exact), low, high)
        if ruling is not None:
            if ruling.get("score") is not None:
                score = Fraction(ruling["score"], 100)
                return score, bands.of(score)
            return bands.moved(score, ruling["grade"]), ruling["grade"]
        grade = bands.of(score, caps)
        return (score if grade == bands.of(score) else bands.moved(score, grade)), grade

    def _month(self, month: str, staff: Sequence[str]) -> None:
        """Everybody's month: calibrated, then shared out, then final."""
        day = date.fromisoformat(f"{month}-01")
        results = [one for agent in staff if (one := self._result(agent, month)) is not None]
        shifts = self._shifts(results, day)
        self.shifted |= {by for by, shift in shifts.items() if shift}
        results = [self._calibrated(one, shifts, day) for one in results]
        kept = self._quota(results, month, day)
        bands = Bands(self.figures, day)
        for one in results:
            score, grade = one.score, one.grade
            if grade == bands.order[0] and one.agent not in kept:
                self.missed_quota += 1
                grade = bands.order[1]
                score = bands.moved(score, grade)
            self.final[one.agent][month] = score, grade
            self.scores.append(Score(self.PACK, one.agent, month, score, grade))
            self._repeated(one.agent, month, grade)

    def _shifts(self, results: Iterable[Result], day: date) -> dict[str, Fraction]:
        """CK-20: how far each assessor's scores are moved, in shares of all points."""
        given: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for one in results:
            for by, count, total in one.evaluations:
                given[by][0] += count
                given[by][1] += total
        everything = [sum(own[index] for own in given.values()) for index in (0, 1)]
        least, strength, limit = (
            self.figures.on(name, day) for name in ("calibrated_min", "strength", "calibration_limit")
        )
        shifts = {}
        for by, (count, total) in given.items():
            others, others_total = everything[0] - count, everything[1] - total
            shifts[by] = Fraction(0)
            if count >= least and others >= least:
                difference = Fraction(total, 10_000 * count) - Fraction(others_total, 10_000 * others)
                shifts[by] = inside(-strength * difference, -limit, limit)
        return shifts

    def _calibrated(self, one: Result, shifts: Mapping[str, Fraction], day: date) -> Result:
        count = sum(number for _, number, _ in one.evaluations)
        moved = sum(
            (one.monitored * Fraction(number, count) * shifts[by] for by, number, _ in one.evaluations),
            Fraction(0),
        )
        if one.ruled or not moved:
            return one
        score, grade = self._graded(one.exact + moved, one.caps, day)
        return one._replace(exact=one.exact + moved, score=score, grade=grade)

    def _quota(self, results: Sequence[Result], month: str, day: date) -> set[str]:
        """CK-05: who keeps an A: one in ten of the staff, and so many of each department.

        The better score goes first, then the better work, the better month before, the longer service.
        """
        best = Bands(self.figures, day).order[0]
        before = date(day.year - (day.month == 1), (day.month - 2) % 12 + 1, 1)
        earned = sorted(
            (one for one in results if one.grade == best),
            key=lambda one: (
                -one.score, -one.work, -self.final[one.agent].get(f"{before:%Y-%m}", (-ONE, ""))[0], one.hired_on,
            ),
        )  # fmt: skip
        places = floor(len(results) * self.figures.on("quota_share", day))
        each = self.figures.on("quota_department", day)
        kept: set[str] = set()
        taken: Counter[str] = Counter()
        for one in earned:
            if len(kept) < places and taken[one.department] < each:
                kept.add(one.agent)
                taken[one.department] += 1
        return kept

    def _repeated(self, agent: str, month: str, grade: str) -> None:
        """CK-07, CK-08: what D, and three C in a year, lead to."""
        day = date.fromisoformat(f"{month}-01")
        grades = self.final[agent]
        if grade == "D":
            count = sum(one == "D" for _, one in grades.values())
            named = (("ck-observation", "observed_at"), ("ck-probation", "probation_at"))
            for rule, at in named:
                if count == self.figures.on(at, day):
                    self.proposed.append(Proposed(rule, agent, month))
            if count >= self.figures.on("ended_at", day):
                self.proposed.append(Proposed("ck-contract-end", agent, month))
        if grade == "C":
            count = sum(one == "C" for label, (_, one) in grades.items() if label[:4] == month[:4])
            if count >= self.figures.on("penalised_at", day):
                self.proposed.append(Proposed("ck-repeated-c", agent, month))

    def _years(self) -> None:
        """CK-13: the year of everybody who is still under the scheme at its end."""
        for year in sorted({month[:4] for months in self.final.values() for month in months}):
            last = f"{year}-12"
            if not self.company.is_closed("", last, self.PACK, self.until_ms):
                continue
            for agent, months in self.final.items():
                own = [score for month, (score, _) in months.items() if month[:4] == year]
                if not own or not self.appraisal.judged(self.PACK, agent, last, f"{year}-01"):
                    continue
                score = to_step(sum(own, Fraction(0)) / len(own))
                grade = Bands(self.figures, date(int(year), 1, 1)).of(score)
                self.scores.append(Score(self.PACK, agent, year, score, grade))

    # --- departments ---

    def _departments(self) -> None:
        """CK-09: six items, heard from the head, other departments and the leader; the year is the mean."""
        years: dict[tuple[str, str], list[Fraction]] = defaultdict(list)
        for (name, month), voices in sorted(self.voices(self.PACK, "department").items()):
            if self.company.close_of("", month, self.PACK) > self.until_ms:
                continue
            day = date.fromisoformat(f"{month}-01")
            parts = []
            for item in DEPARTMENT:
                most = self.figures.on(f"department_{item}_most", day)
                parts.append(Part("all", most, voices.share(item, most, "department_roles", "leader")))
            dimensions = worked(parts, {"all": ONE})
            assert dimensions is not None, "every department is assessed"
            score, grade = self._graded(dimensions["all"], (), day)
            years[name, month[:4]].append(score)
            self.scores.append(Score(self.PACK, name, month, score, grade))
        for (name, year), months in years.items():
            if self.company.is_closed("", f"{year}-12", self.PACK, self.until_ms):
                score, grade = self._graded(sum(months, Fraction(0)) / len(months), (), date(int(year), 1, 1))
                self.scores.append(Score(self.PACK, name, year, score, grade))

    # --- the calendar ---

    def missed_steps(self) -> Iterator[tuple[str, str, str, bool]]:
        """CK-10: (step, whose, month, whether the superior heard of it) of each step that was not done by its day.

        What was due before the log began is nobody's miss.
        """
        ((begun_ms,),) = self.company.db.execute("select min(at_ms) from event").fetchall()
        done = {
            (step, who or "company", month): at_ms
            for step, who, month, at_ms in self.company.db.execute(
                """select json_extract(data, '$.step'), json_extract(data, '$.department'),
                    json_extract(data, '$.period'), min(arrived_ms)
                    from event where type = 'step.done' group by 1, 2, 3"""
            )
        }
        departments = [
            row[0] for row in self.company.db.execute("select distinct team from event where team != ''")
        ]
        first = date.fromisoformat(f"{self.company.first_month}-01")
        for number in range(-2, len(self.company.months()) + 3):
            month = first.month - 1 + number
            label = date(first.year + month // 12, month % 12 + 1, 1)
            for step, (name, offset, each) in STEPS.items():
                month = label.month - 1 + offset
                due = date(label.year + month // 12, month % 12 + 1, int(self.figures.on(name, label)))
                for who in departments if each else ("company",):
                    yield from self._missed(step, who, f"{label:%Y-%m}", due, begun_ms, done)

    def _missed(
        self,
        step: str,
        who: str,
        month: str,
        due: date,
        begun_ms: int,
        done: Mapping[tuple[str, str, str], int],
    ) -> Iterator[tuple[str, str, str, bool]]:
        days = int(self.figures.on("escalation_days", date.fromisoformat(f"{month}-01")))
        done_ms = done.get((step, who, month))
        told = False
        for superior in (False, True):
            over = due + timedelta(days=1 + days * superior)
            over_ms = to_ms(f"{over}T00:00:00+08:00")
            late = begun_ms < over_ms <= self.until_ms and (done_ms is None or done_ms >= over_ms)
            told = late and (told or not superior)
            if told:
                yield step, who, month, superior


STEPS = {
    "plans": ("plan_day", -1, True),
    "assessments": ("gather_day", 1, False),
    "results": ("result_day", 1, False),
    "summary": ("summary_day", 1, False),
    "feedback": ("notice_day", 1, True),
    "finance-notice": ("notice_day", 1, False),
    "settle": ("settle_day", 1, False),
    "export": ("export_day", 1, False),
}
"""The steps: the day's figure, in which month from the one appraised, and whether it is each department's."""


def promised(column: str) -> str:
    """SQL for the moment of ``promised_at`` in milliseconds; null when none was promised."""
    return f"(cast(strftime('%s', json_extract({column}, '$.promised_at')) as integer) * 1000)"


# --- reception --------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """A measured item: dimension, name, and in which unit of the parameters its value is counted (a divisor)."""

    dimension: str
    item: str
    unit: Fraction = ONE


MEASURED = (
    Measured("service_quality", "mystery", Fraction(100)),
    Measured("service_quality", "first_contact"),
    Measured("service_quality", "transfer"),
    Measured("service_quality", "handling"),
    Measured("service_quality", "problem_time", Fraction(60_000)),
    Measured("efficiency", "handle_time", Fraction(1000)),
    Measured("efficiency", "on_time"),
    Measured("efficiency", "records"),
    Measured("efficiency", "flow"),
    Measured("satisfaction", "survey"),
    Measured("satisfaction", "complaints"),
    Measured("satisfaction", "complaint_time", Fraction(HOUR_MS)),
    Measured("satisfaction", "settled"),
    Measured("satisfaction", "callback"),
    Measured("teamwork", "cooperation"),
    Measured("teamwork", "participation"),
    Measured("teamwork", "exam", Fraction(100)),
    Measured("teamwork", "growth"),
    Measured("teamwork", "development"),
    Measured("teamwork", "attendance"),
)
GRADED = {"handle_time": False, "survey": True, "complaints": False}
"""Items whose value is worth what its word is worth, and whether higher values are better."""
SPOKEN = {
    "attitude": ("service_quality", "attitude_most", "observer_roles"),
    "communication": ("service_quality", "communication_most", "observer_roles"),
    "professionalism": ("service_quality", "professionalism_most", "observer_roles"),
    "peer_rating": ("teamwork", "peer_most", "peer_alone"),
    "superior_rating": ("teamwork", "superior_most", "superior_alone"),
    "conduct": ("teamwork", "conduct_most", "superior_alone"),
}


class Reception(Cards):
    """Receptionists: a month of four dimensions, the quarter, the year."""

    PACK = "reception"

    def __init__(self, appraisal: Appraisal) -> None:
        super().__init__(appraisal)
        self.figures = self.company.figures[self.PACK]
        self._said = self.voices(self.PACK, "agent")
        self._changes = {name: list(changes) for name, changes in self._sources()}
        self._values = {name: self.ratios(self.PACK, changes) for name, changes in self._changes.items()}
        self._values["attendance"] = self._attendance()
        self._points, self._blamed = self.entries("rd-"), self.entries("rd-attitude")
        self._parts: dict[tuple[str, str], dict[str, Part]] = {}
        self.months: dict[str, dict[str, Fraction]] = defaultdict(dict)
        self.quarters: dict[str, dict[str, Fraction]] = defaultdict(dict)
        for month in self.company.months():
            for agent in self.staff(self.PACK, month):
                self._month(agent, month)
            if month[5:] in ("03", "06", "09", "12"):
                for agent in self.staff(self.PACK, month, f"{month[:5]}{int(month[5:]) - 2:02d}"):
                    self._quarter(agent, month)
            if month[5:] == "12":
                for agent in self.staff(self.PACK, month, f"{month[:4]}-01"):
                    self._year(agent, month[:4])

    def _sources(self) -> Iterator[tuple[str, Iterable[Change]]]:
        """Where each measured item comes from."""
        company = self.company
        shares = {
            "first_contact": count_of(field("first_contact"), "type = 'ticket.resolved'"),
            "transfer": count_of(field("warm"), "type = 'call.transferred'"),
            "handling": count_of(
                f"word in {CONTENT}",
                "type = 'survey.customer' and json_extract(data, '$.channel') = 'call_back'",
            ),
            "survey": count_of(
                f"word in {CONTENT}",
                "type = 'survey.customer' and coalesce(json_extract(data, '$.channel'), '') != 'call_back'",
            ),
            "callback": count_of(f"word in {CONTENT}", "type = 'survey.complaint_follow_up'"),
            "growth": count_of("word in ('marked', 'some')", "type = 'training.assessed' and word != ''"),
            "mystery": sum_of(field("score"), "1", "survey.mystery_shopper"),
            "problem_time": sum_of(field("handling_ms"), "1", "ticket.resolved"),
            "handle_time": sum_of(
                f"({field('talk_ms')} + {field('hold_ms')} + {field('wrap_ms')})", "1", "call.completed"
            ),
            "records": sum_of(field("fields_right"), field("fields_checked"), "record.audited"),
            "flow": sum_of(field("steps_followed"), field("steps_checked"), "flow.audited"),
            "complaints": ("type = 'complaint.upheld'", "type in ('call.completed', 'ticket.resolved')"),
            "complaint_time": sum_of(field("handling_ms"), "1", "complaint.resolved"),
            "exam": sum_of(field("score"), "1", "training.assessed"),
        }
        for name, (above, below) in shares.items():
            yield name, company.quotients(f"({above})", f"({below})")
        limits = self.figures.table("processing_limit", date(2026, 1, 1))
        cases = " ".join(f"when '{word}' then {hours}" for word, hours in limits.items() if word != "*")
        business = f"coalesce(o.due_ms, o.at_ms + {HOUR_MS} * case o.word {cases} else {limits['*']} end)"
        yield "on_time", company.deadline("ticket.opened", "('ticket.resolved', 'ticket.closed')", business)
        hours = self.figures.on("settlement_limit", date(2026, 1, 1))
        yield "settled", company.deadline(
            "complaint.logged", "('complaint.resolved')", f"o.at_ms + {HOUR_MS} * {hours}",
            cancelled_by="('complaint.dismissed')",
        )  # fmt: skip
        days = self.figures.on("training_limit", date(2026, 1, 1))
        training = f"coalesce(o.due_ms, o.at_ms + {DAY_MS} * {days})"
        yield "participation", company.deadline("training.assigned", "('training.attended')", training)
        for name, kind in (
            ("cooperation", "cooperation"), ("development", "development"), ("improvement", "improvement"),
            ("key_tasks", "key"),
        ):  # fmt: skip
            yield (
                name,
                company.deadline(
                    "task.assigned",
                    "('task.completed')",
                    "o.due_ms",
                    where=f"json_extract(o.data, '$.kind') = '{kind}'",
                ),
            )

    def _attendance(self) -> dict[tuple[str, str], Fraction]:
        """RD-12: days attended out of days required."""
        days: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        known = Attendance(self.company, self.until_ms, self.appraisal.judged, self.PACK).days
        for agent, own in known.items():
            for day in own:
                days[agent, day.month][0] += day.attended
                days[agent, day.month][1] += 2
        return {key: Fraction(*halves) for key, halves in days.items()}

    def _share(self, item: str, value: Fraction, day: date) -> Fraction:
        """What a value is worth of an item's points."""
        if item in GRADED:
            higher = GRADED[item]
            limits, shares = (
                self.figures.table(f"{item}_limits", day),
                self.figures.table(f"{item}_shares", day),
            )
            ranked = sorted(limits, key=lambda word: limits[word], reverse=higher)
            reached = (
                word for word in ranked if (value >= limits[word] if higher else value <= limits[word])
            )
            return shares[next(reached, ranked[-1])]
        none, full = (self.figures.on(f"{item}_{end}", day) for end in ("none", "full"))
        return inside((value - none) / (full - none), Fraction(0), ONE)

    def _keep(
        self, agent: str, period: str, dimensions: Mapping[str, Fraction] | None, day: date,
        others: Fraction = Fraction(0),
    ) -> Fraction | None:  # fmt: skip
        if dimensions is None:
            return None
        score = _held(dimensions, others)
        self.scores.append(Score(self.PACK, agent, period, score, Bands(self.figures, day).of(score)))
        return score

    def _month(self, agent: str, month: str) -> None:
        figures, day = self.figures, date.fromisoformat(f"{month}-01")
        voices = self._said.get((agent, month)) or Voices(figures, day)
        parts = {}
        for item, (dimension, most, roles) in SPOKEN.items():
            points = figures.on(most, day)
            parts[item] = Part(dimension, points, voices.share(item, points, roles))
        for one in MEASURED:
            value = self._values[one.item].get((agent, month))
            if value is not None:
                share = self._share(one.item, value / one.unit, day)
                parts[one.item] = Part(one.dimension, figures.on(f"{one.item}_most", day), share)
        weights = figures.table("dimension_weights", day)
        score = self._keep(agent, month, worked(parts.values(), weights), day, self._points[agent, month])
        if score is not None:
            self.months[agent][month] = score
            self._parts[agent, month] = parts

    def without(self, agent: str, month: str, left: Collection[str]) -> Fraction | None:
        """The month's score without some of its items and complaints about attitude; None without data."""
        day = date.fromisoformat(f"{month}-01")
        parts = (part for item, part in self._parts[agent, month].items() if item not in left)
        kept = worked(parts, self.figures.table("dimension_weights", day))
        blamed = self._blamed[agent, month] if "rd-attitude" in left else Fraction(0)
        return _held(kept, self._points[agent, month] - blamed) if kept is not None else None

    def _quarter(self, agent: str, last: str) -> None:
        """RD-02: the months, improvement, skill growth and key tasks."""
        year, number = last[:4], int(last[5:])
        labels = [f"{year}-{month:02d}" for month in range(number - 2, number + 1)]
        day = date(int(year), number - 2, 1)
        own = [self.months[agent][label] for label in labels if label in self.months[agent]]
        parts = [Part("months", ONE, sum(own, Fraction(0)) / len(own) / 100 if own else None)]
        close_ms = self.company.close_of(agent, last, self.PACK)
        for name in ("improvement", "growth", "key_tasks"):
            above = below = 0
            for who, month, arrived_ms, part, whole in self._changes[name]:
                if who == agent and month in labels and arrived_ms < close_ms:
                    above, below = above + part, below + whole
            share = self._share(name, Fraction(above, below), day) if below else None
            parts.append(Part(name, ONE, share))
        label = f"{year}-Q{(number + 2) // 3}"
        score = self._keep(agent, label, worked(parts, self.figures.table("quarter_weights", day)), day)
        if score is not None:
            self.quarters[agent][label] = score

    def _year(self, agent: str, year: str) -> None:
        """RD-02: the months and the quarters."""
        day = date(int(year), 1, 1)
        parts = []
        for name, known in (("months", self.months[agent]), ("quarters", self.quarters[agent])):
            own = [score for label, score in known.items() if label[:4] == year]
            parts.append(Part(name, ONE, sum(own, Fraction(0)) / len(own) / 100 if own else None))
        self._keep(agent, year, worked(parts, self.figures.table("year_weights", day)), day)


def _held(dimensions: Mapping[str, Fraction], others: Fraction) -> Fraction:
    """The score of a card with the points of the month's entries."""
    return inside(to_step(sum(dimensions.values(), others)), Fraction(0), Fraction(100))


# --- one score of all schemes -----------------------------------------------------------------------------------------

JOINT = "company-kpi+"
ONCE: tuple[dict[str, tuple[str, ...]], ...] = (
    {"full-attendance": (), "reception": ("attendance", "rd-attitude")},
    {
        "company-kpi": (), "logistics-service": ("ls-satisfaction",), "front-desk": ("fd-satisfaction",),
        "reception": ("survey", "handling"),
    },
    {"company-kpi": (), "logistics-service": ("ls-error-rate",)},
    {"company-kpi": (), "reception": ("mystery",)},
    {
        "logistics-service": (),
        "reception": ("complaints", "participation", "growth", "cooperation", "development"),
    },
    {"front-desk": (), "reception": ("flow", "complaint_time", "callback")},
)  # fmt: skip
"""What the schemes look at together. The first one under which somebody has a score charges it; what the others would
charge, or how they would score it, is left out of the one score of all."""


def combined(
    company: Company, scores: Iterable[Score], appraisal: Appraisal, reception: Reception, until_ms: int
) -> Iterator[Score]:
    """Everybody's one score of a month: the schemes' final scores by their shares, to the hundredth.

    Who has no score under a scheme has its share spread over the others.
    """
    figures = company.figures["company-kpi"]
    own: dict[tuple[str, str], dict[str, Fraction]] = defaultdict(dict)
    for one in scores:
        if len(one.period) == 7 and "Q" not in one.period and one.subject in company.roster:
            own[one.subject, one.period][one.pack] = one.score
    for (agent, month), found in sorted(own.items()):
        if max(company.close_of(agent, month, pack) for pack in company.packs) > until_ms:
            continue
        known = dict(found)
        left: dict[str, set[str]] = defaultdict(set)
        for once in ONCE:
            for pack in [pack for pack in once if pack in found][1:]:
                left[pack].update(once[pack])
        for pack, things in left.items():
            if pack == "reception":
                kept = reception.without(agent, month, things)
                del known[pack]
                known |= {pack: kept} if kept is not None else {}
            else:
                known[pack] = appraisal.score_without(pack, agent, month, things)
        day = date.fromisoformat(f"{month}-01")
        shares = {
            pack: share for pack, share in figures.table("combined_shares", day).items() if pack in known
        }
        exact = sum((shares[pack] * known[pack] for pack in shares), Fraction(0)) / sum(
            shares.values(), Fraction(0)
        )
        score = to_step(exact, Fraction(1, 100))
        yield Score(JOINT, agent, month, score, Bands(figures, day, "combined_bands").of(score))
