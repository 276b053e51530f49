"""``kaohe backtest``: one log under two packs, and what would have been different for whom.

The log is read once; every event and tick goes to two cores, each with one of the packs and with those named by
``--beside``. What comes out is compared by ``kaohe.whatif`` and shown as tables, JSON, files and a plot. The same log
and packs give the same bytes.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.replaying import feed, make_folder, moment_ms, unwritable
from kaohe.cli.wiring import chosen_pseudonyms, chosen_zones, folder_of_packs, zone_named
from kaohe.errors import EventError, UsageError
from kaohe.settings import Settings, load_settings

if TYPE_CHECKING:
    from kaohe.adapters.base import SourceItem
    from kaohe.core.model import Pack
    from kaohe.core.pay import PayFact
    from kaohe.core.replay import Replay
    from kaohe.whatif import Comparison, Money, Outcome, Points

BATCH_ITEMS = 10_000
ROWS_MAX = 40
"""A terminal shows so many rows of a table; the files and the JSON document hold all."""


def backtest(
    pack: Annotated[str, typer.Option("--pack", help="The changed pack, by name or folder.", metavar="NEW")],
    against: Annotated[
        str, typer.Option(help="The pack to compare it with, by name or folder.", metavar="OLD")
    ],
    events: Annotated[
        list[Path], typer.Option(help="Recorded events; may be given several times.", metavar="LOG")
    ],
    adapter: Annotated[str, typer.Option(help="How to read the log: anonymous-bank or events.")] = "events",
    beside: Annotated[
        list[str] | None, typer.Option(help="A pack that judges beside both, such as attendance; repeatable.")
    ] = None,
    period: Annotated[str, typer.Option(help="Compare this period only, such as 2026-08 or 2026-Q3.")] = "",
    until: Annotated[
        str, typer.Option(help="Let the log's clock run on to this moment, so that periods close.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the comparison as JSON and CSV.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="File for a plot of it: SVG, PNG or PDF by its ending.")
    ] = None,
    zone: Annotated[
        str, typer.Option(help="Zone of files with local times; default: that of the packs.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as one JSON document.")
    ] = False,
) -> None:
    """Judge a log by a changed pack and by the one before, and show what differs: points, grades, pay.

    Ends with 0 when both were compared, whatever they differ in, and with 2 when it was asked for wrongly.

    Example: kaohe backtest --pack drafts/front-desk --against front-desk --events august.jsonl
    """
    from kaohe.cli.plotting import check_plot, draw

    if plot is not None:
        check_plot(plot)
    if out is not None:
        make_folder(out)
    settings = load_settings()
    sides = _sides(settings, against, pack, beside or [])
    facts: dict[str, list[PayFact]] = {}
    works = _replay(settings, sides, events, adapter, zone, until, facts)
    found = _compare(sides, works, period, facts)
    document = _document(sides, works, period, found)
    if out is not None:
        _write(out, document, found)
    if plot is not None:
        draw(found, plot, f"{_key(sides[1])} against {_key(sides[0])}")
    if as_json:
        console.print_json(document)
    else:
        _show(found, sides, works)


# --- the two replays --------------------------------------------------------------------------------------------------


def _sides(settings: Settings, old: str, new: str, beside: Sequence[str]) -> tuple[tuple[Pack, ...], ...]:
    """The packs of both sides, the compared one first."""
    from kaohe.packs.load import load_packs

    folder = folder_of_packs(settings)
    olds, news = load_packs([old, *beside], folder), load_packs([new, *beside], folder)
    if olds[0].zone != news[0].zone or olds[0].currency != news[0].currency:
        raise UsageError(
            f"{olds[0].key} has {olds[0].zone} and {olds[0].currency}, {news[0].key} has {news[0].zone} and "
            f"{news[0].currency}; only packs of one zone and currency can be compared."
        )
    return olds, news


def _replay(
    settings: Settings,
    sides: Sequence[tuple[Pack, ...]],
    files: list[Path],
    adapter: str,
    zone: str,
    until: str,
    facts: dict[str, list[PayFact]],
) -> list[Replay]:
    """Judge the log by both sides; what it says about people's pay is put into ``facts``."""
    from kaohe.adapters import adapter_named, read_files
    from kaohe.adapters.log_clock import log_ticks
    from kaohe.core.replay import Replay

    source = adapter_named(adapter)
    own_zone = sides[0][0].zone
    end_ms = moment_ms(until, own_zone) if until else None
    works = [Replay(packs, zones=chosen_zones(settings, packs)) for packs in sides]
    items = read_files(files, source, zone_named(zone or own_zone), chosen_pseudonyms())
    with console.progress("Judging twice", "events") as advance:
        feed(works, log_ticks(_noting(items, facts)), BATCH_ITEMS, advance)
    if end_ms is not None and end_ms < works[0].last_ms:
        raise UsageError("--until lies before the end of the log; give a later moment.")
    for work in works:
        if end_ms is not None:
            work.tick(end_ms)
        work.finish()
    return works


