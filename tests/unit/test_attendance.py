"""Attendance: what becomes of shifts, clockings and leave, in whatever order the events come."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core.attendance import MAX_LEAVES, MAX_SHIFTS
from kaohe.core.attending import Attending
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.core.replay import Replay
from kaohe.events import Envelope
from kaohe.packs.load import load_packs
from tests.support.attendance import Rota, attendance_pack
from tests.support.core_runs import Timed, records_of, run_engine, seed
from tests.support.packs import at, at_ms

RULES = Path(__file__).parents[2] / "rules"
DAY = "2026-08-03"
"""A Monday."""
SHIFT = f"s-{DAY}"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return attendance_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def rota(pack: Pack) -> Rota:
    told = Rota(pack)
    told.tick("2026-08-02T12:00")
    return told


def full_day() -> dict[str, int]:
    return {"required": 1, "attended": 1, "full_day": 1, "not_logged_in": 1}


# --- coming and going -------------------------------------------------------------------------------------------------


def test_coming_and_going_in_time_is_a_full_day(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY)
    rota.tick("2026-08-03T18:06")
    assert rota.day(DAY) == full_day()
    assert rota.figure("rate", "month", "2026-08") == 1.0
    assert rota.points() == {}


@pytest.mark.parametrize(
    ("came", "late_ms"),
    [("09:05:00", 0), ("09:05:00.001", 300_001), ("09:30", 1_800_000), ("11:00", 7_200_000)],
)
def test_late_begins_beyond_the_threshold(rota: Rota, came: str, late_ms: int) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY, came=came)
    rota.tick("2026-08-03T19:00")
    assert rota.figure("late_ms", "day", DAY) == late_ms
    assert rota.day(DAY).get("late", 0) == (1 if late_ms else 0)
    assert ("full_day" in rota.day(DAY)) == (not late_ms)


@pytest.mark.parametrize(
    ("went", "early_ms", "absent"),
    [("17:55", 0, 0), ("17:54:59", 301_000, 0), ("16:00:01", 7_199_000, 0), ("16:00", 0, 1), ("09:30", 0, 1)],
)
def test_leaving_early_begins_before_the_threshold_and_ends_as_half_a_day(
    rota: Rota, went: str, early_ms: int, absent: int
) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY, went=went)
    rota.tick("2026-08-03T19:00")
    assert rota.figure("early_ms", "day", DAY) == early_ms
    assert rota.figure("absent_halves", "day", DAY) == absent / 2
    assert rota.figure("attended_halves", "day", DAY) == 1 - absent / 2


def test_going_out_for_lunch_is_not_leaving_early(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY, went="12:00")
    rota.work(DAY, came="13:00", went="18:00")
    rota.tick("2026-08-03T21:00")
    assert rota.day(DAY) == full_day()


def test_clocking_twice_changes_nothing(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    for came, went in (("08:50", ""), ("08:51", ""), ("08:55", "17:30"), ("", "18:00"), ("", "18:01")):
        rota.work(DAY, came=came, went=went)
    rota.tick("2026-08-03T21:00")
    assert rota.day(DAY) == full_day()


def test_absence_is_noticed_during_the_shift_although_no_event_comes(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tick(f"{DAY}T09:10")
    assert rota.alerts() == []
    rota.tick(f"{DAY}T09:10:01")
    assert rota.alerts() == [
        ("not-in", "a-1", "firing", "09:10"),
        ("not-logged-in", "a-1", "firing", "09:10"),
    ]
    rota.tick(f"{DAY}T11:00")
    assert rota.points() == {}
    rota.tick(f"{DAY}T11:00:01")
    assert rota.points() == {SHIFT: -10}
    assert rota.alerts()[-1] == ("absent", "a-1", "firing", "11:00")
    rota.tick(f"{DAY}T20:01")
    assert rota.day(DAY) == {"required": 1, "attended": 1, "absent": 1, "not_in": 1, "not_logged_in": 1}
    assert rota.figure("rate", "day", DAY) == 0
    assert [one[:3] for one in rota.alerts()[-2:]] == [
        ("not-in", "a-1", "resolved"),
        ("not-logged-in", "a-1", "resolved"),
    ]


def test_who_comes_after_the_limit_of_absence_misses_half_a_day(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tick(f"{DAY}T11:30")
    assert rota.points() == {SHIFT: -10}
    rota.work(DAY, came="11:31")
    rota.tick(f"{DAY}T21:00")
    assert rota.points() == {SHIFT: -5}
    assert rota.figure("attended_halves", "day", DAY) == 0.5
    assert "late" not in rota.day(DAY)


def test_a_clock_in_that_is_reported_late_takes_the_absence_back(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tick(f"{DAY}T12:00")
    assert rota.day(DAY) == {"not_in": 1, "absent": 1, "not_logged_in": 1}
    rota.late(f"{DAY}T08:58", "clock.in", shift_id=SHIFT)
    assert rota.day(DAY) == {"not_logged_in": 1}
    assert rota.points() == {}
    newest = sorted(rota.replay.newest_decisions().values(), key=lambda one: one.kind)
    assert [(one.kind, one.points) for one in newest] == [("deduct", "-10"), ("waive", "10")]
    assert newest[1].reverses == newest[0].id
    assert [one[0] for one in rota.alerts() if one[2] == "resolved"] == ["absent", "not-in"]


def test_a_missing_clock_out_is_noticed_and_its_correction_makes_the_day_full(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY, went="")
    rota.tick(f"{DAY}T20:00")
    assert "missing_out" not in rota.day(DAY)
    rota.tick(f"{DAY}T20:00:01")
    assert rota.day(DAY) == {"required": 1, "attended": 1, "missing_out": 1, "not_logged_in": 1}
    rota.tell(
        "2026-08-04T09:00",
        "clock.corrected",
        correction_id="c",
        shift_id=SHIFT,
        punch="out",
        clocked_at=at(f"{DAY}T18:00"),
    )
    assert rota.day(DAY) == full_day()


def test_a_correction_can_also_say_that_nobody_came(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY)
    rota.tick("2026-08-04T08:00")
    rota.tell("2026-08-04T09:00", "clock.corrected", correction_id="c", shift_id=SHIFT, punch="in")
    assert rota.points() == {SHIFT: -10}
    rota.tell(
        "2026-08-04T10:00",
        "clock.corrected",
        correction_id="d",
        shift_id=SHIFT,
        punch="in",
        clocked_at=at(f"{DAY}T09:00"),
    )
    assert rota.points() == {}
    assert rota.day(DAY) == full_day()


def test_an_incident_that_was_taken_back_can_be_charged_again(rota: Rota) -> None:
    """Each charge is an entry of its own, and each reversal names the one it takes back."""
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.work(DAY)
    rota.tick("2026-08-04T08:00")
    for hour, came in ((9, None), (10, at(f"{DAY}T09:00")), (11, None)):
        rota.tell(
            f"2026-08-04T{hour:02}:00",
            "clock.corrected",
            correction_id="c",
            shift_id=SHIFT,
            punch="in",
            clocked_at=came,
        )
    rota.replay.finish()
    newest = rota.replay.newest_decisions()
    assert sorted((one.kind, one.points) for one in newest.values()) == [
        ("deduct", "-10"),
        ("deduct", "-10"),
        ("waive", "10"),
    ]
    assert {one.incident for one in newest.values()} == {SHIFT}
    assert rota.points() == {SHIFT: -10}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_lateness_and_early_leave_are_numbered_together_and_cost_more_each_time(rota: Rota) -> None:
    for number, (came, went) in enumerate(
        (("09:20", "18:00"), ("09:00", "17:30"), ("09:20", "18:00"), ("09:00", "17:30"), ("09:20", "18:00"))
    ):
        day = f"2026-08-{3 + number:02}"
        rota.tick(f"{day}T00:00")
        rota.shift(day)
        rota.work(day, came, went)
    rota.tick("2026-08-09T00:00")
    assert rota.points() == {f"s-2026-08-{4 + number:02}": -cost for number, cost in enumerate((1, 2, 3, 3))}


def test_an_incident_that_becomes_known_late_renumbers_those_after_it(rota: Rota) -> None:
    for day in (3, 4, 5):
        rota.tick(f"2026-08-0{day}T00:00")
        rota.shift(f"2026-08-0{day}")
        rota.work(f"2026-08-0{day}", came="09:20" if day > 3 else "09:00")
    rota.tick("2026-08-06T00:00")
    assert rota.points() == {"s-2026-08-05": -1}
    rota.tell(
        "2026-08-06T09:00",
        "clock.corrected",
        correction_id="c",
        shift_id=SHIFT,
        punch="in",
        clocked_at=at(f"{DAY}T09:30"),
    )
    assert rota.points() == {"s-2026-08-04": -1, "s-2026-08-05": -2}


def test_what_is_excused_is_waived_and_no_longer_counts_against_the_next(rota: Rota) -> None:
    for day in (3, 4, 5):
        rota.tick(f"2026-08-0{day}T00:00")
        rota.shift(f"2026-08-0{day}")
        rota.work(f"2026-08-0{day}", came="09:20")
    rota.tick("2026-08-06T00:00")
    assert rota.points() == {"s-2026-08-04": -1, "s-2026-08-05": -2}
    rota.tell(
        "2026-08-06T09:00", "exemption.granted", exemption_id="x", incident="s-2026-08-04", reason="metro"
    )
    assert rota.points() == {"s-2026-08-05": -1}
    assert rota.figure("n_late", "month", "2026-08") == 3
    assert rota.figure("unexcused", "month", "2026-08") == 2
    assert rota.figure("n_full_day", "month", "2026-08") == 1
    kinds = sorted(
        one.kind for one in rota.replay.newest_decisions().values() if one.incident == "s-2026-08-04"
    )
    assert kinds == ["deduct", "waive"]


def test_an_exemption_may_come_before_the_lateness_is_known(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.late(f"{DAY}T00:00", "exemption.granted", exemption_id="x", incident=SHIFT, reason="metro")
    rota.tick(f"{DAY}T21:00")
    assert rota.points() == {}
    assert rota.figure("n_absent", "day", DAY) == 1
    assert rota.figure("unexcused", "day", DAY) == 0


# --- the rota ---------------------------------------------------------------------------------------------------------


def test_a_shift_across_midnight_belongs_to_the_day_that_the_rota_names(rota: Rota) -> None:
    rota.tick("2026-08-31T12:00")
    rota.shift("2026-08-31", "22:00", "06:00", "n", when="2026-08-31T12:00")
    rota.tell("2026-09-01T00:30", "clock.in", shift_id="n")
    rota.tell("2026-09-01T06:00", "clock.out", shift_id="n")
    rota.tick("2026-09-01T12:00")
    assert rota.day("2026-09-01") == {}
    found = rota.day("2026-08-31")
    assert (found["absent"], found["required"], rota.figure("absent_halves", "month", "2026-08")) == (
        1,
        1,
        0.5,
    )
    assert rota.figure("n_required", "month", "2026-09") in (0, None)


def test_split_shifts_are_one_day(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY, "08:00", "12:00", "m")
    rota.shift(DAY, "14:00", "18:00", "e")
    rota.tell(f"{DAY}T08:00", "clock.in")
    rota.tell(f"{DAY}T12:01", "clock.out")
    rota.tell(f"{DAY}T13:58", "clock.in")
    rota.tell(f"{DAY}T18:00", "clock.out")
    rota.tick("2026-08-04T00:00")
    found = rota.day(DAY)
    assert found == {"required": 1, "attended": 1, "full_day": 1, "not_logged_in": 2}


def test_one_of_two_split_shifts_missed_is_half_a_day(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY, "08:00", "12:00", "m")
    rota.shift(DAY, "14:00", "18:00", "e")
    rota.tell(f"{DAY}T07:55", "clock.in")
    rota.tell(f"{DAY}T12:01", "clock.out")
    rota.tick("2026-08-04T00:00")
    assert rota.points() == {"e": -5}
    assert rota.figure("attended_halves", "day", DAY) == 0.5


def test_a_clocking_without_a_shift_finds_the_nearest_one(rota: Rota) -> None:
    """A night shift ends at six and the next one begins at nine: who goes at six does not go early at noon."""
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY, "00:30", "06:00", "n")
    rota.shift(DAY, "09:00", "12:00", "m")
    for when, tag in (("00:25", "in"), ("06:01", "out"), ("08:59", "in"), ("12:00", "out")):
        rota.tell(f"{DAY}T{when}", f"clock.{tag}")
    rota.tick("2026-08-04T00:00")
    assert rota.day(DAY) == {"required": 1, "attended": 1, "full_day": 1, "not_logged_in": 2}


def test_a_shift_that_is_called_off_asks_for_nothing_even_afterwards(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tick(f"{DAY}T21:00")
    assert rota.points() == {SHIFT: -10}
    rota.tell("2026-08-04T09:00", "shift.changed", **rota.hours(DAY, "09:00", "18:00"), cancelled=True)
    assert rota.points() == {}
    assert rota.day(DAY) == {}


def test_a_shift_that_moves_to_another_day_takes_everything_along(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tell(f"{DAY}T06:00", "shift.changed", **rota.hours("2026-08-05", "10:00", "19:00", SHIFT))
    rota.tick("2026-08-05T12:00:01")
    assert rota.day(DAY) == {}
    assert rota.points() == {SHIFT: -10}
    assert rota.day("2026-08-05")["absent"] == 1


@pytest.mark.parametrize(
    ("told", "came", "late"), [("06:30", "08:50", False), ("05:59", "08:50", True), ("06:30", "09:20", True)]
)
def test_a_change_on_short_notice_harms_nobody(rota: Rota, told: str, came: str, late: bool) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tell(f"{DAY}T{told}", "shift.changed", **rota.hours(DAY, "08:00", "17:00"))
    rota.work(DAY, came, "18:00")
    rota.tick("2026-08-04T00:00")
    assert ("late" in rota.day(DAY)) == late


def test_a_swap_gives_one_shift_away_and_takes_another(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.shift("2026-08-05", agent="a-2", shift_id="other")
    taken = rota.hours("2026-08-05", "09:00", "18:00", "other")
    rota.tell(
        f"{DAY}T06:00", "shift.swapped", shift_id=SHIFT, with_agent="a-2", taken_id="other",
        taken_day="2026-08-05", taken_starts_at=taken["starts_at"], taken_ends_at=taken["ends_at"],
    )  # fmt: skip
    given = rota.hours(DAY, "09:00", "18:00")
    rota.tell(
        f"{DAY}T06:00", "shift.swapped", agent="a-2", shift_id="other", with_agent="a-1", taken_id=SHIFT,
        taken_day=DAY, taken_starts_at=given["starts_at"], taken_ends_at=given["ends_at"],
    )  # fmt: skip
    rota.tell(f"{DAY}T08:50", "clock.in", agent="a-2", shift_id=SHIFT)
    rota.tell(f"{DAY}T18:00", "clock.out", agent="a-2", shift_id=SHIFT)
    rota.tick("2026-08-05T21:00")
    assert rota.day(DAY) == {}
    assert rota.day(DAY, "a-2") == full_day()
    assert rota.points() == {"other": -10}
    assert rota.day("2026-08-05", "a-2") == {}
    assert rota.day("2026-08-05")["absent"] == 1


def test_who_has_left_is_not_absent_from_shifts_that_nobody_took_out_of_the_rota(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.late(f"{DAY}T00:00", "roster.changed", team="t", site="s")
    for day in range(3, 8):
        rota.shift(f"2026-08-{day:02}", when=f"{DAY}T00:00")
    rota.work(DAY)
    rota.tick("2026-08-05T20:01")
    assert rota.points() == {"s-2026-08-04": -10, "s-2026-08-05": -10}
    rota.tell("2026-08-06T09:00", "roster.changed", team="t", site="s", left_on="2026-08-04")
    assert rota.points() == {"s-2026-08-04": -10}
    rota.tell("2026-08-07T08:00", "roster.changed", team="t", site="s")
    rota.tick("2026-08-08T00:00")
    assert rota.points() == {"s-2026-08-04": -10, "s-2026-08-07": -10}
    assert rota.day("2026-08-06") == {}


# --- logging in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "missed"),
    [
        ([("08:50", "in")], 0),
        ([("09:10", "in")], 0),
        ([("09:10:01", "in")], 1),
        ([("08:50", "in"), ("08:59", "out"), ("09:30", "in")], 1),
        ([("08:50", "in"), ("08:59", "out"), ("09:05", "in")], 0),
        ([("08:50", "in"), ("09:01", "out")], 0),
        ([], 1),
    ],
)
def test_an_agent_is_logged_in_as_soon_as_the_shift_starts(
    rota: Rota, events: list[tuple[str, str]], missed: int
) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    for when, what in events:
        rota.tell(f"{DAY}T{when}", f"agent.logged_{what}")
    rota.tick("2026-08-04T00:00")
    assert rota.day(DAY).get("not_logged_in", 0) == missed
    states = [alert[2] for alert in rota.alerts() if alert[0] == "not-logged-in"]
    assert states == (["firing", "resolved"] if missed else [])


def test_a_forgotten_log_out_ends_by_itself_and_can_be_corrected(rota: Rota) -> None:
    """Logged in since yesterday's evening shift: sixteen hours ago does not count, less does until corrected."""
    rota.tick("2026-08-02T16:59")
    rota.tell("2026-08-02T16:59", "agent.logged_in")
    rota.shift(DAY, when="2026-08-02T16:59")
    rota.tick(f"{DAY}T10:00")
    assert rota.day(DAY) == {"not_in": 1, "not_logged_in": 1}
    rota.late("2026-08-02T18:00", "agent.logged_in")
    assert rota.day(DAY) == {"not_in": 1}
    rota.late("2026-08-02T22:00", "agent.logged_out")
    assert rota.day(DAY) == {"not_in": 1, "not_logged_in": 1}


