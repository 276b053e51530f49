"""Statements of pay: CK-02 and CK-06 to the cent, fines off, the guard's two limits, adjustments and corrections."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core.calendars import to_ms
from kaohe.core.money import money_text, plain, rounded
from kaohe.core.pay import (
    Charge,
    PayFact,
    Person,
    Profile,
    adjustments,
    correction,
    corrections,
    entries_of,
    final_grade,
    is_graded,
    labels_of_month,
    own_lines,
    posted,
    profile_in,
    profile_of,
    settle,
    terms_in_force,
    wrong_terms,
)
from kaohe.decisions import PayLine, Settlement
from kaohe.errors import UsageError
from kaohe.packs.load import check_together, load_pack, load_packs
from tests.packs.patching import patched
from tests.support.pay import PERIOD, adding, annual, charge, graded, monthly, parameter, person, terms


def amounts(statement: Settlement) -> dict[str, int]:
    """The statement's amounts by component."""
    found: dict[str, int] = {}
    for line in statement.lines:
        found[line.component] = found.get(line.component, 0) + line.amount_minor
    return found


# --- CK-02 and CK-06 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("A", {"performance": 80_000, "bonus": 8_000}),
        ("B", {"performance": 80_000}),
        ("C", {"performance": 56_000}),
        ("D", {"performance": 0}),
    ],
)
def test_the_grade_decides_the_performance_pay(word: str, wanted: dict[str, int]) -> None:
    statement = settle(terms(), person(grade=graded(word)), PERIOD)
    assert amounts(statement) == wanted
    assert (statement.gross_minor, statement.base_minor, statement.fixed_minor) == (800_000, 80_000, 720_000)
    assert statement.pay_minor == 720_000 + sum(wanted.values())
    assert all(line.clause == "CK-06" and line.source == f"g-{word}" for line in statement.lines)


def test_an_annual_salary_has_its_own_base() -> None:
    """(240,000.00 / 12) x 80 % x 10 % = 1,600.00."""
    statement = settle(terms(), person(profile=annual(24_000_000)), PERIOD)
    assert (statement.gross_minor, statement.base_minor) == (1_600_000, 160_000)
    assert [step.result for step in statement.lines[0].arithmetic] == [
        "16000.00 CNY", "1600.00 CNY", "1600.00 CNY",
    ]  # fmt: skip


def test_an_annual_base_is_rounded_once() -> None:
    """100,000.07 / 12 * 0.8 * 0.1 = 666.66713: not the rounded gross pay (6,666.67) times 10 %, rounded again."""
    for salary in range(10_000_000, 10_000_200):
        statement = settle(terms(), person(profile=annual(salary)), PERIOD)
        assert statement.base_minor == rounded(Fraction(salary) / 12 * Fraction(8, 100), "half_up")


def test_a_base_on_top_of_the_gross_pay_leaves_it_whole() -> None:
    statement = settle(terms(inside_gross=False), person(), PERIOD)
    assert (statement.fixed_minor, statement.total_minor, statement.pay_minor) == (800_000, 80_000, 880_000)


@pytest.mark.parametrize(("how", "wanted"), [("half_up", 13), ("half_even", 12), ("down", 12)])
def test_the_rounding_rule_is_followed_and_stated(how: str, wanted: int) -> None:
    statement = settle(terms(rounding=how, floor="0"), person(profile=monthly(125)), PERIOD)
    assert statement.base_minor == wanted
    assert "rounded once" in statement.rounding.en


def test_without_a_grade_or_without_pay_it_says_so() -> None:
    lacking = settle(terms(), person(grade=None), PERIOD)
    assert (lacking.lines, lacking.missing[0].en[:24]) == ([], "There is no final grade ")
    assert settle(terms(), person(grade=None, graded=False), PERIOD).missing == []
    unpaid = settle(terms(), person(charge("-10"), charge("4", number=2), profile=None), PERIOD)
    assert unpaid.gross_minor is None
    assert amounts(unpaid) == {"penalty": -5_000, "award": 2_000, "guard": 5_000}, "nothing is deducted"
    assert "No pay is stated" in unpaid.missing[0].en
    foreign = settle(terms(), person(profile=monthly(800_000, "USD")), PERIOD)
    assert (foreign.lines, "stated in USD" in foreign.missing[0].en) == ([], True)
    strange = settle(terms(), person(grade=graded("E")), PERIOD)
    assert "The grade E has no line in grade_coefficients" in strange.missing[0].en


