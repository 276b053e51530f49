"""Rules of one pack that are judged together, and their matcher.

A *rule set* is the rules of one pack version for one level and one trigger. Its facts are exactly the names its
conditions mention, so a fact is small and total. Which rules fire is decided by durable-rules (``matcher``); what
follows from it is decided by ``judge``.
"""

from __future__ import annotations

from collections.abc import Iterable

from kaohe.core.counting import Layout
from kaohe.core.expressions import ExprType, names, to_condition
from kaohe.core.facts import Moment, Reader, reader
from kaohe.core.matcher import Matcher
from kaohe.core.model import Pack, Rule


class RuleSet:
    """Rules of one pack, level and trigger."""

    def __init__(self, layout: Layout, pack: Pack, level: str, trigger: str, on: str, rules: tuple[Rule, ...]) -> None:
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
        self.readers: tuple[tuple[str, Reader], ...] = tuple(
            (name, reader(layout, pack, name)) for name in sorted(types)
        )
        self._by_id = {rule.id: rule for rule in rules}
        title = f"{pack.key}/{level}/{trigger}/{on}"
        self.matcher = Matcher(title, [(rule.id, to_condition(rule.condition)) for rule in rules], types)

    def fired(self, moment: Moment) -> tuple[Rule, ...]:
        """The rules whose condition holds, in the order of declaration."""
        fact = {name: read(moment) for name, read in self.readers}
        return tuple(self._by_id[found] for found in self.matcher.match(fact))


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
        self.windows: dict[str, set[str]] = {}
        for pack in packs:
            self.windows[pack.key] = {pack.scorecard.window} if pack.scorecard else set()
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
                self.deadline.setdefault(f"{pack.name}/{on}", []).append(found)
