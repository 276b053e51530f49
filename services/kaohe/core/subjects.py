"""What the engine remembers about one subject (an agent, a team, a queue or a site), and its stored form.

Beside its counts a subject has ledger entries of the periods that are still kept, the state of its live alerts, its
grades, and, for an agent, the roster and the state of work (logged in, ready, not ready). Everything here is bounded:
entries and evidence by ``MAX_*`` below and by the retention of their periods, roster lines by ``MAX_ROSTER_LINES``.

Stored form: one key for the subject itself, one for its open cells, one for the rolling cells of each hour, one for the
counts and one for the ledger entries of each period, so that a checkpoint rewrites only what changed.

What is remembered in structs cannot be part of a cycle of references: the garbage collector is told not to look at it
(``gc=False``), for there is much of it and it lives long.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from kaohe.core.calendars import Period
from kaohe.core.counts import Cell, Series
from kaohe.core.facts import added
from kaohe.core.intake import Known
from kaohe.core.partials import Reader, Writer
from kaohe.core.scorecard import Mark

SEPARATOR = "\x1f"
"""Between the parts of a key of stored state: no name may contain it (the engine refuses such names)."""
NEVER_MS = 1 << 62
"""A moment that does not come."""
MAX_EVIDENCE = 20
"""Events kept of what speaks in a period; more are counted."""
MAX_ENTRIES = 5_000
"""Ledger entries remembered per subject; beyond it the one of the oldest period is forgotten (the ledger has it)."""
MAX_ROSTER_LINES = 64
MAX_STATES = 64
"""Changes of an agent's state of work that are remembered, so that a late one can be put in its place."""
MAX_MARKS = 240
"""Final results of periods remembered per pack and window: 20 years of months."""
MAX_VOICES = 500
"""What people may say about one subject, pack and period."""
MAX_WAIVERS = 200
"""Exemptions remembered per subject for what has not happened yet; beyond it the oldest is forgotten."""


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """What the core must remember about a ledger entry to revise, waive, adjust or score it.

    ``at_ms`` is when its newest revision was decided. An alert of a period's close is remembered here as well (its
    ``kind`` is ``alert``), until it is resolved in ``waived_by`` with its own id. ``seen`` is the digest of what a task
    with figures for a report said last. Neither is a part of a score.
    """

    id: str
    pack: str
    rule: str
    effect: int
    kind: str
    window: str
    label: str
    incident: str
    points: str
    revision: int
    status: str
    adjusts: str = ""
    waived_by: str = ""
    at_ms: int = 0
    seen: str = ""

    @property
    def worth(self) -> Fraction:
        """The points as an exact number."""
        return _worth(self.points)

    @property
    def counts(self) -> bool:
        """Whether it is worth anything."""
        return self.points != "0"


@lru_cache(maxsize=4_096)
def result_key(pack: str, period: Period) -> str:
    """Under which a subject keeps what belongs to a pack and a period: the grade, what people said, who closed it."""
    return f"{pack}|{period.window}|{period.label}"


def _worth(points: str) -> Fraction:
    return Fraction(points)


class AlertState(msgspec.Struct, gc=False):
    """A live alert that holds (``firing``) or begins to (waiting out its hold time) since ``since_ms``."""

    id: str
    since_ms: int
    firing: bool


class Cause(msgspec.Struct, frozen=True):
    """What a single event's judgement rests on: its moment, its incident and the ids of its evidence.

    ``count`` is how many events there were if ``evidence`` does not name all of them.
    ``attempt`` is how often the incident was taken back before: a charge after that is an entry of its own.
    ``since_ms`` is when it was noticed, where that is later than the moment to which it belongs.
    """

    at_ms: int
    incident: str
    evidence: tuple[str, ...]
    attempt: int = 0
    since_ms: int = 0
    count: int = 0

    @property
    def noticed_ms(self) -> int:
        """Since when an alert about it holds."""
        return max(self.since_ms, self.at_ms)

    @property
    def parts(self) -> tuple[str, ...]:
        """What the ids of entries take from the attempt: nothing for the first one."""
        return (str(self.attempt),) if self.attempt else ()


class GradeState(msgspec.Struct, omit_defaults=True, gc=False):
    """The newest grade of a period. ``caps`` is rule id (and incident) to the best grade it still allows.

    ``status`` is ``proposed`` when the period is closed here and the company's stage has the last word, and
    ``withdrawn`` when the subject had left the pack by then. ``seen`` is
    what the newest revision rested on, by which the next one tells what moved, and ``told`` are the digests of its
    card's lines, by which the next one leaves out what is the same. ``earned`` (dimension, item, points, share or None)
    and ``others`` (points by rule, outside of items; of a score without items the sum of all, under no name) are what
    the score was made of, kept where a combined score may leave something out.
    """

    score: str = ""
    grade: str = ""
    revision: int = 0
    status: str = "provisional"
    caps: dict[str, str] = {}
    seen: dict[str, str] = {}
    told: dict[str, int] = {}
    earned: list[tuple[str, str, str, str | None]] = []
    others: dict[str, str] = {}
    put: int = 0

    @property
    def settled(self) -> bool:
        """Whether the period was closed with this result."""
        return self.revision > 0 and self.status in ("final", "proposed")


