"""From the ``metrics`` and ``deadlines`` of a pack to ``kaohe.core.model.Metric`` and ``Deadline``.

Theory of operation: each metric declares exactly one kind (count, ratio, share, …). Whatever the kind, it becomes
terms above and below a line: what is added up, from which source, with which sign. Dimensions are followed on the way
(a sum of milliseconds over a count is a time, shown in seconds), so the unit of every metric is known and a rule can
be refused that compares seconds with a ratio. Each metric also gets its formula as text, which goes into every
decision that used it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal, cast

import msgspec

from kaohe.core.attendance import OUTCOMES as ATTENDANCE_OUTCOMES
from kaohe.core.counts import MAX_SPAN_MS
from kaohe.core.expressions import And, Expr, ExprType, Known, to_condition
from kaohe.core.model import CALENDAR_WINDOWS, NOTHING_SPEAKS, Deadline, Metric, Parameter, Term
from kaohe.core.workdays import WorkCalendar
from kaohe.decisions import Level, Words
from kaohe.errors import PackError
from kaohe.packs.names import (
    COUNTED_EVENTS,
    EVENT_TYPES,
    FRAME_EVENTS,
    TIME_UNITS,
    condition,
    event_fields,
    event_scope,
    millis,
    parameter_scope,
)
from kaohe.packs.source import (
    NO_TEXTS,
    Fields,
    Node,
    Problems,
    boolean,
    choice,
    duration,
    name,
    nearest,
    number,
    scalar,
    several,
    show_ms,
    words,
)

LEVELS = ("agent", "team", "queue", "site")
OUTCOMES = ("opened", "standing", "met", "missed", "late", "cancelled", "cancelled_late")
STATES = ("logged_in", "ready", "not_ready")
ROLLING_MAX_MS = MAX_SPAN_MS
"""The longest rolling window; it bounds the counts that are kept per subject."""
ROLLING_STEP_MS = {"agent": 300_000, "group": 60_000}
"""Counts of agents are kept in buckets of five minutes, those of groups in buckets of a minute."""
KINDS = (
    "count", "sum", "mean", "ratio", "share", "service_level", "percentile", "distinct", "max", "stock",
)  # fmt: skip
_COMMON = ("clause", "title", "level", "windows", "unit", "baseline", "evidence")
_DEADLINE_KEYS = (
    "clause", "title", "opens", "key", "met_by", "cancelled_by", "within", "by", "due", "ahead", "where", "again",
    "remember",
)  # fmt: skip
_DEADLINE_MAX_MS = 366 * 86_400_000
_REMEMBER_MIN_MS = 8 * 86_400_000
_REMEMBER_MAX_MS = 3_660 * 86_400_000
_NO_WORDS = Words("", "")


class Side(msgspec.Struct):
    """One side of a quotient: its terms, what they are made of (``count``, ``ms``, ``score``, …), and as text."""

    terms: list[Term]
    dimension: str
    text: str


class Shape(msgspec.Struct):
    """What a metric's kind makes of it."""

    kind: str
    top: Side
    bottom: Side | None
    unit: str
    scale: Fraction
    formula: str
    quantile: Fraction | None = None


