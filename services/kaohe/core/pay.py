"""From a month's grade and entries to what a person is paid for them: exact, explained line by line, and guarded.

Theory of operation. A statement is a function of what the ledger and the log held when it was asked for: the pay terms
in force on the month's first day, the person's pay, the final grade, the final entries that are money, and adjustments
for months that were settled before. Nothing else is looked at, so the same settlement comes to the same cent whenever
it is worked out, and a settlement can be checked by working it out again.

Lines, in this order:

- *performance*: the pay base times the grade's coefficient; *bonus*: the pay base times the grade's bonus;
- *grade_bonus*: a part of the pay base times the coefficient of the grade under another pack, pack by pack;
- *performance_bonus* and *year_bonus*: the money for awards of rules that a pack names as such, by the clause that says
  what entries are worth;
- *award* and *penalty*: all other entries, with points (times the value of a point, which may differ from rule to
  rule: a fine in money is a point of its rule) or with an amount of money. Where fines are off, what an entry would
  take stays in points: its line shows 0. What takes an entry back comes to what that came to, by the terms of its
  month: a fine that cost nothing gives nothing back, one that did gives that back, whatever a point is worth by now;
- adjustments: what months settled before came to since, each line naming its month;
- *guard*: what the pay guard gives back.

A month that somebody was not employed for as a whole, or in which the pay changed, is paid by days where the terms say
so: each pay for the days on which it held, out of the month's days (working days of a calendar, or all of them). The
sum is rounded once to the month's gross pay. Pay that was stated for the month itself is taken as it is. The grade and
the packs are those at the month's end: who changes the department is graded once.

Rounding: the pay base is rounded to whole minor units first, for it is a figure that the person sees; each line is then
worked out from it exactly and rounded once. The guard's limit is rounded down, in the person's favour. Totals are sums
of rounded lines and are never rounded themselves, so that lines, statement, batch and files agree to the last unit.

There is one pay base, one guard and one rounding, of the pack that pays; other packs add their part (bonuses by their
grades, what their entries are worth, whether fines are on). No two packs add the same: the loader sees to it.

The guard has two limits. Deductions (penalties less their waivers, and adjustments that take something back) are at
most a share of the month's gross pay. And pay with all lines never falls below a floor, or below the gross pay itself
where that is lower. What is held back is forgiven, not carried on. But what was never taken is not given back: where
an entry of a settled month is reversed, that month's guard is worked out again without it, and what it then holds back
less is taken from what the reversal gives; so too where the entry adjusted a month before that. Who has no stated pay
is not deducted anything.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, NamedTuple, cast

import msgspec

from kaohe.core.calendars import bounds_of, calendar, label_of, to_ms, window_of
from kaohe.core.facts import number_text
from kaohe.core.grading import joint_name
from kaohe.core.model import Pack, PayTerms
from kaohe.core.money import Rounding, money_text, rounded
from kaohe.decisions import (
    CombinedResult,
    Decision,
    Grade,
    PayComponent,
    PayGuard,
    PayLine,
    Settlement,
    Step,
    UsedParameter,
    Words,
    pay_id,
)
from kaohe.errors import EventError, UsageError
from kaohe.events import Envelope, PayPartInForce, PayStated, PayTermsInForce, RosterChanged, TermParameter

COMPONENTS: tuple[PayComponent, ...] = (
    "performance", "bonus", "grade_bonus", "performance_bonus", "year_bonus", "award", "penalty", "guard",
)  # fmt: skip
_AWARDS = {
    "performance_bonus": Words("Performance bonus", "绩效奖金"),
    "year_bonus": Words("Year-end bonus", "年终奖"),
}
DAYS = ("whole", "calendar", "workdays")
"""How a month is paid that was not worked as a whole."""
_DAYS = {"calendar": Words("days", "天"), "workdays": Words("working days", "个工作日")}
_ROUNDING = {
    "half_up": Words("half a unit away from nothing", "四舍五入"),
    "half_even": Words("half a unit to the even neighbour", "四舍六入五成双"),
    "down": Words("towards nothing", "舍去尾数"),
}
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_MISSING_PAY = Words(
    "No pay is stated for the month: nothing is worked out from the pay base, and nothing is deducted.",
    "本月未登记工资：不计算以绩效基数为准的项目，也不作任何扣款。",
)
_MISSING_GRADE = Words(
    "There is no final grade for the month yet: performance pay follows when there is one.",
    "本月尚无最终等级：绩效工资待等级确定后补发。",
)


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """A final entry of the ledger, as far as pay looks at it. ``period`` is the label that the ledger gives it."""

    id: str
    kind: str
    pack: str
    rule: str
    clause: str
    incident: str
    points: str
    amount_minor: int
    currency: str
    at: str
    period: str
    adjusts_period: str
    reverses: str
    explanation: Words


class PayFact(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says about a person's pay: a roster entry (``period`` empty) or a statement of pay.

    ``at_ms`` is the event's time; the order of facts is that of the log.
    """

    agent: str
    at_ms: int
    period: str = ""
    gross_minor: int | None = None
    annual_minor: int | None = None
    currency: str = "CNY"
    packs: tuple[str, ...] = ()
    left_on: str = ""
    source: str = ""
    hired_on: str = ""


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """A pay, and for how many of a month's days, from ``first`` to ``last``, it held."""

    first: str
    last: str
    days: int
    amount_minor: int


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a person earns in a month: the gross pay, or the annual salary in force.

    With ``days_of_month`` the month is paid by ``portions``. ``of_month``: the pay was stated for this very month.
    """

    amount_minor: int
    annual: bool
    currency: str
    source: str
    of_month: bool = False
    portions: tuple[Portion, ...] = ()
    days_of_month: int = 0


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one person's statement is worked out from.

    ``earlier`` are the entries of other months that entries of this month reverse or adjust, and those that belong
    together with them. ``graded`` says that the person is under the pack whose grades count. ``bonus_grades`` are the
    final grades under packs that add a bonus, by pack; ``awaited`` are such packs that the roster names and that have
    not graded the person yet. ``combined`` is the final combined score. ``later`` are the entries of settled later
    months that adjust this one or what it charged: they are no lines of it, but the guard looks at what they leave of
    its deductions. ``settled`` are the months that are settled, and ``came_to`` what their entries came to, by id.
    """

    agent: str
    profile: Profile | None
    grade: Grade | None
    charges: tuple[Charge, ...] = ()
    earlier: tuple[Charge, ...] = ()
    graded: bool = True
    bonus_grades: Mapping[str, Grade] = {}
    awaited: tuple[str, ...] = ()
    combined: Grade | None = None
    later: tuple[Charge, ...] = ()
    settled: frozenset[str] = frozenset()
    came_to: Mapping[str, int] = {}


