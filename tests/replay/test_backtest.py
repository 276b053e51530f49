"""``kaohe backtest``: a changed pack against a recorded log, checked by sums over two replays of their own."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from tests.packs.patching import patched

RULES = Path(__file__).parents[2] / "rules"
PACK = "logistics-service"
UNTIL = ("--until", "2026-09-05")
STEP = """客户满意度每低一个百分点扣分}}
  unit: points
  min: 0
  max: 20
  values: {{2020-01-01: {points}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated log, and a pack in which dissatisfied customers cost twice as much, and an A is harder."""
    made = tmp_path_factory.mktemp("backtest")
    log = str(made / "log.jsonl")
    assert run(["simulate", "--seed", "7", "--agents", "6", "--days", "4", "--out", log]) == 0
    changed = made / "drafts" / PACK
    shutil.copytree(RULES / PACK, changed)
    for file, old, new in (
        ("pack.yaml", 'version: "1.0"', 'version: "1.1"'),
        ("parameters.yaml", "{A: 95, B: 85, C: 70, D: 0}", "{A: 97, B: 85, C: 70, D: 0}"),
        ("parameters.yaml", STEP.format(points=1), STEP.format(points=2)),
    ):
        text = (changed / file).read_text(encoding="utf-8")
        assert old in text, old
        (changed / file).write_text(
            text.replace(old, new, 1), encoding="utf-8"
        )  # the month's bands come first
    return made


def backtest(folder: Path, *more: str, new: str = "", old: str = PACK) -> int:
    pack = new or str(folder / "drafts" / PACK)
    return run(["backtest", "--pack", pack, "--against", old, "--events", str(folder / "log.jsonl"), *more])


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """The comparison as a document."""
    assert backtest(folder, *UNTIL, "--out", str(folder / "out")) == 0
    document: dict[str, Any] = json.loads((folder / "out" / "backtest.json").read_bytes())
    return document


def replayed(folder: Path, pack: str, name: str) -> tuple[dict[tuple[str, str], Fraction], dict[str, str]]:
    """Points by person and rule, and the grade of each person, from the files of a replay."""
    out = folder / name
    log = str(folder / "log.jsonl")
    assert run(["replay", log, "--adapter", "events", "--pack", pack, "--out", str(out), *UNTIL]) == 0
    rows = [json.loads(line) for line in (out / "decisions.jsonl").read_bytes().splitlines()]
    newest = {row["id"]: row for row in rows}.values()
    points: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for row in newest:
        if Fraction(row["points"]):
            points[row["subject"], row["rule"]] += Fraction(row["points"])
    grades = [json.loads(line) for line in (out / "grades.jsonl").read_bytes().splitlines()]
    return points, {row["subject"]: row["grade"] for row in grades}


def test_the_differences_are_those_of_two_replays(folder: Path, whole: dict[str, Any]) -> None:
    old, old_grades = replayed(folder, PACK, "old")
    new, new_grades = replayed(folder, str(folder / "drafts" / PACK), "new")
    assert old != new
    assert old_grades != new_grades
    lines = {
        (one["subject"], one["rule"]): (Fraction(one["points"]["old"]), Fraction(one["points"]["new"]))
        for one in whole["lines"]
    }
    expected = {
        key: (old.get(key, Fraction(0)), new.get(key, Fraction(0))) for key in old.keys() | new.keys()
    }
    # A task is worth no points: it has a line, but nothing that a sum could show.
    assert {key: one for key, one in lines.items() if any(one)} == {
        key: one for key, one in expected.items() if any(one)
    }
    grades = {one["subject"]: (one["old_grade"], one["new_grade"]) for one in whole["subjects"]}
    assert grades == {name: (old_grades[name], new_grades[name]) for name in old_grades}
    total = whole["summary"]["points"]
    assert (Fraction(total["old"]), Fraction(total["new"])) == (sum(old.values()), sum(new.values()))
    assert Fraction(total["change"]) == sum(new.values()) - sum(old.values())


def test_sums_by_person_by_rule_and_in_all_agree(whole: dict[str, Any]) -> None:
    for side in ("old", "new"):
        total = Fraction(whole["summary"]["points"][side])
        for part in ("subjects", "rules", "lines"):
            assert sum(Fraction(one["points"][side]) for one in whole[part]) == total, part
    assert whole["summary"]["differing"] == sum(one["differs"] for one in whole["subjects"]) > 0
    assert sum(whole["summary"]["grade_changes"].values()) == sum(
        one["old_grade"] != one["new_grade"] for one in whole["subjects"]
    )


def test_the_same_pack_differs_in_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert backtest(folder, new=str(RULES / PACK)) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert ": 0 of 6 assessments differ" in out


def test_files_document_and_picture_are_the_same_bytes_again(
    folder: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        assert backtest(folder, *UNTIL, "--out", str(tmp_path / "out"), "--plot", str(picture), "--json") == 0
        assert json.loads(capsys.readouterr().out) == whole
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    drawn = pictures[0].read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    for text in (
        "logistics-service@1.1 against logistics-service@1.0",
        "ls-satisfaction",
        "points by person",
    ):
        assert text in drawn
    for name in ("backtest.json", "subjects.csv", "rules.csv", "lines.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "out" / name).read_bytes(), name
    with (tmp_path / "out" / "subjects.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["points_change"] for row in rows] == [one["points"]["change"] for one in whole["subjects"]]


def test_the_tables_name_who_gains_and_which_rule_did_it(
    folder: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert backtest(folder, *UNTIL, "--period", "2026-08") == 0
    lines = capsys.readouterr().out.splitlines()
    differing = [one["subject"] for one in whole["subjects"] if one["differs"] and one["period"] == "2026-08"]
    assert f"{len(differing)} of 6 assessments differ" in lines[0]
    for name in differing:
        assert any(line.startswith(name) for line in lines)
    rules = [one["rule"] for one in whole["rules"] if one["differs"]]
    assert rules == ["ls-satisfaction"]
    assert any(line.startswith("ls-satisfaction") for line in lines)
    assert not any("pay" in line for line in lines)


def test_other_packs_can_judge_beside_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert backtest(folder, *UNTIL, "--beside", "front-desk", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["beside"] == ["front-desk@1.0"]
    assert any(one["rule"].startswith("fd-") for one in document["rules"])
    assert not any(one["differs"] for one in document["rules"] if one["rule"].startswith("fd-"))
    # Both packs grade the month; each against itself.
    packs = {
        (one["subject"], one["pack"]): (one["old_grade"], one["new_grade"]) for one in document["subjects"]
    }
    assert {pack for _, pack in packs} == {"", "front-desk"}
    assert any(old != new for (_, pack), (old, new) in packs.items() if not pack)
    assert not any(old != new for (_, pack), (old, new) in packs.items() if pack)
    assert document["summary"]["subjects"] == 12, "six people, each with a month and a year that has begun"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--period", "2026-13"), "nothing was decided about the period '2026-13' in this log"),
        (("--plot", "picture.txt"), "is no picture; let the name end with .svg, .png, .pdf"),
        (("--plot", "nowhere/at/all.svg"), "its folder is not there"),
        (("--until", "2020-01-01"), "--until lies before the end of the log"),
        (("--beside", "nope"), "there is no pack 'nope'"),
        (("--adapter", "csv"), "the adapters are anonymous-bank, events"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_2(
    folder: Path, more: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert backtest(folder, *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err


def test_without_matplotlib_the_sentence_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    capsys.readouterr()
    assert backtest(folder, "--plot", str(tmp_path / "picture.svg")) == 2
    assert "pip install 'kaohe[plot]'" in capsys.readouterr().err


# --- pay --------------------------------------------------------------------------------------------------------------


def paid_log(file: Path) -> None:
    """Two people with 5,000.00 a month and one without stated pay; a-1 and a-3 let callers wait too long."""
    events: list[dict[str, Any]] = []

    def tell(kind: str, agent: str, at: str, **data: Any) -> None:
        number = len(events)
        events.append({
            "specversion": "1.0", "id": f"e-{number}", "source": "test", "type": kind, "subject": agent,
            "time": f"2026-08-{at}+08:00", "data": {"agent": agent} | data,
        })  # fmt: skip

    for agent in ("a-1", "a-2"):
        tell("roster.changed", agent, "01T08:00:00", team="blue", pay_base_minor=500_000)
    for agent, wait_ms in (("a-1", 70_000), ("a-2", 1_000), ("a-3", 70_000)):
        tell("call.answered", agent, "03T09:00:00", call_id=f"c-{agent}", queue="q", wait_ms=wait_ms)
    file.write_text("".join(json.dumps(one) + "\n" for one in events), encoding="utf-8")


def test_pay_is_settled_under_both_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Worked out by hand: 10 % of 5,000.00 depend on the grade; an A earns 100 % and a bonus of 10 %, a B 70 %."""
    log = tmp_path / "log.jsonl"
    paid_log(log)
    old = patched("with pay\n", tmp_path / "old")
    milder = "with pay\nrules.yaml\n-    - grade: {at_most: B}\n"
    new = patched(milder, tmp_path / "new")
    arguments = ["backtest", "--pack", str(new), "--against", str(old), "--events", str(log), *UNTIL]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    people = {one["subject"]: one for one in document["subjects"] if one["level"] == "agent"}
    assert {name: (one["old_grade"], one["new_grade"]) for name, one in people.items()} == {
        "a-1": ("B", "A"), "a-2": ("A", "A"), "a-3": ("B", "A"),
    }  # fmt: skip
    assert people["a-1"]["money"] == {
        "currency": "CNY", "old_minor": 450_000 + 35_000, "new_minor": 450_000 + 50_000 + 5_000,
        "change_minor": 20_000,
    }  # fmt: skip
    assert people["a-2"]["money"]["old_minor"] == people["a-2"]["money"]["new_minor"] == 505_000
    assert people["a-3"]["money"] is None
    assert document["summary"]["money"]["change_minor"] == 20_000
    assert not people["a-2"]["differs"]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "pay: 9900.00 CNY -> 10100.00 CNY (+200.00)" in out
    assert "4850.00 CNY -> 5050.00 CNY (+200.00)" in out
