"""Appeals and periods by command: what they take back, change and open again stands in the ledger and in the lists."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaohe.decisions import decision_id
from kaohe.settings import Settings
from kaohe.stream.broker import end_process
from tests.support.office import DEADLINE_S, Office
from tests.support.workers import ROOT, wait_until

Open = Callable[[str], Office]


@pytest.fixture
def opened(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Open]:
    """Opens an office under one of our packs; its worker ends with the test."""
    with contextlib.ExitStack() as left:

        def office(pack: str) -> Office:
            made = Office(settings, tmp_path, capsys, ROOT / "rules" / pack)
            left.callback(end_process, made.worker.process, 10.0)
            for name, value in made.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.chdir(tmp_path)
            return made

        yield office


def until(office: Office, what: str, shown: Callable[[], bool]) -> None:
    """Wait until the ledger shows what is expected."""

    def look() -> bool:
        office.fill()
        return shown()

    wait_until(look, DEADLINE_S, what)


def appeals(office: Office) -> dict[str, tuple[str, list[str]]]:
    """How the appeals stand: by id, the state and what was taken back."""
    return {one["appeal"]: (one["state"], one["reversed"]) for one in office.say("appeal list --agent a-1")}


def breach(number: int) -> str:
    return decision_id(
        "front-desk", "fd-flow-breach", "0", "agent", "a-1", "month", "2026-08", f"au-{number}", ""
    )


def appeal(office: Office, name: str, against: str, decision: str) -> None:
    """All steps of an appeal, a minute after each other."""
    steps = (
        f"file a-1 --id {name} --against {against} --text Not-me", f"accept a-1 {name} --by hr-1 --reason A-witness",
        f"hear a-1 {name} --who employee", f"hear a-1 {name} --who supervisor --by m-2",
        f"decide a-1 {name} --by gm-1 --reason Seen {decision}",
    )  # fmt: skip
    for minute, step in enumerate(steps):
        office.say(f"appeal {step} --at 2026-08-04T09:0{minute}:00+08:00")


@pytest.mark.slow
def test_an_appeal_by_command_takes_back_what_was_wrong(opened: Open) -> None:
    office = opened("front-desk")
    office.tick("2026-08-04T10:00")
    for number in (1, 2, 3):
        office.say(
            f"record flow.audited a-1 audit_id=au-{number} steps_checked=10 steps_followed=9 --id audit-{number} "
            f"--at 2026-08-03T09:0{number}:00+08:00"
        )
    until(office, "three breaches", lambda: office.score("a-1", "2026-08") == ("94", "B"))
    appeal(office, "ap-1", breach(1), "--upheld --responsible q-4")
    appeal(office, "ap-2", breach(2), "--upheld --remains 0.5")
    appeal(office, "ap-3", breach(3), "--dismissed")
    office.say(f"appeal file a-1 --id ap-4 --against {breach(1)} --text Again --at 2026-08-04T09:30:00+08:00")
    # Two points are back, and one and a half of two more; the third two stay.
    until(office, "the score after the appeals", lambda: office.score("a-1", "2026-08") == ("97.5", "A"))
    until(office, "the refusal", lambda: len(appeals(office)) == 4)
    assert appeals(office) == {
        "ap-1": ("upheld", [breach(1)]), "ap-2": ("partly upheld", [breach(2)]), "ap-3": ("dismissed", []),
        "ap-4": ("refused", []),
    }  # fmt: skip
    assert [one["appeal"] for one in office.say("appeal list --state dismissed")] == ["ap-3"]
    shown = office.say(f"explain {breach(1)}")
    assert breach(1) in json.dumps(shown)

    # The month is closed three days before its grace is over.
    office.tick("2026-09-01T10:00")
    office.say("period close front-desk 2026-08 --by hr-1 --reason Complete --at 2026-09-01T10:00:00+08:00")
    until(office, "the closed month", lambda: state(office, "front-desk") == ("closed", 1))


def state(office: Office, pack: str) -> tuple[str, int]:
    """How August stands for people: its state, and how many grades are final."""
    found = [
        (one["state"], one["final"])
        for one in office.say(f"period status --pack {pack}")
        if (one["period"], one["level"]) == ("2026-08", "agent")
    ]
    return found[0] if found else ("", 0)


def survey(office: Office, number: int, satisfaction: str) -> Any:
    return office.say(
        f"record survey.customer a-1 satisfaction={satisfaction} --id survey-{number} "
        f"--at 2026-08-20T09:{number:02}:00+08:00"
    )


@pytest.mark.slow
def test_a_period_that_is_opened_again_by_command_counts_what_comes_late(opened: Open) -> None:
    office = opened("company-kpi")
    office.tick("2026-08-21T09:00")
    for number in range(6):
        survey(office, number, "dissatisfied")
    office.tick("2026-09-09T09:00")
    until(office, "the closed month", lambda: state(office, "company-kpi") == ("closed", 1))
    assert office.score("a-1", "2026-08") == ("0", "D")

    order = "company-kpi 2026-08 --by hr-1 --reason Lost-surveys"
    office.say(f"period reopen {order} --at 2026-09-09T09:00:00+08:00")
    until(office, "the open month", lambda: state(office, "company-kpi") == ("open", 1))
    assert {
        (one["opened_by"], one["opened_why"]) for one in office.say("period status") if one["opened_by"]
    } == {("hr-1", "Lost-surveys")}
    for number in range(10, 50):
        survey(office, number, "very_satisfied")
    office.tick("2026-09-09T09:20")
    office.tick("2026-09-09T09:40")
    until(office, "the grade of the month", lambda: office.score("a-1", "2026-08")[1] != "D")
    raised = office.score("a-1", "2026-08")
    withdrawn = [one for one in ledger(office) if one["rule"] == "ck-observation"]
    assert sorted(one["kind"] for one in withdrawn) == ["proposal", "waive"]

    office.say(f"period close {order} --at 2026-09-09T09:40:00+08:00")
    survey(office, 55, "dissatisfied")
    office.tick("2026-09-09T10:20")
    office.tick("2026-09-09T10:40")
    office.fill()
    assert office.score("a-1", "2026-08") == raised
    assert state(office, "company-kpi") == ("closed", 1)


def ledger(office: Office) -> list[dict[str, Any]]:
    """The newest revisions of everything about a-1."""
    found: list[dict[str, Any]] = office.say("ledger show --agent a-1")["entries"]
    return found
