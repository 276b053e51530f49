"""What is counted about one subject: open cells, rolling windows, calendar periods, the total.

Theory of operation. Log time is cut into buckets (a minute for groups, five minutes for agents). An event adds to the
cell of its bucket, whatever the order of arrival. At each boundary of log time every cell whose bucket is over is
*folded*: into the calendar periods that contain it, into the rolling windows, and into the total. A late event simply
opens the cell of an old bucket again, which the next fold puts where it belongs; there is no second way of counting.

Rolling windows share running sums of what rules read of them: each cell keeps what they were once it was added. A
window's sum is what they are now less what they were before its oldest cell, so that a cell is added once for all
windows and leaves them for nothing; counts are integers, so the difference is exact. A maximum that leaves is looked
for anew among the cells that stay; whatever no rule reads, distinct sets among it, is put together from the window's
cells when it is asked for.

Bounds: rolling windows keep at most ``MAX_SPAN_MS`` of cells; closed periods are dropped by the owner after their
retention.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from operator import add
from typing import Any

from kaohe.core.calendars import QUARTER_HOUR_MS, Calendar, Period
from kaohe.core.counting import DISTINCT_SLOT, MAX_SLOT, Cell, Counts, merge

Sums = tuple[int, ...]
"""Counts of the watched slots, each at its place."""

HOUR_MS = 3_600_000
MAX_SPAN_MS = 86_400_000
"""The longest rolling window: 24 hours."""


@lru_cache(maxsize=256)
def span_ms(window: str) -> int:
    """The length of ``rolling_15m``, ``rolling_1h`` … in milliseconds."""
    assert window.startswith("rolling_"), window
    number, unit = window[len("rolling_") : -1], window[-1]
    return int(number) * {"m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]


def places_of(watched: Mapping[int, Collection[int]]) -> dict[int, int]:
    """Where each watched slot stands in the running sums of a series, which all of its windows share."""
    slots = sorted({slot for found in watched.values() for slot in found if slot < MAX_SLOT})
    return {slot: place for place, slot in enumerate(slots)}


class Running:
    """The running sums of a series' watched slots."""

    __slots__ = ("places", "sums")

    def __init__(self, places: Mapping[int, int]) -> None:
        self.places = places
        self.sums: Sums = (0,) * len(places)


class Added:
    """A cell in rolling windows. ``sums`` are the running sums once this cell, and all that began before, is added."""

    __slots__ = ("cell", "start_ms", "sums")

    def __init__(self, start_ms: int, cell: Cell, sums: Sums) -> None:
        self.start_ms = start_ms
        self.cell = cell
        self.sums = sums


class Rolling:
    """One rolling window: the cells inside it, oldest first, and what rules read of them.

    Of the watched slots, those that rules read, sums and maxima are kept up to date: a sum is ``running.sums`` less
    ``base`` at the slot's place. Everything else is read by displays and explanations only, far less often than cells
    come and go: it is put together when it is asked for.
    """

    __slots__ = ("_watched_maxima", "base", "cells", "maxima", "running", "span_ms")

    def __init__(self, span: int, running: Running, watched: Collection[int]) -> None:
        assert 0 < span <= MAX_SPAN_MS
        self.span_ms = span
        self.cells: deque[Added] = deque()
        self.running = running
        self.base = running.sums
        self._watched_maxima = [slot for slot in watched if MAX_SLOT <= slot < DISTINCT_SLOT]
        self.maxima: Cell = {}

    def insert(self, added: Added) -> int:
        """Put a cell in its place: behind all that began no later. Its index; the owner sees to the sums."""
        cells = self.cells
        index = len(cells)
        while index and cells[index - 1].start_ms > added.start_ms:
            index -= 1
        cells.insert(index, added)
        cell, maxima = added.cell, self.maxima
        for slot in self._watched_maxima:
            if slot in cell and (slot not in maxima or cell[slot] > maxima[slot]):
                maxima[slot] = cell[slot]
        return index

    def expire(self, now_ms: int) -> bool:
        """Drop the cells that began more than ``span_ms`` ago; whether there were any."""
        cells, edge = self.cells, now_ms - self.span_ms
        if not cells or cells[0].start_ms >= edge:
            return False
        maxima, lost = self.maxima, False
        while cells and cells[0].start_ms < edge:
            left = cells.popleft()
            self.base = left.sums
            for slot in self._watched_maxima:
                if slot in left.cell and left.cell[slot] == maxima.get(slot):
                    # It may have been the only one: the largest of the rest is looked for below.
                    del maxima[slot]
                    lost = True
        for slot in self._watched_maxima if lost else ():
            if slot not in maxima:
                seen = [added.cell[slot] for added in cells if slot in added.cell]
                if seen:
                    maxima[slot] = max(seen)
        return True

    def get(self, slot: int, default: Any = 0) -> Any:
        """The window's count of one slot."""
        place = self.running.places.get(slot)
        if place is not None:
            return self.running.sums[place] - self.base[place]
        if slot in self.maxima:
            return self.maxima[slot]
        seen = [added.cell[slot] for added in self.cells if slot in added.cell]
        if not seen:
            return default
        if slot < MAX_SLOT:
            return sum(seen)
        if slot < DISTINCT_SLOT:
            return max(seen)
        merged: Cell = {}
        for hashes in seen:
            merge(merged, {slot: hashes})
        return merged[slot]

    def counts(self) -> Cell:
        """Everything in the window, for those who want more than a few slots."""
        merged: Cell = {}
        for added in self.cells:
            merge(merged, added.cell)
        return merged