# --- points, money, fines ---------------------------------------------------------------------------------------------


def test_points_and_amounts_are_money_where_fines_are_on() -> None:
    charges = (
        charge("-4"),
        charge("2.5", number=2),
        charge("0", number=3, amount_minor=-3_000, currency="CNY"),
    )
    statement = settle(terms(), person(*charges), PERIOD)
    assert amounts(statement) == {"performance": 80_000, "penalty": -5_000, "award": 1_250}
    by_source = {line.source: line for line in statement.lines}
    assert by_source["d-001"].arithmetic[0].calculation == "-4 × 5.00 CNY"
    assert by_source["d-001"].parameters["point_value"].value == "500"


def test_fines_are_off_by_default_and_the_line_says_so() -> None:
    charges = (
        charge("-4"),
        charge("3", number=2),
        charge("0", number=3, amount_minor=-3_000, currency="CNY"),
    )
    statement = settle(terms(fines="off"), person(*charges), PERIOD)
    assert amounts(statement) == {"performance": 80_000, "penalty": 0, "award": 1_500}
    fine = next(line for line in statement.lines if line.source == "d-003")
    assert "Fines are off" in fine.explanation.en
    assert fine.arithmetic[-1].calculation == "−30.00 CNY is not money"


def test_a_point_can_be_worth_another_amount_by_rule() -> None:
    """A fine in money: one point for an incident of its rule, and other rules' points are no money."""
    in_force = terms()
    table = parameter("point_value", "minor", **{"ck-rude": "5000"})
    in_force = msgspec.structs.replace(in_force, parameters=in_force.parameters | {"point_value": table})
    statement = settle(in_force, person(charge("-1", rule="ck-rude"), charge("-9", number=2)), PERIOD)
    assert amounts(statement) == {"performance": 80_000, "penalty": -5_000}
    assert statement.lines[1].parameters["point_value"].value == "5000"
    assert wrong_terms(in_force) == ""
    table = parameter("point_value", "minor", **{"ck-rude": "much"})
    wrong = msgspec.structs.replace(in_force, parameters=in_force.parameters | {"point_value": table})
    assert wrong_terms(wrong) == "the term point_value is 'much', which is no decimal number of 0 or more"


def waiver(of: Charge, **changes: Any) -> Charge:
    points = of.points[1:] if of.points.startswith("-") else f"-{of.points}"
    return charge(
        points, **{"number": 50, "kind": "waive", "reverses": of.id, "incident": of.incident} | changes
    )


@pytest.mark.parametrize("fines", ["on", "off"])
@pytest.mark.parametrize("points", ["-4", "4", "-0.333"])
def test_what_is_waived_costs_and_pays_nothing(fines: str, points: str) -> None:
    charged = charge(points)
    statement = settle(terms(fines=fines), person(charged, waiver(charged)), PERIOD)
    assert sum(line.amount_minor for line in statement.lines[1:]) == 0
    assert statement.guard.deductions_minor == 0, "what is waived is no deduction"


def test_a_fine_of_a_closed_month_that_was_never_charged_is_not_paid_out_when_it_is_waived() -> None:
    fine = charge("-4", period="2026-07", at="2026-07-20T09:00:00Z")
    back = waiver(fine, adjusts_period="2026-07")
    off = settle(terms(fines="off"), person(back, earlier=(fine,)), PERIOD)
    assert amounts(off) == {"performance": 80_000, "penalty": 0}
    on = settle(terms(), person(back, earlier=(fine,)), PERIOD)
    assert amounts(on) == {"performance": 80_000, "penalty": 2_000}
    assert on.lines[1].effective_period == "2026-07"
    assert on.lines[1].explanation.en.startswith("Adjusts 2026-07, which is closed")


def test_entries_of_other_packs_are_no_money() -> None:
    assert amounts(settle(terms(), person(charge("-4", pack="other")), PERIOD)) == {"performance": 80_000}
    both = terms(packs=("company-kpi", "other"))
    assert amounts(settle(both, person(charge("-4", pack="other")), PERIOD))["penalty"] == -2_000


def test_an_amount_in_another_currency_is_not_converted() -> None:
    statement = settle(terms(), person(charge("0", amount_minor=-3_000, currency="EUR")), PERIOD)
    assert amounts(statement) == {"performance": 80_000}
    assert "in EUR; nothing is converted" in statement.missing[0].en


# --- the guard --------------------------------------------------------------------------------------------------------


