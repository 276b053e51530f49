"""Adapter ``anonymous-bank``: the Technion's "Anonymous Bank" calls, one row a call, one file a month.

Theory of operation. A row is a table of seventeen fields separated by tabs. It becomes the events of one call:

* AGENT: ``call.queued`` (if it queued), ``call.offered``, ``call.answered`` with wait = q_time, ``call.completed`` with
  talk = ser_time. The agent is the server and the subject of them all; for NO_SERVER the subject is the queue, which is
  the type of service.
* HANG with a q_start: ``call.queued``, ``call.offered``, ``call.abandoned`` with wait = q_time, subject the queue.
* HANG with q_start 0:00:00: ``call.voice_unit_abandoned``.
* PHANTOM: nothing.

Durations are the recorded ones, in seconds: the clocks of voice unit, queue and agents differ by seconds and sometimes
by a minute, so differences of times are no measure. For the same reason a small step backwards against ``vru_entry`` is
a difference of clocks (its ``vru_time`` is then negative, which is no fault of the row), and only a step backwards of
more than half a day means that midnight has passed: the time is then one of the next day. Hours from 24 on are the next
day's too. Times of one call never run backwards.

Months. The recording books a call in the month of its ``date``, also when it ends after midnight of the month's last
day. An event of such a call is given the last millisecond of that month instead of a time of the next, so that offered,
answered, abandoned and talk time of one call are counted in one month, as the recording does. Its durations stay true.
Between the days of a month real times hold.

A row that does not fit is rejected: wrong number of fields, an unknown outcome, a date, time or duration that is none,
a negative wait or service, or fields shifted into each other's place. Identifiers come from the row's own key and its
line, since a key may come twice and both rows are calls.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from kaohe.adapters.base import SourceItem, read_lines, too_long
from kaohe.adapters.pseudonyms import Pseudonyms
from kaohe.errors import EventError
from kaohe.events import (
    CallAbandoned,
    CallAnswered,
    CallCompleted,
    CallOffered,
    CallQueued,
    CallVoiceUnitAbandoned,
    Envelope,
    Payload,
    make,
)
from kaohe.privacy import MASK, mask, mask_text

SOURCE = "anonymous-bank"
FIELDS = (
    "vru+line", "call_id", "customer_id", "priority", "type", "date", "vru_entry", "vru_exit", "vru_time",
    "q_start", "q_exit", "q_time", "outcome", "ser_start", "ser_exit", "ser_time", "server",
)  # fmt: skip
OUTCOMES = ("AGENT", "HANG", "PHANTOM")
NO_SERVER = "NO_SERVER"

_DAY_S = 86_400
_MAX_DURATION_S = 7 * _DAY_S
_LAST_HOUR = 29
"""A night shift may be written on as 24:10:00; nothing is open beyond six in the morning."""
_TIME = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_DATE = re.compile(r"\d{6}", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"\d{1,20}|\d\.\d{1,14}E\+\d{1,2}", re.ASCII)
"""Some long customer numbers went through a spreadsheet and came out as 3.26702E+11."""
_CODE = re.compile(r"[A-Za-z]{1,10}", re.ASCII)
_WORD = re.compile(r"[^\W\d_][\w .'\-]{0,99}")
_KEY = re.compile(r"\S{1,40}")


class _Row(msgspec.Struct, gc=False):
    """A row that fits. Times are seconds since the midnight that ``day`` begins with, later days included."""

    key: str
    customer: str
    queue: str
    day: date
    answered_by_agent: bool
    queued: bool
    in_voice_unit: bool
    offered_s: int
    answered_s: int
    ended_s: int
    voice_unit_s: int
    wait_s: int
    talk_s: int
    server: str


class AnonymousBank:
    """Reads the monthly tables of the data set."""

    name = "anonymous-bank"
    in_log_order = False

    def read(self, path: Path, *, zone: ZoneInfo, pseudonyms: Pseudonyms) -> Iterator[SourceItem]:
        """The events of each row in the row's order. ``zone`` is where the bank's clocks stand."""
        clock = _Clock(zone)
        for line, raw in read_lines(path):
            if raw is None:
                yield too_long(line)
                continue
            if not raw.strip() or raw.split(b"\t", 1)[0].strip().lower() == b"vru+line":
                continue
            try:
                row = _parse(raw)
            except EventError as error:
                yield SourceItem(line, None, _mask_row(raw), error.code, mask_text(error.reason))
                continue
            if row is not None:
                for event in _events(row, line, clock, pseudonyms):
                    yield SourceItem(line, event, b"")


# --- from a line to a row ---------------------------------------------------------------------------------------------


def _parse(raw: bytes) -> _Row | None:
    """The row of a line, None for a PHANTOM. EventError with the reason when the line does not fit."""
    try:
        fields = [field.strip() for field in raw.decode("utf-8").split("\t")]
    except UnicodeDecodeError as error:
        raise EventError("bad_field", f"not UTF-8 at byte {error.start}") from None
    if len(fields) != len(FIELDS):
        raise EventError("wrong_field_count", f"{len(fields)} fields; a row has {len(FIELDS)}")
    row = dict(zip(FIELDS, fields, strict=True))
    outcome = row["outcome"]
    if outcome not in OUTCOMES:
        raise EventError("unknown_outcome", f"outcome {outcome!r}; it is AGENT, HANG or PHANTOM")
    if outcome == "PHANTOM":
        return None
    _check_shift(row)
    times = {
        name: _time(row, name)
        for name in ("vru_entry", "vru_exit", "q_start", "q_exit", "ser_start", "ser_exit")
    }
    voice_unit_s, wait_s, talk_s = (_duration(row, name) for name in ("vru_time", "q_time", "ser_time"))
    for name, value_s in (("q_time", wait_s), ("ser_time", talk_s)):
        if value_s < 0:
            raise EventError("bad_duration", f"{name} is {value_s} s; a duration is not negative")
    entry = times["vru_entry"]
    by_agent = outcome == "AGENT"
    left_voice_unit = _near(times["vru_exit"], entry)
    # Midnight itself is written like "no time": a wait or an end shows that the call did queue, or was served, then.
    queued = times["q_start"] != 0 or (by_agent and (wait_s > 0 or times["q_exit"] != 0))
    offered = max(left_voice_unit, _near(times["q_start"], entry)) if queued else left_voice_unit
    left_queue = max(offered, _near(times["q_exit"], entry)) if queued else offered
    served = times["ser_start"] != 0 or times["ser_exit"] != 0 or talk_s > 0
    answered = max(left_queue, _near(times["ser_start"], entry)) if by_agent and served else left_queue
    ended = answered
    if by_agent and served:
        ended += (times["ser_exit"] - answered) % _DAY_S if times["ser_exit"] else talk_s
        if abs(ended - answered - talk_s) > 3600:
            ended = answered + talk_s  # the times contradict the duration by far: the duration counts
    server = row["server"]
    return _Row(
        key=f"{row['vru+line']}-{row['call_id']}-{row['date']}",
        # A number in exponent form has lost its last digits and stands for many customers, so for none.
        customer=row["customer_id"] if row["customer_id"].isdigit() and row["customer_id"].strip("0") else "",
        queue=row["type"],
        day=_day(row["date"]),
        answered_by_agent=by_agent,
        queued=queued,
        in_voice_unit=not by_agent and not queued,
        offered_s=offered,
        answered_s=answered,
        ended_s=ended,
        voice_unit_s=max(0, voice_unit_s),
        wait_s=wait_s,
        talk_s=talk_s,
        server="" if not by_agent or server == NO_SERVER else server,
    )


def _check_shift(row: dict[str, str]) -> None:
    """Fields that have slid into each other's place show by their kind."""
    for name in ("vru+line", "call_id"):
        if not _KEY.fullmatch(row[name]) or _TIME.fullmatch(row[name]):
            raise EventError(
                "bad_field", f"{name} is {row[name]!r}; the row is shifted or the field is missing"
            )
    for name in ("customer_id", "priority"):
        if row[name] and not _NUMBER.fullmatch(row[name]):
            raise EventError("bad_field", f"{name} is no number; the row is shifted")
    if not _CODE.fullmatch(row["type"]):
        raise EventError(
            "bad_field", f"type is {row['type']!r}; a type is a short word such as PS; the row is shifted"
        )
    if row["server"] and not _WORD.fullmatch(row["server"]):
        raise EventError("bad_field", f"server is {row['server']!r}; a server is a name; the row is shifted")
    _day(row["date"])


