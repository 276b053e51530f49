"""The arithmetic of scorecards, grades, quotas, calibration and tallies: exact numbers in, exact numbers out.

Theory of operation. Every function is a stated formula over fractions and knows nothing of subjects, events or state.
An item earns a *share* of its points, from 0 to 1; a dimension earns the sum of its items' points out of the sum of
what they could earn; the score is 100 times the weighted sum of the dimensions, plus the points of entries that belong
to no item. What has no data leaves the sum, and its weight goes to the others in proportion. The contributions of the
lines add up to the exact score; only the score itself is rounded, once, to the card's step, half upwards.

Whatever a result depends on beside numbers (who has the same score, who said something at the same moment) is ordered
by names and ids, never by the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from math import isqrt
from typing import Literal

import msgspec

FULL = Fraction(100)
"""What a card is worth when every line earned all."""
_NOTHING = Fraction(0)


# --- shares of an item ------------------------------------------------------------------------------------------------


def straight(value: Fraction, none_at: Fraction, full_at: Fraction) -> Fraction:
    """The share that a straight scale gives: 0 at ``none_at`` and before, 1 at ``full_at`` and beyond."""
    assert none_at != full_at
    return inside((value - none_at) / (full_at - none_at), _NOTHING, Fraction(1))


def word_of(value: Fraction, limits: Mapping[str, Fraction], better: Literal["higher", "lower"]) -> str:
    """The best word whose limit is reached; the least one when none is. Equal limits: the word first in order."""
    assert limits
    sign = -1 if better == "higher" else 1
    ranked = sorted(limits, key=lambda word: (sign * limits[word], word))
    for word in ranked:
        if value >= limits[word] if better == "higher" else value <= limits[word]:
            return word
    return ranked[-1]


def charged(most: Fraction, worths: Iterable[Fraction]) -> Fraction:
    """The share that is left of ``most`` points after entries were added, held inside 0..most."""
    assert most > 0
    return inside((most + sum(worths, _NOTHING)) / most, _NOTHING, Fraction(1))


def inside(value: Fraction, lowest: Fraction, highest: Fraction) -> Fraction:
    """The value, held inside its bounds."""
    return min(max(value, lowest), highest)


def mean(values: Sequence[Fraction]) -> Fraction | None:
    """The arithmetic mean; None of nothing."""
    return sum(values, _NOTHING) / len(values) if values else None


def heard(voices: Mapping[str, Sequence[Fraction]], weights: Mapping[str, Fraction]) -> Fraction | None:
    """The share that several roles give: the mean of each role, weighed; a silent role's weight goes to the others.

    None when no role with a weight has spoken.
    """
    spoken = {role: weights[role] for role in weights if voices.get(role) and weights[role] > 0}
    total = sum(spoken.values(), _NOTHING)
    if not total:
        return None
    return sum(
        (weight / total * (mean(voices[role]) or _NOTHING) for role, weight in spoken.items()), _NOTHING
    )


# --- the card ---------------------------------------------------------------------------------------------------------


class Earned(msgspec.Struct, frozen=True):
    """What one item earned: its dimension, its name, its greatest points, and its share (None: no data)."""

    dimension: str
    item: str
    most: Fraction
    share: Fraction | None


class Line(msgspec.Struct, frozen=True):
    """One line of a worked card: ``part`` of the whole 100 that the item can contribute, and what it does."""

    dimension: str
    item: str
    part: Fraction
    contribution: Fraction


class Worked(msgspec.Struct, frozen=True):
    """A worked card: lines, the points of other entries, the exact sum and the score (rounded, inside the bounds)."""

    lines: tuple[Line, ...]
    others: Fraction
    exact: Fraction
    score: Fraction


def work_out(
    earned: Sequence[Earned],
    weights: Mapping[str, Fraction],
    others: Fraction,
    bounds: tuple[Fraction, Fraction],
    step: Fraction,
) -> Worked | None:
    """The worked card; None when no item with a weight has data.

    An item's part = 100 * weight of its dimension / weights of the dimensions with data * its points / the points of
    the items with data in its dimension.
    """
    points: dict[str, Fraction] = {}
    for one in earned:
        if one.share is not None:
            points[one.dimension] = points.get(one.dimension, _NOTHING) + one.most
    total = sum((weights[name] for name in points), _NOTHING)
    if not total:
        return None
    lines = []
    for one in earned:
        part = _NOTHING
        if one.share is not None:
            part = FULL * weights[one.dimension] / total * one.most / points[one.dimension]
        lines.append(Line(one.dimension, one.item, part, part * (one.share or _NOTHING)))
    exact = sum((line.contribution for line in lines), _NOTHING) + others
    return Worked(tuple(lines), others, exact, inside(rounded(exact, step), *bounds))


def rounded(value: Fraction, step: Fraction) -> Fraction:
    """The nearest multiple of ``step``; what lies in the middle goes up."""
    assert step > 0
    return (value / step + Fraction(1, 2)).__floor__() * step


def weight_mistakes(
    weights: Mapping[str, Fraction],
    dimensions: Sequence[str],
    core: Iterable[str] = (),
    standard: Mapping[str, Fraction] | None = None,
    band: Fraction = _NOTHING,
) -> list[tuple[str, str]]:
    """What is wrong with a table of weights, each with what would be right; empty when it holds."""
    found = [
        (f"there is no weight for {name!r}", "add a line for it")
        for name in dimensions
        if name not in weights
    ]
    for name in weights:
        if name not in dimensions:
            found.append((f"there is a weight for {name!r}, which is no dimension", "take the line out"))
        elif weights[name] < 0:
            found.append((f"the weight of {name!r} is negative", "write it from 0 to 1"))
    total = sum(weights.values(), _NOTHING)
    if total != 1 and not found:
        found.append(
            (
                f"the weights sum to {_per_cent(total)}",
                f"change them by {_per_cent(1 - total)} to sum to 100%",
            )
        )
    for name in core if standard is not None and not found else ():
        assert standard is not None
        low, high = standard[name] - band, standard[name] + band
        if not low <= weights[name] <= high:
            found.append(
                (
                    f"the core dimension {name!r} weighs {_per_cent(weights[name])}",
                    f"keep it from {_per_cent(low)} to {_per_cent(high)}",
                )
            )
    return found


def _per_cent(value: Fraction) -> str:
    return f"{float(100 * value):.6f}".rstrip("0").rstrip(".") + "%"


# --- grades -----------------------------------------------------------------------------------------------------------


def ranked(bands: Mapping[str, Fraction]) -> list[str]:
    """The grades, best first."""
    return sorted(bands, key=lambda grade: (-bands[grade], grade))


def grade_of(score: Fraction, bands: Mapping[str, Fraction], caps: Iterable[str] = ()) -> str:
    """The best grade whose lowest score is reached, but none better than a cap allows."""
    order = ranked(bands)
    reached = next((index for index, grade in enumerate(order) if score >= bands[grade]), len(order) - 1)
    for cap in caps:
        reached = max(reached, order.index(cap))
    return order[reached]


def held_in_band(
    score: Fraction,
    grade: str,
    bands: Mapping[str, Fraction],
    step: Fraction,
    bounds: tuple[Fraction, Fraction],
) -> Fraction:
    """The score nearest to ``score`` that earns ``grade``: both views of a result then say the same."""
    order = ranked(bands)
    index = order.index(grade)
    low = max(bands[grade], bounds[0]) if index < len(order) - 1 else bounds[0]
    high = bands[order[index - 1]] - step if index else bounds[1]
    return inside(score, low, max(low, high))


# --- quota ------------------------------------------------------------------------------------------------------------


class Candidate(msgspec.Struct, frozen=True):
    """Somebody who is graded: name, department, and whether the score earned the best grade.

    ``keys`` are what ranks the candidates, the greater the better, in the order of the pack's tie-break.
    """

    name: str
    department: str
    earned: bool
    keys: tuple[Fraction, ...]


class Verdict(msgspec.Struct, frozen=True):
    """Whether the best grade stays, the rank among those who earned it, and what stood against it."""

    kept: bool
    rank: int
    against: Literal["", "quota", "department"]


def lot(*parts: str) -> Fraction:
    """A number from 0 to 1 that depends on the parts alone: the last word among equals, the same in every run."""
    digest = blake2b(digest_size=8)
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return Fraction(int.from_bytes(digest.digest(), "big"), 1 << 64)


def places(staff: int, share: Fraction) -> int:
    """How many of ``staff`` may have the best grade: the whole number at or below their share."""
    return (staff * share).__floor__()


def shared_out(
    candidates: Sequence[Candidate], share: Fraction, per_department: int, salt: tuple[str, ...]
) -> dict[str, Verdict]:
    """Who of those that earned the best grade keeps it: at most ``places`` in all and ``per_department`` in each.

    They are taken in the order of their keys, then of their lots, then of their names.
    """
    open_places = places(len(candidates), share)
    earned = sorted(
        (one for one in candidates if one.earned),
        key=lambda one: (tuple(-key for key in one.keys), -lot(*salt, one.name), one.name),
    )
    taken: dict[str, int] = {}
    found: dict[str, Verdict] = {}
    given = 0
    for rank, one in enumerate(earned, 1):
        against: Literal["", "quota", "department"] = ""
        if given >= open_places:
            against = "quota"
        elif taken.get(one.department, 0) >= per_department:
            against = "department"
        else:
            given += 1
            taken[one.department] = taken.get(one.department, 0) + 1
        found[one.name] = Verdict(not against, rank, against)
    return found


# --- calibration ------------------------------------------------------------------------------------------------------


class Given(msgspec.Struct, frozen=True):
    """What one assessor said: how often, the sum, and the sum of squares, in shares of the items' points."""

    by: str
    count: int
    total: Fraction
    squares: Fraction