def test_what_a_later_month_takes_for_this_one_is_not_held_back_here_as_well() -> None:
    held = settle(terms(), person(charge("-400")), PERIOD)
    more = charge("-100", number=2, period="2026-09", adjusts_period=PERIOD)
    back = charge("100", number=3, kind="reverse", period="2026-09", adjusts_period=PERIOD, reverses=more.id)
    assert settle(terms(), person(charge("-400"), later=(more,)), PERIOD).guard == held.guard
    assert settle(terms(), person(charge("-400"), later=(more, back)), PERIOD).guard == held.guard
    waiver = charge("400", number=4, kind="waive", period="2026-09", adjusts_period=PERIOD, reverses="d-001")
    assert settle(terms(), person(charge("-400"), later=(waiver,)), PERIOD).guard.held_minor == 0


def test_the_guard_keeps_deductions_to_their_share_and_shows_what_it_held_back() -> None:
    statement = settle(terms(), person(charge("-400")), PERIOD)
    assert amounts(statement) == {"performance": 80_000, "penalty": -200_000, "guard": 40_000}
    assert statement.guard.limit_minor == 160_000
    assert statement.guard.held_minor == statement.guard.held_by_limit_minor == 40_000
    assert statement.lines[-1].explanation.en == (
        "The pay guard holds back 400.00 CNY: deductions of 2000.00 CNY meet a limit of 1600.00 CNY and a floor of "
        "2500.00 CNY."
    )


def test_at_the_limit_nothing_is_held_back() -> None:
    statement = settle(terms(), person(charge("-320")), PERIOD)
    assert (statement.guard.deductions_minor, statement.guard.held_minor) == (160_000, 0)
    assert settle(terms(), person(charge("-320.002")), PERIOD).guard.held_minor == 1


def test_pay_does_not_fall_below_the_floor_even_by_the_grade() -> None:
    statement = settle(terms(), person(profile=monthly(260_000), grade=graded("D")), PERIOD)
    assert amounts(statement) == {"performance": 0, "guard": 16_000}
    assert statement.pay_minor == 250_000
    low = settle(terms(), person(charge("-9"), profile=monthly(200_000)), PERIOD)
    assert low.pay_minor == 200_000, "who earns less than the floor keeps the gross pay"


PROFILES = st.one_of(
    st.none(), st.integers(0, 5_000_000).map(monthly), st.integers(0, 60_000_000).map(annual)
)
POINTS = st.decimals(-500, 500, places=3, allow_nan=False).map(lambda one: f"{one:f}")


def charges_of_points() -> st.SearchStrategy[Charge]:
    return POINTS.map(charge)


@st.composite
def people(draw: st.DrawFn) -> Person:
    charges = [
        charge(points, number=number, amount_minor=draw(st.integers(-50_000, 50_000)), currency="CNY")
        for number, points in enumerate(draw(st.lists(POINTS, max_size=6)))
    ]
    word = draw(st.sampled_from(["A", "B", "C", "D", ""]))
    waived = [waiver(one, number=100 + n, amount_minor=-one.amount_minor, currency="CNY")
              for n, one in enumerate(charges) if draw(st.booleans())]  # fmt: skip
    return person(*charges, *waived, profile=draw(PROFILES), grade=graded(word) if word else None)


TERMS = st.builds(
    terms,
    inside_gross=st.booleans(),
    fines=st.sampled_from(["on", "off"]),
    limit=st.sampled_from(["0", "0.07", "0.2", "1"]),
    floor=st.sampled_from(["0", "250000", "1000000"]),
    rounding=st.sampled_from(["half_up", "half_even", "down"]),
    point_value=st.sampled_from(["0", "333", "500"]),
)


@settings(max_examples=400, deadline=None)
@given(TERMS, people(), st.lists(st.integers(-300_000, 300_000), max_size=3))
def test_the_guard_always_holds_and_sums_always_match(
    in_force: Any, someone: Person, changes: list[int]
) -> None:
    later = [adjustment(amount, number) for number, amount in enumerate(changes)]
    statement = settle(in_force, someone, PERIOD, later)
    gross = statement.gross_minor or 0
    floor = min(int(in_force.parameters["floor"].value), gross)
    assert statement.pay_minor >= floor
    assert statement.pay_minor == statement.fixed_minor + statement.total_minor
    assert statement.total_minor == sum(line.amount_minor for line in statement.lines)
    guard = statement.guard
    share = Fraction(in_force.parameters["limit"].value)
    assert guard.deductions_minor - guard.held_minor <= gross * share
    assert guard.held_minor == sum(line.amount_minor for line in statement.lines if line.component == "guard")
    assert statement == settle(in_force, someone, PERIOD, later), "worked out again it is the same"
    if in_force.parameters["fines"].value == "off":
        taken = [line for line in statement.lines if line.of_period == PERIOD and line.amount_minor < 0]
        assert all(line.source.startswith("d-1") for line in taken), "only an award that is waived goes back"


