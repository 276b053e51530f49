"""How much of a scorecard a revision of a grade tells.

Theory of operation. The score of a person under a card moves many times a day, and a card is many times as long as what
moved in it. So a revision of a running period tells the lines and dimensions that differ from those of the revision
before, and names that one in ``since``. The whole card goes out with the first revision, with every final one (the
proposals for the company's stage as well), whenever the card itself changed, and every ``WHOLE_EVERY`` revisions, so
that nobody needs to read back further than that.

Differing is decided over the whole line: each line that was told is remembered by a digest of its bytes. ``completed``
puts a card together again from consecutive revisions, and comes to the card that was worked out, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from kaohe.decisions import ENCODER, Grade, ScoreDetail, ScoreDimension, ScoreLine

WHOLE_EVERY = 32
"""Of so many revisions of a running period one tells the whole card."""


def digests(dimensions: Iterable[ScoreDimension], lines: Iterable[ScoreLine]) -> dict[str, int]:
    """What a card tells, by dimension and by line, each as a number that another content does not have."""
    parts: list[ScoreDimension | ScoreLine] = [*dimensions, *lines]
    return {_key(part): digest(part) for part in parts}


def brief(detail: ScoreDetail, told: Mapping[str, int], now: Mapping[str, int], since: int) -> ScoreDetail:
    """A card without what revision ``since`` and those before it told.

    ``told`` are the digests of that revision's card, ``now`` those of this one. The whole card when the two cards have
    not the same lines, and when it is its turn.
    """
    if told.keys() != now.keys() or since % WHOLE_EVERY == 0:
        return detail
    if told is now:  # as where nobody said anything: the card has one digest for all
        return msgspec.structs.replace(detail, since=since, dimensions=[], lines=[])
    return msgspec.structs.replace(
        detail,
        since=since,
        dimensions=[one for one in detail.dimensions if now[_key(one)] != told[_key(one)]],
        lines=[one for one in detail.lines if now[_key(one)] != told[_key(one)]],
    )


def completed(before: Grade | None, grade: Grade) -> Grade:
    """A revision with its whole card; ``before`` is the completed revision that it follows.

    Where that one is missing the card keeps its ``since``, and shows no more than what the revision itself tells.
    """
    detail = grade.detail
    if detail is None or not detail.since:
        return grade
    if before is None or before.detail is None or before.detail.since or before.revision != detail.since:
        return grade
    dimensions = {_key(one): one for one in (*before.detail.dimensions, *detail.dimensions)}
    lines = {_key(one): one for one in (*before.detail.lines, *detail.lines)}
    whole = msgspec.structs.replace(
        detail, since=0, dimensions=list(dimensions.values()), lines=list(lines.values())
    )
    return msgspec.structs.replace(grade, detail=whole)


def newest(grades: Iterable[Grade]) -> dict[str, Grade]:
    """The last revision of each grade by its id, with its whole card; revisions must come in their order."""
    found: dict[str, Grade] = {}
    for grade in grades:
        found[grade.id] = completed(found.get(grade.id), grade)
    return found


def _key(part: ScoreDimension | ScoreLine) -> str:
    return part.name if isinstance(part, ScoreDimension) else f"{part.dimension}|{part.item}"


def digest(part: Any) -> int:
    """A number that another content does not have."""
    return int.from_bytes(blake2b(ENCODER.encode(part), digest_size=8).digest(), "big")
