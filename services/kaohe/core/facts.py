"""From counts, events, rosters and parameters to the flat, typed facts that rules judge.

Theory of operation. A ``Moment`` is what is being judged: a subject at a moment of log time, for a period that is
judged, or for an event or a missed deadline. ``reader`` turns a name of the rule language (``complaint_rate.month``,
``p.complaint_rate_limit``, ``event.rating``) once, when packs are loaded, into a function from a ``Moment`` to the
name's exact value; at run time nothing is looked up by text. A metric without data, a previous period that was never
seen and an optional field that is empty are ``None``: unknown.

Parameters are those in force on the day that is judged: the first day of a judged period, the day of an event, the
day on which a deadline ran out, or today for a live alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any

from kaohe.core.calendars import WINDOWS, Calendar, Period
from kaohe.core.counting import NOT_SUMS, Counts, Layout, base_reader, read, value_reader
from kaohe.core.counts import Cell, Series, span_ms
from kaohe.core.model import Metric, Pack, Parameter
from kaohe.decisions import UsedFact, UsedParameter

Fact = Fraction | int | str | bool | None


class Moment:
    """What is being judged, with everything a fact may be read from.

    ``at_ms`` is the moment of log time; ``period`` the judged period or None; ``day`` the day whose parameters count;
    ``open_cells`` whether counts that are not folded yet are seen (they are when a single event is judged).
    ``opened_ms`` is set for items of deadlines alone: when the item was opened.
    """

    opened_ms: int

    __slots__ = (
        "at_ms",
        "calendar",
        "cells",
        "day",
        "event",
        "late_ms",
        "open_cells",
        "opened_ms",
        "period",
        "roster",
        "series",
    )

    def __init__(
        self,
        series: Series,
        roster: tuple[str, str, str],
        at_ms: int,
        *,
        day: date,
        period: Period | None = None,
        event: Any = None,
        late_ms: int = 0,
        open_cells: bool = False,
    ) -> None:
        self.series = series
        self.calendar: Calendar = series.calendar
        self.roster = roster
        self.at_ms = at_ms
        self.day = day
        self.period = period
        self.event = event
        self.late_ms = late_ms
        self.open_cells = open_cells
        self.cells: dict[str, Counts | None] = {}

    def current(self, window: str) -> Period:
        """The period of kind ``window`` that is looked at: the judged one, or that of the moment.

        A judgement at a boundary looks back, so the moment just before counts.
        """
        if self.period is not None:
            if self.period.window == window:
                return self.period
            return self.calendar.containing(window, min(self.at_ms, self.period.end_ms) - 1)
        return self.calendar.containing(window, self.at_ms if self.open_cells else self.at_ms - 1)

    def counts(self, window: str) -> Counts | None:
        """The counts of a window; None for a past period of which nothing is known."""
        found: Counts | None = self.cells.get(window, _NOT_READ)
        if found is _NOT_READ:
            found = self.cells[window] = _counts_of(window)(self)
        return found


_NOT_READ: Any = object()
"""Stands for counts that nobody has asked for yet; None means that there are none."""


@lru_cache(maxsize=1_024)
def _counts_of(window: str) -> Callable[[Moment], Counts | None]:
    """The function that finds the counts of a window for a moment. What a window's name means is found out once."""
    if window in WINDOWS:
        return _calendar_counts(window)
    if window == "now":
        return lambda moment: moment.series.total_counts()
    if window.startswith("rolling_"):
        span = span_ms(window)
        return lambda moment: moment.series.rolling[span]
    if window.startswith("previous_"):
        kind = window[len("previous_") :]
        return lambda moment: moment.series.period_counts(moment.calendar.previous(moment.current(kind)))
    if window in AROUND_OPENING:
        return lambda moment: _around_opening(moment, before=window == "before_opened")
    assert window.startswith("baseline_"), window
    kind, label = baseline_period(window)
    return lambda moment: moment.series.period_counts(moment.calendar.period(kind, label))


