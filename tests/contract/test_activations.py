"""``kaohe rules activate`` and ``activations``: an approved event in every partition, and what became of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.core.records import Record
from kaohe.decisions import REJECT_DECODER
from kaohe.events import PackActivated, decode, encode, make
from kaohe.packs.load import load_pack
from kaohe.settings import Settings
from kaohe.stream.activations import read_activations
from kaohe.stream.clock import tick
from kaohe.stream.produce import Entry, produce, tick_entry
from kaohe.stream.topics import EVENTS
from tests.support.packs import at, make_pack
from tests.support.workers import reading

PARAMETERS = """
fine:
  unit: points
  min: 0
  max: 20
  values: {2026-01-01: %s}
"""
METRICS = """
answered:
  count: call.answered
  level: [agent]
  windows: [month]
"""
RULES = """
- id: many
  level: [agent]
  judged: month
  when: answered.month > 3
  then: [{deduct: {points: p.fine}}]
"""
APPROVED = ("--by", "hr-07", "--reason", "Resolved on 3 September.")

Kaohe = Callable[..., int]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    folder = tmp_path_factory.mktemp("packs")
    older = make_pack(folder, parameters=PARAMETERS % 2, metrics=METRICS, rules=RULES)
    newer = make_pack(
        folder,
        parameters=PARAMETERS % 3,
        metrics=METRICS,
        rules=RULES,
        version="2.0",
        in_force_from="2026-02-01",
    )
    return older, newer


@pytest.fixture
def kaohe(
    settings: Settings, packs: tuple[Pack, Pack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Kaohe:
    """Run a command with both versions configured, as one that types nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_BROKER", settings.broker)
    monkeypatch.setenv("KAOHE_GROUP_ID", settings.group_id)
    monkeypatch.setenv("KAOHE_PACKS", ",".join(pack.folder for pack in packs))

    def command(*arguments: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return run(["rules", *arguments])

    return command


def values(settings: Settings) -> list[list[bytes]]:
    """What each partition of the events holds."""
    found: list[list[bytes]] = [[] for _ in range(settings.partitions)]
    with reading(settings, EVENTS) as reader:
        for record in reader.poll_to_end():
            assert record.value is not None
            found[record.partition].append(record.value)
    return found


def test_an_activation_is_in_every_partition_and_every_engine_follows_it(
    settings: Settings, packs: tuple[Pack, Pack], kaohe: Kaohe, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = at("2026-09-04T08:59:59")
    produce(settings, [tick_entry(begin)])
    assert kaohe("activate", "small", "2.0", *APPROVED, "--yes", "--at", "2026-09-04T09:00") == 0
    out = capsys.readouterr().out
    assert "from 2026-01-01: 2 -> 3" in out
    assert "rule many (A rule) deducts more" in out
    assert "small@2.0 was activated by hr-07 in 4 partitions: Resolved on 3 September." in out
    for number, found in enumerate(values(settings)):
        assert found[0] == tick(begin)
        (raw,) = found[1:]
        event = decode(raw)
        assert event.data == PackActivated(
            pack="small", version="2.0", by="hr-07", reason="Resolved on 3 September."
        )
        assert event.time == at("2026-09-04T09:00")
        engine = PartitionEngine(packs, zones=Zones("Asia/Shanghai"), partition=number)
        assert engine.judge.active["small"] == "1.0"
        engine.apply([Record(offset, one, None, 0) for offset, one in enumerate(found)])
        assert engine.judge.active["small"] == "2.0"
        assert engine.stats.rejects == {}
    assert len(set(map(tuple, values(settings)))) == 1


def test_what_judges_already_is_not_activated_again_and_back_is_a_new_event(
    settings: Settings, kaohe: Kaohe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kaohe("activate", "small", "1.0", *APPROVED, "--yes") == 0
    assert "small@1.0 judges already" in capsys.readouterr().err
    assert kaohe("activate", "small", "2.0", *APPROVED, "--yes") == 0
    assert kaohe("activate", "small", "2.0", *APPROVED, "--yes") == 0
    assert "small@2.0 judges already" in capsys.readouterr().err
    assert kaohe("activate", "small", "1.0", "--by", "hr-08", "--reason", "Too hard.", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["version"] == "1.0"
    assert [len(found) for found in values(settings)] == [2, 2, 2, 2]
    assert kaohe("activations", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["version"], one["by"], one["reason"], one["refused"]) for one in listed] == [
        ("2.0", "hr-07", "Resolved on 3 September.", ""),
        ("1.0", "hr-08", "Too hard.", ""),
    ]
    assert kaohe("activations") == 0
    assert "hr-08  Too hard." in capsys.readouterr().out


def test_the_question_is_asked_after_what_changes_was_shown(
    settings: Settings, kaohe: Kaohe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kaohe("activate", "small", "2.0", *APPROVED, typed="n\n") == 1
    captured = capsys.readouterr()
    assert "from 2026-01-01: 2 -> 3" in captured.out
    assert "Let small@2.0 judge from now on, in place of small@1.0?" in captured.err
    assert "nothing was activated" in captured.err
    assert kaohe("activate", "small", "2.0", *APPROVED) == 2
    assert "nobody answered; say --yes where nobody can." in capsys.readouterr().err
    assert values(settings) == [[], [], [], []]
    assert kaohe("activate", "small", "2.0", *APPROVED, typed="y\n") == 0
    assert [len(found) for found in values(settings)] == [1, 1, 1, 1]


def test_without_approver_reason_or_such_a_version_nothing_is_written(
    settings: Settings, kaohe: Kaohe, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        (("small", "2.0", "--by", " ", "--reason", "Why not."), "--by is empty"),
        (("small", "2.0", "--by", "hr-07", "--reason", ""), "--reason is empty"),
        (("small", "2.0", "--by", "hr-07"), "Missing option '--reason'"),
        (("small", "3.0", *APPROVED), "small@3.0 is not among the packs of this configuration"),
        (("small", "2.0", *APPROVED, "--at", "soon"), "'soon' is no moment"),
    ):
        assert kaohe("activate", *arguments, "--yes") == 2
        assert sentence in capsys.readouterr().err
    assert values(settings) == [[], [], [], []]


def test_refused_activations_are_listed_as_refused(
    settings: Settings, packs: tuple[Pack, Pack], kaohe: Kaohe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events that other programs write: one that nobody approved, and one of a version that no worker has."""
    begin = at("2026-09-04T09:00")
    entries = [tick_entry(begin)]
    for number, fields in enumerate(
        ({"version": "2.0"}, {"version": "9.9", "by": "hr-1", "reason": "A guess."})
    ):
        event = make(
            "pack.activated", id=f"o-{number}", source="other", subject="packs", time=begin,
            data=PackActivated(pack="small", **fields),
        )  # fmt: skip
        entries.append(Entry(encode(event), "packs", everywhere=True))
    produce(settings, entries)
    first = values(settings)[0]
    engine = PartitionEngine(packs, zones=Zones("Asia/Shanghai"))
    outputs = engine.apply([Record(offset, one, None, 0) for offset, one in enumerate(first)])
    rejects = [one.value for one in outputs if one.topic == "rejects"]
    assert [REJECT_DECODER.decode(one).code for one in rejects] == ["unapproved", "unknown_pack"]
    produce(settings, [Entry(one, "rejects", None, "kaohe.rejects") for one in rejects])
    found = read_activations(settings)
    assert [one.refused for one in found] == [
        "$.data.by is missing: an activation says who approved it",
        "small@9.9 is not loaded here; loaded: small@1.0, small@2.0",
    ]
    assert kaohe("activate", "small", "1.0", *APPROVED, "--yes") == 0
    assert "small@1.0 judges already" in capsys.readouterr().err


def test_a_recorded_activation_is_produced_into_every_partition(
    settings: Settings, kaohe: Kaohe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields: dict[str, Any] = {"pack": "small", "version": "2.0", "by": "hr-07", "reason": "A new quarter."}
    event = make(
        "pack.activated", id="o-1", source="other", subject="packs", time=at("2026-09-04T09:00"),
        data=PackActivated(**fields),
    )  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_bytes(encode(event) + b"\n")
    assert run(["produce", str(log), "--adapter", "events"]) == 0
    assert values(settings) == [[encode(event)]] * 4
    assert "1 events and 0 ticks" in capsys.readouterr().err
    for source in ((), ("--from", str(log))):
        assert kaohe("activations", "--json", *source) == 0
        (one,) = json.loads(capsys.readouterr().out)
        assert {name: one[name] for name in fields} == fields
    assert kaohe("activations", "--pack", "other") == 0
    assert "no version was activated" in capsys.readouterr().err


def test_both_versions_load_as_they_were_written(packs: tuple[Pack, Pack]) -> None:
    assert [load_pack(Path(pack.folder)).key for pack in packs] == ["small@1.0", "small@2.0"]
