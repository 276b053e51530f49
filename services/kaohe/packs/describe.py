"""A pack, a rule and their figures in words, for people who own or meet a policy.

Everything here returns plain data (for ``--json``) or lines of text in one language. Conditions are written back from
their checked trees, so what is shown is what is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec

from kaohe.core.expressions import (
    Arithmetic,
    Comparison,
    Expr,
    Junction,
    Membership,
    Minus,
    Name,
    Not,
    Number,
    Presence,
    Text,
    Truth,
)
from kaohe.core.model import Amount, Effect, Metric, Pack, Parameter, Rule, Value
from kaohe.decisions import Words
from kaohe.packs.load import Coverage, Loaded
from kaohe.packs.rules import names_of, shown
from kaohe.packs.source import show_ms

Language = Literal["en", "zh"]

_TRIGGERS = {
    "event": Words("at each event {on}", "每次事件 {on}"),
    "deadline": Words("at the deadline {on}", "时限 {on}"),
    "attendance": Words("at each {on} of attendance", "出勤结果 {on}"),
    "period": Words("over each {on}, moving while it runs", "按{on}考核，期间暂计"),
    "watch": Words("live, at every evaluation", "实时监控"),
}
_AT_CLOSE = Words("at the close of each {on}", "{on}结束时考核")
_FIGURES = {
    "not_in": ("grace",),
    "not_logged_in": ("login_grace",),
    "late": ("late_after", "absent_after"),
    "early_leave": ("early_after", "absent_after"),
    "absent": ("absent_after",),
    "missing_out": ("missing_out_after",),
    "leave": ("leave_quota", "leave_breaks", "leave_attended"),
    "full_month": ("full_month_days", "missing_out_breaks", "exempted_keeps", "leave_breaks"),
}
"""What in ``attendance.yaml`` decides about an outcome."""
_LABELS = {
    "clause": Words("clause", "条款"),
    "clauses": Words("clauses", "条款"),
    "title": Words("title", "名称"),
    "pack": Words("pack", "规则包"),
    "level": Words("level", "层级"),
    "judged": Words("judged", "考核"),
    "when": Words("when", "条件"),
    "then": Words("then", "结果"),
    "explanation": Words("explanation", "说明"),
    "parameters": Words("parameters", "参数"),
    "metrics": Words("metrics", "指标"),
    "deadlines": Words("deadlines", "时限"),
    "rules": Words("rules", "规则"),
    "scorecard": Words("scorecard", "评分"),
    "pay": Words("pay terms", "薪酬条款"),
    "workflow": Words("calendar of steps", "考核日程"),
    "attendance": Words("attendance, by the public calendar of", "出勤，公历工作日历"),
    "zone": Words("zone", "时区"),
    "from": Words("in force from", "生效日期"),
    "grace": Words("grace", "宽限"),
    "evaluate": Words("evaluated every", "评估间隔"),
}


def pick(words: Words, language: Language) -> str:
    """The sentence in one language."""
    return words.zh if language == "zh" else words.en


def label(key: str, language: Language) -> str:
    """A heading in one language."""
    return pick(_LABELS[key], language)


# --- expressions ------------------------------------------------------------------------------------------------------


def expression_text(expression: Expr) -> str:
    """A checked expression as CEL again."""
    match expression:
        case Name(name=name):
            text = name
        case Number(value=value):
            text = shown(value)
        case Text(value=value):
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Truth(value=value):
            text = "true" if value else "false"
        case Not(operand=operand):
            text = f"!({expression_text(operand)})"
        case Junction(op=op, parts=parts):
            text = f" {op} ".join(_inner(part) for part in parts) if parts else "true"
        case Comparison(op=op, left=left, right=right):
            text = f"{expression_text(left)} {op} {expression_text(right)}"
        case Membership(subject=subject, choices=choices):
            text = f"{subject.name} in [{', '.join(expression_text(one) for one in choices)}]"
        case Presence(subject=subject):
            text = f"has({subject.name})"
        case Arithmetic(op=op, left=left, right=right):
            text = f"{_inner(left)} {op} {_inner(right)}"
        case Minus(operand=operand):
            text = f"-{_inner(operand)}"
    return text


def _inner(expression: Expr) -> str:
    text = expression_text(expression)
    compound = isinstance(expression, (Junction, Arithmetic)) and text != "true"
    return f"({text})" if compound else text


def value_text(value: Value) -> str:
    """A parameter's value as a person writes it."""
    if isinstance(value, Fraction):
        return shown(value)
    if isinstance(value, str):
        return value
    return ", ".join(f"{word}: {shown(number)}" for word, number in value.items())


