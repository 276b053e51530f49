"""The stored form of a judge: which keys a checkpoint writes, and how a successor takes them over.

Theory of operation. A judge's state is cut into keys so that a checkpoint writes only what changed, and nothing grows
with the age of the log::

    judge                        the frame: boundary reached, versions that judge, periods to close next
    s <level> <name>             a subject: roster, state of work, alerts, grades, totals, what waits to be judged, what
                                 was closed for it in other zones, and whether it is looked at
    c <level> <name>             its open cells
    r <level> <name> <hour>      the cells of its rolling windows that began in one hour
    p <level> <name> <period>    the counts of one calendar period
    e <level> <name> <period>    the ledger entries of one calendar period

The parts are separated by ``SEPARATOR``, which no name may contain. A key whose bytes are what was written last is not
written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from kaohe.core.calendars import Period
from kaohe.core.calendars import calendar as shared_calendar
from kaohe.core.subjects import (
    SEPARATOR,
    Subject,
    load,
    load_cells,
    revive,
    revive_entries,
    revive_period,
    store,
    store_cells,
    store_entries,
    store_period,
)

if TYPE_CHECKING:
    from kaohe.core.judge import Judge

FRAME = "judge"
KINDS = ("s", "c", "r", "p", "e")
Key = tuple[str, str]
"""Level and name of a subject."""


class StoredJudge(msgspec.Struct, array_like=True):
    """What a judge remembers beside its subjects."""

    grid_ms: int | None
    active: dict[str, str]
    closes: list[tuple[str, str, str, str]]
    reopened: list[tuple[str, str, str]] = []
    early: list[tuple[str, str, str]] = []
    history: dict[str, list[tuple[int, str]]] = {}
    ordered: dict[str, list[tuple[int, str, str, str]]] = {}


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(StoredJudge)


def is_own(key: str) -> bool:
    """Whether a key of an engine's state belongs to its judge."""
    return key == FRAME or (key[1:2] == SEPARATOR and key[0] in KINDS)


def stored_key(kind: str, key: Key, *parts: str) -> str:
    """The name of a part of a subject's state."""
    assert kind in KINDS, kind
    return SEPARATOR.join((kind, *key, *parts))


def checkpoint(judge: Judge) -> dict[str, bytes | None]:
    """What changed since the last call, by key; None for what is gone."""
    changed: dict[str, bytes | None] = dict.fromkeys(sorted(judge.gone))
    judge.gone.clear()
    for key in sorted(judge.touched):
        _store_subject(judge, judge.subjects[key], changed)
    judge.touched.clear()
    for key in sorted(judge.open | judge.stored_cells.keys()):
        _store_open(judge, key, changed)
    frame = _ENCODER.encode(
        StoredJudge(
            grid_ms=judge.grid_ms,
            active=judge.active,
            closes=[(*key, period.label) for key, period in sorted(judge.closes.items())],
            reopened=sorted(judge.reopened),
            early=sorted(judge.early),
            history=judge.history,
            ordered=judge.ordered,
        )
    )
    if frame != judge.stored_frame:
        changed[FRAME] = judge.stored_frame = frame
    return changed


def _store_subject(judge: Judge, subject: Subject, changed: dict[str, bytes | None]) -> None:
    key, series, names = subject.key, subject.series, judge.slot_names
    unjudged, figures = (
        [
            (pack, period.window, period.label)
            for pack, waiting in sorted(several.items())
            for period in sorted(waiting.get(key, ()))
        ]
        for several in (judge.unjudged, judge.figures)
    )
    changed[stored_key("s", key)] = store(subject, names, unjudged, figures, live=key in judge.watching.live)
    hours, gone = series.changed_hours()
    for hour in sorted(gone):
        changed[stored_key("r", key, str(hour))] = None
    for hour, cells in sorted(hours.items()):
        changed[stored_key("r", key, str(hour))] = store_cells(cells, names)
    for period in sorted(series.touched_periods):
        if period in series.periods:
            changed[stored_key("p", key, period.window, period.label)] = store_period(series, period, names)
    series.touched_periods.clear()
    for window, label in sorted(subject.touched_entries):
        entries = [
            entry for entry in subject.entries.values() if (entry.window, entry.label) == (window, label)
        ]
        changed[stored_key("e", key, window, label)] = store_entries(entries) if entries else None
    subject.touched_entries.clear()