# --- what a settlement is made of -------------------------------------------------------------------------------------


def terms_in_force(pack: Pack, period: str, together: Iterable[Pack] = ()) -> PayTermsInForce:
    """The pay terms of a pack as of the first day of a month, with what the packs loaded ``together`` with it add.

    UsageError when it does not pay, or is not in force then. A part that is not in force then adds nothing.
    """
    terms = pack.pay
    if terms is None or not terms.pays:
        raise UsageError(
            f"the pack {pack.key} has no pay terms of its own (pay.yaml with a base), so it settles nothing"
        )
    day, _ = bounds_of("month", period)
    if day < pack.in_force_from:
        raise UsageError(f"the pack {pack.key} is in force from {pack.in_force_from}, not yet in {period}")
    names = {
        "share": terms.share, "annual_share": terms.annual_share, "coefficients": terms.coefficients,
        "bonuses": terms.bonuses, "limit": terms.limit, "floor": terms.floor, "rounding": terms.rounding,
    }  # fmt: skip
    if terms.money_clause:
        names |= {"point_value": terms.point_value, "fines": terms.fines}
    if terms.days:
        names["days"] = terms.days
    together = tuple(together)
    others = {one.name: one for one in together if one.name != pack.name and one.in_force_from <= day}
    parts = (_part_in_force(one, day, pays=one is pack) for one in (pack, *others.values()))
    return PayTermsInForce(
        pack=pack.name,
        pack_version=pack.version,
        grades_pack=terms.grades_pack,
        packs=list(terms.packs),
        zone=pack.zone,
        currency=pack.currency,
        inside_gross=terms.inside_gross,
        clauses={
            "base": terms.base_clause, "performance": terms.performance_clause, "money": terms.money_clause,
        },
        parameters={part: _in_force(pack, name, day) for part, name in names.items()},
        parts=sorted((one for one in parts if one is not None), key=lambda one: one.pack),
        workdays=_workdays(terms, period),
        components=terms.components,
        combined=next((joint_name(one) for one in (pack, *together) if one.results.combined is not None), ""),
    )  # fmt: skip


def _workdays(terms: PayTerms, period: str) -> list[str]:
    if not terms.days or terms.calendar is None:
        return []
    first, after = bounds_of("month", period)
    days = (first + timedelta(days=number) for number in range((after - first).days))
    return [day.isoformat() for day in days if terms.calendar.is_workday(day)]


def _part_in_force(pack: Pack, day: date, *, pays: bool) -> PayPartInForce | None:
    """What a pack adds; None for nothing. What the entries are worth by the terms that pay is a part of those."""
    terms = pack.pay
    if terms is None:
        return None
    names: dict[str, str] = {}
    clauses: dict[str, str] = {}
    if terms.bonus_clause:
        clauses["bonus"] = terms.bonus_clause
        names |= {"bonus_share": terms.bonus_share, "bonus_coefficients": terms.bonus_coefficients}
    if terms.money_clause and not pays:
        clauses["money"] = terms.money_clause
        names |= {"point_value": terms.point_value, "fines": terms.fines}
    if not clauses:
        return None
    return PayPartInForce(
        pack=pack.name, pack_version=pack.version, packs=list(terms.packs) if "money" in clauses else [],
        clauses=clauses, parameters={part: _in_force(pack, name, day) for part, name in names.items()},
        components=terms.components if "money" in clauses else {},
    )  # fmt: skip


def awards_of(terms: PayTermsInForce) -> dict[str, dict[str, tuple[PayComponent, str]]]:
    """By pack and rule, what the money for its awards is where it is more than that, and by which clause."""
    parts = [(part.packs, part.clauses, part.components) for part in terms.parts]
    found: dict[str, dict[str, tuple[PayComponent, str]]] = {}
    for packs, clauses, components in (*parts, (terms.packs, terms.clauses, terms.components)):
        if components:
            named: dict[str, tuple[PayComponent, str]] = {
                rule: (one, clauses.get("money", "")) for rule, one in components.items()
            }
            found.update((pack, named) for pack in packs)
    return found


def monies_of(terms: PayTermsInForce) -> dict[str, Mapping[str, TermParameter]]:
    """The packs whose entries are money, each with the parameters that say what they are worth."""
    found: dict[str, Mapping[str, TermParameter]] = {}
    for part in terms.parts:
        if part.clauses.get("money"):
            found |= dict.fromkeys(part.packs, part.parameters)
    if terms.clauses["money"]:
        found |= dict.fromkeys(terms.packs, terms.parameters)
    return found


def bonus_packs(terms: PayTermsInForce) -> tuple[str, ...]:
    """The packs whose grades give a bonus of their own."""
    return tuple(part.pack for part in terms.parts if part.clauses.get("bonus"))


def point_value(worth: TermParameter, rule: str) -> Fraction:
    """What a point that a rule gave or took is worth, in minor units."""
    return Fraction(worth.table.get(rule, worth.table.get("*", "0")) if worth.table else worth.value)


def used(
    parameters: Mapping[str, TermParameter], parts: Iterable[str], word: str
) -> dict[str, UsedParameter]:
    """The parameters of these parts as they were used; of a table the line of ``word``."""
    found = {}
    for part in parts:
        one = parameters[part]
        value = one.table.get(word, one.table.get("*", "0")) if one.table else one.value
        found[one.name] = UsedParameter(value, one.unit, one.since, one.clause)
    return found


