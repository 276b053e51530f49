"""The ``kaohe`` command.

Exit codes: 0 all is well, 1 the work failed or found something wrong, 2 it was asked for wrongly, 130 interrupted, 143
ended from outside. An error that a user can act on is one sentence on standard error, never a traceback.

The modules of the commands import what is heavy (brokers, databases, engines) inside the command that needs it, so that
``kaohe --help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError  # typer carries its own click

from kaohe import __version__
from kaohe.errors import KaoheError

INTERRUPTED = 130
ENDED = 143
SERVICES = ("broker", "worker", "clock", "payroll")
"""They run for days, so their messages carry the time."""

app = typer.Typer(
    name="kaohe",
    help="Kaohe (考核): events of a contact centre become metrics, and metrics become explained decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and end."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more to standard error."),
) -> None:
    """Kaohe (考核): events of a contact centre become metrics, and metrics become explained decisions.

    Example: kaohe demo
    """
    if version:
        typer.echo(f"kaohe {__version__}")
        raise typer.Exit
    dated = verbose or context.invoked_subcommand in SERVICES
    layout = "%(asctime)s %(levelname)s %(name)s %(message)s" if dated else "kaohe: %(message)s"
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format=layout)
    for noisy in ("kafka", "aiokafka", "faust", "mode", "alembic"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.CRITICAL)


@functools.cache
def command() -> Any:
    """The whole command line."""
    from kaohe.cli import (  # noqa: PLC0415 - they need this package
        activating,
        appealing,
        assessing,
        backtesting,
        explaining,
        paying,
        periods,
        recording,
        rejecting,
        replaying,
        reporting,
        rules,
        running,
        scorecards,
        showing,
    )

    for module in (showing, replaying, backtesting):
        module.register(app)
    activating.register(rules.app)
    app.add_typer(rules.app, name="rules")
    explaining.register(app)
    appealing.register(app)
    assessing.register(app)
    recording.register(app)
    rejecting.register(app)
    scorecards.register(app)
    periods.register(app)
    reporting.register(app)
    app.add_typer(running.topics_app, name="topics")
    running.register(app)
    paying.register(app)
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line; never returns."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants to outlive its terminal
            signal.signal(number, _end)
    threading.excepthook = _on_thread_failure
    sys.exit(run(sys.argv[1:]))


def _end(_number: int, _frame: FrameType | None) -> None:
    """Leave in order: what is open is closed, children are ended, temporary folders go."""
    raise SystemExit(ENDED)


def _on_thread_failure(failure: threading.ExceptHookArgs) -> None:
    """A thread of a client library that is cancelled at the end of a command is no failure; anything else is shown."""
    if not issubclass(failure.exc_type, asyncio.CancelledError):
        threading.__excepthook__(failure)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. Every message goes to standard error, without a traceback."""
    try:
        outcome = command().main(args=arguments, prog_name="kaohe", standalone_mode=False)
        sys.stdout.flush()
        exit_code = outcome if isinstance(outcome, int) else 0
        return _told("interrupted", INTERRUPTED) if exit_code == INTERRUPTED else exit_code
    except KaoheError as error:
        return _told(str(error), error.exit_code)
    except typer.Exit as ended:
        return ended.exit_code
    except NoArgsIsHelpError as error:  # the help is printed by then
        return error.exit_code
    except ClickException as error:
        return _told(_one_line(error.format_message()), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _told("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _told(text: str, exit_code: int) -> int:
    typer.echo(f"kaohe: {text}", err=True)
    return exit_code


def _one_line(text: str) -> str:
    return " ".join(text.split())