class MetricReader:
    """Reads the metrics and deadlines of one pack."""

    def __init__(
        self,
        pack: str,
        problems: Problems,
        parameters: Mapping[str, Parameter],
        clauses: Mapping[str, object],
    ) -> None:
        self.pack = pack
        self.problems = problems
        self.parameters = parameters
        self.clauses = clauses
        self.where_parameters = parameter_scope(parameters, events_time=True)
        self.broken_parameters: frozenset[str] = frozenset()
        self.deadlines: dict[str, Deadline] = {}
        self.deadline_names: set[str] = set()
        self.has_attendance = False
        self.calendars: Mapping[str, WorkCalendar] = {}

    # --- shared readers

    def clause(self, node: Node) -> str:
        """A clause id that stands in clauses.yaml."""
        text = scalar(node)
        if text not in self.clauses:
            node.fail(f"there is no clause {text!r} in clauses.yaml", nearest(text, self.clauses, "clause"))
        return text

    def parameter(self, *units: str, kinds: tuple[str, ...] = ("number",)) -> Callable[[Node], str]:
        """A reader of ``p.<name>`` that is one of ``units`` and ``kinds``; gives the name."""

        def read(node: Node) -> str:
            text = scalar(node)
            if not text.startswith("p."):
                node.fail(f"{text!r} is not a parameter", "name a parameter, such as p.limit")
            found = self.parameters.get(text[2:])
            if text[2:] in self.broken_parameters:
                node.follows()
            if found is None:
                node.fail(
                    f"there is no parameter {text[2:]!r} in parameters.yaml",
                    nearest(text[2:], self.parameters, "parameter"),
                )
            if found.kind not in kinds:
                node.fail(f"{text} is a {found.kind}", f"name a parameter that is a {' or a '.join(kinds)}")
            if units and found.unit not in units:
                node.fail(f"{text} is in {found.unit}", f"name a parameter in {' or '.join(units)}")
            return text[2:]

        return read

    def event(self, node: Node) -> str:
        """An event type that can be counted and judged."""
        text = self.counted_event(node)
        if text in COUNTED_EVENTS:
            node.fail(f"{text} is only counted", "count it by a metric, and let a rule read the metric")
        return text

    def counted_event(self, node: Node) -> str:
        """An event type that can be counted."""
        text = scalar(node)
        if text in FRAME_EVENTS:
            node.fail(f"{text} moves the engine and says nothing about work", "name an event of work")
        if text not in EVENT_TYPES:
            node.fail(f"there is no event type {text!r}", nearest(text, EVENT_TYPES, "event type"))
        return text

    def window(self, levels: tuple[str, ...]) -> Callable[[Node], str]:
        """A reader of a window: ``now``, a calendar period or ``rolling 15m``."""

        def read(node: Node) -> str:
            text = scalar(node)
            if text == "now" or text in CALENDAR_WINDOWS:
                return text
            known = ("now", *CALENDAR_WINDOWS)
            span = text.removeprefix("rolling").lstrip(" _")
            if not text.startswith("rolling") or span[-1:] not in ("m", "h") or not span[:-1].isdigit():
                right = nearest(text, known, "window")
                node.fail(
                    f"{text!r} is not a window", f"{right}, or rolling and a span such as `rolling 15m`"
                )
            span_ms = int(span[:-1]) * (60_000 if span[-1] == "m" else 3_600_000)
            step_ms = ROLLING_STEP_MS["agent" if "agent" in levels else "group"]
            if not 0 < span_ms <= ROLLING_MAX_MS:
                node.fail(f"a rolling window of {span} is too long", f"use 1m to {show_ms(ROLLING_MAX_MS)}")
            if span_ms % step_ms:
                node.fail(
                    f"a rolling window of {span} does not consist of whole buckets of {show_ms(step_ms)}",
                    f"use a multiple of {show_ms(step_ms)}"
                    + (" at level agent" if "agent" in levels else ""),
                )
            return f"rolling_{span}"

        return read

    # --- sources

    def source(self, node: Node) -> Side:
        """What is counted: an event type, ``{event, where}``, ``{deadline, outcome}``, ``{minus: …}`` or a list."""
        if node.kind == "scalar":
            event = self.counted_event(node)
            return Side([Term(source=event)], "count", event)
        if node.kind == "list":
            return self._joined(node, self.source)
        readers = (
            ("deadline", self._deadline_source),
            ("attendance", self._attendance_source),
            ("minus", self._minus(self.source)),
        )
        for key, read in readers:
            if key in node.entries:
                return read(node)
        if "event" not in node.entries:
            node.fail(
                "this says neither an event nor a deadline",
                "write an event type, {event: ..., where: ...} or {deadline: ..., outcome: ...}",
            )
        fields = Fields(node, self.problems, ("event", "where"), "a source")
        events = fields.need("event", several(self.counted_event), NO_TEXTS)
        scope = event_scope(events) | self.where_parameters
        where = fields.take("where", lambda found: condition(found, scope), None)
        self._stop(fields)
        found = node.get("where")
        text = " + ".join(events) + (f" where {' '.join(found.text.split())}" if found else "")
        return Side([Term(source=event, where=where) for event in events], "count", text)

    def side(self, node: Node) -> Side:
        """One side of a ratio: a source, ``{sum: {field, of}}``, ``{minus: …}`` or a list of those."""
        if node.kind == "list":
            return self._joined(node, self.side)
        if node.kind == "mapping" and "sum" in node.entries:
            self._only(node, "sum")
            return self.total(node.entries["sum"][1])
        if node.kind == "mapping" and "minus" in node.entries:
            return self._minus(self.side)(node)
        return self.source(node)

    def total(self, node: Node) -> Side:
        """The body of a ``sum``: ``{field, of}`` or ``{state}``."""
        if node.kind == "mapping" and "state" in node.entries:
            fields = Fields(node, self.problems, ("state",), "a sum of time")
            state = fields.need("state", choice(STATES, "state of an agent"), "")
            self._stop(fields)
            return Side([Term(source=f"state/{state}", field="ms")], "ms", f"time {state}")
        return self.summed(node, "a sum")

    def summed(self, node: Node, what: str, more: tuple[str, ...] = ()) -> Side:
        """``{field, of}``: the sum of a number field (or of several) over the events of a source.

        ``what`` is what the keys belong to, and ``more`` the keys that somebody else reads.
        """
        fields = Fields(node, self.problems, ("field", "of", *more), what)
        of = fields.need("of", self.source, Side([], "", ""))
        names = fields.need("field", several(name), NO_TEXTS)
        self._stop(fields)
        found: set[str] = set()
        terms: list[Term] = []
        for term in of.terms:
            for field in names:
                found.add(self._number_field(fields.at("field"), term, field))
                terms.append(msgspec.structs.replace(term, field=field))
        if len(found) > 1:
            fields.at("field").fail(
                f"the fields are in {' and '.join(sorted(found))}", "add up fields of one unit"
            )
        return Side(terms, found.pop(), f"{' + '.join(names)} of {of.text}")

    def _number_field(self, node: Node, term: Term, field: str) -> str:
        if term.source not in EVENT_TYPES and not term.source.startswith("attendance/"):
            node.fail(f"{term.source} has no fields", "name an event type under `of:`")
        known = event_fields(term.source)
        if field not in known:
            usable = [one for one, kind in known.items() if kind.type.kind == "number" and not kind.moment]
            node.fail(f"{term.source} has no field {field!r}", nearest(field, usable, "field"))
        kind = known[field]
        if kind.type.kind != "number" or kind.moment:
            node.fail(f"{term.source}.{field} is not a number", "name a field that is always a number")
        if kind.type.optional and f"event.{field}" not in known_by(term.where):
            node.fail(
                f"{term.source} may come without {field}",
                f"count those that have it: `where: has(event.{field})`",
            )
        return kind.type.unit

    def _deadline_source(self, node: Node) -> Side:
        fields = Fields(node, self.problems, ("deadline", "outcome"), "a source")
        found = fields.need("deadline", self.deadline_name, "")
        outcome = fields.need("outcome", choice(OUTCOMES, "outcome"), "")
        self._stop(fields)
        self.check_standing(fields, found, outcome)
        self._stop(fields)
        return Side([Term(source=f"deadline/{found}/{outcome}")], "count", f"{found} {outcome}")

    def _attendance_source(self, node: Node) -> Side:
        fields = Fields(node, self.problems, ("attendance", "where"), "a source")
        outcomes = fields.need("attendance", several(self.attendance_outcome), NO_TEXTS)
        sources = [f"attendance/{outcome}" for outcome in outcomes]
        scope = event_scope(sources) | self.where_parameters
        where = fields.take("where", lambda found: condition(found, scope), None)
        self._stop(fields)
        found = node.get("where")
        text = " + ".join(outcomes) + (f" where {' '.join(found.text.split())}" if found else "")
        return Side([Term(source=source, where=where) for source in sources], "count", text)

    def attendance_outcome(self, node: Node) -> str:
        """An outcome of attendance, in a pack that judges it."""
        if not self.has_attendance:
            node.fail("the pack does not judge attendance", "add attendance.yaml")
        return choice(tuple(ATTENDANCE_OUTCOMES), "outcome of attendance")(node)

    def check_standing(self, fields: Fields, deadline: str, outcome: str) -> None:
        """Note when an item of a deadline that could not be read as standing is asked for as such."""
        known = self.deadlines.get(deadline)
        if outcome != "standing" or known is None:
            return
        right = "write `met_by: nothing` and `cancelled_by:`, or another outcome"
        if known.met_by:
            fields.wrong("outcome", f"an item of {deadline} ends when it is met, so it does not stand", right)
        elif not known.cancelled_by:
            fields.wrong("outcome", f"nothing takes an item of {deadline} back", right)

    def deadline_name(self, node: Node) -> str:
        """The name of a deadline of this pack."""
        text = scalar(node)
        if text not in self.deadline_names:
            node.fail(
                f"there is no deadline {text!r} in metrics.yaml",
                nearest(text, self.deadline_names, "deadline"),
            )
        return text

    def evidence(self, node: Node, levels: tuple[str, ...]) -> tuple[Term, ...]:
        """Which events speak where a figure is judged: a source, or ``nothing``."""
        if node.kind == "scalar" and node.text == "nothing":
            return (NOTHING_SPEAKS,)
        side = self.source(node)
        if any(term.weight < 0 for term in side.terms):
            node.fail("what is evidence is not taken off", "leave `minus` out")
        if "queue" in levels and any(term.source.startswith("attendance/") for term in side.terms):
            node.fail(
                "an agent's attendance belongs to no queue", "name other events, or leave the level queue out"
            )
        return tuple(side.terms)

    def _minus(self, read: Callable[[Node], Side]) -> Callable[[Node], Side]:
        def read_minus(node: Node) -> Side:
            self._only(node, "minus")
            side = read(node.entries["minus"][1])
            return Side(_negated(side.terms), side.dimension, f"-({side.text})")

        return read_minus

    def _joined(self, node: Node, read: Callable[[Node], Side]) -> Side:
        if not node.items:
            node.fail("the list is empty", "name what is counted")
        sides = [read(item) for item in node.items]
        dimensions = sorted({side.dimension for side in sides})
        if len(dimensions) > 1:
            node.fail(
                f"{' and '.join(dimensions)} cannot be added up",
                "add up counts with counts, times with times",
            )
        seen: list[Term] = []
        for side, item in zip(sides, node.items, strict=True):
            for term in side.terms:
                if term in seen:
                    item.fail(f"{side.text} stands twice in the list", "keep one of them")
                seen.append(term)
        text = " + ".join(side.text for side in sides).replace("+ -(", "- (")
        return Side(seen, dimensions[0], text)

    @staticmethod
    def _only(node: Node, key: str) -> None:
        for other, (key_node, _) in node.entries.items():
            if other != key:
                key_node.fail(f"{other!r} does not stand beside {key!r}", f"keep {key!r} alone in its braces")

    @staticmethod
    def _stop(fields: Fields) -> None:
        """Give up on a part whose mistakes have been noted already."""
        if not fields.ok():
            raise fields.problems.errors[-1]

    # --- kinds

    def shape(self, kind: str, node: Node) -> Shape:
        """What the body of a metric of ``kind`` means."""
        reader: dict[str, Callable[[Node], Shape]] = {
            "count": self._count, "sum": self._sum, "mean": self._mean, "ratio": self._ratio, "share": self._share,
            "service_level": self._service_level, "percentile": self._percentile, "distinct": self._distinct,
            "max": self._max, "stock": self._stock,
        }  # fmt: skip
        return reader[kind](node)

    def _count(self, node: Node) -> Shape:
        side = self.source(node)
        return Shape("count", side, None, "count", Fraction(1), f"count({side.text})")

    def _sum(self, node: Node) -> Shape:
        side = self.total(node)
        unit, scale = (
            ("days", Fraction(1, 2)) if side.dimension == "halves" else (side.dimension, Fraction(1))
        )
        return Shape("sum", side, None, unit, scale, f"sum({side.text}){scale_text(scale)}")

    def _mean(self, node: Node) -> Shape:
        top = self.summed(node, "a mean")
        of = self.source(node.entries["of"][1])
        unit, scale = shown_unit(top.dimension)
        return Shape("mean", top, of, unit, scale, f"sum({top.text}) / count({of.text}){scale_text(scale)}")

    def _ratio(self, node: Node) -> Shape:
        fields = Fields(node, self.problems, ("of", "to"), "a ratio")
        nothing = Side([], "", "")
        top, bottom = fields.need("of", self.side, nothing), fields.need("to", self._below, nothing)
        self._stop(fields)
        if top.dimension == bottom.dimension:
            unit, scale = "ratio", Fraction(1)
        elif bottom.dimension == "count":
            unit, scale = shown_unit(top.dimension)
        else:
            fields.at("of").fail(
                f"{top.dimension} by {bottom.dimension} has no unit here",
                "divide like by like, or by a count",
            )
        kind = "per_distinct" if any(term.how == "distinct" for term in bottom.terms) else "ratio"
        below = bottom.text if kind == "per_distinct" else _wrapped(bottom)
        text = f"{_wrapped(top)} / {below}{scale_text(scale)}"
        return Shape(kind, top, bottom, unit, scale, text)

    def _below(self, node: Node) -> Side:
        """What stands below the line: a side, or ``{distinct: {field, of}}`` alone."""
        if node.kind != "mapping" or "distinct" not in node.entries:
            return self.side(node)
        self._only(node, "distinct")
        shape = self._distinct(node.entries["distinct"][1])
        return Side(shape.top.terms, "count", shape.formula)

    def _share(self, node: Node) -> Shape:
        fields = Fields(node, self.problems, ("of", "where", "among"), "a share")
        of = fields.need("of", self.source, Side([], "", ""))
        among = fields.take("among", self.source, of)
        events = [term.source for term in of.terms if term.source in EVENT_TYPES]
        if len(events) != len(of.terms) or any(term.where is not None for term in of.terms):
            fields.wrong(
                "of",
                "a share is taken of plain events",
                "name event types here; put the condition in `where:`",
            )
        scope = event_scope(events) | self.where_parameters
        where = fields.need("where", lambda found: condition(found, scope), None)
        self._stop(fields)
        shown = " ".join(fields.at("where").text.split())
        top = Side([msgspec.structs.replace(term, where=where) for term in of.terms], "count", of.text)
        text = f"count({of.text} where {shown}) / count({among.text})"
        return Shape("share", top, among, "ratio", Fraction(1), text)

    def _service_level(self, node: Node) -> Shape:
        """Calls answered within the threshold over calls answered and, if counted, abandoned."""
        fields = Fields(node, self.problems, ("threshold", "abandoned", "short_abandon"), "a service level")
        threshold = fields.need("threshold", self.parameter("s"), "")
        counted = fields.need(
            "abandoned", choice(("counted", "ignored"), "way of treating abandoned calls"), ""
        )
        short = fields.take("short_abandon", self.parameter("s"), "")
        if short and counted == "ignored":
            fields.wrong(
                "short_abandon",
                "abandoned calls are ignored, so none of them can be short",
                "leave short_abandon out, or write `abandoned: counted`",
            )
        self._stop(fields)
        scope = event_scope(["call.answered"]) | self.where_parameters
        within = self._parsed(node, f"event.wait_ms <= p.{threshold}", scope)
        bottom = [Term(source="call.answered")]
        if counted == "counted":
            patient = self._parsed(node, f"event.wait_ms >= p.{short}", scope) if short else None
            bottom.append(Term(source="call.abandoned", where=patient))
        limit = "{p." + short + "}" if short else "0"
        text = (
            f"service_level/v1(threshold_s={{p.{threshold}}}, abandoned={counted}, short_abandon_s={limit})"
        )
        top = Side([Term(source="call.answered", where=within)], "count", "")
        return Shape("ratio", top, Side(bottom, "count", ""), "ratio", Fraction(1), text)

    @staticmethod
    def _parsed(node: Node, text: str, scope: Mapping[str, ExprType]) -> Expr:
        made = Node("scalar", node.place, node.path)
        made.text = text
        return condition(made, scope)

    def _percentile(self, node: Node) -> Shape:
        top = self.summed(node, "a percentile", ("q",))
        fields = Fields(node, self.problems, ("field", "of", "q"), "a percentile")
        quantile = fields.need("q", number, Fraction(1, 2))
        if not 0 < quantile < 1:
            fields.wrong("q", f"{fields.at('q').text} is not between 0 and 1", "write 0.9 for nine in ten")
        if top.dimension != "ms" or len(top.terms) != len({term.source for term in top.terms}):
            fields.wrong("field", "percentiles are of one time", "name one field that ends in _ms")
        self._stop(fields)
        unit, scale = shown_unit(top.dimension)
        side = Side(
            [msgspec.structs.replace(term, how="histogram") for term in top.terms[:1]], "ms", top.text
        )
        if len(top.terms) > 1:
            fields.wrong("of", "a percentile is of one event type", "declare one metric for each event type")
            self._stop(fields)
        text = f"percentile({fields.at('q').text}, {top.text}){scale_text(scale)}"
        return Shape("percentile", side, None, unit, scale, text, quantile)

    def _distinct(self, node: Node) -> Shape:
        fields = Fields(node, self.problems, ("field", "of"), "a distinct count")
        of = fields.need("of", self.source, Side([], "", ""))
        field = fields.need("field", name, "")
        self._stop(fields)
        for term in of.terms:
            known = event_fields(term.source) if term.source in EVENT_TYPES else {}
            if field not in known or known[field].type.kind != "string":
                texts = [one for one, kind in known.items() if kind.type.kind == "string"]
                fields.at("field").fail(
                    f"{term.source} has no text field {field!r}", nearest(field, texts, "field")
                )
        terms = [msgspec.structs.replace(term, field=field, how="distinct") for term in of.terms]
        text = f"distinct({field} of {of.text})"
        return Shape("distinct", Side(terms, "count", text), None, "count", Fraction(1), text)

    def _max(self, node: Node) -> Shape:
        top = self.summed(node, "a maximum")
        unit, scale = shown_unit(top.dimension)
        side = Side([msgspec.structs.replace(term, how="max") for term in top.terms], top.dimension, top.text)
        return Shape("max", side, None, unit, scale, f"max({top.text}){scale_text(scale)}")

    def _stock(self, node: Node) -> Shape:
        fields = Fields(node, self.problems, ("up", "down"), "a stock")
        nothing = Side([], "", "")
        up, down = fields.need("up", self.source, nothing), fields.need("down", self.source, nothing)
        self._stop(fields)
        terms = [*up.terms, *_negated(down.terms)]
        text = f"stock({up.text} - ({down.text}))"
        return Shape("stock", Side(terms, "count", text), None, "count", Fraction(1), text)

    # --- whole metrics

    def metric(self, key: Node, node: Node) -> Metric | None:
        """One entry of ``metrics:``; None when it is wrong (the mistakes are noted)."""
        fields = Fields(node, self.problems, (*_COMMON, *KINDS), "a metric")
        own_name = self.problems.attempt(name, key)
        kinds = [kind for kind in KINDS if kind in fields]
        clause = fields.need("clause", self.clause, "")
        title = fields.need("title", words, _NO_WORDS)
        levels = fields.need("level", several(choice(LEVELS, "level")), NO_TEXTS)
        windows = fields.need("windows", several(self.window(levels)), NO_TEXTS)
        evidence = fields.take("evidence", lambda found: self.evidence(found, levels), None)
        baseline = fields.take("baseline", self.parameter("month", kinds=("text",)), "")
        if len(kinds) != 1 and node.kind == "mapping":
            said = "no kind" if not kinds else f"{len(kinds)} kinds ({', '.join(kinds)})"
            fields.problems.add(
                PackError(
                    node.place,
                    node.path,
                    f"the metric has {said}",
                    f"give it exactly one of {', '.join(KINDS)}",
                )
            )
            return None
        shape = fields.take(kinds[0], lambda body: self.shape(kinds[0], body), None) if kinds else None
        if shape is None or not fields.ok() or not own_name:
            return None
        self._rescale(fields, shape)
        self._check_windows(fields, shape, levels, windows, baseline)
        if not fields.ok():
            return None
        return Metric(
            name=own_name,
            pack=self.pack,
            clause=clause,
            title=title,
            kind=cast("Literal['count']", shape.kind),
            unit=shape.unit,
            scale=shape.scale,
            numerator=tuple(shape.top.terms),
            denominator=tuple(shape.bottom.terms) if shape.bottom else (),
            levels=cast("tuple[Level, ...]", levels),
            windows=windows,
            formula=_with_parameters(shape.formula, self.parameters),
            quantile=shape.quantile,
            baseline=baseline,
            evidence=evidence,
            place=key.place,
        )

    def _rescale(self, fields: Fields, shape: Shape) -> None:
        """Apply ``unit:``, which may show a time in another unit of time."""
        wanted = fields.take("unit", scalar, "")
        if not wanted or wanted == shape.unit:
            return
        if shape.unit in TIME_UNITS and wanted in TIME_UNITS and shape.kind != "count":
            shape.scale = shape.scale * millis(shape.unit) / millis(wanted)
            shape.formula = shape.formula.removesuffix(scale_text(Fraction(1, 1000))) + scale_text(
                shape.scale
            )
            shape.unit = wanted
        else:
            right = (
                f"write one of {', '.join(TIME_UNITS)}"
                if shape.unit in TIME_UNITS
                else f"leave it out ({shape.unit})"
            )
            fields.wrong("unit", f"the metric is in {shape.unit}, not in {wanted!r}", right)

    def _check_windows(
        self, fields: Fields, shape: Shape, levels: tuple[str, ...], windows: tuple[str, ...], baseline: str
    ) -> None:
        if (shape.kind == "stock") != ("now" in windows) or (shape.kind == "stock" and len(windows) > 1):
            fields.wrong(
                "windows",
                "`now` is the window of a stock, and its only one",
                "give a stock `windows: [now]`, and every other kind periods or rolling windows",
            )
        if baseline and "month" not in windows:
            fields.wrong("baseline", "a baseline month needs the window month", "add month to `windows:`")
        terms = [*shape.top.terms, *(shape.bottom.terms if shape.bottom else ())]
        if any(term.source in COUNTED_EVENTS for term in terms) and not set(levels) <= {"team", "site"}:
            right = "keep the levels team and site"
            fields.wrong("level", "who belongs to a team is a figure of teams and sites", right)
        if "queue" in levels and any(term.source.startswith("state/") for term in terms):
            fields.wrong("level", "an agent's time belongs to no single queue", "leave the level queue out")
        elif "queue" in levels and any(term.source.startswith("attendance/") for term in terms):
            fields.wrong("level", "an agent's attendance belongs to no queue", "leave the level queue out")

    # --- deadlines

    def deadline(self, key: Node, node: Node) -> Deadline | None:
        """One entry of ``deadlines:``; None when it is wrong (the mistakes are noted)."""
        fields = Fields(node, self.problems, _DEADLINE_KEYS, "a deadline")
        own_name = self.problems.attempt(name, key)
        clause = fields.need("clause", self.clause, "")
        title = fields.need("title", words, _NO_WORDS)
        opens = fields.need("opens", self.event, "")
        met_by = fields.need("met_by", self._met_by, NO_TEXTS)
        cancelled_by = fields.take("cancelled_by", several(self.event), NO_TEXTS)
        item = fields.need("key", name, "")
        within = fields.take("within", self.parameter(*TIME_UNITS, kinds=("number", "table")), "")
        by = fields.take("by", name, "")
        due = fields.take("due", name, "")
        ahead = fields.take("ahead", self.parameter(*TIME_UNITS), "")
        again = fields.take("again", boolean, False)
        remember_ms = fields.take("remember", duration(_REMEMBER_MIN_MS, _REMEMBER_MAX_MS), 0)
        scope = (event_scope([opens]) if opens else {}) | self.where_parameters
        where = fields.take("where", lambda found: condition(found, scope), None) if opens else None
        if not fields.ok() or not own_name:
            return None
        self._check_deadline_fields(fields, opens, (*met_by, *cancelled_by), item)
        self._check_limit(fields, opens, within, by, due, where)
        if ahead and not due:
            fields.wrong("ahead", "there is no moment to be ahead of", "add `due:`, or leave `ahead` out")
        if again and remember_ms:
            fields.wrong("again", "what begins again is not remembered", "leave `again` or `remember` out")
        if not fields.ok():
            return None
        return Deadline(
            name=own_name, pack=self.pack, clause=clause, title=title, opens=opens, key=item, met_by=met_by,
            cancelled_by=cancelled_by, within=within, by=by, due_field=due, where=where, place=key.place,
            ahead=ahead, again=again, remember_ms=remember_ms,
        )  # fmt: skip

    def _met_by(self, node: Node) -> tuple[str, ...]:
        """The events that meet a deadline; ``nothing`` where it is judged when its time is over, come what may."""
        return () if node.kind == "scalar" and node.text == "nothing" else several(self.event)(node)

    def _check_deadline_fields(self, fields: Fields, opens: str, others: tuple[str, ...], item: str) -> None:
        for event in (opens, *others):
            known = event_fields(event)
            if item not in known or known[item].type.kind != "string":
                texts = [one for one, kind in known.items() if one.endswith("_id")]
                fields.wrong("key", f"{event} has no text field {item!r}", nearest(item, texts, "field"))
                return
        if opens in others:
            fields.wrong("opens", f"{opens} both opens and ends the deadline", "name another event in met_by")
        both = set(fields_of(fields, "met_by")) & set(fields_of(fields, "cancelled_by"))
        if both:
            fields.wrong(
                "cancelled_by", f"{both.pop()} both meets and cancels the deadline", "keep it in one of them"
            )

    def _check_limit(
        self, fields: Fields, opens: str, within: str, by: str, due: str, where: Expr | None
    ) -> None:
        known = event_fields(opens)
        if due and (due not in known or not known[due].moment):
            moments = [one for one, kind in known.items() if kind.moment]
            fields.wrong("due", f"{opens} has no moment {due!r}", nearest(due, moments, "field"))
            return
        if not within:
            if not due:
                fields.wrong(
                    "opens", "the deadline has neither a time limit nor a due field", "add `within: p.limit`"
                )
            elif known[due].optional and f"event.{due}" not in known_by(where):
                fields.wrong(
                    "due", f"{opens} may lack {due}", "add `within: p.limit` for the case that it is missing"
                )
            return
        parameter = self.parameters[within]
        if (parameter.kind == "table") != bool(by):
            right = "add `by: field`" if not by else "leave `by` out, or give the parameter a table"
            fields.wrong("by" if by else "within", f"p.{within} is a {parameter.kind}", right)
            return
        if by and (by not in known or known[by].type.kind != "string"):
            texts = [one for one, kind in known.items() if kind.type.kind == "string"]
            fields.wrong("by", f"{opens} has no text field {by!r}", nearest(by, texts, "field"))
        elif by:
            check_table_words(fields, "by", parameter, known[by].type.values)
        largest = parameter.maximum or Fraction(0)
        if largest * millis(parameter.unit) > _DEADLINE_MAX_MS:
            fields.wrong(
                "within",
                f"p.{within} may be as long as {largest} {parameter.unit}",
                "bound it by `max:` to at most 366 days",
            )


