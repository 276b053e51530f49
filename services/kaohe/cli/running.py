"""The long-running commands: broker, topics, worker, clock; and those that feed them: produce, simulate."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import base64
import signal
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from kaohe.cli.console import print_json, progress, say
from kaohe.cli.wiring import (
    chosen_packs,
    chosen_pseudonyms,
    chosen_shadows,
    engine_factories,
    zone_named,
)
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.adapters.base import SourceItem
    from kaohe.stream.produce import Entry

topics_app = typer.Typer(help="The topics of Kaohe.", no_args_is_help=True)

REJECTS = "kaohe.rejects"


def broker(
    port: Annotated[int, typer.Option(help="Loopback port.")] = 9092,
    log: Annotated[Path | None, typer.Option(help="File for the broker's own log.")] = None,
) -> None:
    """Run the embedded broker in the foreground: for one machine, in memory, no Java.

    Example: kaohe broker --port 9092
    """
    from kaohe.stream.broker import run_broker

    run_broker(port, lambda address: say(f"the embedded broker answers at {address}; Ctrl-C ends it"), log)


@topics_app.command("create")
def topics_create(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create the topics that are missing; safe to repeat.

    Example: KAOHE_BROKER=127.0.0.1:9092 kaohe topics create
    """
    from kaohe.stream.topics import create_topics

    states = create_topics(load_settings())
    if as_json:
        print_json(states)
        return
    for state in states:
        typer.echo(
            f"{state.name}: {state.partitions} partitions, {'created' if state.created else 'was there'}"
        )


def worker(
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            help="A version of a pack that judges beside the one in force, without effect; repeatable. "
            "Default: KAOHE_SHADOW_PACKS. All workers of a group need the same."
        ),
    ] = None,
) -> None:
    """Run a worker: events in, decisions, alerts and grades out, figures for Prometheus.

    Example: KAOHE_METRICS_PORT=9464 kaohe worker
    """
    from kaohe.packs.holidays import unknown_years
    from kaohe.stream.app import run_worker
    from kaohe.wallboard.exporter import WallboardExporter, start_exporter

    settings = load_settings()
    packs = chosen_packs(settings)
    shadows = chosen_shadows(settings, packs, shadow or [])
    make_partition, make_group = engine_factories(settings, packs, shadows)
    exporter = WallboardExporter(agents_max=settings.metrics_agents_max)
    server = start_exporter(settings.metrics_host, settings.metrics_port, exporter)
    named = ", ".join([*(pack.key for pack in packs), *(f"{pack.key} as a shadow" for pack in shadows)])

    def ready() -> None:
        say(f"worker for {named}; figures at {settings.metrics_host}:{server.port}/metrics")
        for warning in unknown_years((*packs, *shadows), datetime.now(UTC).date()):
            say(f"warning: {warning}")

    try:
        run_worker(settings, make_partition, make_group, exporter, ready)
    finally:
        server.stop()


def clock() -> None:
    """Write the ticks of wall time into every partition, one a second: live operation needs exactly this.

    Example: kaohe clock
    """
    from kaohe.stream.clock import run_clock

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = load_settings()
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            say(f"the clock ticks at {settings.broker}; Ctrl-C ends it")

    run_clock(settings, stop, on_tick=tell)


# --- feeding ----------------------------------------------------------------------------------------------------------


def entries_of(items: Iterable[SourceItem], *, ticks: bool) -> Iterator[Entry]:
    """What is to be written for the items of a recording, with the ticks of its own time or without."""
    from kaohe.adapters.log_clock import log_ticks
    from kaohe.stream.produce import tick_entry

    if not ticks:
        for item in items:
            yield _entry(item)
        return
    for kind, thing in log_ticks(items):
        found: Any = thing
        yield tick_entry(found) if kind == "tick" else _entry(found)