class Calibrated(msgspec.Struct, frozen=True):
    """An assessor against the others, in shares: means, standard deviations (four places, rounded down), and the shift
    that takes the difference out (0 where too little is known)."""

    by: str
    count: int
    mean: Fraction
    spread: Fraction
    others_mean: Fraction | None
    others_spread: Fraction | None
    shift: Fraction
    beyond: bool


def calibrate(
    given: Iterable[Given], at_least: int, tolerance: Fraction, strength: Fraction, limit: Fraction
) -> dict[str, Calibrated]:
    """Each assessor's mean and spread against those of all the others together.

    shift = -strength * (own mean - mean of the others), at most ``limit`` either way; 0 for an assessor with fewer
    than ``at_least`` voices, or when the others have fewer together. ``beyond``: the means differ by ``tolerance`` or
    more.
    """
    sums: dict[str, list[Fraction]] = {}
    for one in given:
        known = sums.setdefault(one.by, [_NOTHING, _NOTHING, _NOTHING])
        for index, value in enumerate((Fraction(one.count), one.total, one.squares)):
            known[index] += value
    whole = [sum((own[index] for own in sums.values()), _NOTHING) for index in range(3)]
    found = {}
    for by in sorted(sums):
        own = sums[by]
        rest = [whole[index] - own[index] for index in range(3)]
        own_mean = own[1] / own[0]
        others_mean = rest[1] / rest[0] if rest[0] else None
        enough = own[0] >= at_least and rest[0] >= at_least
        shift, beyond = _NOTHING, False
        if enough and others_mean is not None:
            difference = own_mean - others_mean
            shift = inside(-strength * difference, -limit, limit)
            beyond = abs(difference) >= tolerance
        found[by] = Calibrated(
            by, int(own[0]), own_mean, _spread(own), others_mean, _spread(rest) if rest[0] else None, shift, beyond
        )  # fmt: skip
    return found


