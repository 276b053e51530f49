"""A period with cards of items, a quota, a calibration and tallies that is opened again: as if all had come in time."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.decisions import Decision, Grade
from kaohe.packs.load import load_pack
from tests.support.packs import Story, at

RULES = Path(__file__).resolve().parents[2] / "rules"
PEOPLE = tuple(f"a-{number}" for number in range(1, 13))
ASSESSORS = ("q-1", "q-2", "q-3")
Told = tuple[str, str, str, dict[str, Any]]
"""When, what, about whom, and its data."""


@pytest.fixture(scope="module")
def kpi() -> Pack:
    return load_pack(RULES / "company-kpi")


@pytest.fixture(scope="module")
def keeping(kpi: Pack) -> Pack:
    """A pack by which who was told an A keeps it when the places are given out again."""
    assert kpi.results.quota is not None
    quota = msgspec.structs.replace(kpi.results.quota, after_told="keep")
    return msgspec.structs.replace(kpi, results=msgspec.structs.replace(kpi.results, quota=quota))


@pytest.fixture(scope="module")
def reception() -> Pack:
    return load_pack(RULES / "reception")


@pytest.fixture(scope="module")
def logistics() -> Pack:
    return load_pack(RULES / "logistics-service")


def begin(*packs: Pack, when: str, partitions: int = 1) -> Story:
    story = Story(*packs, partitions=partitions)
    for index, name in enumerate(PEOPLE):
        story.tell(
            when, "roster.changed", name, team=f"t-{index % 3}", department=f"d-{index % 3}", superior="s-1",
            leader="l-1", hired_on=f"20{10 + index}-03-01",
        )  # fmt: skip
    return story


def send(story: Story, events: list[Told], *, late: bool) -> None:
    for number, (when, tag, agent, data) in enumerate(events):
        tell = story.late if late else story.tell
        tell(when, tag, agent, **{"id": f"{tag}-{when}-{agent}-{number}-{late}", **data})


def named(events: list[Told], first: int) -> list[Told]:
    """Events with ids of their own: of two assessments at one moment the id says which one counts."""
    return [
        (when, tag, agent, {"id": f"{tag}-{number}", **data})
        for number, (when, tag, agent, data) in enumerate(events, start=first)
    ]


def order(story: Story, when: str, tag: str, pack: Pack, window: str, period: str) -> None:
    story.tell(
        when, tag, "", subject="periods", pack=pack.name, window=window, period=period, by="hr", reason="It must be."
    )  # fmt: skip


def grades(story: Story) -> dict[str, tuple[str, str, str, str, str]]:
    """The newest grade of everybody and every period; revisions must rise."""
    story.replay.finish()
    newest: dict[str, Grade] = {}
    for one in story.replay.grade_list():
        assert one.id not in newest or one.revision > newest[one.id].revision, one
        newest[one.id] = one
    return {one.id: (one.subject, one.period, one.score, one.grade, one.status) for one in newest.values()}


def standing(story: Story) -> set[tuple[str, str, str]]:
    """What was proposed and given to do, and not withdrawn."""
    found = story.replay.newest_decisions()
    gone = {one.reverses for one in found.values() if one.reverses}
    return {
        (one.rule, one.subject, one.period)
        for one in found.values()
        if one.kind in ("proposal", "task") and one.id not in gone
    }


def points(story: Story) -> dict[tuple[str, str, str], Fraction]:
    """What the entries of everybody come to in each period."""
    found: defaultdict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    decision: Decision
    for decision in story.replay.newest_decisions().values():
        found[decision.subject, decision.window, decision.period] += Fraction(decision.points)
    return {key: worth for key, worth in found.items() if worth}


def same(one: Story, other: Story) -> None:
    assert one.replay.rejects == []
    assert other.replay.rejects == []
    assert grades(one) == grades(other)
    assert points(one) == points(other)


evaluations = st.tuples(
    st.sampled_from(PEOPLE), st.sampled_from(ASSESSORS), st.integers(0, 100), st.integers(3, 28)
).map(
    lambda one: (
        f"2026-08-{one[3]:02}T10:00", "quality.evaluated", one[0], {"by": one[1], "score": one[2] * 100},
    )
)  # fmt: skip
assessments = st.tuples(
    st.sampled_from(PEOPLE), st.sampled_from(("completion", "execution")), st.integers(0, 10), st.integers(3, 28)
).map(
    lambda one: (
        f"2026-08-{one[3]:02}T11:00", "assessment.submitted", one[0],
        {"pack": "company-kpi", "window": "month", "period": "2026-08", "item": one[1], "role": "superior", "by": "s-1",
         "score": one[2] * 100},
    )
)  # fmt: skip
surveys = st.tuples(
    st.sampled_from(PEOPLE), st.sampled_from(("satisfied", "neutral", "dissatisfied")), st.integers(3, 28)
).map(lambda one: (f"2026-08-{one[2]:02}T12:00", "survey.customer", one[0], {"satisfaction": one[1]}))  # fmt: skip
months = st.lists(st.one_of(evaluations, assessments, surveys), min_size=1, max_size=40)


def july(story: Story) -> None:
    """A month before, in which half of the people were poor."""
    for index, name in enumerate(PEOPLE):
        for number in range(6):
            story.tell(
                f"2026-07-{number + 3:02}T09:00", "quality.evaluated", name, by=ASSESSORS[number % 3],
                score=9500 - 600 * index,
            )  # fmt: skip


class Stored:
    """What the engines of a story of one partition have stored, and successors that know nothing else."""

    def __init__(self, story: Story, pack: Pack) -> None:
        self.story = story
        self.pack = pack
        self.items: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})

    def succeed(self) -> None:
        """Put successors in the place of the engines."""
        replay = self.story.replay
        replay.finish()
        before: tuple[PartitionEngine | GroupEngine, ...] = (replay.engines[0], replay.group)
        for old, items in zip(before, self.items, strict=True):
            for key, raw in old.checkpoint().items():
                if raw is None:
                    items.pop(key, None)
                else:
                    items[key] = raw
        zones = Zones(default="Asia/Shanghai")
        replay.engines[0], replay.group = (
            PartitionEngine((self.pack,), zones=zones),
            GroupEngine((self.pack,), zones=zones),
        )
        replay.engines[0].restore(self.items[0])
        replay.group.restore(self.items[1])


def august(
    pack: Pack, timely: list[Told], late: list[Told], partitions: int = 1, *, successors: bool = False
) -> Story:
    """August with some events in time; the others come when it was closed and opened again."""
    story = begin(pack, when="2026-07-01T08:00", partitions=partitions)
    july(story)
    send(story, sorted(timely, key=lambda one: one[0]), late=False)
    story.tick("2026-09-12T00:00")
    stored = Stored(story, pack)
    if late:
        if successors:
            stored.succeed()
        order(story, "2026-09-12T09:00", "period.reopened", pack, "month", "2026-08")
        send(story, late[: len(late) // 2], late=True)
        story.tick("2026-09-12T10:00")
        if successors:
            stored.succeed()
        send(story, late[len(late) // 2 :], late=True)
        order(story, "2026-09-12T10:05", "period.closed", pack, "month", "2026-08")
    story.tick("2026-09-14T00:00")
    return story


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(timely=months, late=months)
def test_late_events_of_a_reopened_month_count_as_if_in_time(
    kpi: Pack, timely: list[Told], late: list[Told]
) -> None:  # fmt: skip
    timely, late = named(timely, 0), named(late, len(timely))
    in_time, reopened = august(kpi, [*timely, *late], []), august(kpi, timely, late)
    same(in_time, reopened)
    graded = [one[3] for one in grades(reopened).values() if one[1] == "2026-08"]
    assert graded.count("A") * 10 <= len(graded)
    tallies = {tally.id for tally in kpi.results.tallies}
    assert {one for one in standing(in_time) if one[0] in tallies} == {
        one for one in standing(reopened) if one[0] in tallies
    }


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(timely=months, late=months)
def test_beyond_the_quota_are_only_those_who_were_told_and_each_is_named(
    keeping: Pack, timely: list[Told], late: list[Told]
) -> None:
    story = august(keeping, timely, late)
    assert story.rejects() == []
    story.replay.finish()
    told = [one for one in story.replay.grade_list() if (one.window, one.period) == ("month", "2026-08")]
    final = [one for one in told if (one.pack, one.level, one.status) == ("company-kpi", "agent", "final")]
    newest = {one.subject: one for one in final}
    best = {name for name, one in newest.items() if one.grade == "A"}
    beyond = {name for name in best if "beyond the quota" in newest[name].explanation.en}
    assert (len(best) - len(beyond)) * 10 <= len(newest)
    for name in beyond:
        assert [one.grade for one in final if one.subject == name][-2] == "A", "nobody had told them"


def test_what_an_assessor_gave_later_is_compared_although_the_score_that_it_is_part_of_stays(
    kpi: Pack,
) -> None:
    def evaluated(agent: str, by: str, score: int, day: int) -> Told:
        return f"2026-08-{day:02}T10:00", "quality.evaluated", agent, {"by": by, "score": score}

    timely = [evaluated("a-8", "q-1", 8200, 15)]
    late = [
        evaluated("a-1", "q-1", 0, 19), evaluated("a-1", "q-1", 3300, 15), evaluated("a-8", "q-1", 8200, 15),
        evaluated("a-12", "q-1", 200, 4), evaluated("a-7", "q-2", 5900, 17),
        # The last word about a-8 is what their mean is already, but it is said by somebody else.
        evaluated("a-8", "q-3", 8200, 15), evaluated("a-7", "q-3", 9400, 27), evaluated("a-2", "q-2", 800, 15),
        evaluated("a-2", "q-3", 1200, 7), evaluated("a-12", "q-3", 7000, 8),
    ]  # fmt: skip
    timely, late = named(timely, 0), named(late, len(timely))
    in_time, reopened = august(kpi, [*timely, *late], []), august(kpi, timely, late)
    same(in_time, reopened)
    assert {one[2] for one in grades(reopened).values() if one[:2] == ("a-8", "2026-08")} == {"86.8"}
    same(reopened, august(kpi, timely, late, successors=True))


def scores(when: str, agent: str, given_by: dict[str, int]) -> list[Told]:
    return [
        (when, "quality.evaluated", agent, {"by": by, "score": score * 100})
        for by, score in given_by.items()
        for _ in range(2)
    ]


def test_a_place_that_somebody_else_deserves_is_given_to_them(kpi: Pack) -> None:
    timely = [one for index, name in enumerate(PEOPLE) for one in scores(
        "2026-08-05T10:00", name, dict.fromkeys(ASSESSORS, 97 - index)
    )]  # fmt: skip
    late = scores("2026-08-06T10:00", "a-2", dict.fromkeys(ASSESSORS, 100))
    before, after = august(kpi, timely, []), august(kpi, timely, late)
    best = [
        sorted(one[0] for one in grades(story).values() if one[1] == "2026-08" and one[3] == "A")
        for story in (before, after)
    ]
    assert best == [["a-1"], ["a-2"]]
    told = [one for one in after.replay.grade_list() if (one.subject, one.period) == ("a-1", "2026-08")]
    assert (told[-2].grade, told[-2].status, told[-1].grade, told[-1].status) == ("A", "final", "B", "final")
    assert told[-1].previous_grade == "A"
    # Nobody hears anything whose result stays what it was.
    assert len(
        [one for one in after.replay.grade_list() if (one.subject, one.period) == ("a-9", "2026-08")]
    ) == len([one for one in before.replay.grade_list() if (one.subject, one.period) == ("a-9", "2026-08")])


def test_a_proposal_that_followed_from_a_grade_is_withdrawn_with_it(kpi: Pack) -> None:
    poor = scores("2026-08-05T10:00", "a-3", dict.fromkeys(ASSESSORS, 10))
    good = [
        one for day in range(6, 20) for one in scores(f"2026-08-{day:02}T10:00", "a-3", dict.fromkeys(ASSESSORS, 99))
    ]  # fmt: skip
    before, after = august(kpi, poor, []), august(kpi, poor, good)
    own = ("ck-observation", "a-3", "2026-08")
    assert own in standing(before)
    assert own not in standing(after)
    withdrawn = [one for one in after.replay.decision_list() if one.reverses and one.rule == "ck-observation"]
    assert [(one.kind, one.subject, one.points) for one in withdrawn] == [("waive", "a-3", "0")]
    assert withdrawn[0].explanation.en.startswith("Withdrawn, for the grade of 2026-08 is ")
    assert withdrawn[0].explanation.zh


def test_later_proposals_are_counted_again(kpi: Pack) -> None:
    """The D of September is the second one no more when August's was none."""
    good = [
        one
        for hour in range(8, 22)
        for one in scores(f"2026-08-31T{hour:02}:00", "a-3", dict.fromkeys(ASSESSORS, 99))
    ]
    nothing: list[Told] = []
    found = []
    for late in (nothing, good):
        story = begin(kpi, when="2026-07-01T08:00")
        send(story, scores("2026-08-05T10:00", "a-3", dict.fromkeys(ASSESSORS, 10)), late=False)
        send(story, scores("2026-09-05T10:00", "a-3", dict.fromkeys(ASSESSORS, 10)), late=False)
        story.tick("2026-10-09T00:00")
        order(story, "2026-10-09T00:10", "period.reopened", kpi, "month", "2026-08")
        send(story, late, late=True)
        story.tick("2026-10-09T12:00")
        story.replay.finish()
        assert story.rejects() == []
        found.append({one for one in standing(story) if one[1] == "a-3"})
    assert found[0] == {("ck-observation", "a-3", "2026-08"), ("ck-probation", "a-3", "2026-09")}
    assert found[1] == {("ck-observation", "a-3", "2026-09")}


