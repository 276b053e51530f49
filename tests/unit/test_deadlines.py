"""What must follow within a time: met, missed, late and taken back, in whatever order the events arrive."""

from __future__ import annotations

import itertools
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core import deadlines as module
from kaohe.core.deadlines import ABANDONED_MS, CHUNK_DECODER, KEPT_MS, Deadlines, Item, ItemId
from kaohe.core.dues import Queue
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.core.verdicts import MAX_WORDS, Word, bounded, segments
from kaohe.decisions import DECISION_DECODER
from kaohe.errors import EventError
from tests.support.core_runs import Stored, save
from tests.support.packs import Story, at_ms, make_pack, moment

PARAMETERS = """
limit:
  unit: h
  min: 0
  max: 100
  values: {2026-01-01: 2, 2026-09-01: 1}
by_priority:
  unit: min
  min: 1
  max: 10000
  values:
    2026-01-01: {urgent: 15, "*": 60}
points:
  unit: points
  min: 0
  max: 10
  values: {2026-01-01: 2}
"""
DEADLINES = """
response:
  opens: complaint.logged
  key: complaint_id
  met_by: [complaint.responded]
  cancelled_by: [complaint.dismissed]
  within: p.limit
  due: promised_at
ticket:
  opens: ticket.opened
  key: ticket_id
  met_by: [ticket.first_response]
  within: p.by_priority
  by: priority
  due: due_at
"""
FOLLOW_UP = """
follow_up:
  opens: complaint.resolved
  key: complaint_id
  met_by: [complaint.followed_up]
  within: p.limit
  where: event.handling_ms >= p.long
"""
LONG = """
long:
  unit: h
  min: 0
  max: 100
  values: {2026-01-01: 1.5}
"""
METRICS = "".join(
    f"""
{outcome}:
  count: {{deadline: response, outcome: {outcome}}}
  level: [agent, site]
  windows: [day, month]
"""
    for outcome in ("opened", "met", "missed", "late", "cancelled")
)
RULES = """
- id: missed
  level: [agent]
  deadline: {name: response, outcome: missed}
  when: "true"
  then:
    - deduct: {points: p.points}
    - alert: {severity: high, owner: team_leader, response: {en: Answer., zh: 答复。}}
- id: late
  level: [agent]
  deadline: {name: response, outcome: late}
  when: deadline.late_ms > 0
  then:
    - deduct: {points: 1}
- id: ticket-missed
  level: [agent]
  deadline: {name: ticket, outcome: missed}
  when: "true"
  then:
    - deduct: {points: 1}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("pack")
    return make_pack(folder, parameters=PARAMETERS, deadlines=DEADLINES, metrics=METRICS, rules=RULES)


@pytest.fixture
def story(pack: Pack) -> Story:
    told = Story(pack)
    told.tick("2026-08-03T08:00")
    return told


def outcomes(story: Story, level: str = "agent", subject: str = "a-1") -> dict[str, int]:
    names = ("opened", "met", "missed", "late", "cancelled")
    found = {name: story.figure(name, "month", "2026-08", subject, level) for name in names}
    return {name: count for name, count in found.items() if count}


def points(story: Story) -> list[tuple[str, str]]:
    return [(rule, worth) for rule, _, worth, _ in story.decisions()]


def test_silence_misses_at_the_due_time_without_any_event(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1")
    story.tick("2026-08-03T11:00:00")
    assert points(story) == []
    story.replay.tick(at_ms("2026-08-03T11:00:00") + 1)
    assert points(story) == [("missed", "-2")]
    assert story.alerts() == [("missed", "a-1", "firing", "11:00")]
    assert outcomes(story) == {"opened": 1, "missed": 1}
    story.tick("2026-08-03T12:00")
    assert outcomes(story, "site", "all") == {"opened": 1, "missed": 1}


def test_exactly_at_the_limit_is_met_and_a_millisecond_later_is_late(story: Story) -> None:
    for key in ("c-1", "c-2"):
        story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id=key)
    story.tell("2026-08-03T11:00:00", "complaint.responded", complaint_id="c-1")
    story.late("2026-08-03T11:00:00.001", "complaint.responded", complaint_id="c-2")
    story.tick("2026-08-03T12:00")
    assert outcomes(story) == {"opened": 2, "met": 1, "missed": 1, "late": 1}
    assert points(story) == [("late", "-1"), ("missed", "-2")]


def test_a_late_answer_resolves_the_alert_once(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1")
    story.tick("2026-08-03T12:00")
    for second in (0, 1):
        story.tell(f"2026-08-03T13:00:0{second}", "complaint.responded", complaint_id="c-1")
    assert story.alerts() == [("missed", "a-1", "firing", "11:00"), ("missed", "a-1", "resolved", "13:00")]
    assert len({alert.id for alert in story.replay.alert_list()}) == 1


def test_an_answer_in_time_that_arrives_after_the_miss_takes_everything_back(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1")
    story.tick("2026-08-03T12:00")
    story.late("2026-08-03T10:30:00", "complaint.responded", complaint_id="c-1")
    assert outcomes(story) == {"opened": 1, "met": 1}
    newest = sorted(story.replay.newest_decisions().values(), key=lambda one: one.kind)
    assert [(one.kind, one.points) for one in newest] == [("deduct", "-2"), ("waive", "2")]
    assert newest[1].reverses == newest[0].id
    assert [alert[2] for alert in story.alerts()] == ["firing", "resolved"]
    assert outcomes(story, "site", "all") == {"opened": 1, "met": 1}


def test_whatever_came_first_counts_in_any_order_of_arrival(pack: Pack) -> None:
    """Two answers, one in time and one late, and the complaint itself: six orders, one result."""
    steps = [
        ("2026-08-03T09:00:00", "complaint.logged", "e-1"),
        ("2026-08-03T10:00:00", "complaint.responded", "e-2"),
        ("2026-08-03T13:00:00", "complaint.responded", "e-3"),
    ]
    seen = set()
    for order in itertools.permutations(steps):
        story = Story(pack)
        story.tick("2026-08-03T14:00")
        for when, tag, event_id in order:
            story.late(when, tag, complaint_id="c-1", id=event_id)
        story.tick("2026-08-03T15:00")
        total = sum(int(worth) for _, worth in points(story))
        seen.add((tuple(outcomes(story).items()), total))
    assert seen == {((("opened", 1), ("met", 1)), 0)}


def test_an_answer_and_a_dismissal_the_earlier_one_counts(pack: Pack) -> None:
    steps = [
        ("2026-08-03T09:00:00", "complaint.logged", "e-1"),
        ("2026-08-03T12:00:00", "complaint.responded", "e-2"),
        ("2026-08-03T10:00:00", "complaint.dismissed", "e-3"),
    ]
    for order in itertools.permutations(steps):
        story = Story(pack)
        story.tick("2026-08-03T14:00")
        for when, tag, event_id in order:
            story.late(when, tag, complaint_id="c-1", id=event_id)
        assert outcomes(story) == {"opened": 1, "cancelled": 1}
        assert sum(int(worth) for _, worth in points(story)) == 0


def test_two_late_answers_charge_once_and_the_earlier_one_counts(story: Story) -> None:
    story.tell("2026-08-31T09:00:00", "complaint.logged", complaint_id="c-1")
    story.tell("2026-09-01T09:00:00", "complaint.responded", complaint_id="c-1")
    assert outcomes(story) == {"opened": 1, "missed": 1}
    story.late("2026-08-31T22:00:00", "complaint.responded", complaint_id="c-1")
    assert outcomes(story) == {"opened": 1, "missed": 1, "late": 1}
    assert [one for one in points(story) if one[0] == "late"] == [("late", "-1")]


def test_a_dismissal_takes_the_item_back(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1")
    story.tell("2026-08-03T10:00:00", "complaint.dismissed", complaint_id="c-1")
    story.tick("2026-08-04T09:00")
    assert outcomes(story) == {"opened": 1, "cancelled": 1}
    assert points(story) == []


@pytest.mark.parametrize(("priority", "minutes"), [("urgent", 15), ("high", 60), ("low", 60)])
def test_the_limit_may_come_from_a_table(story: Story, priority: str, minutes: int) -> None:
    story.tell("2026-08-03T09:00:00", "ticket.opened", ticket_id="t-1", priority=priority)
    story.replay.tick(at_ms("2026-08-03T09:00:00") + minutes * 60_000)
    assert points(story) == []
    story.replay.tick(at_ms("2026-08-03T09:00:00") + minutes * 60_000 + 1)
    assert points(story) == [("ticket-missed", "-1")]


def test_the_due_field_overrides_the_limit(story: Story) -> None:
    due = moment(at_ms("2026-08-05T10:00"))
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1", promised_at=due)
    story.tick("2026-08-05T10:00")
    assert points(story) == []
    story.tick("2026-08-05T10:01")
    assert points(story) == [("missed", "-2")]


def test_what_is_due_before_it_begins_is_missed_at_once_and_not_years_ago(story: Story) -> None:
    due = moment(at_ms("2001-01-01T10:00"))
    story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id="c-1", promised_at=due)
    story.tick("2026-08-03T09:01")
    assert outcomes(story) == {"opened": 1, "missed": 1}


def test_an_impossible_due_time_is_refused_before_anything_is_counted(story: Story) -> None:
    for year in ("0001", "1969", "2200", "9999"):
        due = moment(at_ms("2026-08-05T10:00")).replace(year=int(year))
        story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id=f"c-{year}", promised_at=due)
    assert story.rejects() == ["invalid"] * 4
    assert outcomes(story) == {}


def test_the_limit_is_that_of_the_day_of_opening(story: Story) -> None:
    story.tell("2026-08-31T23:30:00", "complaint.logged", complaint_id="c-1")
    story.tell("2026-09-01T00:30:00", "complaint.logged", complaint_id="c-2")
    story.tick("2026-09-01T01:30")
    assert points(story) == []
    story.tick("2026-09-01T01:31")
    missed = [decision.incident for decision in story.replay.newest_decisions().values()]
    story.replay.finish()
    assert sorted(missed) == sorted(["c-1", "c-2"])


def test_items_of_other_people_and_other_complaints_are_others(story: Story) -> None:
    for agent in ("a-1", "a-2"):
        story.tell("2026-08-03T09:00:00", "complaint.logged", agent, complaint_id="c-1")
    story.tell("2026-08-03T10:00:00", "complaint.responded", "a-2", complaint_id="c-1")
    story.tell("2026-08-03T10:00:00", "complaint.responded", "a-1", complaint_id="c-2")
    story.tick("2026-08-03T12:00")
    missed = {(one.subject, one.incident) for one in story.replay.newest_decisions().values()}
    assert missed == {("a-1", "c-1")}


def test_open_items_survive_a_restart(pack: Pack) -> None:
    story = Story(pack)
    first = PartitionEngine([pack], zones=Zones(default="Asia/Shanghai"))
    first.tick(at_ms("2026-08-03T08:00"))
    first.take(story.event("2026-08-03T08:00:00", "complaint.logged", complaint_id="c-1"))
    first.take(story.event("2026-08-03T08:00:01", "complaint.responded", complaint_id="c-2"))
    stored = {key: raw for key, raw in first.checkpoint().items() if raw is not None}
    second = PartitionEngine([pack], zones=Zones(default="Asia/Shanghai"))
    second.restore(stored)
    for engine in (first, second):
        engine.judge.take_outputs()
        engine.take(story.event("2026-08-03T07:59:00", "complaint.logged", complaint_id="c-2", id="x"))
        engine.tick(at_ms("2026-08-03T10:01"))
    said = [[one.value for one in engine.judge.take_outputs()] for engine in (first, second)]
    assert said[0] == said[1]
    assert sum(b'"missed"' in raw for raw in said[0]) == 2, "a decision and an alert"


def test_a_deadline_s_own_condition_measures_as_events_do(tmp_path: Path) -> None:
    rules = RULES[: RULES.index("- id: late")].replace("name: response", "name: follow_up")
    own = make_pack(tmp_path, parameters=PARAMETERS + LONG, deadlines=FOLLOW_UP, rules=rules)
    story = Story(own)
    story.tick("2026-08-03T08:00")
    for minutes in (89, 90):
        story.tell(
            "2026-08-03T09:00:00",
            "complaint.resolved",
            complaint_id=f"c-{minutes}",
            handling_ms=minutes * 60_000,
        )
    story.tick("2026-08-03T12:00")
    story.replay.finish()
    assert [one.incident for one in story.replay.newest_decisions().values()] == ["c-90"]


# --- the collection ---------------------------------------------------------------------------------------------------


def item(key: str, due_ms: int, state: str = "open", closed_ms: int = 0) -> Item:
    return Item(
        id=("p/d", "a-1", key), state=state, place=("", "", ""), opened_ms=0,  # type: ignore[arg-type]
        due_ms=due_ms, closed_ms=closed_ms, opening=None, evidence=(),
    )  # fmt: skip


def test_items_fall_due_in_order_and_only_once() -> None:
    items = Deadlines()
    for key, due_ms in (("b", 20), ("a", 20), ("c", 10)):
        items.add(item(key, due_ms))
    assert items.next_ms() == 11
    assert [one.id[2] for one in items.missed_before(11)] == ["c"]
    assert [one.id[2] for one in items.missed_before(20)] == []
    assert [one.id[2] for one in items.missed_before(21)] == ["a", "b"]
    assert [one.id[2] for one in items.missed_before(1000)] == []


def test_ended_items_are_kept_for_a_while_and_missed_ones_longer() -> None:
    items = Deadlines()
    items.add(item("ended", 5, "met", closed_ms=10))
    items.add(item("missed", 5))
    assert len(list(items.missed_before(6))) == 1
    assert items.next_ms() == 10 + KEPT_MS + 1
    list(items.missed_before(10 + KEPT_MS + 1))
    assert [one.id[2] for one in items.items.values()] == ["missed"]
    (stored,) = items.checkpoint().values()
    assert [one.id[2] for one in CHUNK_DECODER.decode(stored or b"")] == ["missed"]
    list(items.missed_before(5 + ABANDONED_MS + 1))
    assert items.items == {}
    assert items.next_ms() is None
    assert items.checkpoint() == {"d\x1f1": None}


def test_there_is_a_bound_and_ended_items_make_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 3)
    items = Deadlines()
    items.add(item("ended", 5, "met", closed_ms=10))
    for key in ("a", "b"):
        items.check_room()
        items.add(item(key, 1000))
    items.check_room()
    items.add(item("c", 1000))
    assert sorted(one.id[2] for one in items.items.values()) == ["a", "b", "c"]
    items.add_if_room(item("early", 1, "early_met", closed_ms=1))
    assert len(items.items) == 3
    with pytest.raises(EventError, match="more than 3 items with a deadline are open") as caught:
        items.check_room()
    assert caught.value.code == "too_many_open"


def test_items_are_stored_in_chunks_that_are_as_they_were_after_a_restart() -> None:
    items, stored = Deadlines(), Stored()
    for number in range(20):
        items.add(item(str(number), 100 + number))
    save(items, stored)
    assert sorted(stored) == ["d\x1f1", "d\x1f2", "d\x1f3"]
    list(items.missed_before(101))
    items.add(item("9", 100, "met", closed_ms=1))  # in place of the one before
    assert sorted(items.touched) == [1, 2]
    save(items, stored)
    successor = Deadlines()
    successor.restore(stored)
    assert successor.checkpoint() == {}
    assert successor.items == items.items
    for one in (items, successor):
        one.add(item("new", 1))
    assert successor.checkpoint() == items.checkpoint()


def test_items_that_were_stored_alone_move_into_chunks() -> None:
    alone = {f"d\x1fp/d\x1fa-1\x1f{key}": msgspec.msgpack.encode(item(key, 10)) for key in "cab"}
    items = Deadlines()
    items.restore(alone)
    assert [key[2] for key in items.items] == ["a", "b", "c"]
    changed = items.checkpoint()
    assert [key for key, raw in changed.items() if raw is None] == sorted(alone)
    assert sorted(changed.keys() - alone.keys()) == ["d\x1f1"]
    assert items.checkpoint() == {}


def test_a_chunk_that_is_too_large_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES_MAX", 100)
    items, stored = Deadlines(), Stored()
    for number in range(5):
        items.add(item(f"{number}-{'x' * 40 * (number % 4)}", 100))
    save(items, stored)
    assert len(stored) > 2
    assert all(len(raw) <= 100 or len(CHUNK_DECODER.decode(raw)) == 1 for raw in stored.values())
    successor = Deadlines()
    successor.restore(stored)
    assert successor.items == items.items
    list(items.missed_before(100 + ABANDONED_MS + 1))
    save(items, stored)
    assert stored == {}


def test_where_there_is_no_room_the_event_is_refused_whole(
    tmp_path: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 1)
    story = Story(pack)
    for key in ("c-1", "c-2"):
        story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id=key)
    assert story.rejects() == ["too_many_open"]
    assert outcomes(story) == {"opened": 1}


def told(pack: Pack, seed: int, *, plainly: bool) -> tuple[list[Any], dict[str, bytes | None], int]:
    """What comes of a random log, and what is stored after it, with or without the straight way."""
    engine = PartitionEngine([pack], zones=Zones("Asia/Shanghai"))
    for plan in engine.plans.values():
        for kind in () if plainly else plan.opens:
            kind.opens_plainly = kind.met_plainly = False
    rng = random.Random(seed)
    story, now_ms = Story(pack), at_ms("2026-08-31T08:00")
    tags = (
        "complaint.logged",
        "complaint.responded",
        "complaint.dismissed",
        "ticket.opened",
        "ticket.first_response",
    )
    for _ in range(400):
        engine.tick(now_ms)
        tag, agent = rng.choice(tags), rng.choice(("a-1", "a-2", ""))
        fields = {"ticket_id" if tag.startswith("ticket") else "complaint_id": f"k-{rng.randrange(30)}"}
        if tag == "ticket.opened":
            fields["priority"] = rng.choice(("urgent", "high"))
        event = story.event("2026-08-31T08:00", tag, agent, subject=agent or "a-1", **fields)
        at = moment(now_ms - rng.choice((0, 0, 0, 500, 3_600_000)))
        engine.take(msgspec.structs.replace(event, time=at))
        now_ms += rng.randrange(1, 600_000)
    engine.tick(now_ms + 3 * 86_400_000)
    return engine.judge.take_outputs(), engine.checkpoint(), engine.due_ms


@pytest.mark.parametrize("seed", range(5))
def test_the_straight_way_of_items_is_the_plain_one(pack: Pack, seed: int) -> None:
    straight, plain = (told(pack, seed, plainly=plainly) for plainly in (True, False))
    assert straight == plain
    assert {one.topic for one in straight[0]} >= {"decisions", "alerts", "partials"}
    states = {
        item.state
        for key, raw in straight[1].items()
        if raw and key.startswith("d\x1f")
        for item in CHUNK_DECODER.decode(raw)
    }
    assert states >= {"met", "missed", "early_met", "late", "cancelled"}


# --- what stands until it is taken back -------------------------------------------------------------------------------

VERDICT = """
verdict:
  opens: complaint.upheld
  key: complaint_id
  met_by: nothing
  cancelled_by: [complaint.dismissed]
  within: p.long
