"""``kaohe scorecard``: what is shown adds up, in both languages, from a replay's folder and from the ledger alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.cli import run
from kaohe.decisions import DECISION_DECODER, GRADE_DECODER
from kaohe.packs.load import load_pack
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import DECISIONS_TOPIC, GRADES_TOPIC, Delivery
from tests.support.packs import Story
from tests.unit.test_grading import SCORED, assess, decide, enrol


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a replay of a month writes."""
    story = Story(load_pack(SCORED))
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", grade="good")
    assess(story, "2026-02-03T10:00", "peer", "a-9", score=1000)
    story.tell("2026-02-04T09:00", "error.recorded", error_id="x-1")
    story.tell("2026-02-04T10:00", "error.recorded", error_id="x-2")
    story.tell("2026-02-05T09:00", "survey.cross_department", rating="excellent", by="west")
    story.tell("2026-02-06T09:00", "ticket.resolved", ticket_id="t-1", first_contact=True)
    decide(story, "2026-02-07T09:00", item="attitude", score=900)
    story.tick("2026-03-04T00:00")
    story.tick("2026-03-04T00:05")
    story.replay.finish()
    found = tmp_path_factory.mktemp("month")
    (found / "grades.jsonl").write_bytes(b"\n".join(story.replay.grades) + b"\n")
    (found / "decisions.jsonl").write_bytes(b"\n".join(story.replay.decisions) + b"\n")
    return found


def card(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["scorecard", "a-1", "2026-02", "--json", *arguments]) == 0
    (found,) = msgspec.json.decode(capsys.readouterr().out)["cards"]
    return found


def test_everything_shown_adds_up_to_the_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = card(capsys, "--from", str(folder))
    detail = found["grade"]["detail"]
    texts = [line["contribution"] for line in detail["lines"]] + list(detail["others"].values())
    exact = sum((Fraction(text.partition(" ")[0]) for text in texts), Fraction(0))
    assert exact == Fraction(detail["exact"].partition(" ")[0])
    assert round(exact, 2) == Fraction(found["grade"]["score"])
    assert found["grade"]["status"] == "final"
    assert sorted(found["grade"]["entries"]) == sorted(entry["id"] for entry in found["entries"])
    assert {(entry["clause"], entry["points"]) for entry in found["entries"]} == {
        ("SC-02", "-3"),
        ("SC-02", "2"),
    }
    assert [one["revision"] for one in found["history"]] == list(range(1, len(found["history"]) + 1))
    assert all(one["why"] and one["why_zh"] for one in found["history"])


def test_the_ledger_shows_what_the_folder_shows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("KAOHE_DATABASE_URL", url)
    upgrade(url)
    with Ledger(url) as ledger:
        for topic, file, decoder in (
            (GRADES_TOPIC, "grades.jsonl", GRADE_DECODER), (DECISIONS_TOPIC, "decisions.jsonl", DECISION_DECODER),
        ):  # fmt: skip
            lines = (folder / file).read_bytes().splitlines()
            ledger.write([Delivery(topic, 0, at, decoder.decode(line)) for at, line in enumerate(lines)])
    assert card(capsys) == card(capsys, "--from", str(folder))


@pytest.mark.parametrize(
    ("lang", "wanted"),
    [
        ("en", ["SC-01 Service quality  weight 0.4", "SC-02 Accuracy  0.4 of", "final word of l-1",
                "SC-06 Monitored contacts  no data: left out (0 of 2 contacts)",
                "entries outside the items (1)", "value 1 ratio"]),
        ("zh", ["SC-01 服务质量  权重 0.4", "质检得分  无数据：不计", "项目之外的条目 (1)", "指标值 1 ratio"]),
    ],
)  # fmt: skip
def test_a_card_is_told_in_both_languages(
    folder: Path, lang: str, wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scorecard", "a-1", "2026-02", "--from", str(folder), "--lang", lang]) == 0
    out = capsys.readouterr().out
    assert [text for text in wanted if text not in out] == [], out
    assert "a-9" not in out


def test_who_has_no_grade_is_told_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scorecard", "a-2", "2026-02", "--from", str(folder)]) == 2
    assert "has no grade of a-2 for 2026-02" in capsys.readouterr().err
    assert run(["scorecard", "a-1", "2026-02", "--pack", "kpi", "--from", str(folder)]) == 2
    assert "under kpi" in capsys.readouterr().err
    assert run(["scorecard", "a-1", "2026-02", "--from", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
