"""The engine of a partition: what it admits, what it refuses, what it remembers, and the time that people spend."""

from __future__ import annotations

import base64
import json
import random
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaohe.core import engine as module
from kaohe.core import group
from kaohe.core import seen as seen_module
from kaohe.core.calendars import EPOCH
from kaohe.core.engine import PartitionEngine, Report, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.intake import MAX_SHIFT_MS
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.subjects import MAX_STATES
from kaohe.decisions import REJECT_DECODER, Reject
from kaohe.errors import EventError
from kaohe.events import ClockTick, decode, encode, is_pseudonym, make
from kaohe.privacy import pseudonym
from tests.support.packs import Story, at, at_ms, make_pack, moment

METRICS = """
answered:
  count: call.answered
  level: [agent, queue, team, site]
  windows: [day, month, rolling 15m]
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent, queue]
  windows: [month, rolling 1h]
customers:
  distinct: {field: customer, of: call.answered}
  level: [site]
  windows: [month]
longest:
  max: {field: wait_ms, of: call.answered}
  level: [agent, site]
  windows: [month]
ready_time:
  sum: {state: ready}
  level: [agent, team]
  windows: [day, month]
logged_time:
  sum: {state: logged_in}
  level: [agent, team]
  windows: [day, month]
waiting:
  stock: {up: call.offered, down: [call.answered, call.abandoned]}
  level: [queue]
  windows: [now]
errors:
  count: error.recorded
  level: [agent]
  windows: [month]
"""
RULES = """
- id: error
  level: [agent]
  on: error.recorded
  incident: error_id
  when: "true"
  then:
    - deduct: {points: 1}
- id: slow-hour
  level: [agent]
  on: error.recorded
  when: wait.rolling_1h > 30
  then:
    - deduct: {points: 10 / 3}
- id: slow
  level: [queue]
  watch: live
  when: wait.rolling_1h > 60
  then:
    - alert: {clear: wait.rolling_1h <= 60, severity: high, owner: team_leader, response: {en: Help., zh: 支援。}}
"""
SHANGHAI_ZONES = Zones(default="Asia/Shanghai")
NOON = at_ms("2026-08-03T12:00")
CUSTOMER = pseudonym("13800138000", b"k" * 16)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("pack"), metrics=METRICS, rules=RULES)


@pytest.fixture
def engine(pack: Pack) -> PartitionEngine:
    made = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    made.tick(NOON)
    return made


def document(**changes: Any) -> dict[str, Any]:
    """An answered call at noon as a CloudEvents document, with changes; ``data_*`` change the data."""
    data = {"agent": "a-1", "queue": "q-1", "call_id": "c-1", "wait_ms": 1000}
    data |= {key[5:]: value for key, value in changes.items() if key.startswith("data_")}
    found = {
        "specversion": "1.0", "id": "e-1", "source": "test", "type": "call.answered", "subject": "a-1",
        "time": "2026-08-03T12:00:00+08:00", "data": data,
    }  # fmt: skip
    return found | {key: value for key, value in changes.items() if not key.startswith("data_")}


def activation(**data: str) -> dict[str, Any]:
    """An activation, approved and with a reason unless ``data`` says otherwise."""
    whole = {"pack": "small", "version": "1.0", "by": "hr-1", "reason": "A new year."} | data
    return document(type="pack.activated", subject="p", data=whole)


def apply(engine: PartitionEngine, *raws: bytes | dict[str, Any]) -> list[Output]:
    values = [raw if isinstance(raw, bytes) else json.dumps(raw).encode() for raw in raws]
    return engine.apply([Record(offset, value, None, 0) for offset, value in enumerate(values)])


def rejects(out: list[Output]) -> list[Reject]:
    return [REJECT_DECODER.decode(one.value) for one in out if one.topic == "rejects"]


def total(engine: PartitionEngine, metric: str = "answered", subject: str = "a-1") -> float:
    found = {one.subject: one.numerator for one in engine.counter_values(["agent"]) if one.metric == metric}
    return found.get(subject, 0)


def settled(engine: PartitionEngine, until: str = "2026-08-03T12:30") -> float:
    engine.tick(at_ms(until))
    return total(engine)


# --- what is refused --------------------------------------------------------------------------------------------------

