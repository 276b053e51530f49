"""A worker as users start it, a ledger, and the commands against one broker."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.payroll.consumer import run_payroll
from kaohe.settings import Settings
from kaohe.stream.produce import produce, tick_entry
from kaohe.stream.topics import security_config
from tests.support.packs import at
from tests.support.workers import ROOT, Child

IDLE_S = 1.0
DEADLINE_S = 90.0


class Office:
    """A worker with one pack, a ledger, and the commands against one broker."""

    def __init__(
        self, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str], pack: Path
    ) -> None:
        self.settings = settings
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self._capsys = capsys
        own = {
            "KAOHE_PACKS": str(pack), "KAOHE_METRICS_PORT": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT)]),
        }  # fmt: skip
        self.environment = {
            "KAOHE_BROKER": settings.broker, "KAOHE_DATABASE_URL": self.url, "KAOHE_PACKS": str(pack),
            "KAOHE_GROUP_ID": settings.group_id,
        }  # fmt: skip
        self.worker = Child(["kaohe", "worker"], own, settings, folder, "worker", folder)

    def tick(self, when: str) -> None:
        """Move the log's clock."""
        produce(self.settings, [tick_entry(at(when))])

    def fill(self) -> None:
        """Let payroll read until the topics are silent."""
        assert self.worker.running, self.worker.said()
        deadline_s = time.monotonic() + DEADLINE_S
        run_payroll(
            self.settings.broker, security_config(self.settings.security), self.url,
            stop=lambda: time.monotonic() > deadline_s, until_idle_s=IDLE_S,
            group_id=f"{self.settings.group_id}-payroll",
        )  # fmt: skip

    def run(self, line: str) -> tuple[int, str, str]:
        """Run a command with --json: its exit code, and what it printed."""
        code = run([*line.split(), "--json"])
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def say(self, line: str) -> Any:
        """Run a command with --json that succeeds; its document."""
        code, out, err = self.run(line)
        assert code == 0, err
        return json.loads(out)

    def score(self, agent: str, period: str) -> tuple[str, str]:
        """The newest score and grade as the command shows them; nothing before there is one."""
        code, out, err = self.run(f"scorecard {agent} {period}")
        if code:
            assert "has no grade" in err, err
            return "", ""
        (card,) = json.loads(out)["cards"]
        return card["grade"]["score"], card["grade"]["grade"]
