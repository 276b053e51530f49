"""The parts that need no broker: decoding, and the core of one partition with its group stage."""

from __future__ import annotations

import cProfile
import pstats
import time

from bench.measure import Result, repeated
from bench.stream import Line, batches, packs
from kaohe.collecting import collecting_rarely
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.records import Record
from kaohe.events import DECODER


def decode(stream: list[Line], runs: int) -> Result:
    """Bytes to typed events, ticks included, and nothing else."""
    values = [line.value for line in stream]
    decode_one = DECODER.decode

    def work() -> None:
        for value in values:
            decode_one(value)

    return repeated("decode only", sum(not line.is_tick for line in stream), work, runs)


def core(stream: list[Line]) -> Result:
    """Bytes in, decisions out: one partition engine and the group engine behind it, on one core, all three packs.

    Everything between a fetched record and the encoded outputs is inside: decoding, admission, counting, judging,
    reports to the group stage, encoding, and the group stage itself. Nothing is sent and nothing is stored.
    """
    fetched = batches(stream)
    loaded = packs()
    zones = Zones(loaded[0].zone)
    engine, group = PartitionEngine(loaded, zones=zones), GroupEngine(loaded, zones=zones)
    outputs: dict[str, int] = {}
    engine_s = group_s = 0.0
    with collecting_rarely():  # as the worker does
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in fetched:
            before = time.process_time()
            found = engine.apply(batch)
            reports = [Record(0, one.value, one.key, 0) for one in found if one.topic == "partials"]
            between = time.process_time()
            judged = group.apply(reports)
            after = time.process_time()
            engine_s += between - before
            group_s += after - between
            for one in (*found, *judged):
                outputs[one.topic] = outputs.get(one.topic, 0) + 1
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    events = sum(not line.is_tick for line in stream)
    assert sum(engine.stats.events.values()) > 0.9 * events, "most events are counted"
    details = {
        "partition_cpu_s": round(engine_s, 3),
        "group_cpu_s": round(group_s, 3),
        "ticks": len(stream) - events,
        "agents": len(engine.agents),
        "groups": len(group.judge.subjects),
        "outputs": outputs,
        "rejects": engine.stats.rejects,
    }
    return Result("core, three packs, one core", events, events / wall_s, events / cpu_s, 1, details)


def profile(stream: list[Line], lines: int) -> None:
    """Print where the core's time goes, by processor time."""
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    core(stream)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(lines)
