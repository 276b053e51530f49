"""The whole core in one process: partitions, their group stage, and everything that came out of them.

Theory of operation. A ``Replay`` is fed with events and ticks in the order of the log and collects decisions, alerts,
grades and rejects. It is what ``kaohe replay``, story tests and simulations run, and it is the measure for the stream:
whatever the broker, the workers and the crashes, they must come to the same final decisions.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from fractions import Fraction
from zlib import crc32

from kaohe.core.calendars import WINDOWS, Period, to_ms
from kaohe.core.counting import Cell, merge, read
from kaohe.core.engine import BUCKETS_MS, GROUP_BUCKET_MS, PartitionEngine, Zones
from kaohe.core.facts import formula_text
from kaohe.core.group import GroupEngine
from kaohe.core.judge import Judge
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.series import Series
from kaohe.core.subjects import Subject
from kaohe.decisions import (
    ALERT_DECODER,
    DECISION_DECODER,
    GRADE_DECODER,
    Alert,
    Decision,
    Grade,
    MetricValue,
    Reject,
)
from kaohe.errors import EventError
from kaohe.events import EVERYWHERE, Envelope, encode
from kaohe.privacy import mask


class Replay:
    """The core alone, over ``partitions`` partitions (1 unless a test wants to see that it makes no difference)."""

    def __init__(
        self, packs: Iterable[Pack], *, zones: Zones | None = None, partitions: int = 1, topic: str = "log"
    ) -> None:
        self.packs = tuple(packs)
        self.zones = zones or Zones(default=self.packs[0].zone)
        self.topic = topic
        self.engines = [self._make_partition(index) for index in range(partitions)]
        self.group = self._make_group(partitions)
        self.decisions: list[bytes] = []
        self.alerts: list[bytes] = []
        self.grades: list[bytes] = []
        self.rejects: list[Reject] = []
        self.last_ms = 0
        self._metrics: list[MetricValue] = []
        self._reports: list[Record] = []
        for engine in self.engines:
            engine.judge.on_drop = self._drop(engine.judge)
        self.group.judge.on_drop = self._drop(self.group.judge)

    def _make_partition(self, index: int) -> PartitionEngine:
        return PartitionEngine(self.packs, zones=self.zones, partition=index)

    def _make_group(self, partitions: int) -> GroupEngine:
        return GroupEngine(self.packs, zones=self.zones, source_partitions=partitions)

    def feed(self, event: Envelope, *, line: int = 0, raw: bytes = b"", topic: str = "") -> None:
        """Apply one event; one that cannot be used becomes a reject with its line. An activation goes everywhere."""
        own = crc32(event.subject.encode()) % len(self.engines)
        everywhere = isinstance(event.data, EVERYWHERE)
        for engine in self.engines if everywhere else self.engines[own : own + 1]:
            try:
                engine.take(event)
            except EventError as error:
                counts = engine.stats.rejects
                counts[error.code] = counts.get(error.code, 0) + 1
                self.reject(error.code, str(error), line, raw or encode(event), topic)
                break

    def reject(self, code: str, reason: str, line: int, raw: bytes, topic: str = "") -> None:
        """Note a record that cannot be used."""
        masked = base64.b64encode(mask(raw)).decode()
        self.rejects.append(
            Reject(code=code, reason=reason, topic=topic or self.topic, partition=0, offset=line, raw=masked)
        )

    def tick(self, moment: datetime | int) -> None:
        """Move the log's clock in every partition, and let the groups follow."""
        self.advance(moment)
        self.gather()

    def advance(self, moment: datetime | int) -> None:
        """Move the log's clock in every partition; the groups follow at ``gather``, sooner or later."""
        time_ms = moment if isinstance(moment, int) else to_ms(moment)
        self.last_ms = max(self.last_ms, time_ms)
        for engine in self.engines:
            engine.tick(time_ms)
            if engine.judge.out:
                self._sort(engine.judge.take_outputs())

    def gather(self) -> None:
        """Let the groups take in what the partitions have reported."""
        if self._reports:
            reports, self._reports = self._reports, []
            self._sort(self.group.apply(reports))

    def finish(self) -> None:
        """Collect what the last events gave."""
        for engine in self.engines:
            self._sort(engine.judge.take_outputs())
        self.gather()

    def _sort(self, outputs: list[Output]) -> None:
        kept = {"decisions": self.decisions, "alerts": self.alerts, "grades": self.grades}
        for output in outputs:
            if output.topic == "partials":
                self._reports.append(Record(0, output.value, None, 0))
            else:
                kept[output.topic].append(output.value)

    # --- what came out ------------------------------------------------------------------------------------------------

    def decision_list(self) -> list[Decision]:
        """Every revision of every decision, in the order in which they were made."""
        return [DECISION_DECODER.decode(raw) for raw in self.decisions]

    def newest_decisions(self) -> dict[str, Decision]:
        """The newest revision of every decision, by id."""
        return {decision.id: decision for decision in self.decision_list()}

    def alert_list(self) -> list[Alert]:
        """Every alert that began or ended, in order."""
        return [ALERT_DECODER.decode(raw) for raw in self.alerts]

    def grade_list(self) -> list[Grade]:
        """Every revision of every grade, in order."""
        return [GRADE_DECODER.decode(raw) for raw in self.grades]

    def metrics(self) -> list[MetricValue]:
        """Every metric over every calendar period, in a canonical order; open counts included."""
        found = list(self._metrics)
        for engine in self.engines:
            for subject in engine.judge.subjects.values():
                if subject.level == "agent":
                    periods = set(subject.series.periods)
                    for bucket in subject.series.cells:
                        periods.update(subject.series.calendar.periods(bucket * subject.series.bucket_ms))
                    for period in periods:
                        found += self._values(
                            engine.judge, subject, period, subject.series.period_with_open(period)
                        )
        found += self._group_values()
        return sorted(
            found, key=lambda one: (one.pack, one.metric, one.level, one.subject, one.window, one.period)
        )

    def _group_values(self) -> Iterator[MetricValue]:
        """Groups' metrics, with what partitions have not reported yet."""
        judge = self.group.judge
        subjects = dict(judge.subjects)
        unreported: dict[tuple[str, str], dict[Period, Cell]] = {}
        for level, name, start_ms, cell in self._unreported():
            subject = subjects.get((level, name))
            if subject is None:
                zone = self.zones.of(name if level == "site" else "")
                subject = subjects[level, name] = Subject(
                    level, name, Series(zone, GROUP_BUCKET_MS, ()), start_ms
                )
            waiting = unreported.setdefault(subject.key, {})
            for period in subject.series.calendar.periods(start_ms):
                merge(waiting.setdefault(period, {}), cell)
        for key, subject in subjects.items():
            waiting = unreported.get(key, {})
            for period in set(subject.series.periods) | set(waiting):
                counts: Cell = {}
                merge(counts, subject.series.periods.get(period, {}))
                merge(counts, waiting.get(period, {}))
                yield from self._values(judge, subject, period, counts)

    def _unreported(self) -> Iterator[tuple[str, str, int, Cell]]:
        """What partitions have counted for groups and not reported yet: level, name, start and cell."""
        for engine in self.engines:
            for level, groups in engine.groups.items():
                for name, cells in groups.items():
                    for bucket, cell in cells.items():
                        yield level, name or "all", bucket * BUCKETS_MS[level], cell

    def _drop(self, judge: Judge) -> Callable[[Subject, Period], None]:
        def on_drop(subject: Subject, period: Period) -> None:
            self._metrics += self._values(judge, subject, period, subject.series.periods[period])

        return on_drop

    @staticmethod
    def _values(judge: Judge, subject: Subject, period: Period, counts: Cell) -> Iterator[MetricValue]:
        if period.window not in WINDOWS:
            return
        day = subject.series.calendar.day(period.start_ms)
        for pack in judge.active_packs():
            for metric in pack.metrics.values():
                if subject.level not in metric.levels or metric.kind == "stock" or day < pack.in_force_from:
                    continue
                reading = read(judge.layout, pack.key, metric, counts)
                yield MetricValue(
                    metric=metric.name, level=subject.level, subject=subject.name, window=period.window,
                    period=period.label, value=plain(reading.value, whole=metric.unit == "count"),
                    numerator=plain(reading.numerator), denominator=plain(reading.denominator), pack=pack.name,
                    formula=formula_text(pack, metric, day),
                )  # fmt: skip


def plain(value: Fraction | None, *, whole: bool = True) -> float | int | None:
    """An exact number as JSON: an integer where it is one (and ``whole``), otherwise the nearest float."""
    if value is None:
        return None
    return value.numerator if whole and value.denominator == 1 else float(value)