# --- plain data -------------------------------------------------------------------------------------------------------


def parameter_data(parameter: Parameter) -> dict[str, Any]:
    """A parameter with all its dated values."""
    return {
        "name": parameter.name,
        "clause": parameter.clause,
        "title": _words(parameter.title),
        "unit": parameter.unit,
        "min": None if parameter.minimum is None else shown(parameter.minimum),
        "max": None if parameter.maximum is None else shown(parameter.maximum),
        "values": {day.isoformat(): value_text(value) for day, value in parameter.values},
    }


def metric_data(metric: Metric) -> dict[str, Any]:
    """A metric with its formula."""
    return {
        "name": metric.name,
        "clause": metric.clause,
        "title": _words(metric.title),
        "unit": metric.unit,
        "formula": metric.formula,
        "levels": list(metric.levels),
        "windows": list(metric.windows),
    }


def rule_data(pack: Pack, rule: Rule) -> dict[str, Any]:
    """A rule with its clause, condition, effects, and the parameters and metrics it looks at."""
    clause = pack.clauses[rule.clause]
    parameters, metrics = used_by(pack, rule)
    return {
        "id": rule.id,
        "pack": pack.name,
        "version": pack.version,
        "title": _words(rule.title),
        "clause": {"id": clause.id, "title": _words(clause.title), "text": _words(clause.text)},
        "levels": list(rule.levels),
        "trigger": rule.trigger,
        "on": rule.on,
        "provisional": rule.provisional,
        "when": expression_text(rule.condition),
        "then": [effect_text(effect, "en") for effect in rule.effects],
        "explanation": _words(rule.explanation),
        "parameters": [parameter_data(one) for one in parameters],
        "metrics": [metric_data(one) for one in metrics],
        "report": msgspec.to_builtins(rule.report),
        "place": str(rule.place),
    }


def pack_data(loaded: Loaded) -> dict[str, Any]:
    """A whole pack."""
    pack = loaded.pack
    return {
        "name": pack.name,
        "version": pack.version,
        "title": _words(pack.title),
        "zone": pack.zone,
        "currency": pack.currency,
        "in_force_from": pack.in_force_from.isoformat(),
        "grace": show_ms(pack.grace_ms),
        "evaluate_every": show_ms(pack.evaluate_ms),
        "clauses": [
            {"id": one.id, "kinds": list(one.kinds), "title": _words(one.title), "text": _words(one.text)}
            for one in pack.clauses.values()
        ],
        "parameters": [parameter_data(one) for one in pack.parameters.values()],
        "metrics": [metric_data(one) for one in pack.metrics.values()],
        "deadlines": [
            {"name": one.name, "clause": one.clause, "title": _words(one.title), "opens": one.opens,
             "met_by": list(one.met_by), "within": one.within, "ahead": one.ahead}
            for one in pack.deadlines.values()
        ],
        "rules": [rule_data(pack, rule) for rule in pack.rules],
        "scorecard": pack.scorecard is not None,
        "pay": pack.pay is not None,
    }  # fmt: skip


def _words(words: Words) -> dict[str, str]:
    return {"en": words.en, "zh": words.zh}


def used_by(pack: Pack, rule: Rule) -> tuple[list[Parameter], list[Metric]]:
    """The parameters and metrics that a rule looks at, also through its metrics and its deadline."""
    names = names_of(rule)
    metrics = [
        one for name, one in pack.metrics.items() if any(found.split(".")[0] == name for found in names)
    ]
    wanted = {name[2:] for name in names if name.startswith("p.")}
    for metric in metrics:
        wanted |= {name for name in pack.parameters if f"{{p.{name}}}" in metric.formula}
        if metric.baseline:
            wanted.add(metric.baseline)
    if rule.trigger == "deadline":
        found = pack.deadlines[rule.on.partition("/")[0]]
        wanted |= {found.within, found.ahead}
    if rule.trigger == "attendance" and pack.attendance is not None:
        wanted.update(getattr(pack.attendance, key) for key in _FIGURES.get(rule.on, ()))
    return [one for name, one in pack.parameters.items() if name in wanted], metrics


