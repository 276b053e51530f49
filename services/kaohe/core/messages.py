"""The messages that go out for a judgement: decisions, alerts and grades, explained and encoded.

Theory of operation. The judge decides what changed; this module only says it. A message names every fact and every
parameter that the rule looked at, the arithmetic, and one sentence in each language, so that nobody has to trust a
number that cannot be followed. Nothing here changes any state.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from kaohe.core.calendars import Period
from kaohe.core.counting import Layout
from kaohe.core.effects import NOTHING, PLACEHOLDER, Worked, names_of
from kaohe.core.facts import Moment, fact_text, number_text, reader, used_fact, used_parameter
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.records import Output
from kaohe.core.subjects import AlertState, Entry, GradeState, Subject
from kaohe.decisions import ENCODER, Alert, Decision, Grade, Level, UsedFact, UsedParameter, Words, grade_id


def decision(
    layout: Layout,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    entry: Entry,
    moment: Moment,
    worked: Worked,
    evidence: tuple[list[str], int],
    extra: Mapping[str, str],
) -> Output:
    """A revision of a ledger entry. ``evidence`` is the first ids and how many there were; ``extra`` what only some
    kinds carry: ``owner``, ``due_at``, ``proposal``, ``reverses``."""
    facts, parameters = used(layout, pack, rule, rule.effects[entry.effect], moment)
    frame = {"subject": subject.name, "period": entry.label, "points": entry.points}
    message = Decision(
        id=entry.id, revision=entry.revision, kind=entry.kind, status=entry.status,  # type: ignore[arg-type]
        pack=pack.name, pack_version=pack.version, rule=rule.id, clause=rule.clause, level=_level(subject),
        subject=subject.name, window=entry.window, period=entry.label, incident=entry.incident,
        points=entry.points, amount_minor=0, currency=pack.currency, at=moment.calendar.text(moment.at_ms),
        facts=facts, parameters=parameters, evidence=evidence[0], evidence_count=evidence[1],
        arithmetic=list(worked.steps), explanation=explain(rule, worked, facts, parameters, frame),
        owner=extra.get("owner", ""), due_at=extra.get("due_at", ""), proposal=extra.get("proposal", ""),
        reverses=extra.get("reverses", ""), adjusts_period=entry.adjusts,
    )  # fmt: skip
    return Output("decisions", subject.name.encode(), ENCODER.encode(message))


def alert(
    layout: Layout,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    effect: Effect,
    moment: Moment,
    state: AlertState,
    to: Any,
    incident: str,
    evidence: tuple[str, ...],
) -> Output:
    """An alert that begins or ends (``to``: ``firing`` or ``resolved``)."""
    facts, parameters = used(layout, pack, rule, effect, moment)
    text = moment.calendar.text
    frame = {"subject": subject.name, "period": "", "points": ""}
    message = Alert(
        id=state.id, state=to, pack=pack.name, pack_version=pack.version, rule=rule.id, clause=rule.clause,
        severity=effect.severity, level=_level(subject), subject=subject.name, incident=incident,
        since=text(state.since_ms), at=text(moment.at_ms), owner=effect.owner, title=rule.title,
        explanation=explain(rule, NOTHING, facts, parameters, frame), response=effect.response,
        facts=facts, parameters=parameters, evidence=list(evidence),
    )  # fmt: skip
    return Output("alerts", subject.name.encode(), ENCODER.encode(message))


def grade(
    subject: Subject, pack: Pack, period: Period, state: GradeState, previous: str, text: str,
    held_by: list[str], entries: list[str], now_ms: int,
) -> Output:  # fmt: skip
    """A revision of a grade. ``text`` is the arithmetic of the score, ``held_by`` the rules that hold it down."""
    held_en, held_zh = "", ""
    if held_by:
        held_en, held_zh = f" (held down by {', '.join(held_by)})", f"（受{'、'.join(held_by)}限制）"
    status: Any = state.status
    message = Grade(
        id=grade_id(pack.name, subject.level, subject.name, period.window, period.label), revision=state.revision,
        status=status, pack=pack.name, pack_version=pack.version, level=_level(subject), subject=subject.name,
        window=period.window, period=period.label, score=state.score, grade=state.grade, previous_grade=previous,
        at=subject.series.calendar.text(now_ms), entries=entries, formula=text,
        explanation=Words(
            en=f"{subject.name}, {period.label}: score {text}, grade {state.grade}{held_en}",
            zh=f"{subject.name}，{period.label}：得分 {text}，等级 {state.grade}{held_zh}",
        ),
    )  # fmt: skip
    return Output("grades", subject.name.encode(), ENCODER.encode(message))


def _level(subject: Subject) -> Level:
    level: Any = subject.level
    return level  # type: ignore[no-any-return]


# --- what was used ----------------------------------------------------------------------------------------------------


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
    return PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), template)


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
