"""The loader reads exactly what is written and gives it to the core with types, units, dates and places."""

from __future__ import annotations

import shutil
from datetime import date
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from kaohe.core.expressions import ExprType, to_condition
from kaohe.core.matcher import check_limits
from kaohe.core.model import Pack
from kaohe.errors import PackError, ParameterError, UsageError
from kaohe.events import PAYLOADS
from kaohe.packs.load import (
    check_pack,
    check_together,
    find_pack,
    load,
    load_pack,
    load_packs,
    pack_names,
    read_pack,
)
from kaohe.packs.names import EVENT_TYPES, event_fields
from kaohe.packs.source import Problems, read_yaml
from tests.packs.patching import MINIMAL, patched

RULES = Path(__file__).parents[2] / "rules"


@pytest.fixture(scope="module")
def minimal() -> Pack:
    return load_pack(MINIMAL)


def _sibling(folder: Path, name: str, old: str = "", new: str = "") -> Path:
    """A second pack with other names, changed in one place."""
    pack = folder / name
    shutil.copytree(MINIMAL, pack)
    for file in pack.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8").replace("minimal", name).replace("mi-", f"{name}-")
        text = text.replace("wait_s", f"{name}_wait_s").replace("satisfied:", f"{name}_satisfied:")
        text = text.replace("satisfied]", f"{name}_satisfied]").replace(
            "satisfied.rolling", f"{name}_satisfied.rolling"
        )
        file.write_text(text.replace(old, new) if old else text, encoding="utf-8")
    return pack


def test_numbers_are_exact(minimal: Pack) -> None:
    assert minimal.parameters["goal"].value_at(date(2026, 8, 1)) == Fraction(9, 10)
    assert isinstance(minimal.parameters["goal"].values[0][1], Fraction)


def test_a_parameter_has_the_value_in_force_on_the_day(minimal: Pack) -> None:
    limit = minimal.parameters["limit"]
    assert limit.value_at(date(2026, 6, 30)) == 60
    assert limit.value_at(date(2026, 7, 1)) == 45
    with pytest.raises(ParameterError, match="has no value on 2025-12-31: the first is 2026-01-01"):
        limit.value_at(date(2025, 12, 31))


def test_a_parameter_is_a_number_a_text_or_a_table(minimal: Pack) -> None:
    kinds = {name: parameter.kind for name, parameter in minimal.parameters.items()}
    assert (kinds["limit"], kinds["mode"], kinds["start"], kinds["marks"]) == (
        "number",
        "text",
        "text",
        "table",
    )
    assert minimal.parameters["marks"].values[0][1] == {"poor": Fraction(-2), "*": Fraction(1)}


def test_a_mean_of_times_is_shown_in_seconds(minimal: Pack) -> None:
    metric = minimal.metrics["wait_s"]
    assert (metric.unit, metric.scale) == ("s", Fraction(1, 1000))
    assert [(term.source, term.field) for term in metric.numerator] == [("call.answered", "wait_ms")]
    assert [(term.source, term.field) for term in metric.denominator] == [("call.answered", "")]
    assert metric.formula == "sum(wait_ms of call.answered) / count(call.answered) / 1000"
    assert metric.windows == ("month", "rolling_1h")


def test_the_names_of_a_rule_depend_on_its_trigger(minimal: Pack) -> None:
    month, live, late = (minimal.scopes[name] for name in ("mi-wait", "mi-wait-live", "mi-late"))
    assert month["wait_s.month"] == ExprType("number", "s", optional=True)
    assert month["wait_s.month.base"] == ExprType("number", "count")
    assert month["wait_s.baseline_month"] == ExprType("number", "s", optional=True)
    assert month["wait_s.month.vs_previous"] == ExprType("number", "ratio", optional=True)
    assert "wait_s.rolling_1h" not in month
    assert "wait_s.rolling_1h" in live
    assert "event.severity" not in month
    assert late["event.severity"].values == ("minor", "major", "critical")
    assert late["deadline.late_ms"] == ExprType("number", "ms")
    assert "p.marks" not in late


def test_places_are_kept(minimal: Pack) -> None:
    rule = minimal.rules[0]
    assert (rule.place.file, rule.place.line, rule.place.column) == (str(MINIMAL / "rules.yaml"), 1, 3)
    assert minimal.metrics["wait_s"].place.line == 2


def test_steps_and_tables_become_amounts(minimal: Pack) -> None:
    steps = minimal.rules[0].effects[0].amount
    assert steps is not None
    assert (steps.direction, steps.table) == ("over", "")
    table = minimal.rules[3].effects[0].amount
    assert table is not None
    assert (table.table, table.by) == ("marks", "event.rating")


def test_a_deadline_looks_up_its_limit_by_a_word(minimal: Pack) -> None:
    deadline = minimal.deadlines["response"]
    assert (deadline.within, deadline.by, deadline.due_field) == ("hours", "severity", "promised_at")
    assert (deadline.key, deadline.met_by) == ("complaint_id", ("complaint.responded",))


