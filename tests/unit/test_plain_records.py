"""What the client fetched becomes the plain records of the engines: the same ones the client itself would make."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from kaohe.core.records import Record
from kaohe.stream.transport import _PlainRecords, plain

CONTROL = 0x20
HERE = TopicPartition("events", 0)


def batch(first: int, values: list[bytes | None], *, compressed: bool = False) -> bytearray:
    """One batch as it lies in the log."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=int(compressed), is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=0, batch_size=10_000,
    )  # fmt: skip
    for number, value in enumerate(values):
        builder.append(number, 1_700_000_000_000 + number, b"k", value, [])
    raw = bytearray(builder.build())
    raw[0:8] = first.to_bytes(8, "big")
    return raw


def fetched(log: bytes, wanted: int, isolation: int = READ_UNCOMMITTED, *, check: bool = False) -> Any:
    return PartitionRecords(HERE, MemoryRecords(log), [], wanted, None, None, check, isolation)


def log() -> bytes:
    """Three batches of records, the first one compressed and begun before what is asked for, and one of control."""
    control = batch(7, [b"end"])
    control[22] |= CONTROL
    return bytes(
        batch(0, [b"a", b"b", b"c"], compressed=True) + batch(5, [b"d", None]) + control + batch(8, [b"e"])
    )


def test_they_are_those_of_the_client_without_what_it_skips() -> None:
    own, wanted = fetched(log(), 1), [plain(one) for one in fetched(log(), 1)]
    _PlainRecords.tell(own)
    assert list(own) == wanted
    assert [(one.offset, one.value) for one in wanted] == [
        (1, b"b"),
        (2, b"c"),
        (5, b"d"),
        (6, None),
        (8, b"e"),
    ]
    assert own.next_fetch_offset == 9


def test_part_of_them_may_be_taken_and_the_rest_later() -> None:
    own = fetched(log(), 0)
    _PlainRecords.tell(own)
    first = next(iter(own))
    assert (first, own.next_fetch_offset) == (Record(0, b"a", b"k", 1_700_000_000_000), 1)
    assert [one.offset for one in own] == [1, 2, 5, 6, 8]


def test_of_what_was_begun_nothing_is_lost() -> None:
    own, wanted = fetched(log(), 0), [plain(one) for one in fetched(log(), 0)]
    first = next(own)
    _PlainRecords.tell(own)
    assert [plain(first), *own] == wanted
    assert own.next_fetch_offset == 9


def test_a_damaged_batch_is_refused() -> None:
    damaged = bytearray(log())
    damaged[-1] ^= 1
    own = fetched(bytes(damaged), 0, check=True)
    _PlainRecords.tell(own)
    with pytest.raises(CorruptRecordException, match="CRC"):
        list(own)


def test_who_reads_what_is_committed_only_gets_the_records_of_the_client() -> None:
    own = fetched(log(), 0, READ_COMMITTED)
    _PlainRecords.tell(own)
    assert type(own) is PartitionRecords
