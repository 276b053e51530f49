"""Packs that combine: nothing that happened to a person is held against that person by two of them unseen.

Theory of operation. The score of a person under several packs is the sum of share times score, so whatever two of the
packs look at would count twice. Everything that moves a pack's score of the combined window (rules that give points or
hold a grade down, items of its card) is therefore traced to the *facts* it rests on: event types, with those that open
and meet a deadline, and attendance. What people say in assessments is said for one item of one pack, and is no fact of
two. Two things of different packs that share a fact have to be named in the combined score together: under ``once``,
where one of them alone charges, or under ``apart``, with the reason why both may. So a clause that is added later
cannot charge unseen what another pack charges already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from kaohe.core.expressions import names
from kaohe.core.grading import moves_late
from kaohe.core.model import Combined, Item, Metric, Once, Pack, Rule, Term
from kaohe.errors import PackError
from kaohe.packs.source import nearest

ATTENDANCE = "attendance"
"""The fact behind every outcome of attendance: a day with its shifts, clockings and leave."""
EVALUATED = "quality.evaluated"


def check_charged_once(packs: list[Pack]) -> list[PackError]:
    """What is wrong with what the combined scores of packs, loaded together, charge once and what they charge apart."""
    found: list[PackError] = []
    money = {whose for pack in packs if pack.pay is not None for whose in pack.pay.packs}
    for owner in packs:
        combined = owner.results.combined
        if combined is None or owner.scorecard is None:
            continue
        shared = {name for _, table in owner.parameters[combined.shares].values for name in table}  # type: ignore[union-attr]
        for key, wrong, right in _wrong(combined, packs, shared, money):
            found.append(PackError(owner.scorecard.place, f"combined.{key}", wrong, right))
    return found


def _wrong(
    combined: Combined, packs: list[Pack], shared: set[str], money: set[str]
) -> Iterator[tuple[str, str, str]]:
    for pack in packs:
        for once in combined.once:
            if pack.name in once.what:
                yield from (("once", *one) for one in _named(pack, once.what[pack.name], combined.window))
                if pack.name != once.charged_by[0]:
                    yield from (("once", *one) for one in _left_out(pack, once, combined.window, money))
        for apart in combined.apart:
            if pack.name in apart.what:
                yield from (("apart", *one) for one in _named(pack, apart.what[pack.name], combined.window))
    seen: dict[_Thing, frozenset[str]] = {}
    for pack in packs:
        if pack.name in shared:
            for name, facts in looks_at(pack, combined.window).items():
                seen[pack.name, name] = seen.get((pack.name, name), frozenset()) | facts
    yield from _undeclared(combined, seen)
    yield from _needless(combined, seen, {pack.name for pack in packs})


# --- what a pack looks at ---------------------------------------------------------------------------------------------


def looks_at(pack: Pack, window: str) -> dict[str, frozenset[str]]:
    """What moves a person's score of ``window`` under a pack, rules and items by name, and the facts each rests on.

    A rule that counts in an item stands for itself no more: the item does.
    """
    rules = {rule.id: rule for rule in pack.rules if _scores(rule, window)}
    found: dict[str, frozenset[str]] = {}
    inside: set[str] = set()
    for item in _items(pack, window):
        inside |= {*item.rules}
        facts = _facts_of_item(pack, item, rules)
        if facts:
            found[item.name] = facts
    return {name: _facts_of_rule(pack, rule) for name, rule in rules.items() if name not in inside} | found


def _scores(rule: Rule, window: str) -> bool:
    """Whether a rule moves people's score or grade of a window."""
    moves = any(effect.amount is not None or effect.kind == "grade" for effect in rule.effects)
    return moves and "agent" in rule.levels and (rule.trigger != "period" or rule.on == window)


def _items(pack: Pack, window: str) -> Iterator[Item]:
    for card in pack.cards:
        if (card.level, card.window) == ("agent", window):
            yield from (item for dimension in card.dimensions for item in dimension.items)


def _facts_of_item(pack: Pack, item: Item, rules: Mapping[str, Rule]) -> frozenset[str]:
    if item.kind == "metric":
        return _facts_of_metric(pack, pack.metrics[item.metric])
    if item.kind == "evaluated":
        return frozenset({EVALUATED})
    known = [_facts_of_rule(pack, rules[name]) for name in item.rules if name in rules]
    return frozenset().union(*known)


