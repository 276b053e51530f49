"""Which events speak for what a rule says about a period or a running figure.

Theory of operation. A condition compares metrics with limits, and so says in which direction a figure is judged: as too
high or as too low. Together with how the metric is made this tells which events speak for the judgement. Of a share
that is too low it is the events below the line that are not above it (the answers of those who were not satisfied);
of one that is too high those above the line; of a mean the events beyond the limit in force at their own time; of a
count or sum its events. What a deadline or attendance counts are outcomes: they are shown by the event that opened the
item, and by the events of the shift. Where no direction can be told, all events speak that the metric is made of; and a
pack may say by ``evidence`` which they are.

A *sight* is one kind of event that speaks; a *witness* is the sights that one metric gives for one window of one rule,
with the order in which they count. Everything here follows from the pack alone; ``kaohe.core.evidence`` does the
seeing.

Time in a state of work has no events, so it is never a sight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from kaohe.core.counting import dated_source, source_of
from kaohe.core.expressions import (
    And,
    Compare,
    CompareOp,
    Condition,
    Expr,
    FieldRef,
    Name,
    Or,
    names,
    to_condition,
)
from kaohe.core.facts import metric_of
from kaohe.core.model import NOTHING_SPEAKS, Metric, Pack, Rule, Term

Order = Literal["first", "latest", "most", "least"]
"""Which events count most: the earliest, the latest, or those whose value is the largest or the smallest."""
Direction = Literal["low", "high", "both"]
JUDGED = ("period", "watch")
"""What is judged by these triggers rests on many events; everything else is about one, which is its own evidence."""
_DIRECTIONS: dict[CompareOp, Direction] = {"<": "low", "<=": "low", ">": "high", ">=": "high"}
_MIRRORED: dict[CompareOp, CompareOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class Beyond(NamedTuple):
    """That an event's value lies beyond a limit: a number, or the name of a parameter that is multiplied by ``scale``
    to get the unit of the event's fields."""

    op: CompareOp
    limit: Fraction | str
    scale: Fraction


class Sight(NamedTuple):
    """One kind of event that speaks: of ``source``, with ``where`` and with none of ``unless``.

    ``value`` are fields with their signs, added up; ``beyond`` what must hold of that sum. A sight that is ``over`` is
    the end of what was seen before: a certificate that is missing no more.
    """

    source: str
    where: Expr | None = None
    unless: tuple[Expr, ...] = ()
    value: tuple[tuple[str, int], ...] = ()
    beyond: Beyond | None = None
    over: bool = False


class Witness(NamedTuple):
    """What speaks in one window (``previous``: in the one before it); ``key`` is the same in every process and version
    that means the same."""

    key: str
    sights: tuple[Sight, ...]
    order: Order
    window: str
    previous: bool = False


class _Judged(NamedTuple):
    """A metric as a condition looks at it."""

    metric: Metric
    window: str
    aspect: str
    op: CompareOp
    limit: Fraction | str | None


def witnesses_of(pack: Pack, rule: Rule) -> tuple[Witness, ...]:
    """What speaks for a rule's judgement, in the order in which its condition looks at it; nothing for a rule about a
    single event."""
    if rule.trigger not in JUDGED:
        return ()
    judged = list(_judged(pack, rule))
    if rule.evidence is not None:
        windows = [one.window for one in judged] or ["month"]
        window = rule.on if rule.trigger == "period" else windows[0]
        return _witness(pack, rule, window, ("first", _plain(pack, rule.evidence)))
    together: dict[tuple[str, str], list[_Judged]] = {}
    for one in judged:
        together.setdefault((one.metric.name, one.window), []).append(one)
    found: list[Witness] = []
    for (_, window), looks in together.items():
        found += _witness(pack, rule, window, _sights(pack, looks))
    return tuple(found)


def _witness(
    pack: Pack, rule: Rule, window: str, seen: tuple[Order, tuple[Sight, ...]]
) -> tuple[Witness, ...]:
    order, sights = seen
    if not sights:
        return ()
    if rule.trigger == "watch":
        order = "latest"
    previous = window.startswith("previous_")
    return (Witness(_key(pack, order, sights), sights, order, window.removeprefix("previous_"), previous),)


