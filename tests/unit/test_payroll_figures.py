"""The payroll process's figures, and the reconciliation they carry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kaohe.metric_names import EXPORTED, PAYROLL_EXPORTED
from kaohe.payroll.figures import FRESH_S, PayrollFigures
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.reconcile import Check, check_database, holds
from tests.support.ledger_entries import decision, delivery
from tests.support.settling import Log, Reader, batches


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with an approved month of one person."""
    file = tmp_path / "ledger.db"
    upgrade(f"sqlite:///{file}")
    log = Log()
    log.roster("a-1", pay_base_minor=800_000)
    log.grade("a-1", "B")
    log.decide("a-1", "-4")
    log.ask()
    with Ledger(f"sqlite:///{file}") as ledger:
        reader = Reader(log, ledger)
        reader.read()
        log.move("approved", batches(ledger)[0].id)
        reader.read()
    return file


def checks(path: Path) -> dict[str, Check]:
    with Ledger(f"sqlite:///{path}") as ledger, ledger.reading() as connection:
        return {one.name: one for one in check_database(connection)}


def tamper(path: Path, table: str, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        connection.execute(statement)
        connection.commit()


def differing(path: Path) -> set[str]:
    return {one.name for one in checks(path).values() if one.state == "differs"}


def test_a_sound_ledger_holds_and_says_what_is_on_its_way(path: Path) -> None:
    found = checks(path)
    assert holds(list(found.values()))
    assert {name for name, one in found.items() if one.state == "open"} == {"acknowledged", "published"}
    assert "is approved" in found["acknowledged"].details[0]
    assert found["statements"].compared == 1


@pytest.mark.parametrize(
    ("table", "statement", "wanted"),
    [
        ("pay_entries", "UPDATE pay_entries SET amount_minor = 1 WHERE component = 'penalty'", {"chain", "entries"}),
        ("pay_entries", "DELETE FROM pay_entries WHERE component = 'penalty'", {"chain", "entries"}),
        ("pay_batches", "UPDATE pay_batches SET total_minor = 5", {"chain", "entries"}),
        ("pay_statements", "UPDATE pay_statements SET total_minor = 5", {"chain", "entries"}),
        ("ledger_entries", "UPDATE ledger_entries SET points = '-5'", {"chain", "statements"}),
        ("grades", "UPDATE grades SET grade = 'A'", {"chain", "statements"}),
        ("pay_facts", "UPDATE pay_facts SET document = replace(document, '800000', '900000')",
         {"chain", "statements"}),
    ],
)  # fmt: skip
def test_what_no_longer_agrees_is_found(path: Path, table: str, statement: str, wanted: set[str]) -> None:
    tamper(path, table, statement)
    assert differing(path) == wanted


def test_contradictions_differ_and_what_waits_is_open(path: Path) -> None:
    log = Log()
    log.decide("a-9", "-1")
    log.ask()
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.write([delivery(decision()), delivery(decision(points="-9"))])
        Reader(log, ledger).read(only="kaohe.events")
    found = checks(path)
    assert differing(path) == {"conflicts"}
    assert "d-0123456789abcdef01234567: content" in found["conflicts"].details[0]


def scrape(figures: PayrollFigures) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    return generate_latest(registry).decode()


def test_every_declared_figure_is_shown_and_no_other(path: Path) -> None:
    shown = scrape(PayrollFigures(f"sqlite:///{path}"))
    families = [line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")]
    assert families == [one.name for one in PAYROLL_EXPORTED]
    assert {one.name for one in PAYROLL_EXPORTED} & {one.name for one in EXPORTED} == {"kaohe_build_info"}
    for line in (
        'kaohe_ledger_rows{table="pay_entries"} 2.0',
        'kaohe_settlement_batches{state="approved"} 1.0',
        'kaohe_settlement_batches{state="draft"} 0.0',
        'kaohe_reconciliation_state{check="entries"} 0.0',
        'kaohe_reconciliation_state{check="acknowledged"} 1.0',
        'kaohe_reconciliation_differences{check="published"} 2.0',
        "kaohe_reconciliation_age_seconds 0.0",
    ):
        assert line in shown.splitlines(), line
    assert 'kaohe_ledger_next_offset{partition="0",topic="kaohe.events"}' in shown


def test_a_difference_shows_as_2_and_answers_are_kept_for_some_seconds(path: Path) -> None:
    now = [100.0]
    figures = PayrollFigures(f"sqlite:///{path}", clock=lambda: now[0])
    assert 'kaohe_reconciliation_state{check="entries"} 0.0' in scrape(figures)
    tamper(path, "pay_entries", "UPDATE pay_entries SET amount_minor = 1 WHERE component = 'penalty'")
    now[0] += FRESH_S / 2
    again = scrape(figures)
    assert 'kaohe_reconciliation_state{check="entries"} 0.0' in again
    assert f"kaohe_reconciliation_age_seconds {FRESH_S / 2}" in again
    now[0] += FRESH_S
    assert 'kaohe_reconciliation_state{check="entries"} 2.0' in scrape(figures)


def test_without_a_ledger_nothing_is_claimed(tmp_path: Path) -> None:
    shown = scrape(PayrollFigures(f"sqlite:///{tmp_path / 'none.db'}"))
    lines = [line for line in shown.splitlines() if not line.startswith("#")]
    assert [line.partition("{")[0] for line in lines] == ["kaohe_build_info"]
