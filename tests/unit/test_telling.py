"""Brief revisions of scorecards: what they leave out, and that nothing is lost by it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kaohe.core.model import Pack
from kaohe.core.telling import WHOLE_EVERY, completed, newest
from kaohe.decisions import ENCODER, Grade, ScoreDetail
from kaohe.packs.load import load_pack
from tests.support.packs import Story

SCORED = Path(__file__).parents[1] / "packs" / "scored"


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack(SCORED)


def detail_of(grade: Grade) -> ScoreDetail:
    assert grade.detail is not None
    return grade.detail


def solving(pack: Pack, times: int) -> Story:
    """A month in which one ticket after the other is resolved, so that a revision follows each evaluation."""
    story = Story(pack)
    story.tell("2026-02-01T08:00", "roster.changed", "a-1", superior="s-1", team="t-1", department="east")
    for number in range(times):
        when = f"2026-02-{2 + number // 8:02}T{8 + number % 8:02}"
        story.tell(f"{when}:01", "ticket.resolved", ticket_id=f"t-{number}", first_contact=number % 3 != 0)
        story.tick(f"{when}:30")
    return story


def months(story: Story) -> list[Grade]:
    story.replay.finish()
    return [one for one in story.replay.grade_list() if (one.subject, one.window) == ("a-1", "month")]


def test_a_revision_tells_what_moved_and_can_be_completed(pack: Pack) -> None:
    story = solving(pack, 6)
    grades = months(story)
    assert len(grades) > 3
    first, *others = grades
    assert detail_of(first).since == 0
    card = next(one for one in pack.cards if (one.level, one.window) == ("agent", "month"))
    items = [item.name for dimension in card.dimensions for item in dimension.items]
    assert [line.item for line in detail_of(first).lines] == items
    for before, grade in zip(grades, others, strict=False):
        detail = detail_of(grade)
        assert detail.since == before.revision == grade.revision - 1
        assert [line.item for line in detail.lines] == ["solving"], "nothing else moved"
        assert len(ENCODER.encode(grade)) < len(ENCODER.encode(first)) / 2
    whole = story.replay.newest_grades()[first.id]
    assert detail_of(whole).since == 0
    assert [line.item for line in detail_of(whole).lines] == items
    for found in ("score", "revision", "explanation", "formula"):
        assert getattr(whole, found) == getattr(grades[-1], found)


def test_a_final_revision_is_whole_and_is_what_the_brief_ones_come_to(pack: Pack) -> None:
    story = solving(pack, 6)
    story.replay.finish()
    running = story.replay.newest_grades()[months(story)[0].id]
    for when in ("2026-03-04T00:00", "2026-03-04T00:05"):
        story.tick(when)
    final = months(story)[-1]
    assert (running.status, final.status) == ("provisional", "final")
    assert detail_of(final).since == 0
    assert detail_of(running).lines == detail_of(final).lines
    assert detail_of(running).dimensions == detail_of(final).dimensions


def test_the_card_is_whole_again_after_some_revisions(pack: Pack) -> None:
    grades = months(solving(pack, WHOLE_EVERY + 8))
    assert len(grades) > WHOLE_EVERY + 1
    assert [one.revision for one in grades if not detail_of(one).since] == [1, WHOLE_EVERY + 1]
    late = grades[WHOLE_EVERY:]
    assert newest(late) == newest(grades), "nobody needs to read back further"


def test_a_revision_without_the_one_before_shows_that_it_is_brief(pack: Pack) -> None:
    grades = months(solving(pack, 6))
    assert completed(None, grades[2]) == grades[2]
    assert completed(grades[0], grades[2]) == grades[2], "one is missing between them"
    plain = msgspec.structs.replace(grades[1], detail=None)
    assert completed(plain, grades[2]) == grades[2]
    assert completed(grades[1], plain) == plain
