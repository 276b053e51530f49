"""The bank's calls: the real month gives the published figures, made-up months with every quirk a plain count's."""

from __future__ import annotations

import json
import os
import random
from calendar import monthrange
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kaohe.adapters import ADAPTERS, Pseudonyms, SourceItem, read_files
from kaohe.events import Envelope, is_pseudonym, type_of

ZONE = ZoneInfo("Asia/Jerusalem")
HEADER = (
    "vru+line\tcall_id\tcustomer_id\tpriority\ttype\tdate\tvru_entry\tvru_exit\tvru_time\tq_start\tq_exit\tq_time"
    "\toutcome\tser_start\tser_exit\tser_time\tserver"
)
FIGURES = (
    "offered", "answered", "abandoned", "voice_unit_abandoned", "abandonment_rate", "average_speed_of_answer_s",
    "service_level_20s", "average_talk_time_s",
)  # fmt: skip


def shared_data() -> Path:
    named = os.environ.get("KAOHE_SHARED_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def read(*paths: Path) -> list[SourceItem]:
    return list(read_files(paths, ADAPTERS["anonymous-bank"], ZONE, Pseudonyms()))


def write(folder: Path, rows: Iterable[str], name: str = "month.tsv") -> Path:
    path = folder / name
    path.write_bytes(("\r\n".join([HEADER, *rows]) + "\r\n").encode())
    return path


def row(**changes: str) -> str:
    """A call of 28 February 1999 that queued for 12 seconds and was served by DORIT for 100."""
    fields = {
        "line": "AA0101", "call": "34536", "customer": "23317894", "priority": "2", "type": "PS", "date": "990228",
        "vru_entry": "9:00:00", "vru_exit": "9:00:05", "vru_time": "5", "q_start": "9:00:05", "q_exit": "9:00:17",
        "q_time": "12", "outcome": "AGENT", "ser_start": "9:00:17", "ser_exit": "9:01:57", "ser_time": "100",
        "server": "DORIT",
    }  # fmt: skip
    assert changes.keys() <= fields.keys()
    return "\t".join({**fields, **changes}.values())


def hang(**changes: str) -> str:
    gone = {
        "outcome": "HANG",
        "ser_start": "0:00:00",
        "ser_exit": "0:00:00",
        "ser_time": "0",
        "server": "NO_SERVER",
    }
    return row(**{**gone, **changes})


NO_QUEUE = {"q_start": "0:00:00", "q_exit": "0:00:00", "q_time": "0"}


def events_of(path: Path) -> list[Envelope]:
    items = read(path)
    assert [item.reject_reason for item in items if item.event is None] == []
    return [item.event for item in items if item.event is not None]


def told(path: Path) -> list[tuple[str, str, str]]:
    """(type, subject, local time) of each event."""
    return [
        (type_of(event), event.subject, event.time.astimezone(ZONE).strftime("%m-%d %H:%M:%S"))
        for event in events_of(path)
    ]


def reject_of(folder: Path, text: str) -> SourceItem:
    items = read(write(folder, [row(), text, row(call="34537")]))
    rejects = [item for item in items if item.event is None]
    assert len(rejects) == 1
    assert len(items) == 9  # the rows before and after it are read
    assert (rejects[0].line, rejects[0].file) == (3, "month.tsv")
    return rejects[0]


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(events: Iterable[Envelope]) -> dict[str, Any]:
    """The published figures, counted from events by their own month (yyyy-mm), for all calls, queues and agents."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        month = event.time.astimezone(ZONE).strftime("%Y-%m")
        data = event.data
        tag = type_of(event)
        keys = [f"{month} all", f"{month} queue {data.queue}"]
        if data.agent:
            keys.append(f"{month} agent {data.agent}")
            assert event.subject == data.agent
        else:
            assert event.subject == data.queue
        for key in keys:
            count = counts[key]
            count[tag] += 1
            if tag == "call.answered":
                count["wait_ms"] += data.wait_ms
                count["in_time"] += data.wait_ms <= 20_000
            elif tag == "call.completed":
                count["talk_ms"] += data.talk_ms
    return {key: _ratios(count) for key, count in counts.items()}


def _ratios(count: Counter[str]) -> dict[str, float | None]:
    offered, answered = count["call.offered"], count["call.answered"]
    assert count["call.completed"] == answered
    return {
        "offered": offered,
        "answered": answered,
        "abandoned": count["call.abandoned"],
        "voice_unit_abandoned": count["call.voice_unit_abandoned"],
        "abandonment_rate": count["call.abandoned"] / offered if offered else None,
        "average_speed_of_answer_s": count["wait_ms"] / 1000 / answered if answered else None,
        "service_level_20s": count["in_time"] / offered if offered else None,
        "average_talk_time_s": count["talk_ms"] / 1000 / answered if answered else None,
    }


def test_february_1999_gives_every_published_figure() -> None:
    folder = shared_data()
    recording = folder / "anonymous-bank-1999-02.tsv"
    if not recording.is_file():
        pytest.skip(f"{recording} is not here: the research data set stays out of this repository")
    expected = json.loads((folder / "anonymous-bank-1999-02.expected.json").read_text())
    items = read(recording)
    assert [item.line for item in items if item.event is None] == expected["rejected_rows"]
    found = figures(item.event for item in items if item.event is not None)
    wanted = {"1999-02 all": expected["all"]}
    wanted |= {f"1999-02 queue {queue}": count for queue, count in expected["queues"].items()}
    assert {key for key in found if " agent " not in key} == wanted.keys()
    for key, count in wanted.items():
        rounded = {name: round(value, 6) for name, value in found[key].items() if value is not None}
        assert rounded == count, key
    agents = {key.rpartition(" ")[2]: found[key] for key in found if " agent " in key}
    assert {
        name: {"handled": count["answered"], "average_talk_time_s": round(count["average_talk_time_s"], 6)}
        for name, count in agents.items()
    } == expected["agents"]


# --- made-up months ---------------------------------------------------------------------------------------------------


def clock(second: int) -> str:
    second %= 86_400
    return f"{second // 3600}:{second // 60 % 60:02d}:{second % 60:02d}"


def made_up_month(seed: int, year: int, month: int, calls: int) -> tuple[list[str], set[int]]:
    """Rows of a month with the quirks of the real data, and the line numbers of those that do not fit."""
    rng = random.Random(seed)
    lines: list[str] = []
    broken: set[int] = set()
    last = monthrange(year, month)[1]
    for number in range(calls):
        day = last if rng.random() < 0.2 else rng.randint(1, last)
        entry = rng.choice((rng.randrange(7 * 3600, 86_400), rng.randrange(86_280, 86_400)))
        fields = made_up_call(rng, number, f"{year % 100:02d}{month:02d}{day:02d}", entry)
        line = len(lines) + 2
        if rng.random() < 0.06:
            lines.append(spoiled(rng, fields))
            broken.add(line)
            continue
        if rng.random() < 0.1:
            fields = [field + rng.choice(("", " ", "  ")) for field in fields]
        lines.append("\t".join(fields))
        if rng.random() < 0.03:
            lines.append(lines[-1])  # the same call a second time is a second call
    return lines, broken


def made_up_call(rng: random.Random, number: int, date: str, entry: int) -> list[str]:
    voice = rng.randrange(0, 20) if rng.random() < 0.95 else -rng.randrange(1, 60)
    outcome = rng.choices(("AGENT", "HANG", "PHANTOM"), (75, 22, 3))[0]
    at = entry + voice
    queues = rng.random() < 0.6
    wait = rng.randrange(0, 300) if queues else 0
    start, leave = (at, at + wait) if queues else (0, 0)
    if queues and start % 86_400 == 0:
        start += 1
    talk = rng.randrange(0, 900) if outcome == "AGENT" else 0
    answer = (leave if queues else at) + rng.randrange(-1, 2)
    times = [clock(entry), clock(at), clock(start), clock(leave), clock(answer), clock(answer + talk)]
    if not queues:
        times[2] = times[3] = "0:00:00"
    if outcome != "AGENT":
        times[4] = times[5] = "0:00:00"
    elif rng.random() < 0.02:
        times[4] = times[5] = "0:00:00"  # served, but without times
        talk = 0
    if rng.random() < 0.3:  # some months write the hours after midnight on
        times = [f"24:{each[2:]}" if each.startswith("0:") and each != "0:00:00" else each for each in times]
    if queues and rng.random() < 0.02:
        wait += rng.randrange(0, 20)  # the recorded wait is not that of the times
    wait_text = str(wait).zfill(4) if rng.random() < 0.02 else str(wait)
    server = rng.choice(("ANAT", "DORIT", "NO_SERVER", "VICKY", "")) if outcome == "AGENT" else "NO_SERVER"
    customer = rng.choice(("0", "23317894", "3.26702E+11", "", str(rng.randrange(10**4, 10**9))))
    kind = rng.choice(("PS", "PE", "IN", "NE", "NW", "TT"))
    return [
        f"AA0{rng.randrange(101, 216)}", str(number + 1000), customer, rng.choice("012"), kind, date,
        times[0], times[1], str(voice), times[2], times[3], wait_text, outcome, times[4], times[5], str(talk), server,
    ]  # fmt: skip


def spoiled(rng: random.Random, fields: list[str]) -> str:
    """The row in one of the ways in which rows of the real data do not fit."""
    fields = list(fields)
    fields[12] = "AGENT"  # a PHANTOM is ignored whatever else it says
    ways: list[Any] = [
        lambda: fields[:-1],
        lambda: [*fields, "X"],
        lambda: fields[:2] + fields[3:],
        lambda: [*fields[:5], "", *fields[5:-1]],
        lambda: [*fields[:1], *fields[2:], "0"],
        lambda: [*fields[:12], "TALK", *fields[13:]],
        lambda: [*fields[:12], "", *fields[13:]],
        lambda: [*fields[:5], "990931", *fields[6:]],
        lambda: [*fields[:5], "99-02-1", *fields[6:]],
        lambda: [*fields[:11], "", *fields[12:]],
        lambda: [*fields[:11], "12.5", *fields[12:]],
        lambda: [*fields[:15], "-4", *fields[16:]],
        lambda: [*fields[:15], "ANAT", *fields[16:]],
        lambda: [*fields[:9], "9:61:00", *fields[10:]],
        lambda: [*fields[:13], "77:00:00", *fields[14:]],
        lambda: [*fields[:4], "", *fields[5:]],
    ]
    return "\t".join(rng.choice(ways)())


def plain_count(lines: list[str], broken: set[int], month: str) -> dict[str, Any]:
    """The definitions of the data set's README, applied to rows, with no word of events."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number, line in enumerate(lines, 2):
        if number in broken:
            continue
        fields = [field.strip() for field in line.split("\t")]
        outcome, server = fields[12], fields[16]
        keys = [f"{month} all", f"{month} queue {fields[4]}"]
        if outcome == "AGENT" and server not in ("NO_SERVER", ""):
            keys.append(f"{month} agent {server}")
        for key in keys:
            if outcome == "AGENT":
                wait, talk = int(fields[11]), int(fields[15])
                counts[key].update(offered=1, answered=1, wait=wait, in_time=int(wait <= 20), talk=talk)
            elif outcome == "HANG" and fields[9] != "0:00:00":
                counts[key].update(offered=1, abandoned=1)
            elif outcome == "HANG":
                counts[key].update(voice=1)
    return {
        key: {
            "offered": count["offered"],
            "answered": count["answered"],
            "abandoned": count["abandoned"],
            "voice_unit_abandoned": count["voice"],
            "abandonment_rate": count["abandoned"] / count["offered"],
            "average_speed_of_answer_s": count["wait"] / count["answered"],
            "service_level_20s": count["in_time"] / count["offered"],
            "average_talk_time_s": count["talk"] / count["answered"],
        }
        for key, count in counts.items()
    }


@pytest.mark.parametrize(
    ("seed", "year", "month"),
    [(1, 1999, 1), (2, 1999, 4), (3, 1999, 9), (4, 1999, 12), (5, 2000, 2), (6, 1999, 2)],
)
def test_a_made_up_month_with_every_quirk_gives_what_a_plain_count_gives(
    tmp_path: Path, seed: int, year: int, month: int
) -> None:
    lines, broken = made_up_month(seed, year, month, 2500)
    items = read(write(tmp_path, lines))
    assert {item.line for item in items if item.event is None} == broken
    assert len(broken) > 50
    wanted = plain_count(lines, broken, f"{year}-{month:02d}")
    found = figures(item.event for item in items if item.event is not None)
    assert found.keys() == wanted.keys()  # in particular: nothing lands in another month
    for key, count in wanted.items():
        assert tuple(count) == FIGURES
        assert found[key] == pytest.approx(count, rel=1e-12), key
    ids = [item.event.id for item in items if item.event is not None]
    assert len(ids) == len(set(ids))
    times = [item.event.time for item in items if item.event is not None]
    assert times == sorted(times)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    lines, _ = made_up_month(7, 1999, 3, 300)
    path = write(tmp_path, lines)
    assert read(path) == read(path)


# --- single rows ------------------------------------------------------------------------------------------------------


def test_a_served_call_that_queued_becomes_four_events_of_its_agent(tmp_path: Path) -> None:
    path = write(tmp_path, [row()])
    assert told(path) == [
        ("call.queued", "DORIT", "02-28 09:00:05"),
        ("call.offered", "DORIT", "02-28 09:00:05"),
        ("call.answered", "DORIT", "02-28 09:00:17"),
        ("call.completed", "DORIT", "02-28 09:01:57"),
    ]
    answered, completed = events_of(path)[2:]
    assert (answered.data.wait_ms, completed.data.talk_ms) == (12_000, 100_000)
    assert answered.data.queue == "PS"
    assert {event.data.call_id for event in events_of(path)} == {"AA0101-34536-990228-2"}
    assert {(event.data.team, event.data.site) for event in events_of(path)} == {("", "")}


def test_a_served_call_without_a_known_server_belongs_to_its_queue(tmp_path: Path) -> None:
    for server in ("NO_SERVER", ""):
        path = write(tmp_path, [row(server=server, **NO_QUEUE)])
        assert [subject for _, subject, _ in told(path)] == ["PS"] * 3
        assert {event.data.agent for event in events_of(path)} == {""}


def test_a_caller_who_hangs_up_in_the_queue_was_offered_and_abandoned(tmp_path: Path) -> None:
    path = write(tmp_path, [hang()])
    assert told(path) == [
        ("call.queued", "PS", "02-28 09:00:05"),
        ("call.offered", "PS", "02-28 09:00:05"),
        ("call.abandoned", "PS", "02-28 09:00:17"),
    ]
    assert events_of(path)[2].data.wait_ms == 12_000


def test_a_caller_who_hangs_up_in_the_voice_unit_was_never_offered(tmp_path: Path) -> None:
    path = write(tmp_path, [hang(**NO_QUEUE)])
    assert told(path) == [("call.voice_unit_abandoned", "PS", "02-28 09:00:05")]
    assert events_of(path)[0].data.voice_unit_ms == 5_000


def test_a_phantom_is_nothing_whatever_its_fields_say(tmp_path: Path) -> None:
    assert (
        read(write(tmp_path, [row(outcome="PHANTOM"), row(outcome="PHANTOM", vru_time="-3", ser_time="x")]))
        == []
    )


def test_times_after_midnight_are_the_next_days(tmp_path: Path) -> None:
    late = {"date": "990215", "vru_entry": "23:59:54", "vru_exit": "23:59:54", "vru_time": "0"}
    path = write(
        tmp_path,
        [row(**late, q_start="0:00:00", q_exit="0:00:27", q_time="27", ser_start="0:00:26", ser_exit="0:01:33",
             ser_time="67")],
    )  # fmt: skip
    assert told(path) == [
        ("call.queued", "DORIT", "02-16 00:00:00"),
        ("call.offered", "DORIT", "02-16 00:00:00"),
        (
            "call.answered",
            "DORIT",
            "02-16 00:00:27",
        ),  # two clocks differ by a second; a call's times never run back
        ("call.completed", "DORIT", "02-16 00:01:33"),
    ]


def test_hours_from_24_on_are_the_next_days(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [row(date="990215", vru_entry="23:59:50", vru_exit="23:59:55", q_start="23:59:55", q_exit="24:00:07",
             ser_start="24:00:07", ser_exit="24:01:47")],
    )  # fmt: skip
    assert [time for _, _, time in told(path)][2:] == ["02-16 00:00:07", "02-16 00:01:47"]


def test_a_call_stays_in_the_month_of_its_date_with_its_true_durations(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [row(vru_entry="23:59:50", vru_exit="23:59:55", q_start="23:59:55", q_exit="0:00:07", ser_start="0:00:07",
             ser_exit="0:01:47")],
    )  # fmt: skip
    times = [event.time.astimezone(ZONE) for event in events_of(path)]
    assert [time.strftime("%m-%d %H:%M:%S.%f") for time in times] == [
        "02-28 23:59:55.000000", "02-28 23:59:55.000000", "02-28 23:59:59.999000", "02-28 23:59:59.999000",
    ]  # fmt: skip
    assert [type_of(event) for event in events_of(path)][2:] == ["call.answered", "call.completed"]
    assert events_of(path)[2].data.wait_ms == 12_000
    assert events_of(path)[3].data.talk_ms == 100_000


def test_a_voice_unit_with_a_slow_clock_does_not_move_a_call_to_the_next_day(tmp_path: Path) -> None:
    path = write(tmp_path, [row(vru_entry="9:01:02", vru_time="-57")])
    assert [time for _, _, time in told(path)] == [
        "02-28 09:00:05", "02-28 09:00:05", "02-28 09:00:17", "02-28 09:01:57",
    ]  # fmt: skip


def test_a_slow_clock_at_the_first_midnight_of_a_month_stays_in_the_month(tmp_path: Path) -> None:
    path = write(
        tmp_path, [hang(date="990201", vru_entry="0:00:10", vru_exit="23:59:50", vru_time="-20", **NO_QUEUE)]
    )
    assert told(path) == [("call.voice_unit_abandoned", "PS", "02-01 00:00:00")]
    assert events_of(path)[0].data.voice_unit_ms == 0


def test_a_served_call_without_service_times_is_answered_when_it_left_the_queue(tmp_path: Path) -> None:
    path = write(tmp_path, [row(ser_start="0:00:00", ser_exit="0:00:00", ser_time="0")])
    assert told(path)[2:] == [
        ("call.answered", "DORIT", "02-28 09:00:17"),
        ("call.completed", "DORIT", "02-28 09:00:17"),
    ]


def test_the_same_row_twice_is_two_calls(tmp_path: Path) -> None:
    path = write(tmp_path, [row(), row()])
    assert len({event.id for event in events_of(path)}) == 8
    assert len({event.data.call_id for event in events_of(path)}) == 2


def test_customers_become_pseudonyms_and_unknown_ones_stay_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, [row(), row(call="2", customer="0"), row(call="3", customer="3.26702E+11")])
    customers = {event.data.call_id.split("-")[1]: event.data.customer for event in events_of(path)}
    assert is_pseudonym(customers["34536"])
    assert "23317894" not in customers["34536"]
    assert customers["2"] == customers["3"] == ""


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (row() + "\tX", "wrong_field_count", "18 fields"),
        (row().rpartition("\t")[0], "wrong_field_count", "16 fields"),
        ("nonsense", "wrong_field_count", "1 fields"),
        (row(outcome="TALK"), "unknown_outcome", "'TALK'"),
        (row(outcome=""), "unknown_outcome", "''"),
        (row(date="990231"), "bad_date", "990231"),
        (row(date="19990228"), "bad_date", "yymmdd"),
        (row(vru_entry="9:60:00"), "bad_time", "vru_entry"),
        (row(q_exit=""), "bad_time", "q_exit"),
        (row(ser_exit="30:00:00"), "bad_time", "ser_exit"),
        (row(q_time="-1"), "bad_duration", "not negative"),
        (row(ser_time="1e3"), "bad_duration", "ser_time"),
        (row(vru_time=""), "bad_duration", "vru_time"),
        (row(ser_time="700000"), "bad_duration", "a week"),
        (row(type="2"), "bad_field", "shifted"),
        (row(customer="PS"), "bad_field", "shifted"),
        (row(call="9:00:00"), "bad_field", "shifted"),
        (row(server="12"), "bad_field", "shifted"),
    ],
)
def test_a_row_that_does_not_fit_is_rejected_with_line_and_reason(
    tmp_path: Path, text: str, code: str, words: str
) -> None:
    reject = reject_of(tmp_path, text)
    assert reject.reject_code == code
    assert words in reject.reject_reason


