"""What must hold of the books whatever happened: sums match, settling twice and reversing everything change nothing."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.payroll import chain
from kaohe.payroll.export import export
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.reconcile import check_database
from kaohe.payroll.settling import batch_record
from tests.support.pay import PERIOD, adding, terms
from tests.support.settling import Log, Reader, batches, outcomes, statements

SEPTEMBER = "2026-09"
PEOPLE = ("a-1", "a-2", "a-3")
POINTS = st.sampled_from(["-30", "-12.5", "-4", "-0.333", "0", "1", "2.5", "7"])
CHARGES = st.lists(
    st.tuples(st.sampled_from(PEOPLE), POINTS, st.sampled_from(["company-kpi", "other"])), max_size=6
)
FINES = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.sampled_from(["-30", "-12.5", "-4", "-0.333"]),
        st.sampled_from(["company-kpi", "other"]),
    ),
    min_size=1,
    max_size=6,
)
GRADES = st.tuples(*[st.sampled_from(["A", "B", "C", "D", ""]) for _ in PEOPLE])


def in_force(fines: str, floor: str = "250000") -> Any:
    """Pay by the terms of one pack, to which another adds."""
    return msgspec.structs.replace(terms(fines=fines, floor=floor), parts=[adding("other", fines=fines)])


@contextmanager
def books_of(log: Log) -> Iterator[tuple[Ledger, Reader]]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        upgrade(url)
        with Ledger(url) as ledger:
            yield ledger, Reader(log, ledger)


def told(grades: tuple[str, ...], charges: list[tuple[str, str, str]]) -> tuple[Log, list[tuple[str, Any]]]:
    """A month's log, and its entries by person."""
    log = Log()
    for number, (agent, word) in enumerate(zip(PEOPLE, grades, strict=True)):
        log.roster(agent, pay_base_minor=300_000 + 250_007 * number)
        if word:
            log.grade(agent, word)
    return log, [(agent, log.decide(agent, points, pack=pack)) for agent, points, pack in charges]


def settle(log: Log, reader: Reader, period: str, asked: Any) -> str | None:
    """Settle and approve a month; the batch, None when there was nothing to settle."""
    log.ask(period, in_force=asked)
    reader.read()
    if outcomes(reader.ledger)[-1][0] != "applied":
        return None
    batch = batches(reader.ledger, period)[-1].id
    log.move("approved", batch)
    reader.read()
    assert outcomes(reader.ledger)[-1] == ("applied", "")
    return batch


def paid(ledger: Ledger, agent: str) -> int:
    """Everything that was booked for somebody."""
    query = "SELECT coalesce(sum(amount_minor), 0) FROM pay_entries WHERE agent = ?"
    with ledger.reading() as connection:
        return int(connection.exec_driver_sql(query, (agent,)).scalar_one())


@settings(max_examples=8, deadline=None)
@given(GRADES, CHARGES, st.sampled_from(["on", "off"]))
def test_lines_statements_control_totals_entries_and_files_are_the_same_sum_and_twice_is_once(
    grades: tuple[str, ...], charges: list[tuple[str, str, str]], fines: str
) -> None:
    log, _ = told(grades, charges)
    with books_of(log) as (ledger, reader):
        batch = settle(log, reader, PERIOD, in_force(fines))
        if batch is None:
            return
        row = batches(ledger)[0].row
        several = list(statements(ledger, batch).values())
        lines = [line.amount_minor for one in several for line in one.lines]
        assert sum(lines) == sum(one.total_minor for one in several) == row["total_minor"]
        assert sum(paid(ledger, agent) for agent in PEOPLE) == row["total_minor"]
        for one in several:
            assert one.pay_minor >= min(250_000, one.gross_minor or 0)
            assert one.pay_minor == one.fixed_minor + one.total_minor
        record = batch_record(batches(ledger)[0], "approved")
        made = export(record, several, {}, ("csv", "json"), head=chain.Head(1, "ab"), approved_by="head")
        (sheet,) = [content for name, content in made.files.items() if name.endswith(".csv")]
        rows = list(csv.DictReader(io.StringIO(sheet.decode("utf-8-sig"))))
        assert (len(rows), sum(int(one["amount_minor"]) for one in rows)) == (
            row["entries"],
            row["total_minor"],
        )
        with ledger.reading() as connection:
            assert {one.name for one in check_database(connection) if one.state == "differs"} == set()
        log.ask(in_force=in_force(fines))
        log.ask(in_force=in_force(fines), reopen=True)
        reader.read()
        assert [one for one, _ in outcomes(ledger)[-2:]] == ["unchanged", "unchanged"]
        assert len(batches(ledger)) == 1


@settings(max_examples=8, deadline=None)
@given(GRADES, FINES, st.sampled_from(["on", "off"]), st.sampled_from(["0", "250000"]))
def test_reversing_every_fine_in_the_next_month_comes_to_what_the_grades_alone_pay(
    grades: tuple[str, ...], charges: list[tuple[str, str, str]], fines: str, floor: str
) -> None:
    """Whatever the guard had held back of a fine is not paid out when the fine is taken back."""
    log, entries = told(grades, charges)
    bare, _ = told(grades, [])
    asked = in_force(fines, floor)
    with books_of(log) as (ledger, reader), books_of(bare) as (plain, reads):
        settle(log, reader, PERIOD, asked)
        settle(bare, reads, PERIOD, asked)
        for number, (agent, entry) in enumerate(entries):
            log.decide(
                agent, entry.points[1:], kind="waive", reverses=entry.id, incident=entry.incident, pack=entry.pack,
                period=SEPTEMBER, adjusts_period=PERIOD, at=f"2026-09-0{number + 1}T09:00:00Z",
            )  # fmt: skip
        for made in (log, bare):
            for agent in PEOPLE:
                made.grade(agent, "B", period=SEPTEMBER)
        settle(log, reader, SEPTEMBER, asked)
        settle(bare, reads, SEPTEMBER, asked)
        assert [paid(ledger, agent) for agent in PEOPLE] == [paid(plain, agent) for agent in PEOPLE]


