"""Amounts, scores and messages: what is calculated in whole numbers says what exact fractions say."""

from __future__ import annotations

import math
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kaohe.core.calendars import calendar
from kaohe.core.counting import Layout
from kaohe.core.counts import Cell, Series
from kaohe.core.effects import work_out
from kaohe.core.facts import Moment, number_text, quotient_text
from kaohe.core.messages import readable
from kaohe.core.model import Pack
from kaohe.core.scores import scale_of
from kaohe.decisions import Step
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
