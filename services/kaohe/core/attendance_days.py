"""What became of one day of one agent: a pure function of the book, the figures in force and the time of the log.

Theory of operation. ``look`` plans the day: its shifts in their versions that hold, or the office hours of a working
day; it gives each clocking to a shift, cuts off what leave covers, and reads the outcomes. What needs time to pass
(nobody came by the end of the grace) appears once the log's clock is past its moment; until then that moment is when
the day has to be looked at again.

A clocking that names no shift belongs to the shift whose start (coming) or end (going) is nearest, among those whose
hours, widened by the window, contain it. Two clockings of one kind are no contradiction: the first coming and the last
going count. A coming after the last going leaves the going open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import msgspec

from kaohe.core.attendance import (
    LOGGED_IN_MS,
    Absent,
    Attended,
    Book,
    Decided,
    EarlyLeave,
    Figures,
    FullDay,
    Half,
    Late,
    Leave,
    LeaveFacts,
    MissingOut,
    NotIn,
    NotLoggedIn,
    Outcome,
    Punch,
    Required,
    ShiftFacts,
    utc_day,
    wall_ms,
)
from kaohe.core.calendars import Calendar
from kaohe.core.model import LeaveDays
from kaohe.core.workdays import DayKind, WorkCalendar

NO_FACTS = ShiftFacts()


class Piece(msgspec.Struct):
    """A stretch of work that is due: a shift, or what leave leaves of it."""

    shift_id: str
    start_ms: int
    end_ms: int
    facts: ShiftFacts


class Presence(msgspec.Struct):
    """When somebody came and went, and the clockings that say so."""

    came_ms: int | None = None
    went_ms: int | None = None
    evidence: list[str] = []


class Policy(msgspec.Struct, frozen=True):
    """What a pack says about one day: the figures in force, which days leave counts, and the public calendar."""

    figures: Figures
    leave_days: dict[str, LeaveDays]
    workdays: WorkCalendar


class Looked(msgspec.Struct):
    """What came of a day: its outcomes, when to look again (None: never by itself), and whether it is all settled."""

    outcomes: list[Outcome]
    due_ms: int | None
    settled: bool


# --- the plan ---------------------------------------------------------------------------------------------------------


def planned(book: Book, day: str, policy: Policy, calendar: Calendar) -> list[Piece]:
    """The shifts of a day in order; without any, the office hours if the day is worked."""
    pieces = []
    for shift_id in sorted(book.by_day.get(day, ())):
        facts = book.shifts[shift_id]
        hours = _hours_that_hold(facts, policy.figures.notice_ms)
        if hours is not None:
            pieces.append(Piece(shift_id, *hours, facts))
    if pieces or not book.hours:
        return sorted(pieces, key=lambda piece: (piece.start_ms, piece.shift_id))
    office = book.hours_on(day)
    found = date.fromisoformat(day)
    if office is None or not policy.workdays.is_workday(found):
        return []
    over = found + timedelta(days=1) if office.ends_min < office.starts_min else found
    shift_id = f"{office.hours_id}@{day}"
    start_ms, end_ms = wall_ms(calendar, found, office.starts_min), wall_ms(calendar, over, office.ends_min)
    return (
        [Piece(shift_id, start_ms, end_ms, book.shifts.get(shift_id, NO_FACTS))] if start_ms < end_ms else []
    )


def _hours_that_hold(facts: ShiftFacts, notice_ms: int) -> tuple[int, int] | None:
    """Start and end of a shift; None when it is called off. A change on short notice asks for no more than before."""
    held: tuple[int, int] | None = None
    day = ""
    for version in facts.versions:
        if version.cancelled:
            held = None
            continue
        told = (version.starts_ms, version.ends_ms)
        if held is not None and version.rank and version.day == day:
            ahead_ms = min(held[0], told[0]) - version.at_ms
            both = (max(held[0], told[0]), min(held[1], told[1]))
            held = told if ahead_ms >= notice_ms or both[0] >= both[1] else both
        else:
            held = told
        day = version.day
    return held


# --- who was there ----------------------------------------------------------------------------------------------------


def presences(
    book: Book, day: str, pieces: list[Piece], policy: Policy, calendar: Calendar
) -> dict[str, Presence]:
    """When the agent came to and went from each shift of a day."""
    if not pieces:
        return {}
    window_ms = policy.figures.window_ms
    loose = [
        punch
        for punch in _loose(
            book, pieces[0].start_ms - window_ms, max(one.end_ms for one in pieces) + window_ms
        )
        if punch.kind in ("in", "out")
    ]
    near = pieces
    if loose:
        middle = date.fromisoformat(day)
        near = list(pieces)
        for step in (-1, 1):
            near += planned(book, (middle + timedelta(days=step)).isoformat(), policy, calendar)
    found: dict[str, list[Punch]] = {piece.shift_id: list(piece.facts.punches) for piece in pieces}
    for punch in loose:
        owner = _owner(punch, near, window_ms)
        if owner in found:
            found[owner].append(punch)
    return {piece.shift_id: _presence(piece, sorted(found[piece.shift_id])) for piece in pieces}


def _loose(book: Book, from_ms: int, to_ms: int) -> Iterable[Punch]:
    """The clockings and log-ins without a shift in a stretch of time, in order."""
    if not book.punches:
        return
    at_ms = from_ms
    last = utc_day(to_ms)
    while True:
        key = utc_day(at_ms)
        for punch in book.punches.get(key, ()):
            if from_ms <= punch.at_ms <= to_ms:
                yield punch
        if key == last:
            return
        at_ms += 86_400_000


def _owner(punch: Punch, pieces: list[Piece], window_ms: int) -> str:
    """The shift that a clocking belongs to; '' for none."""
    best: tuple[int, int, str] | None = None
    for piece in pieces:
        if not piece.start_ms - window_ms <= punch.at_ms <= piece.end_ms + window_ms:
            continue
        if punch.kind == "in":
            if punch.at_ms > piece.end_ms:
                continue
            distance = abs(punch.at_ms - piece.start_ms)
        else:
            if punch.at_ms < piece.start_ms:
                continue
            distance = abs(punch.at_ms - piece.end_ms)
        found = (distance, piece.start_ms, piece.shift_id)
        best = found if best is None else min(best, found)
    return best[2] if best is not None else ""


def _presence(piece: Piece, punches: list[Punch]) -> Presence:
    comings = [punch for punch in punches if punch.kind == "in" and punch.at_ms <= piece.end_ms]
    goings = [punch for punch in punches if punch.kind == "out"]
    found = Presence()
    if comings:
        found.came_ms = comings[0].at_ms
        found.evidence = [comings[0].id]
    if goings and (not comings or goings[-1].at_ms >= comings[-1].at_ms):
        found.went_ms = goings[-1].at_ms
        found.evidence = [*found.evidence, goings[-1].id]
    for correction, field in ((piece.facts.came, "came_ms"), (piece.facts.went, "went_ms")):
        if correction is not None:
            setattr(found, field, correction.punch_ms)
            found.evidence = [*found.evidence, correction.id]
    if found.came_ms is not None and found.came_ms > piece.end_ms:
        found.came_ms = None
    return found


def _logged_in_ms(book: Book, piece: Piece) -> int | None:
    """When the agent was first logged in inside the shift; its start when that was so already. None: never."""
    since_ms: int | None = None
    for punch in _loose(book, piece.start_ms - LOGGED_IN_MS, piece.end_ms):
        if punch.kind not in ("login", "logout"):
            continue
        if punch.at_ms > piece.start_ms:
            if since_ms is not None and since_ms + LOGGED_IN_MS > piece.start_ms:
                return piece.start_ms
            if punch.kind == "login":
                return punch.at_ms
            since_ms = None
        else:
            since_ms = punch.at_ms if punch.kind == "login" else None
    return piece.start_ms if since_ms is not None and since_ms + LOGGED_IN_MS > piece.start_ms else None


# --- leave ------------------------------------------------------------------------------------------------------------


def leave_on(book: Book, day: str) -> list[tuple[str, LeaveFacts, Decided, int]]:
    """The leaves of a day with the halves that each covers, two halves in all. What was decided last holds."""
    given = sorted(
        (
            (decided, leave_id, facts)
            for leave_id, facts in book.leaves.items()
            if (decided := facts.on(day)) is not None
        ),
        key=lambda one: one[:2],
        reverse=True,
    )  # fmt: skip
    found: list[tuple[str, LeaveFacts, Decided, int]] = []
    covered: set[str] = set()
    for decided, leave_id, facts in given:
        wanted = _wanted(decided.half, covered)
        if wanted:
            covered |= wanted
            found.append((leave_id, facts, decided, len(wanted)))
    return found


def _wanted(half: Half, covered: set[str]) -> set[str]:
    """Which halves a leave adds to those that are covered already; two in all."""
    wanted: set[str] = {"first", "second"} if half == "" else {half}
    return set(sorted(wanted - covered)[: 2 - len(covered)])


def _without_leave(
    pieces: list[Piece],
    leaves: list[tuple[str, LeaveFacts, Decided, int]],
    there: Mapping[str, Presence],
    late_ms: int,
) -> list[Piece]:
    """What is left to work of a day."""
    halves = sum(one[3] for one in leaves)
    if not halves or not pieces:
        return pieces
    if halves >= 2:
        return []
    half = leaves[0][2].half
    if half == "either":
        came = [one.came_ms for one in there.values() if one.came_ms is not None]
        half = "second" if came and min(came) <= pieces[0].start_ms + late_ms else "first"
    cut_ms = _middle(pieces)
    if half == "first":
        kept = [(max(piece.start_ms, cut_ms), piece.end_ms, piece) for piece in pieces]
    else:
        kept = [(piece.start_ms, min(piece.end_ms, cut_ms), piece) for piece in pieces]
    return [Piece(piece.shift_id, start, end, piece.facts) for start, end, piece in kept if start < end]


def _middle(pieces: list[Piece]) -> int:
    """The moment at which half of the day's work would be done."""
    left = sum(piece.end_ms - piece.start_ms for piece in pieces) // 2
    for piece in pieces:
        length = piece.end_ms - piece.start_ms
        if left <= length:
            return piece.start_ms + left
        left -= length
    raise AssertionError("half of a sum lies inside it")


