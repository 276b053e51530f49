"""The public calendar of working days: holidays, and weekends that are worked in exchange for them (调休).

A calendar is a plain table, made outside the core (``kaohe.packs.holidays``) from a library that follows the yearly
announcements, and from what a folder of packs says itself. The announcement for a year comes in the autumn before it.
For a year that the table does not know, Monday to Friday are working days and there are no holidays; ``knows`` tells
the difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Literal

import msgspec

DayKind = Literal["workday", "rest", "holiday", "makeup"]
"""``rest`` is a weekend, ``holiday`` a day off for a public holiday, ``makeup`` a weekend day worked for one."""
MAX_SPAN_DAYS = 3_660
"""The longest span in which working days are counted: ten years."""


class WorkCalendar(msgspec.Struct, frozen=True):
    """Which days are worked in a country in the years that are announced; no ``years``: in every year."""

    name: str
    years: frozenset[int]
    holidays: frozenset[date]
    makeups: frozenset[date]

    def knows(self, day: date) -> bool:
        """Whether the table holds the announcement for the day's year."""
        return not self.years or day.year in self.years

    def with_year(self, year: int, holidays: Iterable[date], makeups: Iterable[date]) -> WorkCalendar:
        """The calendar with these days for a year, in place of what it says of it."""

        def replaced(known: frozenset[date], days: Iterable[date]) -> frozenset[date]:
            return frozenset(day for day in known if day.year != year).union(days)

        years = self.years | {year} if self.years else self.years
        return WorkCalendar(
            self.name, years, replaced(self.holidays, holidays), replaced(self.makeups, makeups)
        )

    def kind(self, day: date) -> DayKind:
        """What sort of day it is."""
        if day in self.holidays:
            return "holiday"
        if day in self.makeups:
            return "makeup"
        return "rest" if day.weekday() >= 5 else "workday"

    def is_workday(self, day: date) -> bool:
        """Whether the day is worked."""
        return self.kind(day) in ("workday", "makeup")

    def workdays(self, first: date, last: date) -> int:
        """How many working days lie between two days, both included; 0 when ``last`` is before ``first``."""
        span = (last - first).days + 1
        assert span <= MAX_SPAN_DAYS, (first, last)
        return sum(self.is_workday(first + timedelta(days=number)) for number in range(max(0, span)))

    def add_workdays(self, day: date, number: int) -> date:
        """The day on which the ``number``-th working day after ``day`` falls; ``day`` itself for 0."""
        assert 0 <= number <= MAX_SPAN_DAYS // 4, number
        left = number
        while left:
            day += timedelta(days=1)
            left -= self.is_workday(day)
        return day


WEEKDAYS = WorkCalendar("weekdays", frozenset(), frozenset(), frozenset())
"""Monday to Friday, and no holidays."""
