"""What must hold of entries and scores whatever happens: sums, reversals, and the order of events that are apart."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core.model import Pack
from kaohe.decisions import Decision
from kaohe.packs.load import load_pack
from tests.support.packs import Story

RULES = Path(__file__).resolve().parents[2] / "rules"
PEOPLE = ("a-1", "a-2", "a-3")
Told = tuple[str, str, str, dict[str, Any]]
"""When, what, about whom, and its data."""


@lru_cache(maxsize=1)
def desk() -> Pack:
    """Not a fixture: a pack is far too much to be shown beside an example that fails."""
    return load_pack(RULES / "front-desk")


def _audit(agent: str, day: int, followed: int) -> Told:
    data = {"audit_id": f"au-{agent}-{day}-{followed}", "steps_checked": 10, "steps_followed": followed}
    return f"2026-08-{day:02}T09:00", "flow.audited", agent, data


def _survey(agent: str, day: int, satisfaction: str) -> Told:
    return f"2026-08-{day:02}T10:00", "survey.customer", agent, {"satisfaction": satisfaction}


def _wait(agent: str, day: int, wait_ms: int) -> Told:
    return f"2026-08-{day:02}T11:00", "call.answered", agent, {"call_id": "c", "wait_ms": wait_ms}


def happenings(first: int, last: int) -> st.SearchStrategy[list[Told]]:
    """Audits, surveys and receptions of three people on some days of August."""
    days, people = st.integers(first, last), st.sampled_from(PEOPLE)
    content = st.sampled_from(("satisfied", "neutral", "dissatisfied"))
    return st.lists(
        st.one_of(
            st.builds(_audit, people, days, st.integers(0, 10)),
            st.builds(_survey, people, days, content),
            st.builds(_wait, people, days, st.integers(0, 900_000)),
        ),
        max_size=40,
    )


RECENT = happenings(28, 31)
"""Days from which an appeal is still in time on the fourth of September."""
often = settings(max_examples=15, deadline=None)


def month(pack: Pack, timely: list[Told], late: list[Told]) -> Story:
    """August with some events in their order, and some after it was closed."""
    story = Story(pack)
    for number, (when, tag, agent, data) in enumerate(sorted(timely, key=lambda one: one[0])):
        story.tell(when, tag, agent, id=f"timely-{number}", **data)
    story.tick("2026-09-04T01:00")
    for number, (when, tag, agent, data) in enumerate(late):
        story.late(when, tag, agent, id=f"late-{number}", **data)
    story.tick("2026-09-04T02:00")
    story.replay.finish()
    assert story.rejects() == []
    return story


def sums(story: Story) -> dict[tuple[str, str], Fraction]:
    """What the entries of each person come to in each month."""
    found: defaultdict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for one in story.replay.newest_decisions().values():
        if (one.level, one.window) == ("agent", "month"):
            found[one.subject, one.period] += Fraction(one.points)
    return dict(found)


def scores(story: Story) -> dict[tuple[str, str], Fraction]:
    """The score of each person and month, as it is shown last."""
    newest = {one.id: one for one in story.replay.grade_list()}
    return {(one.subject, one.period): Fraction(one.score) for one in newest.values()}


def entries(story: Story) -> list[Decision]:
    """Every entry of a person with points."""
    newest = story.replay.newest_decisions().values()
    return [one for one in newest if one.level == "agent" and one.points != "0" and one.status == "final"]


def appeal(story: Story, number: int, entry: Decision, **decided: Any) -> None:
    common = {"appeal_id": f"ap-{number}"}
    story.late("2026-09-04T02:00", "appeal.filed", entry.subject, against=entry.id, text="No.", **common)
    story.late("2026-09-04T02:00", "appeal.accepted", entry.subject, by="hr", reason="Yes.", **common)
    for who in ("employee", "supervisor"):
        story.late("2026-09-04T02:00", "appeal.heard", entry.subject, who=who, **common)
    story.late(
        "2026-09-04T02:00",
        "appeal.decided",
        entry.subject,
        by="gm",
        reason="So.",
        upheld=True,
        **common,
        **decided,
    )


@often
@given(timely=happenings(3, 31), late=happenings(3, 31))
def test_the_sum_of_a_person_s_entries_is_the_score_shown(timely: list[Told], late: list[Told]) -> None:
    story = month(desk(), timely, late)
    worth = sums(story)
    for key, score in scores(story).items():
        assert score == min(Fraction(100), max(Fraction(0), 100 + worth.get(key, Fraction(0)))), key


@often
@given(timely=RECENT, late=RECENT)
def test_the_reversal_of_everything_comes_to_nothing(timely: list[Told], late: list[Told]) -> None:
    story = month(desk(), timely, late)
    for number, entry in enumerate(entries(story)):
        appeal(story, number, entry)
    story.tick("2026-09-04T03:00")
    story.replay.finish()
    assert story.rejects() == []
    total: defaultdict[str, Fraction] = defaultdict(Fraction)
    for (agent, _), worth in sums(story).items():
        total[agent] += worth
    assert not any(total.values())
    for one in entries(story):
        if one.reverses:
            assert Fraction(one.points) == -Fraction(story.replay.newest_decisions()[one.reverses].points)


@often
@given(timely=RECENT, remains=st.integers(1, 199))
def test_what_is_upheld_in_part_leaves_that_part(timely: list[Told], remains: int) -> None:
    story = month(desk(), timely, [])
    charged = [one for one in entries(story) if one.rule == "fd-flow-breach"]
    before = sum(sums(story).values(), Fraction(0))
    for number, entry in enumerate(charged):
        appeal(story, number, entry, remains=remains)
    story.tick("2026-09-04T03:00")
    story.replay.finish()
    assert story.rejects() == []
    after = sum(sums(story).values(), Fraction(0))
    assert after - before == len(charged) * (2 - Fraction(remains, 100))


@often
@given(timely=happenings(3, 28), seed=st.randoms(use_true_random=False))
def test_the_order_of_events_of_one_day_does_not_matter(timely: list[Told], seed: Any) -> None:
    """Events of different people, and audits and surveys of one, are apart: only when they happened counts."""
    shuffled = list(timely)
    seed.shuffle(shuffled)
    one, other = Story(desk()), Story(desk())
    for story, told in ((one, sorted(timely, key=lambda each: each[0])), (other, shuffled)):
        story.tick("2026-08-29T00:00")
        for when, tag, agent, data in told:
            story.late(when, tag, agent, id=f"{when}-{tag}-{agent}-{sorted(data.items())}", **data)
        story.tick("2026-09-04T01:00")
        story.replay.finish()
    assert sums(one) == sums(other)
    assert scores(one) == scores(other)
