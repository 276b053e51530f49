"""The commands of README.md: what needs no broker is run as it stands there, of the rest the words are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from kaohe.cli import command

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
OFFLINE = {
    "simulate", "replay", "backtest", "explain", "scorecard", "rules check", "rules show", "rules explain",
    "rules diff",
}  # fmt: skip
"""``rules test`` and ``rules trace`` take long and have tests of their own."""
DIFFERS = "rules diff"
"""Ends with 1 when two packs differ, as the README says."""
TOO_LONG = "--months"
TIMEOUT_S = 300.0


def commands() -> Iterator[str]:
    """The lines of all blocks of commands, each whole and without its comment."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if re.match(r"    \S", line):
            yield re.sub(r"\s+# .*", "", line.strip())


def words_of(line: str) -> list[str]:
    """The words after ``kaohe``; none when the line runs something else."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return words[1:] if words and Path(words[0]).name == "kaohe" else []


def name_of(words: list[str]) -> str:
    """The command with its subcommand, such as ``rules diff``."""
    group = command().commands.get(words[0])
    return " ".join(words[:2]) if isinstance(group, typer.core.TyperGroup) and len(words) > 1 else words[0]


def offline() -> list[str]:
    """What runs without a broker, and the shell's own commands between."""
    found = []
    for line in commands():
        words = words_of(line)
        # A bare ``kaohe`` speaks of a ledger that somebody keeps.
        own = line.startswith(".venv/") and name_of(words) in OFFLINE and TOO_LONG not in words
        if own or line.split()[0] in ("mkdir", "sed"):
            found.append(line)
    return found


@pytest.mark.slow
def test_what_needs_no_broker_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "rules").symlink_to(ROOT / "rules")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "kaohe").symlink_to(Path(sys.executable).with_name("kaohe"))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("KAOHE_")}
    lines = offline()
    assert len(lines) > 10, lines
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        wanted = 1 if DIFFERS in line else 0
        assert done.returncode == wanted, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "judged" / "shadow-grades.jsonl").is_file()
    assert (tmp_path / "difference.svg").is_file()


def test_every_command_and_option_exists() -> None:
    seen = 0
    for line in commands():
        words = words_of(line)
        if not words:
            continue
        seen += 1
        found = command().commands[words[0]]
        options = {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
        if isinstance(found, typer.core.TyperGroup) and len(words) > 1 and not words[1].startswith("-"):
            found = found.commands[words[1]]
            options = {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word not in options]
        assert not unknown, f"{line}: there is no {', '.join(unknown)}"
    assert seen >= 40