def _in_force(pack: Pack, name: str, day: date) -> TermParameter:
    parameter = pack.parameters[name]
    since, value = parameter.entry_at(day)
    table = {word: number_text(one) for word, one in value.items()} if isinstance(value, dict) else {}
    text = "" if isinstance(value, dict) else value if isinstance(value, str) else number_text(value)
    return TermParameter(
        name=name,
        clause=parameter.clause,
        unit=parameter.unit,
        since=since.isoformat(),
        value=text,
        table=table,
    )


_NUMBERS = ("share", "annual_share", "limit", "floor")
_TABLES = ("coefficients", "bonuses")
_MONEY = ("point_value", "fines")
_BONUS = ("bonus_share", "bonus_coefficients")


def wrong_terms(terms: PayTermsInForce) -> str:
    """What is wrong with terms that came in an event; empty when a settlement can be worked out by them."""
    wanted = {*_NUMBERS, *_TABLES, "rounding"} | (set(_MONEY) if terms.clauses.get("money") else set())
    lacking = sorted(wanted - terms.parameters.keys())
    lacking += sorted({"base", "performance", "money"} - terms.clauses.keys())
    if lacking:
        return f"the terms lack {', '.join(lacking)}"
    wrong = _wrong_figures(terms.parameters, wanted)
    if wrong:
        return wrong
    for part in terms.parts:
        adds = {
            one
            for kind, names in (("bonus", _BONUS), ("money", _MONEY))
            if kind in part.clauses
            for one in names
        }
        lacking = sorted(adds - part.parameters.keys())
        if lacking:
            return f"the part of {part.pack} lacks {', '.join(lacking)}"
        wrong = _wrong_figures(part.parameters, adds)
        if wrong:
            return f"of {part.pack}: {wrong}"
    if "days" in terms.parameters and terms.parameters["days"].value not in DAYS:
        return f"the term days is {terms.parameters['days'].value!r}"
    if terms.parameters["rounding"].value not in _ROUNDING:
        return f"the term rounding is {terms.parameters['rounding'].value!r}"
    return ""


def _wrong_figures(parameters: Mapping[str, TermParameter], wanted: Iterable[str]) -> str:
    """Which of the wanted figures is no number of 0 or more; empty for none."""
    for part in (one for one in (*_NUMBERS, *_TABLES, "point_value", *_BONUS) if one in wanted):
        one = parameters[part]
        table = part in _TABLES or part == "bonus_coefficients" or bool(one.table)
        for text in one.table.values() if table else (one.value,):
            if not _DECIMAL.fullmatch(text):
                return f"the term {part} is {text!r}, which is no decimal number of 0 or more"
    return ""


def labels_of_month(period: str) -> tuple[str, ...]:
    """The labels of every day, week, month, quarter and year that *ends* in a month: those are settled with it."""
    first, after = bounds_of("month", period)
    labels = [period]
    day = first
    while day < after:
        labels.append(day.isoformat())
        if day.isoweekday() == 7:
            labels.append(label_of("week", day))
        day += timedelta(days=1)
    last = after - timedelta(days=1)
    if last.month % 3 == 0:
        labels.append(label_of("quarter", last))
    if last.month == 12:
        labels.append(label_of("year", last))
    return tuple(labels)


def fact_of(event: Envelope, source: str) -> PayFact | None:
    """What an event says about a person's pay; None when it says nothing. ``source`` names the event.

    EventError when a statement of pay says both or neither of its two figures.
    """
    data: Any = event.data
    at_ms = to_ms(event.time)
    if isinstance(data, RosterChanged):
        return PayFact(
            agent=data.agent, at_ms=at_ms, gross_minor=data.pay_base_minor, currency=data.currency,
            packs=tuple(data.packs), left_on=data.left_on or "", hired_on=data.hired_on or "", source=source,
        )  # fmt: skip
    if not isinstance(data, PayStated):
        return None
    if (data.gross_minor is None) == (data.annual_salary_minor is None):
        raise EventError(
            "invalid", "a statement of pay says gross_minor or annual_salary_minor, and not both"
        )
    return PayFact(
        agent=data.agent, at_ms=at_ms, period=data.period, gross_minor=data.gross_minor,
        annual_minor=data.annual_salary_minor, currency=data.currency, source=source,
    )  # fmt: skip


def charge_of(decision: Decision) -> Charge:
    """A ledger entry as pay sees it."""
    values = {name: getattr(decision, name) for name in Charge.__struct_fields__}
    return Charge(**values)


def people_of(
    terms: PayTermsInForce,
    period: str,
    facts: Mapping[str, Sequence[PayFact]],
    grades: Mapping[str, Grade],
    charges: Mapping[str, Sequence[Charge]],
    earlier: Mapping[str, Sequence[Charge]],
    bonus_grades: Mapping[str, Mapping[str, Grade]] | None = None,
    later: Mapping[str, Sequence[Charge]] | None = None,
) -> dict[str, Person]:
    """Everybody whom a month concerns: under the pack whose grades count, or with entries that may be money.

    ``bonus_grades`` are the final grades under the packs that add a bonus, and combined ones, by pack and agent.
    """
    end_ms = calendar(terms.zone).period("month", period).end_ms
    adding = {pack: (bonus_grades or {}).get(pack, {}) for pack in bonus_packs(terms)}
    concerned = grades.keys() | charges.keys()
    concerned |= {agent for several in adding.values() for agent in several}
    concerned |= {one for one, known in facts.items() if is_graded(known, terms.grades_pack, period, end_ms)}
    return {
        agent: Person(
            agent=agent,
            profile=profile_in(terms, facts.get(agent, ()), period),
            grade=grades.get(agent),
            charges=tuple(charges.get(agent, ())),
            earlier=tuple(earlier.get(agent, ())),
            graded=is_graded(facts.get(agent, ()), terms.grades_pack, period, end_ms),
            bonus_grades={pack: several[agent] for pack, several in adding.items() if agent in several},
            awaited=tuple(
                pack
                for pack, several in adding.items()
                if agent not in several and is_graded(facts.get(agent, ()), pack, period, end_ms, named=True)
            ),
            combined=(bonus_grades or {}).get(terms.combined, {}).get(agent),
            later=tuple((later or {}).get(agent, ())),
        )
        for agent in sorted(concerned)
    }


