"""Attendance in a simulated centre, counted a second time: from the events alone, written from the policy's clauses.

Nothing here knows how the engine does it. Every event is read as it stands in the log, then each shift is looked at
once, with all that is known of it in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from kaohe.adapters.simulator import ZONE, simulate
from kaohe.core.calendars import to_ms
from kaohe.core.replay import Replay
from kaohe.events import Envelope, type_of
from kaohe.packs.load import load_packs
from kaohe.reports import figures_of

RULES = Path(__file__).parents[2] / "rules"
FAMILIES = ("roster.", "shift.", "clock.", "leave.", "exemption.", "complaint.upheld")
SEED, AGENTS, DAYS = 11, 40, 36
START = date(2026, 7, 29)

# From the clauses FA-02 to FA-07 and the figures of the pack.
LATE = EARLY = timedelta(minutes=5)
GRACE = timedelta(minutes=10)
ABSENT = timedelta(hours=2)
BREAKS = {"personal", "sick"}
QUOTA = {"personal": 10, "sick": 30, "annual": 5, "marriage": 3}
WORKING_DAYS = {"marriage"}
"""The quota of this leave counts Monday to Friday (no holiday is in these weeks), of the others days with a shift."""
Figures = dict[tuple[str, str], Counter[str]]


@pytest.fixture(scope="module")
def events() -> list[Envelope]:
    """What the simulated personnel office reports, late, double and swapped events among it."""
    return [event for event in simulate(SEED, AGENTS, DAYS, START) if type_of(event).startswith(FAMILIES)]


@pytest.fixture(scope="module")
def replay(events: Iterable[Envelope]) -> Replay:
    found = Replay(load_packs(["full-attendance"], RULES))
    clock_ms = 0
    for event in events:
        second_ms = to_ms(event.time) // 1000 * 1000
        if second_ms > clock_ms:
            clock_ms = second_ms
            found.tick(clock_ms)
        found.feed(event)
    found.tick(clock_ms + 6 * 86_400_000)
    found.finish()
    return found


def days_of(leave: Envelope) -> Iterable[str]:
    day = date.fromisoformat(leave.data.first_day)
    while day <= date.fromisoformat(leave.data.last_day):
        yield day.isoformat()
        day += timedelta(days=1)


class Log:
    """The events, read once: what holds in the end of every shift, leave and exemption."""

    def __init__(self, events: list[Envelope]) -> None:
        plans: dict[str, Envelope] = {}
        self.comings: dict[str, list[datetime]] = defaultdict(list)
        self.goings: dict[str, list[datetime]] = defaultdict(list)
        self.leaves: dict[tuple[str, str], str] = {}
        self.excused: set[str] = set()
        for event in sorted(events, key=lambda one: one.time):
            kind, data = type_of(event), event.data
            if kind.startswith("shift."):
                plans[data.shift_id] = event
            elif kind in ("clock.in", "clock.out"):
                (self.comings if kind == "clock.in" else self.goings)[data.shift_id].append(event.time)
            elif kind == "clock.corrected":
                self.goings[data.shift_id] = [data.clocked_at]
            elif kind == "leave.approved":
                self.leaves |= {(data.agent, day): data.kind for day in days_of(event)}
            elif kind == "exemption.granted":
                self.excused.add(data.incident)
        found = [event.data for event in plans.values() if not getattr(event.data, "cancelled", False)]
        self.shifts = sorted(found, key=lambda data: str(data.day))

    def leave_of_shifts(self) -> dict[str, bool]:
        """The shifts on leave, and whether that counts as attended: the kind does, and the quota is not used up."""
        used: Counter[tuple[str, str]] = Counter()
        for (agent, day), kind in self.leaves.items():
            if kind in WORKING_DAYS and date.fromisoformat(day).weekday() < 5:
                used[agent, kind] += 1
                assert used[agent, kind] <= QUOTA[kind], "nobody marries twice in these weeks"
        found = {}
        for data in self.shifts:
            kind = self.leaves.get((data.agent, data.day), "")
            if kind:
                used[data.agent, kind] += kind not in WORKING_DAYS
                found[data.shift_id] = kind not in BREAKS and used[data.agent, kind] <= QUOTA[kind]
        return found


def counted_again(events: list[Envelope]) -> tuple[Figures, dict[tuple[str, str], int]]:
    """Counts by agent and month, and the points of every incident of lateness, early leave and absence."""
    log = Log(events)
    leaves = log.leave_of_shifts()
    figures: Figures = defaultdict(Counter)
    incidents: dict[tuple[str, str], list[tuple[datetime, str]]] = defaultdict(list)
    points: Counter[tuple[str, str]] = Counter()
    for data in log.shifts:
        shift_id, found = data.shift_id, figures[data.agent, data.day[:7]]
        found["required_days"] += 1
        if shift_id in leaves:
            found += Counter(leave_days=1, attended_halves=2 * leaves[shift_id], full_days=leaves[shift_id])
            continue
        came = min(log.comings[shift_id], default=None)
        if came is None:
            found += Counter(absences=shift_id not in log.excused, not_in=1)
            points[data.agent, shift_id] -= 0 if shift_id in log.excused else 10
            continue
        assert came <= data.starts_at + ABSENT, "the simulated people are never that late"
        went = max(log.goings[shift_id], default=None)
        late = came > data.starts_at + LATE
        early = went is not None and went < data.ends_at - EARLY
        found += Counter(missing_clock_outs=went is None)
        for at in [came] * late + log.goings[shift_id][-1:] * early:
            incidents[data.agent, data.day[:7]].append((at, shift_id))
        full = shift_id in log.excused or not (late or early or went is None)
        found += Counter(attended_halves=2, not_in=came > data.starts_at + GRACE, full_days=full)
    for (agent, month), found_incidents in incidents.items():
        counting = [shift_id for _, shift_id in sorted(found_incidents) if shift_id not in log.excused]
        figures[agent, month]["lateness"] = len(counting)
        for number, shift_id in enumerate(counting):
            points[agent, shift_id] -= min(3, number)
    return figures, {key: worth for key, worth in points.items() if worth}


def test_the_log_shows_enough(events: list[Envelope]) -> None:
    figures, points = counted_again(events)
    total = sum(figures.values(), Counter())
    assert (
        min(total[name] for name in ("lateness", "absences", "leave_days", "not_in", "missing_clock_outs"))
        > 1
    )
    assert len(points) > 10


@pytest.mark.parametrize(
    "name", ["required_days", "full_days", "leave_days", "lateness", "absences", "missing_clock_outs"]
)
def test_every_count_is_what_the_events_say(name: str, events: list[Envelope], replay: Replay) -> None:
    figures, _ = counted_again(events)
    came = {
        (one.subject, one.period): one.value
        for one in replay.metrics()
        if (one.metric, one.level, one.window) == (name, "agent", "month") and one.value
    }
    assert came == {key: found[name] for key, found in figures.items() if found[name]}


def test_attendance_rates_are_what_the_events_say(events: list[Envelope], replay: Replay) -> None:
    figures, _ = counted_again(events)
    came = {
        (one.subject, one.period): (one.numerator, one.denominator)
        for one in replay.metrics()
        if (one.metric, one.level, one.window) == ("attendance_rate", "agent", "month") and one.denominator
    }
    assert came == {
        key: (found["attended_halves"], 2 * found["required_days"])
        for key, found in figures.items()
        if found["required_days"]
    }


def test_every_incident_costs_what_the_policy_says(events: list[Envelope], replay: Replay) -> None:
    _, points = counted_again(events)
    came: Counter[tuple[str, str]] = Counter()
    for one in replay.newest_decisions().values():
        if one.rule in ("fa-late", "fa-early-leave", "fa-absent", "fa-exempted"):
            came[one.subject, one.incident] += int(one.points)
    assert {key: worth for key, worth in came.items() if worth} == points


def test_who_had_not_clocked_in_was_noticed_at_the_end_of_the_grace(
    events: list[Envelope], replay: Replay
) -> None:
    figures, _ = counted_again(events)
    fired = [one for one in replay.alert_list() if (one.rule, one.state) == ("fa-not-in", "firing")]
    # A clocking in time that was reported late alerts as well, and is taken back.
    assert len(fired) >= sum(found["not_in"] for found in figures.values())
    plans = {event.data.shift_id: event.data for event in events if type_of(event).startswith("shift.")}
    for alert in fired:
        assert datetime.fromisoformat(alert.at) == plans[alert.incident].starts_at.astimezone(ZONE) + GRACE


def test_full_months_are_those_in_which_every_day_was_full(events: list[Envelope], replay: Replay) -> None:
    figures, _ = counted_again(events)
    wanted = {
        key
        for key, found in figures.items()
        if key[1] == "2026-08"
        and found["required_days"] >= 10
        and found["full_days"] == found["required_days"]
    }
    came = {
        (one.subject, one.period)
        for one in replay.newest_decisions().values()
        if one.rule == "fa-full-month" and one.kind == "award"
    }
    assert came == wanted
    assert len(wanted) > 3


def test_the_report_tells_everybody_the_figures_of_their_own_month(
    events: list[Envelope], replay: Replay
) -> None:
    figures, _ = counted_again(events)
    packs = load_packs(["full-attendance"], RULES)
    lines = figures_of("month", "2026-08", replay.newest_decisions().values(), packs)["attendance"]
    came = {line.subject: {one.name: one.value for one in line.figures} for line in lines}
    wanted = {agent: found for (agent, month), found in figures.items() if month == "2026-08"}
    assert set(came) == {agent for agent, found in wanted.items() if found["required_days"]}
    assert len(came) > 30
    full = 0
    for agent, told in came.items():
        found = wanted[agent]
        counts = {
            name: int(told[f"{name}.month"] or 0) for name in ("required_days", "absences", "leave_days")
        }
        assert counts == {name: found[name] for name in counts}
        late = int(told["late_arrivals.month"] or 0) + int(told["early_leaves.month"] or 0)
        assert late == found["lateness"]
        assert Fraction(str(told["attended_days.month"])) == Fraction(found["attended_halves"], 2)
        rate = Fraction(str(told["attendance_rate.month"]).partition(" ")[0])
        assert rate == Fraction(found["attended_halves"], 2 * found["required_days"])
        streak = int(told["full_streak.month"] or 0)
        whole = found["required_days"] >= 10 and found["full_days"] == found["required_days"]
        assert bool(streak) == whole, agent
        full += whole
    assert full > 3