DEEP = b'{"data":' * 5000
BAD: list[tuple[str, bytes | dict[str, Any]]] = [
    ("malformed", b""),
    ("malformed", b"{"),
    ("malformed", b"\xff\xfe"),
    ("malformed", b'{"type":"clock.tick","id":"tick-\xff"}'),
    ("malformed", b"not json"),
    ("malformed", DEEP),
    ("invalid", b"[]"),
    ("invalid", b"null"),
    ("unknown_type", document(type="call.vanished")),
    ("invalid", document(type=None)),
    ("invalid", document(id="")),
    ("invalid", document(id="x" * 201)),
    ("invalid", document(specversion="0.3")),
    ("invalid", document(time="2026-08-03T12:00:00")),
    ("invalid", document(time="yesterday")),
    ("invalid", document(data_wait_ms=-1)),
    ("invalid", document(data_wait_ms=1.5)),
    ("invalid", document(data_wait_ms=10**30)),
    ("invalid", document(data_call_id="")),
    ("invalid", document(data=None)),
    ("agent_not_subject", document(subject="a-2")),
    ("agent_not_subject", document(subject="q-1")),
    ("invalid", document(subject="a\x1f1", data_agent="a\x1f1")),
    ("invalid", document(data_queue="q\x1f1")),
    ("invalid", document(data_team="t\x1f1")),
    ("invalid", document(data_site="s\x1f1")),
    ("clear_customer", document(data_customer="13800138000")),
    ("clear_customer", document(data_customer="c-13800138000")),
    ("clear_customer", document(data_customer="c-zhangsan_13800138000")),
    ("clear_customer", document(data_customer="c-" + "A" * 32)),
    ("invalid", document(data_customer="c-" + "a" * 65)),
    ("future", document(time="2026-08-03T12:00:05.001+08:00")),
    ("future", document(time="9999-12-31T23:59:59.999999-12:00")),
    ("too_late", document(time="2026-06-24T11:59:59+08:00")),
    ("too_late", document(time="0001-01-01T00:00:00+14:00")),
    ("invalid", document(type="clock.tick", data={}, time="9999-12-31T23:59:59Z")),
    ("invalid", document(type="agent.ready", subject="q-1", data={"queue": "q-1"})),
    ("invalid", document(type="roster.changed", subject="q-1", data={"queue": "q-1"})),
    ("unknown_pack", activation(version="9")),
    ("unapproved", activation(by="")),
    ("unapproved", activation(by=" \t")),
    ("unapproved", activation(reason="")),
    ("unapproved", activation(reason="\u3000")),
]


@pytest.mark.parametrize(("code", "raw"), BAD)
def test_what_cannot_be_used_is_refused_with_its_bytes_and_the_rest_goes_on(
    engine: PartitionEngine, code: str, raw: bytes | dict[str, Any]
) -> None:
    out = apply(engine, document(id="first"), raw, document(id="last"))
    (refused,) = rejects(out)
    assert (refused.code, refused.offset, refused.topic) == (code, 1, "kaohe.events")
    assert refused.reason
    assert engine.stats.rejects == {code: 1}
    assert settled(engine) == 2


def test_a_refused_event_is_not_counted_and_may_come_again_mended(engine: PartitionEngine) -> None:
    for _, raw in BAD:
        apply(engine, raw)
    assert len(engine.seen) == 0
    assert sum(engine.stats.rejects.values()) == len(BAD)
    apply(engine, document())
    assert settled(engine) == 1


