"""The attendance of a partition's agents: takes events in, looks at days again, settles the difference.

Theory of operation. Facts go into the agent's ``Book``; the days they may change, and those whose moment has come by
the log's clock, are looked at (``attendance_days.look``). What comes out is compared with what was counted before: what
is gone is counted once less and its charges are taken back; what is new is counted and judged. Nothing is ever changed
in place, so late events, corrections and leave approved afterwards need no code of their own, and what stands at the
end does not depend on the order in which events came.

Incidents of a family are numbered inside their month in the order of their time, those that are excused aside. Taking
one back therefore renumbers, and judges anew, those after it. A month that is over, and whose days are all settled, is
*full* (every required day was full), *broken*, or *empty* (fewer required days than make a month; it neither breaks a
streak nor adds to it).

Everything is kept per pack, since each has figures of its own. Stored form: one key for each shift, day, month and day
of clockings of an agent, and one for the rest, so that a checkpoint writes what changed and no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kaohe.core import corrections
from kaohe.core.attendance import (
    FAMILIES,
    KEPT_MS,
    MAX_HOURS,
    MAX_LEAVE_DAYS,
    MAX_LEAVES,
    MAX_MONTHS,
    MAX_PUNCHES,
    MAX_SHIFT_MS,
    MAX_SHIFTS,
    Any_,
    Book,
    Correction,
    Decided,
    Figures,
    FullDay,
    FullMonth,
    Half,
    Hours,
    Incident,
    Leave,
    LeaveFacts,
    Outcome,
    Punch,
    Required,
    ShiftFacts,
    Version,
    charge_of,
    figures,
    key_of,
    kind_of,
    utc_day,
)
from kaohe.core.attendance_days import Looked, Policy, evidence_of, look
from kaohe.core.calendars import Calendar, check_moment, to_ms
from kaohe.core.effects import names_of
from kaohe.core.facts import Moment
from kaohe.core.model import Pack, Rule
from kaohe.core.rulesets import RuleSet
from kaohe.core.subjects import SEPARATOR, Cause, Entry, Subject
from kaohe.errors import EventError
from kaohe.events import Envelope

if TYPE_CHECKING:
    from kaohe.core.engine import PartitionEngine

SHIFT_TAGS = ("shift.scheduled", "shift.changed", "shift.swapped")
CLOCK_TAGS = ("clock.in", "clock.out", "clock.corrected")
LEAVE_TAGS = ("leave.requested", "leave.approved", "leave.rejected", "leave.cancelled")
LOGIN_TAGS = {"agent.logged_in": "login", "agent.logged_out": "logout"}
TAGS = (*SHIFT_TAGS, *CLOCK_TAGS, *LEAVE_TAGS, "exemption.granted", "hours.assigned")
"""Events that say something about attendance; ``LOGIN_TAGS`` as well, where a pack watches them."""
FIGURES_KEPT = 2_000
KINDS = ("b", "s", "d", "m", "p")
PREFIX = "a" + SEPARATOR
NOTHING_DUE = Looked([], None, settled=True)
Verdict = Literal["full", "broken", "empty"]


class Shown(msgspec.Struct, array_like=True):
    """What was kept as evidence of an outcome: the witnesses that saw it (key, rank), and the ids of its events."""

    at_ms: int
    hits: list[tuple[str, int]]
    ids: tuple[str, ...]
    team: str
    site: str


class Judged(msgspec.Struct):
    """What was counted of a day or month, by pack; how often each charge was taken back; which rules alerted; what was
    kept as evidence."""

    outcomes: dict[str, list[Any_]] = {}
    attempts: dict[str, int] = {}
    alerts: dict[str, list[str]] = {}
    due_ms: int | None = None
    settled: bool = False
    verdicts: dict[str, Verdict] = {}
    shown: dict[str, Shown] = {}


class StoredBook(msgspec.Struct, array_like=True):
    """What is kept of an agent beside shifts, days, months and clockings."""

    site: str
    leaves: dict[str, LeaveFacts]
    hours: list[Hours]
    swept: str


class File:
    """One agent: the book, and what was made of it."""

    __slots__ = ("book", "days", "dirty", "due_ms", "months", "opened", "site", "swept")

    def __init__(self, agent: str) -> None:
        self.book = Book(agent)
        self.site = ""
        self.days: dict[str, Judged] = {}
        self.months: dict[str, Judged] = {}
        self.dirty: set[str] = set()
        self.due_ms: int | None = None
        self.opened = ""
        self.swept = ""


class Change(msgspec.Struct):
    """The difference between what was counted and what is true now. ``before`` or ``after`` may be None."""

    pack: Pack
    place: str
    judged: Judged
    key: str
    before: Outcome | None
    after: Outcome | None

    @property
    def name(self) -> str:
        """Pack and outcome: what attempts and alerts are remembered under."""
        return f"{self.pack.name}|{self.key}"


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_BOOK_DECODER = msgspec.msgpack.Decoder(StoredBook)
_SHIFT_DECODER = msgspec.msgpack.Decoder(ShiftFacts)
_JUDGED_DECODER = msgspec.msgpack.Decoder(Judged)
_PUNCHES_DECODER = msgspec.msgpack.Decoder(list[Punch])


class Attending:
    """All agents of one partition."""

    def __init__(self, engine: PartitionEngine) -> None:
        self.engine = engine
        self.judge = engine.judge
        self.packs = [pack for pack in engine.packs if pack.attendance is not None]
        logins = any(pack.attendance is not None and pack.attendance.login_grace for pack in self.packs)
        self.tags = frozenset((*TAGS, *(LOGIN_TAGS if logins else ()))) if self.packs else frozenset()
        self._numbered = {
            (pack.key, rule.on)
            for pack in self.packs
            for rule in pack.rules
            if rule.trigger == "attendance" and _reads_numbers(rule)
        }
        self._seeing = {
            source: seeing
            for source, seeing in engine.sightings.seeing.items()
            if source.startswith("attendance/")
        }
        self.files: dict[str, File] = {}
        self._figures: dict[tuple[str, str], Figures] = {}
        self._due: list[tuple[int, str]] = []
        self._touched: set[str] = set()

    # --- taking events in ---------------------------------------------------------------------------------------------

    def check(self, tag: str, data: Any, agent: Subject | None) -> None:
        """Refuse, before anything is counted, what cannot be kept. Raises EventError."""
        if agent is None:
            raise EventError("invalid", "$.data.agent is missing: the event is about an agent")
        for field in ("shift_id", "taken_id", "leave_id", "hours_id", "incident"):
            if SEPARATOR in getattr(data, field, ""):
                raise EventError("invalid", f"$.data.{field} contains a control character")
        for field in ("day", "taken_day", "first_day", "last_day"):
            _check_day(getattr(data, field, None), field)
        if tag in SHIFT_TAGS:
            self._check_hours(tag, data)
        elif tag == "clock.corrected" and data.clocked_at is not None:
            check_moment(to_ms(data.clocked_at), "$.data.clocked_at")
        first, last = getattr(data, "first_day", ""), getattr(data, "last_day", "") or ""
        if last and last < first:
            raise EventError("invalid", "$.data.last_day lies before $.data.first_day")
        if tag in LEAVE_TAGS and (date.fromisoformat(last) - date.fromisoformat(first)).days > MAX_LEAVE_DAYS:
            raise EventError("invalid", f"a leave may be {MAX_LEAVE_DAYS} days long")
        found = self.files.get(agent.name)
        if found is not None:
            _check_room(found.book, tag, data)

    @staticmethod
    def _check_hours(tag: str, data: Any) -> None:
        if tag == "shift.swapped":
            stated = (data.taken_day, data.taken_starts_at, data.taken_ends_at)
            if data.taken_id and None in stated:
                raise EventError("invalid", "$.data says which shift was taken over, but not when it is")
            if not data.taken_id:
                return
            starts_ms, ends_ms = to_ms(data.taken_starts_at), to_ms(data.taken_ends_at)
        else:
            starts_ms, ends_ms = to_ms(data.starts_at), to_ms(data.ends_at)
        check_moment(starts_ms, "the start of the shift")
        check_moment(ends_ms, "the end of the shift")
        if not 0 < ends_ms - starts_ms <= MAX_SHIFT_MS:
            raise EventError("invalid", "a shift ends after it starts, within 24 hours")

    def take(self, tag: str, event: Envelope, time_ms: int, agent: Subject) -> None:
        """Put what an event says into the book, and settle what follows."""
        found = self.files.get(agent.name)
        if found is None:
            found = self.files[agent.name] = File(agent.name)
        if found.site != agent.site:
            found.site = agent.site
            self._touch(agent.name, "b")
        days = self._note(found, tag, event, time_ms, agent.series.calendar)
        self._look_again(found, days, time_ms, agent)

    def excuse(
        self, agent: Subject, pack: Pack, entries: Iterable[Entry], time_ms: int, event_id: str
    ) -> None:
        """An appeal was right about entries: what happened on their shifts is excused as by an exemption.

        The points were given back already. Without this an absence that never was would still break a full month.
        """
        found = self.files.get(agent.name)
        if found is None:
            return
        own = {rule.id for rule in pack.rules if rule.trigger == "attendance" and rule.on in FAMILIES}
        days: set[str] = set()
        for entry in entries:
            known = entry.incident in found.book.shifts or len(found.book.shifts) < MAX_SHIFTS
            if entry.rule in own and known:
                self._touch(agent.name, "s", entry.incident)
                days |= found.book.exempt(entry.incident, time_ms, event_id)
        if days:
            self._look_again(found, days, time_ms, agent)

    def _look_again(self, found: File, days: Iterable[str], time_ms: int, agent: Subject) -> None:
        """Look at the days again that something may have changed."""
        now_ms = self.engine.watermark_ms
        calendar = agent.series.calendar
        oldest = _oldest(calendar, max(now_ms, time_ms))
        today = calendar.day(max(now_ms, time_ms)).isoformat()
        found.dirty |= {
            day
            for day in days
            if day[:7] >= oldest and (day in found.days or self._is_planned(found, day, today))
        }
        self._evaluate(found, calendar, now_ms)
        if found.due_ms is not None and found.due_ms < self.engine.due_ms:
            self.engine.due_ms = found.due_ms

    @staticmethod
    def _is_planned(file: File, day: str, today: str) -> bool:
        """Whether there is something to do on a day. Days of office hours are looked at once they have come."""
        return day in file.book.by_day or (day <= today and file.book.hours_on(day) is not None)

    def _note(self, file: File, tag: str, event: Envelope, time_ms: int, calendar: Calendar) -> set[str]:
        """Write an event into the book; the days it may change."""
        data: Any = event.data
        agent, book = data.agent, file.book
        if tag in SHIFT_TAGS:
            return self._note_shift(book, tag, event.id, data, time_ms)
        if tag in LEAVE_TAGS:
            self._touch(agent, "b")
            return book.add_leave(data.leave_id, time_ms, _decided(tag, event.id, data, time_ms))
        if tag == "hours.assigned":
            return self._note_hours(file, event.id, data, time_ms)
        if tag == "clock.corrected":
            self._touch(agent, "s", data.shift_id)
            punch_ms = to_ms(data.clocked_at) if data.clocked_at is not None else None
            return book.correct(data.shift_id, data.punch, Correction(time_ms, event.id, punch_ms))
        if tag == "exemption.granted":
            self._touch(agent, "s", data.incident)
            return book.exempt(data.incident, time_ms, event.id)
        kind: Any = LOGIN_TAGS.get(tag) or tag.removeprefix("clock.")
        punch = Punch(time_ms, 1 if kind in ("out", "logout") else 0, event.id, kind)
        shift_id = getattr(data, "shift_id", "")
        self._touch(agent, "s" if shift_id else "p", shift_id or utc_day(time_ms))
        return book.add_punch(shift_id, punch, calendar)

    def _note_shift(self, book: Book, tag: str, event_id: str, data: Any, time_ms: int) -> set[str]:
        rank = SHIFT_TAGS.index(tag)
        self._touch(data.agent, "s", data.shift_id)
        if tag != "shift.swapped":
            cancelled = getattr(data, "cancelled", False)
            starts_ms, ends_ms = to_ms(data.starts_at), to_ms(data.ends_at)
            version = Version(time_ms, rank, event_id, data.day, starts_ms, ends_ms, cancelled)
            return book.add_version(data.shift_id, version)
        given = book.shifts.get(data.shift_id)
        day = given.newest.day if given is not None and given.newest is not None else ""
        days = book.add_version(data.shift_id, Version(time_ms, rank, event_id, "", 0, 0, True))
        days |= {day} if day else set()
        if data.taken_id:
            self._touch(data.agent, "s", data.taken_id)
            starts_ms, ends_ms = to_ms(data.taken_starts_at), to_ms(data.taken_ends_at)
            taken = Version(time_ms, 0, event_id, data.taken_day, starts_ms, ends_ms, False)
            days |= book.add_version(data.taken_id, taken)
        return days

    def _note_hours(self, file: File, event_id: str, data: Any, time_ms: int) -> set[str]:
        starts, ends = (int(text[:2]) * 60 + int(text[3:]) for text in (data.starts, data.ends))
        hours = Hours(time_ms, event_id, data.hours_id, data.first_day, data.last_day or "", starts, ends)
        file.book.add_hours(hours)
        file.opened = ""
        self._touch(data.agent, "b")
        return {day for day in file.days if day >= data.first_day}

    # --- the log's clock ----------------------------------------------------------------------------------------------

    def move(self, agent: Subject) -> None:
        """The roster says something else about an agent, perhaps that they have left."""
        file = self.files.get(agent.name)
        first = min((line.left_on for line in agent.roster if line.left_on), default="")
        if file is not None and first:
            file.dirty |= {day for day in file.days if day > first}
            self._evaluate(file, agent.series.calendar, self.engine.watermark_ms)

    def begin(self, now_ms: int) -> None:
        """Log time begins: what happened before it is looked at once."""
        for name in sorted(self.files):
            file = self.files[name]
            file.due_ms = min(file.due_ms or now_ms, now_ms)
            heapq.heappush(self._due, (file.due_ms, name))

    def next_ms(self) -> int | None:
        """The next moment at which a day has to be looked at."""
        while self._due:
            due_ms, agent = self._due[0]
            found = self.files.get(agent)
            if found is not None and found.due_ms == due_ms:
                return due_ms
            heapq.heappop(self._due)
        return None

    def is_due(self, now_ms: int) -> bool:
        """Whether anything has to be looked at now."""
        due_ms = self.next_ms()
        return due_ms is not None and due_ms <= now_ms

    def run(self, now_ms: int) -> None:
        """Look at every day whose moment has come, agent by agent in the order of names."""
        waiting: set[str] = set()
        while self.is_due(now_ms):
            waiting.add(heapq.heappop(self._due)[1])
        for name in sorted(waiting):
            found = self.files[name]
            found.due_ms = None
            self._evaluate(found, self._calendar_of(found), now_ms)

    def _calendar_of(self, file: File) -> Calendar:
        """The calendar of an agent; that of their last site when the agent was forgotten."""
        found = self.engine.agents.get(file.book.agent)
        return found.series.calendar if found is not None else self.engine.zones.of(file.site)

    def _agent(self, file: File, at_ms: int) -> Subject:
        """The agent; one that was forgotten meanwhile is made again."""
        name = file.book.agent
        return self.engine.agents.get(name) or self.engine.make_agent(name, file.site, at_ms)

    # --- from facts to changes ----------------------------------------------------------------------------------------

    def _evaluate(self, file: File, calendar: Calendar, now_ms: int) -> None:
        """Bring everything about an agent up to date."""
        if now_ms:
            self._open_days(file, calendar, now_ms)
            self._forget(file, calendar, now_ms)
        due = {day for day, one in file.days.items() if one.due_ms is not None and one.due_ms <= now_ms}
        dirty = _with_later_leave(file, file.dirty | due)
        file.dirty.clear()
        months = {day[:7] for day in dirty} | set(self._months_over(file, calendar, now_ms))
        changes: list[Change] = []
        if dirty or months:
            packs = [pack for pack in self.judge.active_packs() if pack.attendance is not None]
            fresh = self._look(file, packs, dirty, calendar, now_ms)
            for pack in packs:
                for month in sorted(months):
                    changes += self._number(file, pack, month, fresh.get(pack.name, {}))
            for pack in packs:
                changes += self._judge_months(file, pack, sorted(months), calendar, now_ms)
            self._show(file, packs, dirty, changes, calendar)
            today = calendar.day(now_ms).isoformat()
            for day in dirty:
                self._touch(file.book.agent, "d", day)
                if not any(file.days[day].outcomes.values()) and not self._is_planned(file, day, today):
                    del file.days[day]
        if file.book.agent in self.files:
            self._schedule(file, calendar, now_ms)
        if changes:
            self._settle(file, changes, calendar, now_ms)

    def _open_days(self, file: File, calendar: Calendar, now_ms: int) -> None:
        """See to it that every day of office hours up to today is looked at."""
        today = calendar.day(now_ms).isoformat()
        if not file.book.hours or file.opened == today:
            return
        file.opened = today
        oldest = f"{_oldest(calendar, now_ms)}-01"
        first = max(oldest, min(hours.first_day for hours in file.book.hours))
        file.dirty |= {
            day
            for day in file.book.by_day_or_hours(first, today)
            if day not in file.days and file.book.hours_on(day) is not None
        }

    def _look(
        self, file: File, packs: list[Pack], dirty: list[str], calendar: Calendar, now_ms: int
    ) -> dict[str, dict[str, list[Any]]]:
        """Look at some days again: pack and day to outcomes, their numbers still 0."""
        found: dict[str, dict[str, list[Any]]] = {pack.name: {} for pack in packs}
        for day in dirty:
            one = file.days.setdefault(day, Judged())
            one.due_ms, one.settled = None, True
        for pack in packs:
            assert pack.attendance is not None
            taken = _taken(file, pack) if file.book.leaves else {}
            for day in dirty:
                policy = self._policy(pack, day)
                if policy is None:
                    continue
                looked = NOTHING_DUE
                if not _has_left(self.engine.agents.get(file.book.agent), day):
                    looked = look(file.book, day, policy, calendar, now_ms, taken)
                one = file.days[day]
                one.settled = one.settled and looked.settled
                if looked.due_ms is not None:
                    one.due_ms = min(looked.due_ms, one.due_ms or looked.due_ms)
                found[pack.name][day] = looked.outcomes
                if file.book.leaves:
                    taken[day] = _halves(looked.outcomes)
        return found

    def _policy(self, pack: Pack, day: str) -> Policy | None:
        """What a pack says about a day; None before it is in force."""
        settings = pack.attendance
        assert settings is not None
        found = date.fromisoformat(day)
        if found < pack.in_force_from:
            return None
        key = (pack.key, day)
        held = self._figures.get(key)
        if held is None:
            if len(self._figures) >= FIGURES_KEPT:
                self._figures.clear()
            held = self._figures[key] = figures(pack, settings, found)
        return Policy(held, settings.leave_days, settings.calendar)

    def _number(self, file: File, pack: Pack, month: str, fresh: Mapping[str, list[Any]]) -> list[Change]:
        """Number the incidents of a month anew; what differs from what was counted."""
        counters: dict[str, int] = {}
        changes: list[Change] = []
        for day in sorted([day for day in file.days if day[:7] == month]):
            one = file.days[day]
            before = one.outcomes.get(pack.name, [])
            found = fresh.get(day)
            if found is None:
                if not any(isinstance(outcome, Incident) for outcome in before):
                    continue  # nothing to number, as on most days
                found = before
            outcomes = sorted(found, key=_in_time)
            after = [_numbered(outcome, counters) for outcome in outcomes]
            if after != before:
                changes += _differences(pack, day, one, before, after)
                one.outcomes = {**one.outcomes, pack.name: after}
                self._touch(file.book.agent, "d", day)
        return changes

    def _months_over(self, file: File, calendar: Calendar, now_ms: int) -> list[str]:
        """The months that are over, settled and not judged yet."""
        running = calendar.containing("month", now_ms).label if now_ms else ""
        labels = {day[:7] for day in file.days}
        return sorted(label for label in labels if label < running and label not in file.months)

    def _judge_months(
        self, file: File, pack: Pack, months: list[str], calendar: Calendar, now_ms: int
    ) -> list[Change]:
        """Say of months that are over whether they were full; the streaks that follow from it."""
        changed = False
        for label in months:
            verdict = self._verdict(file, pack, label, calendar, now_ms)
            held = file.months.get(label)
            if verdict is None or (held is not None and held.verdicts.get(pack.name) == verdict):
                continue
            one = file.months.setdefault(label, Judged())
            one.verdicts = {**one.verdicts, pack.name: verdict}
            changed = True
            self._touch(file.book.agent, "m", label)
        return self._streaks(file, pack, calendar) if changed else []

    def _verdict(self, file: File, pack: Pack, label: str, calendar: Calendar, now_ms: int) -> Verdict | None:
        if not now_ms or calendar.period("month", label).end_ms > now_ms:
            return None
        days = [one for day, one in file.days.items() if day[:7] == label]
        if not all(one.settled for one in days):
            return None
        last = calendar.day(calendar.period("month", label).end_ms - 1).isoformat()
        policy = self._policy(pack, last)
        if policy is None:
            return None
        outcomes = [outcome for one in days for outcome in one.outcomes.get(pack.name, [])]
        required = sum(isinstance(outcome, Required) for outcome in outcomes)
        full = sum(isinstance(outcome, FullDay) for outcome in outcomes)
        if full < required:
            return "broken"
        return "full" if required and required >= policy.figures.month_days else "empty"

    def _streaks(self, file: File, pack: Pack, calendar: Calendar) -> list[Change]:
        """Count consecutive full months anew; a month that is empty is passed over."""
        streak = 0
        changes: list[Change] = []
        for label in sorted(file.months):
            one = file.months[label]
            verdict = one.verdicts.get(pack.name)
            streak = streak + 1 if verdict == "full" else 0 if verdict == "broken" else streak
            before = one.outcomes.get(pack.name, [])
            after: list[Any] = []
            if verdict == "full":
                end_ms = calendar.period("month", label).end_ms
                days = [day for day in file.days if day[:7] == label]
                count = sum(
                    isinstance(outcome, Required)
                    for day in days
                    for outcome in file.days[day].outcomes.get(pack.name, [])
                )
                if not days and before and isinstance(before[0], FullMonth):
                    count = before[0].days  # the days are forgotten already
                after = [
                    FullMonth(
                        agent=file.book.agent, day=calendar.day(end_ms - 1).isoformat(), at_ms=end_ms - 1,
                        month=label, streak=streak, days=count,
                    )
                ]  # fmt: skip
            if after != before:
                changes += _differences(pack, label, one, before, after)
                one.outcomes = {**one.outcomes, pack.name: after}
                self._touch(file.book.agent, "m", label)
        return changes

    def _schedule(self, file: File, calendar: Calendar, now_ms: int) -> None:
        """Note when something about the agent falls due next."""
        found = [one.due_ms for one in file.days.values() if one.due_ms is not None]
        if now_ms:
            found.append(calendar.period("month", _oldest(calendar, now_ms)).end_ms + KEPT_MS)
            if file.days:
                found.append(calendar.containing("month", now_ms).end_ms)
            if file.book.hours:
                found.append(calendar.containing("day", now_ms).end_ms)
        due_ms = min(found, default=None)
        if due_ms is not None and due_ms != file.due_ms:
            heapq.heappush(self._due, (due_ms, file.book.agent))
        file.due_ms = due_ms

    # --- from changes to counts and charges ---------------------------------------------------------------------------

    def _settle(self, file: File, changes: list[Change], calendar: Calendar, now_ms: int) -> None:
        """Count what changed, then take back and judge: a rule may look at the counts of the month."""
        for change in changes:
            for outcome, weight in ((change.before, -1), (change.after, 1)):
                if outcome is not None:
                    self._count_outcome(change.pack, file, outcome, weight)
        for change in changes:
            if change.before is not None and not self._same_charge(change):
                self._judge(file, change, change.before, "take_back", calendar, now_ms)
        for change in changes:
            if change.after is None:
                continue
            ended_ms = getattr(change.after, "ended_ms", 0)
            before_ms = getattr(change.before, "ended_ms", 0)
            if not self._same_charge(change) or (before_ms and not ended_ms):
                self._judge(file, change, change.after, "judge", calendar, now_ms)
                before_ms = 0
            if ended_ms and not before_ms:
                self._judge(file, change, change.after, "resolve", calendar, now_ms)

    def _show(
        self, file: File, packs: list[Pack], dirty: list[str], changes: list[Change], calendar: Calendar
    ) -> None:
        """Keep as evidence what the outcomes of these days and months are shown by, and take back what is so no more.

        Their events may be others although the outcome is the same: a shift that was stated once more.
        """
        if not self._seeing:
            return
        places = dict.fromkeys([*dirty, *(change.place for change in changes)])
        for place in places:
            one = file.days.get(place) or file.months.get(place)
            if one is None:
                continue
            after = {
                f"{pack.name}|{key_of(outcome)}": shown
                for pack in packs
                for outcome in one.outcomes.get(pack.name, ())
                if (shown := self._shown(file, pack, outcome, calendar)) is not None
            }
            if after == one.shown:
                continue
            for weight, these, others in ((-1, one.shown, after), (1, after, one.shown)):
                for name, shown in these.items():
                    if others.get(name) != shown:
                        self._see(file, f"{place}|{name}", shown, weight)
            one.shown = after
            self._touch(file.book.agent, "m" if place in file.months else "d", place)

    def _shown(self, file: File, pack: Pack, outcome: Outcome, calendar: Calendar) -> Shown | None:
        """What shows an outcome, if it speaks for anything that is judged."""
        seeing = self._seeing.get(f"attendance/{pack.name}/{kind_of(outcome)}")
        hits = seeing(outcome, outcome.at_ms) if seeing is not None else None
        if hits is None:
            return None
        agent = self._agent(file, outcome.at_ms)
        team, site, _ = agent.roster_at(outcome.at_ms)
        uses = self.engine.sightings.witnesses.uses
        named = [(uses[found].key, rank) for found, rank, _ in hits]
        return Shown(outcome.at_ms, named, self._evidence(file, pack, outcome, calendar), team, site)

    def _see(self, file: File, tag: str, shown: Shown, weight: int) -> None:
        places = self.engine.sightings.witnesses.places
        hits = [(places[key], rank, False) for key, rank in shown.hits if key in places]
        agent = self._agent(file, shown.at_ms)
        self.judge.touched.add(agent.key)
        place = ("", shown.team, shown.site)
        self.engine.sightings.take(hits, shown.at_ms, tag, shown.ids, agent, place, weight)

    def _evidence(self, file: File, pack: Pack, outcome: Outcome, calendar: Calendar) -> tuple[str, ...]:
        """The events that show an outcome."""
        if isinstance(outcome, FullMonth):
            return file.book.plans_of(outcome.month)
        policy = self._policy(pack, outcome.day)
        return evidence_of(file.book, outcome.day, outcome, policy, calendar) if policy is not None else ()

    def _same_charge(self, change: Change) -> bool:
        """Whether what was charged for the outcome before is right for the one after."""
        if change.before is None or change.after is None:
            return False
        numbered = (change.pack.key, kind_of(change.after)) in self._numbered
        return charge_of(change.before, numbered) == charge_of(change.after, numbered)

    def _count_outcome(self, pack: Pack, file: File, outcome: Outcome, weight: int) -> None:
        count = self.engine.counters.get(f"attendance/{pack.name}/{kind_of(outcome)}")
        if count is None:
            return
        agent = self._agent(file, outcome.at_ms)
        team, site, _ = agent.roster_at(outcome.at_ms)
        self.engine.count_apart((count,), outcome, outcome.at_ms, agent, ("", team, site), weight)

    def _judge(
        self,
        file: File,
        change: Change,
        outcome: Outcome,
        what: Literal["judge", "resolve", "take_back"],
        calendar: Calendar,
        now_ms: int,
    ) -> None:
        pack, judged, name = change.pack, change.judged, change.name
        found = [
            rules
            for rules in self.judge.book.attendance.get(f"{pack.name}/{kind_of(outcome)}", [])
            if rules.pack is pack
        ]
        if not found:
            return
        evidence = self._evidence(file, pack, outcome, calendar)
        # What is noticed after midnight belongs to the day of the shift all the same; its alert says when.
        since_ms = max(getattr(outcome, "noticed_ms", 0), outcome.at_ms)
        cause = Cause(outcome.at_ms, _incident(outcome), evidence, judged.attempts.get(name, 0), since_ms)
        for rules in found:
            self._judge_by(file, rules, outcome, what, cause, judged, name, now_ms)
        if what == "take_back":
            judged.attempts = {**judged.attempts, name: judged.attempts.get(name, 0) + 1}
        if what != "judge":  # what is over is not ended once more
            judged.alerts = {key: alerts for key, alerts in judged.alerts.items() if key != name}
        self._touch(file.book.agent, "m" if isinstance(outcome, FullMonth) else "d", change.place)

    def _judge_by(
        self,
        file: File,
        rules: RuleSet,
        outcome: Outcome,
        what: str,
        cause: Cause,
        judged: Judged,
        name: str,
        now_ms: int,
    ) -> None:
        agent = self._agent(file, outcome.at_ms)
        team, site, _ = agent.roster_at(outcome.at_ms)
        names = {"agent": outcome.agent, "queue": "", "team": team, "site": site}
        subject = self.engine.subject(names, rules.level, outcome.at_ms)
        if subject is None:
            return
        at_ms = getattr(outcome, "ended_ms", 0) if what == "resolve" else outcome.at_ms
        moment = Moment(
            subject.series,
            subject.roster_at(outcome.at_ms),
            at_ms,
            day=date.fromisoformat(outcome.day),
            event=outcome,
            open_cells=True,
        )
        now_ms = max(now_ms, outcome.at_ms)
        held = judged.alerts.get(name, [])
        if what == "judge":
            alerted = self.judge.judge_event(subject, rules, moment, lambda _: cause, now_ms)
            if alerted:
                alerts = sorted({*held, *(f"{rules.level}|{rule}" for rule in alerted)})
                judged.alerts = {**judged.alerts, name: alerts}
            return
        own = {rule for level, _, rule in (one.partition("|") for one in held) if level == rules.level}
        self.judge.resolve_incident(subject, rules, moment, cause, own)
        if what == "take_back":
            corrections.take_back(self.judge, subject, rules, moment, cause, now_ms)

    # --- forgetting ---------------------------------------------------------------------------------------------------

    def _forget(self, file: File, calendar: Calendar, now_ms: int) -> None:
        """Drop the months that are past their time; what they took of a leave's quota is noted in the leave."""
        oldest = _oldest(calendar, now_ms)
        if file.swept == oldest:
            return
        file.swept = oldest
        self._touch(file.book.agent, "b")
        agent, book = file.book.agent, file.book
        for day in sorted(day for day in file.days if day[:7] < oldest):
            # Each pack has seen the same leave; one of them is enough.
            for outcome in next(iter(file.days[day].outcomes.values()), []):
                if isinstance(outcome, Leave) and outcome.leave_id in book.leaves:
                    spent = book.leaves[outcome.leave_id].spent
                    key = f"{day[:4]}|{outcome.leave_kind}"
                    book.leaves[outcome.leave_id].spent = {**spent, key: spent.get(key, 0) + outcome.halves}
            del file.days[day]
            self._touch(agent, "d", day)
        edge_ms = calendar.period("month", oldest).start_ms
        for shift_id in [one for one, facts in book.shifts.items() if facts.last_ms() < edge_ms]:
            book.forget_shift(shift_id)
            self._touch(agent, "s", shift_id)
        for key in [one for one in book.punches if one < f"{oldest}-01"]:
            del book.punches[key]
            self._touch(agent, "p", key)
        year = f"{int(oldest[:4]) - 1}-01-01"
        for leave_id, facts in list(book.leaves.items()):
            last = facts.decided.last_day if facts.decided is not None else utc_day(facts.seen_ms)
            if last < year:
                del book.leaves[leave_id]
                self._touch(agent, "b")
        gone = sorted(file.months)[:-MAX_MONTHS]
        if file.months and max(file.months) < f"{int(oldest[:4]) - 1}{oldest[4:]}":
            gone = sorted(file.months)  # nobody has worked for a year
        for label in gone:
            del file.months[label]
            self._touch(agent, "m", label)
        if not (file.days or file.months or book.shifts or book.punches or book.leaves or book.hours):
            del self.files[agent]

    # --- stored form --------------------------------------------------------------------------------------------------

    def _touch(self, agent: str, kind: str, name: str = "") -> None:
        assert kind in KINDS, kind
        self._touched.add(SEPARATOR.join(("a", agent, kind, name)))

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed: dict[str, bytes | None] = {}
        for key in sorted(self._touched):
            _, agent, kind, name = key.split(SEPARATOR)
            file = self.files.get(agent)
            found: Any = None
            if file is not None:
                if kind == "b":
                    found = StoredBook(file.site, file.book.leaves, file.book.hours, file.swept)
                elif kind == "s":
                    found = file.book.shifts.get(name)
                elif kind == "p":
                    found = file.book.punches.get(name)
                else:
                    found = (file.days if kind == "d" else file.months).get(name)
            changed[key] = None if found is None else _ENCODER.encode(found)
        self._touched.clear()
        return changed

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; the engine knows its time and its agents already, and this nothing yet."""
        assert not self.files
        for key in sorted(items):
            if not key.startswith(PREFIX):
                continue
            _, agent, kind, name = key.split(SEPARATOR)
            file = self.files.get(agent)
            if file is None:
                file = self.files[agent] = File(agent)
            raw = items[key]
            if kind == "b":
                stored = _BOOK_DECODER.decode(raw)
                file.site, file.swept = stored.site, stored.swept
                file.book.leaves, file.book.hours = stored.leaves, stored.hours
            elif kind == "s":
                file.book.shifts[name] = _SHIFT_DECODER.decode(raw)
            elif kind == "p":
                file.book.punches[name] = _PUNCHES_DECODER.decode(raw)
            elif kind == "d":
                file.days[name] = _JUDGED_DECODER.decode(raw)
            else:
                file.months[name] = _JUDGED_DECODER.decode(raw)
        for file in self.files.values():
            file.book.index()
            self._schedule(file, self._calendar_of(file), self.engine.watermark_ms)


# --- small parts ------------------------------------------------------------------------------------------------------


def _check_day(text: str | None, field: str) -> None:
    if text is None:
        return
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise EventError("invalid", f"$.data.{field} is no day of the calendar") from None
    if not 1970 <= found.year < 2200:
        raise EventError("invalid", f"$.data.{field} lies outside of the years 1970 to 2199")


def _check_room(book: Book, tag: str, data: Any) -> None:
    """Whether one more fits into the book."""
    shift_id = data.incident if tag == "exemption.granted" else getattr(data, "shift_id", "")
    if shift_id and shift_id not in book.shifts and len(book.shifts) >= MAX_SHIFTS:
        raise EventError("too_many_shifts", f"more than {MAX_SHIFTS} shifts of one agent are kept already")
    if shift_id and tag in CLOCK_TAGS and shift_id in book.shifts:
        if len(book.shifts[shift_id].punches) >= MAX_PUNCHES:
            raise EventError("too_many_punches", f"more than {MAX_PUNCHES} clockings of one shift")
    elif tag in LEAVE_TAGS and data.leave_id not in book.leaves and len(book.leaves) >= MAX_LEAVES:
        raise EventError("too_many_leaves", f"more than {MAX_LEAVES} leaves of one agent are kept already")
    elif tag == "hours.assigned" and len(book.hours) >= MAX_HOURS:
        raise EventError("too_many_hours", f"more than {MAX_HOURS} assignments of office hours")


def _has_left(agent: Subject | None, day: str) -> bool:
    """Whether an agent had left before a day, and had not come back by then. A rota left as it was binds nobody."""
    if agent is None:
        return False
    gone = False
    for line in agent.roster:
        if line.left_on:
            gone = gone or line.left_on < day
        elif agent.series.calendar.day(line.from_ms).isoformat() <= day:
            gone = False
    return gone


def _decided(tag: str, event_id: str, data: Any, time_ms: int) -> Decided | None:
    if tag == "leave.requested":
        return None
    half: Half = (data.half or "either") if data.half_day or data.half else ""
    rank = LEAVE_TAGS.index(tag)
    return Decided(
        time_ms, rank, event_id, tag == "leave.approved", data.kind, data.first_day, data.last_day, half
    )


def _oldest(calendar: Calendar, now_ms: int) -> str:
    """The label of the oldest month that is kept day by day."""
    return calendar.containing("month", max(0, now_ms - KEPT_MS)).label


def _in_time(outcome: Outcome) -> tuple[int, str]:
    return outcome.at_ms, key_of(outcome)


def _numbered(outcome: Any, counters: dict[str, int]) -> Any:
    if not isinstance(outcome, Incident):
        return outcome
    family = FAMILIES[kind_of(outcome)]
    number = counters.get(family, 0) + 1
    if not outcome.excused:
        counters[family] = number
    return msgspec.structs.replace(outcome, number=number)


def _differences(pack: Pack, place: str, judged: Judged, before: list[Any], after: list[Any]) -> list[Change]:
    old = {key_of(outcome): outcome for outcome in before}
    new = {key_of(outcome): outcome for outcome in after}
    return [
        Change(pack, place, judged, key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _reads_numbers(rule: Rule) -> bool:
    """Whether a rule looks at how many there were in the month, by the incident's number or by a metric."""
    found = {name for effect in rule.effects for name in names_of(rule, effect)}
    return any(name == "event.number" or not name.startswith(("event.", "p.", "roster.")) for name in found)


