"""From ``pay.yaml`` to ``kaohe.core.model.PayTerms``: how a month's grades and entries become pay.

::

    base: {clause: CK-02, share: p.pay_base_share, annual_share: p.annual_salary_share, inside_gross: true}
    performance: {clause: CK-06, coefficients: p.grade_coefficients, bonuses: p.grade_bonuses}
    money: {clause: FA-13, packs: [full-attendance], point_value: p.point_value, fines: p.fines}
    guard: {limit: p.deduction_limit, floor: p.pay_floor}
    rounding: p.pay_rounding

``performance.grades_of`` names another pack whose grades count; ``money`` may be left out (then no entry is money), and
so may its ``packs`` (then they are the pack's own entries). ``point_value`` is one amount for each point, or a table
from rules to amounts (``"*"`` is every other rule; without it the points of other rules are no money): with one point
an incident, that is a fine in money. ``performance_bonus`` and ``year_bonus`` name the rules whose awards have a
component of their own. Every figure is a parameter, so each has its clause, its bounds and the day from
which it holds.

A pack without ``base``, ``performance``, ``guard`` and ``rounding`` does not pay: it adds its part to what another one
pays that is loaded with it, ``money`` for its entries, and a bonus by its grades::

    bonus: {clause: LS-14, share: p.bonus_share, coefficients: p.bonus_coefficients}
"""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import Any

from kaohe.core.model import AwardComponent, Parameter, PayTerms
from kaohe.core.pay import DAYS
from kaohe.packs.holidays import CALENDARS
from kaohe.packs.metrics import MetricReader
from kaohe.packs.rules import shown
from kaohe.packs.source import NO_TEXTS, Fields, Node, Reader, boolean, choice, kebab, nearest, several

AWARDS: tuple[AwardComponent, ...] = ("performance_bonus", "year_bonus")
FINES = ("off", "on")
ROUNDINGS = ("half_up", "half_even", "down")
_TABLE = ("number", "table")
_PAYING = ("base", "performance", "guard", "rounding")
_KEYS = ("base", "performance", "bonus", "money", "guard", "rounding")


def read_pay(
    node: Node | None,
    base: MetricReader,
    own_name: str,
    grades: tuple[str, ...],
    has_scorecard: bool,
    rules: Collection[str],
) -> PayTerms | None:
    """``pay.yaml``; None when there is none or it is wrong (the mistakes are noted).

    ``grades`` are those of the pack's own scorecard, ``rules`` its own rules.
    """
    if node is None:
        return None
    fields = Fields(node, base.problems, _KEYS, "pay.yaml")
    adds_only = ("bonus" in fields or "money" in fields) and not any(key in fields for key in _PAYING)
    bonus = _part(fields, "bonus", ("clause", "share", "coefficients"), base, must=False)
    money = _part(fields, "money", ("clause", "packs", "point_value", "fines", *AWARDS), base, must=False)
    adding = _bonus(bonus, base, grades, has_scorecard) | _money(money, base, own_name, rules)
    if adds_only:
        parts = [one for one in (fields, bonus, money) if one is not None]
        paying: dict[str, Any] = dict.fromkeys(_TERMS, "") | {"inside_gross": True, "grades_pack": own_name}
    else:
        base_part = _part(
            fields, "base", ("clause", "share", "annual_share", "inside_gross", "days", "calendar"), base
        )
        performance = _part(fields, "performance", ("clause", "grades_of", "coefficients", "bonuses"), base)
        guard = _part(fields, "guard", ("limit", "floor"), base)
        rounding = fields.need("rounding", _word(base, ROUNDINGS), "")
        parts = [one for one in (fields, base_part, performance, bonus, money, guard) if one is not None]
        if base_part is None or performance is None or guard is None:
            return None
        paying = _paying(base_part, performance, guard, base, own_name, has_scorecard) | {
            "rounding": rounding
        }
        if all(one.ok() for one in parts) and paying["grades_pack"] == own_name:
            for key in ("coefficients", "bonuses"):
                _check_grades(performance, key, base.parameters[paying[key]], grades)
    if not all(one.ok() for one in parts):
        return None
    return PayTerms(**paying, **adding, place=node.place)


_TERMS = (
    "base_clause", "share", "annual_share", "performance_clause", "coefficients", "bonuses", "limit", "floor",
    "rounding",
)  # fmt: skip


def _paying(
    part: Fields, performance: Fields, guard: Fields, base: MetricReader, own_name: str, has_scorecard: bool
) -> dict[str, Any]:
    """What only the terms have that pay: base, performance pay and guard."""
    ratio, minor = _figure(base, "ratio", Fraction(0), Fraction(1)), _figure(base, "minor", Fraction(0), None)
    table = base.parameter("ratio", kinds=("table",))
    grades_of = performance.take("grades_of", kebab, own_name)
    if grades_of == own_name and not has_scorecard:
        performance.wrong(
            "grades_of",
            "the pack has no scorecard, so there are no grades",
            "name the pack whose grades count",
        )
    named = part.take("calendar", choice(CALENDARS, "calendar"), "")
    for key, other in (("days", "calendar"), ("calendar", "days")):
        if key in part and other not in part:
            part.wrong(key, f"there is no `{other}` beside it", f"add `{other}:`, or leave both out")
    return {
        "base_clause": part.need("clause", base.clause, ""),
        "share": part.need("share", ratio, ""),
        "annual_share": part.need("annual_share", ratio, ""),
        "inside_gross": part.need("inside_gross", boolean, True),
        "days": part.take("days", _word(base, DAYS), ""),
        "calendar": base.calendars[named] if named else None,
        "performance_clause": performance.need("clause", base.clause, ""),
        "grades_pack": grades_of,
        "coefficients": performance.need("coefficients", table, ""),
        "bonuses": performance.need("bonuses", table, ""),
        "limit": guard.need("limit", ratio, ""),
        "floor": guard.need("floor", minor, ""),
    }


