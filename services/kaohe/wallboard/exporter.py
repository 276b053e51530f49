"""Live figures of a worker's engines, read when Prometheus asks for them.

Theory of operation. The engines live on the worker's event loop and change only there; between two batches they are at
rest. A scrape comes in on a thread of the HTTP server. That thread never touches an engine: it asks the loop
(``call_soon_threadsafe``) to take a *snapshot*, plain numbers and words per partition, and waits for it a bounded
time. So an engine is never read while it is being changed, a worker that nobody scrapes pays nothing, and a scrape is
never older than the worker's last batch. When the loop is too busy to answer in time, the scrape gets the snapshot
before it and ``kaohe_snapshot_age_seconds`` says how old that is; the request stays queued, and there is never more
than one.

Figures belong to a partition. When a partition is revoked its figures leave the current snapshot in the same moment, so
that no later scrape shows a series which another worker now exports.

People: series with one agent's name are off unless ``agents_max`` is above 0, and then end at that many agents, the
first in the order of their names, so that it is the same ones at each scrape. How many were left out is a metric too.
"""

from __future__ import annotations

import asyncio
import platform
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any, Protocol
from wsgiref.simple_server import WSGIServer

import msgspec
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kaohe import __version__
from kaohe import metric_names as names
from kaohe.core.records import Record
from kaohe.errors import KaoheError
from kaohe.metric_names import EXPORTED, Exported

STAGES = ("events", "groups")
GROUP_LEVELS = frozenset({"team", "queue", "site"})
AGENT_LEVELS = frozenset({"agent"})


class LiveValue(Protocol):
    """A metric's value over a window that moves; ``value`` is None where there is no data."""

    pack: str
    metric: str
    level: str
    subject: str
    window: str
    unit: str
    value: float | None


class CounterValue(Protocol):
    """The two sums of an additive metric since the log began, in the metric's unit."""

    pack: str
    metric: str
    level: str
    subject: str
    numerator: float
    denominator: float | None


class EngineStats(Protocol):
    """What an engine has counted about its own work."""

    events: dict[str, int]
    duplicates: int
    late: int
    rejects: dict[str, int]
    decisions: dict[tuple[str, str, str, str], int]
    alerts: dict[tuple[str, str, str], int]


class LiveEngine(Protocol):
    """What the exporter reads of an engine. All of it is read on the event loop on which the engine runs."""

    @property
    def stats(self) -> EngineStats: ...

    @property
    def watermark_ms(self) -> int: ...

    def subjects(self, levels: Iterable[str]) -> list[str]: ...

    def live_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[LiveValue]: ...

    def counter_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[CounterValue]: ...

    def firing(self) -> Iterator[tuple[str, str, str, str, str]]: ...


Labels = tuple[str, ...]
Samples = dict[str, dict[Labels, float]]
"""Family name to label values to value: what one partition shows."""


class Observation(msgspec.Struct, frozen=True):
    """A histogram as it stood: per stage the count of each bucket (the last one unbounded), and the sum."""

    counts: tuple[int, ...]
    total: float


class Snapshot(msgspec.Struct, frozen=True):
    """Everything one scrape shows. ``taken_at_s`` is on the exporter's monotonic clock. Never changed once made."""

    taken_at_s: float
    partitions: dict[tuple[str, int], Samples]
    histograms: dict[tuple[str, str], Observation]
    agents_left_out: int


