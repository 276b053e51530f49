"""A real Prometheus for tests, with the configuration of ``deploy/`` on free loopback ports, and what it is asked.

Both programs come from Debian's package ``prometheus``. The configuration is the deployed one; only addresses,
intervals and the paths of the rule files are changed, so that what is tested is what runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest
from ruamel.yaml import YAML

from kaohe.stream.broker import end_process, free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOYED = ROOT / "deploy" / "prometheus"
WALLBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "wallboard.json"
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 10.0


class Query(msgspec.Struct, frozen=True):
    """One query of the wallboard, and the panel that asks it."""

    panel: str
    expr: str
    variables: dict[str, str]

    def filled(self) -> str:
        """The query with every variable at its value for "all", as Grafana would send it."""
        text = self.expr
        for name, everything in self.variables.items():
            text = text.replace(f"${name}", everything)
        assert "$" not in text, f"{self.panel}: a variable without a value in {text}"
        return text


def require(program: str) -> str:
    """The program's path. Without it the test is skipped with the reason, and fails where CI runs."""
    found = shutil.which(program)
    if found is None:
        reason = f"{program} is not on the PATH; install Debian's package 'prometheus'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def load_yaml(path: Path) -> Any:
    """A YAML file, with merged keys resolved."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def wallboard_queries() -> list[Query]:
    """Every query that the wallboard asks."""
    board = json.loads(WALLBOARD.read_text(encoding="utf-8"))
    variables = {entry["name"]: entry["allValue"] for entry in board["templating"]["list"]}
    return [
        Query(panel["title"], target["expr"], variables)
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def variable_selectors() -> list[str]:
    """The selectors from which Grafana lists what can be chosen."""
    board = json.loads(WALLBOARD.read_text(encoding="utf-8"))
    found = [
        re.fullmatch(r"label_values\((.+), \w+\)", entry["query"]) for entry in board["templating"]["list"]
    ]
    assert all(found), "a variable that is not a list of label values"
    return [match.group(1) for match in found if match]


def rules(kind: str) -> list[tuple[str, str]]:
    """(name, expression) of every rule of ``kind``: ``record`` or ``alert``."""
    return [
        (str(rule[kind]), str(rule["expr"]))
        for path in sorted(DEPLOYED.glob("*.rules.yml"))
        for group in load_yaml(path)["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


class Prometheus:
    """A Prometheus of its own folder and port that scrapes ``targets`` every two seconds."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        self._program = require("prometheus")
        self._folder = folder
        self._port = free_port()
        self._log = folder / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "prometheus.yml"
        with self._config.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(self._retargeted(targets), file)

    def _retargeted(self, targets: list[str]) -> Any:
        config = load_yaml(DEPLOYED / "prometheus.yml")
        config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
        config["rule_files"] = [str(DEPLOYED / name) for name in config["rule_files"]]
        # Nobody is paid here: payroll's own figures have tests of their own.
        addresses = {
            "kaohe-worker": targets,
            "kaohe-payroll": [],
            "prometheus": [f"127.0.0.1:{self._port}"],
        }
        assert {job["job_name"] for job in config["scrape_configs"]} == set(addresses)
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": addresses[job["job_name"]]}]
        return config

    def __enter__(self) -> Self:
        command = [
            self._program,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process. Stopping twice does nothing."""
        if self._process is not None:
            end_process(self._process, STOP_TIMEOUT_S)
            self._process = None

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                break
            try:
                self._get("/-/ready", {})
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"Prometheus did not start:\n{self._log.read_text(encoding='utf-8', errors='replace')}")

    def _get(self, path: str, parameters: dict[str, str]) -> bytes:
        url = f"http://127.0.0.1:{self._port}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
            found: bytes = answer.read()
        return found

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector that ``expr`` gives now. AssertionError when Prometheus refuses it."""
        try:
            answer = json.loads(self._get("/api/v1/query", {"query": expr}))
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"Prometheus refuses {expr}: {exc.read().decode()}") from None
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def values(self, expr: str) -> list[float]:
        """The numbers alone of what ``expr`` gives now."""
        return [float(entry["value"][1]) for entry in self.query(expr)]

    def rules(self) -> Iterator[dict[str, Any]]:
        """Every loaded rule with its health and last error."""
        for group in json.loads(self._get("/api/v1/rules", {}))["data"]["groups"]:
            yield from group["rules"]
