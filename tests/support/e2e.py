"""The whole system on a broker, and what a replay of the same log gives.

A ``Story`` is one log (events and the ticks of log time) in two forms: as the entries that ``produce`` writes, and as
what ``Replay`` makes of it in this process. ``System`` is the real thing: worker and payroll processes as users start
them. ``settled`` waits until everything that was produced has gone all the way into the ledger, judged by checkpoints
and offsets, never by silence.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from kafka import KafkaConsumer, TopicPartition

from kaohe.adapters.base import SourceItem
from kaohe.adapters.log_clock import log_ticks
from kaohe.adapters.simulator import simulate
from kaohe.cli.running import entries_of
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.decisions import (
    ALERT_DECODER,
    DECISION_DECODER,
    GRADE_DECODER,
    REJECT_DECODER,
    Alert,
    Decision,
    Grade,
    Reject,
)
from kaohe.events import ComplaintLogged, Envelope, make, type_of
from kaohe.packs.load import load_packs, rules_dir
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.records import TOPICS
from kaohe.settings import Settings
from kaohe.stream.broker import end_process
from kaohe.stream.checkpoints import MARKER_KEY
from kaohe.stream.produce import Entry, produce, tick_entry
from kaohe.stream.sender import partition_of
from kaohe.stream.topics import EVENTS, PARTIALS, client_config
from tests.support.workers import Child, reading, wait_until

ROOT = Path(__file__).resolve().parents[2]
PACKS = ("contact-centre", "front-desk", "full-attendance", "logistics-service")
FIRST_DAY = date(2026, 1, 28)
DAYS = 8
KEPT_DAYS = (date(2026, 1, 30), date(2026, 1, 31), date(2026, 2, 4))
"""The last days of January and, after three days of silence, the one that begins as January closes."""
ZONE = ZoneInfo("Asia/Shanghai")
BASELINE_DAY = datetime(2025, 12, 30, 1, tzinfo=UTC)
"""FD-03 compares with December 2025."""
AFTER_CLOSE = datetime(2026, 2, 5, 12, tzinfo=UTC)
MONTH_END = datetime(2026, 2, 1, tzinfo=ZONE)
HELD_BACK = ("survey.customer", "error.recorded", "complaint.logged", "complaint.upheld")
"""Of these types some events of January arrive only after its close."""

FEED_ENTRIES = 250
FEED_PAUSE_S = 0.05
STOP_TIMEOUT_S = 40.0
SETTLE_TIMEOUT_S = 150.0


# --- the log and what it must give ------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """Every revision of everything, by its key in the ledger; rejects with how often each came."""

    decisions: dict[tuple[str, int], Decision]
    alerts: dict[tuple[str, str], Alert]
    grades: dict[tuple[str, int], Grade]
    rejects: Counter[tuple[str, str, str]]

    def newest(self) -> dict[str, tuple[str, str, str, int, int]]:
        """What counts of every entry: kind, status, points, money and the number of its last revision."""
        return {
            one.id: (one.kind, one.status, one.points, one.amount_minor, one.revision)
            for one in (self.decisions[key] for key in sorted(self.decisions))
        }

    def final_grades(self) -> dict[str, tuple[str, str]]:
        """Score and grade of every closed period."""
        return {one.id: (one.score, one.grade) for one in self.grades.values() if one.status == "final"}


def outcome(
    decisions: list[bytes], alerts: list[bytes], grades: list[bytes], rejects: Iterable[Reject]
) -> Outcome:
    """Sort what was said. Nothing may be said twice."""
    found = Outcome(
        {(one.id, one.revision): one for one in map(DECISION_DECODER.decode, decisions)},
        {(one.id, one.state): one for one in map(ALERT_DECODER.decode, alerts)},
        {(one.id, one.revision): one for one in map(GRADE_DECODER.decode, grades)},
        Counter((one.code, one.reason, one.raw) for one in rejects),
    )
    assert (len(found.decisions), len(found.alerts), len(found.grades)) == (
        len(decisions), len(alerts), len(grades),
    )  # fmt: skip
    return found


class Story(NamedTuple):
    """A log, ready to be written, and what a replay of it gives."""

    entries: tuple[Entry, ...]
    wanted: Outcome

    @property
    def events(self) -> int:
        return sum(1 for entry in self.entries if entry.subject)


def make_story(seed: int, agents: int) -> Story:
    """Simulated days around the end of a month, with faults, with late arrivals after its close, and with rejects."""
    items = [SourceItem(line, event, b"") for line, event in enumerate(_log(seed, agents), start=1)]
    entries = (*entries_of(items, ticks=True), tick_entry(AFTER_CLOSE))
    replay = Replay(load_packs(list(PACKS), rules_dir()), topic=EVENTS)
    for kind, thing in log_ticks(items):
        found: Any = thing
        if kind == "tick":
            replay.tick(found)
        else:
            replay.feed(found.event)
    replay.tick(AFTER_CLOSE)
    replay.finish()
    wanted = outcome(replay.decisions, replay.alerts, replay.grades, replay.rejects)
    return Story(entries, wanted)


def in_shares(story: Story, partitions: int, group_partitions: int) -> Outcome:
    """What the engines give as the workers have them: by the broker's hash, groups in shares, source after source."""
    packs = load_packs(list(PACKS), rules_dir())
    zones = Zones(default=packs[0].zone)
    records: list[list[Record]] = [[] for _ in range(partitions)]
    for entry in story.entries:
        key = entry.subject.encode()
        for number in [partition_of(key, partitions)] if key else range(partitions):
            records[number].append(Record(len(records[number]), entry.value, key, 0))
    said: list[Output] = []
    for number, mine in enumerate(records):
        said += PartitionEngine(
            packs, zones=zones, partition=number, group_partitions=group_partitions
        ).apply(mine)
    for number in range(group_partitions):
        reports = [Record(0, one.value, one.key, 0) for one in said if one.partition == number]
        said += GroupEngine(packs, zones=zones, partition=number, source_partitions=partitions).apply(reports)
    decisions, alerts, grades = (
        [one.value for one in said if one.topic == topic] for topic in ("decisions", "alerts", "grades")
    )
    rejects = [REJECT_DECODER.decode(one.value) for one in said if one.topic == "rejects"]
    return outcome(decisions, alerts, grades, rejects)


