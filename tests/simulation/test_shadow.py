"""A shadow beside an engine: the engine never notices, and the shadow says what its version would say in force."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.core.shadow import (
    MARK,
    PREFIX,
    BesideGroup,
    BesidePartition,
    ShadowGroup,
    ShadowPartition,
    ShadowReplay,
    check_shadows,
)
from kaohe.decisions import ALERT_DECODER, DECISION_DECODER, GRADE_DECODER, shadow_id
from kaohe.errors import MatcherError, UsageError
from kaohe.events import PAYLOADS, PackActivated, make
from tests.simulation.test_engine_faults import random_event
from tests.support.core_runs import DAY_MS, HOUR_MS, Stored, Timed, batches, records_of, save, seed, tell
from tests.support.packs import at_ms, make_pack, moment
from tests.unit import test_judge as judging

ZONES = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"})
DECODERS: dict[str, Any] = {"decisions": DECISION_DECODER, "alerts": ALERT_DECODER, "grades": GRADE_DECODER}
TEAMS = """
- id: team-errors
  level: [team]
  judged: month
  when: errors.month > %s
  then: [{deduct: {points: %s}}]
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack, Pack]:
    """Three versions with every kind of rule, also of teams; the newer ones count other things too."""
    parts = {
        "parameters": judging.PARAMETERS + judging.RESPONSE_LIMIT, "deadlines": judging.RESPONSE,
        "scorecard": judging.SCORECARD,
    }  # fmt: skip
    metrics = judging.METRICS.replace("errors:\n  count: error.recorded\n  level: [agent]", TEAM_ERRORS)
    more = metrics + "ready:\n  count: agent.ready\n  level: [agent, team]\n  windows: [month]\n"
    newer = judging.RULES.replace("points: p.step_points, per: 1", "points: 1, per: 1") + judging.CAP
    folder = tmp_path_factory.mktemp("packs")
    return (
        make_pack(folder, rules=judging.RULES + TEAMS % (3, 1), metrics=metrics, **parts),
        make_pack(folder, rules=newer + TEAMS % (1, 2), metrics=more, version="2.0", grace="24h", **parts),
        make_pack(folder, rules=newer + TEAMS % (2, 5), metrics=more, version="3.0", **parts),
    )


TEAM_ERRORS = "errors:\n  count: error.recorded\n  level: [agent, team]"


def life(rng: random.Random, steps: int = 400, first_ms: int = at_ms("2026-07-15T08:00")) -> list[Timed]:
    """Months of a few people, with activations of every version, and their closes."""
    log: list[Timed] = []
    now_ms = first_ms
    for number in range(steps):
        now_ms += rng.choice((1_000, 30_000, 60_000, 600_000, 3_600_000, 10 * 3_600_000))
        log.append(("tick", now_ms))
        if rng.random() < 0.02:
            log.append(("event", activation(number, now_ms, rng.choice(["1.0", "2.0", "3.0"]))))
            continue
        tag, agent, fields = random_event(rng, number)
        if "team" in PAYLOADS[tag].__struct_fields__ and rng.random() < 0.8:
            fields = fields | {"team": rng.choice(["blue", "red"])}
        age_ms = rng.choice((0, 0, 0, 0, 5_000, 3_600_000, 3 * DAY_MS, 20 * DAY_MS))
        data = PAYLOADS[tag](agent=agent, **fields)
        event = make(
            tag,
            id=f"e-{first_ms}-{number}",
            source="life",
            subject=agent,
            time=moment(now_ms - age_ms),
            data=data,
        )
        log.append(("event", event))
    return log + [("tick", now_ms + hour * HOUR_MS) for hour in range(1, 24 * 40, 6)]


def activation(number: int, now_ms: int, version: str) -> Any:
    data = PackActivated(pack="small", version=version, by="hr-1", reason="A test.")
    return make(
        "pack.activated", id=f"a-{number}", source="life", subject="packs", time=moment(now_ms), data=data
    )


def quiet(_text: str) -> None:
    raise AssertionError(_text)


def beside(
    packs: Sequence[Pack], shadows: Sequence[Pack], on_failure: Callable[[str], None] = quiet
) -> BesidePartition:
    shadow = ShadowPartition(packs, shadows, zones=ZONES) if shadows else None
    return BesidePartition(PartitionEngine(packs, zones=ZONES), shadow, shadows, on_failure)


