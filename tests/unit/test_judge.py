"""Judging: provisional and final entries, adjustments, alerts, waivers, grades, rosters and versions of packs."""

from __future__ import annotations

import itertools
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaohe.core import corrections, group, reopening, storing
from kaohe.core import judge as module
from kaohe.core.engine import PartitionEngine, Zones, read_report
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.partials import Reader
from kaohe.core.records import Record
from kaohe.core.replay import Replay
from kaohe.core.subjects import StoredSubject
from kaohe.decisions import Decision
from kaohe.errors import EventError, StateError
from kaohe.events import PackActivated, make
from tests.support.core_runs import Stored, save
from tests.support.packs import Story, at, at_ms, by_name, make_pack, moment

PARAMETERS = """
error_limit:
  unit: count
  min: 0
  max: 1000
  values: {2026-01-01: 2, 2026-09-01: 0}
step_points:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 3, 2026-09-01: 1}
complaint_points:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 5, 2026-08-15: 7.5}
base:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 100}
lowest:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 80}
highest:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 110}
bands:
  unit: points
  min: 0
  max: 1000
  values:
    2026-01-01: {A: 95, B: 90, C: 80}
cooperation:
  unit: points
  min: -10
  max: 10
  values:
    2026-01-01: {excellent: 20, good: 1, fair: 0, poor: -2}
wait_limit:
  unit: s
  min: 1
  max: 1000
  values: {2026-01-01: 60, 2026-08-04: 30}
wait_cleared:
  unit: s
  min: 1
  max: 1000
  values: {2026-01-01: 40}
""".replace("min: -10\n  max: 10\n", "min: -10\n  max: 20\n")
METRICS = """
errors:
  count: error.recorded
  level: [agent]
  windows: [month]
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent, queue]
  windows: [month, rolling 15m]
answered:
  count: call.answered
  level: [agent, queue, team]
  windows: [day, month, rolling 15m]
"""
COMPLAINT = """
- id: complaint
  level: [agent]
  on: complaint.upheld
  incident: complaint_id
  when: "true"
  then:
    - deduct: {points: p.complaint_points}
"""
RULES = (
    """
- id: errors
  level: [agent]
  judged: month
  when: errors.month > p.error_limit
  then:
    - deduct: {points: p.step_points, per: 1, over: p.error_limit, of: errors.month, at_most: 12}
"""
    + COMPLAINT
    + """
- id: attitude
  level: [agent]
  on: complaint.upheld
  incident: complaint_id
  when: event.bad_attitude
  then:
    - grade: {at_most: B}
    - proposal: observation
    - task: {title: {en: Coaching, zh: 辅导}, owner: team_leader, due: 14d}
- id: cooperation
  level: [agent]
  on: survey.cross_department
  when: "true"
  then:
    - points_by: {table: p.cooperation, by: event.rating}
- id: exemption
  level: [agent]
  on: exemption.granted
  when: "true"
  then:
    - waive: {rules: [complaint, errors], incident: event.incident}
- id: slow
  level: [queue]
  watch: live
  when: wait.rolling_15m > p.wait_limit
  then:
    - alert:
        for: 3m
        clear: wait.rolling_15m <= p.wait_cleared
        severity: high
        owner: team_leader
        response: {en: Help., zh: 支援。}
- id: busy-team
  level: [team]
  watch: live
  when: answered.day >= 3
  then:
    - alert: {clear: answered.day < 3, severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
"""
)
SCORECARD = """
window: month
level: agent
base: p.base
lowest: p.lowest
highest: p.highest
bands: p.bands
formula: {en: Base plus points., zh: 基础分加减分。}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("pack")
    return make_pack(folder, parameters=PARAMETERS, metrics=METRICS, rules=RULES, scorecard=SCORECARD)


@pytest.fixture
def story(pack: Pack) -> Story:
    told = Story(pack)
    told.tick("2026-08-03T08:00")
    return told


def revisions(story: Story, rule: str) -> list[tuple[int, str, str]]:
    """Every revision of the entries of a rule, in order: number, points, status."""
    story.replay.finish()
    return [
        (one.revision, one.points, one.status) for one in story.replay.decision_list() if one.rule == rule
    ]


def kinds(story: Story) -> list[tuple[str, str, str]]:
    """The newest decisions: rule, kind, points."""
    story.replay.finish()
    return sorted((one.rule, one.kind, one.points) for one in story.replay.newest_decisions().values())


def charge(story: Story, rule: str) -> Decision:
    story.replay.finish()
    found = [
        one for one in story.replay.newest_decisions().values() if one.rule == rule and one.kind != "waive"
    ]
    assert len(found) == 1, found
    return found[0]


def errors(story: Story, count: int, day: str = "2026-08-03", hour: int = 9) -> None:
    for minute in range(count):
        story.tell(f"{day}T{hour:02d}:{minute:02d}:00", "error.recorded")


# --- provisional and final --------------------------------------------------------------------------------------------


def test_an_entry_moves_in_revisions_while_the_month_runs_and_the_close_makes_it_final(story: Story) -> None:
    errors(story, 3)
    story.tick("2026-08-03T09:30")
    errors(story, 1, hour=10)
    story.tick("2026-08-03T10:30")
    story.tick("2026-09-03T23:59")
    assert revisions(story, "errors") == [(1, "-3", "provisional"), (2, "-6", "provisional")]
    story.tick("2026-09-04T00:00")
    assert revisions(story, "errors")[2:] == [(3, "-6", "final")]
    final = charge(story, "errors")
    assert (final.at, final.period, final.kind) == ("2026-09-04T00:00:00+08:00", "2026-08", "deduct")
    assert final.facts["errors.month"].value == "4"
    assert final.parameters["error_limit"].value == "2"
    assert [step.calculation for step in final.arithmetic] == ["floor((4 - 2) / 1)", "2 * 3"]
    story.ticks("2026-09-04T00:05", "2026-09-20T00:00", 86_400_000)
    assert len(revisions(story, "errors")) == 3


def test_at_the_limit_nothing_is_charged(story: Story) -> None:
    errors(story, 2)
    story.tick("2026-09-05T00:00")
    assert story.decisions() == []


def test_the_cap_holds(story: Story) -> None:
    errors(story, 30)
    story.tick("2026-09-05T00:00")
    assert story.decisions() == [("errors", "2026-08", "-12", "final")]


def test_the_parameters_of_a_month_are_those_of_its_first_day(story: Story) -> None:
    errors(story, 3, "2026-08-31")
    errors(story, 3, "2026-09-01")
    story.tick("2026-10-05T00:00")
    assert story.decisions() == [("errors", "2026-08", "-3", "final"), ("errors", "2026-09", "-3", "final")]
    newest = {one.period: one for one in story.replay.newest_decisions().values()}
    assert newest["2026-08"].parameters["step_points"].since == "2026-01-01"
    assert newest["2026-09"].parameters["step_points"].since == "2026-09-01"


def test_an_amount_whose_cause_has_gone_goes_back_to_zero_in_a_revision(tmp_path: Path) -> None:
    small = make_pack(
        tmp_path,
        metrics="""
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent]
  windows: [month]
""",
        rules="""
- id: slow
  level: [agent]
  judged: month
  when: wait.month > 60
  then:
    - deduct: {points: 4}
