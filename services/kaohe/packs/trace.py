"""Tracing: from every clause of a policy to its metrics, rules, deadlines and stories, and what is missing on the way.

A clause is covered when its cover in ``clauses.yaml`` names what carries it out, and when its stories show every case:
that it holds, just holds, is broken, by several steps, without data, by what comes late, is corrected, and is appealed
against. A clause for which one of them has no meaning says so, with the reason (``without:``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kaohe.core.model import Clause
from kaohe.decisions import Words
from kaohe.packs.load import NEEDED_CASES, Coverage, Loaded
from kaohe.packs.story import Story, StoryResult


class StoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One story of a clause; ``passed`` is None when it was not run."""

    name: str
    case: str
    place: str
    passed: bool | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One clause with everything that hangs on it. ``gaps`` are sentences, empty when nothing is missing."""

    pack: str
    clause: str
    kinds: tuple[str, ...]
    title: Words
    metrics: tuple[str, ...]
    rules: tuple[str, ...]
    deadlines: tuple[str, ...]
    scorecard: bool
    attendance: bool
    workflow: bool
    pay: bool
    other: str
    cases: tuple[str, ...]
    without: dict[str, str]
    stories: tuple[StoryLine, ...]
    gaps: tuple[str, ...]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The trace of one pack: its clauses, and what belongs to no clause."""

    pack: str
    version: str
    rows: tuple[Row, ...]
    loose: tuple[str, ...]

    @property
    def gaps(self) -> list[str]:
        """Everything that is missing, as sentences; empty when the pack is covered."""
        return [f"{row.clause}: {gap}" for row in self.rows for gap in row.gaps] + list(self.loose)


def trace(loaded: Loaded, stories: Sequence[Story], results: Iterable[StoryResult] | None = None) -> Trace:
    """Trace one pack. With ``results`` each story is shown as passed or failed; without, as not run."""
    outcomes = {(one.clause, one.story): one.passed for one in results} if results is not None else {}
    pack = loaded.pack
    told = {wanted["rule"] for story in stories for wanted in (*story.expect, *(story.expect_alerts or ()))}
    rows = []
    for clause in pack.clauses.values():
        cover = loaded.coverage[clause.id]
        lines = tuple(
            StoryLine(
                name=story.name,
                case=story.case,
                place=story.place,
                passed=outcomes.get((clause.id, story.name)),
            )
            for story in stories
            if story.clause == clause.id
        )
        cases = needed_cases(clause, cover)
        rows.append(
            Row(
                pack=pack.name,
                clause=clause.id,
                kinds=clause.kinds,
                title=clause.title,
                metrics=cover.metrics,
                rules=cover.rules,
                deadlines=cover.deadlines,
                scorecard=cover.scorecard,
                attendance=cover.attendance,
                workflow=cover.workflow,
                pay=cover.pay,
                other=cover.other,
                cases=cases,
                without=clause.without,
                stories=lines,
                gaps=tuple(_gaps(cover, lines, cases, told)),
            )
        )
    return Trace(pack=pack.name, version=pack.version, rows=tuple(rows), loose=tuple(_loose(loaded)))


def needed_cases(clause: Clause, cover: Coverage) -> tuple[str, ...]:
    """The cases that the stories of a clause must show; none where another pack carries it out, with its stories."""
    if cover.other:
        return ()
    return tuple(case for case in NEEDED_CASES if case not in clause.without)


def _gaps(cover: Coverage, lines: Sequence[StoryLine], cases: Sequence[str], told: set[str]) -> list[str]:
    gaps = []
    shown = {line.case for line in lines}
    missing = [case for case in cases if case not in shown]
    if missing:
        gaps.append(f"no story shows {', '.join(missing)}")
    gaps += [f"no story shows the rule {rule} doing anything" for rule in cover.rules if rule not in told]
    gaps += [f"the story fails: {line.name} ({line.place})" for line in lines if line.passed is False]
    return gaps


def _loose(loaded: Loaded) -> list[str]:
    """What the pack declares and no clause lists."""
    listed: set[str] = set()
    for cover in loaded.coverage.values():
        listed.update(f"metric {name}" for name in cover.metrics)
        listed.update(f"rule {name}" for name in cover.rules)
        listed.update(f"deadline {name}" for name in cover.deadlines)
    declared = [f"metric {name}" for name in loaded.pack.metrics]
    declared += [f"rule {rule.id}" for rule in loaded.pack.rules]
    declared += [f"deadline {name}" for name in loaded.pack.deadlines]
    return [f"no clause lists the {name}" for name in declared if name not in listed]