@lru_cache(maxsize=1024)
def _day(text: str) -> date:
    if not _DATE.fullmatch(text):
        raise EventError("bad_date", f"date is {text!r}; a date is yymmdd")
    year = int(text[:2])
    try:
        return date(year + (1900 if year >= 69 else 2000), int(text[2:4]), int(text[4:]))
    except ValueError:
        raise EventError("bad_date", f"date {text!r} is no day of the calendar") from None


def _time(row: dict[str, str], name: str) -> int:
    time_s = _seconds(row[name])
    if time_s is None:
        raise EventError("bad_time", f"{name} is {row[name]!r}; a time of day is h:mm:ss")
    return time_s


@lru_cache(maxsize=_DAY_S)
def _seconds(text: str) -> int | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute, second = (int(part) for part in match.groups())
    if hour > _LAST_HOUR or minute > 59 or second > 59:
        return None
    return hour * 3600 + minute * 60 + second


def _duration(row: dict[str, str], name: str) -> int:
    if not _WHOLE.fullmatch(row[name]):
        raise EventError("bad_duration", f"{name} is {row[name]!r}; a duration is a whole number of seconds")
    value_s = int(row[name])
    if abs(value_s) > _MAX_DURATION_S:
        raise EventError("bad_duration", f"{name} is {value_s} s; no call lasts a week")
    return value_s


