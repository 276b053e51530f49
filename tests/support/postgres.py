"""A throwaway PostgreSQL cluster, reached only through a socket in its own private folder.

PostgreSQL refuses to run as root, so when the tests do (in a container), the server runs as the user ``postgres``
that its package makes, or else as ``nobody``. Nothing listens on a network port and nothing outlives the block.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from tests.support.need import absent, need

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
SUPERUSER = "kaohe"


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The SQLAlchemy URL (``postgresql+psycopg://…``) of an empty database; the cluster ends with the block.

    Skips, or fails where CI is set, when PostgreSQL or psycopg is not installed.
    """
    initdb = need("initdb", "postgresql")
    server = need("postgres", "postgresql")
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        absent("needs the driver psycopg: install the extra 'postgres'")
    # A short folder: the path of a socket is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="kaohe-pg-", dir="/tmp"))
    try:
        runs_as = _server_user()
        if "user" in runs_as:
            os.chown(folder, runs_as["user"], runs_as["group"])
        _initialise(initdb, folder, runs_as)
        with _server(server, folder, runs_as):
            _wait_until_ready(folder)
            yield f"postgresql+psycopg://{SUPERUSER}@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _server_user() -> _As:
    """The arguments that make a child process run as a user that the server accepts."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known.get("nobody")
    if entry is None:
        absent("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _initialise(initdb: str, folder: Path, runs_as: _As) -> None:
    command = [
        initdb,
        "--pgdata",
        str(folder / "data"),
        f"--username={SUPERUSER}",
        "--auth=trust",
        "--no-sync",
    ]
    command += ["--encoding=UTF8", "--locale=C"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, **runs_as)
    assert done.returncode == 0, f"initdb failed:\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def _server(server: str, folder: Path, runs_as: _As) -> Iterator[None]:
    command = [
        server,
        "-D",
        str(folder / "data"),
        "-k",
        str(folder),
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **runs_as)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)  # end the sessions, then stop
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # at once, with its children; SIGKILL would leave them
            process.wait(STOP_TIMEOUT_S)


def _wait_until_ready(folder: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(folder):
        log = (folder / "log").read_text(encoding="utf-8", errors="replace")
        assert time.monotonic() < deadline, f"PostgreSQL did not answer within {READY_TIMEOUT_S} s:\n{log}"
        time.sleep(POLL_S)


def _answers(folder: Path) -> bool:
    import psycopg

    try:
        with psycopg.connect(host=str(folder), user=SUPERUSER, dbname="postgres"):
            return True
    except psycopg.OperationalError:
        return False
