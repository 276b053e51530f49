"""What a rule that fired is worth: points with their arithmetic; and whether an alert that no longer holds is over.

Everything is exact: points are fractions that end within nine decimals, and each line of the arithmetic can be shown,
so that anyone can follow an amount from the facts to the last digit.

An amount is compiled when it is first worked out. What depends on parameters alone is calculated once for each day;
what remains for a judgement is one value, as an unreduced quotient of whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from kaohe.core.counting import Layout
from kaohe.core.counts import span_ms
from kaohe.core.expressions import Condition, Expr, Name, bind, decider, evaluate, names, to_condition
from kaohe.core.facts import (
    DAYS_KEPT,
    Fact,
    Moment,
    Quotient,
    dated,
    facts_reader,
    number_text,
    quotient_reader,
    quotient_text,
    reader,
)
from kaohe.core.model import Amount, Effect, Pack, Rule
from kaohe.decisions import Step

PLACEHOLDER = re.compile(r"\{([a-zA-Z_][\w.]*)\}")
"""A name in a rule's explanation."""


def _no_steps() -> tuple[Step, ...]:
    return ()


class Worked(msgspec.Struct, frozen=True, gc=False):
    """An amount that was worked out: points (already signed), and a function that tells how.

    Most judgements change nothing, so the lines of the arithmetic are written only when they are asked for, which must
    be before anything more is counted.
    """

    points: Fraction
    how: Callable[[], tuple[Step, ...]] = _no_steps


NOTHING = Worked(Fraction(0))

Working = Callable[[Moment], Worked]
Made = TypeVar("Made")

STEPS_KEPT = 1_000
"""How many different numbers of steps one scale remembers the points of."""


def work_out(layout: Layout, pack: Pack, effect: Effect, moment: Moment) -> Worked:
    """The points of a deduct or award effect. An amount with an unknown input is nothing."""
    working: Working = layout.remembered((id(pack), id(effect)), lambda: _working(layout, pack, effect))
    return working(moment)


def _working(layout: Layout, pack: Pack, effect: Effect) -> Working:
    amount = effect.amount
    assert amount is not None, effect.kind
    if amount.table:
        return _Table(layout, pack, amount)
    sign = -1 if effect.kind == "deduct" else 1
    return _Fixed(layout, pack, amount, sign) if amount.per is None else _Stepped(layout, pack, amount, sign)


class Steps(msgspec.Struct, frozen=True):
    """How many steps an amount has: ``floor((top * top_factor - bottom * bottom_factor) / (bottom * steps_factor))`` of
    the quotient ``of``, from 0 to ``most``, beyond which it is worth no more. ``of`` is empty for one that has none."""

    of: str = ""
    top_factor: int = 0
    bottom_factor: int = 0
    steps_factor: int = 1
    most: int = 0


def steps_on(layout: Layout, pack: Pack, effect: Effect, day: date) -> Steps | None:
    """The steps of an amount with the parameters in force on a day; None when more than these decides what it is."""
    working: Working = layout.remembered((id(pack), id(effect)), lambda: _working(layout, pack, effect))
    if isinstance(working, _Fixed):
        return working.steps()
    return working.steps_on(effect, day) if isinstance(working, _Stepped) else None


class _Table:
    """The line of a table parameter that a word names; its numbers carry their own sign."""

    def __init__(self, layout: Layout, pack: Pack, amount: Amount) -> None:
        self._by = reader(layout, pack, amount.by)
        self._parameter = pack.parameters[amount.table]

    def __call__(self, moment: Moment) -> Worked:
        word = str(self._by(moment))
        table = self._parameter.value_at(moment.day)
        assert isinstance(table, dict), self._parameter.name
        points = table.get(word, table.get("*", Fraction(0)))
        what = f"{self._parameter.name}[{word}]"
        return Worked(points, lambda: (Step("points", what, number_text(points)),))


class _Fixed:
    """Points without steps."""

    def __init__(self, layout: Layout, pack: Pack, amount: Amount, sign: int) -> None:
        assert amount.points is not None
        self._points = _Inputs(layout, pack, (amount.points,), lambda found: found[0])
        self._sign = sign

    def steps(self) -> Steps | None:
        """None at all, unless the points depend on more than parameters."""
        return Steps() if self._points.is_dated else None

    def __call__(self, moment: Moment) -> Worked:
        each = self._points(moment)
        if each is None:
            return NOTHING
        each = _ending(each)
        points = self._sign * each
        return Worked(points, lambda: (Step("points", number_text(each), number_text(points)),))


