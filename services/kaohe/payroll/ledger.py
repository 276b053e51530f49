"""The ledger in SQL: every revision of every decision, and the alerts and grades beside it, kept for good.

Theory of operation: the tables only grow. A record is inserted under the key that makes it unique (id and revision, or
id and state for an alert), so a delivery that comes again changes nothing. A record that comes again under the same
key with *other* content, and a provisional revision numbered above a final one, are conflicts: both contents are kept
in ``conflicts``, counted, and the rest of the batch goes on. The database itself refuses UPDATE and DELETE.

The offsets of the consumer live in the same database and are written in the same transaction as the rows, so what has
been read and what has been kept can never disagree, whatever crashes in between.

Points are decimal text and are summed as decimals; a database's floating point never sees them. SQLite is the default,
PostgreSQL (``postgresql+psycopg://user:password@host/database``) is for earnest; nothing else is supported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    column,
    create_engine,
    delete,
    event,
    func,
    inspect,
    make_url,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.expression import table as view_of

from kaohe.core.calendars import DAY_MS, to_ms
from kaohe.core.pay import PayFact
from kaohe.decisions import ENCODER, Alert, Decision, Grade
from kaohe.errors import LedgerError, SettingsError
from kaohe.events import encode, type_of
from kaohe.payroll import chain, settling
from kaohe.payroll.records import Delivery, PayDelivery, Record, Unreadable, exact_sum, kept_fields
from kaohe.payroll.tables import (
    CHAINED,
    AlertRow,
    Base,
    ConflictRow,
    GradeRow,
    LedgerEntryRow,
    OffsetRow,
    PayEntryRow,
    PayFactRow,
    PayPublishedRow,
    PayStateRow,
    RejectedRow,
    SettlementEventRow,
)

LOOKUP_KEYS_MAX = 500
RACES_MAX = 5
SQLITE_WAIT_S = 10.0
# A connection whose other end vanished without a word is noticed after some 20 seconds.
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "tcp_user_timeout": 20_000,
}
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6B616F6865
"""The advisory lock that keeps two processes from migrating one PostgreSQL database at once."""
_CHAIN_LOCK = 0x6B616F6866
"""The advisory lock of whoever adds links to the hash chain of a PostgreSQL database: it has one order."""
_WRITES = "kaohe_writes"
_NO_TRANSACTION = "kaohe_no_transaction"


class LedgerAwayError(LedgerError):
    """The database does not answer, or is locked by somebody else; trying again may help."""


COUNTED = (
    "ledger_entries", "current_entries", "alerts", "grades", "conflicts", "rejected", "pay_facts", "pay_batches",
    "pay_statements", "pay_entries", "ledger_chain",
)  # fmt: skip


class NextOffset(msgspec.Struct, frozen=True):
    """The next offset to read of a partition. ``log_id`` names the log, so that a topic made anew is noticed."""

    topic: str
    partition: int
    next_offset: int
    log_id: str = ""


class Written(msgspec.Struct, frozen=True):
    """What a batch came to. ``repeated`` were there already with the same content.

    ``pay`` are events of pay, ``settled`` the settlement events that were carried out.
    """

    entries: int = 0
    alerts: int = 0
    grades: int = 0
    repeated: int = 0
    conflicts: int = 0
    rejected: int = 0
    pay: int = 0
    settled: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(*(getattr(self, field) + getattr(other, field) for field in self.__struct_fields__))


class Conflict(msgspec.Struct, frozen=True):
    """A record the ledger did not take. ``reason`` is ``content`` or ``provisional_after_final``."""

    reason: str
    entity: str
    id: str
    version: str
    stored: Record
    offered: Record


class Compared(msgspec.Struct, frozen=True):
    """Records of the log beside the ledger: how many rows came from them, by table, and what is not there the same."""

    origins: dict[str, int]
    differing: list[str]


class Balance(msgspec.Struct, frozen=True):
    """The sum of a subject's current entries in a period. Points are exact, money is minor units per currency."""

    subject: str
    period: str
    entries: int
    points: Decimal
    final_points: Decimal
    provisional_points: Decimal
    amounts_minor: dict[str, int]


