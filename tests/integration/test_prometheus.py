"""The whole way of a figure: events on a broker, a real worker, a real Prometheus, each query of the wallboard."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.errors import KaoheError
from kaohe.events import (
    AgentLoggedIn,
    AgentReady,
    CallAbandoned,
    CallAnswered,
    CallCompleted,
    CallOffered,
    ComplaintLogged,
    Payload,
    RosterChanged,
    SurveyCrossDepartment,
    SurveyCustomer,
    TicketOpened,
    TicketResolved,
    encode,
    make,
)
from kaohe.settings import Settings
from kaohe.stream.broker import EmbeddedBroker, end_process, free_port
from kaohe.stream.produce import Entry, produce, tick_entry
from kaohe.stream.topics import create_topics
from tests.support.prometheus import ROOT, Prometheus, require, rules, variable_selectors, wallboard_queries

PACKS = ("contact-centre", "logistics-service")
START = datetime(2026, 8, 3, 1, 0, tzinfo=UTC)
MINUTES = 150
SPEED = 600.0
"""Ten minutes of the log a second: the log lasts a quarter of a minute, so that many scrapes see it grow."""
PATIENCE_S = 60.0
STEADY_S = 20.0
STOP_TIMEOUT_S = 20.0
TEAMS = {"a-1": ("t-1", "sales"), "a-2": ("t-2", "care")}


class Log:
    """Two queues on a bad morning: every third caller gives up, tickets run over their time, sources make mistakes."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.offered = 0
        self._number = 0

    def add(self, at: datetime, tag: str, subject: str, data: Payload, *, late: bool = False) -> None:
        self._number += 1
        moment = at - timedelta(minutes=3) if late else at
        event = make(tag, id=f"e-{self._number}", source="acd", subject=subject, time=moment, data=data)
        self.entries.append(Entry(encode(event), subject, at))

    def write(self) -> list[Entry]:
        self.entries.append(tick_entry(START))
        for agent, (team, queue) in TEAMS.items():
            roster = RosterChanged(agent=agent, team=team, site="hq", position="agent")
            self.add(START, "roster.changed", agent, roster)
            self.add(START, "agent.logged_in", agent, AgentLoggedIn(agent=agent))
            self.add(START, "agent.ready", agent, AgentReady(agent=agent, queue=queue))
        for minute in range(MINUTES):
            at = START + timedelta(minutes=minute)
            self.entries.append(tick_entry(at))
            for agent, (team, queue) in TEAMS.items():
                self._calls(at, minute, agent, queue, team)
                if minute % 5 == 0:
                    self._work(at, minute, agent, queue)
            if minute % 5 == 0:
                self._mistakes(at)
        self.entries.append(tick_entry(START + timedelta(minutes=MINUTES)))
        return self.entries

    def _calls(self, at: datetime, minute: int, agent: str, queue: str, team: str) -> None:
        call = f"{agent}-{minute}"
        self.offered += 1
        place: dict[str, Any] = {"call_id": call, "queue": queue, "team": team, "site": "hq"}
        self.add(at, "call.offered", queue, CallOffered(**place))
        if minute % 3 == 0:
            self.add(at, "call.abandoned", queue, CallAbandoned(**place, wait_ms=95_000))
            return
        answered = CallAnswered(**place, agent=agent, wait_ms=12_000 + 500 * (minute % 40), rings=2)
        self.add(at, "call.answered", agent, answered)
        done = CallCompleted(**place, agent=agent, talk_ms=30_000, hold_ms=2_000, wrap_ms=8_000)
        self.add(at, "call.completed", agent, done)

    def _work(self, at: datetime, minute: int, agent: str, queue: str) -> None:
        ticket = f"{agent}-t{minute}"
        where: dict[str, Any] = {"agent": agent, "queue": queue}
        due = at + timedelta(minutes=2)
        self.add(at, "ticket.opened", agent, TicketOpened(ticket_id=ticket, due_at=due, **where))
        if minute % 10 == 0:
            solved = TicketResolved(
                ticket_id=ticket, first_contact=minute % 20 == 0, handling_ms=60_000, **where
            )
            self.add(at, "ticket.resolved", agent, solved)
            self.add(
                at, "complaint.logged", agent, ComplaintLogged(complaint_id=f"{agent}-c{minute}", **where)
            )
        answer = SurveyCustomer(survey_id=f"{agent}-s{minute}", satisfaction="satisfied", **where)
        self.add(at, "survey.customer", agent, answer)
        rated = SurveyCrossDepartment(agent=agent, by="warehouse", rating="poor" if minute % 2 else "good")
        self.add(at, "survey.cross_department", agent, rated)

    def _mistakes(self, at: datetime) -> None:
        self.entries.append(Entry(b"{broken", "sales", at))
        self.entries.append(self.entries[-2])
        self.add(at, "survey.customer", "a-1", SurveyCustomer(agent="a-1", satisfaction="neutral"), late=True)


