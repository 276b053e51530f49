"""What a test needs from outside: found, or the test is skipped loudly; where CI is set, it fails instead."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Debian keeps the servers' own programs out of the PATH.
EXTRA_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/sbin")


def need(program: str, package: str = "") -> str:
    """The path of ``program``. Without it the test is skipped, or fails where CI is set.

    ``package`` is the Debian package to install, when its name differs from the program's.
    """
    path = find_program(program)
    if path is None:
        absent(f"needs the program {program}: install {package or program}")
    return path


def absent(reason: str) -> NoReturn:
    """End the test because something outside is missing: skip with the reason, or fail where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have it: {reason}", pytrace=False)
    pytest.skip(reason)


def find_program(program: str) -> str | None:
    """Where the program is, on the PATH first, then where Debian hides servers (the newest version there)."""
    found = shutil.which(program)
    if found is not None:
        return found
    for pattern in EXTRA_FOLDERS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            found = shutil.which(program, path=str(folder))
            if found is not None:
                return found
    return None
