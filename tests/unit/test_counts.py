"""The compiled counting against plain dictionaries and lists, with numbers of every size: nothing wraps or is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from kaohe.core.calendars import calendar
from kaohe.core.counts import (
    DISTINCT_KEPT,
    DISTINCT_SLOT,
    MAX_SLOT,
    Cell,
    Counter,
    Joined,
    Series,
    trim,
    unpack_cell,
)
from kaohe.core.partials import Reader, Writer
from tests.support.packs import at_ms, by_name

SLOTS = (*range(0, 40, 3), MAX_SLOT, MAX_SLOT + 1, DISTINCT_SLOT, DISTINCT_SLOT + 1)
NAMES = {slot: f"n{slot}" for slot in SLOTS}
SUMS = tuple(slot for slot in SLOTS if slot < MAX_SLOT)
LARGE = 1 << 63
BUCKET_MS, START = 60_000, at_ms("2026-07-31T23:50")

Plain = dict[int, Any]


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    return random.Random(seed)


def some_value(rng: random.Random) -> int:
    """Mostly small, sometimes at the edge of 64 bits."""
    near = rng.choice((0, 0, 0, 1 << 42, LARGE - 1, -LARGE))
    return max(-LARGE, min(LARGE - 1, near + rng.randrange(-50, 51)))


def plain_add(into: Plain, slot: int, value: Any) -> None:
    if slot >= DISTINCT_SLOT:
        into[slot] = into.get(slot, set()) | value
    elif slot >= MAX_SLOT:
        into[slot] = max(into.get(slot, value), value)
    else:
        into[slot] = into.get(slot, 0) + value


def some_cell(rng: random.Random) -> tuple[Cell, Plain]:
    cell, plain = Cell(), Plain()
    for _ in range(rng.randrange(12)):
        slot = rng.choice(SLOTS)
        if slot >= DISTINCT_SLOT:
            hashes = {rng.randrange(30) for _ in range(rng.randrange(1, 5))}
            cell.join(slot, hashes)
            plain_add(plain, slot, hashes)
        else:
            value = some_value(rng)
            cell.add(slot, value)
            plain_add(plain, slot, value)
    return cell, plain


def plain_merged(cells: list[Plain]) -> Plain:
    merged = Plain()
    for cell in cells:
        for slot, value in cell.items():
            plain_add(merged, slot, value)
    return merged


def check(read: Any, plain: Plain) -> None:
    for slot in SLOTS:
        assert read.get(slot, None) == plain.get(slot), slot
    assert read.row(SUMS) == tuple(plain.get(slot, 0) for slot in SUMS)


def test_cells_hold_what_dictionaries_hold(rng: random.Random) -> None:
    for _ in range(300):
        cells = [some_cell(rng) for _ in range(rng.randrange(1, 6))]
        merged = Cell()
        for cell, plain in cells:
            check(cell, plain)
            merged.merge(cell)
        expected = plain_merged([plain for _, plain in cells])
        check(merged, expected)
        assert merged.items() == sorted(expected.items())
        assert (len(merged), bool(merged), list(merged)) == (len(expected), bool(expected), sorted(expected))
        assert all((slot in merged) == (slot in expected) for slot in SLOTS)
        for cell, plain in cells:
            assert cell == plain, "what was merged stays as it was"
        packed = by_name(merged, NAMES)
        assert unpack_cell(packed, {name: slot for slot, name in NAMES.items()}) == expected
        check(Joined(cells[0][0], cells[-1][0]), plain_merged([cells[0][1], cells[-1][1]]))


def test_a_report_brings_cells_to_a_side_with_other_slots_and_forgets_what_that_does_not_know(
    rng: random.Random,
) -> None:
    there = {name: slot for slot, name in NAMES.items() if slot % 2 == 0}
    for _ in range(300):
        cells = [some_cell(rng) for _ in range(rng.randrange(1, 6))]
        for cell, _ in cells:
            if rng.random() < 0.3:
                for _ in range(rng.randrange(1, 4)):  # beyond 64 bits
                    cell.add(SUMS[0], rng.choice((LARGE - 1, -LARGE)))
        writer = Writer(NAMES)
        written = [writer.write(cell) for cell, _ in cells]
        back = {name: slot for slot, name in NAMES.items()}
        assert [Reader(writer.terms, back).read(one) for one in written] == [cell for cell, _ in cells]
        known = [{slot: value for slot, value in cell.items() if slot % 2 == 0} for cell, _ in cells]
        assert [Reader(writer.terms, there).read(one) for one in written] == known
        # A report from before cells were written as bytes.
        assert [Reader([], back).read(by_name(cell, NAMES)) for cell, _ in cells] == [one for one, _ in cells]


def test_bytes_that_break_off_or_name_a_term_that_is_not_there_are_no_cell(rng: random.Random) -> None:
    writer = Writer(NAMES)
    cell = Cell({0: 1 << 40, 3: -5, MAX_SLOT: 7, DISTINCT_SLOT: {1, 1 << 50}})
    cell.add(0, LARGE - 1)
    cell.add(0, LARGE - 1)
    raw = writer.write(cell)
    back = {name: slot for slot, name in NAMES.items()}
    assert Reader(writer.terms, back).read(raw) == cell
    for size in range(len(raw)):
        try:
            short = Reader(writer.terms, back).read(raw[:size])
        except ValueError:
            continue
        assert len(short) < len(cell), "cut between two counts"
    with pytest.raises(ValueError, match="names term 0 of 0"):
        Reader([], back).read(raw)
    with pytest.raises(ValueError, match="form 0 for a term of another one"):
        Reader(["n0"], {"n0": DISTINCT_SLOT}).read(Writer(NAMES).write(Cell({0: 1})))
    for _ in range(2000):  # whatever comes, nothing is read that is not there
        broken = bytearray(raw)
        broken[rng.randrange(len(raw))] = rng.randrange(256)
        with suppress(ValueError, OverflowError):
            Reader(writer.terms, back).read(bytes(broken))


def test_of_many_hashes_the_smallest_stay(rng: random.Random) -> None:
    for size in (DISTINCT_KEPT, 2 * DISTINCT_KEPT, 2 * DISTINCT_KEPT + 1, 9000):
        hashes = {rng.randrange(1 << 56) for _ in range(size)}
        cut = len(hashes) > 2 * DISTINCT_KEPT
        assert trim(hashes) == (set(sorted(hashes)[: DISTINCT_KEPT + 1]) if cut else hashes)


def test_a_series_adds_up_what_lists_add_up(rng: random.Random) -> None:
    zone = calendar("Asia/Shanghai")
    for _ in range(30):
        spans = tuple(rng.sample([5 * BUCKET_MS, 15 * BUCKET_MS, 60 * BUCKET_MS], rng.randrange(1, 4)))
        own = Series(zone, BUCKET_MS, spans, {span: rng.sample(SLOTS, 9) for span in spans})
        added: list[tuple[int, Plain]] = []
        now_ms = START
        for _ in range(rng.randrange(40)):
            now_ms += BUCKET_MS * rng.choice((1, 1, 1, 2, 9))
            for _ in range(rng.randrange(3)):
                cell, plain = some_cell(rng)
                start_ms = now_ms - BUCKET_MS * rng.choice((1, 1, 1, 2, 4, 20, 70))
                own.add(start_ms, cell, now_ms)
                added.append((start_ms, plain))
            own.expire(now_ms)
            for span, rolling in own.rolling.items():
                inside = [plain for start_ms, plain in added if start_ms >= now_ms - span]
                expected = plain_merged(inside)
                for slot in rng.sample(SLOTS, 6):
                    assert rolling.get(slot, 0) == expected.get(slot, 0), slot
                assert rolling.row(SUMS) == tuple(expected.get(slot, 0) for slot in SUMS)
                assert rolling.counts() == expected
            period = rng.choice(zone.periods(now_ms - 1))
            known = [plain for start_ms, plain in added if period.start_ms <= start_ms < period.end_ms]
            counts = own.period_counts(period)
            check(counts if counts is not None else Cell(), plain_merged(known))
            check(own.total_counts(), plain_merged([plain for _, plain in added]))
        assert own.total == plain_merged([plain for _, plain in added])


BOUNDS = (10, 20, 50)


def some_term(rng: random.Random, slot: int) -> tuple[str, int, int, int, int]:
    how = rng.choice(("sum", "sum", "max", "histogram", "distinct"))
    at = {"max": MAX_SLOT, "distinct": DISTINCT_SLOT}.get(how, 0) + slot
    field = {"distinct": 2, "sum": rng.choice((-1, 0, 1))}.get(how, rng.randrange(2))
    return how, at, field, rng.randrange(1, 16), rng.choice((0, 0, 1, 2))


def plain_count(terms: list[Any], data: Any, holds: int, cells: list[Plain | None], weight: int) -> None:
    for how, slot, field, levels, condition in terms:
        value: Any = None if field < 0 else (data.a, data.b, data.word)[field]
        for bit, cell in enumerate(cells):
            if cell is None or not levels >> bit & 1 or (condition and not holds & condition):
                continue
            if how == "histogram":
                plain_add(cell, slot + sum(bound < value for bound in BOUNDS), weight)
            elif how == "distinct" and value:
                plain_add(cell, slot, {int(value[2:16], 16)})
            elif how == "max":
                plain_add(cell, slot, value)
            elif how == "sum":
                plain_add(cell, slot, weight if value is None else weight * value)


def test_a_counter_adds_what_its_terms_say(rng: random.Random) -> None:
    for _ in range(200):
        terms = [some_term(rng, 5 * place) for place in range(rng.randrange(8))]
        holds: Callable[[Any, int], int] = lambda data, time_ms: (data.a > 20) + 2 * (time_ms > 50)  # noqa: E731
        counter = Counter(terms, ("a", "b", "word"), BOUNDS, holds)
        cells: list[Cell | None] = [Cell() if rng.random() < 0.7 else None for _ in range(3)]
        plain: list[Plain | None] = [None if cell is None else Plain() for cell in cells]
        site, plain_site = Cell(), Plain()
        for _ in range(20):
            word = rng.choice(("", f"c-{rng.randrange(1 << 60):020x}"))
            data = SimpleNamespace(a=rng.randrange(60), b=rng.randrange(60), word=word)
            time_ms, weight = rng.randrange(100), rng.choice((1, -1))
            counter(data, time_ms, cells[0], cells[1], cells[2], site, weight)
            plain_count(terms, data, holds(data, time_ms), [*plain, plain_site], weight)
        for cell, expected in (*zip(cells, plain, strict=True), (site, plain_site)):
            assert cell is None or cell == expected
