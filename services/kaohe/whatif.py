"""What would have been different: the decisions and grades of one log under two packs, side by side.

Theory of operation: each side is what a replay gave under one pack. Of each entry and grade the newest revision counts.
Entries are summed per subject, period and rule, and again per subject and period, and per rule; a sum is an exact
number. The two sides are then laid beside each other by these keys; what only one side has stands against 0 points, or
against no grade. Everything is in a canonical order, so the same log and packs give the same result, byte for byte.

Money is known for a subject and period when a pack states terms of pay; without any it is nothing at all, not 0.
``pay_of`` settles every month of an outcome for itself, as the ledger would by these terms if it were asked for at the
end of the log and nothing had been settled before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import NamedTuple

import msgspec

from kaohe.core.calendars import bounds_of
from kaohe.core.facts import number_text
from kaohe.core.grading import JOINT
from kaohe.core.model import Pack, Rule
from kaohe.core.pay import (
    PayFact,
    Person,
    charge_of,
    final_grade,
    labels_of_month,
    monies_of,
    people_of,
    settle,
    terms_in_force,
    wrong_terms,
)
from kaohe.decisions import Alert, Decision, Grade, Words
from kaohe.errors import UsageError
from kaohe.events import PayTermsInForce

NO_WORDS = Words("", "")


class SubjectKey(NamedTuple):
    """Whose, over which period, and under which pack: empty for the compared one, ``+`` for its joint grades."""

    level: str
    subject: str
    window: str
    period: str
    pack: str = ""


class Points(msgspec.Struct, frozen=True):
    """Points under the old pack, under the new one, and the difference: exact numbers as text."""

    old: str
    new: str
    change: str


class Money(msgspec.Struct, frozen=True):
    """An amount in whole minor units under the old pack, under the new one, and the difference. None: not known."""

    currency: str
    old_minor: int | None
    new_minor: int | None
    change_minor: int | None


class SubjectLine(msgspec.Struct, frozen=True, kw_only=True):
    """A subject and period under both packs. Score and grade are empty where a pack gives none.

    ``pack`` is empty for the compared pack, ``+`` for a grade that it gives jointly with others, and the name of a pack
    that judges beside both.
    """

    level: str
    subject: str
    window: str
    period: str
    pack: str
    points: Points
    old_score: str
    new_score: str
    old_grade: str
    new_grade: str
    money: Money | None
    differs: bool


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule gave one subject in one period under both packs.

    Entries that are worth nothing are not counted, unless they are tasks or proposals.
    """

    level: str
    subject: str
    window: str
    period: str
    pack: str
    rule: str
    old_entries: int
    new_entries: int
    points: Points
    differs: bool


class RuleTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A rule over all subjects and periods. ``subjects`` is how many get other points by it."""

    rule: str
    clause: str
    title: Words
    old_entries: int
    new_entries: int
    old_alerts: int
    new_alerts: int
    points: Points
    subjects: int
    differs: bool


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How much differs in all, under the compared pack alone.

    ``grade_changes`` counts moves such as ``A -> B``; (none) stands for no grade.
    """

    subjects: int
    differing: int
    gain: int
    lose: int
    points: Points
    grade_changes: dict[str, int]
    old_grades: dict[str, int]
    new_grades: dict[str, int]
    money: Money | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about two packs over one log. Lists hold also what does not differ, in the order of names."""

    summary: Summary
    subjects: tuple[SubjectLine, ...]
    rules: tuple[RuleTotal, ...]
    lines: tuple[RuleLine, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What one replay gave: its pack, and every revision of decisions, grades and alerts in their order.

    ``money`` is what is paid per subject and period in minor units; None when the pack states no terms of pay.
    """

    pack: Pack
    decisions: Sequence[Decision]
    grades: Sequence[Grade]
    alerts: Sequence[Alert]
    money: Mapping[SubjectKey, int] | None = None


