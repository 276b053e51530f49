"""Reading recorded logs: order, rejects, pseudonyms, masks, and the ticks between the events."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from kaohe.adapters import (
    ADAPTERS,
    Pseudonyms,
    SourceItem,
    adapter_named,
    base,
    log_ticks,
    read_files,
    ticks_after,
)
from kaohe.adapters.pseudonyms import CACHE_LIMIT
from kaohe.errors import KaoheError, SettingsError, UsageError
from kaohe.events import CallOffered, Envelope, is_pseudonym, make
from kaohe.privacy import mask, mask_text, pseudonym

ZONE = ZoneInfo("Asia/Shanghai")
NINE = datetime(2026, 8, 3, 1, 0, 0, tzinfo=UTC)
OLD_LOG = Path(__file__).parents[1] / "data" / "old-log-v1.jsonl"


def offered(number: int, at: datetime, customer: str = "") -> Envelope:
    data = CallOffered(queue="sales", call_id=f"c-{number}", customer=customer)
    return make("call.offered", id=f"e-{number}", source="acd", subject="sales", time=at, data=data)


def line(number: int, second: float, customer: str = "") -> bytes:
    document = {
        "id": f"e-{number}",
        "source": "acd",
        "type": "call.offered",
        "subject": "sales",
        "time": (NINE + timedelta(seconds=second)).isoformat(),
        "data": {"queue": "sales", "call_id": f"c-{number}", "customer": customer},
    }
    return json.dumps(document).encode()


def write(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(each + b"\n" for each in lines))
    return path


def read(*paths: Path) -> list[SourceItem]:
    return list(read_files(paths, ADAPTERS["events"], ZONE, Pseudonyms()))


def ids(items: Iterable[SourceItem]) -> list[str]:
    return [item.event.id if item.event is not None else f"reject {item.line}" for item in items]


# --- the adapter `events` ---------------------------------------------------------------------------------------------


def test_a_log_keeps_its_own_order_also_where_times_go_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [line(1, 5), line(2, 3), line(3, 9), line(4, 1)])
    assert ids(read(path)) == ["e-1", "e-2", "e-3", "e-4"]


def test_a_compressed_log_reads_like_a_plain_one(tmp_path: Path) -> None:
    raw = b"\n".join([line(1, 0), line(2, 1)]) + b"\n"
    for name in ("a.jsonl.gz", "a.jsonl"):  # the content decides, not the name
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw))
        assert ids(read(path)) == ["e-1", "e-2"]


def test_several_logs_are_merged_without_changing_the_order_inside_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [line(1, 0), line(2, 10), line(3, 4), line(4, 20)])
    second = write(tmp_path / "b.jsonl", [line(5, 5), line(6, 10), line(7, 30)])
    items = read(first, second)
    assert ids(items) == ["e-1", "e-5", "e-2", "e-3", "e-6", "e-4", "e-7"]
    assert [item.file for item in items] == [
        "a.jsonl", "b.jsonl", "a.jsonl", "a.jsonl", "b.jsonl", "a.jsonl", "b.jsonl",
    ]  # fmt: skip


def test_lines_that_are_no_events_are_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    raw = [
        line(1, 0),
        b"",
        b"{",
        b'{"type":"call.exploded"}',
        b'{"id":"x","source":"s","type":"call.offered","subject":"q","time":"2026-08-03T01:00:00Z","data":{}}',
        b"\xff\xfe\x00",
        line(2, 1),
    ]
    items = read(write(tmp_path / "a.jsonl", raw))
    assert ids(items) == ["e-1", "reject 3", "reject 4", "reject 5", "reject 6", "e-2"]
    assert [item.reject_code for item in items[1:5]] == ["malformed", "unknown_type", "invalid", "malformed"]
    assert all(item.reject_reason for item in items[1:5])
    assert items[0].raw == b""


def test_a_line_beyond_all_bounds_is_rejected_without_being_kept(tmp_path: Path) -> None:
    long = b'{"data":"' + b"x" * (3 * base.MAX_LINE_BYTES) + b'"}'
    items = read(write(tmp_path / "a.jsonl", [line(1, 0), long, line(2, 1)]))
    assert ids(items) == ["e-1", "reject 2", "e-2"]
    assert (items[1].reject_code, items[1].raw) == ("too_long", b"")


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line(1, 0) + b"\r\n" + line(2, 1))
    assert ids(read(path)) == ["e-1", "e-2"]


def test_the_old_log_is_read_without_a_reject() -> None:
    items = read(OLD_LOG)
    assert len(items) == 165
    assert all(item.event is not None for item in items)


def test_a_clear_customer_becomes_a_pseudonym_and_a_pseudonym_stays(tmp_path: Path) -> None:
    known = pseudonym("someone", b"k")
    path = write(tmp_path / "a.jsonl", [line(1, 0, "+86 138-1234-5678"), line(2, 1, known), line(3, 2)])
    customers = [item.event.data.customer for item in read(path) if item.event is not None]
    assert is_pseudonym(customers[0])
    assert "1234" not in customers[0]
    assert customers[1:] == [known, ""]


def test_files_that_cannot_be_read_are_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="no file"):
        read(tmp_path)
    whole = gzip.compress(b"\n".join(line(number, number) for number in range(2000)))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KaoheError, match="breaks off"):
        read(broken)


def test_adapters_are_found_by_name() -> None:
    assert sorted(ADAPTERS) == ["anonymous-bank", "events"]
    assert adapter_named("events") is ADAPTERS["events"]
    with pytest.raises(UsageError, match="anonymous-bank, events"):
        adapter_named("queue-log")


# --- sorting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_items", [1, 2, 7, 1000])
def test_sorting_in_spilled_runs_gives_what_sorting_in_memory_gives(run_items: int) -> None:
    def items() -> list[tuple[int, int, int, SourceItem]]:
        made = []
        for number in range(50):
            at = NINE + timedelta(seconds=number * 7919 % 13)
            event = None if number % 10 == 3 else offered(number, at, "c-0f1e2d3c4b5a6978")
            item = SourceItem(number, event, b"\x00raw" if event is None else b"", file=f"f-{number % 2}")
            made.append((number * 7919 % 13, number % 2, number, item))
        return made

    expected = [keyed[3] for keyed in sorted(items(), key=lambda keyed: keyed[:3])]
    assert list(base._sorted(items(), run_items)) == expected


# --- ticks ------------------------------------------------------------------------------------------------------------


def timed(*seconds: float) -> list[str]:
    """The log as text: ticks as `t5`, events as `e5.0`, seconds counted from nine o'clock."""
    items = [
        SourceItem(number, offered(number, NINE + timedelta(seconds=at)), b"")
        for number, at in enumerate(seconds)
    ]
    told = []
    for each in log_ticks(items):
        if each[0] == "tick":
            assert each[1].microsecond == 0
            told.append(f"t{round((each[1] - NINE).total_seconds())}")
        else:
            assert each[1].event is not None
            told.append(f"e{(each[1].event.time - NINE).total_seconds()}")
    return told