def group_beside(packs: Sequence[Pack], shadows: Sequence[Pack]) -> BesideGroup:
    shadow = ShadowGroup(packs, shadows, zones=ZONES) if shadows else None
    return BesideGroup(GroupEngine(packs, zones=ZONES), shadow, shadows, quiet)


def as_records(outputs: Sequence[Output]) -> list[Record]:
    """What the group stage reads of it."""
    return [Record(0, one.value, one.key, 0) for one in outputs if one.topic == "partials"]


def is_shadow(output: Output) -> bool:
    if output.topic == "partials":
        return MARK.encode() in output.key
    return output.topic in DECODERS and DECODERS[output.topic].decode(output.value).shadow


def marks(outputs: Sequence[Output]) -> list[tuple[str, bytes]]:
    """What the shadow said, without its reports, in a form that can be sorted."""
    return [(one.topic, one.value) for one in outputs if is_shadow(one) and one.topic != "partials"]


def said(replay: Replay) -> list[tuple[str, bytes]]:
    kept = (("decisions", replay.decisions), ("alerts", replay.alerts), ("grades", replay.grades))
    return [(topic, value) for topic, values in kept for value in values]


def as_shadow(found: list[tuple[str, bytes]], version: str) -> list[tuple[str, Any]]:
    """What a version says in force, as its shadow would have to say it."""
    expected = []
    for topic, value in found:
        one = DECODERS[topic].decode(value)
        own: dict[str, Any] = {"shadow": True, "id": shadow_id(one.id, version)}
        if topic == "decisions" and one.reverses:
            own["reverses"] = shadow_id(one.reverses, version)
        if topic == "grades":
            own["entries"] = sorted(shadow_id(entry, version) for entry in one.entries)
        expected.append((topic, msgspec.structs.replace(one, **own)))
    return expected


def decoded(found: list[tuple[str, bytes]]) -> list[tuple[str, Any]]:
    return [(topic, DECODERS[topic].decode(value)) for topic, value in found]


def in_order(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return sorted((topic, repr(one)) for topic, one in found)


# --- the engine in force ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_with_a_shadow_the_engine_says_and_stores_the_same_bytes(
    versions: tuple[Pack, Pack, Pack], number: int
) -> None:
    packs, shadows = versions[:2], versions[2:]
    rng = random.Random(f"{seed()} {number}")
    records = records_of(life(rng))[0]
    alone, other = PartitionEngine(packs, zones=ZONES), beside(packs, shadows)
    plain, groups = GroupEngine(packs, zones=ZONES), group_beside(packs, shadows)
    shown = 0
    for batch in batches(records, lambda: rng.choice((1, 30, 200))):
        expected, found = alone.apply(batch), other.apply(batch)
        assert [one for one in found if not is_shadow(one)] == expected
        assert {k: v for k, v in other.checkpoint().items() if not k.startswith(PREFIX)} == alone.checkpoint()
        grouped, theirs = plain.apply(as_records(expected)), groups.apply(as_records(found))
        assert [one for one in theirs if not is_shadow(one)] == grouped
        assert {
            k: v for k, v in groups.checkpoint().items() if not k.startswith(PREFIX)
        } == plain.checkpoint()
        shown += len(marks(found)) + len(marks(theirs))
    assert shown > 20
    assert other.watermark_ms == alone.watermark_ms > 0
    assert other.stats == alone.stats
    assert list(other.firing()) == list(alone.firing())
    assert other.subjects(["agent"]) == alone.subjects(["agent"]) != []
    assert list(other.live_values(["agent"])) == list(alone.live_values(["agent"]))
    assert list(other.counter_values(["agent"])) == list(alone.counter_values(["agent"]))


# --- the shadow -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_a_shadow_says_what_its_version_says_in_force(versions: tuple[Pack, Pack, Pack], number: int) -> None:
    """Activations do not move it: without them its version in force is the measure."""
    log = life(random.Random(f"{seed()} {number}"))
    shadow = ShadowReplay(versions[:1], versions[2:], zones=ZONES)
    measure = Replay(versions[2:], zones=ZONES)
    for _, what in log:
        for replay in (shadow, measure):
            if isinstance(what, int):
                replay.tick(what)
            elif replay is shadow or not isinstance(what.data, PackActivated):
                replay.feed(what)
    shadow.finish()
    measure.finish()
    assert in_order(decoded(said(shadow))) == in_order(as_shadow(said(measure), "3.0"))
    levels = {one.level for one in shadow.decision_list()}
    assert levels == {"agent", "team"}


