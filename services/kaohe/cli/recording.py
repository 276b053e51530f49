"""``kaohe record``: write one event of any type that people, not machines, know of.

A goal that was signed, an interview, a measure that was carried out, an exemption, leave, a task that is done, an alert
that somebody takes care of: all of them are events with fields, and the event's own struct says which. Without a type
the types are listed, with a type alone its fields are told; with fields the event is checked like any other before it
goes. What has a command of its own (an appeal, an assessment, a period, a settlement) is refused here and the
command is named, because that command checks more.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import types
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.sending import moment_of, send_one
from kaohe.errors import UsageError

GROUPS = ("queue", "team", "site", "department")
"""Whose event it is where it has no agent, in this order."""
OWN_COMMANDS = {
    "appeal.": "kaohe appeal", "assessment.": "kaohe assess", "period.": "kaohe period", "step.": "kaohe period done",
    "settlement.": "kaohe settle and kaohe payroll", "pack.": "kaohe rules activate", "clock.tick": "kaohe clock",
}  # fmt: skip
"""What begins the types that have a command of their own."""


class FieldLine(msgspec.Struct, frozen=True, kw_only=True):
    """One field of an event type: ``form`` says how its value is written."""

    name: str
    required: bool
    form: str


class TypeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One event type that can be recorded, with its meaning and fields."""

    type: str
    meaning: str
    fields: list[FieldLine]


def recordable() -> list[str]:
    """The event types that this command writes, in the order of their declaration."""
    from kaohe.events import DERIVED, PAYLOADS

    return [tag for tag in PAYLOADS if tag not in DERIVED and not own_command(tag)]


def own_command(tag: str) -> str:
    """The command that writes events of this type; empty where it is this one."""
    return next((named for prefix, named in OWN_COMMANDS.items() if tag.startswith(prefix)), "")


def described(tag: str) -> TypeLine:
    """What an event type means, and its fields; those that must be there first."""
    from kaohe.events import PAYLOADS

    payload = PAYLOADS[tag]
    hints = get_type_hints(payload, include_extras=True)
    lines = [
        FieldLine(name=one.name, required=one.required, form=form_of(hints[one.name]))
        for one in msgspec.structs.fields(payload)
    ]
    lines.sort(key=lambda one: not one.required)
    meaning = " ".join((payload.__doc__ or "").split()).replace("``", "'")
    return TypeLine(type=tag, meaning=meaning, fields=lines)


def form_of(hint: Any) -> str:
    """How a value of a type is written on a command line."""
    from datetime import datetime

    from kaohe import events

    told = {
        events.Day: "day, as 2026-08-03", events.ClockTime: "time of day, as 09:30",
        events.Month: "month, as 2026-08", events.Currency: "currency, as CNY",
        events.Score: "hundredths of a point: 8750 is 87.5", events.Millis: "milliseconds",
        events.Minor: "minor units: 1250 is 12.50", events.Pseudonym: "pseudonym: c- and hexadecimal digits",
    }  # fmt: skip
    if hint in told:
        return told[hint]
    arguments, origin = get_args(hint), get_origin(hint)
    if origin is Annotated:
        return form_of(arguments[0])
    if origin is Literal:
        return " | ".join(str(one) for one in arguments if one != "")
    if origin in (Union, types.UnionType):
        return " or ".join(form_of(one) for one in arguments if one is not type(None))
    if origin in (list, tuple):
        return "several, comma between them"
    known = {int: "whole number", bool: "true or false", datetime: "moment, as 2026-08-03T09:00:00+08:00"}
    return known.get(hint, "text")