class Histogram:
    """Counts of observations in fixed buckets. Used on the event loop only."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        assert bounds
        assert list(bounds) == sorted(bounds), bounds
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value`` as seen ``times`` times. A bucket holds its upper bound."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def observation(self) -> Observation:
        return Observation(tuple(self._counts), self._total)


class WallboardExporter(Collector):
    """A Prometheus collector over the engines of one worker.

    The worker calls the ``on_…`` methods on its event loop; ``collect`` may be called from any thread. ``agents_max``
    bounds the agents with series of their own (0: none), ``answer_timeout_s`` how long a scrape waits for the loop.
    """

    def __init__(
        self,
        *,
        agents_max: int = 0,
        answer_timeout_s: float = 1.0,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        assert agents_max >= 0, agents_max
        assert answer_timeout_s > 0, answer_timeout_s
        self._agents_max = agents_max
        self._answer_timeout_s = answer_timeout_s
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._engines: dict[tuple[str, int], LiveEngine] = {}
        self._lags: dict[tuple[str, int], int] = {}
        self._outputs: dict[tuple[str, int], int] = {}
        self._kept_metrics: dict[int, tuple[int, Samples]] = {}
        self._histograms = {
            (family.name, stage): Histogram(family.buckets)
            for family in (names.DECISION_LATENCY, names.CHECKPOINT_DURATION)
            for stage in STAGES
        }
        self._snapshot = Snapshot(monotonic_s(), {}, {}, 0)
        self._scrape_lock = threading.Lock()
        self._pending: Future[None] | None = None

    # --- what the worker tells, on its event loop ---------------------------------------------------------------------

    def on_assigned(self, stage: str, partition: int, engine: Any) -> None:
        """``engine`` (a ``LiveEngine``) now runs ``partition`` of ``stage`` on the calling event loop."""
        live: LiveEngine = engine
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._engines[stage, partition] = live

    def on_revoked(self, stage: str, partition: int) -> None:
        """``partition`` is another worker's: its figures are shown no more, not even by a scrape under way."""
        key = (stage, partition)
        self._engines.pop(key, None)
        self._lags.pop(key, None)
        self._outputs.pop(key, None)
        if stage == "groups":
            self._kept_metrics.pop(partition, None)
        old = self._snapshot
        left = {other: samples for other, samples in old.partitions.items() if other != key}
        self._snapshot = msgspec.structs.replace(old, partitions=left)

    def on_batch(self, stage: str, partition: int, records: list[Record], lag: int) -> None:
        """A batch has been applied, and ``lag`` records of the partition are still to come.

        Each of its records counts with the time that the first, the oldest, has waited: looking at one record costs
        nothing, and the histogram never shows less than the truth.
        """
        self._lags[stage, partition] = lag
        if records and records[0].timestamp_ms > 0:
            waited_s = max(0.0, self._wall_s() - records[0].timestamp_ms / 1000)
            self._histograms[names.DECISION_LATENCY.name, stage].observe(waited_s, len(records))

    def on_checkpoint(self, stage: str, partition: int, seconds: float, outputs: int) -> None:
        """A checkpoint of ``partition`` has been acknowledged by the broker ``seconds`` after it began."""
        self._histograms[names.CHECKPOINT_DURATION.name, stage].observe(seconds)
        self._outputs[stage, partition] = self._outputs.get((stage, partition), 0) + outputs

    # --- what a scrape asks -------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Every family of ``metric_names.EXPORTED``, in that order."""
        with self._scrape_lock:
            self._refresh()
            snapshot = self._snapshot
        whole = self._own_figures(snapshot)
        for samples in snapshot.partitions.values():
            for name, series in samples.items():
                whole.setdefault(name, {}).update(series)
        for exported in EXPORTED:
            if exported.kind == "histogram":
                yield _histogram_family(exported, snapshot)
            else:
                yield _family(exported, whole.get(exported.name, {}))

    def describe(self) -> Iterator[Metric]:
        """The families without figures, so that registering the exporter does not ask the worker."""
        return iter(())

    def _refresh(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if threading.get_ident() == self._loop_thread:
            self._take()
            return
        if self._pending is None or self._pending.done():
            self._pending = Future()
            try:
                loop.call_soon_threadsafe(self._answer, self._pending)
            except RuntimeError:  # the loop was closed in between: the worker has ended
                self._pending = None
                return
        wait([self._pending], self._answer_timeout_s)
        if self._pending.done():
            self._pending.result()  # raises what the reading raised: a defect, which the scrape must not hide

    def _answer(self, pending: Future[None]) -> None:
        try:
            self._take()
        except Exception as exc:  # noqa: BLE001 - raised again on the thread of the scrape
            pending.set_exception(exc)
        else:
            pending.set_result(None)

    def _take(self) -> None:
        """Read every engine. Runs on the event loop."""
        assert threading.get_ident() == self._loop_thread
        agents = self._agents_shown()
        partitions = {}
        for (stage, partition), engine in self._engines.items():
            reader = _Reader(stage, partition)
            reader.read_work(engine)
            reader.read_flow(self._lags.get((stage, partition)), self._outputs.get((stage, partition), 0))
            reader.read_alerts(engine, agents.chosen)
            if stage == "groups":
                reader.samples.update(self._group_metrics(partition, engine))
            elif agents.chosen:
                reader.samples.update(_read_metrics(engine, AGENT_LEVELS, agents.chosen))
            partitions[stage, partition] = reader.samples
        histograms = {key: histogram.observation() for key, histogram in self._histograms.items()}
        self._snapshot = Snapshot(self._monotonic_s(), partitions, histograms, agents.left_out)

    def _group_metrics(self, partition: int, engine: LiveEngine) -> Samples:
        """The metrics of groups, kept until log time has come a minute further: before that they cannot change."""
        kept = self._kept_metrics.get(partition)
        if kept is None or kept[0] != engine.watermark_ms:
            kept = (engine.watermark_ms, _read_metrics(engine, GROUP_LEVELS, None))
            self._kept_metrics[partition] = kept
        return kept[1]

    def _agents_shown(self) -> _Agents:
        if self._agents_max == 0:
            return _Agents(frozenset(), 0)
        everyone: set[str] = set()
        for (stage, _), engine in self._engines.items():
            if stage == "events":
                everyone.update(engine.subjects(AGENT_LEVELS))
        chosen = sorted(everyone)[: self._agents_max]
        return _Agents(frozenset(chosen), len(everyone) - len(chosen))

    def _own_figures(self, snapshot: Snapshot) -> Samples:
        assigned = dict.fromkeys(STAGES, 0)
        for stage, _ in snapshot.partitions:
            assigned[stage] += 1
        return {
            names.BUILD_INFO.name: {(__version__, platform.python_version()): 1.0},
            names.AGENTS_LEFT_OUT.name: {(): float(snapshot.agents_left_out)},
            names.PARTITIONS_ASSIGNED.name: {(stage,): float(count) for stage, count in assigned.items()},
            names.SNAPSHOT_AGE.name: {(): max(0.0, self._monotonic_s() - snapshot.taken_at_s)},
        }


class _Agents(msgspec.Struct, frozen=True):
    """The agents with series of their own, and how many more there are."""

    chosen: frozenset[str]
    left_out: int


class _Reader:
    """Turns one engine at rest into samples."""

    def __init__(self, stage: str, partition: int) -> None:
        self.samples: Samples = {}
        self._place: Labels = (stage, str(partition))

    def read_flow(self, lag_records: int | None, outputs: int) -> None:
        """How far the partition is behind, and how much came out of it."""
        self.samples[names.OUTPUTS.name] = {self._place: float(outputs)}
        if lag_records is not None:
            self.samples[names.LAG.name] = {self._place: float(lag_records)}

    def read_work(self, engine: LiveEngine) -> None:
        """What the engine has counted about its own work, and its log time."""
        stats, place = engine.stats, self._place
        self.samples[names.EVENTS.name] = {(*place, kind): float(n) for kind, n in stats.events.items()}
        self.samples[names.DUPLICATES.name] = {place: float(stats.duplicates)}
        self.samples[names.LATE.name] = {place: float(stats.late)}
        self.samples[names.REJECTS.name] = {(*place, code): float(n) for code, n in stats.rejects.items()}
        self.samples[names.DECISIONS.name] = {
            (*place, *what): float(n) for what, n in stats.decisions.items()
        }
        self.samples[names.ALERT_CHANGES.name] = {
            (*place, *what): float(n) for what, n in stats.alerts.items()
        }
        if engine.watermark_ms > 0:
            self.samples[names.WATERMARK.name] = {place: engine.watermark_ms / 1000}

    def read_alerts(self, engine: LiveEngine, agents: frozenset[str]) -> None:
        """What is firing: how many subjects per rule, and which, the agents among them only if they are shown."""
        counts: dict[Labels, float] = {}
        subjects: dict[Labels, float] = {}
        for pack, rule, severity, level, subject in engine.firing():
            labels = (*self._place, pack, rule, severity, level)
            counts[labels] = counts.get(labels, 0.0) + 1
            if level != "agent" or subject in agents:
                subjects[pack, rule, severity, level, subject] = 1.0
        self.samples[names.ALERTS_FIRING.name] = counts
        self.samples[names.ALERT_FIRING.name] = subjects


def _read_metrics(engine: LiveEngine, levels: frozenset[str], only: frozenset[str] | None) -> Samples:
    """The packs' metrics at ``levels``, of the subjects ``only`` (None: all of them)."""
    numerators: dict[Labels, float] = {}
    denominators: dict[Labels, float] = {}
    for total in engine.counter_values(levels, only):
        labels = (total.pack, total.metric, total.level, total.subject)
        numerators[labels] = total.numerator
        if total.denominator is not None:
            denominators[labels] = total.denominator
    return {
        names.METRIC_NUMERATOR.name: numerators,
        names.METRIC_DENOMINATOR.name: denominators,
        names.METRIC_VALUE.name: {
            (live.pack, live.metric, live.level, live.subject, live.window, live.unit): live.value
            for live in engine.live_values(levels, only)
            if live.value is not None
        },
    }


def _family(exported: Exported, series: dict[Labels, float]) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    if exported.kind == "counter":
        family = CounterMetricFamily(exported.name, exported.meaning, labels=exported.labels)
    else:
        family = GaugeMetricFamily(exported.name, exported.meaning, labels=exported.labels)
    for labels, value in sorted(series.items()):
        assert len(labels) == len(exported.labels), (exported.name, labels)
        family.add_metric(labels, value)
    return family


def _histogram_family(exported: Exported, snapshot: Snapshot) -> Metric:
    family = HistogramMetricFamily(exported.name, exported.meaning, labels=exported.labels)
    bounds = [*(str(float(bound)) for bound in exported.buckets), "+Inf"]
    for stage in STAGES:
        observation = snapshot.histograms.get((exported.name, stage))
        if observation is not None:
            reached, buckets = 0, []
            for bound, count in zip(bounds, observation.counts, strict=True):
                reached += count
                buckets.append((bound, float(reached)))
            family.add_metric([stage], buckets, observation.total)
    return family


class ExporterServer:
    """A running HTTP server for one exporter. ``stop`` ends it and frees the port."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server and wait for its thread, at most ``timeout_s``. Stopping twice does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout_s)


def start_exporter(host: str, port: int, exporter: Collector) -> ExporterServer:
    """Serve ``exporter`` at ``http://host:port/metrics`` on a thread of its own; port 0 takes a free one.

    Raises KaoheError, in one sentence, when the address cannot be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise KaoheError(
            f"The metrics port {host}:{port} cannot be opened ({exc.strerror or exc}); set KAOHE_METRICS_HOST to an "
            f"address of this machine and KAOHE_METRICS_PORT to a free port."
        ) from None
    return ExporterServer(server, thread)
