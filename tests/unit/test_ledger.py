"""The SQL ledger on SQLite: what comes twice changes nothing, what contradicts is kept aside, nothing is erased."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect

from kaohe.decisions import Decision
from kaohe.errors import EventError, LedgerError, SettingsError
from kaohe.payroll.ledger import Ledger, LedgerAwayError, NextOffset, Written, find_decision, shown, upgrade
from kaohe.payroll.records import (
    ALERTS_TOPIC,
    DECISIONS_TOPIC,
    GRADES_TOPIC,
    Delivery,
    Unreadable,
    current_revision,
    decode_record,
    exact_sum,
    read_record,
)
from kaohe.payroll.tables import METADATA
from tests.support.ledger_entries import alert, decision, delivery, grade, wire


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    upgrade(url)
    with Ledger(url) as opened:
        yield opened


def write(ledger: Ledger, *records: Decision) -> Written:
    return ledger.write([delivery(record, offset) for offset, record in enumerate(records)])


# --- migrations -------------------------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_tables_the_code_uses(url: str) -> None:
    upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert set(inspect(connection).get_view_names()) == {"current_entries", "current_grades"}
    engine.dispose()


def test_an_older_schema_is_upgraded_and_keeps_its_rows(url: str, tmp_path: Path) -> None:
    upgrade(url, "0001")
    with pytest.raises(LedgerError, match="has the older schema 0001; start 'kaohe payroll' once"):
        Ledger(url)
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("INSERT INTO consumer_offsets VALUES ('kaohe.decisions', 3, '', 99)")
    raw.close()
    upgrade(url)
    upgrade(url)
    with Ledger(url) as ledger:
        assert ledger.offsets() == {("kaohe.decisions", 3): NextOffset("kaohe.decisions", 3, 99)}
        assert write(ledger, decision()).entries == 1


def test_a_schema_from_a_newer_kaohe_is_refused(url: str, tmp_path: Path) -> None:
    upgrade(url)
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    attempts: list[Callable[[str], object]] = [upgrade, Ledger]
    for attempt in attempts:
        with pytest.raises(LedgerError, match="schema 9999, which this version of Kaohe does not know"):
            attempt(url)


def test_asking_a_ledger_that_is_not_there_says_so_and_makes_no_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="There is no ledger at"):
        find_decision(url, "d-1")
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_ledger_is_named(url: str, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "ledger.db").execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(LedgerError, match="holds no ledger yet"):
        Ledger(url)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("nonsense", "The database URL cannot be used"),
        ("mysql://user:secret@host/name", "not supported|cannot be used"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(bad: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as raised:
        upgrade(bad)
    assert "secret" not in str(raised.value)


def test_a_password_is_never_shown() -> None:
    assert shown("postgresql://kaohe:secret@db/ledger") == "postgresql+psycopg://kaohe:***@db/ledger"


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="unable to open database file") as raised:
        upgrade(f"sqlite:///{tmp_path}/missing/ledger.db")
    assert not isinstance(raised.value, LedgerAwayError)
    assert "\n" not in str(raised.value)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_every_record_comes_back_as_it_went_in(ledger: Ledger) -> None:
    records: list[Decision] = [
        decision(),
        decision(revision=2, status="final", points="-2.50", amount_minor=-1234, currency="CNY", owner="t-1"),
        decision(id="d-other", kind="task", due_at="2026-09-01", proposal="coaching", reverses="d-1"),
    ]
    firing, resolved, graded = alert(), alert(state="resolved", at="2026-08-12T09:05:00Z"), grade()
    written = ledger.write([*map(delivery, records), delivery(firing), delivery(resolved), delivery(graded)])
    assert written == Written(entries=3, alerts=2, grades=1)
    assert ledger.decisions(decision().id) == records[:2]
    assert ledger.decisions("d-other") == records[2:]
    assert ledger.alerts(firing.id) == [firing, resolved]
    assert ledger.grades(graded.id) == [graded]
    assert ledger.decisions("d-unknown") == []


def test_the_same_batch_twice_changes_nothing(ledger: Ledger) -> None:
    batch = [delivery(record) for record in (decision(), decision(revision=2), alert(), grade())]
    assert ledger.write(batch) == Written(entries=2, alerts=1, grades=1)
    before = ledger.counts()
    assert ledger.write(batch) == Written(repeated=4)
    assert ledger.counts() == before


def test_a_record_twice_in_one_batch_is_kept_once(ledger: Ledger) -> None:
    assert write(ledger, decision(), decision()) == Written(entries=1, repeated=1)


def test_interleaved_revisions_of_several_entries_each_keep_their_newest(ledger: Ledger) -> None:
    write(
        ledger, decision(id="d-a", revision=3), decision(id="d-b", revision=1), decision(id="d-a", revision=1)
    )
    write(ledger, decision(id="d-b", revision=2), decision(id="d-a", revision=2))
    assert [(entry.id, entry.revision) for entry in ledger.current_entries()] == [("d-a", 3), ("d-b", 2)]
    assert [entry.revision for entry in ledger.decisions("d-a")] == [1, 2, 3]


def test_more_keys_than_one_lookup_takes(ledger: Ledger) -> None:
    many = [decision(id=f"d-{n:05d}") for n in range(1201)]
    assert write(ledger, *many) == Written(entries=1201)
    assert write(ledger, *many, decision(id="d-new")) == Written(entries=1, repeated=1201)


def test_other_content_under_the_same_key_is_kept_aside_and_the_rest_goes_on(ledger: Ledger) -> None:
    write(ledger, decision())
    other = decision(points="-6")
    assert write(ledger, other, decision(revision=2)) == Written(entries=1, conflicts=1)
    (conflict,) = ledger.conflicts()
    assert (conflict.reason, conflict.entity, conflict.version) == ("content", "ledger_entries", "1")
    assert (conflict.stored, conflict.offered) == (decision(), other)
    assert ledger.decisions(other.id)[0] == decision()
    assert write(ledger, other) == Written(repeated=1), "the same contradiction again is not a new one"


def test_two_contents_in_one_batch_conflict_and_the_first_wins(ledger: Ledger) -> None:
    assert write(ledger, decision(), decision(points="-6")) == Written(entries=1, conflicts=1)
    assert [entry.points for entry in ledger.current_entries()] == ["-4"]


def test_alerts_and_grades_conflict_as_well(ledger: Ledger) -> None:
    ledger.write([delivery(alert()), delivery(grade())])
    written = ledger.write([delivery(alert(severity="info")), delivery(grade(grade="B"))])
    assert written == Written(conflicts=2)
    assert {conflict.entity for conflict in ledger.conflicts()} == {"alerts", "grades"}


@pytest.mark.parametrize("batches", [1, 2])
def test_a_provisional_revision_after_the_final_one_is_a_conflict(ledger: Ledger, batches: int) -> None:
    final, late = decision(revision=2, status="final"), decision(revision=3, points="-8")
    together = batches == 1
    written = write(ledger, final, late) if together else write(ledger, final) + write(ledger, late)
    assert written == Written(entries=1, conflicts=1)
    assert ledger.conflicts()[0].reason == "provisional_after_final"
    assert ledger.current_entries() == [final]


def test_a_final_revision_that_comes_after_a_higher_provisional_one_counts_all_the_same(
    ledger: Ledger,
) -> None:
    high, final = decision(revision=3, points="-8"), decision(revision=2, status="final")
    assert write(ledger, high) + write(ledger, final) == Written(entries=2, conflicts=1)
    (conflict,) = ledger.conflicts()
    assert (conflict.stored, conflict.offered) == (final, high)
    assert ledger.current_entries() == [final]
    assert write(ledger, high, final) == Written(repeated=2)


def test_a_higher_final_revision_counts_instead_of_a_lower_one(ledger: Ledger) -> None:
    finals = [decision(revision=n, status="final", points=f"-{n}") for n in (2, 4)]
    assert write(ledger, *finals, decision(revision=1)) == Written(entries=3)
    assert ledger.current_entries() == [finals[1]]


def test_rows_are_never_updated_deleted_or_replaced(ledger: Ledger, tmp_path: Path) -> None:
    write(ledger, decision(), decision(points="-6"))
    ledger.write([delivery(alert()), delivery(grade())])
    raw = sqlite3.connect(tmp_path / "ledger.db")
    for table, column in (
        ("ledger_entries", "points"),
        ("alerts", "owner"),
        ("grades", "score"),
        ("conflicts", "reason"),
    ):
        everything = f"SELECT * FROM {table}"  # noqa: S608
        before = raw.execute(everything).fetchall()
        assert len(before) == 1
        for statement in (f"UPDATE {table} SET {column} = '0'", f"DELETE FROM {table}"):  # noqa: S608
            with pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"):
                raw.execute(statement)
        names = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
        values = ", ".join("'0'" if name == column else name for name in names)
        raw.execute(f"INSERT OR REPLACE INTO {table} SELECT {values} FROM {table}")  # noqa: S608
        assert raw.execute(everything).fetchall() == before
    raw.close()


# --- offsets ----------------------------------------------------------------------------------------------------------


def test_offsets_go_forward_only_within_one_log(ledger: Ledger) -> None:
    for next_offset in (10, 7):
        ledger.write([], offsets=[NextOffset(DECISIONS_TOPIC, 0, next_offset, "log-1")])
    assert ledger.offsets() == {(DECISIONS_TOPIC, 0): NextOffset(DECISIONS_TOPIC, 0, 10, "log-1")}
    ledger.write([], offsets=[NextOffset(DECISIONS_TOPIC, 0, 2, "log-2")])
    assert ledger.offsets()[DECISIONS_TOPIC, 0].next_offset == 2
    ledger.forget_offset(DECISIONS_TOPIC, 0)
    assert ledger.offsets() == {}


def test_a_batch_that_fails_keeps_neither_rows_nor_offsets(ledger: Ledger) -> None:
    unfit = decision(id="d-unfit", amount_minor=2**70)
    with pytest.raises((LedgerError, OverflowError)):
        ledger.write([delivery(decision()), delivery(unfit)], offsets=[NextOffset(DECISIONS_TOPIC, 0, 2)])
    assert ledger.offsets() == {}
    assert ledger.counts()["ledger_entries"] == 0


def test_a_locked_database_is_away_and_nothing_is_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaohe.payroll.ledger.SQLITE_WAIT_S", 0.05)
    upgrade(url)
    with Ledger(url) as ledger:
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerAwayError, match="locked"):
            write(ledger, decision())
        other.execute("ROLLBACK")
        other.close()
        assert write(ledger, decision()) == Written(entries=1)


# --- exactness --------------------------------------------------------------------------------------------------------


def test_points_are_summed_exactly(ledger: Ledger) -> None:
    write(
        ledger,
        decision(id="d-1", points="0.1", status="final"),
        decision(id="d-2", points="0.2"),
        decision(id="d-3", points="100000000000000000000.000000000000000001"),
        decision(id="d-4", points="7", subject="a-18"),
        decision(id="d-5", points="7", period="2026-09"),
        decision(id="d-6", points="7", level="team"),
    )
    balance = ledger.balance("a-17", "2026-08")
    assert str(balance.points) == "100000000000000000000.300000000000000001"
    assert (balance.final_points, balance.entries) == (Decimal("0.1"), 3)
    assert ledger.decisions("d-1")[0].points == "0.1"


def test_a_balance_counts_each_entry_once_and_adds_money_per_currency(ledger: Ledger) -> None:
    write(
        ledger,
        decision(id="d-1", points="-2", amount_minor=-1000, currency="CNY"),
        decision(id="d-1", revision=2, points="-4", amount_minor=-(2**53) - 1, currency="CNY"),
        decision(id="d-2", points="1", amount_minor=500, currency="EUR", pack="front-desk"),
    )
    balance = ledger.balance("a-17", "2026-08")
    assert (balance.points, balance.amounts_minor) == (Decimal(-3), {"CNY": -(2**53) - 1, "EUR": 500})
    assert ledger.balance("a-17", "2026-08", pack="front-desk").points == Decimal(1)
    assert ledger.balance("nobody", "2026-08").points == 0


def test_the_sum_never_rounds() -> None:
    assert exact_sum(["0.1", "0.2"]) == Decimal("0.3")
    assert exact_sum([]) == 0
    assert str(exact_sum(["999999999999999999999999", "0.000000000000000000000001"])) == (
        "999999999999999999999999.000000000000000000000001"
    )


# --- reading records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"points": "1e3"}, "points is not a decimal"),
        ({"points": "NaN"}, "points is not a decimal"),
        ({"points": "０.5"}, "points is not a decimal"),
        ({"points": ""}, "points is not a decimal"),
        ({"amount_minor": 2**63}, "amount_minor is beyond 64 bits"),
        ({"revision": -1}, "revision is negative"),
        ({"subject": "a\0b"}, "subject holds a NUL"),
        ({"id": ""}, "id is empty"),
        ({"id": "d" * 201}, "id is longer than 200"),
    ],
)
def test_what_no_database_could_hold_exactly_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(EventError, match=reason) as raised:
        decode_record(DECISIONS_TOPIC, wire(decision(**changes)))
    assert raised.value.code == "unfit"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"\xff{", "malformed"),
        (b'{"a":' * 100_000, "malformed"),
        (b"{}", "invalid"),
    ],
)
def test_an_unreadable_record_has_a_code_and_a_reason(raw: bytes | None, code: str) -> None:
    read = read_record(DECISIONS_TOPIC, 1, 2, raw)
    assert isinstance(read, Unreadable)
    assert (read.code, read.partition, read.offset) == (code, 1, 2)
    assert read.reason


def test_a_rejected_record_is_kept_once_and_masked(ledger: Ledger) -> None:
    bad = read_record(DECISIONS_TOPIC, 0, 5, b'{"customer": "13800138000", "x": "\0"}')
    assert isinstance(bad, Unreadable)
    assert ledger.write([], rejected=[bad]) == Written(rejected=1)
    assert ledger.write([], rejected=[bad]) == Written(repeated=1)
    (kept,) = ledger.rejected()
    assert kept == bad
    assert "13800138000" not in kept.raw


# --- any order --------------------------------------------------------------------------------------------------------

_HISTORIES = st.lists(
    st.tuples(st.sampled_from(["d-a", "d-b", "d-c"]), st.integers(0, 5)), unique=True, min_size=1, max_size=12
).flatmap(
    lambda keys: st.tuples(
        *(
            st.builds(
                lambda key, status, points: decision(
                    id=key[0], revision=key[1], status=status, points=str(points)
                ),
                st.just(key),
                st.sampled_from(["provisional", "provisional", "final"]),
                st.integers(-5, 5),
            )
            for key in keys
        )
    )
)


@st.composite
def _deliveries(draw: st.DrawFn) -> tuple[Sequence[Decision], list[list[list[Decision]]]]:
    """A history and two ways of delivering it: any order, any repetition, any batches, nothing left out."""
    history = draw(_HISTORIES)
    ways = []
    for _ in range(2):
        again = draw(st.lists(st.sampled_from(history), max_size=8))
        order = draw(st.permutations([*history, *again]))
        cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)))
        bounds = [0, *cuts, len(order)]
        ways.append([list(order[start:end]) for start, end in pairwise(bounds)])
    return history, ways


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: hundreds of migrations would take longer than the test."""
    file = tmp_path_factory.mktemp("empty") / "ledger.db"
    upgrade(f"sqlite:///{file}")
    return file


