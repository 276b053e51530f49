"""From an amount of pay to the events it rests on: each line of each statement, from the ledger and from an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.payroll.ledger import Ledger, upgrade
from tests.support.settling import Log, Reader, batches

Walk = dict[str, Any]


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two months: one booked, one settled again by a correction; the ids of all batches in their order."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    log = Log()
    log.roster("a-1", pay_base_minor=800_000)
    log.roster("a-2", pay_base_minor=600_000)
    log.grade("a-1", "A")
    log.grade("a-2", "B")
    fine = log.decide("a-1", "-400", incident="ap-1")
    log.decide("a-2", "3")
    log.ask()
    with Ledger(url) as ledger:
        reader = Reader(log, ledger)
        reader.read()
        log.move("approved", batches(ledger)[0].id)
        reader.read()
        log.decide(
            "a-1",
            "400",
            id="d-waiver",
            kind="waive",
            reverses=fine.id,
            incident="ap-1",
            at="2026-09-09T00:00:00Z",
        )
        log.ask(reopen=True)
        reader.read()
        found = [one.id for one in batches(ledger)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_DATABASE_URL", url)
    monkeypatch.setenv("KAOHE_BROKER", "127.0.0.1:1")
    return found


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> Walk:
    assert run(["explain", *arguments, "--json"]) == 0
    found: Walk = json.loads(capsys.readouterr().out)
    return found


def test_every_line_of_every_statement_leads_to_its_clause_and_its_evidence(
    ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    components = set()
    assert len(ids) == 2
    for batch in ids:
        whole = explained(capsys, batch)
        assert (whole["about"], whole["batch"]["id"]) == ("batch", batch)
        for statement in whole["statements"]:
            alone = explained(capsys, statement["id"])
            assert (alone["about"], alone["statements"]) == ("statement", [statement])
            for line in statement["lines"]:
                components.add((statement["kind"], line["component"]))
                walk_line(capsys, line, statement["id"])
    assert components >= {
        ("regular", "performance"), ("regular", "bonus"), ("regular", "award"), ("regular", "penalty"),
        ("regular", "guard"), ("correction", "guard"),
    }  # fmt: skip


def walk_line(capsys: pytest.CaptureFixture[str], line: Walk, statement: str) -> None:
    """From one line to its source; a line without money has no key, and its source is asked for by itself."""
    assert line["clause"]
    assert line["explanation"]["en"]
    assert line["arithmetic"]
    assert line["parameters"] or line["reverses"]
    source: list[Walk] = []
    if line["key"]:
        answer = explained(capsys, line["key"])
        assert (answer["about"], answer["line"]) == ("line", line)
        assert [one["id"] for one in answer["statements"]] == [statement]
        source = answer["source"]
        if line["reverses"]:
            assert answer["reversed_line"]["key"] == line["reverses"]
        assert run(["explain", line["key"]]) == 0
        text = capsys.readouterr().out
        assert line["clause"] in text
        assert line["explanation"]["en"] in " ".join(text.split())
    if not line["source"]:
        assert line["component"] == "guard"  # it comes from the statement's own sums
        return
    by_itself = explained(capsys, line["source"])
    newest = by_itself.get("decision") or by_itself["grade"]
    if source:
        assert source[-1]["id"] == newest["id"] == line["source"]
    if "decision" in by_itself:
        assert newest["evidence"]
        assert newest["clause"] == line["clause"]
    else:
        assert newest["entries"]
        assert newest["formula"]


def test_what_is_shown_in_words_names_what_can_be_asked_next(
    ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["payroll", "show", ids[0], "--agent", "a-1"]) == 0
    shown = capsys.readouterr().out
    (statement,) = [
        one for one in explained(capsys, ids[0])["statements"] if one["agent"] == "a-1"
    ]  # fmt: skip
    assert statement["id"] in shown
    assert all(line["key"] in shown for line in statement["lines"])
    assert run(["explain", statement["id"], "--lang", "zh"]) == 0
    text = capsys.readouterr().out
    assert "薪酬保护" in text
    assert all(line["key"] in text for line in statement["lines"])


def test_an_export_is_explained_without_the_ledger(
    ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = explained(capsys, ids[0])
    line = whole["statements"][0]["lines"][0]
    file = tmp_path / "out" / "august.json"
    file.parent.mkdir()
    control = {name: value for name, value in whole["batch"].items() if name != "id"} | {"batch": ids[0]}
    file.write_text(json.dumps({"control": control, "entries": [], "statements": whole["statements"]}))
    (file.parent / "august.control.json").write_text("{}")
    monkeypatch.setenv("KAOHE_DATABASE_URL", f"sqlite:///{tmp_path / 'none.db'}")
    for where in (str(file), str(file.parent)):
        assert explained(capsys, line["key"], "--from", where)["line"] == line
        assert explained(capsys, ids[0], "--from", where)["statements"] == whole["statements"]
    assert run(["explain", ids[1], "--from", str(file)]) == 2
    assert f"has no entry '{ids[1]}' of pay" in capsys.readouterr().err
    file.write_text("[]")
    assert run(["explain", ids[0], "--from", str(file)]) == 2
    assert "not what 'kaohe payroll export' writes" in capsys.readouterr().err


def test_an_incident_is_told_with_all_that_was_decided_about_it(
    ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = explained(capsys, "ap-1")
    assert [(one["kind"], one["points"]) for one in found["entries"]] == [
        ("deduct", "-400"),
        ("waive", "400"),
    ]
    assert run(["explain", "ap-1"]) == 0
    text = capsys.readouterr().out
    assert all(one["id"] in text for one in found["entries"])


@pytest.mark.parametrize(
    "missing", ["b-" + "0" * 24, "s-" + "0" * 24, "p-" + "0" * 24, "nobody-knows", "d-7"]
)
def test_what_is_not_there_is_said(ids: list[str], missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", missing]) == 2
    err = capsys.readouterr().err
    assert f"has no entry '{missing}'" in err
    assert len(err.strip().splitlines()) == 1
