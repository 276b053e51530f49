"""Counting: exact sums, mergeable in any order, distinct counts and percentiles within their stated errors."""

from __future__ import annotations

import copy
import random
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaohe.core import counting, counts
from kaohe.core.counting import (
    HISTOGRAM_BOUNDS,
    Layout,
    conditions_code,
    counters,
    distinct_estimate,
    read,
)
from kaohe.core.counts import DISTINCT_KEPT, DISTINCT_SLOT, MAX_SLOT, Cell, distinct_hash
from kaohe.core.model import Pack
from kaohe.errors import ParameterError
from kaohe.events import CallAnswered, TicketOpened
from kaohe.privacy import pseudonym
from tests.support.packs import at_ms, make_pack

METRICS = """
answered:
  count: call.answered
  level: [agent, site]
  windows: [month]
wait_s:
  mean: {field: wait_ms, of: call.answered}
  level: [agent]
  windows: [month]
fast:
  share: {of: call.answered, where: event.wait_ms <= p.threshold}
  level: [agent]
  windows: [month]
slowest_s:
  max: {field: wait_ms, of: call.answered}
  level: [agent]
  windows: [month]
p90_s:
  percentile: {field: wait_ms, of: call.answered, q: 0.9}
  level: [agent]
  windows: [month]
customers:
  distinct: {field: customer, of: call.answered}
  level: [agent]
  windows: [month]
urgent:
  count: {event: ticket.opened, where: "event.priority == 'urgent'"}
  level: [agent]
  windows: [month]
"""
PARAMETERS = """
threshold:
  unit: s
  min: 0
  max: 100
  values: {2026-01-01: 20, 2026-08-04: 12.5}
"""
AUGUST_3, AUGUST_4 = at_ms("2026-08-03T12:00"), at_ms("2026-08-04T00:00")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("pack"), metrics=METRICS, parameters=PARAMETERS)


@pytest.fixture(scope="module")
def layout(pack: Pack) -> Layout:
    return Layout([pack])


def count(layout: Layout, events: list[tuple[int, Any]], source: str = "call.answered") -> Cell:
    counter = counters(layout)[source]
    agent = Cell()
    for time_ms, data in events:
        counter(data, time_ms, agent, None, None, Cell(), 1)
    return agent


def value(layout: Layout, pack: Pack, metric: str, cell: Cell) -> Fraction | None:
    return read(layout, pack.key, pack.metrics[metric], cell).value


def answered(wait_ms: int, customer: str = "") -> CallAnswered:
    return CallAnswered(call_id="c", wait_ms=wait_ms, customer=customer)


def test_every_kind_of_metric_reads_its_exact_value(layout: Layout, pack: Pack) -> None:
    cell = count(layout, [(AUGUST_3, answered(wait)) for wait in (1_000, 20_000, 20_001)])
    assert value(layout, pack, "answered", cell) == 3
    assert value(layout, pack, "wait_s", cell) == Fraction(41_001, 3000)
    assert value(layout, pack, "fast", cell) == Fraction(2, 3)
    assert value(layout, pack, "slowest_s", cell) == Fraction(20_001, 1000)
    assert value(layout, pack, "p90_s", cell) == 25


def test_without_data_counts_are_zero_and_quotients_unknown(layout: Layout, pack: Pack) -> None:
    known = {name: value(layout, pack, name, Cell()) for name in pack.metrics}
    assert known == {
        "answered": 0, "wait_s": None, "fast": None, "slowest_s": None, "p90_s": None, "customers": 0, "urgent": 0,
    }  # fmt: skip


def test_a_largest_value_of_zero_is_data(layout: Layout, pack: Pack) -> None:
    cell = count(layout, [(AUGUST_3, answered(0))])
    assert value(layout, pack, "slowest_s", cell) == 0
    assert value(layout, pack, "slowest_s", merged([cell])) == 0


def test_an_event_is_counted_by_the_parameter_in_force_at_its_own_time(layout: Layout, pack: Pack) -> None:
    for time_ms, waits, share in (
        (AUGUST_4 - 1, (20_000, 20_001), Fraction(1, 2)),
        (AUGUST_4, (12_500, 12_501), Fraction(1, 2)),
        (AUGUST_4, (20_000, 20_000), Fraction(0)),
    ):
        cell = count(layout, [(time_ms, answered(wait)) for wait in waits])
        assert value(layout, pack, "fast", cell) == share


def test_conditions_on_texts(layout: Layout, pack: Pack) -> None:
    tickets = [TicketOpened(ticket_id="t", priority=one) for one in ("urgent", "low", "urgent")]
    cell = count(layout, [(AUGUST_3, ticket) for ticket in tickets], "ticket.opened")
    assert value(layout, pack, "urgent", cell) == 2


def test_generated_code_holds_only_names_and_numbers_and_touches_what_the_event_changes(
    layout: Layout,
) -> None:
    code = conditions_code("call.answered", layout)
    assert code.startswith("def holds(d, t):")
    assert "'" not in code
    assert "ticket" not in code
    assert set(counters(layout)) == {"call.answered", "ticket.opened"}


def test_terms_that_mean_the_same_share_a_slot_over_versions(tmp_path: Path, pack: Pack) -> None:
    other = make_pack(
        tmp_path, metrics=METRICS.replace("q: 0.9", "q: 0.5"), parameters=PARAMETERS, version="2.0"
    )
    both = Layout([pack, other])
    assert both.keys == Layout([pack]).keys
    assert both.slots == Layout([pack]).slots
    changed = make_pack(tmp_path, metrics=METRICS, parameters=PARAMETERS.replace("12.5", "13"), version="3.0")
    three = Layout([pack, changed])
    assert len(three.slots) == len(Layout([pack]).slots) + 1
    assert three.slots.items() >= Layout([pack]).slots.items()