def _key(pack: Pack, order: Order, sights: tuple[Sight, ...]) -> str:
    """A short hash of what a witness means."""
    meaning: list[str] = [order]
    for sight in sights:
        meaning.append(repr(sight))
        wanted = {name[2:] for expr in expressions_of(sight) for name in names(expr) if name[:2] == "p."}
        if sight.beyond is not None and isinstance(sight.beyond.limit, str):
            wanted.add(sight.beyond.limit)
        meaning += [f"{name}:{pack.zone}:{pack.parameters[name].values!r}" for name in sorted(wanted)]
    return blake2b("\x1f".join(meaning).encode(), digest_size=6).hexdigest()


def expressions_of(sight: Sight) -> Iterator[Expr]:
    """The conditions over an event's fields that decide whether it is seen."""
    if sight.where is not None:
        yield sight.where
    yield from sight.unless


def limit_source(beyond: Beyond, pack: Pack) -> str:
    """The limit at time ``t``, in the unit of the event's fields, as source text."""
    if isinstance(beyond.limit, str):
        return dated_source(pack.parameters[beyond.limit], pack, beyond.scale)
    scaled = beyond.limit * beyond.scale
    if scaled.denominator == 1:
        return str(scaled.numerator)
    return f"Fraction({scaled.numerator}, {scaled.denominator})"


# --- what a condition looks at ----------------------------------------------------------------------------------------


def _judged(pack: Pack, rule: Rule) -> Iterator[_Judged]:
    """The metrics that a rule judges. How many there must be to judge at all (``.base``) is asked for beside them."""
    found = [one for compare in _compares(to_condition(rule.condition)) for one in _looks(pack, compare)]
    if not found:
        found = list(_in_amounts(pack, rule))
    figures = [one for one in found if one.aspect != "base"]
    yield from figures or [one._replace(op="==", limit=None) for one in found]


def _compares(condition: Condition) -> Iterator[Compare]:
    if isinstance(condition, And | Or):
        for part in condition.parts:
            yield from _compares(part)
    elif isinstance(condition, Compare):
        yield condition


def _looks(pack: Pack, compare: Compare) -> Iterator[_Judged]:
    value = compare.value
    other = value.name if isinstance(value, FieldRef) else ""
    limit: Fraction | str | None = None
    if other.startswith("p."):
        limit = other[2:]
    elif isinstance(value, Fraction):
        limit = value
    yield from _look(pack, compare.field, compare.op, limit)
    if other and limit is None:
        yield from _look(pack, other, _MIRRORED[compare.op], None)


def _look(pack: Pack, name: str, op: CompareOp, limit: Fraction | str | None) -> Iterator[_Judged]:
    if name.partition(".")[0] not in pack.metrics:
        return
    metric, window, aspect = metric_of(pack, name)
    if not window.startswith("baseline"):
        yield _Judged(metric, window, aspect, op, None if aspect else limit)


def _in_amounts(pack: Pack, rule: Rule) -> Iterator[_Judged]:
    """What the points are worked out of, where the condition looks at no metric."""
    for effect in rule.effects:
        amount = effect.amount
        if amount is None or not isinstance(amount.of, Name):
            continue
        limit = amount.limit.name if isinstance(amount.limit, Name) else ""
        op: CompareOp = {"over": ">", "under": "<"}.get(amount.direction, "==")  # type: ignore[assignment]
        yield from _look(pack, amount.of.name, op, limit[2:] if limit.startswith("p.") else None)


# --- from metrics to sights -------------------------------------------------------------------------------------------


def _sights(pack: Pack, looks: list[_Judged]) -> tuple[Order, tuple[Sight, ...]]:
    """What speaks about one metric, and in which order it counts."""
    metric = looks[0].metric
    if metric.evidence is not None:
        return "first", _plain(pack, metric.evidence)
    directions = {_DIRECTIONS.get(one.op, "both") for one in looks}
    direction: Direction = directions.pop() if len(directions) == 1 else "both"
    limits = {(one.op, one.limit) for one in looks if one.limit is not None}
    if _is_measured(metric):
        order, sights = _measured(pack, metric, direction, limits)
    elif metric.denominator:
        order, sights = _divided(pack, metric, direction)
    else:
        order, sights = _added(pack, metric, direction)
    if not sights:
        order, sights = "first", _plain(pack, (*metric.numerator, *metric.denominator))
    return order, sights


def _plain(pack: Pack, terms: Iterable[Term]) -> tuple[Sight, ...]:
    """The events of terms that are added."""
    found = [
        Sight(source_of(pack, term), term.where)
        for term in terms
        if _has_events(term) and term.weight > 0 and term != NOTHING_SPEAKS
    ]
    return tuple(dict.fromkeys(found))