def _facts_of_rule(pack: Pack, rule: Rule) -> frozenset[str]:
    if rule.trigger == "attendance":
        found = {ATTENDANCE}
    else:
        found = _sources(pack, f"deadline/{rule.on}" if rule.trigger == "deadline" else rule.on)
        found = found if rule.trigger in ("deadline", "event") else set()
    amounts = [effect.amount for effect in rule.effects if effect.amount is not None]
    figures = [
        one
        for amount in amounts
        for one in (amount.points, amount.per, amount.limit, amount.of, amount.at_most)
    ]
    for expression in (rule.condition, *figures):
        for name in names(expression) if expression is not None else ():
            metric = pack.metrics.get(name.partition(".")[0])
            found |= _facts_of_metric(pack, metric) if metric is not None else set()
    return frozenset(found)


def _facts_of_metric(pack: Pack, metric: Metric) -> frozenset[str]:
    """Also of what is below the line: a rate of errors looks at the work that was done as well."""
    terms: Iterable[Term] = (*metric.numerator, *metric.denominator)
    return frozenset(fact for term in terms for fact in _sources(pack, term.source))


def _sources(pack: Pack, source: str) -> set[str]:
    if source.startswith("attendance/"):
        return {ATTENDANCE}
    if source.startswith("deadline/"):
        deadline = pack.deadlines[source.split("/")[1]]
        return {deadline.opens, *deadline.met_by}
    return {source}


# --- what is declared of it -------------------------------------------------------------------------------------------

_Thing = tuple[str, str]
"""A pack and the name of one of its rules or items."""
_Seen = Mapping[_Thing, frozenset[str]]


def _undeclared(combined: Combined, seen: _Seen) -> Iterator[tuple[str, str, str]]:
    """What two packs look at without a word about it."""
    declared = [*(once.what for once in combined.once), *(apart.what for apart in combined.apart)]
    for one, other in combinations(sorted(seen), 2):
        both = seen[one] & seen[other]
        if one[0] == other[0] or not both or any(_names(what, one, other) for what in declared):
            continue
        wrong = f"{one[1]} of {one[0]} and {other[1]} of {other[0]} both look at {', '.join(sorted(both))}"
        wrong += ", and nothing says which of them charges"
        yield (
            "once",
            wrong,
            "name them together under `once`, or under `apart` with the reason why both may charge",
        )


def _needless(combined: Combined, seen: _Seen, loaded: set[str]) -> Iterator[tuple[str, str, str]]:
    """What is excused although nothing has to be, or although it is to be charged once."""
    for apart in combined.apart:
        things = [(whose, name) for whose, several in apart.what.items() for name in several]
        for one, other in combinations(things, 2):
            if one[0] != other[0] and any(_names(once.what, one, other) for once in combined.once):
                wrong = f"{one[1]} of {one[0]} and {other[1]} of {other[0]} are charged once and apart"
                yield "apart", wrong, "name them together in one place"
        if not apart.what.keys() <= loaded:
            continue  # those that are not there cannot be looked at
        for one in things:
            theirs = frozenset[str]().union(*(seen.get(other, ()) for other in things if other[0] != one[0]))
            if not seen.get(one, frozenset()) & theirs:
                yield "apart", f"{one[1]} of {one[0]} looks at nothing that the others look at", "take it out"


def _names(what: Mapping[str, tuple[str, ...]], *things: _Thing) -> bool:
    return all(name in what.get(whose, ()) for whose, name in things)


def _named(pack: Pack, things: tuple[str, ...], window: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the names of rules and items of a pack."""
    rules, items = {rule.id for rule in pack.rules}, {item.name for item in _items(pack, window)}
    for strange in sorted({*things} - rules - items):
        wrong = f"{pack.name} has neither a rule nor an item {strange!r}"
        yield wrong, nearest(strange, rules | items, "rule or item")
    for item in _items(pack, window):
        for rule in sorted({*item.rules} & {*things}):
            wrong = f"the rule {rule} counts in the item {item.name} of {pack.name}"
            yield wrong, f"name {item.name} instead"


def _left_out(pack: Pack, once: Once, window: str, money: set[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with leaving something of a pack out."""
    if moves_late(pack, window):
        wrong = (
            f"the company's stage may still move the scores of {pack.name}, of which something is left out"
        )
        yield wrong, f"name {pack.name} first in `charged_by`"
    paid = [name for name in once.charged_by if name in money]
    if pack.name in paid[1:] and {rule.id for rule in pack.rules} & {*once.what[pack.name]}:
        wrong = f"both {paid[0]} and {pack.name} make money of it"
        yield wrong, "let the entries of one of them be money"
