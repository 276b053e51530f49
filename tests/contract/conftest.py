"""The brokers of the contract suite: every test runs against the embedded one and against Apache Kafka.

The embedded broker starts in milliseconds, so each test gets one. Apache Kafka takes seconds: one serves the session,
and each test's topics are made anew. Each test has its own group.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from kaohe.settings import Settings
from kaohe.stream.topics import create_topics
from tests.support.kafka import running_embedded, running_kafka

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[str]:
    """The address of the session's Apache Kafka."""
    with running_kafka() as bootstrap:
        yield bootstrap


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker it is."""
    return str(request.param)


@pytest.fixture
def broker(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a running broker."""
    if kind == "kafka":
        yield request.getfixturevalue("kafka_broker")
        return
    with running_embedded() as bootstrap:
        yield bootstrap


@pytest.fixture
def settings(broker: str) -> Iterator[Settings]:
    """Settings for fresh, empty topics on the broker, and a group of the test's own."""
    with fresh_topics(broker) as fresh:
        yield fresh


@pytest.fixture
def kafka_settings(kafka_broker: str) -> Iterator[Settings]:
    """The same, on Apache Kafka alone: for what does not depend on the broker, or only Kafka does at all."""
    with fresh_topics(kafka_broker) as fresh:
        yield fresh


@contextlib.contextmanager
def fresh_topics(broker: str) -> Iterator[Settings]:
    """Topics made anew, and deleted afterwards."""
    settings = Settings(broker=broker, group_id=f"kaohe-test-{next(_numbers)}", checkpoint_interval_s=0.2)
    states = create_topics(settings)
    assert all(state.created for state in states), "a test before this one left its topics behind"
    yield settings
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        admin.delete_topics([state.name for state in states])