@pytest.mark.parametrize("number", range(3))
def test_a_shadow_is_the_same_with_restarts_and_in_a_replay(
    versions: tuple[Pack, Pack, Pack], number: int
) -> None:
    packs, shadows = versions[:2], versions[2:]
    rng = random.Random(f"{seed()} {number}")
    log = life(rng)
    replay = ShadowReplay(packs, shadows, zones=ZONES)
    tell(replay, log)
    engine, stored, out = beside(packs, shadows), Stored(), list[Output]()
    groups, group_stored, grouped = group_beside(packs, shadows), Stored(), list[Output]()
    for batch in batches(records_of(log)[0], lambda: rng.choice((1, 30, 200))):
        found = engine.apply(batch)
        out += found
        grouped += groups.apply(as_records(found))
        if rng.random() < 0.3:
            save(engine, stored)
            save(groups, group_stored)
            engine, groups = beside(packs, shadows), group_beside(packs, shadows)
            engine.restore(dict(stored))
            groups.restore(dict(group_stored))
    assert sorted(marks(out) + marks(grouped)) == sorted(said(replay))
    assert len(said(replay)) > 20


def test_a_shadow_beside_a_running_engine_goes_on_as_if_it_had_been_activated_then(
    versions: tuple[Pack, Pack, Pack],
) -> None:
    rng = random.Random(seed())
    whole = life(rng)
    log = [one for one in whole if isinstance(one[1], int) or not isinstance(one[1].data, PackActivated)]
    cut = len(log) // 3
    records = records_of(log)[0]
    engine, stored = beside(versions, ()), Stored()
    engine.apply(records[:cut])
    save(engine, stored)
    assert not any(key.startswith(PREFIX) for key in stored)
    shadowed = beside(versions, versions[2:])
    shadowed.restore(dict(stored))
    out = shadowed.apply(records[cut:])
    measure = PartitionEngine(versions, zones=ZONES)
    measure.restore(dict(stored))
    measure.judge.activate("small", "3.0", measure.now_ms)
    expected = [(one.topic, one.value) for one in measure.apply(records[cut:]) if one.topic in DECODERS]
    assert decoded(marks(out)) == as_shadow(expected, "3.0")
    assert len(expected) > 10
    # Its first checkpoint holds all of it, not only what changed since.
    early = beside(versions, versions[2:])
    early.restore(dict(stored))
    first = early.apply(records[cut : cut + 1])
    save(early, stored)
    again = beside(versions, versions[2:])
    again.restore(dict(stored))
    assert marks(first) + marks(again.apply(records[cut + 1 :])) == marks(out)


def test_a_shadow_that_is_taken_away_or_replaced_is_forgotten(versions: tuple[Pack, Pack, Pack]) -> None:
    rng = random.Random(seed())
    records = records_of(life(rng, 200))[0]
    for make_beside, feed in (
        (beside, records),
        (group_beside, as_records(beside(versions[:1], versions[2:]).apply(records))),
    ):
        engine: Any = make_beside(versions[:1], versions[2:])
        stored = Stored()
        engine.apply(feed)
        save(engine, stored)
        assert sum(key.startswith(PREFIX) for key in stored) > 5
        gone: Any = make_beside(versions[:1], ())
        gone.restore(dict(stored))
        save(gone, stored)
        assert not any(key.startswith(PREFIX) for key in stored)
        assert stored
        engine.apply([])
        other: Any = make_beside(versions[:1], versions[1:2])
        other.restore(dict(stored))
        save(other, stored)
        if make_beside is beside:
            assert b"2.0" in stored[PREFIX + "meta"]


def test_another_shadow_does_not_take_over_the_state_of_the_one_before(
    versions: tuple[Pack, Pack, Pack],
) -> None:
    records = records_of(life(random.Random(seed()), 200))[0]
    engine, stored = beside(versions[:1], versions[2:]), Stored()
    engine.apply(records[:150])
    save(engine, stored)
    fresh = Stored({key: raw for key, raw in stored.items() if not key.startswith(PREFIX)})
    outs = []
    for items in (stored, fresh):
        other = beside(versions[:1], versions[1:2])
        other.restore(dict(items))
        outs.append(marks(other.apply(records[150:])))
        save(other, items)
    assert outs[0] == outs[1]
    assert stored == fresh


