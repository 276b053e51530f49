"""Every topic of Kaohe, declared in one table, created and checked through kafka-python.

Theory of operation: ``topic_specs`` is the only place where a topic's partitions, retention and clean-up policy are
stated. Nothing creates topics on the side: ``kaohe topics create`` does it once, and a worker calls
``verify_topics`` before it joins its group, because a worker that starts on half a cluster would restore its state
from partitions that do not match its source. A checkpoint of partition *n* lives in partition *n* of its changelog,
so a changelog has exactly as many partitions as its source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from kaohe.errors import BrokerError
from kaohe.settings import KafkaSecurity, Settings

EVENTS = "kaohe.events"
PARTIALS = "kaohe.partials"
SETTLEMENTS = "kaohe.settlements"
OUTPUT_PREFIX = "kaohe."

DAY_MS = 24 * 60 * 60 * 1000
FOREVER_MS = -1
BOOTSTRAP_TIMEOUT_MS = 5_000
REQUEST_TIMEOUT_MS = 15_000
READY_TIMEOUT_MS = 20_000

# The largest single record of a changelog: one key of an engine's state. The producer allows the same.
STATE_RECORD_BYTES_MAX = 8 * 1024 * 1024
# Overwritten state stays readable for this long, which leaves the owner of a partition time to repair what a worker
# that lost the partition without noticing may still write (see checkpoints.py).
STATE_COMPACTION_LAG_MS = 10 * 60 * 1000


class TopicSpec(msgspec.Struct, frozen=True):
    """How one topic must be. ``retention_ms`` of -1 keeps everything; compaction keeps the newest of each key."""

    name: str
    sized_by: Literal["partitions", "group_partitions"]
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    purpose: str
    extra: dict[str, str] = {}

    def partitions(self, settings: Settings) -> int:
        """The number of partitions this topic must have under these settings."""
        count = settings.partitions if self.sized_by == "partitions" else settings.group_partitions
        assert count >= 1
        return count

    def config(self) -> dict[str, str]:
        """The topic's configuration as the broker wants it."""
        return {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention_ms), **self.extra}


class TopicState(msgspec.Struct, frozen=True):
    """What ``create_topics`` found or made."""

    name: str
    partitions: int
    created: bool


_CHANGELOG = {
    "min.compaction.lag.ms": str(STATE_COMPACTION_LAG_MS),
    "delete.retention.ms": str(DAY_MS),
    "min.cleanable.dirty.ratio": "0.3",
    "segment.bytes": str(64 * 1024 * 1024),
    "max.message.bytes": str(STATE_RECORD_BYTES_MAX + 1024 * 1024),
}


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """The whole table, sources first."""
    return (
        TopicSpec(
            EVENTS,
            "partitions",
            "delete",
            400 * DAY_MS,
            "what happened, by subject; ticks in every partition",
        ),
        # Not compacted: the group stage takes every partition's reports in their numbered order.
        TopicSpec(
            PARTIALS, "group_partitions", "delete", 14 * DAY_MS, "partial aggregates for groups, by partition"
        ),
        TopicSpec("kaohe.decisions", "partitions", "delete", FOREVER_MS, "the ledger's entries"),
        TopicSpec("kaohe.alerts", "partitions", "delete", 90 * DAY_MS, "alerts firing and resolved"),
        TopicSpec("kaohe.grades", "partitions", "delete", FOREVER_MS, "scores and grades"),
        TopicSpec(
            SETTLEMENTS,
            "partitions",
            "delete",
            FOREVER_MS,
            "approved settlements and the states of their batches",
        ),
        TopicSpec(
            "kaohe.rejects",
            "partitions",
            "delete",
            90 * DAY_MS,
            "input that could not be used, with its reason",
        ),
        TopicSpec(
            settings.state_topic,
            "partitions",
            "compact",
            FOREVER_MS,
            "checkpoints of the partition engines",
            _CHANGELOG,
        ),
        TopicSpec(
            settings.group_state_topic,
            "group_partitions",
            "compact",
            FOREVER_MS,
            "checkpoints of the group engines",
            _CHANGELOG,
        ),
    )


def client_config(settings: Settings) -> dict[str, Any]:
    """The connection part of any kafka-python client's configuration: addresses, TLS and SASL."""
    return {"bootstrap_servers": settings.bootstrap, **security_config(settings.security)}