def spent_before(
    book: Book, day: str, decided: Decided, policy: Policy, taken: Mapping[str, Mapping[str, int]]
) -> int:
    """How many halves of this kind of leave the year has used before ``day``.

    ``taken`` is, for each day that is kept, the halves of leave that fell on work, by kind.
    """
    mode = policy.leave_days[decided.kind]
    first = f"{day[:4]}-01-01"
    if mode == "shift":
        used = sum(halves.get(decided.kind, 0) for other, halves in taken.items() if first <= other < day)
        return used + sum(facts.spent.get(f"{day[:4]}|{decided.kind}", 0) for facts in book.leaves.values())
    used = 0
    for facts in book.leaves.values():
        other = facts.decided
        if other is None or not other.approved or other.kind != decided.kind:
            continue
        begin = date.fromisoformat(max(first, other.first_day))
        end = min(date.fromisoformat(other.last_day), date.fromisoformat(day) - timedelta(days=1))
        days = policy.workdays.workdays(begin, end) if mode == "working" else (end - begin).days + 1
        used += max(0, days) * (1 if other.half else 2)
    return used


def _counts_against_quota(policy: Policy, decided: Decided, day: date) -> bool:
    mode = policy.leave_days[decided.kind]
    return mode != "working" or policy.workdays.is_workday(day)