def test_a_service_level_says_its_formula_with_its_version(tmp_path: Path) -> None:
    change = (
        "metrics.yaml\n-    mean: {field: wait_ms, of: call.answered}\n"
        "+    service_level: {threshold: p.limit, abandoned: counted, short_abandon: p.step}\n"
        "rules.yaml\n"
        '-  when: wait_s.month > p.limit && p.mode == "strict"\n+  when: wait_s.month < p.goal\n'
        "-    - deduct: {points: p.fine, per: p.step, over: p.limit, of: wait_s.month, at_most: p.cap}\n"
        "+    - deduct: {points: p.fine}\n"
        "-  when: wait_s.rolling_1h > p.limit || satisfied.rolling_15m < p.goal\n"
        "+  when: wait_s.rolling_1h < p.goal\n"
        "-        clear: wait_s.rolling_1h <= p.limit\n+        clear: wait_s.rolling_1h >= p.goal\n"
    )
    metric = load_pack(patched(change, tmp_path)).metrics["wait_s"]
    assert (
        metric.formula
        == "service_level/v1(threshold_s={p.limit}, abandoned=counted, short_abandon_s={p.step})"
    )
    assert [term.source for term in metric.denominator] == ["call.answered", "call.abandoned"]
    assert metric.denominator[1].where is not None
    assert metric.unit == "ratio"


def test_a_formula_is_filled_with_the_parameters_in_force(tmp_path: Path) -> None:
    change = (
        "metrics.yaml\n-    mean: {field: wait_ms, of: call.answered}\n-    baseline: p.start\n"
        "+    count: {event: call.answered, where: event.wait_ms > p.limit}\n"
        'rules.yaml\n-  when: wait_s.month > p.limit && p.mode == "strict"\n+  when: wait_s.month > 5\n'
        "-    - deduct: {points: p.fine, per: p.step, over: p.limit, of: wait_s.month, at_most: p.cap}\n"
        "+    - deduct: {points: p.fine}\n"
        "-  when: wait_s.rolling_1h > p.limit || satisfied.rolling_15m < p.goal\n"
        "+  when: wait_s.rolling_1h > 5\n"
        "-        clear: wait_s.rolling_1h <= p.limit\n+        clear: wait_s.rolling_1h <= 5\n"
    )
    metric = load_pack(patched(change, tmp_path)).metrics["wait_s"]
    assert metric.formula == "count(call.answered where event.wait_ms > {p.limit} s)"


def test_every_event_field_but_compound_ones_can_be_named() -> None:
    assert "training.assessed" in EVENT_TYPES
    for event in EVENT_TYPES:
        fields = {field.name for field in msgspec.structs.fields(PAYLOADS[event])}
        assert event_fields(event).keys() == fields - {"terms", "read", "files", "reversals"}
    assert event_fields("training.assessed")["growth"].type.optional
    assert event_fields("quality.evaluated")["score"].type.unit == "score"
    assert event_fields("promise.made")["due_at"].moment


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    pack = patched(
        "pack.yaml\n-zone: Asia/Shanghai\n+zone: Mars\n"
        "metrics.yaml\n-    level: [queue]\n+    level: [floor]\n"
        "rules.yaml\n-  judged: month\n+  judged: fortnight\n-    - proposal: transfer\n+    - proposal: jail\n",
        tmp_path,
    )
    files = [Path(error.place.file).name for error in check_pack(pack)]
    assert files == ["pack.yaml", "metrics.yaml", "rules.yaml", "rules.yaml"]


def test_two_rules_that_charge_for_one_cause_are_warned_about(tmp_path: Path) -> None:
    change = (
        "rules.yaml\n+\n+- id: mi-wait-again\n+  clause: MI-01\n+  title: {en: Again, zh: 又}\n+  level: [agent]\n"
        "+  judged: month\n+  when: wait_s.month > p.step\n+  then:\n+    - deduct: {points: p.fine}\n"
        "clauses.yaml\n-  covered_by: {metrics: [wait_s, satisfied], rules: [mi-wait, mi-wait-live]}\n"
        "+  covered_by: {metrics: [wait_s, satisfied], rules: [mi-wait, mi-wait-live, mi-wait-again]}\n"
    )
    loaded = load(patched(change, tmp_path))
    assert [warning.wrong for warning in loaded.warnings] == [
        "mi-wait and mi-wait-again both give points for clause MI-01 from the same cause"
    ]