@pytest.mark.parametrize("partitions", [3])
def test_partitions_make_no_difference(kpi: Pack, partitions: int) -> None:
    timely = [one for index, name in enumerate(PEOPLE) for one in scores(
        "2026-08-05T10:00", name, dict.fromkeys(ASSESSORS, 97 - index)
    )]  # fmt: skip
    late = [one for name in PEOPLE[1:7] for one in scores("2026-08-06T10:00", name, {"q-1": 100, "q-2": 60})]
    one, other = august(kpi, timely, late), august(kpi, timely, late, partitions)
    same(one, other)
    assert standing(one) == standing(other)
    assert sorted(
        (grade.id, grade.revision, grade.score, grade.at) for grade in one.replay.grade_list()
    ) == sorted((grade.id, grade.revision, grade.score, grade.at) for grade in other.replay.grade_list())


def test_a_successor_knows_what_everybody_had(kpi: Pack) -> None:
    timely = [
        one
        for index, name in enumerate(PEOPLE)
        for one in scores("2026-08-05T10:00", name, dict.fromkeys(ASSESSORS, 97 - 8 * index))
    ]
    late = [one for name in PEOPLE[1:12] for one in scores("2026-08-06T10:00", name, {"q-1": 100, "q-2": 60})]
    one, other = august(kpi, timely, late), august(kpi, timely, late, successors=True)
    same(one, other)
    assert standing(one) == standing(other)
    assert one.replay.grades == other.replay.grades


