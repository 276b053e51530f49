"""``kaohe period``: how the periods of the packs stand, closing one early and opening one again.

Closing and opening are events for every partition; what the engines refuse stands in ``kaohe.rejects``. The state is
read from the ledger: a period is closed when every grade of it is final or withdrawn and no alert stands that says that
it was opened again. That alert comes with the order itself, before anything of the period moves.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.sending import PERIODS, moment_of, send_one, step_id
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.decisions import Alert, Grade

app = typer.Typer(help="Periods: how they stand, close one early, open one again.", no_args_is_help=True)

Pack = Annotated[str, typer.Argument(help="The pack's name.", metavar="PACK")]
Period = Annotated[str, typer.Argument(help="The period, such as 2026-08.", metavar="PERIOD")]
By = Annotated[str, typer.Option(help="Who says so.")]
Why = Annotated[str, typer.Option(help="Why.")]
Window = Annotated[str, typer.Option(help="day, week, month, quarter or year.")]
At = Annotated[
    str, typer.Option("--at", help="The event's time (RFC 3339); default: now. It counts on arrival.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class PeriodLine(msgspec.Struct, frozen=True, kw_only=True):
    """How many grades of a pack, level and period are final, how many may still move, and how many were withdrawn
    because the pack was not in force for somebody any more when the period ended.

    ``opened_by``, ``opened_why`` and ``opened_since`` are those of a period that was opened again and is open still;
    ``level`` is empty where nobody has a grade of it yet.
    """

    pack: str
    level: str
    window: str
    period: str
    state: str
    final: int
    provisional: int
    withdrawn: int
    newest: str
    opened_by: str = ""
    opened_why: str = ""
    opened_since: str = ""


@app.command()
def status(
    pack: Annotated[str, typer.Option(help="Only of this pack.")] = "", as_json: Json = False
) -> None:  # fmt: skip
    """Show the periods in the ledger: open, open again (by whom, why, since when), or closed with every grade final.

    Example: kaohe period status --pack logistics-service
    """
    from kaohe.decisions import REOPENED_RULE
    from kaohe.payroll.ledger import Ledger

    with Ledger(load_settings().database_url) as ledger:
        lines = lines_of(ledger.current_grades(), ledger.all_alerts(rule=REOPENED_RULE))
    found = [one for one in lines if pack in ("", one.pack)]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.say("there is no grade in the ledger yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = (
        "pack",
        "level",
        "period",
        "state",
        "final",
        "provisional",
        "withdrawn",
        "newest",
        "opened again",
    )
    for column in columns:
        table.add_column(column)
    for one in found:
        counts = str(one.final), str(one.provisional), str(one.withdrawn)
        opened = f"by {one.opened_by} since {one.opened_since}: {one.opened_why}" if one.opened_by else ""
        table.add_row(one.pack, one.level, one.period, one.state, *counts, one.newest, opened)
    console.show(table)


def lines_of(grades: Iterable[Grade], alerts: Iterable[Alert] = ()) -> list[PeriodLine]:
    """The periods of some grades, newest first. ``alerts`` say which ones were opened again."""
    grouped: dict[tuple[str, str, str, str], list[Grade]] = {}
    for grade in grades:
        grouped.setdefault((grade.period, grade.pack, grade.level, grade.window), []).append(grade)
    opened = _opened(alerts)
    for period, pack, window in opened.keys() - {(key[0], key[1], key[3]) for key in grouped}:
        grouped[period, pack, "", window] = []
    found = []
    for (period, pack, level, window), several in sorted(grouped.items(), reverse=True):
        final = sum(one.status == "final" for one in several)
        withdrawn = sum(one.status == "withdrawn" for one in several)
        left = len(several) - final - withdrawn
        again = opened.get((period, pack, window))
        facts = again.facts if again is not None else {}
        found.append(
            PeriodLine(
                pack=pack, level=level, window=window, period=period, state="open" if left or again else "closed",
                final=final, provisional=left, withdrawn=withdrawn, newest=max((one.at for one in several), default=""),
                opened_by=facts["by"].value or "" if again is not None else "",
                opened_why=facts["reason"].value or "" if again is not None else "",
                opened_since=again.since if again is not None else "",
            )
        )  # fmt: skip
    return found


def _opened(alerts: Iterable[Alert]) -> dict[tuple[str, str, str], Alert]:
    """By period, pack and window: what says that it is open again. One that was closed since is left out."""
    from kaohe.decisions import REOPENED_RULE

    told = [one for one in alerts if one.rule == REOPENED_RULE]
    ended = {one.id for one in told if one.state == "resolved"}
    return {
        (one.incident, one.pack, one.facts["window"].value or ""): one for one in told if one.id not in ended
    }


def _judging(name: str) -> None:
    """UsageError when no pack of this name judges here: the workers would refuse what is said of it."""
    names = sorted({pack.name for pack in chosen_packs(load_settings())})
    if name not in names:
        raise UsageError(f"no pack {name!r} judges here; KAOHE_PACKS names {', '.join(names)}.")


def _order(
    tag: str, pack: str, period: str, window: str, by: str, reason: str, at: str, as_json: bool
) -> None:
    from kaohe.core.calendars import WINDOWS, bounds_of

    moment = moment_of(at)
    _judging(pack)
    if window not in WINDOWS:
        raise UsageError(f"--window is {window!r}; it is one of {', '.join(WINDOWS)}.")
    bounds_of(window, period)
    own_id = f"{pack}/{period}/{tag}/{moment.isoformat(timespec='milliseconds')}"
    data = {"pack": pack, "window": window, "period": period, "by": by, "reason": reason}
    send_one(tag, PERIODS, own_id, data, moment, as_json, everywhere=True)


@app.command()
def close(
    pack: Pack, period: Period, by: By, reason: Why, window: Window = "month", at: At = "", as_json: Json = False
) -> None:  # fmt: skip
    """Close a period that is over before its grace is, or one that was opened again.

    Example: kaohe period close logistics-service 2026-08 --by hr-1 --reason "All evidence is in"
    """
    _order("period.closed", pack, period, window, by, reason, at, as_json)


@app.command()
def reopen(
    pack: Pack, period: Period, by: By, reason: Why, window: Window = "month", at: At = "", as_json: Json = False
) -> None:  # fmt: skip
    """Let a closed period take late events itself again; what differs is reversed and charged anew in it.

    Example: kaohe period reopen logistics-service 2026-08 --by hr-1 --reason "The survey of site 2 was lost"
    """
    _order("period.reopened", pack, period, window, by, reason, at, as_json)


@app.command()
def done(
    pack: Pack,
    period: Period,
    step: Annotated[str, typer.Argument(help="The step's id in workflow.yaml.", metavar="STEP")],
    by: By,
    team: Annotated[str, typer.Option(help="Whose step it was; empty: the company's.")] = "",
    department: Annotated[str, typer.Option(help="The department whose step it was.")] = "",
    at: At = "",
    as_json: Json = False,
) -> None:
    """Note that a step of the calendar was done; the alerts about it end.

    Example: kaohe period done company-kpi 2026-08 plans --department sales --by m-2
    """
    moment = moment_of(at)
    _judging(pack)
    data = {"pack": pack, "period": period, "step": step, "team": team, "department": department, "by": by}
    own_id = step_id(pack, period, step, department or team)
    send_one("step.done", PERIODS, own_id, data, moment, as_json, everywhere=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="period")