def _around_opening(moment: Moment, *, before: bool) -> Counts:
    """The counts of the whole days between the opening of an item and its judgement, or of as many days before it.

    The days of both belong to neither.
    """
    series, calendar = moment.series, moment.calendar
    opened = calendar.containing("day", moment.opened_ms)
    judged = calendar.containing("day", moment.at_ms)
    counts = Cell()
    day, earlier = calendar.following(opened), opened
    while day.start_ms < judged.start_ms:
        earlier = calendar.previous(earlier)
        counts.merge(series.period_with_open(earlier if before else day))
        day = calendar.following(day)
    return counts


def _calendar_counts(window: str) -> Callable[[Moment], Counts | None]:
    position = WINDOWS.index(window)

    def find(moment: Moment) -> Counts | None:
        # As ``Moment.current``, written out: nearly every judgement comes by here.
        period = moment.period
        if period is None:
            at_ms = moment.at_ms if moment.open_cells else moment.at_ms - 1
            period = moment.calendar.periods(at_ms)[position]
        elif period.window != window:
            period = moment.calendar.periods(min(moment.at_ms, period.end_ms) - 1)[position]
        if moment.open_cells:
            return moment.series.period_with_open(period)
        return moment.series.period_counts(period) or NO_COUNTS

    return find


NO_COUNTS = Cell()
"""The counts of a period in which nothing was counted; never added to."""

Reader = Callable[[Moment], Fact]
Quotient = tuple[int, int]
"""A number as (top, bottom), exact but not reduced: reducing costs more than all the rest. The bottom is positive."""

DAYS_KEPT = 400
"""For how many days what parameters give is remembered, wherever it is remembered by day."""


AROUND_OPENING = ("since_opened", "before_opened")
"""The days between the opening of a deadline's item and its judgement, and as many days before the opening."""
ASPECTS = ("", "base", "vs_baseline", "vs_previous", "vs_before")
"""What may follow a metric and its window: nothing (the value), its denominator, or its relative change."""


def compared_with(window: str, aspect: str) -> str:
    """The window that a relative change is relative to.

    ``vs_previous`` compares with the week, quarter or year before, else with the month before.
    """
    if aspect == "vs_baseline":
        return "baseline_month"
    if aspect == "vs_before":
        return "before_opened"
    return f"previous_{window if window in ('week', 'quarter', 'year') else 'month'}"


def metric_of(pack: Pack, name: str) -> tuple[Metric, str, str]:
    """Metric, window and aspect of a name such as ``satisfaction.month.base`` or ``complaints.month.vs_baseline``."""
    parts = name.split(".")
    aspect = parts[2] if len(parts) == 3 else ""
    assert aspect in ASPECTS, name
    return pack.metrics[parts[0]], parts[1], aspect


def reader(layout: Layout, pack: Pack, name: str) -> Reader:
    """The function that reads ``name`` from a moment."""
    found: Reader = layout.remembered((pack.key, name), lambda: _reader(layout, pack, name))
    return found


def _reader(layout: Layout, pack: Pack, name: str) -> Reader:
    head, _, rest = name.partition(".")
    if head == "p":
        return _parameter_reader(pack.parameters[rest])
    if head == "event":
        return _event_reader(rest)
    if head == "deadline":
        assert rest == "late_ms", name
        return lambda moment: Fraction(moment.late_ms)
    if head == "roster":
        index = ("team", "site", "position").index(rest)
        return lambda moment: moment.roster[index]
    metric, window, aspect = metric_of(pack, name)
    if aspect.startswith("vs_"):
        return _change(layout, pack, name)
    read_counts = (base_reader if aspect == "base" else value_reader)(layout, pack.key, metric)
    counts_of = _counts_reader(pack, metric, window)
    return lambda moment: None if (counts := counts_of(moment)) is None else read_counts(counts)


