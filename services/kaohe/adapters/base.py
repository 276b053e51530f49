"""What every adapter has in common: items, the protocol, reading lines, and the order of several files.

Theory of operation. An adapter turns one recorded file into ``SourceItem``\\ s: an event, or a reject with its line and
reason. Nothing that stands in a file stops the reading; only a file that is not there or not readable does.

Order. The log decides, so the order of events matters. A file of our own events *is* a log: its order is kept as it
stands, also where event times go back a little. Several such files are merged by how far each has got (the latest event
time seen in it), which never changes the order inside one file. Other recordings are tables without an order of their
own: their events are sorted by event time, then by file and line. The sorting holds at most ``RUN_ITEMS`` items in
memory and spills sorted runs into temporary files beyond that.
"""

from __future__ import annotations

import functools
import gzip
import heapq
import operator
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from kaohe.adapters.pseudonyms import Pseudonyms
from kaohe.errors import KaoheError, UsageError
from kaohe.events import ENVELOPES, Envelope

MAX_LINE_BYTES = 1 << 20
"""A longer line is no event of any source; it is rejected without being kept in memory whole."""
RUN_ITEMS = 250_000
_MAX_RUNS = 4096


class SourceItem(msgspec.Struct, gc=False):
    """What an adapter read from line ``line`` of ``file``: exactly one of an event and a reject.

    ``raw`` is the source line of a reject, with customers' numbers masked; it is empty for an event, whose bytes on
    the wire are ``kaohe.events.encode(event)``.
    """

    line: int
    event: Envelope | None
    raw: bytes
    reject_code: str = ""
    reject_reason: str = ""
    file: str = ""


class Adapter(Protocol):
    """A kind of recording. ``in_log_order`` when the order of its lines is the order of the log."""

    name: str
    in_log_order: bool

    def read(self, path: Path, *, zone: ZoneInfo, pseudonyms: Pseudonyms) -> Iterator[SourceItem]:
        """All items of one file in the order of its lines. UsageError or KaoheError when it cannot be read."""
        ...


def read_files(
    paths: Sequence[Path], adapter: Adapter, zone: ZoneInfo, pseudonyms: Pseudonyms
) -> Iterator[SourceItem]:
    """The items of all files in the order of the log (see above), each with its file's name and line.

    A reject stands where the event before it in its file stands. UsageError for a file that is not there.
    """
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path} is no file that can be read; name a recorded file")

    def named(path: Path) -> Iterator[SourceItem]:
        for item in adapter.read(path, zone=zone, pseudonyms=pseudonyms):
            item.file = path.name
            yield item

    if not adapter.in_log_order:
        return _sorted(keyed for index, path in enumerate(paths) for keyed in _own_times(index, named(path)))
    if len(paths) == 1:
        return named(paths[0])
    progress = [_progress(index, named(path)) for index, path in enumerate(paths)]
    return (keyed[3] for keyed in heapq.merge(*progress, key=_key))


_Keyed = tuple[int, int, int, SourceItem]
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)


def _key(keyed: _Keyed) -> tuple[int, int, int]:
    return keyed[:3]


def _microseconds(at: datetime) -> int:
    since = at - _ORIGIN
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _own_times(index: int, items: Iterable[SourceItem]) -> Iterator[_Keyed]:
    at_us = -(1 << 62)
    for number, item in enumerate(items):
        if item.event is not None:
            at_us = _microseconds(item.event.time)
        yield at_us, index, number, item


def _progress(index: int, items: Iterable[SourceItem]) -> Iterator[_Keyed]:
    so_far_us = -(1 << 62)
    for at_us, _, number, item in _own_times(index, items):
        so_far_us = max(so_far_us, at_us)
        yield so_far_us, index, number, item


# --- sorting with bounded memory --------------------------------------------------------------------------------------


class _Spilled(msgspec.Struct, array_like=True, gc=False):
    key: tuple[int, int, int]
    file: str
    line: int
    event: functools.reduce(operator.or_, ENVELOPES.values()) | None  # type: ignore[valid-type]
    raw: bytes
    code: str
    reason: str


def _sorted(items: Iterable[_Keyed], run_items: int = RUN_ITEMS) -> Iterator[SourceItem]:
    runs: list[IO[bytes]] = []
    held: list[_Keyed] = []
    try:
        for keyed in items:
            held.append(keyed)
            if len(held) >= run_items:
                if len(runs) == _MAX_RUNS:
                    raise KaoheError(
                        f"more than {_MAX_RUNS * run_items} items to sort; replay fewer files at a time"
                    )
                runs.append(_spill(held))
                held = []
        held.sort(key=_key)
        if not runs:
            for keyed in held:
                yield keyed[3]
            return
        for keyed in heapq.merge(*(_unspill(run) for run in runs), held, key=_key):
            yield keyed[3]
    finally:
        for run in runs:
            run.close()


def _spill(held: list[_Keyed]) -> IO[bytes]:
    held.sort(key=_key)
    run = tempfile.TemporaryFile(prefix="kaohe-sort-")  # noqa: SIM115 - closed by the sort, read until then
    encode = msgspec.msgpack.Encoder().encode
    for at_us, index, number, item in held:
        row = _Spilled(
            (at_us, index, number),
            item.file,
            item.line,
            item.event,
            item.raw,
            item.reject_code,
            item.reject_reason,
        )
        packed = encode(row)
        run.write(len(packed).to_bytes(4, "big"))
        run.write(packed)
    run.seek(0)
    return run


def _unspill(run: IO[bytes]) -> Iterator[_Keyed]:
    decoder: Any = msgspec.msgpack.Decoder(_Spilled)
    while size := run.read(4):
        row = decoder.decode(run.read(int.from_bytes(size, "big")))
        item = SourceItem(row.line, row.event, row.raw, row.code, row.reason, row.file)
        yield row.key[0], row.key[1], row.key[2], item


# --- lines ------------------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers from 1 and lines without their ends; gzip files by their first bytes. None for a line too long.

    UsageError when the file cannot be opened, KaoheError when it breaks off in the middle.
    """
    number = 0
    try:
        with path.open("rb") as plain:
            zipped = plain.peek(2)[:2] == b"\x1f\x8b"
            stream: Any = gzip.GzipFile(fileobj=plain) if zipped else plain
            while line := stream.readline(MAX_LINE_BYTES + 2):
                number += 1
                if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, None
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.rstrip(b"\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise KaoheError(
            f"{path} breaks off after line {number} ({error}); a whole gzip file is needed"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def too_long(line: int) -> SourceItem:
    """The reject for a line beyond ``MAX_LINE_BYTES``; its bytes were not kept."""
    return SourceItem(line, None, b"", "too_long", f"the line has more than {MAX_LINE_BYTES} bytes")