def _log(seed: int, agents: int) -> Iterator[Envelope]:
    """The events in the order of their arrival."""
    simulated = [
        event
        for event in simulate(seed, agents, DAYS, FIRST_DAY, ZONE)
        if type_of(event) == "roster.changed" or event.time.astimezone(ZONE).date() in KEPT_DAYS
    ]
    yield from _baseline(simulated)
    late = [event for event in simulated if type_of(event) in HELD_BACK and event.time < MONTH_END][::4]
    held = {id(event) for event in late}
    yield from (event for event in simulated if id(event) not in held)
    yield from late
    yield from _unusable(simulated[-1])


def _unusable(last: Envelope) -> Iterator[Envelope]:
    """Events that are rejected: one from the future, one in a partition that is not its agent's."""
    data = ComplaintLogged(complaint_id="bad", agent=last.data.agent or "a-001")
    ahead = last.time + timedelta(days=60)
    yield make("complaint.logged", id="bad-1", source="test", subject=data.agent, time=ahead, data=data)
    yield make("complaint.logged", id="bad-2", source="test", subject="somebody", time=last.time, data=data)


def _baseline(simulated: list[Envelope]) -> Iterator[Envelope]:
    """One complaint for each team in the month that FD-03 compares with."""
    teams: dict[str, str] = {}
    for event in simulated:
        if type_of(event) == "roster.changed":
            teams.setdefault(event.data.team, event.subject)
    for number, (team, agent) in enumerate(sorted(teams.items())):
        data = ComplaintLogged(complaint_id=f"base-{number}", agent=agent, team=team)
        at = BASELINE_DAY + timedelta(minutes=number)
        yield make("complaint.logged", id=f"base-{number}", source="test", subject=agent, time=at, data=data)


# --- the processes ----------------------------------------------------------------------------------------------------


class Process(Child):
    """One ``kaohe`` command as a user starts it."""

    def __init__(self, command: str, settings: Settings, folder: Path, name: str) -> None:
        own = {
            "KAOHE_FETCH_RECORDS_MAX": str(settings.fetch_records_max),
            "KAOHE_DATABASE_URL": settings.database_url,
            "KAOHE_METRICS_PORT": "0",
            "KAOHE_PACKS": ",".join(PACKS),
            "KAOHE_SHADOW_PACKS": ",".join(settings.shadow_packs),
            "KAOHE_RULES": str(ROOT / "rules"),
            "PYTHONPATH": str(ROOT / "services"),
        }
        super().__init__(["kaohe", command], own, settings, folder, name, folder)


