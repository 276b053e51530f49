"""Attendance of one agent: what is known (facts), what may come of it (outcomes), and the figures in between.

Theory of operation. A ``Book`` holds what events have said about one agent: versions of shifts, clockings, corrections,
leave, office hours, exemptions. Where two events say something about the same thing, the one with the later time
holds, so a book is the same whatever order its events came in. ``kaohe.core.attendance_days`` turns a book and the time
of the log into *outcomes* (late, absent, a day attended, …): a pure function. ``kaohe.core.attending`` keeps what was
counted so far and settles the difference, so that a correction takes outcomes back and counts them anew.

Every outcome belongs to the day that the rota names, also when its shift runs past midnight. A day counts two halves,
since leave is taken by halves.

Bounds: a book keeps whole months until ``KEPT_MS`` after their end, which is longer than an event may be late;
everything else by ``MAX_*`` below.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any, Literal, get_args

import msgspec

from kaohe.core.calendars import DAY_MS, Calendar
from kaohe.core.counting import TIME_UNITS_MS
from kaohe.core.model import Attendance, Pack
from kaohe.events import LeaveKind

KEPT_MS = 45 * DAY_MS
"""How long after its end a month is kept, day by day."""
MAX_SHIFTS = 600
MAX_VERSIONS = 16
MAX_PUNCHES = 200
"""Clockings of one shift, or of one day where they name no shift."""
MAX_LEAVES = 200
MAX_HOURS = 60
MAX_MONTHS = 120
"""Months of which is remembered whether they were full: ten years of a streak."""
MAX_EVIDENCE = 20
MAX_SHIFT_MS = 24 * 3_600_000
MAX_LEAVE_DAYS = 366
LOGGED_IN_MS = 16 * 3_600_000
"""A log-in without log-out ends by itself after this long, as everywhere in the engine."""

Half = Literal["", "first", "second", "either"]
"""Which half of a day leave covers; empty is the whole day, ``either`` is known when the agent comes or not."""


# --- facts ------------------------------------------------------------------------------------------------------------


class Version(msgspec.Struct, array_like=True, order=True, frozen=True):
    """What one event said about a shift. Later ones hold; ``rank`` orders those of one moment."""

    at_ms: int
    rank: int
    id: str
    day: str
    starts_ms: int
    ends_ms: int
    cancelled: bool


class Punch(msgspec.Struct, array_like=True, order=True, frozen=True):
    """A clocking, or a log-in or log-out. ``rank`` orders those of one moment: coming before going."""

    at_ms: int
    rank: int
    id: str
    kind: Literal["in", "out", "login", "logout"]


class Correction(msgspec.Struct, array_like=True, order=True, frozen=True):
    """When the agent came or went after all; None: not at all."""

    at_ms: int
    id: str
    punch_ms: int | None


class ShiftFacts(msgspec.Struct):
    """Everything that events said about one shift. Without versions it is only spoken of so far."""

    versions: list[Version] = []
    punches: list[Punch] = []
    came: Correction | None = None
    went: Correction | None = None
    exempted: tuple[int, str] | None = None

    @property
    def newest(self) -> Version | None:
        """The version that holds."""
        return self.versions[-1] if self.versions else None

    def last_ms(self) -> int:
        """The newest moment that anything here is about."""
        found = [max(one.at_ms, one.ends_ms) for one in self.versions]
        found += [punch.at_ms for punch in self.punches]
        found += [one.at_ms for one in (self.came, self.went) if one is not None]
        return max([*found, self.exempted[0] if self.exempted else 0])


class Decided(msgspec.Struct, array_like=True, order=True, frozen=True):
    """What the newest decision about a leave says; ``rank`` orders those of one moment."""

    at_ms: int
    rank: int
    id: str
    approved: bool
    kind: LeaveKind
    first_day: str
    last_day: str
    half: Half


class LeaveFacts(msgspec.Struct):
    """One leave: when it was asked for (-1: never), what was decided last, and halves taken in months forgotten."""

    asked_ms: int = -1
    decided: Decided | None = None
    spent: dict[str, int] = {}
    seen_ms: int = 0

    def on(self, day: str) -> Decided | None:
        """The decision, if it gives leave on ``day``."""
        found = self.decided
        if found is None or not found.approved or not found.first_day <= day <= found.last_day:
            return None
        return found


class Hours(msgspec.Struct, array_like=True, order=True, frozen=True):
    """Office hours on working days from ``first_day`` to ``last_day`` ('' is open), in minutes of the day."""

    at_ms: int
    id: str
    hours_id: str
    first_day: str
    last_day: str
    starts_min: int
    ends_min: int


# --- outcomes ---------------------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="outcome"):
    """What became of something. ``at_ms`` is the moment, inside ``day``, to which it is counted."""

    agent: str
    day: str
    at_ms: int
    shift_id: str = ""


class _OfDay(Outcome, frozen=True, kw_only=True, tag_field="outcome"):
    day_kind: Literal["workday", "rest", "holiday", "makeup"]


class Incident(_OfDay, frozen=True, kw_only=True, tag_field="outcome"):
    """Something that may be held against the agent.

    ``number`` counts, inside the month, the incidents of its family that are not excused.
    """

    number: int = 0
    excused: bool = False


class NotIn(_OfDay, frozen=True, kw_only=True, tag="not_in"):
    """Nobody had clocked in when the grace time was over; ``ended_ms`` is when that ended, 0 while it lasts.

    ``noticed_ms`` is when the grace time was over; ``at_ms`` lies inside the day of the shift, which may have ended by
    then.
    """

    ended_ms: int = 0
    noticed_ms: int = 0


class NotLoggedIn(_OfDay, frozen=True, kw_only=True, tag="not_logged_in"):
    """The agent was not logged in when the grace time for it was over; ``late_ms`` after which they were (0: never).

    ``ended_ms`` and ``noticed_ms`` are as in ``NotIn``.
    """

    late_ms: int = 0
    ended_ms: int = 0
    noticed_ms: int = 0


class Late(Incident, frozen=True, kw_only=True, tag="late"):
    """Came ``late_ms`` after the start, more than the threshold. Counted with early leave."""

    late_ms: int


class EarlyLeave(Incident, frozen=True, kw_only=True, tag="early_leave"):
    """Went ``early_ms`` before the end, more than the threshold. Counted with lateness."""

    early_ms: int


class Absent(Incident, frozen=True, kw_only=True, tag="absent"):
    """Did not come (or came so late, or went so early, that half a day is missing) and had no leave."""

    halves: int
    came: bool


class MissingOut(Incident, frozen=True, kw_only=True, tag="missing_out"):
    """Clocked in and never out."""


class Required(_OfDay, frozen=True, kw_only=True, tag="required"):
    """A day on which the agent had to work, ``shifts`` times."""

    halves: int = 2
    shifts: int = 1


class Attended(_OfDay, frozen=True, kw_only=True, tag="attended"):
    """How much of a required day counts as attended."""

    halves: int


class Leave(_OfDay, frozen=True, kw_only=True, tag="leave"):
    """Approved leave on a required day: what kind, how much, and what it means for attendance.

    ``asked_before`` the shift began; ``over_quota`` beyond what the year grants; ``breaks`` full attendance;
    ``attended`` when it counts as attended.
    """

    leave_id: str
    leave_kind: LeaveKind
    halves: int
    asked_before: bool
    over_quota: bool
    breaks: bool
    attended: bool


class FullDay(_OfDay, frozen=True, kw_only=True, tag="full_day"):
    """A required day with nothing to be said against it."""


class FullMonth(Outcome, frozen=True, kw_only=True, tag="full_month"):
    """A month of full days: the ``streak``-th in a row, with ``days`` required days."""

    month: str
    streak: int
    days: int


Any_ = (
    NotIn
    | NotLoggedIn
    | Late
    | EarlyLeave
    | Absent
    | MissingOut
    | Required
    | Attended
    | Leave
    | FullDay
    | FullMonth
)
"""One of the outcomes."""
OUTCOMES: dict[str, type[Outcome]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        NotIn, NotLoggedIn, Late, EarlyLeave, Absent, MissingOut, Required, Attended, Leave, FullDay, FullMonth,
    )
}  # fmt: skip
"""The name of every outcome and its fields."""
FAMILIES = {"late": "late", "early_leave": "late", "absent": "absent", "missing_out": "missing_out"}
"""What is numbered together in a month."""
UNSEEN = frozenset({"at_ms", "ended_ms", "noticed_ms"})
"""Fields that packs do not see."""


def kind_of(outcome: Outcome) -> str:
    """The name of an outcome's kind."""
    return str(outcome.__struct_config__.tag)


