"""``kaohe scorecard``: everything about somebody's score and grade of a period, line by line.

Theory of operation. A grade carries how it came about: its dimensions and items, the arithmetic of each, what people
said, and what decided beside the sum. Here it is put together with the ledger entries that it rests on, from the
ledger or from what a replay wrote, and shown as a tree in one language or as one JSON document.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from kaohe.cli import console
from kaohe.cli.rules import Lang
from kaohe.core.grading import JOINT
from kaohe.decisions import Decision, Grade, ScoreLine, Words
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.explain import Entry

LINE_BYTES_MAX = 10_000_000
_LABELS = {
    "pack": Words("pack", "规则包"),
    "formula": Words("sum", "合计"),
    "weight": Words("weight", "权重"),
    "entries": Words("entries", "条目"),
    "others": Words("entries outside the items", "项目之外的条目"),
    "no data": Words("no data: left out", "无数据：不计"),
    "of": Words("of", "/"),
    "value": Words("value", "指标值"),
    "said": Words("heard", "评分"),
    "moved": Words("moved since the revision before", "较上一修订的变动"),
    "revisions": Words("revisions", "修订"),
    "decided": Words("decided beside the sum", "合计之外的决定"),
    "unnamed": Words("unnamed", "匿名"),
}

Language = Literal["en", "zh"]


class Card(msgspec.Struct, frozen=True):
    """One score of somebody: the grade that counts, its revisions, and the ledger entries that it rests on."""

    grade: Grade
    history: list[dict[str, str | int]]
    entries: list[Decision]


# --- finding ----------------------------------------------------------------------------------------------------------


def from_ledger(database_url: str, subject: str, period: str) -> list[Card]:
    """The cards of a subject and period in the SQL ledger."""
    from kaohe.payroll.ledger import Ledger

    with Ledger(database_url) as ledger:
        grades = ledger.current_grades(subject=subject, period=period)
        entries = ledger.current_entries(subject=subject, period=period)
        return [_card(ledger.grades(grade.id), entries) for grade in grades]


def from_folder(folder: Path, subject: str, period: str) -> list[Card]:
    """The cards of a subject and period in the folder that a replay wrote. UsageError when it cannot be read."""
    from kaohe.decisions import DECISION_DECODER, GRADE_DECODER
    from kaohe.payroll.records import current_revision

    grades: dict[str, list[Grade]] = {}
    decisions: dict[str, list[Decision]] = {}
    for grade in _lines(folder / "grades.jsonl", GRADE_DECODER, subject):
        if (grade.subject, grade.period) == (subject, period):
            grades.setdefault(grade.id, []).append(grade)
    for decision in _lines(folder / "decisions.jsonl", DECISION_DECODER, subject):
        if (decision.subject, decision.period) == (subject, period):
            decisions.setdefault(decision.id, []).append(decision)
    entries = [current_revision(decisions[found]) for found in sorted(decisions)]
    return [_card(sorted(grades[found], key=lambda one: one.revision), entries) for found in sorted(grades)]


def _lines(file: Path, decoder: msgspec.json.Decoder[Any], subject: str) -> Iterable[Any]:
    wanted = subject.encode()
    try:
        with file.open("rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                if wanted in line:  # most lines are not decoded at all
                    yield decoder.decode(line)
    except OSError as error:
        raise UsageError(
            f"The file {file} cannot be read ({error.strerror}); give a replay's folder."
        ) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{file}: not what a replay writes: {error}.") from None


def _card(revisions: Sequence[Grade], entries: Sequence[Decision]) -> Card:
    from kaohe.core.telling import newest
    from kaohe.payroll.records import current_revision

    current = current_revision(revisions)
    grade = newest(one for one in revisions if one.revision <= current.revision)[current.id]
    own = [entry for entry in entries if entry.id in set(grade.entries)]
    history: list[dict[str, str | int]] = [
        {"revision": one.revision, "status": one.status, "score": one.score, "grade": one.grade, "at": one.at,
         "why": one.explanation.en, "why_zh": one.explanation.zh}
        for one in revisions
    ]  # fmt: skip
    return Card(grade, history, own)


# --- showing ----------------------------------------------------------------------------------------------------------


def shown(card: Card, language: Language) -> Group:
    """A card for a terminal: headline, the sentence in both languages, and the tree."""
    from kaohe.explain import headline

    grade = card.grade
    root = Tree(_pair("pack", f"{grade.pack} {grade.pack_version}", language))
    root.add(_pair("formula", grade.formula, language))
    entries = {entry.id: entry for entry in card.entries}
    told: set[str] = set()
    if grade.detail is not None:
        for dimension in grade.detail.dimensions:
            lines = [line for line in grade.detail.lines if line.dimension == dimension.name]
            branch = root.add(
                Text.assemble(
                    (f"{dimension.clause} {_say(dimension.title, language)}", "bold"),
                    f"  {_label('weight', language)} {dimension.weight}  = ",
                    (dimension.contribution, "bold"),
                )
            )
            for line in lines:
                _add_line(branch, line, entries, language)
                told.update(line.entries)
    _add_entries(
        root, "others" if told else "entries", [one for one in card.entries if one.id not in told], language
    )
    if grade.detail is not None:
        _add_sentences(root, "decided", [_say(note, language) for note in grade.detail.notes], language)
        moved = [
            f"{one.what} {one.id}: {one.before or '–'} → {one.after or '–'}" for one in grade.detail.changes
        ]
        _add_sentences(root, "moved", moved, language)
    why = "why_zh" if language == "zh" else "why"
    steps = [f"{one['revision']} {one['at']}: {one[why]}" for one in card.history[-10:]]
    _add_sentences(root, "revisions", steps, language)
    current: Entry = grade
    return Group(headline(current, language), Text(grade.explanation.en), Text(grade.explanation.zh), root)


def _add_line(branch: Tree, line: ScoreLine, entries: dict[str, Decision], language: Language) -> None:
    title = f"{line.clause} {_say(line.title, language)}"
    if line.share is None:
        node = branch.add(
            Text.assemble(f"{title}  ", (f"{_label('no data', language)} ({line.calculation})", "dim"))
        )
    else:
        node = branch.add(
            Text.assemble(
                f"{title}  {line.share} {_label('of', language)} {line.part} = ",
                (line.contribution, "bold"),
                (f"  ({line.calculation})", "dim"),
            )
        )
    if line.value is not None:
        word = f" → {line.word}" if line.word else ""
        node.add(_pair("value", f"{line.value} {line.unit}".strip() + word, language))
    for one in line.said:
        said = f"{one.word} " if one.word else ""
        count = f" × {one.count}" if one.count > 1 else ""
        by = one.by or _label("unnamed", language)
        node.add(_pair("said", f"{one.role} ({by}): {said}{one.share}{count}", language))
    _add_entries(node, "entries", [entries[one] for one in line.entries if one in entries], language)


def _add_entries(branch: Tree, label: str, entries: Sequence[Decision], language: Language) -> None:
    if not entries:
        return
    node = branch.add(Text(f"{_label(label, language)} ({len(entries)})", style="bold"))
    for entry in entries:
        steps = "; ".join(f"{step.what}: {step.calculation} = {step.result}" for step in entry.arithmetic)
        one = node.add(
            Text.assemble(
                (entry.points, "bold"), f"  {entry.clause} {entry.rule} · {entry.status} · {entry.id}"
            )
        )
        one.add(Text(_say(entry.explanation, language)))
        if steps:
            one.add(Text(steps, style="dim"))


def _add_sentences(branch: Tree, label: str, sentences: Sequence[str], language: Language) -> None:
    if sentences:
        node = branch.add(Text(f"{_label(label, language)} ({len(sentences)})", style="bold"))
        for sentence in sentences:
            node.add(Text(sentence))


def _pair(label: str, value: str, language: Language) -> Text:
    return Text.assemble((_label(label, language), "bold"), " ", value)


def _label(name: str, language: Language) -> str:
    return _say(_LABELS[name], language)


def _say(words: Words, language: Language) -> str:
    return words.zh if language == "zh" else words.en


# --- the command ------------------------------------------------------------------------------------------------------


def scorecard(
    agent: Annotated[str, typer.Argument(help="Whose: an agent, or a department.")],
    period: Annotated[str, typer.Argument(help="Which: 2026-08, 2026-Q3 or 2026.")],
    pack: Annotated[str | None, typer.Option(help="Under which pack; default: all of them.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="The folder of a replay; default: the ledger.")
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the labels.")] = Lang.en,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show somebody's score and grade of a period: each dimension, item and entry, with its clause and arithmetic.

    Example: kaohe scorecard a-17 2026-08 --from august
    """
    if source is not None:
        found, where = from_folder(source, agent, period), f"The folder {source}"
    else:
        url = load_settings().database_url
        found, where = from_ledger(url, agent, period), "The ledger"
    cards = [card for card in found if pack is None or card.grade.pack.removesuffix(JOINT) == pack]
    if not cards:
        under = f" under {pack}" if pack else ""
        raise UsageError(
            f"{where} has no grade of {agent} for {period}{under}; is the period written like 2026-08?"
        )
    if as_json:
        console.print_json({"subject": agent, "period": period, "cards": cards})
        return
    language: Language = "zh" if lang is Lang.zh else "en"
    for number, card in enumerate(cards):
        if number:
            console.show("")
        console.show(shown(card, language))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scorecard)
