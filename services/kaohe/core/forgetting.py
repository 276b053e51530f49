"""Forgetting: what of a judge's past is dropped, and what is kept because some rule still looks at it.

Theory of operation. A closed period is kept for late events, then it goes: its counts, entries, grades, evidence and
what people said of it; and with the last of it the subject, if nothing of it is left. Each zone forgets at its own
midnights. Days, quarters, years and baseline months that a rule of some pack compares with later ones are kept for as
long as it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kaohe.core import storing
from kaohe.core.calendars import DAY_MS, Period
from kaohe.core.calendars import calendar as shared_calendar
from kaohe.core.counting import TIME_UNITS_MS, Layout
from kaohe.core.effects import names_of
from kaohe.core.evidence import of_periods, past
from kaohe.core.facts import AROUND_OPENING
from kaohe.core.model import Pack
from kaohe.core.subjects import Subject

if TYPE_CHECKING:
    from kaohe.core.judge import Judge


class Kept(NamedTuple):
    """What the packs still look at of a past that is over: it outlives the retention.

    ``baselines`` are labels of months that some metric compares with, ``compared`` the long windows whose periods some
    rule compares with the one before, ``days_ms`` how long agents' days are kept, ``members`` the counts of who belongs
    to a team.
    """

    baselines: frozenset[str]
    compared: frozenset[str]
    days_ms: int
    members: tuple[tuple[tuple[int, int], ...], ...]


def kept_by(layout: Layout, packs: tuple[Pack, ...]) -> Kept:
    """What these packs look at."""
    return Kept(
        _baseline_labels(packs), _compared_windows(packs), days_around(packs), _members(layout, packs)
    )


def sweep(judge: Judge, now_ms: int, zone: str) -> None:
    """Drop periods, entries and subjects that are past their retention.

    Each zone by its own midnights: when somebody's past is forgotten must not depend on who else is judged here.
    """
    edge = now_ms - judge.retention_ms
    judge.forget_judgings(edge)
    for ordered in (judge.reopened, judge.early):
        for one in sorted(ordered):
            if shared_calendar(zone).period(one[1], one[2]).end_ms <= edge:
                ordered.discard(one)
    for key in sorted(judge.subjects):
        subject = judge.subjects[key]
        if subject.series.calendar.name != zone:
            continue
        kept = False
        for period in sorted(subject.series.periods):
            if period.end_ms > edge or _is_looked_back_at(judge, subject, period, edge, now_ms):
                kept = True
                continue
            if judge.on_drop is not None:
                judge.on_drop(subject, period)
            del subject.series.periods[period]
            subject.series.touched_periods.discard(period)
            storing.forget_period(judge, subject, period)
        _sweep_subject(judge, subject, edge)
        if not kept and subject.first_seen_ms <= edge:
            _forget_idle(judge, subject)


def _is_looked_back_at(judge: Judge, subject: Subject, period: Period, edge: int, now_ms: int) -> bool:
    """Whether some rule may compare with a period although it was closed long ago."""
    if period.label in judge.kept.baselines:
        return True
    if period.window == "day":
        return period.end_ms > now_ms - judge.kept.days_ms
    return period.window in judge.kept.compared and subject.series.calendar.following(period).end_ms > edge


def _forget_idle(judge: Judge, subject: Subject) -> None:
    """Forget a subject of which nothing is left: nobody knows it any more, and a new event begins it anew."""
    series, key = subject.series, subject.key
    left = (
        series.cells, subject.entries, subject.grades, of_periods(subject.evidence), subject.alerts,
        subject.waivers, subject.roster, subject.state, key in judge.open, subject.sittings, subject.marks,
    )  # fmt: skip
    if (
        any(left)
        or not series.rolling_is_empty
        or any(sum(weight * series.total.get(slot, 0) for slot, weight in one) for one in judge.kept.members)
        or any(key in waiting for waiting in (*judge.unjudged.values(), *judge.figures.values()))
    ):
        return
    storing.forget(judge, subject)
    del judge.subjects[key]
    judge.touched.discard(key)
    judge.watching.forget(key)
    if judge.on_forget is not None:
        judge.on_forget(subject)


def _sweep_subject(judge: Judge, subject: Subject, edge: int) -> None:
    calendar = subject.series.calendar

    def ended(window: str, label: str) -> bool:
        return calendar.period(window, label).end_ms <= edge

    entries = [entry.id for entry in subject.entries.values() if ended(entry.window, entry.label)]
    grades = [key for key in subject.grades if ended(*key.split("|")[1:])]
    evidence = past(subject.evidence, ended)
    for found in entries:
        subject.forget(subject.entries[found])
    old = [waiver for waiver in subject.waivers if waiver.at_ms <= edge]
    if old:
        subject.waivers = [waiver for waiver in subject.waivers if waiver.at_ms > edge]
    sittings = [key for key in subject.sittings if ended(*key.split("|")[1:])]
    elsewhere = [key for key in subject.closed_elsewhere if ended(*key.split("|")[1:])]
    for key in grades:
        del subject.grades[key]
    for key in evidence:
        del subject.evidence[key]
    for key in sittings:
        del subject.sittings[key]
    for key in elsewhere:
        del subject.closed_elsewhere[key]
    if entries or grades or evidence or old or sittings or elsewhere:
        judge.touched.add(subject.key)


def _compared_windows(packs: tuple[Pack, ...]) -> frozenset[str]:
    """The long windows whose periods some rule compares with the one before, which is kept for it."""
    read = {
        name
        for pack in packs
        for rule in pack.rules
        for effect in rule.effects
        for name in names_of(rule, effect)
    }
    return frozenset(
        window
        for window in ("quarter", "year")
        if any(f".previous_{window}" in name or name.endswith(f".{window}.vs_previous") for name in read)
    )


def _members(layout: Layout, packs: tuple[Pack, ...]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """What counts who belongs to a team: one of whom nothing else comes is not forgotten while there is anybody."""
    return tuple(
        layout.reads[pack.key, metric.name][0]
        for pack in packs
        for metric in pack.metrics.values()
        if metric.kind == "stock"
        if any(term.source in ("team.joined", "team.left") for term in metric.numerator)
    )


def days_around(packs: tuple[Pack, ...]) -> int:
    """For how long agents' days are kept (ms) because some rule looks at those around the opening of a deadline."""
    longest = 0
    for pack in packs:
        for rule in pack.rules:
            if rule.trigger != "deadline":
                continue
            read = {
                name.split(".")[1]
                for effect in rule.effects
                for name in names_of(rule, effect)
                if "." in name
            }
            if not read & set(AROUND_OPENING):
                continue
            within = pack.parameters[pack.deadlines[rule.on.partition("/")[0]].within]
            for _, value in within.values:
                limits = value.values() if isinstance(value, dict) else [value]
                unit_ms = TIME_UNITS_MS[within.unit]
                longest = max(
                    [longest, *(int(limit * unit_ms) for limit in limits if not isinstance(limit, str))]
                )
    return 2 * longest + 3 * DAY_MS if longest else 0


def _baseline_labels(packs: tuple[Pack, ...]) -> frozenset[str]:
    """The labels of all months that some metric compares with: they are never dropped."""
    labels: set[str] = set()
    for pack in packs:
        for metric in pack.metrics.values():
            if metric.baseline:
                labels.update(str(value) for _, value in pack.parameters[metric.baseline].values)
    return frozenset(labels)
