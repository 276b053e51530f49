"""The questions that containers are asked, against a real (embedded) broker and a real exporter."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

from kaohe.payroll.ledger import Ledger, NextOffset, upgrade
from kaohe.settings import Settings
from kaohe.stream.broker import EmbeddedBroker, free_port
from kaohe.stream.clock import run_clock
from kaohe.stream.topics import client_config, create_topics
from kaohe.wallboard.exporter import WallboardExporter, start_exporter
from tests.support.prometheus import ROOT

DEADLINE_S = 20.0


def load_healthcheck() -> Any:
    spec = importlib.util.spec_from_file_location("healthcheck", ROOT / "deploy" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


healthcheck = load_healthcheck()


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with EmbeddedBroker() as broker:
        made = Settings(broker=broker.bootstrap, partitions=2, group_partitions=1, metrics_port=free_port())
        create_topics(made)
        yield made


def ask(service: str, settings: Settings) -> int:
    code: int = healthcheck.main([service], lambda: settings)
    return code


def ask_until_well(service: str, settings: Settings) -> int:
    deadline_s = time.monotonic() + DEADLINE_S
    while (code := ask(service, settings)) != 0 and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return code


def test_unknown_service_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert healthcheck.main(["gateway"]) == 1
    assert healthcheck.main([]) == 1
    assert "give one of worker, clock, payroll" in capsys.readouterr().err


def test_clock_is_well_while_it_ticks(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("clock", settings) == 1
    assert "no tick for 30 s in the partitions [0, 1]" in capsys.readouterr().err
    stop = threading.Event()
    ticking = threading.Thread(target=run_clock, args=(settings, stop), daemon=True)
    ticking.start()
    try:
        assert ask_until_well("clock", settings) == 0, capsys.readouterr().err
    finally:
        stop.set()
        ticking.join(DEADLINE_S)


def send_grade(settings: Settings, written_s: float) -> None:
    producer = KafkaProducer(**client_config(settings))
    producer.send("kaohe.grades", b"{}", key=b"a-1", partition=0, timestamp_ms=int(written_s * 1000)).get(
        DEADLINE_S
    )
    producer.close()


def test_payroll_is_well_while_the_ledger_keeps_up(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = msgspec.structs.replace(settings, database_url=f"sqlite:///{tmp_path}/ledger.db")
    assert ask("payroll", settings) == 1, "there is no ledger yet"
    upgrade(settings.database_url)
    capsys.readouterr()
    assert ask("payroll", settings) == 0, capsys.readouterr().err
    send_grade(settings, time.time())
    assert ask("payroll", settings) == 0, "it has a minute to write a record down"
    with Ledger(settings.database_url) as ledger:
        ledger.write([], rejected=[], offsets=[NextOffset("kaohe.grades", 0, 1, "")])
    send_grade(settings, time.time() - 120)
    assert ask("payroll", settings) == 1
    assert "the ledger is more than 60 s behind kaohe.grades[0]" in capsys.readouterr().err
    with Ledger(settings.database_url) as ledger:
        ledger.write([], rejected=[], offsets=[NextOffset("kaohe.grades", 0, 2, "")])
    assert ask("payroll", settings) == 0, capsys.readouterr().err


def test_worker_is_well_while_its_figures_are_fresh(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("worker", settings) == 1
    now_s = [0.0]
    exporter = WallboardExporter(monotonic_s=lambda: now_s[0])
    server = start_exporter("127.0.0.1", settings.metrics_port, exporter)
    try:
        assert ask("worker", settings) == 0, capsys.readouterr().err
        now_s[0] = 61.0
        assert ask("worker", settings) == 1, "no loop answers, and the figures age"
        assert "figures are 61 s old" in capsys.readouterr().err
    finally:
        server.stop()


def test_broker_that_is_away_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    away = Settings(broker=f"127.0.0.1:{free_port()}")
    assert ask("clock", away) == 1
    said = capsys.readouterr().err
    assert "No broker answers at" in said
    assert said.count("\n") == 1
