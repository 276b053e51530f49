"""The public calendar: holidays, swapped workdays, and counting in working days."""

from __future__ import annotations

from datetime import date

import pytest

from kaohe.core.workdays import WEEKDAYS
from kaohe.packs.holidays import CALENDARS, work_calendar

CHINA = work_calendar("china")


@pytest.mark.parametrize(
    ("day", "kind"),
    [
        ("2026-02-14", "makeup"),  # a Saturday worked for the Spring Festival
        ("2026-02-16", "holiday"),  # New Year's Eve by the lunar calendar, a Monday
        ("2026-02-23", "holiday"),
        ("2026-02-24", "workday"),
        ("2026-02-28", "makeup"),
        ("2026-09-20", "makeup"),  # a Sunday worked for the National Day
        ("2026-10-03", "holiday"),  # a Saturday inside the National Day holiday
        ("2026-10-08", "workday"),
        ("2026-10-10", "makeup"),
        ("2026-10-11", "rest"),
        ("2025-10-08", "holiday"),  # the eighth day, when the Mid-Autumn Festival falls into the National Day
    ],
)
def test_a_day_of_the_chinese_calendar_is_what_the_state_council_announced(day: str, kind: str) -> None:
    assert CHINA.kind(date.fromisoformat(day)) == kind


def test_the_working_days_of_2026_are_those_of_the_announcement() -> None:
    # 365 days, 104 of them at weekends; 33 days off, of which 14 fall on weekends, and 6 weekend days are worked.
    assert CHINA.workdays(date(2026, 1, 1), date(2026, 12, 31)) == 365 - 104 - (33 - 14) + 6 == 248
    assert WEEKDAYS.workdays(date(2026, 1, 1), date(2026, 12, 31)) == 261


def test_a_term_in_working_days_passes_over_the_holiday_and_counts_the_swapped_day() -> None:
    # From Wednesday: 8, 9 and the swapped Saturday 10 October follow; then Monday 12.
    assert CHINA.add_workdays(date(2026, 9, 30), 3) == date(2026, 10, 10)
    assert CHINA.add_workdays(date(2026, 9, 30), 4) == date(2026, 10, 12)
    assert CHINA.add_workdays(date(2026, 9, 30), 0) == date(2026, 9, 30)
    assert CHINA.workdays(date(2026, 10, 1), date(2026, 10, 7)) == 0
    assert CHINA.workdays(date(2026, 10, 2), date(2026, 10, 1)) == 0


def test_a_year_that_is_not_announced_yet_has_its_weekends_only() -> None:
    assert CHINA.knows(date(2026, 12, 31))
    assert not CHINA.knows(date(CHINA.last_year + 1, 10, 1))
    after = date(CHINA.last_year + 1, 10, 1)
    assert CHINA.kind(after) == ("rest" if after.weekday() >= 5 else "workday")


def test_every_calendar_that_a_pack_may_name_is_there() -> None:
    assert [work_calendar(name).name for name in CALENDARS] == list(CALENDARS)