def _spread(sums: Sequence[Fraction]) -> Fraction:
    """The standard deviation, to four places, rounded down: the same on every machine."""
    count, total, squares = sums
    variance = squares / count - (total / count) ** 2
    assert variance >= 0, variance
    return Fraction(isqrt((variance * 10**8).__floor__()), 10**4)


# --- tallies ----------------------------------------------------------------------------------------------------------


class Mark(msgspec.Struct, array_like=True):
    """The final result of one period: its label, its score as text and its grade.

    ``told`` is how often something that follows from it (a tally, say) was proposed and withdrawn, by its id: an odd
    number stands.
    """

    label: str
    score: str
    grade: str
    told: dict[str, int] = {}


def counted(
    marks: Sequence[Mark], grades: Iterable[str], within: Literal["ever", "year", "row"]
) -> tuple[int, list[str]]:
    """How often the newest mark's grades occurred, the newest included, and in which periods; 0 if it is none of them.

    ``marks`` are in the order of their periods. ``year``: those of the newest mark's calendar year; ``row``: those in
    an unbroken row up to the newest.
    """
    wanted = frozenset(grades)
    if not marks or marks[-1].grade not in wanted:
        return 0, []
    labels: list[str] = []
    for mark in reversed(marks):
        if within == "year" and mark.label[:4] != marks[-1].label[:4]:
            break
        if mark.grade in wanted:
            labels.append(mark.label)
        elif within == "row":
            break
    return len(labels), labels[::-1]


def combine(
    scores: Mapping[str, Fraction], shares: Mapping[str, Fraction]
) -> tuple[Fraction, dict[str, Fraction]] | None:
    """The one score of several packs, and the share of each that counted; None when none of them has a score.

    The shares of packs without a score go to the others in proportion.
    """
    total = sum((share for name, share in shares.items() if name in scores), _NOTHING)
    if not total:
        return None
    parts = {name: share / total for name, share in shares.items() if name in scores and share}
    return sum((parts[name] * scores[name] for name in parts), _NOTHING), parts
