"""Who may say what about whom: assessments are admitted by the roster, and remembered until their period is graded.

Theory of operation. An assessment names a pack, a period, an item of the scorecard and the role in which somebody
speaks. The role must be one's own by the roster *as it is known when the assessment arrives, at the assessment's time*:
``self`` is the person, ``superior`` the direct superior, ``leader`` the leader in charge (the superior where no leader
is named), ``peer`` anybody else, ``department`` somebody who speaks for another department. The final word is the
leader's alone. What does not hold is refused with a reason and changes nothing; who sends it again after the roster
was put right is heard. When the period is closed, nothing more is heard about it.

What somebody says again replaces what was said before by the times of the events, so that their order of arrival does
not matter. Scores of monitored contacts are sums by assessor, which no order can change either.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from kaohe.core.calendars import Calendar, Period, bounds_of
from kaohe.core.facts import number_text
from kaohe.core.model import Item, Pack, Scorecard
from kaohe.core.scorecard import grade_of
from kaohe.core.subjects import MAX_VOICES, SEPARATOR, RosterLine, Ruling, Sitting, Subject, Voice, result_key
from kaohe.errors import EventError, UsageError

ASSESSMENTS = ("assessment.submitted", "assessment.decided")
EVALUATED = "evaluated"
"""The role under which scores of monitored contacts are kept."""
_NOBODY = RosterLine(0, "", "", "", [])


class Said(NamedTuple):
    """A final word on an item (or, empty, on the whole): a score in hundredths, or a grade."""

    item: str
    score: int | None
    grade: str


class Bench(Protocol):
    """What admission needs to know of the judge."""

    active: dict[str, str]
    packs: dict[str, Pack]

    def judges(self, pack: Pack, subject: Subject, at_ms: int) -> bool:
        """Whether a pack is in force for a subject."""

    def is_closed(self, pack: Pack, subject: Subject, period: Period, now_ms: int) -> bool:
        """Whether a period was closed for a subject."""


class Case:
    """What one assessment is about: pack, card and period."""

    __slots__ = ("card", "pack", "period")

    def __init__(self, pack: Pack, card: Scorecard, period: Period) -> None:
        self.pack = pack
        self.card = card
        self.period = period

    @property
    def key(self) -> str:
        """Under which a subject keeps the sitting."""
        return result_key(self.pack.name, self.period)


def case_of(
    data: Any, level: str, bench: Bench, calendar: Calendar, card_of: Callable[[Pack, str, str], Scorecard | None]
) -> Case:  # fmt: skip
    """Pack, card and period of an assessment; EventError when there is no such thing."""
    version = bench.active.get(data.pack)
    if version is None:
        raise EventError("unknown_pack", f"$.data.pack: {data.pack} is not loaded here")
    pack = bench.packs[f"{data.pack}@{version}"]
    card = card_of(pack, level, data.window)
    if card is None:
        raise EventError(
            "unknown_scorecard",
            f"$.data: {pack.name} has no scorecard of items for each {level} and {data.window}",
        )
    try:
        period = calendar.period(data.window, data.period)
    except UsageError as error:
        raise EventError("invalid", f"$.data.period: {error}") from None
    return Case(pack, card, period)


def admit(
    tag: str, data: Any, level: str, case: Case, bench: Bench, subject: Subject | None, time_ms: int, now_ms: int
) -> None:  # fmt: skip
    """Refuse an assessment that may not be made; EventError says why."""
    if SEPARATOR in data.by or SEPARATOR in getattr(data, "by_department", ""):
        raise EventError("invalid", "$.data names somebody with a control character")
    check_spoken(tag, data)
    if case.period.start_ms > time_ms:
        raise EventError("invalid", f"$.data.period: {case.period.label} has not begun yet")
    if subject is not None:
        if not bench.judges(case.pack, subject, min(time_ms, case.period.end_ms - 1)):
            raise EventError("pack_not_in_force", f"{case.pack.name} is not in force for {subject.name}")
        if bench.is_closed(case.pack, subject, case.period, now_ms):
            raise EventError(
                "period_closed",
                f"{case.period.label} is closed for {subject.name}: nothing more is heard about it",
            )
        sitting = subject.sittings.get(case.key)
        if sitting is not None and len(sitting.voices) + len(sitting.rulings) >= MAX_VOICES:
            raise EventError(
                "too_many_voices", f"more than {MAX_VOICES} assessments of one subject and period"
            )
    line = (subject.line_at(time_ms) if subject is not None else None) or _NOBODY
    if tag == ASSESSMENTS[0]:
        item = _item(case.card, data.item)
        _check_heard(data, case, item)
        _check_role(data, level, line)
        _check_said(data, case, item)
    else:
        _check_leader(data, line)
        check_ruling(data, case)


def check_spoken(tag: str, data: Any) -> None:
    """EventError for an assessment that says nothing, or too much."""
    if (data.score is None) == (not data.grade) and not (tag == ASSESSMENTS[1] and data.score is not None):
        raise EventError("invalid", "$.data says neither score nor grade, or both: give one of them")


def check_content(tag: str, data: Any, case: Case) -> None:
    """EventError for what the pack alone refuses: the item, who is heard about it, and what may be said of it.

    Who has which role is not looked at: that is told by the roster.
    """
    check_spoken(tag, data)
    if tag == ASSESSMENTS[0]:
        item = _item(case.card, data.item)
        _check_heard(data, case, item)
        _check_said(data, case, item)
    else:
        check_ruling(data, case)


def _item(card: Scorecard, name: str) -> Item:
    items = {item.name: item for dimension in card.dimensions for item in dimension.items}
    item = items.get(name)
    if item is None or item.kind != "assessed":
        known = ", ".join(one.name for one in items.values() if one.kind == "assessed") or "none"
        raise EventError("unknown_item", f"$.data.item: nobody assesses {name!r}; assessed are: {known}")
    return item


def _check_heard(data: Any, case: Case, item: Item) -> None:
    weights = _table(case, item.roles)
    if data.role not in weights:
        heard = ", ".join(weights)
        raise EventError(
            "not_allowed", f"$.data.role: {data.role} is not heard about {item.name}; heard are: {heard}"
        )


def _check_role(data: Any, level: str, line: RosterLine) -> None:
    if level == "department":
        own, reason = _department_role(data, line)
    else:
        own, reason = _agent_role(data, line)
    if not own:
        raise EventError("not_allowed", f"$.data.by: {data.by} {reason}")


def _agent_role(data: Any, line: RosterLine) -> tuple[bool, str]:
    agent, by = data.agent, data.by
    leader = line.leader or line.superior
    if data.role == "self":
        return by == agent, f"is not {agent}, who alone speaks in the role self"
    if data.role == "superior":
        return bool(by) and by == line.superior, f"is not the superior of {agent} by the roster"
    if data.role == "leader":
        return bool(by) and by == leader, f"is not the leader in charge of {agent} by the roster"
    if data.role == "peer":
        return by not in (agent, line.superior, leader), f"is no peer of {agent}"
    own = line.department or line.team
    other = bool(data.by_department) and data.by_department != own
    return other, f"does not speak for another department than that of {agent}: name it in by_department"


def _department_role(data: Any, line: RosterLine) -> tuple[bool, str]:
    if data.role == "self":
        return data.by == line.superior, f"is not the head of {data.department} by the roster"
    if data.role == "leader":
        return data.by == line.leader, f"is not the leader in charge of {data.department} by the roster"
    other = bool(data.by_department) and data.by_department != data.department
    return other, f"does not speak for another department than {data.department}: name it in by_department"


def _check_leader(data: Any, line: RosterLine) -> None:
    """The final word is the leader's in charge, never one's own."""
    leader = line.leader or ("" if data.department else line.superior)
    about = data.agent or data.department
    if not leader or data.by != leader or data.by == about:
        raise EventError(
            "not_allowed", f"$.data.by: {data.by} is not the leader in charge of {about} by the roster"
        )


def _check_said(data: Any, case: Case, item: Item) -> None:
    most = case.pack.parameters[item.most].value_at(_day(case))
    assert isinstance(most, Fraction)
    if data.score is not None and Fraction(data.score, 100) > most:
        raise EventError(
            "invalid",
            f"$.data.score: {number_text(Fraction(data.score, 100))} points are more than the {number_text(most)} "
            f"that {item.name} is worth",
        )
    known = _table(case, item.words) if item.words else {}
    if data.grade and data.grade not in known:
        said = f"say one of {', '.join(known)}" if known else "give a score"
        raise EventError("invalid", f"$.data.grade: {item.name} knows no word {data.grade!r}; {said}")


def check_ruling(data: Any, case: Case) -> None:
    """EventError unless a final word can be carried out: within the bounds, with views that agree."""
    if data.item:
        if data.score is not None and data.grade:
            raise EventError("invalid", "$.data says both score and grade: give one of them")
        _check_said(data, case, _item(case.card, data.item))
        return
    bands = _table(case, case.card.bands)
    if data.grade and data.grade not in bands:
        raise EventError(
            "invalid", f"$.data.grade: there is no grade {data.grade!r}; say one of {', '.join(bands)}"
        )
    if data.score is None:
        return
    score = Fraction(data.score, 100)
    low, high = (
        case.pack.parameters[one].value_at(_day(case)) for one in (case.card.lowest, case.card.highest)
    )
    assert isinstance(low, Fraction)
    assert isinstance(high, Fraction)
    if not low <= score <= high:
        raise EventError("invalid", f"$.data.score: {score} lies outside of {low} to {high}")
    if data.grade and data.grade != grade_of(score, bands):
        raise EventError(
            "views_disagree", f"$.data: a score of {score} is a {grade_of(score, bands)}, not a {data.grade}"
        )


def _table(case: Case, parameter: str) -> dict[str, Fraction]:
    found = case.pack.parameters[parameter].value_at(_day(case))
    assert isinstance(found, dict), parameter
    return found


def _day(case: Case) -> date:
    """The first day of the period: whose parameters hold for all of it."""
    return bounds_of(case.period.window, case.period.label)[0]


# --- remembering ------------------------------------------------------------------------------------------------------


def hear(tag: str, data: Any, case: Case, subject: Subject, time_ms: int, event_id: str) -> None:
    """Remember an admitted assessment."""
    sitting = subject.sittings.setdefault(case.key, Sitting())
    if tag == ASSESSMENTS[1]:
        insort(
            sitting.rulings,
            Ruling(data.item, time_ms, event_id, data.by, data.score, data.grade, data.reason),
        )
        return
    by = data.by_department if data.role == "department" else data.by
    score = data.score or 0
    voice = Voice(data.item, data.role, by, time_ms, event_id, 1, score, score * score, data.grade)
    place = (voice.item, voice.role, voice.by)
    before = [one for one in sitting.voices if (one.item, one.role, one.by) == place]
    newest = max([*before, voice])
    sitting.voices = sorted([*(one for one in sitting.voices if one not in before), newest])


def is_unheard(data: Any, case: Case, subject: Subject, time_ms: int) -> bool:
    """Whether somebody else speaks about an item on which the person is to be heard, and the person has not spoken."""
    if not data.item or getattr(data, "role", "self") == "self":
        return False
    if "self" not in _table(case, _item(case.card, data.item).roles):
        return False
    sitting = subject.sittings.get(case.key)
    voices = sitting.voices if sitting is not None else []
    return not any((one.item, one.role) == (data.item, "self") and one.at_ms <= time_ms for one in voices)


def hear_evaluation(data: Any, pack: Pack, period: Period, subject: Subject) -> None:
    """Add the score of a monitored contact to its assessor's sums."""
    sitting = subject.sittings.setdefault(result_key(pack.name, period), Sitting())
    for voice in sitting.voices:
        if (voice.role, voice.by) == (EVALUATED, data.by):
            voice.count += 1
            voice.total += data.score
            voice.squares += data.score * data.score
            return
    if len(sitting.voices) < MAX_VOICES:
        insort(
            sitting.voices, Voice("", EVALUATED, data.by, 0, "", 1, data.score, data.score * data.score, "")
        )


def ruling_on(sitting: Sitting | None, item: str) -> Ruling | None:
    """The newest final word on an item (or on the whole)."""
    found = [one for one in sitting.rulings if one.item == item] if sitting is not None else []
    return found[-1] if found else None