def key_of(outcome: Outcome) -> str:
    """What tells the outcomes of one day apart: kind, and shift or leave."""
    about = outcome.shift_id
    if isinstance(outcome, Leave):
        about = f"{outcome.leave_id}{'/over' if outcome.over_quota else ''}"
    return f"{kind_of(outcome)}|{about}"


def charge_of(outcome: Outcome, numbered: bool) -> Outcome:
    """The outcome without what changes nothing about the charge: when it is counted, how it ended, an exemption.

    Unless it is ``numbered``, nor does the how manieth of the month it is.
    """
    changes: dict[str, Any] = {"at_ms": 0}
    if isinstance(outcome, (NotIn, NotLoggedIn)):
        changes |= {"ended_ms": 0, "noticed_ms": 0}
    if isinstance(outcome, NotLoggedIn):
        changes["late_ms"] = 0
    if isinstance(outcome, Incident):
        changes["excused"] = False
        changes |= {} if numbered else {"number": 0}
    return msgspec.structs.replace(outcome, **changes)


# --- figures ----------------------------------------------------------------------------------------------------------


class Figures(msgspec.Struct, frozen=True):
    """The parameters of a pack's attendance in force on one day. Times in ms; ``login_ms`` is None when not watched."""

    grace_ms: int
    late_ms: int
    early_ms: int
    absent_ms: int
    out_ms: int
    login_ms: int | None
    window_ms: int
    notice_ms: int
    month_days: int
    missing_out_breaks: bool
    exempted_keeps: bool
    quota_halves: dict[str, int]
    breaks: dict[str, bool]
    attended: dict[str, bool]


