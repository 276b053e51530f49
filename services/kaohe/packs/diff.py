"""What differs between two packs, in words.

Theory of operation: every part of both packs is laid out flat, as texts under short paths (``when``, ``then 1``,
``covered by``), and paths are compared. What has a wording of its own (conditions, points, dated values, triggers) is
laid out in it; everything else, also a part that this module has never heard of, is laid out by its structure, so that
no change goes unseen. Left out is only what says nothing about the policy: where in its file a thing stands, the order
of things that have names, and the pack's own name and version, which say which two packs are compared.

A parameter is compared by the days on which its value differs. What follows from it is said by ``consequences``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Literal, get_args

import msgspec

from kaohe.core.expressions import Expr
from kaohe.core.model import Amount, Effect, Metric, Pack, Parameter, Rule, Value
from kaohe.core.workdays import WorkCalendar
from kaohe.decisions import Words
from kaohe.packs.consequences import consequences, direction
from kaohe.packs.describe import (
    Language,
    amount_text,
    effect_text,
    expression_text,
    pick,
    trigger_text,
    value_text,
)
from kaohe.packs.rules import shown
from kaohe.packs.source import show_ms

How = Literal["added", "removed", "changed"]
Flat = dict[str, Words]

_EXPRESSIONS = get_args(Expr)
_SILENT = frozenset({"place", "folder", "scopes", "pack"})
"""Fields that say nothing about the policy."""
_HEAD = ("title", "zone", "currency", "in_force_from", "grace_ms", "evaluate_ms")
_IDENTITY = frozenset({"name", "version"})
_PARTS = {
    "pack": Words("pack", "规则包"),
    "clauses": Words("clause", "条款"),
    "parameters": Words("parameter", "参数"),
    "metrics": Words("metric", "指标"),
    "deadlines": Words("deadline", "时限"),
    "rules": Words("rule", "规则"),
    "scorecard": Words("scorecard", "评分"),
    "attendance": Words("attendance", "考勤"),
    "pay": Words("pay", "薪酬"),
    "results": Words("results", "等级结果"),
    "appeals": Words("appeals", "申诉"),
}
_HOW = {
    "added": Words("added", "新增"),
    "removed": Words("removed", "删除"),
    "changed": Words("changed", "修改"),
}
_FIELDS = {
    "clause": "条款",
    "title": "名称",
    "text": "条文",
    "kinds": "类别",
    "judged": "考核",
    "when": "条件",
    "then": "结果",
    "levels": "层级",
    "explanation": "说明",
    "evidence": "证据",
    "incident": "事件标识",
    "formula": "公式",
    "unit": "单位",
    "minimum": "最小值",
    "maximum": "最大值",
    "choices": "可选值",
    "value": "数值",
    "dates": "生效日期",
    "windows": "窗口",
    "zone": "时区",
    "currency": "货币",
    "in_force_from": "生效日期",
    "grace": "宽限",
    "evaluate": "评估间隔",
    "opens": "起始事件",
    "met_by": "完成事件",
    "cancelled_by": "取消事件",
    "within": "时限",
    "base": "基础分",
    "lowest": "最低分",
    "highest": "最高分",
    "bands": "等级线",
}


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs: ``what`` (the path), since and until which day, the texts before and after.

    None for before or after: there is nothing. ``follows`` says what the change does, as far as the packs show it.
    """

    what: str
    since: str = ""
    until: str = ""
    before: Words | None = None
    after: Words | None = None
    follows: tuple[Words, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs about one thing of a pack: a parameter, a rule, a clause, the head of the pack."""

    part: str
    name: str
    how: How
    clause: str
    title: Words
    details: tuple[Detail, ...]
    unit: str = ""


class Named(msgspec.Struct, frozen=True):
    """Which pack was compared."""

    name: str
    version: str
    title: Words


class PackDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two packs; no change: they are the same policy."""

    before: Named
    after: Named
    changes: tuple[Change, ...]


def diff(before: Pack, after: Pack) -> PackDiff:
    """What differs between two packs: head, clauses, parameters, metrics, deadlines, rules, everything else."""
    changes: list[Change] = []
    for field in ("pack", *_ordered_fields()):
        if field == "pack":
            found = list(_compare("pack", {"": _head(before)}, {"": _head(after)}, before, after))
        elif field == "parameters":
            found = list(_compare_parameters(before, after))
        else:
            found = list(_compare(field, _things(before, field), _things(after, field), before, after))
        changes += found
    return PackDiff(before=_named(before), after=_named(after), changes=tuple(changes))


def _named(pack: Pack) -> Named:
    return Named(pack.name, pack.version, pack.title)


def _ordered_fields() -> list[str]:
    others = _SILENT | _IDENTITY | {"cards", *_HEAD}  # the cards are compared as what a scorecard is made of
    fields = [one for one in Pack.__struct_fields__ if one not in others]
    return sorted(fields, key=lambda one: list(_PARTS).index(one) if one in _PARTS else len(_PARTS))


def _head(pack: Pack) -> dict[str, Any]:
    return {field: getattr(pack, field) for field in _HEAD}


def _things(pack: Pack, field: str) -> dict[str, Any]:
    """The named things of a part of a pack; a part that is one thing has an empty name."""
    part = getattr(pack, field)
    if field == "scorecard" and pack.cards:
        return {f"{card.window} {card.level}": card for card in pack.cards}
    if part is None or part in ((), {}):
        return {}
    if isinstance(part, dict):
        return part
    if isinstance(part, tuple) and all(_own_name(one) for one in part):
        return {_own_name(one): one for one in part}
    return {"": part}


def _own_name(thing: Any) -> str:
    found = getattr(thing, "id", "") or getattr(thing, "name", "")
    return found if isinstance(found, str) else ""


# --- comparing --------------------------------------------------------------------------------------------------------


def _compare(
    part: str, olds: Mapping[str, Any], news: Mapping[str, Any], before: Pack, after: Pack
) -> Iterator[Change]:
    for name in [*olds, *(one for one in news if one not in olds)]:
        old, new = olds.get(name), news.get(name)
        old_flat, new_flat = _flat_of(old), _flat_of(new)
        details = _details(old_flat, new_flat)
        if details or (old is None) != (new is None):
            yield _change(part, name, old, new, details, after if new is not None else before)


def _change(part: str, name: str, old: Any, new: Any, details: list[Detail], pack: Pack) -> Change:
    known = new if new is not None else old
    how: How = "changed" if old is not None and new is not None else "added" if new is not None else "removed"
    title = getattr(known, "title", None)
    clause = name if part == "clauses" else getattr(known, "clause", "")
    return Change(
        part=part, name=name, how=how, clause=clause if isinstance(clause, str) else "",
        title=title if isinstance(title, Words) else pack.title if part == "pack" else Words("", ""),
        details=tuple(details), unit=known.unit if isinstance(known, Parameter) else "",
    )  # fmt: skip


def _details(olds: Flat, news: Flat) -> list[Detail]:
    paths = [*olds, *(path for path in news if path not in olds)]
    return [
        Detail(what=path, before=olds.get(path), after=news.get(path))
        for path in paths
        if olds.get(path) != news.get(path)
    ]


def _compare_parameters(before: Pack, after: Pack) -> Iterator[Change]:
    for name in [*before.parameters, *(one for one in after.parameters if one not in before.parameters)]:
        old, new = before.parameters.get(name), after.parameters.get(name)
        known = new or old
        assert known is not None
        details = _details(_parameter(old), _parameter(new))
        details += _value_details(old, new, before if new is None else after)
        if details:
            pack = before if new is None else after
            yield _change("parameters", name, old, new, details, pack)


def _parameter(parameter: Parameter | None) -> Flat:
    """Everything about a parameter but its values."""
    return _fields(parameter, leave_out=("name", "values")) if parameter is not None else {}


def _value_details(old: Parameter | None, new: Parameter | None, pack: Pack) -> list[Detail]:
    known = new or old
    assert known is not None
    details = []
    for since, until, was, is_ in _stretches(old, new):
        if was == is_:
            continue
        moved = direction(was, is_)
        follows = consequences(pack, known.name, moved) if old is not None and new is not None else ()
        details.append(Detail(
            what="value", since=since.isoformat(), until=until.isoformat() if until else "",
            before=_value(was, is_), after=_value(is_, was), follows=tuple(follows),
        ))  # fmt: skip
    if not details and old is not None and new is not None and old.values != new.values:
        details.append(Detail(what="dates", before=_days(old), after=_days(new)))
    return details


def _stretches(
    old: Parameter | None, new: Parameter | None
) -> list[tuple[date, date | None, Value | None, Value | None]]:
    """Stretches of days with the values in force before and after: first day, last day (None: open), both values."""
    days = sorted({day for one in (old, new) if one is not None for day, _ in one.values})
    found: list[tuple[date, date | None, Value | None, Value | None]] = []
    for day in days:
        was, is_ = _in_force(old, day), _in_force(new, day)
        if found and found[-1][2:] == (was, is_):
            continue
        if found:
            found[-1] = (found[-1][0], day - timedelta(days=1), *found[-1][2:])
        found.append((day, None, was, is_))
    return found


def _in_force(parameter: Parameter | None, day: date) -> Value | None:
    if parameter is None or day < parameter.values[0][0]:
        return None
    return parameter.value_at(day)


def _value(value: Value | None, other: Value | None) -> Words | None:
    """A value as text; of two tables only the words in which they differ."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {word: number for word, number in value.items() if other.get(word) != number}
    return None if value is None or value == {} else _same(value_text(value))


def _days(parameter: Parameter) -> Words:
    return _same(", ".join(day.isoformat() for day, _ in parameter.values))


# --- laying out -------------------------------------------------------------------------------------------------------


def _same(text: str) -> Words:
    return Words(text, text)


def _flat_of(thing: Any) -> Flat:
    """Everything a thing of a pack says, as texts under short paths."""
    match thing:
        case None:
            return {}
        case Rule():
            return _rule(thing)
        case Metric():
            return _metric(thing)
    if isinstance(thing, msgspec.Struct):
        return _fields(thing, leave_out=("id", "name"))
    return _flat(thing, "")


def _rule(rule: Rule) -> Flat:
    own = ("trigger", "on", "provisional", "condition", "effects", "id")
    found: Flat = {
        "judged": Words(trigger_text(rule, "en"), trigger_text(rule, "zh")),
        "when": _same(expression_text(rule.condition)),
    }
    for number, effect in enumerate(rule.effects, start=1):
        found |= _effect(effect, f"then {number}")
    return found | _fields(rule, leave_out=own)


def _effect(effect: Effect, path: str) -> Flat:
    """What an effect does in words, and by its structure whatever these words leave out."""
    worded = ("kind", "amount", "hold_ms", "clear", "severity", "owner", "response", "grade_at_most", "proposal",
              "task", "due_ms", "waives", "incident")  # fmt: skip
    found = {path: Words(effect_text(effect, "en"), effect_text(effect, "zh"))}
    return found | {f"{path} {key}": words for key, words in _fields(effect, leave_out=worded).items()}


def _metric(metric: Metric) -> Flat:
    """A metric by its formula, and by its terms in words."""
    found = _fields(metric, leave_out=("name", "numerator", "denominator"))
    for side, terms in (("counted", metric.numerator), ("over", metric.denominator)):
        for number, term in enumerate(terms, start=1):
            key = side if len(terms) == 1 else f"{side} {number}"
            where = f" where {expression_text(term.where)}" if term.where is not None else ""
            sign = "-" if term.weight < 0 else ""
            field = f".{term.field}" if term.field else ""
            found[key] = _same(f"{sign}{term.how} {term.source}{field}{where}")
    return found


def _fields(thing: msgspec.Struct, leave_out: tuple[str, ...]) -> Flat:
    found: Flat = {}
    for field in thing.__struct_fields__:
        if field not in _SILENT and field not in leave_out:
            found |= _flat(getattr(thing, field), field)
    return found


def _days_of_years(value: WorkCalendar, path: str) -> Flat:
    """A public calendar year by year: two packs seldom differ in more than one."""
    found: Flat = {}
    for name, days in (("holidays", value.holidays), ("makeups", value.makeups)):
        for year in sorted({day.year for day in days}):
            text = ", ".join(str(day) for day in sorted(days) if day.year == year)
            found[_join(_join(path, name), str(year))] = _same(text)
    return found


def _flat(value: Any, path: str) -> Flat:
    """Any value of a pack as texts under paths; nothing at all (None, an empty text) has no path."""
    if value is None or value in ("", (), {}, []):
        return {}
    if isinstance(value, Words):
        return {path: value} if value.en or value.zh else {}
    if isinstance(value, _EXPRESSIONS):
        return {path: _same(expression_text(value))}
    if isinstance(value, Amount):
        return {path: _same(amount_text(value))}
    if isinstance(value, WorkCalendar):
        return {path: _same(value.name)} | _days_of_years(value, path)
    if isinstance(value, msgspec.Struct):
        return {
            key: words
            for field in value.__struct_fields__
            if field not in _SILENT
            for key, words in _flat(getattr(value, field), _join(path, field)).items()
        }
    if isinstance(value, Mapping):
        return {
            key: words
            for name, one in value.items()
            for key, words in _flat(one, _join(path, str(name))).items()
        }
    if isinstance(value, tuple | list | frozenset | set):
        return _flat_list(sorted(value) if isinstance(value, frozenset | set) else list(value), path)
    return {_short(path): _same(_leaf(value, path))}


def _flat_list(values: list[Any], path: str) -> Flat:
    if all(isinstance(one, str | int | Fraction | date) for one in values):
        return {path: _same(", ".join(_leaf(one, "") for one in values))}
    found: Flat = {}
    for number, one in enumerate(values, start=1):
        found |= _flat(one, _join(path, _own_name(one) or str(number)))
    return found


def _leaf(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Fraction):
        return shown(value)
    if isinstance(value, int) and path.endswith("_ms"):
        return show_ms(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def _short(path: str) -> str:
    return path.removesuffix("_ms")


def _join(path: str, more: str) -> str:
    return f"{path} {more}" if path else more


# --- text -------------------------------------------------------------------------------------------------------------


def diff_lines(found: PackDiff, language: Language) -> Iterator[str]:
    """What differs, to be read; no line at all when nothing does."""
    if not found.changes:
        return
    for one, sign in ((found.before, "---"), (found.after, "+++")):
        yield f"{sign} {one.name} {one.version}  {pick(one.title, language)}"
    for change in found.changes:
        yield ""
        yield _change_line(change, language)
        for detail in change.details:
            if detail.what == "title" and change.how != "changed":
                continue  # the line above has it
            yield from _detail_lines(detail, change, language)


def _change_line(change: Change, language: Language) -> str:
    part = pick(_PARTS.get(change.part, _same(change.part)), language)
    named = f"p.{change.name}" if change.part == "parameters" else change.name
    text = " ".join(filter(None, (part, named, pick(_HOW[change.how], language))))
    about = pick(change.title, language)
    clause = change.clause if change.clause != change.name else ""
    about = f"{clause} {about}".strip() + (f" ({change.unit})" if change.unit else "")
    return f"{text}: {about}" if about else text


def _detail_lines(detail: Detail, change: Change, language: Language) -> Iterator[str]:
    what = _field_text(detail.what, language)
    if detail.since and detail.until:
        stretch = Words(f"{detail.since} to {detail.until}", f"{detail.since}至{detail.until}")
    else:
        stretch = Words(f"from {detail.since}", f"自{detail.since}起")
    if detail.since:
        what = pick(stretch, language) if detail.what == "value" else f"{what} {pick(stretch, language)}"
    before = pick(detail.before, language) if detail.before is not None else None
    after = pick(detail.after, language) if detail.after is not None else None
    if before == after and detail.before is not None and detail.after is not None:
        # Only the other language differs: show that one.
        before, after = f"{detail.before.en} / {detail.before.zh}", f"{detail.after.en} / {detail.after.zh}"
    if change.how != "changed":
        yield f"  {what}: {after if change.how == 'added' else before}"
    elif before is None or after is None:
        sign, text = ("+", after) if before is None else ("-", before)
        yield f"  {what}: {sign} {text}"
    elif len(before) + len(after) <= _ONE_LINE:
        yield f"  {what}: {before} -> {after}"
    else:
        yield f"  {what}:"
        yield f"    - {before}"
        yield f"    + {after}"
    for follows in detail.follows:
        yield f"    {pick(follows, language)}"


_ONE_LINE = 72
"""Two texts that are longer together stand under each other."""


def _field_text(path: str, language: Language) -> str:
    if language == "en":
        return path.replace("_", " ")
    head, _, rest = path.partition(" ")
    return f"{_FIELDS.get(head, head)} {rest}".strip()


def count_text(found: PackDiff, language: Language) -> str:
    """How much differs, in one line: ``2 parameters changed, 1 rule added``."""
    counts: dict[tuple[str, How], int] = {}
    for change in found.changes:
        counts[change.part, change.how] = counts.get((change.part, change.how), 0) + 1
    texts = []
    for (part, how), count in counts.items():
        words = _PARTS.get(part, _same(part))
        if language == "zh":
            texts.append(f"{_HOW[how].zh}{words.zh} {count} 项")
        else:
            texts.append(f"{count} {words.en}{'' if count == 1 else 's'} {_HOW[how].en}")
    return ("，" if language == "zh" else ", ").join(texts)
