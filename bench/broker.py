"""The parts on Apache Kafka: the worker end to end, the naive Faust app, and the ceilings of the transport.

Theory of operation. A fresh single-node Apache Kafka is started, the topics are made, and the whole stream is
produced as ``kaohe produce --clock log`` does it: an event to the partition of its subject, a tick to every partition.
Only then does a reader start, alone, and reads from the beginning as fast as it can. The worker is the real command in
its own process; how far it has got is read from the offsets it commits, which it does only when state and outputs are
acknowledged. Its rate counts from the first commit seen to the last, when the group stage too has committed all that
was reported to it. So starting Python and joining the group are not in it, and the records of its first checkpoint are
not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from bench.measure import Result, process_cpu_s
from bench.stream import FETCH_RECORDS, ROOT, Line
from kaohe.events import DECODER
from kaohe.settings import Settings
from kaohe.stream.broker import end_process, free_port
from kaohe.stream.produce import Entry, produce
from kaohe.stream.topics import EVENTS, PARTIALS, create_topics

PARTITIONS = 4
POLL_S = 0.05
STUCK_S = 180.0
NAIVE_START_S = 120.0
"""The naive app first makes a changelog topic for each of its tables."""


@contextlib.contextmanager
def prepared(address: str, stream: list[Line]) -> Iterator[Settings]:
    """Topics made and the whole stream in ``kaohe.events``."""
    settings = Settings(broker=address, group_id="bench", partitions=PARTITIONS, group_partitions=PARTITIONS)
    create_topics(settings)
    produce(settings, (Entry(line.value, "" if line.is_tick else line.subject) for line in stream))
    yield settings


class Progress:
    """How many records of ``kaohe.events`` a group has committed, and whether any reports of them are left."""

    def __init__(self, settings: Settings) -> None:
        self._group = settings.group_id
        self._consumer = KafkaConsumer(bootstrap_servers=settings.broker)
        self._events, self._partials = (
            [TopicPartition(topic, number) for number in range(PARTITIONS)] for topic in (EVENTS, PARTIALS)
        )
        self.end = sum(self._consumer.end_offsets(self._events).values())
        self._admin: Any = KafkaAdminClient(bootstrap_servers=settings.broker)

    def committed(self) -> int:
        """Records below the committed offsets of all partitions together."""
        return sum(self._committed(self._events).values())

    def has_reports_left(self) -> bool:
        """Whether any partition of ``kaohe.partials`` has reports that are not committed."""
        committed = self._committed(self._partials)
        return any(
            committed.get(one, 0) < end for one, end in self._consumer.end_offsets(self._partials).items()
        )

    def _committed(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        try:
            offsets = self._admin.list_group_offsets({self._group: partitions})[self._group]
        except KafkaError as exc:
            if not exc.retriable:
                raise
            return {}  # the broker makes its topic of offsets only when the first group joins
        return {one: max(0, found.offset) for one, found in offsets.items()}

    def members(self) -> int:
        """How many members of the group have partitions, once it is settled; 0 while it is not."""
        described = self._admin.describe_groups([self._group])[self._group]
        if described["group_state"] != "Stable":
            return 0
        return sum(bool(member["member_assignment"]) for member in described["members"])

    def close(self) -> None:
        """Close the connections."""
        self._admin.close()
        self._consumer.close()


def worker(settings: Settings, events: int, processes: int = 1) -> Result:
    """The real worker, four partitions: from its first committed record to its last.

    Of several processes, which share the partitions, the time counts from when the group has all of them on.
    """
    progress = Progress(settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
        ending.callback(progress.close)
        logs = [Path(folder) / f"worker-{number}.log" for number in range(processes)]
        running = []
        for log in logs:
            process = _start(
                ["-c", "from kaohe.cli import main; main()", "worker"],
                {
                    "KAOHE_BROKER": settings.broker,
                    "KAOHE_GROUP_ID": settings.group_id,
                    "KAOHE_PARTITIONS": str(PARTITIONS),
                    "KAOHE_GROUP_PARTITIONS": str(PARTITIONS),
                    "KAOHE_METRICS_PORT": str(free_port()),
                },
                log,
            )
            ending.callback(end_process, process, 30.0)
            running.append(process)
        return _watch(running, progress, events, logs)


def _watch(
    processes: list[subprocess.Popen[bytes]], progress: Progress, events: int, logs: list[Path]
) -> Result:
    first: tuple[int, float, float] | None = None
    seen, moved_s = 0, time.monotonic()
    while True:
        records, now_s = progress.committed(), time.monotonic()
        if records > seen:
            seen, moved_s = records, now_s
            if first is None and (len(processes) == 1 or progress.members() == len(processes)):
                first = (records, now_s, _cpu_s(processes))
        if records >= progress.end and not progress.has_reports_left():
            moved_s = now_s
            break
        ended = any(process.poll() is not None for process in processes)
        if ended or now_s - moved_s > STUCK_S:
            said = "\n".join(log.read_text()[-3000:] for log in logs)
            raise SystemExit(f"the worker stands at {seen} of {progress.end} records:\n{said}")
        time.sleep(POLL_S)
    assert first is not None, "the stream is too short: it was read before the group had all members on"
    start_records, start_s, start_cpu_s = first
    assert start_records < progress.end, "the stream is too short: the first checkpoint held all of it"
    part = events * (progress.end - start_records) / progress.end
    wall_s, cpu_s = moved_s - start_s, _cpu_s(processes) - start_cpu_s
    details = {
        "records": progress.end,
        "records_before_first_commit": start_records,
        "records_per_s": round((progress.end - start_records) / wall_s),
        "partitions": PARTITIONS,
        "cpu_share": round(cpu_s / wall_s, 2),
    }
    name = "worker on Apache Kafka" if len(processes) == 1 else f"{len(processes)} workers on Apache Kafka"
    return Result(name, round(part), part / wall_s, part / cpu_s, 1, details)


def _cpu_s(processes: list[subprocess.Popen[bytes]]) -> float:
    return sum(process_cpu_s(process.pid) for process in processes)


def naive(settings: Settings, limit: int) -> Result:
    """What one writes first with Faust and durable-rules, on the first ``limit`` events of the same topic."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "naive.log"
        out = Path(folder) / "result.json"
        process = _start(
            ["-m", "bench.naive", settings.broker, str(PARTITIONS), str(limit), str(out), folder], {}, log
        )
        try:
            process.wait(NAIVE_START_S + limit / 100)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"the naive app does not end:\n{log.read_text()[-3000:]}") from None
        finally:
            end_process(process, 10.0)
        if not out.exists():
            raise SystemExit(f"the naive app ended without a result:\n{log.read_text()[-3000:]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    return Result(
        "naive Faust app", found["events"], found["events"] / found["wall_s"], found["events"] / found["cpu_s"], 1,
        {key: found[key] for key in ("tables", "updates_per_event", "rules")},
    )  # fmt: skip


