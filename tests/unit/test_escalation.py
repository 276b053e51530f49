"""An alert that nobody acknowledges escalates once, and the escalation does not escalate in turn (FD-16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.core.model import Pack
from tests.support.packs import Story, make_pack

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
