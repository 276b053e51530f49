"""Explanations: everything the record holds is shown, in both languages, and nothing in it is read as markup."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from kaohe.decisions import Step, UsedFact, Words
from kaohe.errors import LedgerError, UsageError
from kaohe.events import decode
from kaohe.explain import (
    Entry,
    Events,
    as_json,
    current,
    evidence_of,
    explanation,
    find_in_file,
    find_in_ledger,
    headline,
    sentence,
    tree,
)
from kaohe.payroll.ledger import Ledger, upgrade
from tests.support.ledger_entries import alert, decision, delivery, grade, wire


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_sentence_is_there_in_both_languages() -> None:
    assert sentence(decision()).startswith("Complaint rate 3.5 %")
    assert sentence(decision(), "zh").startswith("客户投诉率")
    text = shown(explanation([decision()]))
    assert decision().explanation.en in text
    assert decision().explanation.zh in text


def test_the_tree_goes_from_the_clause_to_the_arithmetic_and_the_revisions() -> None:
    revisions = [decision(points="-2"), decision(revision=2, status="final", at="2026-09-01T00:00:00Z")]
    lines = [
        line.rstrip()
        for line in shown(tree(revisions, clause_title=Words("Complaint rate", "投诉率"))).splitlines()
    ]
    assert lines == [
        "Clause LS-01 Complaint rate",
        "└── Rule ls-complaint-rate",
        "    └── Pack logistics-service 1.2.0",
        "        ├── Parameters in force (1)",
        "        │   └── complaint_rate_limit = 0.015 = 1.5%  (since 2026-07-01, LS-01)",
        "        ├── Facts (2)",
        "        │   ├── complaint_rate.month = 0.035 = 3.5%  (7 ÷ 200; complaint.upheld / customer.served)",
        "        │   └── satisfaction.month = no data",
        "        ├── Evidence (2 of 7)",
        "        │   ├── acd/c-81-upheld",
        "        │   ├── acd/c-90-upheld",
        "        │   └── … 5 more; all of them: kaohe explain d-0123456789abcdef01234567 --events LOG",
        "        ├── Arithmetic (2)",
        "        │   ├── full points over the limit = floor((0.035 - 0.015) / 0.01) = 2",
        "        │   └── points = 2 * -2 = -4",
        "        └── Revisions (2)",
        "            ├── 2026-08-12T09:00:00Z = −2 points  (provisional, revision 1)",
        "            └── 2026-09-01T00:00:00Z = −4 points  (final, revision 2 ← this one counts)",
    ]


def test_the_labels_speak_chinese() -> None:
    text = shown(tree([decision()], "zh", Words("Complaint rate", "投诉率")))
    for words in (
        "条款 LS-01 投诉率",
        "规则 ls-complaint-rate",
        "生效参数",
        "事实",
        "依据事件",
        "计算",
        "−4 分",
        "暂定",
        "无数据",
    ):
        assert words in text


def test_the_headline_tells_what_was_decided_about_whom() -> None:
    assert headline(decision()).plain == (
        "Deduct −4 points · a-17 · 2026-08 · provisional, revision 1 · d-0123456789abcdef01234567"
    )
    money = decision(points="0", amount_minor=-1205, currency="CNY", status="final")
    assert headline(money).plain.startswith("Deduct −12.05 CNY · a-17")
    assert headline(decision(amount_minor=500, currency="JPY")).plain.startswith("Deduct −4 points, 500 JPY")
    assert headline(decision(kind="task", points="0")).plain.startswith("Task · a-17")
    assert headline(decision(), "zh").plain.startswith("扣分 −4 分")
    assert headline(alert()).plain.startswith(
        "Alert: Callers wait too long · sales · high · firing 2026-08-12"
    )
    assert headline(grade(previous_grade="B")).plain.startswith("grade A, score 96 (before: B)")


def test_the_final_revision_counts_even_below_a_higher_provisional_one() -> None:
    final = decision(revision=2, status="final", points="-4")
    assert current([decision(), final, decision(revision=3, points="-9")]) is final


def test_consequences_are_shown() -> None:
    text = shown(
        tree(
            [
                decision(
                    kind="task",
                    owner="t-1",
                    due_at="2026-09-05T00:00:00Z",
                    proposal="coaching",
                    reverses="d-old",
                    adjusts_period="2026-07",
                    incident="c-7",
                )
            ]
        )
    )
    for words in (
        "Rule ls-complaint-rate (c-7)",
        "Task of t-1, due 2026-09-05",
        "Proposal coaching",
        "Reverses d-old",
        "Adjusts the closed period 2026-07",
    ):
        assert words in text


def test_an_alert_shows_its_response_and_both_states() -> None:
    text = shown(explanation([alert(), alert(state="resolved", at="2026-08-12T09:05:00Z")]))
    for words in (
        "resolved 2026-08-12T09:05:00Z",
        "Response Move agents to the queue.",
        "Owner",
        "History (2)",
    ):
        assert words.lower() in text.lower()
    assert "来电" not in text.splitlines()[0]


def test_a_grade_shows_its_entries_and_formula() -> None:
    text = shown(explanation([grade(), grade(revision=2, score="94", grade="B", previous_grade="A")]))
    for words in (
        "grade B, score 94",
        "Formula 100 + points",
        "Made of entries (1)",
        "d-0123456789abcdef01234567",
    ):
        assert words in text


def test_texts_of_records_are_no_markup() -> None:
    odd = decision(
        rule="[red]r[/red]",
        evidence=["[/nothing]"],
        arithmetic=[Step("[bold]", "x[0]", "1")],
        facts={"f[1]": UsedFact("[/]")},
        explanation=Words("[link=x]en", "[/]中"),
    )
    text = shown(explanation([odd]))
    for words in ("[red]r[/red]", "[/nothing]", "x[0]", "f[1] = [/]", "[link=x]en", "[/]中"):
        assert words in text


def test_long_lists_are_cut_and_say_so() -> None:
    many = decision(evidence=[f"e-{n}" for n in range(50)], evidence_count=900)
    history = [decision(revision=n) for n in range(1, 101)]
    text = shown(tree([*history, decision(revision=101, evidence=many.evidence, evidence_count=900)]))
    assert "… 880 more" in text
    assert "… 81 more" in text
    assert "revision 101 ← this one counts" in text


def test_events_of_the_log_are_shown_with_time_type_and_what_they_say() -> None:
    event = decode(
        b'{"type":"call.answered","id":"e-1","source":"acd","subject":"a-17","time":"2026-08-12T01:00:00Z",'
        b'"specversion":"1.0","data":{"agent":"a-17","call_id":"c-1","wait_ms":45000,"customer":"c-0123456789abcdef"}}'
    )
    known = Events(["e-1", "e-2"], {"e-1": event}, "Asia/Shanghai")
    one = decision(evidence=["e-1"], evidence_count=2)
    text = shown(tree([one], events=known))
    assert "Evidence (2)" in text
    assert "e-1  2026-08-12T09:00:00+08:00  call.answered  call_id=c-1, wait_ms=45000" in text
    assert "e-2  (not in the log)" in text
    assert "0123456789abcdef" not in text.replace(one.id, ""), (
        "a customer's pseudonym is nobody's business here"
    )
    assert [found["id"] for found in json.loads(as_json([one], known))["events"]] == ["e-1", "e-2"]


def test_an_alert_that_is_over_shows_what_it_began_with() -> None:
    over = alert(state="resolved", evidence=[])
    assert evidence_of([alert(evidence=["e-1", "e-2"]), over]) == (["e-1", "e-2"], 2)


def test_json_holds_the_whole_decision_and_its_history_exactly() -> None:
    revisions = [decision(points="-0.1"), decision(revision=2, status="final", points="-0.30")]
    data = json.loads(as_json(revisions))
    assert data["decision"] == json.loads(wire(revisions[1]))
    assert [(old["revision"], old["points"]) for old in data["history"]] == [(1, "-0.1"), (2, "-0.30")]
    assert json.loads(as_json([alert()]))["alert"]["state"] == "firing"
    assert json.loads(as_json([grade()]))["grade"]["score"] == "96"
    assert "客户投诉率" in as_json(revisions)


# --- finding ----------------------------------------------------------------------------------------------------------


def records(path: Path, entries: Sequence[Entry]) -> Path:
    path.write_bytes(b"".join(wire(entry) + b"\n" for entry in entries))
    return path


def test_a_decision_is_found_in_a_file_with_its_revisions_in_order(tmp_path: Path) -> None:
    one, two = decision(), decision(revision=2)
    file = records(tmp_path / "decisions.jsonl", [two, decision(id="d-other", reverses=one.id), one, two])
    assert find_in_file(file, one.id) == [one, two]


def test_a_folder_of_replay_is_searched_by_the_kind_of_the_id(tmp_path: Path) -> None:
    records(tmp_path / "decisions.jsonl", [decision()])
    records(tmp_path / "alerts.jsonl", [alert(), alert(state="resolved")])
    records(tmp_path / "grades.jsonl", [grade()])
    for entry, found in ((decision(), 1), (alert(), 2), (grade(), 1)):
        assert len(find_in_file(tmp_path, entry.id)) == found


def test_what_is_not_in_the_file_is_one_sentence(tmp_path: Path) -> None:
    file = records(tmp_path / "decisions.jsonl", [decision()])
    with pytest.raises(UsageError, match="has no entry 'd-unknown'") as raised:
        find_in_file(file, "d-unknown")
    assert raised.value.exit_code == 2
    with pytest.raises(UsageError, match="cannot be read"):
        find_in_file(tmp_path / "missing.jsonl", "d-unknown")
    file.write_text('{"id": "d-broken"}\n')
    with pytest.raises(UsageError, match=r"decisions\.jsonl:1: not a decision"):
        find_in_file(file, "d-broken")


def test_a_decision_is_found_in_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with pytest.raises(LedgerError, match="There is no ledger"):
        find_in_ledger(url, "d-1")
    upgrade(url)
    revisions = [decision(), decision(revision=2)]
    with Ledger(url) as ledger:
        ledger.write([*map(delivery, revisions), delivery(alert()), delivery(grade())])
    assert find_in_ledger(url, revisions[0].id) == revisions
    assert find_in_ledger(url, alert().id) == [alert()]
    assert find_in_ledger(url, grade().id) == [grade()]
    with pytest.raises(UsageError, match=r"The ledger sqlite:.* has no entry 'd-unknown'"):
        find_in_ledger(url, "d-unknown")