def adjustment(amount_minor: int, number: int = 0) -> PayLine:
    """A line of a month that was settled before."""
    line = settle(terms(), person(), "2026-06").lines[0]
    return msgspec.structs.replace(line, amount_minor=amount_minor, source=f"g-{number}")


# --- several packs ----------------------------------------------------------------------------------------------------


def with_parts(*parts: Any, **values: Any) -> Any:
    return msgspec.structs.replace(terms(**values), parts=list(parts))


@pytest.mark.parametrize(("word", "wanted"), [("A", 12_000), ("B", 8_000), ("C", 4_000), ("D", 0)])
def test_a_further_pack_adds_a_bonus_by_its_own_grade(word: str, wanted: int) -> None:
    own = graded(word, pack="logistics", id="g-ls")
    statement = settle(with_parts(adding("logistics")), person(bonus_grades={"logistics": own}), PERIOD)
    performance, bonus = statement.lines
    assert (performance.component, performance.amount_minor) == ("performance", 80_000)
    assert (bonus.component, bonus.amount_minor, bonus.source) == ("grade_bonus", wanted, "g-ls")
    assert (bonus.pack, bonus.clause) == ("logistics", "LS-14")
    assert statement.total_minor == 80_000 + wanted


def test_a_bonus_that_cannot_be_worked_out_yet_is_said() -> None:
    in_force = with_parts(adding("logistics"))
    waiting = settle(in_force, person(awaited=("logistics",)), PERIOD)
    assert ["no final grade under logistics" in one.en for one in waiting.missing] == [True]
    strange = settle(in_force, person(bonus_grades={"logistics": graded("E", pack="logistics")}), PERIOD)
    assert "The grade E has no line" in strange.missing[0].en
    unpaid = settle(in_force, person(profile=None, bonus_grades={"logistics": graded("A")}), PERIOD)
    assert amounts(unpaid) == {}


def test_entries_of_each_pack_are_worth_what_its_own_terms_say_and_the_guard_looks_at_all_of_them() -> None:
    in_force = with_parts(
        adding("attendance"), adding("front", fines="off", point_value="9000"), limit="0.01"
    )
    charges = (
        charge("-2", number=1), charge("-4", number=2, pack="attendance"), charge("3", number=3, pack="attendance"),
        charge("-5", number=4, pack="front"), charge("1", number=5, pack="front"), charge("-9", number=6, pack="none"),
    )  # fmt: skip
    statement = settle(in_force, person(*charges), PERIOD)
    assert [line.amount_minor for line in statement.lines[1:6]] == [-1_000, -4_000, 3_000, 0, 9_000]
    assert statement.guard.deductions_minor == 5_000
    assert statement.guard.held_minor == 0
    tight = settle(in_force, person(*charges, charge("-10", number=7, pack="attendance")), PERIOD)
    assert tight.guard.deductions_minor == 15_000
    assert tight.lines[-1].amount_minor == tight.guard.held_by_limit_minor == 15_000 - 8_000


def test_parts_that_cannot_be_used_are_refused() -> None:
    assert wrong_terms(with_parts(adding("ls"))) == ""
    lacking = adding("ls")
    del lacking.parameters["bonus_share"]
    assert wrong_terms(with_parts(lacking)) == "the part of ls lacks bonus_share"
    wrong = "of ls: the term point_value is 'much', which is no decimal number of 0 or more"
    assert wrong_terms(with_parts(adding("ls", point_value="much"))) == wrong


def test_the_packs_we_ship_pay_together_and_each_adds_its_part() -> None:
    kpi, attendance, logistics = load_packs(["company-kpi", "full-attendance", "logistics-service"])
    found = terms_in_force(kpi, PERIOD, (kpi, attendance, logistics))
    assert [(one.pack, one.clauses) for one in found.parts] == [
        ("full-attendance", {"money": "FA-13"}), ("logistics-service", {"bonus": "LS-14"}),
    ]  # fmt: skip
    assert found.parts[0].parameters["fines"].value == "off"
    assert terms_in_force(kpi, PERIOD).parts == []
    later = msgspec.structs.replace(logistics, in_force_from=date(2026, 9, 1))
    assert terms_in_force(kpi, PERIOD, (kpi, later)).parts == [], "not in force yet, so it adds nothing"
    with pytest.raises(UsageError, match="has no pay terms of its own"):
        terms_in_force(logistics, PERIOD)