class _Side:
    """One outcome, summed."""

    def __init__(self, outcome: Outcome, wanted: Callable[[str], bool]) -> None:
        self.name = outcome.pack.name
        newest = {one.id: one for one in outcome.decisions}.values()
        self.entries: dict[tuple[SubjectKey, str], list[Fraction]] = {}
        for one in newest:
            worth = points_of(one)
            if wanted(one.period) and (worth or one.kind in ("task", "proposal")):
                key = self._key(one)
                self.entries.setdefault((key, one.rule), []).append(worth)
        self.grades = {self._key(one): one for one in outcome.grades if wanted(one.period)}
        firing = {one.id: one for one in outcome.alerts if one.state == "firing"}.values()
        self.alerts = Counter(one.rule for one in firing)
        money = outcome.money
        self.money = None if money is None else {key: money[key] for key in money if wanted(key.period)}
        self.currency = outcome.pack.currency
        self.rules: dict[str, Rule] = {rule.id: rule for rule in outcome.pack.rules}
        self.points: dict[SubjectKey, Fraction] = {}
        for (key, _), worths in self.entries.items():
            self.points[key] = self.points.get(key, Fraction(0)) + sum(worths)

    def _key(self, one: Decision | Grade) -> SubjectKey:
        own = one.pack.removesuffix(JOINT)
        pack = one.pack if own != self.name else JOINT if own != one.pack else ""
        return SubjectKey(one.level, one.subject, one.window, one.period, pack)

    def keys(self) -> set[SubjectKey]:
        return self.points.keys() | self.grades.keys() | (self.money or {}).keys()


def points_of(decision: Decision) -> Fraction:
    """An entry's points as an exact number (a third is written as a quotient with an approximation behind it)."""
    return Fraction(decision.points.partition(" ")[0])


def compare(old: Outcome, new: Outcome, wanted: Callable[[str], bool] = lambda _period: True) -> Comparison:
    """Both outcomes side by side, for the periods whose label is wanted. Alerts belong to no period and all count."""
    sides = (_Side(old, wanted), _Side(new, wanted))
    subjects = tuple(_subject_line(key, *sides) for key in sorted(sides[0].keys() | sides[1].keys()))
    keys = sorted(sides[0].entries.keys() | sides[1].entries.keys())
    lines = tuple(_rule_line(key, rule, *sides) for key, rule in keys)
    return Comparison(
        summary=_summary(subjects, *sides),
        subjects=subjects,
        rules=tuple(_rule_totals(lines, *sides)),
        lines=lines,
    )


def _points(old: Fraction, new: Fraction) -> Points:
    return Points(number_text(old), number_text(new), number_text(new - old))


def _subject_line(key: SubjectKey, old: _Side, new: _Side) -> SubjectLine:
    grades = old.grades.get(key), new.grades.get(key)
    scores = [one.score if one is not None else "" for one in grades]
    letters = [one.grade if one is not None else "" for one in grades]
    points = _points(old.points.get(key, Fraction(0)), new.points.get(key, Fraction(0)))
    money = _money([key], old, new)
    moved = money is not None and money.old_minor != money.new_minor
    return SubjectLine(
        level=key.level, subject=key.subject, window=key.window, period=key.period, pack=key.pack, points=points,
        old_score=scores[0], new_score=scores[1], old_grade=letters[0], new_grade=letters[1], money=money,
        differs=points.old != points.new or scores[0] != scores[1] or letters[0] != letters[1] or moved,
    )  # fmt: skip


def _money(keys: Iterable[SubjectKey], old: _Side, new: _Side) -> Money | None:
    """What is paid for all of ``keys``; None when neither pack knows about money."""
    if old.money is None and new.money is None:
        return None
    wanted = list(keys)
    sums: list[int | None] = []
    for side in (old, new):
        found = [side.money[key] for key in wanted if key in side.money] if side.money is not None else []
        sums.append(sum(found) if found else None)
    was, is_ = sums
    change = is_ - was if was is not None and is_ is not None else None
    return Money(new.currency, was, is_, change) if sums != [None, None] else None