class _Entity(msgspec.Struct, frozen=True):
    """How one kind of record lies in its table."""

    name: str
    row: type[Base]
    record: type[Decision | Alert | Grade]
    version: str

    @property
    def table(self) -> Table:
        return cast(Table, self.row.__table__)

    def key(self, record: Record) -> _Key:
        return record.id, getattr(record, self.version)


_Key = tuple[str, int | str]

_ENTITIES = (
    _Entity("entries", LedgerEntryRow, Decision, "revision"),
    _Entity("alerts", AlertRow, Alert, "state"),
    _Entity("grades", GradeRow, Grade, "revision"),
)
_BY_RECORD: dict[type[Any], _Entity] = {entity.record: entity for entity in _ENTITIES}
_JSON_FIELDS = frozenset(
    ("facts", "parameters", "evidence", "arithmetic", "explanation", "title", "response", "entries", "detail")
)


class _RacedError(Exception):
    """Another writer inserted one of our keys between our look and our insert; the batch is done anew."""


# --- opening ----------------------------------------------------------------------------------------------------------


def parse_url(database_url: str) -> URL:
    """The URL of a database file or of PostgreSQL. SettingsError when it is neither."""
    try:
        url = make_url(database_url)
        dialect = url.get_dialect().name
    except (sql_errors.ArgumentError, sql_errors.NoSuchModuleError, ValueError, ImportError):
        # The text is not repeated: it may hold a password in a place where nothing could hide it.
        raise SettingsError(
            "The database URL cannot be used; give sqlite:///file.db or postgresql+psycopg://user:password@host/name."
        ) from None
    if dialect == "sqlite":
        if not url.database or url.database == ":memory:":
            raise SettingsError(
                "The database URL names no file; a ledger must outlive the program: sqlite:///file.db."
            )
    elif dialect == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    else:
        raise SettingsError(f"The database '{dialect}' is not supported; use sqlite or postgresql.")
    return url


def shown(database_url: str) -> str:
    """The URL for people to read: without its password."""
    return parse_url(database_url).render_as_string(hide_password=True)


def _open_engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(url, pool_pre_ping=True, connect_args=_POSTGRESQL)
        except ImportError:
            raise SettingsError(
                "PostgreSQL needs the driver psycopg; install it with: pip install 'kaohe[postgres]'."
            ) from None
    engine = create_engine(url, connect_args={"timeout": SQLITE_WAIT_S})
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    # The driver's own guessing when to begin would leave reads and schema changes outside of our transactions.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(_NO_TRANSACTION, False):
        # A writer takes the lock at once: a reader that becomes a writer later can fail half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES, False) else "BEGIN")


@contextmanager
def _explained(url: URL) -> Iterator[None]:
    """Turn the database's errors into one sentence. LedgerAwayError when trying again may help, else LedgerError."""
    name = url.render_as_string(hide_password=True)
    try:
        yield
    except (sql_errors.OperationalError, sql_errors.InterfaceError, sql_errors.TimeoutError) as error:
        reason = _first_line(error)
        if url.get_backend_name() == "sqlite" and "locked" not in reason:
            raise LedgerError(f"The ledger's database {name} cannot be used: {reason}.") from error
        raise LedgerAwayError(f"The ledger's database {name} does not answer ({reason}).") from error
    except sql_errors.DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerAwayError(
                f"The ledger's database {name} went away ({_first_line(error)})."
            ) from error
        raise LedgerError(f"The ledger's database {name} refused: {_first_line(error)}.") from error