def _noting(items: Iterable[SourceItem], facts: dict[str, list[PayFact]]) -> Iterator[SourceItem]:
    """The same items; what they say about people's pay is noted, each event once."""
    from kaohe.core.pay import fact_of

    known: set[tuple[str, str]] = set()
    for item in items:
        event = item.event
        if event is not None and (event.source, event.id) not in known:
            with suppress(EventError):  # what cannot be used says nothing
                fact = fact_of(event, event.id)
                if fact is not None and fact.agent:
                    facts.setdefault(fact.agent, []).append(fact)
                    known.add((event.source, event.id))
        yield item


def _compare(
    sides: Sequence[tuple[Pack, ...]],
    works: Sequence[Replay],
    period: str,
    facts: dict[str, list[PayFact]],
) -> Comparison:
    from kaohe.whatif import compare

    old, new = (_outcome(packs, work, facts) for packs, work in zip(sides, works, strict=True))
    if not period:
        return compare(old, new)
    labels = {one.period for side in (old, new) for one in side.decisions}
    labels |= {one.period for side in (old, new) for one in side.grades}
    if period not in labels:
        known = (
            f"there is something about {', '.join(sorted(labels))}"
            if labels
            else "nothing was decided at all"
        )
        raise UsageError(f"nothing was decided about the period {period!r} in this log; {known}.")
    return compare(old, new, wanted=lambda label: label == period)


def _outcome(packs: tuple[Pack, ...], work: Replay, facts: dict[str, list[PayFact]]) -> Outcome:
    from kaohe.whatif import Outcome, pay_of

    decisions, grades = work.decision_list(), work.grade_list()
    return Outcome(packs[0], decisions, grades, work.alert_list(), pay_of(packs, decisions, grades, facts))


# --- what is shown ----------------------------------------------------------------------------------------------------


def _key(packs: tuple[Pack, ...]) -> str:
    return packs[0].key


def _document(
    sides: Sequence[tuple[Pack, ...]], works: Sequence[Replay], period: str, found: Comparison
) -> dict[str, Any]:
    """Everything, for ``--json`` and for the file."""
    rejects = [dict(sorted(Counter(one.code for one in work.rejects).items())) for work in works]
    return {
        "old": {"pack": sides[0][0].name, "version": sides[0][0].version, "rejects": rejects[0]},
        "new": {"pack": sides[1][0].name, "version": sides[1][0].version, "rejects": rejects[1]},
        "beside": [pack.key for pack in sides[0][1:]],
        "period": period,
        "events": _events(works[0]),
        **msgspec.to_builtins(found),
    }


def _events(work: Replay) -> int:
    return sum(sum(engine.stats.events.values()) for engine in work.engines)


def _write(out: Path, document: dict[str, Any], found: Comparison) -> None:
    """``backtest.json``, and its three lists as CSV for a spreadsheet."""
    encoded = msgspec.json.encode(document, order="deterministic")
    files = {"backtest.json": msgspec.json.format(encoded, indent=2) + b"\n"}
    for name, rows in (("subjects", found.subjects), ("rules", found.rules), ("lines", found.lines)):
        files[f"{name}.csv"] = _csv([_flat(msgspec.to_builtins(row)) for row in rows])
    try:
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise unwritable(out, error) from None


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}_")
        elif value is not None:
            found[prefix + key] = value
    return found


