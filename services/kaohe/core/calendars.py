"""Calendar periods in a site's time zone: which day, week, month, quarter and year a moment belongs to.

Moments are whole milliseconds since the Unix epoch. A period is named by its label (``2026-08-03``, ``2026-W32``,
``2026-08``, ``2026-Q3``, ``2026``); weeks are those of ISO 8601. Every zone in use keeps offsets that are whole
quarter hours, so the periods of one quarter hour are the same for all its moments: that is what is remembered, and it
makes the common question a look-up in a dictionary.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from kaohe.errors import EventError, UsageError

QUARTER_HOUR_MS = 900_000
DAY_MS = 86_400_000
REMEMBERED_QUARTER_HOURS = 20_000
"""Bound of the memory per zone: 208 days. It is emptied when full."""
REMEMBERED_PERIODS = 4_096
REMEMBERED_DAYS = 1_024
REMEMBERED_TEXTS = 4_096
"""How many moments are remembered as text: most of what goes out is about the same few minutes."""

MOMENT_MAX_MS = 7_258_118_400_000
"""The year 2200. A moment beyond it (or before 1970) is a mistake, and calendars have an end."""

WINDOWS = ("day", "week", "month", "quarter", "year")
_POSITIONS = {window: position for position, window in enumerate(WINDOWS)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Period(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """A calendar period: from ``start_ms`` (inside) to ``end_ms`` (outside).

    Counts, entries and what waits are found by their periods, so a period remembers its hash.
    """

    window: str
    label: str
    start_ms: int
    end_ms: int


class Calendar:
    """The periods of one time zone."""

    def __init__(self, zone: str) -> None:
        try:
            self.zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageError(
                f"unknown time zone {zone!r}; name one of the IANA data base, such as Asia/Shanghai"
            ) from None
        self.name = zone
        self._remembered: dict[int, tuple[Period, ...]] = {}
        self._days: dict[int, date] = {}
        self._period = lru_cache(maxsize=REMEMBERED_PERIODS)(self._make_period)
        self._of_day = lru_cache(maxsize=REMEMBERED_DAYS)(self._periods_of)
        self._text = lru_cache(maxsize=REMEMBERED_TEXTS)(self._make_text)

    def periods(self, moment_ms: int) -> tuple[Period, ...]:
        """The day, week, month, quarter and year of a moment, in that order."""
        key = moment_ms // QUARTER_HOUR_MS
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= REMEMBERED_QUARTER_HOURS:
                self._remembered.clear()
            found = self._remembered[key] = self._of_day(self.day(moment_ms))
        return found

    def _periods_of(self, day: date) -> tuple[Period, ...]:
        """The periods of a day: one tuple for all of its moments, so that most who ask can tell by identity."""
        return tuple([self.period(window, label_of(window, day)) for window in WINDOWS])

    def containing(self, window: str, moment_ms: int) -> Period:
        """The period of kind ``window`` that a moment belongs to."""
        return self.periods(moment_ms)[_POSITIONS[window]]

    def previous(self, period: Period) -> Period:
        """The period just before ``period``."""
        return self.containing(period.window, period.start_ms - 1)

    def following(self, period: Period) -> Period:
        """The period just after ``period``."""
        return self.containing(period.window, period.end_ms)

    def period(self, window: str, label: str) -> Period:
        """The period with this label; UsageError when the label is none."""
        return self._period(window, label)

    def _make_period(self, window: str, label: str) -> Period:
        first, after = bounds_of(window, label)
        return Period(window, label, self.start_ms(first), self.start_ms(after))

    def day(self, moment_ms: int) -> date:
        """The calendar day of a moment in this zone."""
        key = moment_ms // QUARTER_HOUR_MS
        found = self._days.get(key)
        if found is None:
            if len(self._days) >= REMEMBERED_QUARTER_HOURS:
                self._days.clear()
            found = self._days[key] = datetime.fromtimestamp(moment_ms // 1000, self.zone).date()
        return found

    def text(self, moment_ms: int) -> str:
        """A moment as RFC 3339 with this zone's offset, to the millisecond where there are any."""
        return self._text(moment_ms)

    def _make_text(self, moment_ms: int) -> str:
        moment = (EPOCH + timedelta(milliseconds=moment_ms)).astimezone(self.zone)
        return moment.isoformat(timespec="milliseconds" if moment_ms % 1000 else "seconds")

    def start_ms(self, day: date) -> int:
        """The first moment of a day in this zone."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return int(midnight.timestamp()) * 1000


@lru_cache(maxsize=64)
def calendar(zone: str) -> Calendar:
    """The one calendar of a zone."""
    return Calendar(zone)


def label_of(window: str, day: date) -> str:
    """The label of the period of kind ``window`` that contains ``day``."""
    if window == "day":
        return day.isoformat()
    if window == "week":
        year, week, _ = day.isocalendar()
        return f"{year:04d}-W{week:02d}"
    if window == "month":
        return f"{day.year:04d}-{day.month:02d}"
    if window == "quarter":
        return f"{day.year:04d}-Q{(day.month + 2) // 3}"
    assert window == "year", window
    return f"{day.year:04d}"


_FORMS = {
    "day": re.compile(r"(\d{4})-(\d\d)-(\d\d)"),
    "week": re.compile(r"(\d{4})-W(\d\d)"),
    "month": re.compile(r"(\d{4})-(\d\d)"),
    "quarter": re.compile(r"(\d{4})-Q([1-4])"),
    "year": re.compile(r"(\d{4})"),
}


def window_of(label: str) -> str:
    """Which kind of period a label names, such as ``month`` for ``2026-08``; UsageError when it names none."""
    for window, form in _FORMS.items():
        if form.fullmatch(label) is not None:
            bounds_of(window, label)
            return window
    examples = ", ".join(label_of(window, date(2026, 8, 3)) for window in WINDOWS)
    raise UsageError(f"{label!r} is no period; periods look like {examples}")


def bounds_of(window: str, label: str) -> tuple[date, date]:
    """First day of a period and the first day after it; UsageError when ``label`` names no such period."""
    match = _FORMS[window].fullmatch(label)
    if match is not None:
        try:
            return _bounds(window, [int(group) for group in match.groups()])
        except (ValueError, OverflowError):
            pass
    example = label_of(window, date(2026, 8, 3))
    raise UsageError(f"{label!r} is no {window}; a {window} looks like {example}")


def _bounds(window: str, numbers: list[int]) -> tuple[date, date]:
    if window == "day":
        first = date(*numbers)
        return first, first + timedelta(days=1)
    if window == "week":
        first = date.fromisocalendar(numbers[0], numbers[1], 1)
        return first, first + timedelta(days=7)
    if window == "year":
        return date(numbers[0], 1, 1), date(numbers[0] + 1, 1, 1)
    month, length = (numbers[1], 1) if window == "month" else (3 * numbers[1] - 2, 3)
    over, after = divmod(month - 1 + length, 12)
    return date(numbers[0], month, 1), date(numbers[0] + over, after + 1, 1)


def to_ms(moment: datetime) -> int:
    """A moment as whole milliseconds since the epoch, rounded to the nearest (half of one upwards)."""
    since = moment - EPOCH
    return since.days * DAY_MS + since.seconds * 1000 + (since.microseconds + 500) // 1000


def is_day(text: str) -> bool:
    """Whether a text is a day (``2026-08-31``) that a calendar can carry."""
    try:
        return 1970 <= date.fromisoformat(text).year < 2200
    except ValueError:
        return False


def check_moment(moment_ms: int, path: str) -> None:
    """EventError for a moment that no calendar can carry; ``path`` says where in the event it stands."""
    if not 0 <= moment_ms < MOMENT_MAX_MS:
        raise EventError("invalid", f"{path} lies outside of the years 1970 to 2199")
