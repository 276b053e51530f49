"""Settlements in the ledger: the same books however the log is read, four eyes, adjustments, corrections, states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.decisions import CombinedResult, Settlement
from kaohe.payroll import settling
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import DECISIONS_TOPIC, EVENTS_TOPIC, Unreadable, read_record
from tests.support.pay import PERIOD, adding, parameter, terms
from tests.support.settling import Log, Reader, batches, books, outcomes, sent, statements

SEPTEMBER = "2026-09"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    yield from opened(tmp_path / "ledger.db")


def opened(path: Path) -> Iterator[Ledger]:
    upgrade(f"sqlite:///{path}")
    with Ledger(f"sqlite:///{path}") as found:
        yield found


@pytest.fixture
def log() -> Log:
    """Three people: one with a B and a fine, one with an A, one without a grade."""
    made = Log()
    for agent, gross_minor in (("a-1", 800_000), ("a-2", 1_000_000), ("a-3", 600_000)):
        made.roster(agent, pay_base_minor=gross_minor)
    made.decide("a-1", "-4")
    made.decide("a-2", "2.5")
    made.grade("a-1", "B")
    made.grade("a-2", "A")
    return made


@pytest.fixture
def reader(log: Log, ledger: Ledger) -> Reader:
    return Reader(log, ledger)


def settled(log: Log, reader: Reader, period: str = PERIOD, **fields: Any) -> str:
    """Ask for a month, have it approved, and name the batch."""
    log.ask(period, **fields)
    reader.read()
    batch = batches(reader.ledger, period)[-1].id
    log.move("approved", batch)
    reader.read()
    assert outcomes(reader.ledger)[-1] == ("applied", "")
    return batch


def test_a_month_is_settled_to_a_draft_with_control_totals(log: Log, reader: Reader, ledger: Ledger) -> None:
    log.ask()
    reader.read()
    (batch,) = batches(ledger)
    assert batch.state == "draft"
    found = statements(ledger, batch.id)
    assert {agent: one.total_minor for agent, one in found.items()} == {
        "a-1": 80_000 - 2_000, "a-2": 100_000 + 10_000 + 1_250, "a-3": 0,
    }  # fmt: skip
    assert "no final grade" in found["a-3"].missing[0].en
    assert (batch.row["statements"], batch.row["entries"], batch.row["total_minor"]) == (3, 5, 189_250)
    with ledger.reading() as connection:
        entries = connection.exec_driver_sql("SELECT count(*), sum(amount_minor) FROM pay_entries").one()
    assert tuple(entries) == (5, 189_250), "lines = statements = control totals = entries"
    line = found["a-1"].lines[1]
    assert (line.source, line.clause, line.event_time) == ("d-004", "LS-01", "2026-08-12T09:00:00Z")


def test_settling_twice_changes_nothing(log: Log, reader: Reader, ledger: Ledger) -> None:
    log.ask()
    log.ask(by="another-clerk")
    reader.read()
    assert [one for one, _ in outcomes(ledger)] == ["applied", "unchanged"]
    first = batches(ledger)[0].id
    log.move("approved", first)
    log.ask()
    log.grade("a-3", "B")
    log.ask()
    reader.read()
    assert len(batches(ledger)) == 1
    assert [one for one, _ in outcomes(ledger)] == [
        "applied",
        "unchanged",
        "applied",
        "unchanged",
        "unchanged",
    ]
    assert "comes with the next settlement, or now with --reopen" in outcomes(ledger)[-1][1]


def test_reading_everything_again_changes_nothing(log: Log, reader: Reader, ledger: Ledger) -> None:
    settled(log, reader)
    before, counts = books(ledger), ledger.counts()
    written = reader.read(again=True)
    assert (written.pay, written.settled, written.entries) == (0, 0, 0)
    assert (books(ledger), ledger.counts()) == (before, counts)


def test_a_request_waits_until_the_ledger_has_read_what_stood_before_it(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.ask()
    log.decide("a-1", "-100")
    reader.read(only=EVENTS_TOPIC)
    assert (batches(ledger), outcomes(ledger)) == ([], [])
    reader.read(only=DECISIONS_TOPIC)
    assert batches(ledger) == [], "the grades are not there yet"
    reader.read()
    found = statements(ledger, batches(ledger)[0].id)
    assert found["a-1"].total_minor == 78_000, "what came after the request is left to the next settlement"


@pytest.mark.parametrize("seed", range(8))
def test_however_the_log_is_read_the_books_are_the_same(
    log: Log, reader: Reader, ledger: Ledger, tmp_path: Path, seed: int
) -> None:
    first = settled(log, reader)
    log.decide("a-1", "4", kind="waive", reverses="d-004", incident="i-4")
    log.grade("a-3", "C")
    log.pay("a-2", 900_000)
    log.grade("a-1", "B", period=SEPTEMBER)
    second = settled(log, reader, SEPTEMBER)
    log.ask(reopen=True)
    log.move("exported", first, entries=5, total_minor=189_250)
    log.move("approved", second)
    reader.read()
    for other in opened(tmp_path / "other.db"):
        Reader(log, other, seed).read()
        assert books(other) == books(ledger)
        assert [sent_one["id"] for sent_one in sent(other)] == [sent_one["id"] for sent_one in sent(ledger)]


# --- four eyes and states ---------------------------------------------------------------------------------------------


def test_who_asked_and_who_is_paid_cannot_approve(log: Log, reader: Reader, ledger: Ledger) -> None:
    log.ask()
    reader.read()
    batch = batches(ledger)[0].id
    log.move("approved", batch, by=" Payroll-Clerk")
    log.move("approved", batch, by="A-2")
    log.move("approved", "b-unknown")
    log.move("approved", batch)
    log.move("approved", batch, by="another-head")
    reader.read()
    assert outcomes(ledger)[1:] == [
        ("refused", f" Payroll-Clerk asked for the batch {batch}; somebody else has to approve it"),
        ("refused", f"A-2 is paid by the batch {batch}; somebody who is not has to approve it"),
        ("refused", "there is no batch b-unknown"),
        ("applied", ""),
        ("unchanged", f"the batch {batch} is approved already"),
    ]


def test_a_batch_goes_from_state_to_state_and_totals_must_agree(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.ask()
    reader.read()
    batch = batches(ledger)[0].id
    right: dict[str, Any] = {"entries": 5, "total_minor": 189_250}
    log.move("exported", batch, **right)
    log.move("approved", batch)
    log.move("acknowledged", batch, **right)
    log.move("exported", batch, entries=5, total_minor=189_249)
    log.move("exported", batch, **right, files={"a.csv": "00"})
    log.move("rejected", batch)
    log.move("acknowledged", batch, entries=4, total_minor=189_250)
    log.move("acknowledged", batch, **right, reference="run-9")
    reader.read()
    assert [one for one, _ in outcomes(ledger)[1:]] == [
        "refused", "applied", "refused", "refused", "applied", "refused", "refused", "applied",
    ]  # fmt: skip
    assert "5 entries of 189250 minor units in all, but 4 entries" in outcomes(ledger)[-2][1]
    found = batches(ledger)[0]
    assert [one["state"] for one in found.states] == ["draft", "approved", "exported", "acknowledged"]
    acknowledged = found.entered("acknowledged")
    assert acknowledged is not None
    assert msgspec.json.decode(acknowledged["details"]) == {**right, "reference": "run-9"}


def test_a_rejected_draft_is_never_paid_and_the_month_can_be_settled_again(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.ask()
    reader.read()
    log.move("rejected", batches(ledger)[0].id, reason="a grade is missing")
    log.grade("a-3", "B")
    log.ask()
    reader.read()
    assert [one.state for one in batches(ledger)] == ["rejected", "draft"]
    assert batches(ledger)[1].row["total_minor"] == 189_250 + 60_000


def test_a_draft_that_says_something_else_takes_the_place_of_the_one_before(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.ask()
    log.grade("a-3", "B")
    log.ask()
    reader.read()
    first, second = batches(ledger)
    assert (first.state, second.state, second.row["replaces"]) == ("superseded", "draft", first.id)
    log.move("approved", first.id)
    reader.read()
    assert outcomes(ledger)[-1][0] == "refused"


def test_a_draft_made_before_another_batch_was_approved_is_stale(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.grade("a-1", "B", period=SEPTEMBER)
    log.ask()
    log.ask(SEPTEMBER)
    reader.read()
    august, september = batches(ledger)
    log.move("approved", august.id)
    log.move("approved", september.id)
    log.ask(SEPTEMBER)
    reader.read()
    assert outcomes(ledger)[-2] == (
        "refused",
        f"the batch {august.id} was approved after the draft {september.id} was made; settle the month again",
    )
    assert [one.state for one in batches(ledger, SEPTEMBER)] == ["superseded", "draft"]


def test_what_cannot_be_settled_is_refused_with_its_reason(log: Log, reader: Reader, ledger: Ledger) -> None:
    good = terms()
    log.ask("2026-05")
    log.ask(reopen=True)
    log.ask(in_force=msgspec.structs.replace(good, parameters={}))
    log.ask(in_force=terms(share="a lot"))
    log.ask(in_force=terms(rounding="up"))
    log.ask(in_force=msgspec.structs.replace(good, zone="Mars/Olympus"))
    log.ask(in_force=terms(point_value="999999999999999"))
    reader.read()
    assert [reason for _, reason in outcomes(ledger)] == [
        "there is no final grade and no entry with money in 2026-05 yet",
        "2026-08 is not settled yet, so there is nothing to reopen",
        "the terms lack annual_share, bonuses, coefficients, fines, floor, limit, point_value, rounding, share",
        "the term share is 'a lot', which is no decimal number of 0 or more",
        "the term rounding is 'up'",
        "unknown time zone 'Mars/Olympus'; name one of the IANA data base, such as Asia/Shanghai",
        "an amount is beyond 1000000000000000 minor units; look at the pay terms",
    ]
    assert batches(ledger) == []


# --- several packs ----------------------------------------------------------------------------------------------------


def test_what_other_packs_add_is_settled_with_it_and_the_combined_score_is_shown(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    in_force = msgspec.structs.replace(
        terms(), parts=[adding("attendance"), adding("logistics")], combined="company-kpi+"
    )
    log.grade("a-1", "A", pack="logistics", id="g-ls")
    log.grade("a-1", "C", pack="company-kpi+", id="g-both", score="77.5")
    log.decide("a-1", "-3", pack="attendance")
    log.decide("a-3", "2", pack="attendance")
    log.ask(in_force=in_force)
    reader.read()
    found = statements(ledger, batches(ledger)[0].id)
    assert [(one.component, one.pack, one.amount_minor) for one in found["a-1"].lines] == [
        ("performance", "company-kpi", 80_000), ("grade_bonus", "logistics", 12_000),
        ("penalty", "company-kpi", -2_000),
        ("penalty", "attendance", -3_000),
    ]  # fmt: skip
    combined = found["a-1"].combined
    assert isinstance(combined, CombinedResult)
    assert (combined.id, combined.score, combined.grade) == ("g-both", "77.5", "C")
    assert found["a-2"].combined is msgspec.UNSET
    assert [(one.component, one.amount_minor) for one in found["a-3"].lines] == [("award", 2_000)]
    assert batches(ledger)[0].row["total_minor"] == sum(one.total_minor for one in found.values())


def test_who_came_in_the_month_is_settled_by_days(log: Log, reader: Reader, ledger: Ledger) -> None:
    in_force = terms()
    in_force.parameters["days"] = parameter("pay_days", "text", "calendar")
    log.roster("a-4", pay_base_minor=310_000, hired_on="2026-08-12")
    log.grade("a-4", "B")
    log.ask(in_force=in_force)
    reader.read()
    found = statements(ledger, batches(ledger)[0].id)["a-4"]
    assert (found.gross_minor, found.base_minor, found.pay_minor) == (200_000, 20_000, 200_000)
    assert isinstance(found.notes, list)
    assert "20 of the month's 31 days" in found.notes[0].en
    batch = batches(ledger)[0]
    log.move("approved", batch.id)
    reader.read()
    with ledger.reading() as connection:
        assert settling.worked_out_again(connection, batch) == batch.row["digest"]


# --- what comes after the settlement ----------------------------------------------------------------------------------


def test_what_comes_after_the_settlement_is_an_adjustment_of_the_next_one(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    settled(log, reader)
    log.grade("a-3", "C")
    log.decide("a-1", "-10")
    log.decide("a-2", "-2.5", kind="waive", reverses="d-005", incident="i-5", period=SEPTEMBER,
               adjusts_period=PERIOD)  # fmt: skip
    for agent in ("a-1", "a-2", "a-3"):
        log.grade(agent, "B", period=SEPTEMBER)
    batch = settled(log, reader, SEPTEMBER)
    found = statements(ledger, batch)

    def lines(agent: str) -> list[tuple[str, str, str, int]]:
        return [
            (line.component, line.of_period, line.effective_period, line.amount_minor)
            for line in found[agent].lines
        ]

    assert lines("a-1") == [
        ("performance", SEPTEMBER, SEPTEMBER, 80_000), ("penalty", PERIOD, PERIOD, -5_000),
    ]  # fmt: skip
    assert lines("a-2") == [
        ("performance", SEPTEMBER, SEPTEMBER, 100_000), ("award", SEPTEMBER, PERIOD, -1_250),
    ]  # fmt: skip
    assert lines("a-3") == [
        ("performance", SEPTEMBER, SEPTEMBER, 60_000), ("performance", PERIOD, PERIOD, 42_000),
    ]  # fmt: skip
    assert "Adjusts 2026-08, which was settled" in found["a-3"].lines[1].explanation.en
    for agent in found:
        log.grade(agent, "B", period="2026-10")
    assert batches(ledger, settled_period(log, reader, "2026-10"))[0].row["total_minor"] == 240_000


def settled_period(log: Log, reader: Reader, period: str) -> str:
    settled(log, reader, period)
    return period


def test_a_month_that_is_reopened_takes_back_and_enters_anew(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    first = settled(log, reader)
    log.grade("a-1", "C", revision=2)
    log.ask(reopen=True, reason="appeal upheld")
    reader.read()
    correction = batches(ledger)[-1]
    assert (correction.row["kind"], correction.row["total_minor"]) == ("correction", -24_000)
    (statement,) = statements(ledger, correction.id).values()
    (was,) = [line for line in statements(ledger, first)["a-1"].lines if line.component == "performance"]
    assert [(line.amount_minor, line.reverses) for line in statement.lines] == [
        (-80_000, was.key),
        (56_000, ""),
    ]
    log.move("approved", correction.id)
    log.ask(reopen=True)
    reader.read()
    assert outcomes(ledger)[-1] == ("unchanged", "nothing of 2026-08 has changed since it was settled")
    log.grade("a-1", "B", period=SEPTEMBER)
    settled(log, reader, SEPTEMBER)
    assert batches(ledger, SEPTEMBER)[0].row["total_minor"] == 80_000, "a correction is not adjusted again"


def test_a_lost_grade_takes_everything_back_to_nothing(log: Log, reader: Reader, ledger: Ledger) -> None:
    """Pay terms under which nothing is money any more: the correction is the reversal of everything."""
    settled(log, reader)
    log.ask(reopen=True, in_force=msgspec.structs.replace(terms(), packs=["none"], grades_pack="none"))
    reader.read()
    correction = batches(ledger)[-1]
    assert correction.row["total_minor"] == -189_250
    log.move("approved", correction.id)
    reader.read()
    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT sum(amount_minor) FROM pay_entries").scalar_one() == 0


# --- what is read and what is sent ------------------------------------------------------------------------------------


def test_statements_are_sent_when_their_batch_is_approved_and_once(
    log: Log, reader: Reader, ledger: Ledger
) -> None:
    log.ask()
    reader.read()
    assert [one["state"] for one in sent(ledger)] == ["draft"]
    ledger.note_published([one for one, _ in ledger.unpublished()])
    log.move("approved", batches(ledger)[0].id)
    reader.read()
    messages = [message for _, several in ledger.unpublished() for message in several]
    assert [message.key for message in messages] == ["a-1", "a-2", "a-3", batches(ledger)[0].id]
    assert msgspec.json.decode(messages[0].value, type=Settlement).total_minor == 78_000
    ledger.note_published([one for one, _ in ledger.unpublished()])
    assert ledger.unpublished() == []
    assert ledger.counts()["pay_batches"] == 1


def event(tag: str, data: str, subject: str = "a-1") -> bytes:
    return (
        f'{{"specversion": "1.0", "id": "1", "source": "s", "subject": "{subject}", '
        f'"type": "{tag}", "time": "2026-09-01T00:00:00Z", "data": {data}}}'
    ).encode()


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b'{"type": "pay.stated"',
        event("call.answered", '{"agent": "a-1", "call_id": "pay.stated"}'),
        event("agent.ready", '{"agent": "a-1"}'),
        event("settlement.unheard", "{}"),
    ],
)
def test_events_that_are_not_about_pay_are_passed(raw: bytes | None) -> None:
    assert read_record(EVENTS_TOPIC, 0, 7, raw) is None


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (event("pay.stated", '{"agent": "a-1", "period": "2026-13", "gross_minor": 5}'), "invalid"),
        (event("pay.stated", '{"agent": "a-1", "period": "2026-08"}'), "invalid"),
        (event("pay.stated", '{"agent": "a-1", "period": "2026-08", "gross_minor": 5, "annual_salary_minor": 5}'),
         "invalid"),
        (event("pay.stated", '{"agent": "a-2", "period": "2026-08", "gross_minor": 5}'), "agent_not_subject"),
        (event("roster.changed", '{"team": "t-1"}'), "agent_not_subject"),
        (event("settlement.approved", '{"batch": "b-1", "by": "x"}'), "subject"),
        (event("settlement.approved", '{"batch": "b-\\u0000", "by": "x"}', "payroll"), "unfit"),
    ],
)  # fmt: skip
def test_events_of_pay_that_cannot_be_used_are_kept_aside(raw: bytes, code: str) -> None:
    read = read_record(EVENTS_TOPIC, 0, 7, raw)
    assert isinstance(read, Unreadable)
    assert read.code == code
