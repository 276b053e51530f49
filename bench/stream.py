"""The recorded stream that every part of the benchmark reads: a simulated contact centre with its clock's ticks.

Theory of operation. The simulator's events and the ticks of its log clock, as ``kaohe produce --clock log`` writes
them, are encoded once into a file of JSON lines under ``build/bench/``. The file's name says what is in it, so a
changed size is a new file; it comes into being under another name, so a broken run leaves no half of one behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from kaohe.adapters.base import SourceItem
from kaohe.adapters.log_clock import log_ticks
from kaohe.adapters.simulator import simulate
from kaohe.core.model import Pack
from kaohe.core.records import Record
from kaohe.events import Envelope, encode
from kaohe.packs.load import load_packs
from kaohe.stream.clock import CLOCK_SUBJECT, tick

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"
PACKS = ("contact-centre", "front-desk", "logistics-service")
FETCH_RECORDS = 10_000
"""Records in a batch: what the worker fetches at most at once."""


class Size(NamedTuple):
    """What is simulated."""

    seed: int
    agents: int
    days: int


class Line(NamedTuple):
    """One record of the stream; a tick has the clock's subject."""

    value: bytes
    subject: str

    @property
    def is_tick(self) -> bool:
        """Whether this is the log's clock."""
        return self.subject == CLOCK_SUBJECT


class _Subject(msgspec.Struct):
    subject: str


_SUBJECT = msgspec.json.Decoder(_Subject)


def packs() -> list[Pack]:
    """The three packs, freshly loaded."""
    return list(load_packs(PACKS))


def recording(size: Size) -> Path:
    """The file of a stream; made when it is not there."""
    path = FOLDER / f"stream-{size.seed}-{size.agents}-{size.days}.jsonl"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        for kind, content in log_ticks(_items(simulate(size.seed, size.agents, size.days))):
            if kind == "tick":
                assert isinstance(content, datetime)
                file.write(tick(content) + b"\n")
            else:
                assert isinstance(content, SourceItem)
                assert content.event is not None
                file.write(encode(content.event) + b"\n")
    partial.rename(path)
    return path


def _items(events: Iterable[Envelope]) -> Iterator[SourceItem]:
    for number, event in enumerate(events, start=1):
        yield SourceItem(line=number, raw=b"", event=event)


def lines(path: Path, limit: int | None = None) -> list[Line]:
    """The stream in memory, or its first ``limit`` records."""
    found: list[Line] = []
    with path.open("rb") as file:
        for raw in file:
            if limit is not None and len(found) >= limit:
                break
            value = raw.rstrip(b"\n")
            found.append(Line(value, _SUBJECT.decode(value).subject))
    return found


def batches(stream: Iterable[Line]) -> list[list[Record]]:
    """The stream as one partition's fetches."""
    records = [Record(offset, line.value, line.subject.encode(), 0) for offset, line in enumerate(stream)]
    return [records[start : start + FETCH_RECORDS] for start in range(0, len(records), FETCH_RECORDS)]
