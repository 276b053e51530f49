"""Why somebody is paid what they are paid: a batch, a statement or one line of it, followed to clause and evidence.

Theory of operation. A statement carries every line with its clause, the parameters in force and its arithmetic, and
names the decision or grade that the line comes from. Here the line is put together with that source, so that one goes
from an amount to the events it rests on without a gap. Batches and statements are read from the ledger, or from the
JSON file that ``kaohe payroll export`` writes; such a file holds no decisions, and only names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from kaohe.core.money import money_text
from kaohe.decisions import PayLine, Settlement, Words
from kaohe.errors import UsageError
from kaohe.explain import Entry, Language, explanation, find_entry, say

if TYPE_CHECKING:
    from sqlalchemy import Connection

_UNTOLD = ("terms", "read_up_to", "digest", "event_key")
FILE_BYTES_MAX = 512 * 1024 * 1024
STATEMENTS_SHOWN_MAX = 50
_LABELS = {
    "batch": Words("Batch", "批次"),
    "statement": Words("Statement", "结算单"),
    "terms": Words("Pay terms", "薪酬条款"),
    "gross": Words("Gross pay", "应发工资"),
    "base": Words("Performance pay base", "绩效工资基数"),
    "grade": Words("Grade", "等级"),
    "lines": Words("Lines", "明细"),
    "guard": Words("Pay guard", "薪酬保护"),
    "held": Words("held back", "退回"),
    "rounding": Words("Rounding", "取整"),
    "missing": Words("Not settled yet", "尚未结算"),
    "clause": Words("Clause", "条款"),
    "rule": Words("Rule", "规则"),
    "parameters": Words("Parameters in force", "生效参数"),
    "arithmetic": Words("Arithmetic", "计算"),
    "source": Words("Comes from", "来源"),
    "reverses": Words("Takes back", "冲销"),
    "effective": Words("About the period", "所属周期"),
    "states": Words("States", "状态"),
    "statements": Words("Statements", "结算单"),
    "since": Words("since", "自"),
}


class PayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about an id of pay.

    ``statements`` are all of a batch, or the one of a statement or line. ``line`` is the one that was asked about,
    ``source`` the revisions of the decision or grade that it comes from (empty where that is not known here),
    ``reversed_line`` the line that it takes back. ``batch`` is the batch's row, ``states`` what it entered.
    """

    about: Literal["batch", "statement", "line"]
    batch: dict[str, Any]
    states: list[dict[str, str]]
    statements: list[Settlement]
    line: PayLine | None = None
    source: Sequence[Entry] = ()
    reversed_line: PayLine | None = None


# --- finding ----------------------------------------------------------------------------------------------------------


def find_in_ledger(database_url: str, pay_id: str) -> PayAnswer:
    """What the ledger knows of a batch, a statement or a line. UsageError when it is not there."""
    from kaohe.payroll.ledger import Ledger, shown  # noqa: PLC0415 (a file is explained without any database library)
    from kaohe.payroll.settling import batches, statements  # noqa: PLC0415

    taken = None
    with Ledger(database_url) as ledger:
        with ledger.reading() as connection:
            place = _place_of(connection, pay_id)
            found = batches(connection, batch=place[0]) if place is not None else []
            if place is None or not found:
                raise UsageError(f"The ledger {shown(database_url)} has no entry {pay_id!r} of pay.")
            several = statements(connection, *place)
            line = line_of(several, pay_id)
            if line is not None and line.reverses:
                before = _place_of(connection, line.reverses)
                taken = (
                    line_of(statements(connection, *before), line.reverses) if before is not None else None
                )
        source = find_entry(ledger, line.source) if line is not None and line.source else []
    batch = found[0]
    kept = {name: value for name, value in batch.row.items() if name not in _UNTOLD} | {"state": batch.state}
    states = [{name: str(one[name]) for name in ("state", "by", "at", "reason")} for one in batch.states]
    return _answer(pay_id, kept, states, several, line, source, taken)