def profile_of(facts: Iterable[PayFact], period: str, end_ms: int) -> Profile | None:
    """What the log says about a person's pay in a month that ends at ``end_ms``; None when it says nothing.

    A statement for the month itself comes first, then the newest annual salary of an earlier month, then the roster as
    it stood at the month's end. Of two statements for one month the later one in the log counts.
    """
    stated: PayFact | None = None
    annual: PayFact | None = None
    roster: PayFact | None = None
    for fact in facts:
        if fact.period == period:
            stated = fact
        elif fact.period and fact.period < period and fact.annual_minor is not None:
            if annual is None or fact.period >= annual.period:
                annual = fact
        elif not fact.period and fact.at_ms < end_ms and (roster is None or fact.at_ms >= roster.at_ms):
            roster = fact
    chosen = stated or annual
    if chosen is not None:
        amount = chosen.annual_minor if chosen.annual_minor is not None else chosen.gross_minor
        assert amount is not None, "a statement of pay says one of the two"
        return Profile(
            amount_minor=amount,
            annual=chosen.annual_minor is not None,
            currency=chosen.currency,
            source=chosen.source,
            of_month=chosen is stated,
        )
    if roster is not None and roster.gross_minor:
        return Profile(
            amount_minor=roster.gross_minor, annual=False, currency=roster.currency, source=roster.source
        )
    return None


def profile_in(terms: PayTermsInForce, facts: Sequence[PayFact], period: str) -> Profile | None:
    """What a person earns in a month by these terms: as ``profile_of`` says, and by days where they say so."""
    month = calendar(terms.zone).period("month", period)
    profile = profile_of(facts, period, month.end_ms)
    by = terms.parameters["days"].value if "days" in terms.parameters else "whole"
    rosters = sorted(
        (one for one in facts if not one.period and one.at_ms < month.end_ms), key=lambda one: one.at_ms
    )
    if profile is None or by == "whole" or not rosters or (profile.of_month and not profile.annual):
        return profile
    first, after = bounds_of("month", period)
    all_days = [(first + timedelta(days=number)).isoformat() for number in range((after - first).days)]
    counted = [day for day in all_days if day in terms.workdays] if by == "workdays" else all_days
    counted = counted or all_days
    last = rosters[-1]
    employed = [day for day in counted if last.hired_on <= day and (not last.left_on or day <= last.left_on)]
    portions: list[Portion] = []
    for day in employed:
        amount = profile.amount_minor if profile.annual else _pay_on(terms, rosters, day, profile)
        if portions and portions[-1].amount_minor == amount:
            portions[-1] = msgspec.structs.replace(portions[-1], last=day, days=portions[-1].days + 1)
        else:
            portions.append(Portion(first=day, last=day, days=1, amount_minor=amount))
    if [(one.days, one.amount_minor) for one in portions] == [(len(counted), profile.amount_minor)]:
        return profile
    return msgspec.structs.replace(profile, portions=tuple(portions), days_of_month=len(counted))


def _pay_on(terms: PayTermsInForce, rosters: Sequence[PayFact], day: str, profile: Profile) -> int:
    """The roster's pay on a day: the newest by then, or the earliest there is."""
    own = [one for one in rosters if one.gross_minor and one.currency == profile.currency]
    kept = calendar(terms.zone)
    known = [one for one in own if kept.day(one.at_ms).isoformat() <= day]
    amount = (known[-1] if known else own[0]).gross_minor
    assert amount is not None, "only rosters with pay are looked at"
    return amount


def is_graded(facts: Iterable[PayFact], pack: str, period: str, end_ms: int, *, named: bool = False) -> bool:
    """Whether the roster puts a person under ``pack`` in a month; who had left before it began is under none.

    A roster that names no pack means every pack, unless ``named`` asks for its name.
    """
    roster: PayFact | None = None
    for fact in facts:
        if not fact.period and fact.at_ms < end_ms and (roster is None or fact.at_ms >= roster.at_ms):
            roster = fact
    if roster is None:
        return False
    first, _ = bounds_of("month", period)
    left = bool(roster.left_on) and roster.left_on < first.isoformat()
    return not left and (pack in roster.packs or not (named or roster.packs))


def final_grade(grades: Iterable[Grade]) -> Grade | None:
    """The grade that counts among a person's grades for one month: of the final revisions the newest."""
    final = [grade for grade in grades if grade.status == "final"]
    return max(final, key=lambda one: (one.at, one.revision, one.id), default=None)


# --- one statement ----------------------------------------------------------------------------------------------------


class _Book:
    """The lines of one statement while they are written."""

    def __init__(self, terms: PayTermsInForce, person: Person, period: str) -> None:
        self.terms = terms
        self.person = person
        self.period = period
        self.how = cast(Rounding, terms.parameters["rounding"].value)
        self.lines: list[PayLine] = []
        self.missing: list[Words] = []
        self.notes: list[Words] = []
        self.later_minor = 0
        self.deductible: defaultdict[str, int] = defaultdict(int)
        self.monies = monies_of(terms)
        self.awards = awards_of(terms)
        self.known = {charge.id: charge for charge in (*person.earlier, *person.charges, *person.later)}

    def number(self, part: str) -> Fraction:
        return Fraction(self.terms.parameters[part].value)

    def point_value(self, charge: Charge) -> Fraction:
        """What a point of an entry is worth, in minor units: what takes an entry back is worth as much as that."""
        return point_value(self.monies[charge.pack]["point_value"], _root(charge, self.known).rule)

    def fines(self, charge: Charge) -> bool:
        """Whether the entries of a charge's pack cost money."""
        return charge.pack in self.monies and self.monies[charge.pack]["fines"].value == "on"

    def used(
        self, *parts: str, word: str = "", of: Mapping[str, TermParameter] | None = None
    ) -> dict[str, UsedParameter]:
        """The parameters of these parts as they were used; of a table the line of ``word``."""
        return used(of or self.terms.parameters, parts, word)

    def money(self, amount_minor: int) -> str:
        return money_text(amount_minor, self.terms.currency)

    def line(
        self,
        component: PayComponent,
        amount_minor: int,
        *,
        source: str,
        at: str,
        clause: str,
        explanation: Words,
        arithmetic: list[Step],
        parameters: dict[str, UsedParameter],
        pack: str = "",
        rule: str = "",
        effective_period: str = "",
    ) -> None:
        self.lines.append(
            PayLine(
                component=component, source=source, of_period=self.period,
                effective_period=effective_period or self.period, amount_minor=amount_minor,
                currency=self.terms.currency, event_time=at, pack=pack or self.terms.pack, rule=rule, clause=clause,
                parameters=parameters, arithmetic=arithmetic, explanation=explanation,
            )
        )  # fmt: skip


