"""What the names in a pack's expressions stand for: event fields, metrics, parameters, the roster, deadlines.

Theory of operation: the event types and their fields are read from the structs in ``kaohe.events``, so a pack can
name exactly what an event can carry. A *scope* maps names to types; the expression language refuses every name that
is not in its scope. Two kinds of scope exist: that of a ``where`` inside a metric (fields of the counted event, and
parameters converted to the event's unit of time), and that of a rule (all that its trigger, level and windows allow).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from kaohe.core.attendance import OUTCOMES, UNSEEN
from kaohe.core.expressions import (
    And,
    Compare,
    Condition,
    Expr,
    ExprType,
    Junction,
    Known,
    Or,
    parse_amount,
    parse_condition,
)
from kaohe.core.facts import AROUND_OPENING
from kaohe.core.model import CALENDAR_WINDOWS, Metric, Parameter
from kaohe.errors import ExpressionError, PackError, Place
from kaohe.events import PAYLOADS, Score
from kaohe.packs.source import MILLIS, Node, scalar

FRAME_EVENTS = (
    "clock.tick", "department.changed", "pack.activated", "period.closed", "period.reopened", "roster.changed",
    "step.done",
)  # fmt: skip
"""Event types that move the engine itself; a pack neither counts nor judges them. Nor what a person earns."""

COUNTED_EVENTS = ("team.joined", "team.left")
"""Event types that metrics of teams and sites count and nothing else follows: a day of leaving may be told ahead."""

EVENT_TYPES = tuple(name for name in PAYLOADS if name not in (*FRAME_EVENTS, "pay.stated"))
TIME_UNITS = ("ms", "s", "min", "h", "d")
ALWAYS: Expr = Junction("&&", (), 1)
"""The condition ``true``."""


class FieldType(msgspec.Struct, frozen=True):
    """A field of an event: its type in expressions, whether it is a moment, and whether it can be left out."""

    type: ExprType
    moment: bool
    optional: bool


@cache
def event_fields(event: str) -> dict[str, FieldType]:
    """The fields of an event type, or of ``attendance/<outcome>``, that expressions and metrics can use."""
    payload: type[msgspec.Struct] = (
        PAYLOADS[event] if event in PAYLOADS else OUTCOMES[event.partition("/")[2]]
    )
    hints = get_type_hints(payload, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(payload) if field.required}
    found: dict[str, FieldType] = {}
    for name, hint in hints.items():
        if event not in PAYLOADS and name in UNSEEN:
            continue
        field = _field_type(name, hint, name not in required)
        if field is not None:
            found[name] = field
    return found


def _field_type(name: str, hint: Any, optional: bool) -> FieldType | None:
    unknown = False
    if get_origin(hint) in (Union, UnionType):
        unknown = NoneType in get_args(hint)
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    score = hint == Score
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(base) is Literal:
        return FieldType(ExprType("string", values=get_args(base), optional=unknown), False, optional)
    if base is bool:
        return FieldType(ExprType("bool", optional=unknown), False, optional)
    if base is str:
        return FieldType(ExprType("string", optional=unknown), False, optional)
    if base is datetime:
        return FieldType(ExprType("number", unit="moment", optional=unknown), True, optional)
    if base is int:
        unit = (
            "ms"
            if name.endswith("_ms")
            else "minor"
            if name.endswith("_minor")
            else "halves"
            if name == "halves"
            else "score"
            if score
            else "count"
        )
        return FieldType(ExprType("number", unit=unit, optional=unknown), False, optional)
    return None


# --- scopes -----------------------------------------------------------------------------------------------------------


def event_scope(events: Iterable[str]) -> dict[str, ExprType]:
    """``event.<field>`` for the fields that all of ``events`` have with the same type."""
    scope: dict[str, ExprType] | None = None
    for event in events:
        own = {f"event.{name}": field.type for name, field in event_fields(event).items()}
        scope = (
            own if scope is None else {name: kind for name, kind in scope.items() if own.get(name) == kind}
        )
    return scope or {}


def parameter_type(parameter: Parameter, *, events_time: bool = False) -> ExprType | None:
    """The type of ``p.<name>``; None for a table, which is only looked up. ``events_time`` turns times into ms."""
    if parameter.kind == "table":
        return None
    if parameter.kind == "text":
        return ExprType("string", values=parameter.choices)
    unit = "ms" if events_time and parameter.unit in TIME_UNITS else parameter.unit
    return ExprType("number", unit=unit)


def parameter_scope(parameters: Mapping[str, Parameter], *, events_time: bool = False) -> dict[str, ExprType]:
    """``p.<name>`` for all parameters that have a single value."""
    found = {f"p.{name}": parameter_type(one, events_time=events_time) for name, one in parameters.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def metric_names(metric: Metric, windows: Iterable[str]) -> dict[str, ExprType]:
    """The names under which a metric can be read, for those of its windows that are among ``windows``."""
    may_lack = bool(metric.denominator) or metric.kind in ("percentile", "max")
    found: dict[str, ExprType] = {}
    usable = [window for window in metric.windows if window in windows]
    for window in usable:
        found[f"{metric.name}.{window}"] = ExprType("number", metric.unit, optional=may_lack)
        found[f"{metric.name}.{window}.base"] = ExprType("number", "count")
        if window in ("week", "quarter", "year") or (window != "now" and "month" in metric.windows):
            found[f"{metric.name}.{window}.vs_previous"] = ExprType("number", "ratio", optional=True)
            if metric.baseline:
                found[f"{metric.name}.{window}.vs_baseline"] = ExprType("number", "ratio", optional=True)
        if window in CALENDAR_WINDOWS:
            found[f"{metric.name}.previous_{window}"] = ExprType("number", metric.unit, optional=True)
            found[f"{metric.name}.previous_{window}.base"] = ExprType("number", "count", optional=True)
    if metric.baseline and "month" in usable:
        found[f"{metric.name}.baseline_month"] = ExprType("number", metric.unit, optional=True)
    return found


def opening_names(metric: Metric) -> dict[str, ExprType]:
    """The names under which a metric can be read of the days around the opening of a deadline's item."""
    if "day" not in metric.windows:
        return {}
    value = ExprType(
        "number", metric.unit, optional=bool(metric.denominator) or metric.kind in ("percentile", "max")
    )
    found: dict[str, ExprType] = {}
    for window in AROUND_OPENING:
        found[f"{metric.name}.{window}"] = value
        found[f"{metric.name}.{window}.base"] = ExprType("number", "count")
    found[f"{metric.name}.since_opened.vs_before"] = ExprType("number", "ratio", optional=True)
    return found


