"""The group stage: what partitions counted for teams, queues and sites is put together and judged.

Theory of operation. Every partition of events reports each minute of log time what it counted for groups; a report
carries its partition, a number and the minute up to which it is complete. A group engine takes each report exactly
once, in the order of numbers. A number it has seen is a repetition. A number beyond the next one follows a gap: of what
a worker sent before it was killed some may be lost, and its successor sends all of it again from its checkpoint, so the
report is dropped and comes again. A report is held until *every* partition has reported that minute, and only then is
it added up and judged. So the result depends on the log alone, never on which partition was faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec

from kaohe.core import reopening
from kaohe.core.calendars import Calendar
from kaohe.core.company import Company
from kaohe.core.counting import Layout
from kaohe.core.counts import Cell
from kaohe.core.engine import GROUP_LEVELS, MAX_SUBJECTS, Report, Zones, read_report
from kaohe.core.escalating import Escalations, watches_groups
from kaohe.core.evidence import Reported, witnesses
from kaohe.core.evidence import merge as merge_seen
from kaohe.core.facts import metric_windows
from kaohe.core.intake import GROUP_BUCKET_MS
from kaohe.core.judge import Judge, Stats
from kaohe.core.live import CounterValue, LiveValue, counter_values, firing, live_values, subject_names
from kaohe.core.model import Pack
from kaohe.core.partials import Reader, add_up
from kaohe.core.records import Output, Record
from kaohe.core.storing import is_own
from kaohe.core.subjects import SEPARATOR, Subject
from kaohe.errors import StateError

GROUP_TRIGGERS = frozenset({"period", "watch"})
MAX_WAITING = 200_000
"""Reports of one partition that may wait for the others: 139 days of log time."""
CHUNK_REPORTS = 16
"""Waiting reports that share a key of stored state: in catch-up thousands wait, each for one checkpoint or a few."""
MAX_DROPPED = 10_000
"""Reports in a row that may be dropped because one before them is missing: what is missing then comes no more."""


class StoredFrame(msgspec.Struct, array_like=True):
    """What a group engine remembers beside its subjects and the waiting reports.

    By source: ``numbers`` the last report that came, ``taken`` the last one that was added up.
    """

    numbers: list[tuple[int, int]]
    taken: list[tuple[int, int]]
    firsts: list[tuple[int, int]]
    uptos: list[tuple[int, int]]
    now_ms: int | None
    activations: list[tuple[int, str, str]]
    complete_ms: list[tuple[int, int]] = []


_FRAME_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_FRAME_DECODER = msgspec.msgpack.Decoder(StoredFrame)
_CHUNK_ENCODER = msgspec.msgpack.Encoder()
_CHUNK_DECODER = msgspec.msgpack.Decoder(list[Report])


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
        triggers = dict.fromkeys(GROUP_LEVELS, GROUP_TRIGGERS)
        self.judge = Judge(self.layout, self.packs, triggers, GROUP_BUCKET_MS, spans, self._calendar_of)
        self.witnesses = witnesses(self.layout)
        self.now_ms: int | None = None
        self.waiting: dict[int, deque[Report]] = {source: deque() for source in range(source_partitions)}
        self.numbers: dict[int, int] = {}
        self.firsts: dict[int, int] = {}
        self.uptos: dict[int, int] = {}
        self.complete_ms: dict[int, int] = {}
        self.activations: list[tuple[int, str, str]] = []
        watched = watches_groups(self.packs)
        self.escalations = Escalations(self.judge, self.layout, self.packs, MAX_SUBJECTS) if watched else None
        self.company = Company(self.packs, [zones.default, *zones.sites.values()])
        self.dropped: dict[int, int] = {}
        self.stored_frame = b""
        # Chunks of waiting reports, (source, number // CHUNK_REPORTS): with new ones, with some taken out, and stored.
        self._grown: set[tuple[int, int]] = set()
        self._shrunk: set[tuple[int, int]] = set()
        self._stored: set[tuple[int, int]] = set()

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
        report = read_report(raw)
        source = report.source
        if source not in self.waiting:
            raise StateError(
                f"a report of partition {source}, but {self.source_partitions} partitions were announced; "
                "start every worker with the partition count that kaohe.events has"
            )
        last = self.numbers.get(source, 0)
        if report.number <= last:
            return
        if report.number > last + 1:
            self._drop(source, report.number, last)
            return
        self.dropped.pop(source, None)
        if len(self.waiting[source]) >= MAX_WAITING:
            raise StateError(f"{MAX_WAITING} reports of partition {source} wait for the other partitions")
        self.numbers[source] = report.number
        self.firsts.setdefault(source, report.upto_ms)
        self.uptos[source] = report.upto_ms
        self.waiting[source].append(report)
        if source == 0:
            # Every partition is told of an activation; what the first one says is when it was.
            self.activations += report.activations
        self._grown.add((source, report.number // CHUNK_REPORTS))

    def _drop(self, source: int, number: int, last: int) -> None:
        """Drop a report that follows a gap; StateError when the gap does not close."""
        self.stats.gaps += 1
        dropped = self.dropped[source] = self.dropped.get(source, 0) + 1
        if dropped > MAX_DROPPED:
            raise StateError(
                f"report {last + 1} of partition {source} is missing: {dropped} reports up to number {number} came "
                "after it; restore kaohe.partials, or start the group stage anew from the beginning of the log"
            )

    def _advance(self, upto_ms: int) -> None:
        """Add up and judge everything that all partitions have reported, minute by minute."""
        if self.now_ms is None:
            self.judge.start(min(self.firsts.values()) - GROUP_BUCKET_MS)
        elif upto_ms <= self.now_ms:
            return
        queues = [self.waiting[source] for source in sorted(self.waiting)]
        # The reports of a source wait in the order of their minutes.
        while (minute_ms := min([one[0].upto_ms for one in queues if one], default=upto_ms + 1)) <= upto_ms:
            self._run(minute_ms - 1)
            # After a silence the grid stands in the past: what comes now must not be judged as if it were known then.
            self.judge.settle(minute_ms - 1)
            cells: dict[tuple[str, str, int], Cell] = {}
            seen: list[Reported] = []
            for queue in queues:
                while queue and queue[0].upto_ms == minute_ms:
                    self._take_out(queue.popleft(), cells, seen)
            self.judge.counted_alike(add_up(cells, self.judge.subjects, self._group, minute_ms))
            for level, name, start_ms, changes in seen:
                subject = self._subject(level, name, start_ms)
                if subject is not None:
                    merge_seen(self.witnesses, subject, start_ms, changes)
                    self.judge.touched.add(subject.key)
            if self.escalations is not None:
                # Not before: what was acknowledged in this minute is known only now.
                self.escalations.run(minute_ms)
            if len(self.complete_ms) == self.source_partitions:
                self.judge.out += self.company.complete(min(self.complete_ms.values()))
        self._run(upto_ms)
        self.judge.settle(upto_ms)
        self.now_ms = upto_ms

    def _run(self, upto_ms: int) -> None:
        """Do what is due up to a moment; a version that was activated judges from the boundary after that on."""
        while True:
            due_ms = self.judge.due_ms()
            if self.activations and self.activations[0][0] <= upto_ms:
                at_ms, pack, version = self.activations[0]
                if due_ms is None or at_ms < due_ms:
                    del self.activations[0]
                    self.judge.settle(at_ms)
                    if " " in version:
                        if pack in self.judge.active:
                            reopening.carry_out(self.judge, pack, version, at_ms)
                    elif f"{pack}@{version}" in self.judge.packs:
                        self.judge.activate(pack, version, at_ms)
                    continue
            if due_ms is None or due_ms > upto_ms:
                return
            self.judge.run(due_ms)
            if self.escalations is not None:
                self.escalations.settle(due_ms)

    def _take_out(
        self, report: Report, cells: dict[tuple[str, str, int], Cell], seen: list[Reported]
    ) -> None:
        """Put a report's counts to those that other partitions reported for the same groups and minute, and what it
        saw to what they did."""
        self.complete_ms[report.source] = report.upto_ms
        if report.proposals is not msgspec.UNSET:
            self.company.take(report.proposals)
        if report.groups:
            Reader(report.terms, self.layout.slots).put(report.groups, cells)
        if report.seen is not msgspec.UNSET:
            seen += report.seen
        if self.escalations is not None and report.alerts is not msgspec.UNSET:
            for alert in report.alerts:
                self.escalations.take(alert)
        self._shrunk.add((report.source, report.number // CHUNK_REPORTS))

    def _subject(self, level: str, name: str, start_ms: int) -> Subject | None:
        """A group, made when it is new; None where there is no room for it."""
        if (level, name) not in self.judge.subjects and len(self.judge.subjects) >= MAX_SUBJECTS:
            return None
        return self.judge.subject(level, name, start_ms)

    def _group(self, level: str, name: str, start_ms: int) -> Subject | None:
        """A new group; None, and a note of it, where there is no room."""
        subject = self._subject(level, name, start_ms)
        if subject is None:
            rejects = self.stats.rejects
            rejects["too_many_subjects"] = rejects.get("too_many_subjects", 0) + 1
        return subject

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = self.judge.checkpoint()
        self._store_reports(changed)
        changed.update(self.company.checkpoint())
        if self.escalations is not None:
            changed.update(self.escalations.items.deadlines.checkpoint())
        taken = [
            (source, number - len(self.waiting[source])) for source, number in sorted(self.numbers.items())
        ]
        frame = StoredFrame(
            sorted(self.numbers.items()), taken, sorted(self.firsts.items()), sorted(self.uptos.items()), self.now_ms,
            self.activations, sorted(self.complete_ms.items()),
        )  # fmt: skip
        raw = _FRAME_ENCODER.encode(frame)
        if raw != self.stored_frame:
            changed["frame"] = self.stored_frame = raw
        return changed

    def _store_reports(self, changed: dict[str, bytes | None]) -> None:
        """Store the chunks that have new reports. One of which some were taken out stays as it is until all were."""
        for source, chunk in sorted(self._grown | self._shrunk):
            key = SEPARATOR.join(("b", str(source), str(chunk)))
            queue = self.waiting[source]
            # The reports of a source wait in the order of their numbers, without a gap.
            first = chunk * CHUNK_REPORTS - (queue[0].number if queue else 0)
            left = [queue[at] for at in range(max(first, 0), min(first + CHUNK_REPORTS, len(queue)))]
            if not left and (source, chunk) in self._stored:
                changed[key] = None
                self._stored.discard((source, chunk))
            elif left and (source, chunk) in self._grown:
                changed[key] = _CHUNK_ENCODER.encode(left)
                self._stored.add((source, chunk))
        self._grown.clear()
        self._shrunk.clear()

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; the engine must be fresh. No items: nothing was stored yet."""
        if not items:
            return
        self.judge.restore({key: raw for key, raw in items.items() if is_own(key)})
        self.stored_frame = items["frame"]
        frame = _FRAME_DECODER.decode(items["frame"])
        self.numbers, self.firsts, self.uptos = dict(frame.numbers), dict(frame.firsts), dict(frame.uptos)
        self.now_ms = frame.now_ms
        self.activations = frame.activations
        self.complete_ms = dict(frame.complete_ms)
        self.company.restore(items)
        if self.escalations is not None:
            self.escalations.items.deadlines.restore(items)
        taken = dict(frame.taken)
        found: list[Report] = []
        for key, raw in items.items():
            kind, *parts = key.split(SEPARATOR)
            if kind == "b":
                self._stored.add((int(parts[0]), int(parts[1])))
                found += [one for one in _CHUNK_DECODER.decode(raw) if one.number > taken[one.source]]
        for report in sorted(found, key=lambda one: one.number):
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
