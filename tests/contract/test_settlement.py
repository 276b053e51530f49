"""From decisions, grades and pay events to acknowledged pay over a real broker, by the commands that people use."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer

from kaohe.cli import run
from kaohe.decisions import Settlement, SettlementBatch
from kaohe.payroll.consumer import Progress, run_payroll
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.records import SETTLEMENTS_TOPIC
from kaohe.settings import Settings
from kaohe.stream.sender import partition_of
from kaohe.stream.topics import EVENTS, client_config, security_config
from tests.packs.patching import patched
from tests.support.settling import Log, books

IDLE_S = 1.5
DEADLINE_S = 90.0
AT = "2026-09-08T09:00:00Z"
CALENDAR = """parameters.yaml
+step_day: {clause: MI-04, title: {en: Day, zh: 日}, unit: days, min: 1, max: 28, values: {2026-01-01: 2}}
workflow.yaml
+window: month
+escalation: p.step_day
+steps:
+  - id: settle
+    clause: MI-04
+    title: {en: Settle, zh: 结算}
+    for: company
+    owner: hr
+    superior: gm
+    day: p.step_day
+    when: after
+    noted_by: settlement.requested
+  - id: export
+    clause: MI-04
+    title: {en: Export, zh: 移交}
+    for: company
+    owner: hr
+    superior: gm
+    day: p.step_day
+    when: after
+    noted_by: settlement.exported
"""


class Company:
    """Two people, a ledger, and the commands against one broker."""

    def __init__(self, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = settings
        self.path = folder / "ledger.db"
        self.url = f"sqlite:///{self.path}"
        self._capsys = capsys
        self.log = Log()

    def send(self) -> None:
        """Bring the log's records to the broker, each to the partition of its subject."""
        with closing(KafkaProducer(bootstrap_servers=self.settings.bootstrap, acks="all")) as producer:
            for (topic, _), records in self.log.records.items():
                for value in records:
                    data = json.loads(value)
                    key = str(data["subject"]).encode()
                    producer.send(
                        topic, key=key, value=value, partition=partition_of(key, self.settings.partitions)
                    )
            producer.flush()
        self.log = Log()

    def fill(self, url: str = "") -> Progress:
        """Let payroll read until the topics are silent."""
        deadline_s = time.monotonic() + DEADLINE_S
        progress = run_payroll(
            self.settings.broker,
            security_config(self.settings.security),
            url or self.url,
            stop=lambda: time.monotonic() > deadline_s,
            until_idle_s=IDLE_S,
            group_id=f"{self.settings.group_id}-payroll",
        )
        assert time.monotonic() <= deadline_s, "the consumer never came to rest"
        return progress

    def say(self, line: str, *more: str) -> tuple[int, Any]:
        """Run a command with --json: its exit code, and the document or the sentence it ended with."""
        code = run([*line.split(), *more, "--json"])
        told = self._capsys.readouterr()
        return code, json.loads(told.out) if told.out else told.err.strip().splitlines()[-1]

    def settlements(self) -> list[dict[str, Any]]:
        """Everything in ``kaohe.settlements``."""
        return self._all(SETTLEMENTS_TOPIC)

    def steps(self) -> list[tuple[str, str, str]]:
        """Pack, period and step of every note that a step of a calendar was done, in each partition."""
        found = [one["data"] for one in self._all(EVENTS) if one["type"] == "step.done"]
        return [(one["pack"], one["period"], one["step"]) for one in found]

    def _all(self, topic: str) -> list[dict[str, Any]]:
        config = client_config(self.settings)
        with closing(
            KafkaConsumer(topic, auto_offset_reset="earliest", consumer_timeout_ms=2_000, **config)
        ) as reader:
            return [json.loads(record.value) for record in reader]


