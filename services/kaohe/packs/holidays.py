"""The public calendars that a pack can name, as plain tables for the core.

Theory of operation. The Chinese calendar is taken from ``chinesecalendar``, which carries the State Council's yearly
announcements: days off, and the weekends that are worked in exchange (调休). An announcement comes in the autumn before
its year, the library some time after it, and other countries have holidays too. So a folder of packs may have a file
``holidays.yaml`` beside its packs, which says whole years of a calendar::

    china:
      2027:
        source: the announcement these days are taken from
        holidays: [2027-01-01, 2027-02-05..2027-02-11]
        makeups: [2027-02-14]

What it says of a year holds in place of what the library says. All packs of the folder share it: whether a day was
worked must not depend on who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from functools import lru_cache, partial
from pathlib import Path

from chinese_calendar import constants

from kaohe.core.model import Pack
from kaohe.core.workdays import WEEKDAYS, WorkCalendar
from kaohe.errors import PackError, Place
from kaohe.packs.source import Fields, Node, Problems, read_yaml, rules_dir, scalar

FILE = "holidays.yaml"
YEARS = range(2000, 2101)
SPAN_DAYS_MAX = 31
"""The longest holiday that may be written as first and last day."""
RANGES_MAX = 60
SOURCE_MAX = 300
_NO_DAYS: tuple[date, ...] = ()
NEXT_YEAR_MONTH = 12
"""From this month on a calendar should know the next year too."""


def _china() -> WorkCalendar:
    years = frozenset(day.year for day in constants.holidays)
    return WorkCalendar("china", years, frozenset(constants.holidays), frozenset(constants.workdays))


_MAKERS: dict[str, Callable[[], WorkCalendar]] = {"china": _china, "weekdays": lambda: WEEKDAYS}
CALENDARS = tuple(_MAKERS)
"""The names that a pack may give."""


@lru_cache(maxsize=len(CALENDARS))
def work_calendar(name: str) -> WorkCalendar:
    """The public calendar of this name, one of ``CALENDARS``, as the library has it."""
    return _MAKERS[name]()


def work_calendars(file: Path, problems: Problems) -> Mapping[str, WorkCalendar]:
    """Every calendar by its name, with the years that ``file`` says, if there is such a file.

    Mistakes are noted; a year with a mistake stays as the library has it.
    """
    found = {name: work_calendar(name) for name in CALENDARS}
    if not file.is_file():
        return found
    try:
        root = read_yaml(file, problems)
    except PackError as error:
        problems.add(error)
        return found
    if root is None:
        return found
    calendars = Fields(root, problems, CALENDARS, FILE)
    for name in CALENDARS:
        if name in calendars:
            found[name] = _with_years(found[name], calendars.at(name), problems)
    return found


def holidays_file(folder: Path | str) -> Path:
    """What says the holidays for the pack in ``folder``: the file beside it, else (for a draft) beside all others."""
    beside = Path(folder).resolve().parent / FILE
    return beside if beside.is_file() else rules_dir() / FILE


def _with_years(known: WorkCalendar, node: Node, problems: Problems) -> WorkCalendar:
    """A calendar with the years that a mapping of years says."""
    if node.kind != "mapping":
        problems.attempt(
            lambda one: one.fail(f"{one.shown} is no mapping", "write years, such as 2027:"), node
        )
    for key, year_node in node.entries.values():
        year = problems.attempt(_year, key)
        if year is None:
            continue
        fields = Fields(year_node, problems, ("source", "holidays", "makeups"), "a year of a calendar")
        fields.need("source", _source, "")
        holidays = fields.need("holidays", partial(_days, year=year), _NO_DAYS)
        makeups = fields.take("makeups", partial(_makeups, year=year), _NO_DAYS)
        both = sorted({*holidays} & {*makeups})
        if both:
            fields.wrong("makeups", f"{both[0]} is a holiday too", "take it out of one of both")
        if fields.ok():
            known = known.with_year(year, holidays, makeups)
    return known


def _year(node: Node) -> int:
    text = scalar(node)
    if not text.isdecimal() or int(text) not in YEARS:
        node.fail(f"{text!r} is not a year", f"write one from {YEARS[0]} to {YEARS[-1]}")
    return int(text)


def _source(node: Node) -> str:
    text = scalar(node)
    if not text or len(text) > SOURCE_MAX:
        node.fail("the source is empty or too long", f"say in up to {SOURCE_MAX} characters who announced it")
    return text


def _days(node: Node, year: int) -> tuple[date, ...]:
    """Days of a year, each written alone or as first and last day of a span (``2027-02-05..2027-02-11``)."""
    found: list[date] = []
    parts = node.items if node.kind == "list" else [node]
    if len(parts) > RANGES_MAX:
        node.fail(f"there are {len(parts)} days and spans", f"write at most {RANGES_MAX}, with .. for spans")
    for one in parts:
        first, last = _span(one)
        if first.year != year or last.year != year:
            one.fail(f"{one.text} is not of {year}", "write it under its own year")
        span = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        twice = sorted({*span} & {*found})
        if twice:
            one.fail(f"{twice[0]} stands there twice", "write every day once")
        found += span
    return tuple(found)


def _span(node: Node) -> tuple[date, date]:
    first_text, dots, last_text = scalar(node).partition("..")
    try:
        first = date.fromisoformat(first_text.strip())
        last = date.fromisoformat(last_text.strip()) if dots else first
    except ValueError:
        node.fail(f"{node.shown} is no day and no span", "write 2027-01-01, or 2027-02-05..2027-02-11")
    if not 0 <= (last - first).days < SPAN_DAYS_MAX:
        node.fail(
            f"{node.text} is no span of 1 to {SPAN_DAYS_MAX} days", "write the first day before the last"
        )
    return first, last


def _makeups(node: Node, year: int) -> tuple[date, ...]:
    """Weekend days that are worked."""
    found = _days(node, year)
    for one in found:
        if one.weekday() < 5:
            node.fail(
                f"{one} is no Saturday or Sunday", "name weekend days that are worked; others are anyway"
            )
    return found


def unknown_years(packs: Iterable[Pack], today: date) -> list[PackError]:
    """A warning for each year that a calendar does not know and in which somebody is judged now, or soon."""
    years = [today.year, today.year + 1] if today.month >= NEXT_YEAR_MONTH else [today.year]
    asking: dict[tuple[str, int, str], set[str]] = {}
    for pack in packs:
        parts = (pack.attendance, pack.appeals, pack.pay)
        for calendar in [part.calendar for part in parts if part is not None and part.calendar is not None]:
            for year in [year for year in years if not calendar.knows(date(year, 1, 1))]:
                asking.setdefault((calendar.name, year, str(holidays_file(pack.folder))), set()).add(
                    pack.name
                )
    return [
        PackError(
            Place(file), name, f"the public holidays of {year} are not known, so {', '.join(sorted(names))} will "
            "take every Monday to Friday for a working day", f"write there what was announced for {year}",
        )
        for (name, year, file), names in sorted(asking.items())
    ]  # fmt: skip
