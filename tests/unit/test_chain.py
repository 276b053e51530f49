"""The hash chain: every row is sealed, and the first row that was changed, removed or slipped in is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaohe.payroll import chain
from kaohe.payroll.chain import Head, Verified
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.tables import CHAINED
from tests.support.ledger_entries import alert, decision, delivery, grade
from tests.support.settling import Log, Reader, batches

SLIPPED_IN = (
    "INSERT INTO alerts SELECT 'w-x', 'firing', pack, pack_version, rule, clause, severity, level, subject, incident, "
    "since, at, owner, title, explanation, response, facts, parameters, evidence, topic, partition, record_offset, "
    "recorded_at FROM alerts"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with entries, alerts, grades, a conflict and an approved settlement."""
    file = tmp_path / "ledger.db"
    upgrade(f"sqlite:///{file}")
    with Ledger(f"sqlite:///{file}") as ledger:
        ledger.write([delivery(decision()), delivery(alert()), delivery(grade())])
        ledger.write([delivery(decision(points="-5"))])
        log = Log()
        log.roster("a-1", pay_base_minor=800_000)
        log.grade("a-1", "B")
        log.decide("a-1", "-4")
        log.ask()
        reader = Reader(log, ledger)
        reader.read()
        log.move("approved", batches(ledger)[0].id)
        reader.read()
    return file


def verified(path: Path, noted: Head | None = None) -> Verified:
    with Ledger(f"sqlite:///{path}") as ledger, ledger.reading() as connection:
        return chain.verify(connection, noted)


def tamper(path: Path, *statements: str) -> None:
    """Change the database as somebody would who owns its file: the triggers go first."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ]
        for statement in [*(f"DROP TRIGGER {name}" for name in names), *statements]:
            connection.execute(statement)
        connection.commit()


def broken(path: Path, noted: Head | None = None) -> tuple[str, str, str]:
    found = verified(path, noted).broken
    assert found is not None
    return found.table, found.key, found.what


def test_every_row_that_is_kept_has_a_link(path: Path) -> None:
    found = verified(path)
    assert found.broken is None
    assert found.links == found.head.link == sum(found.rows.values())
    assert all(found.rows[table.name] for table in CHAINED), "each table has a row in this test"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE ledger_entries SET points = '-3' WHERE id LIKE 'd-0123%'",
         ("ledger_entries", '["d-0123456789abcdef01234567",1]', "changed")),
        ("UPDATE grades SET grade = 'A' WHERE subject = 'a-1'", ("grades", '["g-a-1-2026-08",1]', "changed")),
        ("UPDATE pay_entries SET amount_minor = amount_minor + 1 WHERE component = 'penalty'",
         ("pay_entries", "", "changed")),
        ("UPDATE pay_states SET by = 'somebody' WHERE state = 'approved'", ("pay_states", "", "changed")),
        ("UPDATE ledger_entries SET recorded_at = '2026-01-01T00:00:00Z' WHERE id LIKE 'd-0123%'",
         ("ledger_entries", "", "changed")),
        ("DELETE FROM alerts", ("alerts", '["w-0123456789abcdef01234567","firing"]', "missing")),
        ("INSERT INTO pay_published VALUES ('b-1', 'draft', 'now')", ("", "", "")),
        (SLIPPED_IN, ("alerts", '["w-x","firing"]', "added")),
        ("DELETE FROM ledger_chain WHERE link = 2", ("ledger_chain", "2", "missing")),
        ("UPDATE ledger_chain SET hash = '00' WHERE link = 2", ("", "", "link")),
    ],
)  # fmt: skip
def test_the_first_row_that_is_not_as_it_was_written_is_named(
    path: Path, statement: str, named: tuple[str, str, str]
) -> None:
    tamper(path, statement)
    if not named[2]:
        assert verified(path).broken is None, "what is not part of the books is not sealed"
        return
    found = broken(path)
    assert all(wanted in ("", is_) for wanted, is_ in zip(named, found, strict=True)), found


def test_a_row_removed_together_with_its_link_leaves_a_gap(path: Path) -> None:
    tamper(
        path,
        "DELETE FROM alerts",
        "DELETE FROM ledger_chain WHERE entity = 'alerts'",
    )
    assert broken(path) == ("ledger_chain", "2", "missing")


def test_a_chain_cut_short_or_written_anew_is_found_out_by_a_head_that_was_noted(path: Path) -> None:
    noted = verified(path).head
    tamper(
        path,
        "DELETE FROM pay_states WHERE rowid IN (SELECT max(rowid) FROM pay_states)",
        "DELETE FROM settlement_outcomes WHERE rowid IN (SELECT max(rowid) FROM settlement_outcomes)",
        f"DELETE FROM ledger_chain WHERE link > {noted.link - 2}",  # noqa: S608
    )
    assert verified(path).broken is None, "the chain alone cannot know how long it was"
    assert broken(path, noted) == ("ledger_chain", str(noted.link), "missing")
    assert verified(path, Head(2, "00")).broken is not None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_any_column_is_noticed(path: Path, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([table.name for table in CHAINED]))
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = data.draw(st.sampled_from(columns))
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ]
        saved = connection.execute(f"SELECT rowid, {column} FROM {table} LIMIT 1").fetchone()  # noqa: S608
        kept = list(connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'"))
        for name in names:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        other = saved[1] + 1 if isinstance(saved[1], int) else saved[1] + "x"
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (other, saved[0]))  # noqa: S608
        connection.commit()
        try:
            found = verified(path).broken
            assert found is not None
            assert found.table == table
        finally:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (saved[1], saved[0]))  # noqa: S608
            for (sql,) in kept:
                connection.execute(sql)
            connection.commit()


def test_a_ledger_of_an_older_kaohe_is_sealed_when_it_is_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    upgrade(f"sqlite:///{file}", "0002")
    row = {column.name: "x" for column in CHAINED[0].columns} | {
        "revision": 1, "status": "final", "amount_minor": 0, "evidence_count": 0, "partition": 0, "record_offset": 0,
    }  # fmt: skip
    with closing(sqlite3.connect(file)) as connection:
        names = ", ".join(row)
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO ledger_entries ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
        connection.commit()
    upgrade(f"sqlite:///{file}")
    found = verified(file)
    assert (found.links, found.broken) == (1, None)


def test_a_column_that_was_added_later_breaks_no_seal_and_is_sealed_itself(tmp_path: Path) -> None:
    """A grade that was kept and sealed before grades had a detail."""
    file = tmp_path / "old.db"
    upgrade(f"sqlite:///{file}", "0002")
    (grades,) = (table for table in CHAINED if table.name == "grades")
    row = {column.name: "x" for column in grades.columns if column.name != "detail"} | {
        "revision": 1, "status": "final", "partition": 0, "record_offset": 0,
    }  # fmt: skip
    with closing(sqlite3.connect(file)) as connection:
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO grades ({', '.join(row)}) VALUES ({marks})", list(row.values()))  # noqa: S608
        connection.commit()
    upgrade(f"sqlite:///{file}")
    assert verified(file).broken is None
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT detail FROM current_grades").fetchall() == [("null",)]
        connection.execute("DROP TRIGGER grades_no_update")
        connection.execute("UPDATE grades SET detail = '{}'")
        connection.commit()
    broken = verified(file).broken
    assert broken is not None
    assert (broken.table, broken.what) == ("grades", "changed")
