"""Reports of a week or a month: done, problems, figures, next, and the best; made of the ledger alone.

Theory of operation. Nothing is written by hand and nothing is stored: the same ledger gives the same report. Figures
(attendance, resource use, the effect of a scheme) are facts of entries that rules with a ``report`` write, so each of
them can be followed with ``kaohe explain``. While the period runs they are provisional and brought up to date when a
day begins; what comes after the close corrects them by a further revision, and the line says so. Where a section
compares, the entry of the same rule, person or group for the period before stands beside it. A commendation ranks the
lines of its rule, which holds the threshold; who comes first among equals is told by a lot drawn from pack, period and
name, the same for everybody who looks.

A period of which no day is over has no figures; the report then says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kaohe.core.calendars import bounds_of, label_of
from kaohe.core.facts import number_text
from kaohe.core.messages import readable
from kaohe.core.model import Pack, Reported, ReportSection, Rule
from kaohe.core.money import money_text
from kaohe.decisions import Alert, Decision, Grade, UsedFact, Words

COMPARED: tuple[ReportSection, ...] = ("resources", "effect")
"""Sections whose figures stand beside those of the period before."""

_GOING_ON = ("not_in", "not_logged_in")
"""Outcomes of attendance that end when the person comes."""


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule gave or took in the period: entries, persons or groups, and the sum of points."""

    rule: str
    clause: str
    kind: str
    entries: int
    subjects: int
    points: str


class AlertLine(msgspec.Struct, frozen=True, kw_only=True):
    """An alert of the period; ``ended`` is empty while it fires."""

    id: str
    rule: str
    level: str
    subject: str
    severity: str
    owner: str
    began: str
    ended: str
    said: str


class TaskLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody was given to do."""

    id: str
    rule: str
    subject: str
    owner: str
    due_at: str
    what: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: exact as text (None without data), and as people read it.

    ``before`` is that of the period before, ``change`` the difference; both None where there is nothing to compare.
    """

    name: str
    title: Words
    unit: str
    value: str | None
    shown: str
    before: str | None = None
    before_shown: str = ""
    change: str | None = None