class _Base(msgspec.Struct, frozen=True):
    gross_minor: int | None
    base_minor: int
    fixed_minor: int
    steps: list[Step]
    parts: tuple[str, ...]


def settle(
    terms: PayTermsInForce, person: Person, period: str, adjustments: Sequence[PayLine] = ()
) -> Settlement:
    """The statement of one person for one month; ids and keys are empty until it is posted in a batch.

    ``adjustments`` are lines of months that were settled before.
    """
    book = _Book(terms, person, period)
    base = _pay_base(book)
    _performance(book, base)
    _grade_bonuses(book, base)
    _charges(book)
    for line in adjustments:
        assert line.of_period < period, line.of_period
        book.lines.append(line)
        book.deductible[_adjusting(line.of_period)] += line.amount_minor
    guard = _guard(book, base)
    total = sum(line.amount_minor for line in book.lines)
    how = _ROUNDING[book.how]
    return Settlement(
        id="", batch="", kind="regular", pack=terms.pack, pack_version=terms.pack_version, agent=person.agent,
        period=period, currency=terms.currency, gross_minor=base.gross_minor, base_minor=base.base_minor,
        fixed_minor=base.fixed_minor, grade=person.grade.grade if person.grade else "", lines=book.lines,
        total_minor=total, pay_minor=base.fixed_minor + total, guard=guard,
        rounding=Words(
            f"The pay base and then each line are rounded once to the minor unit of {terms.currency}, {how.en}; the "
            "guard's limit is rounded down; totals are sums of rounded lines.",
            f"绩效基数与每一行各舍入一次，精确到{terms.currency}最小单位（{how.zh}）；扣款上限向下取整；合计为各行之和。",
        ),
        missing=book.missing, notes=book.notes or msgspec.UNSET, combined=_combined(person),
    )  # fmt: skip


def _combined(person: Person) -> CombinedResult | msgspec.UnsetType:
    one = person.combined
    if one is None:
        return msgspec.UNSET
    return CombinedResult(id=one.id, pack=one.pack, score=one.score, grade=one.grade, formula=one.formula)


def _pay_base(book: _Book) -> _Base:
    profile, terms = book.person.profile, book.terms
    if profile is None or profile.currency != terms.currency:
        if profile is None:
            book.missing.append(_MISSING_PAY)
        else:
            book.missing.append(Words(
                f"Pay is stated in {profile.currency}, the pay terms are in {terms.currency}; nothing is converted.",
                f"工资以{profile.currency}登记，而薪酬条款为{terms.currency}；不作换算。",
            ))  # fmt: skip
        return _Base(None, 0, 0, [], ())
    share, how = book.number("share"), book.how
    if profile.days_of_month:
        return _base_by_days(book, profile)
    if profile.annual:
        annual_share = book.number("annual_share")
        gross = Fraction(profile.amount_minor, 12) * annual_share
        gross_minor = rounded(gross, how)
        calculation = f"{book.money(profile.amount_minor)} ÷ 12 × {number_text(annual_share)}"
        steps = [Step("gross pay of the month", calculation, book.money(gross_minor))]
        calculation += f" × {number_text(share)}"
        parts: tuple[str, ...] = ("share", "annual_share")
    else:
        gross = Fraction(profile.amount_minor)
        gross_minor, steps, parts = profile.amount_minor, [], ("share",)
        calculation = f"{book.money(gross_minor)} × {number_text(share)}"
    base_minor = rounded(gross * share, how)
    steps.append(Step("pay base", calculation, book.money(base_minor)))
    fixed_minor = gross_minor - base_minor if terms.inside_gross else gross_minor
    return _Base(gross_minor, base_minor, fixed_minor, steps, parts)


def _base_by_days(book: _Book, profile: Profile) -> _Base:
    """The gross pay as the sum of each pay for its days, rounded once; the pay base is a part of it."""
    by, money = book.terms.parameters["days"], book.money
    days, total = _DAYS[by.value], profile.days_of_month
    annual = book.number("annual_share") if profile.annual else Fraction(1)
    month = annual / 12 if profile.annual else Fraction(1)
    of_year = f" ÷ 12 × {number_text(annual)}" if profile.annual else ""
    exact = Fraction(0)
    sums = []
    for one in profile.portions:
        part = Fraction(one.amount_minor * one.days, total) * month
        exact += part
        sums.append(f"{money(one.amount_minor)}{of_year} × {one.days} / {total}")
        book.notes.append(Words(
            f"{one.first} to {one.last}: {one.days} of the month's {total} {days.en} ({by.clause}).",
            f"{one.first}至{one.last}：当月{total}{days.zh}中的{one.days}{days.zh}（{by.clause}）。",
        ))  # fmt: skip
    if not profile.portions:
        book.notes.append(Words(
            f"Employed on none of the month's {total} {days.en} ({by.clause}).",
            f"当月{total}{days.zh}均不在职（{by.clause}）。",
        ))  # fmt: skip
    gross_minor = rounded(exact, book.how)
    base_minor = rounded(gross_minor * book.number("share"), book.how)
    steps = [
        Step("gross pay of the month, by days", " + ".join(sums) or "no day", money(gross_minor)),
        Step("pay base", f"{money(gross_minor)} × {number_text(book.number('share'))}", money(base_minor)),
    ]
    fixed_minor = gross_minor - base_minor if book.terms.inside_gross else gross_minor
    parts = ("share", "annual_share", "days") if profile.annual else ("share", "days")
    return _Base(gross_minor, base_minor, fixed_minor, steps, parts)


