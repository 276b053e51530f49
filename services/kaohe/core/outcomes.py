"""What a running period's rules would come to, in a few numbers: whether anything they decide can have changed.

Theory of operation. A period is judged again at each evaluation in which something was counted for it, and nearly
always nothing follows: the rate is still within its limit, or still as many full steps beyond it. So the *outcome* of
each rule is worked out from the counts alone: nothing while its condition does not hold, and the number of its steps
while it does. Where the outcome of a rule is what it was when the subject was judged last, durable-rules would answer
as it did, the amount would be what it was, and the rule is left alone. Every other rule is judged in full.

An outcome may differ without need and must never be the same without right. What cannot be told exactly from sums of
the period and of its baseline (a percentile, a text, a rolling window) is therefore told by the facts that decide it,
as they are. Where every rule is told from sums alone, there are the same outcomes as numbers (``kaohe.core.moves``),
for the loop over all who were counted.

Rules that wait for the close of the period, and effects that do, have no outcome before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from kaohe.core.calendars import Calendar, Period
from kaohe.core.counting import Layout
from kaohe.core.effects import decided_by, steps_on
from kaohe.core.expressions import Condition
from kaohe.core.facts import Moment, baseline_period, facts_reader
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.moves import MAX_FACTOR, MAX_NUMBERS, MAX_TERMS, Verdicts
from kaohe.core.screens import Polynomial, Sums, Test, all_of, alternatives, compiled, minus, product, text_of

MOVING = ("deduct", "award", "grade")
"""The kinds of effects that follow a running period."""
MAX_WEIGHT = 1 << 15
"""Sums with larger weights are not told as numbers."""
Outcome = tuple[Any, ...]


class _Amount(NamedTuple):
    """How many steps an amount has: ``top // bottom``, from 0 to ``most``; none unless each of ``known`` holds."""

    known: Test
    top: Polynomial
    bottom: Polynomial
    most: int


class _Told(NamedTuple):
    """The outcome of one rule: what makes it hold, and the amounts of its effects."""

    holds: Test
    amounts: list[_Amount]


class Outcomes:
    """The outcomes of some rules of a pack about one kind of period, with the parameters in force on a day.

    ``rules`` are those that have one, by their places in the rule set, and outcomes come in their order: first of those
    that rest on sums alone. ``verdicts`` has them as numbers where all do, on sums that are not too many; it is asked
    about the ``periods``.
    """

    def __init__(
        self, layout: Layout, pack: Pack, window: str, rules: Sequence[Rule], bound: Mapping[str, Condition], day: date
    ) -> None:  # fmt: skip
        sums = Sums(layout, day)
        told: list[tuple[int, _Told]] = []
        shown: list[int] = []
        for place, rule in enumerate(rules):
            effects = [effect for effect in rule.effects if effect.kind in MOVING]
            if not effects or not rule.provisional:
                continue
            found = _told(sums, layout, pack, window, rule, effects, bound[rule.id], day)
            if found is None:
                shown.append(place)
            else:
                told.append((place, found))
        self.rules = tuple([place for place, _ in told] + shown)
        parts = "".join(f"{_source(sums, one)}, " for _, one in told)
        heads = sums.heads(lambda read: f"moment.counts({read!r})")
        self._told: Callable[[Moment], Outcome] = compiled("moment", [*heads, f"return ({parts})"])
        self._shown = _facts(layout, pack, [rules[place] for place in shown]) if shown else None
        self.verdicts = _verdicts(sums, [one for _, one in told]) if told and not shown else None
        self._windows = tuple(sums.windows)

    def __call__(self, moment: Moment) -> Outcome:
        """The outcomes of the moment's period."""
        told = self._told(moment)
        return told if self._shown is None else told + self._shown(moment)

    def periods(self, calendar: Calendar, period: Period) -> tuple[Period, ...]:
        """The periods of which sums are told, where one is judged: that one and baselines."""
        return tuple(
            [
                period if window == period.window else calendar.period(*baseline_period(window))
                for window in self._windows
            ]
        )