@pytest.mark.parametrize("customer", ["23317894", "12345", "3.26702E+11"])
def test_a_rejected_row_does_not_show_the_customer(tmp_path: Path, customer: str) -> None:
    for text in (
        row(customer=customer, outcome="TALK"),
        row(customer=customer, call="")[1:].replace("\t\t", "\t"),
    ):
        reject = reject_of(tmp_path, text)
        assert customer.encode() not in reject.raw
        assert customer not in reject.reject_reason
        assert b"DORIT" in reject.raw


def test_a_row_that_is_no_text_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "month.tsv"
    path.write_bytes(HEADER.encode() + b"\r\n" + row().encode().replace(b"DORIT", b"D\xff\xfe") + b"\r\n")
    (item,) = read(path)
    assert item.reject_code == "bad_field"
    assert "UTF-8" in item.reject_reason


def test_the_calls_of_several_files_come_in_order_of_time(tmp_path: Path) -> None:
    may = write(tmp_path, [row(date="990502", call="1")], "may.tsv")
    april = write(tmp_path, [row(date="990402", call="2"), row(date="990401", call="3")], "april.tsv")
    items = read(may, april)
    assert [(item.file, item.line) for item in items[::4]] == [
        ("april.tsv", 3),
        ("april.tsv", 2),
        ("may.tsv", 2),
    ]


def test_local_times_are_those_of_the_zone_given(tmp_path: Path) -> None:
    path = write(tmp_path, [row()])
    for name, hours in (("Asia/Jerusalem", 2), ("Asia/Shanghai", 8), ("UTC", 0)):
        items = read_files([path], ADAPTERS["anonymous-bank"], ZoneInfo(name), Pseudonyms())
        first = next(iter(items)).event
        assert first is not None
        assert first.time.replace(tzinfo=None) == datetime(1999, 2, 28, 9, 0, 5) - timedelta(hours=hours)  # noqa: DTZ001
