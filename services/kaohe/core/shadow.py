"""Shadows: a version of a pack that judges beside the one in force, and changes nothing for anybody.

Theory of operation. A shadow is an engine of its own beside the active one, fed with the same records. It has the same
packs, but of each shadowed pack the shadow's version judges in it, whatever activations say. What it decides about
these packs goes out marked ``shadow``, under ids of its own; everything else it decides is what the active engine says
already, and is dropped, as are its rejects. Nothing is shared but the records, so the active engine's outputs are the
same bytes with a shadow and without. A shadow that fails is told about and stops; the active engine goes on.

A shadow that is put beside a running engine begins as a copy of its last checkpoint, with its version activated: it
knows the roster, what was counted and what is open, and takes over the entries of the version in force as an
activation would. Only what is counted for groups begins anew. A shadow that is taken away, or replaced by another, is
forgotten.

Shadows of partitions report to shadows of the group stage over the same topic. The key of such a report says when the
shadow began (``3~1785747600000``): a later beginning starts the numbers of its partition again, and what an earlier one
may still have on its way is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from kaohe.core.engine import PartitionEngine
from kaohe.core.grading import JOINT
from kaohe.core.group import GroupEngine
from kaohe.core.judge import Stats
from kaohe.core.live import CounterValue, LiveValue
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.core.subjects import SEPARATOR, Subject
from kaohe.decisions import (
    ALERT_DECODER,
    DECISION_DECODER,
    ENCODER,
    GRADE_DECODER,
    Alert,
    Decision,
    Grade,
    ScoreDetail,
    shadow_id,
)
from kaohe.errors import UsageError
from kaohe.events import Envelope

MARK = "~"
"""Before the stored keys of a shadow, and inside the key of its reports."""
PREFIX = MARK + SEPARATOR
_META = PREFIX + "meta"
_DECODERS: dict[str, Any] = {"decisions": DECISION_DECODER, "alerts": ALERT_DECODER, "grades": GRADE_DECODER}


class Meta(msgspec.Struct, array_like=True):
    """What is stored about a shadow beside its state: whose it is, and when each line of reports began."""

    shadows: list[str]
    begun: list[tuple[int, int]]


_META_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_META_DECODER = msgspec.msgpack.Decoder(Meta)


def check_shadows(packs: Sequence[Pack], shadows: Sequence[Pack]) -> None:
    """Refuse shadows that have nothing to stand beside, or that stand in each other's way."""
    names = {pack.name for pack in packs}
    for shadow in shadows:
        if shadow.name not in names:
            raise UsageError(
                f"{shadow.key} is to be a shadow, but no version of {shadow.name} judges here; add one to the packs."
            )
    versions: dict[str, str] = {}
    for shadow in shadows:
        if versions.setdefault(shadow.name, shadow.version) != shadow.version:
            raise UsageError(
                f"{shadow.name} has two shadows, {versions[shadow.name]} and {shadow.version}; name one of them."
            )


def with_shadows(packs: Sequence[Pack], shadows: Sequence[Pack]) -> tuple[Pack, ...]:
    """The packs of a shadow engine: those of the active one, and the shadows that are not among them."""
    known = {pack.key for pack in packs}
    return (*packs, *(shadow for shadow in shadows if shadow.key not in known))


class Marker:
    """Marks what a shadow engine decides about its shadows, and drops the rest."""

    def __init__(self, shadows: Sequence[Pack]) -> None:
        self.versions = {pack.name: pack.version for pack in shadows}

    def marked(self, output: Output) -> Output | None:
        """The output as one of a shadow; None when it is about another pack, or nothing for the outside."""
        decoder = _DECODERS.get(output.topic)
        if decoder is None:
            return None
        message: Decision | Alert | Grade = decoder.decode(output.value)
        version = self.versions.get(message.pack.removesuffix(JOINT))
        if version is None:
            return None
        own: dict[str, Any] = {"shadow": True, "id": shadow_id(message.id, version)}
        if isinstance(message, Decision) and message.reverses:
            own["reverses"] = shadow_id(message.reverses, version)
        if isinstance(message, Grade):
            own["entries"] = sorted(shadow_id(entry, version) for entry in message.entries)
            if message.detail is not None:
                own["detail"] = _detail(message.detail, version)
        value = ENCODER.encode(msgspec.structs.replace(message, **own))
        return Output(output.topic, output.key, value, output.partition)


def _detail(detail: ScoreDetail, version: str) -> ScoreDetail:
    """The detail of a grade with the shadows' entries in it."""
    lines = [
        msgspec.structs.replace(line, entries=[shadow_id(entry, version) for entry in line.entries])
        for line in detail.lines
    ]
    others = {shadow_id(entry, version): worth for entry, worth in detail.others.items()}
    changes = [
        msgspec.structs.replace(one, id=shadow_id(one.id, version)) if one.what == "entry" else one
        for one in detail.changes
    ]
    return msgspec.structs.replace(detail, lines=lines, others=others, changes=changes)


