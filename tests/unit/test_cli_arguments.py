"""The command line: help with examples, and one sentence with the right exit code for whatever is asked for wrongly."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import command, run
from kaohe.settings import load_settings

LOGGERS = ("kafka", "aiokafka", "faust", "mode", "alembic")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run in an empty folder, and leave the loggers of other libraries as they were."""
    monkeypatch.chdir(tmp_path)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command that does something itself."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from leaves(one, (*path, name))
            if one.invoke_without_command:
                yield (*path, name)
        else:
            yield (*path, name)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The only sentence on standard error; what an adapter or a library warns of is not looked at."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if "KAOHE_PSEUDONYM_KEY" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_every_command_that_was_promised_is_there() -> None:
    assert set(leaves(command())) >= {
        ("replay",), ("broker",), ("topics", "create"), ("worker",), ("produce",), ("clock",), ("payroll",),
        ("simulate",), ("explain",), ("scorecard",), ("demo",), ("up",), ("record",), ("rejects",),
        ("report", "weekly"), ("report", "monthly"),
        *(("assess", name) for name in ("submit", "decide", "list")),
        ("settle",), *(("payroll", name) for name in ("approve", "reject", "export", "acknowledge", "list", "show")),
        *(("ledger", name) for name in ("show", "verify", "reconcile")),
        *(("rules", name) for name in ("check", "test", "list", "trace", "explain", "show")),
        ("settle",), *(("payroll", name) for name in ("approve", "reject", "export", "acknowledge", "list", "show")),
        *(("ledger", name) for name in ("show", "verify", "reconcile")),
        *(("rules", name) for name in ("diff", "activate", "activations")), ("backtest",),
    }  # fmt: skip


@pytest.mark.parametrize("path", list(leaves(command())), ids=" ".join)
def test_help_shows_an_example(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Example: " in text
    assert f"kaohe {' '.join(path)}" in text.partition("Example: ")[2]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kaohe ")


@pytest.mark.parametrize("arguments", [[], ["topics"], ["rules"]])
def test_nothing_asked_for_shows_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Commands" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("topics nonsense", "No such command 'nonsense'"),
        ("--nonsense", "No such option: --nonsense"),
        ("replay", "Missing argument 'FILE...'"),
        ("replay f --adapter", "'--adapter' requires an argument"),
        ("replay f --adapter events --out o", "Missing option '--pack'"),
        ("replay f --adapter csv --pack front-desk --out o", "the adapters are anonymous-bank, events"),
        ("replay f --adapter events --pack front-desk --out o", "f is no file that can be read"),
        ("replay f --adapter events --pack nope --out o", "there is no pack 'nope'"),
        ("replay f --adapter events --pack front-desk --pack front-desk --out o", "loaded twice"),
        ("replay f --adapter events --pack front-desk --out o --batch-size 0", "--batch-size is 0"),
        (
            "replay f --adapter events --pack front-desk --out o --batch-size x",
            "Invalid value for '--batch-size'",
        ),
        ("replay f --adapter events --pack front-desk --out o --zone Mars", "'Mars' is no time zone"),
        ("replay f --adapter events --pack front-desk --out o --until soon", "'soon' is no moment"),
        ("produce f --adapter csv", "there is no adapter 'csv'"),
        ("produce f --adapter events --clock wall", "--clock is 'wall'"),
        ("simulate --seed 1 --agents 2 --days 1", "Missing option '--out'"),
        ("simulate --seed 1 --agents 0 --days 1 --out x", "0 agents cannot be simulated"),
        ("simulate --seed 1 --agents 2 --days 1 --out no/x", "cannot write no/x"),
        ("simulate --seed 1 --agents 2 --days 1 --out x --start soon", "--start is 'soon'"),
        ("simulate --seed 1 --agents 2 --out x", "give either --days"),
        ("simulate --seed 1 --agents 9 --days 1 --months 1 --out x", "give either --days"),
        ("simulate --seed 1 --agents 2 --months 1 --out x", "a company of 2 people cannot be simulated"),
        ("explain", "Missing argument 'ID'"),
        ("explain d-1 --lang fr", "Invalid value for '--lang'"),
        ("explain d-1 --from nowhere", "nowhere cannot be read"),
        ("broker --port 99999", "The port 99999 does not exist"),
        ("demo --days 40", "Invalid value for '--days'"),
        ("up --speed 0", "Invalid value for '--speed'"),
        ("settle 2026-13 --by x", "'2026-13' is no month"),
        ("settle 2026-08", "Missing option '--by'"),
        ("settle 2026-08 --by x", "no pack has pay terms"),
        ("period close front-dsk 2026-08 --by x --reason y", "no pack 'front-dsk' judges here"),
        ("period done front-dsk 2026-08 plans --by x", "no pack 'front-dsk' judges here"),
        ("period close front-desk 2026-8 --by x --reason y", "'2026-8' is no month"),
        ("period reopen front-desk 2026-08 --window weak --by x --reason y", "--window is 'weak'"),
        ("payroll nonsense", "No such command 'nonsense'"),
        ("payroll approve b-1 --by x --at soon", "'soon' is no moment"),
        ("payroll approve b-1 --by x --at 2026-09-01T00:00:00", "is no moment with an offset"),
        ("payroll acknowledge b-1 --by x --entries -1 --total-minor 0", "Invalid value for '--entries'"),
        ("payroll show b-1 --lang fr", "--lang is 'fr'"),
        ("ledger verify --head 7", "--head is '7'"),
        *(
            (f"rules {command} --rules none", "there is no folder of packs 'none'")
            for command in ("check", "test", "list", "show p", "explain r", "trace")
        ),
    ],
)
def test_what_is_asked_for_wrongly_is_one_sentence(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments.split()) == 2
    line = told(capsys)
    assert line.startswith("kaohe: ")
    assert sentence in line