# --- months that were settled before ----------------------------------------------------------------------------------


def book(statement: Settlement, batch: str = "b-1") -> list[PayLine]:
    """The entries that a statement leaves in the ledger."""
    return entries_of(posted(statement, batch))


def test_a_grade_that_changes_after_the_settlement_is_adjusted_by_what_is_different() -> None:
    first = settle(terms(), person(), PERIOD)
    now = settle(terms(), person(grade=graded("C", id="g-B")), PERIOD)
    (line,) = adjustments(own_lines(now), book(first))
    assert (line.amount_minor, line.of_period, line.component) == (-24_000, PERIOD, "performance")
    assert line.explanation.en.startswith(
        "Adjusts 2026-08, which was settled: performance was 800.00 CNY and is 560.00 CNY now."
    )
    september = settle(terms(), person(), "2026-09", [line])
    assert september.total_minor == 56_000
    assert adjustments(own_lines(now), [*book(first), *book(september, "b-2")[-1:]]) == []


def test_a_settlement_worked_out_again_is_adjusted_by_nothing() -> None:
    statement = settle(terms(), person(charge("-400")), PERIOD)
    assert adjustments(own_lines(statement), book(statement)) == []
    assert corrections(own_lines(statement), book(statement)) == []


@settings(max_examples=200, deadline=None)
@given(TERMS, people(), people())
def test_corrections_lead_to_what_holds_now_and_name_what_they_take_back(
    in_force: Any, before: Person, after: Person
) -> None:
    first = book(settle(in_force, before, PERIOD))
    now = settle(in_force, after, PERIOD)
    second = posted(correction(now, corrections(own_lines(now), first)), "b-2")
    entries = [*first, *entries_of(second)]
    assert sum(line.amount_minor for line in entries) == now.total_minor
    assert len({line.key for line in entries}) == len(entries)
    by_key = {line.key: line for line in entries}
    for line in entries:
        if line.reverses:
            assert by_key[line.reverses].amount_minor == -line.amount_minor
    assert corrections(own_lines(now), entries) == [], "a correction leaves nothing to correct"

    back = corrections([], entries)
    assert sum(line.amount_minor for line in [*entries, *back]) == 0, "the reversal of everything gives zero"


def test_an_adjusted_month_is_corrected_together_with_its_adjustment() -> None:
    first = book(settle(terms(), person(), PERIOD))
    now = settle(terms(), person(grade=graded("C", id="g-B")), PERIOD)
    later = posted(settle(terms(), person(), "2026-09", adjustments(own_lines(now), first)), "b-2")
    booked = [*first, *(line for line in entries_of(later) if line.of_period == PERIOD)]
    again = settle(terms(), person(grade=graded("A", id="g-B")), PERIOD)
    lines = entries_of(posted(correction(again, corrections(own_lines(again), booked)), "b-3"))
    assert [line.amount_minor for line in lines] == [-80_000, 24_000, 80_000, 8_000]


# --- who earns what ---------------------------------------------------------------------------------------------------

AUGUST_MS, SEPTEMBER_MS = 1_785_513_600_000, 1_788_192_000_000


def fact(**changes: Any) -> PayFact:
    values: dict[str, Any] = {"agent": "a-17", "at_ms": AUGUST_MS}
    return PayFact(**values | changes)


def test_pay_comes_from_the_statement_then_the_salary_then_the_roster() -> None:
    roster = fact(gross_minor=600_000, source="r")
    salary = fact(period="2026-03", annual_minor=24_000_000, source="y")
    stated = fact(period=PERIOD, gross_minor=790_000, source="s")
    again = fact(period=PERIOD, gross_minor=800_000, source="t")
    future = fact(gross_minor=900_000, at_ms=SEPTEMBER_MS, source="f")

    def found(*facts: PayFact) -> Profile | None:
        return profile_of(facts, PERIOD, SEPTEMBER_MS)

    assert found(roster, salary, stated, again) == Profile(
        amount_minor=800_000, annual=False, currency="CNY", source="t", of_month=True
    )
    assert found(roster, salary, future) == Profile(
        amount_minor=24_000_000, annual=True, currency="CNY", source="y"
    )
    assert found(future, roster) == Profile(amount_minor=600_000, annual=False, currency="CNY", source="r")
    assert found(future) is None
    assert found(fact(gross_minor=0)) is None
    assert found(roster, fact(period=PERIOD, gross_minor=0, source="z")) == Profile(
        amount_minor=0, annual=False, currency="CNY", source="z", of_month=True
    )


