"""What ``deploy/`` promises, checked without starting it: what is named exists, nothing is secret, nothing is root."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kaohe
from kaohe.core.model import CALENDAR_WINDOWS
from kaohe.metric_names import EXPORTED, PAYROLL_EXPORTED
from kaohe.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, KafkaSecurity, Settings
from tests.support.prometheus import DEPLOYED, ROOT, Query, load_yaml, require, rules, wallboard_queries

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"
ENV_EXAMPLE = DEPLOY / ".env.example"
PROMTOOL_TIMEOUT_S = 60
HELP_TIMEOUT_S = 60
ONE_SHOT = {"topics"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY", re.IGNORECASE)

SERVICES: dict[str, dict[str, Any]] = load_yaml(COMPOSE)["services"]


def dockerfile_instructions() -> Iterator[tuple[str, str]]:
    """(INSTRUCTION, arguments) with continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), " ".join(rest.split())


INSTRUCTIONS = list(dockerfile_instructions())


def env_example() -> dict[str, str]:
    lines = [line for line in ENV_EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_has_every_service_of_the_deployment() -> None:
    wanted = {"kafka", "topics", "worker", "clock", "payroll", "postgres", "prometheus", "grafana"}
    assert set(SERVICES) == wanted
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_watched_or_ends_by_itself(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
        assert service["healthcheck"]["test"][0] == "CMD", "no shell is needed for a question"


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image, f"{SERVICES[name]['image']} has no tag"
    assert re.match(r"v?\d+\.\d+(\.\d+)?(-\w+)?$", tag), tag
    if "build" in SERVICES[name]:
        assert (image, tag) == ("kaohe", kaohe.__version__)


def test_kafka_is_the_one_that_tests_run_against() -> None:
    pom = (ROOT / "tests" / "support" / "kafka" / "pom.xml").read_text()
    tested = re.search(r"<kafka.version>(.+)</kafka.version>", pom)
    assert tested
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested.group(1)}"


def test_dependencies_wait_for_health_or_for_the_end() -> None:
    waited = 0
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            waited += 1
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}, (name, other)
    assert waited >= 10


def test_published_ports_are_bound_to_loopback() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_volumes_are_declared_or_are_files_of_the_repository() -> None:
    declared = set(load_yaml(COMPOSE)["volumes"])
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _target, *options = volume.split(":")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
                assert options == ["ro"], volume
            else:
                used.add(source)
    assert used == declared


def test_own_services_have_no_rights_to_spare() -> None:
    own = [service for service in SERVICES.values() if "build" in service]
    assert len(own) == 4
    for service in own:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).is_file()


def test_secrets_come_from_the_environment_only_and_have_no_default() -> None:
    found = 0
    for service in SERVICES.values():
        for name, setting in service.get("environment", {}).items():
            for reference in re.findall(r"\$\{(\w+)[^}]*\}", str(setting)):
                if SECRET.search(reference):
                    found += 1
                    assert f"${{{reference}:?" in str(setting), f"{name} starts without {reference}"
            if SECRET.search(name):
                assert str(setting).startswith("${"), name
    assert found == 3
    for name, default in env_example().items():
        assert not SECRET.search(name) or default == "", f"{name} has a default"


def test_every_variable_of_compose_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert used == set(env_example())


def known_variables() -> set[str]:
    fields = [field.upper() for field in Settings.__struct_fields__ if field != "security"]
    fields += [f"SECURITY_{field.upper()}" for field in KafkaSecurity.__struct_fields__]
    return {ENVIRONMENT_PREFIX + field for field in fields} | {CONFIG_VARIABLE}


def test_every_pack_of_the_deployment_exists() -> None:
    named = env_example()["KAOHE_PACKS"]
    assert f"${{KAOHE_PACKS:-{named}}}" == SERVICES["worker"]["environment"]["KAOHE_PACKS"]
    for pack in named.split(","):
        assert (ROOT / "rules" / pack / "pack.yaml").is_file(), pack


def test_every_setting_is_a_real_one() -> None:
    for path in (COMPOSE, DOCKERFILE, ENV_EXAMPLE):
        used = set(re.findall(r"\bKAOHE_[A-Z_]+", path.read_text()))
        assert used, path
        assert used <= known_variables(), path


