"""Files for payroll: a batch's entries as CSV, XLSX and JSON, a payslip annex for each person, and a control file.

Theory of operation. Every file is made from the statements as they were booked; nothing is worked out here but sums,
and each format's sum is the batch's control total. The same batch gives the same bytes, whenever it is exported (a
spreadsheet carries the time of posting instead of the time of writing). Amounts stand as whole minor units for
machines and as decimals for people. ``control.json`` has the control totals, the SHA-256 sums of the other files,
and the head of the ledger's hash chain at the time of the export.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from kaohe.core.money import plain
from kaohe.core.pay import COMPONENTS, entries_of
from kaohe.decisions import ENCODER, Decision, Grade, PayComponent, Settlement, SettlementBatch
from kaohe.errors import UsageError
from kaohe.payroll.chain import Head
from kaohe.payroll.payslip import payslip

FORMATS = ("csv", "xlsx", "json", "html")
CODES: dict[PayComponent, str] = {
    "performance": "PERF", "bonus": "BONUS", "grade_bonus": "GRADEBONUS", "performance_bonus": "PERFBONUS",
    "year_bonus": "YEARBONUS", "award": "AWARD", "penalty": "PENALTY", "guard": "GUARD",
}  # fmt: skip
"""The component codes of the feed."""
COLUMNS = (
    "key", "batch", "period", "employee", "component", "effective_period", "event_time", "posted_at", "amount",
    "amount_minor", "currency", "clause", "source", "reverses",
)  # fmt: skip
_XLSX_DAY = (1980, 1, 1, 0, 0, 0)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What no XML document may hold."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
Source = Decision | Grade


class Export(msgspec.Struct, frozen=True):
    """The files of a batch by their names."""

    files: dict[str, bytes]

    @property
    def sums(self) -> dict[str, str]:
        """The SHA-256 sum of each file."""
        return {name: sha256(content).hexdigest() for name, content in self.files.items()}


def feed(batch: SettlementBatch, statements: Iterable[Settlement]) -> list[dict[str, Any]]:
    """The entries of a batch as flat rows, in the order of employees and lines."""
    return [
        {
            "key": line.key, "batch": batch.id, "period": batch.period, "employee": statement.agent,
            "component": CODES[line.component], "effective_period": line.effective_period,
            "event_time": line.event_time, "posted_at": batch.posted_at,
            "amount": plain(line.amount_minor, line.currency), "amount_minor": line.amount_minor,
            "currency": line.currency, "clause": line.clause, "source": line.source, "reverses": line.reverses,
        }
        for statement in statements
        for line in entries_of(statement)
    ]  # fmt: skip


def control_totals(batch: SettlementBatch, statements: Sequence[Settlement]) -> dict[str, Any]:
    """The batch's totals, and the same by component and by currency."""
    lines = [line for statement in statements for line in entries_of(statement)]
    components = {
        CODES[component]: sum(line.amount_minor for line in lines if line.component == component)
        for component in COMPONENTS
    }
    assert sum(components.values()) == batch.total_minor, "the entries of a batch sum up to its control total"
    assert len(lines) == batch.entries, "a batch has as many entries as its control total says"
    return {
        "batch": batch.id, "kind": batch.kind, "pack": batch.pack, "pack_version": batch.pack_version,
        "period": batch.period, "statements": len(statements), "entries": len(lines),
        "total_minor": batch.total_minor, "currency": batch.currency, "components_minor": components,
        "requested_by": batch.requested_by, "posted_at": batch.posted_at,
    }  # fmt: skip


def export(
    batch: SettlementBatch,
    statements: Sequence[Settlement],
    sources: Mapping[str, Source],
    formats: Sequence[str] = FORMATS,
    *,
    head: Head,
    approved_by: str,
) -> Export:
    """The files of a batch. ``sources`` are the decisions and grades that its lines come from, by id.

    UsageError for a format that there is not.
    """
    strange = [one for one in formats if one not in FORMATS]
    if strange:
        raise UsageError(f"there is no format {strange[0]!r}; choose among {', '.join(FORMATS)}")
    rows, totals = feed(batch, statements), control_totals(batch, statements)
    files: dict[str, bytes] = {}
    stem = f"{batch.period}-{batch.id}"
    if "csv" in formats:
        files[f"{stem}.csv"] = as_csv(rows)
    if "xlsx" in formats:
        files[f"{stem}.xlsx"] = as_xlsx(rows, statements, totals)
    if "json" in formats:
        files[f"{stem}.json"] = as_json(rows, statements, totals)
    if "html" in formats:
        for statement in statements:
            name = _UNSAFE.sub("_", statement.agent)[:80]
            files[f"payslips/{name}-{statement.id}.html"] = payslip(statement, batch, sources, approved_by)
    made = Export(files)
    control = totals | {"approved_by": approved_by, "files": made.sums, "ledger_head": str(head)}
    text = msgspec.json.format(ENCODER.encode(control), indent=2)
    return Export(files | {f"{stem}.control.json": text + b"\n"})