def audits(month: str, days: range, followed: int) -> list[Told]:
    return [
        (f"{month}-{day:02}T09:00", "flow.audited", "a-1",
         {"audit_id": f"au-{month}-{day}-{followed}", "steps_checked": 10, "steps_followed": followed})
        for day in days
    ]  # fmt: skip


def test_quarters_follow_their_months_without_a_company_stage(reception: Pack) -> None:
    """Reception grades in the partition; September and the quarter are opened again after both were closed."""
    found = []
    for split in (False, True):
        story = begin(reception, when="2026-07-01T08:00")
        timely, late = audits("2026-09", range(3, 8), 10), audits("2026-09", range(8, 16), 8)
        send(story, audits("2026-07", range(3, 8), 10), late=False)
        send(story, timely if split else [*timely, *late], late=False)
        story.tick("2026-10-12T00:00")
        if split:
            order(story, "2026-10-12T09:00", "period.reopened", reception, "month", "2026-09")
            send(story, late, late=True)
            order(story, "2026-10-12T10:00", "period.closed", reception, "month", "2026-09")
        story.tick("2026-10-13T00:00")
        found.append(story)
    same(*found)
    assert {("rd-improve-flow", "a-1", "2026-09")} <= standing(found[1])
    assert standing(found[0]) == standing(found[1])
    quarters = [one for one in found[1].replay.grade_list() if one.window == "quarter"]
    assert len([one for one in quarters if one.status == "final"]) == 2


