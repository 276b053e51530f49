# ruff: noqa: INP001 - a script beside what it writes, not a package
"""Builds the wallboard: ``python deploy/grafana/build_wallboard.py`` writes ``dashboards/wallboard.json`` beside it.

Theory of operation: the board is code, so that its queries take their names from ``kaohe.metric_names`` and its colours
from the parameters of the pack ``contact-centre``; the JSON is what Grafana reads and is kept in the repository. A test
fails when the two differ, and another runs each query against a real Prometheus.

Figures of the centre are the pack's own live windows, per queue, over what is chosen in ``site`` and ``queue``. Curves
over any span come from the recording rules.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from ruamel.yaml import YAML

from kaohe import metric_names as names

FOLDER = Path(__file__).resolve().parent
RESULT = FOLDER / "dashboards" / "wallboard.json"
PARAMETERS = FOLDER.parent.parent / "rules" / "contact-centre" / "parameters.yaml"
PACK = "contact-centre"
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="kaohe-prometheus")
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"

Figure = tuple[str, str, str, str]
"""English title, Chinese title, query, Grafana's unit."""


def goal(parameter: str) -> float:
    """The newest value of one of the pack's parameters: the board shows what the policy says."""
    values = YAML(typ="safe").load(PARAMETERS.read_text(encoding="utf-8"))[parameter]["values"]
    newest: date = max(values)
    return float(values[newest])


def live(metric: str, level: str, window: str) -> str:
    """A metric's live value. Queues and sites are those chosen at the top of the board."""
    chosen = {"queue": ', subject=~"$queue"', "site": ', subject=~"$site"', "team": ""}[level]
    labels = f'pack="{PACK}", metric="{metric}", level="{level}", window="{window}"{chosen}'
    return f"max by (subject) ({names.METRIC_VALUE.name}{{{labels}}})"


def recorded(rule: str, level: str = "queue") -> str:
    """A recording rule at one level, for the chosen queues."""
    chosen = ', subject=~"$queue"' if level == "queue" else ""
    return f'max by (subject) ({rule}{{level="{level}"{chosen}}})'


def traffic(metric: str) -> str:
    """How many an hour, per queue."""
    rule = (
        f'kaohe:metric_numerator:rate5m{{pack="{PACK}", metric="{metric}", level="queue", subject=~"$queue"}}'
    )
    return f"3600 * sum by (subject) ({rule})"


def words(en: str, zh: str) -> str:
    """A title in both languages."""
    return f"{en} · {zh}"


