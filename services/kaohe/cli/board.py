"""The live board of ``kaohe demo``: queues, agents, alerts and the newest decision, read from outside.

Figures come from the worker's Prometheus endpoint, entries and grades from the ledger. A worker that is busy or a
ledger that is not there yet changes nothing: the board keeps what it knew.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kaohe import metric_names as names
from kaohe.cli.wiring import zone_named
from kaohe.decisions import Decision, Grade
from kaohe.errors import KaoheError
from kaohe.payroll.ledger import Ledger
from kaohe.settings import Settings

ROWS_MAX = 8
ALERTS_MAX = 4
SCRAPE_TIMEOUT_S = 5.0
STAGES = ("events", "groups")


class Figures(msgspec.Struct):
    """What the worker says of itself. Queues by name; ``firing`` by what fires and about whom."""

    today: dict[str, float] = {}
    month: dict[str, float] = {}
    waiting: dict[str, float] = {}
    firing: list[str] = []
    decisions: int = 0
    events: int = 0
    clocks_s: dict[tuple[str, str], float] = {}

    @property
    def clock_s(self) -> float:
        """How far log time has come everywhere; 0 while nothing has."""
        return min(self.clocks_s.values(), default=0.0)


def read_figures(settings: Settings) -> Figures | None:
    """The worker's figures now; None while it does not answer."""
    url = f"http://{settings.metrics_host}:{settings.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    samples: dict[str, list[Any]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append(sample)
    return figures_of(samples)


def figures_of(samples: dict[str, list[Any]]) -> Figures:
    """The figures in the samples of one scrape."""
    figures = Figures()
    for sample in samples.get(names.METRIC_VALUE.name, ()):
        labels = sample.labels
        if labels["level"] != "queue":
            continue
        if labels["metric"] == "service_level" and labels["window"] in ("day", "month"):
            chosen = figures.today if labels["window"] == "day" else figures.month
            chosen[labels["subject"]] = sample.value
        elif labels["metric"] == "calls_waiting":
            figures.waiting[labels["subject"]] = sample.value
    for sample in samples.get(names.ALERT_FIRING.name, ()):
        figures.firing.append(f"{_plain(sample.labels['rule'])} ({sample.labels['subject']})")
    for sample in samples.get(names.ALERTS_FIRING.name, ()):
        if sample.labels["level"] == "agent" and sample.value:
            figures.firing.append(f"{_plain(sample.labels['rule'])} (agents: {sample.value:.0f})")
    figures.decisions = _sum(samples.get(names.DECISIONS.name, ()))
    figures.events = _sum(samples.get(names.EVENTS.name, ())) + _sum(samples.get(names.DUPLICATES.name, ()))
    for sample in samples.get(names.WATERMARK.name, ()):
        figures.clocks_s[sample.labels["stage"], sample.labels["partition"]] = sample.value
    return figures


def _sum(samples: Iterable[Any]) -> int:
    return int(sum(sample.value for sample in samples))


def _plain(rule: str) -> str:
    """A rule's id without its pack's prefix, as words."""
    return rule.partition("-")[2].replace("-", " ") or rule


