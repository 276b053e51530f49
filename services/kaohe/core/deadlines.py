"""Things that must follow within a time: what is open, what is due next, what became of it.

Theory of operation. An event opens an item; another one meets it, or takes it back; or the log's clock passes its due
time and it is *missed*, although no event comes. An event may arrive before the one that should have opened its item,
or after the item was missed although it happened in time: both are put right, so that the order in which independent
events arrive does not matter.

An item is kept until ``KEPT_MS`` (or what its deadline says) after it ended, or ``ABANDONED_MS`` after it was missed,
and there are at most ``MAX_ITEMS``. The queues of due times and of what is to be forgotten are not part of the state:
they are made anew from the items. They, and what nearly every item goes through, are compiled (``kaohe.core.dues``).

Every second event opens an item, most are met soon, and all are forgotten after about the same time. So items are
stored in *chunks* of those that were opened one after another: one record for a few of them instead of one for each,
which is written again as long as any of them changes, and goes with the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from kaohe.core.calendars import DAY_MS
from kaohe.core.dues import Dues
from kaohe.core.subjects import SEPARATOR
from kaohe.core.verdicts import Word
from kaohe.errors import EventError

KEPT_MS = 7 * DAY_MS
ABANDONED_MS = 400 * DAY_MS
MAX_ITEMS = 500_000
KEY = "d"
"""Under which chunks of items are stored."""
CHUNK_ITEMS = 8
CHUNK_BYTES_MAX = 1024 * 1024
"""A chunk that would take more is split."""

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
    before. ``chunk`` is the one that it is stored in; 0 where it is not kept. Nothing in it can refer to itself, so the
    collector of cycles need not look at it.
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
    words: tuple[Word, ...] = ()
    attempt: int = 0
    chunk: int = 0


CHUNK_DECODER = msgspec.msgpack.Decoder(list[Item])
_ENCODER = msgspec.msgpack.Encoder()
_ALONE_DECODER = msgspec.msgpack.Decoder(Item)


class Deadlines(Dues):
    """All items of one partition."""

    def __init__(self, kept_ms: Mapping[str, int] | None = None) -> None:
        """``kept_ms`` gives, by ``pack/name``, how long items that ended are kept where that is not ``KEPT_MS``."""
        super().__init__(Item, dict(kept_ms or {}), KEPT_MS, ABANDONED_MS, MAX_ITEMS, CHUNK_ITEMS)
        self._outdated: list[str] = []

    def add_if_room(self, item: Item) -> None:
        """Add an item that ended before it was opened. Where there is no room it is not remembered."""
        if item.id in self.items or self._make_room():
            self.add(item)

    def check_room(self) -> None:
        """EventError when no further item can be opened."""
        if not self._make_room():
            raise EventError(
                "too_many_open", f"more than {self.most} items with a deadline are open in this partition"
            )

    def has_room(self) -> bool:
        """Whether a further item can be opened."""
        return self._make_room()

    def _make_room(self) -> bool:
        """Whether there is room for an item; the one that ended first is forgotten for it."""
        if len(self.items) < self.most:
            return True
        ended = self.ended.first()
        if ended is None or self.items[ended[1]].state == "missed":
            return False
        self._drop(self.ended.take())
        return True

    def _drop(self, key: ItemId) -> None:
        number = self.items.pop(key).chunk
        self.chunks[number].remove(key)
        self.touched.add(number)

    def missed_before(self, now_ms: int) -> Iterator[Item]:
        """The items whose due time has passed, in order of due time; each is now missed. Old ones are forgotten."""
        while (due := self.open.first()) is not None and due[0] < now_ms:
            item = self.items[self.open.take()]
            item.state = "missed"
            self.changed(item)
            yield item
        while (ended := self.ended.first()) is not None and ended[0] < now_ms:
            self._drop(self.ended.take())

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed: dict[str, bytes | None] = dict.fromkeys(self._outdated)
        self._outdated.clear()
        waiting = sorted(self.touched)
        self.touched.clear()
        for number in waiting:
            own = self.chunks[number]
            raw = _ENCODER.encode([self.items[key] for key in own]) if own else None
            if raw is not None and len(raw) > CHUNK_BYTES_MAX and len(own) > 1:
                waiting += [number, self._split(number)]
                continue
            if raw is None:
                del self.chunks[number]
            changed[f"{KEY}{SEPARATOR}{number}"] = raw
        return changed

    def _split(self, number: int) -> int:
        """Put half of a chunk into a new one; its number."""
        own = self.chunks[number]
        half = own[len(own) // 2 :]
        del own[len(own) // 2 :]
        new = self.begin_chunk()
        self.chunks[new] += half
        for key in half:
            self.items[key].chunk = new
        return new

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Put back what was stored, among other things of an engine."""
        own = [key.split(SEPARATOR) for key in items if key.startswith(KEY + SEPARATOR)]
        for number in sorted(int(parts[1]) for parts in own if len(parts) == 2):
            for item in CHUNK_DECODER.decode(items[f"{KEY}{SEPARATOR}{number}"]):
                self.put_back(item)
        # Each item was once stored alone, under its own id.
        for parts in sorted(parts for parts in own if len(parts) > 2):
            key = SEPARATOR.join(parts)
            self._outdated.append(key)
            self.add(_ALONE_DECODER.decode(items[key]))