def _performance(book: _Book, base: _Base) -> None:
    grade, terms = book.person.grade, book.terms
    if grade is None:
        if book.person.graded:
            book.missing.append(_MISSING_GRADE)
        return
    if base.gross_minor is None:
        return
    clause = terms.clauses["performance"]
    kinds: tuple[tuple[PayComponent, str, str, str], ...] = (
        ("performance", "coefficients", "Performance pay", "绩效工资"),
        ("bonus", "bonuses", "Bonus", "奖金"),
    )
    for component, part, name, name_zh in kinds:
        table = terms.parameters[part].table
        text = table.get(grade.grade, table.get("*"))
        if text is None:
            book.missing.append(Words(
                f"The grade {grade.grade} has no line in {terms.parameters[part].name} ({clause}).",
                f"等级{grade.grade}在{terms.parameters[part].name}（{clause}）中没有对应比例。",
            ))  # fmt: skip
            continue
        share = Fraction(text)
        if component == "bonus" and not share:
            continue
        amount = rounded(base.base_minor * share, book.how)
        percent = f"{number_text(share * 100)} %"
        words = Words(
            f"{name}: grade {grade.grade} gives {percent} of the pay base of {book.money(base.base_minor)}: "
            f"{book.money(amount)}.",
            f"{name_zh}：等级{grade.grade}，按绩效基数{book.money(base.base_minor)}的{percent}计，"
            f"{book.money(amount)}。",
        )
        step = Step(name.lower(), f"{book.money(base.base_minor)} × {number_text(share)}", book.money(amount))
        book.line(
            component, amount, source=grade.id, at=grade.at, clause=clause, pack=grade.pack, explanation=words,
            arithmetic=[*base.steps, step], parameters=book.used(*base.parts, part, word=grade.grade),
        )  # fmt: skip


def _grade_bonuses(book: _Book, base: _Base) -> None:
    """A part of the pay base times the coefficient of the grade under each pack that adds a bonus."""
    person = book.person
    for pack in person.awaited:
        book.missing.append(Words(
            f"There is no final grade under {pack} for the month yet: its bonus follows when there is one.",
            f"本月{pack}尚无最终等级：相应奖金待等级确定后补发。",
        ))  # fmt: skip
    for part in book.terms.parts:
        grade = person.bonus_grades.get(part.pack)
        if grade is None or "bonus" not in part.clauses or base.gross_minor is None:
            continue
        share, table = part.parameters["bonus_share"], part.parameters["bonus_coefficients"]
        text = table.table.get(grade.grade, table.table.get("*"))
        if text is None:
            book.missing.append(Words(
                f"The grade {grade.grade} has no line in {table.name} ({part.clauses['bonus']}).",
                f"等级{grade.grade}在{table.name}（{part.clauses['bonus']}）中没有对应系数。",
            ))  # fmt: skip
            continue
        amount = rounded(base.base_minor * Fraction(share.value) * Fraction(text), book.how)
        percent = f"{number_text(Fraction(share.value) * 100)} %"
        words = Words(
            f"Bonus under {part.pack}: {percent} of the pay base of {book.money(base.base_minor)}, times {text} for "
            f"the grade {grade.grade}: {book.money(amount)}.",
            f"{part.pack}奖金：绩效基数{book.money(base.base_minor)}的{percent}，"
            f"等级{grade.grade}系数{text}，计{book.money(amount)}。",
        )
        step = Step("bonus", f"{book.money(base.base_minor)} × {share.value} × {text}", book.money(amount))
        book.line(
            "grade_bonus", amount, source=grade.id, at=grade.at, clause=part.clauses["bonus"], pack=part.pack,
            explanation=words, arithmetic=[*base.steps, step],
            parameters=book.used(*base.parts)
            | book.used("bonus_share", "bonus_coefficients", word=grade.grade, of=part.parameters),
        )  # fmt: skip


class _Open(msgspec.Struct):
    """What an entry took or gave and no other entry has taken back yet: in points, and what these came to in money.

    An entry that is an amount of money counts in minor units instead of points. Taken is below 0.
    """

    source: str
    month: str
    points: Fraction
    minor: int


class _Back(NamedTuple):
    """What of an open entry another one takes back: of which month's, and what that comes to (given is above 0)."""

    month: str
    minor: int


def _charges(book: _Book) -> None:
    """Entries with money, in the order in which they were decided.

    What takes something back comes to what that had come to, whatever a point is worth by now: of the entry that it
    names, else of the newest ones of its cause (a rule, an incident, a month). So everything that is taken back is
    nothing, a fine costs nothing while fines are off, and its waiver pays nothing. What is given back belongs to the
    month that took it: that month's guard is worked out without it, and counts together with it.
    """
    person = book.person
    still: defaultdict[str, list[_Open]] = defaultdict(list)
    own = {charge.id for charge in person.charges}
    later = {charge.id for charge in person.later}
    for charge in sorted(book.known.values(), key=lambda one: (one.at, _depth(one, book.known), one.id)):
        worth = _worth(book, charge)
        cause = _cause(book, charge)
        found, left = _taken_back(book, still[cause], charge)
        if left.points:
            still[cause].append(left)
        if charge.id in own:
            book.deductible[cause] += left.minor
            amount = left.minor + sum(one.minor for one in found)
            if worth or amount:
                _charge_line(book, charge, worth, amount, takes_back=bool(found) and not left.points)
        for one in found:
            if charge.id in own:
                elsewhere = one.minor > 0 and one.month != book.period
                book.deductible[_adjusting(one.month) if elsewhere else cause] += one.minor
            elif charge.id in later and one.minor > 0 and one.month == book.period:
                book.later_minor += one.minor
                book.deductible[cause] += one.minor


