"""Every Prometheus metric that Kaohe exports, declared once: name, type, labels, meaning, unit.

Theory of operation: this table is the only place in which an exported name is written. The exporter builds its families
from it, and a test holds the recording rules, the alert rules and the wallboard against it, so that a renamed metric or
label cannot leave a silent, empty panel behind. It imports no Prometheus client: it is data.

A pack's metrics are not families of their own. A pack can be loaded, changed and unloaded while a worker runs, so its
metrics travel as the label ``metric`` of three families: the two sums of which the metric is the quotient, as counters
(rates over any span come from these), and its live values over the pack's own windows, as gauges. For a count, the
numerator is the count and there is no denominator. Both sums are in the metric's own unit: numerator divided by
denominator is the value, with no further scale.

``stage`` is ``events`` (partitions of the event topic; per agent) or ``groups`` (partitions of the group stage; per
team, queue and site). Series of a partition, and of that partition's subjects, go when the partition goes.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """One exported family. ``buckets`` are a histogram's upper bounds in its unit, without the last, infinite one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    unit: str
    buckets: tuple[float, ...] = ()


BUILD_INFO = Exported(
    name="kaohe_build_info",
    kind="gauge",
    labels=("version", "python"),
    meaning="Always 1; the labels name the version of Kaohe and of Python.",
    unit="",
)
METRIC_NUMERATOR = Exported(
    name="kaohe_metric_numerator_total",
    kind="counter",
    labels=("pack", "metric", "level", "subject"),
    meaning="What a pack's metric has counted or summed up since the log began, in the metric's unit.",
    unit="the metric's",
)
METRIC_DENOMINATOR = Exported(
    name="kaohe_metric_denominator_total",
    kind="counter",
    labels=("pack", "metric", "level", "subject"),
    meaning="What the numerator of a pack's metric is divided by; only metrics that are quotients have one.",
    unit="the metric's",
)
METRIC_VALUE = Exported(
    name="kaohe_metric_value",
    kind="gauge",
    labels=("pack", "metric", "level", "subject", "window", "unit"),
    meaning="The live value of a pack's metric over one of its windows, in log time; absent where there is no data.",
    unit="the label unit's",
)
AGENTS_LEFT_OUT = Exported(
    name="kaohe_agents_left_out",
    kind="gauge",
    labels=(),
    meaning="How many agents of this worker have no series of their own because the limit on agents was reached.",
    unit="agents",
)
EVENTS = Exported(
    name="kaohe_events_total",
    kind="counter",
    labels=("stage", "partition", "type"),
    meaning="Events taken in, by type.",
    unit="events",
)
DUPLICATES = Exported(
    name="kaohe_duplicate_events_total",
    kind="counter",
    labels=("stage", "partition"),
    meaning="Events left out because their source and id had been seen before.",
    unit="events",
)
LATE = Exported(
    name="kaohe_late_events_total",
    kind="counter",
    labels=("stage", "partition"),
    meaning="Events that came after their period had closed and its grace was over.",
    unit="events",
)
REJECTS = Exported(
    name="kaohe_rejects_total",
    kind="counter",
    labels=("stage", "partition", "code"),
    meaning="Records that could not be used, by reason.",
    unit="records",
)
DECISIONS = Exported(
    name="kaohe_decisions_total",
    kind="counter",
    labels=("stage", "partition", "pack", "rule", "kind", "status"),
    meaning="Revisions of ledger entries decided, by rule, kind and whether provisional or final.",
    unit="decisions",
)
ALERT_CHANGES = Exported(
    name="kaohe_alert_changes_total",
    kind="counter",
    labels=("stage", "partition", "pack", "rule", "state"),
    meaning="Alerts that began (firing) or ended (resolved), by rule.",
    unit="alerts",
)
ALERTS_FIRING = Exported(
    name="kaohe_alerts_firing",
    kind="gauge",
    labels=("stage", "partition", "pack", "rule", "severity", "level"),
    meaning="How many subjects of a rule are alerting now.",
    unit="alerts",
)
ALERT_FIRING = Exported(
    name="kaohe_alert_firing",
    kind="gauge",
    labels=("pack", "rule", "severity", "level", "subject"),
    meaning="1 while this subject alerts; for agents only where series per agent are switched on.",
    unit="",
)
OUTPUTS = Exported(
    name="kaohe_outputs_total",
    kind="counter",
    labels=("stage", "partition"),
    meaning="Records sent to the output topics and acknowledged: decisions, alerts, grades, partials and rejects.",
    unit="records",
)
LAG = Exported(
    name="kaohe_consumer_lag_records",
    kind="gauge",
    labels=("stage", "partition"),
    meaning="Records that were in the partition at the last fetch and have not been applied.",
    unit="records",
)
WATERMARK = Exported(
    name="kaohe_watermark_timestamp_seconds",
    kind="gauge",
    labels=("stage", "partition"),
    meaning="How far log time has come in the partition, as a Unix time.",
    unit="seconds",
)
DECISION_LATENCY = Exported(
    name="kaohe_decision_latency_seconds",
    kind="histogram",
    labels=("stage",),
    meaning="From the moment a record was written to the moment when all that follows from it was decided.",
    unit="seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
CHECKPOINT_DURATION = Exported(
    name="kaohe_checkpoint_duration_seconds",
    kind="histogram",
    labels=("stage",),
    meaning="Time for one checkpoint: outputs and state sent and acknowledged by the broker.",
    unit="seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
PARTITIONS_ASSIGNED = Exported(
    name="kaohe_partitions_assigned",
    kind="gauge",
    labels=("stage",),
    meaning="How many partitions this worker holds.",
    unit="partitions",
)
SNAPSHOT_AGE = Exported(
    name="kaohe_snapshot_age_seconds",
    kind="gauge",
    labels=(),
    meaning="How old the figures of this scrape are; above 0 when the worker was too busy to be asked.",
    unit="seconds",
)

EXPORTED: tuple[Exported, ...] = (
    BUILD_INFO,
    METRIC_NUMERATOR,
    METRIC_DENOMINATOR,
    METRIC_VALUE,
    AGENTS_LEFT_OUT,
    EVENTS,
    DUPLICATES,
    LATE,
    REJECTS,
    DECISIONS,
    ALERT_CHANGES,
    ALERTS_FIRING,
    ALERT_FIRING,
    OUTPUTS,
    LAG,
    WATERMARK,
    DECISION_LATENCY,
    CHECKPOINT_DURATION,
    PARTITIONS_ASSIGNED,
    SNAPSHOT_AGE,
)
"""The whole table, in the order in which a scrape shows it."""

# --- the payroll process ----------------------------------------------------------------------------------------------

LEDGER_ROWS = Exported(
    name="kaohe_ledger_rows",
    kind="gauge",
    labels=("table",),
    meaning="How many rows a table of the ledger has.",
    unit="rows",
)
LEDGER_NEXT_OFFSET = Exported(
    name="kaohe_ledger_next_offset",
    kind="gauge",
    labels=("topic", "partition"),
    meaning="The next offset that the ledger will read of a partition; what it has kept reaches up to there.",
    unit="records",
)
LEDGER_CHAIN_LINKS = Exported(
    name="kaohe_ledger_chain_links",
    kind="gauge",
    labels=(),
    meaning="How many links the hash chain over the ledger has.",
    unit="links",
)
SETTLEMENT_BATCHES = Exported(
    name="kaohe_settlement_batches",
    kind="gauge",
    labels=("state",),
    meaning="How many settlement batches are in a state.",
    unit="batches",
)
RECONCILIATION_STATE = Exported(
    name="kaohe_reconciliation_state",
    kind="gauge",
    labels=("check",),
    meaning="Whether log, ledger and acknowledgements agree: 0 holds, 1 something is on its way, 2 differs.",
    unit="",
)
RECONCILIATION_DIFFERENCES = Exported(
    name="kaohe_reconciliation_differences",
    kind="gauge",
    labels=("check",),
    meaning="How many things of a check differ or are on their way.",
    unit="things",
)
RECONCILIATION_AGE = Exported(
    name="kaohe_reconciliation_age_seconds",
    kind="gauge",
    labels=(),
    meaning="How old the reconciliation of this scrape is.",
    unit="seconds",
)

PAYROLL_EXPORTED: tuple[Exported, ...] = (
    BUILD_INFO,
    LEDGER_ROWS,
    LEDGER_NEXT_OFFSET,
    LEDGER_CHAIN_LINKS,
    SETTLEMENT_BATCHES,
    RECONCILIATION_STATE,
    RECONCILIATION_DIFFERENCES,
    RECONCILIATION_AGE,
)
"""What the payroll process exports, in the order in which a scrape shows it."""