class Voice(msgspec.Struct, array_like=True, order=True):
    """What ``by`` said in a role about an item: ``count`` scores, sum and sum of squares (hundredths), or a word."""

    item: str
    role: str
    by: str
    at_ms: int
    event_id: str
    count: int
    total: int
    squares: int
    word: str


class Ruling(msgspec.Struct, array_like=True, order=True):
    """The final word of a leader on an item, or on the whole (``item`` empty)."""

    item: str
    at_ms: int
    event_id: str
    by: str
    score: int | None
    grade: str
    reason: str


class Sitting(msgspec.Struct, array_like=True):
    """All that people said about a subject for one period of one pack, in the order of items, roles and names."""

    voices: list[Voice] = []
    rulings: list[Ruling] = []


class RosterLine(msgspec.Struct, omit_defaults=True, gc=False):
    """Where an agent belongs from ``from_ms`` on. Of a department: ``superior`` is its head.

    ``left_on`` is the day on which the agent left, or empty.
    """

    from_ms: int
    team: str
    site: str
    position: str
    packs: list[str]
    superior: str = ""
    leader: str = ""
    department: str = ""
    hired_on: str = ""
    left_on: str = ""


class Member(NamedTuple):
    """That an agent belongs to a team by the roster, until a moment (``NEVER_MS``: nobody says when)."""

    team: str
    site: str
    position: str
    until_ms: int


class StateLine(msgspec.Struct, array_like=True, order=True, gc=False):
    """In which state of work an agent was from ``from_ms`` on; ``rank`` orders what is reported for one moment."""

    from_ms: int
    rank: int
    state: str


class Waiver(msgspec.Struct, gc=False):
    """An exemption that was granted: which rule of which pack excuses ``incident``, and the event that did it."""

    pack: str
    rule: str
    effect: int
    incident: str
    event_type: str
    event_id: str
    at_ms: int
    data: bytes


class Sighting(msgspec.Struct, array_like=True, order=True, gc=False):
    """Something that speaks, seen at ``at_ms``: an event, or an outcome with the ids of the events that show it.

    The lowest ``rank`` counts most. ``tag`` tells it apart and is the event's id where there are no ``ids``.
    """

    rank: int
    at_ms: int
    tag: str
    ids: tuple[str, ...] = ()


class Evidence(msgspec.Struct, gc=False):
    """What one witness saw in one period: how many, and those that count most, in their order."""

    count: int = 0
    kept: list[Sighting] = []