""",
    )
    story = Story(small)
    story.tell("2026-08-03T09:00:00", "call.answered", call_id="c-1", wait_ms=61_000)
    story.tick("2026-08-03T09:15")
    story.tell("2026-08-03T10:00:00", "call.answered", call_id="c-2", wait_ms=1_000)
    story.tick("2026-09-05T00:00")
    assert revisions(story, "slow") == [(1, "-4", "provisional"), (2, "0", "provisional"), (3, "0", "final")]


@pytest.mark.parametrize(
    ("second", "period"), [("2026-08-31T23:59:59", "2026-08"), ("2026-09-01T00:00:00", "2026-09")]
)
def test_the_month_turns_at_local_midnight(story: Story, second: str, period: str) -> None:
    story.tell(second, "complaint.upheld", complaint_id="c-1")
    story.tell(second, "error.recorded")
    story.tick("2026-09-01T00:10")
    assert charge(story, "complaint").period == period
    assert story.figure("errors", "month", period) == 1


def test_sites_close_by_their_own_clocks(pack: Pack) -> None:
    zones = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"})
    story = Story(pack, zones=zones)
    story.tell("2026-08-03T08:00:00", "roster.changed", "a-1", site="shanghai")
    story.tell("2026-08-03T08:00:00", "roster.changed", "a-2", site="berlin")
    for agent in ("a-1", "a-2"):
        story.tell("2026-09-01T03:00:00", "complaint.upheld", agent, complaint_id="c-1")
    periods = {one.subject: (one.period, one.at) for one in story.replay.newest_decisions().values()}
    story.replay.finish()
    periods = {one.subject: (one.period, one.at) for one in story.replay.newest_decisions().values()}
    assert periods == {
        "a-1": ("2026-09", "2026-09-01T03:00:00+08:00"), "a-2": ("2026-08", "2026-08-31T21:00:00+02:00"),
    }  # fmt: skip
    story.tick("2026-09-04T05:59")
    finals = [
        one.subject for one in story.replay.grade_list() if (one.status, one.period) == ("final", "2026-08")
    ]
    assert finals == ["a-1"]
    story.tick("2026-09-04T06:00")
    finals = [
        one.subject for one in story.replay.grade_list() if (one.status, one.period) == ("final", "2026-08")
    ]
    assert finals == ["a-1", "a-2"]


def test_who_moves_to_another_zone_keeps_the_month_and_gets_its_close(pack: Pack) -> None:
    zones = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"})
    for move_at in ("2026-08-20T08:00:00", "2026-09-04T03:00:00"):
        story = Story(pack, zones=zones)
        story.tell("2026-08-03T08:00:00", "roster.changed", site="berlin")
        story.tell("2026-08-03T08:00:00", "roster.changed", "a-9", site="shanghai")
        errors(story, 3)
        story.tell(move_at, "roster.changed", site="shanghai")
        story.tick("2026-09-10T00:00")
        final = [one for one in story.grades() if one[0] == "2026-08"]
        assert story.decisions() == [("errors", "2026-08", "-3", "final")]
        assert sorted(final) == [("2026-08", "100", "A", "final"), ("2026-08", "97", "A", "final")]


# --- late -------------------------------------------------------------------------------------------------------------


def test_late_within_the_grace_counts_where_it_belongs(story: Story) -> None:
    errors(story, 2)
    story.tick("2026-09-03T20:00")
    story.late("2026-08-31T23:00:00", "error.recorded")
    story.tick("2026-09-04T00:00")
    assert story.decisions() == [("errors", "2026-08", "-3", "final")]


def test_late_after_the_close_becomes_an_adjustment_of_the_running_month_that_names_the_closed_one(
    story: Story,
) -> None:
    errors(story, 3)
    story.tick("2026-09-04T00:00")
    story.late("2026-08-31T23:00:00", "error.recorded")
    story.tick("2026-09-04T00:30")
    newest = story.replay.newest_decisions().values()
    found = [(one.kind, one.period, one.adjusts_period, one.points, one.status) for one in newest]
    assert found == [
        ("deduct", "2026-08", "", "-3", "final"),
        ("adjust", "2026-09", "2026-08", "-3", "final"),
    ]
    story.late("2026-08-31T22:00:00", "error.recorded")
    story.tick("2026-09-04T01:30")
    assert sum(Fraction(points) for _, _, points, _ in story.decisions()) == -9
    story.tick("2026-10-04T00:00")
    assert sum(Fraction(points) for _, _, points, _ in story.decisions()) == -9
    grades = {period: score for period, score, _, status in story.grades() if status == "final"}
    assert grades == {"2026-08": "97", "2026-09": "94"}


def test_an_adjustment_in_a_later_month_counts_what_was_adjusted_before(tmp_path: Path) -> None:
    small = make_pack(
        tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=RULES, scorecard=SCORECARD, grace="1h"
    )
    story = Story(small)
    story.tick("2026-08-03T08:00")
    errors(story, 3)
    story.tick("2026-09-29T00:00")
    story.late("2026-08-31T23:00:00", "error.recorded")
    story.tick("2026-10-05T00:00")
    story.late("2026-08-31T22:00:00", "error.recorded")
    story.tick("2026-10-06T00:00")
    entries = [(period, points) for _, period, points, _ in story.decisions()]
    assert entries == [("2026-08", "-3"), ("2026-09", "-3"), ("2026-10", "-3")]


def test_an_incident_that_comes_twice_is_charged_once_even_after_the_close(story: Story) -> None:
    story.tell("2026-08-31T09:00:00", "complaint.upheld", complaint_id="c-1")
    story.tick("2026-09-04T00:00")
    story.late("2026-08-31T09:00:00", "complaint.upheld", complaint_id="c-1", id="another")
    story.late("2026-08-31T10:00:00", "complaint.upheld", complaint_id="c-2")
    story.tick("2026-10-04T00:00")
    story.late("2026-08-31T10:00:00", "complaint.upheld", complaint_id="c-2", id="once more")
    newest = story.replay.newest_decisions().values()
    story.replay.finish()
    newest = story.replay.newest_decisions().values()
    found = [(one.incident, one.period, one.adjusts_period) for one in newest]
    assert found == [("c-1", "2026-08", ""), ("c-2", "2026-09", "2026-08")]


def test_someone_first_heard_of_by_a_late_event_gets_that_month_closed_too(story: Story) -> None:
    story.tell("2026-09-01T09:00:00", "error.recorded")
    for minute in range(3):
        story.late(f"2026-08-31T09:{minute:02d}:00", "error.recorded")
    story.tick("2026-09-04T00:00")
    assert story.decisions()[0] == ("errors", "2026-08", "-3", "final")
    assert ("2026-08", "97", "A", "final") in story.grades()


# --- zones that were left ---------------------------------------------------------------------------------------------


SITES = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin", "nome": "America/Nome"})
"""Shanghai closes August on September 4 at 0:00 of its clock, Berlin at 6:00 and Nome at 16:00."""
Decided = tuple[str, str, str, str, str, str, str, str]
Graded = tuple[str, str, str, str, str]


class Mover(Story):
    """A story of which each partition is stored and restored when somebody moves."""

    def __init__(self, *packs: Pack, partitions: int = 1) -> None:
        super().__init__(*packs, zones=SITES, partitions=partitions)
        self.stored = [Stored() for _ in range(partitions)]

    def go(self, when: str, site: str) -> None:
        """A move, and a restart after it."""
        self.tell(when, "roster.changed", site=site)
        self.replay.finish()
        for index, stored in enumerate(self.stored):
            save(self.replay.engines[index], stored)
            successor = PartitionEngine(self.replay.packs, zones=SITES, partition=index)
            successor.restore(dict(stored))
            self.replay.engines[index] = successor


def in_shanghai(*packs: Pack, partitions: int = 1) -> Mover:
    """August of somebody in Shanghai: three errors and a complaint."""
    story = Mover(*packs, partitions=partitions)
    story.tell("2026-08-03T08:00:00", "roster.changed", site="shanghai")
    errors(story, 3)
    story.tell("2026-08-03T10:00:00", "complaint.upheld", complaint_id="c-1")
    return story


def too_late(story: Story, number: int, day: str = "2026-08-31") -> None:
    """An error and a complaint of a day that lies back."""
    story.late(f"{day}T09:00:00", "error.recorded", id=f"error-{number}")
    story.late(f"{day}T09:00:00", "complaint.upheld", complaint_id=f"late-{number}", id=f"complaint-{number}")


def outcome(story: Story) -> tuple[list[Decided], list[Graded]]:
    """The newest revision of every decision, and all grades that were no provisional ones."""
    story.replay.finish()
    of = attrgetter(
        "rule", "incident", "kind", "period", "adjusts_period", "points", "status", "pack_version"
    )
    decided = sorted(of(one) for one in story.replay.newest_decisions().values())
    grades = [one for one in story.replay.grade_list() if one.status != "provisional"]
    return decided, [(one.period, one.score, one.grade, one.status, one.pack_version) for one in grades]


def moved_after_the_close(
    pack: Pack, ways: tuple[str, ...], partitions: int
) -> tuple[list[Decided], list[Graded]]:
    """Of somebody who is in Shanghai when August is closed, moves from hour to hour, and of whom much comes late."""
    story = in_shanghai(pack, partitions=partitions)
    story.tick("2026-09-04T00:30")
    too_late(story, 0)
    for hour in (1, 2, 3):
        story.tick(f"2026-09-04T0{hour}:00")
        too_late(story, 10 * hour)
        if ways[hour - 1 :]:
            story.go(f"2026-09-04T0{hour}:06:00", ways[hour - 1])  # counted, and not judged yet
        too_late(story, hour)
        story.late("2026-08-31T09:00:00", "complaint.upheld", complaint_id="late-0", id=f"again-{hour}")
        story.tick(f"2026-09-04T0{hour}:30")
    story.late("2026-09-04T03:10:00", "exemption.granted", exemption_id="x-1", incident="c-1")
    story.tick("2026-09-05T00:00")
    too_late(story, 4)
    story.tick("2026-10-05T00:00")
    return outcome(story)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize(
    "ways",
    [
        ("berlin",), ("berlin", "nome"), ("nome", "berlin"), ("berlin", "shanghai"), ("berlin", "shanghai", "berlin"),
        ("nome", "shanghai", "berlin"), ("berlin", "nome", "berlin"),
    ],
)  # fmt: skip
def test_a_closed_month_stays_closed_for_who_moves_to_a_zone_that_closes_it_later(
    tmp_path: Path, ways: tuple[str, ...], partitions: int
) -> None:
    rules = RULES.replace("at_most: 12", "at_most: 60")
    pack = make_pack(tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=rules, scorecard=SCORECARD)
    stayed = moved_after_the_close(pack, (), 1)
    assert [one for one in stayed[0] if one[3] == "2026-08"] == [
        ("complaint", "c-1", "deduct", "2026-08", "", "-5", "final", "1.0"),
        ("errors", "", "deduct", "2026-08", "", "-3", "final", "1.0"),
    ]
    assert ("errors", "", "adjust", "2026-09", "2026-08", "-24", "final", "1.0") in stayed[0]
    assert ("exemption", "c-1", "waive", "2026-09", "2026-08", "5", "final", "1.0") in stayed[0]
    assert [one[:2] for one in stayed[1]] == [("2026-08", "92"), ("2026-09", "80")]
    assert moved_after_the_close(pack, ways, partitions) == stayed


def test_a_month_that_is_closed_for_one_is_open_for_others_of_the_same_zone_of_whom_the_same_waits(
    pack: Pack,
) -> None:
    story = in_shanghai(pack)
    for agent in ("a-0", "b-1"):
        story.tell("2026-08-04T08:00:00", "roster.changed", agent, site="berlin")
        for minute in range(2):
            story.late(f"2026-08-04T07:0{minute}:00", "error.recorded", agent)
    story.tick("2026-09-04T01:00")
    story.go("2026-09-04T01:00:00", "berlin")
    for agent in ("b-1", "a-1", "a-0"):
        story.late("2026-08-31T09:00:00", "error.recorded", agent)
    story.tick("2026-09-04T01:30")
    story.replay.finish()
    found = sorted(
        (one.subject, one.kind, one.period, one.points, one.status)
        for one in story.replay.newest_decisions().values()
        if one.rule == "errors"
    )
    assert found == [
        ("a-0", "deduct", "2026-08", "-3", "provisional"),
        ("a-1", "adjust", "2026-09", "-3", "final"),
        ("a-1", "deduct", "2026-08", "-3", "final"),
        ("b-1", "deduct", "2026-08", "-3", "provisional"),
    ]


def test_what_waits_when_somebody_moves_to_a_zone_that_closes_later_is_not_lost(pack: Pack) -> None:
    """Neither what came before the move, nor what came just before the close of the new zone."""
    for move_at, late_at in (("T00:10:00", "T00:05"), ("T00:10:00", "T05:59"), ("T05:50:00", "T05:46")):
        story = in_shanghai(pack)
        story.tick("2026-09-04T00:00")
        for when in sorted((move_at, late_at)):
            if when == move_at:
                story.go(f"2026-09-04{when}", "berlin")
            else:
                story.tick(f"2026-09-04{when}")
                too_late(story, 1)
        story.tick("2026-09-05T00:00")
        assert ("errors", "2026-09", "-3", "final") in story.decisions()
        assert [grade for grade in outcome(story)[1] if grade[0] == "2026-08"] == [
            ("2026-08", "92", "B", "final", "1.0")
        ]


def test_a_closed_month_is_not_closed_again_for_who_moves_back(pack: Pack) -> None:
    """Nothing was charged in it; what had been counted, and not judged, before the way back came too late."""
    story = Mover(pack)
    story.tell("2026-08-03T08:00:00", "roster.changed", site="shanghai")
    errors(story, 2)
    closed: list[tuple[str, str]] = []
    story.tick("2026-09-04T01:00")
    story.go("2026-09-04T01:00:00", "berlin")
    story.tick("2026-09-04T02:00")
    story.late("2026-08-31T09:00:00", "error.recorded")
    story.replay.engines[0].judge.on_close = lambda subject, _, period, __: closed.append(
        (subject.name, period.label)
    )
    story.tell("2026-09-04T02:06:00", "roster.changed", site="shanghai")
    story.tick("2026-09-05T00:00")
    assert story.decisions() == [("errors", "2026-09", "-3", "final")]
    assert closed == []


def test_a_month_that_another_version_began_is_closed_once_for_who_moves_to_a_zone_that_closed_it(
    versions: tuple[Pack, Pack],
) -> None:
    story = Story(*versions, zones=SITES)
    story.tell("2026-08-03T08:00:00", "roster.changed", site="berlin")
    errors(story, 3)
    closed: list[tuple[str, str]] = []
    story.replay.engines[0].judge.on_close = lambda _, pack, period, __: closed.append(
        (pack.version, period.label)
    )
    story.tell("2026-08-03T09:00:00", "roster.changed", "b-1", site="shanghai")
    activate(story, "2026-09-04T02:00", "2.0")
    closed.clear()
    story.tell("2026-09-04T03:00:00", "roster.changed", site="shanghai")
    story.tick("2026-09-05T00:00")
    assert closed == [("1.0", "2026-08")]


@pytest.mark.parametrize(
    ("home", "activated_at", "moved_at", "site", "version"),
    [
        ("shanghai", "03:00", "02:00", "berlin", "1.0"),
        ("shanghai", "02:00", "03:00", "berlin", "1.0"),
        ("shanghai", "02:00", "07:00", "berlin", "1.0"),
        ("berlin", "02:00", "07:00", "shanghai", "2.0"),
        ("berlin", "02:00", "03:00", "shanghai", "1.0"),
    ],
)
def test_who_moves_is_judged_for_a_closed_month_by_the_version_that_closed_it_for_them(
    versions: tuple[Pack, Pack], home: str, activated_at: str, moved_at: str, site: str, version: str
) -> None:
    """Whichever closed it in the zone where they are now."""
    story = in_shanghai(*versions)
    story.tell("2026-08-04T08:00:00", "roster.changed", site=home)
    for what, when in sorted([("activate", activated_at), ("go", moved_at)], key=lambda one: one[1]):
        if what == "activate":
            activate(story, f"2026-09-04T{when}", "2.0")
        else:
            story.go(f"2026-09-04T{when}:00", site)
    too_late(story, 1)
    story.tick("2026-09-04T18:00")
    story.go("2026-09-04T18:00:00", "nome")
    too_late(story, 2)
    story.tick("2026-09-10T00:00")
    each = {"1.0": 3, "2.0": 1}[version]
    about_august = [
        one[3:] for one in outcome(story)[0] if one[0] == "errors" and one[3:5] != ("2026-09", "")
    ]
    assert about_august == [
        ("2026-09", "2026-08", str(-2 * each), "final", version), ("2026-08", "", str(-each), "final", version),
    ]  # fmt: skip
    closed = [one for one in story.replay.grade_list() if (one.period, one.status) == ("2026-08", "final")]
    assert [one.pack_version for one in closed] == [version]


def test_what_is_too_late_for_a_month_that_still_runs_in_the_new_zone_goes_into_the_next_one(
    tmp_path: Path,
) -> None:
    own = make_pack(
        tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=RULES, scorecard=SCORECARD, grace="0h"
    )
    story = in_shanghai(own)
    story.tick("2026-09-01T00:00")
    story.go("2026-09-01T01:00:00", "berlin")
    too_late(story, 1)
    story.tell("2026-09-01T02:00:00", "error.recorded")
    story.tell("2026-09-01T02:00:00", "complaint.upheld", complaint_id="c-2")
    story.tell("2026-09-01T03:00:00", "exemption.granted", exemption_id="x-1", incident="c-1")
    story.tick("2026-09-01T05:00")
    decided = outcome(story)[0]
    assert [one[0:5] for one in decided] == [
        ("complaint", "c-1", "deduct", "2026-08", ""), ("complaint", "c-2", "deduct", "2026-09", "2026-08"),
        ("complaint", "late-1", "deduct", "2026-09", "2026-08"), ("errors", "", "adjust", "2026-09", "2026-08"),
        ("errors", "", "deduct", "2026-08", ""), ("exemption", "c-1", "waive", "2026-09", "2026-08"),
    ]  # fmt: skip
    story.tick("2026-10-02T00:00")
    assert outcome(story)[0] == decided
    assert [one[:4] for one in outcome(story)[1]] == [
        ("2026-08", "92", "B", "final"), ("2026-09", "84", "C", "final")
    ]  # fmt: skip


@pytest.mark.parametrize("site", ["berlin", "shanghai"])
def test_a_month_that_was_closed_early_stays_closed_for_who_moves(pack: Pack, site: str) -> None:
    """By an order, when the month still ran in the new zone; and opened again it takes what comes late itself."""
    story = in_shanghai(pack)
    story.tick("2026-09-01T01:00")
    order(story, "2026-09-01T01:00:00", "period.closed")
    story.go("2026-09-01T02:00:00", site)
    too_late(story, 1)
    story.tick("2026-09-01T03:00")
    assert ("errors", "2026-09", "-3", "final") in story.decisions()
    order(story, "2026-09-01T04:00:00", "period.reopened")
    too_late(story, 2)
    story.tick("2026-09-01T05:00")
    order(story, "2026-09-01T05:00:00", "period.closed")
    too_late(story, 3)
    story.tick("2026-09-20T00:00")
    assert sum(Fraction(points) for rule, _, points, _ in story.decisions() if rule == "errors") == -12
    august = [one for one in outcome(story)[0] if one[0] == "complaint" and one[3] == "2026-08"]
    assert [one[1] for one in august] == ["c-1", "late-2"]
    assert [one[:2] for one in outcome(story)[1]] == [
        ("2026-08", "92"), ("2026-08", "84.5"), ("2026-08", "87.5"), ("2026-08", "81.5")
    ]  # fmt: skip


def order(story: Story, when: str, tag: str) -> None:
    story.tell(
        when, tag, "", subject="periods", pack="small", window="month", period="2026-08", by="hr", reason="So."
    )  # fmt: skip


WEEKS = """
- id: errors
  level: [agent]
  judged: week
  when: errors.week > 1
  then:
    - deduct: {points: 3, per: 1, over: 1, of: errors.week}