"""
STANDING = """
standing:
  count: {deadline: verdict, outcome: standing}
  level: [agent, site]
  windows: [day, month]
"""
BLAMED = """
- id: blamed
  level: [agent]
  deadline: {name: verdict, outcome: standing}
  when: event.bad_attitude
  then:
    - deduct: {points: p.points}
    - alert: {severity: high, owner: team_leader, response: {en: Talk., zh: 谈话。}}
"""


@pytest.fixture
def judged(tmp_path: Path) -> Story:
    parameters = PARAMETERS + LONG.replace("1.5", "72")
    pack = make_pack(tmp_path, parameters=parameters, deadlines=VERDICT, metrics=STANDING, rules=BLAMED)
    told = Story(pack)
    told.tick("2026-08-03T08:00")
    return told


def test_what_stands_is_charged_at_once_and_what_is_taken_back_leaves_nothing(judged: Story) -> None:
    judged.tell("2026-08-03T09:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True)
    assert points(judged) == [("blamed", "-2")]
    assert judged.figure("standing", "month", "2026-08") == 1
    judged.tell("2026-08-05T09:00", "complaint.dismissed", complaint_id="c-1")
    judged.tick("2026-08-05T10:00")
    assert points(judged) == [("blamed", "-2"), ("blamed", "2")]
    assert judged.figure("standing", "day", "2026-08-03") == 0
    assert judged.figure("standing", "month", "2026-08", "s-1", "site") in (0, None)
    assert [alert.state for alert in judged.replay.alert_list()] == ["firing", "resolved"]


def test_what_is_taken_back_too_late_stands(judged: Story) -> None:
    judged.tell("2026-08-03T09:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True)
    judged.tell("2026-08-06T09:00:00.001", "complaint.dismissed", complaint_id="c-1")
    assert points(judged) == [("blamed", "-2")]
    assert judged.figure("standing", "month", "2026-08") == 1
    judged.late("2026-08-06T09:00", "complaint.dismissed", complaint_id="c-1")
    assert points(judged) == [("blamed", "-2"), ("blamed", "2")]
    assert judged.figure("standing", "month", "2026-08") == 0


@pytest.mark.parametrize(("dismissed", "left"), [("2026-08-03T08:30", 1), ("2026-08-03T09:30", 0)])
def test_the_later_word_counts_in_any_order_of_arrival(judged: Story, dismissed: str, left: int) -> None:
    judged.tick("2026-08-03T10:00")
    judged.late(dismissed, "complaint.dismissed", complaint_id="c-1")
    judged.late("2026-08-03T09:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True)
    judged.tick("2026-08-03T11:00")
    assert sum(int(worth) for _, worth in points(judged)) == -2 * left
    assert (judged.figure("standing", "month", "2026-08") or 0) == left


WORDS = (
    ("2026-08-31T09:00", "complaint.upheld", "u-1"), ("2026-08-31T10:00", "complaint.dismissed", "d-1"),
    ("2026-09-01T11:00", "complaint.upheld", "u-2"), ("2026-09-01T12:00", "complaint.dismissed", "d-2"),
    ("2026-09-02T13:00", "complaint.upheld", "u-3"),
)  # fmt: skip


def word(story: Story, when: str, tag: str, name: str, *, late: bool = True) -> None:
    more: dict[str, Any] = {"bad_attitude": True} if tag == "complaint.upheld" else {}
    (story.late if late else story.tell)(when, tag, complaint_id="c-1", id=name, **more)


def test_what_finds_no_room_is_not_stored(judged: Story) -> None:
    engine = judged.replay.engines[0]
    for number in range(engine.deadlines.most - len(engine.deadlines.items)):
        engine.deadlines.items["p/d", "a-1", str(number)] = item(str(number), 1 << 50)
    word(judged, "2026-08-03T09:00", "complaint.dismissed", "d-1", late=False)
    assert not [key for key in engine.checkpoint() if key.startswith("d\x1f")]


def test_what_is_found_right_again_is_charged_anew_under_an_id_of_its_own(judged: Story) -> None:
    for one in WORDS:
        word(judged, *one, late=False)
    judged.tick("2026-09-02T14:00")
    found = judged.replay.newest_decisions().values()
    assert [one.points for one in found] == ["-2", "2", "-2", "2", "-2"]
    charges = [one for one in found if one.kind == "deduct"]
    assert len({one.id for one in charges}) == 3
    assert [one.reverses for one in found if one.reverses] == [one.id for one in charges[:2]]
    alerts = judged.replay.alert_list()
    assert [one.state for one in alerts] == ["firing", "resolved", "firing", "resolved", "firing"]
    assert len({one.id for one in alerts}) == 3
    assert judged.figure("standing", "month", "2026-08") == 0
    assert judged.figure("standing", "month", "2026-09") == 1


@pytest.mark.parametrize("count", [3, 4, 5])
def test_words_in_any_order_come_to_the_same(tmp_path: Path, count: int) -> None:
    parameters = PARAMETERS + LONG.replace("1.5", "72")
    pack = make_pack(tmp_path, parameters=parameters, deadlines=VERDICT, metrics=STANDING, rules=BLAMED)
    seen = set()
    for order in permutations(WORDS[:count]):
        story = Story(pack)
        story.tick("2026-08-31T08:00")
        story.tick("2026-09-02T14:00")
        for one in order:
            word(story, *one)
        story.tick("2026-09-02T15:00")
        months: dict[str, int] = {}
        for entry in story.replay.newest_decisions().values():
            months[entry.period] = months.get(entry.period, 0) + int(entry.points)
        firing = sum(1 if one.state == "firing" else -1 for one in story.replay.alert_list())
        standing = [story.figure("standing", "month", label) or 0 for label in ("2026-08", "2026-09")]
        seen.add((months.get("2026-08", 0), months.get("2026-09", 0), firing, *standing))
    assert seen == ({(0, 0, 0, 0, 0)} if count == 4 else {(0, -2, 1, 0, 1)})


def test_a_restart_between_words_changes_nothing(judged: Story) -> None:
    for one in WORDS[:2]:
        word(judged, *one, late=False)
    engine = judged.replay.engines[0]
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    successor = PartitionEngine(engine.packs, zones=engine.zones)
    successor.restore(stored)
    for one in WORDS[2:]:
        word(judged, *one, late=False)
        successor.tick(engine.watermark_ms)
        more: dict[str, Any] = {"bad_attitude": True} if one[1] == "complaint.upheld" else {}
        successor.take(judged.event(one[0], one[1], complaint_id="c-1", id=one[2], **more))
    found = [
        DECISION_DECODER.decode(one.value)
        for one in successor.judge.take_outputs()
        if one.topic == "decisions"
    ]
    judged.replay.finish()
    expected = judged.replay.decision_list()[2:]
    assert [(one.id, one.points) for one in found] == [(one.id, one.points) for one in expected]


def test_a_verdict_that_was_forgotten_is_known_by_what_it_charged(judged: Story) -> None:
    word(judged, "2026-08-03T09:00", "complaint.upheld", "u-1", late=False)
    word(judged, "2026-08-03T10:00", "complaint.dismissed", "d-1", late=False)
    judged.replay.engines[0].deadlines.items.clear()
    word(judged, "2026-08-04T09:00", "complaint.upheld", "u-2", late=False)
    assert sorted(worth for _, worth in points(judged)) == ["-2", "-2", "2"]


def test_words_are_bounded_and_what_opened_is_kept() -> None:
    words = [Word(number, number % 2 == 0, f"e-{number:03}", ("", "", "")) for number in range(200)]
    words.append(Word(200, True, "opens", ("", "", "")))
    words += [Word(number, True, f"f-{number}", ("", "", "")) for number in range(201, 300)]
    kept = bounded(words, lambda one: one.at_ms + 1000)
    assert len(kept) == MAX_WORDS
    assert segments(kept, lambda one: one.at_ms + 1000)[-1].opening.event_id == "opens"


def test_a_verdict_of_a_closed_month_is_taken_back_in_the_running_one(judged: Story) -> None:
    judged.tell("2026-08-31T23:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True)
    judged.tick("2026-09-04T10:00")
    judged.late("2026-09-03T12:00", "complaint.dismissed", complaint_id="c-1")
    judged.tick("2026-09-04T11:00")
    assert judged.decisions() == [("blamed", "2026-08", "-2", "final"), ("blamed", "2026-09", "2", "final")]


def test_a_queue_gives_its_items_in_the_order_of_their_moments() -> None:
    rng = random.Random(7)
    moments: dict[ItemId, int] = {}
    queue = Queue(moments.get)
    given: list[tuple[int, ItemId]] = []
    now_ms = 0
    for number in range(3_000):
        key = (
            "p/d",
            "a-1",
            f"{number:04}" if rng.random() < 0.8 or not number else f"{rng.randrange(number):04}",
        )
        moments[key] = now_ms + rng.randrange(20 * 60_000)
        queue.add(moments[key], key)
        if rng.random() < 0.5:
            moments.pop(rng.choice(list(moments)))  # met before it is due
        if rng.random() < 0.05:
            now_ms += rng.randrange(3 * 60_000)
            while (first := queue.first()) is not None and first[0] < now_ms:
                assert first == min((at_ms, one) for one, at_ms in moments.items())
                assert queue.take() == first[1]
                del moments[first[1]]
                given.append(first)
    assert len(given) > 100