class Subject(Known):
    """Everything remembered about one subject."""

    __slots__ = (
        "_charged", "alerts", "entries", "evidence", "grades", "leaves", "level", "marks", "name", "packs", "position",
        "roster", "sittings", "states", "touched_entries", "waivers",
    )  # fmt: skip

    def __init__(self, level: str, name: str, series: Series, first_seen_ms: int) -> None:
        assert SEPARATOR not in name, name
        super().__init__((level, name), series, first_seen_ms)
        self.level = level
        self.name = name
        self.entries: dict[str, Entry] = {}
        self.touched_entries: set[tuple[str, str]] = set()
        # The sums of entries that were asked for, until one of the entries changes.
        self._charged: dict[tuple[str, str, str], Fraction] = {}
        self.waivers: list[Waiver] = []
        self.alerts: dict[str, AlertState] = {}
        self.grades: dict[str, GradeState] = {}
        self.sittings: dict[str, Sitting] = {}
        self.marks: dict[str, list[Mark]] = {}
        self.evidence: dict[str, Evidence] = {}
        self.roster: list[RosterLine] = []
        self.leaves = False
        self.position = ""
        self.packs: list[str] = []
        self.states: list[StateLine] = []

    def enrol(self, line: RosterLine) -> None:
        """Add a line to the roster; a second one for the same moment replaces the first."""
        kept = [old for old in self.roster if old.from_ms != line.from_ms]
        self.roster = sorted([*kept, line], key=lambda one: one.from_ms)[-MAX_ROSTER_LINES:]
        newest = self.roster[-1]
        self.roster_from_ms = newest.from_ms
        self.leaves = any(one.left_on for one in self.roster)
        self.team, self.site, self.position, self.packs = (
            newest.team,
            newest.site,
            newest.position,
            newest.packs,
        )

    def roster_at(self, moment_ms: int) -> tuple[str, str, str]:
        """Team, site and position at a moment; before the first line that line holds."""
        if moment_ms >= self.roster_from_ms:
            return self.team, self.site, self.position
        line = self._line_at(moment_ms)
        return line.team, line.site, line.position

    def member(self) -> Member | None:
        """The team of the newest line of the roster, until the end of the day of leaving; None without a team."""
        if not self.team or not self.roster:
            return None
        left_on, until_ms = self.roster[-1].left_on, NEVER_MS
        if left_on:
            until_ms = self.series.calendar.start_ms(date.fromisoformat(left_on) + timedelta(days=1))
        return Member(self.team, self.site, self.position, until_ms)

    def packs_at(self, moment_ms: int) -> list[str]:
        """The packs in force for the subject at a moment; empty means all."""
        return self.packs if moment_ms >= self.roster_from_ms else self._line_at(moment_ms).packs

    def line_at(self, moment_ms: int) -> RosterLine | None:
        """The line of the roster that holds at a moment; before the first line that one. None: nobody knows."""
        return self._line_at(moment_ms) if self.roster else None

    def closed_by(self, pack: str, period: Period) -> str | None:
        """The version of a pack that had closed a period in a zone that the subject has left, if one had."""
        if not self.closed_elsewhere:
            return None
        return self.closed_elsewhere.get(result_key(pack, period))

    def mark(self, key: str, mark: Mark) -> None:
        """Keep the final result of a period, in the order of periods; a second one for the same period replaces it."""
        self.marks[key] = with_mark(self.marks.get(key, []), mark)[-MAX_MARKS:]

    def left_before(self, period: Period) -> bool:
        """Whether an agent had left before a period began, and did not come back in it."""
        if not self.roster:
            return False
        left_on = self._line_at(period.end_ms - 1).left_on
        return bool(left_on) and left_on < self.series.calendar.day(period.start_ms).isoformat()

    def _line_at(self, moment_ms: int) -> RosterLine:
        if moment_ms >= self.roster_from_ms:
            return self.roster[-1]
        found = self.roster[0]
        for line in self.roster:
            if line.from_ms > moment_ms:
                break
            found = line
        return found

    def put(self, entry: Entry) -> None:
        """Remember a ledger entry, or that it changed."""
        self.entries[entry.id] = entry
        self._entries_changed(entry)

    def forget(self, entry: Entry) -> None:
        """Forget a ledger entry; the ledger has it."""
        del self.entries[entry.id]
        self._entries_changed(entry)

    def is_excused(self, entry: Entry) -> bool:
        """Whether an entry was taken back by an exemption or an appeal, and not by its own rule's revision."""
        if not entry.waived_by or entry.waived_by == entry.id:
            return False
        reversal = self.entries.get(entry.waived_by)
        return reversal is None or reversal.rule != entry.rule

    def _entries_changed(self, entry: Entry) -> None:
        self.touched_entries.add((entry.window, entry.label))
        self._charged.pop((entry.pack, entry.window, entry.label), None)

    def score_entries(self, pack: str, window: str, label: str) -> list[Entry]:
        """The entries that make up the score of a pack and period."""
        return [
            entry
            for entry in self.entries.values()
            if entry.label == label
            and entry.pack == pack
            and entry.window == window
            and entry.kind != "alert"
            and not entry.seen
        ]

    def charged(self, pack: str, window: str, label: str) -> Fraction | None:
        """The sum of the entries that make up the score of a pack and period; None when there are none."""
        key = (pack, window, label)
        found = self._charged.get(key)
        if found is None:
            entries = self.score_entries(pack, window, label)
            if not entries:
                return None
            found = self._charged[key] = added([entry.worth for entry in entries])
        return found


def with_mark(marks: Iterable[Mark], mark: Mark) -> list[Mark]:
    """Marks in the order of their periods with one more, or with another result of a period that was there."""
    found = {one.label: one for one in marks}
    before = found.get(mark.label)
    found[mark.label] = mark if before is None else msgspec.structs.replace(mark, told=before.told)
    return [found[label] for label in sorted(found)]


# --- stored form ------------------------------------------------------------------------------------------------------


PackedCell = tuple[list[str], bytes]
"""The terms of a cell and its bytes, as ``kaohe.core.partials`` writes them."""