# --- the day ----------------------------------------------------------------------------------------------------------


class _Day:
    """Gathers the outcomes of one day."""

    def __init__(self, book: Book, day: str, policy: Policy, calendar: Calendar, now_ms: int) -> None:
        self.book = book
        self.day = day
        self.policy = policy
        self.figures = policy.figures
        self.calendar = calendar
        self.now_ms = now_ms
        self.kind: DayKind = policy.workdays.kind(date.fromisoformat(day))
        self.found: list[Outcome] = []
        self.dues: list[int] = []
        self.halves_absent = 0
        self.settles_ms = 0
        self.broken = False

    def inside(self, at_ms: int, piece: Piece) -> int:
        """The moment to which something of a shift is counted: its own one, if that lies inside the day."""
        for moment_ms in (at_ms, piece.start_ms):
            if self.calendar.day(moment_ms).isoformat() == self.day:
                return moment_ms
        return wall_ms(self.calendar, date.fromisoformat(self.day), 12 * 60)

    def passed(self, limit_ms: int) -> bool:
        """Whether the log's clock is past a moment; if not, the day is looked at again when it is."""
        if self.now_ms > limit_ms:
            return True
        self.dues.append(limit_ms + 1)
        return False

    def work(self, piece: Piece, there: Presence, whole: int) -> None:
        """Everything that came of one shift; ``whole`` is how many halves are missing when nobody came."""
        figures = self.figures
        start_ms, end_ms, came_ms = piece.start_ms, piece.end_ms, there.came_ms
        self._arrival(piece, came_ms)
        if figures.login_ms is not None:
            self._login(piece, figures.login_ms)
        absent_at_ms = min(start_ms + figures.absent_ms, end_ms)
        self.settles_ms = max(self.settles_ms, end_ms)
        if came_ms is None:
            if self.passed(absent_at_ms):
                self._absent(piece, absent_at_ms, whole, came=False)
            return
        missing = 0
        if came_ms > absent_at_ms:
            missing = 1
        elif came_ms > start_ms + figures.late_ms:
            self._incident(Late, piece, came_ms, late_ms=came_ms - start_ms)
        went_ms = there.went_ms
        if went_ms is None:
            self.settles_ms = max(self.settles_ms, end_ms + figures.out_ms)
            if self.passed(end_ms + figures.out_ms):
                self._incident(MissingOut, piece, end_ms)
        elif went_ms < end_ms - figures.early_ms and self.passed(end_ms):
            if end_ms - went_ms >= figures.absent_ms:
                missing += 1
            elif not missing:
                self._incident(EarlyLeave, piece, max(went_ms, start_ms), early_ms=end_ms - went_ms)
        if missing:
            self._absent(piece, min(came_ms, end_ms), min(missing, whole), came=True)

    def _arrival(self, piece: Piece, came_ms: int | None) -> None:
        grace_ms = min(piece.start_ms + self.figures.grace_ms, piece.end_ms)
        if (came_ms is None or came_ms > grace_ms) and self.passed(grace_ms):
            ended_ms = came_ms or 0
            if came_ms is None and self.passed(piece.end_ms):
                ended_ms = piece.end_ms
            at_ms = self.inside(grace_ms, piece)
            self.found.append(NotIn(**self._common(piece, at_ms), ended_ms=ended_ms, noticed_ms=grace_ms))

    def _login(self, piece: Piece, login_ms: int) -> None:
        grace_ms = min(piece.start_ms + login_ms, piece.end_ms)
        logged_in_ms = _logged_in_ms(self.book, piece)
        if (logged_in_ms is None or logged_in_ms > grace_ms) and self.passed(grace_ms):
            ended_ms = logged_in_ms or 0
            if logged_in_ms is None and self.passed(piece.end_ms):
                ended_ms = piece.end_ms
            late_ms = logged_in_ms - piece.start_ms if logged_in_ms else 0
            at_ms = self.inside(grace_ms, piece)
            common = self._common(piece, at_ms)
            self.found.append(NotLoggedIn(**common, late_ms=late_ms, ended_ms=ended_ms, noticed_ms=grace_ms))

    def _common(self, piece: Piece, at_ms: int) -> dict[str, Any]:
        return {
            "agent": self.book.agent,
            "day": self.day,
            "at_ms": at_ms,
            "shift_id": piece.shift_id,
            "day_kind": self.kind,
        }

    def _absent(self, piece: Piece, at_ms: int, halves: int, *, came: bool) -> None:
        self.halves_absent += halves
        self._incident(Absent, piece, at_ms, halves=halves, came=came)

    def _incident(self, kind: type[Any], piece: Piece, at_ms: int, **fields: Any) -> None:
        excused = piece.facts.exempted is not None
        if not (excused and self.figures.exempted_keeps):
            self.broken = self.broken or kind is not MissingOut or self.figures.missing_out_breaks
        common = self._common(piece, self.inside(at_ms, piece))
        self.found.append(kind(**common, excused=excused, **fields))


