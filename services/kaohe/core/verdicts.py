"""What is found right, dismissed after all and found right again: which word counts, in whatever order they arrive.

Theory of operation. Words about one thing are kept with their times. By these they make *segments*: one that finds
right opens a segment unless one stands already, one that dismisses ends the segment that stands. A dismissal that comes
when nothing can be said any more (after the segment's due time) is noted and changes nothing. What stands in the end is
the last segment without an end in time. All of it is a function of the words alone, so what counts and what is charged
in the end is the same in any order and with any lateness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

MAX_WORDS = 64
"""Words remembered about one thing; beyond it the oldest is forgotten that does not open what stands."""


class Word(msgspec.Struct, array_like=True, gc=False):
    """That something was found right (``right``), or dismissed, by an event; ``place`` is queue, team and site.

    ``data`` is that of the event that found it right (plain, as it was stored, until somebody reads it).
    """

    at_ms: int
    right: bool
    event_id: str
    place: tuple[str, str, str]
    data: Any = None


class Segment(NamedTuple):
    """From a word that found right until one that dismissed. ``due_ms``: until when it could be dismissed."""

    opening: Word
    due_ms: int
    ending: Word | None

    @property
    def stands(self) -> bool:
        """Whether it was not dismissed in time."""
        return self.ending is None or self.ending.at_ms > self.due_ms

    @property
    def name(self) -> tuple[str, str]:
        """The ids of the events that opened and ended it."""
        return self.opening.event_id, self.ending.event_id if self.ending is not None else ""


def segments(words: Iterable[Word], due_of: Callable[[Word], int]) -> list[Segment]:
    """The segments that some words make, oldest first; only the last one may stand."""
    found: list[Segment] = []
    # Of one moment the dismissal is the later word.
    for word in sorted(words, key=lambda one: (one.at_ms, not one.right, one.event_id)):
        last = found[-1] if found else None
        if word.right:
            if last is None or not last.stands:
                found.append(Segment(word, due_of(word), None))
        elif last is not None and last.ending is None:
            found[-1] = last._replace(ending=word)
    return found


def bounded(words: Sequence[Word], due_of: Callable[[Word], int]) -> list[Word]:
    """At most so many words as may be remembered."""
    kept = list(words)
    while len(kept) > MAX_WORDS:
        made = segments(kept, due_of)
        first = [one for one in kept if not made or one.event_id != made[-1].opening.event_id]
        kept.remove(min(first, key=lambda one: (one.at_ms, one.event_id)))
    return kept