def _start(arguments: list[str], environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KAOHE_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT / "services"), str(ROOT)])
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=log.parent, env=kept | environ,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def aiokafka_ceiling(settings: Settings, events: int) -> Result:
    """aiokafka, the client under Faust: ``getmany`` and decode, all records of the topic."""
    wall_s, cpu_s, records = asyncio.run(_read_with_aiokafka(settings))
    return Result(
        "aiokafka, read and decode", events, events / wall_s, events / cpu_s, 1, {"records": records}
    )


async def _read_with_aiokafka(settings: Settings) -> tuple[float, float, int]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.broker, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )  # fmt: skip
    await consumer.start()
    try:
        partitions = [AioPartition(EVENTS, number) for number in range(PARTITIONS)]
        ends = sum((await consumer.end_offsets(partitions)).values())
        consumer.assign(partitions)
        decode_one = DECODER.decode
        count = 0
        wall, cpu = time.perf_counter(), time.process_time()
        while count < ends:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=FETCH_RECORDS)
            for records in fetched.values():
                for record in records:
                    decode_one(record.value)
                count += len(records)
        return time.perf_counter() - wall, time.process_time() - cpu, count
    finally:
        await consumer.stop()


def librdkafka_ceiling(settings: Settings, events: int) -> Result:
    """librdkafka: ``consume`` and decode, all records of the topic. Its own threads share the processor time."""
    from confluent_kafka import Consumer  # noqa: PLC0415 - only the benchmark needs it
    from confluent_kafka import TopicPartition as RdPartition  # noqa: PLC0415 - as above

    consumer = Consumer(
        {
            "bootstrap.servers": settings.broker,
            "group.id": "bench-ceiling",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = [RdPartition(EVENTS, number, 0) for number in range(PARTITIONS)]
        ends = sum(consumer.get_watermark_offsets(one, timeout=10)[1] for one in partitions)
        consumer.assign(partitions)
        decode_one = DECODER.decode
        count = 0
        wall, cpu = time.perf_counter(), time.process_time()
        while count < ends:
            for message in consumer.consume(FETCH_RECORDS, 1.0):
                value = message.value()
                if value is not None and message.error() is None:
                    decode_one(value)
                    count += 1
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        consumer.close()
    return Result(
        "librdkafka, read and decode", events, events / wall_s, events / cpu_s, 1, {"records": count}
    )
