"""The clock of a recorded log: which ticks stand between its events.

Time is in the log. Live, a clock service writes a tick every second; for a recording the ticks follow from the event
times. This one function gives them to ``kaohe replay`` and to ``kaohe produce --clock log``, so that both judge alike.

Before the first event of each new second of the log stands the tick of that second; after the last event stands one
more tick, a second on, so that everything has been seen when the input ends. The clock never goes back. A jump of more
than ``MAX_JUMP_S`` is not followed: it is a corrupt time stamp, and the engine then rejects that event as coming from
the future, where following it would close every period in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from kaohe.adapters.base import SourceItem

MAX_JUMP_S = 40 * 86_400
"""Longer than a month, so that a recording with a month's pause is followed."""

_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

Timed = tuple[Literal["tick"], datetime] | tuple[Literal["item"], SourceItem]
"""A tick's moment (a whole second, UTC), or an item of the log."""


def log_ticks(items: Iterable[SourceItem]) -> Iterator[Timed]:
    """The items in their order with the ticks between them. Rejects move no clock."""
    clock_s: int | None = None
    for item in items:
        if item.event is not None:
            second = (item.event.time - _ORIGIN) // _SECOND
            if clock_s is None or clock_s < second <= clock_s + MAX_JUMP_S:
                clock_s = second
                yield "tick", _ORIGIN + timedelta(seconds=second)
        yield "item", item
    if clock_s is not None:
        yield "tick", ticks_after(_ORIGIN + timedelta(seconds=clock_s))


def ticks_after(end: datetime) -> datetime:
    """The closing tick of a log whose last event stands at ``end``: the next whole second."""
    return _ORIGIN + timedelta(seconds=(end - _ORIGIN) // _SECOND + 1)