def test_rules_that_together_are_too_many_for_the_matcher_are_refused(tmp_path: Path) -> None:
    rules, ids = [], []
    for index in range(70):
        groups = [
            " || ".join(f"wait_s.month > {index * 20 + group * 7 + one}" for one in range(count))
            for group, count in ((1, 3), (2, 4), (3, 5))
        ]
        ids.append(f"mi-many-{index}")
        when = " && ".join(f"({group})" for group in groups)
        rules.append(
            f"+- id: {ids[-1]}\n+  clause: MI-01\n+  title: {{en: Many, zh: 多}}\n+  level: [agent]\n"
            f"+  judged: month\n+  when: {when}\n+  then:\n+    - proposal: transfer\n"
        )
    change = (
        f"rules.yaml\n{''.join(rules)}"
        "clauses.yaml\n-  covered_by: {metrics: [wait_s, satisfied], rules: [mi-wait, mi-wait-live]}\n"
        f"+  covered_by: {{metrics: [wait_s, satisfied], rules: [mi-wait, mi-wait-live, {', '.join(ids[:60])}]}}\n"
        f"+MI-04:\n+  kinds: [R]\n+  title: {{en: More, zh: 更多}}\n+  text: {{en: More., zh: 更多。}}\n"
        f"+  covered_by: {{rules: [{', '.join(ids[60:])}]}}\n"
    )
    pack = patched(change, tmp_path)
    text = (pack / "rules.yaml").read_text(encoding="utf-8")
    for one in ids[60:]:
        text = text.replace(f"- id: {one}\n  clause: MI-01", f"- id: {one}\n  clause: MI-04")
    (pack / "rules.yaml").write_text(text, encoding="utf-8")
    (error,) = check_pack(pack)
    assert "at level agent, period month: the rules need" in error.wrong
    assert error.right == "use fewer rules"


def test_what_the_checker_lets_through_the_matcher_carries(minimal: Pack) -> None:
    for rule in minimal.rules:
        assert check_limits([(rule.id, to_condition(rule.condition))], minimal.scopes[rule.id]) == []


# --- several packs ----------------------------------------------------------------------------------------------------


def test_packs_are_found_by_name_and_by_path() -> None:
    assert "logistics-service" in pack_names(RULES)
    assert find_pack("front-desk", RULES) == RULES / "front-desk"
    assert find_pack(str(MINIMAL), RULES) == MINIMAL
    with pytest.raises(UsageError, match="did you mean 'front-desk'"):
        find_pack("frontdesk", RULES)
    with pytest.raises(UsageError, match="holds no pack"):
        find_pack(str(MINIMAL / "tests"), RULES)
    with pytest.raises(UsageError, match="there is no folder of packs"):
        pack_names(MINIMAL / "nowhere")


def test_the_three_packs_load_together() -> None:
    packs = load_packs(["contact-centre", "front-desk", "logistics-service"], RULES)
    assert [pack.name for pack in packs] == ["contact-centre", "front-desk", "logistics-service"]


def test_packs_loaded_together_have_names_of_their_own(tmp_path: Path, minimal: Pack) -> None:
    other = load_pack(_sibling(tmp_path, "other"))
    assert check_together([minimal, other]) == []
    twice = [error.wrong for error in check_together([minimal, minimal])]
    assert twice == ["the pack minimal is loaded twice"]
    same = msgspec.structs.replace(other, metrics=minimal.metrics, rules=minimal.rules)
    wrongs = [error.wrong for error in check_together([minimal, same])]
    assert "other and minimal, loaded together, both declare the metric wait_s" in wrongs
    assert "other and minimal, loaded together, both have the rule mi-wait" in wrongs


def test_two_versions_of_a_pack_may_be_loaded_together(minimal: Pack) -> None:
    newer = msgspec.structs.replace(minimal, version="1.1")
    assert check_together([minimal, newer]) == []
    assert [error.path for error in check_together([minimal, newer, newer])] == ["name"]
    moved = msgspec.structs.replace(newer, zone="Europe/Berlin")
    assert [error.path for error in check_together([minimal, moved])] == ["zone"]


def test_packs_loaded_together_share_one_clock(tmp_path: Path) -> None:
    _sibling(tmp_path, "other", "Asia/Shanghai", "Europe/Berlin")
    shutil.copytree(MINIMAL, tmp_path / "minimal")
    with pytest.raises(
        PackError, match="other has zone Europe/Berlin, but minimal, loaded with it, has Asia/Shanghai"
    ):
        load_packs(["minimal", "other"], tmp_path)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    pack = patched("", tmp_path)
    (pack / "rules.yaml").write_bytes("- id: 等待".encode("gb18030"))
    (error,) = check_pack(pack)
    assert (error.wrong, error.right) == ("byte 6 is not UTF-8", "save the file as UTF-8")


def test_a_file_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 100 + "]" * 100)
    with pytest.raises(PackError, match="nested too deeply"):
        read_yaml(path, Problems())


def test_a_second_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("a: 1\n---\nb: 2\n")
    with pytest.raises(PackError, match="a second YAML document"):
        read_yaml(path, Problems())


def test_what_looks_like_a_truth_value_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "on.yaml"
    path.write_text("on: yes\noff: 1_000\n")
    root = read_yaml(path, Problems())
    assert root is not None
    assert {key: value.text for key, (_, value) in root.entries.items()} == {"on": "yes", "off": "1_000"}


def test_a_folder_without_a_pack_is_told(tmp_path: Path) -> None:
    loaded, problems = read_pack(tmp_path)
    assert loaded is None
    assert [error.wrong for error in problems.errors] == ["the folder holds no pack.yaml"]
