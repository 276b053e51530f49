"""What the commands share: where results, messages and progress go, and how.

Results go to standard output; messages and progress to standard error. Progress bars and colour are for terminals;
elsewhere a long work says a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import typer
from rich.console import Console, RenderableType

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

QUIET_EVERY_S = 10.0
"""Off a terminal a long work speaks this often."""
UNFOLDED_COLUMNS = 10_000
"""Off a terminal a line is as long as it is: what reads it is a file or another program."""


class Advance(Protocol):
    """Tells how far a work has come."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` units in all so far."""
        ...


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Advance]:
    """Show the progress of a long work on standard error."""
    if not err.is_terminal:
        last_s = time.monotonic()

        def tell(done: int, note: str = "") -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= QUIET_EVERY_S:
                last_s = time.monotonic()
                say(f"{what}: {done:,} {unit} {note}".rstrip())

        yield tell
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    counted = TextColumn("{task.completed:,} {task.fields[unit]} {task.fields[note]}")
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        counted,
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=total, note="", unit=unit)

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield advance


def print_json(data: Any) -> None:
    """One indented JSON document on standard output."""
    encoded = msgspec.json.encode(data, order="deterministic")
    typer.echo(msgspec.json.format(encoded, indent=2).decode())


def show(what: RenderableType) -> None:
    """A result on standard output: folded to the width of a terminal, unfolded elsewhere."""
    where = out if out.is_terminal else Console(highlight=False, width=UNFOLDED_COLUMNS)
    where.print(what, markup=False)


def say(text: str) -> None:
    """A message on standard error."""
    err.print(text, markup=False, soft_wrap=True)
