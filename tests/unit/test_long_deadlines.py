"""Deadlines over months: announced ahead, renewed, remembered, and judged by what changed since they were opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kaohe.core.deadlines import CHUNK_DECODER
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.facts import metric_of
from kaohe.core.forgetting import days_around
from kaohe.core.model import Pack
from tests.support.packs import Story, at, at_ms, make_pack

PARAMETERS = """
time:
  unit: d
  min: 1
  max: 90
  values: {2026-01-01: 30}
notice:
  unit: d
  min: 1
  max: 90
  values: {2026-01-01: 10, 2026-05-01: 20}
"""
DEADLINES = """
held:
  opens: certificate.required
  key: certificate
  met_by: certificate.earned
  cancelled_by: certificate.released
  within: p.time
  remember: 400d
renewal:
  opens: certificate.earned
  where: has(event.expires_at)
  key: certificate
  met_by: nothing
  again: true
  due: expires_at
  ahead: p.notice
effect:
  opens: training.attended
  key: training_id
  met_by: nothing
  within: p.time
"""
METRICS = """
followed:
  ratio:
    of: {sum: {field: steps_followed, of: flow.audited}}
    to: {sum: {field: steps_checked, of: flow.audited}}
  level: agent
  windows: [day, quarter]
missing:
  count: {deadline: held, outcome: missed}
  level: agent
  windows: month
held_now:
  count: {deadline: held, outcome: met}
  level: agent
  windows: month
"""
RULES = """
- id: missing
  level: agent
  deadline: {name: held, outcome: missed}
  when: "true"
  then:
    - deduct: {points: 1}
- id: ends-soon
  level: agent
  deadline: {name: renewal, outcome: missed}
  incident: certificate
  when: "true"
  then:
    - alert: {severity: medium, owner: team_leader, response: {en: Renew., zh: 换证。}}
- id: worse
  level: agent
  deadline: {name: effect, outcome: missed}
  incident: training_id
  when: followed.since_opened.vs_before < 0
  then:
    - deduct: {points: 2}
- id: worse-quarter
  level: agent
  judged: quarter
  at_close_only: true
  when: followed.quarter.vs_previous < 0
  then:
    - deduct: {points: 4}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("pack")
    return make_pack(folder, parameters=PARAMETERS, deadlines=DEADLINES, metrics=METRICS, rules=RULES)


@pytest.fixture
def story(pack: Pack) -> Story:
    told = Story(pack)
    told.tick("2026-01-05T08:00")
    return told


def certificate(story: Story, when: str, what: str, **fields: Any) -> None:
    story.tell(when, f"certificate.{what}", certificate="c", **fields)


def expiring(day: str) -> dict[str, Any]:
    return {"expires_at": at(day)}


def test_what_was_met_long_before_it_was_asked_for_counts_when_it_is(story: Story) -> None:
    certificate(story, "2026-01-06T09:00", "earned")
    certificate(story, "2026-08-06T09:00", "required")
    story.tick("2026-12-01T00:00")
    assert story.decisions() == []
    assert story.figure("held_now", "month", "2026-08") == 1
    certificate(story, "2026-12-01T09:00", "required")
    story.tick("2027-02-01T00:00")
    assert story.decisions() == []


def test_what_was_met_too_long_before_does_not_count(story: Story) -> None:
    certificate(story, "2026-01-06T09:00", "earned")
    certificate(story, "2027-03-06T09:00", "required")
    story.tick("2027-04-06T00:00")
    assert [rule for rule, *_ in story.decisions()] == ["missing"]


def test_an_older_certificate_that_is_told_late_takes_nothing_from_a_newer_one(story: Story) -> None:
    certificate(story, "2026-02-06T09:00", "earned")
    story.late("2026-01-10T09:00", "certificate.earned", certificate="c")
    certificate(story, "2027-03-01T09:00", "required")
    story.tick("2027-04-06T00:00")
    assert story.decisions() == []