def write(made: Export, folder: Path) -> None:
    """Write the files. UsageError when the folder cannot be written."""
    try:
        for name, content in made.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror}); name a folder that can be written"
        ) from None


# --- formats ----------------------------------------------------------------------------------------------------------


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """UTF-8 with a byte order mark, so that spreadsheets read Chinese names; lines end as RFC 4180 has them."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def as_json(
    rows: Sequence[Mapping[str, Any]], statements: Sequence[Settlement], totals: Mapping[str, Any]
) -> bytes:
    """Control totals, entries, and the statements with every line explained."""
    document = {"control": totals, "entries": rows, "statements": statements}
    return msgspec.json.format(ENCODER.encode(document), indent=2) + b"\n"


def as_xlsx(
    rows: Sequence[Mapping[str, Any]], statements: Sequence[Settlement], totals: Mapping[str, Any]
) -> bytes:
    """Three sheets: entries, statements, control. Texts are texts, whatever they begin with: no cell is a formula."""
    from openpyxl import Workbook  # noqa: PLC0415 (other formats are written without it)

    book = Workbook()
    entries = book.active
    entries.title = "entries"
    _fill(entries, COLUMNS, rows)
    columns = ("agent", "period", "gross", "base", "fixed", "grade", "total", "pay", "currency", "id")
    _fill(
        book.create_sheet("statements"),
        columns,
        [
            {
                "agent": one.agent, "period": one.period, "grade": one.grade, "currency": one.currency, "id": one.id,
                "gross": "" if one.gross_minor is None else plain(one.gross_minor, one.currency),
                "base": plain(one.base_minor, one.currency), "fixed": plain(one.fixed_minor, one.currency),
                "total": plain(one.total_minor, one.currency), "pay": plain(one.pay_minor, one.currency),
            }
            for one in statements
        ],
    )  # fmt: skip
    flat = {name: value for name, value in totals.items() if not isinstance(value, dict)}
    flat |= {f"{code}_minor": amount for code, amount in totals["components_minor"].items()}
    _fill(
        book.create_sheet("control"),
        ("name", "value"),
        [{"name": name, "value": value} for name, value in flat.items()],
    )
    posted = datetime.fromisoformat(totals["posted_at"]).replace(tzinfo=None)
    book.properties.creator = "kaohe"
    book.properties.created = book.properties.modified = posted
    raw = io.BytesIO()
    book.save(raw)
    return _dated(raw.getvalue(), posted)


_AMOUNTS = ("amount", "gross", "base", "fixed", "total", "pay")


def _fill(sheet: Any, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    sheet.append(list(columns))
    sheet.freeze_panes = "A2"
    for number, row in enumerate(rows, start=2):
        for position, name in enumerate(columns, start=1):
            cell, value = sheet.cell(row=number, column=position), row[name]
            if name in _AMOUNTS and value:
                cell.value = Decimal(value)
                cell.number_format = "0." + "0" * len(value.partition(".")[2]) if "." in value else "0"
            elif isinstance(value, int):
                cell.value = value
            else:
                cell.value = _UNPRINTABLE.sub("\ufffd", value)
                cell.data_type = "s"


def _dated(raw: bytes, posted: datetime) -> bytes:
    """The same archive with one date in every place where the writer put the time of writing."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename == "docProps/core.xml":
                text = posted.strftime("%Y-%m-%dT%H:%M:%SZ")
                content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + text.encode(), content)
            info = zipfile.ZipInfo(member.filename, _XLSX_DAY)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, content)
    return made.getvalue()
