"""``kaohe simulate``, ``kaohe replay`` and ``kaohe explain`` on files: canonical results, whatever the batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.cli import run
from kaohe.cli.replaying import _alert_order
from kaohe.decisions import Alert
from kaohe.packs.load import rules_dir

NAMES = ("decisions.jsonl", "alerts.jsonl", "grades.jsonl", "rejects.jsonl", "metrics.json", "summary.json")
PACKS = ("--pack", "front-desk", "--pack", "logistics-service")
JUNK = b'{"specversion":"1.0"}\nno event at all\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated log with two broken lines at its end."""
    made = tmp_path_factory.mktemp("replay")
    assert (
        run(["simulate", "--seed", "5", "--agents", "4", "--days", "3", "--out", str(made / "log.jsonl")])
        == 0
    )
    with (made / "log.jsonl").open("ab") as log:
        log.write(JUNK)
    return made


def replay(folder: Path, out: str, *more: str) -> Path:
    """Replay the log past the close of its month into ``out``."""
    arguments = [
        "replay",
        str(folder / "log.jsonl"),
        "--adapter",
        "events",
        *PACKS,
        "--out",
        str(folder / out),
    ]
    assert run([*arguments, "--until", "2026-09-05", *more]) == 0
    return folder / out


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The results of one replay."""
    return replay(folder, "whole")


def rows(file: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_metrics_can_be_left_out_and_nothing_else_changes(folder: Path, whole: Path) -> None:
    replay(folder, "bare")
    bare = replay(folder, "bare", "--no-metrics")
    assert {file.name for file in bare.iterdir()} == {*NAMES} - {"metrics.json"}
    for name in {*NAMES} - {"metrics.json"}:
        assert (bare / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("batch_size", ["1", "7", "100000"])
def test_batches_do_not_show_in_the_results(folder: Path, whole: Path, batch_size: str) -> None:
    other = replay(folder, f"by-{batch_size}", "--batch-size", batch_size)
    assert sorted(file.name for file in other.iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert (other / name).read_bytes() == (whole / name).read_bytes(), name
    assert (whole / "decisions.jsonl").stat().st_size > 0


def test_simulating_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    assert run(["simulate", "--seed", "5", "--agents", "4", "--days", "3", "--out", str(again)]) == 0
    assert again.read_bytes() + JUNK == (folder / "log.jsonl").read_bytes()


def test_broken_lines_are_rejected_with_line_and_reason(folder: Path, whole: Path) -> None:
    last = len((folder / "log.jsonl").read_bytes().splitlines())
    rejects = rows(whole / "rejects.jsonl")
    assert [(one["topic"], one["offset"]) for one in rejects] == [
        ("log.jsonl", last - 1),
        ("log.jsonl", last),
    ]
    assert all(one["reason"] and one["code"] for one in rejects)


def test_the_order_is_that_of_time(whole: Path) -> None:
    for name in ("decisions.jsonl", "alerts.jsonl", "grades.jsonl"):
        times = [one["at"] for one in rows(whole / name)]
        assert times == sorted(times), name


def test_what_two_sites_say_stands_in_the_order_of_the_instants(whole: Path) -> None:
    one = msgspec.json.decode((whole / "alerts.jsonl").read_bytes().splitlines()[0], type=Alert)
    shanghai = msgspec.structs.replace(one, at="2026-08-03T09:00:00+08:00", state="resolved")
    berlin = msgspec.structs.replace(one, at="2026-08-03T04:00:00+02:00", state="firing")
    assert sorted([berlin, shanghai], key=_alert_order) == [shanghai, berlin]


def test_metrics_are_a_list_of_whole_records(whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_bytes())
    fields = {
        "metric", "level", "subject", "window", "period", "value", "numerator", "denominator", "pack", "formula",
    }  # fmt: skip
    assert metrics
    assert {frozenset(one) for one in metrics} == {frozenset(fields)}
    assert {one["window"] for one in metrics} >= {"month"}
    assert any(one["period"] == "2026-08" for one in metrics)


def test_the_summary_adds_up_and_json_prints_it(
    folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    replay(folder, "as-json", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((whole / "summary.json").read_bytes())
    decisions = rows(whole / "decisions.jsonl")
    assert summary["decisions"]["revisions"] == len(decisions)
    assert summary["decisions"]["entries"] == len({one["id"] for one in decisions})
    assert summary["events"]["total"] == sum(summary["events"]["by_type"].values()) > 0
    assert summary["rejects"]["total"] == 2
    assert summary["grades"]["final"] > 0


def test_until_before_the_end_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = str(folder / "log.jsonl"), str(folder / "early")
    assert run(["replay", log, "--adapter", "events", *PACKS, "--out", out, "--until", "2020-01-01"]) == 2
    assert "--until lies before the end of the log" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = str(folder / "log.jsonl")
    assert run(["replay", log, "--adapter", "events", *PACKS, "--out", log]) == 2
    assert "it is a file" in capsys.readouterr().err


def test_a_decision_is_explained_from_the_results(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = rows(whole / "decisions.jsonl")[-1]
    capsys.readouterr()
    assert run(["explain", last["id"], "--from", str(whole)]) == 0
    english = capsys.readouterr().out
    for part in (last["clause"], last["rule"], last["explanation"]["en"], "Evidence", "Parameters in force"):
        assert part in english
    assert all(not line.endswith(" ") for line in english.splitlines())
    assert run(["explain", last["id"], "--from", str(whole / "decisions.jsonl"), "--lang", "zh"]) == 0
    assert "条款" in capsys.readouterr().out
    assert run(["explain", last["id"], "--from", str(whole), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"]["id"] == last["id"]


def test_the_events_of_a_decision_are_told_from_the_log(
    folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = str(folder / "log.jsonl")
    newest = {one["id"]: one for one in rows(whole / "decisions.jsonl")}
    most = max(newest.values(), key=lambda one: one["evidence_count"])
    capsys.readouterr()
    assert run(["explain", most["id"], "--from", str(whole), "--events", log, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["events"]
    assert [one["id"] for one in told][: len(most["evidence"])] == most["evidence"]
    assert len(told) == most["evidence_count"] > 0
    assert all(one["time"] and one["type"] for one in told)
    assert run(["explain", most["id"], "--from", str(whole), "--events", log]) == 0
    assert f"{told[0]['id']}  2" in capsys.readouterr().out
    assert run(["explain", "p-0123456789abcdef01234567", "--events", log]) == 2
    assert "--events goes with the id of a decision" in capsys.readouterr().err


def test_an_unknown_decision_is_told(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "d-000", "--from", str(whole)]) == 2
    assert "has no entry 'd-000'" in capsys.readouterr().err


# --- shadows ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of a pack that is tried out."""
    made = tmp_path_factory.mktemp("drafts") / "logistics-service"
    shutil.copytree(rules_dir() / "logistics-service", made)
    head = (made / "pack.yaml").read_text(encoding="utf-8")
    assert 'version: "1.0"' in head
    (made / "pack.yaml").write_text(head.replace('version: "1.0"', 'version: "1.1"'), encoding="utf-8")
    return made


