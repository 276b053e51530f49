"""``kaohe explain``: why a decision, an alert, a grade or an amount of pay is what it is."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from kaohe.cli import console
from kaohe.cli.rules import Lang
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.explain import Entry, Events

PAY_ID = re.compile(r"[bsp]-[0-9a-f]{24}")
"""An id of pay; shorter names that begin like one may be anybody's, such as a shift's."""
ENTRY_IDS = ("d-", "w-", "g-")


def explain(
    decision_id: Annotated[
        str,
        typer.Argument(
            help="The id: d-… (decision), w-… (alert), g-… (grade), b-… (batch), s-… (statement), p-… (entry of pay), "
            "or what was judged: an appeal, a complaint, a shift.",
            metavar="ID",
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A .jsonl file, the folder of a replay, or an export of pay; default: the ledger."
        ),
    ] = None,
    events: Annotated[
        list[Path] | None,
        typer.Option(
            help="A recorded log (repeatable): tells of each event that a decision rests on when it was and what it "
            "says, and finds all of them where the decision names some."
        ),
    ] = None,
    adapter: Annotated[str, typer.Option(help="How to read --events: events or anonymous-bank.")] = "events",
    pack: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the pack that decided is, by name or folder; default: the packs of the settings."
        ),
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the labels.")] = Lang.en,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain a decision: the sentence, and clause, rule, parameters, facts, evidence and arithmetic as a tree.

    An entry of pay is followed to the decision or grade that it comes from.

    Example: kaohe explain d-0123456789abcdef01234567 --from february --events february.jsonl
    """
    language: Literal["en", "zh"] = "zh" if lang is Lang.zh else "en"
    if events and not decision_id.startswith(ENTRY_IDS):
        raise UsageError("--events goes with the id of a decision, an alert or a grade (d-, w-, g-).")
    if PAY_ID.fullmatch(decision_id):
        _explain_pay(decision_id, source, language, as_json)
    elif decision_id.startswith(ENTRY_IDS) or not _explain_incident(decision_id, source, language, as_json):
        log = _Log(events, adapter, pack or []) if events else None
        _explain_entry(decision_id, source, language, as_json, log)


def _explain_pay(pay_id: str, source: Path | None, language: Literal["en", "zh"], as_json: bool) -> None:
    from kaohe.explain_pay import find_in_file, find_in_ledger, shown

    found = find_in_file(source, pay_id) if source else find_in_ledger(load_settings().database_url, pay_id)
    if as_json:
        console.print_json(found)
    else:
        console.show(shown(found, language))


def _explain_incident(name: str, source: Path | None, language: Literal["en", "zh"], as_json: bool) -> bool:
    """Tell what was decided about an appeal, a complaint, a shift; False where nothing was."""
    from kaohe.explain import about_in_folder, about_in_ledger, about_shown

    if source is None:
        found = about_in_ledger(load_settings().database_url, name)
    elif source.is_dir():
        found = about_in_folder(source, name)
    else:
        return False
    if found.nothing:
        return False
    if as_json:
        console.print_json(found)
    else:
        console.show(about_shown(found, language))
    return True


class _Log(NamedTuple):
    """A recorded log, how it is read, and which packs are named to judge it."""

    files: list[Path]
    adapter: str
    packs: list[str]


def _events(revisions: Sequence[Entry], log: _Log) -> Events:
    """The events that an entry rests on, from a log."""
    from kaohe.adapters import adapter_named, read_files
    from kaohe.cli.wiring import chosen_packs, chosen_pseudonyms, chosen_zones, zone_named
    from kaohe.explain import current
    from kaohe.explain_events import events_of

    settings, entry = load_settings(), current(revisions)
    named = log.packs or ([] if entry.pack in settings.packs else [entry.pack])
    packs = [one for one in chosen_packs(settings, named) if one.name == entry.pack]
    if not any(one.version == entry.pack_version for one in packs):
        there = ", ".join(one.version for one in packs) or "none"
        raise UsageError(
            f"{entry.id} was decided by {entry.pack} {entry.pack_version}; here is {there}. Name its folder by --pack."
        )
    source, zone = adapter_named(log.adapter), zone_named(packs[0].zone)
    zones = chosen_zones(settings, packs)
    return events_of(
        revisions, packs, zones, lambda: read_files(log.files, source, zone, chosen_pseudonyms())
    )


def _explain_entry(
    entry_id: str, source: Path | None, language: Literal["en", "zh"], as_json: bool, log: _Log | None
) -> None:
    from kaohe.explain import as_json as explanation_json
    from kaohe.explain import explanation, find_in_file, find_in_ledger

    if source is not None:
        revisions = find_in_file(source, entry_id)
    else:
        revisions = find_in_ledger(load_settings().database_url, entry_id)
    events = _events(revisions, log) if log is not None else None
    if as_json:
        typer.echo(explanation_json(revisions, events))
        return
    console.show(explanation(revisions, language, events=events))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)
