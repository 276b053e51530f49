"""Amounts, scores and messages: what is calculated in whole numbers says what exact fractions say."""

from __future__ import annotations

import math
import random
import re
from datetime import date
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kaohe.core import messages
from kaohe.core.calendars import calendar
from kaohe.core.counting import Layout
from kaohe.core.counts import DISTINCT_SLOT, Cell, Series
from kaohe.core.effects import PLACEHOLDER, Worked, names_of, work_out
from kaohe.core.facts import (
    Moment,
    fact_text,
    metric_windows,
    number_text,
    quotient_text,
    reader,
    used_parameter,
    used_reader,
)
from kaohe.core.messages import readable
from kaohe.core.model import Pack, Rule
from kaohe.core.scores import scale_of
from kaohe.core.subjects import AlertState, Entry, Subject
from kaohe.decisions import (
    ALERT_DECODER,
    DECISION_DECODER,
    ENCODER,
    Alert,
    Decision,
    Step,
    UsedFact,
    UsedParameter,
    Words,
)
from kaohe.packs.load import load_packs
from tests.support.packs import at_ms, make_pack

METRICS = """
wait_s:
  mean: {field: wait_ms, of: call.answered}
  level: [agent]
  windows: [month]
"""
PARAMETERS = """
limit:
  unit: s
  min: 0
  max: 100
  values: {2026-01-01: 20, 2026-09-01: 12.5}
step:
  unit: s
  min: 0.1
  max: 100
  values: {2026-01-01: 3}
step_points:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 0.5}
most:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 4}
base:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 100}
lowest:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 80}
highest:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: 110}
bands:
  unit: points
  min: 0
  max: 1000
  values: {2026-01-01: {A: 95, B: 90, C: 80}}
"""
RULES = """
- id: over
  level: [agent]
  judged: month
  when: wait_s.month > 0
  then:
    - deduct: {points: p.step_points, per: p.step, over: p.limit, of: wait_s.month, at_most: p.most}
- id: under
  level: [agent]
  judged: month
  when: wait_s.month > 0
  then:
    - award: {points: p.step_points, per: p.step, under: p.limit, of: wait_s.month / 2}
"""
SCORECARD = """
window: month
level: agent
base: p.base
lowest: p.lowest
highest: p.highest
bands: p.bands
formula: {en: Base plus points., zh: 基础分加减分。}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(
        tmp_path_factory.mktemp("pack"),
        metrics=METRICS,
        parameters=PARAMETERS,
        rules=RULES,
        scorecard=SCORECARD,
    )


@pytest.fixture(scope="module")
def layout(pack: Pack) -> Layout:
    return Layout([pack])


def month(layout: Layout, pack: Pack, waited_ms: int, calls: int, day: str = "2026-08-01") -> Moment:
    """The judged month of an agent who took so many calls."""
    zone = calendar(pack.zone)
    start_ms = at_ms(f"{day}T00:00")
    series = Series(zone, 60_000, ())
    (top, _), *_ = layout.reads[pack.key, "wait_s"][0]
    (bottom, _), *_ = layout.reads[pack.key, "wait_s"][1]
    series.add(start_ms, Cell({top: waited_ms, bottom: calls}), start_ms + 60_000)
    period = zone.containing("month", start_ms)
    return Moment(series, ("", "", ""), start_ms + 60_000, day=date.fromisoformat(day), period=period)


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(0, 300), st.sampled_from(["2026-08-01", "2026-09-01"]))
@example(26_000, 1, "2026-08-01")  # two steps to the millisecond
@example(25_999, 1, "2026-08-01")
def test_steps_are_those_of_exact_fractions(
    layout: Layout, pack: Pack, waited_ms: int, calls: int, day: str
) -> None:
    moment = month(layout, pack, waited_ms, calls, day)
    over, under = (work_out(layout, pack, rule.effects[0], moment) for rule in pack.rules)
    if not calls:
        assert not over.points
        assert not under.points
        assert not over.how()
        assert not under.how()
        return
    wait, limit = Fraction(waited_ms, 1000 * calls), Fraction(20 if day == "2026-08-01" else "12.5")
    steps = math.floor((wait - limit) / 3)
    total = max(0, steps) * Fraction(1, 2)
    assert over.points == -min(total, Fraction(4))
    expected = [
        Step("steps", f"floor(({number_text(wait)} - {number_text(limit)}) / 3)", str(steps)),
        Step("points", f"{max(0, steps)} * 0.5", number_text(total)),
    ]
    if total > 4:
        expected.append(Step("at most", f"min({number_text(total)}, 4)", "4"))
    assert over.how() == tuple(expected)
    assert under.points == max(0, math.floor((limit - wait / 2) / 3)) * Fraction(1, 2)
    assert under.how()[0].calculation == f"floor(({number_text(limit)} - {number_text(wait / 2)}) / 3)"


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6), st.integers(1, 50))
def test_a_quotient_reads_the_same_however_it_is_reduced(top: int, bottom: int, factor: int) -> None:
    text = quotient_text(top * factor, bottom * factor)
    assert text == number_text(Fraction(top, bottom))
    assert Fraction(text.partition(" ")[0]) == Fraction(top, bottom)


@given(st.fractions(-1000, 1000, max_denominator=5000), st.sampled_from(["ratio", "s"]))
@example(Fraction("0.125"), "s")
@example(Fraction("-0.125"), "s")
@example(Fraction("0.00125"), "ratio")
def test_people_read_two_places_rounded_half_to_even(value: Fraction, unit: str) -> None:
    expected = round(100 * value, 2) if unit == "ratio" else round(value, 2)
    sign = "%" if unit == "ratio" else ""
    assert readable(number_text(value), unit, "none") == number_text(expected) + sign


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "none"), ("A-12", "A-12"), ("2026-08", "2026-08"), ("3/0", "3/0"), ("", ""), ("12.50", "12.5")],
)
def test_what_is_no_number_is_shown_as_it_is(value: str | None, shown: str) -> None:
    assert readable(value, "", "none") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "0:00:00"), ("300001", "0:05:00"), ("59999", "0:01:00"), ("100000000", "27:46:40")],
)
def test_milliseconds_are_shown_as_hours_minutes_and_seconds(value: str, shown: str) -> None:
    assert readable(value, "ms", "none") == shown


@settings(deadline=None)
@given(st.fractions(-60, 60, max_denominator=8))
def test_a_score_stays_in_its_bounds_and_a_cap_only_lowers_the_grade(
    layout: Layout, pack: Pack, charged: Fraction
) -> None:
    scale = scale_of(layout, pack, date(2026, 8, 1))
    score = min(max(100 + charged, Fraction(80)), Fraction(110))
    text, rank = scale.score(charged)
    assert text == number_text(score)
    grade = "A" if score >= 95 else "B" if score >= 90 else "C"
    assert scale.grade(rank, []) == grade
    assert scale.grade(rank, ["B", "A"]) == max(grade, "B")


# --- the bytes of messages --------------------------------------------------------------------------------------------

SHIPPED = ("company-kpi", "contact-centre", "front-desk", "full-attendance", "logistics-service", "reception")
NOW_MS = at_ms("2026-08-20T10:00")
AWKWARD = 'a "quoted" \\ {p.text}\n%s 客'


class SomeEvent:
    """An event in whose fields there is what a table knows, else what must be escaped."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __getattr__(self, name: str) -> str | None:
        return None if name == "score" else self._word