# --- a part of a month ------------------------------------------------------------------------------------------------


def by_days(how: str, **values: Any) -> Any:
    """Terms that pay a part of August 2026 by days; it has 21 working days, of which the first is the 3rd."""
    made = terms(**values)
    made.parameters["days"] = parameter("pay_days", "text", how)
    days = [f"2026-08-{day:02}" for day in range(1, 32) if date(2026, 8, day).weekday() < 5]
    return msgspec.structs.replace(made, workdays=days)


def day_ms(day: str) -> int:
    return to_ms(datetime.fromisoformat(f"{day}T00:00+08:00"))


def gross_of(in_force: Any, *facts: PayFact) -> int | None:
    profile = profile_in(in_force, facts, PERIOD)
    return settle(in_force, person(profile=profile), PERIOD).gross_minor


JULY_MS = day_ms("2026-07-01")


@pytest.mark.parametrize(
    ("how", "hired_on", "left_on", "wanted"),
    [
        ("workdays", "", "", 1_000_000),
        ("workdays", "2026-08-03", "", 1_000_000),
        ("workdays", "2026-08-04", "", 952_381),
        ("workdays", "", "2026-08-31", 1_000_000),
        ("workdays", "", "2026-08-30", 952_381),
        ("workdays", "2026-08-17", "2026-08-21", 238_095),
        ("workdays", "2026-08-08", "2026-08-09", 0),
        ("workdays", "2026-09-01", "", 0),
        ("calendar", "2026-08-17", "", 483_871),
        ("calendar", "2026-08-01", "2026-08-31", 1_000_000),
        ("calendar", "2026-08-02", "", 967_742),
        ("whole", "2026-08-17", "2026-08-20", 1_000_000),
    ],
)
def test_who_comes_or_leaves_in_the_month_is_paid_for_the_days(
    how: str, hired_on: str, left_on: str, wanted: int
) -> None:
    one = fact(at_ms=JULY_MS, gross_minor=1_000_000, hired_on=hired_on, left_on=left_on)
    assert gross_of(by_days(how), one) == wanted


def test_a_statement_by_days_tells_the_days_and_its_arithmetic() -> None:
    before = fact(at_ms=JULY_MS, gross_minor=1_050_000)
    after = fact(at_ms=day_ms("2026-08-17"), gross_minor=2_100_000)
    in_force = by_days("workdays")
    profile = profile_in(in_force, (before, after), PERIOD)
    statement = settle(in_force, person(profile=profile), PERIOD)
    assert (statement.gross_minor, statement.base_minor) == (1_600_000, 160_000)
    assert isinstance(statement.notes, list)
    assert [one.en for one in statement.notes] == [
        "2026-08-03 to 2026-08-14: 10 of the month's 21 working days (CK-06).",
        "2026-08-17 to 2026-08-31: 11 of the month's 21 working days (CK-06).",
    ]
    (line,) = statement.lines
    assert line.arithmetic[0].calculation == "10500.00 CNY × 10 / 21 + 21000.00 CNY × 11 / 21"
    assert line.parameters["pay_days"].value == "workdays"
    assert settle(in_force, person(), PERIOD).notes is msgspec.UNSET, "a whole month has nothing to tell"


def test_an_annual_salary_is_divided_by_days_and_a_stated_month_is_not() -> None:
    came = fact(at_ms=JULY_MS, gross_minor=1, hired_on="2026-08-17")
    salary = fact(at_ms=JULY_MS, period="2026-03", annual_minor=25_200_000)
    stated = fact(at_ms=JULY_MS, period=PERIOD, gross_minor=700_000)
    # 252,000 / 12 * 0.8 = 16,800 a month, of which 11 of 21 days
    assert gross_of(by_days("workdays"), came, salary) == 880_000
    assert gross_of(by_days("workdays"), came, salary, stated) == 700_000
    assert gross_of(by_days("workdays"), salary) == 1_680_000, "without a roster nobody knows when they came"


def test_terms_that_say_the_days_in_another_word_are_refused() -> None:
    assert wrong_terms(by_days("calendar")) == ""
    assert wrong_terms(by_days("hours")) == "the term days is 'hours'"