class FigureLine(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one person or group: the entry that holds them, and in a commendation the rank.

    ``as_of`` is when they were brought up to date last, ``status`` is ``provisional`` until the period is closed, and
    ``corrected`` says that they were final before with other figures.
    """

    entry: str
    pack: str
    rule: str
    clause: str
    level: str
    subject: str
    figures: list[Figure]
    said: Words
    rank: int = 0
    status: str = "final"
    as_of: str = ""
    corrected: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one period. ``grades`` counts final ones, ``withdrawn`` those that ended without becoming final,
    because their pack was not in force any more when the period ended.

    ``groups`` are the alerts about teams, queues, sites and the company, ``agent`` is the one person whom it is about,
    or empty. ``waiting`` says which sections have no figures yet.
    """

    period: str
    first_day: str
    last_day: str
    agent: str
    grades: dict[str, int]
    withdrawn: int
    done: list[AlertLine]
    problems: list[AlertLine]
    deductions: list[RuleLine]
    awards: list[RuleLine]
    groups: list[AlertLine]
    attendance: list[FigureLine]
    resources: list[FigureLine]
    effect: list[FigureLine]
    commended: list[FigureLine]
    waiting: list[Words]
    next: list[TaskLine]


class Source(NamedTuple):
    """A rule whose entries a report shows, and its pack."""

    pack: Pack
    rule: Rule
    reported: Reported


def report_of(
    window: str, label: str, entries: Iterable[Decision], alerts: Iterable[Alert], grades: Iterable[Grade],
    packs: Sequence[Pack] = (), agent: str = "", corrected: Container[str] = (),
) -> Report:  # fmt: skip
    """What the ledger knows of a period: what was decided from its first day to its last, and its figures.

    ``entries``, ``alerts`` and ``grades`` are those that count; ``agent`` leaves one person; ``corrected`` are the ids
    of entries whose final figures were corrected. UsageError for a label that is no period of this kind.
    """
    first, after = bounds_of(window, label)

    def inside(moment: str) -> bool:
        return first.isoformat() <= moment[:10] < after.isoformat()

    entries = list(entries)
    known = [entry for entry in entries if agent in ("", entry.subject)]
    own = [entry for entry in known if inside(entry.at)]
    told = [line for line in _alert_lines(alerts) if agent in ("", line.subject)]
    graded: dict[str, int] = {}
    withdrawn = 0
    for grade in grades:
        if grade.period != label or agent not in ("", grade.subject):
            continue
        withdrawn += grade.status == "withdrawn"
        if grade.status == "final":
            graded[grade.grade] = graded.get(grade.grade, 0) + 1
    began = [line for line in told if inside(line.began)]
    everybody = figures_of(window, label, entries, packs, corrected)
    once = {rule.id for pack in packs for rule in pack.rules if not _lasts(rule)}
    sections = {
        name: [line for line in lines if agent in ("", line.subject)] for name, lines in everybody.items()
    }
    return Report(
        period=label,
        first_day=first.isoformat(),
        last_day=(after - timedelta(days=1)).isoformat(),
        agent=agent,
        grades=dict(sorted(graded.items())),
        withdrawn=withdrawn,
        done=[line for line in told if line.ended and inside(line.ended)],
        problems=[
            line
            for line in told
            if not line.ended
            and line.began[:10] < after.isoformat()
            and (inside(line.began) or line.rule not in once)
        ],
        deductions=_rule_lines([one for one in own if one.points.startswith("-")]),
        awards=_rule_lines([one for one in own if Fraction(one.points) > 0]),
        groups=[line for line in began if line.level != "agent"],
        attendance=sections["attendance"],
        resources=sections["resources"],
        effect=sections["effect"],
        commended=sections["commendation"],
        waiting=[] if agent else _waiting(window, label, packs, sections),
        next=_tasks(known, first, after),
    )


def _lasts(rule: Rule) -> bool:
    """Whether an alert of the rule goes on until its cause has gone. One about an event, a day or a period that is over
    is told once: it is a problem of its own time."""
    return rule.trigger in ("watch", "deadline") or (rule.trigger == "attendance" and rule.on in _GOING_ON)


def _tasks(entries: Iterable[Decision], first: date, after: date) -> list[TaskLine]:
    """What was given to somebody in the period, and what from before is due after it; not what was taken back, nor what
    is provisional: nobody has to do that yet."""
    known = list(entries)
    gone = {one.reverses for one in known if one.reverses}
    tasks = [
        TaskLine(
            id=one.id,
            rule=one.rule,
            subject=one.subject,
            owner=one.owner,
            due_at=one.due_at,
            what=one.proposal,
        )
        for one in known
        if one.kind == "task"
        and one.status == "final"
        and one.id not in gone
        and one.at[:10] < after.isoformat()
        and (one.at[:10] >= first.isoformat() or one.due_at[:10] >= after.isoformat())
    ]
    return sorted(tasks, key=lambda one: (one.due_at, one.rule, one.subject))


def _alert_lines(alerts: Iterable[Alert]) -> list[AlertLine]:
    """Every alert once, in the order in which they began."""
    ended: dict[str, str] = {}
    firing: dict[str, Alert] = {}
    for alert in alerts:
        if alert.state == "resolved":
            ended[alert.id] = alert.at
        else:
            firing[alert.id] = alert
    lines = [
        AlertLine(
            id=one.id, rule=one.rule, level=one.level, subject=one.subject, severity=one.severity, owner=one.owner,
            began=one.at, ended=ended.get(one.id, ""), said=one.explanation.en,
        )
        for one in firing.values()
    ]  # fmt: skip
    return sorted(lines, key=lambda one: (one.began, one.rule, one.subject))


def _rule_lines(entries: Sequence[Decision]) -> list[RuleLine]:
    """The entries by rule, clause and kind."""
    grouped: dict[tuple[str, str, str], list[Decision]] = {}
    for entry in entries:
        grouped.setdefault((entry.clause, entry.rule, entry.kind), []).append(entry)
    return [
        RuleLine(
            rule=rule, clause=clause, kind=kind, entries=len(several),
            subjects=len({one.subject for one in several}),
            points=number_text(sum((Fraction(one.points) for one in several), Fraction(0))),
        )
        for (clause, rule, kind), several in sorted(grouped.items())
    ]  # fmt: skip


# --- figures ----------------------------------------------------------------------------------------------------------


def sources(packs: Iterable[Pack]) -> list[Source]:
    """The rules whose entries reports show, of all versions."""
    return [
        Source(pack, rule, rule.report) for pack in packs for rule in pack.rules if rule.report is not None
    ]


def figures_of(
    window: str, label: str, entries: Iterable[Decision], packs: Sequence[Pack], corrected: Container[str] = (),
) -> dict[ReportSection, list[FigureLine]]:  # fmt: skip
    """The lines of each section for a period, in the order of rules and subjects; a commendation by rank."""
    entries = list(entries)
    gone = {one.reverses for one in entries if one.reverses}
    # An entry of a version that is no longer loaded is shown as the newest one shows it.
    by_rule: dict[tuple[str, str, str], Source] = {}
    for source in sorted(sources(packs), key=lambda one: one.pack.in_force_from):
        if source.rule.on == window:
            for version in (source.pack.version, ""):
                by_rule[source.pack.name, version, source.rule.id] = source
    before = label_of(window, bounds_of(window, label)[0] - timedelta(days=1))
    now: list[tuple[Source, Decision]] = []
    earlier: dict[tuple[str, str, str], Decision] = {}
    for entry in entries:
        found_source = by_rule.get((entry.pack, entry.pack_version, entry.rule))
        found_source = found_source or by_rule.get((entry.pack, "", entry.rule))
        if found_source is None or entry.kind != "task" or entry.window != window or entry.id in gone:
            continue
        if entry.period == label:
            now.append((found_source, entry))
        elif entry.period == before:
            earlier[entry.pack, entry.rule, entry.subject] = entry
    found: dict[ReportSection, list[FigureLine]] = {
        "attendance": [], "resources": [], "effect": [], "commendation": [],
    }  # fmt: skip
    for source, entry in sorted(now, key=lambda one: (one[1].clause, one[1].rule, one[1].subject)):
        section = source.reported.section
        compared = earlier.get((entry.pack, entry.rule, entry.subject)) if section in COMPARED else None
        line = _line(source, entry, compared)
        found[section].append(msgspec.structs.replace(line, corrected=entry.id in corrected))
    ranks = {id(source): source for source, _ in now if source.reported.section == "commendation"}
    found["commendation"] = _ranked(list(ranks.values()), found["commendation"], window, label)
    return found


def _line(source: Source, entry: Decision, compared: Decision | None) -> FigureLine:
    figures = [
        _figure(
            source.pack,
            name,
            entry.facts.get(name),
            compared.facts.get(name) if compared is not None else None,
        )
        for name in source.reported.figures
    ]
    return FigureLine(
        entry=entry.id, pack=entry.pack, rule=entry.rule, clause=entry.clause, level=entry.level,
        subject=entry.subject, figures=figures, said=entry.explanation, status=entry.status, as_of=entry.at,
    )  # fmt: skip


def _figure(pack: Pack, name: str, fact: UsedFact | None, before: UsedFact | None) -> Figure:
    metric = pack.metrics.get(name.partition(".")[0])
    now, then = _exact(fact), _exact(before)
    return Figure(
        name=name, title=metric.title if metric is not None else Words(name, name),
        unit=fact.unit if fact is not None else "", value=fact.value if fact is not None else None,
        shown=_shown(pack, fact), before=before.value if before is not None else None,
        before_shown=_shown(pack, before) if before is not None else "",
        change=number_text(now - then) if now is not None and then is not None else None,
    )  # fmt: skip


def _shown(pack: Pack, fact: UsedFact | None) -> str:
    if fact is None:
        return "–"
    amount = _exact(fact)
    if fact.unit == "minor" and amount is not None and amount.denominator == 1:
        return money_text(int(amount), pack.currency)
    return readable(fact.value, fact.unit, "–")


def _exact(fact: UsedFact | None) -> Fraction | None:
    """A fact's number; it may be followed by its approximation."""
    if fact is None or fact.value is None:
        return None
    try:
        return Fraction(fact.value.partition(" ")[0])
    except (ValueError, ZeroDivisionError):
        return None


def _ranked(
    ranking: Sequence[Source], lines: Sequence[FigureLine], window: str, label: str
) -> list[FigureLine]:
    """The first places of each rule's commendation, with their ranks."""
    found = []
    for source in ranking:
        places = source.pack.parameters[source.reported.places].value_at(bounds_of(window, label)[0])
        assert isinstance(places, Fraction), source.reported.places
        own = [
            line for line in lines if (line.pack, line.rule) == (source.pack.name, source.rule.id)
        ]  # fmt: skip

        def standing(line: FigureLine, source: Source = source) -> tuple[list[Fraction], str]:
            values = {one.name: one.value for one in line.figures}
            greater = [-(_exact(UsedFact(values[name])) or Fraction(0)) for name in source.reported.rank_by]
            return greater, lot(line.pack, label, line.subject)

        best = sorted(own, key=standing)[: int(places)]
        found += [msgspec.structs.replace(line, rank=rank) for rank, line in enumerate(best, start=1)]
    return found


def lot(pack: str, period: str, name: str) -> str:
    """The lot that decides between equals: the same for everybody who draws it."""
    return blake2b(f"{pack}\0{period}\0{name}".encode(), digest_size=8).hexdigest()


def standing(line: FigureLine) -> Words | None:
    """How far a line can be relied on, where that is not as a final one that was never corrected."""
    if line.status != "final":
        return Words(f"provisional, as of {line.as_of[:10]}", f"暂定，截至{line.as_of[:10]}")
    return Words(f"corrected on {line.as_of[:10]}", f"{line.as_of[:10]}更正") if line.corrected else None


def _waiting(
    window: str, label: str, packs: Sequence[Pack], sections: Mapping[ReportSection, Sequence[FigureLine]]
) -> list[Words]:
    """Sections that some pack has for this kind of period and that are empty: no day of the period is over yet, or
    nobody came to it."""
    titles: dict[ReportSection, Words] = {
        "attendance": Words("attendance", "出勤"), "resources": Words("resource use", "资源使用"),
        "effect": Words("the effect of the scheme", "方案效果"), "commendation": Words("commendation", "表彰"),
    }  # fmt: skip
    there = {one.reported.section for one in sources(packs) if one.rule.on == window}
    return [
        Words(
            f"no figures about {titles[section].en}: no day of {label} is over yet, or there is nothing to tell",
            f"{label}暂无{titles[section].zh}数据：首日尚未结束，或无可统计内容",
        )
        for section, lines in sections.items()
        if section in there and not lines
    ]
