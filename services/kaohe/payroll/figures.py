"""The payroll process's figures for Prometheus: the ledger, the settlements, and whether everything agrees.

Theory of operation. A scrape asks the ledger through a connection of its own; the quick checks of the reconciliation
run with it, and what was found is kept for some seconds, so that many scrapers cost no more than one. The checks that
walk the whole ledger or the log are those of ``kaohe ledger reconcile``. A scrape while the database is away shows the
build alone: a missing series is what says that nothing is known.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kaohe import __version__, metric_names
from kaohe.errors import LedgerError
from kaohe.metric_names import PAYROLL_EXPORTED, Exported
from kaohe.payroll import chain, settling
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.reconcile import State, check_database

FRESH_S = 15.0
_STATE: dict[State, float] = {"holds": 0.0, "open": 1.0, "differs": 2.0}
Series = dict[tuple[str, ...], float]


class PayrollFigures(Collector):
    """Collects the figures of the ledger at ``database_url``."""

    def __init__(self, database_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = database_url
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_s = 0.0
        self._found: dict[str, Series] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every family of ``metric_names.PAYROLL_EXPORTED``, in that order."""
        with self._lock:
            now_s = self._clock()
            if not self._found or now_s - self._asked_s >= FRESH_S:
                try:
                    self._found = self._ask()
                    self._asked_s = now_s
                except LedgerError:
                    self._found = {}
            found = dict(self._found)
            if found:
                found[metric_names.RECONCILIATION_AGE.name] = {(): now_s - self._asked_s}
        found[metric_names.BUILD_INFO.name] = {(__version__, platform.python_version()): 1.0}
        for exported in PAYROLL_EXPORTED:
            yield _family(exported, found.get(exported.name, {}))

    def _ask(self) -> dict[str, Series]:
        names = metric_names
        with Ledger(self._url) as ledger:
            counts, offsets = ledger.counts(), ledger.offsets()
            with ledger.reading() as connection:
                checks = check_database(connection, thoroughly=False)
                states = Counter(batch.state for batch in settling.batches(connection))
                links = chain.head(connection).link
        return {
            names.LEDGER_ROWS.name: {(table,): float(count) for table, count in counts.items()},
            names.LEDGER_NEXT_OFFSET.name: {
                (topic, str(partition)): float(at.next_offset) for (topic, partition), at in offsets.items()
            },
            names.LEDGER_CHAIN_LINKS.name: {(): float(links)},
            names.SETTLEMENT_BATCHES.name: {(state,): float(states[state]) for state in settling.STATES},
            names.RECONCILIATION_STATE.name: {(one.name,): _STATE[one.state] for one in checks},
            names.RECONCILIATION_DIFFERENCES.name: {(one.name,): float(one.count) for one in checks},
        }


def _family(exported: Exported, series: Series) -> GaugeMetricFamily:
    assert exported.kind == "gauge", exported.name
    family = GaugeMetricFamily(exported.name, exported.meaning, labels=exported.labels)
    for labels, value in sorted(series.items()):
        assert len(labels) == len(exported.labels), (exported.name, labels)
        family.add_metric(labels, value)
    return family