def _has_events(term: Term) -> bool:
    return not term.source.startswith("state/")


def _is_measured(metric: Metric) -> bool:
    """Whether each event has a value of its own that can be compared with the metric's limit."""
    if metric.kind in ("mean", "max", "percentile"):
        return True
    above = {(term.source, term.where) for term in metric.numerator}
    below = {(term.source, term.where) for term in metric.denominator}
    counted = not any(term.field for term in metric.denominator)
    return bool(below) and counted and above == below and all(term.field for term in metric.numerator)


def _valued(pack: Pack, terms: Iterable[Term]) -> tuple[Sight, ...]:
    """The events of terms with their values: fields of one event are added up."""
    values: dict[tuple[str, Expr | None], list[tuple[str, int]]] = {}
    for term in terms:
        if _has_events(term):
            fields = values.setdefault((source_of(pack, term), term.where), [])
            if term.field and term.how != "distinct":
                fields.append((term.field, term.weight))
    return tuple(Sight(source, where, value=tuple(fields)) for (source, where), fields in values.items())


def _measured(
    pack: Pack, metric: Metric, direction: Direction, limits: set[tuple[CompareOp, Fraction | str]]
) -> tuple[Order, tuple[Sight, ...]]:
    """Of a mean, a maximum, a percentile: the events beyond the limit; without one limit those that are furthest."""
    sights = _valued(pack, metric.numerator)
    if direction == "both":
        return "first", sights
    order: Order = "most" if direction == "high" else "least"
    if len(limits) == 1:
        op, limit = next(iter(limits))
        sights = tuple(sight._replace(beyond=Beyond(op, limit, 1 / metric.scale)) for sight in sights)
    return order, sights


def _divided(pack: Pack, metric: Metric, direction: Direction) -> tuple[Order, tuple[Sight, ...]]:
    """Of a quotient: what is above the line; or what is below it and not above."""
    above, below = metric.numerator, metric.denominator
    if direction == "both":
        known = {source_of(pack, term) for term in below}
        more = [term for term in above if source_of(pack, term) not in known]
        return "first", _plain(pack, (*below, *more))
    if direction == "high":
        return _added(pack, metric, "high")
    if any(term.field for term in (*above, *below)):
        return "most", tuple(_short_of(_valued(pack, above), _valued(pack, below)))
    return "first", tuple(_left_out(pack, above, below))


def _left_out(pack: Pack, above: tuple[Term, ...], below: tuple[Term, ...]) -> Iterator[Sight]:
    for term in below:
        if not _has_events(term) or term.weight < 0:
            continue
        inside = [one for one in above if one.source == term.source and one.weight > 0]
        if any(one.where is None or one.where == term.where for one in inside):
            continue
        unless = tuple(one.where for one in inside if one.where is not None)
        yield Sight(source_of(pack, term), term.where, unless)


def _short_of(above: tuple[Sight, ...], below: tuple[Sight, ...]) -> Iterator[Sight]:
    """Of a quotient of sums: the events whose part above the line is less than their part below, by how much."""
    got = {(sight.source, sight.where): sight.value for sight in above}
    for sight in below:
        less = got.get((sight.source, sight.where), ())
        value = (*sight.value, *((field, -sign) for field, sign in less))
        yield sight._replace(value=value, beyond=Beyond(">", Fraction(0), Fraction(1)) if value else None)


def _added(pack: Pack, metric: Metric, direction: Direction) -> tuple[Order, tuple[Sight, ...]]:
    """Of a count, a sum, a stock, or what is above a line: its events; of a sum that is too high the largest first."""
    terms = metric.numerator
    taken = tuple(term for term in terms if term.weight < 0)
    if direction == "low" and taken:
        return "first", _plain(pack, [msgspec.structs.replace(term, weight=1) for term in taken])
    if direction == "high" and all(term.field and term.how == "sum" for term in terms):
        given = Beyond(">", Fraction(0), Fraction(1))
        sights = _valued(pack, [term for term in terms if term.weight > 0])
        return "most", tuple(sight._replace(beyond=given) for sight in sights)
    sights = _plain(pack, terms)
    if metric.kind != "stock":
        return "first", sights
    if direction == "both":
        return "first", sights + _plain(pack, [msgspec.structs.replace(term, weight=1) for term in taken])
    # An item of a deadline that was missed and is met at last is the same item.
    ended = [term for term in taken if term.source.startswith("deadline/")]
    return "first", sights + tuple(Sight(source_of(pack, term), over=True) for term in ended)
