"""``kaohe rejects``: what was refused is read back once, with its reason, and without anything in clear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaohe.cli import run
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.records import Record
from kaohe.events import encode
from kaohe.packs.load import load_pack
from kaohe.settings import Settings
from kaohe.stream.produce import Entry, produce
from tests.support.packs import Story
from tests.unit.test_grading import SCORED


def test_what_was_refused_is_told_with_its_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_BROKER", settings.broker)
    monkeypatch.setenv("KAOHE_GROUP_ID", settings.group_id)
    assert run(["rejects"]) == 0
    assert "nothing was refused" in capsys.readouterr().err

    pack = load_pack(SCORED)
    story = Story(pack)
    about = {"pack": "scored", "window": "month", "period": "2026-02", "item": "attitude", "role": "superior"}
    refused = story.event(
        "2026-02-03T09:00", "assessment.submitted", "a-1", by="s-9", score=100, id="x-1", **about
    )
    engine = PartitionEngine([pack], zones=Zones("Asia/Shanghai"))
    outputs = engine.apply([Record(0, encode(refused), None, 0), Record(1, b"no event", None, 0)])
    values = [one.value for one in outputs if one.topic == "rejects"]
    assert len(values) == 2
    # The first of them comes again after a crash.
    produce(settings, [Entry(one, "rejects", None, "kaohe.rejects") for one in (*values, values[0])])
    assert run(["rejects", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["code"], one["id"], one["subject"], one["type"]) for one in found] == [
        ("not_allowed", "x-1", "a-1", "assessment.submitted"), ("malformed", "", "", ""),
    ]  # fmt: skip
    assert "s-9 is not the superior of a-1" in found[0]["reason"]
    assert run(["rejects", "--subject", "a-1"]) == 0
    text = capsys.readouterr().out
    assert "not_allowed" in text
    assert "malformed" not in text
    assert run(["rejects", "--code", "malformed", "--last", "1", "--json"]) == 0
    assert [one["code"] for one in json.loads(capsys.readouterr().out)] == ["malformed"]
