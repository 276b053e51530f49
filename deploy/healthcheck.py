# ruff: noqa: INP001 - a script of the image, not a package
"""Asks a service of the deployment whether it does its work: ``healthcheck.py worker|clock|payroll``.

Theory of operation. A container that runs is not yet a service that works, so each is asked for its effect: the worker
answers a scrape with fresh figures; the clock's newest tick in *every* partition is young; payroll has written down
every record that is not brand-new. The exit code is 0 or 1, and one line says why. Each question has a time limit, and
nothing is changed by asking.
"""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from kaohe.errors import BrokerError, KaoheError
from kaohe.metric_names import SNAPSHOT_AGE
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.records import READ_TOPICS
from kaohe.settings import Settings, load_settings
from kaohe.stream.topics import EVENTS, admin_client, client_config

ANSWER_TIMEOUT_S = 5.0
FIGURES_AGE_MAX_S = 60.0
TICK_AGE_MAX_S = 30.0
UNREAD_AGE_MAX_S = 60.0
POLL_MS = 500


def main(arguments: list[str], environ_settings: Callable[[], Settings] = load_settings) -> int:
    """0 when the service named works, 1 with a line on standard error when it does not."""
    questions = {"worker": check_worker, "clock": check_clock, "payroll": check_payroll}
    if len(arguments) != 1 or arguments[0] not in questions:
        sys.stderr.write(f"give one of {', '.join(questions)}\n")
        return 1
    try:
        wrong = questions[arguments[0]](environ_settings())
    except (KaoheError, KafkaError, OSError) as exc:
        wrong = str(exc) or type(exc).__name__
    if wrong:
        sys.stderr.write(wrong + "\n")
    return 1 if wrong else 0


def check_worker(settings: Settings) -> str:
    """What is wrong with the worker; empty when it answers with fresh figures."""
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
        lines = answer.read().decode("utf-8").splitlines()
    ages = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(SNAPSHOT_AGE.name + " ")]
    if not ages:
        return f"the worker does not report {SNAPSHOT_AGE.name}"
    if ages[0] > FIGURES_AGE_MAX_S:
        return f"the worker's figures are {ages[0]:.0f} s old"
    return ""


def check_clock(settings: Settings) -> str:
    """What is wrong with the clock; empty when each partition has a young record (ticks come each second)."""
    with _consumer(settings) as consumer:
        partitions = _partitions(consumer, [EVENTS])
        ends = consumer.end_offsets(partitions)
        newest = {partition: end - 1 for partition, end in ends.items() if end > 0}
        ages_s = _ages_s(consumer, newest)
    old = [p.partition for p in partitions if ages_s.get(p, TICK_AGE_MAX_S + 1) > TICK_AGE_MAX_S]
    return f"no tick for {TICK_AGE_MAX_S:.0f} s in the partitions {old}" if old else ""


def check_payroll(settings: Settings) -> str:
    """What is wrong with payroll; empty when the ledger lacks no record that has been there for a while."""
    with Ledger(settings.database_url) as ledger:
        kept = {TopicPartition(*place): at.next_offset for place, at in ledger.offsets().items()}
    with _consumer(settings) as consumer:
        partitions = _partitions(consumer, sorted(READ_TOPICS))
        ends = consumer.end_offsets(partitions)
        first = consumer.beginning_offsets(partitions)
        unread = {
            p: max(kept.get(p, 0), first[p]) for p in partitions if max(kept.get(p, 0), first[p]) < ends[p]
        }
        ages_s = _ages_s(consumer, unread)
    late = sorted(f"{p.topic}[{p.partition}]" for p in unread if ages_s.get(p, 0.0) > UNREAD_AGE_MAX_S)
    return f"the ledger is more than {UNREAD_AGE_MAX_S:.0f} s behind {', '.join(late)}" if late else ""


@contextlib.contextmanager
def _consumer(settings: Settings) -> Iterator[Any]:
    """A consumer without a group: it takes no partition from anybody and commits nothing."""
    with admin_client(
        settings
    ):  # says in a sentence when the broker is away; a consumer would wait in silence
        pass
    consumer = KafkaConsumer(**client_config(settings), enable_auto_commit=False)
    try:
        yield consumer
    finally:
        consumer.close()


def _partitions(consumer: Any, topics: list[str]) -> list[Any]:
    found = [
        TopicPartition(topic, number)
        for topic in topics
        for number in consumer.partitions_for_topic(topic) or ()
    ]
    missing = set(topics) - {partition.topic for partition in found}
    if missing:
        raise BrokerError(f"the broker lacks {', '.join(sorted(missing))}")
    return found


def _ages_s(consumer: Any, offsets: dict[Any, int]) -> dict[Any, float]:
    """How old the record at each offset is, in seconds; what does not come in time is left out."""
    consumer.assign(list(offsets))
    for partition, offset in offsets.items():
        consumer.seek(partition, offset)
    ages_s: dict[Any, float] = {}
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while len(ages_s) < len(offsets) and time.monotonic() < deadline_s:
        for partition, records in consumer.poll(timeout_ms=POLL_MS).items():
            ages_s.setdefault(partition, time.time() - records[0].timestamp / 1000)
    return ages_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
