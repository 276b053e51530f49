"""The messages that go out for a judgement: decisions, alerts and grades, explained and encoded.

Theory of operation. The judge decides what changed; this module only says it. A message names every fact and every
parameter that the rule looked at, the arithmetic, and one sentence in each language, so that nobody has to trust a
number that cannot be followed. Nothing here changes any state.

A rule's effect sends many messages that look at the same names. Its *grounds* are compiled once: which names, how each
is read, the parameters in force on a day as they are shown, and the explanation with all of these filled in, so that
only the facts are left for each message.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from kaohe.core.calendars import Period
from kaohe.core.counting import Layout
from kaohe.core.effects import PLACEHOLDER, Worked, names_of
from kaohe.core.facts import (
    DAYS_KEPT,
    Moment,
    Reader,
    fact_text,
    quotient_text,
    reader,
    used_parameter,
    used_reader,
)
from kaohe.core.fines import Money, with_money
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.records import Output
from kaohe.core.subjects import AlertState, Entry, GradeState, Subject
from kaohe.decisions import (
    ENCODER,
    Alert,
    Decision,
    Grade,
    Level,
    Step,
    UsedFact,
    UsedParameter,
    Words,
    grade_id,
)

FRAME = ("subject", "period", "points")
"""What an explanation may name beside facts and parameters."""
NOTHING_KNOWN = ("no data", "无数据")
"""What stands for a fact that is unknown, in English and Chinese."""
_NUMBER = re.compile(r"(-?[0-9]+)(?:\.([0-9]*)|/([0-9]+))?(?: .*)?", re.DOTALL)
"""A number as it is mostly written, perhaps followed by its approximation: read faster than by ``Fraction``."""


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
    money: Money | None = None,
) -> Output:
    """A revision of a ledger entry. ``evidence`` is the first ids and how many there were; ``extra`` what only some
    kinds carry: ``owner``, ``due_at``, ``proposal``, ``reverses``; ``money`` what it comes to where fines are on."""
    message = _decision(layout, subject, pack, (rule, entry.effect), entry, moment, worked, evidence, extra)
    if money is not None:
        message = with_money(message, money)
    return Output("decisions", subject.name.encode(), ENCODER.encode(message))


def remaining(
    layout: Layout, subject: Subject, pack: Pack, told_by: tuple[Rule, int], entry: Entry, moment: Moment,
    worked: Worked, evidence: tuple[str, ...], money: Money | None = None,
) -> Output:  # fmt: skip
    """What remains of an entry: it stays under the rule and clause that had charged it, and is explained by the rule
    (and effect) that found it partly wrong."""
    found = _decision(
        layout, subject, pack, told_by, entry, moment, worked, (list(evidence), len(evidence)), {}
    )
    clause = next((rule.clause for rule in pack.rules if rule.id == entry.rule), found.clause)
    message = msgspec.structs.replace(found, rule=entry.rule, clause=clause)
    if money is not None:
        message = with_money(message, money)
    return Output("decisions", subject.name.encode(), ENCODER.encode(message))


def _decision(
    layout: Layout, subject: Subject, pack: Pack, told_by: tuple[Rule, int], entry: Entry, moment: Moment,
    worked: Worked, evidence: tuple[list[str], int], extra: Mapping[str, str],
) -> Decision:  # fmt: skip
    rule, index = told_by
    steps = worked.how()
    frame = {"subject": subject.name, "period": entry.label, "points": entry.points}
    grounds = _grounds_of(layout, pack, rule, rule.effects[index])
    facts, parameters, explanation = grounds.told(moment, frame, steps)
    return Decision(
        id=entry.id, revision=entry.revision, kind=entry.kind, status=entry.status,  # type: ignore[arg-type]
        pack=pack.name, pack_version=pack.version, rule=rule.id, clause=rule.clause, level=_level(subject),
        subject=subject.name, window=entry.window, period=entry.label, incident=entry.incident,
        points=entry.points, amount_minor=0, currency=pack.currency, at=moment.calendar.text(moment.at_ms),
        facts=facts, parameters=parameters, evidence=evidence[0], evidence_count=evidence[1],
        arithmetic=list(steps), explanation=explanation,
        owner=extra.get("owner", ""), due_at=extra.get("due_at", ""), proposal=extra.get("proposal", ""),
        reverses=extra.get("reverses", ""), adjusts_period=entry.adjusts,
    )  # fmt: skip


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
    at_ms: int,
) -> Output:
    """An alert that begins or ends (``to``: ``firing`` or ``resolved``) at ``at_ms``."""
    frame = {"subject": subject.name, "period": "", "points": ""}
    grounds = _grounds_of(layout, pack, rule, effect)
    facts, parameters, explanation = grounds.told(moment, frame, ())
    text = moment.calendar.text
    message = Alert(
        id=state.id, state=to, pack=pack.name, pack_version=pack.version, rule=rule.id, clause=rule.clause,
        severity=effect.severity, level=_level(subject), subject=subject.name, incident=incident,
        since=text(state.since_ms), at=text(at_ms), owner=effect.owner, title=rule.title,
        explanation=explanation, response=effect.response,
        facts=facts, parameters=parameters, evidence=list(evidence),
    )  # fmt: skip
    return Output("alerts", subject.name.encode(), ENCODER.encode(message))


def grade(
    subject: Subject, pack: Pack, period: Period, state: GradeState, previous: str, text: str,
    held_by: list[str], entries: list[str], now_ms: int,
) -> Grade:  # fmt: skip
    """A revision of a grade. ``text`` is the arithmetic of the score, ``held_by`` the rules that hold it down."""
    held_en, held_zh = "", ""
    if held_by:
        held_en, held_zh = f" (held down by {', '.join(held_by)})", f"（受{'、'.join(held_by)}限制）"
    status: Any = state.status
    return Grade(
        id=grade_id(pack.name, subject.level, subject.name, period.window, period.label), revision=state.revision,
        status=status, pack=pack.name, pack_version=pack.version, level=_level(subject), subject=subject.name,
        window=period.window, period=period.label, score=state.score, grade=state.grade, previous_grade=previous,
        at=subject.series.calendar.text(now_ms), entries=entries, formula=text,
        explanation=Words(
            en=f"{subject.name}, {period.label}: score {text}, grade {state.grade}{held_en}",
            zh=f"{subject.name}，{period.label}：得分 {text}，等级 {state.grade}{held_zh}",
        ),
    )  # fmt: skip


def _level(subject: Subject) -> Level:
    level: Any = subject.level
    return level  # type: ignore[no-any-return]


# --- what was used ----------------------------------------------------------------------------------------------------


def _grounds_of(layout: Layout, pack: Pack, rule: Rule, effect: Effect) -> _Grounds:
    grounds: _Grounds = layout.remembered(
        ("grounds", id(pack), id(effect)), lambda: _Grounds(layout, pack, rule, effect)
    )
    return grounds


class _Pattern(NamedTuple):
    """An explanation of one day with its parameters put in: ``%s`` stands for each of ``names``, which are facts,
    parts of the frame, or the table whose line depends on the message."""

    text: str
    names: tuple[str, ...]


class _Day(NamedTuple):
    """What the messages of one day have in common. A rule without an explanation of its own has no pattern."""

    parameters: dict[str, UsedParameter]
    patterns: tuple[_Pattern | None, ...]


class _Grounds:
    """What the messages of one effect rest on, and how they say it."""

    def __init__(self, layout: Layout, pack: Pack, rule: Rule, effect: Effect) -> None:
        wanted = names_of(rule, effect)
        self._pack = pack
        self._rule = rule
        self._facts = [(name, used_reader(layout, pack, name)) for name in wanted if name[:2] != "p."]
        self._parameters = [name[2:] for name in wanted if name[:2] == "p."]
        self._table = effect.amount.table if effect.amount is not None else ""
        self._by: Reader | None = None
        if effect.amount is not None and effect.amount.table:
            self._by = reader(layout, pack, effect.amount.by)
        self._on_day = lru_cache(maxsize=DAYS_KEPT)(self._day)

    def told(
        self, moment: Moment, frame: Mapping[str, str], steps: tuple[Step, ...]
    ) -> tuple[dict[str, UsedFact], dict[str, UsedParameter], Words]:
        """The facts and the parameters that a message rests on, and the message in one sentence in both languages.

        ``frame`` has ``subject``, ``period`` and ``points``. A rule's own template may name these, any fact and any
        parameter in braces; a rule without one gets its title with the facts and the arithmetic.
        """
        day = self._on_day(moment.day)
        facts = {name: read(moment) for name, read in self._facts}
        parameters = day.parameters
        if self._by is not None:
            word = fact_text(self._by(moment)) or ""
            line = used_parameter(self._pack.parameters[self._table], moment.day, word)
            parameters = {**parameters, self._table: line}
        title = self._rule.title
        sentences = []
        for pattern, said, nothing in zip(day.patterns, (title.en, title.zh), NOTHING_KNOWN, strict=True):
            if pattern is None:
                sentences.append(_default_sentence(said, steps, facts, parameters, frame))
                continue
            found = []
            for name in pattern.names:
                fact = facts.get(name)
                if fact is not None:
                    found.append(readable(fact.value, fact.unit, nothing))
                elif name in frame:
                    found.append(frame[name])
                else:
                    used = parameters[name[2:]]
                    found.append(readable(used.value, used.unit, nothing))
            sentences.append(pattern.text % tuple(found))
        return facts, parameters, Words(en=sentences[0], zh=sentences[1])

    def _day(self, day: date) -> _Day:
        parameters = {name: used_parameter(self._pack.parameters[name], day) for name in self._parameters}
        words = self._rule.explanation
        known = {name for name, _ in self._facts} | set(FRAME) | {f"p.{self._table}"}
        patterns = [_pattern(template, known, parameters) for template in (words.en, words.zh)]
        return _Day(parameters, tuple(patterns))


def _pattern(
    template: str, known: Container[str], parameters: Mapping[str, UsedParameter]
) -> _Pattern | None:
    if not template:
        return None
    pieces: list[str] = []
    left: list[str] = []
    # Literal text and names in turn.
    for index, piece in enumerate(PLACEHOLDER.split(template)):
        if index % 2 == 0:
            pieces.append(piece.replace("%", "%%"))
        elif piece in known:
            pieces.append("%s")
            left.append(piece)
        elif piece[:2] == "p." and piece[2:] in parameters:
            used = parameters[piece[2:]]
            pieces.append(readable(used.value, used.unit, "").replace("%", "%%"))
        else:
            pieces.append(f"{{{piece}}}")
    return _Pattern("".join(pieces), tuple(left))


def readable(value: str | None, unit: str, nothing: str) -> str:
    """A fact or parameter as people read it: ratios in per cent, milliseconds as h:mm:ss, long numbers to two places.

    The exact value stands beside it in the decision.
    """
    return nothing if value is None else _rounded(value, unit)


@lru_cache(maxsize=8_192)
def _rounded(value: str, unit: str) -> str:
    number = _NUMBER.fullmatch(value)
    if number is not None:
        whole, decimals, below = number.groups("")
        top, bottom = int(whole + decimals), int(below or 1) * 10 ** len(decimals)
    else:
        try:
            top, bottom = Fraction(value.partition(" ")[0]).as_integer_ratio()
        except (ValueError, ZeroDivisionError):
            return value
    if bottom == 0:
        return value
    if unit == "ms":
        minutes, seconds = divmod(round(Fraction(top, 1000 * bottom)), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    # In whole hundredths, half to even.
    hundredths, rest = divmod(top * (10_000 if unit == "ratio" else 100), bottom)
    if 2 * rest > bottom or (2 * rest == bottom and hundredths % 2):
        hundredths += 1
    text = quotient_text(hundredths, 100)
    return f"{text}%" if unit == "ratio" else text


def _default_sentence(
    title: str,
    steps: tuple[Step, ...],
    facts: Mapping[str, UsedFact],
    parameters: Mapping[str, UsedParameter],
    frame: Mapping[str, str],
) -> str:
    parts = [f"{name} = {fact.value if fact.value is not None else '?'}" for name, fact in facts.items()]
    parts += [f"{name} = {parameter.value}" for name, parameter in parameters.items()]
    lines = "; ".join(f"{step.what}: {step.calculation} = {step.result}" for step in steps)
    about = " ".join(part for part in (frame["subject"], frame["period"]) if part)
    text = f"{title} ({about}): {', '.join(parts)}" if parts else f"{title} ({about})"
    return f"{text}; {lines}" if lines else text
