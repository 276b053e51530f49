"""The exporter: what a scrape shows, whose thread reads an engine, and what goes when a partition goes."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kaohe.core.records import Record
from kaohe.errors import KaoheError
from kaohe.metric_names import EXPORTED, METRIC_VALUE
from kaohe.wallboard.exporter import Histogram, WallboardExporter, start_exporter

if TYPE_CHECKING:
    from kaohe.stream.app import Observer

    OBSERVER: Observer = WallboardExporter()
    """The type checker holds the exporter against what the worker tells its observers."""

T = TypeVar("T")
DEADLINE_S = 10.0


class FakeLive(msgspec.Struct):
    pack: str
    metric: str
    level: str
    subject: str
    window: str
    unit: str
    value: float | None


class FakeTotals(msgspec.Struct):
    pack: str
    metric: str
    level: str
    subject: str
    numerator: float
    denominator: float | None


class FakeStats(msgspec.Struct):
    events: dict[str, int] = {}
    duplicates: int = 0
    late: int = 0
    rejects: dict[str, int] = {}
    decisions: dict[tuple[str, str, str, str], int] = {}
    alerts: dict[tuple[str, str, str], int] = {}


class FakeEngine:
    """An engine that holds what it was given and notes on which threads it was read."""

    def __init__(
        self,
        *,
        live: list[FakeLive] | None = None,
        totals: list[FakeTotals] | None = None,
        stats: FakeStats | None = None,
        firing: list[tuple[str, str, str, str, str]] | None = None,
        watermark_ms: int = 1_500,
    ) -> None:
        self.live = live or []
        self.totals = totals or []
        self.own_stats = stats or FakeStats()
        self.alerting = firing or []
        self.watermark_ms = watermark_ms
        self.read_on: set[int] = set()
        self.times_read = 0

    @property
    def stats(self) -> FakeStats:
        self.read_on.add(threading.get_ident())
        return self.own_stats

    def subjects(self, levels: Iterable[str]) -> list[str]:
        self.read_on.add(threading.get_ident())
        wanted = set(levels)
        return sorted({total.subject for total in self.totals if total.level in wanted})

    def live_values(self, levels: Iterable[str], only: Container[str] | None = None) -> Iterator[FakeLive]:
        self.read_on.add(threading.get_ident())
        self.times_read += 1
        wanted = set(levels)
        return (v for v in self.live if v.level in wanted and (only is None or v.subject in only))

    def counter_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[FakeTotals]:
        self.read_on.add(threading.get_ident())
        wanted = set(levels)
        return (v for v in self.totals if v.level in wanted and (only is None or v.subject in only))

    def firing(self) -> Iterator[tuple[str, str, str, str, str]]:
        return iter(self.alerting)


class Worker:
    """An event loop on a thread of its own, as a worker has one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def do(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE_S)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_S)
        self.loop.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    running = Worker()
    yield running
    running.stop()


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(exporter: WallboardExporter) -> Series:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    return parse(generate_latest(registry).decode())