def _taken_back(book: _Book, still: list[_Open], charge: Charge) -> tuple[list[_Back], _Open]:
    """Take back what an entry takes back of those that are open, and what is left of it."""
    points = _measure(book, charge)
    named = [one for one in still if one.source == charge.reverses]
    found = []
    for one in named or reversed(still):
        if one.points * points >= 0:
            continue
        part = min(abs(points), abs(one.points))
        share = Fraction(one.minor) * part / abs(one.points)
        minor = one.minor if part == abs(one.points) else rounded(share, book.how)
        found.append(_Back(one.month, -minor))
        one.minor -= minor
        one.points += part if points > 0 else -part
        points -= part if points > 0 else -part
    month = month_of(charge.period)
    minor = _came_to(book, charge, points, month) if points else 0
    return found, _Open(charge.id, month, points, minor)


def _came_to(book: _Book, charge: Charge, points: Fraction, month: str) -> int:
    """What an entry, or what is left of it, comes to; of a month that is settled, what it came to then."""
    if month != book.period and month in book.person.settled:
        return book.person.came_to.get(charge.id, 0)
    if points < 0 and not book.fines(charge):
        return 0
    whole = _measure(book, charge)
    return rounded(_worth_exactly(book, charge) * points / whole, book.how)


def _adjusting(month: str) -> str:
    """What gives or takes back for a settled month counts together: a waiver, and what the guard held back of it."""
    return f"adjusts {month}"


def month_of(label: str) -> str:
    """The month with which a period is settled: the one in which it ends."""
    _, after = bounds_of(window_of(label), label)
    return (after - timedelta(days=1)).isoformat()[:7]


def _root(charge: Charge, known: Mapping[str, Charge]) -> Charge:
    """What an entry is about in the end: whatever takes something back is about that."""
    for _ in range(_depth(charge, known)):
        charge = known[charge.reverses]
    return charge


def _depth(charge: Charge, known: Mapping[str, Charge]) -> int:
    """How many entries an entry takes back, one after the other. It comes after them, also of the same moment."""
    depth, seen = 0, {charge.id}
    while charge.reverses in known and charge.reverses not in seen:
        charge = known[charge.reverses]
        seen.add(charge.id)
        depth += 1
    return depth


def _cause(book: _Book, charge: Charge) -> str:
    root = _root(charge, book.known)
    return f"{root.pack} {root.rule} {root.incident} {root.adjusts_period or root.period}"


def _measure(book: _Book, charge: Charge) -> Fraction:
    """In what entries of one cause are counted against each other: points, or money where there are no points."""
    if charge.pack not in book.monies:
        return Fraction(0)
    points = Fraction(charge.points)
    if points or not charge.amount_minor or charge.currency == book.terms.currency:
        return points or Fraction(charge.amount_minor)
    words = Words(
        f"The entry {charge.id} is in {charge.currency}; nothing is converted.",
        f"条目{charge.id}以{charge.currency}计；不作换算。",
    )
    if words not in book.missing:
        book.missing.append(words)
    return Fraction(0)


def _worth_exactly(book: _Book, charge: Charge) -> Fraction:
    """What an entry is worth in minor units, were fines on: its points, or its amount where it has no points."""
    measure = _measure(book, charge)
    return measure * book.point_value(charge) if Fraction(charge.points) else measure


def _worth(book: _Book, charge: Charge) -> int:
    return rounded(_worth_exactly(book, charge), book.how) if _measure(book, charge) else 0


def _charge_line(book: _Book, charge: Charge, worth: int, amount: int, *, takes_back: bool) -> None:
    # What takes something back belongs to that.
    gives = (worth or amount) > 0
    component: PayComponent = "award" if gives != (takes_back or charge.kind == "waive") else "penalty"
    points, value = Fraction(charge.points), book.point_value(charge)
    if points:
        calculation = f"{number_text(points)} × {book.money(int(value)) if value.denominator == 1 else value}"
        steps = [Step("points in money", calculation, book.money(worth))]
    else:
        steps = [Step("amount of the entry", charge.id, book.money(charge.amount_minor))]
    en, zh = charge.explanation.en, charge.explanation.zh
    if amount != worth and not amount and not book.fines(charge):
        steps.append(Step("fines are off", f"{book.money(worth)} is not money", book.money(amount)))
        en, zh = f"{en} Fines are off: it stays in points.", f"{zh}未启用罚款：仅计分，不扣钱。"
    elif amount != worth:
        steps.append(
            Step(
                "as it came to when it was entered",
                charge.reverses or charge.adjusts_period,
                book.money(amount),
            )
        )
        en = f"{en} It comes to what was entered for it before: {book.money(amount)}."
        zh = f"{zh}按原入账金额计：{book.money(amount)}。"
    clause = charge.clause
    if component == "award":
        rule = _root(charge, book.known).rule
        component, clause = book.awards.get(charge.pack, {}).get(rule, (component, clause))
    if component in _AWARDS:
        en, zh = f"{_AWARDS[component].en}: {en}", f"{_AWARDS[component].zh}：{zh}"
    closed = charge.adjusts_period
    if closed:
        en, zh = f"Adjusts {closed}, which is closed: {en}", f"调整已结周期{closed}：{zh}"
    book.line(
        component, amount, source=charge.id, at=charge.at, clause=clause, pack=charge.pack, rule=charge.rule,
        effective_period=closed, explanation=Words(en, zh), arithmetic=steps,
        parameters=book.used(
            "point_value", "fines", word=_root(charge, book.known).rule, of=book.monies[charge.pack]
        ),
    )  # fmt: skip