def facts_reader(layout: Layout, pack: Pack, wanted: Iterable[str]) -> Callable[[Moment], dict[str, Any]]:
    """One function that reads all these names for a matcher, which takes unreduced quotients.

    It runs for every judgement, so it is straight code without loops: each window is looked up once, each metric of
    sums is two additions. What is more than that is left to ``reader``.
    """
    lines: list[str] = []
    items: list[str] = []
    windows: dict[str, str] = {}
    namespace: dict[str, Any] = {}
    for number, name in enumerate(sorted(wanted)):
        source = _sums_source(layout, pack, name, windows)
        if source is None:
            namespace[f"read{number}"] = _unreduced_reader(layout, pack, name)
            items.append(f"{name!r}: read{number}(moment)")
            continue
        lines += [line.format(v=f"v{number}") for line in source]
        items.append(f"{name!r}: v{number}")
    head = ["def facts(moment):"]
    for window, variable in windows.items():
        head += [
            f"    c = moment.counts({window!r})",
            f"    {variable} = None if c is None else c.get",
        ]
    code = "\n".join([*head, *lines, "    return {" + ", ".join(items) + "}"])
    exec(compile(code, "<facts>", "exec"), namespace)  # noqa: S102 - written just above, of checked names
    found: Callable[[Moment], dict[str, Any]] = namespace["facts"]
    return found


def _sums_source(layout: Layout, pack: Pack, name: str, windows: dict[str, str]) -> list[str] | None:
    """Lines that set ``{v}`` to a metric made of sums; None when the name is anything else."""
    head, _, _ = name.partition(".")
    if head in ("p", "event", "deadline", "roster"):
        return None
    metric, window, aspect = metric_of(pack, name)
    if aspect.startswith("vs_") or window.startswith("baseline_"):
        return None
    if metric.kind == "max" and not aspect:
        slots = [slot for slot, _ in layout.reads[pack.key, metric.name][0]]
        seen = ", ".join(f"c.get({slot}, None)" for slot in slots)
        return [
            f"    c = moment.counts({window!r})",
            f"    m = [] if c is None else [m for m in ({seen},) if m is not None]",
            f"    {{v}} = ({metric.scale.numerator} * max(m), {metric.scale.denominator}) if m else None",
        ]
    if metric.kind in NOT_SUMS:
        return None
    get = windows.setdefault(window, f"g{len(windows)}")
    tops, bottoms = layout.reads[pack.key, metric.name]

    def total(reads: tuple[tuple[int, int], ...]) -> str:
        parts = [
            f"{get}({slot}, 0)" if weight == 1 else f"{weight} * {get}({slot}, 0)" for slot, weight in reads
        ]
        return " + ".join(parts) if parts else "0"

    up, down = metric.scale.numerator, metric.scale.denominator
    top = f"{up} * ({total(tops)})" if up != 1 else total(tops)
    if aspect == "base" and bottoms:
        return [f"    {{v}} = None if {get} is None else {total(bottoms)}"]
    if not bottoms:
        value = top if down == 1 else f"({top}, {down})"
        return [f"    {{v}} = None if {get} is None else {value}"]
    bottom = f"{down} * b" if down != 1 else "b"
    return [
        "    {v} = None",
        f"    if {get} is not None:",
        f"        b = {total(bottoms)}",
        f"        if b > 0: {{v}} = ({top}, {bottom})",
    ]


def _event_reader(field: str) -> Reader:
    if field == "score":
        return lambda moment: None if moment.event.score is None else Fraction(moment.event.score, 100)
    return lambda moment: _plain(getattr(moment.event, field))


def quotient_reader(layout: Layout, pack: Pack, name: str) -> Callable[[Moment], Quotient | None]:
    """As ``reader``, for a number, which it gives as a quotient."""
    read_plain = _unreduced_reader(layout, pack, name)

    def read_quotient(moment: Moment) -> Quotient | None:
        found = read_plain(moment)
        if found is None or isinstance(found, tuple):
            return found
        assert isinstance(found, (int, Fraction)), name
        return found.numerator, found.denominator

    return read_quotient