def known_by(where: Expr | None) -> set[str]:
    """The names that are known wherever a condition holds: it asks ``has(...)`` of them."""
    if where is None:
        return set()
    found = to_condition(where)
    parts = found.parts if isinstance(found, And) else (found,)
    return {part.field for part in parts if isinstance(part, Known) and part.known}


def check_table_words(fields: Fields, key: str, parameter: Parameter, values: tuple[str, ...]) -> None:
    """Note a table that lacks a word that can occur, or has one that cannot."""
    for since, table in parameter.values:
        assert isinstance(table, dict)
        if "*" not in table:
            missing = [word for word in values if word not in table]
            if missing or not values:
                said = f"lacks {', '.join(missing)}" if values else "has no line for other words"
                fields.wrong(
                    key,
                    f"the table p.{parameter.name} of {since} {said}",
                    'add the line, or "*" for every other word',
                )
        strange = [word for word in table if values and word not in values and word != "*"]
        if strange:
            fields.wrong(
                key,
                f"the table p.{parameter.name} has a line for {strange[0]!r}, which never occurs",
                nearest(strange[0], values, "word"),
            )


def fields_of(fields: Fields, key: str) -> list[str]:
    """The words of a list (or single word) under ``key``."""
    node = fields.node.get(key)
    if node is None:
        return []
    return [item.text for item in node.items] if node.kind == "list" else [node.text]


