"""Appeals against grades of cards of items: what the result becomes, and what followed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core.model import Pack
from kaohe.decisions import Grade, grade_id
from kaohe.packs.load import load_pack
from tests.support.packs import Story

RULES = Path(__file__).resolve().parents[2] / "rules"


@pytest.fixture(scope="module")
def kpi() -> Pack:
    return load_pack(RULES / "company-kpi")


def august(pack: Pack, *others: Pack) -> Story:
    """Twelve people; a-1 is the best of them, a-12 was not monitored well."""
    story = Story(pack, *others)
    for index in range(1, 13):
        story.tell(
            "2026-08-01T08:00",
            "roster.changed",
            f"a-{index}",
            team="t",
            department=f"d-{index}",
            superior="s-1",
        )
    for index in range(1, 13):
        for number in range(6):
            story.tell(
                f"2026-08-05T{10 + number}:00", "quality.evaluated", f"a-{index}", by=f"q-{number % 3}",
                score=9800 - 100 * index if index < 12 else 1000,
            )  # fmt: skip
    story.tick("2026-09-09T00:00")
    return story


def own_id(agent: str, pack: str = "company-kpi") -> str:
    return grade_id(pack, "agent", agent, "month", "2026-08")


def appeal(story: Story, agent: str, against: str = "", **decided: Any) -> None:
    story.tell(
        "2026-09-09T09:00",
        "appeal.filed",
        agent,
        appeal_id="ap",
        against=against or own_id(agent),
        text="No.",
    )
    story.tell("2026-09-09T10:00", "appeal.accepted", agent, appeal_id="ap", by="office", reason="Yes.")
    story.tell("2026-09-09T11:00", "appeal.heard", agent, appeal_id="ap", who="employee")
    story.tell("2026-09-09T11:01", "appeal.heard", agent, appeal_id="ap", who="supervisor")
    if decided:
        story.tell(
            "2026-09-09T12:00", "appeal.decided", agent, appeal_id="ap", by="gm", reason="They were mixed up.",
            **decided,
        )  # fmt: skip
    story.tick("2026-09-09T13:00")
    story.replay.finish()


def finals(story: Story, agent: str) -> list[Grade]:
    return [one for one in story.replay.grade_list() if one.id == own_id(agent) and one.status == "final"]


def test_the_company_decides_again_with_what_a_result_becomes(kpi: Pack) -> None:
    story = august(kpi)
    assert [one.grade for one in finals(story, "a-12")] == ["D"]
    appeal(story, "a-12", upheld=True, grade="B")
    assert story.rejects() == []
    before, after = finals(story, "a-12")
    assert (before.grade, after.grade, after.previous_grade) == ("D", "B", "D")
    assert after.revision > before.revision
    assert "decided by gm: They were mixed up." in after.explanation.en
    withdrawn = [one for one in story.replay.decision_list() if one.rule == "ck-observation"]
    assert [(one.kind, one.reverses) for one in withdrawn] == [("proposal", ""), ("waive", withdrawn[0].id)]
    assert len(finals(story, "a-2")) == 1


def test_who_was_told_the_best_grade_keeps_it_where_the_pack_says_so_and_the_appeal_is_named(
    kpi: Pack,
) -> None:
    assert kpi.results.quota is not None
    quota = msgspec.structs.replace(kpi.results.quota, after_told="keep")
    story = august(msgspec.structs.replace(kpi, results=msgspec.structs.replace(kpi.results, quota=quota)))
    appeal(story, "a-12", upheld=True, score=9900)
    newest = {name: finals(story, name)[-1] for name in (f"a-{index}" for index in range(1, 13))}
    assert [name for name, one in newest.items() if one.grade == "A"] == ["a-1", "a-12"]
    first, kept = finals(story, "a-1")
    assert (first.score, kept.score, kept.previous_grade) == (first.score, first.score, "A")
    assert "keeps A beyond the quota (CK-05), for it was told before" in kept.explanation.en
    assert "the quota (CK-05) is exceeded by 1: a-1 had been told A" in newest["a-12"].explanation.en
    assert "超出 1 人：a-1" in newest["a-12"].explanation.zh
    # A second appeal: a-1 has heard it, and hears nothing more; the places are as many as before.
    for hour, tag, data in (
        (13, "filed", {"against": own_id("a-11"), "text": "Look again."}),
        (14, "accepted", {"by": "hr", "reason": "Seen."}), (15, "heard", {"who": "employee"}),
        (16, "heard", {"who": "supervisor"}),
        (17, "decided", {"upheld": True, "by": "gm", "reason": "They were right.", "score": 9990}),
    ):  # fmt: skip
        story.tell(f"2026-09-09T{hour}:30", f"appeal.{tag}", "a-11", appeal_id="ap-2", **data)
    story.tick("2026-09-09T19:00")
    story.replay.finish()
    assert story.rejects() == []
    assert len(finals(story, "a-1")) == 2
    best = [name for name in newest if finals(story, name)[-1].grade == "A"]
    assert best == ["a-1", "a-11", "a-12"]
    assert "exceeded by 2: a-1, a-12 had been told A" in finals(story, "a-11")[-1].explanation.en


def test_a_better_score_takes_the_place_and_nobody_gets_a_place_too_many(kpi: Pack) -> None:
    story = august(kpi)
    appeal(story, "a-12", upheld=True, score=9900)
    newest = [finals(story, f"a-{index}")[-1].grade for index in range(1, 13)]
    assert newest.count("A") == 1
    assert newest[11] == "A"
    assert finals(story, "a-1")[-1].previous_grade == "A"


@pytest.mark.parametrize(
    ("decided", "code"),
    [
        ({"upheld": True}, "nothing_to_correct"),
        ({"upheld": False, "grade": "B"}, "invalid"),
        ({"upheld": True, "grade": "Z"}, "invalid"),
        ({"upheld": True, "grade": "A", "score": 6000}, "views_disagree"),
    ],
)
def test_what_a_result_cannot_become_is_refused(kpi: Pack, decided: dict[str, Any], code: str) -> None:
    story = august(kpi)
    appeal(story, "a-12", **decided)
    assert story.rejects() == [code]


def test_the_sum_of_entries_is_changed_by_entries(kpi: Pack) -> None:
    desk = load_pack(RULES / "front-desk")
    story = august(kpi, desk)
    story.tick("2026-09-09T08:00")
    appeal(story, "a-12", own_id("a-12", "front-desk"), upheld=True, grade="A")
    assert story.rejects() == ["sum_of_entries"]


def test_what_follows_from_a_grade_is_not_appealed_against_by_itself(kpi: Pack) -> None:
    story = august(kpi)
    proposal = next(one for one in story.replay.decision_list() if one.rule == "ck-observation")
    appeal(story, "a-12", proposal.id)
    assert story.rejects()[0] == "follows_from_grade"
    assert own_id("a-12") in story.replay.rejects[0].reason


def test_a_grade_that_is_forgotten_is_changed_no_more(kpi: Pack) -> None:
    story = august(kpi)
    appeal(story, "a-12")
    story.tick("2026-12-20T00:00")
    story.tell(
        "2026-12-20T09:00",
        "appeal.decided",
        "a-12",
        appeal_id="ap",
        by="gm",
        reason="So.",
        upheld=True,
        grade="B",
    )
    assert story.rejects() == ["unknown_appealed"]
