"""The ``kaohe`` command.

Exit codes: 0 all is well, 1 the work failed or found something wrong, 2 it was asked for wrongly, 130 interrupted.
An error that a user can act on is one sentence on standard error; there is never a traceback for one.
"""

from __future__ import annotations

import logging
import os
import sys

import click
import typer

from kaohe import __version__
from kaohe.errors import KaoheError

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
    version: bool = typer.Option(False, "--version", help="Show the version and end."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more to standard error."),
) -> None:
    """Events become metrics, and metrics become explained decisions.

    Example: kaohe demo
    """
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("kafka", "aiokafka", "faust", "mode", "alembic"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.CRITICAL)
    if version:
        typer.echo(f"kaohe {__version__}")
        raise typer.Exit


def _register() -> None:
    """Add the commands. Imported here so that an import error of one shows as such."""
    from kaohe.cli import explaining, replaying, running, rules, showing  # noqa: PLC0415 - see above

    app.add_typer(rules.app, name="rules")
    app.add_typer(running.topics_app, name="topics")
    for module in (replaying, running, explaining, showing):
        module.register(app)


def main() -> None:
    """Run the command line; never returns."""
    _register()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    command = typer.main.get_command(app)
    try:
        outcome = command.main(args=arguments, prog_name="kaohe", standalone_mode=False)
        return int(outcome) if isinstance(outcome, int) else 0
    except KaoheError as error:
        click.echo(f"kaohe: {error}", err=True)
        return error.exit_code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        click.echo(f"kaohe: {error.format_message()}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("kaohe: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
