"""Which events were taken already: the ids of the last hour of log time, so that an event counts once.

Theory of operation. An id is unique within its source, so ids are kept in one set per source. Beside it runs a list of
what was added in the present *part* of log time (a minute, or less of a busy one). A part is forgotten as a whole when
it lies an hour back, or when there are too many ids. Parts turn with the log's clock alone, so what is remembered
depends on the log and not on how it was cut into batches.

Stored form: ids are only ever added to a part, so a checkpoint writes a *chunk* with what its parts gained since the
last one, and the chunks of a part go when it is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kaohe.core.intake import Ids, Source
from kaohe.core.subjects import SEPARATOR

SEEN_MINUTES = 60
"""How many minutes of log time an event's id is remembered."""
SEEN_PARTS = 1_000
"""A minute has at most so many parts."""
SEEN_PART_IDS = 50_000
"""A part with so many ids is followed by another one at the next tick."""
MAX_SEEN = 1_000_000
"""Beyond so many ids the oldest part is forgotten, at the next tick: an attack or a defect, not a contact centre."""
_CHUNK_DECODER = msgspec.msgpack.Decoder(dict[str, list[str]])


class Seen(Ids):
    """The ids that are remembered in one partition. ``fresh`` counts those of the present part."""

    def __init__(self) -> None:
        self.sources = {}
        self.fresh = self.part = self.minute = 0
        self.full = SEEN_PART_IDS
        self.chunks: dict[int, int] = {}
        self._parts: dict[int, dict[str, list[str]]] = {0: {}}
        self._written: dict[int, dict[str, int]] = {}
        self._gone: list[str] = []

    def __len__(self) -> int:
        return sum([len(source.ids) for source in self.sources.values()])

    def __contains__(self, key: tuple[str, str]) -> bool:
        source = self.sources.get(key[0])
        return source is not None and key[1] in source.ids

    def open(self, name: str) -> Source:
        """The memory of a source of which nothing is remembered yet."""
        source = self.sources[name] = Source()
        self._parts[self.part][name] = source.fresh
        return source

    def begin(self, minute: int) -> None:
        """The log's clock begins: what came before it belongs to its first minute."""
        self._drop_chunks(0)
        self.minute = minute
        self.part = minute * SEEN_PARTS
        self._parts = {self.part: self._parts.pop(0)}

    def tick(self, minute: int) -> None:
        """The log's clock moved, within a minute or to a later one."""
        if minute != self.minute:
            self.minute = minute
            self._turn(minute * SEEN_PARTS)
            return
        if self.fresh >= self.full and self.part + 1 < (minute + 1) * SEEN_PARTS:
            self._turn(self.part + 1)

    def _turn(self, part: int) -> None:
        """Begin a new part, and forget the parts that are past their horizon."""
        self.part = part
        self.fresh = 0
        self._parts[part] = {}
        oldest = self.minute - SEEN_MINUTES
        while len(self._parts) > 1:
            first = next(iter(self._parts))
            if first == part or (first // SEEN_PARTS > oldest and len(self) <= MAX_SEEN):
                break
            for name, ids in self._parts.pop(first).items():
                if ids:  # without any, the source itself may be forgotten
                    self.sources[name].forget(ids)
            self._drop_chunks(first)
        self.sources = {name: source for name, source in self.sources.items() if source.ids}
        for name, source in self.sources.items():
            source.fresh = self._parts[part][name] = []

    def _drop_chunks(self, part: int) -> None:
        """What was stored of a part is to go."""
        self._written.pop(part, None)
        for chunk in range(self.chunks.pop(part, 0)):
            self._gone.append(_stored_key(part, chunk))

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """The chunks that were added since the last call, by key; None for those that are gone."""
        changed: dict[str, bytes | None] = {}
        for part, sources in self._parts.items():
            written = self._written.setdefault(part, {})
            fresh = {
                name: ids[written.get(name, 0) :]
                for name, ids in sources.items()
                if len(ids) > written.get(name, 0)
            }
            if fresh:
                chunk = self.chunks.get(part, 0)
                changed[_stored_key(part, chunk)] = msgspec.msgpack.encode(fresh)
                self.chunks[part] = chunk + 1
                written.update({name: len(sources[name]) for name in fresh})
        changed.update(dict.fromkeys(self._gone))
        self._gone.clear()
        return changed

    def restore(self, part: int, chunks: Mapping[int, int], items: Mapping[str, bytes]) -> None:
        """Take over what was stored; ``part`` is the present one, ``chunks`` how many each part has."""
        self.part, self.chunks = part, dict(chunks)
        self.minute = part // SEEN_PARTS
        self._parts = {stored: {} for stored in sorted({*chunks, part})}
        for stored, count in sorted(chunks.items()):
            sources = self._parts[stored]
            for chunk in range(count):
                raw = items.get(_stored_key(stored, chunk), b"\x80")
                for name, ids in _CHUNK_DECODER.decode(raw).items():
                    self.sources.setdefault(name, Source()).ids.update(ids)
                    sources.setdefault(name, []).extend(ids)
            self._written[stored] = {name: len(ids) for name, ids in sources.items()}
        for name, source in self.sources.items():
            source.fresh = self._parts[part].setdefault(name, [])
            self.fresh += len(source.fresh)


def _stored_key(part: int, chunk: int) -> str:
    return f"u{SEPARATOR}{part}{SEPARATOR}{chunk}"
