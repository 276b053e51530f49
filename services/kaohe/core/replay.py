"""The whole core in one process: partitions, their group stage, and everything that came out of them.

Theory of operation. A ``Replay`` is fed with events and ticks in the order of the log and collects decisions, alerts,
grades and rejects. It is what ``kaohe replay``, story tests and simulations run, and it is the measure for the stream:
whatever the broker, the workers and the crashes, they must come to the same final decisions.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from fractions import Fraction
from operator import itemgetter
from typing import Any, NamedTuple
from zlib import crc32

from kaohe.core.calendars import WINDOWS, Period, to_ms
from kaohe.core.counting import Layout, read
from kaohe.core.counts import Cell, Series
from kaohe.core.engine import BUCKETS_MS, PartitionEngine, Zones
from kaohe.core.evidence import witnesses
from kaohe.core.facts import formula_text
from kaohe.core.group import GroupEngine
from kaohe.core.intake import GROUP_BUCKET_MS
from kaohe.core.judge import Judge
from kaohe.core.model import Metric, Pack
from kaohe.core.records import Output, Record
from kaohe.core.subjects import Subject
from kaohe.core.telling import newest
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


class _Counted(NamedTuple):
    """What was counted of a subject in a calendar period, and the packs (by key) whose metrics it is read by."""

    level: Any
    subject: str
    window: str
    label: str
    day: date
    active: frozenset[str]
    counts: Cell
    layout: Layout

    def order(self) -> tuple[str, ...]:
        """The place of its values among those of one metric."""
        return self.level, self.subject, self.window, self.label


class _Reader:
    """A metric of a pack, read for any subject and period; its formula is put together once for each day."""

    def __init__(self, pack: Pack, metric: Metric) -> None:
        self.metric = metric
        self._pack = pack
        self._formulas: dict[date, str] = {}

    def value(self, counted: _Counted) -> MetricValue:
        """The metric of what was counted."""
        metric, day = self.metric, counted.day
        formula = self._formulas.get(day)
        if formula is None:
            formula = self._formulas[day] = formula_text(self._pack, metric, day)
        reading = read(counted.layout, self._pack.key, metric, counted.counts)
        return MetricValue(
            metric=metric.name, level=counted.level, subject=counted.subject, window=counted.window,
            period=counted.label, value=plain(reading.value, whole=metric.unit == "count"),
            numerator=plain(reading.numerator), denominator=plain(reading.denominator), pack=self._pack.name,
            formula=formula,
        )  # fmt: skip


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
        self._counted: list[_Counted] = []
        self._reports: list[Record] = []
        for engine in self.engines:
            engine.judge.on_drop = self._drop(engine.judge)
        self.group.judge.on_drop = self._drop(self.group.judge)

    def _make_partition(self, index: int) -> PartitionEngine:
        return PartitionEngine(self.packs, zones=self.zones, partition=index)

    def _make_group(self, partitions: int) -> GroupEngine:
        return GroupEngine(self.packs, zones=self.zones, source_partitions=partitions)

    def leave_metrics(self) -> None:
        """Keep no figures of what is forgotten: of many people and months they are far more than everything else."""
        for judge in (self.group.judge, *(engine.judge for engine in self.engines)):
            judge.on_drop = None

    def keep_all_evidence(self) -> None:
        """Name all events that a decision rests on, however many they are. Before anything is fed."""
        for layout in (self.group.layout, *(engine.layout for engine in self.engines)):
            witnesses(layout).keep_all()

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
        """Every revision of every grade as it went out, in order."""
        return [GRADE_DECODER.decode(raw) for raw in self.grades]

    def newest_grades(self) -> dict[str, Grade]:
        """The newest revision of every grade with its whole card, by id."""
        return newest(map(GRADE_DECODER.decode, self.grades))

    def metrics(self) -> list[MetricValue]:
        """Every metric over every calendar period, in a canonical order; open counts included."""
        return list(self.each_metric())

    def each_metric(self) -> Iterator[MetricValue]:
        """As ``metrics``, one after the other: of a long log there are too many to hold."""
        by_level: dict[str, list[_Counted]] = {}
        for counted in sorted(
            [*self._counted, *self._agents_counted(), *self._groups_counted()], key=_Counted.order
        ):
            by_level.setdefault(counted.level, []).append(counted)
        named: dict[tuple[str, str], dict[str, _Reader]] = {}
        for pack in self.packs:
            for metric in pack.metrics.values():
                if metric.kind != "stock":
                    named.setdefault((pack.name, metric.name), {})[pack.key] = _Reader(pack, metric)
        for _, versions in sorted(named.items(), key=itemgetter(0)):
            for _, of_level in sorted(by_level.items()):
                yield from _values(of_level, versions)

    def _agents_counted(self) -> Iterator[_Counted]:
        """What is counted of agents, with their open cells."""
        for engine in self.engines:
            for subject in engine.judge.subjects.values():
                if subject.level == "agent":
                    periods = set(subject.series.periods)
                    for bucket in subject.series.cells:
                        periods.update(subject.series.calendar.periods(bucket * subject.series.bucket_ms))
                    for period in periods:
                        counts = subject.series.period_with_open(period)
                        yield from self._noted(engine.judge, subject, period, counts)

    def _groups_counted(self) -> Iterator[_Counted]:
        """What is counted of groups, with what partitions have not reported yet."""
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
                waiting.setdefault(period, Cell()).merge(cell)
        for key, subject in subjects.items():
            waiting = unreported.get(key, {})
            for period in set(subject.series.periods) | set(waiting):
                counts = Cell()
                for found in (subject.series.periods.get(period), waiting.get(period)):
                    if found is not None:
                        counts.merge(found)
                yield from self._noted(judge, subject, period, counts)

    def _unreported(self) -> Iterator[tuple[str, str, int, Cell]]:
        """What partitions have counted for groups and not reported yet: level, name, start and cell."""
        for engine in self.engines:
            for level, groups in engine.groups.items():
                for name, cells in groups.items():
                    for bucket, cell in cells.items():
                        yield level, name or "all", bucket * BUCKETS_MS[level], cell

    def _drop(self, judge: Judge) -> Callable[[Subject, Period], None]:
        def on_drop(subject: Subject, period: Period) -> None:
            self._counted += self._noted(judge, subject, period, subject.series.periods[period])

        return on_drop

    @staticmethod
    def _noted(judge: Judge, subject: Subject, period: Period, counts: Cell) -> Iterator[_Counted]:
        if period.window in WINDOWS:
            day = subject.series.calendar.day(period.start_ms)
            active = frozenset([pack.key for pack in judge.active_packs() if day >= pack.in_force_from])
            yield _Counted(
                subject.level, subject.name, period.window, period.label, day, active, counts, judge.layout
            )


def _values(of_level: list[_Counted], versions: Mapping[str, _Reader]) -> Iterator[MetricValue]:
    """The values of one metric, given by its versions in force, for what was counted at one level."""
    readers = {key: one for key, one in versions.items() if of_level[0].level in one.metric.levels}
    if not readers:
        return
    for counted in of_level:
        for key in counted.active & readers.keys():  # at most one: the version in force
            yield readers[key].value(counted)


def plain(value: Fraction | None, *, whole: bool = True) -> float | int | None:
    """An exact number as JSON: an integer where it is one (and ``whole``), otherwise the nearest float."""
    if value is None:
        return None
    return value.numerator if whole and value.denominator == 1 else float(value)
