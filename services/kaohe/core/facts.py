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

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from kaohe.core.calendars import Calendar, Period
from kaohe.core.counting import TIME_UNITS_MS, Counts, Layout, Reading, base_reader, read, value_reader
from kaohe.core.model import Metric, Pack, Parameter
from kaohe.core.series import Rolling, Series, span_ms
from kaohe.decisions import UsedFact, UsedParameter

Fact = Fraction | int | str | bool | None


class Moment:
    """What is being judged, with everything a fact may be read from.

    ``at_ms`` is the moment of log time; ``period`` the judged period or None; ``day`` the day whose parameters count;
    ``open_cells`` whether counts that are not folded yet are seen (they are when a single event is judged).
    """

    __slots__ = (
        "at_ms",
        "calendar",
        "cells",
        "day",
        "event",
        "late_ms",
        "open_cells",
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
        if window in self.cells:
            return self.cells[window]
        found = self._counts(window)
        self.cells[window] = found
        return found

    def _counts(self, window: str) -> Counts | None:
        series = self.series
        if window == "now":
            return series.total_counts()
        if window.startswith("rolling_"):
            return series.rolling[span_ms(window)]
        if window.startswith("previous_"):
            return series.period_counts(self.calendar.previous(self.current(window[len("previous_") :])))
        if window.startswith("baseline_"):
            kind, label = window[len("baseline_") :].split(":", 1)
            return series.period_counts(self.calendar.period(kind, label))
        period = self.current(window)
        if self.open_cells:
            return series.period_with_open(period)
        return series.period_counts(period) or {}


Reader = Callable[[Moment], Fact]


ASPECTS = ("", "base", "vs_baseline", "vs_previous")
"""What may follow a metric and its window: nothing (the value), its denominator, or its relative change."""


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
        return lambda moment: _change(layout, pack, metric, window, aspect, moment)
    read_counts = (base_reader if aspect == "base" else value_reader)(layout, pack.key, metric)
    if window.startswith("baseline_"):
        return lambda moment: _from(read_counts, moment.counts(_baseline(pack, metric, window, moment)))
    return lambda moment: _from(read_counts, moment.counts(window))


def facts_reader(layout: Layout, pack: Pack, wanted: Iterable[str]) -> Callable[[Moment], dict[str, Any]]:
    """One function that reads all these names for a matcher, which takes unreduced quotients.

    It runs for every judgement, so it is straight code without loops: each window is looked up once, each metric of
    sums is two additions. What is more than that is left to ``reader``.
    """
    lines: list[str] = []
    items: list[str] = []
    windows: dict[str, str] = {}
    namespace: dict[str, Any] = {"rolling": Rolling}
    for number, name in enumerate(sorted(wanted)):
        source = _sums_source(layout, pack, name, windows)
        if source is None:
            namespace[f"read{number}"] = reader(layout, pack, name)
            items.append(f"{name!r}: read{number}(moment)")
            continue
        lines += [line.format(v=f"v{number}") for line in source]
        items.append(f"{name!r}: v{number}")
    head = ["def facts(moment):"]
    for window, variable in windows.items():
        head += [
            f"    c = moment.counts({window!r})",
            f"    {variable} = None if c is None else c.sums.get if c.__class__ is rolling else c.get",
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
    if metric.kind in ("percentile", "distinct", "max"):
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


def _from(read_counts: Callable[[Counts], Fraction | int | None], counts: Counts | None) -> Fact:
    return None if counts is None else read_counts(counts)


def _event_reader(field: str) -> Reader:
    if field == "score":
        return lambda moment: Fraction(moment.event.score, 100)
    return lambda moment: _plain(getattr(moment.event, field))


def _change(layout: Layout, pack: Pack, metric: Metric, window: str, aspect: str, moment: Moment) -> Fact:
    """The value relative to the baseline month or the previous month: value / reference - 1."""
    now = _value(reading_of(layout, pack, metric, window, moment))
    if now is None:
        return None
    reference_window = "baseline_month" if aspect == "vs_baseline" else "previous_month"
    reference = _value(reading_of(layout, pack, metric, reference_window, moment))
    if not isinstance(now, Fraction) or not isinstance(reference, Fraction) or reference <= 0:
        return None
    return now / reference - 1


def reading_of(layout: Layout, pack: Pack, metric: Metric, window: str, moment: Moment) -> Reading | None:
    """A metric's exact reading; None for a past period of which nothing is known."""
    if window.startswith("baseline_"):
        window = _baseline(pack, metric, window, moment)
    counts = moment.counts(window)
    return None if counts is None else read(layout, pack.key, metric, counts)


def _baseline(pack: Pack, metric: Metric, window: str, moment: Moment) -> str:
    label = pack.parameters[metric.baseline].value_at(moment.day)
    assert isinstance(label, str), metric.baseline
    return f"{window}:{label}"


def _value(reading: Reading | None) -> Fact:
    return None if reading is None else reading.value


def _base(reading: Reading | None) -> Fact:
    if reading is None:
        return None
    return reading.denominator if reading.denominator is not None else reading.numerator


def _parameter_reader(parameter: Parameter) -> Reader:
    if len(parameter.values) == 1:
        since, only = parameter.values[0]
        if isinstance(only, dict):
            raise AssertionError("a table is read by a word only")
        constant: Fact = only

        def read_constant(moment: Moment) -> Fact:
            return constant if moment.day >= since else _dated(parameter, moment.day)

        return read_constant
    return lambda moment: _dated(parameter, moment.day)


def _dated(parameter: Parameter, day: date) -> Fact:
    value = parameter.value_at(day)
    assert not isinstance(value, dict), parameter.name
    return value


def _plain(value: Any) -> Fact:
    if value is None or isinstance(value, (str, bool, int, Fraction)):
        return value
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    raise AssertionError(f"a field of type {type(value).__name__} is no fact")


def parameter_ms(parameter: Parameter, day: date, word: str) -> int:
    """A time limit in milliseconds; a table is looked up by ``word`` (``*`` for every other word)."""
    value = parameter.value_at(day)
    if isinstance(value, dict):
        value = value[word] if word in value else value["*"]
    assert isinstance(value, Fraction), parameter.name
    limit = value * TIME_UNITS_MS[parameter.unit]
    return int(limit)


# --- facts in words ---------------------------------------------------------------------------------------------------


def number_text(value: Fraction | int) -> str:
    """A number exactly: a decimal where it ends within nine places, otherwise a quotient with an approximation."""
    if value.denominator == 1:
        return str(value.numerator)
    if 10**9 % value.denominator == 0:
        sign = "-" if value < 0 else ""
        digits = f"{abs(value.numerator) * (10**9 // value.denominator):010d}"
        text = f"{digits[:-9]}.{digits[-9:]}".rstrip("0").rstrip(".")
        return sign + text
    return f"{value.numerator}/{value.denominator} (≈ {float(value):.6f})"


def fact_text(value: Fact) -> str | None:
    """Any fact as text; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else number_text(value)


def used_fact(layout: Layout, pack: Pack, name: str, moment: Moment) -> UsedFact:
    """A fact with what it was made of."""
    head = name.partition(".")[0]
    if head in ("event", "deadline", "roster"):
        return UsedFact(
            value=fact_text(reader(layout, pack, name)(moment)), unit="ms" if name.endswith("_ms") else ""
        )
    metric, window, aspect = metric_of(pack, name)
    formula = formula_text(pack, metric, moment.day)
    if aspect.startswith("vs_"):
        change = _change(layout, pack, metric, window, aspect, moment)
        return UsedFact(
            value=fact_text(change), unit="ratio", formula=f"{formula}, relative to the {aspect[3:]} month"
        )
    reading = reading_of(layout, pack, metric, window, moment)
    if reading is None:
        return UsedFact(value=None, unit=metric.unit, formula=formula)
    if aspect == "base":
        return UsedFact(value=fact_text(_base(reading)), unit="count", formula=formula)
    return UsedFact(
        value=fact_text(reading.value),
        unit=metric.unit,
        numerator=number_text(reading.numerator) if reading.denominator is not None else None,
        denominator=number_text(reading.denominator) if reading.denominator is not None else None,
        formula=formula,
    )


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
