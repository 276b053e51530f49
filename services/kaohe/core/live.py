"""What live displays read from an engine: values of windows, running totals, firing alerts.

Reading never changes an engine. The caller sees to it that no event is applied meanwhile.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import msgspec

from kaohe.core.counting import read
from kaohe.core.judge import Judge
from kaohe.core.subjects import Subject

ADDITIVE = ("count", "sum", "mean", "ratio", "share")


class LiveValue(msgspec.Struct, frozen=True):
    """A metric's value over a window that ends now; None where there is no data."""

    pack: str
    metric: str
    level: str
    subject: str
    window: str
    unit: str
    value: float | None


class CounterValue(msgspec.Struct, frozen=True):
    """A metric's numerator and denominator since the log began; they only grow, but for corrections."""

    pack: str
    metric: str
    level: str
    subject: str
    numerator: float
    denominator: float | None


def subject_names(judge: Judge, levels: Container[str]) -> list[str]:
    """The names of all subjects of these levels, in order."""
    return sorted(name for level, name in judge.subjects if level in levels)


def _shown(judge: Judge, levels: Container[str], only: Container[str] | None) -> Iterator[Subject]:
    for key in sorted(judge.subjects):
        subject = judge.subjects[key]
        if subject.level in levels and (only is None or subject.name in only):
            yield subject


def live_values(
    judge: Judge, levels: Container[str], only: Container[str] | None = None
) -> Iterator[LiveValue]:
    """Every metric of these levels over the windows that displays use; of ``only`` those named, if given."""
    packs = judge.active_packs()
    for subject in _shown(judge, levels, only):
        for window, cell in judge.value_cells(subject):
            for pack in packs:
                for metric in pack.metrics.values():
                    if subject.level not in metric.levels or (metric.kind == "stock") != (window == "now"):
                        continue
                    value = read(judge.layout, pack.key, metric, cell).value
                    number = None if value is None else float(value)
                    yield LiveValue(
                        pack.name, metric.name, subject.level, subject.name, window, metric.unit, number
                    )


def counter_values(
    judge: Judge, levels: Container[str], only: Container[str] | None = None
) -> Iterator[CounterValue]:
    """Numerators and denominators of every additive metric of these levels; of ``only`` those named, if given."""
    packs = judge.active_packs()
    for subject in _shown(judge, levels, only):
        for pack in packs:
            for metric in pack.metrics.values():
                if subject.level in metric.levels and metric.kind in ADDITIVE:
                    reading = read(judge.layout, pack.key, metric, subject.series.total)
                    bottom = None if reading.denominator is None else float(reading.denominator)
                    yield CounterValue(
                        pack.name, metric.name, subject.level, subject.name, float(reading.numerator), bottom
                    )


def firing(judge: Judge) -> Iterator[tuple[str, str, str, str, str]]:
    """Live alerts that fire now: pack, rule, severity, level, subject."""
    rules = {(pack.name, rule.id): rule for pack in judge.active_packs() for rule in pack.rules}
    for key in sorted(judge.subjects):
        subject = judge.subjects[key]
        for name, state in sorted(subject.alerts.items()):
            pack_name, _, rule_id = name.partition("|")
            rule = rules.get((pack_name, rule_id))
            if state.firing and rule is not None:
                severity = next(effect.severity for effect in rule.effects if effect.kind == "alert")
                yield pack_name, rule_id, severity, subject.level, subject.name