def worker_environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "KAOHE_BROKER": settings.broker,
        "KAOHE_PARTITIONS": str(settings.partitions),
        "KAOHE_GROUP_PARTITIONS": str(settings.group_partitions),
        "KAOHE_PACKS": ",".join(settings.packs),
        "KAOHE_METRICS_HOST": settings.metrics_host,
        "KAOHE_METRICS_PORT": str(settings.metrics_port),
        "KAOHE_METRICS_AGENTS_MAX": str(settings.metrics_agents_max),
        "KAOHE_RULES": str(ROOT / "rules"),
        "PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}",
    }


class Running:
    """A worker that Prometheus scrapes, while the log is being written."""

    def __init__(
        self, settings: Settings, second: Settings, prometheus: Prometheus, worker_log: Path
    ) -> None:
        self.settings = settings
        self.second = second
        self.prometheus = prometheus
        self.worker_log = worker_log
        self.log = Log()
        self.failure = ""
        self.writer = threading.Thread(target=self._write, args=(self.log.write(),), daemon=True)

    def _write(self, entries: list[Entry]) -> None:
        try:
            produce(self.settings, entries, SPEED)
        except KaoheError as exc:  # the test that waits for what was to be written shows it
            self.failure = str(exc)

    def until(self, expr: str, enough: float) -> None:
        """Wait until ``expr`` is at least ``enough`` in Prometheus."""
        deadline_s = time.monotonic() + PATIENCE_S
        seen: list[float] = []
        while time.monotonic() < deadline_s and not self.failure:
            seen = self.prometheus.values(expr)
            if seen and seen[0] >= enough:
                return
            time.sleep(0.25)
        tail = self.worker_log.read_text(encoding="utf-8", errors="replace")[-3000:]
        pytest.fail(f"{expr} is {seen}, not {enough}; writer: {self.failure or 'well'}; worker:\n{tail}")