class Books:
    """The newest state of the ledger; read again only when it has grown."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._ledger: Ledger | None = None
        self.entries: list[Decision] = []
        self.grades: list[Grade] = []
        self.rows = 0
        self.revisions = 0
        self.alerts = 0

    def refresh(self) -> None:
        """Read the ledger; while there is none yet nothing changes."""
        try:
            if self._ledger is None:
                self._ledger = Ledger(self._url)
            counts = self._ledger.counts()
            rows = sum(counts.values())
            if rows != self.rows:
                self.rows, self.revisions, self.alerts = rows, counts["ledger_entries"], counts["alerts"]
                self.entries = self._ledger.current_entries()
                self.grades = self._ledger.current_grades()
        except KaoheError:
            return

    def decisions(self, entry_id: str) -> list[Decision]:
        """Every revision of an entry, oldest first."""
        assert self._ledger is not None, "asked before anything was shown"
        return self._ledger.decisions(entry_id)

    def close(self) -> None:
        """Give the connections back."""
        if self._ledger is not None:
            self._ledger.close()


class AgentRow(msgspec.Struct):
    """What a month has brought an agent: points taken and given, and the grades by pack."""

    deducted: float = 0.0
    awarded: float = 0.0
    grades: dict[str, Grade] = {}


def agent_rows(entries: Iterable[Decision], grades: Iterable[Grade], period: str) -> dict[str, AgentRow]:
    """Agents with their points and grades of a month, the heaviest deductions first."""
    rows: dict[str, AgentRow] = defaultdict(AgentRow)
    for entry in entries:
        if entry.level == "agent" and entry.period.startswith(period):
            row, points = rows[entry.subject], float(entry.points)
            if points < 0:
                row.deducted += points
            else:
                row.awarded += points
    for grade in grades:
        if grade.level == "agent" and grade.period == period:
            rows[grade.subject].grades[grade.pack] = grade
    return dict(sorted(rows.items(), key=lambda item: (item[1].deducted, item[0])))


class Board:
    """Figures and ledger as one picture. ``span`` is the first day and the number of days; None when it never ends."""

    def __init__(self, settings: Settings, zone: str, title: str, span: tuple[date, int] | None) -> None:
        self._settings = settings
        self._zone = zone_named(zone)
        self._title = title
        self._span = span
        self._figures = Figures()
        self._kept: Figures | None = None
        self._written = 0
        self.ledger = Books(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ledger.close()

    def refresh(self, written: int) -> None:
        """Look again. ``written`` is how many events were written so far."""
        self._written = written
        figures = read_figures(self._settings)
        if figures is not None:
            self._figures = figures
            self._written = max(written, figures.events)  # the writer tells only now and then
        self.ledger.refresh()

    def keep_figures(self) -> None:
        """From now on show the queues as they are now: the month that closes next has no calls any more."""
        self._kept = self._figures

    def has_passed(self, moment: datetime) -> bool:
        """Whether every partition of both stages has come to this moment of the log."""
        expected = {"events": self._settings.partitions, "groups": self._settings.group_partitions}
        clocks = self._figures.clocks_s
        there = all(sum(stage == one for stage, _ in clocks) == expected[one] for one in STAGES)
        # Groups learn the time in whole minutes.
        due_s = int(moment.timestamp())
        return there and all(
            at_s >= (due_s if stage == "events" else due_s // 60 * 60) for (stage, _), at_s in clocks.items()
        )

    def ledger_is_complete(self) -> bool:
        """Whether the ledger holds every revision that the worker has decided."""
        return self.ledger.revisions >= self._figures.decisions > 0

    # --- as text ------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> datetime | None:
        return datetime.fromtimestamp(self._figures.clock_s, self._zone) if self._figures.clock_s else None

    @property
    def _period(self) -> str:
        if self._span is not None:
            return f"{self._span[0]:%Y-%m}"
        return f"{self._now:%Y-%m}" if self._now else ""

    def line(self) -> str:
        """The board in one line, for logs."""
        at = f"{self._now:%Y-%m-%d %H:%M}" if self._now else "before the first event"
        return (
            f"log time {at}; {self._figures.events:,} of {self._written:,} events judged, "
            f"{len(self._figures.firing)} alerts firing, {len(self.ledger.entries):,} entries in the ledger"
        )

    def table(self) -> RenderableType:
        """The board for a terminal."""
        sides = Table.grid(padding=(0, 3))
        sides.add_row(self._queues(), self._agents())
        return Group(self._head(), Text(), sides, Text(), self._alerts(), self._newest())

    def _head(self) -> RenderableType:
        at = f"{self._now:%a %d %b %Y %H:%M}" if self._now else "starting …"
        head = Table.grid(padding=(0, 2))
        head.add_row(Text("Kaohe 考核", style="bold"), Text(self._title), Text(at, style="bold cyan"))
        judged = Text(f"{self._figures.events:,} of {self._written:,} events judged", style="dim")
        if self._span is None:
            return Group(head, judged)
        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=self._span[1], completed=self._days_gone(), width=40), judged)
        return Group(head, line)

    def _days_gone(self) -> float:
        if self._span is None or not self._figures.clock_s:
            return 0.0
        first = datetime(self._span[0].year, self._span[0].month, self._span[0].day, tzinfo=self._zone)
        return min(self._span[1], max(0.0, (self._figures.clock_s - first.timestamp()) / 86_400))

    def _queues(self) -> Table:
        figures = self._kept or self._figures
        table = Table(title="Service level", title_justify="left", box=None, pad_edge=False)
        table.add_column("queue", no_wrap=True)
        for heading in ("today", "month", "waiting"):
            table.add_column(heading, justify="right", no_wrap=True)
        for queue in sorted(figures.month)[:ROWS_MAX]:
            table.add_row(
                queue, _share(figures.today.get(queue)), _share(figures.month.get(queue)),
                f"{figures.waiting.get(queue, 0):.0f}",
            )  # fmt: skip
        return table

    def _agents(self) -> Table:
        rows = agent_rows(self.ledger.entries, self.ledger.grades, self._period)
        packs = sorted({pack for row in rows.values() for pack in row.grades})
        table = Table(title="Points and grades", title_justify="left", box=None, pad_edge=False)
        table.add_column("agent", no_wrap=True)
        table.add_column("points", justify="right", no_wrap=True)
        for pack in packs:
            table.add_column(pack.partition("-")[0], no_wrap=True)
        for agent, row in list(rows.items())[:ROWS_MAX]:
            points = Text(
                _minus(f"{row.deducted:g}") if row.deducted else "0", style="red" if row.deducted else ""
            )
            if row.awarded:
                points.append(f" {row.awarded:+g}", style="green")
            table.add_row(agent, points, *(_grade(row.grades.get(pack)) for pack in packs))
        return table

    def _alerts(self) -> Text:
        firing = sorted(self._figures.firing)
        text = Text(
            f"Alerts  {len(firing)} now", style="yellow" if firing else "", no_wrap=True, overflow="ellipsis"
        )
        text.append(f", {self.ledger.alerts:,} changes so far", style="dim")
        more = f" and {len(firing) - ALERTS_MAX} more" if len(firing) > ALERTS_MAX else ""
        text.append(": " + ", ".join(firing[:ALERTS_MAX]) + more if firing else "")
        return text

    def _newest(self) -> Text:
        text = Text(f"Ledger  {len(self.ledger.entries):,} entries", no_wrap=True, overflow="ellipsis")
        weighty = [entry for entry in self.ledger.entries if float(entry.points)]
        if weighty:
            newest = max(weighty, key=lambda entry: (entry.at, entry.id))
            text.append(f"; {newest.subject} {_minus(newest.points)}: {newest.explanation.en}", style="dim")
        return text


def _share(value: float | None) -> Text:
    if value is None:
        return Text("–", style="dim")
    return Text(f"{value:.1%}", style="green" if value >= 0.8 else "yellow" if value >= 0.6 else "red")


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _grade(grade: Grade | None) -> Text:
    if grade is None:
        return Text("–", style="dim")
    if grade.status == "withdrawn":
        return Text("withdrawn", style="dim")
    text = Text(f"{_minus(grade.score)} {grade.grade}")
    if grade.status != "final":
        text.append(" …", style="dim")
    return text