""" + COMPLAINT.replace("p.complaint_points", "5")


@pytest.mark.parametrize("site", ["berlin", "shanghai"])
def test_a_closed_week_stays_closed_for_who_moves_and_a_complaint_of_a_month_without_score_too(
    tmp_path: Path, site: str
) -> None:
    own = make_pack(tmp_path, metrics=METRICS.replace("[month]", "[week]"), rules=WEEKS)
    story = in_shanghai(own)
    story.tick("2026-08-13T00:30")
    story.late("2026-08-03T09:30:00", "error.recorded")
    story.go("2026-08-13T01:00:00", site)
    story.late("2026-08-03T09:31:00", "error.recorded")
    story.tick("2026-09-04T07:00")
    too_late(story, 1)
    story.tick("2026-09-04T07:30")
    story.go("2026-09-04T08:00:00", {"berlin": "nome", "shanghai": "shanghai"}[site])
    story.late("2026-08-31T09:00:00", "complaint.upheld", complaint_id="late-1", id="again")
    story.tick("2026-10-10T00:00")
    assert [one[1:6] for one in outcome(story)[0]] == [
        ("c-1", "deduct", "2026-08", "", "-5"), ("late-1", "deduct", "2026-09", "2026-08", "-5"),
        ("", "adjust", "2026-W33", "2026-W32", "-6"), ("", "deduct", "2026-W32", "", "-6"),
    ]  # fmt: skip


def test_a_month_in_which_nobody_knew_an_agent_is_open_until_their_own_zone_closes_it(pack: Pack) -> None:
    story = Mover(pack)
    story.tell("2026-09-03T08:00:00", "roster.changed", site="shanghai")
    story.go("2026-09-04T01:00:00", "berlin")
    errors(story, 1, "2026-09-04", hour=2)
    for minute in range(3):
        story.late(f"2026-08-31T09:0{minute}:00", "error.recorded")
    story.tick("2026-09-05T00:00")
    assert ("errors", "2026-08", "-3", "final") in story.decisions()
    assert ("2026-08", "97", "A", "final") in story.grades()


def test_what_a_zone_that_was_left_had_closed_is_forgotten_with_the_month(pack: Pack) -> None:
    story = in_shanghai(pack)
    story.tick("2026-09-04T01:00")
    story.go("2026-09-04T01:00:00", "berlin")
    agent = story.replay.engines[0].judge.subjects["agent", "a-1"]
    assert agent.closed_elsewhere == {"small|month|2026-08": "1.0"}
    story.ticks("2026-09-04T02:00", "2026-10-13T00:00", 86_400_000)
    assert agent.closed_elsewhere
    story.ticks("2026-10-14T08:00", "2026-10-16T08:00", 86_400_000)
    assert agent.closed_elsewhere == {}
    story.go("2026-10-17T01:00:00", "shanghai")
    assert story.replay.engines[0].judge.subjects["agent", "a-1"].closed_elsewhere == {}


def test_who_was_stored_before_it_was_noted_what_other_zones_closed_is_restored(pack: Pack) -> None:
    story = in_shanghai(pack)
    story.tick("2026-08-03T11:00")
    engine = story.replay.engines[0]
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    key, before = (
        storing.stored_key("s", ("agent", "a-1")),
        StoredSubject.__struct_fields__.index("closed_elsewhere"),
    )
    stored[key] = msgspec.msgpack.encode(msgspec.msgpack.decode(stored[key])[:before])
    successor = PartitionEngine((pack,), zones=SITES)
    successor.restore(stored)
    story.replay.engines[0] = successor
    story.tick("2026-09-05T00:00")
    assert ("errors", "2026-08", "-3", "final") in story.decisions()


# --- scores and grades ------------------------------------------------------------------------------------------------


def test_grades_follow_the_bands_and_the_score_stays_in_its_bounds(pack: Pack) -> None:
    for ratings, score, grade in (
        (["fair"], "100", "A"), (["poor"] * 2 + ["good"], "97", "A"), (["poor"] * 3, "94", "B"),
        (["poor"] * 5, "90", "B"), (["poor"] * 6, "88", "C"), (["poor"] * 12, "80", "C"), (["excellent"], "110", "A"),
    ):  # fmt: skip
        story = Story(pack)
        story.tick("2026-08-03T08:00")
        for minute, rating in enumerate(ratings):
            story.tell(f"2026-08-03T09:{minute:02d}:00", "survey.cross_department", rating=rating)
        story.tick("2026-09-04T00:00")
        assert story.grades() == [("2026-08", score, grade, "final")]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["excellent", "good", "fair", "poor", "error", "upheld", "waive"]), max_size=25)
)
def test_points_of_the_entries_add_up_to_the_score(pack: Pack, steps: list[str]) -> None:
    story = Story(pack)
    story.tell("2026-08-03T08:00:00", "roster.changed", team="t-1")
    upheld = 0
    for minute, step in enumerate(steps):
        when = f"2026-08-03T09:{minute:02d}:00"
        if step == "error":
            story.tell(when, "error.recorded")
        elif step == "upheld":
            upheld += 1
            story.tell(when, "complaint.upheld", complaint_id=f"c-{upheld}")
        elif step == "waive":
            story.tell(when, "exemption.granted", exemption_id=f"x-{minute}", incident=f"c-{max(upheld, 1)}")
        else:
            story.tell(when, "survey.cross_department", rating=step)
    story.tick("2026-09-04T00:00")
    story.replay.finish()
    newest = {one.id: one for one in story.replay.newest_decisions().values()}
    charged = sum((Fraction(one.points) for one in newest.values()), Fraction(0))
    (grade,) = {one.id: one for one in story.replay.grade_list()}.values()
    assert Fraction(grade.score) == min(max(100 + charged, Fraction(80)), Fraction(110))
    assert set(grade.entries) == {one.id for one in newest.values() if one.points != "0"}
    assert all(one.status == "final" for one in newest.values())
    numbers = [[one.revision for one in story.replay.decision_list() if one.id == found] for found in newest]
    assert all(found == list(range(1, len(found) + 1)) for found in numbers)


def test_a_cap_holds_a_good_score_down_and_says_so_in_the_grade(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True)
    story.tick("2026-09-04T00:00")
    assert story.grades() == [("2026-08", "95", "B", "final")]
    last = story.replay.grade_list()[-1]
    assert "attitude" in last.explanation.en
    assert "attitude" in last.explanation.zh


def test_a_proposal_and_a_task_go_out_once_per_incident(story: Story) -> None:
    for event_id in ("first", "second"):
        story.tell(
            "2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1", bad_attitude=True, id=event_id
        )
    assert kinds(story) == [
        ("attitude", "proposal", "0"),
        ("attitude", "task", "0"),
        ("complaint", "deduct", "-5"),
    ]
    assert len(story.replay.decision_list()) == 3
    task = next(one for one in story.replay.decision_list() if one.kind == "task")
    assert (task.owner, task.due_at) == ("team_leader", "2026-08-17T09:00:00+08:00")


# --- waiving ----------------------------------------------------------------------------------------------------------


def test_a_waived_penalty_is_reversed_by_an_entry_that_names_it(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1")
    story.tell("2026-08-03T10:00:00", "exemption.granted", exemption_id="x-1", incident="c-1")
    story.tell("2026-08-03T10:00:01", "exemption.granted", exemption_id="x-2", incident="c-1")
    assert kinds(story) == [("complaint", "deduct", "-5"), ("exemption", "waive", "5")]
    waiver = next(one for one in story.replay.decision_list() if one.kind == "waive")
    assert waiver.reverses == charge(story, "complaint").id
    assert story.grades() == [("2026-08", "100", "A", "provisional")]


def test_an_exemption_may_come_before_what_it_excuses(pack: Pack) -> None:
    seen = set()
    for order in itertools.permutations(("upheld", "exemption")):
        story = Story(pack)
        story.tick("2026-08-03T11:00")
        for step in order:
            if step == "upheld":
                story.late("2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1", id="e-1")
            else:
                story.late(
                    "2026-08-03T10:00:00", "exemption.granted", exemption_id="x-1", incident="c-1", id="e-2"
                )
        story.late("2026-08-03T10:30:00", "complaint.upheld", complaint_id="c-2")
        seen.add(tuple(kinds(story)))
    assert seen == {
        (("complaint", "deduct", "-5"), ("complaint", "deduct", "-5"), ("exemption", "waive", "5")),
    }  # fmt: skip


def test_a_waived_entry_of_a_month_stays_waived_when_the_month_goes_on(story: Story) -> None:
    errors(story, 3)
    story.tick("2026-08-03T09:30")
    story.tell(
        "2026-08-03T10:00:00", "exemption.granted", exemption_id="x-1", incident=charge(story, "errors").id
    )
    errors(story, 5, hour=11)
    story.tick("2026-09-04T00:00")
    story.late("2026-08-31T23:00:00", "error.recorded")
    story.tick("2026-09-05T00:00")
    assert kinds(story) == [("errors", "deduct", "-3"), ("exemption", "waive", "3")]
    assert charge(story, "errors").status == "final"
    assert ("2026-08", "100", "A", "final") in story.grades()


def test_a_penalty_of_a_closed_month_is_waived_in_the_running_one(story: Story) -> None:
    story.tell("2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1")
    story.tell("2026-09-04T09:00:00", "exemption.granted", exemption_id="x-1", incident="c-1")
    story.replay.finish()
    waiver = next(one for one in story.replay.decision_list() if one.kind == "waive")
    assert (waiver.period, waiver.adjusts_period, waiver.points) == ("2026-09", "2026-08", "5")


CAP = """
- id: unanswered
  level: [agent]
  deadline: {name: response, outcome: missed}
  when: "true"
  then:
    - grade: {at_most: C}