def test_a_tick_stands_before_the_first_event_of_each_new_second_and_one_after_the_last() -> None:
    assert timed(0.2, 0.9, 1.0, 5.5) == ["t0", "e0.2", "e0.9", "t1", "e1.0", "t5", "e5.5", "t6"]


def test_the_clock_never_goes_back() -> None:
    assert timed(5.5, 3.0, 5.7, 6.0, 2.0) == ["t5", "e5.5", "e3.0", "e5.7", "t6", "e6.0", "e2.0", "t7"]


def test_a_jump_beyond_forty_days_is_not_followed() -> None:
    day = 86_400.0
    assert timed(0.0, 40 * day, 81 * day, 41 * day) == [
        "t0", "e0.0", f"t{round(40 * day)}", f"e{40 * day}", f"e{81 * day}", f"t{round(41 * day)}", f"e{41 * day}",
        f"t{round(41 * day) + 1}",
    ]  # fmt: skip


def test_rejects_move_no_clock_and_an_empty_log_has_no_ticks() -> None:
    reject = SourceItem(1, None, b"x", "malformed", "no JSON")
    assert list(log_ticks([])) == []
    assert list(log_ticks([reject])) == [("item", reject)]


def test_times_before_1970_and_with_offsets_tick_at_their_own_second() -> None:
    early = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
    first = next(iter(log_ticks([SourceItem(1, offered(1, early.astimezone(ZONE)), b"")])))
    assert first == ("tick", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert ticks_after(early) == datetime(1970, 1, 1, tzinfo=UTC)
    assert ticks_after(NINE) == NINE + timedelta(seconds=1)


# --- pseudonyms and masks ---------------------------------------------------------------------------------------------


def test_a_pseudonym_depends_on_customer_and_key_alone() -> None:
    one = pseudonym("13812345678", b"key one")
    assert one == pseudonym("13812345678", b"key one")
    assert one != pseudonym("13812345678", b"key two")
    assert one != pseudonym("13812345679", b"key one")
    assert is_pseudonym(one)
    # Pinned: stored logs hold pseudonyms, and a change of the method would cut every customer's history in two.
    assert one == "c-29498028bb328c4b5ce23a95db01eea1"


def test_without_a_key_the_public_one_is_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kaohe.adapters"):
        unset = Pseudonyms.from_environment({})
        unset.of("13800138000")
    assert "KAOHE_PSEUDONYM_KEY" in caplog.text
    assert unset.of("13812345678") == Pseudonyms().of("13812345678")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "kaohe.adapters"):
        own = Pseudonyms.from_environment({"KAOHE_PSEUDONYM_KEY": "a key of our own, long enough"})
    assert caplog.text == ""
    assert own.of("13812345678") != unset.of("13812345678")
    for bad in ("short", "x" * 65):
        with pytest.raises(SettingsError, match="16 to 64"):
            Pseudonyms.from_environment({"KAOHE_PSEUDONYM_KEY": bad})


