"""``kaohe report``: what a week or a month brought, generated from the ledger: done, problems, groups, next.

Nothing is written by hand and nothing is stored: the same ledger gives the same report. What only live figures know
(utilisation, attendance rates) is not in the ledger unless a rule judged it; the wallboard shows it.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from kaohe.cli import console
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.decisions import Alert, Decision, Grade

app = typer.Typer(help="Reports of a week or a month, from the ledger.", no_args_is_help=True)
LINES_MAX = 20
"""Lines of a section that are shown on a terminal; --json has all."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Which = Annotated[
    str, typer.Option("--period", help="Such as 2026-W32 or 2026-08; default: the one before today's.")
]


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

    rule: str
    subject: str
    owner: str
    due_at: str
    what: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one period. ``groups`` are the alerts about teams, queues, sites and the company."""

    period: str
    first_day: str
    last_day: str
    grades: dict[str, int]
    done: list[AlertLine]
    problems: list[AlertLine]
    deductions: list[RuleLine]
    awards: list[RuleLine]
    groups: list[AlertLine]
    next: list[TaskLine]


@app.command()
def weekly(period: Which = "", as_json: Json = False) -> None:
    """Report a week: what was settled, what is wrong, and what is due next.

    Example: kaohe report weekly --period 2026-W32
    """
    _report("week", period, as_json)


@app.command()
def monthly(period: Which = "", as_json: Json = False) -> None:
    """Report a month: what was settled, what is wrong, the grades, and what is due next.

    Example: kaohe report monthly --period 2026-08 --json
    """
    _report("month", period, as_json)


def _report(window: Literal["week", "month"], label: str, as_json: bool) -> None:
    from kaohe.core.calendars import bounds_of, label_of
    from kaohe.payroll.ledger import Ledger

    if not label:
        today = datetime.now(UTC).date()
        label = label_of(window, bounds_of(window, label_of(window, today))[0] - timedelta(days=1))
    try:
        first, after = bounds_of(window, label)
    except UsageError as error:
        raise UsageError(f"--period: {error}.") from None
    with Ledger(load_settings().database_url) as ledger:
        report = report_of(
            label, first, after, ledger.current_entries(), ledger.all_alerts(), ledger.current_grades()
        )
    if as_json:
        console.print_json(report)
    else:
        _show(report)


def report_of(
    label: str, first: date, after: date, entries: Iterable[Decision], alerts: Iterable[Alert], grades: Iterable[Grade]
) -> Report:  # fmt: skip
    """What the ledger knows of a period: what was decided from its first day to the one before ``after``."""

    def inside(moment: str) -> bool:
        return first.isoformat() <= moment[:10] < after.isoformat()

    own = [entry for entry in entries if inside(entry.at)]
    told = _alert_lines(alerts)
    graded: dict[str, int] = {}
    for grade in grades:
        if grade.period == label and grade.status == "final":
            graded[grade.grade] = graded.get(grade.grade, 0) + 1
    tasks = [
        TaskLine(rule=one.rule, subject=one.subject, owner=one.owner, due_at=one.due_at, what=one.proposal)
        for one in own
        if one.kind == "task"
    ]
    began = [line for line in told if inside(line.began)]
    return Report(
        period=label,
        first_day=first.isoformat(),
        last_day=(after - timedelta(days=1)).isoformat(),
        grades=dict(sorted(graded.items())),
        done=[line for line in told if line.ended and inside(line.ended)],
        problems=[line for line in told if not line.ended and line.began[:10] < after.isoformat()],
        deductions=_rule_lines([one for one in own if one.points.startswith("-")]),
        awards=_rule_lines([one for one in own if Fraction(one.points) > 0]),
        groups=[line for line in began if line.level != "agent"],
        next=sorted(tasks, key=lambda one: (one.due_at, one.rule, one.subject)),
    )


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
            rule=one.rule, level=one.level, subject=one.subject, severity=one.severity, owner=one.owner, began=one.at,
            ended=ended.get(one.id, ""), said=one.explanation.en,
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
            points=_points(sum((Fraction(one.points) for one in several), Fraction(0))),
        )
        for (clause, rule, kind), several in sorted(grouped.items())
    ]  # fmt: skip


def _points(value: Fraction) -> str:
    from kaohe.core.facts import number_text

    return number_text(value)


def _show(report: Report) -> None:
    console.show(f"Report {report.period} ({report.first_day} to {report.last_day})")
    if report.grades:
        console.show("Grades: " + ", ".join(f"{grade} {count}" for grade, count in report.grades.items()))
    alerts = [
        ("Done", report.done),
        ("Problems", report.problems),
        ("Teams, queues and sites", report.groups),
    ]
    for title, lines in alerts:
        shown = [f"{one.began[:16]} {one.severity} {one.rule} {one.subject}: {one.said}" for one in lines]
        _section(title, shown)
    for title, found in (("Deductions", report.deductions), ("Awards", report.awards)):
        rows = [
            f"{one.clause} {one.rule} ({one.kind}): {one.entries} for {one.subjects}, {one.points} points"
            for one in found
        ]
        _section(title, rows)
    _section(
        "Next",
        [f"{one.due_at[:16]} {one.owner}: {one.what} ({one.subject}, {one.rule})" for one in report.next],
    )


def _section(title: str, lines: Sequence[str]) -> None:
    console.show(f"\n{title} ({len(lines)})")
    for line in lines[:LINES_MAX]:
        console.show(f"  {line}")
    if len(lines) > LINES_MAX:
        console.show(f"  ... and {len(lines) - LINES_MAX} more; --json has all of them")


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="report")