def shipped_effects() -> list[tuple[Pack, Rule, int, Any]]:
    rules = Path(__file__).parents[2] / "rules"
    packs = load_packs([str(rules / name) for name in SHIPPED])
    return [
        (pack, rule, index, level)
        for pack in packs
        for rule in pack.rules
        for index in range(len(rule.effects))
        for level in rule.levels
    ]


def some_moment(rng: random.Random, layout: Layout, level: str, rule: Rule, word: str) -> Moment:
    """What a rule may be asked about, with counts of before and of now, or without any."""
    zone = calendar("Asia/Shanghai")
    series = Series(zone, 60_000, metric_windows({pack.key: pack for pack in layout.packs}, level))
    for start_ms in (at_ms("2026-07-15T10:00"), NOW_MS - 600_000, NOW_MS - 60_000):
        if rng.random() < 0.8:
            slots = [slot for slot in layout.slots.values() if rng.random() < 0.8]
            counts = {
                slot: {rng.randrange(9)} if slot >= DISTINCT_SLOT else rng.randrange(40) for slot in slots
            }
            series.add(start_ms, Cell(counts), start_ms + 60_000)
    period = zone.containing(rule.on, NOW_MS - 1) if rule.trigger == "period" else None
    moment = Moment(
        series, ("t-1", "s-1", "p-1"), NOW_MS, day=date(2026, 8, 20), period=period, event=SomeEvent(word), late_ms=90
    )  # fmt: skip
    moment.opened_ms = at_ms("2026-08-18T10:00")
    return moment


