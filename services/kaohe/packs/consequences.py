"""What follows when a parameter's figure changes: which rules apply sooner, what costs more, which grade is harder.

Theory of operation: a parameter is found again by its name wherever a pack uses it: in conditions and amounts of rules,
in the conditions of metrics, as the time of a deadline, in the scorecard, or in any other part of the pack. Where the
use says what more or less of it means (``rate > p.limit``, points for each step, a cap), the sentence says it;
elsewhere it says only that the figure is used there, which is all that can be known without events.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

import msgspec

from kaohe.core.expressions import Comparison, Expr, Junction, Name, Not, names
from kaohe.core.model import Amount, Effect, Metric, Pack, Rule, Scorecard, Value
from kaohe.decisions import Words

Direction = Literal["up", "down", ""]
"""Whether a figure rose or fell; empty where that has no meaning (a text, a mixed table, no value before)."""

_SOONER = Words("applies sooner", "更容易触发")
_LATER = Words("applies later", "更不容易触发")
_OTHERWISE = Words("applies on another condition", "触发条件改变")
_NAMED = frozenset({"name", "pack", "clause", "title", "place", "zone", "currency", "folder", "version"})


def direction(before: Value | None, after: Value | None) -> Direction:
    """Whether a figure rose or fell; a table, when all that changed in it did."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        moves = {direction(before[word], after[word]) for word in before if before[word] != after[word]}
        return moves.pop() if len(moves) == 1 else ""
    if not isinstance(before, Fraction) or not isinstance(after, Fraction) or before == after:
        return ""
    return "up" if after > before else "down"


def consequences(pack: Pack, parameter: str, moved: Direction) -> Iterator[Words]:
    """What the change of a parameter does to everything in ``pack`` that uses it, a sentence each, in file order."""
    for rule in pack.rules:
        yield from _of_rule(rule, f"p.{parameter}", moved)
    for metric in pack.metrics.values():
        if _counts_by(metric, parameter):
            yield Words(
                f"metric {metric.name} ({metric.title.en}) is counted by it",
                f"指标 {metric.name}（{metric.title.zh}）按其统计",
            )
    for deadline in pack.deadlines.values():
        if deadline.within == parameter:
            how = _either(
                moved, Words("gets longer", "延长"), Words("gets shorter", "缩短"), Words("changes", "改变")
            )
            yield Words(
                f"the time of {deadline.name} ({deadline.title.en}) {how.en}",
                f"时限 {deadline.name}（{deadline.title.zh}）{how.zh}",
            )
        if deadline.ahead == parameter:
            how = _either(
                moved,
                Words("runs out sooner", "提前"),
                Words("runs out later", "推后"),
                Words("changes", "改变"),
            )
            yield Words(
                f"{deadline.name} ({deadline.title.en}) {how.en}",
                f"时限 {deadline.name}（{deadline.title.zh}）{how.zh}",
            )
    yield from _of_scorecard(pack, parameter, moved)
    yield from _of_pay(pack, parameter, moved)
    for part in _other_parts(pack):
        label = _PARTS.get(part, Words(part, part))
        for path in mentions(getattr(pack, part), parameter):
            where = f" ({path})" if path else ""
            yield Words(f"{label.en}{where} uses it", f"{label.zh}{where}使用")


def _either(moved: Direction, up: Words, down: Words, unknown: Words) -> Words:
    return up if moved == "up" else down if moved == "down" else unknown


# --- rules ------------------------------------------------------------------------------------------------------------


def _of_rule(rule: Rule, name: str, moved: Direction) -> Iterator[Words]:
    found = [_of_condition(rule.condition, name, moved)] if name in names(rule.condition) else []
    for effect in rule.effects:
        found += _of_effect(effect, name, moved)
    if rule.report is not None and name == f"p.{rule.report.places}":
        how = _either(moved, Words("more", "增加"), Words("fewer", "减少"), Words("others", "改变"))
        found.append(Words(f"shows {how.en} of the best in reports", f"在报告中公示的人数{how.zh}"))
    for one in found:
        yield Words(
            f"rule {rule.id} ({rule.title.en}) {one.en}", f"规则 {rule.id}（{rule.title.zh}）{one.zh}"
        )


