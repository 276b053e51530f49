"""``python -m bench``: measures everything in one run and prints one table. See README.md beside this file."""

from __future__ import annotations

import argparse
import json

import msgspec

from bench import broker, core
from bench.measure import Result, machine, table
from bench.stream import Line, Size, lines, recording
from tests.support.kafka import missing_tool, running_kafka

PARTS = ("decode", "core", "worker", "naive", "aiokafka", "librdkafka", "workers")
KAFKA_PARTS = frozenset(PARTS[2:-1])


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to measure, of {', '.join(PARTS)} (all)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agents", type=int, default=1000, help="size of the simulated centre")
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only the first so many records of the stream")
    parser.add_argument("--naive-events", type=int, default=10_000, help="how many the naive app reads")
    parser.add_argument("--runs", type=int, default=5, help="how often short parts are repeated")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument(
        "--profile", type=int, metavar="LINES", help="profile the core instead of measuring it"
    )
    args = parser.parse_args()
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"{part!r} is no part; the parts are {', '.join(PARTS)}")
    return args


def main() -> None:
    """Measure, print."""
    args = arguments()
    parts = set(args.parts or PARTS)
    stream = lines(recording(Size(args.seed, args.agents, args.days)), args.limit)
    if args.profile:
        core.profile(stream, args.profile)
        return
    results = []
    if "decode" in parts:
        results.append(core.decode(stream, args.runs))
    if "core" in parts:
        results.append(core.core(stream))
    if parts & KAFKA_PARTS:
        results += on_kafka(stream, parts, args.naive_events)
    if "workers" in parts:
        results += with_two_workers(stream)
    show(stream, results, args.as_json)


def on_kafka(stream: list[Line], parts: set[str], naive_events: int) -> list[Result]:
    """The parts that need a broker, one after the other on one topic."""
    if missing := missing_tool():
        raise SystemExit(missing)
    events = sum(not line.is_tick for line in stream)
    results = []
    with running_kafka() as address, broker.prepared(address, stream) as settings:
        if "worker" in parts:
            results.append(broker.worker(settings, events))
        if "naive" in parts:
            results.append(broker.naive(settings, min(naive_events, events)))
        if "aiokafka" in parts:
            results.append(broker.aiokafka_ceiling(settings, events))
        if "librdkafka" in parts:
            results.append(broker.librdkafka_ceiling(settings, events))
    return results


def with_two_workers(stream: list[Line]) -> list[Result]:
    """Two workers that share the partitions, on a broker that holds nothing of another one."""
    if missing := missing_tool():
        raise SystemExit(missing)
    events = sum(not line.is_tick for line in stream)
    with running_kafka() as address, broker.prepared(address, stream) as settings:
        return [broker.worker(settings, events, 2)]


def show(stream: list[Line], results: list[Result], as_json: bool) -> None:
    """One table for people, or one document for programs."""
    events = sum(not line.is_tick for line in stream)
    about = {"events": events, "ticks": len(stream) - events, **machine()}
    if as_json:
        print(json.dumps({"stream": about, "results": msgspec.to_builtins(results)}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table(results))
    for result in results:
        if result.details:
            print(f"{result.name}: " + ", ".join(f"{key} {value}" for key, value in result.details.items()))


if __name__ == "__main__":
    main()