def test_what_is_remembered_survives_a_restart(pack: Pack) -> None:
    first, second = (PartitionEngine((pack,), zones=Zones("Asia/Shanghai")) for _ in range(2))
    story = Story(pack)
    first.tick(at_ms("2026-01-05T08:00"))
    first.take(story.event("2026-01-05T08:00", "certificate.earned", certificate="c"))
    first.tick(at_ms("2026-03-05T08:00"))
    stored = {key: raw for key, raw in first.checkpoint().items() if raw is not None}
    second.restore(stored)
    second.tick(at_ms("2026-03-05T09:00"))
    ((item,),) = (CHUNK_DECODER.decode(raw) for key, raw in stored.items() if key.startswith("d"))
    assert item.state == "early_met"
    assert [item.id for item in second.deadlines.items.values()] == [("small/held", "a-1", "c")]


def test_an_end_is_announced_as_long_before_as_it_was_said_on_the_day_it_began(story: Story) -> None:
    certificate(story, "2026-04-01T09:00", "earned", **expiring("2026-07-01T00:00"))
    story.tick("2026-06-21T01:00")
    assert story.alerts() == [("ends-soon", "a-1", "firing", "00:00")]
    certificate(story, "2026-06-25T09:00", "earned", **expiring("2026-09-01T00:00"))
    story.tick("2026-08-11T23:59")
    assert [state for _, _, state, _ in story.alerts()] == ["firing", "resolved"]
    story.tick("2026-08-12T01:00")
    assert [state for _, _, state, _ in story.alerts()] == ["firing", "resolved", "firing"]


def test_a_renewal_before_the_announcement_is_never_announced(story: Story) -> None:
    certificate(story, "2026-04-01T09:00", "earned", **expiring("2026-07-01T00:00"))
    certificate(story, "2026-06-01T09:00", "earned", **expiring("2028-07-01T00:00"))
    certificate(story, "2026-06-02T09:00", "earned")
    story.tick("2026-12-01T00:00")
    assert story.alerts() == []
    assert story.rejects() == []


def test_the_days_before_an_opening_are_kept_until_it_is_judged(story: Story, pack: Pack) -> None:
    assert days_around((pack,)) == 63 * 86_400_000
    story.tell("2026-03-04T09:00", "flow.audited", steps_checked=10, steps_followed=9)
    story.tell("2026-04-01T09:00", "training.attended", training_id="t")
    story.tell("2026-04-20T09:00", "flow.audited", steps_checked=10, steps_followed=8)
    story.tick("2026-05-01T08:59")
    assert story.decisions() == []
    story.tick("2026-05-01T09:01")
    assert story.decisions() == [("worse", "2026-05", "-2", "final")]


def test_a_day_further_back_belongs_to_no_side(story: Story) -> None:
    story.tell("2026-03-02T09:00", "flow.audited", steps_checked=10, steps_followed=9)
    story.tell("2026-04-01T09:00", "training.attended", training_id="t")
    story.tell("2026-04-20T09:00", "flow.audited", steps_checked=10, steps_followed=8)
    story.tick("2026-05-01T09:01")
    assert story.decisions() == []


def test_a_quarter_is_compared_with_the_quarter_before(story: Story, pack: Pack) -> None:
    assert metric_of(pack, "followed.quarter.vs_previous")[1:] == ("quarter", "vs_previous")
    story.tell("2026-01-06T09:00", "flow.audited", steps_checked=10, steps_followed=9)
    story.tell("2026-06-20T09:00", "flow.audited", steps_checked=10, steps_followed=8)
    story.tell("2026-09-20T09:00", "flow.audited", steps_checked=10, steps_followed=8)
    story.tick("2026-10-04T00:01")
    assert story.decisions() == [("worse-quarter", "2026-Q2", "-4", "final")]


def test_rules_without_such_windows_keep_nothing_longer(tmp_path: Path) -> None:
    plain = make_pack(tmp_path, parameters=PARAMETERS, deadlines=DEADLINES, metrics=METRICS)
    assert days_around((plain,)) == 0