def _entry(item: SourceItem) -> Entry:
    from kaohe.decisions import ENCODER, Reject
    from kaohe.events import EVERYWHERE, encode
    from kaohe.stream.produce import Entry

    if item.event is not None:
        everywhere = isinstance(item.event.data, EVERYWHERE)
        return Entry(encode(item.event), item.event.subject, item.event.time, everywhere=everywhere)
    reject = Reject(
        code=item.reject_code, reason=item.reject_reason, topic=item.file, partition=0, offset=item.line,
        raw=base64.b64encode(item.raw).decode(),
    )  # fmt: skip
    return Entry(ENCODER.encode(reject), item.reject_code, None, REJECTS)


def produce_command(
    files: Annotated[list[Path], typer.Argument(help="Recorded files.", metavar="FILE...")],
    adapter: Annotated[str, typer.Option(help="How to read the files: anonymous-bank or events.")],
    speed: Annotated[
        float | None, typer.Option(help="1: as it happened, 60: a minute a second; else at once.")
    ] = None,
    clock: Annotated[
        str, typer.Option(help="log: write the ticks of the log's own time; none: no ticks.")
    ] = "none",
    zone: Annotated[
        str, typer.Option(help="Zone of files with local times; default: that of the packs.")
    ] = "",
) -> None:
    """Write recorded events into kaohe.events, each into the partition of its subject.

    Example: kaohe produce calls.tsv --adapter anonymous-bank --clock log
    """
    from kaohe.adapters import adapter_named, read_files
    from kaohe.stream.produce import produce

    if clock not in ("log", "none"):
        raise UsageError(f"--clock is {clock!r}; it is log or none.")
    settings = load_settings()
    source = adapter_named(adapter)
    local = zone_named(zone) if zone else ZoneInfo(chosen_packs(settings)[0].zone)
    items = read_files(files, source, local, chosen_pseudonyms())
    with progress("Producing", "events") as advance:
        done = produce(settings, entries_of(items, ticks=clock == "log"), speed, advance)
    say(f"{done.events:,} events and {done.tick_records:,} ticks written to {settings.broker}")


def simulate_command(
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")],
    agents: Annotated[int, typer.Option(help="How many agents.")],
    out: Annotated[Path, typer.Option(help="File to write, one event a line.")],
    days: Annotated[int, typer.Option(help="How many days of a busy floor.")] = 0,
    months: Annotated[int, typer.Option(help="Or: how many months of a whole company.")] = 0,
    start: Annotated[str, typer.Option(help="First day; default: a Monday, or the first of a month.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of the floor.")] = "Asia/Shanghai",
) -> None:
    """Write the events of a simulated contact centre: days of a busy floor, or months of a whole company.

    A company has five departments and two sites, each with its own time zone; its people have the events that
    appraisal is about, assessments and appeals among them, and a sample of calls. What is said about the last month
    comes in the two weeks after it.

    Example: kaohe simulate --seed 1 --agents 40 --days 31 --out august.jsonl

    Example: kaohe simulate --seed 1 --agents 300 --months 14 --out company.jsonl
    """
    from kaohe.adapters.simulator import START, simulate
    from kaohe.adapters.simulator_company import FIRST_MONTH, SITES, simulate_company
    from kaohe.events import encode

    if bool(days) == bool(months):
        raise UsageError("give either --days of a busy floor or --months of a whole company.")
    try:
        first = date.fromisoformat(start) if start else FIRST_MONTH if months else START
    except ValueError:
        raise UsageError(f"--start is {start!r}; give a day such as 2026-08-03.") from None
    if months:
        events = simulate_company(seed, agents, months, first)
    else:
        events = simulate(seed, agents, days, first, zone_named(zone))
    begun = list(islice(events, 1))  # what cannot be simulated is said before the file is touched
    count = 0
    try:
        with progress("Simulating", "events") as advance, out.open("wb") as file:
            for event in chain(begun, events):
                file.write(encode(event) + b"\n")
                count += 1
                if count % 5_000 == 0:
                    advance(count)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; name a file that can be written.") from None
    say(f"{count:,} events: {out}")
    if months:
        zones = ", ".join(f'{site} = "{zone}"' for site, zone in SITES.items())
        say(f"the zones of its sites, for kaohe.toml: sites = {{ {zones} }}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(broker)
    app.command()(worker)
    app.command()(clock)
    app.command("produce")(produce_command)
    app.command("simulate")(simulate_command)
