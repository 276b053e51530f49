"""Running a command of ours in this process, as a shell would: what it prints, and with which code it ends."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import NamedTuple

import pytest

from kaohe.cli import run

RULES = Path(__file__).resolve().parents[2] / "rules"
LOGGERS = ("kafka", "aiokafka", "faust", "mode", "alembic")


class Result(NamedTuple):
    """What a command printed, and with which code it ended."""

    exit_code: int
    stdout: str
    stderr: str


def kaohe(*arguments: str) -> Result:
    """Run one command on our packs. The loggers that a command makes silent are as before afterwards."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv("KAOHE_RULES", str(RULES))
        exit_code = run(list(arguments))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    return Result(exit_code, out.getvalue(), err.getvalue())