DAYS_OF_MONTH = st.integers(1, 31).map(lambda day: f"2026-08-{day:02}")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["calendar", "workdays"]), st.integers(1, 3_000_000), st.integers(1, 3_000_000),
    DAYS_OF_MONTH, st.lists(charges_of_points(), max_size=4),
)  # fmt: skip
def test_a_divided_month_never_pays_more_than_the_higher_pay_and_keeps_the_guard(
    how: str, low: int, high: int, day: str, charges: list[Charge]
) -> None:
    in_force = by_days(how)
    before, after = fact(at_ms=JULY_MS, gross_minor=low), fact(at_ms=day_ms(day), gross_minor=high)
    changed = gross_of(in_force, before, after)
    assert changed is not None
    assert min(low, high) <= changed <= max(low, high)
    came = msgspec.structs.replace(before, hired_on=day)
    left = msgspec.structs.replace(before, left_on=(date.fromisoformat(day) - timedelta(days=1)).isoformat())
    parts = (gross_of(in_force, came) or 0) + (gross_of(in_force, left) or 0)
    assert abs(parts - low) <= 1, (
        "who leaves and who takes over are paid one month together, but for the rounding"
    )
    numbered = [msgspec.structs.replace(one, id=f"d-{number}") for number, one in enumerate(charges)]
    someone = person(*numbered, profile=profile_in(in_force, (came,), PERIOD))
    statement = settle(in_force, someone, PERIOD)
    assert statement.pay_minor >= min(int(in_force.parameters["floor"].value), statement.gross_minor or 0)
    assert statement.pay_minor == statement.fixed_minor + sum(line.amount_minor for line in statement.lines)


def test_the_roster_says_who_is_graded() -> None:
    def found(**changes: Any) -> bool:
        return is_graded([fact(**changes)], "company-kpi", PERIOD, SEPTEMBER_MS)

    assert found()
    assert found(packs=("company-kpi", "front-desk"))
    assert not found(packs=("front-desk",))
    assert found(left_on="2026-08-01")
    assert not found(left_on="2026-07-31")
    assert not is_graded([], "company-kpi", PERIOD, SEPTEMBER_MS)


def test_the_newest_final_grade_counts() -> None:
    provisional = graded("A", status="provisional", at="2026-09-09T00:00:00Z")
    older, newer = graded("B", at="2026-09-03T00:00:00Z"), graded("C", at="2026-09-08T00:00:00Z")
    assert final_grade([newer, provisional, older]) == newer
    assert final_grade([provisional]) is None


def test_a_period_is_settled_in_the_month_in_which_it_ends() -> None:
    august = labels_of_month("2026-08")
    assert {"2026-08", "2026-08-01", "2026-08-31", "2026-W31", "2026-W35"} <= set(august)
    assert not {"2026-W36", "2026-Q3", "2026", "2026-09-01"} & set(august)
    assert {"2026-Q4", "2026", "2026-12"} <= set(labels_of_month("2026-12"))
    every = [label for month in range(1, 13) for label in labels_of_month(f"2026-{month:02d}")]
    assert len(every) == len(set(every)), "no period is settled twice"


# --- terms and money --------------------------------------------------------------------------------------------------


def test_the_terms_of_a_pack_are_those_in_force_on_the_first_day(tmp_path: Path) -> None:
    pack = load_pack(patched("with pay\n", tmp_path))
    found = terms_in_force(pack, PERIOD)
    assert found.parameters["share"].value == "0.1"
    assert found.parameters["coefficients"].table == {"A": "1", "B": "0.7"}
    assert (found.parameters["fines"].value, found.packs, found.grades_pack) == (
        "off",
        ["minimal"],
        "minimal",
    )
    assert found.clauses == dict.fromkeys(("base", "performance", "money"), "MI-04")
    with pytest.raises(UsageError, match=r"is in force from .*, not yet in 2020-01"):
        terms_in_force(pack, "2020-01")
    with pytest.raises(UsageError, match="has no pay terms"):
        terms_in_force(msgspec.structs.replace(pack, pay=None), PERIOD)


