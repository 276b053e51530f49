"""The group stage: what partitions counted for teams, queues and sites is put together and judged.

Theory of operation. Every partition of events reports each minute of log time what it counted for groups; a report
carries its partition, a number and the minute up to which it is complete. A group engine takes each report exactly
once (a number it has seen is a repetition, a gap is refused), holds it until *every* partition has reported that
minute, and only then adds it up and judges. So the result depends on the log alone, never on which partition was
faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from kaohe.core.calendars import Calendar
from kaohe.core.counting import Layout
from kaohe.core.engine import GROUP_BUCKET_MS, GROUP_LEVELS, REPORT_DECODER, Report, Zones
from kaohe.core.facts import metric_windows
from kaohe.core.judge import SEPARATOR, Judge, Stats
from kaohe.core.live import CounterValue, LiveValue, counter_values, firing, live_values, subject_names
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.series import unpack_cell
from kaohe.errors import StateError

GROUP_TRIGGERS = frozenset({"period", "watch"})
MAX_WAITING = 200_000
"""Reports of one partition that may wait for the others: 139 days of log time."""


class StoredFrame(msgspec.Struct, array_like=True):
    """What a group engine remembers beside its subjects and the waiting reports."""

    numbers: list[tuple[int, int]]
    firsts: list[tuple[int, int]]
    uptos: list[tuple[int, int]]
    now_ms: int | None


_FRAME_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_FRAME_DECODER = msgspec.msgpack.Decoder(StoredFrame)


class GroupEngine:
    """The engine of one partition of ``kaohe.partials``."""

    def __init__(
        self, packs: Iterable[Pack], *, zones: Zones, partition: int = 0, source_partitions: int = 1
    ) -> None:
        self.packs = tuple(packs)
        self.zones = zones
        self.partition = partition
        self.source_partitions = source_partitions
        self.layout = Layout(self.packs)
        by_key = {pack.key: pack for pack in self.packs}
        spans = {level: metric_windows(by_key, level) for level in GROUP_LEVELS}
        triggers = {level: GROUP_TRIGGERS for level in GROUP_LEVELS}
        self.judge = Judge(self.layout, self.packs, triggers, GROUP_BUCKET_MS, spans, self._calendar_of)
        self.now_ms: int | None = None
        self.waiting: dict[int, deque[Report]] = {source: deque() for source in range(source_partitions)}
        self.numbers: dict[int, int] = {}
        self.firsts: dict[int, int] = {}
        self.uptos: dict[int, int] = {}
        self._changed: dict[str, bytes | None] = {}

    @property
    def stats(self) -> Stats:
        """Counts since the engine began."""
        return self.judge.stats

    @property
    def watermark_ms(self) -> int:
        """The minute up to which every partition has reported; 0 before that."""
        return self.now_ms or 0

    def _calendar_of(self, level: str, name: str) -> Calendar:
        return self.zones.of(name if level == "site" else "")

    def apply(self, records: Iterable[Record]) -> list[Output]:
        """Take reports in the order of their offsets; what is to be sent, in order."""
        for record in records:
            self._take(record.value)
        if len(self.uptos) == self.source_partitions:
            self._advance(min(self.uptos.values()))
        return self.judge.take_outputs()

    def _take(self, raw: bytes) -> None:
        report = REPORT_DECODER.decode(raw)
        source = report.source
        if source not in self.waiting:
            raise StateError(
                f"a report of partition {source}, but {self.source_partitions} partitions were announced; "
                "start every worker with the partition count that kaohe.events has"
            )
        last = self.numbers.get(source, 0)
        if report.number <= last:
            return
        if report.number != last + 1:
            raise StateError(
                f"report {last + 1} of partition {source} is missing: {report.number} came after {last}"
            )
        if len(self.waiting[source]) >= MAX_WAITING:
            raise StateError(f"{MAX_WAITING} reports of partition {source} wait for the other partitions")
        self.numbers[source] = report.number
        self.firsts.setdefault(source, report.upto_ms)
        self.uptos[source] = report.upto_ms
        self.waiting[source].append(report)
        self._changed[f"b{SEPARATOR}{source}{SEPARATOR}{report.number}"] = raw

    def _advance(self, upto_ms: int) -> None:
        """Add up and judge everything that all partitions have reported, minute by minute."""
        if self.now_ms is None:
            self.judge.start(min(self.firsts.values()) - GROUP_BUCKET_MS)
        elif upto_ms <= self.now_ms:
            return
        minutes = {
            report.upto_ms for queue in self.waiting.values() for report in queue if report.upto_ms <= upto_ms
        }
        for minute_ms in sorted(minutes):
            self._run(minute_ms - 1)
            for source in sorted(self.waiting):
                queue = self.waiting[source]
                while queue and queue[0].upto_ms == minute_ms:
                    self._add(queue.popleft())
        self._run(upto_ms)
        self.judge.settle(upto_ms)
        self.now_ms = upto_ms

    def _run(self, upto_ms: int) -> None:
        while True:
            due_ms = self.judge.due_ms()
            if due_ms is None or due_ms > upto_ms:
                return
            self.judge.run(due_ms)

    def _add(self, report: Report) -> None:
        for level, name, start_ms, packed in report.groups:
            subject = self.judge.subject(level, name, start_ms)
            cell = unpack_cell(packed, self.layout.slots)
            self.judge.counted(subject, subject.series.add(start_ms, cell, report.upto_ms))
        self._changed[f"b{SEPARATOR}{report.source}{SEPARATOR}{report.number}"] = None

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = self.judge.checkpoint()
        changed.update(self._changed)
        self._changed = {}
        frame = StoredFrame(
            sorted(self.numbers.items()), sorted(self.firsts.items()), sorted(self.uptos.items()), self.now_ms
        )
        changed["frame"] = _FRAME_ENCODER.encode(frame)
        return changed

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; the engine must be fresh. No items: nothing was stored yet."""
        if not items:
            return
        own = ("s" + SEPARATOR, "p" + SEPARATOR)
        self.judge.restore({key: value for key, value in items.items() if key == "judge" or key[:2] in own})
        frame = _FRAME_DECODER.decode(items["frame"])
        self.numbers, self.firsts, self.uptos = dict(frame.numbers), dict(frame.firsts), dict(frame.uptos)
        self.now_ms = frame.now_ms
        reports: list[Any] = [
            REPORT_DECODER.decode(raw) for key, raw in items.items() if key.startswith("b" + SEPARATOR)
        ]
        for report in sorted(reports, key=lambda one: one.number):
            self.waiting[report.source].append(report)

    # --- reading ------------------------------------------------------------------------------------------------------

    def subjects(self, levels: Iterable[str]) -> list[str]:
        """The names of all groups of these levels, in order."""
        return subject_names(self.judge, frozenset(levels) & frozenset(GROUP_LEVELS))

    def live_values(self, levels: Iterable[str], only: Container[str] | None = None) -> Iterator[LiveValue]:
        """Metrics of groups over live windows; of ``only`` those named, if given."""
        return live_values(self.judge, frozenset(levels) & frozenset(GROUP_LEVELS), only)

    def counter_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[CounterValue]:
        """Running totals of the metrics of groups; of ``only`` those named, if given."""
        return counter_values(self.judge, frozenset(levels) & frozenset(GROUP_LEVELS), only)

    def firing(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Live alerts that fire now."""
        return firing(self.judge)