def test_the_memory_of_pseudonyms_is_bounded() -> None:
    pseudonyms = Pseudonyms()
    first = pseudonyms.of("customer 0")
    for number in range(CACHE_LIMIT + 10):
        pseudonyms.of(f"customer {number}")
    assert len(pseudonyms._known) <= CACHE_LIMIT
    assert pseudonyms.of("customer 0") == first


@pytest.mark.parametrize(
    ("raw", "masked"),
    [
        (b'{"customer":"Li Wei","x":1}', b'{"customer":"***","x":1}'),
        (b'{"customer" : "a \\"quoted\\" name", "x":1}', b'{"customer" : "***", "x":1}'),
        (b'{"customer":13812345678}', b'{"customer":"***"}'),
        (b'{"customer":{"name":"Li Wei","no":1},"x":1}', b'{"customer":"***","x":1}'),
        (b'{"customer":["Li Wei"]}', b'{"customer":"***"}'),
        (b'{"customer":"Li W', b'{"customer":"***"'),
        (b'{"Customer_Name":"Li Wei","email":"li@example.org"}', b'{"Customer_Name":"***","email":"***"}'),
        (b'{"customer":"","caller":null}', b'{"customer":"","caller":null}'),
        (b"call 13812345678 now", b"call *** now"),
        (b"call +86 138-1234-5678 now", b"call *** now"),
        (b"(020) 8123 4567!", b"(***!"),
        ("电话１３８１２３４５６７８。".encode(), "电话***。".encode()),
        (b'{"time":"2026-08-03T09:00:12.123456+08:00"}', b'{"time":"2026-08-03T09:00:12.123456+08:00"}'),
        (b"due 2026-08-03 or 2026-08-03 09:00", b"due 2026-08-03 or 2026-08-03 09:00"),
        (b"2026-08-0312345678", b"***"),
        (b"990228\t9:00:05\t123456", b"990228\t9:00:05\t123456"),
        (b"a-17 waited 12000 ms", b"a-17 waited 12000 ms"),
    ],
)
def test_masks_cover_customers_and_long_numbers_and_leave_the_rest(raw: bytes, masked: bytes) -> None:
    assert mask(raw) == masked


def test_masking_is_quick_on_hostile_input() -> None:
    # Patterns that try every way to read the same text would take hours here.
    for raw in (
        b'"customer":"' + b"\\" * 50_000,
        b"1 " * 50_000,
        b'"customer":{' * 10_000,
        b"2026-08-03" * 10_000,
    ):
        assert len(mask(raw)) <= len(raw) + 10


def test_reasons_are_masked_like_raw_bytes(tmp_path: Path) -> None:
    raw = line(1, 0).replace(b'"call.offered"', b'"call.13812345678"')
    (item,) = read(write(tmp_path / "a.jsonl", [raw]))
    assert item.reject_code == "unknown_type"
    assert "13812345678" not in item.reject_reason
    assert b"13812345678" not in item.raw
    assert mask_text("no value 13812345678 here") == "no value *** here"
