"""The story runner notices what came and was not told, and what was told and did not come."""

from __future__ import annotations

import shutil
from pathlib import Path

from kaohe.core.calendars import to_ms
from kaohe.events import type_of
from kaohe.packs.load import load_pack
from kaohe.packs.story import StoryResult, load_stories, run_story
from tests.packs.patching import patched

_TOLD = "    - {rule: mi-rating, subject: a-1, points: -2}"
_EVENT = (
    '    - {at: "2026-08-03T09:00", type: survey.cross_department, agent: a-1, by: finance, rating: poor}'
)


def _run(tmp_path: Path, old: str = "", new: str = "") -> StoryResult:
    added = "".join(f"+{line}\n" for line in new.splitlines())
    pack = load_pack(patched(f"tests/rating.yaml\n-{old}\n{added}" if old else "", tmp_path))
    return run_story(pack, load_stories(pack)[0])


def test_a_story_that_comes_as_told_passes(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert (result.passed, result.failures, result.case) == (True, (), "beyond")


def test_other_points_fail_with_both_and_the_explanation(tmp_path: Path) -> None:
    result = _run(tmp_path, _TOLD, "    - {rule: mi-rating, subject: a-1, points: -3}")
    assert len(result.failures) == 2
    assert result.failures[0] == "expected but did not come: decision rule=mi-rating, subject=a-1, points=-3"
    assert result.failures[1].startswith(
        "came but was not expected: decision rule=mi-rating, subject=a-1, period=2026-08, points=-2, status=final"
    )
    assert "Cooperation" in result.failures[1]


def test_a_decision_that_is_not_told_fails(tmp_path: Path) -> None:
    result = _run(tmp_path, f"  expect:\n-{_TOLD}", "  expect: []")
    assert len(result.failures) == 1
    assert result.failures[0].startswith("came but was not expected: decision rule=mi-rating")


def test_a_decision_told_twice_must_come_twice(tmp_path: Path) -> None:
    assert not _run(tmp_path, _TOLD, f"{_TOLD}\n{_TOLD}").passed


def test_a_rule_that_is_to_be_silent_is_heard(tmp_path: Path) -> None:
    result = _run(tmp_path, _TOLD, f"{_TOLD}\n  expect_nothing_from: [mi-rating]")
    assert result.failures[0].startswith("nothing was expected from mi-rating, but there came")


def test_a_figure_is_compared(tmp_path: Path) -> None:
    call = (
        '    - {at: "2026-08-03T09:10", type: call.answered, agent: a-1, call_id: c, wait_ms: 5000,'
        " repeat: 2, every: 1m}"
    )
    where = "metric: wait_s, level: agent, subject: a-1, window: month, period: 2026-08"
    good, bad = (
        f"{_EVENT}\n{call}\n  expect_metrics:\n    - {{{where}, value: {value}}}" for value in (5, 6)
    )
    assert _run(tmp_path / "good", _EVENT, good).passed
    (failure,) = _run(tmp_path / "bad", _EVENT, bad).failures
    assert failure.endswith("value is 5.0, not 6")


def test_an_event_that_the_engine_rejects_fails_the_story(tmp_path: Path) -> None:
    clear = _EVENT.replace("survey.cross_department", "survey.customer").replace(
        "by: finance, rating: poor", 'satisfaction: neutral, customer: "13800138000"'
    )
    assert not _run(tmp_path, _EVENT, f"{_EVENT}\n{clear}").passed


def test_repeated_events_are_numbered_and_the_roster_stands_before_them(tmp_path: Path) -> None:
    event = (
        '    - {at: "2026-08-03T09:00", type: complaint.logged, agent: a-1, complaint_id: k,'
        ' promised_at: "2026-08-03T12:00", customer: "c-00000000000000{n}", repeat: 3, every: 30s}'
    )
    change = (
        f"tests/rating.yaml\n-  events:\n-{_EVENT}\n"
        f"+  roster: {{a-1: {{team: t-1, site: s-1}}}}\n+  events:\n+{event}\n"
    )
    pack = load_pack(patched(change, tmp_path))
    (story,) = load_stories(pack)
    assert [type_of(one) for one in story.events] == ["roster.changed"] + ["complaint.logged"] * 3
    assert story.events[0].data.team == "t-1"
    assert [one.data.complaint_id for one in story.events[1:]] == ["k-1", "k-2", "k-3"]
    assert [one.data.customer[-1] for one in story.events[1:]] == ["1", "2", "3"]
    assert len({one.id for one in story.events}) == 4
    moments = [to_ms(one.time) for one in story.events[1:]]
    assert [later - moments[0] for later in moments] == [0, 30_000, 60_000]
    assert story.events[1].data.promised_at.isoformat() == "2026-08-03T12:00:00+08:00"


_LATE = """- name: A critical complaint that nobody answers for two hours
  clause: MI-02
  case: beyond
  events:
    - {at: "2026-08-03T09:00", type: complaint.logged, agent: a-1, complaint_id: k, severity: critical}
"""


def test_a_missed_deadline_deducts_gives_a_task_and_proposes(tmp_path: Path) -> None:
    pack = load_pack(patched("", tmp_path))
    told = """  until: "2026-08-03T11:30"
  expect:
    - {rule: mi-late, subject: a-1, kind: deduct, points: -2, status: final, incident: k}
    - {rule: mi-late, subject: a-1, kind: task, points: 0, owner: team_leader}
    - {rule: mi-late, subject: a-1, kind: proposal, proposal: transfer}
"""
    (Path(pack.folder) / "tests" / "rating.yaml").write_text(_LATE + told, encoding="utf-8")
    (story,) = load_stories(pack)
    assert run_story(pack, story).failures == ()


def test_a_waiver_gives_back_what_it_names(tmp_path: Path) -> None:
    change = (
        "rules.yaml\n+\n+- id: mi-waived\n+  clause: MI-02\n+  title: {en: Waived, zh: 减免}\n+  level: [agent]\n"
        '+  on: exemption.granted\n+  when: "true"\n+  then:\n'
        "+    - waive: {rules: [mi-late], incident: event.incident}\n"
        "clauses.yaml\n-  covered_by: {deadlines: [response], rules: [mi-late, mi-rating]}\n"
        "+  covered_by: {deadlines: [response], rules: [mi-late, mi-rating, mi-waived]}\n"
    )
    pack = load_pack(patched(change, tmp_path))
    told = """    - {at: "2026-08-03T12:00", type: exemption.granted, agent: a-1, exemption_id: x, incident: k}
  until: "2026-08-03T13:00"
  expect:
    - {rule: mi-late, subject: a-1, kind: deduct, points: -2}
    - {rule: mi-late, subject: a-1, kind: task}
    - {rule: mi-late, subject: a-1, kind: proposal}
    - {rule: mi-waived, subject: a-1, kind: waive, points: 2}
"""
    (Path(pack.folder) / "tests" / "rating.yaml").write_text(_LATE + told, encoding="utf-8")
    (story,) = load_stories(pack)
    assert run_story(pack, story).failures == ()


def test_a_month_over_the_limit_deducts_steps_and_caps_the_grade(tmp_path: Path) -> None:
    pack = load_pack(patched("", tmp_path))
    told = """- name: Forty-five seconds allowed, seventy waited
  clause: MI-01
  case: steps
  events:
    - {at: "2026-08-03T09:00", type: call.answered, agent: a-1, call_id: c, wait_ms: 70000, repeat: 10, every: 1m}
  until: "2026-09-04T01:00"
  expect:
    - {rule: mi-wait, subject: a-1, period: "2026-08", points: -4, status: final}
  expect_grades:
    - {subject: a-1, period: "2026-08", score: 96, grade: B, status: final}
"""
    (Path(pack.folder) / "tests" / "rating.yaml").write_text(told, encoding="utf-8")
    (story,) = load_stories(pack)
    assert run_story(pack, story).failures == ()


PAY_STORY = """with pay
tests/pay.yaml
+- name: A late B is paid by its coefficient
+  clause: MI-04
+  case: beyond
+  roster: {a-1: {pay_base_minor: 800000}, a-2: {pay_base_minor: 500000}}
+  events:
+    - {at: "2026-08-03T09:00", type: pay.stated, agent: a-2, period: 2026-08, annual_salary_minor: 24000000}
+    - {at: "2026-08-03T09:00", type: survey.cross_department, agent: a-1, rating: poor, repeat: 6, every: 1h}
+  until: "2026-09-10T00:00"
+  settle: 2026-08
+  expect_pay:
+    - {subject: a-1, period: 2026-08, component: performance, amount_minor: 56000}
+    - {subject: a-1, component: penalty, amount_minor: 0, rule: mi-rating}
+    - {subject: a-1, component: penalty, amount_minor: 0}
+    - {subject: a-1, component: penalty, amount_minor: 0}
+    - {subject: a-1, component: penalty, amount_minor: 0}
+    - {subject: a-1, component: penalty, amount_minor: 0}
+    - {subject: a-1, component: penalty, amount_minor: 0}
+    - {subject: a-2, component: performance, amount_minor: 160000, clause: MI-04}
+    - {subject: a-2, component: bonus, amount_minor: 16000}
+  expect_statements:
+    - {subject: a-1, period: 2026-08, grade: B, base_minor: 80000, pay_minor: 776000, held_minor: 0, missing: 0}
+    - {subject: a-2, period: 2026-08, grade: A, gross_minor: 1600000, total_minor: 176000}
"""


def _pay(tmp_path: Path, old: str = "", new: str = "") -> StoryResult:
    pack = load_pack(patched(PAY_STORY.replace(old, new) if old else PAY_STORY, tmp_path))
    (story,) = [one for one in load_stories(pack) if one.clause == "MI-04"]
    return run_story(pack, story)


def test_pay_is_settled_and_compared(tmp_path: Path) -> None:
    assert _pay(tmp_path).failures == ()


def test_other_pay_fails_with_the_line_and_its_explanation(tmp_path: Path) -> None:
    result = _pay(tmp_path, "amount_minor: 16000}", "amount_minor: 16001}")
    assert result.failures[0] == (
        "expected but did not come: line of pay subject=a-2, component=bonus, amount_minor=16001"
    )
    assert (
        "came but was not expected: line of pay subject=a-2, period=2026-08, component=bonus"
        in result.failures[1]
    )


def test_other_statements_fail_with_the_figure(tmp_path: Path) -> None:
    assert _pay(tmp_path, "pay_minor: 776000", "pay_minor: 1").failures == (
        "subject=a-1, period=2026-08: pay_minor is 776000, not pay_minor=1",
    )


def test_a_statement_that_there_is_not_fails(tmp_path: Path) -> None:
    assert _pay(
        tmp_path, "+    - {subject: a-2, period: 2026-08, grade: A", "+    - {subject: a-3, grade: A"
    ).failures == ("no statement for subject=a-3; name subject and period",)


def _line(tmp_path: Path, wanted: str) -> StoryResult:
    """A story over a card of items: of a person, four requests, three of them solved at once."""
    pack = load_pack(Path(__file__).parent / "scored")
    folder = tmp_path / "scored"
    shutil.copytree(Path(pack.folder), folder, ignore=shutil.ignore_patterns("tests"))
    (folder / "tests").mkdir()
    (folder / "tests" / "line.yaml").write_text(
        "- name: Three of four\n  clause: SC-01\n  case: other\n  events:\n"
        '    - {at: "2026-02-02T09:00", type: ticket.resolved, agent: a-1, ticket_id: t, first_contact: true,'
        " repeat: 3, every: 1m}\n"
        '    - {at: "2026-02-02T10:00", type: ticket.resolved, agent: a-1, ticket_id: u}\n'
        '  until: "2026-02-04T00:00"\n  expect_lines:\n    - ' + wanted + "\n",
        encoding="utf-8",
    )
    pack = load_pack(folder)
    return run_story(pack, load_stories(pack)[0])


def test_a_line_of_a_scorecard_is_compared(tmp_path: Path) -> None:
    where = "subject: a-1, period: 2026-02, item: solving"
    assert _line(tmp_path / "a", f"{{{where}, share: 0.5, value: 0.75}}").passed
    result = _line(tmp_path / "b", f"{{{where}, share: 0.6}}")
    assert result.failures == ("subject=a-1, period=2026-02, item=solving, share=0.6: share is 0.5",)


def test_a_line_that_there_is_not_fails(tmp_path: Path) -> None:
    result = _line(tmp_path, "{subject: a-2, period: 2026-02, item: solving, share: 1}")
    assert result.failures[0].startswith("no line for subject=a-2")