class Joined:
    """Two cells read as one, without putting them together."""

    __slots__ = ("first", "second")

    def __init__(self, first: Cell, second: Cell) -> None:
        self.first = first
        self.second = second

    def get(self, slot: int, default: Any = 0) -> Any:
        """The count of one slot in both."""
        if slot < MAX_SLOT:
            return self.first.get(slot, 0) + self.second.get(slot, 0)
        merged: Cell = {}
        for cell in (self.first, self.second):
            if slot in cell:
                merge(merged, {slot: cell[slot]})
        return merged.get(slot, default)


def _joined(counts: Cell, recent: Cell) -> Counts:
    """A period's counts with the recent ones. Sums are put together, for rules read many of them; sets are large."""
    if max(recent) >= DISTINCT_SLOT:
        return Joined(counts, recent)
    together = counts.copy()
    merge(together, recent)
    return together


class Series:
    """All counts of one subject."""

    __slots__ = (
        "_joined",
        "_periods",
        "_recent",
        "_recent_in",
        "_running",
        "_slots",
        "_stored_changes",
        "_stored_hours",
        "_total",
        "_touched",
        "_touched_hours",
        "_widest",
        "_zeros",
        "bucket_ms",
        "calendar",
        "cells",
        "changes",
        "rolling",
    )

    def __init__(
        self,
        calendar: Calendar,
        bucket_ms: int,
        spans_ms: tuple[int, ...],
        watched: Mapping[int, Collection[int]] | None = None,
    ) -> None:
        """``watched`` gives for a rolling window's span the slots that rules read of it."""
        assert QUARTER_HOUR_MS % bucket_ms == 0, bucket_ms
        self.calendar = calendar
        self.bucket_ms = bucket_ms
        self.cells: dict[int, Cell] = {}
        read = watched or {}
        self._running = Running(places_of(read))
        self._slots = tuple(self._running.places)
        self._zeros = self._running.sums
        self.rolling = {span: Rolling(span, self._running, read.get(span, ())) for span in sorted(spans_ms)}
        # Every cell of a shorter window is in the widest one too.
        self._widest = self.rolling[max(spans_ms)] if spans_ms else None
        self.changes = 0
        """A number that differs whenever any counts may."""
        self._periods: dict[Period, Cell] = {}
        self._total: Cell = {}
        self._touched: set[Period] = set()
        self._recent: Cell = {}
        self._joined: dict[Period, Counts] = {}
        self._recent_in: tuple[Period, ...] = ()
        self._stored_changes = -1
        self._stored_hours: set[int] = set()
        self._touched_hours: set[int] = set()

    def period_counts(self, period: Period) -> Counts | None:
        """The counts of one period, to be read now; None when nothing is known of it."""
        counts = self._periods.get(period)
        if not self._recent or period not in self._recent_in:
            return counts
        if counts is None:
            return self._recent
        joined = self._joined.get(period)
        if joined is None:
            joined = self._joined[period] = _joined(counts, self._recent)
        return joined

    def total_counts(self) -> Counts:
        """Everything ever counted, to be read now."""
        return Joined(self._total, self._recent) if self._recent else self._total

    @property
    def periods(self) -> dict[Period, Cell]:
        """The counts of every calendar period that is kept."""
        self._settle()
        return self._periods

    @property
    def total(self) -> Cell:
        """Everything ever counted."""
        self._settle()
        return self._total

    @total.setter
    def total(self, cell: Cell) -> None:
        self._total = cell

    @property
    def touched_periods(self) -> set[Period]:
        """The periods that changed since the owner last cleared this set."""
        self._settle()
        return self._touched

    def _settle(self) -> None:
        """Move what was folded lately into its periods. Most cells are never looked at one by one."""
        if not self._recent:
            return
        for period in self._recent_in:
            counts = self._periods.get(period)
            if counts is None:
                counts = self._periods[period] = {}
            merge(counts, self._recent)
            self._touched.add(period)
        merge(self._total, self._recent)
        self._recent = {}
        self._joined.clear()

    def move(self, calendar: Calendar) -> None:
        """Keep another calendar from now on: a month that was begun in one zone goes on in the other."""
        self._settle()
        self.calendar = calendar
        self._recent_in = ()
        self._periods = {
            calendar.period(period.window, period.label): counts for period, counts in self._periods.items()
        }
        self._touched = {calendar.period(period.window, period.label) for period in self._touched}

    def cell(self, moment_ms: int) -> Cell:
        """The open cell of a moment's bucket."""
        bucket = moment_ms // self.bucket_ms
        found = self.cells.get(bucket)
        if found is None:
            found = self.cells[bucket] = {}
        return found

    def fold(self, now_ms: int) -> Collection[Period]:
        """Fold every cell whose bucket is over at ``now_ms``; the periods that changed."""
        over = [bucket for bucket in self.cells if (bucket + 1) * self.bucket_ms <= now_ms]
        if len(over) == 1:
            return self.add(over[0] * self.bucket_ms, self.cells.pop(over[0]), now_ms)
        changed: set[Period] = set()
        for bucket in sorted(over):
            changed.update(self.add(bucket * self.bucket_ms, self.cells.pop(bucket), now_ms))
        return changed

    def add(self, start_ms: int, cell: Cell, now_ms: int) -> tuple[Period, ...]:
        """Put a finished cell into periods, rolling windows and total; the periods that changed."""
        self.changes += 1
        periods = self.calendar.periods(start_ms)
        if periods != self._recent_in:
            self._settle()
            self._recent_in = periods
        merge(self._recent, cell)
        self._joined.clear()
        if self._widest is not None and start_ms >= now_ms - self._widest.span_ms:
            self._roll(start_ms, cell, now_ms)
            self._touched_hours.add(start_ms // HOUR_MS)
        return periods

    def _roll(self, start_ms: int, cell: Cell, now_ms: int) -> None:
        """Put a finished cell into the rolling windows that it is not too old for, which the widest is."""
        assert self._widest is not None
        too_late = [rolling for rolling in self.rolling.values() if start_ms < now_ms - rolling.span_ms]
        for rolling in too_late:
            rolling.expire(now_ms)  # so that the cell lies before all that these windows hold
        running = self._running
        counts = tuple(map(cell.get, self._slots, self._zeros))
        running.sums = tuple(map(add, running.sums, counts))
        added = Added(start_ms, cell, running.sums)
        widest = self._widest.cells
        index = self._widest.insert(added)
        if index < len(widest) - 1:
            # It came late: it is counted in the sums of all that began after it.
            before = widest[index - 1].sums if index else self._widest.base
            added.sums = tuple(map(add, before, counts))
            for place in range(index + 1, len(widest)):
                widest[place].sums = tuple(map(add, widest[place].sums, counts))
        for rolling in self.rolling.values():
            if rolling in too_late:
                rolling.base = tuple(map(add, rolling.base, counts))
            elif rolling is not self._widest:
                rolling.insert(added)

    def expire(self, now_ms: int) -> None:
        """Let old cells leave the rolling windows."""
        for rolling in self.rolling.values():
            if rolling.expire(now_ms):
                self.changes += 1

    @property
    def rolling_is_empty(self) -> bool:
        """Whether no rolling window holds anything: nothing will change by the passing of time alone."""
        return self._widest is None or not self._widest.cells

    def changed_hours(self) -> tuple[dict[int, list[tuple[int, Cell]]], set[int]]:
        """The rolling cells to store anew, by hour, and the hours that are gone, since this was last asked.

        A day of cells is too much to write each time one of them is added: an hour's cells are stored together.
        """
        if self._widest is None or self.changes == self._stored_changes:
            return {}, set()
        self._stored_changes = self.changes
        hours: dict[int, list[tuple[int, Cell]]] = {}
        kept: set[int] = set()
        for added in self._widest.cells:
            hour = added.start_ms // HOUR_MS
            kept.add(hour)
            if hour in self._touched_hours:
                hours.setdefault(hour, []).append((added.start_ms, added.cell))
        gone = self._stored_hours - kept
        self._stored_hours = kept
        self._touched_hours.clear()
        return hours, gone

    @property
    def stored_hours(self) -> frozenset[int]:
        """The hours of which rolling cells are stored."""
        return frozenset(self._stored_hours)

    def revive_cells(self, hour: int, cells: Iterable[tuple[int, Cell]], now_ms: int) -> None:
        """Put an hour's rolling cells back; those that have left a window since they were stored stay out of it."""
        self._stored_hours.add(hour)
        for start_ms, cell in cells:
            if self._widest is not None and start_ms >= now_ms - self._widest.span_ms:
                self._roll(start_ms, cell, now_ms)

    def period_with_open(self, period: Period) -> Cell:
        """A period's counts with those of the cells that are still open (for rules that judge a single event)."""
        counts: Cell = {}
        merge(counts, self.periods.get(period, {}))
        for bucket, cell in self.cells.items():
            if period.start_ms <= bucket * self.bucket_ms < period.end_ms:
                merge(counts, cell)
        return counts


# --- stored form ------------------------------------------------------------------------------------------------------


def pack_cell(cell: Mapping[int, Any], slot_names: Mapping[int, str]) -> dict[str, Any]:
    """A cell with lasting names and sorted sets."""
    return {
        slot_names[slot]: value if slot < DISTINCT_SLOT else sorted(value) for slot, value in cell.items()
    }


def unpack_cell(stored: Mapping[str, Any], slots: Mapping[str, int]) -> Cell:
    """A stored cell; a term that no loaded pack has any more is forgotten."""
    try:
        return {
            slots[name]: set(value) if value.__class__ is list else value for name, value in stored.items()
        }
    except KeyError:
        return unpack_cell({name: value for name, value in stored.items() if name in slots}, slots)
