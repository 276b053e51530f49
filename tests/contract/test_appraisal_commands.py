"""What people say by command reaches the score that is shown: broker, worker and payroll as in earnest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.decisions import REJECT_DECODER
from kaohe.payroll.consumer import run_payroll
from kaohe.settings import Settings
from kaohe.stream.broker import end_process
from kaohe.stream.produce import produce, tick_entry
from kaohe.stream.topics import security_config
from tests.support.packs import at
from tests.support.workers import ROOT, Child, reading, wait_until

SCORED = ROOT / "tests" / "packs" / "scored"
IDLE_S = 1.0
DEADLINE_S = 90.0


class Office:
    """A worker with one pack, a ledger, and the commands against one broker."""

    def __init__(self, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = settings
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self._capsys = capsys
        own = {
            "KAOHE_PACKS": str(SCORED), "KAOHE_METRICS_PORT": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT)]),
        }  # fmt: skip
        self.worker = Child(["kaohe", "worker"], own, settings, folder, "worker", folder)

    def fill(self) -> None:
        """Let payroll read until the topics are silent."""
        assert self.worker.running, self.worker.said()
        deadline_s = time.monotonic() + DEADLINE_S
        run_payroll(
            self.settings.broker, security_config(self.settings.security), self.url,
            stop=lambda: time.monotonic() > deadline_s, until_idle_s=IDLE_S,
            group_id=f"{self.settings.group_id}-payroll",
        )  # fmt: skip

    def say(self, line: str) -> Any:
        """Run a command with --json that succeeds; its document."""
        code = run([*line.split(), "--json"])
        told = self._capsys.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    def score(self) -> tuple[str, str]:
        """The newest score and grade of a-1 as the command shows them; nothing before there is one."""
        code = run(["scorecard", "a-1", "2026-02", "--json"])
        told = self._capsys.readouterr()
        if code:
            assert "has no grade" in told.err, told.err
            return "", ""
        (card,) = json.loads(told.out)["cards"]
        return card["grade"]["score"], card["grade"]["grade"]

    def wait_for(self, score: str, grade: str) -> None:
        """Until the score is the one that is expected."""

        def shown() -> bool:
            self.fill()
            return self.score() == (score, grade)

        wait_until(shown, DEADLINE_S, f"the score {score} ({grade})")


@pytest.fixture
def office(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Office]:
    made = Office(settings, tmp_path, capsys)
    for name, value in {
        "KAOHE_BROKER": settings.broker, "KAOHE_DATABASE_URL": made.url, "KAOHE_PACKS": str(SCORED),
        "KAOHE_GROUP_ID": settings.group_id,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    try:
        yield made
    finally:
        end_process(made.worker.process, 10.0)


@pytest.mark.slow
def test_an_assessment_by_command_changes_the_score_that_is_shown(office: Office) -> None:
    produce(office.settings, [tick_entry(at("2026-02-04T09:00"))])
    roster = "superior=s-1 leader=l-1 team=t-1 department=east"
    office.say(f"record roster.changed a-1 {roster} --at 2026-02-01T08:00:00+08:00")
    said = office.say(
        "assess submit a-1 2026-02 --item attitude --role superior --score 8 --by s-1 --at 2026-02-03T09:00:00+08:00"
    )
    assert (said["data"]["score"], said["data"]["window"], said["data"]["pack"]) == (800, "month", "scored")
    # Quality 0.4 at 0.8, efficiency 0.25 and satisfaction 0.2 in full, of 0.85; nobody spoke about teamwork.
    office.wait_for("90.59", "excellent")
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
    assert office.score() == ("90.59", "excellent")

    office.say("assess decide a-1 2026-02 --item attitude --score 2 --by l-1 --at 2026-02-03T11:00:00+08:00")
    office.wait_for("62.35", "qualified")
    (line,) = [one for one in office.say("assess list 2026-02") if one["item"] == "attitude"]
    assert (line["decided_by"], line["share"]) == ("l-1", "0.2")