ROSTER_SCOPE = {f"roster.{name}": ExprType("string") for name in ("team", "site", "position")}


# --- expressions with places ------------------------------------------------------------------------------------------


def condition(node: Node, scope: Mapping[str, ExprType]) -> Expr:
    """The condition that stands at ``node``; ``true`` is the one that always holds."""
    text = scalar(node)
    if text.strip() == "true":
        return ALWAYS
    try:
        return parse_condition(text, scope)
    except ExpressionError as error:
        raise _placed(node, error) from None


def amount(node: Node, scope: Mapping[str, ExprType]) -> Expr:
    """The amount that stands at ``node``."""
    text = scalar(node)
    try:
        return parse_amount(text, scope)
    except ExpressionError as error:
        raise _placed(node, error) from None


def _placed(node: Node, error: ExpressionError) -> PackError:
    """The mistake with its place in the file where the text stands in one line, else with the expression's column."""
    place = node.place
    if node.inline:
        column = place.column + error.column - 1 + (1 if node.quoted else 0)
        return PackError(Place(place.file, place.line, column), node.path, error.wrong, error.right)
    wrong = f"column {error.column} of the expression: {error.wrong}"
    return PackError(place, node.path, wrong, error.right)


def comparisons(condition: Condition) -> Iterable[Compare]:
    """Every comparison in a condition."""
    match condition:
        case And(parts=parts) | Or(parts=parts):
            for part in parts:
                yield from comparisons(part)
        case Compare():
            yield condition
        case Known():
            return


def millis(unit: str) -> int:
    """Milliseconds in one of ``TIME_UNITS``."""
    return MILLIS[unit]
