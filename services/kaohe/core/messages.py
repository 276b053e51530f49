"""The messages that go out for a judgement: decisions, alerts and grades, explained and encoded.

Theory of operation. The judge decides what changed; this module only says it. A message names every fact and every
parameter that the rule looked at, the arithmetic, and one sentence in each language, so that nobody has to trust a
number that cannot be followed. Nothing here changes any state.

A rule's effect sends many messages that look at the same names. Its *grounds* are compiled once: which names, how each
is read, the parameters in force on a day as they are shown, the explanation with all of these filled in, and the *form*
of its messages: the bytes of all that is the same in them, so that only what differs is encoded for each.
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
    sums_reader,
    used_parameter,
    used_reader,
)
from kaohe.core.fines import Money, with_money
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.records import Output
from kaohe.core.subjects import AlertState, Entry, GradeState, Subject
from kaohe.decisions import (
    DECISION_DECODER,
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
NOTHING_KNOWN = (b"no data", "无数据".encode())
"""What stands for a fact that is unknown, in English and Chinese."""
TOLD_KEPT = 512
"""Of how many sums one effect remembers what is told of them."""
NO_TEXT = b'""'
_NUMBER = re.compile(r"(-?[0-9]+)(?:\.([0-9]*)|/([0-9]+))?(?: .*)?", re.DOTALL)
"""A number as it is mostly written, perhaps followed by its approximation: read faster than by ``Fraction``."""


class Form:
    """Writes the messages of one kind that have most of their fields in common, as the encoder writes their structs.

    ``same`` are the fields that are the same in all of them; ``left`` are the names of the others, in their order.
    """

    def __init__(self, kind: type[msgspec.Struct], same: Mapping[str, Any], left: tuple[str, ...]) -> None:
        assert tuple(name for name in kind.__struct_fields__ if name not in same) == left
        pieces, text = [], "{"
        for name in kind.__struct_fields__:
            text += f'"{name}":'
            if name in same:
                text += ENCODER.encode(same[name]).decode() + ","
            else:
                pieces += [text.encode(), b""]
                text = ","
        self._pieces = [*pieces, f"{text.removesuffix(',')}}}".encode()]

    def write(self, *values: bytes) -> bytes:
        """A message; ``values`` are the fields that are left, encoded."""
        pieces = self._pieces.copy()
        pieces[1::2] = values
        return b"".join(pieces)


_DECISION_LEFT = (
    "id", "revision", "kind", "status", "level", "subject", "window", "period", "incident", "points", "at", "facts",
    "parameters", "evidence", "evidence_count", "arithmetic", "explanation", "owner", "due_at", "proposal", "reverses",
    "adjusts_period",
)  # fmt: skip
_ALERT_LEFT = (
    "id", "state", "level", "subject", "incident", "since", "at", "explanation", "facts", "parameters", "evidence",
)  # fmt: skip


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
    raw = _decision(layout, subject, pack, (rule, entry.effect), entry, moment, worked, evidence, extra)
    if money is not None:
        raw = ENCODER.encode(with_money(DECISION_DECODER.decode(raw), money))
    return Output("decisions", subject.name.encode(), raw)


def remaining(
    layout: Layout, subject: Subject, pack: Pack, told_by: tuple[Rule, int], entry: Entry, moment: Moment,
    worked: Worked, evidence: tuple[str, ...], money: Money | None = None,
) -> Output:  # fmt: skip
    """What remains of an entry: it stays under the rule and clause that had charged it, and is explained by the rule
    (and effect) that found it partly wrong."""
    raw = _decision(
        layout, subject, pack, told_by, entry, moment, worked, (list(evidence), len(evidence)), {}
    )
    found = DECISION_DECODER.decode(raw)
    clause = next((rule.clause for rule in pack.rules if rule.id == entry.rule), found.clause)
    message = msgspec.structs.replace(found, rule=entry.rule, clause=clause)
    if money is not None:
        message = with_money(message, money)
    return Output("decisions", subject.name.encode(), ENCODER.encode(message))


def _decision(
    layout: Layout, subject: Subject, pack: Pack, told_by: tuple[Rule, int], entry: Entry, moment: Moment,
    worked: Worked, evidence: tuple[list[str], int], extra: Mapping[str, str],
) -> bytes:  # fmt: skip
    rule, index = told_by
    steps = worked.how()
    grounds = _grounds_of(layout, pack, rule, rule.effects[index])
    told = grounds.told(moment, subject.name, entry.label, entry.points, steps)
    encode = ENCODER.encode
    more: tuple[bytes, ...] = (NO_TEXT,) * 4
    if extra:
        more = tuple([encode(extra.get(name, "")) for name in ("owner", "due_at", "proposal", "reverses")])
    return grounds.decision.write(
        encode(entry.id), encode(entry.revision), encode(entry.kind), encode(entry.status), encode(subject.level),
        encode(subject.name), encode(entry.window), encode(entry.label), encode(entry.incident), encode(entry.points),
        encode(moment.calendar.text(moment.at_ms)), told.facts, told.parameters, encode(evidence[0]),
        encode(evidence[1]), encode(steps), told.explanation, *more, encode(entry.adjusts),
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
    grounds = _grounds_of(layout, pack, rule, effect)
    told = grounds.told(moment, subject.name, "", "", ())
    encode, text = ENCODER.encode, moment.calendar.text
    raw = grounds.alert.write(
        encode(state.id), encode(to), encode(subject.level), encode(subject.name), encode(incident),
        encode(text(state.since_ms)), encode(text(at_ms)), told.explanation, told.facts, told.parameters,
        encode(evidence),
    )  # fmt: skip
    return Output("alerts", subject.name.encode(), raw)


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
    """An explanation of one day as JSON with its parameters put in: every second of ``pieces`` is to be filled, with
    ``names``, which are facts, parts of the frame, or the table whose line depends on the message."""

    pieces: list[bytes]
    names: tuple[str, ...]


class _Day(NamedTuple):
    """What the messages of one day have in common. A rule without an explanation of its own has no pattern."""

    parameters: dict[str, UsedParameter]
    encoded: bytes
    patterns: tuple[_Pattern | None, ...]


class _Told(NamedTuple):
    """What a message rests on and its sentence in both languages, as JSON."""

    facts: bytes
    parameters: bytes
    explanation: bytes


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
        named = [set(PLACEHOLDER.findall(words)) for words in (rule.explanation.en, rule.explanation.zh)]
        self._framed = bool(set.union(*named) & set(FRAME))
        alike = self._by is None and all(named) and not self._framed
        self._sums = sums_reader(layout, pack, [name for name, _ in self._facts]) if alike else None
        self._told: dict[tuple[Any, ...], _Told] = {}
        same = {
            "pack": pack.name, "pack_version": pack.version, "rule": rule.id, "clause": rule.clause, "shadow": False,
        }  # fmt: skip
        self.decision = Form(Decision, {**same, "amount_minor": 0, "currency": pack.currency}, _DECISION_LEFT)
        about = {"severity": effect.severity, "owner": effect.owner, "title": rule.title}
        self.alert = Form(Alert, {**same, **about, "response": effect.response}, _ALERT_LEFT)

    def told(self, moment: Moment, subject: str, label: str, points: str, steps: tuple[Step, ...]) -> _Told:
        """The facts and the parameters that a message rests on, and the message in one sentence in both languages.

        A rule's own template may name ``subject``, ``period`` and ``points``, any fact and any parameter in braces; a
        rule without one gets its title with the facts and the arithmetic. Where it names facts and parameters alone,
        what is told of the same sums is the same, and these few come again and again.
        """
        if self._sums is None:
            return self._telling(moment, subject, label, points, steps)
        key = (moment.day, self._sums(moment))
        found = self._told.get(key)
        if found is None:
            if len(self._told) >= TOLD_KEPT:
                self._told.clear()
            found = self._told[key] = self._telling(moment, subject, label, points, steps)
        return found

    def _telling(
        self, moment: Moment, subject: str, label: str, points: str, steps: tuple[Step, ...]
    ) -> _Told:
        day = self._on_day(moment.day)
        facts = {name: read(moment) for name, read in self._facts}
        parameters, encoded = day.parameters, day.encoded
        if self._by is not None:
            word = fact_text(self._by(moment)) or ""
            line = used_parameter(self._pack.parameters[self._table], moment.day, word)
            parameters = {**parameters, self._table: line}
            encoded = ENCODER.encode(parameters)
        frame = {}
        if self._framed:
            frame = {"subject": _json(subject), "period": label.encode(), "points": points.encode()}
        title = self._rule.title
        sentences = []
        for pattern, said, nothing in zip(day.patterns, (title.en, title.zh), NOTHING_KNOWN, strict=True):
            if pattern is None:
                text = _default_sentence(said, steps, facts, parameters, (subject, label))
                sentences.append(ENCODER.encode(text))
                continue
            pieces = pattern.pieces.copy()
            pieces[1::2] = [
                frame[one] if one in frame else _shown(one, facts, parameters, nothing)
                for one in pattern.names
            ]
            sentences.append(b"".join(pieces))
        explanation = b'{"en":%b,"zh":%b}' % tuple(sentences)
        return _Told(ENCODER.encode(facts), encoded, explanation)

    def _day(self, day: date) -> _Day:
        parameters = {name: used_parameter(self._pack.parameters[name], day) for name in self._parameters}
        words = self._rule.explanation
        known = {name for name, _ in self._facts} | set(FRAME) | {f"p.{self._table}"}
        patterns = [_pattern(template, known, parameters) for template in (words.en, words.zh)]
        return _Day(parameters, ENCODER.encode(parameters), tuple(patterns))


def _shown(
    name: str, facts: Mapping[str, UsedFact], parameters: Mapping[str, UsedParameter], nothing: bytes
) -> bytes:
    """A fact or a parameter as people read it, in JSON."""
    used = facts.get(name) or parameters[name[2:]]
    return nothing if used.value is None else _readable_json(used.value, used.unit)


@lru_cache(maxsize=8_192)
def _readable_json(value: str, unit: str) -> bytes:
    return _json(_rounded(value, unit))


def _pattern(
    template: str, known: Container[str], parameters: Mapping[str, UsedParameter]
) -> _Pattern | None:
    if not template:
        return None
    texts = [""]
    left: list[str] = []
    # Literal text and names in turn.
    for index, piece in enumerate(PLACEHOLDER.split(template)):
        if index % 2 == 0:
            texts[-1] += piece
        elif piece in known:
            texts.append("")
            left.append(piece)
        elif piece[:2] == "p." and piece[2:] in parameters:
            used = parameters[piece[2:]]
            texts[-1] += readable(used.value, used.unit, "")
        else:
            texts[-1] += f"{{{piece}}}"
    pieces = [b""] * (2 * len(left) + 1)
    pieces[0::2] = [_json(text) for text in texts]
    pieces[0] = b'"' + pieces[0]
    pieces[-1] += b'"'
    return _Pattern(pieces, tuple(left))


def readable(value: str | None, unit: str, nothing: str) -> str:
    """A fact or parameter as people read it: ratios in per cent, milliseconds as h:mm:ss, long numbers to two places.

    The exact value stands beside it in the decision.
    """
    return nothing if value is None else _rounded(value, unit)


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
    about: tuple[str, str],
) -> str:
    parts = [f"{name} = {fact.value if fact.value is not None else '?'}" for name, fact in facts.items()]
    parts += [f"{name} = {parameter.value}" for name, parameter in parameters.items()]
    lines = "; ".join(f"{step.what}: {step.calculation} = {step.result}" for step in steps)
    named = " ".join(part for part in about if part)
    text = f"{title} ({named}): {', '.join(parts)}" if parts else f"{title} ({named})"
    return f"{text}; {lines}" if lines else text


def _json(text: str) -> bytes:
    """A part of a text, as it stands in JSON."""
    return ENCODER.encode(text)[1:-1]
