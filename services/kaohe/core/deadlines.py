"""Things that must follow within a time: what is open, what is due next, what became of it.

Theory of operation. An event opens an item; another one meets it, or takes it back; or the log's clock passes its due
time and it is *missed*, although no event comes. An event may arrive before the one that should have opened its item,
or after the item was missed although it happened in time: both are put right, so that the order in which independent
events arrive does not matter.

An item is kept until ``KEPT_MS`` (or what its deadline says) after it ended, or ``ABANDONED_MS`` after it was missed,
and there are at most ``MAX_ITEMS``. The queues of due times and of what is to be forgotten are not part of the state:
they are made anew from the items. Most items are met long before they are due, so a queue keeps no order but among
those of the minute that comes next (``Queue``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from kaohe.core.calendars import DAY_MS
from kaohe.core.subjects import SEPARATOR
from kaohe.core.verdicts import Word
from kaohe.errors import EventError

MINUTE_MS = 60_000
KEPT_MS = 7 * DAY_MS
ABANDONED_MS = 400 * DAY_MS
MAX_ITEMS = 500_000
KEY = "d"
"""Under which items are stored."""

ItemState = Literal[
    "early_met", "early_cancelled", "open", "met", "missed", "late", "cancelled", "cancelled_late"
]


ItemId = tuple[str, str, str]
"""Deadline (as ``pack/name``), subject and key."""


class Item(msgspec.Struct, array_like=True, gc=False):
    """One thing that must follow.

    ``place`` is queue, team and site; ``closed_ms`` when it was met or taken back; ``opening`` the data of the event
    that opened it (plain, as it was stored, until somebody reads it; None where the end came first); ``evidence`` the
    ids of the events that opened and ended it; ``alerts`` which rules (as ``level|rule``) raised an alert when it was
    missed. Of what nothing can meet, ``words`` are all that was said about it, and ``attempt`` is how often it stood
    before. Nothing in it can refer to itself, so the collector of cycles need not look at it.
    """

    id: ItemId
    state: ItemState
    place: tuple[str, str, str]
    opened_ms: int
    due_ms: int
    closed_ms: int
    opening: Any
    evidence: tuple[str, ...]
    alerts: tuple[str, ...] = ()
    words: list[Word] = []
    attempt: int = 0


ITEM_ENCODER = msgspec.msgpack.Encoder()
ITEM_DECODER = msgspec.msgpack.Decoder(Item)


class Queue:
    """Items by a moment, earliest first. One that is there no more at its moment is passed over when its turn comes."""

    __slots__ = ("_at", "_front", "_front_minute", "_later", "_minutes")

    def __init__(self, at: Callable[[ItemId], int | None]) -> None:
        """``at`` tells the moment at which an item stands in the queue now, or None."""
        self._at = at
        self._front: list[tuple[int, ItemId]] = []
        self._front_minute = -1
        self._later: dict[int, list[tuple[int, ItemId]]] = {}
        self._minutes: list[int] = []

    def add(self, at_ms: int, key: ItemId) -> None:
        """Put an item to its moment."""
        minute = at_ms // MINUTE_MS
        if minute <= self._front_minute:
            heapq.heappush(self._front, (at_ms, key))
            return
        known = self._later.get(minute)
        if known is None:
            known = self._later[minute] = []
            heapq.heappush(self._minutes, minute)
        known.append((at_ms, key))

    def first(self) -> tuple[int, ItemId] | None:
        """The earliest moment and its item; None when there is nothing."""
        at = self._at
        while True:
            front = self._front
            while front:
                found = front[0]
                if at(found[1]) == found[0]:
                    return found
                heapq.heappop(front)
            if not self._minutes:
                return None
            self._front_minute = heapq.heappop(self._minutes)
            waiting = self._later.pop(self._front_minute)
            self._front = [found for found in waiting if at(found[1]) == found[0]]
            heapq.heapify(self._front)

    def take(self) -> ItemId:
        """The item that ``first`` told, which stands in the queue no more."""
        return heapq.heappop(self._front)[1]


class Deadlines:
    """All items of one partition."""

    def __init__(self, kept_ms: Mapping[str, int] | None = None) -> None:
        """``kept_ms`` gives, by ``pack/name``, how long items that ended are kept where that is not ``KEPT_MS``."""
        self._kept_ms = dict(kept_ms or {})
        self.items: dict[ItemId, Item] = {}
        self.touched: set[ItemId] = set()
        self.dropped: list[ItemId] = []
        self._due = Queue(self._due_at)
        self._ends = Queue(self._end_at)

    def add(self, item: Item) -> None:
        """Add a new item. The caller has asked ``check_room`` before."""
        self.items[item.id] = item
        self._queue(item)
        self.touched.add(item.id)

    def add_if_room(self, item: Item) -> None:
        """Add an item that ended before it was opened. Where there is no room it is not remembered."""
        if item.id in self.items or self._make_room():
            self.add(item)

    def check_room(self) -> None:
        """EventError when no further item can be opened."""
        if not self._make_room():
            raise EventError(
                "too_many_open", f"more than {MAX_ITEMS} items with a deadline are open in this partition"
            )

    def has_room(self) -> bool:
        """Whether a further item can be opened."""
        return self._make_room()

    def _make_room(self) -> bool:
        """Whether there is room for an item; the one that ended first is forgotten for it."""
        if len(self.items) < MAX_ITEMS:
            return True
        ended = self._ends.first()
        if ended is None or self.items[ended[1]].state == "missed":
            return False
        self._drop(self._ends.take())
        return True

    def _drop(self, key: ItemId) -> None:
        del self.items[key]
        self.touched.discard(key)
        self.dropped.append(key)

    def changed(self, item: Item) -> None:
        """Note that an item changed."""
        self._queue(item)
        self.touched.add(item.id)

    def _queue(self, item: Item) -> None:
        """Note when the item is missed; or, when it is open no more, when it is to be forgotten."""
        if item.state == "open":
            self._due.add(item.due_ms, item.id)
        else:
            self._ends.add(self._end_ms(item), item.id)

    def next_ms(self) -> int | None:
        """The earliest moment at which an item is missed or forgotten: just after its due time."""
        found = [one[0] + 1 for one in (self._due.first(), self._ends.first()) if one is not None]
        return min(found) if found else None

    def missed_before(self, now_ms: int) -> Iterator[Item]:
        """The items whose due time has passed, in order of due time; each is now missed. Old ones are forgotten."""
        while (due := self._due.first()) is not None and due[0] < now_ms:
            item = self.items[self._due.take()]
            item.state = "missed"
            self.changed(item)
            yield item
        while (ended := self._ends.first()) is not None and ended[0] < now_ms:
            self._drop(self._ends.take())

    def _due_at(self, key: ItemId) -> int | None:
        """When an item that is open is missed."""
        item = self.items.get(key)
        return item.due_ms if item is not None and item.state == "open" else None

    def _end_at(self, key: ItemId) -> int | None:
        """When an item that is open no more is forgotten."""
        item = self.items.get(key)
        return self._end_ms(item) if item is not None and item.state != "open" else None

    def _end_ms(self, item: Item) -> int:
        """When an item that is open no more is forgotten."""
        if item.state == "missed":
            return item.due_ms + ABANDONED_MS
        return item.closed_ms + self._kept_ms.get(item.id[0], KEPT_MS)

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed: dict[str, bytes | None] = {}
        for key in sorted(self.touched):
            changed[SEPARATOR.join((KEY, *key))] = ITEM_ENCODER.encode(self.items[key])
        for key in self.dropped:
            if key not in self.items:
                changed[SEPARATOR.join((KEY, *key))] = None
        self.touched.clear()
        self.dropped.clear()
        return changed

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Put back what was stored, among other things of an engine."""
        for key in sorted(items):
            if key.startswith(KEY + SEPARATOR):
                item = ITEM_DECODER.decode(items[key])
                self.items[item.id] = item
                self._queue(item)