def test_a_shadow_changes_no_byte_and_is_written_to_files_of_its_own(
    folder: Path, whole: Path, draft: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    shaded = replay(folder, "shaded", "--shadow", str(draft))
    assert "as shadows logistics-service@1.1 said: " in capsys.readouterr().err
    for name in NAMES:
        assert (shaded / name).read_bytes() == (whole / name).read_bytes(), name
    shadows = rows(shaded / "shadow-decisions.jsonl")
    own = [one for one in rows(whole / "decisions.jsonl") if one["pack"] == "logistics-service"]
    assert len(shadows) == len(own) > 0
    assert {(one["shadow"], one["pack_version"]) for one in shadows} == {(True, "1.1")}
    assert {one["shadow"] for one in own} == {False}
    assert not {one["id"] for one in shadows} & {one["id"] for one in own}
    assert [one["points"] for one in shadows] == [one["points"] for one in own]
    assert {one["shadow"] for one in rows(shaded / "shadow-grades.jsonl")} == {True}
    explained = shadows[-1]["id"]
    assert run(["explain", explained, "--from", str(shaded / "shadow-decisions.jsonl")]) == 0
    assert "a shadow, not in force" in capsys.readouterr().out
    replay(folder, "shaded")
    assert sorted(file.name for file in shaded.iterdir()) == sorted(NAMES)


def test_a_shadow_without_a_pack_to_stand_beside_is_refused(
    folder: Path, draft: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(folder / "log.jsonl"), "--adapter", "events", "--pack", "front-desk"]
    assert run([*arguments, "--out", str(folder / "none"), "--shadow", str(draft)]) == 2
    assert "no version of logistics-service judges here" in capsys.readouterr().err