def start_worker(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from kaohe.cli import main; main()", "worker"],
            env=worker_environment(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The log has been written, applied and scraped when this is given out."""
    require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    worker_log = folder / "worker.log"
    with EmbeddedBroker() as broker:
        settings = Settings(
            broker=broker.bootstrap,
            partitions=2,
            group_partitions=2,
            metrics_port=free_port(),
            metrics_agents_max=1,
            packs=PACKS,
        )
        create_topics(settings)
        second = msgspec.structs.replace(settings, metrics_port=free_port())
        worker = start_worker(settings, worker_log)
        try:
            ports = [settings.metrics_port, second.metrics_port]
            with Prometheus(folder, [f"127.0.0.1:{port}" for port in ports]) as prometheus:
                everything = Running(settings, second, prometheus, worker_log)
                everything.until("sum(kaohe_partitions_assigned)", 4)
                everything.writer.start()
                everything.until(
                    'sum(kaohe_metric_value{metric="offered", level="site", window="day"})',
                    everything.log.offered,
                )
                yield everything
                everything.writer.join(PATIENCE_S)
        finally:
            end_process(worker, STOP_TIMEOUT_S)


def answers(running: Running, queries: dict[str, str]) -> dict[str, str]:
    """The queries that stay empty or are not a number, with the reason, after a while of asking."""
    left = dict(queries)
    wrong: dict[str, str] = {}
    deadline_s = time.monotonic() + STEADY_S
    while left and time.monotonic() < deadline_s:
        for name, expr in list(left.items()):
            values = running.prometheus.values(expr)
            if values and not any(math.isnan(value) for value in values):
                del left[name]
                wrong.pop(name, None)
            else:
                wrong[name] = f"{expr} gives {values or 'nothing'}"
        if left:
            time.sleep(0.5)
    return wrong


@pytest.mark.prometheus
@pytest.mark.slow
def test_every_query_of_the_wallboard_has_an_answer(running: Running) -> None:
    queries = {f"{number} {query.panel}": query.filled() for number, query in enumerate(wallboard_queries())}
    assert len(queries) > 30
    queries |= {f"variable {number}": selector for number, selector in enumerate(variable_selectors())}
    assert answers(running, queries) == {}


@pytest.mark.prometheus
@pytest.mark.slow
def test_every_recording_rule_records(running: Running) -> None:
    recorded = {name: name for name, _ in rules("record")}
    assert len(recorded) > 20
    assert answers(running, recorded) == {}


@pytest.mark.prometheus
@pytest.mark.slow
def test_every_rule_is_healthy(running: Running) -> None:
    found = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in running.prometheus.rules()}
    assert set(found) == {name for kind in ("record", "alert") for name, _ in rules(kind)}
    assert {name: state for name, state in found.items() if state != ("ok", "")} == {}


@pytest.mark.prometheus
@pytest.mark.slow
def test_figures_are_those_of_the_log(running: Running) -> None:
    offered, minutes = running.log.offered, range(MINUTES)
    abandoned = 2 * len([minute for minute in minutes if minute % 3 == 0])
    site = 'pack="contact-centre", level="site", subject="hq"'
    expected = {
        f'kaohe_metric_numerator_total{{{site}, metric="offered"}}': offered,
        f'kaohe_metric_value{{{site}, metric="abandoned", window="day"}}': abandoned,
        f'kaohe_metric_value{{{site}, metric="abandonment_rate", window="day", unit="ratio"}}': abandoned
        / offered,
        f'kaohe_metric_denominator_total{{{site}, metric="abandonment_rate"}}': offered,
        "sum(kaohe_duplicate_events_total)": MINUTES / 5,
        "sum(kaohe_late_events_total)": MINUTES / 5,
        'sum(kaohe_rejects_total{code="malformed"})': MINUTES / 5,
        'sum(kaohe_events_total{stage="events", type="call.offered"})': offered,
        'sum(kaohe_decisions_total{rule="ls-cooperation", status="final"})': 2 * MINUTES / 5,
        "sum(kaohe_consumer_lag_records)": 0,
        "kaohe_agents_left_out": 1,
        'count(count by (subject) (kaohe_metric_value{level="agent"}))': 1,
    }
    wanted = {expr: [pytest.approx(value)] for expr, value in expected.items()}
    found: dict[str, list[float]] = {}
    deadline_s = time.monotonic() + STEADY_S
    while found != wanted and time.monotonic() < deadline_s:
        time.sleep(0.25)
        found = {expr: running.prometheus.values(expr) for expr in expected}
    assert found == wanted


@pytest.mark.prometheus
@pytest.mark.slow
def test_series_move_with_their_partitions(running: Running) -> None:
    """A second worker takes half of the partitions. Each series is then shown by one of the two, and none is lost."""
    queues = 'kaohe_metric_numerator_total{level="queue", metric="offered"}'
    expected = {
        "count(sum by (instance) (kaohe_partitions_assigned) > 0)": [2.0],
        "sum(kaohe_partitions_assigned)": [4.0],
        "count(kaohe_watermark_timestamp_seconds)": [4.0],
        "max(count by (stage, partition) (kaohe_watermark_timestamp_seconds))": [1.0],
        f"count({queues})": [2.0],
        f"max(count by (subject) ({queues}))": [1.0],
        f"sum({queues})": [float(running.log.offered)],
    }
    worker = start_worker(running.second, running.worker_log)
    try:
        found: dict[str, list[float]] = {}
        deadline_s = time.monotonic() + PATIENCE_S
        while found != expected and time.monotonic() < deadline_s:
            time.sleep(0.5)
            found = {expr: running.prometheus.values(expr) for expr in expected}
        assert found == expected, running.worker_log.read_text(encoding="utf-8", errors="replace")[-3000:]
    finally:
        end_process(worker, STOP_TIMEOUT_S)
