"""The SQL ledger on a real PostgreSQL: the same laws as on SQLite, and two writers at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from kaohe.decisions import Decision
from kaohe.errors import LedgerError
from kaohe.payroll import chain
from kaohe.payroll.consumer import Retry
from kaohe.payroll.ledger import Ledger, LedgerAwayError, NextOffset, Written, find_decision, upgrade
from kaohe.payroll.reconcile import check_database, holds
from kaohe.payroll.records import DECISIONS_TOPIC, current_revision
from kaohe.payroll.tables import METADATA
from tests.support.ledger_entries import alert, decision, delivery, grade
from tests.support.postgres import running_postgres
from tests.support.settling import Log, Reader, batches, books

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The URL of an empty database."""
    run(server, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return server


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    upgrade(url)
    with Ledger(url) as opened:
        yield opened


def run(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def write(ledger: Ledger, *records: Decision) -> Written:
    return ledger.write([delivery(record, offset) for offset, record in enumerate(records)])


def together(*works: Callable[[], object]) -> None:
    """Run all at once; the first error of any of them is raised."""
    start, errors = threading.Barrier(len(works)), []

    def run_one(work: Callable[[], object]) -> None:
        start.wait(30)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (handed to the test's thread)
            errors.append(error)

    threads = [threading.Thread(target=run_one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a writer hangs"
    if errors:
        raise errors[0]


def test_the_migrations_make_exactly_the_tables_the_code_uses(url: str) -> None:
    upgrade(url)
    upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_an_older_schema_is_upgraded_and_keeps_its_rows(url: str) -> None:
    upgrade(url, "0001")
    with pytest.raises(LedgerError, match="older schema 0001"):
        Ledger(url)
    run(url, "INSERT INTO consumer_offsets VALUES ('kaohe.decisions', 3, '', 99)")
    upgrade(url)
    with Ledger(url) as ledger:
        assert ledger.offsets()[DECISIONS_TOPIC, 3].next_offset == 99


def test_two_processes_may_migrate_at_once(url: str) -> None:
    together(*[lambda: upgrade(url)] * 3)
    with Ledger(url) as ledger:
        assert write(ledger, decision()) == Written(entries=1)


def test_every_record_comes_back_as_it_went_in_and_twice_changes_nothing(ledger: Ledger, url: str) -> None:
    records = [
        decision(),
        decision(revision=2, status="final", points="-2.50", amount_minor=-(2**53) - 1, currency="CNY"),
    ]
    batch = [*map(delivery, records), delivery(alert()), delivery(alert(state="resolved")), delivery(grade())]
    assert ledger.write(batch, offsets=[NextOffset(DECISIONS_TOPIC, 0, 2)]) == Written(
        entries=2, alerts=2, grades=1
    )
    assert ledger.write(batch, offsets=[NextOffset(DECISIONS_TOPIC, 0, 1)]) == Written(repeated=5)
    assert find_decision(url, records[0].id) == records
    assert ledger.alerts(alert().id) == [alert(), alert(state="resolved")]
    assert ledger.grades(grade().id) == [grade()]
    assert ledger.offsets()[DECISIONS_TOPIC, 0].next_offset == 2
    assert ledger.current_entries() == [records[1]]


def test_contradictions_are_kept_aside(ledger: Ledger) -> None:
    final = decision(revision=2, status="final")
    written = write(
        ledger, decision(), decision(points="-6"), final, decision(revision=3), decision(id="d-ok")
    )
    assert written == Written(entries=3, conflicts=2)
    assert {conflict.reason for conflict in ledger.conflicts()} == {"content", "provisional_after_final"}
    assert ledger.current_entries(rule="ls-complaint-rate") == [final, decision(id="d-ok")]


def test_points_stay_exact_in_python_and_in_sql(ledger: Ledger, url: str) -> None:
    big = "100000000000000000000.000000000000000001"
    write(
        ledger,
        decision(id="d-1", points="0.1"),
        decision(id="d-2", points="0.2"),
        decision(id="d-3", points=big),
    )
    exact = Decimal("100000000000000000000.300000000000000001")
    assert ledger.balance("a-17", "2026-08").points == exact
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT sum(points::numeric) FROM current_entries")) == exact
    engine.dispose()


@pytest.mark.parametrize("table", ["ledger_entries", "alerts", "grades", "conflicts"])
def test_rows_are_never_updated_deleted_or_truncated(ledger: Ledger, url: str, table: str) -> None:
    ledger.write(
        [delivery(decision()), delivery(decision(points="-6")), delivery(alert()), delivery(grade())]
    )
    engine = create_engine(url)
    for statement in (f"UPDATE {table} SET topic = ''", f"DELETE FROM {table}", f"TRUNCATE {table}"):  # noqa: S608
        with (
            engine.connect() as connection,
            pytest.raises(Exception, match=f"{table} is append-only") as raised,
        ):
            connection.execute(text(statement))
        assert isinstance(raised.value.__cause__, psycopg.errors.RaiseException)
    engine.dispose()
    assert ledger.counts()[table] == 1


def test_two_writers_of_the_same_records_double_nothing_and_find_no_conflict(
    url: str, ledger: Ledger
) -> None:
    entries = [decision(id=f"d-{n % 40:02d}", revision=n) for n in range(400)]

    def fill() -> None:
        with Ledger(url) as own:
            for start in range(0, len(entries), 25):
                write(own, *entries[start : start + 25])

    together(fill, fill, fill)
    counts = ledger.counts()
    assert (counts["ledger_entries"], counts["current_entries"], counts["conflicts"]) == (400, 40, 0)


def test_any_order_of_deliveries_gives_the_same_current_entries(ledger: Ledger) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    history: list[Decision] = [
        decision(
            id=f"d-{seed}-{n % 30:02d}",
            revision=n // 30,
            status=draw.choice(["provisional", "provisional", "final"]),
            points=str(draw.randint(-5, 5)),
        )
        for n in range(180)
    ]
    deliveries = [*history, *draw.sample(history, 60)]
    draw.shuffle(deliveries)
    for start in range(0, len(deliveries), 37):
        write(ledger, *deliveries[start : start + 37])
    ids = sorted({entry.id for entry in history})
    expected = [current_revision([entry for entry in history if entry.id == one]) for one in ids]
    assert ledger.current_entries() == expected


def test_a_connection_that_the_server_ended_is_replaced(ledger: Ledger, url: str) -> None:
    write(ledger, decision())
    run(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert write(ledger, decision(revision=2)) == Written(entries=1)


def test_a_server_that_is_away_is_one_sentence() -> None:
    away = "postgresql://kaohe:secret@127.0.0.1:1/ledger"
    with pytest.raises(LedgerAwayError):
        upgrade(away)
    retry = Retry("broker:9092", lambda: False, waits_s=(0.01,))
    with pytest.raises(LedgerError, match="Gave up after 2 tries; start the database") as raised:
        retry(lambda: upgrade(away))
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_text_that_postgresql_reads_in_its_own_way_comes_back_unchanged(ledger: Ledger) -> None:
    odd = decision(subject="坐席%(x)s:name\\'\"", period="2026-08'; --", incident="$1 ::text")
    assert write(ledger, odd) == Written(entries=1)
    assert ledger.current_entries(subject=odd.subject, period=odd.period) == [odd]


# --- pay --------------------------------------------------------------------------------------------------------------


def paid_log() -> Log:
    """A month of two people with a request for its settlement in the middle."""
    log = Log()
    for number in range(6):
        log.roster(f"a-{number}", pay_base_minor=800_000 + number)
        log.grade(f"a-{number}", "ABCD"[number % 4])
        log.decide(f"a-{number}", str(-50 * number))
    log.ask()
    log.grade("a-0", "D", revision=2)
    return log


def test_a_settlement_is_the_same_on_both_databases_and_its_chain_holds(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    log = paid_log()
    other_url = f"sqlite:///{tmp_path / 'other.db'}"
    upgrade(other_url)
    with Ledger(other_url) as other:
        readers = [Reader(log, ledger, seed=1), Reader(log, other, seed=2)]
        for reader in readers:
            reader.read()
        log.move("approved", batches(ledger)[0].id)
        log.ask(reopen=True)
        for reader in readers:
            reader.read()
        assert books(ledger) == books(other)
        assert [one.row["kind"] for one in batches(ledger)] == ["regular", "correction"]
        for one in (ledger, other):
            with one.reading() as connection:
                found = check_database(connection)
            assert holds(found), found
    run(url, "ALTER TABLE pay_entries DISABLE TRIGGER ALL")
    run(url, "UPDATE pay_entries SET amount_minor = amount_minor + 1 WHERE component = 'penalty'")
    with ledger.reading() as connection:
        broken = chain.verify(connection).broken
    assert broken is not None
    assert (broken.table, broken.what) == ("pay_entries", "changed")


def test_two_readers_of_one_log_settle_once_and_write_one_chain(url: str) -> None:
    upgrade(url)
    log = paid_log()
    with Ledger(url) as first, Ledger(url) as second:
        together(Reader(log, first, seed=3).read, Reader(log, second, seed=4).read)
        (batch,) = batches(first)
        assert batch.state == "draft"
        with first.reading() as connection:
            found = chain.verify(connection)
        assert (found.broken, found.links) == (None, sum(found.rows.values()))


def test_rows_of_pay_are_never_updated_deleted_or_truncated(ledger: Ledger, url: str) -> None:
    Reader(paid_log(), ledger).read()
    for table in ("pay_facts", "pay_batches", "pay_states", "pay_statements", "pay_entries", "ledger_chain"):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):  # noqa: S608
            with pytest.raises(Exception, match=f"{table} is append-only"):
                run(url, statement)
