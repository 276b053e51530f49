"""What a pack holds beside its rules, each part under a name that can be asked for: cards, tallies, steps, terms.

Theory of operation. The parts of a pack are plain structs whose fields are figures, names and, mostly, names of
parameters. A part is therefore described by its own fields, so that nothing of it can be left out, and every field
that names a parameter brings that parameter with its clause, bounds and dated values.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import msgspec

from kaohe.core.model import Pack, Parameter, Scorecard
from kaohe.core.workdays import WorkCalendar
from kaohe.decisions import Words
from kaohe.errors import Place
from kaohe.packs.describe import (
    Language,
    label,
    parameter_data,
    parameter_lines,
    pick,
    value_text,
)
from kaohe.packs.source import show_ms

_KINDS = {
    "clause": Words("clause", "条款"),
    "metric": Words("metric", "指标"),
    "deadline": Words("deadline", "时限"),
    "parameter": Words("parameter", "参数"),
    "scorecard": Words("scorecard", "评分卡"),
    "dimension": Words("dimension of a scorecard", "评分卡维度"),
    "item": Words("item of a scorecard", "评分卡项目"),
    "quota": Words("quota of the best grade", "最高等级名额"),
    "calibration": Words("calibration between assessors", "评分校准"),
    "tally": Words("tally of grades", "等级累计"),
    "ranking": Words("ranking of departments", "部门排名"),
    "combined": Words("one score of several packs", "多规则包合并得分"),
    "appeals": Words("how appeals are heard", "申诉规则"),
    "workflow": Words("calendar of an appraisal", "考核日程"),
    "step": Words("step of an appraisal", "考核步骤"),
    "pay": Words("terms of pay", "薪酬条款"),
    "attendance": Words("how attendance is judged", "出勤规则"),
}
_APART = frozenset(
    ("place", "clause", "title", "explanation", "id", "name", "pack", "dimensions", "items", "steps")
)
"""Fields that are shown in a place of their own, or are parts themselves."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a pack. ``says`` are its fields in words, ``parameters`` those that they name."""

    kind: str
    name: str
    pack: Pack
    clause: str
    title: Words
    says: dict[str, str]
    parameters: list[Parameter]


def parts_of(pack: Pack) -> list[Part]:
    """Every part of a pack that has a name, in the order in which one reads a pack."""
    return list(_parts(pack))


def _parts(pack: Pack) -> Iterator[Part]:
    yield from _figures(pack)
    for deadline in pack.deadlines.values():
        yield _of(pack, "deadline", deadline.name, deadline, deadline.title)
    cards = list(pack.cards)
    if pack.scorecard is not None and pack.scorecard not in cards:
        cards.insert(0, pack.scorecard)
    for card in cards:
        yield from _card(pack, card)
    yield from _results(pack)
    for kind in ("appeals", "pay", "attendance", "workflow"):
        one = getattr(pack, kind)
        if one is not None:
            yield _of(pack, kind, kind, one, _KINDS[kind])
    for step in pack.workflow.steps if pack.workflow is not None else ():
        yield _of(pack, "step", step.id, step, step.title)


def _figures(pack: Pack) -> Iterator[Part]:
    """Clauses, metrics and parameters."""
    for clause in pack.clauses.values():
        owned = [one for one in pack.parameters.values() if one.clause == clause.id]
        says = {"kinds": " ".join(clause.kinds), "en": clause.text.en, "zh": clause.text.zh}
        yield _part(pack, "clause", clause.id, clause.id, clause.title, says, owned)
    for metric in pack.metrics.values():
        wanted = [one for name, one in pack.parameters.items() if f"{{p.{name}}}" in metric.formula]
        says = {
            "formula": metric.formula, "unit": metric.unit, "levels": ", ".join(metric.levels),
            "windows": ", ".join(metric.windows),
        }  # fmt: skip
        yield _part(pack, "metric", metric.name, metric.clause, metric.title, says, wanted)
    for parameter in pack.parameters.values():
        yield _part(
            pack, "parameter", f"p.{parameter.name}", parameter.clause, parameter.title, {}, [parameter]
        )


def _results(pack: Pack) -> Iterator[Part]:
    """What is made of the grades."""
    results = pack.results
    if results.quota is not None:
        yield _of(pack, "quota", "quota", results.quota, results.quota.formula)
    if results.combined is not None:
        yield _of(pack, "combined", "combined", results.combined, results.combined.formula)
    for tally in results.tallies:
        yield _of(pack, "tally", tally.id, tally, tally.title)
    if results.calibration is not None:
        yield _of(pack, "calibration", results.calibration.id, results.calibration, results.calibration.title)
    if results.ranking is not None:
        yield _of(pack, "ranking", results.ranking.id, results.ranking, results.ranking.title)


