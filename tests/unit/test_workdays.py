"""The public calendar: holidays, swapped workdays, and counting in working days."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from kaohe.core.model import Pack
from kaohe.core.workdays import WEEKDAYS
from kaohe.packs.holidays import CALENDARS, FILE, unknown_years, work_calendar, work_calendars
from kaohe.packs.load import load_pack
from kaohe.packs.source import Problems

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
    after = date(max(CHINA.years) + 1, 10, 1)
    assert not CHINA.knows(after)
    assert CHINA.kind(after) == ("rest" if after.weekday() >= 5 else "workday")


def test_every_calendar_that_a_pack_may_name_is_there() -> None:
    assert [work_calendar(name).name for name in CALENDARS] == list(CALENDARS)


# --- the file beside the packs ----------------------------------------------------------------------------------------

ANNOUNCED = """
china:
  2033:
    source: the announcement for 2033
    holidays: [2033-01-01, 2033-01-31..2033-02-02]
    makeups: [2033-02-05]
weekdays:
  2026:
    source: the holidays of Portugal
    holidays: [2026-04-25, 2026-06-10]
"""


def written(folder: Path, text: str) -> tuple[Path, Problems]:
    file = folder / FILE
    file.write_text(text, encoding="utf-8")
    return file, Problems()


def test_a_file_beside_the_packs_says_what_the_library_does_not_know(tmp_path: Path) -> None:
    file, problems = written(tmp_path, ANNOUNCED)
    calendars = work_calendars(file, problems)
    assert problems.errors == []
    china, weekdays = calendars["china"], calendars["weekdays"]
    assert china.knows(date(2033, 1, 1))
    assert [china.kind(date(2033, 2, day)) for day in (1, 2, 3, 5, 6)] == [
        "holiday", "holiday", "workday", "makeup", "rest",
    ]  # fmt: skip
    assert china.kind(date(2026, 2, 16)) == "holiday", "other years are the library's"
    assert weekdays.kind(date(2026, 6, 10)) == "holiday"
    assert weekdays.knows(date(1999, 6, 10)), "weekdays are what they are in every year"
    assert not CHINA.knows(date(2033, 1, 1)), "the shared table stays as it was"


def test_the_file_holds_in_place_of_the_library_for_a_whole_year(tmp_path: Path) -> None:
    file, problems = written(tmp_path, "china: {2026: {source: a correction, holidays: [2026-01-02]}}")
    china = work_calendars(file, problems)["china"]
    assert china.kind(date(2026, 1, 2)) == "holiday"
    assert china.kind(date(2026, 2, 16)) == "workday"
    assert china.kind(date(2026, 2, 14)) == "rest"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("chna: {2033: {source: s, holidays: [2033-01-01]}}", "1:1 (chna): holidays.yaml has no key 'chna'"),
        ("china: [2033-01-01]", "is no mapping"),
        ("china: {33: {source: s, holidays: [2033-01-01]}}", "'33' is not a year"),
        ("china: {2033: {holidays: [2033-01-01]}}", "a year of a calendar lacks 'source'"),
        ("china: {2033: {source: s}}", "a year of a calendar lacks 'holidays'"),
        ("china: {2033: {source: s, holidays: [2034-01-01]}}", "2034-01-01 is not of 2033"),
        ("china: {2033: {source: s, holidays: [2033-13-01]}}", "'2033-13-01' is no day and no span"),
        ("china: {2033: {source: s, holidays: [2033-02-03..2033-02-01]}}", "is no span of 1 to 31 days"),
        ("china: {2033: {source: s, holidays: [2033-02-01..2033-02-03, 2033-02-03]}}", "stands there twice"),
        ("china: {2033: {source: s, holidays: [2033-01-01], makeups: [2033-02-03]}}", "2033-02-03 is no Saturday"),
        ("china: {2033: {source: s, holidays: [2033-01-01], makeups: [2033-01-01]}}", "is a holiday too"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_and_its_year_left_out(text: str, told: str, tmp_path: Path) -> None:
    file, problems = written(tmp_path, text)
    calendars = work_calendars(file, problems)
    assert len(problems.errors) == 1
    assert told in str(problems.errors[0])
    assert str(problems.errors[0]).startswith(f"{file}:1:")
    assert calendars["china"] == CHINA


def test_a_pack_reads_the_file_beside_it_and_a_draft_that_of_the_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Path(__file__).parents[2] / "rules"
    for name in ("full-attendance", "reception"):
        shutil.copytree(rules / name, tmp_path / "rules" / name)
    shutil.copytree(rules / "full-attendance", tmp_path / "drafts" / "full-attendance")
    written(tmp_path / "rules", ANNOUNCED)
    monkeypatch.setenv("KAOHE_RULES", str(tmp_path / "rules"))
    assert kind_of(load_pack(tmp_path / "rules" / "full-attendance"), date(2033, 2, 1)) == "holiday"
    assert kind_of(load_pack(tmp_path / "drafts" / "full-attendance"), date(2033, 2, 1)) == "holiday"


def kind_of(pack: Pack, day: date) -> str:
    assert pack.attendance is not None
    return pack.attendance.calendar.kind(day)


def test_a_year_that_nobody_announced_is_told_before_it_begins() -> None:
    pack = load_pack(Path(__file__).parents[2] / "rules" / "full-attendance")
    last = max(CHINA.years)
    assert unknown_years([pack], date(last, 11, 30)) == []
    (told,) = unknown_years([pack], date(last, 12, 1))
    assert f"the public holidays of {last + 1} are not known, so full-attendance will take" in str(told)
    assert len(unknown_years([pack], date(last + 1, 12, 1))) == 2
