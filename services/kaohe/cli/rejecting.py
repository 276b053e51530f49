"""``kaohe rejects``: what the workers refused, and why; whoever writes by command looks here."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.settings import load_settings


def rejects(
    subject: Annotated[str, typer.Option(help="Only of this subject, mostly an agent.")] = "",
    code: Annotated[str, typer.Option(help="Only with this code, such as not_allowed.")] = "",
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many, the newest ones.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the events that could not be used: which one, and why.

    Example: kaohe rejects --subject a-17
    """
    from kaohe.stream.rejects import read_rejects

    with console.progress("Reading kaohe.rejects", "records") as advance:
        found = read_rejects(load_settings(), advance)
    chosen = [one for one in found if subject in ("", one.subject) and code in ("", one.code)][-last:]
    if as_json:
        console.print_json(chosen)
        return
    if not chosen:
        console.say("nothing was refused.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("time", "subject", "type", "code", "why", "where"):
        table.add_column(column)
    for one in chosen:
        place = f"{one.topic}[{one.partition}] {one.offset}"
        table.add_row(one.time[:19], one.subject, one.type, one.code, one.reason, place)
    console.show(table)


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(rejects)
