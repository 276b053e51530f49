"""``kaohe period``: how the periods of the packs stand, closing one early and opening one again.

Closing and opening are events for every partition; what the engines refuse stands in ``kaohe.rejects``. The state is
read from the grades in the ledger: a period is closed when every grade of it is final.
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
    from kaohe.decisions import Grade

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
    """How many grades of a pack, level and period are final, and how many may still move."""

    pack: str
    level: str
    window: str
    period: str
    state: str
    final: int
    provisional: int
    newest: str


@app.command()
def status(
    pack: Annotated[str, typer.Option(help="Only of this pack.")] = "", as_json: Json = False
) -> None:  # fmt: skip
    """Show the periods in the ledger: open, or closed with every grade final.

    Example: kaohe period status --pack logistics-service
    """
    from kaohe.payroll.ledger import Ledger

    with Ledger(load_settings().database_url) as ledger:
        found = [one for one in lines_of(ledger.current_grades()) if pack in ("", one.pack)]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.say("there is no grade in the ledger yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pack", "level", "period", "state", "final", "provisional", "newest"):
        table.add_column(column)
    for one in found:
        counts = str(one.final), str(one.provisional)
        table.add_row(one.pack, one.level, one.period, one.state, *counts, one.newest)
    console.show(table)


def lines_of(grades: Iterable[Grade]) -> list[PeriodLine]:
    """The periods of some grades, newest first."""
    grouped: dict[tuple[str, str, str, str], list[Grade]] = {}
    for grade in grades:
        grouped.setdefault((grade.period, grade.pack, grade.level, grade.window), []).append(grade)
    found = []
    for (period, pack, level, window), several in sorted(grouped.items(), reverse=True):
        final = sum(one.status == "final" for one in several)
        left = len(several) - final
        found.append(
            PeriodLine(
                pack=pack, level=level, window=window, period=period, state="open" if left else "closed", final=final,
                provisional=left, newest=max(one.at for one in several),
            )
        )  # fmt: skip
    return found


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