def look(
    book: Book,
    day: str,
    policy: Policy,
    calendar: Calendar,
    now_ms: int,
    taken: Mapping[str, Mapping[str, int]],
) -> Looked:
    """What became of a day of an agent, as far as the log's clock allows to tell.

    ``taken`` is what ``spent_before`` asks for. Numbers of incidents are those of a month and stay 0 here.
    """
    shifts = planned(book, day, policy, calendar)
    if not shifts:
        return Looked([], None, settled=True)
    state = _Day(book, day, policy, calendar, now_ms)
    there = presences(book, day, shifts, policy, calendar)
    leaves = leave_on(book, day)
    rest = _without_leave(shifts, leaves, there, policy.figures.late_ms)
    whole = 2 - sum(one[3] for one in leaves) if len(rest) == 1 else 1
    for piece in rest:
        state.work(piece, there[piece.shift_id], whole)
    state.settles_ms = max([state.settles_ms, *(piece.end_ms for piece in shifts)])
    if state.passed(state.settles_ms):
        _settle(state, shifts, leaves, taken)
    return Looked(state.found, min(state.dues, default=None), settled=not state.dues)


def _settle(
    state: _Day,
    shifts: list[Piece],
    leaves: list[tuple[str, LeaveFacts, Decided, int]],
    taken: Mapping[str, Mapping[str, int]],
) -> None:
    """The day is over: what was required, what was attended, which leave was taken."""
    first = shifts[0]
    at_ms = state.inside(first.start_ms, first)
    common: dict[str, Any] = {
        "agent": state.book.agent,
        "day": state.day,
        "at_ms": at_ms,
        "day_kind": state.kind,
    }
    missing = state.halves_absent
    for leave_id, facts, decided, halves in leaves:
        over = _over_quota(state, decided, halves, taken)
        asked = [moment for moment in (facts.asked_ms, decided.at_ms) if moment >= 0]
        for part, over_quota in ((halves - over, False), (over, True)):
            if not part:
                continue
            breaks = over_quota or state.figures.breaks[decided.kind]
            attended = state.figures.attended[decided.kind] and not over_quota
            missing += 0 if attended else part
            state.broken = state.broken or breaks
            state.found.append(
                Leave(
                    **common,
                    leave_id=leave_id, leave_kind=decided.kind, halves=part,
                    asked_before=min(asked) <= first.start_ms, over_quota=over_quota, breaks=breaks,
                    attended=attended,
                )
            )  # fmt: skip
    state.found.append(Required(**common, shifts=len(shifts)))
    state.found.append(Attended(**common, halves=max(0, 2 - missing)))
    if not state.broken:
        state.found.append(FullDay(**common))