def _rule_line(key: SubjectKey, rule: str, old: _Side, new: _Side) -> RuleLine:
    olds, news = old.entries.get((key, rule), []), new.entries.get((key, rule), [])
    points = _points(sum(olds, Fraction(0)), sum(news, Fraction(0)))
    return RuleLine(
        level=key.level, subject=key.subject, window=key.window, period=key.period, pack=key.pack, rule=rule,
        old_entries=len(olds), new_entries=len(news), points=points,
        differs=len(olds) != len(news) or points.old != points.new,
    )  # fmt: skip


def _rule_totals(lines: Sequence[RuleLine], old: _Side, new: _Side) -> Iterable[RuleTotal]:
    """Every rule of either pack, in the order of the new pack, then those that only the old one has."""
    by_rule: dict[str, list[RuleLine]] = {}
    for line in lines:
        by_rule.setdefault(line.rule, []).append(line)
    known = {**old.rules, **new.rules}
    order = [*new.rules, *(one for one in old.rules if one not in new.rules)]
    for rule in [*order, *sorted(by_rule.keys() - known.keys())]:
        own = by_rule.get(rule, [])
        sums = [
            sum((_fraction(text) for text in texts), Fraction(0))
            for texts in ([one.points.old for one in own], [one.points.new for one in own])
        ]
        found = known.get(rule)
        counts = sum(one.old_entries for one in own), sum(one.new_entries for one in own)
        alerts = old.alerts[rule], new.alerts[rule]
        yield RuleTotal(
            rule=rule, clause=found.clause if found else "", title=found.title if found else NO_WORDS,
            old_entries=counts[0], new_entries=counts[1], old_alerts=alerts[0], new_alerts=alerts[1],
            points=_points(*sums),
            subjects=len({(one.level, one.subject) for one in own if one.points.old != one.points.new}),
            differs=alerts[0] != alerts[1] or any(one.differs for one in own),
        )  # fmt: skip


def _fraction(text: str) -> Fraction:
    return Fraction(text.partition(" ")[0])


def _summary(every: Sequence[SubjectLine], old: _Side, new: _Side) -> Summary:
    subjects = [one for one in every if not one.pack]
    sums = [
        sum((worth for key, worth in side.points.items() if not key.pack), Fraction(0)) for side in (old, new)
    ]
    changes = [_fraction(one.points.change) for one in subjects]
    moves = Counter(
        f"{one.old_grade or '(none)'} -> {one.new_grade or '(none)'}"
        for one in subjects
        if one.old_grade != one.new_grade
    )
    return Summary(
        subjects=len(subjects),
        differing=sum(one.differs for one in subjects),
        gain=sum(change > 0 for change in changes),
        lose=sum(change < 0 for change in changes),
        points=_points(*sums),
        grade_changes=dict(sorted(moves.items())),
        old_grades=_spread(one.old_grade for one in subjects),
        new_grades=_spread(one.new_grade for one in subjects),
        money=_money(
            [SubjectKey(one.level, one.subject, one.window, one.period) for one in subjects], old, new
        ),
    )


def _spread(grades: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(grade for grade in grades if grade).items()))


# --- pay --------------------------------------------------------------------------------------------------------------


