"""What a rule that fired is worth: points with their arithmetic.

Everything is exact: points are fractions that end within nine decimals, and each line of the arithmetic is kept, so
that anyone can follow an amount from the facts to the last digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

import msgspec

from kaohe.core.counting import Layout
from kaohe.core.expressions import Expr, evaluate, names
from kaohe.core.facts import Fact, Moment, Reader, number_text, reader
from kaohe.core.model import Amount, Effect, Pack, Rule
from kaohe.core.series import span_ms
from kaohe.decisions import Step

PLACEHOLDER = re.compile(r"\{([a-zA-Z_][\w.]*)\}")
"""A name in a rule's explanation."""


class Worked(msgspec.Struct, frozen=True):
    """An amount that was worked out: points (already signed) and how."""

    points: Fraction
    steps: tuple[Step, ...]


NOTHING = Worked(Fraction(0), ())


def work_out(layout: Layout, pack: Pack, effect: Effect, moment: Moment) -> Worked:
    """The points of a deduct or award effect. An amount with an unknown input is nothing."""
    amount = effect.amount
    assert amount is not None, effect.kind
    if amount.table:
        return _from_table(layout, pack, amount, moment)
    sign = -1 if effect.kind == "deduct" else 1
    values = _values(layout, pack, amount, moment)
    each = _number(amount.points, values)
    if each is None:
        return NOTHING
    each = _ending(each)
    if amount.per is None:
        points = sign * each
        return Worked(points, (Step("points", number_text(each), number_text(points)),))
    per, limit, of = _number(amount.per, values), _number(amount.limit, values), _number(amount.of, values)
    if per is None or limit is None or of is None or per <= 0:
        return NOTHING
    over = of - limit if amount.direction == "over" else limit - of
    count = max(0, over // per)
    first, second = (of, limit) if amount.direction == "over" else (limit, of)
    lines = [
        Step(
            "steps",
            f"floor(({number_text(first)} - {number_text(second)}) / {number_text(per)})",
            str(over // per),
        ),
        Step("points", f"{count} * {number_text(each)}", number_text(count * each)),
    ]
    total = count * each
    cap = _number(amount.at_most, values) if amount.at_most is not None else None
    if cap is not None and total > cap:
        cap = _ending(cap)
        lines.append(Step("at most", f"min({number_text(total)}, {number_text(cap)})", number_text(cap)))
        total = cap
    return Worked(sign * total, tuple(lines))


def _ending(points: Fraction) -> Fraction:
    """Points that end within nine decimals: what does not end (a third of a point) is rounded there, half to even."""
    return points if 10**9 % points.denominator == 0 else round(points, 9)


def _from_table(layout: Layout, pack: Pack, amount: Amount, moment: Moment) -> Worked:
    word = str(reader(layout, pack, amount.by)(moment))
    table = pack.parameters[amount.table].value_at(moment.day)
    assert isinstance(table, dict), amount.table
    points = table.get(word, table.get("*", Fraction(0)))
    return Worked(points, (Step("points", f"{amount.table}[{word}]", number_text(points)),))


def _expressions(amount: Amount) -> list[Expr]:
    found = (amount.points, amount.per, amount.limit, amount.of, amount.at_most)
    return [expr for expr in found if expr is not None]


def _values(layout: Layout, pack: Pack, amount: Amount, moment: Moment) -> dict[str, Fact]:
    return {
        name: read(moment)
        for name, read in layout.remembered((pack.key, id(amount)), lambda: _readers(layout, pack, amount))
    }


def _readers(layout: Layout, pack: Pack, amount: Amount) -> tuple[tuple[str, Reader], ...]:
    wanted = {name for expr in _expressions(amount) for name in names(expr)}
    return tuple((name, reader(layout, pack, name)) for name in sorted(wanted))


def _number(expr: Expr | None, values: Mapping[str, Fact]) -> Fraction | None:
    assert expr is not None
    found = evaluate(expr, values)
    assert found is None or (isinstance(found, (int, Fraction)) and not isinstance(found, bool))
    return None if found is None else Fraction(found)


# --- what was used ----------------------------------------------------------------------------------------------------


def names_of(rule: Rule, effect: Effect) -> tuple[str, ...]:
    """Every name that the condition, the effect's amount and the explanation look at, sorted."""
    wanted = set(names(rule.condition))
    if effect.amount is not None:
        for expr in _expressions(effect.amount):
            wanted |= names(expr)
        if effect.amount.by:
            wanted.add(effect.amount.by)
    if effect.clear is not None:
        wanted |= names(effect.clear)
    for template in (rule.explanation.en, rule.explanation.zh):
        wanted.update(name for name in PLACEHOLDER.findall(template) if "." in name)
    return tuple(sorted(wanted))


def rolling_spans(packs: Mapping[str, Pack], level: str) -> tuple[int, ...]:
    """The spans of the rolling windows that rules of this level read, in milliseconds, rising.

    Agents are many: a window that no rule looks at is not kept for them.
    """
    rules = [rule for pack in packs.values() for rule in pack.rules if level in rule.levels]
    found = {name for rule in rules for effect in rule.effects for name in names_of(rule, effect)}
    windows = {name.split(".")[1] for name in found if ".rolling_" in name}
    return tuple(sorted(span_ms(window) for window in windows))