def told(
    layout: Layout, pack: Pack, rule: Rule, index: int, moment: Moment, frame: dict[str, str], steps: list[Step]
) -> tuple[dict[str, UsedFact], dict[str, UsedParameter], Words]:  # fmt: skip
    """What a message must rest on, and say, the plain way."""
    effect = rule.effects[index]
    wanted = names_of(rule, effect)
    facts = {name: used_reader(layout, pack, name)(moment) for name in wanted if name[:2] != "p."}
    used = {
        name[2:]: used_parameter(pack.parameters[name[2:]], moment.day) for name in wanted if name[:2] == "p."
    }
    if effect.amount is not None and effect.amount.table:
        word = fact_text(reader(layout, pack, effect.amount.by)(moment)) or ""
        used[effect.amount.table] = used_parameter(pack.parameters[effect.amount.table], moment.day, word)

    def sentence(template: str, title: str, nothing: str) -> str:
        def shown(match: re.Match[str]) -> str:
            name = match[1]
            if name in frame:
                return frame[name]
            one: UsedFact | UsedParameter | None = facts.get(name) or used.get(name[2:])
            return match[0] if one is None else readable(one.value, one.unit, nothing)

        if template:
            return PLACEHOLDER.sub(shown, template)
        parts = [f"{name} = {one.value if one.value is not None else '?'}" for name, one in facts.items()]
        parts += [f"{name} = {one.value}" for name, one in used.items()]
        about = " ".join(part for part in (frame["subject"], frame["period"]) if part)
        lines = "; ".join(f"{step.what}: {step.calculation} = {step.result}" for step in steps)
        text = f"{title} ({about}): {', '.join(parts)}" if parts else f"{title} ({about})"
        return f"{text}; {lines}" if lines else text

    words = Words(
        sentence(rule.explanation.en, rule.title.en, "no data"),
        sentence(rule.explanation.zh, rule.title.zh, "无数据"),
    )
    return facts, used, words


def word_for(pack: Pack, rule: Rule, index: int) -> str:
    amount = rule.effects[index].amount
    if amount is None or not amount.table:
        return AWKWARD
    table = pack.parameters[amount.table].value_at(date(2026, 8, 20))
    assert isinstance(table, dict)
    return min(table)


def test_decisions_are_what_the_encoder_writes_of_their_structs() -> None:
    rng = random.Random("decisions")
    effects = shipped_effects()
    layout = Layout(list({pack.key: pack for pack, *_ in effects}.values()))
    steps = [Step("points", "1 * 3", "3")]
    for (pack, rule, index, level), name in product(effects, ("a-1", AWKWARD, "a-1")):
        moment = some_moment(rng, layout, level, rule, word_for(pack, rule, index))
        subject = Subject(level, name, moment.series, 0)
        entry = Entry(
            id="d-1", pack=pack.name, rule=rule.id, effect=index, kind="deduct", window="month", label="2026-08",
            incident=AWKWARD, points="-3", revision=2, status="final", adjusts="2026-07",
        )  # fmt: skip
        extra: dict[str, Any] = {"owner": "hr", "proposal": AWKWARD} if rng.random() < 0.5 else {}
        for _ in range(2):  # the second time what was told is remembered
            found = messages.decision(
                layout, subject, pack, rule, entry, moment, Worked(Fraction(-3), lambda: tuple(steps)),
                (["e-1", AWKWARD], 7), extra,
            )  # fmt: skip
            frame = {"subject": name, "period": "2026-08", "points": "-3"}
            facts, used, words = told(layout, pack, rule, index, moment, frame, steps)
            assert found.value == ENCODER.encode(Decision(
                id="d-1", revision=2, kind="deduct", status="final", pack=pack.name, pack_version=pack.version,
                rule=rule.id, clause=rule.clause, level=level, subject=name, window="month", period="2026-08",
                incident=AWKWARD, points="-3", amount_minor=0, currency=pack.currency,
                at="2026-08-20T10:00:00+08:00", facts=facts, parameters=used, evidence=["e-1", AWKWARD],
                evidence_count=7, arithmetic=steps, explanation=words, adjusts_period="2026-07", **extra,
            )), rule.id  # fmt: skip
            assert ENCODER.encode(DECISION_DECODER.decode(found.value)) == found.value


def test_alerts_are_what_the_encoder_writes_of_their_structs() -> None:
    rng = random.Random("alerts")
    effects = [one for one in shipped_effects() if one[1].effects[one[2]].kind == "alert"]
    layout = Layout(list({pack.key: pack for pack, *_ in effects}.values()))
    for (pack, rule, index, level), name in product(effects, ("q-1", AWKWARD, "q-1")):
        moment = some_moment(rng, layout, level, rule, AWKWARD)
        effect = rule.effects[index]
        state = AlertState(id="w-1", since_ms=NOW_MS - 1, firing=True)
        for _ in range(2):
            found = messages.alert(
                layout, Subject(level, name, moment.series, 0), pack, rule, effect, moment, state, "firing", AWKWARD,
                ("e-1", AWKWARD), NOW_MS,
            )  # fmt: skip
            frame = {"subject": name, "period": "", "points": ""}
            facts, used, words = told(layout, pack, rule, index, moment, frame, [])
            assert found.value == ENCODER.encode(Alert(
                id="w-1", state="firing", pack=pack.name, pack_version=pack.version, rule=rule.id, clause=rule.clause,
                severity=effect.severity, level=level, subject=name, incident=AWKWARD,
                since="2026-08-20T09:59:59.999+08:00", at="2026-08-20T10:00:00+08:00", owner=effect.owner,
                title=rule.title, explanation=words, response=effect.response, facts=facts, parameters=used,
                evidence=["e-1", AWKWARD],
            )), rule.id  # fmt: skip
            assert ENCODER.encode(ALERT_DECODER.decode(found.value)) == found.value
