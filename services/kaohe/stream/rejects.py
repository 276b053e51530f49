"""What the engines refused, read back from ``kaohe.rejects``: which event, why, and where it stood.

A record that was sent again after a crash names the same place and counts once. The bytes of a refused event are kept
with customers' values and long numbers masked; of them only type, id and subject are read here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec

from kaohe.decisions import REJECT_DECODER
from kaohe.settings import Settings
from kaohe.stream.activations import REJECTS, records_of
from kaohe.stream.topics import verify_topics


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One record that could not be used. ``type``, ``id``, ``subject`` and ``time`` are empty where it is no event.

    ``at_ms`` is when the refusal was written, by the broker's clock (Unix milliseconds).
    """

    at_ms: int
    code: str
    reason: str
    type: str
    id: str
    subject: str
    time: str
    topic: str
    partition: int
    offset: int


class _Head(msgspec.Struct):
    type: str = ""
    id: str = ""
    subject: str = ""
    time: str = ""


_HEADS = msgspec.json.Decoder(_Head)


def read_rejects(settings: Settings, on_progress: Callable[[int], None] | None = None) -> list[Refused]:
    """Every reject of the topic, in the order in which they were written. BrokerError when the broker is away."""
    verify_topics(settings)
    found: dict[tuple[str, int, int], Refused] = {}
    for number, record in enumerate(records_of(settings, REJECTS, range(settings.partitions)), start=1):
        if on_progress is not None and number % 10_000 == 0:
            on_progress(number)
        try:
            reject = REJECT_DECODER.decode(record.value or b"")
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        head = head_of(reject.raw)
        place = (reject.topic, reject.partition, reject.offset)
        found[place] = found.get(place) or Refused(
            at_ms=record.timestamp, code=reject.code, reason=reject.reason,
            type=head.type, id=head.id, subject=head.subject, time=head.time,
            topic=reject.topic, partition=reject.partition, offset=reject.offset,
        )  # fmt: skip
    return sorted(found.values(), key=lambda one: (one.at_ms, one.topic, one.partition, one.offset))


def head_of(raw: str) -> _Head:
    """What the bytes of a refused record (base64) say of themselves, as far as they are an event."""
    try:
        return _HEADS.decode(base64.b64decode(raw, validate=True))
    except (msgspec.ValidationError, msgspec.DecodeError, binascii.Error, UnicodeDecodeError, RecursionError):
        return _Head()
