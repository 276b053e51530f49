"""``kaohe replay``: the core alone over recorded events.

The core is fed with the items of the log and the ticks between them, in batches; what it decides is written in a
canonical order and form, so that two replays of the same log with the same packs are the same bytes.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec
import typer

from kaohe.cli.console import print_json, progress, say
from kaohe.cli.wiring import chosen_packs, chosen_pseudonyms, chosen_shadows, chosen_zones, zone_named
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.adapters.log_clock import Timed
    from kaohe.core.model import Pack
    from kaohe.core.replay import Replay
    from kaohe.decisions import Alert, Decision, Grade

BATCH_ITEMS = 10_000
SHADOW_PREFIX = "shadow-"
"""The files of what shadows said: ``shadow-decisions.jsonl`` and so on."""
MAX_BATCH_ITEMS = 10_000_000


def replay(
    files: Annotated[list[Path], typer.Argument(help="Recorded files.", metavar="FILE...")],
    adapter: Annotated[str, typer.Option(help="How to read the files: anonymous-bank or events.")],
    out: Annotated[Path, typer.Option(help="Folder to write the results to.")],
    pack: Annotated[list[str], typer.Option(help="Rule pack by name or folder; may be given several times.")],
    batch_size: Annotated[
        int, typer.Option(help="Items applied at a time; never changes a result.")
    ] = BATCH_ITEMS,
    until: Annotated[
        str, typer.Option(help="Let the log's clock run on to this moment (RFC 3339 or a day).")
    ] = "",
    zone: Annotated[
        str, typer.Option(help="Zone of files with local times; default: that of the packs.")
    ] = "",
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            help="A version of a pack that judges beside the one in force; what it decides is marked and written "
            "to files of its own. Repeatable; default: KAOHE_SHADOW_PACKS."
        ),
    ] = None,
    metrics: Annotated[
        bool,
        typer.Option(help="Write metrics.json: every metric over every period, very long for many people."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Judge recorded events without any broker, and write decisions, alerts, grades, rejects and metrics.

    Example: kaohe replay calls.tsv --adapter anonymous-bank --pack contact-centre --out february
    """
    from kaohe.adapters import adapter_named, read_files
    from kaohe.adapters.log_clock import log_ticks
    from kaohe.core.replay import Replay
    from kaohe.core.shadow import ShadowReplay

    if not 1 <= batch_size <= MAX_BATCH_ITEMS:
        raise UsageError(f"--batch-size is {batch_size}; it must lie between 1 and {MAX_BATCH_ITEMS:,}.")
    settings = load_settings()
    packs = chosen_packs(settings, pack)
    shadows = chosen_shadows(settings, packs, shadow or [])
    source = adapter_named(adapter)
    local = zone_named(zone or packs[0].zone)
    zones = chosen_zones(settings, packs)
    work = Replay(packs, zones=zones)
    works = [work, ShadowReplay(packs, shadows, zones=zones)] if shadows else [work]
    end_ms = moment_ms(until, packs[0].zone) if until else None
    if not metrics:
        for one in works:
            one.leave_metrics()
    items = read_files(files, source, local, chosen_pseudonyms())
    make_folder(out)
    with progress("Replaying", "events") as advance:
        feed(works, log_ticks(items), batch_size, advance)
    if end_ms is not None:
        if end_ms < work.last_ms:
            raise UsageError("--until lies before the end of the log; give a later moment.")
        for one in works:
            one.tick(end_ms)
    for one in works:
        one.finish()
    summary = _write(work, out, packs, adapter, files, metrics=metrics)
    _write_shadows(works[1:], shadows, out)
    if as_json:
        print_json(summary)
    else:
        _tell(summary, out)


def moment_ms(text: str, zone: str) -> int:
    """A moment from the command line: RFC 3339, or a local day or time in ``zone``."""
    from kaohe.core.calendars import calendar, to_ms

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no moment; give one such as 2026-09-04T01:00 or 2026-09-04.") from None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=calendar(zone).zone))


def make_folder(out: Path) -> None:
    """Make the folder. Said before the work, not after it: a folder that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {out}: no permission; name a folder that can be written.")


def unwritable(out: Path, error: OSError) -> UsageError:
    """Why nothing can be written there, in one sentence."""
    why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
    return UsageError(f"cannot write to {out}: {why}; name a folder that can be written.")


def feed(works: Sequence[Replay], timed: Iterable[Timed], batch_size: int, advance: Any) -> None:
    """Give every item of a log, and the ticks between them, to each of ``works``."""
    from kaohe.collecting import collecting_rarely

    source = iter(timed)
    done = 0
    with collecting_rarely():
        while batch := list(islice(source, batch_size)):
            for work in works:
                _feed_batch(work, batch)
            done += sum(kind == "item" for kind, _ in batch)
            advance(done)


def _feed_batch(work: Replay, batch: list[Timed]) -> None:
    for kind, thing in batch:
        if kind == "tick":
            work.advance(thing)  # type: ignore[arg-type] # the tag says which of the two it is
            continue
        item: Any = thing
        if item.event is None:
            work.reject(item.reject_code, item.reject_reason, item.line, item.raw, item.file)
        else:
            work.feed(item.event, line=item.line, topic=item.file)
    work.gather()


# --- what is written --------------------------------------------------------------------------------------------------


def _instant(one: Decision | Alert | Grade) -> datetime:
    """When it was said. The text is on the clock of somebody's site, so texts of two sites have no order."""
    return datetime.fromisoformat(one.at)