def query(expr: str, legend: str = "{{subject}}") -> prometheus.Dataquery:
    """A query for a curve or a tile."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE).range()


def instant(expr: str, ref_id: str) -> prometheus.Dataquery:
    """A query for a table: the newest values only."""
    return (
        prometheus.Dataquery()
        .expr(expr)
        .instant()
        .format(PromQueryFormat.TABLE)
        .ref_id(ref_id)
        .datasource(SOURCE)
    )


def colours(*steps: tuple[float | None, str]) -> dashboards.ThresholdsConfig:
    """Colours from a value upwards; the first step has no value."""
    return (
        dashboards.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=colour) for value, colour in steps])
    )


def at_least(low: float, high: float) -> dashboards.ThresholdsConfig:
    """Red under ``low``, green from ``high``."""
    return colours((None, RED), (low, ORANGE), (high, GREEN))


def at_most(recovered: float, limit: float) -> dashboards.ThresholdsConfig:
    """Green up to ``recovered``, red from ``limit``."""
    return colours((None, GREEN), (recovered, ORANGE), (limit, RED))


PLAIN = colours((None, BLUE))


def tile(
    figure: Figure, limits: dashboards.ThresholdsConfig, *, width: int = 4, decimals: int = 0
) -> stat.Panel:
    """One large number for each site."""
    en, zh, expr, unit = figure
    return (
        stat.Panel()
        .title(words(en, zh))
        .datasource(SOURCE)
        .with_target(query(expr))
        .unit(unit)
        .decimals(decimals)
        .thresholds(limits)
        .no_value("-")
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(5)
    )


def curve(
    figure: Figure, *more: tuple[str, str], legend: str = "{{subject}}", width: int = 8
) -> timeseries.Panel:
    """Curves over time; ``more`` are further (query, legend)."""
    en, zh, expr, unit = figure
    panel = (
        timeseries.Panel()
        .title(words(en, zh))
        .datasource(SOURCE)
        .with_target(query(expr, legend).ref_id("A"))
        .unit(unit)
        .no_value("-")
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .span(width)
        .height(8)
    )
    for letter, (expr_more, legend_more) in zip("BCDEF", more, strict=False):
        panel = panel.with_target(query(expr_more, legend_more).ref_id(letter))
    return panel


def joined(
    en: str, zh: str, key: tuple[str, str], columns: list[tuple[Figure, str]], width: int
) -> table.Panel:
    """One row for each subject; ``columns`` are figures with the letter of their query."""
    rename = {f"Value #{letter}": words(figure[0], figure[1]) for figure, letter in columns}
    rename["subject"] = words(*key)
    panel = (
        table.Panel()
        .show_header(True)
        .title(words(en, zh))
        .datasource(SOURCE)
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="joinByField", options={"byField": "subject", "mode": "outer"}
            )
        )
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True} | {f"Time {n}": True for n in range(1, len(columns) + 1)},
                    "renameByName": rename,
                },
            )
        )
        .no_value("-")
        .span(width)
        .height(8)
    )
    for figure, letter in columns:
        panel = panel.with_target(instant(figure[2], letter))
        shown = [
            dashboard.DynamicConfigValue(id_val="unit", value=figure[3]),
            dashboard.DynamicConfigValue(id_val="decimals", value=0 if figure[3] == "short" else 1),
        ]
        panel = panel.override_by_name(words(figure[0], figure[1]), shown)
    return panel


def now_row() -> list[stat.Panel]:
    """The site at a glance, coloured by the goals of the policy."""
    level = "site"
    return [
        tile(
            ("Service level, 15 min", "服务水平", live("service_level", level, "rolling_15m"), "percentunit"),
            at_least(goal("service_level_goal"), goal("service_level_recovered")),
            decimals=1,
        ),
        tile(
            ("Calls waiting", "当前排队", live("calls_waiting", level, "now"), "short"),
            at_most(goal("calls_waiting_recovered"), goal("calls_waiting_limit")),
        ),
        tile(
            ("Longest wait, 15 min", "最长等待", live("longest_wait_s", level, "rolling_15m"), "s"),
            at_most(goal("wait_recovered"), goal("wait_limit")),
        ),
        tile(
            ("Abandoned, 15 min", "放弃率", live("abandonment_rate", level, "rolling_15m"), "percentunit"),
            at_most(goal("abandonment_recovered"), goal("abandonment_limit")),
            decimals=1,
        ),
        tile(
            (
                "Speed of answer, 15 min",
                "平均应答",
                live("average_speed_of_answer_s", level, "rolling_15m"),
                "s",
            ),
            at_most(goal("answer_speed_recovered"), goal("answer_speed_limit")),
        ),
        tile(
            ("Occupancy, 1 h", "占用率", live("occupancy", level, "rolling_1h"), "percentunit"),
            at_most(goal("occupancy_high_recovered"), goal("occupancy_highest")),
            decimals=1,
        ),
    ]


def queue_row() -> list[table.Panel | timeseries.Panel]:
    """Each queue, and who is in trouble."""
    level = "queue"
    columns: list[tuple[Figure, str]] = [
        (("Service level", "服务水平", live("service_level", level, "rolling_15m"), "percentunit"), "A"),
        (("Waiting", "排队", live("calls_waiting", level, "now"), "short"), "B"),
        (("Longest wait", "最长等待", live("longest_wait_s", level, "rolling_15m"), "s"), "C"),
        (("Offered", "呼入", live("offered", level, "rolling_15m"), "short"), "D"),
        (("Answered", "接听", live("answered", level, "rolling_15m"), "short"), "E"),
        (("Abandoned", "放弃", live("abandoned", level, "rolling_15m"), "short"), "F"),
        (("Speed of answer", "平均应答", live("average_speed_of_answer_s", level, "rolling_15m"), "s"), "G"),
    ]
    firing = f'sum by (rule, severity, level, subject) ({names.ALERT_FIRING.name}{{pack="{PACK}"}})'
    return [
        joined("Queues, 15 min", "队列", ("Queue", "队列"), columns, 16),
        alerts_table(firing),
        curve(("Service level", "服务水平", live("service_level", level, "rolling_15m"), "percentunit")),
        curve(("Calls waiting", "排队数", live("calls_waiting", level, "now"), "short")),
        curve(("Abandonment rate", "放弃率", live("abandonment_rate", level, "rolling_15m"), "percentunit")),
    ]


def alerts_table(firing: str) -> table.Panel:
    """Which groups are alerting, by rule."""
    return (
        table.Panel()
        .show_header(True)
        .title(words("Alerts firing", "当前预警"))
        .datasource(SOURCE)
        .with_target(instant(firing, "A"))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True, "Value": True},
                    "renameByName": {
                        "rule": words("Rule", "规则"),
                        "severity": words("Severity", "级别"),
                        "level": words("Level", "层级"),
                        "subject": words("Subject", "对象"),
                    },
                },
            )
        )
        .no_value(words("No alert", "无预警"))
        .span(8)
        .height(8)
    )


def traffic_row() -> list[timeseries.Panel]:
    """What came in, and how it was handled."""
    handle = "kaohe:average_handle_time_seconds:mean_rate1h"
    return [
        curve(("Calls offered an hour", "每小时呼入", traffic("offered"), "short")),
        curve(("Calls handled an hour", "每小时处理", traffic("handled"), "short")),
        curve(
            (
                "Service level, from counters",
                "服务水平（计数）",
                recorded("kaohe:service_level:ratio_rate1h"),
                "percentunit",
            )
        ),
        curve(("Handle time", "平均处理时长", recorded(handle), "s")),
        curve(
            (
                "Occupancy of teams",
                "班组占用率",
                recorded("kaohe:occupancy:ratio_rate1h", "team"),
                "percentunit",
            )
        ),
        curve(
            (
                "Satisfaction, today",
                "今日满意度",
                live("satisfaction", "queue", "day"),
                "percentunit",
            )
        ),
    ]


def work_row() -> list[table.Panel | timeseries.Panel]:
    """What is left to do, and what was decided."""
    tickets: list[tuple[Figure, str]] = [
        (("Open", "未结", live("tickets_open", "team", "now"), "short"), "A"),
        (("Overdue", "逾期", live("tickets_overdue", "team", "now"), "short"), "B"),
        (
            (
                "Solved at first contact",
                "一次解决",
                live("first_contact_resolution", "team", "day"),
                "percentunit",
            ),
            "C",
        ),
        (("Complaints today", "今日投诉", live("complaints", "team", "day"), "short"), "D"),
    ]
    decisions = f"sum by (rule, kind, status) (increase({names.DECISIONS.name}[1h]))"
    changes = f"sum by (rule, state) (increase({names.ALERT_CHANGES.name}[1h]))"
    return [
        joined("Tickets and complaints of teams", "班组工单与投诉", ("Team", "班组"), tickets, 8),
        curve(
            ("Decisions in an hour", "每小时决定", decisions, "short"), legend="{{rule}} {{kind}} {{status}}"
        ),
        curve(("Alerts in an hour", "每小时预警", changes, "short"), legend="{{rule}} {{state}}"),
    ]


def worker_row() -> list[timeseries.Panel]:
    """Whether the figures above can be trusted: is the worker keeping up?"""
    latency = f"sum by (le, stage) (rate({names.DECISION_LATENCY.name}_bucket[5m]))"
    checkpoint = f"sum by (le, stage) (rate({names.CHECKPOINT_DURATION.name}_bucket[5m]))"
    return [
        curve(
            ("Events a second", "每秒事件", f"sum by (stage) (rate({names.EVENTS.name}[5m]))", "short"),
            (f"sum by (stage) (rate({names.OUTPUTS.name}[5m]))", "{{stage}} out"),
            legend="{{stage}} in",
        ),
        curve(
            ("Lag", "积压", f"sum by (stage, partition) ({names.LAG.name})", "short"),
            legend="{{stage}} {{partition}}",
        ),
        curve(
            ("From event to decision", "事件到决定", f"histogram_quantile(0.5, {latency})", "s"),
            (f"histogram_quantile(0.99, {latency})", "{{stage}} 99 %"),
            legend="{{stage}} 50 %",
        ),
        curve(
            ("Checkpoint", "检查点", f"histogram_quantile(0.5, {checkpoint})", "s"),
            (f"histogram_quantile(0.99, {checkpoint})", "{{stage}} 99 %"),
            legend="{{stage}} 50 %",
        ),
        curve(
            (
                "Rejects a minute",
                "每分钟拒收",
                f"60 * sum by (code) (rate({names.REJECTS.name}[5m]))",
                "short",
            ),
            (f"60 * sum(rate({names.DUPLICATES.name}[5m]))", "duplicate"),
            (f"60 * sum(rate({names.LATE.name}[5m]))", "late"),
            legend="{{code}}",
        ),
        curve(
            ("Log time behind", "日志时间滞后", f"time() - min by (stage) ({names.WATERMARK.name})", "s"),
            legend="{{stage}}",
        ),
    ]


def chooser(name: str, label: str) -> dashboards.QueryVariable:
    """A list of the subjects of one level, all of them chosen at first."""
    return (
        dashboards.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f'label_values({names.METRIC_VALUE.name}{{pack="{PACK}", level="{name}"}}, subject)')
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def build() -> dashboard.Dashboard:
    """The whole board."""
    board = (
        dashboards.Dashboard(words("Kaohe wallboard", "考核看板"))
        .uid("kaohe-wallboard")
        .description("Live figures of the contact centre, and of the worker that computes them.")
        .tags(["kaohe"])
        .refresh("5s")
        .time("now-3h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(chooser("site", words("Site", "站点")))
        .with_variable(chooser("queue", words("Queue", "队列")))
    )
    rows: list[tuple[str, Sequence[Builder[dashboard.Panel]]]] = [
        (words("Now", "当前"), now_row()),
        (words("Queues", "队列"), queue_row()),
        (words("Traffic and handling", "话务与处理"), traffic_row()),
        (words("Tickets, decisions, alerts", "工单、决定、预警"), work_row()),
        (words("Worker", "处理引擎"), worker_row()),
    ]
    for title, panels in rows:
        board = board.with_row(dashboards.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    built = board.build()
    for number, placed in enumerate(built.panels or [], start=1):
        placed.id_val = number
    return built


def render() -> str:
    """The board as the JSON text that Grafana reads."""
    return json.dumps(build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the board."""
    RESULT.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{RESULT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