def test_every_command_is_one_of_the_command_line() -> None:
    commands = [service["command"] for service in SERVICES.values() if "build" in service]
    commands += [re.findall(r'"([^"]+)"', text) for word, text in INSTRUCTIONS if word == "CMD"]
    assert len(commands) == 5
    environment = os.environ | {"PYTHONPATH": str(ROOT / "services"), "COLUMNS": "120"}
    program = [sys.executable, "-c", "from kaohe.cli import main; main()"]
    for command in {tuple(command) for command in commands}:
        asked = [*program, *command, "--help"]
        done = subprocess.run(
            asked, env=environment, capture_output=True, text=True, timeout=HELP_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        assert f"kaohe {' '.join(command)}" in " ".join(done.stdout.split()), command


# --- image ------------------------------------------------------------------------------------------------------------


def test_image_is_built_in_stages_from_pinned_bases() -> None:
    bases = [text.split(" AS ")[0] for word, text in INSTRUCTIONS if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"python:3\.(11|12)\.\d+-slim-\w+", base), base
    last = max(index for index, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM")
    built = " ".join(text for _, text in INSTRUCTIONS[:last])
    run = " ".join(text for _, text in INSTRUCTIONS[last:])
    assert "gcc" in built
    assert "gcc" not in run
    assert "apt-get" not in run


def test_image_does_not_run_as_root() -> None:
    users = [text for word, text in INSTRUCTIONS if word == "USER"]
    assert users == ["10001:10001"], "a number, so that an orchestrator can see that it is not root"
    assert [word for word, _ in INSTRUCTIONS].index("USER") > [word for word, _ in INSTRUCTIONS].index("RUN")


def test_image_carries_no_secret() -> None:
    for word, text in INSTRUCTIONS:
        assert word not in {"ARG", "ADD"}
        assert not SECRET.search(text), text


def test_image_watches_itself() -> None:
    checks = [text for word, text in INSTRUCTIONS if word == "HEALTHCHECK"]
    assert len(checks) == 1
    assert "healthcheck.py" in checks[0]


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    allowed = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    copied = [text.split()[:-1] for word, text in INSTRUCTIONS if word == "COPY" and "--from" not in text]
    sources = [source for group in copied for source in group]
    assert len(sources) == 7
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(path + "/") for path in allowed), source


def test_packages_are_installed_by_hash() -> None:
    installs = [
        part for word, text in INSTRUCTIONS if word == "RUN" for part in text.split("&&") if "pip" in part
    ]
    named = [part for part in installs if " -r " in part]
    assert len(named) == 2
    for part in installs:
        assert "--require-hashes" in part or "--no-deps" in part, part
    for part in named:
        path = re.search(r"-r (\S+)", part)
        assert path
        text = (ROOT / path.group(1)).read_text()
        pins = re.findall(r"^[\w.\[\]-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins), path.group(1)


# --- Prometheus -------------------------------------------------------------------------------------------------------


def promtool(*arguments: str) -> str:
    command = [require("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROMTOOL_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    said = promtool("check", "config", str(DEPLOYED / "prometheus.yml"))
    assert said.count("rules found") == 2


@pytest.mark.prometheus
@pytest.mark.parametrize("name", ["recording", "worker"])
def test_rules_give_the_figures_worked_out_by_hand(name: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(DEPLOYED / "tests" / f"{name}.test.yml"))


def test_each_alert_says_what_to_do_and_has_a_test() -> None:
    tested = (DEPLOYED / "tests" / "worker.test.yml").read_text()
    checked = 0
    for group in load_yaml(DEPLOYED / "worker.rules.yml")["groups"]:
        for rule in group["rules"]:
            checked += 1
            assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in {"medium", "high", "critical"}
            assert rule["alert"] in tested
    assert checked >= 5


SERIES = {
    exported.name + suffix: {*exported.labels, *(["le"] if suffix == "_bucket" else [])}
    for exported in (*EXPORTED, *PAYROLL_EXPORTED)
    for suffix in (("_bucket", "_sum", "_count") if exported.kind == "histogram" else ("",))
}
PROMETHEUS_OWN = {"up": {"job", "instance"}}
SELECTOR = re.compile(r"\b(kaohe[\w:]*|up)\b(?:\{([^}]*)\})?")


def used(expr: str) -> list[tuple[str, dict[str, str]]]:
    """(series, label to value) of each selector in a query."""
    found = []
    for name, labels in SELECTOR.findall(re.sub(r'"kaohe-worker"', '"-"', expr)):
        pairs = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', labels)
        found.append((name, dict(pairs)))
    return found


EXPRESSIONS = (
    [(name, expr) for kind in ("record", "alert") for name, expr in rules(kind)]
    + [(query.panel, query.expr) for query in wallboard_queries()]
)  # fmt: skip


def test_queries_name_real_series_and_real_labels() -> None:
    recorded = {name for name, _ in rules("record")}
    seen = 0
    for place, expr in EXPRESSIONS:
        selectors = used(expr)
        assert selectors, f"{place}: {expr}"
        for series, labels in selectors:
            seen += 1
            if ":" in series:
                assert series in recorded, f"{place}: nothing records {series}"
            else:
                known = (SERIES | PROMETHEUS_OWN).get(series)
                assert known is not None, f"{place}: nothing exports {series}"
                assert set(labels) <= known, f"{place}: {series} has no label {set(labels) - known}"
    assert seen > 60


def contact_centre() -> tuple[dict[str, Any], set[str]]:
    metrics = load_yaml(ROOT / "rules" / "contact-centre" / "metrics.yaml")["metrics"]
    windows = {window.replace(" ", "_") for metric in metrics.values() for window in metric["windows"]}
    return metrics, windows


def test_queries_name_metrics_levels_and_windows_of_the_pack() -> None:
    metrics, windows = contact_centre()
    assert set(CALENDAR_WINDOWS) & windows
    seen = 0
    for place, expr in EXPRESSIONS:
        for _, labels in used(expr):
            if "metric" in labels:
                seen += 1
                assert labels["pack"] == "contact-centre", place
                metric = metrics.get(labels["metric"])
                assert metric is not None, f"{place}: the pack has no metric {labels['metric']}"
                assert "level" not in labels or labels["level"] in metric["level"], f"{place}: {labels}"
                declared = {window.replace(" ", "_") for window in metric["windows"]}
                assert "window" not in labels or labels["window"] in declared, f"{place}: {labels}"
    assert seen > 40


# --- Grafana ----------------------------------------------------------------------------------------------------------


def build_wallboard() -> Any:
    spec = importlib.util.spec_from_file_location(
        "build_wallboard", DEPLOY / "grafana" / "build_wallboard.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wallboard_is_current() -> None:
    builder = build_wallboard()
    stored = Path(builder.RESULT).read_text(encoding="utf-8")
    assert stored == builder.render(), "run: python deploy/grafana/build_wallboard.py"


def test_every_panel_asks_something_in_both_languages() -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "wallboard.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) >= 20
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["targets"], panel["title"]
        english, _, chinese = panel["title"].partition(" · ")
        assert english.isascii(), panel["title"]
        assert re.search(r"[\u4e00-\u9fff]", chinese), panel["title"]
        letters = [target.get("refId", "A") for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]


def test_wallboard_reads_from_the_provisioned_source() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = load_yaml(folder / "datasources" / "prometheus.yaml")["datasources"][0]
    text = (DEPLOY / "grafana" / "dashboards" / "wallboard.json").read_text()
    references = {entry["uid"] for entry in find_key(json.loads(text), "datasource")}
    assert references == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    provider = load_yaml(folder / "dashboards" / "kaohe.yaml")["providers"][0]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


def find_key(tree: Any, key: str) -> Iterator[Any]:
    """Every value under ``key``, however deep."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            if name == key:
                yield below
            else:
                yield from find_key(below, key)
    elif isinstance(tree, list):
        for entry in tree:
            yield from find_key(entry, key)


def test_a_query_is_filled_like_in_grafana() -> None:
    query = Query("p", 'x{subject=~"$queue"}', {"queue": ".+"})
    assert query.filled() == 'x{subject=~".+"}'
    with pytest.raises(AssertionError, match="without a value"):
        Query("p", "x[$__interval]", {}).filled()