# --- leave ------------------------------------------------------------------------------------------------------------


def leave(kind: str, first: str, last: str = "", leave_id: str = "l", **more: Any) -> dict[str, Any]:
    return {"leave_id": leave_id, "kind": kind, "first_day": first, "last_day": last or first, **more}


@pytest.mark.parametrize(
    ("kind", "rate", "full"),
    [
        ("personal", 0, False), ("sick", 0, False), ("marriage", 1, True), ("bereavement", 1, True),
        ("maternity", 1, True), ("annual", 1, True),
    ],
)  # fmt: skip
def test_each_kind_of_leave_says_whether_it_breaks_full_attendance_and_counts(
    rota: Rota, kind: str, rate: int, full: bool
) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.late(f"{DAY}T00:00", "leave.approved", **leave(kind, DAY))
    rota.tick(f"{DAY}T21:00")
    assert rota.figure("rate", "day", DAY) == rate
    assert ("full_day" in rota.day(DAY)) == full
    assert rota.alerts() == []
    assert rota.points() == {}


def test_leave_approved_afterwards_takes_the_absence_back(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.tell(f"{DAY}T08:00", "leave.requested", **leave("sick", DAY))
    rota.tick("2026-08-04T00:00")
    assert rota.points() == {SHIFT: -10}
    rota.tell("2026-08-05T09:00", "leave.approved", **leave("sick", DAY))
    assert rota.points() == {}
    assert rota.day(DAY) == {"required": 1, "attended": 1, "leave": 1}
    rota.tell("2026-08-05T10:00", "leave.cancelled", **leave("sick", DAY))
    assert rota.points() == {SHIFT: -10}


@pytest.mark.parametrize(
    ("half", "came", "went", "found"),
    [
        ("first", "13:30", "18:00", {"full_day": 1}),
        ("first", "13:40", "18:00", {"late": 1}),
        ("second", "09:00", "13:30", {"full_day": 1}),
        ("second", "09:00", "13:00", {"early_leave": 1}),
        ("", "09:00", "13:30", {"full_day": 1}),
        ("", "13:30", "18:00", {"full_day": 1}),
    ],
)
def test_half_a_day_of_leave_leaves_the_other_half_to_work(
    rota: Rota, half: str, came: str, went: str, found: dict[str, int]
) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.late(f"{DAY}T00:00", "leave.approved", **leave("annual", DAY, half_day=True, half=half))
    rota.work(DAY, came, went)
    rota.tick("2026-08-04T00:00")
    counted = {
        key: count for key, count in rota.day(DAY).items() if key in ("full_day", "late", "early_leave")
    }
    assert counted == found
    assert rota.figure("leave_halves", "day", DAY) == 0.5
    assert rota.figure("rate", "day", DAY) == 1


def test_of_two_leaves_on_a_day_the_one_approved_last_holds(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY)
    rota.late(f"{DAY}T00:00", "leave.approved", **leave("annual", DAY, leave_id="m"))
    rota.late("2026-08-02T20:00", "leave.approved", **leave("personal", DAY))
    rota.tick(f"{DAY}T21:00")
    assert rota.figure("rate", "day", DAY) == 1
    assert rota.figure("leave_halves", "day", DAY) == 1


def test_half_a_day_of_leave_with_split_shifts_covers_one_of_them(rota: Rota) -> None:
    rota.tick(f"{DAY}T00:00")
    rota.shift(DAY, "08:00", "12:00", "m")
    rota.shift(DAY, "14:00", "18:00", "e")
    rota.late(f"{DAY}T00:00", "leave.approved", **leave("personal", DAY, half_day=True, half="first"))
    rota.tick("2026-08-04T00:00")
    assert rota.points() == {"e": -5}
    assert rota.figure("attended_halves", "day", DAY) == 0


def test_leave_beyond_the_quota_of_the_year_does_not_count(rota: Rota) -> None:
    """Two days of personal leave a year: the third is over, and so is half of one that began with a half."""
    for day in (3, 4, 5):
        rota.tick(f"2026-08-0{day}T00:00")
        rota.shift(f"2026-08-0{day}")
    rota.late(
        "2026-08-05T00:00", "leave.approved", **leave("personal", "2026-08-03", half_day=True, half="first")
    )
    rota.late("2026-08-05T00:00", "leave.approved", **leave("personal", "2026-08-04", "2026-08-05", "m"))
    rota.tick("2026-08-06T00:00")
    assert rota.figure("leave_halves", "month", "2026-08") == 2.5
    assert rota.figure("over_quota", "day", "2026-08-05") == 0.5
    assert rota.figure("over_quota", "month", "2026-08") == 0.5


def test_what_the_quota_counts_differs_by_kind(pack: Pack) -> None:
    """Marriage leave counts working days: the National Day holiday is not taken from it, the swapped Saturday is."""
    rota = Rota(pack)
    rota.tick("2026-09-29T00:00")
    for day in ("2026-09-30", "2026-10-08", "2026-10-09", "2026-10-10"):
        rota.shift(day, when="2026-09-29T00:00")
    rota.late("2026-09-29T00:00", "leave.approved", **leave("marriage", "2026-09-30", "2026-10-10"))
    rota.tick("2026-10-11T00:00")
    assert rota.figure("over_quota", "month", "2026-09") == 0
    assert rota.figure("over_quota", "day", "2026-10-09") == 0
    assert rota.figure("over_quota", "day", "2026-10-10") == 1


# --- full months ------------------------------------------------------------------------------------------------------


def month_of(rota: Rota, month: str, days: tuple[int, ...], **work: Any) -> None:
    for day in days:
        name = f"{month}-{day:02}"
        rota.tick(f"{name}T00:00")
        rota.shift(name)
        rota.work(name, **work)


def test_streaks_of_full_months_grow_and_an_empty_month_does_not_break_them(rota: Rota) -> None:
    for month in ("2026-08", "2026-09", "2026-11"):
        month_of(rota, month, (3, 4))
    rota.tick("2026-12-01T00:00")
    assert rota.points() == {"2026-08": 1, "2026-09": 2, "2026-11": 3}
    month_of(rota, "2026-12", (3, 4), came="09:20")
    month_of(rota, "2027-01", (4, 5))
    rota.tick("2027-02-01T00:01")
    assert rota.points() == {
        "2026-08": 1, "2026-09": 2, "2026-11": 3, "s-2026-12-04": -1, "2027-01": 1,
    }  # fmt: skip


def test_a_correction_after_the_month_changes_the_streaks_that_follow(rota: Rota) -> None:
    month_of(rota, "2026-08", (24, 25))
    month_of(rota, "2026-09", (3,))
    rota.tick("2026-10-01T00:00")
    assert rota.points() == {"2026-08": 1, "2026-09": 2}
    rota.late(
        "2026-09-30T23:00", "clock.corrected", correction_id="c", shift_id="s-2026-08-25", punch="in",
        clocked_at=at("2026-08-25T09:30"),
    )  # fmt: skip
    assert rota.points() == {"2026-09": 1}


def test_a_month_is_full_only_when_its_last_night_shift_is_over(rota: Rota) -> None:
    rota.tick("2026-08-31T12:00")
    rota.shift("2026-08-31", "22:00", "06:00", "n", when="2026-08-31T12:00")
    rota.tell("2026-08-31T21:55", "clock.in", shift_id="n")
    rota.tick("2026-09-01T05:00")
    assert rota.points() == {}
    rota.tell("2026-09-01T06:01", "clock.out", shift_id="n")
    rota.tick("2026-09-01T06:02")
    assert rota.points() == {"2026-08": 1}
    assert [(one.period, len(one.evidence)) for one in rota.replay.decision_list()] == [("2026-08", 1)]


def test_too_few_days_make_no_month(tmp_path: Path) -> None:
    rota = Rota(attendance_pack(tmp_path, full_month_days=3))
    rota.tick("2026-08-02T12:00")
    month_of(rota, "2026-08", (3, 4))
    month_of(rota, "2026-09", (3, 4, 7))
    rota.tick("2026-10-01T00:00")
    assert rota.points() == {"2026-09": 1}


# --- office hours and the public calendar -----------------------------------------------------------------------------


def test_office_hours_follow_the_public_calendar(pack: Pack) -> None:
    """From 30 September to 12 October 2026: the National Day week is off, Saturday the 10th is worked for it."""
    rota = Rota(pack)
    rota.tick("2026-09-29T12:00")
    rota.late(
        "2026-09-29T12:00",
        "hours.assigned",
        hours_id="h",
        first_day="2026-09-30",
        starts="09:00",
        ends="18:00",
    )
    rota.tick("2026-10-13T00:00")
    required = [day for day in range(1, 13) if rota.day(f"2026-10-{day:02}").get("required")]
    assert required == [8, 9, 10, 12]
    assert rota.day("2026-09-30")["absent"] == 1


def test_clockings_of_office_hours_need_no_shift(pack: Pack) -> None:
    rota = Rota(pack)
    rota.tick("2026-08-02T12:00")
    rota.late("2026-08-02T12:00", "hours.assigned", hours_id="h", first_day=DAY, starts="09:00", ends="18:00")
    rota.tell(f"{DAY}T08:50", "clock.in")
    rota.tell(f"{DAY}T18:05", "clock.out")
    rota.tell("2026-08-04T09:30", "clock.in")
    rota.tell("2026-08-04T18:05", "clock.out")
    rota.tick("2026-08-04T23:00")
    assert rota.day(DAY) == full_day()
    assert rota.day("2026-08-04")["late"] == 1
    rota.tell(
        "2026-08-05T08:00",
        "hours.assigned",
        hours_id="i",
        first_day="2026-08-05",
        starts="09:00",
        ends="09:00",
    )
    rota.tick("2026-08-06T00:00")
    assert rota.day("2026-08-05") == {}


def test_a_shift_on_a_public_holiday_is_told_apart(rota: Rota) -> None:
    rota.tick("2026-10-01T00:00")
    rota.shift("2026-10-01")
    rota.work("2026-10-01")
    rota.tick("2026-10-02T00:00")
    assert rota.figure("on_holidays", "month", "2026-10") == 1


# --- zones ------------------------------------------------------------------------------------------------------------


def test_each_site_keeps_its_own_day(pack: Pack) -> None:
    zones = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"})
    rota = Rota(pack, zones=zones, zone=ZoneInfo("Europe/Berlin"))
    rota.tick("2026-08-31T12:00")
    rota.late("2026-08-31T12:00", "roster.changed", team="t", site="berlin")
    rota.shift("2026-08-31", "18:00", "23:30", "late-shift", when="2026-08-31T12:00", site="berlin")
    rota.tell("2026-08-31T23:00", "clock.in", shift_id="late-shift")  # already September in Shanghai
    rota.tick("2026-09-02T00:00")
    assert rota.figure("n_absent", "month", "2026-08") == 1
    assert rota.figure("n_absent", "month", "2026-09") in (0, None)


def test_who_moves_to_another_zone_is_not_charged_again_for_a_month_that_is_forgotten() -> None:
    """The months of a streak end at other moments there and are counted anew; the entries of old ones are gone by then.

    The front desk's pack compares months, so that counts are kept for longer than entries.
    """
    zones = Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"})
    packs = load_packs(["full-attendance", "front-desk"], RULES)
    rota = Rota(*packs, zones=zones, zone=ZoneInfo("Europe/Berlin"))
    roster: dict[str, Any] = {"team": "t", "packs": ["full-attendance"]}
    rota.tick("2025-12-01T00:00")
    rota.late("2025-12-01T00:00", "roster.changed", site="berlin", **roster)
    for number in range(90):
        day = (date(2025, 12, 1) + timedelta(days=number)).isoformat()
        if day == "2026-02-12":
            rota.tell("2026-02-12T00:00", "roster.changed", site="shanghai", **roster)
        rota.tick(f"{day}T00:00")
        rota.shift(day)
        rota.work(day)
    rota.ticks("2026-02-28T18:15", "2026-03-02T00:00", 900_000)
    rota.replay.finish()
    entries = rota.replay.newest_decisions().values()
    charged = [(one.rule, one.period) for one in entries if one.points != "0" and one.status == "final"]
    assert sorted(charged) == [
        ("fa-attendance-high", "2025-12"), ("fa-attendance-high", "2026-01"), ("fa-full-month", "2025-12"),
        ("fa-full-month", "2026-01"), ("fa-full-month", "2026-02"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("day", "came", "length_h", "found"),
    [
        ("2026-03-29", "01:55", 7, "full_day"),  # two o'clock becomes three: an hour less to work
        ("2026-10-25", "01:55", 9, "full_day"),  # three o'clock becomes two: an hour more
        ("2026-10-25", "02:10", 9, "late"),
    ],
)
def test_a_night_shift_over_the_change_of_the_clock_is_as_long_as_it_is(
    tmp_path: Path, day: str, came: str, length_h: int, found: str
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    rota = Rota(attendance_pack(tmp_path, zone="Europe/Berlin"), zone=berlin)
    rota.tick(f"{day}T00:00")
    begins, ends = at(f"{day}T02:00", berlin), at(f"{day}T10:00", berlin)
    if day == "2026-03-29":
        begins = at(f"{day}T01:59:59", berlin)
    rota.late(f"{day}T00:00", "shift.scheduled", shift_id="n", day=day, starts_at=begins, ends_at=ends)
    assert round((ends.timestamp() - begins.timestamp()) / 3600) == length_h
    rota.tell(f"{day}T{came}", "clock.in", shift_id="n")
    rota.tell(f"{day}T10:00", "clock.out", shift_id="n")
    rota.tick(f"{day}T13:00")
    assert rota.day(day).get(found) == 1


def test_office_hours_are_those_of_the_wall_clock_on_both_sides_of_its_change(tmp_path: Path) -> None:
    """Nine in Berlin is eight by universal time in winter and seven in summer."""
    berlin = ZoneInfo("Europe/Berlin")
    rota = Rota(attendance_pack(tmp_path, zone="Europe/Berlin"), zone=berlin)
    rota.tick("2026-10-22T12:00")
    rota.late(
        "2026-10-22T12:00",
        "hours.assigned",
        hours_id="h",
        first_day="2026-10-23",
        starts="09:00",
        ends="17:00",
    )
    for day in ("2026-10-23", "2026-10-26"):
        rota.tell(f"{day}T09:06", "clock.in")
        rota.tell(f"{day}T17:00", "clock.out")
    rota.tick("2026-10-27T00:00")
    assert rota.figure("late_ms", "day", "2026-10-23") == 360_000
    assert rota.figure("late_ms", "day", "2026-10-26") == 360_000


# --- order, batches, restarts -----------------------------------------------------------------------------------------


def a_month_of_everything(rota: Rota) -> list[Envelope]:
    """Three agents' August with something of everything; every event is independent of the others."""
    found: list[Envelope] = []

    def add(when: str, tag: str, agent: str = "a-1", **fields: Any) -> None:
        found.append(rota.event(when, tag, agent, **fields))

    for agent in ("a-1", "a-2"):
        for number in range(3, 15):
            day = f"2026-08-{number:02}"
            shift_id = f"{agent}-{number}"
            add("2026-08-02T12:00", "shift.scheduled", agent, **rota.hours(day, "09:00", "18:00", shift_id))
            named = shift_id if number % 2 else ""
            came = {4: "09:20", 7: "09:40", 9: "11:30", 11: "09:15"}.get(number, "08:55")
            if number not in (6, 13):
                add(f"{day}T{came}", "clock.in", agent, shift_id=named)
            if number not in (6, 12):
                add(f"{day}T{'17:30' if number == 8 else '18:01'}", "clock.out", agent, shift_id=named)
            if number != 10:
                add(f"{day}T08:58", "agent.logged_in", agent)
                add(f"{day}T18:00:30", "agent.logged_out", agent)
        add("2026-08-08T20:00", "exemption.granted", agent, exemption_id=f"x-{agent}", incident=f"{agent}-7")
        add("2026-08-14T20:00", "clock.corrected", agent, correction_id="c", shift_id=f"{agent}-12", punch="out",
            clocked_at=at("2026-08-12T18:00"))  # fmt: skip
    add(
        "2026-08-02T12:00",
        "hours.assigned",
        "a-3",
        hours_id="h",
        first_day="2026-08-03",
        starts="09:00",
        ends="18:00",
    )
    add(
        "2026-08-11T12:00",
        "hours.assigned",
        "a-3",
        hours_id="i",
        first_day="2026-08-12",
        starts="10:00",
        ends="19:00",
    )
    for number in range(3, 15):
        add(f"2026-08-{number:02}T09:04", "clock.in", "a-3")
        add(f"2026-08-{number:02}T18:02", "clock.out", "a-3")
    half = leave("annual", "2026-08-14", half_day=True, half="second")
    add("2026-08-13T09:00", "leave.approved", "a-3", **half)
    add(
        "2026-08-04T20:00", "shift.swapped", shift_id="a-1-14", with_agent="a-2", taken_id="a-2-99",
        taken_day="2026-08-15", taken_starts_at=at("2026-08-15T09:00"), taken_ends_at=at("2026-08-15T18:00"),
    )  # fmt: skip
    add("2026-08-05T09:00", "leave.requested", **leave("personal", "2026-08-05", "2026-08-06"))
    add("2026-08-07T09:00", "leave.approved", **leave("personal", "2026-08-05", "2026-08-06"))
    add("2026-08-13T09:00", "leave.approved", "a-2", **leave("personal", "2026-08-12", "2026-08-14", "m"))
    add("2026-08-09T22:00", "shift.changed", **rota.hours("2026-08-10", "10:00", "19:00", "a-1-10"))
    add(
        "2026-08-11T22:00",
        "shift.changed",
        **rota.hours("2026-08-11", "09:00", "18:00", "a-1-11"),
        cancelled=True,
    )
    return found


def summary(rota: Rota) -> tuple[Any, ...]:
    """What stands in the end: counts of every kind, and what each incident comes to."""
    found = rota.replay.metrics()
    figures = {
        (one.metric, one.level, one.subject, one.window, one.period): (one.value, one.numerator)
        for one in found
        if one.value
    }
    return figures, rota.points()


def in_order(pack: Pack, events: list[Envelope]) -> Rota:
    rota = Rota(pack)
    rota.tick("2026-08-02T12:00")
    for event in sorted(events, key=lambda one: one.time):
        rota.replay.tick(event.time)
        rota.replay.feed(event)
    rota.tick("2026-09-05T00:00")
    return rota


def test_the_month_of_everything_shows_every_outcome(pack: Pack) -> None:
    rota = in_order(pack, a_month_of_everything(Rota(pack)))
    missing = {"full_month"}  # nobody is full in it
    assert set(rota.outcomes("month", "2026-08")) | set(rota.outcomes("month", "2026-08", "a-2")) == {
        "not_in", "not_logged_in", "late", "early_leave", "absent", "required", "attended", "leave", "full_day",
    } - missing  # fmt: skip
    assert rota.rejects() == []


@settings(max_examples=15, deadline=None)
@given(chosen=st.integers(0, 1 << 32))
def test_the_order_in_which_events_arrive_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, chosen: int
) -> None:
    pack = _pack_of_the_session(tmp_path_factory)
    expected = _expected(pack)
    events = a_month_of_everything(Rota(pack))
    draw = random.Random(chosen)
    rota = Rota(pack)
    # Ticks in between, so that much is noticed before the events that explain it come.
    rota.tick("2026-08-15T00:00")
    draw.shuffle(events)
    for number, event in enumerate(events):
        rota.replay.feed(event)
        if number % 20 == 0:
            rota.replay.tick(at_ms("2026-08-15T00:00") + number * 3_600_000)
    rota.tick("2026-09-05T00:00")
    assert rota.rejects() == []
    assert summary(rota) == expected


_KEPT: dict[str, Any] = {}


def _pack_of_the_session(factory: pytest.TempPathFactory) -> Pack:
    if "pack" not in _KEPT:
        _KEPT["pack"] = attendance_pack(factory.mktemp("ordered"))
    found: Pack = _KEPT["pack"]
    return found


def _expected(pack: Pack) -> tuple[Any, ...]:
    if "summary" not in _KEPT:
        _KEPT["summary"] = summary(in_order(pack, a_month_of_everything(Rota(pack))))
    found: tuple[Any, ...] = _KEPT["summary"]
    return found


def timed(pack: Pack) -> list[Timed]:
    """The month of everything with its ticks, in an order that makes much of it late."""
    draw = random.Random(seed())
    events = a_month_of_everything(Rota(pack))
    log: list[Timed] = [("tick", at_ms("2026-08-02T12:00"))]
    arrivals = sorted(
        (one.time.timestamp() + draw.choice((0, 0, 0, 7_200, 400_000)), one.id, one) for one in events
    )
    now_ms = at_ms("2026-08-02T12:00")
    for arrives, _, event in arrivals:
        while now_ms + 1_800_000 < arrives * 1000:
            now_ms += 1_800_000
            log.append(("tick", now_ms))
        log.append(("tick", int(arrives) * 1000))
        log.append(("event", event))
    log += [("tick", now_ms + step * 3_600_000) for step in range(1, 24 * 100)]
    return log


def test_batches_and_restarts_change_nothing(pack: Pack) -> None:
    (records,) = records_of(timed(pack))

    def make() -> PartitionEngine:
        return PartitionEngine((pack,), zones=Zones(default="Asia/Shanghai"))

    whole, _ = run_engine(make, records)
    draw = random.Random(seed())
    assert any(one.topic == "decisions" for one in whole)
    batched, _ = run_engine(make, records, sizes=lambda: draw.randrange(1, 40))
    assert batched == whole
    restarted, engine = run_engine(
        make,
        records,
        sizes=lambda: draw.randrange(1, 200),
        restart=lambda: draw.random() < 0.1,
        save_often=lambda: draw.random() < 0.3,
    )
    assert restarted == whole
    assert engine.attending.files["a-1"].months["2026-08"].verdicts == {"small": "broken"}


def test_who_shares_a_partition_makes_no_difference() -> None:
    """Also when the clock jumps over a day on which a colleague is at work, or nobody is."""
    (full_attendance,) = load_packs(["full-attendance"], RULES)

    def told(colleague: bool) -> list[tuple[str, str, str]]:
        rota = Rota(full_attendance)
        rota.tick(f"{DAY}T07:00")
        rota.shift(DAY, when=f"{DAY}T07:00")
        if colleague:
            rota.tell(f"{DAY}T08:00", "agent.logged_in", agent="a-2")
        rota.tick(f"{DAY}T08:30")
        rota.tick(f"{DAY}T23:00")
        rota.replay.finish()
        found = rota.replay.decision_list()
        return [(one.rule, one.points, one.at) for one in found if one.subject == "a-1"]

    assert told(colleague=True) == told(colleague=False)
    assert ("fa-attendance-low", "-5", "2026-08-03T18:15:00+08:00") in told(colleague=False)


def test_what_is_forgotten_is_forgotten_for_good_and_the_streak_is_not(pack: Pack) -> None:
    rota = Rota(pack)
    rota.tick("2026-01-04T00:00")
    month_of(rota, "2026-01", (5, 6))
    month_of(rota, "2026-02", (3,))
    rota.tick("2026-06-01T00:00")
    attending = rota.replay.engines[0].attending
    file = attending.files["a-1"]
    assert (file.days, file.book.shifts, sorted(file.months)) == ({}, {}, ["2026-01", "2026-02"])
    month_of(rota, "2026-06", (3,))
    rota.tick("2026-07-01T00:00")
    assert rota.points()["2026-06"] == 3
    rota.tick("2028-01-01T00:00")
    assert attending.files == {}


def test_leave_of_forgotten_months_still_counts_against_the_quota(pack: Pack) -> None:
    rota = Rota(pack)
    rota.tick("2026-01-04T00:00")
    for day in ("2026-01-05", "2026-01-06"):
        rota.shift(day, when="2026-01-04T00:00")
    rota.late("2026-01-04T00:00", "leave.approved", **leave("personal", "2026-01-05", "2026-01-06"))
    rota.tick("2026-08-02T12:00")
    rota.shift(DAY, when="2026-08-02T12:00")
    rota.late("2026-08-02T12:00", "leave.approved", **leave("personal", DAY, leave_id="m"))
    rota.tick("2026-08-04T00:00")
    assert rota.figure("over_quota", "day", DAY) == 1


# --- what is refused, and what costs nothing --------------------------------------------------------------------------


def planned(
    day: str = DAY, starts: str = f"{DAY}T09:00", ends: str = f"{DAY}T18:00", **more: Any
) -> dict[str, Any]:
    return {"shift_id": "s", "day": day, "starts_at": at(starts), "ends_at": at(ends), **more}


@pytest.mark.parametrize(
    ("tag", "fields"),
    [
        ("shift.scheduled", planned(day="2026-02-30")),
        ("shift.scheduled", planned(starts=f"{DAY}T18:00", ends=f"{DAY}T09:00")),
        ("shift.changed", planned(ends="2026-08-04T09:01")),
        ("shift.scheduled", planned(agent="", subject="a-1")),
        ("shift.swapped", {"shift_id": "s", "taken_id": "t"}),
        ("leave.approved", leave("sick", "2026-08-05", "2026-08-04")),
        ("leave.approved", leave("sick", "2026-08-05", "2028-08-04")),
        ("shift.scheduled", planned(starts="2299-08-03T09:00", ends="2299-08-03T18:00")),
        ("clock.in", {"shift_id": "s\x1ft"}),
        (
            "clock.corrected",
            {"correction_id": "c", "shift_id": "s", "punch": "in", "clocked_at": at("2299-01-01T00:00")},
        ),
        ("exemption.granted", {"exemption_id": "x", "incident": "s\x1ft"}),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_counted(
    rota: Rota, tag: str, fields: dict[str, Any]
) -> None:
    rota.late("2026-08-02T12:00", tag, **fields)
    assert rota.rejects() == ["invalid"]
    assert rota.replay.engines[0].attending.files == {}


@pytest.mark.parametrize(
    ("bound", "tell", "code"),
    [
        (MAX_SHIFTS, lambda rota, n: rota.late("2026-08-02T12:00", "clock.in", shift_id=f"s-{n}"), "too_many_shifts"),
        (
            MAX_LEAVES,
            lambda rota, n: rota.late("2026-08-02T12:00", "leave.requested", **leave("sick", DAY, leave_id=f"l-{n}")),
            "too_many_leaves",
        ),
    ],
)  # fmt: skip
def test_there_is_a_bound_on_what_is_kept_of_an_agent(
    rota: Rota, bound: int, tell: Callable[[Rota, int], None], code: str
) -> None:
    for number in range(bound + 1):
        tell(rota, number)
    assert rota.rejects() == [code]


def test_without_a_pack_that_judges_it_attendance_costs_nothing() -> None:
    replay = Replay(load_packs(["contact-centre"], RULES))
    assert isinstance(replay.engines[0].attending, Attending)
    assert replay.engines[0].attending.tags == frozenset()
    engine = replay.engines[0]
    assert not [plan.tag for plan in engine.plans.values() if plan.tag == "clock.in" and plan.more]
