"""The payroll consumer from a real broker into SQLite: what is in the topics is in the ledger, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from kaohe.decisions import Decision
from kaohe.errors import BrokerError
from kaohe.payroll.consumer import Progress, run_payroll
from kaohe.payroll.ledger import Ledger, Written
from kaohe.payroll.records import ALERTS_TOPIC, DECISIONS_TOPIC, GRADES_TOPIC, TOPICS
from kaohe.settings import Settings
from kaohe.stream.topics import create_topics, security_config
from tests.support.ledger_entries import alert, decision, grade, wire

ROOT = Path(__file__).resolve().parents[2]
IDLE_S = 1.5
DEADLINE_S = 90.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")) as opened:
        yield opened


def entries(count: int, first: int = 0) -> list[Decision]:
    """Revisions of twenty entries of twenty agents."""
    return [
        decision(id=f"d-{n % 20:02d}", subject=f"a-{n % 20}", revision=n // 20, points=str(-n))
        for n in range(first, first + count)
    ]


def put(producer: KafkaProducer, topic: str, key: str, value: bytes | None) -> None:
    producer.send(topic, key=key.encode(), value=value)


def put_entries(producer: KafkaProducer, records: list[Decision]) -> None:
    for record in records:
        put(producer, DECISIONS_TOPIC, record.subject, wire(record))
    producer.flush()


def fill(settings: Settings, url: str) -> Progress:
    """Read until the topics are silent."""
    deadline_s = time.monotonic() + DEADLINE_S
    progress = run_payroll(
        settings.broker,
        security_config(settings.security),
        url,
        stop=lambda: time.monotonic() > deadline_s,
        until_idle_s=IDLE_S,
        group_id=f"{settings.group_id}-payroll",
        batch_records=50,
    )
    assert time.monotonic() <= deadline_s, "the consumer never came to rest"
    return progress


def test_what_is_in_the_topics_is_in_the_ledger_once(
    settings: Settings, producer: KafkaProducer, url: str
) -> None:
    records = entries(300)
    put_entries(producer, records)
    put_entries(producer, records[250:])
    put(producer, ALERTS_TOPIC, "sales", wire(alert()))
    put(producer, ALERTS_TOPIC, "sales", wire(alert(state="resolved")))
    put(producer, GRADES_TOPIC, "a-17", wire(grade()))
    put(producer, DECISIONS_TOPIC, "a-1", b"{broken")
    put(producer, DECISIONS_TOPIC, "a-2", None)
    producer.flush()

    progress = fill(settings, url)
    assert progress.written == Written(entries=300, alerts=2, grades=1, repeated=50, rejected=2)
    with Ledger(url) as ledger:
        current = {record.id: record for record in records}  # the last revision of each id
        assert ledger.current_entries() == [current[one] for one in sorted(current)]
        assert sum(at.next_offset for at in ledger.offsets().values()) == 355
        assert ledger.counts()["conflicts"] == 0

    put_entries(producer, entries(40, first=300))
    assert fill(settings, url).written == Written(entries=40), "only what is new is read"


def test_a_database_lost_is_filled_again_whatever_the_group_committed(
    settings: Settings, producer: KafkaProducer, url: str, tmp_path: Path
) -> None:
    put_entries(producer, entries(60))
    assert fill(settings, url).written == Written(entries=60)
    assert fill(settings, f"sqlite:///{tmp_path / 'other.db'}").written == Written(entries=60)


def test_topics_made_anew_are_read_from_their_beginning(
    settings: Settings, producer: KafkaProducer, url: str
) -> None:
    put_entries(producer, entries(60))
    assert fill(settings, url).written == Written(entries=60)
    producer.close()
    remake(settings)
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")) as fresh:
        put_entries(fresh, entries(80))
    assert fill(settings, url).written == Written(entries=20, repeated=60)


def remake(settings: Settings) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=settings.bootstrap)) as admin:
        admin.delete_topics(list(TOPICS))
    deadline_s = time.monotonic() + DEADLINE_S
    while True:  # a broker may take a moment to forget a topic
        try:
            create_topics(settings)
        except BrokerError:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        else:
            return


def test_missing_topics_are_named(broker: str, url: str) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        assert not set(TOPICS) & set(admin.list_topics())
    with pytest.raises(BrokerError, match=r"no topic kaohe\.decisions or .*; run 'kaohe topics create'"):
        run_payroll(broker, {}, url, stop=lambda: False)


def test_two_consumers_share_the_partitions_and_double_nothing(
    settings: Settings, producer: KafkaProducer, url: str
) -> None:
    put_entries(producer, entries(400))
    results: list[Progress] = []
    threads = [threading.Thread(target=lambda: results.append(fill(settings, url))) for _ in range(2)]
    for thread in threads:
        thread.start()
    put_entries(producer, entries(400, first=400))
    for thread in threads:
        thread.join(DEADLINE_S + 30)
    assert len(results) == 2
    fill(settings, url)
    with Ledger(url) as ledger:
        counts = ledger.counts()
    assert (counts["ledger_entries"], counts["current_entries"], counts["conflicts"]) == (800, 20, 0)


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def process(settings: Settings, url: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.payroll_process",
            settings.broker,
            url,
            f"{settings.group_id}-payroll",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT)])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait(DEADLINE_S)
        assert started.stdout is not None
        started.stdout.close()


def read_until(running: subprocess.Popen[str], records: int) -> None:
    """Return once the process has said that it kept at least ``records``."""
    assert running.stdout is not None
    for line in running.stdout:
        if int(line) >= records:
            return
    pytest.fail(f"the consumer ended with {running.wait()} before it kept {records} records")


def test_a_consumer_killed_at_any_moment_loses_and_doubles_nothing(
    settings: Settings, producer: KafkaProducer, url: str
) -> None:
    records = entries(600)
    put_entries(producer, records)
    for kept in (1, 100):
        with process(settings, url) as running:
            read_until(running, kept)
            running.send_signal(signal.SIGKILL)
    with Ledger(url) as ledger:
        before = ledger.counts()["ledger_entries"]
    assert before >= 100
    assert fill(settings, url).written == Written(entries=600 - before), "nothing is read twice"
    with Ledger(url) as ledger:
        counts = ledger.counts()
    assert (counts["ledger_entries"], counts["conflicts"], counts["rejected"]) == (600, 0, 0)


def test_sigterm_ends_the_consumer_cleanly(settings: Settings, producer: KafkaProducer, url: str) -> None:
    put_entries(producer, entries(60))
    with process(settings, url) as running:
        read_until(running, 60)
        running.send_signal(signal.SIGTERM)
        assert running.stdout is not None
        assert running.stdout.read() == "stopped after 60\n"
        assert running.wait(DEADLINE_S) == 0
    assert fill(settings, url).records == 0
