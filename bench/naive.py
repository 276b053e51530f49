"""What one writes first with Faust and durable-rules: the baseline.

Theory of operation. One agent reads ``kaohe.events`` event by event and decodes JSON. There is one Faust table for each
metric of the three packs, and an event updates the table of every metric that counts its type, under its subject. Then
the event is posted to durable-rules through its Python wrapper, under a dozen rules of the kind the packs have. State,
changelogs, offsets and batching are left to the libraries as they come. What it leaves out makes it faster than it
could be in earnest: no windows, no conditions in metrics, no duplicates, no deadlines, no money.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from durable.engine import MessageNotHandledException
from durable.lang import m, post, ruleset, when_all

from bench.stream import packs
from kaohe.stream.clock import TICK_TYPE
from kaohe.stream.topics import EVENTS

RULES: dict[str, Callable[[], Any]] = {
    "slow_answer": lambda: (m.type == "call.answered") & (m.wait_ms > 60_000),
    "very_slow_answer": lambda: (m.type == "call.answered") & (m.wait_ms > 180_000),
    "long_call": lambda: (m.type == "call.completed") & (m.talk_ms > 1_800_000),
    "long_wrap": lambda: (m.type == "call.completed") & (m.wrap_ms > 600_000),
    "long_hold": lambda: (m.type == "call.held") & (m.hold_ms > 300_000),
    "gave_up": lambda: (m.type == "call.abandoned") & (m.wait_ms > 120_000),
    "bad_survey": lambda: (m.type == "survey.customer") & (m.satisfaction == "dissatisfied"),
    "failed_audit": lambda: (m.type == "record.audited") & (m.errors > 0),
    "poor_quality": lambda: (m.type == "quality.evaluated") & (m.score < 6000),
    "complaint": lambda: m.type == "complaint.logged",
    "late": lambda: (m.type == "clock.in") & (m.late_ms > 0),
    "error": lambda: m.type == "error.recorded",
}


def make_rules() -> None:
    """Register the rules; their actions note that they fired."""
    with ruleset("naive"):
        for name, condition in RULES.items():

            def fired(c: Any, name: str = name) -> None:
                c.s[name] = True

            when_all(condition())(fired)


def fields_by_type() -> dict[str, list[tuple[str, str]]]:
    """For each event type the metrics that count it, each with the field it adds up (empty for a count)."""
    found: dict[str, dict[str, str]] = {}
    for pack in packs():
        for metric in pack.metrics.values():
            for term in (*metric.numerator, *metric.denominator):
                if "/" not in term.source:
                    found.setdefault(term.source, {}).setdefault(f"{pack.name}-{metric.name}", term.field)
    return {source: sorted(metrics.items()) for source, metrics in found.items()}


def main(broker: str, partitions: int, limit: int, out: Path, folder: Path) -> None:
    """Read ``limit`` events, from the first call on, and write how long that took."""
    make_rules()
    metrics = fields_by_type()
    app = faust.App(
        "bench-naive", broker=f"kafka://{broker}", value_serializer="json", datadir=str(folder / "data"),
        topic_partitions=partitions, consumer_auto_offset_reset="earliest", web_enabled=False,
    )  # fmt: skip
    names = sorted({name for counted in metrics.values() for name, _ in counted})
    tables = {name: app.Table(name, default=int, partitions=partitions) for name in names}
    topic = app.topic(EVENTS, value_serializer="json", key_serializer="raw", partitions=partitions)
    seen = updates = 0
    began = (0.0, 0.0)

    async def read(stream: Any) -> None:
        nonlocal seen, updates, began
        async for event in stream:
            kind = event["type"]
            if kind == TICK_TYPE:
                continue
            if not seen and not kind.startswith("call."):
                continue  # the roster and the rota stand first: nothing is counted from them
            if not seen:
                began = (time.perf_counter(), time.process_time())
            subject, data = event["subject"], event["data"]
            for name, field in metrics.get(kind, ()):
                amount = data.get(field, 0) if field else 1
                tables[name][subject] += amount if isinstance(amount, int) else 1
                updates += 1
            with contextlib.suppress(MessageNotHandledException):
                known = {name: value for name, value in data.items() if value is not None}
                post("naive", {"id": event["id"], "type": kind} | known)
            seen += 1
            if seen == limit:
                result = {
                    "events": seen,
                    "wall_s": time.perf_counter() - began[0],
                    "cpu_s": time.process_time() - began[1],
                    "tables": len(tables),
                    "updates_per_event": round(updates / seen, 2),
                    "rules": len(RULES),
                }
                write(result)
                await app.crash(SystemExit(0))
                return

    def write(result: dict[str, Any]) -> None:
        out.write_text(json.dumps(result), encoding="utf-8")

    app.agent(topic)(read)
    faust.Worker(app, loglevel="warn", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