class System:
    """Two workers and the payroll consumer, and how far they have come."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._started: list[Process] = []
        self.pair = [self._start("worker"), self._start("worker")]
        self.payroll = self._start("payroll")
        self._marks = Marks(settings)

    def _start(self, command: str) -> Process:
        process = Process(command, self.settings, self._folder, f"{len(self._started) + 1}-{command}")
        self._started.append(process)
        return process

    def kill_worker(self, which: int) -> None:
        """``kill -9``, and a new one in its place."""
        self.pair[which].kill()
        self.pair[which] = self._start("worker")

    def kill_payroll(self) -> None:
        """``kill -9``, and a new one in its place."""
        self.payroll.kill()
        self.payroll = self._start("payroll")

    def check_running(self) -> None:
        """Nobody ended without being asked to."""
        for process in (*self.pair, self.payroll):
            assert process.running, process.said()

    def safe_events(self) -> int:
        """How many records of the source are inside a checkpoint."""
        self.check_running()
        return sum(self._marks.of(self.settings.state_topic).values())

    def settled(self) -> None:
        """Wait until what was produced has been judged, summed up for groups, and kept."""
        settings, marks = self.settings, self._marks
        self._until(
            marks.reach(settings.state_topic, ends(settings, EVENTS, settings.partitions)), "events judged"
        )
        partials = ends(settings, PARTIALS, settings.group_partitions)
        self._until(marks.reach(settings.group_state_topic, partials), "groups judged")
        wanted = {
            (topic, partition): end
            for topic in TOPICS
            for partition, end in ends(settings, topic, settings.partitions).items()
            if end
        }

        def kept() -> bool:
            with Ledger(settings.database_url) as ledger:
                found = ledger.offsets()
            return all(key in found and found[key].next_offset >= end for key, end in wanted.items())

        self._until(kept, "everything in the ledger")

    def _until(self, done: Callable[[], bool], what: str) -> None:
        def check() -> bool:
            self.check_running()
            return done()

        try:
            wait_until(check, SETTLE_TIMEOUT_S, what)
        except AssertionError:
            for process in self._started:
                print(f"--- {process.log.name}\n{process.said()[-2000:]}")
            raise

    def stop(self) -> list[int]:
        """End everything as a service manager would; the exit codes."""
        running = (*self.pair, self.payroll)
        for process in running:
            process.process.terminate()
        return [process.process.wait(STOP_TIMEOUT_S) for process in running]

    def end(self) -> None:
        """Whatever still runs goes."""
        self._marks.close()
        for process in self._started:
            end_process(process.process, 10.0)


@contextlib.contextmanager
def running_system(settings: Settings, folder: Path) -> Iterator[System]:
    """Two workers and payroll on prepared topics; all processes end with the block."""
    system = System(settings, folder)
    try:
        yield system
    finally:
        system.end()


class Marks:
    """The source offsets that checkpoints have committed, read from the changelogs as they grow."""

    def __init__(self, settings: Settings) -> None:
        self._found: dict[str, dict[int, int]] = {settings.state_topic: {}, settings.group_state_topic: {}}
        self._consumer: Any = KafkaConsumer(
            enable_auto_commit=False, auto_offset_reset="earliest", **client_config(settings)
        )
        self._consumer.assign(
            [TopicPartition(settings.state_topic, number) for number in range(settings.partitions)]
            + [
                TopicPartition(settings.group_state_topic, number)
                for number in range(settings.group_partitions)
            ]
        )
        self._consumer.seek_to_beginning()

    def of(self, topic: str) -> dict[int, int]:
        """The committed source offset of each partition so far."""
        for tp, fetched in self._consumer.poll(timeout_ms=200).items():
            for record in fetched:
                if record.key == MARKER_KEY and record.value is not None:
                    self._found[tp.topic][tp.partition] = int.from_bytes(record.value[4:12], "big")
        return self._found[topic]

    def reach(self, topic: str, wanted: dict[int, int]) -> Callable[[], bool]:
        """Whether every partition is committed up to its end."""
        return lambda: all(self.of(topic).get(number, 0) >= end for number, end in wanted.items())

    def close(self) -> None:
        self._consumer.close()


def ends(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The end of each partition. Only a fetch tells it: the embedded broker's answer to a request for the last offset
    is the start of the last batch."""
    found: dict[int, int] = {}
    places = [TopicPartition(topic, number) for number in range(partitions)]
    with contextlib.closing(KafkaConsumer(enable_auto_commit=False, **client_config(settings))) as consumer:
        consumer.assign(places)
        for tp, end in consumer.end_offsets(places).items():
            consumer.seek(tp, max(0, end - 1))

        def known() -> bool:
            consumer.poll(timeout_ms=200)
            for tp in places:
                end = consumer.highwater(tp)
                if end is not None:
                    found[tp.partition] = end
            return len(found) == partitions

        wait_until(known, 20.0, f"the ends of {topic}")
    return found


