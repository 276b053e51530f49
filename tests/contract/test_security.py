"""TLS and SASL reach every client: kafka-python, aiokafka and Faust."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from kaohe.errors import BrokerError
from kaohe.settings import KafkaSecurity, Settings
from kaohe.stream.produce import Entry, produce
from kaohe.stream.topics import create_topics, verify_topics
from tests.support.kafka import running_secured_kafka
from tests.support.workers import check_decisions, expected, reading, wait_until, workers

pytestmark = pytest.mark.kafka

START = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[str, KafkaSecurity]]:
    with running_secured_kafka() as address:
        yield address


def test_the_whole_way_of_an_event_through_a_protected_broker(
    secured: tuple[str, KafkaSecurity], tmp_path: Path
) -> None:
    settings = Settings(broker=secured[0], security=secured[1], checkpoint_interval_s=0.2)
    create_topics(settings)
    produce(settings, [Entry(b"x", f"a-{number % 9}", START) for number in range(300)])
    with workers(tmp_path) as start, reading(settings, "kaohe.decisions") as reader:
        worker = start(settings)

        def all_decided() -> bool:
            assert worker.running, worker.said()
            return len(reader.poll()) >= 300

        wait_until(all_decided, 60, "300 decisions")
        assert worker.stop() == 0
        check_decisions(reader.poll_to_end(), expected(settings))


def test_a_wrong_password_is_one_sentence(secured: tuple[str, KafkaSecurity]) -> None:
    wrong = msgspec.structs.replace(secured[1], password="guessed")
    with pytest.raises(BrokerError) as caught:
        verify_topics(Settings(broker=secured[0], security=wrong))
    assert secured[0] in str(caught.value)
    assert "guessed" not in str(caught.value)
