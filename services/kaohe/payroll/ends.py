"""Where the partitions of a topic end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition

from kaohe.errors import BrokerError

POLL_MS = 200
GIVE_UP_S = 20.0


def places_of(consumer: Any, topic: str) -> list[TopicPartition]:
    """Every partition of a topic, in order; none when there is no such topic."""
    numbers = sorted(consumer.partitions_for_topic(topic) or ())
    assert numbers == list(range(len(numbers))), "a topic's partitions are numbered from 0"
    return [TopicPartition(topic, number) for number in numbers]


def ends_of(consumer: Any, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """The next offset of each partition. Only a fetch tells it: the embedded broker answers a question for the end with
    the start of the last batch. The consumer is assigned to ``places`` afterwards. BrokerError when nothing comes.
    """
    if not places:
        return {}
    consumer.assign(list(places))
    for place, end in consumer.end_offsets(list(places)).items():
        consumer.seek(place, max(0, end - 1))
    found: dict[TopicPartition, int] = {}
    until_s = time.monotonic() + GIVE_UP_S
    while len(found) < len(places):
        consumer.poll(timeout_ms=POLL_MS)
        for place in places:
            end = consumer.highwater(place)
            if end is not None:
                found[place] = max(end, found.get(place, 0))
        if len(found) < len(places) and time.monotonic() > until_s:
            raise BrokerError(f"The broker does not tell where {places[0].topic} ends; is it healthy?")
    return found
