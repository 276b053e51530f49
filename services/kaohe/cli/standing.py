"""Everything on one machine: broker, worker and payroll as the processes they are in earnest, and what feeds them.

Theory of operation. The embedded broker, the worker and payroll are children; the configuration that they share is one
file in one folder, together with the ledger and the logs, and nothing of the caller's own ``KAOHE_*`` reaches them
except where the packs lie. A child gets no signal from the terminal: whoever started it ends it, payroll and worker
first, then the broker. The events are produced by a thread of this process, so that the screen stays alive.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec

import kaohe
from kaohe.adapters.base import SourceItem
from kaohe.adapters.simulator import simulate
from kaohe.cli.running import entries_of
from kaohe.cli.wiring import zone_named
from kaohe.errors import KaoheError, UsageError
from kaohe.packs.load import rules_dir
from kaohe.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, Settings
from kaohe.stream.broker import (
    ENDING,
    EmbeddedBroker,
    die_with_parent,
    end_process,
    free_port,
    signals_deferred,
)
from kaohe.stream.produce import Entry, produce, tick_entry
from kaohe.stream.topics import create_topics

PARTITIONS = 2
"""One worker on one machine; each more would repeat every tick."""
STOP_S = 5.0
CONFIG = "kaohe.toml"
LEDGER = "ledger.db"
RULES_VARIABLE = "KAOHE_RULES"
SOURCES = Path(kaohe.__file__).resolve().parents[1]


class Stack:
    """Broker, topics, worker and payroll in one folder."""

    def __init__(self, folder: Path) -> None:
        if (folder / LEDGER).exists():
            raise UsageError(f"{folder} holds a ledger already; name a new folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; name another folder.") from None
        self.folder = folder.resolve()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.broker = EmbeddedBroker(log_path=self.folder / "broker.log")
        self.settings = Settings(
            broker=self.broker.bootstrap,
            partitions=PARTITIONS,
            group_partitions=PARTITIONS,
            metrics_port=free_port(),
            database_url=f"sqlite:///{self.folder / LEDGER}",
            rules=str(own_rules().resolve()),
        )

    @property
    def config(self) -> Path:
        """The configuration of the parts, for ``KAOHE_CONFIG``."""
        return self.folder / CONFIG

    def start(self) -> None:
        """Start everything; KaoheError when a part does not come up."""
        chosen = (
            "broker",
            "partitions",
            "group_partitions",
            "metrics_host",
            "metrics_port",
            "database_url",
            "rules",
        )
        values = msgspec.to_builtins(self.settings)
        self.config.write_text(
            "".join(f"{name} = {json.dumps(values[name])}\n" for name in chosen), encoding="utf-8"
        )
        self.broker.start()
        create_topics(self.settings)
        for command in ("worker", "payroll"):
            self._spawn(command)

    def _spawn(self, command: str) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)
        }
        path = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {CONFIG_VARIABLE: str(self.config), "PYTHONPATH": os.pathsep.join(path)}
        with (self.folder / f"{command}.log").open("wb") as log, signals_deferred():
            self.children[command] = subprocess.Popen(
                [sys.executable, "-P", "-m", "kaohe", command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call and takes no lock
            )  # fmt: skip

    def check(self) -> None:
        """KaoheError with its last words when a part has ended by itself."""
        for command, child in self.children.items():
            if child.poll() is not None:
                words = (self.folder / f"{command}.log").read_text(errors="replace").strip().splitlines()
                last = words[-1].removeprefix("kaohe: ") if words else "it said nothing"
                raise KaoheError(f"kaohe {command} ended with exit code {child.returncode}: {last}")
        if not self.broker.running:
            raise KaoheError("the embedded broker ended by itself.")

    def stop(self) -> None:
        """End the children, then the broker. Takes a few seconds at most; a second Ctrl-C does not cut it short."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        try:
            for child in self.children.values():
                if child.poll() is None:
                    child.terminate()
            for child in self.children.values():
                end_process(child, STOP_S)
            self.broker.stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def own_rules() -> Path:
    """The packs: where the caller says, else those of this program, whatever lies in the working directory."""
    if named := os.environ.get(RULES_VARIABLE):
        return Path(named)
    own = SOURCES.parent / "rules"
    return own if own.is_dir() else rules_dir()


# --- what is fed in ---------------------------------------------------------------------------------------------------


class Month:
    """The events of a simulated centre with their ticks. ``last_at`` is how far the log has come."""

    def __init__(self, seed: int, agents: int, days: int, first: date, zone: str) -> None:
        self.first = first
        self.days = days
        self.zone = zone_named(zone)
        self.last_at: datetime | None = None
        self._events = simulate(seed, agents, days, first, self.zone)

    def entries(self) -> Iterator[Entry]:
        """What is to be written, in order."""
        items = (SourceItem(number, event, b"") for number, event in enumerate(self._events, start=1))
        for entry in entries_of(items, ticks=True):
            self.last_at = entry.at
            yield entry

    def closed_at(self, grace: timedelta) -> datetime:
        """When the calendar month of the last day is closed and its grace is over."""
        last = self.first + timedelta(days=self.days - 1)
        after = date(last.year + last.month // 12, last.month % 12 + 1, 1)
        return datetime(after.year, after.month, after.day, tzinfo=self.zone) + grace


class Feeder(threading.Thread):
    """Writes a month, and its closing tick when it is asked to."""

    def __init__(self, settings: Settings, month: Month, speed: float, closing: datetime | None) -> None:
        super().__init__(name="feeder", daemon=True)
        self.settings = settings
        self.month = month
        self.speed = speed
        self.closing = closing
        self.events = 0
        self.written = threading.Event()
        self.close = threading.Event()
        self.stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Write everything, or keep the reason why not."""
        try:
            produce(self.settings, self.month.entries(), self.speed, self._note, self.stop.is_set)
            self.written.set()
            if self.closing is not None:
                self.close.wait()
                if not self.stop.is_set():
                    produce(self.settings, [tick_entry(self.closing)])
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self._failure = error

    def _note(self, events: int) -> None:
        self.events = max(self.events, events)

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Stop writing, and wait a little for it."""
        self.stop.set()
        self.close.set()
        if self.is_alive():
            self.join(STOP_S)