def shown_unit(dimension: str) -> tuple[str, Fraction]:
    """The unit in which a quantity is shown, and the factor: milliseconds as seconds, hundredths as points of 100."""
    if dimension == "ms":
        return "s", Fraction(1, 1000)
    if dimension == "score":
        return "score", Fraction(1, 100)
    if dimension == "halves":
        return "days", Fraction(1, 2)
    return dimension, Fraction(1)


def scale_text(scale: Fraction) -> str:
    """The factor as the end of a formula."""
    if scale == 1:
        return ""
    return f" / {scale.denominator}" if scale.numerator == 1 else f" * {scale}"


def _wrapped(side: Side) -> str:
    return f"{'count' if side.dimension == 'count' else 'sum'}({side.text})"


def _negated(terms: list[Term]) -> list[Term]:
    return [msgspec.structs.replace(term, weight=-term.weight) for term in terms]


_PARAMETER = re.compile(r"(?<![{\w.])p\.(\w+)")


def _with_parameters(formula: str, parameters: Mapping[str, Parameter]) -> str:
    """The formula with its parameters in braces, to be filled with the values in force, and with units of time."""

    def braced(match: re.Match[str]) -> str:
        parameter = parameters.get(match[1])
        if parameter is None:
            return match[0]
        unit = f" {parameter.unit}" if parameter.unit in TIME_UNITS else ""
        return "{" + match[0] + "}" + unit

    return _PARAMETER.sub(braced, formula)
