"""Rules of one pack that are judged together, and their matcher.

A *rule set* is the rules of one pack version for one level and one trigger. Its facts are exactly the names its
conditions mention, so a fact is small and total. Which rules fire is decided by durable-rules (``matcher``); what
follows from it is decided by ``judge``.

Parameters are not sent with every fact: they keep one value for a long time, so a matcher is made for each set of
values in force and the values stand in its conditions. That is several times faster than comparing two fields. Before
a matcher is asked, a *screen* (``screens``) sees from the counts whether any of its rules can hold at all. What it
answered about rules that compare sums is remembered by the comparisons that hold; of these there are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple

from kaohe.core.counting import NOT_SUMS, Layout
from kaohe.core.counts import span_ms
from kaohe.core.effects import decided_by, ending, names_of
from kaohe.core.expressions import Condition, ExprType, bind, names, to_condition
from kaohe.core.facts import Fact, Moment, facts_reader, metric_of
from kaohe.core.looks import Look
from kaohe.core.matcher import Matcher
from kaohe.core.model import Pack, Rule
from kaohe.core.outcomes import Outcomes
from kaohe.core.screens import Screen, atoms_of, look, screen, truths, truths_seen

MATCHERS_KEPT = 8
"""Matchers kept per rule set, one for each set of parameter values; more are made again when they are needed."""
DAYS_KEPT = 1_000
ANSWERS_KEPT = 4_096
"""Answers of one matcher that are remembered by the comparisons that hold."""


class RuleSet:
    """Rules of one pack, level and trigger."""

    def __init__(
        self, layout: Layout, pack: Pack, level: str, trigger: str, on: str, rules: tuple[Rule, ...]
    ) -> None:
        assert rules
        self.pack = pack
        self.level = level
        self.trigger = trigger
        self.on = on
        self.rules = rules
        types: dict[str, ExprType] = {}
        for rule in rules:
            scope = pack.scopes[rule.id]
            types.update({name: scope[name] for name in names(rule.condition)})
        self._title = f"{pack.key}/{level}/{trigger}/{on}"
        self._by_id = {rule.id: rule for rule in rules}
        self.alert_keys = {rule.id: f"{pack.name}|{rule.id}" for rule in rules}
        self._conditions = [(rule.id, to_condition(rule.condition)) for rule in rules]
        self._types = {name: found for name, found in types.items() if not name.startswith("p.")}
        self._facts = facts_reader(layout, pack, self._types)
        self._parameters = tuple(sorted(name for name in types if name.startswith("p.")))
        deciding = {name for rule in rules for effect in rule.effects for name in decided_by(rule, effect)}
        against = {pack.metrics[name.split(".")[0]].baseline for name in deciding if "vs_baseline" in name}
        self._deciding = tuple(sorted(against | {name[2:] for name in deciding if name.startswith("p.")}))
        self._outcomes: dict[tuple[Any, ...], Outcomes] = {}
        self._layout = layout
        self._in_force: dict[tuple[Fact, ...], _InForce] = {}
        self._by_day: dict[date, _InForce] = {}

    def fired(self, moment: Moment) -> tuple[Rule, ...]:
        """The rules whose condition holds, in the order of declaration."""
        now = self._by_day.get(moment.day) or self._of(moment.day)
        if now.truths is None:
            return self._asked(now, moment) if now.may_hold(moment) else ()
        return self._answered(now, now.truths(moment), moment)

    def may_hold(self, moment: Moment) -> int:
        """Which rules may hold, a bit for each in the order of ``rules``; a rule whose bit is 0 does not."""
        return (self._by_day.get(moment.day) or self._of(moment.day)).may_hold(moment)

    def matched(self, moment: Moment) -> tuple[Rule, ...]:
        """As ``fired``, for a live alert of which a screen has said already that some rule may hold."""
        now = self._by_day.get(moment.day) or self._of(moment.day)
        if now.truths is None:
            return self._asked(now, moment)
        holding = now.every
        if now.seen is not None and moment.period is None and not moment.open_cells:
            holding = now.seen(moment.series, moment.calendar.periods(moment.at_ms - 1), False)
        # Where the look says that all of them hold, a count may be too large for it.
        return self._answered(now, now.truths(moment) if holding == now.every else holding, moment)

    def _answered(self, now: _InForce, holding: int, moment: Moment) -> tuple[Rule, ...]:
        """What the matcher answered when the same comparisons held; asked the first time, if any rule may hold."""
        found = now.answers.get(holding)
        if found is None:
            if len(now.answers) >= ANSWERS_KEPT:
                now.answers.clear()
            found = now.answers[holding] = self._asked(now, moment) if now.may_hold(moment) else ()
        return found

    def _asked(self, now: _InForce, moment: Moment) -> tuple[Rule, ...]:
        found = now.matcher.match(self._facts(moment))
        return tuple([self._by_id[rule] for rule in found]) if found else ()

    def outcomes_on(self, day: date) -> Outcomes:
        """What tells the outcomes of these rules about a period, with the parameters in force on a day."""
        key = self.values_on(day)
        found = self._outcomes.get(key)
        if found is None:
            if len(self._outcomes) >= MATCHERS_KEPT:
                self._outcomes.clear()
            bound = dict(self.bound_on(day))
            found = Outcomes(self._layout, self.pack, self.on, self.rules, bound, day)
            self._outcomes[key] = found
        return found

    def values_on(self, day: date) -> tuple[Any, ...]:
        """What the parameters are on a day that decide what follows from these rules."""
        values = [self.pack.parameters[name].value_at(day) for name in self._deciding]
        return tuple([tuple(sorted(one.items())) if isinstance(one, dict) else one for one in values])

    def bound_on(self, day: date) -> list[tuple[str, Condition]]:
        """The rules by their ids, with the parameters in force on a day put into their conditions."""
        values = self._bound_values_on(day)
        return [(rule, bind(condition, values)) for rule, condition in self._conditions]

    def _bound_values_on(self, day: date) -> Mapping[str, bool | str | int | Fraction]:
        """What the conditions' parameters are on a day."""
        values: dict[str, bool | str | int | Fraction] = {}
        for name in self._parameters:
            value = self.pack.parameters[name[2:]].value_at(day)
            assert not isinstance(value, dict), name
            values[name] = value
        return values

    def _of(self, day: date) -> _InForce:
        """Matcher and screen for the parameters in force on a day."""
        values = self._bound_values_on(day)
        key = tuple(values.values())
        found = self._in_force.get(key)
        if found is None:
            if len(self._in_force) >= MATCHERS_KEPT:
                self._in_force.pop(next(iter(self._in_force))).matcher.close()
                self._by_day.clear()
            bound = self.bound_on(day)
            conditions = [condition for _, condition in bound]
            seen = truths_seen(self._layout, self.pack, conditions) if self.trigger == "watch" else None
            found = self._in_force[key] = _InForce(
                Matcher(self._title, bound, self._types),
                screen(self._layout, self.pack, conditions),
                truths(self._layout, self.pack, conditions),
                seen,
                (1 << len(atoms_of(conditions))) - 1,
                {},
            )
        if len(self._by_day) >= DAYS_KEPT:
            self._by_day.clear()
        self._by_day[day] = found
        return found


