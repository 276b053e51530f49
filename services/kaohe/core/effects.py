"""What a rule that fired does: points with their arithmetic, words, and the decision that carries them.

Everything is exact: points are fractions that end within nine decimals, and each line of the arithmetic is kept, so
that anyone can follow an amount from the facts to the last digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

import msgspec

from kaohe.core.counting import Layout
from kaohe.core.expressions import Expr, evaluate, names
from kaohe.core.facts import Fact, Moment, Reader, fact_text, number_text, reader, used_fact, used_parameter
from kaohe.core.model import Amount, Effect, Pack, Rule
from kaohe.core.series import span_ms
from kaohe.decisions import Step, UsedFact, UsedParameter, Words

_PLACEHOLDER = re.compile(r"\{([a-zA-Z_][\w.]*)\}")
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
        wanted.update(name for name in _PLACEHOLDER.findall(template) if "." in name)
    return tuple(sorted(wanted))


def rolling_spans(packs: Mapping[str, Pack], level: str) -> tuple[int, ...]:
    """The spans of the rolling windows that rules of this level read, in milliseconds, rising.

    Agents are many: a window that no rule looks at is not kept for them.
    """
    rules = [rule for pack in packs.values() for rule in pack.rules if level in rule.levels]
    found = {name for rule in rules for effect in rule.effects for name in names_of(rule, effect)}
    windows = {name.split(".")[1] for name in found if ".rolling_" in name}
    return tuple(sorted(span_ms(window) for window in windows))


def used(
    layout: Layout, pack: Pack, rule: Rule, effect: Effect, moment: Moment
) -> tuple[dict[str, UsedFact], dict[str, UsedParameter]]:
    """The facts and the parameters that the decision rests on."""
    facts: dict[str, UsedFact] = {}
    parameters: dict[str, UsedParameter] = {}
    for name in names_of(rule, effect):
        if name.startswith("p."):
            parameters[name[2:]] = used_parameter(pack.parameters[name[2:]], moment.day)
        else:
            facts[name] = used_fact(layout, pack, name, moment)
    if effect.amount is not None and effect.amount.table:
        word = fact_text(reader(layout, pack, effect.amount.by)(moment)) or ""
        parameters[effect.amount.table] = used_parameter(
            pack.parameters[effect.amount.table], moment.day, word
        )
    return facts, parameters


def explain(
    rule: Rule,
    worked: Worked,
    facts: Mapping[str, UsedFact],
    parameters: Mapping[str, UsedParameter],
    frame: Mapping[str, str],
) -> Words:
    """The decision in one readable sentence in both languages.

    ``frame`` has ``subject``, ``period`` and ``points``. A rule's own template may name these, any fact and any
    parameter in braces; a rule without one gets its title with the facts and the arithmetic.
    """
    sentences = []
    for template, title, nothing in (
        (rule.explanation.en, rule.title.en, "no data"),
        (rule.explanation.zh, rule.title.zh, "无数据"),
    ):
        known = {name: readable(fact.value, fact.unit, nothing) for name, fact in facts.items()}
        known |= {f"p.{name}": readable(used.value, used.unit, nothing) for name, used in parameters.items()}
        known |= frame
        if template:
            sentences.append(_filled(template, known))
        else:
            sentences.append(_default_sentence(title, worked, facts, parameters, frame))
    return Words(en=sentences[0], zh=sentences[1])


def _filled(template: str, known: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), template)


@lru_cache(maxsize=8_192)
def readable(value: str | None, unit: str, nothing: str) -> str:
    """A fact or parameter as people read it: ratios in per cent, long numbers to two places. The exact value stands
    beside it in the decision."""
    if value is None:
        return nothing
    try:
        number = Fraction(value.partition(" ")[0])
    except (ValueError, ZeroDivisionError):
        return value
    if unit == "ratio":
        return f"{number_text(round(100 * number, 2))}%"
    return number_text(round(number, 2))


def _default_sentence(
    title: str,
    worked: Worked,
    facts: Mapping[str, UsedFact],
    parameters: Mapping[str, UsedParameter],
    frame: Mapping[str, str],
) -> str:
    parts = [f"{name} = {fact.value if fact.value is not None else '?'}" for name, fact in facts.items()]
    parts += [f"{name} = {parameter.value}" for name, parameter in parameters.items()]
    lines = "; ".join(f"{step.what}: {step.calculation} = {step.result}" for step in worked.steps)
    about = " ".join(part for part in (frame["subject"], frame["period"]) if part)
    text = f"{title} ({about}): {', '.join(parts)}" if parts else f"{title} ({about})"
    return f"{text}; {lines}" if lines else text
