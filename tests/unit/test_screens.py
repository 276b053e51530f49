"""Tests of counts keep nothing back that the matcher would report, whatever the counts, and answer only as it would."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from kaohe.core.calendars import calendar
from kaohe.core.counting import Layout
from kaohe.core.counts import DISTINCT_SLOT, MAX_SLOT, Cell, Series
from kaohe.core.effects import clears, work_out
from kaohe.core.expressions import And, Compare, CompareOp, Condition, ExprType, Known, Or, names
from kaohe.core.facts import Moment, facts_reader, metric_windows, reader
from kaohe.core.looks import MAX_TESTS
from kaohe.core.matcher import Matcher
from kaohe.core.model import Pack
from kaohe.core.rulesets import RuleBook, RuleSet, Watch, rolling_slots
from kaohe.core.screens import (
    ALWAYS,
    NEVER,
    all_of,
    alternatives,
    any_of,
    atoms_of,
    screen,
    truths,
    truths_seen,
)
from kaohe.core.subjects import AlertState
from kaohe.packs.load import load_packs
from tests.support.packs import at_ms

RULES = Path(__file__).parents[2] / "rules"
PACKS = ("contact-centre", "front-desk", "logistics-service")
MINUTE_MS = 60_000
NOW_MS = at_ms("2026-08-20T10:00")
TODAY = date(2026, 8, 20)
LAST_MONTH_MS = at_ms("2026-07-15T10:00")
LEVELS = ("agent", "queue", "team", "site")
OPS: tuple[CompareOp, ...] = ("<", "<=", ">", ">=", "==", "!=")


@cache
def loaded() -> tuple[tuple[Pack, ...], Layout]:
    packs = tuple(load_packs([str(RULES / name) for name in PACKS]))
    return packs, Layout(packs)


def some_count(rng: random.Random) -> int:
    """Small numbers, and durations that lie about the limits people set: whole minutes, one more, one less."""
    if rng.random() < 0.3:
        return rng.randrange(4)
    if rng.random() < 0.6:
        return rng.randrange(40)
    return rng.randrange(60) * MINUTE_MS * rng.choice((1, 10, 480)) + rng.randrange(-1, 2)


def some_cell(rng: random.Random, layout: Layout) -> Cell:
    full = rng.random()
    counts: dict[int, Any] = {}
    for slot in layout.slots.values():
        if rng.random() < full:
            count = some_count(rng)
            counts[slot] = {rng.randrange(99)} if slot >= DISTINCT_SLOT else count
    return Cell(counts)


def some_moment(
    rng: random.Random, layout: Layout, packs: tuple[Pack, ...], level: str, *, rules_only: bool = False
) -> Moment:
    """A subject with counts of now, of earlier this month and perhaps of the month before.

    Its rolling windows keep the sums of all slots, or only of those that rules of the level read, as a judge has it.
    """
    spans = metric_windows({pack.key: pack for pack in packs}, level)
    watched = rolling_slots(layout, level) if rules_only else dict.fromkeys(spans, layout.slots.values())
    series = Series(calendar("Asia/Shanghai"), MINUTE_MS, spans, watched)
    if rng.random() < 0.7:
        series.add(LAST_MONTH_MS, some_cell(rng, layout), LAST_MONTH_MS + MINUTE_MS)
    for minutes in (90, 30, 5):
        if rng.random() < 0.7:
            start_ms = NOW_MS - minutes * MINUTE_MS
            series.add(start_ms, some_cell(rng, layout), start_ms + MINUTE_MS)
    series.expire(NOW_MS)
    own = series.calendar
    period = own.containing("month", NOW_MS - 1) if level == "agent" else None
    return Moment(series, ("t-1", "s-1", "p-1"), NOW_MS, day=own.day(NOW_MS), period=period)


def asked_always(layout: Layout, rules: RuleSet) -> Callable[[Moment], list[str]]:
    """What durable-rules answers about a set of rules, asked each time."""
    conditions = rules.bound_on(TODAY)
    scopes = rules.pack.scopes
    types = {
        name: scopes[rule.id][name]
        for rule in rules.rules
        for name in names(rule.condition)
        if not name.startswith("p.")
    }
    matcher, facts = Matcher("asked", conditions, types), facts_reader(layout, rules.pack, types)
    return lambda moment: list(matcher.match(facts(moment)))


def test_what_has_the_same_outcome_is_judged_alike() -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {level: frozenset({"period"}) for level in ("agent", "team")})
    rng = random.Random("outcomes")
    seen = {"alike": 0, "worth": 0}
    for rules in book.period.values():
        outcomes, ask = rules.outcomes_on(TODAY), asked_always(layout, rules)
        known: dict[tuple[int, Any], list[Fraction | bool]] = {}
        for _ in range(250 if outcomes.rules else 0):
            moment = some_moment(rng, layout, packs, rules.level, rules_only=True)
            moment.period = moment.calendar.containing(rules.on, NOW_MS - 1)
            fired = ask(moment)
            for place, outcome in zip(outcomes.rules, outcomes(moment), strict=True):
                rule = rules.rules[place]
                comes_to: list[Fraction | bool] = [rule.id in fired]
                if rule.id in fired:
                    charging = [effect for effect in rule.effects if effect.kind == "deduct"]
                    comes_to += [work_out(layout, rules.pack, one, moment).points for one in charging]
                seen["alike"] += (place, outcome) in known
                seen["worth"] += len(comes_to) > 1 and bool(comes_to[1])
                assert known.setdefault((place, outcome), comes_to) == comes_to, rule.id
    assert min(seen.values()) > 100, seen


def test_outcomes_as_numbers_are_the_same_exactly_when_the_outcomes_are() -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {level: frozenset({"period"}) for level in ("agent", "team")})
    rng = random.Random("numbers")
    seen = {"told": 0, "alike": 0, "too large": 0, "of baselines": 0}
    for rules in book.period.values():
        outcomes = rules.outcomes_on(TODAY)
        numbers: dict[tuple[Any, ...], bytes] = {}
        told: dict[bytes, tuple[Any, ...]] = {}
        for _ in range(250 if outcomes.verdicts is not None else 0):
            moment = some_moment(rng, layout, packs, rules.level, rules_only=True)
            moment.period = moment.calendar.containing(rules.on, NOW_MS - 1)
            periods = outcomes.periods(moment.calendar, moment.period)
            seen["of baselines"] += len(periods) > 1
            if rng.random() < 0.2:
                sums = [slot for slot in layout.slots.values() if slot < MAX_SLOT]
                large = Cell(dict.fromkeys(sums, 1 << rng.choice((47, 70))))
                moment.series.add(NOW_MS - MINUTE_MS, large, NOW_MS)
            assert outcomes.verdicts is not None
            found = outcomes.verdicts(moment.series, periods)
            outcome = outcomes(moment)
            if found is None:
                seen["too large"] += 1
                continue
            seen["told"] += 1
            seen["alike"] += outcome in numbers
            assert numbers.setdefault(outcome, found) == found
            assert told.setdefault(found, outcome) == outcome
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize("level", LEVELS)
def test_no_rule_of_the_packs_is_kept_back(level: str) -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {level: frozenset({"watch", "period"})})
    sets = [(rules, asked_always(layout, rules)) for rules in (*book.watch[level], *book.period.values())]
    rng = random.Random(level)
    outcomes = {"held": 0, "screened": 0}
    for _ in range(1_000):
        moment = some_moment(rng, layout, packs, level, rules_only=True)
        for rules, ask in sets:
            matched = rules.matched(moment)
            assert [rule.id for rule in matched] == ask(moment), (
                "an answer that is remembered is the matcher's"
            )
            assert rules.fired(moment) == matched
            may_hold = rules.may_hold(moment)
            for bit, rule in enumerate(rules.rules):
                assert may_hold >> bit & 1 or rule not in matched, rule.id
            outcomes["held"] += bool(matched)
            outcomes["screened"] += not may_hold
    assert min(outcomes.values()) > 100, "both happen often, or this test would show nothing"


@pytest.mark.parametrize("level", ["queue", "team", "site"])
def test_a_look_numbers_the_comparisons_that_hold_as_the_matchers_answers_are_remembered(level: str) -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {level: frozenset({"watch"})})
    rng = random.Random(level)
    found = {"same": 0, "too large": 0, "sets": 0}
    for rules in book.watch[level]:
        conditions = [condition for _, condition in rules.bound_on(TODAY)]
        exact, seen = truths(layout, rules.pack, conditions), truths_seen(layout, rules.pack, conditions)
        assert (exact is None) == (seen is None)
        if exact is None or seen is None:
            continue
        found["sets"] += 1
        every = (1 << len(atoms_of(conditions))) - 1
        for _ in range(200):
            moment = some_moment(rng, layout, packs, level, rules_only=True)
            if rng.random() < 0.2:
                sums = [slot for slot in layout.slots.values() if slot < MAX_SLOT]
                moment.series.add(NOW_MS - MINUTE_MS, Cell(dict.fromkeys(sums, 1 << 70)), NOW_MS)
            numbered = seen(moment.series, moment.calendar.periods(NOW_MS - 1), False)
            assert numbered in (exact(moment), every)
            found["same" if numbered != every else "too large"] += 1
    assert min(found.values()) > 0, found


@pytest.mark.parametrize("level", ["queue", "team", "site"])
def test_a_look_finds_what_begins_and_what_ends(level: str) -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {level: frozenset({"watch"})})
    sets = book.watch[level]
    watch = Watch(layout, sets, TODAY)
    fires = {one.key: AlertState("id", 0, firing=True) for one in watch.watched}
    waits = {one.key: AlertState("id", 0, firing=False) for one in watch.watched}
    rng = random.Random(f"look {level}")
    found = {"begins": 0, "ends": 0, "stays": 0}
    for _ in range(400):
        moment = some_moment(rng, layout, packs, level, rules_only=True)
        periods = moment.calendar.periods(NOW_MS - 1)
        look = partial(watch.screen.judged, moment.series, periods, bits=watch.bits)
        may_hold, judged = look(alerts={})
        assert judged == may_hold
        assert look(alerts=waits) == (may_hold, (1 << len(watch.watched)) - 1)
        assert look(alerts=fires)[0] == may_hold
        ending = look(alerts=fires)[1]
        place = 0
        for rules in sets:
            matched, screened = rules.matched(moment), rules.may_hold(moment)
            for bit, rule in enumerate(rules.rules):
                assert may_hold >> place & 1 == screened >> bit & 1, rule.id
                assert may_hold >> place & 1 or rule not in matched, rule.id
                ends = any(clears(layout, rules.pack, rule, effect, moment) for effect in rule.effects)
                assert ending >> place & 1 or not ends, rule.id
                found["begins"] += rule in matched
                found["ends"] += ends
                found["stays"] += not ending >> place & 1
                place += 1
    assert min(found.values()) > 100, found


def test_where_a_count_is_too_large_a_look_lets_everything_through() -> None:
    packs, layout = loaded()
    book = RuleBook(layout, packs, {"queue": frozenset({"watch"})})
    watch = Watch(layout, book.watch["queue"], TODAY)
    every = (1 << len(watch.watched)) - 1
    moment = some_moment(random.Random(1), layout, packs, "queue", rules_only=True)
    periods = moment.calendar.periods(NOW_MS - 1)
    assert watch.screen.judged(moment.series, periods, {}, watch.bits)[0] != every
    slot = layout.reads[packs[0].key, "calls_waiting"][0][0][0]
    moment.series.add(NOW_MS - MINUTE_MS, Cell({slot: 1 << 50}), NOW_MS)
    assert watch.screen.judged(moment.series, periods, {}, watch.bits) == (every, every)


def test_the_ways_to_pass_a_test_are_told_as_long_as_they_are_few() -> None:
    one, two, three, four = (("seen", number) for number in range(4))
    both = all_of([any_of([one, two]), any_of([three, four])])
    assert alternatives(both) == [(one, three), (one, four), (two, three), (two, four)]
    assert (alternatives(ALWAYS), alternatives(NEVER)) == ([()], [])
    pairs = [any_of([("seen", number), ("unseen", number)]) for number in range(7)]
    assert len(alternatives(all_of(pairs[:6])) or ()) == MAX_TESTS
    assert alternatives(all_of(pairs)) is None
    assert alternatives(any_of([one, all_of(pairs)])) is None


def some_condition(
    rng: random.Random, fields: list[str], values: dict[str, Any], depth: int = 2
) -> Condition:
    """Comparisons with limits at, or just beside, what the fields are."""
    if depth and rng.random() < 0.7:
        parts = tuple(some_condition(rng, fields, values, depth - 1) for _ in range(rng.randrange(1, 4)))
        return And(parts) if rng.random() < 0.5 else Or(parts)
    field = rng.choice(fields)
    if rng.random() < 0.05:
        return Known(field, rng.random() < 0.5)
    value = values[field]
    near = Fraction(value if value is not None else rng.randrange(5))
    limit = round(near, rng.randrange(7)) + rng.choice((0, 0, Fraction(1, 10**6), Fraction(-1, 10**6)))
    return Compare(rng.choice(OPS), field, min(max(limit, Fraction(-(10**9))), Fraction(10**9)))


@pytest.mark.parametrize("level", LEVELS)
def test_no_condition_over_any_metric_and_window_is_kept_back(level: str) -> None:
    packs, layout = loaded()
    rng = random.Random(f"conditions {level}")
    outcomes = {"held": 0, "screened": 0, "exact": 0}
    for pack in packs:
        fields = [
            f"{metric.name}.{window}{aspect}"
            for metric in pack.metrics.values()
            for window in (*metric.windows, "previous_month")
            for aspect in ("", ".base", *([".vs_previous"] if window == "month" else []))
            if level in metric.levels and (metric.kind != "stock" or window == "now")
            and window in ("month", "now", "previous_month", "rolling_15m", "rolling_1h")
        ]  # fmt: skip
        if not fields:
            continue
        types = dict.fromkeys(fields, ExprType("number", optional=True))
        facts = facts_reader(layout, pack, fields)
        for _ in range(40):
            moment = some_moment(rng, layout, packs, level)
            values = {field: reader(layout, pack, field)(moment) for field in fields}
            for _ in range(5):
                condition = some_condition(rng, fields, values)
                matcher = Matcher("some", [("rule", condition)], types)
                held = bool(matcher.match(facts(moment)))
                matcher.close()
                may = bool(screen(layout, pack, [condition])(moment))
                assert may or not held, condition
                if truths(layout, pack, [condition]) is not None:
                    assert may == held, condition
                outcomes["held"] += held
                outcomes["screened"] += not may
                outcomes["exact"] += held == may
    assert min(outcomes.values()) > 100, outcomes


def test_a_maximum_of_several_kinds_of_events_is_screened_by_each() -> None:
    packs, layout = loaded()
    pack = packs[0]
    slots = [slot for slot, _ in layout.reads[pack.key, "longest_wait_s"][0]]
    assert len(slots) == 2
    may_hold = screen(layout, pack, [Compare(">", "longest_wait_s.rolling_15m", Fraction(300))])
    for cell, expected in (
        ({}, False),
        ({slots[0]: 300_000, slots[1]: 300_000}, False),
        ({slots[0]: 300_001}, True),
        ({slots[0]: 5, slots[1]: 300_001}, True),
    ):
        spans = (15 * MINUTE_MS,)
        series = Series(calendar("Asia/Shanghai"), MINUTE_MS, spans, {spans[0]: slots})
        assert all(slot >= MAX_SLOT for slot in slots)
        series.add(NOW_MS - MINUTE_MS, Cell(cell), NOW_MS)
        moment = Moment(series, ("", "", ""), NOW_MS, day=series.calendar.day(NOW_MS))
        assert bool(may_hold(moment)) == expected