def _unreduced_reader(layout: Layout, pack: Pack, name: str) -> Callable[[Moment], Fact | Quotient]:
    """As ``reader``; a metric's value and its relative change come as quotients."""
    if name.partition(".")[0] in ("p", "event", "deadline", "roster"):
        return reader(layout, pack, name)
    metric, window, aspect = metric_of(pack, name)
    if aspect == "base":
        return reader(layout, pack, name)
    counts_of = _counts_reader(pack, metric, window)
    value = _value_quotient(layout, pack, metric)
    if not aspect:
        return lambda moment: None if (counts := counts_of(moment)) is None else value(counts)
    before_of = _counts_reader(pack, metric, compared_with(window, aspect))

    def read_change(moment: Moment) -> Quotient | None:
        counts, before = counts_of(moment), before_of(moment)
        now = None if counts is None else value(counts)
        reference = None if before is None else value(before)
        if now is None or reference is None or reference[0] <= 0:
            return None
        # value / reference - 1
        bottom = now[1] * reference[0]
        return now[0] * reference[1] - bottom, bottom

    return read_change


def _value_quotient(layout: Layout, pack: Pack, metric: Metric) -> Callable[[Counts], Quotient | None]:
    """A metric's value from counts."""
    if metric.kind in NOT_SUMS:

        def from_reading(counts: Counts) -> Quotient | None:
            value = read(layout, pack.key, metric, counts).value
            return None if value is None else (value.numerator, value.denominator)

        return from_reading
    tops, bottoms = layout.reads[pack.key, metric.name]
    up, down = metric.scale.numerator, metric.scale.denominator
    if not bottoms:
        return lambda counts: (up * _total(counts, tops), down)

    def from_sums(counts: Counts) -> Quotient | None:
        bottom = _total(counts, bottoms)
        return (up * _total(counts, tops), down * bottom) if bottom > 0 else None

    return from_sums


def _total(counts: Counts, reads: tuple[tuple[int, int], ...]) -> int:
    """The sum of some slots, each with its weight."""
    total = 0
    for slot, weight in reads:
        total += weight * counts.get(slot, 0)
    return total


def _counts_reader(pack: Pack, metric: Metric, window: str) -> Callable[[Moment], Counts | None]:
    """The counts of a window; which month a baseline is depends on the day."""
    if not window.startswith("baseline_"):
        return lambda moment: moment.counts(window)
    months = lru_cache(maxsize=DAYS_KEPT)(lambda day: baseline_of(pack, metric, window, day))
    return lambda moment: moment.counts(months(moment.day))


def _change(layout: Layout, pack: Pack, name: str) -> Reader:
    """The value relative to the baseline month or the period before: value / reference - 1."""
    read_change = quotient_reader(layout, pack, name)
    return lambda moment: None if (found := read_change(moment)) is None else Fraction(*found)


def baseline_of(pack: Pack, metric: Metric, window: str, day: date) -> str:
    """The name of a baseline's window on a day: with the label of its period."""
    label = pack.parameters[metric.baseline].value_at(day)
    assert isinstance(label, str), metric.baseline
    return f"{window}:{label}"


def baseline_period(window: str) -> tuple[str, str]:
    """Kind and label of the period of a baseline's window."""
    kind, _, label = window.removeprefix("baseline_").partition(":")
    return kind, label


def _parameter_reader(parameter: Parameter) -> Reader:
    if len(parameter.values) == 1:
        since, only = parameter.values[0]
        if isinstance(only, dict):
            raise AssertionError("a table is read by a word only")
        constant: Fact = only

        def read_constant(moment: Moment) -> Fact:
            return constant if moment.day >= since else dated(parameter, moment.day)

        return read_constant
    return lambda moment: dated(parameter, moment.day)


def dated(parameter: Parameter, day: date) -> Fraction | str:
    """A parameter that is no table, as in force on a day."""
    value = parameter.value_at(day)
    assert not isinstance(value, dict), parameter.name
    return value


def _plain(value: Any) -> Fact:
    if value is None or isinstance(value, (str, bool, int, Fraction)):
        return value
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    raise AssertionError(f"a field of type {type(value).__name__} is no fact")


