"""The log decides: the same log gives the same bytes, whatever the batches, restarts, partitions, ticks and hashing."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.adapters.simulator import NO_FAULTS
from kaohe.core.calendars import calendar
from kaohe.core.deadlines import ABANDONED_MS, CHUNK_DECODER
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Output
from kaohe.decisions import ALERT_DECODER, DECISION_DECODER, GRADE_DECODER
from kaohe.packs.load import load_packs
from tests.support.core_runs import (
    Stored,
    Timed,
    records_of,
    run_all,
    run_engine,
    run_replay,
    save,
    seed,
    shuffled_sources,
    simulated,
)

START = date(2026, 7, 30)
PACKS = ("contact-centre", "front-desk", "full-attendance", "logistics-service")


@pytest.fixture(scope="module")
def packs(repository: Path) -> tuple[Pack, ...]:
    return load_packs(PACKS, repository / "rules")


@pytest.fixture(scope="module")
def log() -> list[Timed]:
    """Three days of a small centre over the end of a month, with late, swapped and doubled events, to its close."""
    return simulated(7, 6, 3, START, tail_days=5)


@pytest.fixture(scope="module")
def plain_log() -> list[Timed]:
    """The same centre with perfect sources."""
    return simulated(7, 6, 3, START, faults=NO_FAULTS, tail_days=5)


@pytest.fixture(scope="module")
def straight(packs: tuple[Pack, ...], log: list[Timed]) -> list[Output]:
    """What one partition says when it is never interrupted."""
    out, _ = run_engine(lambda: partition(packs), records_of(log)[0])
    return out


def partition(packs: tuple[Pack, ...]) -> PartitionEngine:
    return PartitionEngine(packs, zones=Zones(default="Asia/Shanghai"))


def group(packs: tuple[Pack, ...], sources: int = 1) -> GroupEngine:
    return GroupEngine(packs, zones=Zones(default="Asia/Shanghai"), source_partitions=sources)


def test_the_log_is_rich_enough_to_show_a_difference(straight: list[Output]) -> None:
    topics = {one.topic for one in straight}
    assert topics == {"alerts", "decisions", "grades", "partials"}
    decisions = [DECISION_DECODER.decode(one.value) for one in straight if one.topic == "decisions"]
    assert {one.status for one in decisions} == {"provisional", "final"}
    assert {one.period for one in decisions} >= {"2026-07", "2026-08"}
    assert max(one.revision for one in decisions) > 2


@pytest.mark.parametrize("size", [1, 7])
def test_the_size_of_batches_changes_nothing(
    packs: tuple[Pack, ...], log: list[Timed], straight: list[Output], size: int
) -> None:
    out, _ = run_engine(lambda: partition(packs), records_of(log)[0], lambda: size)
    assert out == straight


def test_restarts_at_random_points_change_nothing(
    packs: tuple[Pack, ...], log: list[Timed], straight: list[Output]
) -> None:
    rng = random.Random(seed())
    out, _ = run_engine(
        lambda: partition(packs),
        records_of(log)[0],
        sizes=lambda: rng.choice((1, 3, 50, 400)),
        restart=lambda: rng.random() < 0.03,
        save_often=lambda: rng.random() < 0.2,
    )
    assert out == straight


def test_restarts_of_the_group_stage_change_nothing(
    packs: tuple[Pack, ...], log: list[Timed], straight: list[Output]
) -> None:
    rng = random.Random(seed())
    reports = shuffled_sources([[one for one in straight if one.topic == "partials"]], rng)
    expected, _ = run_engine(lambda: group(packs), reports)
    assert any(one.topic == "alerts" for one in expected)
    out, _ = run_engine(
        lambda: group(packs),
        reports,
        sizes=lambda: rng.choice((1, 2, 30)),
        restart=lambda: rng.random() < 0.02,
        save_often=lambda: rng.random() < 0.2,
    )
    assert out == expected


def test_a_crash_repeats_what_was_said_since_the_checkpoint_and_nothing_else(
    packs: tuple[Pack, ...], log: list[Timed], straight: list[Output]
) -> None:
    rng = random.Random(seed())
    records = records_of(log)[0]
    engine, stored, safe, position, said = partition(packs), Stored(), 0, 0, 0
    out: list[Output] = []
    while position < len(records):
        step = rng.choice((1, 20, 300))
        out += engine.apply(records[position : position + step])
        position += step
        if rng.random() < 0.3:
            save(engine, stored)
            safe, said = position, len(out)
        elif rng.random() < 0.03:
            engine = partition(packs)
            engine.restore(dict(stored))
            lost = out[said:]
            del out[said:]
            position = safe
            again = engine.apply(records[position : position + 300])
            shorter = min(len(lost), len(again))
            assert again[:shorter] == lost[:shorter]
            out += again
            position += 300
    assert out == straight


def test_nothing_is_written_when_nothing_changed_and_only_what_changed_otherwise(
    packs: tuple[Pack, ...], log: list[Timed]
) -> None:
    records = records_of(log)[0]
    engine, stored = partition(packs), Stored()
    held = next(i for i, one in enumerate(records) if i > 5000 and b'"call.answered"' in one.value)
    engine.apply(records[:held])
    everything = save(engine, stored)
    assert engine.checkpoint() == {}
    engine.apply(records[held : held + 1])
    changed = save(engine, stored)
    agent = msgspec.json.decode(records[held].value)["subject"]
    assert f"c\x1fagent\x1f{agent}" in changed
    assert {key.split("\x1f")[0] for key in changed} <= {"c", "frame", "s", "u"}
    assert {key.split("\x1f")[2] for key in changed if key[:2] in ("c\x1f", "s\x1f")} == {agent}
    assert len(changed) < len(everything) / 10


def test_what_is_stored_does_not_grow_with_the_age_of_the_log(packs: tuple[Pack, ...]) -> None:
    """After long silence only what belongs to known people and open or recent periods is left."""
    log = simulated(3, 4, 1, START)
    engine, stored = partition(packs), Stored()
    records = records_of(log)[0]
    engine.apply(records[: len(records) // 2])
    save(engine, stored)
    assert {key.split("\x1f")[0] for key in stored} == {"a", "c", "d", "e", "frame", "judge", "p", "s", "u"}
    engine.apply(records[len(records) // 2 :])
    last_ms = max(what for _, what in log if isinstance(what, int))
    for day in range(1, 500):
        engine.tick(last_ms + day * 86_400_000)
    save(engine, stored)
    after = {key.split("\x1f")[0] for key in stored}
    # Silent people are still graded each month, and a grade asks for an interview: what is missed is kept for a while.
    # Certificates lapse a year later; quarters and years are kept to be compared with the next one.
    assert after - {"p"} == {"d", "s", "judge", "frame"}
    end_ms = last_ms + 499 * 86_400_000
    kept = {tuple(key.split("\x1f")[3:]) for key in stored if key[:2] == "p\x1f"}
    lasting = [calendar("Asia/Shanghai").containing(window, end_ms) for window in ("quarter", "year")]
    lasting += [calendar("Asia/Shanghai").previous(period) for period in lasting]
    assert kept <= {(period.window, period.label) for period in lasting}
    chunks = [CHUNK_DECODER.decode(raw) for key, raw in stored.items() if key.startswith("d\x1f")]
    items = [item for chunk in chunks for item in chunk]
    # A certificate holds for years, also for a job that asks for it one day.
    assert {item.id[0] for item in items if item.state == "early_met"} == {"front-desk/certificate_held"}
    due = [item.due_ms for item in items if item.state != "early_met"]
    assert min(due) >= last_ms + 499 * 86_400_000 - ABANDONED_MS
    assert {key.split("\x1f")[1] for key in stored if key[0] == "s"} == {"agent"}
    successor = partition(packs)
    successor.restore(dict(stored))
    assert successor.checkpoint() == {}


def newest(raws: list[bytes], decoder: Any) -> dict[str, tuple[Any, ...]]:
    found = {}
    for raw in raws:
        one = decoder.decode(raw)
        found[one.id] = (one.rule, one.subject, one.period, one.points, one.status, one.kind, one.facts)
    return found


def newest_grades(raws: list[bytes]) -> dict[str, tuple[Any, ...]]:
    found = {}
    for raw in raws:
        one = GRADE_DECODER.decode(raw)
        found[one.id] = (one.subject, one.period, one.score, one.grade, one.status)
    return found


def alerts(raws: list[bytes]) -> list[tuple[Any, ...]]:
    found = [ALERT_DECODER.decode(raw) for raw in raws]
    return sorted((one.at, one.id, one.state, one.rule, one.subject) for one in found)


def test_four_partitions_decide_what_one_decides(packs: tuple[Pack, ...], log: list[Timed]) -> None:
    rng = random.Random(seed())
    one = run_all(packs, log, 1, rng)
    four = run_all(
        packs, log, 4, rng, sizes=lambda: rng.choice((5, 500)), restart=lambda: rng.random() < 0.01
    )
    assert newest(four["decisions"], DECISION_DECODER) == newest(one["decisions"], DECISION_DECODER)
    assert newest_grades(four["grades"]) == newest_grades(one["grades"])
    assert alerts(four["alerts"]) == alerts(one["alerts"])
    assert len(one["alerts"]) > 3


def test_a_slower_clock_comes_to_the_same_final_decisions(
    packs: tuple[Pack, ...], plain_log: list[Timed]
) -> None:
    """Fewer ticks: what is judged while the month runs comes later, what is decided in the end is the same."""
    rare_log = slower(plain_log, 4_000)
    assert len(rare_log) < len(plain_log) - 500
    dense, rare = run_replay(packs, plain_log), run_replay(packs, rare_log)
    assert not rare.rejects
    assert newest(rare.decisions, DECISION_DECODER) == newest(dense.decisions, DECISION_DECODER)
    assert newest_grades(rare.grades) == newest_grades(dense.grades)


def slower(log: list[Timed], every_ms: int) -> list[Timed]:
    """The log with ticks at multiples of ``every_ms`` only: the clock is behind the events by less than that."""
    found: list[Timed] = []
    last_ms = 0
    for kind, what in log:
        if not isinstance(what, int):
            found.append((kind, what))
        elif what // every_ms * every_ms > last_ms:
            last_ms = what // every_ms * every_ms
            found.append(("tick", last_ms))
    return found


PROGRAM = """
import sys
from pathlib import Path
from hashlib import sha256
from tests.replay.test_equivalence import digest_of
print(digest_of(Path(sys.argv[1])))
"""


def digest_of(rules: Path) -> str:
    """What engines say about a short log, as a digest, with one restart on the way."""
    packs = load_packs(PACKS, rules)
    log = simulated(11, 4, 1, date(2026, 7, 31), tail_days=5)
    cuts = iter([True])
    out, engine = run_engine(
        lambda: partition(packs), records_of(log)[0], lambda: 2000, lambda: next(cuts, False)
    )
    state = sha256()
    for one in out:
        state.update(one.topic.encode() + one.key + one.value)
    for key, raw in engine.checkpoint().items():
        state.update(key.encode() + (raw or b"-"))
    return state.hexdigest()


def test_hash_seeds_change_nothing(repository: Path) -> None:
    outputs = set()
    path = ":".join([str(repository), str(repository / "services"), *sys.path])
    for salt in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(repository / "rules")],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": path}, cwd=repository, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        outputs.add(done.stdout.strip())
    assert len(outputs) == 1
    assert len(outputs.pop()) == 64


def test_a_replay_is_the_stages_put_together(packs: tuple[Pack, ...], log: list[Timed]) -> None:
    replay, stages = run_replay(packs, log), run_all(packs, log, 1, random.Random(0))
    assert sorted(replay.decisions) == sorted(stages["decisions"])
    assert sorted(replay.grades) == sorted(stages["grades"])
    assert sorted(replay.alerts) == sorted(stages["alerts"])