def ratings(month: str, days: range, rating: str) -> list[Told]:
    return [
        (f"{month}-{day:02}T09:00", "survey.cross_department", "a-1", {"by": "legal", "rating": rating})
        for day in days
    ]


def test_the_year_follows_its_last_month(logistics: Pack) -> None:
    found = []
    for split in (False, True):
        story = begin(logistics, when="2026-10-01T08:00")
        timely, late = ratings("2026-12", range(3, 5), "good"), ratings("2026-12", range(5, 12), "poor")
        for month in ("2026-10", "2026-11"):
            send(story, ratings(month, range(3, 9), "poor"), late=False)
        send(story, timely if split else [*timely, *late], late=False)
        story.tick("2027-01-10T00:00")
        if split:
            order(story, "2027-01-10T09:00", "period.reopened", logistics, "month", "2026-12")
            send(story, late, late=True)
            order(story, "2027-01-10T10:00", "period.closed", logistics, "month", "2026-12")
        story.tick("2027-01-11T00:00")
        found.append(story)
    same(*found)
    assert standing(found[0]) == standing(found[1])
    years = {one[2:] for one in grades(found[0]).values() if one[1] == "2026" and one[0] == "a-1"}
    assert years
    assert all(one[2] == "final" for one in years)


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_one_score_of_several_packs_follows(kpi: Pack, partitions: int) -> None:
    attendance = load_pack(RULES / "full-attendance")
    found = []
    for split in (False, True):
        story = begin(kpi, attendance, when="2026-07-01T08:00", partitions=partitions)
        timely = [
            one for name in PEOPLE for one in scores("2026-08-05T10:00", name, dict.fromkeys(ASSESSORS, 90))
        ]
        late = scores("2026-08-06T10:00", "a-1", dict.fromkeys(ASSESSORS, 40))
        story.tell(
            "2026-08-04T00:00", "shift.scheduled", "a-1", shift_id="s", day="2026-08-04",
            starts_at=at("2026-08-04T09:00"), ends_at=at("2026-08-04T18:00"),
        )  # fmt: skip
        send(story, timely if split else [*timely, *late], late=False)
        story.tick("2026-09-12T00:00")
        if split:
            order(story, "2026-09-12T09:00", "period.reopened", kpi, "month", "2026-08")
            send(story, late, late=True)
            order(story, "2026-09-12T10:00", "period.closed", kpi, "month", "2026-08")
        story.tick("2026-09-13T00:00")
        found.append(story)
    same(*found)
    joint = [
        one
        for one in found[1].replay.grade_list()
        if (one.pack, one.subject, one.period, one.status) == ("company-kpi+", "a-1", "2026-08", "final")
    ]
    assert len(joint) == 2
    assert Fraction(joint[0].score) > Fraction(joint[1].score)