def test_a_shadow_that_fails_is_told_about_and_the_engine_goes_on(
    versions: tuple[Pack, Pack, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = records_of(life(random.Random(seed()), 200))[0]
    told: list[str] = []
    engine, alone = (
        beside(versions[:1], versions[2:], told.append),
        PartitionEngine(versions[:1], zones=ZONES),
    )
    assert [one for one in engine.apply(records[:100]) if not is_shadow(one)] == alone.apply(records[:100])
    stored = Stored()
    save(engine, stored)

    def broken(_records: Any) -> list[Output]:
        raise MatcherError("no such rule set")

    assert engine.shadow is not None
    monkeypatch.setattr(engine.shadow, "apply", broken)
    assert engine.apply(records[100:]) == alone.apply(records[100:])
    assert told == ["the shadow small@3.0 stopped: MatcherError: no such rule set"]
    assert engine.apply(records[100:]) == alone.apply(records[100:])
    save(engine, stored)
    # At the next start it begins again, as a copy.
    again = beside(versions[:1], versions[2:])
    again.restore(dict(stored))
    assert again.shadow is not None
    assert again.shadow.begun_ms == again.watermark_ms > 0


def test_reports_of_an_earlier_line_are_left_out(versions: tuple[Pack, Pack, Pack]) -> None:
    """What a shadow that was taken away had on its way comes after the beginning of the next one, and before it."""
    records = records_of(life(random.Random(seed()), 200))[0]
    old = as_records(beside(versions[:1], versions[2:]).apply(records[:100]))
    later = beside(versions[:1], versions[2:])
    later.apply([])
    stored = Stored()
    source = beside(versions[:1], ())
    source.apply(records[:100])
    save(source, stored)
    later.restore(dict(stored))
    new = as_records(later.apply(records[100:]))
    theirs = [one for one in old if one.key is not None and MARK.encode() in one.key]
    assert len(theirs) > 3
    expected = group_beside(versions[:1], versions[2:])
    wanted = marks(expected.apply(new))
    found = group_beside(versions[:1], versions[2:])
    line = [one for one in new if one.key is not None and MARK.encode() in one.key]
    own = [one for one in new if one not in line]
    mixed = [*own, *theirs[2:], *line[:2], *theirs, *line[2:]]
    assert marks(found.apply(mixed)) == wanted
    assert expected.shadow is not None
    assert found.shadow is not None
    assert found.shadow.numbers == expected.shadow.numbers != {}


def test_what_waits_of_an_earlier_line_leaves_nothing_in_the_store(versions: tuple[Pack, Pack, Pack]) -> None:
    records = records_of(life(random.Random(seed()), 200))[0]
    reports = as_records(beside(versions[:1], versions[2:]).apply(records))
    group, stored = ShadowGroup(versions[:1], versions[2:], zones=ZONES, source_partitions=2), Stored()
    group.apply([one for one in reports if one.key is not None and MARK.encode() in one.key])
    save(group, stored)
    waiting = [key for key in stored if key.startswith("b")]
    assert len(waiting) > 1
    group.begin_again(0)
    save(group, stored)
    assert [key for key in stored if key.startswith("b")] == []


def test_a_worker_without_shadows_passes_over_their_reports(versions: tuple[Pack, Pack, Pack]) -> None:
    records = records_of(life(random.Random(seed()), 200))[0]
    reports = as_records(beside(versions[:1], versions[2:]).apply(records))
    plain, alone = group_beside(versions[:1], ()), GroupEngine(versions[:1], zones=ZONES)
    own = [one for one in reports if one.key is not None and MARK.encode() not in one.key]
    assert plain.apply(reports) == alone.apply(own)
    assert plain.watermark_ms == alone.watermark_ms > 0


def test_shadows_that_cannot_be_are_refused(versions: tuple[Pack, Pack, Pack], tmp_path: Path) -> None:
    other = msgspec.structs.replace(versions[0], name="other")
    with pytest.raises(UsageError, match=r"no version of other judges here"):
        check_shadows(versions[:1], [other])
    with pytest.raises(UsageError, match=r"small has two shadows, 2\.0 and 3\.0"):
        check_shadows(versions[:1], versions[1:])
    check_shadows(versions[:2], versions[1:2])