def _of_condition(condition: Expr, name: str, moved: Direction) -> Words:
    if not moved:
        return _OTHERWISE
    shifts = set(_shifts(condition, name, moved))
    return shifts.pop() if len(shifts) == 1 else _OTHERWISE


def _shifts(condition: Expr, name: str, moved: Direction) -> Iterator[Words]:
    """Whether each comparison with the parameter is satisfied by more (``_SOONER``) or by less than before."""
    match condition:
        case Junction(parts=parts):
            for part in parts:
                yield from _shifts(part, name, moved)
        case Not(operand=operand):
            for shift in _shifts(operand, name, moved):
                yield {_SOONER: _LATER, _LATER: _SOONER}.get(shift, shift)
        case Comparison(op=op, left=left, right=right) if name in names(condition):
            on_the_right = isinstance(right, Name) and right.name == name and left.name != name
            if op in ("==", "!="):
                yield _OTHERWISE
            elif on_the_right:
                yield _SOONER if (op[0] == ">") == (moved == "down") else _LATER
            else:
                yield _SOONER if (op[0] == ">") == (moved == "up") else _LATER
        case _ if name in names(condition):
            yield _OTHERWISE


def _of_effect(effect: Effect, name: str, moved: Direction) -> list[Words]:
    found: list[Words] = []
    if effect.clear is not None and name in names(effect.clear):
        found.append(Words("clears its alert on another condition", "警报解除条件改变"))
    if effect.amount is not None:
        found += _of_amount(effect.amount, effect.kind, name, moved)
    return found


def _of_amount(amount: Amount, kind: str, name: str, moved: Direction) -> list[Words]:
    found: list[Words] = []
    verb = Words("deducts", "扣分") if kind == "deduct" else Words("awards", "加分")
    if amount.table and name == f"p.{amount.table}":
        found.append(Words("gives other points", "分值改变"))
    if amount.points is not None and name in names(amount.points):
        step = Words(" per step", "每步") if amount.per is not None else Words("", "")
        how = _either(moved, Words("more", "增加"), Words("less", "减少"), Words("otherwise", "改变"))
        found.append(Words(f"{verb.en} {how.en}{step.en}", f"{step.zh}{verb.zh}{how.zh}"))
    if amount.per is not None and name in names(amount.per):
        how = _either(moved, Words("larger", "变大"), Words("smaller", "变小"), Words("other", "改变"))
        found.append(Words(f"counts {how.en} steps", f"计分步长{how.zh}"))
    if amount.limit is not None and name in names(amount.limit):
        more = (moved == "down") == (amount.direction == "over")
        how = Words("more", "增多") if more else Words("fewer", "减少")
        how = how if moved else Words("other", "改变")
        found.append(Words(f"counts {how.en} steps for the same value", f"同一数值计分步数{how.zh}"))
    if amount.at_most is not None and name in names(amount.at_most):
        how = _either(moved, Words("higher", "提高"), Words("lower", "降低"), Words("other", "改变"))
        found.append(Words(f"{verb.en} up to a {how.en} cap", f"{verb.zh}上限{how.zh}"))
    return found


# --- everything else --------------------------------------------------------------------------------------------------


def _counts_by(metric: Metric, parameter: str) -> bool:
    terms = (*metric.numerator, *metric.denominator)
    counted = any(term.where is not None and f"p.{parameter}" in names(term.where) for term in terms)
    return counted or metric.baseline == parameter or f"{{p.{parameter}}}" in metric.formula


def _of_scorecard(pack: Pack, parameter: str, moved: Direction) -> Iterator[Words]:
    main = pack.scorecard
    # A card of items stands among the cards, one of base and points beside them.
    cards = pack.cards if main is None or main in pack.cards else (main, *pack.cards)
    for card in cards:
        several = f" ({card.window} {card.level})" if len(cards) > 1 else ""
        for one in _of_card(card, parameter, moved):
            yield Words(f"{one.en}{several}", f"{one.zh}{several}")


