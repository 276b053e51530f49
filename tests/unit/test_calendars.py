"""Periods of a zone: every moment lies in exactly one of each kind, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaohe.core import calendars
from kaohe.core.calendars import WINDOWS, Calendar, bounds_of, calendar, label_of, to_ms
from kaohe.errors import UsageError

HOUR_MS = 3_600_000
ZONES = ("Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC")


def ms(text: str, zone: str) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("midnight", ["2026-09-01T00:00", "2027-01-01T00:00", "2028-03-01T00:00"])
def test_a_month_ends_at_local_midnight_to_the_millisecond(zone: str, midnight: str) -> None:
    edge = ms(midnight, zone)
    own = calendar(zone)
    before, after = own.containing("month", edge - 1), own.containing("month", edge)
    assert before.label == label_of("month", date.fromisoformat(midnight[:10]) - timedelta(days=1))
    assert after.label == midnight[:7]
    assert before.end_ms == after.start_ms == edge
    assert own.containing("month", edge - 1000) == before
    assert own.following(before) == after
    assert own.previous(after) == before


def test_days_of_clock_changes_have_23_and_25_hours() -> None:
    berlin = calendar("Europe/Berlin")
    lengths = {
        label: (berlin.period("day", label).end_ms - berlin.period("day", label).start_ms) // HOUR_MS
        for label in ("2026-03-28", "2026-03-29", "2026-03-30", "2026-10-25", "2026-10-26")
    }
    assert lengths == {
        "2026-03-28": 24, "2026-03-29": 23, "2026-03-30": 24, "2026-10-25": 25, "2026-10-26": 24,
    }  # fmt: skip
    both = [to_ms(datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert [berlin.text(moment) for moment in both] == [
        "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00",
    ]  # fmt: skip
    assert {berlin.containing("day", moment).label for moment in both} == {"2026-10-25"}


def test_weeks_are_those_of_iso_8601_over_the_end_of_a_year() -> None:
    shanghai = calendar("Asia/Shanghai")
    cases = {
        "2026-12-31T23:59:59": "2026-W53", "2027-01-03T23:59:59": "2026-W53", "2027-01-04T00:00:00": "2027-W01",
        "2024-12-30T00:00:00": "2025-W01", "2021-01-03T12:00:00": "2020-W53",
    }  # fmt: skip
    for moment, label in cases.items():
        assert shanghai.containing("week", ms(moment, "Asia/Shanghai")).label == label


def test_quarters_and_years_turn_together() -> None:
    shanghai = calendar("Asia/Shanghai")
    edge = ms("2027-01-01T00:00", "Asia/Shanghai")
    assert [one.label for one in shanghai.periods(edge - 1)] == [
        "2026-12-31", "2026-W53", "2026-12", "2026-Q4", "2026",
    ]  # fmt: skip
    assert [one.label for one in shanghai.periods(edge)] == [
        "2027-01-01",
        "2026-W53",
        "2027-01",
        "2027-Q1",
        "2027",
    ]


@given(st.sampled_from(ZONES), st.integers(0, 7_258_118_399_999))
def test_every_moment_lies_in_its_periods_and_labels_name_them(zone: str, moment_ms: int) -> None:
    own = calendar(zone)
    for window, period in zip(WINDOWS, own.periods(moment_ms), strict=True):
        assert period.window == window
        assert period.start_ms <= moment_ms < period.end_ms
        assert own.period(window, period.label) == period
        assert own.containing(window, period.end_ms).start_ms == period.end_ms
        assert label_of(window, own.day(moment_ms)) == period.label


@given(st.integers(0, 7_258_118_399_999))
def test_a_moment_in_words_is_the_same_moment(moment_ms: int) -> None:
    text = calendar("Asia/Shanghai").text(moment_ms)
    assert to_ms(datetime.fromisoformat(text)) == moment_ms
    assert ("." in text) == bool(moment_ms % 1000)


@pytest.mark.parametrize(
    ("window", "label"),
    [
        ("day", "2026-02-30"), ("day", "2026-2-3"), ("day", "9999-12-31"), ("week", "2026-W54"), ("week", "2026-32"),
        ("month", "2026-13"), ("month", "2026-8"), ("quarter", "2026-Q5"), ("year", "26"), ("year", "0000"),
        ("year", "9999"), ("month", "2026-08\n"),
    ],
)  # fmt: skip
def test_a_label_that_names_nothing_is_refused_with_an_example(window: str, label: str) -> None:
    with pytest.raises(UsageError) as caught:
        bounds_of(window, label)
    assert f"is no {window}; a {window} looks like {label_of(window, date(2026, 8, 3))}" in str(caught.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "asia"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(UsageError, match=r"unknown time zone .*; name one of the IANA data base"):
        Calendar(zone)


def test_the_memory_of_a_calendar_is_bounded_and_forgetting_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calendars, "REMEMBERED_QUARTER_HOURS", 10)
    own = Calendar("Europe/Berlin")
    moments = [quarter * 900_000 for quarter in range(100)]
    first = [own.periods(moment) for moment in moments]
    assert len(own._remembered) <= 10
    assert [own.periods(moment) for moment in moments] == first


def test_moments_are_rounded_to_the_nearest_millisecond() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 499, tzinfo=UTC)) == 1000
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 501, tzinfo=UTC)) == 1001