def _over_quota(state: _Day, decided: Decided, halves: int, taken: Mapping[str, Mapping[str, int]]) -> int:
    """How many of a day's halves of leave lie beyond the year's quota."""
    day = date.fromisoformat(state.day)
    if not _counts_against_quota(state.policy, decided, day):
        return 0
    used = spent_before(state.book, state.day, decided, state.policy, taken)
    return min(halves, max(0, used + halves - state.figures.quota_halves[decided.kind]))


def evidence_of(
    book: Book, day: str, outcome: Outcome, policy: Policy, calendar: Calendar
) -> tuple[str, ...]:
    """The events that show an outcome: what planned the shift, the clockings, corrections, or the leave."""
    if isinstance(outcome, Leave):
        facts = book.leaves.get(outcome.leave_id)
        return (facts.decided.id,) if facts is not None and facts.decided is not None else ()
    found: list[str] = []
    shifts = planned(book, day, policy, calendar)
    there = presences(book, day, shifts, policy, calendar)
    wanted = {outcome.shift_id} if outcome.shift_id else {piece.shift_id for piece in shifts}
    for shift_id in sorted(wanted):
        facts_of = book.shifts.get(shift_id, NO_FACTS)
        if facts_of.newest is not None:
            found.append(facts_of.newest.id)
        elif "@" in shift_id and (office := book.hours_on(day)) is not None:
            found.append(office.id)
        if shift_id in there:
            found += there[shift_id].evidence
        else:
            found += [one.id for one in (facts_of.came, facts_of.went) if one is not None]
    return tuple(dict.fromkeys(found))
