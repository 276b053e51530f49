"""A centre with bad sources: late, doubled and swapped events, crashes and lost reports come to the same truth."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kaohe.adapters.simulator import NO_FAULTS, Faults
from kaohe.core.engine import REPORT_DECODER, PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.decisions import DECISION_DECODER
from kaohe.packs.load import load_packs
from tests.support.core_runs import Stored, Timed, records_of, run_engine, save, seed, simulated

START = date(2026, 8, 29)
BAD_SOURCES = Faults(late_share=0.05, duplicate_share=0.05, out_of_order=0.1, late_s=900, swap_s=3)
ZONES = Zones(default="Asia/Shanghai")


@pytest.fixture(scope="module")
def packs(repository: Path) -> tuple[Pack, ...]:
    return load_packs(["contact-centre", "front-desk", "logistics-service"], repository / "rules")


def replayed(packs: tuple[Pack, ...], log: list[Timed]) -> Replay:
    replay = Replay(packs)
    for _, what in log:
        if isinstance(what, int):
            replay.tick(what)
        else:
            replay.feed(what)
    replay.finish()
    return replay


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
    perfect = replayed(packs, simulated(chosen, 8, 4, START, faults=NO_FAULTS, tail_days=5))
    bad = replayed(packs, simulated(chosen, 8, 4, START, faults=BAD_SOURCES, tail_days=5))
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
    position = 0
    while position < len(records):
        step = rng.choice((30, 100, 300))
        out = [one for one in engine.apply(records[position : position + step]) if one.topic == "partials"]
        position += step
        if rng.random() < 0.15:
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
    assert group.watermark_ms == REPORT_DECODER.decode(found[-1].value).upto_ms


def test_every_charge_of_a_month_carries_its_own_arithmetic(packs: tuple[Pack, ...]) -> None:
    """Whoever reads a decision can follow its amount: the last line of the arithmetic is the amount."""
    replay = replayed(packs, simulated(seed() % 1000, 8, 3, START, tail_days=5))
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