class _Scale:
    """What one step costs, how long it is, from where it counts and where it ends: all but the value itself.

    A step is ``floor((of - limit) / per)``. With ``limit`` = a/b and ``per`` = c/d that is
    ``floor((top * b * d - bottom * a * d) / (bottom * b * c))`` of the value's quotient, three factors of whole
    numbers, which are kept here.
    """

    __slots__ = (
        "_told", "_worth", "bottom_factor", "cap", "each", "limit_text", "per_text", "sign", "steps_factor",
        "top_factor",
    )  # fmt: skip

    def __init__(
        self, sign: int, each: Fraction, per: Fraction, limit: Fraction, cap: Fraction | None
    ) -> None:
        self.sign = sign
        self.each = _ending(each)
        self.cap = cap
        self.top_factor = limit.denominator * per.denominator
        self.bottom_factor = limit.numerator * per.denominator
        self.steps_factor = limit.denominator * per.numerator
        self.limit_text, self.per_text = number_text(limit), number_text(per)
        self._worth: dict[int, tuple[Fraction, tuple[Step, ...]]] = {}
        self._told: dict[Quotient, tuple[Step, ...]] = {}

    @property
    def most(self) -> int:
        """Beyond so many steps the points stay the same."""
        if self.cap is None or self.each <= 0:
            return 1 << 62
        return max(0, -(-self.cap // self.each))

    def worth(self, count: int) -> tuple[Fraction, tuple[Step, ...]]:
        """What so many steps are worth, signed, and how. The same few numbers of steps come again and again."""
        found = self._worth.get(count)
        if found is None:
            if len(self._worth) >= STEPS_KEPT:
                self._worth.clear()
            found = self._worth[count] = self._calculated(count)
        return found

    def told(self, of: Quotient, make: Callable[[], tuple[Step, ...]]) -> tuple[Step, ...]:
        """The arithmetic of a value, made when it is asked for the first time."""
        found = self._told.get(of)
        if found is None:
            if len(self._told) >= STEPS_KEPT:
                self._told.clear()
            found = self._told[of] = make()
        return found

    def _calculated(self, count: int) -> tuple[Fraction, tuple[Step, ...]]:
        charged = max(0, count)
        total = charged * self.each
        text = number_text(total)
        lines = [Step("points", f"{charged} * {number_text(self.each)}", text)]
        if self.cap is not None and total > self.cap:
            total = _ending(self.cap)
            cap = number_text(total)
            lines.append(Step("at most", f"min({text}, {cap})", cap))
        return self.sign * total, tuple(lines)


class _Stepped:
    """Points for every full step by which a value is over or under a limit."""

    def __init__(self, layout: Layout, pack: Pack, amount: Amount, sign: int) -> None:
        assert amount.points is not None
        assert amount.per is not None
        assert amount.limit is not None
        assert amount.of is not None
        self._over = amount.direction == "over"
        wanted = [amount.points, amount.per, amount.limit]
        if amount.at_most is not None:
            wanted.append(amount.at_most)
        self._scale = _Inputs(layout, pack, tuple(wanted), lambda found: _scale(sign, found))
        if isinstance(amount.of, Name):
            self._of = quotient_reader(layout, pack, amount.of.name)
        else:
            value = _Inputs(layout, pack, (amount.of,), lambda found: found[0])
            self._of = lambda moment: _quotient(value(moment))

    def steps_on(self, effect: Effect, day: date) -> Steps | None:
        """As the function of this name, for the effect that this works out."""
        assert effect.amount is not None
        if not self._scale.is_dated or not isinstance(effect.amount.of, Name):
            return None
        scale = self._scale.on_day(day)
        if scale is None:
            return Steps()
        sign = 1 if self._over else -1
        return Steps(
            effect.amount.of.name, sign * scale.top_factor, sign * scale.bottom_factor, scale.steps_factor, scale.most
        )  # fmt: skip

    def __call__(self, moment: Moment) -> Worked:
        scale, of = self._scale(moment), self._of(moment)
        if scale is None or of is None:
            return NOTHING
        top, bottom = of
        over = top * scale.top_factor - bottom * scale.bottom_factor
        count = (over if self._over else -over) // (bottom * scale.steps_factor)
        points, lines = scale.worth(count)
        return Worked(points, lambda: scale.told(of, lambda: (self._step(scale, of, count), *lines)))

    def _step(self, scale: _Scale, of: Quotient, count: int) -> Step:
        value, limit = quotient_text(*of), scale.limit_text
        first, second = (value, limit) if self._over else (limit, value)
        return Step("steps", f"floor(({first} - {second}) / {scale.per_text})", str(count))


def _scale(sign: int, found: list[Fraction | None]) -> _Scale | None:
    each, per, limit = found[:3]
    if each is None or per is None or limit is None or per <= 0:
        return None
    return _Scale(sign, each, per, limit, found[3] if len(found) > 3 else None)


def _quotient(value: Fraction | None) -> Quotient | None:
    return None if value is None else (value.numerator, value.denominator)


def _ending(points: Fraction) -> Fraction:
    """Points that end within nine decimals: what does not end (a third of a point) is rounded there, half to even."""
    return points if 10**9 % points.denominator == 0 else round(points, 9)


class _Inputs(Generic[Made]):
    """What ``make`` gives of some expressions' values at a moment. As a rule they name parameters alone (``is_dated``):
    then it is made once for each day."""

    def __init__(
        self,
        layout: Layout,
        pack: Pack,
        expressions: tuple[Expr, ...],
        make: Callable[[list[Fraction | None]], Made],
    ) -> None:
        self._expressions = expressions
        self._make = make
        wanted = sorted({name for expr in expressions for name in names(expr)})
        self._readers = [(name, reader(layout, pack, name)) for name in wanted]
        self._parameters = [(name, pack.parameters[name[2:]]) for name in wanted if name.startswith("p.")]
        self.is_dated = len(self._parameters) == len(self._readers)
        self.on_day = lru_cache(maxsize=DAYS_KEPT)(self._made_on)

    def __call__(self, moment: Moment) -> Made:
        if self.is_dated:
            return self.on_day(moment.day)
        return self._made({name: read(moment) for name, read in self._readers})

    def _made_on(self, day: date) -> Made:
        return self._made({name: dated(parameter, day) for name, parameter in self._parameters})

    def _made(self, values: Mapping[str, Fact]) -> Made:
        return self._make([_number(expr, values) for expr in self._expressions])


def _number(expr: Expr, values: Mapping[str, Fact]) -> Fraction | None:
    found = evaluate(expr, values)
    assert found is None or (isinstance(found, (int, Fraction)) and not isinstance(found, bool))
    return None if found is None else Fraction(found)


def _expressions(amount: Amount) -> list[Expr]:
    found = (amount.points, amount.per, amount.limit, amount.of, amount.at_most)
    return [expr for expr in found if expr is not None]


# --- the end of an alert ----------------------------------------------------------------------------------------------


def clears(layout: Layout, pack: Pack, rule: Rule, effect: Effect, moment: Moment) -> bool:
    """Whether an alert that no longer holds ends: by its clear condition, or because there is no data any more."""
    if effect.clear is None:
        return True
    clearing: _Clearing = layout.remembered(
        ("clears", id(pack), id(effect)), lambda: _Clearing(layout, pack, rule.condition, effect.clear)
    )
    return clearing(moment)


def ending(pack: Pack, rule: Rule, effect: Effect, day: date) -> tuple[Condition, frozenset[str]] | None:
    """What ends an alert that no longer holds, for a screen: its clear condition with the parameters in force on a day,
    and the fields without whose data it ends as well. None for one that ends in any case."""
    if effect.clear is None:
        return None
    wanted = names(effect.clear) | names(rule.condition)
    values = {name: dated(pack.parameters[name[2:]], day) for name in wanted if name[:2] == "p."}
    return bind(to_condition(effect.clear), values), frozenset(name for name in wanted if name[:2] != "p.")


class _Clearing:
    """An alert's clear condition, compiled; the parameters in force on a day stand in it."""

    def __init__(self, layout: Layout, pack: Pack, condition: Expr, clear: Expr | None) -> None:
        assert clear is not None
        self._pack = pack
        self._clear = to_condition(clear)
        wanted = names(clear) | names(condition)
        self._facts = facts_reader(layout, pack, [name for name in wanted if name[:2] != "p."])
        self._parameters = sorted(name for name in wanted if name[:2] == "p.")
        self._on_day = lru_cache(maxsize=DAYS_KEPT)(self._decider)

    def __call__(self, moment: Moment) -> bool:
        facts = self._facts(moment)
        if None in facts.values():
            return True
        return self._on_day(moment.day)(facts)

    def _decider(self, day: date) -> Callable[[Mapping[str, Any]], bool]:
        values = {name: dated(self._pack.parameters[name[2:]], day) for name in self._parameters}
        return decider(bind(self._clear, values))


# --- what was used ----------------------------------------------------------------------------------------------------


def decided_by(rule: Rule, effect: Effect) -> set[str]:
    """Every name that the condition, the effect's amount and the end of its alert look at."""
    wanted = set(names(rule.condition))
    if effect.clear is not None:
        wanted |= names(effect.clear)
    if effect.amount is not None:
        for expr in _expressions(effect.amount):
            wanted |= names(expr)
        if effect.amount.by:
            wanted.add(effect.amount.by)
    return wanted


def names_of(rule: Rule, effect: Effect) -> tuple[str, ...]:
    """Every name that the condition, the effect's amount, the explanation and a report look at, sorted."""
    wanted = decided_by(rule, effect)
    for template in (rule.explanation.en, rule.explanation.zh):
        wanted.update(name for name in PLACEHOLDER.findall(template) if "." in name)
    if rule.report is not None:
        wanted.update(rule.report.figures)
    return tuple(sorted(wanted))


def rolling_spans(packs: Mapping[str, Pack], level: str) -> tuple[int, ...]:
    """The spans of the rolling windows that rules of this level read, in milliseconds, rising.

    Agents are many: a window that no rule looks at is not kept for them.
    """
    rules = [rule for pack in packs.values() for rule in pack.rules if level in rule.levels]
    found = {name for rule in rules for effect in rule.effects for name in names_of(rule, effect)}
    windows = {name.split(".")[1] for name in found if ".rolling_" in name}
    return tuple(sorted(span_ms(window) for window in windows))