def figures(pack: Pack, settings: Attendance, day: date) -> Figures:
    """The figures in force on ``day``, which must not lie before the pack is in force."""

    def number(name: str) -> Fraction:
        value = pack.parameters[name].value_at(day)
        assert isinstance(value, Fraction), name
        return value

    def ms(name: str) -> int:
        return int(number(name) * TIME_UNITS_MS[pack.parameters[name].unit])

    def table(name: str) -> dict[str, Fraction]:
        value = pack.parameters[name].value_at(day)
        assert isinstance(value, dict), name
        return {kind: value.get(kind, value.get("*", Fraction(0))) for kind in get_args(LeaveKind)}

    return Figures(
        grace_ms=ms(settings.grace),
        late_ms=ms(settings.late_after),
        early_ms=ms(settings.early_after),
        absent_ms=ms(settings.absent_after),
        out_ms=ms(settings.missing_out_after),
        login_ms=ms(settings.login_grace) if settings.login_grace else None,
        window_ms=ms(settings.clock_window),
        notice_ms=ms(settings.short_notice),
        month_days=int(number(settings.full_month_days)),
        missing_out_breaks=bool(number(settings.missing_out_breaks)),
        exempted_keeps=bool(number(settings.exempted_keeps)),
        quota_halves={kind: int(2 * days) for kind, days in table(settings.leave_quota).items()},
        breaks={kind: bool(flag) for kind, flag in table(settings.leave_breaks).items()},
        attended={kind: bool(flag) for kind, flag in table(settings.leave_attended).items()},
    )


# --- the book ---------------------------------------------------------------------------------------------------------


