"""``kaohe demo`` with a small centre: a closed month, explained entries, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaohe.payroll.ledger import Ledger

pytestmark = pytest.mark.slow

SOURCES = str(Path(__file__).resolve().parents[2] / "services")
SMALL = ("--agents", "4", "--days", "8", "--speed", "10000000")
DEADLINE_S = 240.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder that would mislead a demonstration which looked into it, and a folder for temporary things."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "rules").mkdir()
    (tmp_path / "kaohe.toml").write_text('broker = "127.0.0.1:1"\n', encoding="utf-8")
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong module')\n", encoding="utf-8")
    yield tmp_path
    assert list((tmp_path / "temporary").iterdir()) == [], "a temporary folder was left"
    assert descendants(tmp_path) == [], "a process was left"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in ``folder``, with settings of a user that it must not heed."""
    environment = os.environ | {
        "PYTHONPATH": SOURCES, "PYTHONSAFEPATH": "1", "TMPDIR": str(folder / "temporary"),
        "KAOHE_SECURITY_PROTOCOL": "SSL", "KAOHE_TEST_PLACE": str(folder),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "kaohe", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, cwd=folder,
    )  # fmt: skip


def descendants(folder: Path, log: str = "") -> list[int]:
    """The processes that write into a file of this name (any, when none is given) below ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or it is not ours
            target = (process / "fd" / "1").readlink()
            if target.is_relative_to(folder) and log in ("", target.name):
                found.append(int(process.name))
    return found


def test_a_month_is_closed_and_three_entries_are_explained(folder: Path) -> None:
    process = start(folder, "demo", *SMALL)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    found = re.search(r"August 2026 is closed: (\d+) final entries in the ledger \((\d+) deductions", out)
    assert found is not None, out
    assert int(found[1]) >= int(found[2]) >= 1
    assert out.count("\nClause ") == 3
    assert out.count("this one counts") == 3
    assert "To look further" in out
    assert "\x1b[" not in out + err, "colour off a terminal"


def test_what_is_kept_can_be_asked_afterwards(folder: Path) -> None:
    process = start(folder, "demo", *SMALL, "--keep", "kept")
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    with Ledger(f"sqlite:///{folder / 'kept' / 'ledger.db'}") as ledger:
        entries, grades = ledger.current_entries(), ledger.current_grades()
        assert ledger.conflicts() == []
    assert {one.status for one in entries} == {"final"}
    assert {one.status for one in grades if one.period == "2026-08"} == {"final"}
    command = re.search(r"KAOHE_CONFIG=(\S+) kaohe (explain \S+ --lang zh)", out)
    assert command is not None, out
    environment = os.environ | {"PYTHONPATH": SOURCES, "KAOHE_CONFIG": command[1]}
    explained = subprocess.run(
        [sys.executable, "-m", "kaohe", *command[2].split()],
        check=True, capture_output=True, text=True, env=environment, timeout=DEADLINE_S,
    )  # fmt: skip
    assert "条款" in explained.stdout
    again = start(folder, "demo", "--keep", "kept")
    _, err = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 2
    assert err.endswith("kept holds a ledger already; name a new folder.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_in_the_middle_is_clean(folder: Path, number: signal.Signals, code: int) -> None:
    process = start(folder, "up", "--agents", "3")
    deadline_s = time.monotonic() + DEADLINE_S
    while len(descendants(folder)) < 3:  # broker, worker, payroll
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, err
    assert "Traceback" not in err


def test_a_part_that_ends_ends_the_whole(folder: Path) -> None:
    process = start(folder, "up", "--agents", "3")
    deadline_s = time.monotonic() + DEADLINE_S
    while not (chosen := descendants(folder, "worker.log")):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    os.kill(chosen[0], signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "kaohe worker ended with exit code -9" in err
