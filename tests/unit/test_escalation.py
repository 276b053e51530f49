"""An alert that nobody acknowledges escalates once, and the escalation does not escalate in turn (FD-16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Record
from kaohe.decisions import ALERT_DECODER, Alert
from tests.support.packs import Story, at_ms, make_pack

PARAMETERS = """
limit:
  unit: h
  min: 0
  max: 100
  values: {2026-01-01: 2}
patience:
  unit: min
  min: 1
  max: 600
  values: {2026-01-01: 30}
wait_limit:
  unit: s
  min: 1
  max: 600
  values: {2026-01-01: 60}
"""
DEADLINES = """
response:
  opens: complaint.logged
  key: complaint_id
  met_by: [complaint.responded]
  within: p.limit
acknowledgement:
  opens: alert.raised
  where: event.severity == "high"
  key: alert_id
  met_by: [alert.acknowledged]
  cancelled_by: [alert.ended]
  within: p.patience
"""
RULES = """
- id: late
  level: [agent]
  deadline: {name: response, outcome: missed}
  incident: complaint_id
  when: "true"
  then:
    - alert: {severity: high, owner: team_leader, response: {en: Call., zh: 回拨。}}
- id: unheard
  level: [agent]
  deadline: {name: acknowledgement, outcome: missed}
  incident: alert_id
  when: "true"
  then:
    - alert: {severity: high, owner: rapid_response_group, response: {en: See to it., zh: 处理。}}
"""


@pytest.fixture
def story(tmp_path: Path) -> Story:
    pack: Pack = make_pack(tmp_path, parameters=PARAMETERS, deadlines=DEADLINES, rules=RULES)
    story = Story(pack)
    story.tell("2026-08-03T09:00", "complaint.logged", complaint_id="k")
    return story


def told(story: Story) -> list[tuple[str, str, str]]:
    return [(rule, state, at) for rule, _, state, at in story.alerts()]


def test_an_alert_that_nobody_acknowledges_escalates_once(story: Story) -> None:
    story.tick("2026-08-05T09:00")
    assert told(story) == [("late", "firing", "11:00"), ("unheard", "firing", "11:30")]


def test_an_alert_that_is_acknowledged_does_not_escalate(story: Story) -> None:
    story.tick("2026-08-03T11:10")
    story.replay.finish()
    (alert,) = story.replay.alert_list()
    story.tell("2026-08-03T11:20", "alert.acknowledged", alert_id=alert.id, by="m-1")
    story.tick("2026-08-05T09:00")
    assert told(story) == [("late", "firing", "11:00")]


def test_an_alert_that_ends_by_itself_does_not_escalate(story: Story) -> None:
    story.tell("2026-08-03T11:15", "complaint.responded", complaint_id="k")
    story.tick("2026-08-05T09:00")
    assert told(story) == [("late", "firing", "11:00"), ("late", "resolved", "11:15")]


def test_an_escalation_ends_when_somebody_takes_care(story: Story) -> None:
    story.tick("2026-08-03T12:00")
    story.replay.finish()
    alert = story.replay.alert_list()[0]
    story.tell("2026-08-03T12:01", "alert.acknowledged", alert_id=alert.id, by="m-1")
    assert told(story)[2:] == [("unheard", "resolved", "12:01")]


# --- alerts of groups -------------------------------------------------------------------------------------------------

GROUP_METRICS = """
wait_s:
  mean: {field: wait_ms, of: call.answered}
  level: [queue]
  windows: [rolling 1h]
"""
GROUP_RULES = """
- id: slow
  level: [queue]
  watch: live
  when: wait_s.rolling_1h > p.wait_limit
  then:
    - alert:
        for: 0m
        clear: wait_s.rolling_1h <= p.wait_limit || wait_s.rolling_1h.base == 0
        severity: high
        owner: team_leader
        response: {en: Call., zh: 回拨。}
- id: nobodys
  level: [queue]
  deadline: {name: response, outcome: missed}
  incident: complaint_id
  when: event.agent == ""
  then:
    - alert: {severity: high, owner: team_leader, response: {en: Call., zh: 回拨。}}
- id: unheard
  level: [team, queue, site]
  deadline: {name: acknowledgement, outcome: missed}
  incident: alert_id
  when: event.agent == ""
  then:
    - alert: {severity: high, owner: rapid_response_group, response: {en: See to it., zh: 处理。}}