class StoredSubject(msgspec.Struct, array_like=True):
    """A subject without its periods, as stored."""

    first_seen_ms: int
    total: PackedCell | dict[str, Any]
    unjudged: list[tuple[str, str, str]]
    waivers: list[Waiver]
    alerts: dict[str, AlertState]
    grades: dict[str, GradeState]
    evidence: dict[str, Evidence]
    roster: list[RosterLine]
    state: str
    states: list[StateLine]
    state_from_ms: int
    state_since_ms: int
    zone: str
    sittings: dict[str, Sitting] = {}
    marks: dict[str, list[Mark]] = {}
    figures: list[tuple[str, str, str]] = []
    live: bool = False
    closed_elsewhere: dict[str, str] = {}


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_SUBJECT_DECODER = msgspec.msgpack.Decoder(StoredSubject)
_ENTRIES_DECODER = msgspec.msgpack.Decoder(list[Entry])


def store(
    subject: Subject, slot_names: dict[int, str], unjudged: list[tuple[str, str, str]],
    figures: list[tuple[str, str, str]], *, live: bool,
) -> bytes:  # fmt: skip
    """The bytes of a subject without its cells, periods and entries.

    ``unjudged`` are the periods (pack key, window, label) that wait for the next evaluation, ``figures`` those whose
    figures for reports wait for the next day. ``live`` tells whether it is looked at at the next boundary.
    """
    series = subject.series
    stored = StoredSubject(
        first_seen_ms=subject.first_seen_ms,
        total=_packed(series.total, slot_names),
        unjudged=unjudged,
        waivers=subject.waivers,
        alerts=subject.alerts,
        grades=subject.grades,
        evidence=subject.evidence,
        roster=subject.roster,
        state=subject.state,
        states=subject.states,
        state_from_ms=subject.state_from_ms,
        state_since_ms=subject.state_since_ms,
        zone=series.calendar.name,
        sittings=subject.sittings,
        marks=subject.marks,
        figures=figures,
        live=live,
        closed_elsewhere=subject.closed_elsewhere,
    )
    return _ENCODER.encode(stored)


def load(raw: bytes) -> StoredSubject:
    """Decode what ``store`` wrote."""
    return _SUBJECT_DECODER.decode(raw)


def revive(subject: Subject, stored: StoredSubject, slots: dict[str, int]) -> None:
    """Fill a fresh subject from its stored form."""
    subject.series.total = _unpacked(stored.total, slots)
    subject.waivers = stored.waivers
    subject.alerts = stored.alerts
    subject.grades = stored.grades
    # What was stored before evidence was kept by window has no window in its key, and says nothing.
    subject.evidence = {key: one for key, one in stored.evidence.items() if key.count("|") == 2}
    subject.sittings = stored.sittings
    subject.marks = stored.marks
    subject.closed_elsewhere = stored.closed_elsewhere
    for line in stored.roster:
        subject.enrol(line)
    subject.state = stored.state
    subject.states = stored.states
    subject.state_from_ms = stored.state_from_ms
    subject.state_since_ms = stored.state_since_ms


def store_cells(cells: Iterable[tuple[int, Cell]], slot_names: dict[int, str]) -> bytes:
    """The bytes of some cells, each with its bucket or start, in their order."""
    writer = Writer(slot_names)
    packed = [(start, writer.write(cell)) for start, cell in cells]
    return _ENCODER.encode((writer.terms, packed))


def load_cells(raw: bytes, slots: dict[str, int]) -> list[tuple[int, Cell]]:
    """What ``store_cells`` wrote. Before cells were written as bytes it was a list of starts and counts by name."""
    found = msgspec.msgpack.decode(raw)
    by_name = not found or (found[0] and isinstance(found[0][0], int))
    terms, packed = ([], found) if by_name else found
    reader = Reader(terms, slots)
    return [(start, reader.read(cell)) for start, cell in packed]


def store_entries(entries: Iterable[Entry]) -> bytes:
    """The bytes of the ledger entries of one period."""
    return _ENCODER.encode(sorted(entries, key=lambda entry: entry.id))


def revive_entries(subject: Subject, raw: bytes) -> None:
    """Put the stored entries of one period back."""
    for entry in _ENTRIES_DECODER.decode(raw):
        subject.entries[entry.id] = entry


def store_period(series: Series, period: Period, slot_names: dict[int, str]) -> bytes:
    """The bytes of one period's counts."""
    return _ENCODER.encode(_packed(series.periods[period], slot_names))


def revive_period(series: Series, period: Period, raw: bytes, slots: dict[str, int]) -> None:
    """Put one stored period back."""
    series.periods[period] = _unpacked(msgspec.msgpack.decode(raw), slots)


def _packed(cell: Cell, slot_names: dict[int, str]) -> PackedCell:
    writer = Writer(slot_names)
    packed = writer.write(cell)
    return writer.terms, packed


def _unpacked(stored: PackedCell | dict[str, Any], slots: dict[str, int]) -> Cell:
    """A cell of its own; before cells were written as bytes it was counts by name."""
    terms, packed = ([], stored) if isinstance(stored, dict) else stored
    return Reader(terms, slots).read(packed)