@pytest.mark.parametrize(("waived", "left_minor"), [("-20", 50_000), ("-10", 60_000)])
def test_a_waived_fine_gives_back_what_was_taken_for_it_and_no_more(waived: str, left_minor: int) -> None:
    """Two fines of 1,000 and 500 yuan at a limit of 600: 900 were held back. What is left of them is taken still."""
    log = Log()
    log.roster("a-1", pay_base_minor=300_000)
    log.grade("a-1", "D")
    fines = {points: log.decide("a-1", points, pack="other") for points in ("-20", "-10")}
    asked = msgspec.structs.replace(in_force("on", "0"))
    asked.parts[0].parameters["point_value"] = msgspec.structs.replace(
        asked.parts[0].parameters["point_value"], value="5000"
    )
    with books_of(log) as (ledger, reader):
        settle(log, reader, PERIOD, asked)
        assert paid(ledger, "a-1") == -60_000
        log.decide("a-1", waived[1:], kind="waive", reverses=fines[waived].id, pack="other",
                   incident=fines[waived].incident, period=SEPTEMBER, adjusts_period=PERIOD)  # fmt: skip
        settle(log, reader, SEPTEMBER, asked)
        assert paid(ledger, "a-1") == -left_minor


# --- what a later month took for a settled one, given back by a third -------------------------------------------------

OCTOBER = "2026-10"


def limited(limit: str = "0.2", **values: str) -> Any:
    """Fines of 5,000 minor units a point in the other pack, and deductions up to a share of pay."""
    found = msgspec.structs.replace(terms(limit=limit, floor="0"), parts=[adding("other", **values)])
    found.parts[0].parameters["point_value"] = msgspec.structs.replace(
        found.parts[0].parameters["point_value"], value="5000"
    )
    return found


@pytest.mark.parametrize("back", ["waive", "adjust"])
def test_what_a_later_month_took_for_a_settled_one_is_given_back_as_far_as_it_was_taken(back: str) -> None:
    """September takes 1,000 yuan for August, of which its guard holds 400 back; October gives back 600, not 1,000."""
    log = Log()
    log.roster("a-1", pay_base_minor=300_000)
    for period in (PERIOD, SEPTEMBER, OCTOBER):
        log.grade("a-1", "D", period=period)
    same = {"pack": "other", "rule": "r", "incident": ""}
    with books_of(log) as (ledger, reader):
        settle(log, reader, PERIOD, limited())
        taken = log.decide("a-1", "-20", kind="adjust", period=SEPTEMBER, adjusts_period=PERIOD,
                           at="2026-09-20T09:00:00Z", **same)  # fmt: skip
        settle(log, reader, SEPTEMBER, limited())
        assert paid(ledger, "a-1") == -60_000
        what = (
            {"kind": "waive", "reverses": taken.id, "adjusts_period": SEPTEMBER, "rule": "excused"}
            if back == "waive"
            else {"kind": "adjust", "adjusts_period": PERIOD}
        )
        log.decide("a-1", "20", **same | {"period": OCTOBER, "at": "2026-10-20T09:00:00Z"} | what)
        settle(log, reader, OCTOBER, limited())
        assert paid(ledger, "a-1") == 0
        with ledger.reading() as connection:
            assert {one.name for one in check_database(connection) if one.state == "differs"} == set()


@pytest.mark.parametrize(
    ("then", "now", "wanted_minor"),
    [
        ({"fines": "off"}, {"fines": "on"}, 0),
        ({"fines": "on"}, {"fines": "off"}, 0),
        ({"point_value": "5000"}, {"point_value": "9000"}, 0),
    ],
)
@pytest.mark.parametrize("back", ["waive", "adjust"])
def test_what_is_given_back_is_what_was_taken_by_the_terms_of_its_month(
    then: dict[str, str], now: dict[str, str], wanted_minor: int, back: str
) -> None:
    log = Log()
    log.roster("a-1", pay_base_minor=300_000)
    for period in (PERIOD, SEPTEMBER):
        log.grade("a-1", "D", period=period)
    first, second = (msgspec.structs.replace(terms(), parts=[adding("other", **one)]) for one in (then, now))
    with books_of(log) as (ledger, reader):
        fine = log.decide("a-1", "-4", pack="other", rule="r", incident="i")
        settle(log, reader, PERIOD, first)
        what: dict[str, Any] = {"kind": "adjust", "rule": "r"}
        if back == "waive":
            what = {"kind": "waive", "reverses": fine.id, "rule": "excused"}
        log.decide("a-1", "4", pack="other", incident="i", period=SEPTEMBER, adjusts_period=PERIOD,
                   at="2026-09-20T09:00:00Z", **what)  # fmt: skip
        settle(log, reader, SEPTEMBER, second)
        assert paid(ledger, "a-1") == wanted_minor