class Book:
    """What is known of one agent. Methods that add a fact give the days it may change."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.shifts: dict[str, ShiftFacts] = {}
        self.by_day: dict[str, set[str]] = {}
        self.punches: dict[str, list[Punch]] = {}
        """Clockings without a shift, and log-ins, by the day of the year in UTC."""
        self.leaves: dict[str, LeaveFacts] = {}
        self.hours: list[Hours] = []

    def shift(self, shift_id: str) -> ShiftFacts:
        """The facts of a shift, made when it is new."""
        found = self.shifts.get(shift_id)
        if found is None:
            found = self.shifts[shift_id] = ShiftFacts()
        return found

    def add_version(self, shift_id: str, version: Version) -> set[str]:
        """A shift was planned, changed or given away."""
        facts = self.shift(shift_id)
        before = facts.newest
        facts.versions = sorted({*facts.versions, version})[-MAX_VERSIONS:]
        now = facts.newest
        assert now is not None
        if before is None or before.day != now.day:
            if before is not None and before.day:
                self._leave_day(before.day, shift_id)
            if now.day:
                self.by_day.setdefault(now.day, set()).add(shift_id)
        return around(day for one in (before, version, now) if one is not None and (day := one.day))

    def _leave_day(self, day: str, shift_id: str) -> None:
        self.by_day[day].discard(shift_id)
        if not self.by_day[day]:
            del self.by_day[day]

    def index(self) -> None:
        """Find again, after the facts were put back, which shifts are on which day."""
        self.by_day = {}
        for shift_id, facts in self.shifts.items():
            if facts.newest is not None and facts.newest.day:
                self.by_day.setdefault(facts.newest.day, set()).add(shift_id)

    def forget_shift(self, shift_id: str) -> None:
        """Forget a shift."""
        newest = self.shifts.pop(shift_id).newest
        if newest is not None and newest.day:
            self._leave_day(newest.day, shift_id)

    def add_punch(self, shift_id: str, punch: Punch, calendar: Calendar) -> set[str]:
        """The agent clocked, or logged in or out."""
        if shift_id:
            facts = self.shift(shift_id)
            facts.punches = sorted({*facts.punches, punch})[:MAX_PUNCHES]
            return self.days_of(shift_id) or around([calendar.day(punch.at_ms).isoformat()])
        key = utc_day(punch.at_ms)
        self.punches[key] = sorted({*self.punches.get(key, ()), punch})[:MAX_PUNCHES]
        return around([calendar.day(punch.at_ms).isoformat()])

    def correct(self, shift_id: str, punch: str, correction: Correction) -> set[str]:
        """Somebody put right when the agent came or went."""
        facts = self.shift(shift_id)
        if punch == "in":
            facts.came = max(correction, facts.came) if facts.came is not None else correction
        else:
            facts.went = max(correction, facts.went) if facts.went is not None else correction
        return self.days_of(shift_id)

    def exempt(self, shift_id: str, at_ms: int, event_id: str) -> set[str]:
        """What happened on a shift is excused."""
        facts = self.shift(shift_id)
        found = (at_ms, event_id)
        facts.exempted = min(found, facts.exempted) if facts.exempted is not None else found
        return self.days_of(shift_id)

    def days_of(self, shift_id: str) -> set[str]:
        """The day of a shift (of office hours, the one in its id) as a set; empty while it is unknown."""
        newest = self.shifts[shift_id].newest if shift_id in self.shifts else None
        if newest is not None:
            return {newest.day} if newest.day else set()
        return {shift_id.rpartition("@")[2]} if "@" in shift_id else set()

    def plans_of(self, month: str) -> tuple[str, ...]:
        """The events that planned the first shifts of a month."""
        found: list[str] = []
        for day in sorted(day for day in self.by_day if day[:7] == month):
            for shift_id in sorted(self.by_day[day]):
                newest = self.shifts[shift_id].newest
                if newest is not None and len(found) < MAX_EVIDENCE:
                    found.append(newest.id)
        return tuple(dict.fromkeys(found))

    def add_leave(self, leave_id: str, at_ms: int, decided: Decided | None) -> set[str]:
        """Leave was asked for (``decided`` is None) or decided about."""
        facts = self.leaves.setdefault(leave_id, LeaveFacts())
        facts.seen_ms = max(facts.seen_ms, at_ms)
        before = facts.decided
        if decided is None:
            facts.asked_ms = at_ms if facts.asked_ms < 0 else min(at_ms, facts.asked_ms)
        else:
            facts.decided = decided if before is None else max(before, decided)
        touched = [one for one in (before, facts.decided) if one is not None]
        if not touched:
            return set()
        # What one leave takes from the year's quota can push a later one over it.
        first = min(one.first_day for one in touched)
        kinds = {one.kind for one in touched}
        return {
            day
            for facts in self.leaves.values()
            if (found := facts.decided) is not None and (found.kind in kinds)
            for day in self.by_day_or_hours(max(first, found.first_day), found.last_day)
        } | {day for one in touched for day in self.by_day_or_hours(one.first_day, one.last_day)}

    def by_day_or_hours(self, first: str, last: str) -> list[str]:
        """The days from ``first`` to ``last`` on which there is, or may be, something to do."""
        if self.hours:
            return [] if last < first else _days(first, last)
        return [day for day in self.by_day if first <= day <= last]

    def add_hours(self, hours: Hours) -> None:
        """Office hours were assigned."""
        self.hours = sorted({*self.hours, hours})[-MAX_HOURS:]

    def hours_on(self, day: str) -> Hours | None:
        """The office hours that hold on ``day``: the newest that name it."""
        for hours in reversed(self.hours):
            if hours.first_day <= day and (not hours.last_day or day <= hours.last_day):
                return hours if hours.starts_min != hours.ends_min else None
        return None


def around(days: Any) -> set[str]:
    """The days, and those just before and after: a clocking may belong to a shift of either."""
    found: set[str] = set()
    for day in days:
        middle = date.fromisoformat(day)
        found.update((middle + timedelta(days=step)).isoformat() for step in (-1, 0, 1))
    return found


def _days(first: str, last: str) -> list[str]:
    start = date.fromisoformat(first)
    span = min((date.fromisoformat(last) - start).days, MAX_LEAVE_DAYS)
    return [(start + timedelta(days=step)).isoformat() for step in range(span + 1)]


def utc_day(at_ms: int) -> str:
    """The day of a moment in UTC, under which clockings without a shift are kept."""
    return (date(1970, 1, 1) + timedelta(days=at_ms // DAY_MS)).isoformat()


def wall_ms(calendar: Calendar, day: date, minutes: int) -> int:
    """A wall-clock time (minutes after midnight) of a day in a calendar's zone, in ms.

    An hour that the change to summer time leaves out is taken as the one that follows it.
    """
    moment = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=calendar.zone)
    return int(moment.timestamp()) * 1000
