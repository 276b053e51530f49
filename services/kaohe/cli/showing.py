"""``kaohe demo`` and ``kaohe up``: everything on one machine, on the embedded broker.

The parts run as the processes they are in earnest: broker, worker and payroll as children with ``KAOHE_*`` in their
environment, the producer here. What the screen shows is read from outside: figures from the worker's Prometheus
endpoint, entries from the ledger.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.live import Live
from rich.table import Table

from kaohe import metric_names as names
from kaohe.adapters.base import SourceItem
from kaohe.adapters.simulator import simulate
from kaohe.cli.console import err, out, say
from kaohe.cli.running import entries_of
from kaohe.cli.wiring import zone_named
from kaohe.decisions import Decision
from kaohe.errors import KaoheError, LedgerError
from kaohe.explain import explanation
from kaohe.payroll.ledger import Ledger
from kaohe.settings import Settings, load_settings
from kaohe.stream.broker import EmbeddedBroker, end_process, free_port
from kaohe.stream.produce import Entry, produce, tick_entry
from kaohe.stream.topics import create_topics

FIRST_DAY = date(2026, 8, 1)
DAYS = 31
AGENTS = 16
SEED = 2026
ZONE = "Asia/Shanghai"
CLOSED_AFTER = timedelta(days=3, hours=1)
"""The month's entries are final when the packs' grace (72 hours) is over."""
QUIET_S = 2.0
GIVE_UP_S = 300.0
REFRESH_S = 0.5
STOP_S = 20.0
ENDLESS_DAYS = 3650
UP_SPEED = 3600.0


class Figures(msgspec.Struct):
    """What the worker says of itself, as last read."""

    service_level: dict[str, float] = {}
    waiting: dict[str, float] = {}
    alerts: int = 0
    decisions: int = 0
    events: int = 0
    clock_s: float = 0.0
    partitions: int = 0


class Stack:
    """Broker, topics, worker and payroll of one demonstration, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.broker = EmbeddedBroker(log_path=folder / "broker.log")
        base = load_settings({key: value for key, value in os.environ.items() if key != "KAOHE_CONFIG"}, folder)
        self.settings: Settings = msgspec.structs.replace(
            base,
            broker=self.broker.bootstrap,
            metrics_host="127.0.0.1",
            metrics_port=free_port(),
            database_url=f"sqlite:///{folder / 'ledger.db'}",
            sites={},
        )

    def start(self) -> None:
        """Start everything; KaoheError when a part does not come up."""
        self.broker.start()
        create_topics(self.settings)
        self._spawn("worker")
        self._spawn("payroll")

    def _spawn(self, command: str) -> None:
        settings = self.settings
        environment = dict(os.environ)
        environment |= {
            "KAOHE_BROKER": settings.broker,
            "KAOHE_METRICS_HOST": settings.metrics_host,
            "KAOHE_METRICS_PORT": str(settings.metrics_port),
            "KAOHE_DATABASE_URL": settings.database_url,
        }
        with (self.folder / f"{command}.log").open("wb") as log:
            self.children[command] = subprocess.Popen(
                [sys.executable, "-m", "kaohe", command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder,
            )  # fmt: skip

    def check(self) -> None:
        """KaoheError with its last words when a part has ended by itself."""
        for command, child in self.children.items():
            if child.poll() is not None:
                words = (self.folder / f"{command}.log").read_text(errors="replace").strip().splitlines()
                last = words[-1] if words else "it said nothing"
                raise KaoheError(f"kaohe {command} ended with exit code {child.returncode}: {last}")

    def stop(self) -> None:
        """End the children cleanly, then the broker."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            end_process(child, STOP_S)
        self.broker.stop()


# --- what is fed in ---------------------------------------------------------------------------------------------------


def _items(agents: int, days: int) -> Iterator[SourceItem]:
    for number, event in enumerate(simulate(SEED, agents, days, FIRST_DAY, zone_named(ZONE)), start=1):
        yield SourceItem(line=number, event=event, raw=b"")


def _month(agents: int, days: int) -> Iterator[Entry]:
    """The simulated days, and the ticks that carry the clock past the close of the month."""
    yield from entries_of(_items(agents, days), ticks=True)
    yield tick_entry(_end(days))


def _end(days: int) -> datetime:
    midnight = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=zone_named(ZONE))
    return (midnight + timedelta(days=days) + CLOSED_AFTER).astimezone(UTC)


class Feeder(threading.Thread):
    """Produces in a thread of its own, so that the screen stays alive."""

    def __init__(self, settings: Settings, entries: Iterator[Entry], speed: float | None) -> None:
        super().__init__(name="feeder", daemon=True)
        self.settings = settings
        self.entries = entries
        self.speed = speed
        self.events = 0
        self.failure: BaseException | None = None
        self.asked = threading.Event()

    def run(self) -> None:
        """Write everything, or keep the reason why not."""
        try:
            produce(self.settings, self.entries, self.speed, self._note, self.asked.is_set)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.failure = error

    def _note(self, events: int) -> None:
        self.events = events

    def check(self) -> None:
        """Raise what went wrong."""
        if self.failure is not None:
            raise self.failure


# --- what is shown ----------------------------------------------------------------------------------------------------


def read_figures(settings: Settings) -> Figures:
    """The worker's figures now; empty ones while it does not answer."""
    url = f"http://{settings.metrics_host}:{settings.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return Figures()
    samples: dict[str, list[Any]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append(sample)
    figures = Figures()
    for sample in samples[names.METRIC_VALUE.name]:
        labels = sample.labels
        if labels["level"] == "queue" and labels["window"] == "day" and labels["metric"] == "service_level":
            figures.service_level[labels["subject"]] = sample.value
        if labels["level"] == "queue" and labels["metric"] == "calls_waiting":
            figures.waiting[labels["subject"]] = sample.value
    figures.alerts = int(sum(sample.value for sample in samples[names.ALERTS_FIRING.name]))
    figures.decisions = int(sum(sample.value for sample in samples[f"{names.DECISIONS.name}"]))
    figures.events = int(sum(sample.value for sample in samples[f"{names.EVENTS.name}"]))
    clocks = [sample.value for sample in samples[names.WATERMARK.name] if sample.labels.get("stage") == "events"]
    figures.clock_s = min(clocks, default=0.0)
    figures.partitions = len(clocks)
    return figures


class Entries:
    """The newest state of the ledger: deductions, awards, scores."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: list[Decision] = []
        self.rows = 0

    def refresh(self) -> None:
        """Read the ledger; while there is none yet nothing changes."""
        try:
            with Ledger(self.settings.database_url) as ledger:
                counts = ledger.counts()
                rows = sum(counts.values())
                if rows != self.rows:
                    self.rows = rows
                    self.current = list(ledger.current_entries())
        except LedgerError:
            return

    def by_agent(self) -> list[tuple[str, int, float]]:
        """Agents with their entries and points, the heaviest deductions first."""
        found: dict[str, list[float]] = defaultdict(list)
        for entry in self.current:
            if entry.level == "agent" and entry.kind in ("deduct", "award", "adjust", "waive"):
                found[entry.subject].append(float(entry.points))
        rows = [(agent, len(points), sum(points)) for agent, points in found.items()]
        return sorted(rows, key=lambda row: (row[2], row[0]))


def board(figures: Figures, entries: Entries, fed: int) -> Table:
    """The live table."""
    clock = datetime.fromtimestamp(figures.clock_s, zone_named(ZONE)).strftime("%Y-%m-%d %H:%M") if figures.clock_s else "…"
    table = Table(title=f"Kaohe 考核 · log time {clock} · {figures.events:,} of {fed:,} events judged")
    table.add_column("queue")
    table.add_column("service level", justify="right")
    table.add_column("waiting", justify="right")
    table.add_column("agent")
    table.add_column("entries", justify="right")
    table.add_column("points", justify="right")
    queues = sorted(figures.service_level)[:8]
    agents = entries.by_agent()[:8]
    for row in range(max(len(queues), len(agents), 1)):
        queue = queues[row] if row < len(queues) else ""
        agent = agents[row] if row < len(agents) else ("", "", "")
        table.add_row(
            queue,
            f"{figures.service_level[queue]:.1%}" if queue else "",
            f"{figures.waiting.get(queue, 0):.0f}" if queue else "",
            agent[0], str(agent[1]), f"{agent[2]:+g}" if agent[0] else "",
        )  # fmt: skip
    deductions = sum(entry.kind == "deduct" and float(entry.points) < 0 for entry in entries.current)
    table.caption = f"{figures.alerts} alerts firing · {deductions} deductions in the ledger"
    return table


def _watch(stack: Stack, feeder: Feeder, done: Callable[[Figures, Entries], bool]) -> Entries:
    """Show the table until ``done`` says so; off a terminal a line every few seconds."""
    entries = Entries(stack.settings)
    started_s = last_s = time.monotonic()
    with ExitStack() as context:
        live = context.enter_context(Live(console=err, refresh_per_second=4)) if err.is_terminal else None
        while True:
            stack.check()
            feeder.check()
            figures = read_figures(stack.settings)
            entries.refresh()
            if live is not None:
                live.update(board(figures, entries, feeder.events))
            elif time.monotonic() - last_s >= 5:
                last_s = time.monotonic()
                say(
                    f"{last_s - started_s:3.0f} s: {feeder.events:,} events written, {figures.events:,} judged, "
                    f"{figures.alerts} alerts firing, {len(entries.current):,} entries"
                )
            if done(figures, entries):
                return entries
            time.sleep(REFRESH_S)


class Done:
    """Whether the month is over: everything written, judged, and the ledger quiet."""

    def __init__(self, feeder: Feeder, end: datetime) -> None:
        self.feeder = feeder
        self.end_s = end.timestamp()
        self.started_s = self.changed_s = time.monotonic()
        self.rows = -1

    def __call__(self, figures: Figures, entries: Entries) -> bool:
        now_s = time.monotonic()
        if now_s - self.started_s > GIVE_UP_S:
            raise KaoheError(f"the demonstration did not end within {GIVE_UP_S:.0f} s; is this machine very busy?")
        if entries.rows != self.rows:
            self.rows, self.changed_s = entries.rows, now_s
        judged = not self.feeder.is_alive() and figures.partitions > 0 and figures.clock_s >= self.end_s
        return judged and self.rows > 0 and now_s - self.changed_s >= QUIET_S


def _summary(entries: Entries, folder: Path) -> None:
    current = entries.current
    final = [entry for entry in current if entry.status == "final"]
    deductions = [entry for entry in final if entry.kind == "deduct" and float(entry.points) < 0]
    out.print(
        f"\nThe month is closed: {len(final)} final entries, {len(deductions)} of them deductions, "
        f"for {len({entry.subject for entry in final})} subjects."
    )
    shown: list[Decision] = []
    for entry in sorted(deductions, key=lambda one: (float(one.points), one.id)):
        if all(entry.rule != other.rule for other in shown):
            shown.append(entry)
    if len(shown) < 3:
        shown += [entry for entry in final if entry not in shown]
    out.print("\nThree of them explained:\n")
    for entry in shown[:3]:
        out.print(explanation([entry]))
        out.print()
    out.print(f"The ledger and the logs are in {folder}" if folder.exists() else "")


def demo(
    agents: Annotated[int, typer.Option(help="How many agents the simulated centre has.")] = AGENTS,
    days: Annotated[int, typer.Option(help="How many days, from the first of August 2026.")] = DAYS,
    keep: Annotated[Path | None, typer.Option(help="Folder for ledger and logs; default: a temporary one.")] = None,
) -> None:
    """Show the whole way of an event: a simulated month through broker, worker and ledger, in about a minute.

    Example: kaohe demo
    """
    started_s = time.monotonic()
    with ExitStack() as context:
        folder = keep or Path(context.enter_context(tempfile.TemporaryDirectory(prefix="kaohe-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        stack = Stack(folder)
        context.callback(stack.stop)
        say(f"starting broker, worker and payroll; a month of {agents} agents follows")
        stack.start()
        feeder = Feeder(stack.settings, _month(agents, days), None)
        feeder.start()
        entries = _watch(stack, feeder, Done(feeder, _end(days)))
        _summary(entries, folder)
    say(f"done in {time.monotonic() - started_s:.0f} s")


def up(
    agents: Annotated[int, typer.Option(help="How many agents the simulated centre has.")] = AGENTS,
    speed: Annotated[float, typer.Option(help="How many times faster than life.")] = UP_SPEED,
    keep: Annotated[Path | None, typer.Option(help="Folder for ledger and logs; default: a temporary one.")] = None,
) -> None:
    """The same as demo without an end: the simulated centre goes on until Ctrl-C.

    Example: kaohe up --speed 600
    """
    with ExitStack() as context:
        folder = keep or Path(context.enter_context(tempfile.TemporaryDirectory(prefix="kaohe-up-")))
        folder.mkdir(parents=True, exist_ok=True)
        stack = Stack(folder)
        context.callback(stack.stop)
        stack.start()
        settings = stack.settings
        say(
            f"KAOHE_BROKER={settings.broker} KAOHE_DATABASE_URL={settings.database_url}\n"
            f"figures: http://{settings.metrics_host}:{settings.metrics_port}/metrics; Ctrl-C ends it"
        )
        feeder = Feeder(settings, entries_of(_items(agents, ENDLESS_DAYS), ticks=True), speed)
        context.callback(feeder.asked.set)
        feeder.start()
        _watch(stack, feeder, lambda _figures, _entries: not feeder.is_alive())


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(up)