def _incident(outcome: Outcome) -> str:
    """What an outcome is about: its shift, its leave, its month or its day."""
    if isinstance(outcome, Leave):
        return outcome.leave_id
    if isinstance(outcome, FullMonth):
        return outcome.month
    return outcome.shift_id or outcome.day


def _halves(outcomes: Iterable[Any]) -> dict[str, int]:
    """Halves of leave by kind."""
    found: dict[str, int] = {}
    for outcome in outcomes:
        if isinstance(outcome, Leave):
            found[outcome.leave_kind] = found.get(outcome.leave_kind, 0) + outcome.halves
    return found


def _with_later_leave(file: File, days: set[str]) -> list[str]:
    """The days in order, with those on leave after them: what a day takes of a quota is lacking later."""
    leaves = [one.decided for one in file.book.leaves.values() if one.decided is not None]

    def on_leave(day: str) -> bool:
        return any(one.first_day <= day <= one.last_day for one in leaves)

    first = min(filter(on_leave, days), default="") if leaves else ""
    if first:
        days = days | {day for day in file.days if day > first and on_leave(day)}
    return sorted(days)


def _taken(file: File, pack: Pack) -> dict[str, Mapping[str, int]]:
    """The halves of leave of every day that is kept."""
    return {day: _halves(one.outcomes.get(pack.name, ())) for day, one in file.days.items()}
