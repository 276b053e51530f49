"""What commands that write share: one event into ``kaohe.events``, checked like any other before it goes."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kaohe.cli import console
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import UsageError

if TYPE_CHECKING:
    from kaohe.settings import Settings

SOURCE = "kaohe/people"
"""Where events come from that people give on the command line."""
PERIODS = "periods"
"""The subject of events about periods as such."""


def moment_of(text: str) -> datetime:
    """The moment that an option gives (RFC 3339 with an offset); now where it is empty. UsageError otherwise."""
    if not text:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(f"--at {text!r} is no moment with an offset; write it as 2026-08-03T09:00:00+08:00.")
    return moment.astimezone(UTC)


def send_one(
    tag: str,
    subject: str,
    event_id: str,
    data: Mapping[str, Any],
    moment: datetime,
    as_json: bool,
    *,
    everywhere: bool = False,
) -> None:
    """Write one event, and say so. UsageError for data that no event of this type can carry.

    The same event given twice counts once: ``event_id`` says what it is. ``everywhere``: into every partition.
    """
    from kaohe.events import PAYLOADS, encode, make
    from kaohe.settings import load_settings
    from kaohe.stream.produce import Entry, produce

    try:
        payload = msgspec.convert({key: value for key, value in data.items() if value != ""}, PAYLOADS[tag])
    except msgspec.ValidationError as error:
        raise UsageError(f"this cannot be sent: {error}.") from None
    event = make(tag, id=event_id, source=SOURCE, subject=subject, time=moment, data=payload)
    raw = encode(event)
    produce(load_settings(), [Entry(raw, subject, everywhere=everywhere)])
    if as_json:
        console.print_json(msgspec.Raw(raw))
    else:
        console.show(f"{tag} of {subject} was written as {event_id}.")
        console.say("'kaohe rejects' shows it if a worker refuses it.")


def step_id(pack: str, period: str, step: str, doer: str = "") -> str:
    """The id of the event that says that a step was done: by ``doer``, a team or department, or the company."""
    return f"{pack}/{period}/{step}/{doer}"


def note_steps(settings: Settings, tag: str, period: str, by: str, moment: datetime) -> None:
    """Note the steps of calendars that an event of pay carries out (``noted_by``), for each pack that judges."""
    from kaohe.events import StepDone, encode, make
    from kaohe.stream.produce import Entry, produce

    entries = []
    for pack in chosen_packs(settings):
        for step in pack.workflow.steps if pack.workflow is not None else ():
            if step.noted_by == tag:
                data = StepDone(pack=pack.name, period=period, step=step.id, by=by)
                own_id = step_id(pack.name, period, step.id)
                event = make("step.done", id=own_id, source=SOURCE, subject=PERIODS, time=moment, data=data)
                entries.append(Entry(encode(event), PERIODS, everywhere=True))
    if entries:
        produce(settings, entries)