@settings(max_examples=100, deadline=None)
@given(example=_deliveries())
def test_any_order_and_repetition_of_deliveries_gives_the_same_current_entries(
    example: tuple[Sequence[Decision], list[list[list[Decision]]]],
    empty_ledger: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    history, ways = example
    expected = [
        current_revision([entry for entry in history if entry.id == entry_id])
        for entry_id in sorted({entry.id for entry in history})
    ]
    seen = []
    for way in ways:
        file = tmp_path_factory.mktemp("order") / "ledger.db"
        shutil.copy(empty_ledger, file)
        with Ledger(f"sqlite:///{file}") as ledger:
            for batch in way:
                write(ledger, *batch)
            assert ledger.current_entries() == expected
            seen.append(sorted((c.reason, c.id, c.version) for c in ledger.conflicts()))
    assert seen[0] == seen[1], "the conflicts found do not depend on the order either"


def test_a_delivery_knows_its_topic() -> None:
    assert msgspec.structs.asdict(delivery(decision(), 4, 1))["topic"] == DECISIONS_TOPIC
    assert isinstance(read_record(DECISIONS_TOPIC, 0, 0, wire(decision())), Delivery)


def test_a_record_of_a_shadow_is_passed_over_and_one_without_the_mark_is_not() -> None:
    assert read_record(DECISIONS_TOPIC, 0, 0, wire(decision(shadow=True))) is None
    assert read_record(GRADES_TOPIC, 0, 0, wire(grade(shadow=True))) is None
    assert read_record(ALERTS_TOPIC, 0, 0, wire(alert(shadow=True))) is None
    old = json.loads(wire(decision()))
    del old["shadow"]
    assert isinstance(read_record(DECISIONS_TOPIC, 0, 0, json.dumps(old).encode()), Delivery)


def test_a_withdrawn_grade_counts_until_there_is_a_final_one(ledger: Ledger) -> None:
    told = [
        grade(revision=1, status="provisional"), grade(revision=2, status="withdrawn"),
        grade(revision=3, status="final"),
    ]  # fmt: skip
    for offset, one in enumerate(told):
        assert ledger.write([delivery(one, offset)]).conflicts == 0
        assert ledger.current_grades() == [one]
