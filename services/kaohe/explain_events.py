"""Which events a decision rests on, all of them, from a recorded log.

Theory of operation: a decision names some of its events and says how many there were. The log decides: the same events
with the same pack lead to the same decision once more. So the log is replayed by the pack alone, this time without a
bound on what is kept, until the same revision of the same decision comes out, and that one names them all. A log or a
version of the pack that leads somewhere else is refused. What the events say is then read from the log by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from kaohe.adapters import SourceItem, log_ticks
from kaohe.core.calendars import to_ms
from kaohe.core.engine import Zones
from kaohe.core.model import Pack
from kaohe.core.replay import Replay
from kaohe.decisions import DECISION_DECODER, Decision
from kaohe.errors import UsageError
from kaohe.events import Envelope
from kaohe.explain import Entry, Events, current, evidence_of

Items = Callable[[], Iterable[SourceItem]]
"""Reads the log from its beginning, each time it is called."""
BATCH_ITEMS = 10_000


def events_of(revisions: Sequence[Entry], packs: Sequence[Pack], zones: Zones, items: Items) -> Events:
    """The events that the revision that counts rests on. UsageError when the log does not lead to it."""
    ids, count = evidence_of(revisions)
    zone = next((pack.zone for pack in packs if pack.name == current(revisions).pack), zones.default)
    if count > len(ids):
        ids = _all_of(revisions, packs, zones, items)
    wanted = set(ids)
    known: dict[str, Envelope] = {}
    for item in items():
        if item.event is not None and item.event.id in wanted:
            known.setdefault(item.event.id, item.event)
    return Events(ids, known, zone)


def _all_of(revisions: Sequence[Entry], packs: Sequence[Pack], zones: Zones, items: Items) -> list[str]:
    entry = current(revisions)
    assert isinstance(entry, Decision), "an alert does not say how many events there were"
    found = _again(entry, packs, zones, items)
    known = None if found is None else (found.points, found.facts, found.evidence[: len(entry.evidence)])
    if found is None or known != (entry.points, entry.facts, entry.evidence):
        raise UsageError(
            f"These events do not lead to {entry.id} as it stands: give the log that was judged, from its beginning, "
            f"and version {entry.pack_version} of {entry.pack}."
        )
    return found.evidence


def _again(entry: Decision, packs: Sequence[Pack], zones: Zones, items: Items) -> Decision | None:
    """The same revision of a decision, with everything it rests on."""
    work = Replay(packs, zones=zones)
    work.leave_metrics()
    work.keep_all_evidence()
    done = 0
    for number, (_, thing) in enumerate(log_ticks(items()), start=1):
        if isinstance(thing, datetime):
            work.advance(thing)
        elif thing.event is not None:
            work.feed(thing.event)
        if number % BATCH_ITEMS == 0:
            work.gather()
            found = _decided(entry, work.decisions[done:])
            if found is not None:
                return found
            done = len(work.decisions)
    at_ms = to_ms(datetime.fromisoformat(entry.at))
    if at_ms > work.last_ms:
        work.tick(at_ms)
    work.finish()
    return _decided(entry, work.decisions[done:])


def _decided(entry: Decision, messages: Iterable[bytes]) -> Decision | None:
    own_id = entry.id.encode()
    for raw in messages:
        if own_id in raw:
            one = DECISION_DECODER.decode(raw)
            if (one.id, one.revision) == (entry.id, entry.revision):
                return one
    return None