def _bonus(
    part: Fields | None, base: MetricReader, grades: tuple[str, ...], has_scorecard: bool
) -> dict[str, Any]:
    """The bonus by the pack's own grades; nothing where there is none."""
    if part is None:
        return {}
    found: dict[str, Any] = {
        "bonus_clause": part.need("clause", base.clause, ""),
        "bonus_share": part.need("share", _figure(base, "ratio", Fraction(0), Fraction(1)), ""),
        "bonus_coefficients": part.need("coefficients", base.parameter("ratio", kinds=("table",)), ""),
    }
    if not has_scorecard:
        part.wrong("clause", "the pack has no scorecard, so there are no grades", "leave the part bonus out")
    elif part.ok():
        _check_grades(part, "coefficients", base.parameters[found["bonus_coefficients"]], grades)
    return found


def _money(part: Fields | None, base: MetricReader, own_name: str, rules: Collection[str]) -> dict[str, Any]:
    """What entries are worth; no entry is money where nothing says so."""
    if part is None:
        return {"money_clause": "", "packs": NO_TEXTS, "point_value": "", "fines": "", "components": {}}
    own: tuple[str, ...] = (own_name,)
    found: dict[str, Any] = {
        "money_clause": part.need("clause", base.clause, ""),
        "packs": part.take("packs", several(kebab), own),
        "point_value": part.need("point_value", _figure(base, "minor", Fraction(0), None, _TABLE), ""),
        "fines": part.need("fines", _word(base, FINES, exactly=True), ""),
        "components": {rule: kind for kind in AWARDS for rule in part.take(kind, several(kebab), NO_TEXTS)},
    }
    twice = {*part.take(AWARDS[0], several(kebab), NO_TEXTS)} & {
        *part.take(AWARDS[1], several(kebab), NO_TEXTS)
    }
    for rule in sorted(twice):
        part.wrong(AWARDS[1], f"{rule} is the {AWARDS[0]} as well", "name it in one of them")
    if part.ok() and found["packs"] == own:
        for wrong in unknown_rules(base.parameters[found["point_value"]], rules):
            part.wrong("point_value", f"there is a line for {wrong!r}", nearest(wrong, rules, "rule"))
        for wrong in sorted(found["components"].keys() - {*rules}):
            part.wrong(
                found["components"][wrong], f"there is no rule {wrong!r}", nearest(wrong, rules, "rule")
            )
    return found


def unknown_rules(points: Parameter, rules: Collection[str]) -> list[str]:
    """The lines of a table of points' values that are for no rule that there is."""
    tables = [value for _, value in points.values if isinstance(value, dict)]
    return sorted({word for table in tables for word in table if word != "*" and word not in rules})


def _part(
    fields: Fields, key: str, known: tuple[str, ...], base: MetricReader, *, must: bool = True
) -> Fields | None:
    if must and key not in fields:
        fields.need(key, boolean, False)  # notes that it lacks
        return None
    node = fields.node.get(key)
    return Fields(node, base.problems, known, f"the part {key}") if node is not None else None


def _figure(
    base: MetricReader, unit: str, low: Fraction, high: Fraction | None, kinds: tuple[str, ...] = ("number",)
) -> Reader[str]:
    """A parameter of ``unit`` whose bounds lie between ``low`` and ``high``."""
    find = base.parameter(unit, kinds=kinds)

    def read(node: Node) -> str:
        found = base.parameters[find(node)]
        least, most = found.minimum, found.maximum
        if least is not None and least < low:
            node.fail(
                f"{node.text} may be {shown(least)}", f"give the parameter a min of {shown(low)} or more"
            )
        if high is not None and most is not None and most > high:
            node.fail(
                f"{node.text} may be {shown(most)}", f"give the parameter a max of {shown(high)} or less"
            )
        return found.name

    return read


def _word(base: MetricReader, words: tuple[str, ...], *, exactly: bool = False) -> Reader[str]:
    """A text parameter whose choices are among ``words`` (or all of them)."""
    find = base.parameter("text", kinds=("text",))

    def read(node: Node) -> str:
        found = base.parameters[find(node)]
        strange = [choice for choice in found.choices if choice not in words]
        if strange or (exactly and set(found.choices) != set(words)):
            named = ", ".join(found.choices)
            node.fail(
                f"{node.text} has the choices {named}",
                f"give the parameter {'the choices' if exactly else 'choices among'} {', '.join(words)}",
            )
        return found.name

    return read


def _check_grades(fields: Fields, key: str, parameter: Parameter, grades: tuple[str, ...]) -> None:
    """On every day the table has a line for each grade and for nothing else, and no share is below nothing."""
    for day, table in parameter.values:
        assert isinstance(table, dict)
        for grade in grades:
            if grade not in table and "*" not in table:
                fields.wrong(key, f"from {day} the grade {grade} has no line", f'add `{grade}:` or `"*":`')
        for word, share in table.items():
            if word != "*" and word not in grades:
                fields.wrong(key, f"from {day} there is a line for {word!r}", nearest(word, grades, "grade"))
            if share < 0:
                fields.wrong(key, f"from {day} the share of {word} is {shown(share)}", "write 0 or more")