@pytest.fixture
def company(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Company:
    made = Company(settings, tmp_path, capsys)
    patched(f"with pay\n{CALENDAR}", tmp_path)
    for name, value in {
        "KAOHE_BROKER": settings.broker, "KAOHE_DATABASE_URL": made.url, "KAOHE_RULES": str(tmp_path),
        "KAOHE_PACKS": "minimal", "KAOHE_GROUP_ID": settings.group_id,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    log = made.log
    for agent, gross_minor in (("a-1", 800_000), ("a-2", 1_000_000)):
        log.roster(agent, pay_base_minor=gross_minor)
        log.grade(agent, "B", pack="minimal")
    log.pay("a-2", 1_200_000)
    log.decide("a-1", "-4", pack="minimal")
    log.decide("a-1", "3", pack="minimal")
    log.event("agent.ready", "a-1", agent="a-1")
    made.send()
    return made


@pytest.mark.slow
def test_a_month_goes_from_events_to_acknowledged_pay_and_everything_agrees(
    company: Company, tmp_path: Path
) -> None:
    assert company.fill().written.pay == 3
    code, asked = company.say(f"settle 2026-08 --by clerk --wait 0 --at {AT}")
    assert (code, asked["outcome"]) == (0, "waiting")
    assert company.fill().written.settled == 1
    (batch,) = company.say("payroll list")[1]
    # a-1: 80,000 x 0.7 + 3 x 500; a-2: 120,000 x 0.7. Fines are off.
    assert (batch["state"], batch["entries"], batch["total_minor"]) == ("draft", 3, 56_000 + 1_500 + 84_000)
    name = batch["id"]

    assert company.say(f"payroll approve {name} --by Clerk")[1].endswith("somebody else has to approve it")
    assert company.say(f"payroll approve {name} --by a-2")[0] == 1
    assert company.say(f"payroll export {name} --by clerk --out o")[0] == 1
    assert company.say(f"payroll approve {name} --by head --wait 0 --at {AT}")[0] == 0
    company.fill()
    out = tmp_path / "out"
    assert company.say(f"payroll export {name} --by clerk --out {out} --wait 0 --at {AT}")[0] == 0
    company.fill()
    control = json.loads((out / f"2026-08-{name}.control.json").read_text())
    assert (control["entries"], control["total_minor"]) == (3, 141_500)
    code, found = company.say("ledger reconcile")
    assert (code, found["holds"]) == (0, True)
    assert {one["name"] for one in found["checks"] if one["state"] == "open"} == {"acknowledged"}

    company.say(
        f"payroll acknowledge {name} --by payroll --entries 2 --total-minor 141500 --wait 0 --at {AT}"
    )
    company.fill()
    code, found = company.say("ledger reconcile")
    assert (code, found["holds"]) == (1, False), "payroll counted something else"
    company.say(
        f"payroll acknowledge {name} --by payroll --entries 3 --total-minor 141500 --wait 0 --at {AT}"
    )
    company.fill()
    code, found = company.say("ledger reconcile")
    assert (code, {one["state"] for one in found["checks"]}) == (0, {"holds"}), found
    assert len(found["checks"]) == 10

    sent = company.settlements()
    states = [one["state"] for one in sent if "state" in one]
    assert sorted(states) == ["acknowledged", "approved", "draft", "exported"]
    statements = [msgspec.convert(one, Settlement) for one in sent if "lines" in one]
    assert sum(one.total_minor for one in statements) == 141_500
    assert {one.agent for one in statements} == {"a-1", "a-2"}
    approved = [msgspec.convert(one, SettlementBatch) for one in sent if one.get("state") == "approved"]
    assert approved[0].total_minor == 141_500

    steps = company.steps()
    assert sorted(steps) == [("minimal", "2026-08", step) for step in ("export", "settle") for _ in range(4)]

    code, verified = company.say("ledger verify")
    assert (code, verified["broken"]) == (0, None)
    break_one_row(company.path)
    code, verified = company.say("ledger verify")
    assert code == 1
    assert (verified["broken"]["table"], verified["broken"]["what"]) == ("pay_entries", "changed")
    code, found = company.say("ledger reconcile", "--offline")
    assert code == 1
    assert {one["name"] for one in found["checks"] if one["state"] == "differs"} >= {"chain", "entries"}


def break_one_row(path: Path) -> None:
    """Add a fen to somebody's award, as somebody would who owns the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER pay_entries_no_update")
        connection.execute("UPDATE pay_entries SET amount_minor = amount_minor + 1 WHERE component = 'award'")
        connection.commit()


@pytest.mark.slow
def test_a_lost_ledger_comes_to_the_same_books_and_sends_the_same_bytes(
    company: Company, tmp_path: Path
) -> None:
    company.fill()
    company.say(f"settle 2026-08 --by clerk --wait 0 --at {AT}")
    company.fill()
    name = company.say("payroll list")[1][0]["id"]
    company.say(f"payroll approve {name} --by head --wait 0 --at {AT}")
    company.fill()
    before = company.settlements()

    other = f"sqlite:///{tmp_path / 'other.db'}"
    company.fill(other)
    with Ledger(company.url) as first, Ledger(other) as second:
        assert books(first) == books(second)
    assert sorted(map(json.dumps, company.settlements())) == sorted(map(json.dumps, [*before, *before]))
    assert company.fill(other).written.settled == 0
    assert len(company.settlements()) == 2 * len(before), "what was noted as sent is not sent again"


def test_a_record_that_is_in_the_log_and_not_in_the_ledger_is_named(company: Company) -> None:
    company.fill()
    with closing(sqlite3.connect(company.path)) as connection:
        connection.execute("DROP TRIGGER ledger_entries_no_delete")
        connection.execute("DELETE FROM ledger_entries WHERE points = '3'")
        connection.commit()
    code, found = company.say("ledger reconcile")
    differing = {one["name"]: one["details"] for one in found["checks"] if one["state"] == "differs"}
    assert code == 1
    assert differing.keys() == {"chain", "decisions"}
    assert "is not so in the ledger" in differing["decisions"][0]


@pytest.mark.slow
def test_a_command_waits_for_its_outcome(company: Company) -> None:
    """With a ledger that nobody fills, waiting ends at its bound and the command says that the event is in the log."""
    company.fill()
    code, asked = company.say(f"settle 2026-08 --by clerk --wait 0.3 --at {AT}")
    assert (code, asked["outcome"]) == (0, "waiting")
    assert company.say("payroll list") == (0, [])
    company.fill()
    code, asked = company.say(f"settle 2026-08 --by clerk --wait 0 --at {AT}")
    company.fill()
    assert len(company.say("payroll list")[1]) == 1, "settling twice changes nothing"


def test_a_command_says_what_a_running_payroll_made_of_it(company: Company) -> None:
    running = threading.Thread(target=company.fill)
    running.start()
    code, done = company.say(f"settle 2026-08 --by clerk --wait 60 --at {AT}")
    running.join(DEADLINE_S + 30)
    assert (code, done["outcome"]["outcome"], done["batch"]["state"]) == (0, "applied", "draft")
    assert done["batch"]["total_minor"] == 141_500