"""


@pytest.fixture(scope="module")
def group_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(
        tmp_path_factory.mktemp("groups"), parameters=PARAMETERS, metrics=GROUP_METRICS, deadlines=DEADLINES,
        rules=GROUP_RULES,
    )  # fmt: skip


def group_told(story: Story) -> list[tuple[str, str, str, str]]:
    return [(rule, subject, state, at) for rule, subject, state, at in story.alerts()]


def slow_queue(pack: Pack, partitions: int) -> Story:
    """The queue alerts at 09:01 and its complaint at 11:00; both escalate half an hour later."""
    story = Story(pack, partitions=partitions)
    story.tell(
        "2026-08-03T09:00", "complaint.logged", agent="", subject="desk", queue="desk", complaint_id="k"
    )
    story.tell("2026-08-03T09:00", "call.answered", queue="desk", call_id="c", wait_ms=9_000_000)
    return story


def minutes(story: Story, first: str, last: str) -> None:
    """Let the log's clock pass, minute by minute."""
    for now_ms in range(at_ms(f"2026-08-03T{first}"), at_ms(f"2026-08-03T{last}") + 1, 60_000):
        story.replay.tick(now_ms)


@pytest.mark.parametrize("partitions", [1, 4])
def test_alerts_of_groups_escalate_wherever_they_begin(group_pack: Pack, partitions: int) -> None:
    story = slow_queue(group_pack, partitions)
    minutes(story, "09:01", "12:00")
    assert sorted(group_told(story)) == [
        ("nobodys", "desk", "firing", "11:00"),
        ("slow", "desk", "firing", "09:01"),
        ("slow", "desk", "resolved", "10:01"),
        ("unheard", "desk", "firing", "09:31"),
        ("unheard", "desk", "firing", "11:30"),
        ("unheard", "desk", "resolved", "10:01"),
    ]


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("logged_by", ["desk", "m-1", "m-2", "m-3"])
def test_an_acknowledgement_reaches_a_groups_alert_from_any_log(
    group_pack: Pack, partitions: int, logged_by: str
) -> None:
    story = slow_queue(group_pack, partitions)
    minutes(story, "09:01", "11:10")
    story.replay.finish()
    raised = [one for one in story.replay.alert_list() if one.rule == "nobodys"]
    story.tell(
        "2026-08-03T11:29:59",
        "alert.acknowledged",
        agent="",
        subject=logged_by,
        alert_id=raised[0].id,
        by="m-1",
    )
    minutes(story, "11:30", "13:00")
    escalated = [one for one in group_told(story) if one[0] == "unheard"]
    assert [at for _, _, state, at in escalated if state == "firing"] == ["09:31"]


def test_a_successor_goes_on_waiting_for_the_acknowledgement(group_pack: Pack) -> None:
    """Restarted between alert and deadline, with an acknowledgement that is not reported yet."""
    zones = Zones("Asia/Shanghai")
    engine, group = PartitionEngine((group_pack,), zones=zones), GroupEngine((group_pack,), zones=zones)
    story = Story(group_pack)
    call = story.event("2026-08-03T09:00", "call.answered", queue="desk", call_id="c", wait_ms=9_000_000)
    engine.tick(at_ms("2026-08-03T09:00"))
    engine.take(call)
    came: list[Alert] = []
    for minute in range(1, 40):
        now_ms = at_ms("2026-08-03T09:00") + minute * 60_000
        if minute == 20:
            ack = story.event("2026-08-03T09:19", "alert.acknowledged", agent="", subject="m-1",
                              alert_id=came[0].id, by="m-1")  # fmt: skip
            engine.take(ack)
            stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
            engine = PartitionEngine((group_pack,), zones=zones)
            engine.restore(stored)
            kept = {key: raw for key, raw in group.checkpoint().items() if raw is not None}
            group = GroupEngine((group_pack,), zones=zones)
            group.restore(kept)
            assert group.escalations is not None
            (item,) = group.escalations.items.deadlines.items.values()
            assert (item.state, item.place) == ("open", ("desk", "", ""))
        engine.tick(now_ms)
        reports = [one.value for one in engine.judge.take_outputs() if one.topic == "partials"]
        outputs = group.apply([Record(0, raw, None, 0) for raw in reports])
        came += [ALERT_DECODER.decode(one.value) for one in outputs if one.topic == "alerts"]
    assert [(one.rule, one.state) for one in came] == [("slow", "firing")]
