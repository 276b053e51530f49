"""What the engine remembers about one subject (an agent, a team, a queue or a site), and its stored form.

Beside its counts a subject has ledger entries of the periods that are still kept, the state of its live alerts, its
grades, and, for an agent, the roster and the state of work (logged in, ready, not ready). Everything here is bounded:
entries and evidence by ``MAX_*`` below and by the retention of their periods, roster lines by ``MAX_ROSTER_LINES``.

Stored form: one key for the subject itself and one for each period, so that a checkpoint rewrites only what changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from kaohe.core.calendars import Calendar, Period
from kaohe.core.series import Series, pack_cell, unpack_cell

MAX_EVIDENCE = 20
"""Event ids kept per event type and month; more are counted."""
MAX_ENTRIES = 5_000
"""Ledger entries remembered per subject; beyond it the one of the oldest period is forgotten (the ledger has it)."""
MAX_ROSTER_LINES = 64


class Entry(msgspec.Struct):
    """What the core must remember about a ledger entry to revise, waive, adjust or score it."""

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

    @property
    def worth(self) -> Fraction:
        """The points as an exact number."""
        return Fraction(self.points)


class AlertState(msgspec.Struct):
    """A live alert that holds (``firing``) or begins to (waiting out its hold time) since ``since_ms``."""

    id: str
    since_ms: int
    firing: bool


class GradeState(msgspec.Struct):
    """The newest grade of a period. ``caps`` is rule id to the best grade it still allows."""

    score: str = ""
    grade: str = ""
    revision: int = 0
    status: str = "provisional"
    caps: dict[str, str] = {}


class RosterLine(msgspec.Struct):
    """Where an agent belongs from ``from_ms`` on."""

    from_ms: int
    team: str
    site: str
    position: str
    packs: list[str]


class Evidence(msgspec.Struct):
    """The first ids of a kind of event in a month, and how many there were."""

    ids: list[str] = []
    count: int = 0


class Subject:
    """Everything remembered about one subject."""

    __slots__ = (
        "alerts", "entries", "evidence", "first_seen_ms", "grades", "key", "level", "name", "packs", "position",
        "roster", "roster_from_ms", "series", "site", "state", "state_from_ms", "state_since_ms", "team",
    )  # fmt: skip

    def __init__(self, level: str, name: str, series: Series, first_seen_ms: int) -> None:
        self.key = (level, name)
        self.level = level
        self.name = name
        self.series = series
        self.first_seen_ms = first_seen_ms
        self.entries: dict[str, Entry] = {}
        self.alerts: dict[str, AlertState] = {}
        self.grades: dict[str, GradeState] = {}
        self.evidence: dict[str, Evidence] = {}
        self.roster: list[RosterLine] = []
        self.roster_from_ms = 0
        self.team = ""
        self.site = ""
        self.position = ""
        self.packs: list[str] = []
        self.state = ""
        self.state_from_ms = 0
        self.state_since_ms = 0

    def enrol(self, line: RosterLine) -> None:
        """Add a line to the roster; a second one for the same moment replaces the first."""
        kept = [old for old in self.roster if old.from_ms != line.from_ms]
        self.roster = sorted([*kept, line], key=lambda one: one.from_ms)[-MAX_ROSTER_LINES:]
        newest = self.roster[-1]
        self.roster_from_ms = newest.from_ms
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
        found = self.roster[0]
        for line in self.roster:
            if line.from_ms > moment_ms:
                break
            found = line
        return found.team, found.site, found.position

    def see(self, kind: str, month: str, event_id: str) -> None:
        """Remember an event as evidence of its month."""
        evidence = self.evidence.setdefault(f"{kind}|{month}", Evidence())
        evidence.count += 1
        if len(evidence.ids) < MAX_EVIDENCE:
            evidence.ids = [*evidence.ids, event_id]

    def evidence_of(self, kinds: tuple[str, ...], period: Period) -> tuple[list[str], int]:
        """The evidence of some kinds of events whose month meets a period: first ids, and how many in all."""
        ids: list[str] = []
        count = 0
        for kind in kinds:
            for month in months_of(period, self.series.calendar):
                evidence = self.evidence.get(f"{kind}|{month}")
                if evidence is not None:
                    ids += evidence.ids
                    count += evidence.count
        return ids[:MAX_EVIDENCE], count

    def score_entries(self, pack: str, label: str) -> Iterator[Entry]:
        """The entries that make up the score of a pack and period."""
        for entry in self.entries.values():
            if entry.pack == pack and entry.label == label:
                yield entry


def months_of(period: Period, calendar: Calendar) -> list[str]:
    """The labels of the months that a period meets."""
    labels = []
    month = calendar.containing("month", period.start_ms)
    while month.start_ms < period.end_ms:
        labels.append(month.label)
        month = calendar.following(month)
    return labels


# --- stored form ------------------------------------------------------------------------------------------------------


class StoredSubject(msgspec.Struct, array_like=True):
    """A subject without its periods, as stored."""

    first_seen_ms: int
    cells: list[tuple[int, dict[str, Any]]]
    rolling: list[tuple[int, dict[str, Any]]]
    total: dict[str, Any]
    entries: list[Entry]
    alerts: dict[str, AlertState]
    grades: dict[str, GradeState]
    evidence: dict[str, Evidence]
    roster: list[RosterLine]
    state: str
    state_from_ms: int
    state_since_ms: int
    zone: str


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_SUBJECT_DECODER = msgspec.msgpack.Decoder(StoredSubject)


def store(subject: Subject, slot_names: Mapping[int, str]) -> bytes:
    """The bytes of a subject without its periods."""
    series = subject.series
    widest = max(series.rolling.values(), key=lambda rolling: rolling.span_ms, default=None)
    stored = StoredSubject(
        first_seen_ms=subject.first_seen_ms,
        cells=[(bucket, pack_cell(cell, slot_names)) for bucket, cell in sorted(series.cells.items())],
        rolling=[(start, pack_cell(cell, slot_names)) for start, cell in widest.cells] if widest else [],
        total=pack_cell(series.total, slot_names),
        entries=list(subject.entries.values()),
        alerts=subject.alerts,
        grades=subject.grades,
        evidence=subject.evidence,
        roster=subject.roster,
        state=subject.state,
        state_from_ms=subject.state_from_ms,
        state_since_ms=subject.state_since_ms,
        zone=series.calendar.name,
    )
    return _ENCODER.encode(stored)


def load(raw: bytes) -> StoredSubject:
    """Decode what ``store`` wrote."""
    return _SUBJECT_DECODER.decode(raw)


def revive(subject: Subject, stored: StoredSubject, slots: Mapping[str, int], now_ms: int) -> None:
    """Fill a fresh subject from its stored form."""
    series = subject.series
    series.cells = {bucket: unpack_cell(cell, slots) for bucket, cell in stored.cells}
    for start_ms, packed in stored.rolling:
        cell = unpack_cell(packed, slots)
        for rolling in series.rolling.values():
            if start_ms >= now_ms - rolling.span_ms:
                rolling.add(start_ms, cell)
    series.total = unpack_cell(stored.total, slots)
    subject.entries = {entry.id: entry for entry in stored.entries}
    subject.alerts = stored.alerts
    subject.grades = stored.grades
    subject.evidence = stored.evidence
    for line in stored.roster:
        subject.enrol(line)
    subject.state = stored.state
    subject.state_from_ms = stored.state_from_ms
    subject.state_since_ms = stored.state_since_ms


def store_period(series: Series, period: Period, slot_names: Mapping[int, str]) -> bytes:
    """The bytes of one period's counts."""
    return _ENCODER.encode(pack_cell(series.periods[period], slot_names))


def revive_period(series: Series, period: Period, raw: bytes, slots: Mapping[str, int]) -> None:
    """Put one stored period back."""
    series.periods[period] = dict(unpack_cell(msgspec.msgpack.decode(raw), slots))