def _of_card(card: Scorecard, parameter: str, moved: Direction) -> Iterator[Words]:
    if parameter == card.base:
        how = _either(moved, Words("higher", "提高"), Words("lower", "降低"), Words("elsewhere", "改变"))
        yield Words(f"every score starts {how.en}", f"基础分{how.zh}")
    elif parameter == card.bands:
        yield Words("grades begin at other scores", "各等级分数线改变")
    elif parameter in (card.lowest, card.highest):
        end = Words("lowest", "最低分") if parameter == card.lowest else Words("highest", "最高分")
        yield Words(f"the {end.en} possible score changes", f"{end.zh}改变")
    elif parameter == card.weights:
        yield Words("dimensions weigh otherwise", "各维度权重改变")
    else:
        for path in mentions(card, parameter):
            yield Words(f"the scorecard ({path}) uses it", f"评分（{path}）使用")


_PARTS = {"attendance": Words("attendance", "考勤"), "results": Words("what follows from grades", "等级结果"),
          "appeals": Words("appeals", "申诉")}  # fmt: skip
_PAY = {
    "share": Words("the share of pay that depends on grades", "绩效基数比例"),
    "annual_share": Words("the share of annual salaries that depends on grades", "年薪绩效比例"),
    "days": Words("how a month is paid that was not worked as a whole", "非整月计发方式"),
    "coefficients": Words("performance pay by grade", "各等级绩效系数"),
    "bonuses": Words("the bonuses by grade", "各等级奖金"),
    "bonus_share": Words("the part of the pay base that is the bonus", "等级奖金占基数比例"),
    "bonus_coefficients": Words("the bonus by grade", "各等级奖金系数"),
    "point_value": Words("what a point is worth in money", "每分金额"),
    "fines": Words("whether deductions take money", "扣分是否扣款"),
    "limit": Words("the most that a month's deductions can take", "每月扣款上限"),
    "floor": Words("the least pay of a month", "工资下限"),
    "rounding": Words("the rounding of pay", "薪酬舍入方式"),
}


def _of_pay(pack: Pack, parameter: str, moved: Direction) -> Iterator[Words]:
    how = _either(moved, Words("rises", "提高"), Words("falls", "降低"), Words("changes", "改变"))
    for field, what in _PAY.items():
        if pack.pay is not None and getattr(pack.pay, field) == parameter:
            yield Words(f"{what.en} {how.en}", f"{what.zh}{how.zh}")


def _other_parts(pack: Pack) -> list[str]:
    known = {
        "clauses", "parameters", "rules", "metrics", "deadlines", "scorecard", "cards", "pay", "scopes",
    } | _NAMED  # fmt: skip
    return [field for field in pack.__struct_fields__ if field not in known]


def mentions(thing: Any, parameter: str, path: str = "") -> Iterator[str]:
    """Where in a part of a pack a text is this parameter, as ``name`` or as ``p.name``: a path of names."""
    if isinstance(thing, str):
        if thing in (parameter, f"p.{parameter}"):
            yield path
    elif isinstance(thing, dict):
        for name, one in thing.items():
            yield from mentions(one, parameter, f"{path} {name}".strip())
    elif isinstance(thing, tuple | list):
        for one in thing:
            yield from mentions(one, parameter, f"{path} {_named(one)}".strip())
    elif isinstance(thing, msgspec.Struct) and not isinstance(thing, Words):
        for field in thing.__struct_fields__:
            value = getattr(thing, field)
            if field in _NAMED:
                continue
            several = isinstance(value, tuple) and any(_named(one) for one in value)
            own = path if several else f"{path} {field.replace('_', ' ')}".strip()
            yield from mentions(value, parameter, own)


def _named(thing: Any) -> str:
    """What a thing in a list is called, where it is called anything."""
    found = getattr(thing, "id", "") or getattr(thing, "name", "")
    return found if isinstance(found, str) else ""
