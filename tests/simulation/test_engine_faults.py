"""A centre with bad sources: late, doubled and swapped events, crashes and lost reports come to the same truth."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.adapters.simulator import NO_FAULTS, Faults
from kaohe.core.engine import PartitionEngine, Zones, read_report
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.decisions import DECISION_DECODER, GRADE_DECODER
from kaohe.events import PAYLOADS, make
from kaohe.packs.load import load_packs
from tests.support.core_runs import (
    DAY_MS,
    HOUR_MS,
    Stored,
    Timed,
    records_of,
    run_all,
    run_engine,
    run_replay,
    save,
    seed,
    simulated,
)
from tests.support.packs import at_ms, make_pack, moment
from tests.unit import test_judge as judging

START = date(2026, 8, 29)
BAD_SOURCES = Faults(late_share=0.05, duplicate_share=0.05, out_of_order=0.1, late_s=900, swap_s=3)
ZONES = Zones(default="Asia/Shanghai")


@pytest.fixture(scope="module")
def packs(repository: Path) -> tuple[Pack, ...]:
    return load_packs(["contact-centre", "front-desk", "logistics-service"], repository / "rules")


def figures(replay: Replay) -> dict[tuple[str, ...], Any]:
    return {
        (one.metric, one.level, one.subject, one.window, one.period): (
            one.value,
            one.numerator,
            one.denominator,
        )
        for one in replay.metrics()
    }


def charged(replay: Replay) -> dict[tuple[str, ...], Fraction]:
    """What every rule charges every subject in the end: a penalty that was taken back counts for nothing."""
    newest = replay.newest_decisions()
    found: dict[tuple[str, ...], Fraction] = {}
    for one in newest.values():
        rule = newest[one.reverses].rule if one.reverses else one.rule
        key = (rule, one.subject, one.adjusts_period or one.period)
        found[key] = found.get(key, Fraction(0)) + Fraction(one.points)
    return {key: points for key, points in found.items() if points}


def final_grades(replay: Replay) -> dict[str, tuple[str, str]]:
    return {one.id: (one.score, one.grade) for one in replay.grade_list() if one.status == "final"}


def test_bad_sources_come_to_the_figures_and_charges_of_perfect_ones(packs: tuple[Pack, ...]) -> None:
    chosen = seed() % 1000
    perfect = run_replay(packs, simulated(chosen, 8, 4, START, faults=NO_FAULTS, tail_days=5))
    bad = run_replay(packs, simulated(chosen, 8, 4, START, faults=BAD_SOURCES, tail_days=5))
    assert Counter(one.code for one in bad.rejects) == Counter()
    assert bad.engines[0].stats.duplicates > 100
    assert bad.engines[0].stats.late > 100
    wanted, found = figures(perfect), figures(bad)
    different = {key: (wanted.get(key), found.get(key)) for key in wanted.keys() | found.keys()
                 if wanted.get(key) != found.get(key)}  # fmt: skip
    assert different == {}
    assert charged(bad) == charged(perfect)
    assert final_grades(bad) == final_grades(perfect)
    assert len(wanted) > 1000
    assert len(charged(perfect)) > 3
    assert len(final_grades(perfect)) >= 8


def test_reports_that_a_crash_lost_come_again_and_the_groups_lose_and_double_nothing(
    packs: tuple[Pack, ...],
) -> None:
    """The worker of the partitions is killed between checkpoints; some of what it sent never arrived."""
    rng = random.Random(seed())
    records = records_of(simulated(5, 5, 2, START))[0]
    straight, _ = run_engine(lambda: PartitionEngine(packs, zones=ZONES), records)
    expected, calm = run_engine(lambda: GroupEngine(packs, zones=ZONES), reports(straight))
    engine, stored, safe, sent, crashes = PartitionEngine(packs, zones=ZONES), Stored(), 0, list[Output](), 0
    group, group_stored, said, said_safe, sent_safe = (
        GroupEngine(packs, zones=ZONES),
        Stored(),
        list[Output](),
        0,
        0,
    )
    position = steps = 0
    while position < len(records):
        step = rng.choice((30, 100, 300))
        out = [one for one in engine.apply(records[position : position + step]) if one.topic == "partials"]
        position += step
        steps += 1
        if steps % 5 == 0:
            # What arrived of the last batch is anything: some of it, in order, with holes.
            sent += [one for one in out if rng.random() < 0.5]
            engine = PartitionEngine(packs, zones=ZONES)
            engine.restore(dict(stored))
            position = safe
            crashes += 1
            continue
        sent += out
        save(engine, stored)
        safe = position
        said += group.apply(reports(sent[sent_safe:]))
        sent_safe = len(sent)
        save(group, group_stored)
        said_safe = len(said)
        if rng.random() < 0.1:
            group = GroupEngine(packs, zones=ZONES)
            group.restore(dict(group_stored))
    said += group.apply(reports(sent[sent_safe:]))
    assert crashes > 3
    assert said == expected
    assert said_safe > 0
    assert totals(group) == totals(calm)
    assert group.numbers == calm.numbers


def reports(out: list[Output]) -> list[Record]:
    return [Record(0, one.value, None, 0) for one in out if one.topic == "partials"]


def totals(group: GroupEngine) -> dict[tuple[str, str], dict[int, Any]]:
    return {key: dict(subject.series.total) for key, subject in group.judge.subjects.items()}


def test_a_group_stage_that_never_saw_the_beginning_waits_for_it(packs: tuple[Pack, ...]) -> None:
    records = records_of(simulated(5, 3, 1, START))[0]
    straight, _ = run_engine(lambda: PartitionEngine(packs, zones=ZONES), records)
    group = GroupEngine(packs, zones=ZONES)
    found = reports(straight)
    assert group.apply(found[1:300]) == []
    assert (group.watermark_ms, group.stats.gaps) == (0, 299)
    group.apply(found)
    assert group.watermark_ms == read_report(found[-1].value).upto_ms


LIFE_ZONES = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin", "nome": "America/Nome"})


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    """Every kind of rule, in two versions."""
    newer = judging.RULES.replace("points: p.step_points, per: 1", "points: 1, per: 1")
    newer = newer.replace("wait.rolling_15m > p.wait_limit", "wait.rolling_15m > 90") + judging.CAP
    parts = {
        "parameters": judging.PARAMETERS + judging.RESPONSE_LIMIT, "metrics": judging.METRICS,
        "deadlines": judging.RESPONSE, "scorecard": judging.SCORECARD,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("packs")
    return (
        make_pack(folder, rules=judging.RULES, **parts),
        make_pack(folder, rules=newer, version="2.0", grace="24h", **parts),
    )


def random_event(rng: random.Random, number: int) -> tuple[str, str, dict[str, Any]]:
    """Any event that the rules of a life look at: type, agent, fields."""
    key = f"k-{rng.randrange(40)}"
    choices: list[tuple[str, dict[str, Any]]] = [
        ("error.recorded", {}),
        ("complaint.upheld", {"complaint_id": key, "bad_attitude": rng.random() < 0.2}),
        ("complaint.logged", {"complaint_id": key}),
        ("complaint.responded", {"complaint_id": key}),
        ("survey.cross_department", {"rating": rng.choice(["excellent", "good", "fair", "poor"])}),
        ("exemption.granted", {"exemption_id": f"x-{number}", "incident": key}),
        ("call.answered", {"call_id": key, "queue": "q-1", "wait_ms": rng.randrange(200_000)}),
        ("call.answered", {"call_id": key, "queue": "q-2", "wait_ms": rng.randrange(200_000)}),
        ("agent.ready", {}), ("agent.not_ready", {}), ("agent.logged_out", {}),
        ("roster.changed", {"team": rng.choice(["t-1", "t-2"]), "site": rng.choice(["berlin", "nome", "shanghai"]),
                            "packs": rng.choice([[], [], [], ["small"], ["another"]])}),
    ]  # fmt: skip
    tag, fields = rng.choice(choices)
    return tag, rng.choice(["a-1", "a-2", "a-3"]), fields


def random_life(rng: random.Random, steps: int = 500) -> list[Timed]:
    """Months of a few people: pauses of any length, events of any age, versions that come and go."""
    log: list[Timed] = []
    now_ms = at_ms("2026-07-15T08:00")
    for number in range(steps):
        now_ms += rng.choice((1_000, 30_000, 60_000, 600_000, 3_600_000, 20 * 3_600_000))
        log.append(("tick", now_ms))
        if rng.random() < 0.02:
            tag, agent, fields = (
                "pack.activated",
                "",
                {
                    "pack": "small",
                    "version": rng.choice(["1.0", "2.0"]),
                    "by": "hr-1",
                    "reason": "A test.",
                },
            )
            age_ms = 0
        else:
            tag, agent, fields = random_event(rng, number)
            age_ms = rng.choice((0, 0, 0, 0, 5_000, 3_600_000, 3 * DAY_MS, 20 * DAY_MS))
        event = make(
            tag, id=f"e-{number}", source="life", subject=agent or "packs", time=moment(now_ms - age_ms),
            data=PAYLOADS[tag](agent=agent, **fields),
        )  # fmt: skip
        log.append(("event", event))
    last_ms = now_ms
    return log + [("tick", last_ms + hour * HOUR_MS) for hour in range(1, 24 * 40, 6)]


@pytest.mark.parametrize("life", range(6))
def test_any_life_is_the_same_with_restarts_and_over_partitions(
    versions: tuple[Pack, Pack], life: int
) -> None:
    rng = random.Random(f"{seed()}-{life}")
    log = random_life(rng)
    straight = lived(versions, log, 1, rng, lambda: False)
    restarted = lived(versions, log, 1, rng, lambda: rng.random() < 0.1)
    assert restarted == straight
    spread = lived(versions, log, 3, rng, lambda: rng.random() < 0.05)
    assert last(spread["decisions"]) == last(straight["decisions"])
    assert last(spread["grades"]) == last(straight["grades"])
    assert sorted(spread["alerts"]) == sorted(straight["alerts"])
    assert sorted(spread.get("rejects", [])) == [] == straight.get("rejects", [])
    consistent(straight)


def test_when_the_past_of_one_is_forgotten_does_not_depend_on_the_others(versions: tuple[Pack, Pack]) -> None:
    """A life in which an exemption lay at the edge of what is remembered, and zones differ between partitions."""
    rng = random.Random("15-2")
    log = random_life(rng)
    one, three = (lived(versions, log, partitions, rng, lambda: False) for partitions in (1, 3))
    assert last(three["decisions"]) == last(one["decisions"])


def lived(
    versions: tuple[Pack, Pack],
    log: list[Timed],
    partitions: int,
    rng: random.Random,
    restart: Callable[[], bool],
) -> dict[str, list[bytes]]:
    return run_all(versions, log, partitions, rng, lambda: rng.choice((1, 5, 40)), restart, LIFE_ZONES)


def last(raws: list[bytes]) -> dict[str, bytes]:
    """The newest revision of each id."""
    return {msgspec.json.decode(raw)["id"]: raw for raw in raws}


def consistent(said: dict[str, list[bytes]]) -> None:
    """What must hold of any ledger: revisions without gaps, nothing after final but adjustments, reversals that fit."""
    decisions = [DECISION_DECODER.decode(raw) for raw in said["decisions"]]
    newest = {one.id: one for one in decisions}
    for found in newest:
        own = [one for one in decisions if one.id == found]
        assert [one.revision for one in own] == list(range(1, len(own) + 1))
        states = [one.status for one in own]
        assert states == sorted(states, reverse=True), "provisional first, then final"
    reversed_ids = [one.reverses for one in newest.values() if one.reverses]
    assert len(reversed_ids) == len(set(reversed_ids)), "nothing is taken back twice"
    for one in newest.values():
        if one.reverses:
            assert Fraction(one.points) == -Fraction(newest[one.reverses].points)
    for raw in last(said["grades"]).values():
        grade = GRADE_DECODER.decode(raw)
        if grade.status == "withdrawn":
            continue  # it counts for nothing, and tells the score that was shown last
        charged = sum(
            (Fraction(one.points) for one in newest.values()
             if (one.subject, one.period, one.level) == (grade.subject, grade.period, "agent")), Fraction(0),
        )  # fmt: skip
        assert Fraction(grade.score) == min(max(100 + charged, Fraction(80)), Fraction(110))


def test_every_charge_of_a_month_carries_its_own_arithmetic(packs: tuple[Pack, ...]) -> None:
    """Whoever reads a decision can follow its amount: the last line of the arithmetic is the amount."""
    replay = run_replay(packs, simulated(seed() % 1000, 8, 3, START, tail_days=5))
    checked = 0
    for raw in replay.decisions:
        one = DECISION_DECODER.decode(raw)
        if one.kind in ("deduct", "award") and one.points != "0" and not one.adjusts_period:
            assert one.arithmetic, one
            assert abs(Fraction(one.arithmetic[-1].result)) == abs(Fraction(one.points))
            assert one.clause
            assert one.explanation.en
            assert one.explanation.zh
            checked += 1
    assert checked > 5
