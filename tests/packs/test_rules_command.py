"""``kaohe rules``: what it prints and with which code it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kaohe.packs.load import pack_names
from tests.packs.patching import MINIMAL, patched
from tests.support.commands import RULES, Result, kaohe


def _kaohe_rules(*arguments: str) -> Result:
    return kaohe("rules", *arguments)


def test_check_finds_nothing_wrong_with_the_packs_we_ship() -> None:
    result = _kaohe_rules("check")
    *warnings, last = result.stdout.splitlines()
    assert (result.exit_code, last) == (0, f"{len(pack_names(RULES))} packs checked: no mistake")
    # Time alone may bring these: until a year's holidays are announced, and someone has written them down.
    assert all("the public holidays of" in warning for warning in warnings)


def test_check_tells_every_mistake_and_ends_with_1(tmp_path: Path) -> None:
    pack = patched("pack.yaml\n-zone: Asia/Shanghai\n+zone: Mars\n-grace: 72h\n+grace: soon\n", tmp_path)
    result = _kaohe_rules("check", str(pack))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{pack}/pack.yaml:4:7 (zone): there is no time zone 'Mars'; ")
    assert lines[1].startswith(f"{pack}/pack.yaml:7:8 (grace): 'soon' is not a duration; ")
    assert lines[2] == "1 pack checked: 2 mistakes"
    document = json.loads(_kaohe_rules("check", str(pack), "--json").stdout)
    assert [(one["line"], one["column"], one["path"]) for one in document["errors"]] == [
        (4, 7, "zone"),
        (7, 8, "grace"),
    ]


def test_check_reads_the_stories_too(tmp_path: Path) -> None:
    pack = patched("tests/rating.yaml\n-  case: beyond\n+  case: over\n", tmp_path)
    assert _kaohe_rules("check", str(pack)).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check", "front-dask"), "there is no pack 'front-dask' in "),
        (("show", "nothing"), "there is no pack 'nothing' in "),
        (
            ("explain", "ls-complaint"),
            "no pack has a rule or part 'ls-complaint'; did you mean 'ls-complaint-rate'?",
        ),
        (("test", str(MINIMAL), "--clause", "MI-09"), "no story fits"),
        (("list", "--rules", "/nowhere/at/all"), "there is no folder of packs '/nowhere/at/all'"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_2(arguments: tuple[str, ...], sentence: str) -> None:
    result = _kaohe_rules(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"kaohe: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_pack_is_one_sentence_and_2(tmp_path: Path) -> None:
    pack = patched("pack.yaml\n-zone: Asia/Shanghai\n+zone: Mars\n", tmp_path)
    for command in ("show", "test"):
        result = _kaohe_rules(command, str(pack))
        assert result.exit_code == 2
        assert result.stderr.splitlines()[0].startswith(f"kaohe: {pack}/pack.yaml:4:7 (zone): ")


def test_list_names_the_packs_in_both_languages() -> None:
    english, chinese = _kaohe_rules("list").stdout, _kaohe_rules("list", "--lang", "zh").stdout
    assert "Logistics customer service" in english
    assert "后勤客服绩效管理制度" in chinese
    names = [one["name"] for one in json.loads(_kaohe_rules("list", "--json").stdout)]
    assert names == pack_names(RULES)
    assert {"contact-centre", "front-desk", "logistics-service"} <= set(names)


def test_explain_shows_clause_parameters_with_dates_and_formulas() -> None:
    text = _kaohe_rules("explain", "ls-complaint-rate").stdout
    for part in (
        "clause: LS-01 Complaint rate",
        "客户投诉率=投诉数÷服务客户数",
        "when: complaint_rate.month > p.complaint_rate_limit",
        "p.complaint_rate_limit (LS-01, ratio, 0 to 1): Highest acceptable complaint rate",
        "2020-01-01: 0.02",
        "count(complaint.upheld) / count(call.completed + ticket.resolved)",
        "at most p.complaint_rate_cap",
    ):
        assert part in text
    data = json.loads(_kaohe_rules("explain", "ls-complaint-rate", "--json").stdout)
    assert data["when"] == "complaint_rate.month > p.complaint_rate_limit"
    assert data["parameters"][0]["values"] == {"2020-01-01": "0.02"}


def test_show_goes_clause_by_clause() -> None:
    text = _kaohe_rules("show", "front-desk").stdout
    places = [
        text.index(f"\n{clause} [")
        for clause in ("FD-01", "FD-02", "FD-03", "FD-05", "FD-06", "FD-07", "FD-14")
    ]
    assert places == sorted(places)
    assert json.loads(_kaohe_rules("show", "front-desk", "--json").stdout)["zone"] == "Asia/Shanghai"


def test_no_colour_is_written_into_a_pipe() -> None:
    assert "\x1b" not in _kaohe_rules("show", "front-desk").stdout + _kaohe_rules("check").stdout


def test_test_runs_the_stories_that_fit() -> None:
    result = _kaohe_rules("test", str(MINIMAL), "--story", "poor rating")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "passed  MI-02 beyond    A poor rating costs two points",
        "1 of 1 stories came as told",
    ]


def test_test_shows_what_came_instead_and_ends_with_1(tmp_path: Path) -> None:
    pack = patched(
        "tests/rating.yaml\n-    - {rule: mi-rating, subject: a-1, points: -2}\n"
        "+    - {rule: mi-rating, subject: a-1, points: 5}\n",
        tmp_path,
    )
    result = _kaohe_rules("test", str(pack))
    assert result.exit_code == 1
    assert "FAILED  MI-02 beyond    A poor rating costs two points" in result.stdout
    assert "expected but did not come: decision rule=mi-rating, subject=a-1, points=5" in result.stdout
    assert (
        "came but was not expected: decision rule=mi-rating, subject=a-1, period=2026-08, points=-2"
        in result.stdout
    )


def test_trace_names_gaps_and_ends_with_1() -> None:
    result = _kaohe_rules("trace", "--pack", str(MINIMAL), "--run")
    assert result.exit_code == 1
    assert "    story    passed  beyond    A poor rating costs two points" in result.stdout
    assert "GAP      no story shows the rule mi-late doing anything" in result.stdout


def test_trace_of_a_covered_pack_ends_with_0(tmp_path: Path) -> None:
    shutil.copytree(MINIMAL, tmp_path / "minimal")
    pack = tmp_path / "minimal"
    (pack / "clauses.yaml").write_text(
        "MI-02:\n  kinds: [R]\n  title: {en: Rating, zh: 评价}\n  text: {en: Rated., zh: 评价。}\n"
        "  covered_by: {rules: [mi-rating]}\n  without: {holds: It is a test., at_limit: It is a test., "
        "steps: It is a test., no_data: It is a test., late: It is a test., corrected: It is a test., "
        "appealed: It is a test.}\n",
        encoding="utf-8",
    )
    text = (pack / "rules.yaml").read_text(encoding="utf-8")
    (pack / "rules.yaml").write_text(text[text.index("- id: mi-rating") :], encoding="utf-8")
    (pack / "metrics.yaml").write_text("metrics: {}\n")
    (pack / "scorecard.yaml").unlink()
    lines = (pack / "parameters.yaml").read_text(encoding="utf-8").splitlines()
    (pack / "parameters.yaml").write_text(
        next(line for line in lines if line.startswith("marks")) + "\n", encoding="utf-8"
    )
    result = _kaohe_rules("trace", "--pack", str(pack))
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "1 clause traced, all covered" in result.stdout
    (document,) = json.loads(_kaohe_rules("trace", "--pack", str(pack), "--no-run", "--json").stdout)
    assert document["gaps"] == []
    assert document["rows"][0]["stories"][0]["passed"] is None