def _store_open(judge: Judge, key: Key, changed: dict[str, bytes | None]) -> None:
    subject = judge.subjects.get(key)
    cells = sorted(subject.series.cells.items()) if subject is not None else []
    raw = store_cells(cells, judge.slot_names) if cells else None
    if raw == judge.stored_cells.get(key):
        return
    changed[stored_key("c", key)] = raw
    if raw is None:
        del judge.stored_cells[key]
    else:
        judge.stored_cells[key] = raw


def forget(judge: Judge, subject: Subject) -> None:
    """Note that everything stored about a subject is to go."""
    key = subject.key
    judge.gone.add(stored_key("s", key))
    judge.gone.update(stored_key("r", key, str(hour)) for hour in subject.series.stored_hours)


def forget_period(judge: Judge, subject: Subject, period: Period) -> None:
    """Note that the stored counts of a period are to go."""
    judge.gone.add(stored_key("p", subject.key, period.window, period.label))


def restore(judge: Judge, items: Mapping[str, bytes]) -> None:
    """Take over a stored state; the judge must be fresh."""
    assert not judge.subjects, "restore into a judge that has begun"
    state = _DECODER.decode(items[FRAME])
    judge.stored_frame = items[FRAME]
    keys = [key.split(SEPARATOR) for key in sorted(items) if key != FRAME]
    for parts in keys:
        if parts[0] == "s":
            _revive_subject(judge, (parts[1], parts[2]), items[SEPARATOR.join(parts)])
    hours: dict[Key, list[int]] = {}
    for kind, level, name, *rest in keys:
        subject = judge.subjects[level, name]
        raw = items[SEPARATOR.join((kind, level, name, *rest))]
        if kind == "c":
            subject.series.cells = dict(load_cells(raw, judge.layout.slots))
            judge.stored_cells[subject.key] = raw
            judge.open.add(subject.key)
        elif kind == "r":
            hours.setdefault(subject.key, []).append(int(rest[0]))
        elif kind == "p":
            period = subject.series.calendar.period(rest[0], rest[1])
            revive_period(subject.series, period, raw, judge.layout.slots)
        elif kind == "e":
            revive_entries(subject, raw)
    for key, found in hours.items():
        series = judge.subjects[key].series
        for hour in sorted(found):
            cells = load_cells(items[stored_key("r", key, str(hour))], judge.layout.slots)
            series.revive_cells(hour, cells, state.grid_ms or 0)
    _restore_frame(judge, state)


def _revive_subject(judge: Judge, key: Key, raw: bytes) -> None:
    stored = load(raw)
    subject = judge.add_subject(*key, shared_calendar(stored.zone), stored.first_seen_ms)
    revive(subject, stored, judge.layout.slots)
    if stored.live or stored.alerts:
        judge.watching.live.add(key)
    for several, kept in ((judge.unjudged, stored.unjudged), (judge.figures, stored.figures)):
        for pack, window, label in kept:
            if pack in judge.packs:
                period = subject.series.calendar.period(window, label)
                several[pack][key] = several[pack].get(key, frozenset()) | {period}


def _restore_frame(judge: Judge, state: StoredJudge) -> None:
    judge.grid_ms = state.grid_ms
    judge.reopened = set(state.reopened)
    judge.early = set(state.early)
    judge.history, judge.ordered = state.history, state.ordered
    replaced = []
    for name, version in state.active.items():
        if f"{name}@{version}" in judge.packs:
            judge.active[name] = version
        elif name in judge.active:
            replaced.append(name)
    for pack, zone, window, label in state.closes:
        if pack in judge.packs:
            judge.await_close((pack, zone, window), shared_calendar(zone).period(window, label))
    for key, subject in judge.subjects.items():
        if judge.grid_ms is not None:
            judge.watch_closes(subject.series.calendar)
        if not subject.series.rolling_is_empty:
            judge.watching.live.add(key)  # what was stored before it was said who is live goes by this
    for name in replaced:
        # The version that judged is not loaded any more: its successor takes over what is open.
        judge.await_open(f"{name}@{judge.active[name]}")