def parse(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is shown twice"
            found[key] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def subjects(series: Series) -> set[str]:
    return {text for _, labels in series for key, text in labels if key == "subject"}


def queue(name: str, level: str = "queue") -> FakeEngine:
    return FakeEngine(
        live=[FakeLive("cc", "service_level", level, name, "rolling_1h", "ratio", 0.8)],
        totals=[
            FakeTotals("cc", "service_level", level, name, 80.0, 100.0),
            FakeTotals("cc", "offered", level, name, 100.0, None),
        ],
    )


def test_table_has_each_name_once_and_names_its_unit() -> None:
    table = [exported.name for exported in EXPORTED]
    assert len(table) == len(set(table))
    for exported in EXPORTED:
        assert exported.name.startswith("kaohe_")
        assert exported.meaning.endswith(".")
        assert (exported.kind == "counter") == exported.name.endswith("_total"), exported.name
        assert (exported.kind == "histogram") == bool(exported.buckets), exported.name
        assert exported.unit != "seconds" or "seconds" in exported.name


def test_scrape_shows_just_the_families_of_the_table(worker: Worker) -> None:
    exporter = WallboardExporter()
    worker.do(lambda: exporter.on_assigned("groups", 0, queue("sales")))
    shown = {metric.name: metric.type for metric in exporter.collect()}
    assert shown == {
        e.name.removesuffix("_total") if e.kind == "counter" else e.name: e.kind for e in EXPORTED
    }


def test_groups_show_counters_and_live_values(worker: Worker) -> None:
    exporter = WallboardExporter()
    worker.do(lambda: exporter.on_assigned("groups", 2, queue("sales")))
    series = scrape(exporter)
    place = {"pack": "cc", "metric": "service_level", "level": "queue", "subject": "sales"}
    assert value(series, "kaohe_metric_numerator_total", **place) == 80
    assert value(series, "kaohe_metric_denominator_total", **place) == 100
    assert value(series, "kaohe_metric_value", **place, window="rolling_1h", unit="ratio") == 0.8
    count = {**place, "metric": "offered"}
    assert value(series, "kaohe_metric_numerator_total", **count) == 100
    assert value(series, "kaohe_metric_denominator_total", **count) is None


def test_no_data_shows_no_series(worker: Worker) -> None:
    exporter = WallboardExporter()
    engine = FakeEngine(live=[FakeLive("cc", "wait", "queue", "sales", "now", "s", None)], watermark_ms=0)
    worker.do(lambda: exporter.on_assigned("groups", 0, engine))
    shown = {name for name, _ in scrape(exporter)}
    assert METRIC_VALUE.name not in shown
    assert "kaohe_watermark_timestamp_seconds" not in shown


def test_work_of_an_engine_is_counted_per_partition(worker: Worker) -> None:
    exporter = WallboardExporter()
    stats = FakeStats(
        events={"call.offered": 7},
        duplicates=3,
        late=2,
        rejects={"future": 5},
        decisions={("ls", "ls-rate", "deduct", "final"): 4},
        alerts={("cc", "cc-sl", "firing"): 1},
    )
    worker.do(lambda: exporter.on_assigned("events", 1, FakeEngine(stats=stats)))
    worker.do(lambda: exporter.on_assigned("events", 3, FakeEngine(stats=stats)))
    series = scrape(exporter)
    for partition in ("1", "3"):
        place = {"stage": "events", "partition": partition}
        assert value(series, "kaohe_events_total", **place, type="call.offered") == 7
        assert value(series, "kaohe_duplicate_events_total", **place) == 3
        assert value(series, "kaohe_late_events_total", **place) == 2
        assert value(series, "kaohe_rejects_total", **place, code="future") == 5
        what = {"pack": "ls", "rule": "ls-rate", "kind": "deduct", "status": "final"}
        assert value(series, "kaohe_decisions_total", **place, **what) == 4
        assert (
            value(series, "kaohe_alert_changes_total", **place, pack="cc", rule="cc-sl", state="firing") == 1
        )
        assert value(series, "kaohe_watermark_timestamp_seconds", **place) == 1.5
    assert value(series, "kaohe_partitions_assigned", stage="events") == 2
    assert value(series, "kaohe_partitions_assigned", stage="groups") == 0


def batch(*written_s: float) -> list[Record]:
    return [Record(number, b"", None, int(at_s * 1000)) for number, at_s in enumerate(written_s)]


def test_lag_latency_and_checkpoints(worker: Worker) -> None:
    exporter = WallboardExporter(wall_s=lambda: 1000.0)

    def work() -> None:
        exporter.on_assigned("events", 0, FakeEngine())
        exporter.on_batch("events", 0, batch(999.75, 999.9, 1000.0), lag=40)
        exporter.on_batch("events", 0, batch(1000.5), lag=12)
        exporter.on_batch("events", 0, [Record(9, b"", None, -1)], lag=11)
        exporter.on_checkpoint("events", 0, 99.0, 3)

    worker.do(work)
    series = scrape(exporter)
    assert value(series, "kaohe_consumer_lag_records", stage="events", partition="0") == 11
    assert value(series, "kaohe_outputs_total", stage="events", partition="0") == 3
    latency = "kaohe_decision_latency_seconds"
    assert value(series, latency + "_count", stage="events") == 4, "records, and none without a time"
    assert value(series, latency + "_sum", stage="events") == 0.75, (
        "the oldest of a batch counts for all of it"
    )
    assert value(series, latency + "_bucket", stage="events", le="0.1") == 1, "written in the future: at once"
    assert value(series, latency + "_bucket", stage="events", le="0.25") == 4, (
        "a bucket holds its upper bound"
    )
    checkpoint = "kaohe_checkpoint_duration_seconds"
    assert value(series, checkpoint + "_bucket", stage="events", le="10.0") == 0
    assert value(series, checkpoint + "_bucket", stage="events", le="+Inf") == 1


def test_histogram_counts_what_lies_in_each_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for seen in (0.5, 1.0, 1.5, 2.5):
        histogram.observe(seen)
    assert histogram.observation().counts == (2, 1, 1)
    assert histogram.observation().total == 5.5


def agents(count: int) -> FakeEngine:
    people = [f"a-{number:03}" for number in range(count)]
    return FakeEngine(
        live=[FakeLive("cc", "handled", "agent", name, "day", "count", 1.0) for name in people],
        totals=[FakeTotals("cc", "handled", "agent", name, 1.0, None) for name in people],
        firing=[("cc", "cc-long-wait", "high", "agent", name) for name in people],
    )


def test_agents_have_no_series_unless_asked_for(worker: Worker) -> None:
    exporter = WallboardExporter()
    worker.do(lambda: exporter.on_assigned("events", 0, agents(5)))
    series = scrape(exporter)
    assert subjects(series) == set()
    assert value(series, "kaohe_agents_left_out") == 0
    labels = {"pack": "cc", "rule": "cc-long-wait", "severity": "high", "level": "agent"}
    assert value(series, "kaohe_alerts_firing", stage="events", partition="0", **labels) == 5, (
        "counted, not named"
    )


def test_agents_series_are_capped_and_the_rest_is_counted(worker: Worker) -> None:
    exporter = WallboardExporter(agents_max=3)
    worker.do(lambda: exporter.on_assigned("events", 0, agents(5)))
    other = FakeEngine(totals=[FakeTotals("cc", "handled", "agent", "a-0005", 1.0, None)])
    worker.do(lambda: exporter.on_assigned("events", 1, other))
    series = scrape(exporter)
    assert subjects(series) == {"a-000", "a-0005", "a-001"}, "the first by name, over all partitions"
    assert value(series, "kaohe_agents_left_out") == 3
    alerting = {dict(labels)["subject"] for name, labels in series if name == "kaohe_alert_firing"}
    assert alerting == {"a-000", "a-001"}


def test_groups_that_alert_are_named(worker: Worker) -> None:
    exporter = WallboardExporter()
    engine = FakeEngine(
        firing=[("cc", "cc-sl", "high", "queue", "sales"), ("cc", "cc-sl", "high", "queue", "care")]
    )
    worker.do(lambda: exporter.on_assigned("groups", 0, engine))
    series = scrape(exporter)
    rule = {"pack": "cc", "rule": "cc-sl", "severity": "high", "level": "queue"}
    assert value(series, "kaohe_alert_firing", **rule, subject="sales") == 1
    assert value(series, "kaohe_alerts_firing", stage="groups", partition="0", **rule) == 2


def test_series_of_a_revoked_partition_disappear(worker: Worker) -> None:
    exporter = WallboardExporter()
    worker.do(lambda: exporter.on_assigned("groups", 0, queue("sales")))
    worker.do(lambda: exporter.on_assigned("groups", 1, queue("care")))
    worker.do(lambda: exporter.on_batch("groups", 1, batch(1.0), lag=9))
    assert subjects(scrape(exporter)) == {"sales", "care"}
    worker.do(lambda: exporter.on_revoked("groups", 1))
    series = scrape(exporter)
    assert subjects(series) == {"sales"}
    assert {dict(labels).get("partition") for _, labels in series} == {None, "0"}
    worker.do(lambda: exporter.on_revoked("groups", 1))


def test_groups_are_read_again_only_when_log_time_has_moved(worker: Worker) -> None:
    exporter = WallboardExporter()
    engine = queue("sales")
    worker.do(lambda: exporter.on_assigned("groups", 0, engine))
    before = scrape(exporter)
    assert scrape(exporter).items() >= {k: v for k, v in before.items() if k[0] == METRIC_VALUE.name}.items()
    assert engine.times_read == 1
    engine.live[0].value = 0.5
    engine.watermark_ms += 60_000
    place = {"pack": "cc", "metric": "service_level", "level": "queue", "subject": "sales"}
    assert value(scrape(exporter), METRIC_VALUE.name, **place, window="rolling_1h", unit="ratio") == 0.5
    worker.do(lambda: exporter.on_revoked("groups", 0))
    worker.do(lambda: exporter.on_assigned("groups", 0, queue("care")))
    assert subjects(scrape(exporter)) == {"care"}, "nothing is kept of the engine before it"


def test_engine_is_read_on_the_workers_thread_only(worker: Worker) -> None:
    exporter = WallboardExporter(agents_max=1)
    engine = agents(2)
    worker.do(lambda: exporter.on_assigned("events", 0, engine))
    scrape(exporter)
    assert engine.read_on == {worker.thread.ident}
    worker.do(lambda: scrape(exporter))
    assert engine.read_on == {worker.thread.ident}


def test_busy_worker_is_not_waited_for_and_revocation_counts_at_once(worker: Worker) -> None:
    now_s = [100.0]
    exporter = WallboardExporter(answer_timeout_s=0.05, monotonic_s=lambda: now_s[0])
    worker.do(lambda: exporter.on_assigned("groups", 0, queue("sales")))
    worker.do(lambda: exporter.on_assigned("groups", 1, queue("care")))
    assert value(scrape(exporter), "kaohe_snapshot_age_seconds") == 0

    busy, go_on = threading.Event(), threading.Event()

    def long_batch() -> None:
        exporter.on_revoked("groups", 1)
        busy.set()
        go_on.wait(DEADLINE_S)

    worker.loop.call_soon_threadsafe(long_batch)
    assert busy.wait(DEADLINE_S)
    now_s[0] = 107.0
    for _ in range(3):
        series = scrape(exporter)
        assert subjects(series) == {"sales"}, "the last snapshot, without what was revoked since"
        assert value(series, "kaohe_snapshot_age_seconds") == 7
    go_on.set()
    worker.do(lambda: None)
    assert value(scrape(exporter), "kaohe_snapshot_age_seconds") == 0


def test_scrape_outlives_the_workers_loop() -> None:
    running = Worker()
    exporter = WallboardExporter()
    running.do(lambda: exporter.on_assigned("groups", 0, queue("sales")))
    running.do(lambda: exporter.on_revoked("groups", 0))
    running.stop()
    assert subjects(scrape(exporter)) == set()


def test_defect_while_reading_fails_the_scrape_and_not_the_next(worker: Worker) -> None:
    exporter = WallboardExporter()
    engine = FakeEngine(stats=FakeStats(decisions={("only", "three", "words"): 1}))  # type: ignore[dict-item]
    worker.do(lambda: exporter.on_assigned("events", 0, engine))
    with pytest.raises(AssertionError):
        scrape(exporter)
    engine.own_stats = FakeStats(events={"call.offered": 1})
    place = {"stage": "events", "partition": "0"}
    assert value(scrape(exporter), "kaohe_events_total", **place, type="call.offered") == 1


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        return str(answer.read(), "utf-8")


def test_server_serves_on_loopback_and_stops(worker: Worker) -> None:
    exporter = WallboardExporter()
    worker.do(lambda: exporter.on_assigned("groups", 0, queue("sales")))
    server = start_exporter("127.0.0.1", 0, exporter)
    try:
        assert subjects(parse(get(server.port))) == {"sales"}
    finally:
        server.stop()
    with pytest.raises(urllib.error.URLError):
        get(server.port)
    server.stop()
    again = start_exporter("127.0.0.1", server.port, exporter)
    again.stop()


def test_taken_port_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            KaoheError, match=rf"metrics port 127\.0\.0\.1:{port} cannot be opened .*KAOHE_METRICS_PORT"
        ):
            start_exporter("127.0.0.1", port, WallboardExporter())