"""
RESPONSE = """
response:
  opens: complaint.logged
  key: complaint_id
  met_by: [complaint.responded]
  within: p.response_limit
"""
RESPONSE_LIMIT = """
response_limit:
  unit: h
  min: 0
  max: 10
  values: {2026-01-01: 2}
"""


def test_a_cap_of_a_miss_goes_with_the_miss_and_stays_for_another(tmp_path: Path) -> None:
    own = make_pack(
        tmp_path, parameters=PARAMETERS + RESPONSE_LIMIT, metrics=METRICS, deadlines=RESPONSE, rules=RULES + CAP,
        scorecard=SCORECARD,
    )  # fmt: skip
    story = Story(own)
    story.tick("2026-08-03T08:00")
    for key in ("c-1", "c-2"):
        story.tell("2026-08-03T09:00:00", "complaint.logged", complaint_id=key)
    story.tick("2026-08-03T12:00")
    assert story.grades() == [("2026-08", "100", "C", "provisional")]
    story.late("2026-08-03T10:00:00", "complaint.responded", complaint_id="c-1")
    assert story.grades() == [("2026-08", "100", "C", "provisional")]
    story.late("2026-08-03T10:00:00", "complaint.responded", complaint_id="c-2")
    assert story.grades() == [("2026-08", "100", "A", "provisional")]


# --- alerts -----------------------------------------------------------------------------------------------------------


def waits(story: Story, minute: int, seconds: int, calls: int = 1, hour: int = 9) -> None:
    for call in range(calls):
        story.tell(
            f"2026-08-03T{hour:02d}:{minute:02d}:{call:02d}", "call.answered", queue="q-1", call_id="c",
            wait_ms=seconds * 1000, team="t-1",
        )  # fmt: skip


def slow(story: Story) -> list[tuple[str, str]]:
    return [(state, when) for rule, _, state, when in story.alerts() if rule == "slow"]


def test_an_alert_fires_after_its_hold_time_and_only_once(story: Story) -> None:
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:03")
    assert slow(story) == []
    story.tick("2026-08-03T09:04")
    assert slow(story) == [("firing", "09:04")]
    waits(story, 6, 200)
    story.ticks("2026-08-03T09:07", "2026-08-03T09:12")
    assert slow(story) == [("firing", "09:04")]
    (alert,) = [one for one in story.replay.alert_list() if one.rule == "slow"]
    assert alert.since == "2026-08-03T09:01:00+08:00"


def test_a_short_peak_fires_nothing(story: Story) -> None:
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:02")
    waits(story, 2, 1, calls=20)
    story.ticks("2026-08-03T09:03", "2026-08-03T09:30")
    assert slow(story) == []


def test_between_the_limits_it_neither_clears_nor_fires_again(story: Story) -> None:
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:05")
    waits(story, 5, 1)
    story.ticks("2026-08-03T09:06", "2026-08-03T09:08")
    assert slow(story) == [("firing", "09:04")], "50.5 s is under the limit but over the clearing value"
    waits(story, 8, 100)
    story.ticks("2026-08-03T09:09", "2026-08-03T09:12")
    waits(story, 12, 1, calls=3)
    story.ticks("2026-08-03T09:13", "2026-08-03T09:14")
    assert slow(story) == [("firing", "09:04"), ("resolved", "09:13")]


def test_without_data_an_alert_ends(story: Story) -> None:
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:40")
    assert slow(story) == [("firing", "09:04"), ("resolved", "09:16")]
    assert len({one.id for one in story.replay.alert_list() if one.rule == "slow"}) == 1


def test_a_limit_that_changes_at_midnight_changes_the_alert_although_nothing_else_does(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T23:00")
    story.tell("2026-08-03T23:58:00", "call.answered", queue="q-1", call_id="c", wait_ms=50_000)
    story.ticks("2026-08-03T23:59", "2026-08-04T00:05")
    assert slow(story) == [("firing", "00:03")]


def test_rules_over_a_day_are_watched_without_any_rolling_window(tmp_path: Path) -> None:
    metrics = METRICS.replace("windows: [day, month, rolling 15m]", "windows: [day, month]").replace(
        "level: [agent, queue, team]", "level: [team]"
    )
    rules = RULES[RULES.index("- id: busy-team") :]
    story = Story(make_pack(tmp_path, parameters=PARAMETERS, metrics=metrics, rules=rules))
    story.tick("2026-08-03T08:00")
    waits(story, 0, 1, calls=3)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:30")
    judge = story.replay.group.judge
    assert judge.due_ms() == at_ms("2026-08-04T00:00"), (
        "nobody looks at an alert that stands before something moves it"
    )
    story.tick("2026-08-04T00:10")
    assert [one[2:] for one in story.alerts()] == [("firing", "09:05"), ("resolved", "00:05")]


BUSY = """
- id: busy
  level: [agent]
  watch: live
  when: answered.day >= 3
  then:
    - alert: {clear: answered.day < 3, severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
"""


def standing(folder: Path) -> Story:
    """The alert about an agent stands since nine, and nothing has come for hours."""
    metrics = METRICS.replace("windows: [day, month, rolling 15m]", "windows: [day, month]")
    story = Story(make_pack(folder, parameters=PARAMETERS, metrics=metrics, rules=BUSY))
    story.tick("2026-08-03T08:00")
    for call in range(3):
        story.tell(f"2026-08-03T09:0{call}:00", "call.answered", call_id=f"c-{call}")
    story.tick("2026-08-03T12:00")
    assert [one[2:] for one in story.alerts()] == [("firing", "09:05")]
    (engine,) = story.replay.engines
    assert engine.judge.due_ms() == at_ms("2026-08-04T00:00"), "nobody looks at it meanwhile"
    return story


def hand_over(story: Story) -> None:
    """Successors of both stages take over from their checkpoints."""
    replay, successors = story.replay, Replay(story.replay.packs, zones=story.replay.zones)
    (engine,) = replay.engines
    for old, new in ((engine, successors.engines[0]), (replay.group, successors.group)):
        save(old, stored := Stored())
        new.restore(stored)
    replay.engines, replay.group = successors.engines, successors.group


def test_an_alert_that_stands_ends_when_its_pack_is_in_force_no_more_for_the_agent(tmp_path: Path) -> None:
    story = standing(tmp_path)
    story.tell("2026-08-03T12:00:30", "roster.changed", packs=["another"])
    story.tick("2026-08-03T12:10")
    assert [one[2:] for one in story.alerts()][1:] == [("resolved", "12:05")]


def test_an_alert_that_stands_is_looked_at_by_a_successor_as_by_the_engine_before(tmp_path: Path) -> None:
    story = standing(tmp_path)
    hand_over(story)
    story.tick("2026-08-05T12:00")
    assert [one[2:] for one in story.alerts()] == [("firing", "09:05"), ("resolved", "00:05")]
    (successor,) = story.replay.engines
    assert not successor.judge.watching.resting
    assert not successor.judge.watching.live


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_agent_whose_alert_ended_is_not_looked_at_because_it_once_rested(
    tmp_path: Path, handed_over: bool
) -> None:
    story = standing(tmp_path)
    story.tell("2026-08-03T12:00:30", "roster.changed", packs=["another"])
    story.tick("2026-08-03T12:10")
    if handed_over:
        hand_over(story)
    story.tell("2026-08-03T12:10:30", "roster.changed", packs=[])
    story.tick("2026-08-03T12:30")
    assert [one[2:] for one in story.alerts()] == [("firing", "09:05"), ("resolved", "12:05")]


def test_a_team_of_which_something_comes_late_is_looked_at_by_a_successor_too(tmp_path: Path) -> None:
    rules = RULES[RULES.index("- id: busy-team") :]
    story = Story(make_pack(tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=rules))
    story.tick("2026-08-03T12:01")
    for call in range(3):
        story.late(f"2026-08-03T09:0{call}:00", "call.answered", call_id=f"c-{call}", team="t-1")
    story.tick("2026-08-03T12:02")
    hand_over(story)
    story.tick("2026-08-03T13:00")
    assert story.alerts() == [("busy-team", "t-1", "firing", "12:05")]


LOOKING_BACK = """
- id: idle-day
  level: [agent, team]
  watch: live
  when: answered.previous_day >= 1 && answered.previous_day < 3
  then:
    - alert: {clear: answered.previous_day == 0, severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
"""


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_day_that_is_over_is_looked_back_at_although_nothing_comes_any_more(
    tmp_path: Path, handed_over: bool
) -> None:
    metrics = METRICS.replace("windows: [day, month, rolling 15m]", "windows: [day, month]")
    small = make_pack(tmp_path, parameters=PARAMETERS, metrics=metrics, rules=LOOKING_BACK)
    story = Story(small, zones=Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"}))
    story.tick("2026-08-03T08:00")
    for agent, site, calls in (("a-1", "shanghai", 2), ("a-2", "berlin", 2), ("a-3", "shanghai", 3)):
        story.tell("2026-08-03T08:00:00", "roster.changed", agent, site=site)
        for call in range(calls):
            story.tell(
                f"2026-08-03T09:0{call}:00", "call.answered", agent, call_id=f"c-{call}", team=f"t-{agent}"
            )
    story.tick("2026-08-04T00:04")
    assert story.alerts() == []
    if handed_over:
        hand_over(story)
    story.tick("2026-08-06T12:00")
    shanghai, berlin = (
        (("firing", "2026-08-04T00:05"), ("resolved", "2026-08-05T00:05")),
        "2026-08-04T00:05:00+02:00",
    )
    said = [(one.subject, one.state, one.at) for one in story.replay.alert_list()]
    for name in ("a-1", "t-a-1", "t-a-2"):
        assert [(state, when[:16]) for subject, state, when in said if subject == name] == list(shanghai)
    assert ("a-2", "firing", berlin) in said, "an agent's day is over where the agent is"
    assert len(said) == 8, "three calls are enough, and no day is looked at twice"


@pytest.mark.parametrize("others", [0, 1])
def test_when_a_day_is_looked_back_at_does_not_depend_on_the_zones_of_others(
    tmp_path: Path, others: int
) -> None:
    rules = {"1.0": LOOKING_BACK.replace("day >= 1", "day >= 2"), "2.0": LOOKING_BACK}
    packs = [
        make_pack(tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=text, version=version)
        for version, text in rules.items()
    ]
    story = Story(*packs, zones=Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"}))
    story.tick("2026-08-03T08:00")
    story.tell("2026-08-03T09:00:00", "call.answered", call_id="c-1")
    for _ in range(others):
        story.tell("2026-08-03T09:00:00", "roster.changed", "b-1", site="berlin")
    story.tick("2026-08-04T01:00")
    activate(story, "2026-08-04T01:00", "2.0")
    story.tick("2026-08-05T12:00")
    assert [one[2:] for one in story.alerts()] == [("firing", "00:00"), ("resolved", "00:05")]


PER_CUSTOMER = """
- id: often
  level: [queue]
  watch: live
  when: calls_each.day > 2 && calls_each.day.base >= 2
  then:
    - alert: {clear: calls_each.day <= 2, severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
  explanation: {en: "{calls_each.day} calls of {calls_each.day.base} customers", zh: "{calls_each.day}"}
- id: more-often
  level: [queue]
  judged: month
  at_close_only: true
  when: calls_each.month.vs_previous > 0.5
  then:
    - alert: {severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
"""


def test_a_ratio_to_a_distinct_count_is_watched_and_compared(tmp_path: Path) -> None:
    metrics = """
calls_each:
  ratio: {of: call.answered, to: {distinct: {field: customer, of: call.answered}}}
  level: [queue]
  windows: [day, month]
"""
    story = Story(make_pack(tmp_path, parameters=PARAMETERS, metrics=metrics, rules=PER_CUSTOMER))
    story.tick("2026-08-03T08:00")

    def answered(day: str, calls: int, customers: int) -> None:
        for call in range(calls):
            customer = f"c-{call % customers + 1}" + "a" * 16
            story.tell(
                f"{day}T09:{call:02d}:00", "call.answered", queue="q-1", call_id="c", customer=customer
            )
        story.tick(f"{day}T23:00")

    answered("2026-08-03", 4, 2)
    answered("2026-08-04", 3, 1)
    assert story.alerts() == [], "two calls of each of two; and one customer is not enough to judge"
    answered("2026-08-05", 5, 2)
    (alert,) = story.replay.alert_list()
    assert (alert.rule, alert.explanation.en) == ("often", "250% calls of 2 customers")
    assert alert.facts["calls_each.day"].numerator == "5"
    assert alert.facts["calls_each.day"].denominator == "2"
    answered("2026-09-03", 7, 1)
    story.tick("2026-10-05T00:00")
    months = {one.period: one.value for one in story.replay.metrics() if one.window == "month"}
    assert months == {"2026-08": 6, "2026-09": 7}, "twelve calls of two customers, seven of one"
    assert not [one for one in story.replay.alert_list() if one.rule == "more-often"], "a sixth more"


# --- rosters ----------------------------------------------------------------------------------------------------------


MEMBERS = """
members:
  stock:
    up: {event: team.joined, where: event.position != "leader"}
    down: {event: team.left, where: event.position != "leader"}
  level: [team]
  windows: [now]
moves:
  count: [team.joined, team.left]
  level: [team]
  windows: [month]
"""
FEW = """
- id: few
  level: [team]
  watch: live
  when: members.now >= 1 && members.now < 3
  then:
    - alert: {clear: members.now == 0 || members.now >= 3, severity: info, owner: a, response: {en: Look., zh: 查看。}}
  explanation: {en: "{members.now}", zh: "{members.now}"}
"""


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("teams"), metrics=MEMBERS, rules=FEW)


def members(story: Story) -> dict[str, int]:
    """How many belong to each team now."""
    story.replay.finish()
    values = story.replay.group.live_values({"team"})
    return {one.subject: int(one.value or 0) for one in values if one.metric == "members"}


@pytest.mark.parametrize("partitions", [1, 4])
def test_who_belongs_to_a_team_is_counted_by_the_roster(teams: Pack, partitions: int) -> None:
    story = Story(teams, partitions=partitions)
    story.tick("2026-08-03T08:00")
    for agent in range(5):
        story.tell("2026-08-03T09:00:00", "roster.changed", f"a-{agent}", team="t-1", position="agent")
    story.tell("2026-08-03T09:00:00", "roster.changed", "boss", team="t-1", position="leader")
    story.tick("2026-08-03T09:10")
    assert members(story) == {"t-1": 5}
    story.tell("2026-08-03T10:00:00", "roster.changed", "a-1", team="t-2", position="agent")
    story.tell("2026-08-03T10:00:00", "roster.changed", "a-2", team="t-1", position="leader")
    story.tell("2026-08-03T10:00:00", "roster.changed", "a-3", team="t-1", position="agent", superior="boss")
    story.tell("2026-08-03T10:00:00", "roster.changed", "boss", team="t-1", position="agent")
    story.tick("2026-08-03T10:10")
    assert members(story) == {"t-1": 4, "t-2": 1}, "who only changes the superior neither leaves nor joins"
    story.late("2026-08-03T09:30:00", "roster.changed", "a-1", team="t-3", position="agent")
    story.tick("2026-08-03T10:20")
    assert members(story) == {"t-1": 4, "t-2": 1}, "what was between is over"
    moves = {one.subject: one.value for one in story.replay.metrics() if one.metric == "moves"}
    assert moves == {"t-1": 6 + 5, "t-2": 1}


def test_a_day_of_leaving_counts_when_it_is_over_and_can_be_called_off_or_moved(teams: Pack) -> None:
    story = Story(teams)
    story.tick("2026-08-03T08:00")

    def enrol(when: str, agent: str, team: str = "t-1", left_on: str | None = None) -> None:
        story.tell(when, "roster.changed", agent, team=team, position="agent", left_on=left_on)

    for agent in ("stays", "goes", "moves", "turns"):
        enrol("2026-08-03T09:00:00", agent)
    for agent in ("goes", "moves", "turns"):
        enrol("2026-08-04T09:00:00", agent, left_on="2026-08-05")
    enrol("2026-08-05T09:00:00", "turns", left_on="2026-08-07")
    enrol("2026-08-05T09:00:00", "moves", team="t-2", left_on="2026-08-06")
    found = []
    for day in ("05", "06", "07", "08"):
        story.tick(f"2026-08-{day}T23:59")
        found.append(members(story))
    assert found == [
        {"t-1": 3, "t-2": 1}, {"t-1": 2, "t-2": 1}, {"t-1": 2, "t-2": 0}, {"t-1": 1, "t-2": 0},
    ]  # fmt: skip
    enrol("2026-08-10T09:00:00", "goes", left_on="2026-08-09")
    enrol("2026-08-11T09:00:00", "goes")
    story.tick("2026-08-12T00:00")
    assert members(story) == {"t-1": 2, "t-2": 0}
    enrol("2026-08-12T09:00:00", "goes", left_on="2026-02-31")
    assert story.rejects() == ["invalid"]


def test_a_team_of_which_nothing_else_comes_keeps_its_members(teams: Pack) -> None:
    story = Story(teams)
    story.tick("2026-01-03T08:00")
    for agent in ("a-1", "a-2", "a-3", "gone"):
        story.tell("2026-01-03T09:00:00", "roster.changed", agent, team="t-1", position="agent")
    story.tell("2026-01-03T09:00:00", "roster.changed", "gone", team="t-2", position="agent")
    story.tell("2026-01-04T09:00:00", "roster.changed", "gone", team="t-3", position="agent")
    story.tick("2027-08-01T00:00")
    story.tell("2027-08-03T09:00:00", "roster.changed", "a-1", position="agent")
    story.tick("2027-08-03T09:10")
    assert members(story) == {"t-1": 2, "t-3": 1}, "t-2, to which nobody belongs, is forgotten"
    newest = [one for one in story.replay.alert_list() if one.subject == "t-1"][-1]
    assert (newest.state, newest.explanation.en, newest.at[:10]) == ("firing", "2", "2027-08-03")


def test_the_roster_of_the_event_s_time_counts(story: Story) -> None:
    story.tell("2026-08-03T08:00:00", "roster.changed", team="t-1", site="s-1")
    story.tell("2026-08-10T08:00:00", "roster.changed", team="t-2", site="s-1")
    story.tell("2026-08-10T09:00:00", "call.answered", call_id="c-1")
    story.late("2026-08-09T09:00:00", "call.answered", call_id="c-2")
    story.late("2026-08-01T09:00:00", "call.answered", call_id="c-3")
    story.tick("2026-08-10T10:00")
    figures = {team: story.figure("answered", "month", "2026-08", team, "team") for team in ("t-1", "t-2")}
    assert figures == {"t-1": 2, "t-2": 1}


def test_only_packs_in_force_for_the_person_at_the_time_judge(story: Story) -> None:
    story.tell("2026-08-03T08:00:00", "roster.changed", packs=["another"])
    story.tell("2026-08-03T09:00:00", "complaint.upheld", complaint_id="c-1")
    story.tell("2026-08-10T08:00:00", "roster.changed", packs=["small"])
    story.tell("2026-08-10T09:00:00", "complaint.upheld", complaint_id="c-2")
    story.late("2026-08-04T09:00:00", "complaint.upheld", complaint_id="c-3")
    assert [one.incident for one in story.replay.newest_decisions().values()] == []
    story.replay.finish()
    assert [one.incident for one in story.replay.newest_decisions().values()] == ["c-2"]


def test_who_comes_under_another_pack_in_the_month_is_not_charged_for_a_part_of_it(story: Story) -> None:
    story.tell("2026-08-03T08:30:00", "roster.changed", packs=["small"])
    errors(story, 4)
    story.tick("2026-08-04T00:00")
    assert revisions(story, "errors") == [(1, "-6", "provisional")]
    story.tell("2026-08-20T08:00:00", "roster.changed", packs=["another"])
    story.tick("2026-09-04T01:00")
    assert revisions(story, "errors") == [(1, "-6", "provisional"), (2, "0", "final")]
    grades = [(grade.score, grade.status) for grade in story.replay.grade_list()]
    assert grades == [("94", "provisional"), ("94", "withdrawn")]
    assert "withdrawn, for A pack for a test is not in force for a-1 any more" in (
        story.replay.grade_list()[-1].explanation.en
    )
    story.late("2026-08-05T09:00", "complaint.upheld", complaint_id="c-1")
    story.tick("2026-09-05T01:00")
    august = [one for one in story.replay.grade_list() if one.period == "2026-08"]
    assert len(august) == 2, "it has ended"


def test_who_comes_back_before_the_end_of_the_month_is_judged_for_it(story: Story) -> None:
    story.tell("2026-08-03T08:30:00", "roster.changed", packs=["small"])
    errors(story, 4)
    story.tell("2026-08-20T08:00:00", "roster.changed", packs=["another"])
    story.tell("2026-08-31T08:00:00", "roster.changed", packs=["small"])
    story.tick("2026-09-04T01:00")
    assert [(one.score, one.status) for one in story.replay.grade_list()][-1] == ("94", "final")


def test_who_has_left_is_judged_for_that_month_and_for_none_after_it(story: Story) -> None:
    story.tell("2026-08-03T08:30:00", "roster.changed")
    errors(story, 3)
    story.tell("2026-08-20T08:00:00", "roster.changed", left_on="2026-08-20")
    errors(story, 5, "2026-09-02")
    story.tick("2026-10-04T01:00")
    assert revisions(story, "errors")[-1] == (2, "-3", "final")
    final = [grade.period for grade in story.replay.grade_list() if grade.status == "final"]
    assert final == ["2026-08"]
    story.late("2026-09-10T09:00:00", "error.recorded")
    story.tick("2026-10-04T02:00")
    assert [one.period for one in story.replay.newest_decisions().values()] == ["2026-08"]


def test_who_comes_back_is_judged_again(story: Story) -> None:
    story.tell("2026-08-03T08:30:00", "roster.changed", left_on="2026-08-03")
    story.tell("2026-10-12T08:30:00", "roster.changed")
    story.tick("2026-11-04T01:00")
    final = [grade.period for grade in story.replay.grade_list() if grade.status == "final"]
    assert final == ["2026-08", "2026-10"]


def test_a_pack_judges_nothing_before_it_is_in_force(tmp_path: Path) -> None:
    late = make_pack(
        tmp_path,
        parameters=PARAMETERS,
        metrics=METRICS,
        rules=RULES,
        scorecard=SCORECARD,
        in_force_from="2026-09-01",
    )
    story = Story(late)
    story.tick("2026-08-03T08:00")
    errors(story, 5)
    story.tell("2026-08-31T23:59:59", "complaint.upheld", complaint_id="c-1")
    story.tell("2026-09-01T00:00:00", "complaint.upheld", complaint_id="c-2")
    story.tick("2026-09-10T00:00")
    assert [(rule, period) for rule, period, _, _ in story.decisions()] == [("complaint", "2026-09")]
    assert [period for period, *_ in story.grades()] == ["2026-09"]


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, pack: Pack) -> tuple[Pack, Pack]:
    """The pack, and a version in which errors cost other points, complaints more and slow queues nothing."""
    rules = RULES.replace("points: p.step_points, per: 1", "points: 1, per: 1").replace(
        "p.complaint_points", "20"
    )
    rules = rules.replace("when: wait.rolling_15m > p.wait_limit", "when: wait.rolling_15m > 900")
    newer = make_pack(
        tmp_path_factory.mktemp("newer"), parameters=PARAMETERS, metrics=METRICS, rules=rules, scorecard=SCORECARD,
        version="2.0",
    )  # fmt: skip
    return pack, newer


def activate(story: Story, when: str, version: str, name: str = "small") -> None:
    """The activation goes to every partition, as its event does."""
    story.count += 1
    event = make(
        "pack.activated", id=f"act-{story.count}", source="test", subject="packs", time=at(when),
        data=PackActivated(pack=name, version=version, by="hr-1", reason="A test."),
    )  # fmt: skip
    story.replay.tick(at_ms(when))
    for engine in story.replay.engines:
        engine.take(event)


def test_an_activated_version_judges_from_then_on_and_takes_over_the_open_month(
    versions: tuple[Pack, Pack],
) -> None:
    for partitions in (1, 3):
        story = Story(*versions, partitions=partitions)
        story.tick("2026-08-03T08:00")
        errors(story, 4)
        story.tell("2026-08-03T09:30:00", "complaint.upheld", complaint_id="c-1")
        story.tick("2026-08-03T10:00")
        assert [points for _, _, points, _ in story.decisions()] == ["-5", "-6"]
        activate(story, "2026-08-05T08:00", "2.0")
        story.tell("2026-08-05T09:30:00", "complaint.upheld", complaint_id="c-2")
        story.tick("2026-08-05T10:00")
        assert [points for _, _, points, _ in story.decisions()] == ["-20", "-5", "-2"]
        story.tick("2026-09-04T00:00")
        assert charge(story, "errors").status == "final"
        assert charge(story, "errors").pack_version == "2.0"
        assert {pack.name: pack.version for pack in story.replay.group.judge.active_packs()} == {
            "small": "2.0"
        }


@pytest.mark.parametrize("reopened", [False, True])
def test_what_comes_late_for_a_closed_month_is_judged_by_the_version_that_closed_it(
    versions: tuple[Pack, Pack], reopened: bool
) -> None:
    story = Story(*versions)
    story.tick("2026-08-03T08:00")
    errors(story, 4)
    story.tick("2026-09-05T00:00")
    assert (charge(story, "errors").points, charge(story, "errors").pack_version) == ("-6", "1.0")
    activate(story, "2026-09-06T08:00", "2.0")
    if reopened:
        judge = story.replay.engines[0].judge
        reopening.carry_out(judge, "small", "reopen month 2026-08", at_ms("2026-09-06T08:00"))
    stored = {key: raw for key, raw in story.replay.engines[0].checkpoint().items() if raw is not None}
    story.replay.engines[0] = PartitionEngine(versions, zones=Zones(default="Asia/Shanghai"))
    story.replay.engines[0].restore(stored)
    story.late("2026-08-31T23:00:00", "error.recorded")
    story.tick("2026-09-07T10:00")
    errors(story, 3, day="2026-09-08")
    story.tick("2026-10-05T00:00")
    story.replay.finish()
    newest = story.replay.newest_decisions().values()
    about_august = [one for one in newest if "2026-08" in (one.period, one.adjusts_period)]
    assert {one.pack_version for one in about_august} == {"1.0"}
    assert sum(int(one.points) for one in about_august) == -9, "five errors by the rule of then"
    (september,) = [one for one in newest if one not in about_august]
    assert (september.points, september.pack_version) == ("-3", "2.0")


@pytest.mark.parametrize("other", [(), ("berlin",), ("berlin", "shanghai")])
def test_a_month_that_another_version_closed_in_a_zone_is_closed_by_it_for_who_moves_there(
    tmp_path: Path, pack: Pack, other: tuple[str, ...]
) -> None:
    """Whether or not another agent was, or is, there. The grace of the other version is shorter."""
    rules = RULES.replace("points: p.step_points, per: 1", "points: 1, per: 1")
    newer = make_pack(
        tmp_path,
        parameters=PARAMETERS,
        metrics=METRICS,
        rules=rules,
        scorecard=SCORECARD,
        version="2.0",
        grace="24h",
    )
    zones = Zones(default="Asia/Shanghai", sites={"nome": "America/Nome", "berlin": "Europe/Berlin"})
    story = Story(pack, newer, zones=zones)
    story.tell("2026-08-03T08:00:00", "roster.changed", site="nome")
    for day, site in enumerate(other, start=3):
        story.tell(f"2026-08-0{day}T08:00:00", "roster.changed", "b-1", site=site)
    errors(story, 3, "2026-08-05")
    activate(story, "2026-08-20T08:00", "2.0")
    activate(story, "2026-09-02T08:00", "1.0")
    story.tell("2026-09-03T08:00:00", "roster.changed", site="berlin")
    story.tick("2026-09-10T00:00")
    one = charge(story, "errors")
    assert (one.points, one.pack_version, one.status) == ("-1", "2.0", "final")
    assert one.at == "2026-09-03T02:00:00+02:00"
    assert ("2026-08", "99", "A", "final") in story.grades()


def test_the_oldest_version_judges_until_an_event_says_otherwise(versions: tuple[Pack, Pack]) -> None:
    for order in itertools.permutations(versions):
        engine = PartitionEngine(order, zones=Zones(default="Asia/Shanghai"))
        assert engine.judge.active == {"small": order[0].version}, (
            "of two in force since the same day, the first"
        )


def test_a_worker_that_starts_with_another_version_goes_on_from_the_counts(
    versions: tuple[Pack, Pack],
) -> None:
    story = Story(versions[0])
    story.tick("2026-08-03T08:00")
    errors(story, 4)
    story.tick("2026-08-03T10:00")
    old = story.replay.engines[0]
    stored = {key: raw for key, raw in old.checkpoint().items() if raw is not None}
    successor = PartitionEngine([versions[1]], zones=Zones(default="Asia/Shanghai"))
    successor.restore(stored)
    successor.tick(at_ms("2026-08-03T11:00"))
    story.replay.engines[0] = successor
    story.replay.finish()
    assert story.decisions() == [("errors", "2026-08", "-2", "provisional")]
    assert charge(story, "errors").pack_version == "2.0"


def test_an_alert_ends_when_a_version_without_its_rule_is_activated(
    tmp_path: Path, versions: tuple[Pack, Pack]
) -> None:
    renamed = RULES.replace("- id: slow\n", "- id: slower\n")
    without = make_pack(
        tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=renamed, scorecard=SCORECARD, version="3.0"
    )
    assert "slow" not in {rule.id for rule in without.rules}
    story = Story(versions[0], without)
    story.tick("2026-08-03T09:00")
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:05")
    assert slow(story) == [("firing", "09:04")]
    activate(story, "2026-08-03T09:05", "3.0")
    waits(story, 5, 100)
    story.ticks("2026-08-03T09:06", "2026-08-03T09:08")
    assert [state for state, _ in slow(story)] == ["firing", "resolved"]


def test_what_a_new_version_no_longer_charges_is_taken_back_at_the_close(
    tmp_path: Path, versions: tuple[Pack, Pack]
) -> None:
    kept = RULES[RULES.index("- id: complaint") :].replace("rules: [complaint, errors]", "rules: [complaint]")
    third = make_pack(
        tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=kept, scorecard=SCORECARD, version="3.0"
    )
    story = Story(versions[0], third)
    story.tick("2026-08-03T08:00")
    errors(story, 4)
    story.tick("2026-08-03T10:00")
    activate(story, "2026-08-05T08:00", "3.0")
    story.tick("2026-09-04T00:00")
    assert story.decisions() == [("errors", "2026-08", "0", "final")]
    assert story.grades() == [("2026-08", "100", "A", "final")]


def test_an_alert_of_a_rule_that_another_version_judges_otherwise_ends(versions: tuple[Pack, Pack]) -> None:
    story = Story(*versions)
    story.tick("2026-08-03T08:00")
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:05")
    activate(story, "2026-08-03T09:05", "2.0")
    story.ticks("2026-08-03T09:06", "2026-08-03T09:20")
    assert slow(story) == [("firing", "09:04"), ("resolved", "09:16")], "by its clearing condition: no data"


def test_an_alert_of_a_rule_that_another_version_no_longer_has_ends_at_once(
    tmp_path: Path, versions: tuple[Pack, Pack]
) -> None:
    kept = RULES[: RULES.index("- id: slow")]
    third = make_pack(
        tmp_path, parameters=PARAMETERS, metrics=METRICS, rules=kept, scorecard=SCORECARD, version="3.0"
    )
    story = Story(versions[0], third)
    story.tick("2026-08-03T08:00")
    waits(story, 0, 100)
    story.ticks("2026-08-03T09:01", "2026-08-03T09:05")
    activate(story, "2026-08-03T09:05", "3.0")
    story.ticks("2026-08-03T09:06", "2026-08-03T09:20")
    assert slow(story) == [("firing", "09:04"), ("resolved", "09:06")]


def test_an_unknown_version_is_refused(versions: tuple[Pack, Pack]) -> None:
    story = Story(*versions)
    with pytest.raises(EventError, match=r"small@9.9 is not loaded here; loaded: small@1.0, small@2.0"):
        activate(story, "2026-08-05T08:00", "9.9")


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_entries_are_bounded_and_settled_old_ones_go_first(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 5)
    errors(story, 3)
    story.tick("2026-08-03T09:30")
    for number in range(20):
        story.tell(f"2026-08-03T10:{number:02d}:00", "complaint.upheld", complaint_id=f"c-{number}")
    entries = story.replay.engines[0].judge.subjects["agent", "a-1"].entries
    assert len(entries) == 5
    assert any(entry.rule == "errors" for entry in entries.values()), "what may still move is kept"
    story.replay.finish()
    assert len(story.replay.newest_decisions()) == 21


def test_waivers_are_bounded(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MAX_WAIVERS", 3)
    for number in range(10):
        story.tell(
            f"2026-08-03T10:{number:02d}:00",
            "exemption.granted",
            exemption_id=f"x-{number}",
            incident=f"c-{number}",
        )
    waivers = story.replay.engines[0].judge.subjects["agent", "a-1"].waivers
    assert [waiver.incident for waiver in waivers] == ["c-7", "c-8", "c-9"]


# --- the group stage -----------------------------------------------------------------------------------------------


def reports(pack: Pack, until: str = "2026-08-03T09:30") -> list[Record]:
    engine = PartitionEngine([pack], zones=Zones(default="Asia/Shanghai"))
    story = Story(pack)
    found = []
    for minute_ms in range(at_ms("2026-08-03T09:00"), at_ms(until), 60_000):
        engine.tick(minute_ms)
        event = story.event("2026-08-03T09:00:00", "call.answered", queue="q-1", call_id="c", wait_ms=90_000)
        engine.take(msgspec.structs.replace(event, time=moment(minute_ms)))
        found += [
            Record(0, one.value, None, 0) for one in engine.judge.take_outputs() if one.topic == "partials"
        ]
    return found


def test_a_report_that_comes_again_changes_nothing_and_one_behind_a_gap_waits_to_come_again(
    pack: Pack,
) -> None:
    zones = Zones(default="Asia/Shanghai")
    records = reports(pack)
    straight = GroupEngine([pack], zones=zones)
    expected = straight.apply(records)
    assert expected
    again = GroupEngine([pack], zones=zones)
    out = again.apply(records[:5])
    out += again.apply(records[:5])
    out += again.apply(records[6:9])
    assert again.stats.gaps == 3
    assert again.watermark_ms == records_upto(records[4])
    out += again.apply(records[3:])
    assert out == expected
    assert (
        again.judge.subjects["queue", "q-1"].series.total
        == straight.judge.subjects["queue", "q-1"].series.total
    )


def records_upto(record: Record) -> int:
    return read_report(record.value).upto_ms


def of_partition(source: int, record: Record) -> Record:
    """A report as if another partition had sent it."""
    report = msgspec.structs.replace(read_report(record.value), source=source)
    return Record(0, msgspec.msgpack.encode(report), None, 0)


def test_a_report_of_a_worker_from_before_they_were_written_in_messagepack_is_taken(pack: Pack) -> None:
    zones = Zones(default="Asia/Shanghai")
    records = reports(pack)
    straight = GroupEngine([pack], zones=zones)
    expected = straight.apply(records)
    layout, before = straight.layout, []
    for record in records:
        report = read_report(record.value)
        reader = Reader(report.terms, layout.slots)
        groups = [
            (level, name, start_ms, by_name(reader.read(cell), layout.names()))
            for level, name, start_ms, cell in report.groups
        ]
        old = msgspec.structs.replace(report, groups=groups, terms=[])
        before.append(Record(0, msgspec.json.encode(old), None, 0))
    assert before[0].value.startswith(b'{"source":0,"number":1,')
    assert GroupEngine([pack], zones=zones).apply(before) == expected


def test_a_gap_that_does_not_close_is_an_error_in_the_end(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "MAX_DROPPED", 4)
    records = reports(pack)
    engine = GroupEngine([pack], zones=Zones(default="Asia/Shanghai"))
    engine.apply(records[:2])
    engine.apply(records[3:7])
    engine.apply(records[2:4])
    engine.apply(records[5:9])
    with pytest.raises(
        StateError, match="report 5 of partition 0 is missing: 5 reports up to number 10 came"
    ):
        engine.apply(records[9:10])


def test_a_report_of_a_partition_that_nobody_announced_is_an_error(pack: Pack) -> None:
    engine = GroupEngine([pack], zones=Zones(default="Asia/Shanghai"))
    with pytest.raises(StateError, match="a report of partition 3, but 1 partitions were announced"):
        engine.apply([of_partition(3, reports(pack)[0])])


def test_a_group_waits_for_every_partition(pack: Pack) -> None:
    engine = GroupEngine([pack], zones=Zones(default="Asia/Shanghai"), source_partitions=2)
    records = reports(pack)
    assert engine.apply(records) == []
    assert engine.watermark_ms == 0
    other = [of_partition(1, one) for one in records]
    engine.apply(other[:3])
    assert engine.watermark_ms == records_upto(records[2])
    engine.apply(other[3:])
    assert engine.watermark_ms == records_upto(records[-1])
    assert len(engine.judge.subjects) == 2


@pytest.mark.parametrize("step", [1, 5, 16, 23])
def test_waiting_reports_are_stored_in_chunks_and_a_successor_goes_on_with_them(
    pack: Pack, step: int
) -> None:
    zones = Zones(default="Asia/Shanghai")
    ahead = reports(pack, "2026-08-03T10:00")
    behind = [of_partition(1, one) for one in ahead]
    straight = GroupEngine([pack], zones=zones, source_partitions=2)
    expected = straight.apply(ahead) + straight.apply(behind)
    assert expected
    engine = GroupEngine([pack], zones=zones, source_partitions=2)
    out = engine.apply(ahead)
    stored: dict[str, bytes] = {}
    written = 0
    for start in range(0, len(behind), step):
        for key, raw in engine.checkpoint().items():
            written += key[0] == "b"
            if raw is None:
                del stored[key]
            else:
                stored[key] = raw
        left = len(ahead) - start
        assert len([key for key in stored if key[0] == "b"]) <= left // group.CHUNK_REPORTS + 2
        engine = GroupEngine([pack], zones=zones, source_partitions=2)
        engine.restore(stored)
        assert (len(engine.waiting[0]), len(engine.waiting[1])) == (left, 0)
        out += engine.apply(behind[start : start + step])
    assert out == expected
    assert written <= 2 * (len(ahead) // group.CHUNK_REPORTS + 2), "each chunk is written and dropped once"
    assert all(raw is None for key, raw in engine.checkpoint().items() if key[0] == "b")


def test_reports_that_wait_for_other_partitions_are_bounded(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "MAX_WAITING", 5)
    engine = GroupEngine([pack], zones=Zones(default="Asia/Shanghai"), source_partitions=2)
    engine.apply(reports(pack)[:5])
    with pytest.raises(StateError, match="5 reports of partition 0 wait for the other partitions"):
        engine.apply(reports(pack)[5:6])


def test_reading_figures_changes_nothing(pack: Pack) -> None:
    replay = Replay([pack])
    story = Story(pack)
    story.replay = replay
    story.tick("2026-08-03T08:00")
    waits(story, 0, 10)
    before = sorted(replay.group.judge.subjects)
    assert story.figure("answered", "month", "2026-08", "q-1", "queue") == 1
    assert sorted(replay.group.judge.subjects) == before
