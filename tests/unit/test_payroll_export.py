"""What payroll gets: files whose sums are the control totals, the same bytes each time, and payslips that explain."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from kaohe.decisions import Decision, Grade, Settlement, SettlementBatch
from kaohe.errors import UsageError
from kaohe.payroll import chain
from kaohe.payroll.export import Export, export, write
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.settling import batch_record
from tests.support.settling import Log, Reader, batches, statements

HEAD = chain.Head(7, "ab" * 32)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An approved month of three people, one of them with a name that would be a formula or a tag."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    log = Log()
    for agent in ("a-1", "=1+2<b>", "a-3"):
        log.roster(agent, pay_base_minor=800_000)
        log.grade(agent, "A")
    log.decide("a-1", "-700")
    log.decide("a-1", "3.333")
    log.ask()
    with Ledger(url) as opened:
        reader = Reader(log, opened)
        reader.read()
        log.move("approved", batches(opened)[0].id)
        reader.read()
        yield opened


def parts(ledger: Ledger) -> tuple[SettlementBatch, list[Settlement], dict[str, Decision | Grade]]:
    batch = batches(ledger)[0]
    several = list(statements(ledger, batch.id).values())
    sources: dict[str, Decision | Grade] = {}
    for line in (line for one in several for line in one.lines if line.source):
        found = ledger.decisions(line.source) or ledger.grades(line.source)
        sources[line.source] = found[-1]
    return batch_record(batch, "approved"), several, sources


def made(ledger: Ledger, *formats: str) -> Export:
    batch, several, sources = parts(ledger)
    chosen = formats or ("csv", "xlsx", "json", "html")
    return export(batch, several, sources, chosen, head=HEAD, approved_by="finance-head")


def content(files: Export, ending: str) -> bytes:
    (found,) = [content for name, content in files.files.items() if name.endswith(ending)]
    return found


def test_every_format_sums_up_to_the_control_total(ledger: Ledger) -> None:
    from openpyxl import load_workbook

    batch, several, _ = parts(ledger)
    files = made(ledger)
    rows = list(csv.DictReader(io.StringIO(content(files, ".csv").decode("utf-8-sig"))))
    sheet = load_workbook(io.BytesIO(content(files, ".xlsx")))["entries"]
    header, *cells = sheet.iter_rows(values_only=True)
    xlsx = [dict(zip(header, row, strict=True)) for row in cells]
    document = msgspec.json.decode(content(files, f"{batch.id}.json"))
    control = msgspec.json.decode(content(files, ".control.json"))
    wanted = (batch.entries, batch.total_minor)
    assert wanted == (9, 3 * 88_000 - 350_000 + 1_667 + 190_000)
    for entries in (rows, xlsx, document["entries"]):
        assert (len(entries), sum(int(row["amount_minor"]) for row in entries)) == wanted
    assert sum(round(float(row["amount"]) * 100) for row in xlsx) == batch.total_minor
    assert (control["entries"], control["total_minor"]) == wanted
    assert sum(control["components_minor"].values()) == batch.total_minor
    assert sum(one.total_minor for one in several) == batch.total_minor
    assert len({row["key"] for row in rows}) == len(rows)
    assert {row["currency"] for row in rows} == {"CNY"}
    assert {row["posted_at"] for row in rows} == {"2026-09-08T09:00:00.000Z"}
    assert control["ledger_head"] == str(HEAD)


def test_the_control_file_has_the_sums_of_the_others(ledger: Ledger) -> None:
    files = made(ledger)
    control = msgspec.json.decode(content(files, ".control.json"))
    others = {name: digest for name, digest in files.sums.items() if not name.endswith(".control.json")}
    assert control["files"] == others
    assert len(others) == 3 + 3


def test_the_same_batch_gives_the_same_bytes(ledger: Ledger) -> None:
    assert made(ledger).files == made(ledger).files


def test_no_cell_of_the_spreadsheet_is_a_formula(ledger: Ledger) -> None:
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(content(made(ledger), ".xlsx")))
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert "=1+2<b>" in {cell.value for cell in cells}
    assert {cell.data_type for cell in cells} <= {"s", "inlineStr", "n"}


class _Reader(HTMLParser):
    """The text of a page, and its tags in order."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(files: Export, agent: str) -> tuple[str, list[str]]:
    (raw,) = [content for name, content in files.files.items() if name.startswith(f"payslips/{agent}-s-")]
    reader = _Reader()
    reader.feed(raw.decode())
    return " ".join(" ".join(reader.text).split()), reader.tags


def test_a_payslip_explains_each_line_down_to_clause_parameters_facts_and_arithmetic(ledger: Ledger) -> None:
    _, several, sources = parts(ledger)
    text, tags = page(made(ledger), "a-1")
    statement = next(one for one in several if one.agent == "a-1")
    assert tags.count("section") == len(statement.lines) == 5
    for line in statement.lines:
        assert {line.key, line.clause} <= set(text.replace(",", " ").split()), line.component
        for words in (line.explanation.en, line.explanation.zh):
            assert " ".join(words.split()) in text
        for step in line.arithmetic:
            assert step.calculation in text
        for name in line.parameters:
            assert name in text
        source = sources.get(line.source)
        if isinstance(source, Decision):
            assert f"kaohe explain {source.id}" in text
            assert all(one in text for one in (*source.facts, *source.parameters, *source.evidence))
    for label in (
        "Pay guard 薪酬保护",
        "Held back by this limit 因上限退回 1900.00 CNY",
        "Pay of the month 当月工资",
    ):
        assert label in text
    assert "finance-head" in text
    assert "script" not in tags


def test_a_payslip_is_for_paper_too_and_what_it_shows_is_escaped(ledger: Ledger) -> None:
    files = made(ledger, "html")
    text, tags = page(files, "_1_2_b_")
    assert "=1+2<b>" in text
    assert "b" not in tags
    raw = next(content for name, content in files.files.items() if name.startswith("payslips/_1"))
    assert b"@media print" in raw
    assert b"@page { size: A4" in raw
    assert b"lang='zh'" in raw


def test_only_what_is_asked_for_is_written(ledger: Ledger, tmp_path: Path) -> None:
    files = made(ledger, "csv")
    assert sorted(name.partition(".")[2] for name in files.files) == ["control.json", "csv"]
    with pytest.raises(UsageError, match="there is no format 'pdf'; choose among csv, xlsx, json, html"):
        made(ledger, "pdf")
    write(made(ledger), tmp_path / "out")
    assert len(list((tmp_path / "out" / "payslips").iterdir())) == 3
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="name a folder that can be written"):
        write(files, tmp_path / "file")