def _csv(rows: list[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig")


def _cell(value: Any) -> Any:
    """A spreadsheet must not take a name for a formula; a number of points is one, and stays."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(value.partition(" ")[0].partition("/")[0])
        except ValueError:
            return f"'{value}"
    return value


def _show(found: Comparison, sides: Sequence[tuple[Pack, ...]], works: Sequence[Replay]) -> None:
    summary = found.summary
    for side, work in zip(sides, works, strict=True):
        for code, count in sorted(Counter(one.code for one in work.rejects).items()):
            console.say(f"{_key(side)} rejected, {code}: {count:,}")
    console.show(
        f"{_key(sides[1])} against {_key(sides[0])}, {_events(works[0]):,} events: "
        f"{summary.differing:,} of {summary.subjects:,} assessments differ"
    )
    if not summary.differing and not any(one.differs for one in found.rules):
        return
    moves = ", ".join(f"{move}: {count}" for move, count in summary.grade_changes.items())
    console.show(
        f"points {_change(summary.points)}; {summary.gain:,} gain, {summary.lose:,} lose; grades: {moves or 'same'}"
    )
    if summary.money is not None:
        console.show(f"pay: {_money(summary.money)}")
    _show_subjects(found)
    _show_rules(found)


def _show_subjects(found: Comparison) -> None:
    rows = sorted(
        (one for one in found.subjects if one.differs), key=lambda one: -abs(_number(one.points.change))
    )
    if not rows:
        return
    with_money = found.summary.money is not None
    columns = ("subject", "period", "points", "score", "grade", *(("pay",) if with_money else ()))
    table = _table(columns)
    for one in rows[:ROWS_MAX]:
        name = one.subject if one.level == "agent" else f"{one.level} {one.subject}"
        name += f" ({'joint' if one.pack == '+' else one.pack})" if one.pack else ""
        cells = [
            name, one.period, _change(one.points), _arrow(one.old_score, one.new_score),
            _arrow(one.old_grade, one.new_grade),
        ]  # fmt: skip
        if with_money:
            cells.append(_money(one.money))
        table.add_row(*cells)
    console.show(table)
    _left_out(len(rows))


def _show_rules(found: Comparison) -> None:
    rows = [one for one in found.rules if one.differs]
    if not rows:
        return
    table = _table(("rule", "clause", "entries", "alerts", "points", "subjects"))
    for one in rows[:ROWS_MAX]:
        table.add_row(
            one.rule, one.clause, _arrow(str(one.old_entries), str(one.new_entries)),
            _arrow(str(one.old_alerts), str(one.new_alerts)), _change(one.points), str(one.subjects),
        )  # fmt: skip
    console.show(table)
    _left_out(len(rows))


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("subject", "period", "rule", "clause") else "right"
        )
    return table


def _left_out(rows: int) -> None:
    if rows > ROWS_MAX:
        console.show(f"and {rows - ROWS_MAX:,} more: --json or --out has all of them")


def _number(text: str) -> float:
    """For the order on the screen only."""
    numerator, _, denominator = text.partition(" ")[0].partition("/")
    return float(numerator) / float(denominator or 1)


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old or '(none)'} -> {new or '(none)'}"


def _change(points: Points) -> str:
    if points.old == points.new:
        return points.new
    sign = "" if points.change.startswith("-") else "+"
    return f"{points.old} -> {points.new} ({sign}{points.change})"


def _money(money: Money | None) -> str:
    from kaohe.core.money import money_text, plain

    if money is None:
        return ""
    texts = [
        "" if one is None else money_text(one, money.currency) for one in (money.old_minor, money.new_minor)
    ]
    if money.change_minor:
        return f"{_arrow(*texts)} ({'+' if money.change_minor > 0 else ''}{plain(money.change_minor, money.currency)})"
    return _arrow(*texts)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backtest)
