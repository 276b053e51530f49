"""What a running period's rules would come to, in a few numbers: whether anything they decide can have changed.

Theory of operation. A period is judged again at each evaluation in which something was counted for it, and nearly
always nothing follows: the rate is still within its limit, or still as many full steps beyond it. So the *outcome* of
each rule is worked out from the counts alone: nothing while its condition does not hold, and the number of its steps
while it does. Where the outcome of a rule is what it was when the subject was judged last, durable-rules would answer
as it did, the amount would be what it was, and the rule is left alone. Every other rule is judged in full.

An outcome may differ without need and must never be the same without right. What cannot be told exactly from sums (a
percentile, a baseline, a text) is therefore told by the facts that decide it, as they are.

Rules that wait for the close of the period, and effects that do, have no outcome before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from kaohe.core.counting import Counts, Layout
from kaohe.core.effects import decided_by, steps_on
from kaohe.core.expressions import Condition
from kaohe.core.facts import Moment, facts_reader
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.screens import Sums, all_of, compiled, minus, product, text_of

MOVING = ("deduct", "award", "grade")
"""The kinds of effects that follow a running period."""
Outcome = tuple[Any, ...]


class Outcomes:
    """The outcomes of some rules of a pack about one kind of period, with the parameters in force on a day.

    ``rules`` are those that have one, by their places in the rule set. Outcomes come in their order: from ``told``
    those that rest on sums of the period alone, then from ``shown`` the others'; None where there are no such rules.
    """

    def __init__(
        self, layout: Layout, pack: Pack, window: str, rules: Sequence[Rule], bound: Mapping[str, Condition], day: date
    ) -> None:  # fmt: skip
        sums = Sums(layout)
        told: list[tuple[int, str]] = []
        shown: list[int] = []
        for place, rule in enumerate(rules):
            effects = [effect for effect in rule.effects if effect.kind in MOVING]
            if not effects or not rule.provisional:
                continue
            source = _source(sums, layout, pack, window, rule, effects, bound[rule.id], day)
            if source is None:
                shown.append(place)
            else:
                told.append((place, source))
        self.rules = tuple([place for place, _ in told] + shown)
        self.told: Callable[[Counts], Outcome] | None = None
        self.shown: Callable[[Moment], Outcome] | None = None
        if told:
            parts = "".join(f"{source}, " for _, source in told)
            self.told = compiled("counts", [*sums.heads(lambda _: "counts"), f"return ({parts})"])
        if shown:
            self.shown = _facts(layout, pack, [rules[place] for place in shown])


def _source(
    sums: Sums, layout: Layout, pack: Pack, window: str, rule: Rule, effects: list[Effect], bound: Condition, day: date
) -> str | None:  # fmt: skip
    """The outcome of one rule as source text over the period's own sums; None when it rests on more than these."""
    read = {name for effect in effects for name in decided_by(rule, effect) if name[:2] != "p."}
    if any(name.split(".")[1:2] != [window] or "vs_" in name for name in read):
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
            count = f"{text_of(minus(top, bottom))} // {text_of(step)}"
            known = sums.source(all_of(value.known))
            found.append(f"min(max({count}, 0), {steps.most}) if {known} else 0")
    parts = "".join(f"({one}), " for one in found)
    return f"({parts}) if {sums.source(sums.test(pack, bound))} else None"


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
