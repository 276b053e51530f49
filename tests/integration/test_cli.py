"""The commands as processes, on the embedded broker: from topics to an explained entry, and clean ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kaohe.cli import run
from kaohe.payroll.ledger import Ledger
from kaohe.stream.broker import free_port

SOURCES = str(Path(__file__).resolve().parents[2] / "services")
DEADLINE_S = 90.0
PACKS = "front-desk logistics-service"


class Place:
    """A folder with its own broker address, ledger and environment; ends what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KAOHE_")}
        self.environment = kept | {
            "PYTHONPATH": SOURCES,
            "KAOHE_BROKER": f"127.0.0.1:{self.port}",
            "KAOHE_DATABASE_URL": f"sqlite:///{folder / 'ledger.db'}",
            "KAOHE_METRICS_PORT": str(free_port()),
            "KAOHE_PACKS": PACKS,
            "KAOHE_PSEUDONYM_KEY": "a key of the tests, long enough",
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "kaohe", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment, cwd=self.folder,
        )  # fmt: skip
        self.started.append(process)
        return process

    def done(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; what it printed."""
        return ended(self.start(*arguments), code)[0]

    def ready(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command, and wait for the sentence that says it is at work."""
        process = self.start(*arguments)
        assert process.stderr is not None
        assert process.stderr.readline(), f"{arguments} ended before it was ready"
        return process

    def close(self) -> None:
        """End what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    """What a process printed until it ended, which it must with this exit code and without a traceback."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in err, err
    assert process.returncode == code, err
    return out, err


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of its own for a test."""
    made = Place(tmp_path)
    yield made
    made.close()


def test_from_topics_to_an_explained_entry(place: Place) -> None:
    broker = place.ready("broker", "--port", str(place.port))
    _, err = ended(place.start("worker"), 1)
    assert "run 'kaohe topics create' first" in err
    assert len(err.splitlines()) == 1
    created = json.loads(place.done("topics", "create", "--json"))
    assert created
    assert all(one["created"] and one["partitions"] == 4 for one in created)
    assert "was there" in place.done("topics", "create")

    worker = place.ready("worker")
    log = str(place.folder / "log.jsonl")
    assert run(["simulate", "--seed", "5", "--agents", "3", "--days", "3", "--out", log]) == 0
    place.done("produce", log, "--adapter", "events", "--clock", "log")
    entries = written(place)
    for kind in ("d-", "g-"):
        chosen = next(one for one in entries if one.startswith(kind))
        assert f"· {chosen}" in place.done("explain", chosen)
    assert ended(place.start("explain", "d-000"), 2)[1].count("\n") == 1

    clock = place.ready("clock")  # only now: wall time is months beyond the log
    for process, number in ((clock, signal.SIGINT), (worker, signal.SIGTERM), (broker, signal.SIGTERM)):
        process.send_signal(number)
        ended(process, 0)


def written(place: Place) -> Sequence[str]:
    """The ids of the ledger's decisions and grades, once it has both; payroll runs until then."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        result = json.loads(place.done("payroll", "--until-idle", "3", "--json"))
        assert result["written"]["conflicts"] == 0
        with Ledger(place.environment["KAOHE_DATABASE_URL"]) as ledger:
            decisions, grades = ledger.current_entries(), ledger.current_grades()
        if decisions and grades:
            return [one.id for one in decisions] + [one.id for one in grades]
    raise AssertionError("nothing reached the ledger")


def test_a_broker_that_is_away_is_one_sentence(place: Place) -> None:
    (place.folder / "empty.jsonl").touch()
    commands = (
        ["topics", "create"],
        ["worker"],
        ["clock"],
        ["produce", "empty.jsonl", "--adapter", "events"],
    )
    for process in [place.start(*arguments) for arguments in commands]:
        _, err = ended(process, 1)
        assert len(err.splitlines()) == 1, err
        assert f"No broker answers at 127.0.0.1:{place.port}" in err


def test_a_port_that_is_taken_is_one_sentence(place: Place) -> None:
    place.ready("broker", "--port", str(place.port))
    _, err = ended(place.start("broker", "--port", str(place.port)), 1)
    assert err == f"kaohe: Port {place.port} is already in use; give another one with --port.\n"


def test_the_reader_of_a_pipe_may_go(place: Place) -> None:
    process = place.start("rules", "show", "front-desk")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(DEADLINE_S) in (0, 1)


def test_an_interrupted_replay_says_so(place: Place) -> None:
    log = str(place.folder / "log.jsonl")
    assert run(["simulate", "--seed", "1", "--agents", "20", "--days", "14", "--out", log]) == 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = place.folder / f"out-{code}"
        process = place.start(
            "replay", "log.jsonl", "--adapter", "events", "--pack", "front-desk", "--out", str(out)
        )
        deadline_s = time.monotonic() + DEADLINE_S
        while not out.is_dir() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = ended(process, code)
        assert (err == "kaohe: interrupted\n") == (code == 130), err
        assert list(out.iterdir()) == []
