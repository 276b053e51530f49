"""The commands about pay that need no broker: lists, statements, the ledger, and refusals that are seen beforehand."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kaohe.cli import run
from kaohe.payroll.ledger import Ledger, upgrade
from tests.support.settling import Log, Reader, batches


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger with a draft for one person with a fine that meets the guard, and an approved month before."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    log = Log()
    log.roster("a-1", pay_base_minor=800_000)
    for period in ("2026-07", "2026-08"):
        log.grade("a-1", "B", period=period)
    log.decide("a-1", "-400")
    log.ask("2026-07")
    with Ledger(url) as ledger:
        reader = Reader(log, ledger)
        reader.read()
        log.move("approved", batches(ledger)[0].id)
        log.ask()
        reader.read()
        found = batches(ledger)[-1].id
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_DATABASE_URL", url)
    monkeypatch.setenv("KAOHE_BROKER", "127.0.0.1:1")
    return found


def said(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> str:
    assert run(line.split()) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.out or told.err


def test_batches_are_listed(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "payroll list").splitlines()
    assert [line.split()[1:3] for line in lines] == [["2026-07", "approved"], ["2026-08", "draft"]]
    assert lines[1].startswith(batch)
    assert (
        json.loads(said(capsys, "payroll list --period 2026-08 --json"))[0]["total_minor"] == 80_000 - 160_000
    )
    assert "no settlement yet" in said(capsys, "payroll list --period 2026-09")


def test_a_statement_is_shown_line_by_line_in_both_languages(
    batch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, f"payroll show {batch} --agent a-1")
    for part in (
        "performance",
        "800.00 CNY",
        "−2000.00 CNY  LS-01",
        "held back by the pay guard: 400.00 CNY",
    ):
        assert part in text
    assert "绩效工资：等级B" in said(capsys, f"payroll show {batch} --lang zh")
    document = json.loads(said(capsys, f"payroll show {batch} --json"))
    assert document["statements"][0]["guard"]["deductions_minor"] == 200_000
    assert "has no statement for 'a-9'" in said(capsys, f"payroll show {batch} --agent a-9", 2)
    assert "the ledger has no batch 'b-9'" in said(capsys, "payroll show b-9", 2)


def test_the_ledger_shows_entries_and_booked_pay(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "ledger show --agent a-1")
    assert "ls-complaint-rate" in text
    document = json.loads(said(capsys, "ledger show --json"))
    assert [(one["of_period"], one["amount_minor"]) for one in document["pay"]] == [("2026-07", 80_000)]
    assert len(document["entries"]) == 1
    assert "no such entry" in said(capsys, "ledger show --period 2025-01")


def test_verify_tells_the_head_and_holds_it_against_one_that_was_noted(
    batch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head = said(capsys, "ledger verify").split()[-1]
    assert said(capsys, f"ledger verify --head {head}").endswith(f"head {head}\n")
    other = head.partition(":")[0] + ":" + "0" * 64
    assert "the chain was written anew" in said(capsys, f"ledger verify --head {other}", 1)


def test_a_broken_row_is_named_in_one_sentence(
    batch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("DROP TRIGGER ledger_entries_no_update")
        connection.execute("UPDATE ledger_entries SET points = '-1'")
        connection.commit()
    text = said(capsys, "ledger verify", 1)
    assert text.startswith("kaohe: the ledger is broken at link ")
    assert text.endswith(": the row is not what was written\n")
    text = said(capsys, "ledger reconcile --offline", 1)
    assert "differs  chain" in text
    assert "holds    entries" in text
    assert "open     acknowledged" in text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("payroll approve {} --by PAYROLL-clerk", "asked for the batch {}; somebody else has to approve it"),
        ("payroll approve {} --by a-1", "is paid by the batch {}; somebody who is not has to approve it"),
        ("payroll acknowledge {} --by p --entries 3 --total-minor 0", "only a batch that is exported can be"),
        ("payroll export {} --by p --out o", "only a batch that is approved can be exported"),
    ],
)
def test_what_would_be_refused_is_said_before_anything_is_written(
    batch: str, line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence.format(batch) in said(capsys, line.format(batch), 1)
    assert not Path("o").exists()


def test_without_a_broker_a_step_says_so(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No broker answers at 127.0.0.1:1" in said(capsys, f"payroll approve {batch} --by head", 1)
    assert "No broker answers" in said(capsys, "ledger reconcile", 1)