class ShadowPartition(PartitionEngine):
    """The engine of a partition in which the shadows' versions judge. ``begun_ms`` is when it began."""

    def __init__(self, packs: Sequence[Pack], shadows: Sequence[Pack], **options: Any) -> None:
        super().__init__(with_shadows(packs, shadows), **options)
        self.versions = {pack.name: pack.version for pack in shadows}
        self.begun_ms = 0
        self._force()

    def _force(self) -> None:
        for name, version in self.versions.items():
            self.judge.activate(name, version, self.now_ms)

    def _activate(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        if event.data.pack not in self.versions:
            super()._activate(event, time_ms, agent)

    def _begin(self, time_ms: int) -> None:
        super()._begin(time_ms)
        self.begun_ms = time_ms

    def copy(self, items: Mapping[str, bytes]) -> None:
        """Begin as the active engine stood at its last checkpoint; the engine must be fresh."""
        self.restore(items)
        self.report = 0
        self.begun_ms = self.now_ms or 0
        for key, subject in self.judge.subjects.items():
            for state in subject.grades.values():
                if state.told:  # under the shadow's ids nothing was told yet
                    state.told = {}
                    self.judge.touched.add(key)
        self._force()


class ShadowGroup(GroupEngine):
    """The engine of a partition of groups in which the shadows' versions judge."""

    def __init__(self, packs: Sequence[Pack], shadows: Sequence[Pack], **options: Any) -> None:
        super().__init__(with_shadows(packs, shadows), **options)
        for pack in shadows:
            self.judge.activate(pack.name, pack.version)

    def begin_again(self, source: int) -> None:
        """Let the reports of a partition begin at number 1 again; what waits of it is left out."""
        self.waiting[source].clear()
        self._shrunk |= {chunk for chunk in self._stored if chunk[0] == source}
        for known in (self.numbers, self.firsts, self.uptos, self.dropped, self.complete_ms):
            known.pop(source, None)


class ShadowReplay(Replay):
    """A replay in which the shadows' versions judge; of what comes out only that is kept, marked."""

    def __init__(self, packs: Iterable[Pack], shadows: Sequence[Pack], **options: Any) -> None:
        self.shadows = tuple(shadows)
        self._marker = Marker(self.shadows)
        super().__init__(packs, **options)

    def _make_partition(self, index: int) -> PartitionEngine:
        return ShadowPartition(self.packs, self.shadows, zones=self.zones, partition=index)

    def _make_group(self, partitions: int) -> GroupEngine:
        return ShadowGroup(self.packs, self.shadows, zones=self.zones, source_partitions=partitions)

    def _sort(self, outputs: list[Output]) -> None:
        reports = [output for output in outputs if output.topic == "partials"]
        marked = [one for output in outputs if (one := self._marker.marked(output)) is not None]
        super()._sort(reports + marked)


# --- beside a running engine ------------------------------------------------------------------------------------------

_Active = TypeVar("_Active", bound=PartitionEngine | GroupEngine)


class _Beside(Generic[_Active]):
    """An active engine and perhaps a shadow beside it, as one engine for the stream; everything read is the active's.

    ``on_failure`` is told why a shadow stopped.
    """

    def __init__(self, active: _Active, shadows: Sequence[Pack], on_failure: Callable[[str], None]) -> None:
        self.active: _Active = active
        self._marker = Marker(shadows)
        self._shadows = [pack.key for pack in shadows]
        self._on_failure = on_failure
        self._written: dict[str, bytes | None] = {}
        self._meta = b""

    def _marked(self, outputs: list[Output]) -> list[Output]:
        return [one for output in outputs if (one := self._marker.marked(output)) is not None]

    def _split(self, items: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """The active engine's items, and those of the same shadows as now; those of others are to go."""
        own = {key: raw for key, raw in items.items() if not key.startswith(PREFIX)}
        theirs = {key: raw for key, raw in items.items() if key.startswith(PREFIX)}
        meta = theirs.get(_META)
        if self._shadows and meta is not None and _META_DECODER.decode(meta).shadows == self._shadows:
            return own, theirs
        self._written = dict.fromkeys(sorted(theirs))
        return own, {}

    def _stored(self, changed: Mapping[str, bytes | None], begun: dict[int, int]) -> dict[str, bytes | None]:
        """The changes of a shadow under its own keys, with what else is to be written."""
        found = self._written | {PREFIX + key: raw for key, raw in changed.items()}
        self._written = {}
        meta = _META_ENCODER.encode(Meta(self._shadows, sorted(begun.items())))
        if meta != self._meta:
            found[_META] = self._meta = meta
        return found

    def _stop(self, error: Exception) -> None:
        """The shadow has failed: without its meta its state is thrown away at the next start."""
        self._written = {_META: None}
        self._on_failure(f"the shadow {', '.join(self._shadows)} stopped: {type(error).__name__}: {error}")

    # --- reading

    @property
    def stats(self) -> Stats:
        """Counts of the active engine."""
        return self.active.stats

    @property
    def watermark_ms(self) -> int:
        """The active engine's clock."""
        return self.active.watermark_ms

    def subjects(self, levels: Iterable[str]) -> list[str]:
        """The active engine's subjects."""
        return self.active.subjects(levels)

    def live_values(self, levels: Iterable[str], only: Container[str] | None = None) -> Iterator[LiveValue]:
        """The active engine's values."""
        return self.active.live_values(levels, only)

    def counter_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[CounterValue]:
        """The active engine's totals."""
        return self.active.counter_values(levels, only)

    def firing(self) -> Iterator[tuple[str, str, str, str, str]]:
        """The active engine's alerts."""
        return self.active.firing()


class BesidePartition(_Beside[PartitionEngine]):
    """The engine of a partition with its shadow, if there is one."""

    def __init__(
        self, active: PartitionEngine, shadow: ShadowPartition | None, shadows: Sequence[Pack],
        on_failure: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(active, shadows, on_failure)
        self.shadow = shadow

    def apply(self, records: Iterable[Record]) -> list[Output]:
        """Apply records to both; what is to be sent, the active engine's first."""
        found = list(records)
        outputs = self.active.apply(found)
        shadow = self.shadow
        if shadow is None:
            return outputs
        try:
            theirs = shadow.apply(found)
        except Exception as error:  # noqa: BLE001 - a draft must not harm what is in force
            self.shadow = None
            self._stop(error)
            return outputs
        key = b"%d%s%d" % (shadow.partition, MARK.encode(), shadow.begun_ms)
        reports = [
            Output(output.topic, key, output.value, output.partition)
            for output in theirs
            if output.topic == "partials"
        ]
        return outputs + self._marked(theirs) + reports

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = self.active.checkpoint()
        if self.shadow is None:
            changed |= self._written
            self._written = {}
            return changed
        return changed | self._stored(self.shadow.checkpoint(), {self.shadow.partition: self.shadow.begun_ms})

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; both engines must be fresh."""
        own, theirs = self._split(items)
        self.active.restore(own)
        if self.shadow is None:
            return
        if theirs:
            self._meta = theirs[_META]
            self.shadow.begun_ms = dict(_META_DECODER.decode(self._meta).begun)[self.shadow.partition]
            self.shadow.restore({key[len(PREFIX) :]: raw for key, raw in theirs.items() if key != _META})
        elif own:
            self.shadow.copy(own)
            self._written |= {PREFIX + key: raw for key, raw in own.items()}


class BesideGroup(_Beside[GroupEngine]):
    """The engine of a partition of groups with its shadow, if there is one."""

    def __init__(
        self, active: GroupEngine, shadow: ShadowGroup | None, shadows: Sequence[Pack],
        on_failure: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(active, shadows, on_failure)
        self.shadow = shadow
        self._begun: dict[int, int] = {}

    def apply(self, records: Iterable[Record]) -> list[Output]:
        """Give each report to whom it belongs; what is to be sent, the active engine's first."""
        mark = MARK.encode()
        own: list[Record] = []
        theirs: list[Record] = []
        for record in records:
            (theirs if record.key is not None and mark in record.key else own).append(record)
        outputs = self.active.apply(own)
        if self.shadow is None or not theirs:
            return outputs
        try:
            return outputs + self._marked(self.shadow.apply(self._of_lines(self.shadow, theirs)))
        except Exception as error:  # noqa: BLE001 - a draft must not harm what is in force
            self.shadow = None
            self._stop(error)
            return outputs

    def _of_lines(self, shadow: ShadowGroup, records: list[Record]) -> Iterator[Record]:
        """The reports of the newest line of each partition, in order."""
        for record in records:
            assert record.key is not None
            source, _, begun = record.key.decode().partition(MARK)
            known_ms = self._begun.get(int(source), -1)
            if int(begun) < known_ms:
                continue
            if int(begun) > known_ms:
                self._begun[int(source)] = int(begun)
                shadow.begin_again(int(source))
            yield record

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = self.active.checkpoint()
        if self.shadow is None:
            changed |= self._written
            self._written = {}
            return changed
        return changed | self._stored(self.shadow.checkpoint(), self._begun)

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; both engines must be fresh."""
        own, theirs = self._split(items)
        self.active.restore(own)
        if self.shadow is not None and theirs:
            self._meta = theirs[_META]
            self._begun = dict(_META_DECODER.decode(self._meta).begun)
            self.shadow.restore({key[len(PREFIX) :]: raw for key, raw in theirs.items() if key != _META})