def _told(
    sums: Sums, layout: Layout, pack: Pack, window: str, rule: Rule, effects: list[Effect], bound: Condition, day: date
) -> _Told | None:  # fmt: skip
    """The outcome of one rule over sums of the period and of baselines; None when it rests on more than these."""
    read = {name for effect in effects for name in decided_by(rule, effect) if name[:2] != "p."}
    if any(one.split(".")[1:2] != [window] or one.endswith((".vs_previous", ".vs_before")) for one in read):
        return None
    if not sums.is_exact(pack, bound):
        return None
    found = []
    for effect in effects:
        if effect.kind == "grade":
            continue
        steps = steps_on(layout, pack, effect, day)
        if steps is None:
            return None
        if steps.of:
            value = sums.quotient(pack, steps.of)
            if value is None:
                return None
            top, bottom = (
                product(value.top, {(): steps.top_factor}),
                product(value.bottom, {(): steps.bottom_factor}),
            )
            step = product(value.bottom, {(): steps.steps_factor})
            found.append(_Amount(all_of(value.known), minus(top, bottom), step, steps.most))
    return _Told(sums.test(pack, bound), found)


def _source(sums: Sums, told: _Told) -> str:
    """The outcome of one rule as source text."""
    parts = ""
    for one in told.amounts:
        count = f"{text_of(one.top)} // {text_of(one.bottom)}"
        parts += f"(min(max({count}, 0), {one.most}) if {sums.source(one.known)} else 0), "
    return f"({parts}) if {sums.source(told.holds)} else None"


def _verdicts(sums: Sums, told: Sequence[_Told]) -> Verdicts | None:
    """The outcomes of some rules as numbers; None where that is too much."""
    numbers: dict[Test, int] = {}

    def sets(test: Test) -> list[int] | None:
        """The sets of comparisons that pass a test together, a bit for each; None where these are too many."""
        found = alternatives(test)
        if found is None:
            return None
        return [
            sum(1 << numbers.setdefault(one, len(numbers)) for one in dict.fromkeys(together))
            for together in found
        ]

    rules = []
    for holds, amounts in told:
        steps = []
        for one in amounts:
            known = sets(one.known)
            if known is None or len(known) != 1:
                return None
            steps.append((known[0], one.most, _terms(one.top), _terms(one.bottom)))
        passing = sets(holds)
        if passing is None:
            return None
        rules.append((passing, steps))
    if any(test[0] != "compare" for test in numbers) or any(one.largest for one in sums.variables):
        return None
    comparisons = [(op, _terms(dict(polynomial))) for _, polynomial, op in numbers]
    several = [terms for _, terms in comparisons]
    several += [terms for _, steps in rules for _, _, *both in steps for terms in both]
    places = len(rules) + sum(len(steps) for _, steps in rules)
    fits = max(len(numbers), len(sums.variables), places) <= MAX_NUMBERS and all(
        len(terms) <= MAX_TERMS and all(len(one) == 3 and abs(one[0]) < MAX_FACTOR for one in terms)
        for terms in several
    )
    variables = [(sums.windows[one.window], one.reads) for one in sums.variables]
    if not fits or any(abs(weight) >= MAX_WEIGHT for _, reads in variables for _, weight in reads):
        return None
    return Verdicts(variables, comparisons, rules)


def _terms(polynomial: Polynomial) -> list[tuple[int, ...]]:
    """The terms of a polynomial: factor and two variables (-1: none), or more where it has more."""
    return [(factor, *variables, *[-1] * (2 - len(variables))) for variables, factor in polynomial.items()]


def _facts(layout: Layout, pack: Pack, rules: Sequence[Rule]) -> Callable[[Moment], Outcome]:
    """What decides each of some rules."""
    wanted = [
        sorted({name for effect in rule.effects for name in decided_by(rule, effect) if name[:2] != "p."})
        for rule in rules
    ]
    read = facts_reader(layout, pack, {name for one in wanted for name in one})

    def shown(moment: Moment) -> Outcome:
        facts = read(moment)
        return tuple([tuple([facts[name] for name in one]) for one in wanted])

    return shown