def _place_of(connection: Connection, pay_id: str) -> tuple[str, str] | None:
    """Batch and agent (empty: all) of an id of pay; None where the ledger has no such statement or line."""
    from sqlalchemy import Table, select  # noqa: PLC0415

    from kaohe.payroll.tables import PayEntryRow, PayStatementRow  # noqa: PLC0415

    if pay_id.startswith("b-"):
        return pay_id, ""
    row_type, name = (PayStatementRow, "id") if pay_id.startswith("s-") else (PayEntryRow, "key")
    table = cast(Table, row_type.__table__)
    row = connection.execute(select(table.c.batch, table.c.agent).where(table.c[name] == pay_id)).first()
    return (row.batch, row.agent) if row is not None else None


def find_in_file(path: Path, pay_id: str) -> PayAnswer:
    """The same from a batch's JSON export (or the folder that holds it). UsageError when it is not there."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    for file in files:
        if file.name.endswith(".control.json"):
            continue
        control, several = _exported(file)
        known = {control.get("batch", "")} | {one.id for one in several}
        line = line_of(several, pay_id)
        if pay_id not in known and line is None:
            continue
        chosen = [
            one
            for one in several
            if pay_id in (control["batch"], one.id) or (line is not None and line in one.lines)
        ]
        taken = line_of(several, line.reverses) if line is not None and line.reverses else None
        row = {"id": control["batch"], **{name: value for name, value in control.items() if name != "batch"}}
        return _answer(pay_id, row, [], chosen, line, [], taken)
    raise UsageError(f"{path} has no entry {pay_id!r} of pay; give the JSON file of 'kaohe payroll export'.")


def _exported(file: Path) -> tuple[dict[str, Any], list[Settlement]]:
    class Exported(msgspec.Struct):
        control: dict[str, Any]
        statements: list[Settlement]

    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise UsageError(f"The file {file} is larger than {FILE_BYTES_MAX:,} bytes.")
        found = msgspec.json.decode(file.read_bytes(), type=Exported)
    except OSError as error:
        raise UsageError(f"The file {file} cannot be read ({error.strerror}).") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{file}: not what 'kaohe payroll export' writes as JSON: {error}.") from None
    return found.control, found.statements


def line_of(several: Sequence[Settlement], key: str) -> PayLine | None:
    """The line with this key among statements."""
    return next((line for one in several for line in one.lines if line.key == key), None)


def _answer(
    pay_id: str, batch: dict[str, Any], states: list[dict[str, str]], several: list[Settlement], line: PayLine | None,
    source: Sequence[Entry], taken: PayLine | None,
) -> PayAnswer:  # fmt: skip
    about: Literal["batch", "statement", "line"] = (
        "line" if line is not None else "batch" if pay_id.startswith("b-") else "statement"
    )
    return PayAnswer(
        about=about, batch=batch, states=states, statements=several, line=line, source=source, reversed_line=taken,
    )  # fmt: skip


# --- showing ----------------------------------------------------------------------------------------------------------


def shown(answer: PayAnswer, language: Language = "en") -> Group:
    """The answer for a terminal."""
    if answer.line is not None:
        return _line_shown(answer, answer.line, language)
    if answer.about == "statement":
        (statement,) = answer.statements
        root = _statement(statement, language)
        root.add(_pair("batch", f"{answer.batch['id']} {answer.batch.get('state', '')}".strip(), language))
        return Group(_statement_head(statement, language), root)
    return _batch_shown(answer, language)


def _batch_shown(answer: PayAnswer, language: Language) -> Group:
    row = answer.batch
    currency = str(row["currency"])
    root = Tree(_pair("terms", f"{row['pack']} {row['pack_version']}", language))
    if answer.states:
        node = root.add(Text(_label("states", language), style="bold"))
        for one in answer.states:
            reason = f": {one['reason']}" if one["reason"] else ""
            node.add(Text(f"{one['state']} {one['at']} {one['by']}{reason}"))
    node = root.add(Text(f"{_label('statements', language)} ({len(answer.statements)})", style="bold"))
    for statement in answer.statements[:STATEMENTS_SHOWN_MAX]:
        node.add(_statement_head(statement, language))
    more = len(answer.statements) - STATEMENTS_SHOWN_MAX
    if more > 0:
        node.add(Text(f"… {more}", style="dim"))
    total = money_text(int(row["total_minor"]), currency)
    head = " · ".join(
        str(one)
        for one in (_label("batch", language), row["period"], row.get("state", ""), total, row["id"])
        if one
    )
    return Group(Text(head, style="bold"), root)


def _statement_head(one: Settlement, language: Language) -> Text:
    total = money_text(one.total_minor, one.currency)
    return Text(
        " · ".join((_label("statement", language), one.agent, one.period, one.grade or "–", total, one.id))
    )


def _statement(one: Settlement, language: Language) -> Tree:
    root = Tree(_pair("terms", f"{one.pack} {one.pack_version}", language))
    if one.gross_minor is not None:
        root.add(_pair("gross", money_text(one.gross_minor, one.currency), language))
    root.add(_pair("base", money_text(one.base_minor, one.currency), language))
    node = root.add(Text(f"{_label('lines', language)} ({len(one.lines)})", style="bold"))
    for line in one.lines:
        _add_line(node.add(_line_head(line)), line, language)
    if one.guard.held_minor:
        held = f"{_label('held', language)} {money_text(one.guard.held_minor, one.currency)}"
        root.add(_pair("guard", held, language))
    root.add(_pair("rounding", say(one.rounding, language), language))
    for words in one.missing:
        root.add(_pair("missing", say(words, language), language))
    return root


def _line_head(line: PayLine) -> Text:
    amount = money_text(line.amount_minor, line.currency)
    return Text.assemble((amount, "bold"), f"  {line.component} · {line.clause} · {line.key or '–'}")


def _add_line(branch: Tree, line: PayLine, language: Language) -> None:
    branch.add(Text(say(line.explanation, language)))
    rule = f" {_label('rule', language)} {line.rule}" if line.rule else ""
    branch.add(_pair("clause", f"{line.clause}{rule}", language))
    if line.effective_period:
        branch.add(_pair("effective", line.effective_period, language))
    if line.parameters:
        node = branch.add(Text(_label("parameters", language), style="bold"))
        for name, used in sorted(line.parameters.items()):
            note = f"({_label('since', language)} {used.since}, {used.clause})"
            node.add(Text(f"{name} = {used.value} {used.unit}  {note}"))
    if line.arithmetic:
        node = branch.add(Text(_label("arithmetic", language), style="bold"))
        for step in line.arithmetic:
            node.add(Text(f"{step.what}: {step.calculation} = {step.result}"))
    if line.reverses:
        branch.add(_pair("reverses", line.reverses, language))
    if line.source:
        branch.add(_pair("source", line.source, language))


def _line_shown(answer: PayAnswer, line: PayLine, language: Language) -> Group:
    (statement,) = answer.statements
    root = Tree(_statement_head(statement, language))
    _add_line(root, line, language)
    root.add(_pair("batch", f"{answer.batch['id']} {answer.batch.get('state', '')}".strip(), language))
    parts: list[Any] = [_line_head(line), root]
    if answer.reversed_line is not None:
        taken = Tree(Text(_label("reverses", language), style="bold"))
        _add_line(taken.add(_line_head(answer.reversed_line)), answer.reversed_line, language)
        parts += [Text(""), taken]
    if answer.source:
        parts += [Text(""), explanation(answer.source, language)]
    return Group(*parts)


def _pair(name: str, value: str, language: Language) -> Text:
    return Text.assemble((_label(name, language), "bold"), " ", value)


def _label(name: str, language: Language) -> str:
    return say(_LABELS[name], language)