def test_a_reject_shows_no_customer(engine: PartitionEngine) -> None:
    (refused,) = rejects(apply(engine, document(data_customer="13800138000")))
    assert b"13800138000" not in base64.b64decode(refused.raw)
    assert b'"call.answered"' in base64.b64decode(refused.raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_stop_the_engine(engine: PartitionEngine, raw: bytes) -> None:
    out = apply(engine, raw)
    assert len(rejects(out)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(
        ["id", "source", "subject", "time", "type", "data", "data_agent", "data_wait_ms", "data_customer"]
    ),
    JSON,
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_in_any_place_stops_the_engine(engine: PartitionEngine, key: str, value: Any) -> None:
    apply(engine, document(**{key: value}))
    engine.tick((engine.now_ms or 0) + 1000)


@pytest.mark.parametrize(
    "when", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_before_the_first_tick_impossible_times_are_refused_too(pack: Pack, when: str) -> None:
    fresh = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    assert [one.code for one in rejects(apply(fresh, document(time=when)))] == ["invalid"]
    fresh.tick(NOON)
    assert settled(fresh) == 0


def test_pseudonyms_have_hexadecimal_digits() -> None:
    assert is_pseudonym(CUSTOMER)
    assert is_pseudonym("c-" + "0123456789abcdef")
    for word in ("", "c-", "c-" + "a" * 15, "c-" + "a" * 65, "c-" + "g" * 32, "c-" + "A" * 32, "d-" + "a" * 32,
                 "c-" + "a" * 31 + "_", "c-" + "a" * 31 + "é", "c-" + " " * 32):  # fmt: skip
        assert not is_pseudonym(word), word


# --- time -------------------------------------------------------------------------------------------------------------


def test_an_event_from_the_future_does_not_drag_the_clock_and_its_edge_is_five_seconds(
    engine: PartitionEngine,
) -> None:
    out = apply(
        engine,
        document(id="1", time="2026-08-03T12:00:05+08:00"),
        document(id="2", time="2026-08-03T13:00:00+08:00"),
    )
    assert [one.code for one in rejects(out)] == ["future"]
    assert engine.watermark_ms == NOON
    assert settled(engine) == 1


def test_ticks_only_move_forward(engine: PartitionEngine) -> None:
    engine.tick(NOON - 1)
    engine.tick(NOON)
    assert engine.watermark_ms == NOON
    assert engine.judge.take_outputs() == []
    engine.tick(NOON + 1)
    assert engine.watermark_ms == NOON + 1


def test_late_and_swapped_events_count_where_they_belong(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "roster.changed", team="t-1")
    story.tick("2026-09-02T00:00")
    for when in ("2026-08-31T23:59:59", "2026-08-30T10:00:00", "2026-09-01T00:00:00", "2026-08-31T00:00:00"):
        story.late(when, "call.answered", call_id="c", queue="q-1")
    for agent_level in (("a-1", "agent"), ("t-1", "team"), ("q-1", "queue"), ("all", "site")):
        assert story.figure("answered", "month", "2026-08", *agent_level) == 3
        assert story.figure("answered", "month", "2026-09", *agent_level) == 1
        assert story.figure("answered", "day", "2026-08-31", *agent_level) == 2
    story.tick("2026-09-02T01:00")
    assert story.figure("answered", "month", "2026-08", "q-1", "queue") == 3
    assert story.replay.engines[0].stats.late == 4


def test_a_day_of_clock_change_has_its_own_length(pack: Pack) -> None:
    story = Story(pack, zones=Zones(default="Europe/Berlin"))
    for minute in (
        "2026-10-24T21:59:59",
        "2026-10-24T22:00:00",
        "2026-10-25T22:59:59",
        "2026-10-25T23:00:00",
    ):
        utc_ms = at_ms(minute.replace("T", "T")) + 8 * 3_600_000
        story.replay.tick(utc_ms)
        story.replay.feed(msgspec.structs.replace(
            story.event(minute, "call.answered", call_id="c", queue="q-1"), time=moment(utc_ms),
        ))  # fmt: skip
    story.replay.tick(utc_ms + 600_000)
    days = {day: story.figure("answered", "day", day) for day in ("2026-10-24", "2026-10-25", "2026-10-26")}
    assert days == {"2026-10-24": 1, "2026-10-25": 2, "2026-10-26": 1}


EVENTS = st.lists(
    st.tuples(st.integers(0, 3 * 86_400 - 1), st.sampled_from(["a-1", "a-2"]), st.integers(0, 90_000), st.booleans()),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_of_independent_events_changes_no_figure_and_no_charge(
    pack: Pack, events: list[tuple[int, str, int, bool]], rng: random.Random
) -> None:
    """Events over the end of a month, told straight, mixed after the fact, and over three partitions."""
    found = []
    order = list(range(len(events)))
    for partitions in (1, 1, 3):
        story = Story(pack, partitions=partitions)
        story.tick("2026-07-30T00:00")
        story.tick("2026-08-02T00:00")
        for index in order:
            second, agent, wait_ms, is_error = events[index]
            time_ms = at_ms("2026-07-30T00:00") + second * 1000
            tag = "error.recorded" if is_error else "call.answered"
            fields = {"error_id": f"x-{index}"} if is_error else {
                "call_id": f"c-{index}", "queue": "q-1", "wait_ms": wait_ms,
                "customer": pseudonym(str(wait_ms % 7), b"k" * 16),
            }  # fmt: skip
            event = story.event("2026-07-30T00:00", tag, agent, id=f"e-{index}", **fields)
            story.replay.feed(msgspec.structs.replace(event, time=moment(time_ms)))
        assert story.rejects() == []
        story.tick("2026-08-10T00:00")
        found.append((story.replay.metrics(), story.decisions()))
        rng.shuffle(order)
    assert found[0] == found[1] == found[2]
    errors = sum(is_error for *_, is_error in events)
    assert len(found[0][1]) == errors
    assert sum(Fraction(points) for _, _, points, _ in found[0][1]) == -errors


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_the_same_source_and_id_count_once(engine: PartitionEngine) -> None:
    out = apply(
        engine, document(), document(), document(source="other"), document(id="e-2"), document(data_wait_ms=5)
    )
    assert rejects(out) == []
    assert engine.stats.duplicates == 2
    assert settled(engine) == 3


def test_ids_are_remembered_over_a_restart(pack: Pack, engine: PartitionEngine) -> None:
    apply(engine, document())
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    apply(engine, document(id="e-2"))
    stored |= {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    successor = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    successor.restore(stored)
    apply(successor, document(), document(id="e-2"), document(id="e-3"))
    assert successor.stats.duplicates == 2
    assert settled(successor) == 3


def test_ids_from_before_the_first_tick_are_remembered(pack: Pack) -> None:
    fresh = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    apply(fresh, document())
    stored = {key: raw for key, raw in fresh.checkpoint().items() if raw is not None}
    fresh.tick(NOON)
    for key, raw in fresh.checkpoint().items():
        if raw is None:
            stored.pop(key, None)
        else:
            stored[key] = raw
    apply(fresh, document())
    assert fresh.stats.duplicates == 1
    successor = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    successor.restore(stored)
    apply(successor, document())
    assert successor.stats.duplicates == 1


def test_ids_are_forgotten_after_an_hour_and_what_was_stored_of_them_goes(engine: PartitionEngine) -> None:
    stored: dict[str, bytes] = {}
    for minute in range(200):
        engine.tick(NOON + minute * 60_000)
        apply(engine, document(id=f"e-{minute}", time=moment(NOON + minute * 60_000).isoformat()))
        for key, raw in engine.checkpoint().items():
            if raw is None:
                stored.pop(key, None)
            else:
                stored[key] = raw
    assert len(engine.seen) == 60
    assert len([key for key in stored if key.startswith("u\x1f")]) == 60
    assert ("test", "e-199") in engine.seen
    assert ("test", "e-139") not in engine.seen


def test_the_memory_of_ids_is_bounded_within_a_minute_too(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_module, "MAX_SEEN", 100)
    monkeypatch.setattr(seen_module, "SEEN_PART_IDS", 10)
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    for second in range(55):
        engine.tick(NOON + second * 1000)
        apply(engine, *[document(id=f"e-{second}-{n}") for n in range(10)])
        assert len(engine.seen) <= 110
    engine.tick(NOON + 55_000)
    apply(engine, document(id="e-54-3"), document(id="e-46-3"))
    assert engine.stats.duplicates == 2, "the newest hundred are remembered"
    apply(engine, document(id="e-0-0"))
    assert engine.stats.duplicates == 2
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    successor = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    successor.restore(stored)
    ids = [f"e-{second}-{n}" for second in range(55) for n in range(10)]
    remembered = [one for one in ids if ("test", one) in engine.seen]
    assert len(remembered) == len(engine.seen)
    assert [one for one in ids if ("test", one) in successor.seen] == remembered
    assert (successor.seen.part, successor.checkpoint()) == (engine.seen.part, {})
    for one in (engine, successor):
        one.tick(NOON + 56_000)
        one.tick(NOON + 120 * 60_000)
    assert len(engine.seen) == len(successor.seen) == 0


@pytest.mark.parametrize("seed", range(4))
def test_what_came_in_the_last_hour_is_remembered_and_nothing_else(
    pack: Pack, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = (1_000_000, 200)[seed % 2]
    monkeypatch.setattr(seen_module, "MAX_SEEN", most)
    rng, minute, duplicates = random.Random(seed), 0, 0
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    parts: dict[int, set[tuple[str, str]]] = {}
    stored: dict[str, bytes | None] = {}
    for _ in range(250):
        minute += rng.choice((1, 1, 1, 1, 1, 1, 3, 30 if rng.random() < 0.3 else 1))
        engine.tick(NOON + minute * 60_000)
        parts[minute] = set()
        while min(parts) <= minute - 60 or sum(map(len, parts.values())) > most:
            del parts[min(parts)]
        for _ in range(rng.randrange(12)):
            key = (rng.choice(("one", "two")), f"e-{rng.randrange(400)}")
            duplicates += any(key in part for part in parts.values())
            if not any(key in part for part in parts.values()):
                parts[minute].add(key)
            at = moment(NOON + minute * 60_000).isoformat()
            apply(engine, document(id=key[1], source=key[0], time=at))
        assert engine.stats.duplicates == duplicates
        assert len(engine.seen) == sum(map(len, parts.values()))
        assert all(key in engine.seen for part in parts.values() for key in part)
        if rng.random() < 0.1:
            stored |= engine.checkpoint()
            engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
            engine.restore({key: raw for key, raw in stored.items() if raw is not None})
            duplicates = 0


def test_a_tick_that_is_read_without_decoding_is_the_one_that_would_be_decoded(pack: Pack) -> None:
    rng, straight, plain = (
        random.Random(3),
        *(PartitionEngine([pack], zones=SHANGHAI_ZONES) for _ in range(2)),
    )
    refused = now_ms = 0
    for number in range(3_000):
        now_ms += rng.choice((1000, 1000, 1000, 17_000, 250, 60_000))
        at_moment = EPOCH + timedelta(milliseconds=NOON + now_ms)
        event = make(
            "clock.tick", id=f"tick-{(NOON + now_ms) // 1000}", source="kaohe.clock", subject="clock",
            time=at_moment, data=ClockTick(),
        )  # fmt: skip
        raw = bytearray(encode(event))
        if number % 3 == 0:  # something else in its place, often where the digits are
            raw[rng.randrange(len(raw)) if rng.random() < 0.5 else raw.index(b"Z") - rng.randrange(8)] = (
                rng.choice(b'0123456789:-Z"x \x00\xff')
            )
        straight.apply([Record(number, bytes(raw), None, 0)])
        try:
            plain.take(decode(bytes(raw)))
        except EventError:
            refused += 1
        assert straight.now_ms == plain.now_ms
        assert sum(straight.stats.rejects.values()) == refused
    assert refused > 300


# --- states of work ---------------------------------------------------------------------------------------------------


def worked(story: Story, day: str = "2026-08-03", metric: str = "ready_time") -> int:
    found = story.figure(metric, "day", day)
    return 0 if found is None else int(found)


def test_time_in_states_is_counted_to_the_millisecond(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "agent.logged_in", team="t-1")
    story.tell("2026-08-03T08:10:00.500", "agent.ready")
    story.tick("2026-08-03T08:42")
    assert worked(story) == 30 * 60_000 - 500, "it is counted at the boundaries of five minutes"
    story.tell("2026-08-03T09:00:00", "agent.not_ready", reason="break")
    story.tell("2026-08-03T09:15:00", "agent.ready")
    story.tell("2026-08-03T09:30:00", "agent.logged_out")
    story.tick("2026-08-03T12:00")
    assert worked(story) == 50 * 60_000 - 500 + 15 * 60_000
    assert worked(story, metric="logged_time") == 90 * 60_000


def test_nothing_of_the_agents_own_is_opened_where_only_teams_count_states(
    pack: Pack, tmp_path: Path
) -> None:
    metrics = "ready_time:\n  sum: {state: ready}\n  level: [team]\n  windows: [month]\n"
    for one, least, most in ((pack, 8, 11), (make_pack(tmp_path, metrics=metrics), 0, 2)):
        story = Story(one)
        story.tell("2026-08-03T08:00:00", "roster.changed", team="t-1")
        story.tell("2026-08-03T08:00:00", "agent.ready")
        story.tick("2026-08-03T08:42")
        (agent,) = story.replay.engines[0].agents.values()
        assert least <= agent.series.changes <= most, "each cell that was opened is folded at its boundary"
        assert story.figure("ready_time", "month", "2026-08", "t-1", "team") == 40 * 60_000


def test_time_is_cut_at_midnight_and_goes_to_the_team_of_that_time(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "roster.changed", team="t-1")
    story.tell("2026-08-03T23:00:00", "agent.ready")
    story.tell("2026-08-04T00:00:00", "roster.changed", team="t-2")
    story.tell("2026-08-04T02:00:00", "agent.logged_out")
    story.tick("2026-08-04T03:00")
    assert (worked(story), worked(story, "2026-08-04")) == (3_600_000, 7_200_000)
    teams = {team: story.figure("ready_time", "month", "2026-08", team, "team") for team in ("t-1", "t-2")}
    assert teams == {"t-1": 3_600_000, "t-2": 7_200_000}


def test_a_state_that_is_reported_late_corrects_what_was_counted(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "agent.ready", team="t-1")
    story.tick("2026-08-03T09:00")
    story.late("2026-08-03T08:30:00", "agent.not_ready")
    story.tick("2026-08-03T10:00")
    story.tell("2026-08-03T10:00:00", "agent.logged_out")
    story.tick("2026-08-03T11:00")
    assert worked(story) == 30 * 60_000
    assert worked(story, metric="logged_time") == 120 * 60_000


STEPS = st.lists(
    st.tuples(
        st.integers(0, 12 * 60),
        st.sampled_from(["agent.logged_in", "agent.ready", "agent.not_ready", "agent.logged_out"]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.randoms(use_true_random=False), st.integers(1, 40))
def test_states_count_the_same_in_any_order_of_arrival(
    pack: Pack, steps: list[tuple[int, str]], rng: random.Random, pause_min: int
) -> None:
    """Straight, and mixed up while the clock goes on: the time spent is that of the sorted states."""
    start_ms = at_ms("2026-08-03T06:00")
    ranks = module.STATE_RANKS
    found = []
    for order in (sorted(steps, key=lambda step: (step[0], ranks[step[1]])), rng.sample(steps, len(steps))):
        story = Story(pack)
        story.replay.tick(start_ms)
        story.tick("2026-08-03T18:00")
        for minute, tag in order:
            event = story.event("2026-08-03T06:00", tag, team="t-1")
            story.replay.feed(msgspec.structs.replace(event, time=moment(start_ms + minute * 60_000)))
            story.replay.tick(story.replay.last_ms + pause_min * 60_000)
        story.tick("2026-08-06T00:00")
        assert story.rejects() == []
        found.append([(one.metric, one.subject, one.period, one.value) for one in story.replay.metrics()
                      if one.metric in ("ready_time", "logged_time") and one.window == "day"])  # fmt: skip
    assert {one for one in found[0] if one[3]} == {one for one in found[1] if one[3]}
    states = sorted((minute * 60_000, ranks[tag], module.STATES[tag]) for minute, tag in steps)
    ready = sum(
        min(after - since, MAX_SHIFT_MS)
        for (since, _, state), (after, _, _) in zip(states, [*states[1:], (1 << 50, 0, "")], strict=True)
        if state == "ready"
    )
    assert (
        sum(
            value or 0 for metric, subject, _, value in found[0] if (metric, subject) == ("ready_time", "a-1")
        )
        == ready
    )


def test_states_older_than_all_that_are_remembered_are_refused(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "agent.ready")
    for minute in range(MAX_STATES):
        story.tell(f"2026-08-03T{9 + minute // 60:02d}:{minute % 60:02d}:00", "agent.ready")
    assert len(story.replay.engines[0].agents["a-1"].states) == MAX_STATES
    story.late("2026-08-03T08:30:00", "agent.not_ready")
    assert story.rejects() == ["out_of_order_state"]
    story.late("2026-08-03T09:30:30", "agent.not_ready")
    assert story.rejects() == ["out_of_order_state"]


def test_a_forgotten_log_out_ends_by_itself_after_sixteen_hours(pack: Pack) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "agent.ready")
    story.ticks("2026-08-03T09:00", "2026-08-05T08:00", 3_600_000)
    assert (worked(story), worked(story, "2026-08-04")) == (16 * 3_600_000, 0)
    story.tell("2026-08-05T09:00:00", "agent.logged_out")
    story.tell("2026-08-05T10:00:00", "agent.ready")
    story.tick("2026-08-05T11:00")
    assert worked(story, "2026-08-05") == 3_600_000


def test_sparse_ticks_count_the_same_time(pack: Pack) -> None:
    found = []
    for every_ms in (1_000, 60_000, 3_600_000, 7_200_000):
        story = Story(pack)
        story.tell("2026-08-03T08:00:00", "agent.ready", team="t-1")
        story.ticks("2026-08-03T08:00", "2026-08-03T12:00", every_ms)
        story.tick("2026-08-03T12:00:01")
        found.append((worked(story), story.figure("ready_time", "month", "2026-08", "t-1", "team")))
    assert found == [(4 * 3_600_000, None)] * 4


# --- reports and live figures -----------------------------------------------------------------------------------------


def partials(out: list[Output]) -> list[Report]:
    return [module.read_report(one.value) for one in out if one.topic == "partials"]


def test_reports_are_numbered_without_gaps_and_every_partition_gets_its_share(pack: Pack) -> None:
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES, partition=2, group_partitions=3)
    engine.tick(NOON)
    out: list[Output] = []
    for minute in range(10):
        out += apply(
            engine,
            document(
                id=f"e-{minute}", data_queue=f"q-{minute}", time=moment(NOON + minute * 60_000).isoformat()
            ),
        )
        engine.tick(NOON + (minute + 1) * 60_000)
        out += engine.judge.take_outputs()
    for target in range(3):
        own = [one for one in out if one.partition == target]
        numbers = [report.number for report in partials(own)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [report.upto_ms for report in partials(own)] == [
            NOON + n * 60_000 for n in range(1, len(numbers) + 1)
        ]
        assert {report.source for report in partials(own)} == {2}
    groups = [(level, name) for report in partials(out) for level, name, _, _ in report.groups]
    assert sorted(name for level, name in groups if level == "queue") == [f"q-{n}" for n in range(10)]
    assert {name for level, name in groups if level == "site"} == {"all"}


def test_live_figures_counters_and_alerts_can_be_read_at_any_time(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T12:00")
    for number, tag in enumerate(("call.offered", "call.offered", "call.answered")):
        fields: dict[str, Any] = {"wait_ms": 90_000} if tag == "call.answered" else {}
        story.tell(f"2026-08-03T12:00:0{number}", tag, call_id="c", queue="q-1", **fields)
    story.tick("2026-08-03T12:10")
    agents, groups = story.replay.engines[0], story.replay.group
    live = {(one.metric, one.window): one.value for one in agents.live_values(["agent"])}
    assert live["answered", "day"] == 1
    assert live["wait", "month"] == 90
    assert ("waiting", "now") not in live
    queue = {(one.metric, one.window): one.value for one in groups.live_values(["queue"], only=["q-1"])}
    assert queue["waiting", "now"] == 1
    assert queue["wait", "rolling_1h"] == 90
    assert list(groups.live_values(["queue"], only=["q-2"])) == []
    counters = {one.metric: (one.numerator, one.denominator) for one in groups.counter_values(["queue"])}
    assert counters == {"answered": (1, None), "wait": (90, 1)}
    assert list(groups.firing()) == [("small", "slow", "high", "queue", "q-1")]
    assert (agents.subjects(["agent", "queue"]), groups.subjects(["queue", "agent"])) == (["a-1"], ["q-1"])
    story.tick("2026-08-03T14:00")
    assert list(groups.firing()) == []
    assert {(one.metric, one.window): one.value for one in groups.live_values(["queue"])}[
        "wait", "rolling_1h"
    ] is None


def test_rules_of_single_events_may_look_at_short_windows_and_thirds_of_points_end(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T12:00")
    story.tell("2026-08-03T12:00:00", "call.answered", call_id="c", queue="q-1", wait_ms=40_000)
    story.tell("2026-08-03T12:30:00", "error.recorded")
    story.tell("2026-08-03T13:30:00", "error.recorded")
    assert [one for one in story.decisions() if one[0] == "slow-hour"] == [
        ("slow-hour", "2026-08", "-3.333333333", "final")
    ]
    assert set(story.replay.engines[0].agents["a-1"].series.rolling) == {3_600_000}


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_people_are_bounded_and_known_ones_go_on(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBJECTS", 2)
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    engine.tick(NOON)
    out = apply(
        engine,
        *[document(id=str(n), subject=f"a-{n}", data_agent=f"a-{n}") for n in range(4)],
        document(id="again", subject="a-1", data_agent="a-1"),
    )
    assert [one.code for one in rejects(out)] == ["too_many_subjects"] * 2
    engine.tick(NOON + 600_000)
    assert [total(engine, subject=f"a-{n}") for n in range(4)] == [1, 2, 0, 0]


def test_groups_are_bounded_whole_events_are_refused_and_time_in_states_still_counts(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SUBJECTS", 2)
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    engine.tick(NOON)
    state = document(id="s", type="agent.ready", data={"agent": "a-1"})
    roster = document(id="r", type="roster.changed", data={"agent": "a-1", "team": "t-9"})
    out = apply(
        engine,
        *[document(id=str(n), data_queue=f"q-{n}", data_team=f"t-{n}") for n in range(4)],
        roster,
        state,
    )
    assert [one.code for one in rejects(out)] == ["too_many_subjects"] * 2
    assert len(engine.queues) == 2
    engine.tick(NOON + 600_000)
    assert total(engine) == 2
    assert total(engine, "ready_time") == 600_000


def test_the_group_stage_drops_groups_beyond_its_bound(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "MAX_SUBJECTS", 3)
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    engine.tick(NOON)
    out = apply(engine, *[document(id=str(n), data_queue=f"q-{n}") for n in range(9)])
    engine.tick(NOON + 60_000)
    out += engine.judge.take_outputs()
    stage = GroupEngine([pack], zones=SHANGHAI_ZONES)
    stage.apply([Record(0, one.value, None, 0) for one in out if one.topic == "partials"])
    assert len(stage.judge.subjects) == 3
    assert stage.stats.rejects == {"too_many_subjects": 7}


def test_who_moves_counts_at_the_new_site_from_the_moment_of_the_move_on(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T12:00")
    for second, site, waits_ms in ((1, "s-1", (10_000, 20_000, 15_000)), (8, "s-2", (30_000, 5_000))):
        story.tell(f"2026-08-03T12:00:0{second}", "roster.changed", team="t-1", site=site)
        for number, wait_ms in enumerate(waits_ms, start=second + 1):
            when = f"2026-08-03T12:00:{number:02}"
            story.tell(when, "call.answered", call_id="c", queue="q-1", wait_ms=wait_ms)
    story.tick("2026-08-03T12:10")
    assert [story.figure("longest", "month", "2026-08", site, "site") for site in ("s-1", "s-2")] == [20, 30]


def test_the_roster_keeps_its_newest_lines(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T08:00")
    for minute in range(100):
        story.tell(
            f"2026-08-03T{9 + minute // 60:02d}:{minute % 60:02d}:00", "roster.changed", team=f"t-{minute}"
        )
    agent = story.replay.engines[0].agents["a-1"]
    assert [line.team for line in agent.roster] == [f"t-{minute}" for minute in range(36, 100)]
    assert agent.roster_at(at_ms("2026-08-03T10:00:30"))[0] == "t-60"
    assert agent.roster_at(0)[0] == "t-36"


def test_someone_nobody_hears_of_any_more_is_forgotten_and_may_come_back(pack: Pack) -> None:
    engine = PartitionEngine([pack], zones=SHANGHAI_ZONES)
    engine.tick(NOON)
    apply(engine, document())
    stored: dict[str, bytes] = {}
    for day in range(1, 260):
        engine.tick(NOON + day * 86_400_000)
        for key, raw in engine.checkpoint().items():
            if raw is None:
                stored.pop(key, None)
            else:
                stored[key] = raw
    assert (engine.agents, engine.judge.subjects) == ({}, {})
    assert {key for key in stored if key[1:2] == "\x1f"} == set()
    later = moment(NOON + 259 * 86_400_000).isoformat()
    assert rejects(apply(engine, document(id="back", time=later))) == []
    engine.tick(NOON + 259 * 86_400_000 + 600_000)
    assert total(engine) == 1


def test_a_tick_event_is_a_tick(engine: PartitionEngine) -> None:
    tick = make(
        "clock.tick", id="t", source="clock", subject="clock", time=at("2026-08-03T12:01"), data=ClockTick()
    )
    engine.apply([Record(0, encode(tick), None, 0)])
    assert engine.watermark_ms == NOON + 60_000
    with pytest.raises(EventError, match="outside of the years 1970 to 2199"):
        engine.tick(-1 + (1 << 50))