# --- text -------------------------------------------------------------------------------------------------------------


def trigger_text(rule: Rule, language: Language) -> str:
    """When a rule is judged."""
    words = _AT_CLOSE if rule.trigger == "period" and not rule.provisional else _TRIGGERS[rule.trigger]
    return pick(words, language).format(on=rule.on)


def amount_text(amount: Amount) -> str:
    """How many points, in one line."""
    if amount.table:
        return f"p.{amount.table}[{amount.by}]"
    assert amount.points is not None
    text = expression_text(amount.points)
    if amount.per is None:
        return text
    assert amount.of is not None
    assert amount.limit is not None
    text += f" per {expression_text(amount.per)} of {expression_text(amount.of)} {amount.direction} "
    text += expression_text(amount.limit)
    return text + (f", at most {expression_text(amount.at_most)}" if amount.at_most is not None else "")


def effect_text(effect: Effect, language: Language) -> str:
    """What an effect does, in one line."""
    if effect.amount is not None:
        return f"{'points' if effect.amount.table else effect.kind} {amount_text(effect.amount)}"
    if effect.kind == "alert":
        hold = f" for {show_ms(effect.hold_ms)}" if effect.hold_ms else ""
        clear = f"; clears when {expression_text(effect.clear)}" if effect.clear is not None else ""
        return f"alert {effect.severity} to {effect.owner}{hold}{clear}: {pick(effect.response, language)}"
    if effect.kind == "grade":
        return f"grade at most {effect.grade_at_most}"
    if effect.kind == "proposal":
        return f"proposal {effect.proposal}"
    if effect.kind == "task":
        return f"task for {effect.owner} within {show_ms(effect.due_ms)}: {pick(effect.task, language)}"
    return f"waive {', '.join(effect.waives)} by {effect.incident}"


def rule_lines(pack: Pack, rule: Rule, language: Language) -> Iterator[str]:
    """Everything about a rule, readable."""
    clause = pack.clauses[rule.clause]
    yield f"{rule.id}  {pick(rule.title, language)}"
    yield f"  {label('pack', language)}: {pack.name} {pack.version}, {pick(pack.title, language)}"
    yield f"  {label('clause', language)}: {clause.id} {pick(clause.title, language)}"
    yield f"    {clause.text.en}"
    yield f"    {clause.text.zh}"
    yield f"  {label('level', language)}: {', '.join(rule.levels)}"
    yield f"  {label('judged', language)}: {trigger_text(rule, language)}"
    yield f"  {label('when', language)}: {expression_text(rule.condition)}"
    yield f"  {label('then', language)}:"
    for effect in rule.effects:
        yield f"    {effect_text(effect, language)}"
    if pick(rule.explanation, language):
        yield f"  {label('explanation', language)}: {pick(rule.explanation, language)}"
    parameters, metrics = used_by(pack, rule)
    if parameters:
        yield f"  {label('parameters', language)}:"
        for parameter in parameters:
            yield from parameter_lines(parameter, language)
    if metrics:
        yield f"  {label('metrics', language)}:"
        for metric in metrics:
            yield f"    {metric.name} ({metric.unit}, {pick(metric.title, language)}) = {metric.formula}"
    yield f"  {rule.place}"


def parameter_lines(parameter: Parameter, language: Language) -> Iterator[str]:
    """A parameter and its dated values."""
    bounds = ""
    if parameter.minimum is not None and parameter.maximum is not None:
        bounds = f", {shown(parameter.minimum)} to {shown(parameter.maximum)}"
    yield f"    p.{parameter.name} ({parameter.clause}, {parameter.unit}{bounds}): {pick(parameter.title, language)}"
    for day, value in parameter.values:
        yield f"      {day}: {value_text(value)}"


def pack_line(pack: Pack, language: Language) -> str:
    """A pack in one line."""
    return (
        f"{pack.name:<20} {pack.version:<6} {pick(pack.title, language)}  "
        f"({len(pack.clauses)} {label('clauses', language)}, {len(pack.metrics)} {label('metrics', language)}, "
        f"{len(pack.rules)} {label('rules', language)})"
    )


