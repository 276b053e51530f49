"""Worker processes for the contract tests, and what they leave in the topics."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition

from kaohe.core.records import Record
from kaohe.settings import Settings
from kaohe.stream.broker import end_process
from kaohe.stream.topics import EVENTS, client_config
from tests.support.fake_worker import CountingEngine, LatestEngine

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 30.0


class Found(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Child:
    """A process under test; what it says goes to a file under ``folder``."""

    def __init__(self, module: Sequence[str], own: Mapping[str, str], settings: Settings, folder: Path, name: str,
                 cwd: Path) -> None:  # fmt: skip
        self.log = folder / f"{name}.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("KAOHE_")}
        environ |= {
            "KAOHE_BROKER": settings.broker,
            "KAOHE_GROUP_ID": settings.group_id,
            "KAOHE_PARTITIONS": str(settings.partitions),
            "KAOHE_GROUP_PARTITIONS": str(settings.group_partitions),
            "KAOHE_CHECKPOINT_INTERVAL_S": str(settings.checkpoint_interval_s),
            **own,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """As an out-of-memory killer would: no warning, no clean-up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class WorkerProcess(Child):
    """One ``fake_worker`` process."""

    def __init__(self, settings: Settings, folder: Path, name: str) -> None:
        own = {
            "KAOHE_TEST_LOG": os.environ.get("KAOHE_TEST_LOG", "WARNING"),
            **{
                f"KAOHE_SECURITY_{field.upper()}": value
                for field in settings.security.__struct_fields__
                if (value := getattr(settings.security, field))
            },
            "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT)]),
        }
        super().__init__(["tests.support.fake_worker"], own, settings, folder, name, ROOT)

    def suspend(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """As a service manager would; the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def wait(self, timeout_s: float) -> int:
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def workers(folder: Path) -> Iterator[Callable[[Settings], WorkerProcess]]:
    """Starts workers, and ends those that are left."""
    started: list[WorkerProcess] = []

    def start(settings: Settings) -> WorkerProcess:
        worker = WorkerProcess(settings, folder, f"worker-{len(started) + 1}")
        started.append(worker)
        return worker

    try:
        yield start
    finally:
        for worker in started:
            with contextlib.suppress(ProcessLookupError):
                worker.resume()
            end_process(worker.process, 10.0)


def wait_until(done: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until ``done``; fail with ``what`` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


class Reader:
    """Reads a topic from its beginning, again and again as it grows."""

    def __init__(self, settings: Settings, topic: str, partitions: int) -> None:
        self.found: list[Found] = []
        self._consumer: Any = KafkaConsumer(
            enable_auto_commit=False, auto_offset_reset="earliest", **client_config(settings)
        )
        self._partitions = [TopicPartition(topic, p) for p in range(partitions)]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning()

    def poll(self) -> list[Found]:
        """Everything found so far, after one more look."""
        for fetched in self._consumer.poll(timeout_ms=200).values():
            self.found += [Found(r.partition, r.offset, r.key, r.value) for r in fetched]
        return self.found

    def poll_to_end(self, timeout_s: float = 20.0) -> list[Found]:
        """Everything up to the end as it is now. Only a fetch tells it: the embedded broker's answer to a request
        for the last offset is the start of the last batch."""
        ends: dict[TopicPartition, int] = {}

        def at_end() -> bool:
            self.poll()
            for tp in self._partitions:
                end = self._consumer.highwater(tp)
                if end is not None and tp not in ends:
                    ends[tp] = end
            return len(ends) == len(self._partitions) and all(
                self._consumer.position(tp) >= end for tp, end in ends.items()
            )

        wait_until(at_end, timeout_s, "the end of the topic")
        return self.found

    def close(self) -> None:
        self._consumer.close()


@contextlib.contextmanager
def reading(settings: Settings, topic: str, partitions: int | None = None) -> Iterator[Reader]:
    reader = Reader(settings, topic, partitions or settings.partitions)
    try:
        yield reader
    finally:
        reader.close()


class Expected(NamedTuple):
    """What one engine a partition makes of the whole log, computed without any stream."""

    decisions: dict[str, bytes]
    total: int


def expected(settings: Settings) -> Expected:
    """Read ``kaohe.events`` to its end and apply it in this process."""
    with reading(settings, EVENTS) as reader:
        events = reader.poll_to_end()
    engines = [CountingEngine(p) for p in range(settings.partitions)]
    groups = LatestEngine(0)
    decisions: dict[str, bytes] = {}
    for found in sorted(events):
        assert found.value is not None
        record = Record(found.offset, found.value, found.key, 0)
        for output in engines[found.partition].apply([record]):
            if output.topic == "decisions":
                decisions[json.loads(output.value)["id"]] = output.value
            else:
                groups.apply([Record(0, output.value, output.key, 0)])
    return Expected(decisions, sum(groups.totals.values()))


def check_decisions(found: list[Found], wanted: Expected) -> int:
    """Nothing missing, nothing invented, and what was sent twice is the same twice; how many were sent twice."""
    seen: dict[str, bytes] = {}
    doubled = 0
    for record in found:
        assert record.value is not None
        name = json.loads(record.value)["id"]
        doubled += name in seen
        assert seen.setdefault(name, record.value) == record.value, f"decision {name} came with two contents"
    assert seen == wanted.decisions
    return doubled


def with_group(settings: Settings, **changes: Any) -> Settings:
    """The same settings with some fields changed."""
    return msgspec.structs.replace(settings, **changes)
