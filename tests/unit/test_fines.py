"""A decision that carries a fine says its money, as the payslip will; nothing is said while fines are off."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core.model import Pack
from kaohe.core.pay import Person, charge_of, settle, terms_in_force
from kaohe.decisions import Decision
from kaohe.explain import explanation, headline
from kaohe.packs.load import load_packs
from tests.support.packs import Story
from tests.support.pay import monthly

RULES = Path(__file__).resolve().parents[2] / "rules"
KPI, ATTENDANCE = load_packs(["company-kpi", "full-attendance"], RULES)


def with_values(pack: Pack, **values: Any) -> Pack:
    """The pack with other values of some parameters, each from the day on that goes with it."""
    parameters = dict(pack.parameters)
    for name, dated in values.items():
        parameters[name] = msgspec.structs.replace(parameters[name], values=dated)
    return msgspec.structs.replace(pack, parameters=parameters)


SWITCHED = with_values(ATTENDANCE, fines=((date(2020, 1, 1), "off"), (date(2026, 2, 1), "on")))
"""Full attendance of a company that switches fines on in February."""


def told(attendance: Pack, *packs: Pack, day: str = "2026-02-03") -> list[Decision]:
    """What is decided of two complaints about attitude, of which one is dismissed the next day."""
    story = Story(attendance, *packs)
    story.tell(f"{day}T09:00", "complaint.upheld", complaint_id="k", bad_attitude=True)
    story.tell(f"{day}T10:00", "complaint.upheld", complaint_id="l", bad_attitude=True)
    story.tell(f"{day[:-2]}04T09:00", "complaint.dismissed", complaint_id="l")
    story.replay.finish()
    return [one for one in story.replay.decision_list() if Fraction(one.points)]


def test_while_fines_are_off_a_decision_keeps_to_points() -> None:
    off = told(ATTENDANCE, KPI)
    assert [one.points for one in off] == ["-5", "-5", "5"]
    assert {(one.amount_minor, "fine" in one.explanation.en, "fines" in one.parameters) for one in off} == {
        (0, False, False)
    }
    assert told(SWITCHED, KPI, day="2026-01-03") == told(ATTENDANCE, KPI, day="2026-01-03"), "not on yet"
    assert told(SWITCHED) == told(ATTENDANCE), "nobody pays"


def test_where_fines_are_on_a_decision_says_its_money_in_both_languages() -> None:
    charged, taken_back, back = told(SWITCHED, KPI)
    assert [one.amount_minor for one in (charged, taken_back, back)] == [-5_000, -5_000, 5_000]
    assert {one.currency for one in (charged, taken_back, back)} == {"CNY"}
    assert charged.explanation.en.endswith(" It is a fine of 50.00 CNY, before the pay guard.")
    assert charged.explanation.zh.endswith("罚款50.00 CNY（未计薪酬保护）。")
    assert back.explanation.en.endswith(" It gives back a fine of 50.00 CNY.")
    assert back.explanation.zh.endswith("返还罚款50.00 CNY。")
    assert (charged.arithmetic[-1].calculation, charged.arithmetic[-1].result) == (
        "-5 × 10.00 CNY",
        "−50.00 CNY",
    )
    assert (charged.parameters["fines"].value, charged.parameters["fines"].since) == ("on", "2026-02-01")
    assert charged.parameters["point_value"].value == "1000"
    assert "−5 points, −50.00 CNY" in headline(charged).plain
    said = [str(part) for part in explanation([charged]).renderables]
    assert any("fine of 50.00 CNY" in part for part in said)
    assert any("罚款50.00 CNY" in part for part in said)


def test_a_point_of_single_rules_is_given_back_at_what_it_cost() -> None:
    table = {"fa-bad-attitude": Fraction(5000)}
    single = with_values(SWITCHED, point_value=((date(2020, 1, 1), table),))
    assert [one.amount_minor for one in told(single, KPI)] == [-25_000, -25_000, 25_000]
    other = with_values(SWITCHED, point_value=((date(2020, 1, 1), {"fa-late": Fraction(5000)}),))
    assert [one.amount_minor for one in told(other, KPI)] == [0, 0, 0]


@pytest.mark.parametrize("old", [False, True])
def test_the_statement_takes_what_the_decision_said_also_of_a_log_that_says_points_alone(old: bool) -> None:
    entries = told(SWITCHED, KPI)
    if old:
        entries = [msgspec.structs.replace(one, amount_minor=0) for one in entries]
    charges = tuple(charge_of(one) for one in entries)
    terms = terms_in_force(KPI, "2026-02", [KPI, SWITCHED])
    someone = Person(agent="a-1", profile=monthly(800_000), grade=None, charges=charges)
    statement = settle(terms, someone, "2026-02")
    assert {line.source: line.amount_minor for line in statement.lines} == {
        one.id: -5_000 if one.kind == "deduct" else 5_000 for one in entries
    }
