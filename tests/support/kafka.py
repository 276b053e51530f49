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
from kaohe.settings import KafkaSecurity
from kaohe.stream.broker import (
    EmbeddedBroker,
    end_process,
    find_tansu,
    free_port,
    wait_until_answering,
)
from kaohe.stream.topics import security_config

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
listeners={listener}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listener}://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name={listener}
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

SASL_PASSWORD = "only-for-tests"
SECURED_PROPERTIES = """\
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="kaohe" password="{password}" user_kaohe="{password}";
ssl.keystore.type=PKCS12
ssl.keystore.location={folder}/keys.p12
ssl.keystore.password={password}
ssl.key.password={password}
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
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
    with _scratch() as folder, _started(folder, "PLAINTEXT", "", KafkaSecurity()) as bootstrap:
        yield bootstrap


@contextlib.contextmanager
def running_secured_kafka() -> Iterator[tuple[str, KafkaSecurity]]:
    """The same behind TLS, with a certificate of its own, and SASL/PLAIN; yields how to speak to it."""
    require_kafka()
    with _scratch() as folder:
        _make_certificate(folder)
        security = KafkaSecurity("SASL_SSL", "PLAIN", "kaohe", SASL_PASSWORD, str(folder / "ca.pem"))
        more = SECURED_PROPERTIES.format(folder=folder, password=SASL_PASSWORD)
        with _started(folder, security.protocol, more, security) as bootstrap:
            yield bootstrap, security


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kaohe-kafka-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _started(folder: Path, listener: str, more: str, security: KafkaSecurity) -> Iterator[str]:
    fetch_kafka()
    port, controller_port = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(
        PROPERTIES.format(port=port, controller_port=controller_port, folder=folder, listener=listener) + more
    )
    # The first bit is cleared because an id that begins with "-" would be taken for an option.
    random = uuid.uuid4().bytes
    cluster_id = base64.urlsafe_b64encode(bytes([random[0] & 0x7F]) + random[1:]).decode().rstrip("=")
    _run(
        "java",
        *JVM_OPTIONS,
        "-cp",
        f"{LIBS}/*",
        "kafka.tools.StorageTool",
        "format",
        "-t",
        cluster_id,
        "-c",
        str(properties),
    )
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            ["java", *JVM_OPTIONS, "-cp", f"{LIBS}/*", "kafka.Kafka", str(properties)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LOG_DIR": str(folder / "logs")},
        )
    try:
        _wait(folder, f"127.0.0.1:{port}", process, security)
        yield f"127.0.0.1:{port}"
    finally:
        end_process(process, STOP_TIMEOUT_S)


def _wait(folder: Path, bootstrap: str, process: subprocess.Popen[bytes], security: KafkaSecurity) -> None:
    try:
        wait_until_answering(bootstrap, process, READY_TIMEOUT_S, **security_config(security))
    except BrokerError as exc:
        tail = (folder / "broker.log").read_text(errors="replace")[-2000:]
        raise BrokerError(f"{exc} Its log ends with:\n{tail}") from None


def _make_certificate(folder: Path) -> None:
    """A key pair for 127.0.0.1 in the broker's store, and its certificate for the clients."""
    store = ["-alias", "broker", "-keystore", str(folder / "keys.p12"), "-storepass", SASL_PASSWORD]
    names = ["-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"]
    _run("keytool", "-genkeypair", *store, *names, "-keyalg", "RSA", "-storetype", "PKCS12", "-validity", "2")
    _run("keytool", "-exportcert", "-rfc", *store, "-file", str(folder / "ca.pem"))


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


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise BrokerError(f"{command[0]} failed: {done.stdout[-1000:]} {done.stderr[-1000:]}")
