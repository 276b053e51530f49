"""The machine check of `make install`, run with a PATH that holds only made-up Pythons and compilers."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_machine.sh"


@dataclass
class Machine:
    """A folder that is the whole PATH, and a home folder without any Python."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.folder / "Python.h").touch()

    def add_python(self, name: str, version: str, *, venv: str = "venv", header: str = "Python.h") -> Path:
        answer = f"{version}\n{venv}\n{self.folder / header}\nfakecc\n{self.folder / 'bin' / name}"
        return self.add(name, f"cat <<'END'\n{answer}\nEND")

    def add(self, name: str, body: str) -> Path:
        path = self.folder / "bin" / name
        # /bin/cat by its full name: the PATH of this machine has nothing else.
        path.write_text(f"#!/bin/sh\n{body.replace('cat ', '/bin/cat ')}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def check(self, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self.folder / "bin"), "HOME": str(self.folder), **environ}
        return subprocess.run(
            ["/bin/bash", str(SCRIPT)], check=False, capture_output=True, text=True, env=environ, timeout=30
        )

    def complaint(self, **environ: str) -> str:
        """The one sentence that the check fails with."""
        done = self.check(**environ)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.add("fakecc", "exit 0")
    return machine


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_a_complete_machine_passes_and_its_python_is_printed(machine: Machine, version: str) -> None:
    path = machine.add_python(f"python{version}", version)
    done = machine.check()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")


def test_a_python_under_its_plain_name_is_taken(machine: Machine) -> None:
    path = machine.add_python("python3", "3.12")
    assert machine.check().stdout == f"{path}\n"


def test_a_command_that_exists_but_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.add("python3.11", "echo 'python3.11: command not found' >&2; exit 127")
    path = machine.add_python("python3.12", "3.12")
    assert machine.check().stdout == f"{path}\n"


def test_the_first_complete_python_is_preferred_to_an_incomplete_one(machine: Machine) -> None:
    machine.add_python("python3.11", "3.11", header="missing/Python.h")
    path = machine.add_python("python3.12", "3.12")
    assert machine.check().stdout == f"{path}\n"


def test_a_version_manager_s_python_is_found_beside_the_path(machine: Machine) -> None:
    machine.add_python("python3", "3.13")
    folder = machine.folder / ".pyenv" / "versions" / "3.12.1" / "bin"
    folder.mkdir(parents=True)
    path = machine.add_python("hidden", "3.12").rename(folder / "python")
    done = machine.check()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("hidden")
    assert path.exists()


def test_no_python_at_all(machine: Machine) -> None:
    expected = "Kaohe needs Python 3.11 or 3.12, and none was found on the PATH: install python3.11."
    assert machine.complaint() == expected


def test_only_a_python_that_is_too_new(machine: Machine) -> None:
    machine.add_python("python3", "3.13")
    assert (
        machine.complaint()
        == "Kaohe needs Python 3.11 or 3.12, and here is only Python 3.13: install python3.11."
    )


def test_a_python_asked_for_that_does_not_run(machine: Machine) -> None:
    machine.add_python("python3", "3.12")
    complaint = machine.complaint(PYTHON="python3.11")
    assert complaint == "PYTHON=python3.11 does not run: name a Python 3.11 or 3.12 that does."


def test_a_python_asked_for_of_the_wrong_version(machine: Machine) -> None:
    machine.add_python("python3", "3.12")
    machine.add_python("python3.9", "3.9")
    complaint = machine.complaint(PYTHON="python3.9")
    assert (
        complaint
        == "PYTHON=python3.9 is Python 3.9, and Kaohe needs Python 3.11 or 3.12: install python3.11."
    )


def test_a_python_without_venv(machine: Machine) -> None:
    path = machine.add_python("python3.11", "3.11", venv="-")
    expected = f"Python 3.11 at {path} lacks the modules venv and ensurepip: install python3.11-venv."
    assert machine.complaint() == expected


def test_no_c_compiler(machine: Machine) -> None:
    (machine.folder / "bin" / "fakecc").unlink()
    machine.add_python("python3.12", "3.12")
    expected = "A C compiler is needed to build Kaohe, and fakecc does not run: install gcc (or set CC)."
    assert machine.complaint() == expected


def test_a_compiler_named_by_cc_is_enough(machine: Machine) -> None:
    (machine.folder / "bin" / "fakecc").unlink()
    machine.add("clang", "exit 0")
    path = machine.add_python("python3.12", "3.12")
    assert machine.check(CC="clang -m64").stdout == f"{path}\n"


def test_no_headers(machine: Machine) -> None:
    machine.add_python("python3.12", "3.12", header="missing/Python.h")
    missing = machine.folder / "missing" / "Python.h"
    expected = f"The C headers of Python 3.12 are missing (no {missing}): install python3.12-dev."
    assert machine.complaint() == expected