def security_config(security: KafkaSecurity) -> dict[str, Any]:
    """TLS and SASL in the words of kafka-python."""
    config: dict[str, Any] = {"security_protocol": security.protocol}
    if security.uses_sasl:
        config["sasl_mechanism"] = security.sasl_mechanism
        config["sasl_plain_username"] = security.username
        config["sasl_plain_password"] = security.password
    if security.uses_tls:
        config["ssl_cafile"] = security.cafile or None
        config["ssl_certfile"] = security.certfile or None
        config["ssl_keyfile"] = security.keyfile or None
    return config


@contextlib.contextmanager
def admin_client(settings: Settings) -> Iterator[Any]:
    """A kafka-python admin client. Raises BrokerError when no broker answers within five seconds."""
    try:
        admin = KafkaAdminClient(
            client_id="kaohe-admin",
            bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **client_config(settings),
        )
    except (KafkaError, OSError) as exc:
        raise broker_away(settings, exc) from None
    try:
        yield admin
    except KafkaError as exc:
        raise BrokerError(f"The broker at {settings.broker} refused the request: {exc}.") from None
    finally:
        admin.close()


def broker_away(settings: Settings, exc: BaseException) -> BrokerError:
    """The one sentence for a broker that does not answer."""
    return BrokerError(
        f"No broker answers at {settings.broker} ({type(exc).__name__}); "
        "start one ('kaohe broker') or set KAOHE_BROKER."
    )


def create_topics(settings: Settings) -> list[TopicState]:
    """Create what is missing and say what exists. Safe to repeat.

    Raises BrokerError when the broker is away or refuses, or when a topic exists with another number of partitions
    than asked for: partitions are never added on the side, for that would move subjects between engines.
    """
    specs = topic_specs(settings)
    with admin_client(settings) as admin:
        before = _partition_counts(admin, specs)
        missing = {
            spec.name: {
                "num_partitions": spec.partitions(settings),
                "replication_factor": settings.replication,
                "configs": spec.config(),
            }
            for spec in specs
            if spec.name not in before
        }
        if missing:
            _create(admin, missing)
            admin.wait_for_topics(list(missing), timeout_ms=READY_TIMEOUT_MS)
        after = _partition_counts(admin, specs)
    states = [TopicState(spec.name, after.get(spec.name, 0), spec.name in missing) for spec in specs]
    _require(settings, specs, after)
    return states


def verify_topics(settings: Settings) -> dict[str, int]:
    """The partition count of every topic, when all is as it must be.

    Raises BrokerError, in one sentence, when the broker is away, a topic is missing, or a count disagrees with its
    source (a changelog) or with the settings (everything else).
    """
    specs = topic_specs(settings)
    with admin_client(settings) as admin:
        counts = _partition_counts(admin, specs)
    _require(settings, specs, counts)
    return counts


def _partition_counts(admin: Any, specs: Sequence[TopicSpec]) -> dict[str, int]:
    names = {spec.name for spec in specs}
    existing = names.intersection(admin.list_topics())
    if not existing:
        return {}
    described = admin.describe_topics(sorted(existing))
    return {topic["name"]: len(topic["partitions"]) for topic in described if topic["partitions"]}


def _create(admin: Any, missing: dict[str, Any]) -> None:
    """One request a topic, so that one of them made by somebody else meanwhile does not hide the others."""
    for name, options in missing.items():
        with contextlib.suppress(TopicAlreadyExistsError):
            admin.create_topics({name: options}, timeout_ms=REQUEST_TIMEOUT_MS)


def _require(settings: Settings, specs: Sequence[TopicSpec], counts: dict[str, int]) -> None:
    missing = [spec.name for spec in specs if spec.name not in counts]
    if missing:
        raise BrokerError(
            f"The broker at {settings.broker} lacks {_listed(missing)}; run 'kaohe topics create' first."
        )
    for source, changelog in ((EVENTS, settings.state_topic), (PARTIALS, settings.group_state_topic)):
        if counts[source] != counts[changelog]:
            raise BrokerError(
                f"{source} has {counts[source]} partitions but its changelog {changelog} has {counts[changelog]}; "
                "they must be equal, so create the changelog anew with the same number."
            )
    for spec in specs:
        wanted = spec.partitions(settings)
        if counts[spec.name] != wanted:
            raise BrokerError(
                f"{spec.name} has {counts[spec.name]} partitions but '{spec.sized_by}' is {wanted}; "
                f"set KAOHE_{spec.sized_by.upper()}={counts[spec.name]} or create the topics anew."
            )


def _listed(names: Sequence[str]) -> str:
    head = "the topic" if len(names) == 1 else "the topics"
    return f"{head} {', '.join(names)}"
