"""The calendar of an appraisal: what is missed alerts its owner, then the superior, whatever the partitions."""

from __future__ import annotations

from typing import Any

import pytest

from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.packs.load import load_pack
from tests.packs.patching import patched
from tests.support.packs import Story


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return load_pack(patched("with workflow\n", tmp_path_factory.mktemp("workflow")))


def done(story: Story, when: str, step: str, team: str = "", period: str = "2026-08", **more: Any) -> None:
    data = {"pack": "minimal", "period": period, "step": step, "team": team, "by": "m-1"} | more
    story.tell(when, "step.done", agent="", subject="periods", **data)


def alerts(story: Story) -> list[tuple[str, str, str, str, str, str]]:
    story.replay.finish()
    return [
        (one.rule, one.subject, one.incident, one.state, one.owner, one.at[:10])
        for one in story.replay.alert_list()
    ]


def test_a_missed_date_alerts_its_owner_and_later_the_superior(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-07-28T12:00")
    done(story, "2026-07-28T23:00", "plan", "t-1")
    story.tick("2026-07-31T12:00")
    assert alerts(story) == [
        ("step-plan", "t-2", "2026-08", "firing", "head", "2026-07-29"),
        ("step-plan", "t-2", "2026-08", "firing", "deputy", "2026-07-31"),
    ]
    done(story, "2026-07-31T13:00", "plan", "t-2")
    assert alerts(story)[2:] == [
        ("step-plan", "t-2", "2026-08", "resolved", "head", "2026-07-31"),
        ("step-plan", "t-2", "2026-08", "resolved", "deputy", "2026-07-31"),
    ]
    first = story.replay.alert_list()[0]
    assert (first.level, first.clause, first.severity) == ("team", "MI-08", "medium")
    assert first.parameters["p.plan_day"].value == "28"
    assert "2026-07-28" in first.explanation.en


def test_a_date_is_the_last_day_of_a_shorter_month(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-09-10T12:00")
    done(story, "2026-09-10T12:01", "sum-up")
    for team in ("t-1", "t-2"):
        done(story, "2026-09-28T12:00", "plan", team, "2026-10")
    story.tick("2026-10-01T00:05")
    assert alerts(story) == [("step-check", "company", "2026-09", "firing", "hr", "2026-10-01")]
    assert story.replay.alert_list()[0].level == "company"


def test_what_is_done_in_time_is_never_told(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-01T00:00")
    for month in ("2026-07", "2026-08"):
        done(story, "2026-08-05T09:00", "sum-up", period=month)
        done(story, "2026-08-05T09:00", "check", period=month)
    for team in ("t-1", "t-2"):
        done(story, "2026-08-05T09:00", "plan", team, "2026-09")
    story.tick("2026-09-20T00:00")
    assert alerts(story) == []
    assert story.rejects() == []


def test_dates_that_passed_before_the_log_began_are_not_missed(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-15T00:00")
    story.tick("2026-08-20T00:00")
    assert alerts(story) == []


def test_the_number_of_partitions_makes_no_difference(pack: Pack) -> None:
    found = []
    for partitions in (1, 4):
        story = Story(pack, partitions=partitions)
        story.tick("2026-07-28T12:00")
        done(story, "2026-07-28T23:00", "plan", "t-1")
        story.tick("2026-09-15T00:00")
        done(story, "2026-09-15T10:00", "check")
        found.append(alerts(story))
    assert found[0] == found[1]
    assert len(found[0]) > 6


def test_a_successor_goes_on_where_the_calendar_stopped(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-07-28T12:00")
    done(story, "2026-07-28T23:00", "plan", "t-1")
    story.tick("2026-07-29T12:00")
    before = alerts(story)
    stored = {key: raw for key, raw in story.replay.engines[0].checkpoint().items() if raw is not None}
    successor = PartitionEngine((pack,), zones=Zones(default="Asia/Shanghai"))
    successor.restore(stored)
    story.replay.engines[0] = successor
    story.tick("2026-07-31T12:00")
    done(story, "2026-07-31T13:00", "plan", "t-2")
    assert [one[3:5] for one in alerts(story)[len(before) :]] == [
        ("firing", "deputy"), ("resolved", "head"), ("resolved", "deputy"),
    ]  # fmt: skip
    assert successor.checkpoint()["w\x1f"]
    assert "w\x1f" not in successor.checkpoint()


def test_what_was_done_is_forgotten_after_a_year(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-07-28T12:00")
    done(story, "2026-07-28T23:00", "plan", "t-1")
    story.tick("2027-12-05T00:00")
    workflow = story.replay.engines[0].workflow
    assert workflow is not None
    assert workflow.done == {}
    assert len(workflow.firing) < 200


@pytest.mark.parametrize(
    ("step", "team", "more"),
    [
        ("unknown", "", {}),
        ("plan", "", {}),
        ("plan", "t-9", {}),
        ("check", "t-1", {}),
        ("check", "", {"pack": "other"}),
        ("check", "", {"period": "August"}),
    ],
)
def test_a_step_that_no_calendar_has_is_refused(
    pack: Pack, step: str, team: str, more: dict[str, str]
) -> None:
    story = Story(pack)
    story.tick("2026-07-28T12:00")
    done(story, "2026-07-28T13:00", step, team, **more)
    assert len(story.rejects()) == 1


@pytest.fixture(scope="module")
def departments(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    step = (
        "  - {id: check, clause: MI-08, title: {en: Check, zh: 检查}, for: WHOSE, owner: hr, superior: gm, "
    )
    step += "day: p.last_day, when: during}"
    changed = [f"-{step.replace('WHOSE', 'company')}", f"+{step.replace('WHOSE', 'department')}"]
    patch = "\n".join(["with workflow", "workflow.yaml", *changed, ""])
    return load_pack(patched(patch, tmp_path_factory.mktemp("departments")))


def led(story: Story, when: str, department: str, head: str = "h-1") -> None:
    story.tell(when, "department.changed", agent="", subject=department, department=department, head=head)


def of_check(story: Story) -> list[tuple[str, str, str]]:
    return sorted(
        (whose, owner, day) for rule, whose, _, _, owner, day in alerts(story) if rule == "step-check"
    )


@pytest.mark.parametrize("partitions", [1, 4])
def test_each_department_owes_its_own_step_wherever_it_is_known(departments: Pack, partitions: int) -> None:
    story = Story(departments, partitions=partitions)
    story.tick("2026-08-20T12:00")
    for name in ("sales", "billing", "it", "gone"):
        led(story, "2026-08-20T13:00", name)
    led(story, "2026-08-21T13:00", "gone", head="")
    done(story, "2026-08-31T12:00", "check", department="sales")
    done(story, "2026-08-31T12:00", "check", department="nobody-s")
    story.tick("2026-09-01T12:00")
    led(story, "2026-09-01T13:00", "new")
    done(story, "2026-09-02T12:00", "check", department="billing")
    story.tick("2026-09-04T12:00")
    assert of_check(story) == [
        ("billing", "hr", "2026-09-01"), ("billing", "hr", "2026-09-02"),
        ("it", "gm", "2026-09-03"), ("it", "hr", "2026-09-01"),
    ]  # fmt: skip
    assert {one.level for one in story.replay.alert_list() if one.rule == "step-check"} == {"department"}
    assert story.rejects() == []


def test_a_department_s_step_goes_on_with_a_successor_of_its_partition(departments: Pack) -> None:
    story = Story(departments, partitions=4)
    story.tick("2026-08-20T12:00")
    led(story, "2026-08-20T13:00", "it")
    story.tick("2026-09-01T12:00")
    for index, engine in enumerate(story.replay.engines):
        successor = PartitionEngine((departments,), zones=Zones(default="Asia/Shanghai"), partition=index)
        successor.restore({key: raw for key, raw in engine.checkpoint().items() if raw is not None})
        story.replay.engines[index] = successor
    story.tick("2026-09-03T12:00")
    done(story, "2026-09-03T13:00", "check", department="it")
    days = {owner: [day for _, one, day in of_check(story) if one == owner] for owner in ("hr", "gm")}
    assert days == {"hr": ["2026-09-01", "2026-09-03"], "gm": ["2026-09-03", "2026-09-03"]}


@pytest.mark.parametrize(("step", "whose"), [
    ("check", {}), ("check", {"team": "t-1"}), ("check", {"department": "it", "team": "t-1"}),
    ("plan", {"department": "it"}), ("sum-up", {"department": "it"}),
])  # fmt: skip
def test_a_step_is_done_by_those_whose_it_is(departments: Pack, step: str, whose: dict[str, str]) -> None:
    story = Story(departments)
    story.tick("2026-08-20T12:00")
    done(story, "2026-08-20T13:00", step, **whose)
    assert len(story.rejects()) == 1
