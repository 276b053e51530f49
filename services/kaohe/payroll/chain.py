"""The hash chain over the ledger: every row that is kept gets a link, and each link seals all before it.

Theory of operation. A row's digest is the SHA-256 of its canonical JSON (its table's name and every column as stored).
A link's hash is the SHA-256 of the previous link's hash and of that digest, so nobody can change, remove or slip in a
row without every later hash becoming wrong. Links are written in the transaction that writes their rows; writers take
turns, so the chain has one order. Whoever rewrites the whole chain is found out by any head noted before: the last
link's number and hash, which ``kaohe ledger verify`` prints and every exported batch carries.

The chain belongs to one database: it says in which order *this* ledger took things in. A ledger that is built anew from
the topics holds the same rows and another chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, Table, func, insert, select, tuple_

from kaohe.decisions import ENCODER
from kaohe.payroll.tables import CHAINED, ChainRow

ADDED_LATER: dict[str, dict[str, str]] = {"grades": {"detail": "null"}}
"""Columns that older rows were sealed without, and what they hold there."""
GENESIS = "0" * 64
"""What the first link seals."""
PAGE_LINKS = 500


class Head(msgspec.Struct, frozen=True):
    """The last link: its number (0 when there is none) and its hash."""

    link: int
    hash: str

    def __str__(self) -> str:
        return f"{self.link}:{self.hash}"


class Broken(msgspec.Struct, frozen=True):
    """The first row that the chain does not agree with. ``what`` is ``changed``, ``missing``, ``added`` or ``link``."""

    link: int
    table: str
    key: str
    what: str
    reason: str


class Verified(msgspec.Struct, frozen=True):
    """How a verification ended; ``broken`` is None when every row is as it was written."""

    links: int
    head: Head
    rows: dict[str, int]
    broken: Broken | None


def chain_table() -> Table:
    """The table of links."""
    return cast(Table, ChainRow.__table__)


def row_digest(table: str, row: Mapping[str, Any]) -> str:
    """The digest of one row: of every column, by name, but for those of ``ADDED_LATER`` that say nothing."""
    # SQLAlchemy's names are a kind of text of their own, which no encoder takes.
    silent = ADDED_LATER.get(str.__str__(table), {})
    plain = {
        str.__str__(name): value for name, value in row.items() if silent.get(str.__str__(name), ...) != value
    }
    return sha256(ENCODER.encode([str.__str__(table), plain])).hexdigest()


def row_key(table: Table, row: Mapping[str, Any]) -> str:
    """The row's primary key as JSON."""
    return ENCODER.encode([row[column.name] for column in table.primary_key.columns]).decode()


def _sealed(previous: str, digest: str) -> str:
    return sha256(f"{previous}{digest}".encode()).hexdigest()


def head(connection: Connection) -> Head:
    """The chain's last link."""
    table = chain_table()
    found = connection.execute(
        select(table.c.link, table.c.hash).order_by(table.c.link.desc()).limit(1)
    ).first()
    return Head(found.link, found.hash) if found is not None else Head(0, GENESIS)


def extend(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add a link for each row just written to ``table``. The caller holds the lock of writers."""
    if not rows:
        return
    at = head(connection)
    links = []
    for row in rows:
        digest = row_digest(table.name, row)
        at = Head(at.link + 1, _sealed(at.hash, digest))
        sealed = {"entity": str.__str__(table.name), "row_key": row_key(table, row)}
        links.append(sealed | {"link": at.link, "digest": digest, "hash": at.hash})
    connection.execute(insert(chain_table()), links)


# --- verifying --------------------------------------------------------------------------------------------------------


def verify(connection: Connection, noted: Head | None = None) -> Verified:
    """Walk the whole chain and compare every row with it. ``noted`` is a head that was written down before."""
    links, at, broken = 0, Head(0, GENESIS), None
    counted: dict[str, int] = {table.name: 0 for table in CHAINED}
    for page in _pages(connection):
        broken, at = _check_page(connection, page, at, noted)
        if broken is not None:
            break
        links += len(page)
        for link in page:
            counted[link["entity"]] += 1
    if broken is None and noted is not None and noted.link > at.link:
        reason = f"the head noted before is link {noted.link}, but the chain ends at link {at.link}"
        broken = Broken(noted.link, "ledger_chain", str(noted.link), "missing", reason)
    rows = {table.name: _count(connection, table) for table in CHAINED}
    if broken is None:
        broken = _first_added(connection, counted, rows)
    return Verified(links, at, rows, broken)


def _pages(connection: Connection) -> Iterator[list[dict[str, Any]]]:
    table, last = chain_table(), 0
    while True:
        query = select(table).where(table.c.link > last).order_by(table.c.link).limit(PAGE_LINKS)
        page = [dict(row) for row in connection.execute(query).mappings()]
        if not page:
            return
        yield page
        last = page[-1]["link"]


def _check_page(
    connection: Connection, page: Sequence[dict[str, Any]], at: Head, noted: Head | None
) -> tuple[Broken | None, Head]:
    known = {table.name: table for table in CHAINED}
    rows = _rows(connection, page, known)
    for link in page:
        number, table, key = link["link"], link["entity"], link["row_key"]
        if number != at.link + 1:
            reason = f"link {at.link + 1} is missing"
            return Broken(at.link + 1, "ledger_chain", str(at.link + 1), "missing", reason), at
        row = rows.get((table, key))
        if row is None:
            return Broken(number, table, key, "missing", "the row is gone, or its table is unknown"), at
        if row_digest(table, row) != link["digest"]:
            return Broken(number, table, key, "changed", "the row is not what was written"), at
        if _sealed(at.hash, link["digest"]) != link["hash"]:
            return Broken(number, table, key, "link", "the link does not seal what stands before it"), at
        at = Head(number, link["hash"])
        if noted is not None and noted.link == number and noted.hash != at.hash:
            reason = "the chain was written anew: its hash here is not the one that was noted"
            return Broken(number, table, key, "link", reason), at
    return None, at


def _rows(
    connection: Connection, page: Sequence[Mapping[str, Any]], known: Mapping[str, Table]
) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for name in sorted({link["entity"] for link in page} & known.keys()):
        table = known[name]
        columns = list(table.primary_key.columns)
        keys = [
            msgspec.json.decode(link["row_key"], type=list[str | int])
            for link in page
            if link["entity"] == name
        ]
        query = select(table).where(tuple_(*columns).in_([tuple(key) for key in keys]))
        for row in connection.execute(query).mappings():
            found[name, row_key(table, dict(row))] = dict(row)
    return found


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _first_added(
    connection: Connection, counted: Mapping[str, int], rows: Mapping[str, int]
) -> Broken | None:
    """The first row that has no link: it was slipped in."""
    for table in CHAINED:
        if counted[table.name] == rows[table.name]:
            continue
        links = chain_table()
        sealed = set(
            connection.execute(select(links.c.row_key).where(links.c.entity == table.name)).scalars()
        )
        for key in _keys(connection, table):
            if key not in sealed:
                return Broken(0, table.name, key, "added", "the row has no link in the chain")
        return Broken(0, table.name, "", "link", "a row has two links")
    return None


def _keys(connection: Connection, table: Table) -> Iterable[str]:
    columns = list(table.primary_key.columns)
    for row in connection.execute(select(*columns).order_by(*columns)).mappings():
        yield row_key(table, dict(row))
