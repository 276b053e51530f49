"""Events: one pass of decoding, tolerance for other versions, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from kaohe import events
from kaohe.errors import EventError

OLD_LOG = Path(__file__).parents[1] / "data" / "old-log-v1.jsonl"
OLD_LOG_SHA256 = "0ea17d359cd9caa19367a827dd081fbfdf25c1c4b9c65de1bcd4cb77b8c4a08c"


def old_lines() -> list[bytes]:
    return OLD_LOG.read_bytes().splitlines()


def document(**changes: object) -> bytes:
    whole: dict[str, object] = {
        "specversion": "1.0",
        "id": "c-81-answered",
        "source": "acd",
        "type": "call.answered",
        "subject": "a-17",
        "time": "2026-08-03T09:00:12+08:00",
        "data": {"agent": "a-17", "queue": "sales", "call_id": "c-81", "wait_ms": 12000, "rings": 2},
    }
    whole.update(changes)
    return json.dumps(whole).encode()


def refusal(raw: bytes) -> str:
    with pytest.raises(EventError) as caught:
        events.decode(raw)
    return caught.value.code


def test_the_stored_old_log_is_the_one_that_was_stored() -> None:
    # A stored log must never be made to fit: whoever has to change this file is about to break other people's logs.
    assert sha256(OLD_LOG.read_bytes()).hexdigest() == OLD_LOG_SHA256


def test_every_line_of_the_old_log_still_decodes() -> None:
    tags: dict[str, int] = {}
    for raw in old_lines():
        event = events.decode(raw)
        assert events.type_of(event) == json.loads(raw)["type"]
        tags[events.type_of(event)] = tags.get(events.type_of(event), 0) + 1
    assert len(tags) == 55
    assert set(tags.values()) == {
        3
    }  # with every field, with the required ones alone, with unknown ones added


def test_every_field_of_the_old_log_keeps_its_name_and_value() -> None:
    for raw in old_lines():
        stored = json.loads(raw)
        if not stored["id"].endswith("-full"):
            continue
        event = events.decode(raw)
        for name, value in stored["data"].items():
            held = getattr(event.data, name)
            expected = datetime.fromisoformat(value) if isinstance(held, datetime) else value
            assert held == expected, (stored["type"], name)


def test_an_event_survives_being_written_and_read() -> None:
    for raw in old_lines():
        event = events.decode(raw)
        assert events.decode(events.encode(event)) == event


def test_unknown_members_are_dropped_and_do_no_harm() -> None:
    plain = events.decode(document())
    raw = json.loads(document())
    raw["traceparent"] = "00-1"
    raw["data"]["colour"] = "blue"
    assert events.decode(json.dumps(raw).encode()) == plain


def test_make_and_type_of_agree_for_every_type() -> None:
    assert list(events.PAYLOADS) == list(events.ENVELOPES)
    assert len(events.PAYLOADS) >= 55  # types are added, and never taken away
    data = events.CallAnswered(agent="a-17", call_id="c-81", wait_ms=3)
    made = events.make(
        "call.answered",
        id="e-1",
        source="acd",
        subject="a-17",
        time=datetime(2026, 8, 3, tzinfo=UTC),
        data=data,
    )
    assert events.type_of(made) == "call.answered"
    assert events.decode(events.encode(made)) == made


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe{}", "malformed"),
        (b'{"type":"clock.tick","id":"tick-\xff"}', "malformed"),
        (b"null", "invalid"),
        (b"[]", "invalid"),
        (document(type="call.answred"), "unknown_type"),
        (document(type=7), "invalid"),
        (document(id=""), "invalid"),
        (document(id="x" * 201), "invalid"),
        (document(subject=None), "invalid"),
        (document(time="2026-08-03T09:00:12"), "invalid"),  # no offset: nobody knows when that was
        (document(time="yesterday"), "invalid"),
        (document(specversion="0.3"), "invalid"),
        (document(data={}), "invalid"),
        (document(data={"call_id": "c-1", "wait_ms": -1}), "invalid"),
        (document(data={"call_id": "c-1", "wait_ms": 1.5}), "invalid"),
        (document(data={"call_id": "c-1", "wait_ms": 10**12}), "invalid"),
        (document(data={"call_id": "c-1", "customer": "13812345678"}), "clear_customer"),
        (document(data={"call_id": "c-1", "customer": "c-1381234"}), "clear_customer"),
        (document(data={"call_id": "c-1", "customer": "c-0F1E2D3C4B5A6978"}), "clear_customer"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_code(raw: bytes, code: str) -> None:
    assert refusal(raw) == code


def test_a_customer_may_be_unknown_or_a_pseudonym() -> None:
    for customer in ("", "c-0f1e2d3c4b5a6978", "c-" + "ab" * 32):
        event = events.decode(document(data={"call_id": "c-1", "customer": customer}))
        assert event.data.customer == customer
