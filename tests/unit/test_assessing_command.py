"""``kaohe assess``: what the pack refuses is said before anything is sent, and the list tells whose word is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.cli.assessing import case_of, hundredths, in_force
from kaohe.core.calendars import window_of
from kaohe.core.pay import fact_of
from kaohe.decisions import GRADE_DECODER
from kaohe.errors import UsageError
from kaohe.packs.load import load_pack
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import GRADES_TOPIC, Delivery, PayDelivery
from tests.support.packs import Story
from tests.unit.test_grading import SCORED, assess, decide, enrol

SUBMIT = "assess submit a-1 2026-02 --item attitude --role superior --by s-1"
DECIDE = "assess decide a-1 2026-02 --by l-1"


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pack alone; there is no broker, so that nothing can be sent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_PACKS", str(SCORED))
    monkeypatch.setenv("KAOHE_BROKER", "127.0.0.1:1")


@pytest.fixture
def ledger(scored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people on the roster: one about whom people were heard, one about whom nobody said anything."""
    story = Story(load_pack(SCORED))
    enrol(story)
    enrol(story, "2026-02-01T09:00", "a-2")
    assess(story, "2026-02-03T09:00", "peer", "a-9", score=1000)
    assess(story, "2026-02-03T10:00", "peer", "a-8", score=900)
    decide(story, "2026-02-07T09:00", item="cooperation", score=800)
    story.replay.finish()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("KAOHE_DATABASE_URL", url)
    upgrade(url)
    grades = [GRADE_DECODER.decode(raw) for raw in story.replay.grades]
    roster = [
        story.event("2026-02-01T08:00", "roster.changed", agent, id=f"r-{agent}") for agent in ("a-1", "a-2")
    ]
    facts = [
        PayDelivery("kaohe.events", 0, at, one.id, fact_of(one, one.id), one) for at, one in enumerate(roster)
    ]
    with Ledger(url) as opened:
        opened.write([Delivery(GRADES_TOPIC, 0, at, one) for at, one in enumerate(grades)], pay=facts)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f"{SUBMIT} --score 11", "--score: 11 points are more than the 10 that attitude is worth."),
        (f"{SUBMIT} --score -1", "'-1' is no number of points"),
        (f"{SUBMIT} --score 1.234", "'1.234' is no number of points"),
        (f"{SUBMIT} --score NaN", "'NaN' is no number of points"),
        (SUBMIT, "say what it is worth: either --score or --word."),
        (f"{SUBMIT} --score 1 --word good", "say what it is worth: either --score or --word."),
        (f"{SUBMIT} --word splendid", "--word: attitude knows no word 'splendid'; say one of"),
        (
            f"{SUBMIT.replace('attitude', 'atitude')} --score 1",
            "nobody assesses 'atitude'; did you mean 'attitude'?",
        ),
        (f"{SUBMIT.replace('attitude', 'solving')} --score 1", "nobody assesses 'solving'"),
        (f"{SUBMIT.replace('attitude', 'cooperation')} --score 1", "superior is not heard about cooperation"),
        (f"{SUBMIT.replace('superior', 'cook')} --score 1", "Invalid value for '--role'"),
        (f"{SUBMIT} --score 1 --pack nope", "there is no pack 'nope' here; write one of scored"),
        (f"{SUBMIT.replace('2026-02', '202602')} --score 1", "'202602' is no period"),
        (f"{SUBMIT.replace('2026-02', '2026-W06')} --score 1", "lacks a scorecard of each agent and week"),
        (f"{SUBMIT.replace('2026-02', '1999-02')} --score 1", "lacks a scorecard of each agent and month"),
        (f"{SUBMIT} --score 1 --at noon", "'noon' is no moment"),
        (DECIDE, "say what it is worth: either --score or --word."),
        (f"{DECIDE} --word best", "--word: there is no grade 'best'; say one of"),
        (f"{DECIDE} --score 99 --word good", "--score and --word: a score of 99 is a excellent, not a good"),
        (f"{DECIDE} --item attitude --score 12", "12 points are more than the 10 that attitude is worth"),
        ("assess list 2026-13", "'2026-13' is no month"),
        ("assess list a-1 --period soon", "'soon' is no period"),
    ],
)
def test_what_the_pack_refuses_is_said_in_one_sentence(
    scored: None, line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_what_is_right_goes_to_the_broker(scored: None, capsys: pytest.CaptureFixture[str]) -> None:
    """There is none here: that it is away is the first thing that is wrong."""
    assert run(f"{SUBMIT} --score 8.5".split()) == 1
    assert "No broker answers at 127.0.0.1:1" in capsys.readouterr().err


def test_points_are_exact_hundredths() -> None:
    assert [hundredths(text) for text in ("0", "8.5", "0.01", "100", "8.50")] == [0, 850, 1, 10_000, 850]
    with pytest.raises(UsageError):
        hundredths("100.01")


def test_the_kind_of_a_period_is_told_by_its_label() -> None:
    labels = ("2026-08-03", "2026-W32", "2026-08", "2026-Q3", "2026")
    assert [window_of(label) for label in labels] == ["day", "week", "month", "quarter", "year"]
    for wrong in ("2026-00", "2026-Q5", "26", "", "2026-W99"):
        with pytest.raises(UsageError):
            window_of(wrong)


def test_the_pack_is_named_where_two_have_such_an_item() -> None:
    pack = load_pack(SCORED)
    other = type(pack)(**{name: getattr(pack, name) for name in pack.__struct_fields__} | {"name": "other"})
    with pytest.raises(UsageError, match="--pack is missing; it is one of other, scored"):
        case_of([pack, other], "", "agent", "month", "2026-02", "attitude")
    assert case_of([pack, other], "other", "agent", "month", "2026-02", "attitude").pack is other
    newer = type(pack)(**{name: getattr(pack, name) for name in pack.__struct_fields__} | {"version": "9.0"})
    assert [one.version for one in in_force([pack, newer], pack.in_force_from)] == ["9.0"]


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[tuple[str, str], Any]:
    assert run(["assess", "list", *arguments, "--json"]) == 0
    return {(one["subject"], one["item"]): one for one in json.loads(capsys.readouterr().out)}


def test_the_list_tells_who_was_heard_and_who_was_not(
    ledger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(capsys, "2026-02")
    assert set(found) == {(who, item) for who in ("a-1", "a-2") for item in ("attitude", "cooperation")}
    attitude = found["a-1", "attitude"]
    assert (attitude["heard"], attitude["missing"], attitude["share"]) == ({"peer": 2}, ["superior"], "")
    assert set(attitude["silent"]) == {"self", "leader"} & set(attitude["silent"])
    assert "self" in attitude["silent"]
    assert found["a-1", "cooperation"]["decided_by"] == "l-1"
    assert found["a-2", "attitude"]["missing"] == ["superior"]
    assert found["a-2", "attitude"]["heard"] == {}


def test_the_list_can_be_of_one_person_or_of_what_is_missing(
    ledger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {who for who, _ in listed(capsys, "a-1")} == {"a-1"}
    assert {who for who, _ in listed(capsys, "a-2", "--period", "2026-02")} == {"a-2"}
    assert set(listed(capsys, "2026-02", "--missing")) == {("a-1", "attitude"), ("a-2", "attitude")}
    assert run(["assess", "list", "2026-02"]) == 0
    assert "final word of l-1" in capsys.readouterr().out
    assert run(["assess", "list", "2025-02"]) == 0
    assert "nothing to be assessed" in capsys.readouterr().err
