"""What the ledger takes in: the records of its topics, how they are read, and which revision of an entry counts.

Theory of operation: a record's bytes are decoded into the struct of its topic and then checked for what no database
could hold exactly (points that are not decimal text, integers beyond 64 bits, a NUL inside a text, keys too long for
an index). A record that fails is refused with a short code and a reason, and never reaches the ledger's tables, so
one bad record cannot stop the rest of its batch. What a shadow says (``kaohe.core.shadow``) is passed over.

Of ``kaohe.events`` pay looks at the roster, at statements of pay and at settlements alone. Most events are none of
these; their bytes are searched for three words and not decoded at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, Rounded
from typing import Any, TypeVar

import msgspec

from kaohe.core.pay import PayFact, fact_of
from kaohe.decisions import ALERT_DECODER, DECISION_DECODER, GRADE_DECODER, Alert, Decision, Grade
from kaohe.errors import EventError
from kaohe.events import PAY_EVENTS, PAYROLL_SUBJECT, Envelope, decode
from kaohe.privacy import mask, mask_text

Record = Decision | Alert | Grade
"""Anything the ledger keeps."""

DECISIONS_TOPIC = "kaohe.decisions"
ALERTS_TOPIC = "kaohe.alerts"
GRADES_TOPIC = "kaohe.grades"
EVENTS_TOPIC = "kaohe.events"
SETTLEMENTS_TOPIC = "kaohe.settlements"
TOPICS = (DECISIONS_TOPIC, ALERTS_TOPIC, GRADES_TOPIC)
"""What the engines decide."""
READ_TOPICS = (*TOPICS, EVENTS_TOPIC)
"""What the payroll consumer reads."""

_DECODERS: dict[
    str, msgspec.json.Decoder[Decision] | msgspec.json.Decoder[Alert] | msgspec.json.Decoder[Grade]
] = {
    DECISIONS_TOPIC: DECISION_DECODER,
    ALERTS_TOPIC: ALERT_DECODER,
    GRADES_TOPIC: GRADE_DECODER,
}

INTEGER_MAX = 2**63 - 1
KEY_CHARACTERS_MAX = 200
RAW_BYTES_MAX = 8_192
EVENT_BYTES_MAX = 262_144
_KEYS = ("id", "rule", "subject", "period")
_EXACT = re.compile(r"-?[0-9]{1,24}(\.[0-9]{1,24})?", re.ASCII)

_EXACTLY = Context(prec=100, traps=[Inexact, Rounded])
"""Sums 48-digit decimals without rounding, and raises rather than round."""


class Delivery(msgspec.Struct, frozen=True):
    """A record and where in the log it stood."""

    topic: str
    partition: int
    offset: int
    record: Record


class PayDelivery(msgspec.Struct, frozen=True):
    """An event of pay and where in the log it stood. ``key`` is its source and id: one event counts once.

    ``fact`` is what it says about a person's pay; None for a settlement event, which ``event`` holds.
    """

    topic: str
    partition: int
    offset: int
    key: str
    fact: PayFact | None
    event: Envelope


class Unreadable(msgspec.Struct, frozen=True):
    """A record that cannot be kept: a short code for counting, the reason, and its text with long numbers masked."""

    topic: str
    partition: int
    offset: int
    code: str
    reason: str
    raw: str


def kept_fields(record: type[Record]) -> tuple[str, ...]:
    """The fields of a record that the ledger has columns for: a shadow never gets there, so its mark needs none."""
    return tuple(field for field in record.__struct_fields__ if field != "shadow")


def read_record(
    topic: str, partition: int, offset: int, raw: bytes | None
) -> Delivery | PayDelivery | Unreadable | None:
    """Read one record of one of the topics; a bad one comes back as ``Unreadable``, nothing is raised.

    None for an event that is not about pay, and for what a shadow says, which is no entry, no alert and no grade.
    """
    try:
        if topic == EVENTS_TOPIC:
            return _read_event(partition, offset, raw)
        record = decode_record(topic, raw)
    except EventError as error:
        return Unreadable(topic, partition, offset, error.code, mask_text(error.reason), masked(raw or b""))
    return None if record.shadow else Delivery(topic, partition, offset, record)


_PAY_WORDS = (b"roster.changed", b"pay.stated", b"settlement.")


class _Tagged(msgspec.Struct):
    type: str = ""


_TAGS = msgspec.json.Decoder(_Tagged)


def _read_event(partition: int, offset: int, raw: bytes | None) -> PayDelivery | None:
    if raw is None or not any(word in raw for word in _PAY_WORDS):
        return None
    try:
        tag = _TAGS.decode(raw).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # not an event at all: the engines reject it
    if tag != "roster.changed" and tag not in PAY_EVENTS:
        return None
    event = decode(raw)
    key = msgspec.json.encode([event.source, event.id]).decode()
    data: Any = event.data
    if tag.startswith("settlement."):
        if event.subject != PAYROLL_SUBJECT:
            raise EventError("subject", f"$.subject of a settlement must be {PAYROLL_SUBJECT!r}")
        fact = None
    else:
        if not data.agent or data.agent != event.subject:
            raise EventError("agent_not_subject", "$.data.agent must equal $.subject")
        fact = fact_of(event, key)
    if b"\\u0000" in raw or len(raw) > EVENT_BYTES_MAX:
        raise EventError("unfit", f"the event holds a NUL character or more than {EVENT_BYTES_MAX} bytes")
    return PayDelivery(EVENTS_TOPIC, partition, offset, key, fact, event)


def decode_record(topic: str, raw: bytes | None) -> Record:
    """Decode and check a record of ``topic``. EventError with code ``malformed``, ``invalid`` or ``unfit``."""
    assert topic in _DECODERS, topic
    if raw is None:
        raise EventError("malformed", "the record has no value; a record of the ledger is never a tombstone")
    try:
        record: Record = _DECODERS[topic].decode(raw)
    except msgspec.ValidationError as error:
        raise EventError("invalid", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventError("malformed", f"not a JSON document: {error}") from None
    except RecursionError:
        raise EventError("malformed", "the JSON document is nested too deeply") from None
    reason = _unfit(record)
    if reason:
        raise EventError("unfit", reason)
    return record


def _unfit(record: Record) -> str:
    """Why no database could hold ``record`` exactly; empty when it is fit."""
    for field in record.__struct_fields__:
        value = getattr(record, field)
        if isinstance(value, str):
            if "\0" in value:
                return f"$.{field} holds a NUL character"
            if field in _KEYS and len(value) > KEY_CHARACTERS_MAX:
                return f"$.{field} is longer than {KEY_CHARACTERS_MAX} characters"
        elif isinstance(value, int) and abs(value) > INTEGER_MAX:
            return f"$.{field} is beyond 64 bits"
    if not record.id:
        return "$.id is empty"
    if not isinstance(record, Alert) and record.revision < 0:
        return "$.revision is negative"
    if isinstance(record, Decision) and not _EXACT.fullmatch(record.points):
        return "$.points is not a decimal number such as -4 or 0.5"
    return ""


def masked(raw: bytes) -> str:
    """The text of a record for people to look at, cut to a bound, with everything masked that may be a customer."""
    text = mask(raw[: RAW_BYTES_MAX * 2])[:RAW_BYTES_MAX].decode("utf-8", errors="backslashreplace")
    return text.replace("\0", "\\x00")


def exact_sum(points: Sequence[str]) -> Decimal:
    """The exact sum of decimal texts: ``0.1`` and ``0.2`` make ``0.3``. Raises rather than round."""
    total = Decimal(0)
    for text in points:
        total = _EXACTLY.add(total, Decimal(text))
    return total


_Revised = TypeVar("_Revised", Decision, Grade)


def current_revision(revisions: Sequence[_Revised]) -> _Revised:
    """The revision that counts among all of one id: the highest final one, else the highest provisional one."""
    assert revisions, "an entry has at least one revision"
    return max(revisions, key=lambda entry: (entry.status == "final", entry.revision))