@pytest.mark.parametrize(
    ("keeps", "wrong"),
    [
        ({"base_clause": "MI-04"}, "both have a pay base; let one of them settle pay"),
        ({"bonus_clause": "MI-04", "bonus_share": "share"}, "both give a bonus by grade; let one of them"),
        ({"packs": ("minimal",)}, "both make money of the entries of minimal; let one of them"),
    ],
)
def test_two_packs_that_claim_the_same_of_a_pay_are_not_loaded_together(
    keeps: dict[str, Any], wrong: str, tmp_path: Path
) -> None:
    pack = load_pack(patched("with pay\n", tmp_path))
    assert pack.pay is not None
    paying = msgspec.structs.replace(pack, pay=msgspec.structs.replace(pack.pay, bonus_clause="MI-04"))
    adding = msgspec.structs.replace(pack.pay, base_clause="", money_clause="", packs=())
    other = msgspec.structs.replace(pack, name="other", metrics={}, rules=(), pay=adding)
    assert check_together([paying, other]) == []
    same = msgspec.structs.replace(other, pay=msgspec.structs.replace(adding, **keeps))
    (error,) = check_together([paying, same])
    assert wrong in str(error)


def test_a_value_for_a_rule_of_another_pack_is_looked_up_there(tmp_path: Path) -> None:
    pack = load_pack(patched("with pay\n", tmp_path))
    assert pack.pay is not None
    values = (pack.parameters["worth"].values[0][0], {"mi-rating": Fraction(5), "of-late": Fraction(7)})
    worth = msgspec.structs.replace(pack.parameters["worth"], kind="table", values=(values,))
    pay = msgspec.structs.replace(pack.pay, packs=("minimal", "other"))
    paying = msgspec.structs.replace(pack, pay=pay, parameters=pack.parameters | {"worth": worth})
    late = msgspec.structs.replace(pack.rules[0], id="of-late")
    other = msgspec.structs.replace(pack, name="other", pay=None, metrics={}, rules=(late,))
    assert check_together([paying, other]) == []
    assert check_together([paying]) == [], "the other pack is not there to be looked at"
    (error,) = check_together([paying, msgspec.structs.replace(other, rules=())])
    assert "there is a line for 'of-late'" in str(error)


def test_amounts_are_rounded_alike_on_both_sides_of_nothing() -> None:
    for number in range(-40, 41):
        for how in ("half_up", "half_even", "down"):
            assert rounded(Fraction(number, 8), how) == -rounded(Fraction(-number, 8), how)
    assert [rounded(Fraction(n, 2), "half_even") for n in (1, 3, 5)] == [0, 2, 2]


def test_money_is_shown_with_the_decimals_of_its_currency() -> None:
    assert money_text(-1_234, "CNY") == "−12.34 CNY"
    assert money_text(5, "JPY") == "5 JPY"
    assert (plain(-7, "CNY"), plain(1_234_567, "KWD")) == ("-0.07", "1234.567")


# --- awards with a component of their own -----------------------------------------------------------------------------


def test_awards_that_a_pack_names_are_its_performance_and_year_end_bonus() -> None:
    part = adding("attendance")
    named = msgspec.structs.replace(
        part, components={"fa-full": "performance_bonus", "fa-year": "year_bonus"}
    )
    full = charge("3", pack="attendance", rule="fa-full", clause="FA-07")
    charges = (
        full,
        charge("20", number=2, pack="attendance", rule="fa-year"),
        charge("1", number=3, pack="attendance", rule="fa-other"),
        charge("-2", number=4, pack="attendance", rule="fa-full"),
        waiver(full, number=5, pack="attendance", rule="fa-back"),
    )
    in_force = with_parts(named)
    assert wrong_terms(in_force) == ""
    statement = settle(in_force, person(*charges), PERIOD)
    assert [(line.component, line.amount_minor, line.clause) for line in statement.lines[1:]] == [
        ("performance_bonus", 3_000, "FA-13"), ("year_bonus", 20_000, "FA-13"), ("award", 1_000, "FA-13"),
        ("penalty", -2_000, "FA-13"), ("performance_bonus", -3_000, "FA-13"),
    ]  # fmt: skip
    assert statement.lines[1].explanation.en.startswith("Performance bonus: ")
    as_before = settle(with_parts(part), person(*charges), PERIOD)
    assert [line.component for line in as_before.lines[1:4]] == ["award", "award", "award"]
    assert as_before.lines[1].clause == "FA-07"
    assert as_before.total_minor == statement.total_minor


def test_a_settlement_that_was_asked_for_before_there_were_such_components_is_read_as_it_was() -> None:
    raw = msgspec.json.encode(with_parts(adding("attendance")))
    assert b"components" not in raw
    assert msgspec.json.decode(raw, type=type(terms())).components == {}
    (fa,) = load_packs(["full-attendance"])
    assert fa.pay is not None
    assert fa.pay.components["fa-year-bonus"] == "year_bonus"