def pack_lines(loaded: Loaded, language: Language) -> Iterator[str]:
    """A whole pack, clause by clause."""
    pack = loaded.pack
    yield f"{pack.name} {pack.version}  {pick(pack.title, language)}"
    yield f"  {label('zone', language)}: {pack.zone}, {pack.currency}"
    yield f"  {label('from', language)}: {pack.in_force_from}"
    yield f"  {label('grace', language)}: {show_ms(pack.grace_ms)}"
    yield f"  {label('evaluate', language)}: {show_ms(pack.evaluate_ms)}"
    for clause in pack.clauses.values():
        yield ""
        yield f"{clause.id} [{' '.join(clause.kinds)}] {pick(clause.title, language)}"
        yield f"  {pick(clause.text, language)}"
        yield from _cover_lines(pack, loaded.coverage[clause.id], language)


def _cover_lines(pack: Pack, cover: Coverage, language: Language) -> Iterator[str]:
    if cover.metrics:
        yield f"  {label('metrics', language)}:"
        for metric in (pack.metrics[name] for name in cover.metrics):
            yield f"    {metric.name} ({metric.unit}, {pick(metric.title, language)}) = {metric.formula}"
    if cover.deadlines:
        yield f"  {label('deadlines', language)}:"
        for deadline in (pack.deadlines[name] for name in cover.deadlines):
            within = f", within p.{deadline.within}" if deadline.within else ""
            within += f", p.{deadline.ahead} before {deadline.due_field}" if deadline.ahead else ""
            met_by = " | ".join(deadline.met_by + (deadline.opens,) * deadline.again) or "-"
            yield f"    {deadline.name}: {deadline.opens} -> {met_by}{within}"
    if cover.rules:
        yield f"  {label('rules', language)}:"
        for rule in pack.rules:
            if rule.id in cover.rules:
                yield f"    {rule.id}: {pick(rule.title, language)} ({trigger_text(rule, language)})"
    yield from _part_lines(pack, cover, language)
    parameters = [one for one in pack.parameters.values() if one.clause == cover.clause]
    if parameters:
        yield f"  {label('parameters', language)}:"
        for parameter in parameters:
            yield f"    p.{parameter.name} = {_in_force(parameter)} {parameter.unit}  {pick(parameter.title, language)}"


def _part_lines(pack: Pack, cover: Coverage, language: Language) -> Iterator[str]:
    """What else covers a clause: attendance, scorecard, pay terms, another pack."""
    if cover.attendance and pack.attendance is not None:
        yield f"  {label('attendance', language)}: {pack.attendance.calendar.name}"
    if cover.scorecard and pack.scorecard is not None:
        yield f"  {label('scorecard', language)}: {pick(pack.scorecard.formula, language)}"
    yield from _card_lines(pack, cover.clause, language)
    if cover.workflow and pack.workflow is not None:
        yield f"  {label('workflow', language)}: {', '.join(step.id for step in pack.workflow.steps)}"
    if cover.pay and pack.pay is not None:
        yield f"  {label('pay', language)}: {Path(pack.pay.place.file).name}"
    if cover.other:
        yield f"  {label('pack', language)}: {cover.other}"


def _card_lines(pack: Pack, clause: str, language: Language) -> Iterator[str]:
    """The dimensions and items of scorecards, and what is made of the grades, that carry a clause out."""
    for card in pack.cards:
        for dimension in card.dimensions:
            for item in dimension.items:
                if item.clause == clause:
                    names = f"{pick(dimension.title, language)} / {pick(item.title, language)}"
                    source = item.metric or ", ".join(item.rules) or item.window or item.kind
                    yield f"    {card.level}, {card.window}: {names} ({item.kind}: {source}; p.{item.most})"
    results = pack.results
    made = [one for one in (results.calibration, results.ranking) if one is not None]
    for one in (*results.tallies, *made):
        if one.clause == clause:
            yield f"    {one.id}: {pick(one.title, language)}"


def _in_force(parameter: Parameter) -> str:
    """The newest value, with the day from which it holds when there were others before."""
    since, value = parameter.values[-1]
    text = value_text(value)
    return text if len(parameter.values) == 1 or since == date.min else f"{text} (since {since})"
