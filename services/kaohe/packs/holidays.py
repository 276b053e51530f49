"""The public calendars that a pack can name, as plain tables for the core.

The Chinese one is taken from ``chinesecalendar``, which carries the State Council's yearly announcements: days off, and
the weekends that are worked in exchange (调休).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from chinese_calendar import constants

from kaohe.core.workdays import WEEKDAYS, WorkCalendar


def _china() -> WorkCalendar:
    years = [day.year for day in constants.holidays]
    return WorkCalendar(
        "china", min(years), max(years), frozenset(constants.holidays), frozenset(constants.workdays)
    )


_MAKERS: dict[str, Callable[[], WorkCalendar]] = {"china": _china, "weekdays": lambda: WEEKDAYS}
CALENDARS = tuple(_MAKERS)
"""The names that a pack may give."""


@lru_cache(maxsize=len(CALENDARS))
def work_calendar(name: str) -> WorkCalendar:
    """The public calendar of this name, one of ``CALENDARS``."""
    return _MAKERS[name]()