class Feeder:
    """Produces the story from a thread of its own, a little at a time and never further than it is allowed to."""

    def __init__(self, settings: Settings, story: Story) -> None:
        self._settings = settings
        self._entries = story.entries
        self._allowed = 0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def allow(self, share: Fraction) -> None:
        """Write on, up to this share of the whole story."""
        self._allowed = int(len(self._entries) * share)

    def _run(self) -> None:
        written = 0
        try:
            while written < len(self._entries) and not self._stop.wait(FEED_PAUSE_S):
                upto = min(written + FEED_ENTRIES, self._allowed)
                if upto > written:
                    produce(self._settings, self._entries[written:upto])
                    written = upto
        except BaseException as error:  # noqa: BLE001 - told to the test by ``join``
            self._error = error

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the story. Raises what producing raised."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the story was not written within {timeout_s:.0f} s"
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give up; for the end of a test that failed."""
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)


# --- comparing --------------------------------------------------------------------------------------------------------


def sent_again(settings: Settings, wanted: Outcome) -> int:
    """How many decisions, alerts and grades stand more than once in their topics, because of a crash."""
    found = sum(sum(ends(settings, topic, settings.partitions).values()) for topic in TOPICS)
    return found - len(wanted.decisions) - len(wanted.alerts) - len(wanted.grades)


def rejects_in(settings: Settings) -> Counter[tuple[str, str, str]]:
    """The rejects of the topic; one that was sent again after a crash names the same place, and counts once."""
    places: dict[tuple[int, int], tuple[str, str, str]] = {}
    with reading(settings, "kaohe.rejects") as reader:
        for found in reader.poll_to_end():
            assert found.value is not None
            one = REJECT_DECODER.decode(found.value)
            place, said = (one.partition, one.offset), (one.code, one.reason, one.raw)
            assert one.topic == EVENTS
            assert places.setdefault(place, said) == said, f"{place} was rejected for two reasons"
    return Counter(places.values())


def check_ledger(database_url: str, wanted: Outcome) -> None:
    """The ledger holds what the replay gives: all of it, nothing else, nothing twice, nothing contradicting."""
    with Ledger(database_url) as ledger:
        assert [(one.reason, one.entity, one.stored, one.offered) for one in ledger.conflicts()] == []
        assert ledger.rejected() == []
        current = {
            one.id: (one.kind, one.status, one.points, one.amount_minor, one.revision)
            for one in ledger.current_entries()
        }
        assert current == wanted.newest()
        decisions = [one for entry in _ids(wanted.decisions) for one in ledger.decisions(entry)]
        alerts = [one for entry in _ids(wanted.alerts) for one in ledger.alerts(entry)]
        grades = [one for entry in _ids(wanted.grades) for one in ledger.grades(entry)]
        counts = ledger.counts()
    assert {
        one.id: (one.score, one.grade) for one in grades if one.status == "final"
    } == wanted.final_grades()
    assert {(one.id, one.state) for one in alerts} == set(wanted.alerts)
    assert {(one.id, one.revision): one for one in decisions} == wanted.decisions
    assert {(one.id, one.state): one for one in alerts} == wanted.alerts
    assert {(one.id, one.revision): one for one in grades} == wanted.grades
    assert counts["ledger_entries"] == len(wanted.decisions)
    assert counts["alerts"] == len(wanted.alerts)
    assert counts["grades"] == len(wanted.grades)
    assert counts["current_entries"] == len(wanted.newest())


def _ids(keys: Any) -> list[str]:
    return sorted({key[0] for key in keys})


def wall_clock_seed() -> int:
    """The seed of a random test: ``KAOHE_TEST_SEED``, else another one each time. It is printed."""
    seed = int(os.environ.get("KAOHE_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"KAOHE_TEST_SEED={seed}")
    return seed
