"""From declared metrics to what an event adds, and from counts back to metrics.

Theory of operation. Every metric is made of terms (``kaohe.core.model``). Equal terms of all packs share one *slot*.
For each event type the terms that read it become one ``Counter`` (``kaohe.core.counts``), made once when the packs are
loaded, that adds to the cells of the event's agent, queue, team and site. An event therefore touches only what it
changes. The conditions of a type become one Python function with a bit for each; a dated parameter becomes a comparison
with the instants at which its value changes, so that an event is always counted by the value in force at its own time.

Slots below ``MAX_SLOT`` add up; those from ``MAX_SLOT`` keep the largest value, those from ``DISTINCT_SLOT`` keep a set
of hashes. All three merge in any order with the same result, over time, partitions and members of a group, and all are
integers: no order of additions can change a sum.

In stored state and between processes a slot is named by a short hash of its meaning, so that a new pack version keeps
the counts of every term it did not change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from kaohe.core.calendars import calendar
from kaohe.core.counts import DISTINCT_KEPT, DISTINCT_SLOT, MAX_SLOT, Counter
from kaohe.core.expressions import Expr, names, to_python
from kaohe.core.model import Metric, Pack, Parameter, Term
from kaohe.errors import KaoheError


class Counts(Protocol):
    """What a metric can be read from: a cell, or a window that knows its counts."""

    def get(self, slot: int, default: Any = 0, /) -> Any:
        """The count of a slot."""
        ...

    def row(self, slots: tuple[int, ...], /) -> tuple[int, ...]:
        """The sums of some slots; 0 where there is none."""
        ...


LEVELS = ("agent", "queue", "team", "site")
"""Whose cells an event adds to, in the order of the bits of a term's levels. Every event has a site, named or not."""

_HASH_SPACE = 1 << 56

NOT_SUMS = ("percentile", "distinct", "per_distinct", "max")
"""Kinds of metrics that are read as a whole: a slot of theirs is a histogram, a set or a maximum."""

HISTOGRAM_BOUNDS = tuple(
    int(base * 10**power) for power in range(2, 7) for base in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
)
"""Upper bounds (inclusive) of the histogram's buckets, from 100 to 8,000,000 in the field's unit, ten per decade."""


class Reading(msgspec.Struct, frozen=True):
    """A metric's value as an exact quotient; ``value`` is None where there is no data."""

    numerator: Fraction
    denominator: Fraction | None
    value: Fraction | None


class Layout:
    """Which slot each term has, and how each metric reads its slots."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.keys: list[str] = []
        self.slots: dict[str, int] = {}
        self.packs = tuple(packs)
        """Readers of facts by pack and name, made when they are first asked for: packs name only so many."""
        self._remembered: dict[Hashable, Any] = {}
        self._terms: dict[str, tuple[Term, Pack, int, set[str]]] = {}
        self.reads: dict[
            tuple[str, str], tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
        ] = {}
        counters = {"sum": 0, "max": MAX_SLOT, "distinct": DISTINCT_SLOT}
        for pack in self.packs:
            for metric in pack.metrics.values():
                sides = [
                    tuple((self._slot(pack, term, metric, counters), term.weight) for term in terms)
                    for terms in (metric.numerator, metric.denominator)
                ]
                self.reads[pack.key, metric.name] = (sides[0], sides[1])
        self.by_source: dict[str, list[tuple[Term, Pack, int, set[str]]]] = defaultdict(list)
        for entry in self._terms.values():
            self.by_source[source_of(entry[1], entry[0])].append(entry)

    def _slot(self, pack: Pack, term: Term, metric: Metric, counters: dict[str, int]) -> int:
        key = _term_key(pack, term)
        found = self._terms.get(key)
        if found is None:
            space = "sum" if term.how == "histogram" else term.how
            slot = counters[space]
            width = len(HISTOGRAM_BOUNDS) + 1 if term.how == "histogram" else 1
            counters[space] += width
            for index in range(width):
                name = key if width == 1 else f"{key}.{index}"
                self.slots[name] = slot + index
            found = self._terms[key] = (term, pack, slot, set())
        found[3].update(metric.levels)
        return found[2]

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gave for ``key`` the first time: functions compiled for a pack, as many as the pack has uses.

        A key may hold the ``id`` of a part of a pack: packs live as long as their layout.
        """
        try:
            return self._remembered[key]
        except KeyError:
            found = self._remembered[key] = make()
            return found

    def names(self) -> dict[int, str]:
        """Slot to its lasting name."""
        return {slot: key for key, slot in self.slots.items()}


def source_of(pack: Pack, term: Term) -> str:
    """What calls the counting: deadlines and attendance are their pack's own."""
    kind, slash, rest = term.source.partition("/")
    return f"{kind}/{pack.name}/{rest}" if slash and kind in ("deadline", "attendance") else term.source