def _first_line(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def upgrade(database_url: str, revision: str = "head") -> None:
    """Create the ledger's schema or bring it up to date, in one transaction. Safe to call at every start.

    Raises SettingsError for a bad URL, LedgerAwayError when the database does not answer, and LedgerError when it was
    made by a newer Kaohe.
    """
    url = parse_url(database_url)
    engine = _open_engine(url)
    try:
        with _explained(url):
            if url.get_backend_name() == "sqlite":
                _use_write_ahead_log(engine)
            with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
                if url.get_backend_name() == "postgresql":
                    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                config = _alembic(connection)
                _refuse_newer(connection, url)
                command.upgrade(config, revision)
    finally:
        engine.dispose()


def _use_write_ahead_log(engine: Engine) -> None:
    # Readers (explain, a dashboard) then never wait for the consumer. The file remembers it. Not inside a transaction.
    with engine.connect().execution_options(**{_NO_TRANSACTION: True}) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _schema_revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _known_revisions() -> list[str]:
    """The schema's revisions that this Kaohe knows, newest first."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def _refuse_newer(connection: Connection, url: URL) -> None:
    found = _schema_revision(connection)
    if found and found not in _known_revisions():
        raise LedgerError(
            f"The ledger in {url.render_as_string(hide_password=True)} has the schema {found}, which this version of "
            "Kaohe does not know; use the newer Kaohe that made it."
        )


# --- the ledger -------------------------------------------------------------------------------------------------------

_T = TypeVar("_T")


class Ledger:
    """An open ledger. Raises LedgerError when there is none at the URL, or when its schema is not this Kaohe's.

    Every method raises LedgerAwayError when the database does not answer.
    """

    def __init__(self, database_url: str) -> None:
        self._url = parse_url(database_url)
        self.name = self._url.render_as_string(hide_password=True)
        if self._url.get_backend_name() == "sqlite" and not Path(str(self._url.database)).is_file():
            raise LedgerError(f"There is no ledger at {self.name}; 'kaohe payroll' makes it.")
        self._engine = _open_engine(self._url)
        try:
            self._check_schema()
        except BaseException:
            self._engine.dispose()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _check_schema(self) -> None:
        with _explained(self._url), self._engine.connect() as connection:
            _refuse_newer(connection, self._url)
            found = _schema_revision(connection)
        wanted = _known_revisions()[0]
        if found != wanted:
            state = f"has the older schema {found}" if found else "holds no ledger yet"
            raise LedgerError(
                f"The database {self.name} {state}; start 'kaohe payroll' once to bring it to {wanted}."
            )

    def _insert(self, table: Table) -> Any:
        return (postgresql_insert if self._engine.dialect.name == "postgresql" else sqlite_insert)(table)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with (
            _explained(self._url),
            self._engine.connect().execution_options(**{_WRITES: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def write(
        self,
        deliveries: Sequence[Delivery],
        *,
        rejected: Sequence[Unreadable] = (),
        offsets: Sequence[NextOffset] = (),
        pay: Sequence[PayDelivery] = (),
    ) -> Written:
        """Keep a batch and the offsets behind it, in one transaction. What is there already changes nothing.

        Settlements whose turn has come by it are carried out in the same transaction. The order of ``deliveries`` is
        the order of the log. Raises LedgerAwayError when the database does not answer;
        then nothing of the batch is kept.
        """
        for _ in range(RACES_MAX):
            try:
                with self._writing() as connection:
                    return self._write(connection, deliveries, rejected, offsets, pay)
            except _RacedError:
                continue
        raise LedgerAwayError(
            f"The ledger in {self.name} is written by others all the time; stop the other writers."
        )

    def _write(
        self,
        connection: Connection,
        deliveries: Sequence[Delivery],
        rejected: Sequence[Unreadable],
        offsets: Sequence[NextOffset],
        pay: Sequence[PayDelivery],
    ) -> Written:
        recorded_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        written = Written()
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_CHAIN_LOCK)))
        for entity in _ENTITIES:
            ours = [delivery for delivery in deliveries if type(delivery.record) is entity.record]
            if ours:
                written += self._write_entity(connection, entity, ours, recorded_at)
        if rejected:
            rows = [
                {
                    "topic": bad.topic,
                    "partition": bad.partition,
                    "record_offset": bad.offset,
                    "code": bad.code,
                    "reason": bad.reason.replace("\0", "\\x00"),
                    "raw": bad.raw,
                    "recorded_at": recorded_at,
                }
                for bad in rejected
            ]
            table = cast(Table, RejectedRow.__table__)
            kept = self._insert_new(
                connection, table, rows, (table.c.topic, table.c.partition, table.c.record_offset)
            )
            written += Written(rejected=len(kept), repeated=len(rows) - len(kept))
        if pay:
            written += self._write_pay(connection, pay, recorded_at)
        if offsets:
            self._write_offsets(connection, offsets)

        def insert(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
            key = tuple(table.c[one.name] for one in table.primary_key.columns)
            if rows and len(self._insert_new(connection, table, rows, key)) != len(rows):
                raise _RacedError

        return written + Written(settled=settling.advance(connection, insert, recorded_at))

    def _write_pay(self, connection: Connection, pay: Sequence[PayDelivery], recorded_at: str) -> Written:
        facts: dict[str, dict[str, Any]] = {}
        events: dict[str, dict[str, Any]] = {}
        for one in pay:
            row = {
                "event_key": one.key, "topic": one.topic, "partition": one.partition, "record_offset": one.offset,
                "recorded_at": recorded_at,
            }  # fmt: skip
            if one.fact is not None:
                document = ENCODER.encode(one.fact).decode()
                facts.setdefault(one.key, row | {"agent": one.fact.agent, "document": document})
            else:
                event: Any = one.event
                at = event.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                more = {"type": type_of(event), "at": at, "document": encode(event).decode()}
                events.setdefault(one.key, row | more)
        kept = 0
        for source, rows in ((PayFactRow, facts), (SettlementEventRow, events)):
            table = cast(Table, source.__table__)
            if rows:
                kept += len(self._insert_new(connection, table, list(rows.values()), (table.c.event_key,)))
        return Written(pay=kept, repeated=len(pay) - kept)

    def _write_entity(
        self, connection: Connection, entity: _Entity, deliveries: Sequence[Delivery], recorded_at: str
    ) -> Written:
        judged = _Judged(entity)
        keys = {entity.key(delivery.record) for delivery in deliveries}
        judged.stored = {entity.key(record): record for record in _stored(connection, entity, keys)}
        if entity.record is not Alert:
            judged.finals = _lowest_finals(
                connection, entity, {delivery.record.id for delivery in deliveries}
            )
        for delivery in deliveries:
            judged.judge(delivery)
        table = entity.table
        if judged.new:
            rows = [_row(entity, delivery, recorded_at) for delivery in judged.new]
            kept = self._insert_new(connection, table, rows, (table.c.id, table.c[entity.version]))
            if len(kept) != len(rows):
                raise _RacedError
        judged.conflicts.extend(_overtaken(connection, entity, judged.new))
        conflicts = self._write_conflicts(connection, entity, judged.conflicts, recorded_at)
        counts = {
            entity.name: len(judged.new),
            "repeated": judged.repeated + len(judged.conflicts) - conflicts,
        }
        return Written(conflicts=conflicts, **counts)

    def _insert_new(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        key: tuple[ColumnElement[Any], ...],
    ) -> Sequence[Any]:
        """Insert the rows that are not there yet, with their links in the chain; the keys of those."""
        statement = self._insert(table).on_conflict_do_nothing(index_elements=list(key)).returning(*key)
        kept = connection.execute(statement, list(rows)).all()
        if table in CHAINED:
            new = {tuple(one) for one in kept}
            names = [column.name for column in key]
            chain.extend(
                connection, table, [row for row in rows if tuple(row[name] for name in names) in new]
            )
        return kept

    def _write_conflicts(
        self, connection: Connection, entity: _Entity, found: Sequence[_Found], recorded_at: str
    ) -> int:
        rows: dict[str, dict[str, Any]] = {}
        for conflict in found:
            row = _conflict_row(entity, conflict, recorded_at)
            rows.setdefault(row["digest"], row)
        if not rows:
            return 0
        table = cast(Table, ConflictRow.__table__)
        return len(self._insert_new(connection, table, list(rows.values()), (table.c.digest,)))

    def _write_offsets(self, connection: Connection, offsets: Sequence[NextOffset]) -> None:
        table = cast(Table, OffsetRow.__table__)
        statement = self._insert(table)
        # Only forward: a consumer that lost its partitions but does not know yet must not turn the clock back.
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.topic, table.c.partition],
            set_={"log_id": statement.excluded.log_id, "next_offset": statement.excluded.next_offset},
            where=or_(
                table.c.log_id != statement.excluded.log_id,
                table.c.next_offset < statement.excluded.next_offset,
            ),
        )
        connection.execute(statement, [msgspec.structs.asdict(offset) for offset in offsets])

    # --- offsets ------------------------------------------------------------------------------------------------------

    def offsets(self) -> dict[tuple[str, int], NextOffset]:
        """Where to read on, by topic and partition. A partition that was never read is missing."""
        rows = self._read(lambda connection: connection.execute(select(OffsetRow.__table__)).all())
        return {
            (row.topic, row.partition): NextOffset(row.topic, row.partition, row.next_offset, row.log_id)
            for row in rows
        }

    def forget_offset(self, topic: str, partition: int) -> None:
        """Read a partition anew from its beginning: its log is another one than the one that was read."""
        table = cast(Table, OffsetRow.__table__)
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.topic == topic, table.c.partition == partition))

    # --- questions ----------------------------------------------------------------------------------------------------

    def _read(self, query: Callable[[Connection], _T]) -> _T:
        with _explained(self._url), self._engine.connect() as connection:
            return query(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only asks, and that sees one state of the ledger."""
        level = {"isolation_level": "REPEATABLE READ"} if self._engine.dialect.name == "postgresql" else {}
        with _explained(self._url), self._engine.connect().execution_options(**level) as connection:
            yield connection

    def unpublished(self) -> list[tuple[tuple[str, str], list[settling.Message]]]:
        """The states of batches that were not sent to ``kaohe.settlements`` yet, each with what is to be sent."""
        with self.reading() as connection:
            return [(one, settling.messages_of(connection, *one)) for one in settling.unpublished(connection)]

    def note_published(self, sent: Sequence[tuple[str, str]]) -> None:
        """Remember the states of batches that the broker has acknowledged."""
        recorded_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        table = cast(Table, PayPublishedRow.__table__)
        rows = [{"batch": batch, "state": state, "recorded_at": recorded_at} for batch, state in sent]
        with self._writing() as connection:
            self._insert_new(connection, table, rows, (table.c.batch, table.c.state))

    def decisions(self, entry_id: str) -> list[Decision]:
        """Every revision of one entry, oldest first; empty when the ledger does not know the id."""
        return cast(list[Decision], self._records(_BY_RECORD[Decision], entry_id))

    def alerts(self, entry_id: str) -> list[Alert]:
        """The states of one alert (firing, then resolved); empty when the ledger does not know the id."""
        return cast(list[Alert], self._records(_BY_RECORD[Alert], entry_id))

    def all_alerts(
        self, limit: int = 1_000_000, *, incident: str | None = None, rule: str | None = None
    ) -> list[Alert]:
        """Every change of every alert (or of those about an incident, or of a rule), in the order of their moments."""
        assert limit > 0
        table = _BY_RECORD[Alert].table
        query = select(table).order_by(table.c.at, table.c.id, table.c.state).limit(limit)
        if incident is not None:
            query = query.where(table.c.incident == incident)
        if rule is not None:
            query = query.where(table.c.rule == rule)
        rows = self._read(lambda connection: connection.execute(query).mappings().all())
        return [cast(Alert, _record(_BY_RECORD[Alert], row)) for row in rows]

    def grades(self, entry_id: str) -> list[Grade]:
        """Every revision of one grade, oldest first; empty when the ledger does not know the id."""
        return cast(list[Grade], self._records(_BY_RECORD[Grade], entry_id))

    def _records(self, entity: _Entity, entry_id: str) -> list[Record]:
        table = entity.table
        query = select(table).where(table.c.id == entry_id).order_by(table.c[entity.version])
        return [
            _record(entity, row)
            for row in self._read(lambda connection: connection.execute(query).mappings().all())
        ]

    def compare(self, deliveries: Sequence[Delivery]) -> Compared:
        """Whether the ledger holds these records with the same content; a known conflict does not differ."""
        origins: dict[str, int] = {}
        differing: list[str] = []
        with self.reading() as connection:
            for entity in _ENTITIES:
                ours = {
                    (one.topic, one.partition, one.offset): one
                    for one in deliveries
                    if type(one.record) is entity.record
                }
                table = entity.table
                places = tuple_(table.c.topic, table.c.partition, table.c.record_offset)
                for chunk in _chunks(ours):
                    rows = connection.execute(select(func.count()).where(places.in_(chunk))).scalar_one()
                    origins[table.name] = origins.get(table.name, 0) + rows
                stored = {
                    entity.key(one): one
                    for one in _stored(connection, entity, {entity.key(one.record) for one in ours.values()})
                }
                suspects = [one for one in ours.values() if stored.get(entity.key(one.record)) != one.record]
                known = self._known_conflicts(connection, entity, suspects)
                differing += [
                    f"{one.topic}[{one.partition}] offset {one.offset}: {one.record.id} is not so in the ledger"
                    for one in suspects
                    if ENCODER.encode(one.record).decode() not in known
                ]
        return Compared(origins, differing)

    def _known_conflicts(
        self, connection: Connection, entity: _Entity, suspects: Sequence[Delivery]
    ) -> set[str]:
        table = cast(Table, ConflictRow.__table__)
        found: set[str] = set()
        for chunk in _chunks({one.record.id for one in suspects}):
            query = select(table.c.offered).where(table.c.entity == entity.table.name, table.c.id.in_(chunk))
            found.update(connection.execute(query).scalars())
        return found

    def current_entries(
        self,
        *,
        subject: str | None = None,
        period: str | None = None,
        rule: str | None = None,
        incident: str | None = None,
        limit: int = 1_000_000,
    ) -> list[Decision]:
        """The revision that counts of every entry (or of those asked for), in the order of their ids."""
        assert limit > 0
        table = cast(Table, LedgerEntryRow.__table__)
        current = view_of("current_entries", *(column(stored.name) for stored in table.columns))
        query = select(current).order_by(current.c.id).limit(limit)
        named = (("subject", subject), ("period", period), ("rule", rule), ("incident", incident))
        for name, wanted in named:
            if wanted is not None:
                query = query.where(current.c[name] == wanted)
        rows = self._read(lambda connection: connection.execute(query).mappings().all())
        return [cast(Decision, _record(_BY_RECORD[Decision], row)) for row in rows]

    def corrected_tasks(self) -> set[str]:
        """The ids of the tasks that were final and got a further final revision: their figures were corrected."""
        table = cast(Table, LedgerEntryRow.__table__)
        query = select(table.c.id).where(table.c.kind == "task", table.c.status == "final")
        query = query.group_by(table.c.id).having(func.count() > 1)
        return set(self._read(lambda connection: connection.execute(query).scalars().all()))

    def pay_entries(
        self, *, agent: str = "", period: str = "", limit: int = 1_000_000
    ) -> list[dict[str, Any]]:
        """The entries of pay in batches that are booked, by person, period and component."""
        assert limit > 0
        table, states = cast(Table, PayEntryRow.__table__), cast(Table, PayStateRow.__table__)
        booked = select(states.c.batch).where(states.c.state == "approved")
        query = select(table).where(table.c.batch.in_(booked)).limit(limit)
        query = query.order_by(table.c.agent, table.c.effective_period, table.c.component, table.c.key)
        if agent:
            query = query.where(table.c.agent == agent)
        if period:
            query = query.where(table.c.effective_period == period)
        rows = self._read(lambda connection: connection.execute(query).mappings().all())
        return [dict(row) for row in rows]

    def current_grades(
        self, *, subject: str | None = None, period: str | None = None, limit: int = 100_000
    ) -> list[Grade]:
        """The revision that counts of every grade (or of those asked for), in the order of their ids."""
        assert limit > 0
        table = _BY_RECORD[Grade].table
        current = view_of("current_grades", *(column(stored.name) for stored in table.columns))
        query = select(current).order_by(current.c.id).limit(limit)
        for name, wanted in (("subject", subject), ("period", period)):
            if wanted is not None:
                query = query.where(current.c[name] == wanted)
        rows = self._read(lambda connection: connection.execute(query).mappings().all())
        return [cast(Grade, _record(_BY_RECORD[Grade], row)) for row in rows]

    def roster(self, first: date, after: date) -> dict[str, tuple[str, ...]]:
        """Who was there on some day from ``first`` to the one before ``after``, with the packs in force (none: all).

        By the roster entries of the log up to the end of ``after``, of each person the one with the latest time.
        """
        table = cast(Table, PayFactRow.__table__)
        query = select(table.c.document).order_by(table.c.agent, table.c.record_offset)
        end_ms = to_ms(datetime(after.year, after.month, after.day, tzinfo=UTC)) + DAY_MS
        newest: dict[str, PayFact] = {}
        for document in self._read(lambda connection: connection.execute(query).scalars().all()):
            fact = msgspec.json.decode(document, type=PayFact)
            known = newest.get(fact.agent)
            if not fact.period and fact.at_ms < end_ms and (known is None or known.at_ms <= fact.at_ms):
                newest[fact.agent] = fact
        return {
            agent: fact.packs
            for agent, fact in sorted(newest.items())
            if not fact.left_on or fact.left_on >= first.isoformat()
        }

    def balance(self, subject: str, period: str, *, level: str = "agent", pack: str | None = None) -> Balance:
        """The exact sum of a subject's current entries in a period (of one pack, or of all)."""
        entries = [
            entry
            for entry in self.current_entries(subject=subject, period=period)
            if entry.level == level and (pack is None or entry.pack == pack)
        ]
        amounts: dict[str, int] = {}
        for entry in entries:
            if entry.amount_minor:
                amounts[entry.currency] = amounts.get(entry.currency, 0) + entry.amount_minor
        final = exact_sum([entry.points for entry in entries if entry.status == "final"])
        provisional = exact_sum([entry.points for entry in entries if entry.status == "provisional"])
        return Balance(
            subject=subject,
            period=period,
            entries=len(entries),
            points=exact_sum([str(final), str(provisional)]),
            final_points=final,
            provisional_points=provisional,
            amounts_minor=amounts,
        )

    def conflicts(self, limit: int = 1000) -> list[Conflict]:
        """What the ledger did not take, and what it holds instead; at most ``limit``, in the order of ids."""
        assert limit > 0
        table = cast(Table, ConflictRow.__table__)
        query = select(table).order_by(table.c.id, table.c.version, table.c.digest).limit(limit)
        entities = {entity.table.name: entity for entity in _ENTITIES}
        return [
            Conflict(
                reason=row.reason,
                entity=row.entity,
                id=row.id,
                version=row.version,
                stored=msgspec.json.decode(row.stored, type=entities[row.entity].record),
                offered=msgspec.json.decode(row.offered, type=entities[row.entity].record),
            )
            for row in self._read(lambda connection: connection.execute(query).all())
        ]

    def rejected(self, limit: int = 1000) -> list[Unreadable]:
        """The records that could not be read; at most ``limit``, in the order of the log."""
        assert limit > 0
        table = cast(Table, RejectedRow.__table__)
        query = select(table).order_by(table.c.topic, table.c.partition, table.c.record_offset).limit(limit)
        return [
            Unreadable(row.topic, row.partition, row.record_offset, row.code, row.reason, row.raw)
            for row in self._read(lambda connection: connection.execute(query).all())
        ]

    def counts(self) -> dict[str, int]:
        """How many rows each table (and the view of current entries) has."""

        def query(connection: Connection) -> dict[str, int]:
            return {
                name: connection.execute(select(func.count()).select_from(view_of(name))).scalar_one()
                for name in COUNTED
            }

        return self._read(query)


def find_decision(database_url: str, entry_id: str) -> list[Decision]:
    """Every revision of a decision in the ledger at ``database_url``, oldest first; empty when it is not there."""
    with Ledger(database_url) as ledger:
        return ledger.decisions(entry_id)


# --- judging a batch --------------------------------------------------------------------------------------------------


class _Found(msgspec.Struct, frozen=True):
    """A conflict before it is written."""

    reason: str
    stored: Record
    offered: Record
    topic: str
    partition: int
    offset: int


class _Judged:
    """A batch of one kind of record, sorted into what is new, what is there already and what contradicts."""

    def __init__(self, entity: _Entity) -> None:
        self.entity = entity
        self.stored: dict[_Key, Record] = {}
        self.finals: dict[str, Decision | Grade] = {}
        self.new: list[Delivery] = []
        self.repeated = 0
        self.conflicts: list[_Found] = []

    def judge(self, delivery: Delivery) -> None:
        record = delivery.record
        key = self.entity.key(record)
        held = self.stored.get(key)
        if held is not None:
            if held == record:
                self.repeated += 1
            else:
                self._conflict("content", held, delivery)
            return
        if not isinstance(record, Alert):
            final = self.finals.get(record.id)
            if record.status == "provisional" and final is not None and final.revision < record.revision:
                self._conflict("provisional_after_final", final, delivery)
                return
            if record.status == "final" and (final is None or record.revision < final.revision):
                self.finals[record.id] = record
        self.stored[key] = record
        self.new.append(delivery)

    def _conflict(self, reason: str, stored: Record, delivery: Delivery) -> None:
        found = _Found(reason, stored, delivery.record, delivery.topic, delivery.partition, delivery.offset)
        self.conflicts.append(found)


def _chunks(keys: Iterable[_T]) -> Iterator[list[_T]]:
    ordered = list(keys)
    for start in range(0, len(ordered), LOOKUP_KEYS_MAX):
        yield ordered[start : start + LOOKUP_KEYS_MAX]


def _stored(connection: Connection, entity: _Entity, keys: Iterable[_Key]) -> Iterator[Record]:
    table = entity.table
    for chunk in _chunks(keys):
        query = select(table).where(tuple_(table.c.id, table.c[entity.version]).in_(chunk))
        for row in connection.execute(query).mappings():
            yield _record(entity, row)


def _lowest_finals(
    connection: Connection, entity: _Entity, ids: Iterable[str]
) -> dict[str, Decision | Grade]:
    """The first final revision of each id that has one."""
    table = entity.table
    keys: list[_Key] = []
    for chunk in _chunks(ids):
        query = (
            select(table.c.id, func.min(table.c.revision))
            .where(table.c.id.in_(chunk), table.c.status == "final")
            .group_by(table.c.id)
        )
        keys.extend((entry_id, revision) for entry_id, revision in connection.execute(query))
    return {record.id: cast(Decision | Grade, record) for record in _stored(connection, entity, keys)}


def _overtaken(connection: Connection, entity: _Entity, new: Iterable[Delivery]) -> Iterator[_Found]:
    """The provisional revisions above a final one that came only now: they were kept before it was known."""
    finals: dict[str, Decision | Grade] = {}
    for delivery in new:
        record = delivery.record
        if not isinstance(record, Alert) and record.status == "final":
            known = finals.get(record.id)
            finals[record.id] = record if known is None or record.revision < known.revision else known
    table = entity.table
    for chunk in _chunks(finals):
        highest = (
            select(table.c.id, func.max(table.c.revision))
            .where(table.c.id.in_(chunk), table.c.status == "provisional")
            .group_by(table.c.id)
        )
        for entry_id, revision in connection.execute(highest).all():
            if revision > finals[entry_id].revision:
                yield from _above(connection, entity, finals[entry_id])


def _above(connection: Connection, entity: _Entity, final: Decision | Grade) -> Iterator[_Found]:
    table = entity.table
    query = select(table).where(
        table.c.id == final.id, table.c.status == "provisional", table.c.revision > final.revision
    )
    for row in connection.execute(query).mappings():
        record = _record(entity, row)
        where = (row["topic"], row["partition"], row["record_offset"])
        yield _Found("provisional_after_final", final, record, *where)


def _row(entity: _Entity, delivery: Delivery, recorded_at: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "topic": delivery.topic,
        "partition": delivery.partition,
        "record_offset": delivery.offset,
        "recorded_at": recorded_at,
    }
    assert not delivery.record.shadow, "a shadow is no entry of the ledger; read_record leaves it out"
    for field in kept_fields(entity.record):
        value = getattr(delivery.record, field)
        row[field] = ENCODER.encode(value).decode() if field in _JSON_FIELDS else value
    return row


def _record(entity: _Entity, row: Mapping[Any, Any]) -> Record:
    values = {
        field: msgspec.json.decode(row[field]) if field in _JSON_FIELDS else row[field]
        for field in kept_fields(entity.record)
    }
    return msgspec.convert(values, entity.record)


def _conflict_row(entity: _Entity, found: _Found, recorded_at: str) -> dict[str, Any]:
    entry_id, version = entity.key(found.offered)
    offered = ENCODER.encode(found.offered).decode()
    # The same contradiction delivered again is the same conflict.
    digest = blake2b(digest_size=16)
    for part in (found.reason, entity.table.name, entry_id, str(version), offered):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return {
        "digest": digest.hexdigest(),
        "reason": found.reason,
        "entity": str.__str__(entity.table.name),
        "id": entry_id,
        "version": str(version),
        "stored": ENCODER.encode(found.stored).decode(),
        "offered": offered,
        "topic": found.topic,
        "partition": found.partition,
        "record_offset": found.offset,
        "recorded_at": recorded_at,
    }