class Watched(NamedTuple):
    """A rule that watches: its set, its place in it, and its bit in what a look finds."""

    rules: RuleSet
    rule: Rule
    key: str
    bit: int


class Watch:
    """The live rules of the packs that judge a subject, looked at together.

    ``screen`` tells which of them may hold and which of their alerts may end, ``bits`` the bit of each in that, by the
    key of its alert.
    """

    def __init__(self, layout: Layout, sets: Iterable[RuleSet], day: date) -> None:
        self.watched: list[Watched] = []
        conditions: list[tuple[Pack, Condition]] = []
        ends: list[tuple[Pack, list[tuple[Condition, frozenset[str]] | None]]] = []
        for rules in sets:
            bound = dict(rules.bound_on(day))
            for rule in rules.rules:
                key = rules.alert_keys[rule.id]
                self.watched.append(Watched(rules, rule, key, 1 << len(self.watched)))
                conditions.append((rules.pack, bound[rule.id]))
                ends.append((rules.pack, [ending(rules.pack, rule, effect, day) for effect in rule.effects]))
        self.bits = {one.key: one.bit for one in self.watched}
        self.screen = look(layout, conditions, ends)


class _InForce(NamedTuple):
    """What judges while the parameters keep their values."""

    matcher: Matcher
    may_hold: Screen
    truths: Screen | None
    seen: Look | None
    every: int
    answers: dict[int, tuple[Rule, ...]]


