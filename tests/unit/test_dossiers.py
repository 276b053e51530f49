"""Appeals, goals and interviews: what is refused, what is kept, and what a successor takes over."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.cli.appealing import lines_of
from kaohe.core import dossiers as module
from kaohe.core.dossiers import Dossier
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.decisions import Decision, decision_id
from kaohe.errors import EventError
from kaohe.events import DERIVED, ENVELOPES, PAYLOADS, decode, encode, make
from kaohe.packs.load import load_pack
from tests.support.packs import Story, at

RULES = Path(__file__).resolve().parents[2] / "rules"
CHARGE = decision_id(
    "logistics-service", "ls-cooperation", "0", "agent", "a-1", "month", "2026-08", "poor", ""
)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack(RULES / "logistics-service")


def charged(pack: Pack, partitions: int = 1) -> Story:
    story = Story(pack, partitions=partitions)
    story.tell("2026-08-03T09:00", "survey.cross_department", id="poor", by="legal", rating="poor")
    return story


def file(story: Story, when: str = "2026-08-04T09:00", appeal: str = "ap", against: str = CHARGE) -> None:
    story.tell(when, "appeal.filed", appeal_id=appeal, against=against, text="No.")


def accept(story: Story, when: str = "2026-08-05T09:00", appeal: str = "ap", by: str = "hr") -> None:
    story.tell(when, "appeal.accepted", appeal_id=appeal, by=by, reason="Yes.")


def hear(story: Story, when: str = "2026-08-05T10:00") -> None:
    story.tell(when, "appeal.heard", appeal_id="ap", who="employee")
    story.tell(when, "appeal.heard", appeal_id="ap", who="supervisor")


def decide(story: Story, when: str = "2026-08-06T09:00", *, upheld: bool = True, **more: Any) -> None:
    story.tell(when, "appeal.decided", appeal_id="ap", upheld=upheld, by="gm", reason="So.", **more)


def said(story: Story) -> list[Decision]:
    story.replay.finish()
    return story.replay.decision_list()


def rules_of(story: Story) -> list[str]:
    return [rule for rule, *_ in story.decisions()]


def test_nothing_that_the_engine_gives_can_be_sent() -> None:
    assert {"appeal.upheld", "appraisal.closed", "alert.raised"} <= DERIVED
    for tag in sorted(DERIVED):
        fields = {field.name for field in msgspec.structs.fields(PAYLOADS[tag]) if field.required}
        known = {
            "agent": "a-1", "ground": "result", "why": "late", "severity": "high", "last_day": "2026-08-01",
        }  # fmt: skip
        data = PAYLOADS[tag](**{name: known.get(name, "x") for name in fields})
        event = make(tag, id="1", source="s", subject="a-1", time=at("2026-08-03T09:00"), data=data)
        assert ENVELOPES[tag] is type(event)
        with pytest.raises(EventError) as caught:
            decode(encode(event))
        assert caught.value.code == "unknown_type"


def test_what_cannot_follow_is_refused_before_it_counts(pack: Pack) -> None:
    story = charged(pack)
    file(story, against="d-unknown")
    accept(story)
    file(story)
    file(story)
    decide(story)
    accept(story, by="a-1")
    accept(story)
    accept(story)
    decide(story)
    story.tell("2026-08-05T10:00", "appeal.heard", appeal_id="ap", who="employee")
    decide(story)
    hear(story)
    decide(story, reversals=["d-other"])
    decide(story)
    decide(story)
    assert story.rejects() == [
        "unknown_appealed", "unknown_appeal", "appeal_state", "appeal_state", "own_appeal", "appeal_state",
        "not_heard", "not_heard", "unknown_appealed", "appeal_state",
    ]  # fmt: skip


def test_a_pack_without_appeals_hears_none(pack: Pack) -> None:
    deaf = msgspec.structs.replace(pack, appeals=None)
    story = charged(deaf)
    file(story)
    assert story.rejects() == ["no_appeals"]


def test_an_appeal_without_an_agent_is_refused(pack: Pack) -> None:
    story = charged(pack)
    story.tell(
        "2026-08-04T09:00", "appeal.filed", agent="", subject="t-1", appeal_id="ap", against="x", text="?"
    )
    assert story.rejects() == ["invalid"]


def test_the_same_thing_is_appealed_against_once(pack: Pack) -> None:
    story = charged(pack)
    file(story)
    file(story, "2026-08-04T10:00", appeal="again")
    refused = [one for one in said(story) if one.rule == "ls-appeal-refused"]
    assert [(one.incident, one.facts["event.why"].value) for one in refused] == [("again", "appealed")]


def test_an_appeal_is_decided_also_for_whoever_has_left_the_pack(pack: Pack) -> None:
    story = charged(pack)
    file(story)
    accept(story)
    hear(story)
    story.tell("2026-08-06T08:00", "roster.changed", team="t-1", packs=["front-desk"])
    decide(story)
    found = said(story)
    assert [one.points for one in found if one.reverses == CHARGE] == ["2"]
    assert "ls-appeal-upheld" in {one.rule for one in found}
    story.tell("2026-08-06T10:00", "survey.cross_department", id="worse", by="legal", rating="poor")
    assert "worse" not in {one.incident for one in said(story)}, "new events are no business of the pack"


def test_what_was_put_right_already_is_not_appealed_against(pack: Pack) -> None:
    story = charged(pack)
    file(story)
    accept(story)
    hear(story)
    decide(story)
    file(story, "2026-08-07T09:00", appeal="again")
    refused = [one for one in said(story) if one.rule == "ls-appeal-refused"]
    assert [one.facts["event.why"].value for one in refused] == ["taken_back"]


def test_an_appeal_against_a_grade_must_say_what_is_taken_back(pack: Pack) -> None:
    story = charged(pack)
    story.tick("2026-09-05T00:00")
    grade = [one for one in story.replay.grade_list() if one.period == "2026-08"][-1]
    assert (grade.score, grade.status) == ("98", "final")
    file(story, "2026-09-07T09:00", against=grade.id)
    accept(story, "2026-09-07T10:00")
    hear(story, "2026-09-07T11:00")
    decide(story, "2026-09-08T09:00")
    assert story.rejects() == ["nothing_to_correct"]
    decide(story, "2026-09-08T10:00", reversals=[CHARGE])
    reversal = next(one for one in said(story) if one.reverses)
    assert (reversal.reverses, reversal.points, reversal.period, reversal.adjusts_period) == (
        CHARGE, "2", "2026-09", "2026-08",
    )  # fmt: skip


def test_an_investigation_may_outlast_the_memory_of_the_month(pack: Pack) -> None:
    story = charged(pack)
    file(story)
    accept(story)
    hear(story)
    story.tick("2026-12-01T00:00")
    assert CHARGE not in story.replay.engines[0].agents["a-1"].entries
    decide(story, "2026-12-02T09:00")
    reversal = next(one for one in said(story) if one.reverses)
    assert (reversal.reverses, reversal.points, reversal.adjusts_period) == (CHARGE, "2", "2026-08")


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_successor_goes_on_where_the_engine_stopped(pack: Pack, cut: int) -> None:
    whole = charged(pack)
    steps: list[Callable[[Story], None]] = [
        file,
        accept,
        hear,
        lambda story: story.tell(
            "2026-08-06T08:00", "goal.proposed", goal_id="g", period="2026-09", indicator="x", target="y"
        ),
        lambda story: story.tell("2026-08-06T08:01", "goal.signed", goal_id="g", who="employee"),
        decide,
        lambda story: story.tell("2026-08-07T08:00", "goal.signed", goal_id="g", who="supervisor"),
    ]
    for step in steps:
        step(whole)
    cut_story = charged(pack)
    stored: dict[str, bytes] = {}
    for number, step in enumerate(steps):
        if number == cut:
            cut_story.replay.finish()
            engine = cut_story.replay.engines[0]
            for key, raw in engine.checkpoint().items():
                if raw is None:
                    stored.pop(key, None)
                else:
                    stored[key] = raw
            successor = PartitionEngine((pack,), zones=Zones(default="Asia/Shanghai"))
            successor.restore(stored)
            cut_story.replay.engines[0] = successor
        step(cut_story)
    whole.tick("2026-09-20T00:00")
    cut_story.tick("2026-09-20T00:00")
    assert cut_story.decisions() == whole.decisions()
    assert "ls-appeal-upheld" in rules_of(whole)
    assert "ls-goal-in-force" in rules_of(whole)


def test_partitions_make_no_difference(pack: Pack) -> None:
    found = []
    for partitions in (1, 3):
        story = charged(pack, partitions)
        file(story)
        accept(story)
        hear(story)
        decide(story)
        story.tick("2026-09-20T00:00")
        found.append((story.decisions(), story.alerts(), story.grades()))
    assert found[0] == found[1]


def test_settled_appeals_are_forgotten_before_open_ones(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_APPEALS", 2)
    story = charged(pack)
    file(story, appeal="open")
    file(story, appeal="second")
    file(story, appeal="third")
    dossier = story.replay.engines[0].dossiers.found["a-1"]
    assert [(one.id, one.state) for one in dossier.appeals.values()] == [
        ("open", "filed"),
        ("third", "refused"),
    ]
    story.tell("2026-08-04T10:00", "survey.cross_department", id="poor2", by="legal", rating="poor")
    second = decision_id(
        "logistics-service", "ls-cooperation", "0", "agent", "a-1", "month", "2026-08", "poor2", ""
    )  # fmt: skip
    file(story, appeal="fourth", against=second)
    file(story, appeal="fifth")
    assert story.rejects() == ["too_many_appeals"]


def test_notes_are_bounded(monkeypatch: pytest.MonkeyPatch, pack: Pack) -> None:
    monkeypatch.setattr(module, "MAX_NOTES", 3)
    story = charged(pack)
    for number in range(5):
        story.tell(
            "2026-08-04T09:00", "interview.held", interview_id=f"i-{number}", appraisal_id="logistics-service/a-1/x",
            employee_signed=True, supervisor_signed=True,
        )  # fmt: skip
        story.tell("2026-08-04T09:00", "goal.signed", goal_id=f"g-{number}", who="employee")
        story.tell(
            "2026-08-04T09:00", "result.announced", pack="p", window="month", period=f"2026-0{number + 1}"
        )
    dossier = story.replay.engines[0].dossiers.found["a-1"]
    assert [len(one) for one in (dossier.interviews, dossier.goals, dossier.told)] == [3, 3, 3]
    assert list(dossier.interviews) == ["i-2", "i-3", "i-4"]


def test_an_agent_who_left_is_forgotten_unless_an_appeal_is_open() -> None:
    dossiers = module.Dossiers.__new__(module.Dossiers)
    dossiers.found = {
        "gone": Dossier(appeals={"a": module.Appeal("a", "d", "result", "p", "rejected")}),
        "waits": Dossier(appeals={"a": module.Appeal("a", "d", "result", "p", "accepted")}),
    }
    dossiers.touched = set()
    dossiers.forget("gone")
    dossiers.forget("waits")
    dossiers.forget("unknown")
    assert list(dossiers.found) == ["waits"]
    assert dossiers.checkpoint() == {"y\x1fgone": None}


def heard(pack: Pack) -> Story:
    story = charged(pack)
    file(story)
    accept(story)
    hear(story)
    return story


def test_what_remains_of_an_entry_is_charged_under_its_own_rule(pack: Pack) -> None:
    story = heard(pack)
    decide(story, remains=50)
    reversal, rest = [one for one in said(story) if one.points not in ("0", "-2")]
    assert (reversal.reverses, reversal.points, reversal.clause) == (CHARGE, "2", "LS-15")
    assert (rest.rule, rest.clause, rest.kind, rest.points, rest.incident) == (
        "ls-cooperation", "LS-07", "deduct", "-0.5", "poor",
    )  # fmt: skip
    assert "right (partly)" in rest.explanation.en
    assert rest.arithmetic[0].result == "-0.5"
    assert story.replay.grade_list()[-1].score == "99.5"
    assert [one.state for one in lines_of((pack,), said(story))] == ["partly upheld"]


@pytest.mark.parametrize(
    ("upheld", "remains"), [(False, 50), (True, 200), (True, 201)], ids=["dismissed", "all of it", "more"]
)
def test_what_cannot_remain_is_refused(pack: Pack, upheld: bool, remains: int) -> None:
    story = heard(pack)
    decide(story, upheld=upheld, remains=remains)
    assert story.rejects() == ["invalid"]


def test_a_part_of_two_entries_is_no_part_of_one(pack: Pack) -> None:
    story = heard(pack)
    story.tell("2026-08-06T08:00", "survey.cross_department", id="poor2", by="legal", rating="poor")
    second = decision_id(
        "logistics-service", "ls-cooperation", "0", "agent", "a-1", "month", "2026-08", "poor2", ""
    )  # fmt: skip
    decide(story, remains=50, reversals=[second])
    assert story.rejects() == ["invalid"]


def test_the_rest_can_be_appealed_against_as_well(pack: Pack) -> None:
    story = heard(pack)
    decide(story, remains=50)
    rest = next(one for one in said(story) if one.points == "-0.5")
    file(story, "2026-08-07T09:00", appeal="again", against=rest.id)
    story.tell("2026-08-07T10:00", "appeal.accepted", appeal_id="again", by="hr", reason="Yes.")
    story.tell("2026-08-07T11:00", "appeal.heard", appeal_id="again", who="employee")
    story.tell("2026-08-07T11:01", "appeal.heard", appeal_id="again", who="supervisor")
    story.tell("2026-08-07T12:00", "appeal.decided", appeal_id="again", upheld=True, by="gm", reason="So.")
    assert story.rejects() == []
    assert sum(Fraction(one.points) for one in said(story)) == 0
    assert story.replay.grade_list()[-1].score == "100"


def test_the_conclusion_of_an_interview_can_be_appealed_against(pack: Pack) -> None:
    story = charged(pack)
    story.tell(
        "2026-09-08T09:00", "interview.held", interview_id="i-1", appraisal_id="logistics-service/a-1/2026-08",
        employee_signed=True, supervisor_signed=True,
    )  # fmt: skip
    story.tell(
        "2026-09-15T09:00", "appeal.filed", appeal_id="ap", against="i-1", ground="interview", text="No."
    )
    accept(story, "2026-09-15T10:00")
    hear(story, "2026-09-15T11:00")
    decide(story, "2026-09-16T09:00")
    assert story.rejects() == []
    upheld = [one for one in said(story) if one.rule == "ls-appeal-upheld"]
    assert {one.kind for one in upheld} == {"task"}


def test_a_proposal_that_is_appealed_against_is_withdrawn(pack: Pack) -> None:
    """The use of a result: an entry without points is reversed by one without points."""
    task = "ls-goal-in-force"
    story = Story(pack)
    story.tell("2026-08-03T09:00", "goal.proposed", goal_id="g", period="2026-09", indicator="x", target="y")
    story.tell("2026-08-03T09:01", "goal.signed", goal_id="g", who="employee")
    story.tell("2026-08-03T09:02", "goal.signed", goal_id="g", who="supervisor")
    entry = next(one for one in said(story) if one.rule == task)
    story.tell("2026-08-04T09:00", "appeal.filed", appeal_id="ap", against=entry.id, ground="use", text="No.")
    accept(story)
    hear(story)
    decide(story)
    reversal = next(one for one in said(story) if one.reverses)
    assert (reversal.kind, reversal.reverses, reversal.points) == ("waive", entry.id, "0")


def test_the_list_tells_how_appeals_stand(pack: Pack) -> None:
    story = charged(pack)
    file(story)
    accept(story)
    hear(story)
    decide(story)
    file(story, "2026-08-07T09:00", appeal="again")
    lines = lines_of((pack,), said(story))
    assert [(one.appeal, one.agent, one.state, one.reversed) for one in lines] == [
        ("again", "a-1", "refused", []), ("ap", "a-1", "upheld", [CHARGE]),
    ]  # fmt: skip
    assert "found the appeal ap" in lines[1].said


# --- appeals about attendance -----------------------------------------------------------------------------------------


def two_absences() -> Story:
    story = Story(load_pack(RULES / "full-attendance"))
    for day in ("2026-08-03", "2026-08-04"):
        starts, ends = at(f"{day}T09:00"), at(f"{day}T18:00")
        story.tell(f"{day}T00:00", "shift.scheduled", shift_id=day, day=day, starts_at=starts, ends_at=ends)
    story.tick("2026-08-04T20:00")
    return story


def absences(story: Story) -> list[tuple[str, str, str]]:
    return [(one.incident, one.points, one.id) for one in said(story) if one.rule == "fa-absent"]


@pytest.mark.parametrize(("upheld", "left"), [(True, 1), (False, 2)])
def test_an_absence_that_an_appeal_was_right_about_is_excused(upheld: bool, left: int) -> None:
    story = two_absences()
    charged_before = absences(story)
    assert [one[:2] for one in charged_before] == [("2026-08-03", "-10"), ("2026-08-04", "-10")]
    file(story, "2026-08-05T08:00", against=charged_before[0][2])
    accept(story)
    hear(story)
    decide(story, upheld=upheld)
    story.tick("2026-08-06T10:00")
    assert story.figure("absences", "month", "2026-08") == left
    assert absences(story) == charged_before, "the other absence was charged anew"


def test_an_appeal_upheld_in_part_excuses_nothing() -> None:
    story = two_absences()
    file(story, "2026-08-05T08:00", against=absences(story)[0][2])
    accept(story)
    hear(story)
    decide(story, remains=400)
    story.tick("2026-08-06T10:00")
    assert story.figure("absences", "month", "2026-08") == 2
