"""``kaohe report``: what a week or a month brought, from the ledger: on a terminal, as JSON, and as printable pages."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.rules import Lang
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.core.model import Pack
    from kaohe.decisions import Alert, Decision, Grade
    from kaohe.reports import FigureLine, Report

app = typer.Typer(help="Reports of a week or a month, from the ledger.", no_args_is_help=True)
LINES_MAX = 20
"""Lines of a section that are shown on a terminal; --json and --html have all."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

Window = Literal["week", "month"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Which = Annotated[
    str, typer.Option("--period", help="Such as 2026-W32 or 2026-08; default: the one before today's.")
]
Agent = Annotated[str, typer.Option(help="Only what concerns this person.")]
Html = Annotated[Path | None, typer.Option(help="Write it as one printable page into this file.")]
Notices = Annotated[
    Path | None, typer.Option(help="Write one printable notice for each person into this folder.")
]
Language = Annotated[Lang, typer.Option("--lang", help="Language of titles and sentences.")]


@app.command()
def weekly(
    period: Which = "", agent: Agent = "", html: Html = None, lang: Language = Lang.en, as_json: Json = False
) -> None:
    """Report a week: what was settled, what is wrong, how resources were used, and what is due next.

    Example: kaohe report weekly --period 2026-W32
    """
    _report("week", period, agent, html, None, lang, as_json)


@app.command()
def monthly(
    period: Which = "",
    agent: Agent = "",
    html: Html = None,
    notices: Notices = None,
    lang: Language = Lang.en,
    as_json: Json = False,
) -> None:
    """Report a month: as the week's, and grades, everybody's attendance, the scheme's effect, and the best.

    Of a month that is not closed yet the figures are provisional, as of the last midnight; of one that is closed the
    newest are shown, and whether they were corrected.

    Example: kaohe report monthly --period 2026-08 --html august.html --notices notices
    """
    _report("month", period, agent, html, notices, lang, as_json)


def _report(
    window: Window, label: str, agent: str, html: Path | None, notices: Path | None, lang: Lang, as_json: bool
) -> None:
    from kaohe.core.calendars import bounds_of, label_of
    from kaohe.payroll.ledger import Ledger
    from kaohe.reports import report_of
    from kaohe.reports_html import page

    if not label:
        today = datetime.now(UTC).date()
        label = label_of(window, bounds_of(window, label_of(window, today))[0] - timedelta(days=1))
    try:
        bounds_of(window, label)
    except UsageError as error:
        raise UsageError(f"--period: {error}.") from None
    settings = load_settings()
    packs = chosen_packs(settings)
    with Ledger(settings.database_url) as ledger:
        entries, alerts, grades = ledger.current_entries(), ledger.all_alerts(), ledger.current_grades()
        corrected = ledger.corrected_tasks()
    report = report_of(window, label, entries, alerts, grades, packs, agent, corrected)
    if html is not None:
        _write(html, page(report, window))
        console.say(f"{html} was written.")
    if notices is not None:
        count = write_notices(notices, window, label, entries, alerts, grades, packs, agent, corrected)
        console.say(f"{count} notices in {notices}.")
    if as_json:
        console.print_json(report)
    elif html is None and notices is None:
        _show(report, "zh" if lang is Lang.zh else "en")


def write_notices(
    folder: Path, window: str, label: str, entries: Sequence[Decision], alerts: Sequence[Alert],
    grades: Sequence[Grade], packs: Sequence[Pack], agent: str = "", corrected: Container[str] = (),
) -> int:  # fmt: skip
    """One page for each person with figures of their own in the period; how many there are."""
    from kaohe.reports import figures_of, report_of
    from kaohe.reports_html import page

    told = {line.subject for line in figures_of(window, label, entries, packs)["attendance"]}
    by_person: dict[str, list[Decision]] = {name: [] for name in told if agent in ("", name)}
    for entry in entries:
        if entry.subject in by_person:
            by_person[entry.subject].append(entry)
    for number, (name, own) in enumerate(sorted(by_person.items()), start=1):
        report = report_of(window, label, own, alerts, grades, packs, name, corrected)
        # The number keeps apart those whose names differ only in what a file's name cannot hold.
        _write(folder / f"{number:05d}-{_UNSAFE.sub('_', name)[:80]}-{label}.html", page(report, window))
    return len(by_person)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror}); name a place that can be written."
        ) from None


