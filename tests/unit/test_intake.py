"""What the compiled way of an event does itself says what the plain functions say."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kaohe import events
from kaohe.core.calendars import to_ms
from kaohe.core.intake import is_pseudonym, moment_ms

MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2300, 1, 1))  # noqa: DTZ001 - zones are drawn on their own


@given(MOMENTS, st.one_of(st.just(0), st.integers(-86_399, 86_399)))
def test_a_moment_is_the_same_in_milliseconds(naive: datetime, offset_s: int) -> None:
    zone = timezone(timedelta(seconds=offset_s)) if offset_s else UTC
    moment = naive.replace(tzinfo=zone)
    assert moment_ms(moment) == to_ms(moment)


def test_every_day_around_1970_2000_and_2100_is_the_same_in_milliseconds() -> None:
    day = datetime(1968, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)
    while day.year < 2102:
        assert moment_ms(day) == to_ms(day), day
        day += timedelta(days=1 if day.year in (1969, 1970, 1999, 2000, 2001, 2099, 2100, 2101) else 7)


def test_moments_of_events_take_the_straight_way() -> None:
    decoded = msgspec.json.decode(b'"2026-08-03T09:00:12.3456Z"', type=datetime)
    assert decoded.tzinfo is UTC
    assert moment_ms(decoded) == to_ms(decoded) == 1_785_747_612_346


@given(st.text("cC-0123456789abcdefgF\n", max_size=70))
def test_what_is_a_pseudonym_is_one(word: str) -> None:
    for one in (word, f"c-{word}", f"c-{word.lower().replace('g', '0')}"):
        assert is_pseudonym(one) == events.is_pseudonym(one), one


def test_lengths_of_pseudonyms_are_bounded_alike() -> None:
    digits = "".join(random.Random(1).choices("0123456789abcdef", k=70))
    for length in range(70):
        one = f"c-{digits[:length]}"
        assert is_pseudonym(one) == events.is_pseudonym(one) == (16 <= length <= 64), one