# --- facts in words ---------------------------------------------------------------------------------------------------


def added(values: Sequence[Fraction]) -> Fraction:
    """The sum of some numbers, as a rule whole ones: put together as a quotient, which is reduced once."""
    if len(values) == 1:
        return values[0]
    top, bottom = 0, 1
    for one in values:
        if one.denominator == bottom:
            top += one.numerator
        else:
            top, bottom = top * one.denominator + one.numerator * bottom, bottom * one.denominator
    return _quotient(top, bottom)


@lru_cache(maxsize=4_096)
def _quotient(top: int, bottom: int) -> Fraction:
    return Fraction(top, bottom)


def number_text(value: Fraction | int) -> str:
    """A number exactly: a decimal where it ends within nine places, otherwise a quotient with an approximation."""
    if value.denominator == 1:
        return str(value.numerator)
    return quotient_text(value.numerator, value.denominator)


def quotient_text(top: int, bottom: int) -> str:
    """As ``number_text``, of a quotient that need not be reduced; ``bottom`` is positive."""
    if bottom != 1:
        common = gcd(top, bottom)
        top, bottom = top // common, bottom // common
    if bottom == 1:
        return str(top)
    if 10**9 % bottom == 0:
        sign = "-" if top < 0 else ""
        digits = f"{abs(top) * (10**9 // bottom):010d}"
        text = f"{digits[:-9]}.{digits[-9:]}".rstrip("0").rstrip(".")
        return sign + text
    return f"{top}/{bottom} (≈ {top / bottom:.6f})"


def fact_text(value: Fact) -> str | None:
    """Any fact as text; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else number_text(value)


UsedReader = Callable[[Moment], UsedFact]


def used_reader(layout: Layout, pack: Pack, name: str) -> UsedReader:
    """The function that reads a fact with what it was made of, for a message."""
    head = name.partition(".")[0]
    if head in ("event", "deadline", "roster"):
        plain, unit = reader(layout, pack, name), "ms" if name.endswith("_ms") else ""
        return lambda moment: UsedFact(value=fact_text(plain(moment)), unit=unit)
    metric, window, aspect = metric_of(pack, name)
    formula = lru_cache(maxsize=DAYS_KEPT)(lambda day: formula_text(pack, metric, day))
    if aspect.startswith("vs_"):
        return _used_change(layout, pack, name, aspect, formula)
    counts_of = _counts_reader(pack, metric, window)
    quotient = layout.reads[pack.key, metric.name][1] and metric.kind not in NOT_SUMS
    use = _used_sums if quotient else _used_reading
    from_counts = use(layout, pack, metric, aspect)

    def read_used(moment: Moment) -> UsedFact:
        counts = counts_of(moment)
        if counts is None:
            return UsedFact(value=None, unit=metric.unit, formula=formula(moment.day))
        return from_counts(counts, formula(moment.day))

    return read_used


_REFERENCES = {"before_opened": "as many days before"}
"""What a change is relative to, in words, where the window's name is none."""


def _used_change(
    layout: Layout, pack: Pack, name: str, aspect: str, formula: Callable[[date], str]
) -> UsedReader:
    read_change = quotient_reader(layout, pack, name)
    compared = compared_with(name.split(".")[1], aspect)
    against = f", relative to {_REFERENCES.get(compared) or 'the ' + compared.replace('_', ' ')}"

    def read_used(moment: Moment) -> UsedFact:
        change = read_change(moment)
        value = None if change is None else quotient_text(*change)
        return UsedFact(value=value, unit="ratio", formula=formula(moment.day) + against)

    return read_used


