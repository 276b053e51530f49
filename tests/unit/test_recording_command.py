"""``kaohe record``: every type that people may write can be written, and what does not fit is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from kaohe.cli import run
from kaohe.cli.recording import described, own_command, read_fields, recordable
from kaohe.events import DERIVED, PAYLOADS, decode, encode, make
from tests.support.packs import at

VALUES = {
    "text": "x", "whole number": "7", "true or false": "true", "day, as 2026-08-03": "2026-08-03",
    "time of day, as 09:30": "09:30", "month, as 2026-08": "2026-08", "currency, as CNY": "CNY",
    "hundredths of a point: 8750 is 87.5": "8750", "milliseconds": "90000", "minor units: 1250 is 12.50": "1250",
    "pseudonym: c- and hexadecimal digits": "c-0123456789abcdef", "several, comma between them": "one, two",
    "moment, as 2026-08-03T09:00:00+08:00": "2026-08-03T09:00:00+08:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_BROKER", "127.0.0.1:1")


def test_every_type_can_be_recorded_here_or_has_a_command_of_its_own() -> None:
    left = set(PAYLOADS) - set(recordable()) - DERIVED
    assert left == {tag for tag in PAYLOADS if own_command(tag)} - DERIVED
    assert {
        "goal.proposed", "goal.signed", "interview.held", "improvement.planned", "improvement.done",
        "exemption.granted", "leave.approved", "task.completed", "alert.acknowledged", "result.announced",
    } <= set(recordable())  # fmt: skip


@pytest.mark.parametrize("tag", recordable())
def test_all_fields_of_a_type_can_be_given_as_they_are_described(tag: str) -> None:
    told = described(tag)
    assert told.meaning
    given = [f"{one.name}={VALUES.get(one.form, one.form.split(' | ')[0])}" for one in told.fields]
    subject, data = read_fields(told, given)
    assert subject == "x"
    payload = msgspec.convert(data, PAYLOADS[tag])
    event = make(tag, id="e", source="test", subject=subject, time=at("2026-08-03T09:00"), data=payload)
    assert decode(encode(event)) == event
    unset = [name for name in payload.__struct_fields__ if getattr(payload, name) in (None, "")]
    assert unset == []


def test_who_comes_first_is_the_agent_and_a_group_may_stand_for_one() -> None:
    told = described("meeting.held")
    assert read_fields(told, ["a-1", "meeting_id=m"]) == ("a-1", {"agent": "a-1", "meeting_id": "m"})
    assert read_fields(told, ["meeting_id=m", "site=s", "team=t"])[0] == "t"
    assert read_fields(told, ["meeting_id=m=1", "team=t"])[1]["meeting_id"] == "m=1"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "record goal.sined a-1",
            "there is no event type 'goal.sined' to record; did you mean 'goal.signed'?",
        ),
        ("record goal.agreed a-1 goal_id=g", "there is no event type 'goal.agreed' to record"),
        ("record appeal.filed a-1", "appeal.filed has a command of its own: kaohe appeal."),
        ("record clock.tick", "clock.tick has a command of its own: kaohe clock."),
        ("record goal.signed a-1 who=employee", "goal.signed lacks goal_id=...."),
        ("record goal.signed a-1 goal_id= who=employee", "goal.signed lacks goal_id=...."),
        (
            "record goal.signed a-1 goal=g who=employee",
            "goal.signed has no field 'goal'; did you mean 'goal_id'?",
        ),
        (
            "record goal.signed a-1 goal_id=g who=boss",
            "who='boss' is not right; it is written as employee | superv",
        ),
        ("record goal.signed a-1 goal_id=g who", "'who' is no field; write FIELD=VALUE"),
        ("record goal.signed a-1 goal_id=g goal_id=h who=employee", "goal_id is given twice."),
        ("record goal.signed goal_id=g who=employee", "whose event is it? Name the agent first"),
        (
            "record survey.customer a-1 satisfaction=neutral customer=13800138000",
            "customer must be a pseudonym",
        ),
        (
            "record task.assigned a-1 task_id=t due_at=2026-08-03",
            "it is written as moment, as 2026-08-03T09:00:00",
        ),
        ("record goal.signed a-1 goal_id=g who=employee --at x", "'x' is no moment"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_types_and_fields_can_be_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record"]) == 0
    assert "exemption.granted" in capsys.readouterr().out
    assert run(["record", "--json"]) == 0
    assert [one["type"] for one in json.loads(capsys.readouterr().out)] == recordable()
    assert run(["record", "goal.signed"]) == 0
    assert "employee | supervisor" in capsys.readouterr().out
    assert run(["record", "goal.signed", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)["fields"]
    assert [one["name"] for one in fields if one["required"]] == ["goal_id", "who"]


def test_what_fits_goes_to_the_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record", "goal.signed", "a-1", "goal_id=g", "who=employee"]) == 1
    assert "No broker answers at 127.0.0.1:1" in capsys.readouterr().err