def _decision_order(one: Decision) -> tuple[Any, ...]:
    return (
        _instant(one),
        one.pack,
        one.rule,
        one.level,
        one.subject,
        one.period,
        one.incident,
        one.id,
        one.revision,
    )


def _alert_order(one: Alert) -> tuple[Any, ...]:
    return (_instant(one), one.pack, one.rule, one.level, one.subject, one.incident, one.id, one.state)


def _grade_order(one: Grade) -> tuple[Any, ...]:
    return (_instant(one), one.pack, one.level, one.subject, one.period, one.id, one.revision)


def _write(
    work: Replay, out: Path, packs: tuple[Pack, ...], adapter: str, files: list[Path], *, metrics: bool
) -> dict[str, Any]:
    from kaohe.decisions import ENCODER

    rejects = sorted(work.rejects, key=lambda one: (one.topic, one.offset, one.code))
    try:
        messages = _write_messages(work, out)
        summary = _summary(work, packs, adapter, files, *messages)
        with (out / "rejects.jsonl").open("wb") as file:
            file.writelines(ENCODER.encode(row) + b"\n" for row in rejects)
        (out / "metrics.json").unlink(missing_ok=True)
        if metrics:
            with (out / "metrics.json").open("wb") as file:
                _write_metrics(work, file)
        encoded = msgspec.json.encode(summary, order="sorted")
        (out / "summary.json").write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    except OSError as error:
        raise unwritable(out, error) from None
    return summary


def _write_metrics(work: Replay, file: BinaryIO) -> None:
    from kaohe.decisions import ENCODER

    before = b"[\n"
    for value in work.each_metric():
        file.write(before + ENCODER.encode(value))
        before = b",\n"
    file.write(b"[\n\n]\n" if before == b"[\n" else b"\n]\n")


def _write_messages(
    work: Replay, out: Path, prefix: str = ""
) -> tuple[list[Decision], list[Alert], list[Grade]]:
    """Write decisions, alerts and grades, each to a file, and return them in the order of the files."""
    from kaohe.decisions import ENCODER

    decisions = sorted(work.decision_list(), key=_decision_order)
    alerts = sorted(work.alert_list(), key=_alert_order)
    grades = sorted(work.grade_list(), key=_grade_order)
    for name, rows in (("decisions", decisions), ("alerts", alerts), ("grades", grades)):
        with (out / f"{prefix}{name}.jsonl").open("wb") as file:
            file.writelines(ENCODER.encode(row) + b"\n" for row in rows)
    return decisions, alerts, grades


def _write_shadows(works: Sequence[Replay], shadows: Sequence[Pack], out: Path) -> None:
    """What the shadows said, in files of their own; without shadows none may be left of a replay before."""
    try:
        if not works:
            for name in ("decisions", "alerts", "grades"):
                (out / f"{SHADOW_PREFIX}{name}.jsonl").unlink(missing_ok=True)
        for work in works:
            decisions, alerts, grades = _write_messages(work, out, SHADOW_PREFIX)
            say(
                f"as shadows {', '.join(pack.key for pack in shadows)} said: "
                f"{len({one.id for one in decisions}):,} decisions, "
                f"{sum(one.state == 'firing' for one in alerts):,} alerts, "
                f"{sum(one.status == 'final' for one in grades):,} final grades: {out}/{SHADOW_PREFIX}*.jsonl"
            )
    except OSError as error:
        raise unwritable(out, error) from None


def _summary(
    work: Replay,
    packs: tuple[Pack, ...],
    adapter: str,
    files: list[Path],
    decisions: list[Decision],
    alerts: list[Alert],
    grades: list[Grade],
) -> dict[str, Any]:
    from kaohe.core.calendars import calendar

    newest = {decision.id: decision for decision in decisions}.values()
    events: Counter[str] = Counter()
    duplicates = late = 0
    for engine in work.engines:
        events.update(engine.stats.events)
        duplicates += engine.stats.duplicates
        late += engine.stats.late
    return {
        "adapter": adapter,
        "files": [file.name for file in files],
        "packs": {
            name: ", ".join(pack.version for pack in packs if pack.name == name)
            for name in dict.fromkeys(pack.name for pack in packs)
        },
        "zone": packs[0].zone,
        "clock": calendar(packs[0].zone).text(work.last_ms) if work.last_ms else None,
        "events": {
            "total": sum(events.values()),
            "by_type": dict(events),
            "duplicates": duplicates,
            "late": late,
        },
        "rejects": {"total": len(work.rejects), "by_code": dict(Counter(one.code for one in work.rejects))},
        "decisions": {
            "revisions": len(decisions),
            "entries": len(newest),
            "by_rule": dict(Counter(one.rule for one in newest)),
            "by_status": dict(Counter(one.status for one in newest)),
        },
        "alerts": {
            "firing": sum(one.state == "firing" for one in alerts),
            "resolved": sum(one.state == "resolved" for one in alerts),
            "by_rule": dict(Counter(one.rule for one in alerts if one.state == "firing")),
        },
        "grades": {"revisions": len(grades), "final": sum(one.status == "final" for one in grades)},
    }


def _tell(summary: dict[str, Any], out: Path) -> None:
    typer.echo(
        f"{summary['events']['total']:,} events, {summary['rejects']['total']:,} rejected; "
        f"{summary['decisions']['entries']:,} decisions, {summary['alerts']['firing']:,} alerts, "
        f"{summary['grades']['final']:,} final grades: {out}"
    )
    for code, count in sorted(summary["rejects"]["by_code"].items()):
        say(f"rejected, {code}: {count:,}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)
