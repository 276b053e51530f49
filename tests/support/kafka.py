"""Brokers for tests: the embedded one, and a real single-node Apache Kafka started from its Maven artifacts.

The jars are fetched once, by ``mvn dependency:copy-dependencies`` on ``kafka/pom.xml`` beside this file, into
``build/kafka-libs`` (outside git). Each broker then gets its own folder, two free loopback ports and a small heap.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaohe.errors import BrokerError
from kaohe.stream.broker import (
    EmbeddedBroker,
    end_process,
    find_tansu,
    free_port,
    wait_until_answering,
)

ROOT = Path(__file__).resolve().parents[2]
POM = Path(__file__).resolve().parent / "kafka" / "pom.xml"
LIBS = Path(os.environ.get("KAOHE_TEST_KAFKA_LIBS") or ROOT / "build" / "kafka-libs")

FETCH_TIMEOUT_S = 420
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

JVM_OPTIONS = [
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=1000
"""


def missing_tool() -> str:
    """Why Apache Kafka cannot be started here, or an empty string when it can."""
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17: no 'java' on the PATH"
    if not _fetched() and shutil.which("mvn") is None:
        return "Apache Kafka's jars are fetched with Maven: no 'mvn' on the PATH"
    return ""


def require_kafka() -> None:
    """Skip, saying why, when Apache Kafka cannot be started; fail instead where ``CI`` is set."""
    reason = missing_tool()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def require_embedded() -> None:
    """Skip, saying why, when the embedded broker is not installed; fail instead where ``CI`` is set."""
    try:
        find_tansu()
    except BrokerError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@contextlib.contextmanager
def running_embedded() -> Iterator[str]:
    """The embedded broker on a free port; yields its address."""
    require_embedded()
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@contextlib.contextmanager
def running_kafka() -> Iterator[str]:
    """A fresh single-node Apache Kafka (KRaft) on a free port; yields its address, and removes it all afterwards."""
    require_kafka()
    fetch_kafka()
    folder = Path(tempfile.mkdtemp(prefix="kaohe-kafka-"))
    try:
        port, controller_port = free_port(), free_port()
        properties = folder / "server.properties"
        properties.write_text(PROPERTIES.format(port=port, controller_port=controller_port, folder=folder))
        # The first bit is cleared because an id that begins with "-" would be taken for an option.
        random = uuid.uuid4().bytes
        cluster_id = base64.urlsafe_b64encode(bytes([random[0] & 0x7F]) + random[1:]).decode().rstrip("=")
        _java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties))
        with (folder / "broker.log").open("wb") as log:
            process = subprocess.Popen(
                ["java", *JVM_OPTIONS, "-cp", f"{LIBS}/*", "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LOG_DIR": str(folder / "logs")},
            )
        try:
            wait_until_answering(f"127.0.0.1:{port}", process, READY_TIMEOUT_S)
            yield f"127.0.0.1:{port}"
        except BrokerError as exc:
            tail = (folder / "broker.log").read_text(errors="replace")[-2000:]
            raise BrokerError(f"{exc} Its log ends with:\n{tail}") from None
        finally:
            end_process(process, STOP_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fetch_kafka() -> None:
    """Fetch the jars unless they are there. Several test processes may ask at once: one fetches, the others wait."""
    if _fetched():
        return
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    with (LIBS.parent / "kafka-libs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _fetched():
            return
        partial = Path(tempfile.mkdtemp(prefix="kafka-libs-", dir=LIBS.parent))
        try:
            subprocess.run(
                [
                    *("mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"),
                    *(f"-DoutputDirectory={partial}", "-DincludeScope=runtime"),
                ],
                check=True,
                stdin=subprocess.DEVNULL,
                timeout=FETCH_TIMEOUT_S,
            )
            shutil.rmtree(LIBS, ignore_errors=True)
            partial.rename(LIBS)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _fetched() -> bool:
    version = _kafka_version()
    return (LIBS / f"kafka_2.13-{version}.jar").is_file() and any(LIBS.glob("slf4j-simple-*.jar"))


def _kafka_version() -> str:
    text = POM.read_text(encoding="utf-8")
    return text.partition("<kafka.version>")[2].partition("</kafka.version>")[0]


def _java(*arguments: str) -> None:
    done = subprocess.run(
        ["java", *JVM_OPTIONS, "-cp", f"{LIBS}/*", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(f"{arguments[0]} failed: {done.stdout[-1000:]} {done.stderr[-1000:]}")