@pytest.mark.parametrize(
    "arguments",
    [
        "payroll list", "payroll show b-1", "payroll approve b-1 --by x", "payroll reject b-1 --by x --reason y",
        "payroll export b-1 --by x --out o", "ledger show", "ledger verify", "ledger reconcile --offline",
    ],
)  # fmt: skip
def test_without_a_ledger_it_says_so(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 1
    assert "There is no ledger at sqlite:///kaohe.db; 'kaohe payroll' makes it." in told(capsys)


def test_a_refused_simulation_leaves_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--seed", "1", "--agents", "2", "--days", "0", "--out", "x"]) == 2
    assert "days" in told(capsys)
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("KAOHE_BROKER", "nowhere", "give it as host:port"),
        ("KAOHE_PARTITIONS", "many", "`$.partitions`"),
        ("KAOHE_CONFIG", "missing.toml", "missing.toml cannot be read"),
        ("KAOHE_PACKS", "nope", "there is no pack 'nope'"),
    ],
)
def test_wrong_settings_are_one_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert run(["worker"]) == 2
    assert sentence in told(capsys)


def test_the_configuration_file_here_is_read_and_the_environment_is_stronger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kaohe.toml").write_text('database_url = "sqlite:///here.db"\n', encoding="utf-8")
    assert run(["explain", "d-1"]) == 1
    assert "There is no ledger at sqlite:///here.db" in told(capsys)
    monkeypatch.setenv("KAOHE_DATABASE_URL", "sqlite:///there.db")
    assert load_settings().database_url == "sqlite:///there.db"
    assert run(["explain", "d-1"]) == 1
    assert "sqlite:///there.db" in told(capsys)
    Path("kaohe.toml").write_text("brokr = 1\n", encoding="utf-8")
    assert run(["explain", "d-1"]) == 2
    assert "the nearest valid one is 'broker'" in told(capsys)


def test_the_help_needs_no_broker_and_no_database() -> None:
    program = (
        "import sys, kaohe.cli; kaohe.cli.command(); "
        "print(sorted({'faust', 'aiokafka', 'kafka', 'sqlalchemy', 'alembic', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
