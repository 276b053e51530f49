"""``kaohe demo`` and ``kaohe up``: the whole way of an event on one machine, live in the terminal.

Theory of operation. ``standing.py`` runs the parts; here they are only looked at from outside: figures from the
worker's Prometheus endpoint, entries and grades from the ledger, once a second. The month is over when every partition
has passed its last tick and the ledger holds every revision that the worker has decided.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kaohe.cli import console
from kaohe.errors import KaoheError

if TYPE_CHECKING:
    from kaohe.cli.board import Board
    from kaohe.cli.standing import Feeder, Stack
    from kaohe.decisions import Decision
    from kaohe.explain import Entry

FIRST_DAY = date(2026, 8, 1)
DAYS = 31
AGENTS = 8
AGENTS_MAX = 500
SEED = 2026
ZONE = "Asia/Shanghai"
DEMO_SPEED = 80_000.0
"""A month in about half a minute; a slower machine takes the time that it needs."""
UP_SPEED = 3_600.0
UP_DAYS = 3_650
CLOSED_AFTER = timedelta(days=3, hours=1)
"""The month's entries are final when the packs' grace (72 hours) is over."""
GIVE_UP_S = 600.0
REFRESH_S = 0.5
SAY_EVERY_S = 5.0
QUIET_S = 10.0
EXPLAINED = 3


def _watch(stack: Stack, feeder: Feeder, board: Board, done: Callable[[], bool]) -> None:
    """Show the board until ``done``; off a terminal a line every few seconds."""
    from rich.live import Live

    started_s = last_s = time.monotonic()
    with ExitStack() as context:
        live = (
            context.enter_context(Live(console=console.err, auto_refresh=False))
            if console.err.is_terminal
            else None
        )
        while True:
            stack.check()
            feeder.check()
            board.refresh(feeder.events)
            if live is not None:
                live.update(board.table(), refresh=True)
            elif time.monotonic() - last_s >= SAY_EVERY_S:
                last_s = time.monotonic()
                console.say(f"{last_s - started_s:3.0f} s: {board.line()}")
            if done():
                return
            time.sleep(REFRESH_S)


class Done:
    """Whether the month is over. Asks for the closing tick once everything before it has been judged."""

    def __init__(self, feeder: Feeder, board: Board, give_up_s: float = GIVE_UP_S) -> None:
        self._feeder = feeder
        self._board = board
        self._give_up_s = give_up_s
        self._started_s = self._changed_s = time.monotonic()
        self._rows = -1

    def __call__(self) -> bool:
        feeder, board, now_s = self._feeder, self._board, time.monotonic()
        if now_s - self._started_s > self._give_up_s:
            raise KaoheError(
                f"the month was not over within {self._give_up_s:.0f} s; is this machine very busy?"
            )
        if not feeder.written.is_set() or feeder.month.last_at is None or feeder.closing is None:
            return False
        if not feeder.close.is_set():
            if board.has_passed(feeder.month.last_at):
                board.keep_figures()
                feeder.close.set()
            return False
        if board.ledger.rows != self._rows:
            self._rows, self._changed_s = board.ledger.rows, now_s
        if feeder.is_alive() or not board.has_passed(feeder.closing):
            return False
        return board.ledger_is_complete() or now_s - self._changed_s >= QUIET_S


# --- the summary ------------------------------------------------------------------------------------------------------


def chosen_for_explaining(entries: list[Decision], count: int = EXPLAINED) -> list[Decision]:
    """Final entries of as many packs, kinds and rules as possible, the weightiest of each first."""
    final = [entry for entry in entries if entry.status == "final" and entry.kind in ("deduct", "award")]
    left = sorted(final, key=lambda one: (-abs(float(one.points)), one.id))
    chosen: list[Decision] = []
    while left and len(chosen) < count:
        left.sort(
            key=lambda one: (
                any(one.rule == other.rule for other in chosen),
                any((one.pack, one.kind) == (other.pack, other.kind) for other in chosen),
                any(one.subject == other.subject for other in chosen),
            )
        )
        chosen.append(left.pop(0))
    return chosen


def _summary(board: Board) -> list[Decision]:
    final = [entry for entry in board.ledger.entries if entry.status == "final"]
    deductions = sum(entry.kind == "deduct" and entry.points.startswith("-") for entry in final)
    awards = sum(entry.kind == "award" for entry in final)
    console.show(
        f"\n{FIRST_DAY:%B %Y} is closed: {len(final)} final entries in the ledger ({deductions} deductions, "
        f"{awards} awards, {len(final) - deductions - awards} without points) about "
        f"{len({entry.subject for entry in final})} agents; {board.ledger.alerts:,} changes of alerts."
    )
    shown = chosen_for_explaining(final)
    if len(shown) < EXPLAINED:
        raise KaoheError(f"only {len(shown)} entries can be explained; more agents or days give more.")
    console.show(f"\nThree of them, explained ({', '.join(entry.subject for entry in shown)}):")
    return shown


def _explain(shown: list[Decision], board: Board) -> None:
    from kaohe.explain import explanation

    for entry in shown:
        revisions: list[Entry] = list(board.ledger.decisions(entry.id))
        console.show("")
        console.show(explanation(revisions))


def _look_further(stack: Stack, shown: list[Decision], kept: bool) -> None:
    if kept:
        there = f"KAOHE_CONFIG={stack.config}"
        lines = [
            ("ledger and logs", str(stack.folder)),
            ("the first one in Chinese", f"{there} kaohe explain {shown[0].id} --lang zh"),
        ]
    else:
        lines = [("keep ledger and logs", "kaohe demo --keep FOLDER")]
    lines += [
        ("the first one's rule", f"kaohe rules explain {shown[0].rule}"),
        ("its whole policy", f"kaohe rules show {shown[0].pack}"),
        ("a centre without an end", "kaohe up"),
    ]
    console.show("\nTo look further:")
    for what, how in lines:
        console.out.print(f"  {what:<25} {how}", markup=False, soft_wrap=True)


# --- the commands -----------------------------------------------------------------------------------------------------


def _folder(context: ExitStack, keep: Path | None, prefix: str) -> Path:
    return keep or Path(
        context.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
    )


def demo(
    agents: Annotated[
        int, typer.Option(min=1, max=AGENTS_MAX, help="Agents of the simulated centre.")
    ] = AGENTS,
    days: Annotated[int, typer.Option(min=1, max=DAYS, help="Days, from the first of August 2026.")] = DAYS,
    speed: Annotated[float, typer.Option(min=1, help="How many times faster than life.")] = DEMO_SPEED,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for ledger and logs; default: a temporary one.")
    ] = None,
) -> None:
    """Show the whole way of an event: a simulated month through broker, worker and ledger, in about a minute.

    Example: kaohe demo
    """
    from kaohe.cli.board import Board
    from kaohe.cli.standing import Feeder, Month, Stack

    started_s = time.monotonic()
    with ExitStack() as context:
        stack = Stack(_folder(context, keep, "kaohe-demo-"))
        context.callback(stack.stop)
        month = Month(SEED, agents, days, FIRST_DAY, ZONE)
        console.say(f"Starting broker, worker and payroll; a month of {agents} agents follows.")
        stack.start()
        feeder = Feeder(stack.settings, month, speed, month.closed_at(CLOSED_AFTER))
        context.callback(feeder.end)
        feeder.start()
        board = context.enter_context(Board(stack.settings, ZONE, "a simulated month", (FIRST_DAY, days)))
        _watch(stack, feeder, board, Done(feeder, board))
        shown = _summary(board)
        _explain(shown, board)
        _look_further(stack, shown, keep is not None)
    console.say(f"\nDone in {time.monotonic() - started_s:.0f} s.")


def up(
    agents: Annotated[
        int, typer.Option(min=1, max=AGENTS_MAX, help="Agents of the simulated centre.")
    ] = AGENTS,
    speed: Annotated[float, typer.Option(min=1, help="How many times faster than life.")] = UP_SPEED,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for ledger and logs; default: a temporary one.")
    ] = None,
) -> None:
    """The same as demo without an end: the simulated centre goes on until Ctrl-C.

    Example: kaohe up --speed 600
    """
    from kaohe.cli.board import Board
    from kaohe.cli.standing import Feeder, Month, Stack

    with ExitStack() as context:
        stack = Stack(_folder(context, keep, "kaohe-up-"))
        context.callback(stack.stop)
        month = Month(SEED, agents, UP_DAYS, FIRST_DAY, ZONE)
        console.say(f"Starting broker, worker and payroll; a centre of {agents} agents follows.")
        stack.start()
        settings = stack.settings
        console.say(
            f"Settings:  KAOHE_CONFIG={stack.config}\n"
            f"Broker:    {settings.broker}\n"
            f"Figures:   http://{settings.metrics_host}:{settings.metrics_port}/metrics\n"
            f"Ctrl-C ends it."
        )
        feeder = Feeder(settings, month, speed, None)
        context.callback(feeder.end)
        feeder.start()
        board = context.enter_context(Board(settings, ZONE, f"{speed:,.0f} times faster than life", None))
        _watch(stack, feeder, board, feeder.written.is_set)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(up)