def _card(pack: Pack, card: Scorecard) -> Iterator[Part]:
    yield _of(pack, "scorecard", "scorecard", card, card.formula)
    place = f"{card.level}, {card.window}"
    for dimension in card.dimensions:
        part = _of(pack, "dimension", dimension.name, dimension, dimension.title)
        says = {"of": place, "items": ", ".join(item.name for item in dimension.items)}
        weights = [pack.parameters[card.weights]] if card.weights else []
        yield msgspec.structs.replace(part, says=says | part.says, parameters=weights)
        for item in dimension.items:
            part = _of(pack, "item", item.name, item, item.title)
            says = {"of": f"{place}: {dimension.name}"}
            yield msgspec.structs.replace(part, says=says | part.says)


def _of(pack: Pack, kind: str, name: str, one: Any, title: Words) -> Part:
    """A part by its own fields."""
    says: dict[str, str] = {}
    wanted: dict[str, Parameter] = {}
    for found, value in _fields(one):
        text = _text(pack, value)
        if not text:
            continue
        if isinstance(value, str) and value in pack.parameters:
            wanted[value] = pack.parameters[value]
            text = f"p.{value}"
        elif found.endswith("_ms"):
            text = show_ms(value)
        says[found.removesuffix("_ms")] = text
    # Terms of pay name a clause for each of their parts.
    named = [getattr(one, field) for field in one.__struct_fields__ if field.endswith("clause")]
    clause = next(filter(None, named), "")
    if not clause:
        # A calendar has no clause of its own: its steps do.
        clause = next(iter(sorted({step.clause for step in getattr(one, "steps", ())})), "")
    return _part(pack, kind, name, clause, title, says, list(wanted.values()))


def _fields(one: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a struct; those of a scale inside it as its own."""
    for name in one.__struct_fields__:
        value = getattr(one, name)
        if name in _APART or isinstance(value, (Place, Words)):
            continue
        if name == "scale" and value is not None:
            yield from _fields(value)
        else:
            yield name, value


def _text(pack: Pack, value: Any) -> str:
    """A field's value in words; empty where there is nothing to say."""
    if value is None or value is False or value in ("", (), {}):
        return ""
    if isinstance(value, WorkCalendar):
        return value.name
    if isinstance(value, Words):
        return value.en
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, (_text(pack, one) for one in value)))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(pack, one)}" for name, one in value.items())
    return "yes" if value is True else value if isinstance(value, str) else _number(value)


def _number(value: Any) -> str:
    return value_text(value) if isinstance(value, Fraction) else str(value)


def _part(
    pack: Pack, kind: str, name: str, clause: str, title: Words, says: dict[str, str], parameters: list[Parameter]
) -> Part:  # fmt: skip
    return Part(kind=kind, name=name, pack=pack, clause=clause, title=title, says=says, parameters=parameters)


def part_data(part: Part) -> dict[str, Any]:
    """A part as plain data."""
    clause = part.pack.clauses.get(part.clause)
    told = {"id": part.clause}
    if clause is not None:
        told |= {"en": clause.text.en, "zh": clause.text.zh}
    return {
        "kind": part.kind, "name": part.name, "pack": part.pack.name, "version": part.pack.version,
        "title": {"en": part.title.en, "zh": part.title.zh}, "clause": told, "says": part.says,
        "parameters": [parameter_data(one) for one in part.parameters],
    }  # fmt: skip


def part_lines(part: Part, language: Language) -> Iterator[str]:
    """A part, readable."""
    pack = part.pack
    kind, title = pick(_KINDS[part.kind], language), pick(part.title, language)
    yield f"{part.name}  {kind}" + (f": {title}" if title != kind else "")
    yield f"  {label('pack', language)}: {pack.name} {pack.version}, {pick(pack.title, language)}"
    clause = pack.clauses.get(part.clause)
    if clause is not None and part.kind != "clause":
        yield f"  {label('clause', language)}: {clause.id} {pick(clause.title, language)}"
        yield f"    {clause.text.en}"
        yield f"    {clause.text.zh}"
    for name, text in part.says.items():
        yield f"  {name}: {text}"
    if part.parameters:
        yield f"  {label('parameters', language)}:"
        for parameter in part.parameters:
            yield from parameter_lines(parameter, language)
