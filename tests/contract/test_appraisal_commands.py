"""What people say by command reaches the score that is shown: broker, worker and payroll as in earnest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaohe.decisions import REJECT_DECODER
from kaohe.settings import Settings
from kaohe.stream.broker import end_process
from tests.support.office import DEADLINE_S, Office
from tests.support.workers import ROOT, reading, wait_until

SCORED = ROOT / "tests" / "packs" / "scored"


def wait_for(office: Office, score: str, grade: str) -> None:
    """Until the score is the one that is expected."""

    def shown() -> bool:
        office.fill()
        return office.score("a-1", "2026-02") == (score, grade)

    wait_until(shown, DEADLINE_S, f"the score {score} ({grade})")


@pytest.fixture
def office(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Office]:
    made = Office(settings, tmp_path, capsys, SCORED)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    try:
        yield made
    finally:
        end_process(made.worker.process, 10.0)


@pytest.mark.slow
def test_an_assessment_by_command_changes_the_score_that_is_shown(office: Office) -> None:
    office.tick("2026-02-04T09:00")
    roster = "superior=s-1 leader=l-1 team=t-1 department=east"
    office.say(f"record roster.changed a-1 {roster} --at 2026-02-01T08:00:00+08:00")
    said = office.say(
        "assess submit a-1 2026-02 --item attitude --role superior --score 8 --by s-1 --at 2026-02-03T09:00:00+08:00"
    )
    assert (said["data"]["score"], said["data"]["window"], said["data"]["pack"]) == (800, "month", "scored")
    # Quality 0.4 at 0.8, efficiency 0.25 and satisfaction 0.2 in full, of 0.85; nobody spoke about teamwork.
    wait_for(office, "90.59", "excellent")
    assert office.say("assess list a-1 --missing") == []

    # Somebody who is not the superior is refused, and nothing changes.
    office.say(
        "assess submit a-1 2026-02 --item attitude --role superior --score 1 --by s-9 --at 2026-02-03T10:00:00+08:00"
    )
    with reading(office.settings, "kaohe.rejects") as rejects:
        wait_until(lambda: bool(rejects.poll()), DEADLINE_S, "the reject")
        (refused,) = [REJECT_DECODER.decode(one.value or b"") for one in rejects.poll()]
    assert (refused.code, "s-9 is not the superior of a-1" in refused.reason) == ("not_allowed", True)
    office.fill()
    assert office.score("a-1", "2026-02") == ("90.59", "excellent")

    office.say("assess decide a-1 2026-02 --item attitude --score 2 --by l-1 --at 2026-02-03T11:00:00+08:00")
    wait_for(office, "62.35", "qualified")
    (line,) = [one for one in office.say("assess list 2026-02") if one["item"] == "attitude"]
    assert (line["decided_by"], line["share"]) == ("l-1", "0.2")