def _term_key(pack: Pack, term: Term) -> str:
    """A short hash of what the term adds up, the same in every process and version that means the same."""
    meaning = [term.how, source_of(pack, term), term.field]
    if term.where is not None:
        meaning.append(repr(term.where))
        for name in sorted(names(term.where)):
            if name.startswith("p."):
                parameter = pack.parameters[name[2:]]
                meaning.append(f"{pack.zone}:{parameter.values!r}")
    return blake2b("\x1f".join(meaning).encode(), digest_size=6).hexdigest()


# --- what an event adds -----------------------------------------------------------------------------------------------


def counters(layout: Layout) -> dict[str, Counter]:
    """What counts the events, outcomes or stretches of time of each source that any term reads."""
    return {source: _counter(source, layout) for source in sorted(layout.by_source)}


def _counter(source: str, layout: Layout) -> Counter:
    conditions = _conditions(source, layout)
    fields = sorted({term.field for term, _, _, _ in layout.by_source[source]} - {""})
    terms = []
    for term, pack, slot, levels in layout.by_source[source]:
        condition = condition_source(term.where, pack)
        bit = 1 << conditions.index(condition) if condition else 0
        place = fields.index(term.field) if term.field else -1
        terms.append(
            (term.how, slot, place, sum(1 << LEVELS.index(level) for level in levels & set(LEVELS)), bit)
        )
    holds = None
    if conditions:
        namespace: dict[str, Any] = {"Fraction": Fraction}
        # The code is made from a checked pack: names of fields, literal texts and numbers only.
        exec(compile(conditions_code(source, layout), f"<counting {source}>", "exec"), namespace)  # noqa: S102
        holds = namespace["holds"]
    return Counter(terms, fields, HISTOGRAM_BOUNDS, holds)


def _conditions(source: str, layout: Layout) -> list[str]:
    """The different conditions of a source's terms as source text."""
    found = dict.fromkeys(condition_source(term.where, pack) for term, pack, _, _ in layout.by_source[source])
    return [condition for condition in found if condition]


def conditions_code(source: str, layout: Layout) -> str:
    """The generated code of the conditions of one source, for people who want to see it: a bit for each that holds."""
    lines = ["def holds(d, t):", "    found = 0"]
    for place, condition in enumerate(_conditions(source, layout)):
        lines.append(f"    if {condition}: found |= {1 << place}")
    return "\n".join([*lines, "    return found"]) + "\n"


def compile_condition(where: Expr, pack: Pack) -> Callable[[Any, int], bool]:
    """A function of an event's data and moment: whether a condition over ``event.*`` and ``p.*`` holds."""
    text = f"def holds(d, t):\n    return {condition_source(where, pack)}\n"
    namespace: dict[str, Any] = {"Fraction": Fraction}
    # As for the counting code: made of a checked pack.
    exec(compile(text, "<condition>", "exec"), namespace)  # noqa: S102
    function: Callable[[Any, int], bool] = namespace["holds"]
    return function


def condition_source(where: Expr | None, pack: Pack) -> str:
    """A condition over ``event.*`` and ``p.*`` as source text over an event's data ``d`` and moment ``t``."""
    if where is None:
        return ""
    sources: dict[str, str] = {}
    for name in names(where):
        if name.startswith("event."):
            sources[name] = "d." + name[len("event.") :]
        else:
            sources[name] = dated_source(
                pack.parameters[name[2:]], pack, unit_factor(pack.parameters[name[2:]].unit)
            )
    return to_python(where, sources)


TIME_UNITS_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Parameters are stated in the unit people use; events carry milliseconds."""


def unit_factor(unit: str) -> Fraction:
    """From a parameter's unit to the unit of event fields: milliseconds, and hundredths of a point for scores."""
    return Fraction(100 if unit == "score" else TIME_UNITS_MS.get(unit, 1))


def dated_source(parameter: Parameter, pack: Pack, scale: Fraction) -> str:
    """The parameter's value at time ``t`` as source text: a constant, or a choice by the instants of change."""

    def text(value: object) -> str:
        if isinstance(value, str):
            return repr(value)
        if not isinstance(value, Fraction):
            raise KaoheError(
                f"parameter {parameter.name} is a table and cannot stand in a metric's condition"
            )
        scaled = value * scale
        return (
            str(scaled.numerator)
            if scaled.denominator == 1
            else f"Fraction({scaled.numerator}, {scaled.denominator})"
        )

    source = text(parameter.values[0][1])
    for day, value in parameter.values[1:]:
        change_ms = calendar(pack.zone).start_ms(day)
        source = f"({text(value)} if t >= {change_ms} else {source})"
    return source


