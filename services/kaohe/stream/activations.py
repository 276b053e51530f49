"""Activations of rule packs in the log: which version was to judge since when, by whom and why; and writing one.

Theory of operation. An activation is an event in every partition, so the first partition alone holds all of them. It
is read from its beginning to its end as that is now; all but the few records that can be activations are passed over
undecoded. Which of them an engine refused stands in ``kaohe.rejects``, by partition and offset.

Writing sends the same bytes to every partition. A crash between two of them leaves an activation that only some
partitions know; the command says so, and writing it again is safe, because a version that judges already stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from kaohe.decisions import REJECT_DECODER
from kaohe.errors import BrokerError, EventError
from kaohe.events import Envelope, PackActivated, decode, encode, make
from kaohe.settings import Settings
from kaohe.stream.produce import Entry, produce
from kaohe.stream.topics import EVENTS, broker_away, client_config, verify_topics

SOURCE = "kaohe/rules"
SUBJECT = "packs"
REJECTS = "kaohe.rejects"
POLL_MS = 500
STALLED_S = 20.0
"""A broker that gives nothing for so long, although the end is not reached, is taken for away."""
_MARK = b"pack.activated"


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """One activation as it stands in the log. ``refused`` says why the engines did not follow it, if so."""

    at: datetime
    pack: str
    version: str
    by: str
    reason: str
    refused: str = ""


def activation_event(pack: str, version: str, by: str, reason: str, at: datetime) -> Envelope:
    """The event by which ``version`` of ``pack`` judges from now on."""
    assert by.strip()
    assert reason.strip()
    moment = at.astimezone(UTC)
    data = PackActivated(pack=pack, version=version, by=by, reason=reason)
    own_id = f"{pack}@{version}/{moment.isoformat(timespec='milliseconds')}"
    return make("pack.activated", id=own_id, source=SOURCE, subject=SUBJECT, time=moment, data=data)


def write_activation(settings: Settings, event: Envelope) -> int:
    """Write an activation into every partition; how many there are. BrokerError when one did not take it."""
    try:
        produce(settings, [Entry(encode(event), event.subject, everywhere=True)])
    except BrokerError as error:
        raise BrokerError(f"{error} The activation may be in some partitions only: give it again.") from None
    return settings.partitions


def activation_of(event: Envelope, refused: str = "") -> Activation:
    """What an event of this type says."""
    data = event.data
    assert isinstance(data, PackActivated)
    if not refused and not (data.by.strip() and data.reason.strip()):
        refused = "it names no approver or no reason"
    return Activation(
        at=event.time, pack=data.pack, version=data.version, by=data.by, reason=data.reason, refused=refused
    )


def newest_version(activations: Iterable[Activation], pack: str) -> str:
    """The version of a pack that was activated last; empty when none ever was."""
    found = ""
    for one in activations:
        if one.pack == pack and not one.refused:
            found = one.version
    return found


def read_activations(
    settings: Settings, on_progress: Callable[[int], None] | None = None
) -> list[Activation]:
    """Every activation in ``kaohe.events``, oldest first. BrokerError when the broker is away or gives nothing.

    ``on_progress`` is called with the number of records looked at, now and then.
    """
    verify_topics(settings)
    refused = _refusals(settings)
    found = []
    for number, record in enumerate(records_of(settings, EVENTS, [0]), start=1):
        if on_progress is not None and number % 10_000 == 0:
            on_progress(number)
        event = _activation_event(record.value)
        if event is not None:
            found.append(activation_of(event, refused.get(record.offset, "")))
    return found


def _activation_event(raw: bytes | None) -> Envelope | None:
    if raw is None or _MARK not in raw:
        return None
    try:
        event = decode(raw)
    except EventError:
        return None
    return event if isinstance(event.data, PackActivated) else None


def _refusals(settings: Settings) -> dict[int, str]:
    """Why records of the first partition of events were refused, by offset."""
    found: dict[int, str] = {}
    for record in records_of(settings, REJECTS, range(settings.partitions)):
        try:
            reject = REJECT_DECODER.decode(record.value or b"")
        except (msgspec.ValidationError, msgspec.DecodeError):
            continue
        if reject.topic == EVENTS and reject.partition == 0 and reject.code in ("unknown_pack", "unapproved"):
            found[reject.offset] = reject.reason
    return found


def records_of(settings: Settings, topic: str, partitions: Iterable[int]) -> Iterator[Any]:
    """The records of some partitions up to their end as it is now.

    Only a fetch tells the end: the embedded broker answers a question for it with the start of the last batch.
    """
    try:
        consumer = KafkaConsumer(
            enable_auto_commit=False, auto_offset_reset="earliest", **client_config(settings)
        )
    except (KafkaError, OSError) as exc:
        raise broker_away(settings, exc) from None
    places = [TopicPartition(topic, one) for one in partitions]
    ends: dict[TopicPartition, int] = {}
    last_s = time.monotonic()
    try:
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while len(ends) < len(places) or any(consumer.position(one) < ends[one] for one in places):
            fetched = consumer.poll(timeout_ms=POLL_MS)
            for one in places:
                end = consumer.highwater(one)
                if end is not None:
                    ends.setdefault(one, end)
            for records in fetched.values():
                yield from records
            if fetched:
                last_s = time.monotonic()
            elif time.monotonic() - last_s > STALLED_S:
                raise BrokerError(f"The broker at {settings.broker} gives nothing of {topic}; is it healthy?")
    except KafkaError as exc:
        raise BrokerError(f"{topic} cannot be read from {settings.broker}: {exc}.") from None
    finally:
        consumer.close()