def sums_reader(
    layout: Layout, pack: Pack, wanted: Iterable[str]
) -> Callable[[Moment], tuple[Any, ...]] | None:
    """What all these facts are made of: sums of counts, by windows. Where they are the same, so is what is told of the
    facts. None where one is made of more."""
    slots: dict[str, dict[int, None]] = {}
    for name in wanted:
        if name.partition(".")[0] in ("event", "deadline", "roster"):
            return None
        metric, window, aspect = metric_of(pack, name)
        if metric.kind in NOT_SUMS or aspect.startswith("vs_") or window.startswith("baseline_"):
            return None
        for side in layout.reads[pack.key, metric.name]:
            slots.setdefault(window, {}).update(dict.fromkeys([slot for slot, _ in side]))
    windows = [(window, tuple(found)) for window, found in slots.items()]

    def read_sums(moment: Moment) -> tuple[Any, ...]:
        return tuple(
            [
                None if (counts := moment.counts(window)) is None else counts.row(found)
                for window, found in windows
            ]
        )

    return read_sums


def _used_sums(layout: Layout, pack: Pack, metric: Metric, aspect: str) -> Callable[[Counts, str], UsedFact]:
    """A quotient of two sums with both of them, or just the sum below (``base``)."""
    tops, bottoms = layout.reads[pack.key, metric.name]
    up, down = metric.scale.numerator, metric.scale.denominator

    def base(counts: Counts, formula: str) -> UsedFact:
        return UsedFact(value=str(_total(counts, bottoms)), unit="count", formula=formula)

    def value(counts: Counts, formula: str) -> UsedFact:
        top, bottom = up * _total(counts, tops), _total(counts, bottoms)
        return UsedFact(
            value=quotient_text(top, down * bottom) if bottom > 0 else None,
            unit=metric.unit,
            numerator=quotient_text(top, down),
            denominator=str(bottom),
            formula=formula,
        )

    return base if aspect == "base" else value


def _used_reading(
    layout: Layout, pack: Pack, metric: Metric, aspect: str
) -> Callable[[Counts, str], UsedFact]:
    """Any other metric: a sum alone, or what is read from a histogram, a set or a maximum."""

    def base(counts: Counts, formula: str) -> UsedFact:
        reading = read(layout, pack.key, metric, counts)
        found = reading.denominator if reading.denominator is not None else reading.numerator
        return UsedFact(value=number_text(found), unit="count", formula=formula)

    def value(counts: Counts, formula: str) -> UsedFact:
        reading = read(layout, pack.key, metric, counts)
        made_of = reading.denominator is not None
        return UsedFact(
            value=fact_text(reading.value),
            unit=metric.unit,
            numerator=number_text(reading.numerator) if made_of else None,
            denominator=fact_text(reading.denominator),
            formula=formula,
        )

    return base if aspect == "base" else value


def used_parameter(parameter: Parameter, day: date, word: str = "") -> UsedParameter:
    """A parameter as it was in force; of a table only the line that was used."""
    since, value = parameter.entry_at(day)
    if isinstance(value, dict):
        key = word if word in value else "*"
        text = f"{key}: {number_text(value[key])}"
    else:
        text = value if isinstance(value, str) else number_text(value)
    return UsedParameter(value=text, unit=parameter.unit, since=since.isoformat(), clause=parameter.clause)


def formula_text(pack: Pack, metric: Metric, day: date) -> str:
    """The metric's formula with the parameters in force put in; before the first value the name stays."""
    text = metric.formula
    while "{p." in text:
        start = text.index("{p.")
        end = text.index("}", start)
        parameter = pack.parameters[text[start + 3 : end]]
        first = max(day, parameter.values[0][0])
        value = parameter.value_at(first)
        shown = number_text(value) if isinstance(value, Fraction) else str(value)
        text = text[:start] + shown + text[end + 1 :]
    return text


def metric_windows(packs: Mapping[str, Pack], level: str) -> tuple[int, ...]:
    """The spans of all rolling windows that any metric of this level declares, in milliseconds, rising."""
    spans: set[int] = set()
    for pack in packs.values():
        for metric in pack.metrics.values():
            if level in metric.levels:
                spans.update(span_ms(window) for window in metric.windows if window.startswith("rolling_"))
    return tuple(sorted(spans))