def slots_of(layout: Layout, pack: Pack, window: str, names: Iterable[str]) -> tuple[int, ...] | None:
    """The counts of a period that facts rest on, or None when they rest on more than these.

    As long as the counts are what they were, the facts are.
    """
    found: set[int] = set()
    for name in names:
        head = name.partition(".")[0]
        if head == "p":
            continue
        if head not in pack.metrics:
            return None
        metric, read_window, aspect = metric_of(pack, name)
        if read_window != window or aspect.startswith("vs_"):
            return None
        for side in layout.reads[pack.key, metric.name]:
            found.update(slot for slot, _ in side)
        if metric.kind in NOT_SUMS:
            return None
    return tuple(sorted(found))


def rolling_slots(layout: Layout, level: str) -> dict[int, tuple[int, ...]]:
    """The slots that rules of this level read of each rolling window, by the window's span in milliseconds."""
    found: dict[int, tuple[int, ...]] = layout.remembered(
        ("rolling slots", level), lambda: _rolling_slots(layout, level)
    )
    return found


def _rolling_slots(layout: Layout, level: str) -> dict[int, tuple[int, ...]]:
    found: dict[int, set[int]] = {}
    for pack in layout.packs:
        rules = [rule for rule in pack.rules if level in rule.levels]
        for name in {name for rule in rules for effect in rule.effects for name in names_of(rule, effect)}:
            if name.partition(".")[0] not in pack.metrics:
                continue
            metric, window, _ = metric_of(pack, name)
            if window.startswith("rolling_") and metric.kind != "percentile":
                read = {slot for side in layout.reads[pack.key, metric.name] for slot, _ in side}
                found.setdefault(span_ms(window), set()).update(read)
    return {span: tuple(sorted(slots)) for span, slots in found.items()}


class RuleBook:
    """The rule sets of all loaded packs that one engine judges, found by trigger.

    ``triggers`` gives for each level the triggers judged here: a partition judges all of an agent's and the single
    events of groups; the group stage judges what needs a group's whole counts.
    """

    def __init__(self, layout: Layout, packs: Iterable[Pack], triggers: dict[str, frozenset[str]]) -> None:
        self.watch: dict[str, list[RuleSet]] = {level: [] for level in triggers}
        self.period: dict[tuple[str, str, str], RuleSet] = {}
        self.event: dict[str, list[RuleSet]] = {}
        self.deadline: dict[str, list[RuleSet]] = {}
        self.attendance: dict[str, list[RuleSet]] = {}
        self.windows: dict[str, set[str]] = {}
        for pack in packs:
            self.windows[pack.key] = {pack.scorecard.window} if pack.scorecard else set()
            self.windows[pack.key] |= {card.window for card in pack.cards}
            for level, wanted in triggers.items():
                self._file(layout, pack, level, wanted)

    def _file(self, layout: Layout, pack: Pack, level: str, wanted: frozenset[str]) -> None:
        grouped: dict[tuple[str, str], list[Rule]] = {}
        for rule in pack.rules:
            if level in rule.levels and rule.trigger in wanted:
                grouped.setdefault((rule.trigger, rule.on), []).append(rule)
        for (trigger, on), rules in grouped.items():
            found = RuleSet(layout, pack, level, trigger, on, tuple(rules))
            if trigger == "watch":
                self.watch[level].append(found)
            elif trigger == "period":
                self.period[pack.key, level, on] = found
                self.windows[pack.key].add(on)
            elif trigger == "event":
                self.event.setdefault(on, []).append(found)
            else:
                kept = self.deadline if trigger == "deadline" else self.attendance
                kept.setdefault(f"{pack.name}/{on}", []).append(found)
