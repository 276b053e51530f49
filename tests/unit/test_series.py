"""A subject's counts over time: rolling windows, calendar periods and the total are a plain sum over events."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kaohe.core.calendars import calendar
from kaohe.core.counts import DISTINCT_SLOT, MAX_SLOT, Cell, Series, span_ms, unpack_cell
from kaohe.core.subjects import load_cells, revive_period, store_cells, store_period
from tests.support.packs import at_ms, by_name

MINUTE_MS = 60_000
BUCKET_MS = 5 * MINUTE_MS
HOUR_MS = 60 * MINUTE_MS
START = at_ms("2026-07-31T22:00")
WATCHED = (0, MAX_SLOT)
"""What rules read of rolling windows; slot 1 and all others are read by displays only."""


def series(*spans_ms: int, zone: str = "Asia/Shanghai") -> Series:
    return Series(calendar(zone), BUCKET_MS, spans_ms, dict.fromkeys(spans_ms, WATCHED))


EVENTS = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 9)), max_size=60)
"""(minute after the start, amount)"""


@given(EVENTS, st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_windows_periods_and_total_are_plain_sums_whatever_the_order_of_arrival(
    events: list[tuple[int, int]], steps: list[int]
) -> None:
    own = series(15 * MINUTE_MS, HOUR_MS)
    arrived: list[tuple[int, int]] = []
    left = list(events)
    now_ms = START
    for step in steps:
        now_ms += step * BUCKET_MS
        for minute, amount in left[:3]:
            time_ms = min(START + minute * MINUTE_MS, now_ms - 1)
            for slot in (0, 1, MAX_SLOT, MAX_SLOT + 1):
                own.cell(time_ms).add(slot, amount)
            arrived.append((time_ms, amount))
        del left[:3]
        own.fold(now_ms)
        own.expire(now_ms)
        for span, rolling in own.rolling.items():
            inside = [
                amount for time_ms, amount in arrived if time_ms // BUCKET_MS * BUCKET_MS >= now_ms - span
            ]
            for slot in (0, 1):
                assert rolling.get(slot) == rolling.counts().get(slot, 0) == sum(inside)
            for slot in (MAX_SLOT, MAX_SLOT + 1):
                assert rolling.get(slot) == rolling.counts().get(slot, 0) == max(inside, default=0)
        for period in calendar("Asia/Shanghai").periods(now_ms - 1):
            inside = [amount for time_ms, amount in arrived if period.start_ms <= time_ms < period.end_ms]
            counts = own.period_counts(period)
            assert (counts.get(0, 0) if counts is not None else 0) == sum(inside)
            assert own.period_with_open(period).get(0, 0) == sum(inside)
        assert own.total_counts().get(0, 0) == sum(amount for _, amount in arrived)
    assert own.total.get(0, 0) == sum(amount for _, amount in arrived)
    for period, counts in own.periods.items():
        inside = [amount for time_ms, amount in arrived if period.start_ms <= time_ms < period.end_ms]
        assert counts[0] == sum(inside)


def test_a_cell_that_is_not_over_stays_open() -> None:
    own = series(HOUR_MS)
    own.cell(START).add(0, 1)
    own.cell(START + BUCKET_MS).add(0, 2)
    assert {period.label for period in own.fold(START + BUCKET_MS)} >= {"2026-07-31", "2026-07"}
    assert list(own.cells) == [(START + BUCKET_MS) // BUCKET_MS]
    assert own.total == {0: 1}


def test_an_empty_window_is_empty_and_counts_nothing() -> None:
    own = series(HOUR_MS)
    own.add(START, Cell({0: 5, 1: 2, MAX_SLOT: 7}), START + MINUTE_MS)
    own.add(START + MINUTE_MS, Cell({0: -5, MAX_SLOT: 7}), START + 2 * MINUTE_MS)
    rolling = own.rolling[HOUR_MS]
    assert (rolling.get(0), rolling.get(1), rolling.get(MAX_SLOT)) == (0, 2, 7)
    assert not rolling.expire(START + HOUR_MS)
    assert rolling.expire(START + HOUR_MS + 1)
    assert (rolling.get(0), rolling.get(1), rolling.get(MAX_SLOT)) == (-5, 0, 7)
    assert rolling.expire(START + MINUTE_MS + HOUR_MS + 1)
    own.expire(START + MINUTE_MS + HOUR_MS + 1)
    assert (rolling.cells, own.rolling_is_empty) == ([], True)
    assert (rolling.get(MAX_SLOT, None), rolling.get(1, None), rolling.get(0)) == (None, None, 0)


def test_a_late_cell_takes_its_place_and_leaves_on_time() -> None:
    own = series(15 * MINUTE_MS, HOUR_MS)
    for minute in (0, 30, 10):
        own.add(START + minute * MINUTE_MS, Cell({0: 1, DISTINCT_SLOT: {minute}}), START + 31 * MINUTE_MS)
    short, rolling = own.rolling.values()
    assert [start_ms - START for start_ms, _ in rolling.cells] == [0, 10 * MINUTE_MS, 30 * MINUTE_MS]
    assert rolling.get(DISTINCT_SLOT, set()) == {0, 10, 30}
    assert (rolling.get(0), short.get(0)) == (3, 1)
    own.expire(START + HOUR_MS + 11 * MINUTE_MS)
    assert (rolling.get(0), rolling.get(DISTINCT_SLOT, set())) == (1, {30})
    assert (short.get(0), short.cells) == (0, [])


def test_a_cell_too_old_for_one_window_counts_in_the_wider_one_alone() -> None:
    own = series(15 * MINUTE_MS, HOUR_MS)
    now_ms = START + HOUR_MS
    own.add(START + 10 * MINUTE_MS, Cell({0: 1}), START + 11 * MINUTE_MS)
    own.add(START + 20 * MINUTE_MS, Cell({0: 2}), now_ms)  # behind the other one, which is still in both
    own.add(START + 50 * MINUTE_MS, Cell({0: 4}), now_ms)
    own.add(START + 30 * MINUTE_MS, Cell({0: 8}), now_ms)
    own.expire(now_ms)
    short, rolling = own.rolling.values()
    assert (short.get(0), rolling.get(0)) == (4, 15)
    own.expire(now_ms + 25 * MINUTE_MS)
    assert (short.get(0), rolling.get(0)) == (0, 12)


def test_a_move_to_another_zone_goes_on_with_the_months_that_were_begun() -> None:
    own = series(HOUR_MS)
    own.cell(START).add(0, 1)
    own.fold(START + BUCKET_MS)
    own.touched_periods.clear()
    own.move(calendar("Europe/Berlin"))
    own.cell(START + BUCKET_MS).add(0, 2)
    own.fold(START + 2 * BUCKET_MS)
    july = calendar("Europe/Berlin").period("month", "2026-07")
    assert own.periods[july] == {0: 3}
    assert len([period for period in own.periods if period.window == "month"]) == 1
    assert july in own.touched_periods


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_only_hours_that_changed_are_stored_again_and_they_are_enough(chosen: int, every: int) -> None:
    rng = random.Random(chosen)
    own = series(15 * MINUTE_MS, 3 * HOUR_MS)
    stored: dict[int, list[tuple[int, Cell]]] = {}
    now_ms = START
    for step in range(60):
        now_ms += BUCKET_MS
        for _ in range(rng.randrange(3)):
            own.cell(now_ms - rng.randrange(1, 2 * HOUR_MS)).add(rng.randrange(3), 1)
        own.fold(now_ms)
        own.expire(now_ms)
        if step % every == 0:
            hours, gone = own.changed_hours()
            stored.update(hours)
            for hour in gone:
                stored.pop(hour, None)
            assert own.changed_hours() == ({}, set())
            again = series(15 * MINUTE_MS, 3 * HOUR_MS)
            for hour in sorted(stored):
                again.revive_cells(hour, stored[hour], now_ms)
            for span, rolling in own.rolling.items():
                for one in (again.rolling[span], rolling):
                    assert one.get(0) == sum(cell.get(0) for _, cell in one.cells)
                assert again.rolling[span].cells == rolling.cells
            assert len(stored) <= 5


def test_a_stored_cell_comes_back_and_terms_that_nobody_has_any_more_are_forgotten() -> None:
    names = {0: "a", MAX_SLOT: "b", DISTINCT_SLOT: "c"}
    cell = Cell({0: 5, MAX_SLOT: 7, DISTINCT_SLOT: {3, 1, 2}})
    packed: dict[str, Any] = by_name(cell, names)
    assert packed == {"a": 5, "b": 7, "c": [1, 2, 3]}
    assert unpack_cell(packed, {name: slot for slot, name in names.items()}) == cell
    assert unpack_cell(packed, {"a": 9}) == {9: 5}


def test_spans_are_read_from_the_names_of_windows() -> None:
    assert [span_ms(name) for name in ("rolling_15m", "rolling_1h", "rolling_24h")] == [
        15 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS,
    ]  # fmt: skip


def test_cells_that_were_stored_by_name_come_back_as_those_of_today_do() -> None:
    names = {0: "n", 1: "late", MAX_SLOT: "worst", DISTINCT_SLOT: "customers"}
    slots = {name: slot for slot, name in names.items()}
    cells = [(7, Cell({0: 1 << 70, 1: -3})), (9, Cell()), (12, Cell({MAX_SLOT: 8, DISTINCT_SLOT: {3, 1}}))]
    before = msgspec.msgpack.encode([(start, by_name(cell, names)) for start, cell in cells[1:]])
    assert load_cells(before, {**slots}) == cells[1:]
    assert load_cells(store_cells(cells, names), slots) == cells
    for none in (store_cells([], names), msgspec.msgpack.encode([])):
        assert load_cells(none, slots) == []
    del slots["late"]
    assert load_cells(store_cells(cells, names), slots)[0] == (7, Cell({0: 1 << 70}))


def test_periods_that_were_stored_by_name_come_back_as_those_of_today_do() -> None:
    names = {0: "n", DISTINCT_SLOT: "customers"}
    slots = {name: slot for slot, name in names.items()}
    zone = calendar("Asia/Shanghai")
    (day, *_) = zone.periods(at_ms("2026-08-03T12:00"))
    series, again, old = (Series(zone, 60_000, ()) for _ in range(3))
    counts = Cell({0: 12, DISTINCT_SLOT: set(range(500, 0, -1))})
    series.periods[day] = counts
    raw = store_period(series, day, names)
    revive_period(again, day, raw, slots)
    revive_period(old, day, msgspec.msgpack.encode(by_name(counts, names)), slots)
    assert again.periods == old.periods == {day: counts}
    hashes = msgspec.msgpack.decode(raw)[1][-8 * 500 :]
    assert [int.from_bytes(hashes[at : at + 8], "little") for at in range(0, 4000, 8)] == [*range(1, 501)]