def record(
    type_: Annotated[
        str, typer.Argument(help="The event's type, such as goal.signed; none: list them.", metavar="[TYPE]")
    ] = "",
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            help="Whose event it is, then its fields; none: show the type's.",
            metavar="[AGENT] FIELD=VALUE...",
        ),
    ] = None,
    at: Annotated[str, typer.Option("--at", help="The event's time (RFC 3339); default: now.")] = "",
    event_id: Annotated[
        str, typer.Option("--id", help="The event's id; default: made of all that it says.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write one event: goals, interviews, measures, leave, exemptions, tasks, acknowledged alerts and the like.

    Example: kaohe record goal.signed a-17 goal_id=g-3 who=employee
    """
    from kaohe.packs.source import nearest

    if not type_:
        _list(as_json)
        return
    if named := own_command(type_):
        raise UsageError(f"{type_} has a command of its own: {named}.")
    known = recordable()
    if type_ not in known:
        raise UsageError(f"there is no event type {type_!r} to record; {nearest(type_, known, 'type')}")
    told = described(type_)
    if not fields:
        _tell(told, as_json)
        return
    subject, data = read_fields(told, fields)
    moment = moment_of(at)
    stamp = moment.isoformat(timespec="milliseconds")
    digest = blake2b(msgspec.json.encode(data, order="deterministic"), digest_size=6).hexdigest()
    send_one(type_, subject, event_id or f"{subject}/{type_}/{stamp}/{digest}", data, moment, as_json)


def read_fields(told: TypeLine, given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Subject and data of an event from ``[AGENT] FIELD=VALUE...``. UsageError in words of the fields."""
    from kaohe.events import PAYLOADS
    from kaohe.packs.source import nearest

    names = [one.name for one in told.fields]
    texts: dict[str, str] = {}
    for number, one in enumerate(given):
        name, equals, value = one.partition("=")
        if not equals and number == 0:
            name, value = "agent", one
        elif not equals:
            raise UsageError(f"{one!r} is no field; write FIELD=VALUE, and the agent before all fields.")
        if name not in names:
            raise UsageError(f"{told.type} has no field {name!r}; {nearest(name, names, 'field')}")
        if name in texts:
            raise UsageError(f"{name} is given twice.")
        texts[name] = value
    missing = [one.name for one in told.fields if one.required and not texts.get(one.name)]
    if missing:
        raise UsageError(f"{told.type} lacks {', '.join(f'{name}=...' for name in missing)}.")
    subject = next((texts[name] for name in ("agent", *GROUPS) if texts.get(name)), "")
    if not subject:
        raise UsageError(f"whose event is it? Name the agent first, or give one of {', '.join(GROUPS[:3])}.")
    hints = get_type_hints(PAYLOADS[told.type], include_extras=True)
    forms = {one.name: one.form for one in told.fields}
    data = {name: _value(name, text, hints[name], forms[name]) for name, text in texts.items() if text != ""}
    if "customer" in data:
        _check_customer(data["customer"])
    return subject, data


def _value(name: str, text: str, hint: Any, form: str) -> Any:
    given: Any = [one.strip() for one in text.split(",")] if form.startswith("several") else text
    try:
        return msgspec.to_builtins(msgspec.convert(given, hint, strict=False))
    except msgspec.ValidationError as error:
        why = f" ({str(error).partition(' - at')[0]})" if form == "text" else ""
        raise UsageError(f"{name}={text!r} is not right{why}; it is written as {form}.") from None


def _check_customer(customer: str) -> None:
    from kaohe.events import is_pseudonym

    if not is_pseudonym(customer):
        raise UsageError(
            "customer must be a pseudonym (c- and 16 to 64 hexadecimal digits), never a number in clear."
        )


def _list(as_json: bool) -> None:
    found = [described(tag) for tag in recordable()]
    if as_json:
        console.print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("type")
    table.add_column("meaning")
    for one in found:
        table.add_row(one.type, one.meaning.partition(". ")[0].rstrip("."))
    console.show(table)
    console.say("'kaohe record TYPE' shows the fields of one of them.")


def _tell(told: TypeLine, as_json: bool) -> None:
    if as_json:
        console.print_json(told)
        return
    console.show(f"{told.type}: {told.meaning}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("field", "needed", "value"):
        table.add_column(column)
    for one in told.fields:
        table.add_row(one.name, "yes" if one.required else "", one.form)
    console.show(table)


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(record)
