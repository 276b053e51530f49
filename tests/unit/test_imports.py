"""The shape of the code: imports point inward, and the core reads no clock, draws no lot and does no I/O.

Everything is read from the syntax tree, so an import inside a function or under ``TYPE_CHECKING`` counts as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "services" / "kaohe"

# From the inside out. A module may import what stands in its own layer or further in.
LAYERS = (
    ("collecting", "decisions", "errors", "events", "metric_names", "privacy", "schemas", "settings"),
    ("core",),
    ("packs",),
    ("adapters", "alerting", "gateway", "payroll", "stream", "wallboard"),
    ("explain", "explain_events", "explain_pay", "reports", "reports_html", "whatif"),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# What decides has to decide the same again: the core, and what it is made of.
PURE = ("core", "decisions", "errors", "events", "privacy")

# fmt: off
BANNED_MODULES = frozenset({
    "aiohttp", "aiokafka", "asyncio", "concurrent", "confluent_kafka", "durable", "faust", "ftplib", "http",
    "kafka", "logging", "mode", "multiprocessing", "os", "pathlib", "prometheus_client", "psycopg", "queue",
    "random", "requests", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "sqlalchemy", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid",
})
# fmt: on
BANNED_CALLS = frozenset({"open", "input", "print", "breakpoint", "__import__"})
BANNED_METHODS = frozenset(
    {"now", "utcnow", "today", "environ", "getenv", "urandom", "read_text", "read_bytes"}
)


def imports_of(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Every module that is imported, by its full name, with its line."""
    parents = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parents[: len(parents) - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module or "") if part)
            if origin == "kaohe":
                for alias in node.names:
                    yield node.lineno, f"kaohe.{alias.name}"
            else:
                yield node.lineno, origin


def outward_imports(source: str, module: str) -> list[str]:
    """What a module imports although it stands further out, and kaohe's modules that have no layer."""
    own = module.split(".")[1]
    if own not in RANK:
        return [f"{module}: the module {own} has no layer; add it to LAYERS"]
    found = []
    for line, name in imports_of(ast.parse(source), module):
        parts = name.split(".")
        if parts[0] != "kaohe" or len(parts) < 2 or parts[1] == "__version__":
            continue
        if parts[1] not in RANK:
            found.append(f"{module}:{line} imports {name}, which has no layer; add it to LAYERS")
        elif RANK[parts[1]] > RANK[own]:
            found.append(f"{module}:{line} imports {name}, which stands further out")
    return found


def impurities(source: str, module: str) -> list[str]:
    """What a module does that would make two runs differ: banned imports, and reads of clock, files, environment."""
    tree = ast.parse(source)
    found = [
        f"{module}:{line} imports {name}"
        for line, name in imports_of(tree, module)
        if name.split(".")[0] in BANNED_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            found.append(f"{module}:{node.lineno} calls {node.func.id}")
        elif isinstance(node, ast.Attribute) and node.attr in BANNED_METHODS:
            found.append(f"{module}:{node.lineno} uses {ast.unparse(node)}")
    return found


def modules() -> Iterator[tuple[str, str]]:
    """Each module of the package: its dotted name and its source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[1:] != ("__init__",):
            yield ".".join(parts), path.read_text(encoding="utf-8")


def test_imports_point_inward() -> None:
    checked = list(modules())
    assert {name.split(".")[1] for name, _ in checked} >= {"core", "packs", "stream", "payroll", "events"}
    assert [complaint for name, source in checked for complaint in outward_imports(source, name)] == []


def test_the_core_is_pure() -> None:
    checked = [(name, source) for name, source in modules() if name.split(".")[1] in PURE]
    assert len(checked) > len(PURE)
    assert [complaint for name, source in checked for complaint in impurities(source, name)] == []


def compiled_impurities(source: str) -> list[str]:
    """As ``impurities``, of a compiled module, by its lines: what it imports, and calls that are banned."""
    found = []
    for line in source.splitlines():
        imported = re.match(r"\s*(?:from\s+(\S+)\s+c?import|c?import\s+(.+))|cdef extern from (\S+)", line)
        words = re.split(r"[.,\s\"<>]+", " ".join(filter(None, imported.groups()))) if imported else []
        calls = rf"(?<![.\w])(?:{'|'.join(BANNED_CALLS)})\(|\.(?:{'|'.join(BANNED_METHODS)})\b"
        banned = BANNED_MODULES | {"stdio", "stdlib", "unistd"}
        if banned.intersection(words) or re.search(calls, line):
            found.append(line.strip())
    return found


def test_compiled_modules_are_pure() -> None:
    checked = {path.stem: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.pyx")}
    assert checked.keys() >= {"counts", "intake"}
    assert [line for source in checked.values() for line in compiled_impurities(source)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from libc.time cimport time",
        "from libc.stdio cimport printf",
        "import os",
        "    from random import random",
        "cdef extern from <unistd.h>:",
        "    print(value)",
        "    moment = datetime.now()",
    ],
)
def test_the_check_sees_what_makes_two_runs_of_a_compiled_module_differ(line: str) -> None:
    assert compiled_impurities(line) == [line.strip()]


@pytest.mark.parametrize(
    "source",
    [
        "from kaohe.stream import app",
        "from kaohe import payroll",
        "import kaohe.packs.load",
        "def f():\n    from kaohe.cli import main",
        "if TYPE_CHECKING:\n    from kaohe.wallboard.exporter import Exporter",
        "from ..adapters import base",
        "from kaohe.nowhere import thing",
    ],
)
def test_the_check_sees_an_import_that_points_outward(source: str) -> None:
    assert len(outward_imports(source, "kaohe.core.engine")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from kaohe.core.clock import Clock",
        "from kaohe import events",
        "from . import clock",
        "import msgspec",
    ],
)
def test_the_check_lets_an_import_that_points_inward_pass(source: str) -> None:
    assert outward_imports(source, "kaohe.core.engine") == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.utcnow()",
        "from datetime import date\nx = date.today()",
        "from datetime import datetime\nread = datetime.now",
        "x = open('file')",
        "import os",
        "import os.path",
        "from os import environ",
        "def f():\n    import random",
        "from uuid import uuid4",
        "import asyncio",
        "from faust import App",
        "from kafka import KafkaProducer",
        "from http.client import HTTPConnection",
        "from pathlib import Path",
        "from urllib.request import urlopen",
    ],
)
def test_the_check_sees_an_impurity(source: str) -> None:
    assert impurities(source, "kaohe.core.engine") != []


def test_the_check_lets_log_time_pass() -> None:
    source = "from datetime import UTC, datetime\nat = datetime.fromtimestamp(0, UTC)\nevent.time"
    assert impurities(source, "kaohe.core.engine") == []