def _near(time_s: int, entry_s: int) -> int:
    """The moment with that time of day which is nearest to the call's entry (both in seconds from its day's start)."""
    return entry_s + (time_s - entry_s + _DAY_S // 2) % _DAY_S - _DAY_S // 2


def _mask_row(raw: bytes) -> bytes:
    """The line with the customer blanked: its own field and its neighbours when they are numbers, and long numbers."""
    fields = raw.split(b"\t")
    for index in (1, 2, 3):
        if index < len(fields) and len(fields[index].strip()) >= 5 and fields[index].strip()[:1].isdigit():
            fields[index] = MASK
    return mask(b"\t".join(fields))


# --- from a row to events ---------------------------------------------------------------------------------------------


class _Clock:
    """Seconds of a day in the bank's zone to moments in UTC, never beyond the month of that day."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def at(self, day: date, second: int) -> datetime:
        # Adding to a moment with a zone adds to its wall clock, which is what the bank's clocks show.
        local = datetime(day.year, day.month, day.day, tzinfo=self._zone) + timedelta(seconds=second)
        if (local.year, local.month) != (day.year, day.month):
            if second < 0:  # a clock that was slow at the month's first midnight
                local = datetime(day.year, day.month, 1, tzinfo=self._zone)
            else:
                last = monthrange(day.year, day.month)[1]
                local = datetime(day.year, day.month, last, 23, 59, 59, 999_000, tzinfo=self._zone)
        return local.astimezone(UTC)


def _events(row: _Row, line: int, clock: _Clock, pseudonyms: Pseudonyms) -> Iterator[Envelope]:
    call = f"{row.key}-{line}"
    subject = row.server or row.queue
    common: dict[str, Any] = {
        "agent": row.server, "queue": row.queue, "call_id": call, "customer": pseudonyms.of(row.customer),
    }  # fmt: skip

    def event(tag: str, second: int, data: Payload) -> Envelope:
        suffix = tag.partition(".")[2]
        at = clock.at(row.day, second)
        return make(tag, id=f"{call}-{suffix}", source=SOURCE, subject=subject, time=at, data=data)

    if row.in_voice_unit:
        data = CallVoiceUnitAbandoned(**common, voice_unit_ms=row.voice_unit_s * 1000)
        yield event("call.voice_unit_abandoned", row.offered_s, data)
        return
    if row.queued:
        yield event("call.queued", row.offered_s, CallQueued(**common))
    yield event("call.offered", row.offered_s, CallOffered(**common))
    if not row.answered_by_agent:
        abandoned = CallAbandoned(**common, wait_ms=row.wait_s * 1000)
        yield event("call.abandoned", row.answered_s, abandoned)
        return
    yield event("call.answered", row.answered_s, CallAnswered(**common, wait_ms=row.wait_s * 1000))
    yield event("call.completed", row.ended_s, CallCompleted(**common, talk_ms=row.talk_s * 1000))