# --- on a terminal ----------------------------------------------------------------------------------------------------


def _show(report: Report, language: Literal["en", "zh"]) -> None:
    from kaohe.packs.describe import pick
    from kaohe.reports import standing

    def told(line: FigureLine) -> str:
        how = standing(line)
        return f"{pick(line.said, language)}{f' ({pick(how, language)})' if how is not None else ''}"

    about = f" of {report.agent}" if report.agent else ""
    console.show(f"Report {report.period}{about} ({report.first_day} to {report.last_day})")
    if report.grades:
        console.show("Grades: " + ", ".join(f"{grade} {count}" for grade, count in report.grades.items()))
    if report.withdrawn:
        console.show(
            f"Withdrawn grades: {report.withdrawn} (their pack was not in force any more at the end)"
        )
    for title, lines in (
        ("Done", report.done),
        ("Problems", report.problems),
        ("Teams, queues and sites", report.groups),
    ):
        shown = [f"{one.began[:16]} {one.severity} {one.rule} {one.subject}: {one.said}" for one in lines]
        _section(title, shown)
    for title, found in (("Deductions", report.deductions), ("Awards", report.awards)):
        rows = [
            f"{one.clause} {one.rule} ({one.kind}): {one.entries} for {one.subjects}, {one.points} points"
            for one in found
        ]
        _section(title, rows)
    _figures("Resource use", report.resources, language)
    _figures("Attendance", report.attendance, language)
    _figures("Effect of the scheme", report.effect, language)
    _section("Commended", [f"{one.rank}. {told(one)}" for one in report.commended])
    _section(
        "Next",
        [f"{one.due_at[:16]} {one.owner}: {one.what} ({one.subject}, {one.rule})" for one in report.next],
    )
    for words in report.waiting:
        console.say(pick(words, language) + ".")


def _section(title: str, lines: Sequence[str]) -> None:
    console.show(f"\n{title} ({len(lines)})")
    for line in lines[:LINES_MAX]:
        console.show(f"  {line}")
    if len(lines) > LINES_MAX:
        console.show(f"  ... and {len(lines) - LINES_MAX} more; --json has all of them")


def _figures(title: str, lines: Sequence[FigureLine], language: Literal["en", "zh"]) -> None:
    """A table for each rule: its lines have the same figures."""
    from kaohe.packs.describe import pick
    from kaohe.reports import standing

    if not lines:
        return
    for rule, several in _by_rule(lines):
        console.show(f"\n{title} ({several[0].clause} {rule}, {len(several)})")
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for figure in several[0].figures:
            table.add_column(figure.title.zh if language == "zh" else figure.title.en, justify="right")
        table.add_column("")
        for line in several[:LINES_MAX]:
            how = standing(line)
            cells = [_cell(one.shown, one.before_shown) for one in line.figures]
            table.add_row(line.subject, *cells, pick(how, language) if how is not None else "")
        console.show(table)
        if len(several) > LINES_MAX:
            console.show(f"  ... and {len(several) - LINES_MAX} more; --json has all of them")


def _by_rule(lines: Iterable[FigureLine]) -> Iterable[tuple[str, list[FigureLine]]]:
    groups: dict[str, list[FigureLine]] = {}
    for line in lines:
        groups.setdefault(line.rule, []).append(line)
    return groups.items()


def _cell(shown: str, before: str) -> str:
    return f"{shown} (was {before})" if before else shown


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="report")
