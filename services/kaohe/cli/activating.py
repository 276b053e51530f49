"""``kaohe rules activate`` and ``activations``: which version of a pack judges, since when, by whom and why.

A version is activated by an event in the log, never by a setting: what judged an event is then a property of the log.
Whoever activates sees first what changes, and must name an approver and a reason. Packs are those of the configuration
(``KAOHE_PACKS``), for the workers can only activate what they have loaded.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.replaying import moment_ms
from kaohe.cli.rules import Lang, print_diff
from kaohe.cli.wiring import chosen_packs, chosen_pseudonyms, zone_named
from kaohe.errors import UsageError
from kaohe.settings import Settings, load_settings

if TYPE_CHECKING:
    from kaohe.core.model import Pack
    from kaohe.stream.activations import Activation

WORDS_MAX = 200
REASON_MAX = 2_000


def activate(
    pack: Annotated[str, typer.Argument(help="The pack's name.", metavar="PACK")],
    version: Annotated[str, typer.Argument(help="The version that is to judge.", metavar="VERSION")],
    by: Annotated[str, typer.Option(help="Who approved it.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    moment: Annotated[
        str,
        typer.Option("--at", help="The event's time (RFC 3339); default: now. It takes effect on arrival."),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the event as one JSON document.")] = False,
    lang: Annotated[Lang, typer.Option(help="Language of what is shown.")] = Lang.en,
) -> None:
    """Let another version of a pack judge from now on: show what changes, ask, and write the event to every partition.

    Ends with 0 when it was written or the version judges already, with 1 when the answer was no.

    Example: kaohe rules activate front-desk 1.1 --by hr-07 --reason "Resolved on 3 September"
    """
    from kaohe.events import encode
    from kaohe.stream.activations import activation_event, newest_version, read_activations, write_activation

    _check_words(by, "--by", WORDS_MAX)
    _check_words(reason, "--reason", REASON_MAX)
    settings = load_settings()
    packs = chosen_packs(settings)
    chosen = _version(packs, pack, version)
    at = _moment(moment, chosen.zone)
    with console.progress("Looking for what judges now", "records") as advance:
        before = _before(packs, pack, newest_version(read_activations(settings, advance), pack))
    if before.version == version:
        console.say(f"{chosen.key} judges already; nothing was written.")
        return
    _tell_changes(before, chosen, lang, to_stdout=not as_json)
    if not yes and not _asked(f"Let {chosen.key} judge from now on, in place of {before.key}?"):
        console.say("nothing was activated.")
        raise typer.Exit(1)
    event = activation_event(pack, version, by.strip(), reason.strip(), at)
    partitions = write_activation(settings, event)
    if as_json:
        console.print_json(msgspec.Raw(encode(event)))
    else:
        console.show(
            f"{chosen.key} was activated by {by.strip()} in {partitions} partitions: {reason.strip()}"
        )


def _check_words(text: str, option: str, most: int) -> None:
    if not text.strip():
        raise UsageError(f"{option} is empty; an activation names who approved it and why.")
    if len(text) > most:
        raise UsageError(f"{option} has {len(text):,} characters; {most:,} are the most.")


def _version(packs: Sequence[Pack], name: str, version: str) -> Pack:
    """The loaded pack of this name and version. UsageError names what is loaded."""
    for one in packs:
        if (one.name, one.version) == (name, version):
            return one
    loaded = ", ".join(one.key for one in packs)
    raise UsageError(
        f"{name}@{version} is not among the packs of this configuration ({loaded}); add its folder to KAOHE_PACKS, "
        "beside the version that judges now, here and for the workers."
    )


def _before(packs: Sequence[Pack], name: str, activated: str) -> Pack:
    """The version that judges now: the one activated last, else the oldest, as the engines have it."""
    own = sorted((one for one in packs if one.name == name), key=lambda one: one.in_force_from)
    return next((one for one in own if one.version == activated), own[0])


def _moment(text: str, zone: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    return datetime.fromtimestamp(moment_ms(text, zone) / 1000, UTC)


def _tell_changes(before: Pack, after: Pack, lang: Lang, *, to_stdout: bool) -> None:
    from kaohe.packs.diff import diff

    found = diff(before, after)
    if found.changes:
        print_diff(found, "zh" if lang is Lang.zh else "en", err=not to_stdout)
    else:
        console.say(f"{after.key} says the same as {before.key}.")


def _asked(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise UsageError("nobody answered; say --yes where nobody can.") from None


# --- looking back -----------------------------------------------------------------------------------------------------


def activations(
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", help="A recorded log instead of the broker's; may be given several times."),
    ] = None,
    pack: Annotated[str, typer.Option(help="Only of this pack.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the activations in the log: when, which version, approved by whom and why, and those that were refused.

    Example: kaohe rules activations --pack front-desk
    """
    settings = load_settings()
    if source:
        found = _in_files(source)
    else:
        from kaohe.stream.activations import read_activations

        with console.progress("Reading kaohe.events", "records") as advance:
            found = read_activations(settings, advance)
    found = [one for one in found if not pack or one.pack == pack]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.say("no version was activated: of each pack the oldest one that is loaded judges.")
        return
    _show(found, settings)


def _in_files(files: list[Path]) -> list[Activation]:
    from kaohe.adapters import adapter_named, read_files
    from kaohe.events import PackActivated
    from kaohe.stream.activations import activation_of

    items = read_files(files, adapter_named("events"), zone_named("UTC"), chosen_pseudonyms())
    return [
        activation_of(item.event)
        for item in items
        if item.event is not None and isinstance(item.event.data, PackActivated)
    ]


def _show(found: Sequence[Activation], settings: Settings) -> None:
    zone = zone_named(chosen_packs(settings)[0].zone)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("at", "pack", "version", "by", "reason", ""):
        table.add_column(column)
    for one in found:
        local = one.at.astimezone(zone).isoformat(timespec="seconds")
        table.add_row(
            local, one.pack, one.version, one.by, one.reason, f"refused: {one.refused}" if one.refused else ""
        )
    console.show(table)


def register(app: typer.Typer) -> None:
    """Add the commands to ``kaohe rules``."""
    app.command()(activate)
    app.command()(activations)