# --- reading ----------------------------------------------------------------------------------------------------------


def distinct_estimate(hashes: set[int]) -> int:
    """How many different words: exact up to ``DISTINCT_KEPT``, then by the k-th smallest hash.

    Source: Bar-Yossef et al., "Counting distinct elements in a data stream" (2002): (k - 1) / (k-th smallest in 0..1).
    """
    if len(hashes) <= DISTINCT_KEPT:
        return len(hashes)
    kth = sorted(hashes)[DISTINCT_KEPT - 1]
    return (DISTINCT_KEPT - 1) * _HASH_SPACE // max(kth, 1)


def read(layout: Layout, pack_key: str, metric: Metric, cell: Counts) -> Reading:
    """A metric's exact value from a cell of counts."""
    numerator_reads, denominator_reads = layout.reads[pack_key, metric.name]
    if metric.kind == "percentile":
        return _percentile(metric, numerator_reads[0][0], cell)
    if metric.kind == "distinct":
        count = _distinct(numerator_reads, cell)
        return Reading(Fraction(count), None, Fraction(count))
    if metric.kind == "max":
        seen = [found for slot, _ in numerator_reads if (found := cell.get(slot, None)) is not None]
        largest = metric.scale * max(seen, default=0)
        return Reading(largest, None, largest if seen else None)
    top = 0
    for slot, weight in numerator_reads:
        top += weight * cell.get(slot, 0)
    if not denominator_reads:
        value = metric.scale * top
        return Reading(value, None, value)
    bottom = 0
    if metric.kind == "per_distinct":
        bottom = _distinct(denominator_reads, cell)
    else:
        for slot, weight in denominator_reads:
            bottom += weight * cell.get(slot, 0)
    scale = metric.scale
    numerator = Fraction(scale.numerator * top, scale.denominator)
    if bottom <= 0:
        return Reading(numerator, Fraction(bottom), None)
    return Reading(numerator, Fraction(bottom), Fraction(scale.numerator * top, scale.denominator * bottom))


def _distinct(reads: tuple[tuple[int, int], ...], cell: Counts) -> int:
    return sum(distinct_estimate(cell.get(slot, set())) for slot, _ in reads)


def value_reader(layout: Layout, pack_key: str, metric: Metric) -> Callable[[Counts], Fraction | int | None]:
    """A function that gives just the value, for facts: they are read far more often than explained."""
    if metric.kind in NOT_SUMS:
        return lambda counts: read(layout, pack_key, metric, counts).value
    tops, bottoms = layout.reads[pack_key, metric.name]
    scale_top, scale_bottom = metric.scale.numerator, metric.scale.denominator

    def total(counts: Counts) -> Fraction | int:
        top = scale_top * sum([weight * counts.get(slot, 0) for slot, weight in tops])
        return top if scale_bottom == 1 else Fraction(top, scale_bottom)

    def quotient(counts: Counts) -> Fraction | None:
        bottom = sum([weight * counts.get(slot, 0) for slot, weight in bottoms])
        if bottom <= 0:
            return None
        top = sum([weight * counts.get(slot, 0) for slot, weight in tops])
        return Fraction(top * scale_top, bottom * scale_bottom)

    return quotient if bottoms else total


def base_reader(layout: Layout, pack_key: str, metric: Metric) -> Callable[[Counts], Fraction | int | None]:
    """A function that gives a metric's denominator; the value itself where there is none."""
    bottoms = layout.reads[pack_key, metric.name][1]
    if metric.kind in ("percentile", "per_distinct"):
        return lambda counts: read(layout, pack_key, metric, counts).denominator
    if metric.kind == "max":
        return lambda counts: read(layout, pack_key, metric, counts).numerator
    if not bottoms:
        return value_reader(layout, pack_key, metric)
    return lambda counts: sum([weight * counts.get(slot, 0) for slot, weight in bottoms])


def _percentile(metric: Metric, first: int, cell: Counts) -> Reading:
    """The upper bound of the histogram bucket in which the quantile lies (nearest rank)."""
    assert metric.quantile is not None
    counts = [cell.get(first + index, 0) for index in range(len(HISTOGRAM_BOUNDS) + 1)]
    total = sum(counts)
    if total <= 0:
        return Reading(Fraction(0), Fraction(0), None)
    rank = max(1, -((-metric.quantile.numerator * total) // metric.quantile.denominator))
    reached = 0
    for index, count in enumerate(counts):
        reached += count
        if reached >= rank:
            bound = HISTOGRAM_BOUNDS[min(index, len(HISTOGRAM_BOUNDS) - 1)]
            return Reading(Fraction(reached), Fraction(total), metric.scale * bound)
    raise AssertionError("a rank lies within the total")