def pay_of(
    packs: Iterable[Pack],
    decisions: Iterable[Decision],
    grades: Iterable[Grade],
    facts: Mapping[str, Sequence[PayFact]],
) -> dict[SubjectKey, int] | None:
    """What is paid to whom for which month, in minor units, by the terms of the pack that has some; None without any.

    ``facts`` are what the log says about people's pay, by agent in the order of the log. A month in which the terms are
    not in force yet is left out; so is a person of whom nothing is known that would be paid.
    """
    together = tuple(packs)
    paying = next((pack for pack in together if pack.pay is not None and pack.pay.pays), None)
    if paying is None:
        return None
    assert paying.pay is not None
    in_pay = [pack for pack in together if pack.pay is not None]
    of_money = {name for pack in in_pay if pack.pay is not None for name in pack.pay.packs}
    of_grades = {paying.pay.grades_pack}
    of_grades |= {pack.name for pack in in_pay if pack.pay is not None and pack.pay.bonus_clause}
    final = [one for one in decisions if one.status == "final" and one.level == "agent"]
    charges = {one.id: one for one in final if one.pack in of_money}  # the newest revision of each
    graded = [
        one for one in grades if one.status == "final" and one.level == "agent" and one.pack in of_grades
    ]
    months = {one.period for one in graded if one.window == "month"}
    months |= {_month_of(one.window, one.period) for one in charges.values()}
    found: dict[SubjectKey, int] = {}
    for month in sorted(months):
        try:
            terms = terms_in_force(paying, month, together)
        except UsageError:
            continue  # before its time
        wrong = wrong_terms(terms)
        if wrong:
            raise UsageError(f"{paying.key} cannot settle {month}: {wrong}.")
        for person in _people(terms, month, list(charges.values()), graded, facts):
            statement = settle(terms, person, month)
            if statement.gross_minor is not None or statement.total_minor:
                found[SubjectKey("agent", person.agent, "month", month)] = statement.pay_minor
    return found


def _month_of(window: str, label: str) -> str:
    """The month with which a period is settled: that in which it ends."""
    _, after = bounds_of(window, label)
    return (after - timedelta(days=1)).isoformat()[:7]


def _people(
    terms: PayTermsInForce,
    month: str,
    decisions: Sequence[Decision],
    grades: Sequence[Grade],
    facts: Mapping[str, Sequence[PayFact]],
) -> Iterable[Person]:
    """Everybody whom a month concerns, with what the statement is worked out from, in the order of names."""
    labels = frozenset(labels_of_month(month)) if monies_of(terms) else frozenset()
    own: dict[str, list[Decision]] = {}
    others: dict[str, list[Decision]] = {}
    for one in sorted(decisions, key=lambda one: one.id):
        (own if one.period in labels else others).setdefault(one.subject, []).append(one)
    of_month: dict[str, dict[str, list[Grade]]] = {}
    for grade in grades:
        if (grade.window, grade.period) == ("month", month):
            of_month.setdefault(grade.pack, {}).setdefault(grade.subject, []).append(grade)
    graded = {
        pack: {agent: final for agent, some in several.items() if (final := final_grade(some)) is not None}
        for pack, several in of_month.items()
    }
    charges = {agent: [charge_of(one) for one in several] for agent, several in own.items()}
    earlier = {
        agent: [charge_of(one) for one in _earlier(several, others.get(agent, ()))]
        for agent, several in own.items()
    }
    return people_of(
        terms, month, facts, graded.get(terms.grades_pack, {}), charges, earlier, graded
    ).values()


def _earlier(charges: Iterable[Decision], others: Iterable[Decision]) -> list[Decision]:
    """The entries of other months that these take back or adjust, and what took those back before."""
    own, others = list(charges), list(others)
    reversed_ids = {one.reverses for one in own if one.reverses}
    newest = max((one.at for one in own), default="")
    known = [one for one in others if one.id in reversed_ids]
    adjusting = [one for one in (*own, *known) if one.adjusts_period and not one.reverses]
    found = [
        other
        for other in others
        if other.id in reversed_ids
        or any(
            (other.pack, other.rule, other.incident) == (one.pack, one.rule, one.incident)
            and one.adjusts_period in (other.period, other.adjusts_period)
            and other.at <= newest
            for one in adjusting
        )
    ]
    ids = {one.id for one in found}
    return [other for other in others if other.id in ids or (other.reverses in ids and other.at <= newest)]