def _guard(book: _Book, base: _Base) -> PayGuard:
    deductions = sum(max(0, -net) for net in book.deductible.values())
    gross = base.gross_minor or 0
    share = book.number("limit")
    limit = int(gross * share)
    floor = min(int(book.number("floor")), gross)
    by_limit = max(0, deductions - limit)
    before = base.fixed_minor + sum(line.amount_minor for line in book.lines) + book.later_minor
    by_floor = max(0, floor - before - by_limit)
    guard = PayGuard(
        deductions_minor=deductions, limit_minor=limit, held_by_limit_minor=by_limit, floor_minor=floor,
        held_by_floor_minor=by_floor,
    )  # fmt: skip
    if guard.held_minor:
        held, money = book.money(guard.held_minor), book.money
        steps = [
            Step("most that may be deducted", f"{money(gross)} × {number_text(share)}, rounded down", money(limit)),
            Step("over that limit", f"{money(deductions)} − {money(limit)}, not below 0", money(by_limit)),
            Step("missing to the floor", f"{money(floor)} − {money(before + by_limit)}, not below 0", money(by_floor)),
        ]  # fmt: skip
        book.line(
            "guard", guard.held_minor, source="", at=_newest(book.lines), clause=book.terms.parameters["limit"].clause,
            explanation=Words(
                f"The pay guard holds back {held}: deductions of {money(deductions)} meet a limit of {money(limit)} "
                f"and a floor of {money(floor)}.",
                f"薪酬保护退回{held}：应扣{money(deductions)}，扣款上限{money(limit)}，工资下限{money(floor)}。",
            ),
            arithmetic=steps, parameters=book.used("limit", "floor"),
        )  # fmt: skip
    return guard


def _newest(lines: Sequence[PayLine]) -> str:
    return max((line.event_time for line in lines), default="")


# --- months that were settled before ----------------------------------------------------------------------------------

_Identity = tuple[str, str]


def _by_identity(lines: Iterable[PayLine]) -> dict[_Identity, list[PayLine]]:
    found: defaultdict[_Identity, list[PayLine]] = defaultdict(list)
    for line in lines:
        found[line.component, line.source].append(line)
    return found


def _sum(lines: Iterable[PayLine]) -> int:
    return sum(line.amount_minor for line in lines)


def _changed(
    now: Sequence[PayLine], booked: Sequence[PayLine]
) -> list[tuple[_Identity, list[PayLine], list[PayLine]]]:
    """What a settled month's lines are now, and what was booked for them, wherever the two differ."""
    wanted, known = _by_identity(now), _by_identity(booked)
    identities = sorted(
        wanted.keys() | known.keys(), key=lambda one: (COMPONENTS.index(cast("PayComponent", one[0])), one[1])
    )
    return [
        (one, wanted.get(one, []), known.get(one, []))
        for one in identities
        if _sum(wanted.get(one, [])) != _sum(known.get(one, []))
    ]


def adjustments(now: Sequence[PayLine], booked: Sequence[PayLine]) -> list[PayLine]:
    """What a settled month's own lines came to since: one line for each that differs, for the next settlement.

    ``now`` are the month's own lines worked out anew, ``booked`` all entries of that month so far.
    """
    lines = []
    for (component, _), new, old in _changed(now, booked):
        was, become = _sum(old), _sum(new)
        model = (new or old)[-1]
        closed, currency = model.of_period, model.currency
        money = [money_text(one, currency) for one in (become, was, become - was)]
        lines.append(
            msgspec.structs.replace(
                model, key="", amount_minor=become - was, reverses="",
                arithmetic=[*model.arithmetic, Step(f"adjustment of {closed}", f"{money[0]} − {money[1]}", money[2])],
                explanation=Words(
                    f"Adjusts {closed}, which was settled: {component} was {money[1]} and is {money[0]} now. "
                    f"{model.explanation.en}",
                    f"调整已结算的{closed}：原{money[1]}，现{money[0]}。{model.explanation.zh}",
                ),
            )
        )  # fmt: skip
    return lines


def corrections(now: Sequence[PayLine], booked: Sequence[PayLine]) -> list[PayLine]:
    """The entries that bring a settled month to ``now``: every entry that no longer holds is taken back by an entry
    that names it, and what holds now is entered anew. Nothing is erased.
    """
    gone = {line.reverses for line in booked if line.reverses}
    lines = []
    for _, new, old in _changed(now, booked):
        for line in old:
            if line.reverses or line.key in gone:
                continue
            amount = money_text(line.amount_minor, line.currency)
            lines.append(
                msgspec.structs.replace(
                    line, key="", amount_minor=-line.amount_minor, reverses=line.key,
                    arithmetic=[Step("taken back", f"−({amount})", money_text(-line.amount_minor, line.currency))],
                    explanation=Words(
                        f"Takes back the entry {line.key} of {amount}: {line.explanation.en}",
                        f"冲销条目{line.key}（{amount}）：{line.explanation.zh}",
                    ),
                )
            )  # fmt: skip
        lines += [line for line in new if line.amount_minor]
    return lines


def correction(statement: Settlement, lines: list[PayLine]) -> Settlement:
    """A statement that corrects a settled month: its own figures with the lines that lead there."""
    return msgspec.structs.replace(statement, kind="correction", lines=lines, total_minor=_sum(lines))


def posted(statement: Settlement, batch: str) -> Settlement:
    """The statement as it stands in a batch: with its id, and with a key for each line that is money.

    The same statement in the same batch has the same keys, whoever works it out.
    """
    lines = []
    for line in statement.lines:
        parts = (batch, statement.agent, line.component, line.source, line.of_period, line.reverses)
        lines.append(msgspec.structs.replace(line, key=pay_id("p-", *parts)) if line.amount_minor else line)
    keys = [line.key for line in lines if line.key]
    assert len(set(keys)) == len(keys), "two entries of one statement have the same key"
    return msgspec.structs.replace(
        statement, id=pay_id("s-", batch, statement.agent), batch=batch, lines=lines
    )


def own_lines(statement: Settlement) -> list[PayLine]:
    """The lines of the statement's own month that are money."""
    return [line for line in statement.lines if line.of_period == statement.period and line.amount_minor]


def entries_of(statement: Settlement) -> list[PayLine]:
    """The entries of the feed: every line that is money."""
    return [line for line in statement.lines if line.amount_minor]
