"""What one measurement is, and how several of them become the table."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Result(msgspec.Struct):
    """One line of the table. Rates are events a second; ticks of the log's clock are work, but no events.

    ``wall_rate`` is by the wall clock, ``cpu_rate`` by the processor time of the process that did the work (None
    where several threads or processes shared it in a way that cannot be told apart).
    """

    name: str
    events: int
    wall_rate: float
    cpu_rate: float | None
    runs: int = 1
    details: dict[str, Any] = {}


def repeated(name: str, events: int, work: Callable[[], object], runs: int) -> Result:
    """The medians of several runs of ``work`` in this process. The collector runs before, as usual, and during it."""
    assert events > 0
    assert runs > 0
    wall_s: list[float] = []
    cpu_s: list[float] = []
    for _ in range(runs):
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        cpu_s.append(time.process_time() - cpu)
        wall_s.append(time.perf_counter() - wall)
    return Result(name, events, events / statistics.median(wall_s), events / statistics.median(cpu_s), runs)


def process_cpu_s(pid: int) -> float:
    """Processor time, user and system, that a process has used (Linux)."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Where the figures come from; without this they mean nothing."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")
        ]
        model = names[0].partition(":")[2].strip() if names else model
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return {
        "python": platform.python_version(),
        "processor": model,
        "cores": os.cpu_count(),
        "load_1min": round(load[0], 2),
    }


def table(results: list[Result]) -> str:
    """The results side by side, each also as a multiple of the naive Faust app where that was measured."""
    naive = next((result for result in results if result.name.startswith("naive")), None)
    rows = [("part", "events", "events/s", "events/CPU s", "x naive", "runs")]
    rows += [
        (
            result.name,
            f"{result.events:,}",
            f"{result.wall_rate:,.0f}",
            "" if result.cpu_rate is None else f"{result.cpu_rate:,.0f}",
            "" if naive is None else f"{result.wall_rate / naive.wall_rate:,.1f}",
            str(result.runs),
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