# --- merging ----------------------------------------------------------------------------------------------------------

CELLS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            0: st.integers(-50, 50), 7: st.integers(0, 10**12), MAX_SLOT: st.integers(0, 9), MAX_SLOT + 1: st.just(0),
            DISTINCT_SLOT: st.frozensets(st.integers(0, 40), max_size=12).map(set),
        },
    ).map(Cell),
    max_size=8,
)  # fmt: skip


def merged(cells: list[Cell]) -> Cell:
    into = Cell()
    for cell in cells:
        into.merge(cell)
    return into


@given(CELLS, st.randoms(use_true_random=False))
def test_cells_merge_in_any_order_and_grouping_to_the_same(cells: list[Cell], rng: random.Random) -> None:
    before = [copy.deepcopy(dict(cell.items())) for cell in cells]
    straight = merged(cells)
    mixed = list(cells)
    rng.shuffle(mixed)
    cut = rng.randrange(len(mixed) + 1)
    assert merged(mixed) == straight
    assert merged([merged(mixed[:cut]), merged(mixed[cut:])]) == straight
    assert [dict(cell.items()) for cell in cells] == before, "merging leaves what is merged alone"


@given(
    st.lists(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), min_size=2, max_size=6), st.randoms()
)
def test_a_distinct_count_depends_on_the_words_alone_even_when_sets_are_cut(
    groups: list[list[int]], rng: random.Random
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for module in (counting, counts):
            patched.setattr(module, "DISTINCT_KEPT", 8)
        sets = [{distinct_hash(f"w{word}") for word in group} for group in groups]
        whole = distinct_estimate(set().union(*sets))
        for _ in range(3):
            rng.shuffle(sets)
            into = Cell()
            for one in sets:
                into.join(DISTINCT_SLOT, one)
                assert len(into[DISTINCT_SLOT]) <= 2 * 8
            assert distinct_estimate(into[DISTINCT_SLOT]) == whole


def test_distinct_counts_are_exact_up_to_the_bound_and_near_beyond() -> None:
    for words in (0, 1, 100, DISTINCT_KEPT):
        assert distinct_estimate({distinct_hash(f"word-{n}") for n in range(words)}) == words
    for words in (DISTINCT_KEPT + 1, 3_000, 2 * DISTINCT_KEPT + 1, 20_000, 100_000):
        into = Cell()
        for start in range(0, words, 1000):
            batch = {distinct_hash(f"word-{n}") for n in range(start, min(words, start + 1000))}
            into.join(DISTINCT_SLOT, batch)
        assert len(into[DISTINCT_SLOT]) <= 2 * DISTINCT_KEPT
        # Four standard errors of about 1 / sqrt(2048).
        assert abs(distinct_estimate(into[DISTINCT_SLOT]) / words - 1) < 0.09


def test_pseudonyms_serve_as_their_own_hash() -> None:
    found = {distinct_hash(pseudonym(f"1380013{n:04d}", b"k" * 16)) for n in range(5_000)}
    assert len(found) == 5_000
    assert max(found) < 1 << 56
    assert distinct_hash("c-not-hexadecimal-digits") < 1 << 56


def test_customers_are_counted_once_and_nobody_is_no_customer(layout: Layout, pack: Pack) -> None:
    names = ["", pseudonym("1", b"k" * 16), pseudonym("2", b"k" * 16), pseudonym("1", b"k" * 16)]
    cell = count(layout, [(AUGUST_3, answered(0, name)) for name in names])
    assert value(layout, pack, "customers", cell) == 2


@given(st.lists(st.integers(0, 9_000_000), min_size=1, max_size=60))
def test_a_percentile_is_the_bound_of_the_bucket_of_the_nearest_rank(
    layout: Layout, pack: Pack, waits: list[int]
) -> None:
    cell = count(layout, [(AUGUST_3, answered(wait)) for wait in waits])
    exact = sorted(waits)[-(-9 * len(waits) // 10) - 1]
    bound = next((bound for bound in HISTOGRAM_BOUNDS if bound >= exact), HISTOGRAM_BOUNDS[-1])
    assert value(layout, pack, "p90_s", cell) == Fraction(bound, 1000)


def test_the_buckets_of_the_histogram_rise_by_a_third_at_most() -> None:
    assert list(HISTOGRAM_BOUNDS) == sorted(set(HISTOGRAM_BOUNDS))
    assert all(high <= low * 1.3 for low, high in pairwise(HISTOGRAM_BOUNDS))
    assert (HISTOGRAM_BOUNDS[0], HISTOGRAM_BOUNDS[-1]) == (100, 8_000_000)


def test_a_parameter_has_no_value_before_its_first_day(pack: Pack) -> None:
    threshold = pack.parameters["threshold"]
    assert threshold.value_at(date(2026, 1, 1)) == 20
    assert threshold.value_at(date(2026, 8, 3)) == 20
    assert threshold.value_at(date(2026, 8, 4)) == Fraction(25, 2)
    with pytest.raises(ParameterError, match=r"parameter threshold \(CK-01\) has no value on 2025-12-31"):
        threshold.value_at(date(2025, 12, 31))
