"""The payslip annex: one printable page per person that explains every line, in English and Chinese.

Theory of operation. Everything shown is in the statement and in the decisions and grades that its lines come from. Each
line goes down to its clause, the parameters in force, the facts, the evidence and the arithmetic, and names the id with
which ``kaohe explain`` goes on. One self-contained HTML file: no script, nothing fetched, every text escaped; a
style sheet for the screen and one for paper (A4, no line torn between pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from kaohe.core.money import money_text
from kaohe.decisions import (
    CombinedResult,
    Decision,
    Grade,
    PayLine,
    Settlement,
    SettlementBatch,
    Step,
    UsedParameter,
    Words,
)

EVIDENCE_SHOWN_MAX = 50
_COMPONENTS = {
    "performance": Words("Performance pay", "绩效工资"),
    "bonus": Words("Bonus", "奖金"),
    "grade_bonus": Words("Bonus by grade", "等级奖金"),
    "performance_bonus": Words("Performance bonus", "绩效奖金"),
    "year_bonus": Words("Year-end bonus", "年终奖"),
    "award": Words("Award", "奖励"),
    "penalty": Words("Penalty", "扣款"),
    "guard": Words("Pay guard", "薪酬保护"),
}
_STYLE = """
:root { color-scheme: light; --line: #c9c9c9; --soft: #555; }
body { font: 14px/1.5 "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #111; max-width: 60em;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
.zh { color: var(--soft); } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .25em .6em;
  border-bottom: 1px solid var(--line); } td.money, th.money { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
tr.sum td { font-weight: bold; border-top: 2px solid #111; }
section.line { border: 1px solid var(--line); border-radius: 4px; padding: .6em 1em; margin: .8em 0; }
section.line h3 { display: flex; justify-content: space-between; font-size: 1em; margin: 0 0 .3em; }
dl { display: grid; grid-template-columns: 14em 1fr; gap: .15em 1em; margin: .3em 0; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .92em; }
@page { size: A4; margin: 16mm; }
@media print { body { font-size: 10pt; margin: 0; max-width: none; padding: 0; }
  section.line, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""

Sources = Mapping[str, Decision | Grade]


def payslip(statement: Settlement, batch: SettlementBatch, sources: Sources, approved_by: str) -> bytes:
    """The annex of one statement as an HTML document."""
    title = f"{statement.agent} · {statement.period}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<header><h1>{_label('Explanation of performance pay', '绩效工资说明')}</h1><p>{escape(title)}</p></header>",
        *_head(statement, batch, approved_by),
        *_summary(statement),
    ]
    for number, line in enumerate(statement.lines, start=1):
        parts += _line(number, line, sources)
    parts += _guard(statement)
    if isinstance(statement.notes, list):
        parts.append(_title("Paid by days", "按天计发"))
        parts += [f"<p>{_both(words)}</p>" for words in statement.notes]
    if statement.missing:
        parts.append(_title("Not settled yet", "尚未结算"))
        parts += [f"<p>{_both(words)}</p>" for words in statement.missing]
    parts += [_title("Rounding", "舍入规则"), f"<p>{_both(statement.rounding)}</p>", "</body></html>\n"]
    return "\n".join(parts).encode()


def _both(words: Words) -> str:
    return f"{escape(words.en)}<br><span class='zh' lang='zh'>{escape(words.zh)}</span>"


def _label(en: str, zh: str) -> str:
    return f"{escape(en)} <span class='zh' lang='zh'>{escape(zh)}</span>"


def _title(en: str, zh: str) -> str:
    return f"<h2>{_label(en, zh)}</h2>"


def _pair(en: str, zh: str, value: str) -> str:
    return f"<dt>{_label(en, zh)}</dt><dd>{value}</dd>"


def _head(statement: Settlement, batch: SettlementBatch, approved_by: str) -> Iterable[str]:
    yield "<dl>"
    yield _pair("Statement", "结算单", f"<code>{escape(statement.id)}</code>")
    kind = (
        Words("correction of a settled month", "更正")
        if statement.kind == "correction"
        else Words("regular", "常规")
    )
    yield _pair("Kind", "类别", f"{escape(kind.en)} <span class='zh' lang='zh'>{escape(kind.zh)}</span>")
    yield _pair("Batch", "批次", f"<code>{escape(batch.id)}</code>, {escape(batch.posted_at)}")
    yield _pair("Policy", "制度", escape(f"{statement.pack} {statement.pack_version}"))
    if isinstance(statement.combined, CombinedResult):
        one = statement.combined
        text = f"{one.score}, {one.grade}: {one.formula}"
        yield _pair("Combined score", "综合得分", f"{escape(text)} (<code>{escape(one.id)}</code>)")
    yield _pair("Asked for by", "申请人", escape(batch.requested_by))
    yield _pair("Approved by", "批准人", escape(approved_by))
    yield "</dl>"


def _summary(statement: Settlement) -> Iterable[str]:
    def row(words: str, amount_minor: int, css: str = "") -> str:
        money = escape(money_text(amount_minor, statement.currency))
        return f"<tr{css}><td>{words}</td><td class='money'>{money}</td></tr>"

    yield _title("Summary", "汇总")
    yield "<table>"
    if statement.gross_minor is not None:
        yield row(_label("Gross pay of the month", "当月应发工资"), statement.gross_minor)
        yield row(_label("Performance pay base", "绩效工资基数"), statement.base_minor)
        yield row(_label("Paid whatever the appraisal says", "固定部分"), statement.fixed_minor)
    for number, line in enumerate(statement.lines, start=1):
        component = _COMPONENTS[line.component]
        month = "" if line.effective_period == statement.period else f" ({escape(line.effective_period)})"
        words = f"{number}. {_label(component.en, component.zh)}{month} <span class='soft'>{escape(line.clause)}</span>"
        yield row(words, line.amount_minor)
    css = " class='sum'"
    yield row(_label("Sum of the lines", "各行合计"), statement.total_minor, css)
    if statement.gross_minor is not None:
        yield row(_label("Pay of the month", "当月工资"), statement.pay_minor, css)
    yield "</table>"
    if statement.lines:
        yield _title("Line by line", "逐行说明")


def _line(number: int, line: PayLine, sources: Sources) -> Iterable[str]:
    component, money = _COMPONENTS[line.component], escape(money_text(line.amount_minor, line.currency))
    yield "<section class='line'>"
    yield f"<h3><span>{number}. {_label(component.en, component.zh)}</span><span>{money}</span></h3>"
    yield f"<p>{_both(line.explanation)}</p><dl>"
    yield _pair("Clause", "条款", escape(line.clause))
    if line.rule:
        yield _pair("Rule", "规则", escape(f"{line.pack} · {line.rule}"))
    yield _pair("Effective period", "所属期", escape(line.effective_period))
    if line.key:
        yield _pair("Entry", "条目", f"<code>{escape(line.key)}</code>")
    if line.reverses:
        yield _pair("Takes back", "冲销", f"<code>{escape(line.reverses)}</code>")
    yield from _parameters(line.parameters)
    yield from _arithmetic(line.arithmetic)
    source = sources.get(line.source)
    if isinstance(source, Decision):
        yield from _decision(source)
    elif isinstance(source, Grade):
        yield _pair("Grade", "等级", f"<code>{escape(source.id)}</code>: {escape(source.grade)}")
        yield _pair("Score", "得分", escape(source.score))
        yield _pair("Formula", "公式", escape(source.formula))
        yield _pair("Because", "依据", _both(source.explanation))
        yield _pair("Made of entries", "由条目组成", _codes(source.entries))
    yield "</dl></section>"


def _parameters(parameters: Mapping[str, UsedParameter]) -> Iterable[str]:
    for name, used in sorted(parameters.items()):
        value = escape(f"{used.value} {used.unit}, since {used.since}, {used.clause}")
        yield _pair("Parameter in force", "生效参数", f"<code>{escape(name)}</code> = {value}")


def _arithmetic(steps: Iterable[Step]) -> Iterable[str]:
    for step in steps:
        text = f"{escape(step.what)} = {escape(step.calculation)} = <strong>{escape(step.result)}</strong>"
        yield _pair("Arithmetic", "计算", text)


def _decision(decision: Decision) -> Iterable[str]:
    yield _pair("Decision", "决定", f"<code>{escape(decision.id)}</code>, {escape(decision.at)}")
    for name, fact in sorted(decision.facts.items()):
        value = "no data 无数据" if fact.value is None else f"{fact.value} {fact.unit}".strip()
        parts = f" = {fact.numerator} ÷ {fact.denominator}" if fact.numerator and fact.denominator else ""
        yield _pair("Fact", "事实", f"<code>{escape(name)}</code> = {escape(value + parts)}")
    yield from _parameters(decision.parameters)
    yield from _arithmetic(decision.arithmetic)
    more = max(0, decision.evidence_count - EVIDENCE_SHOWN_MAX)
    evidence = _codes(decision.evidence[:EVIDENCE_SHOWN_MAX]) + (f" … +{more}" if more else "")
    yield _pair("Evidence", "依据事件", evidence)
    yield _pair("To look further", "进一步查看", f"<code>kaohe explain {escape(decision.id)}</code>")


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names) or "—"


def _guard(statement: Settlement) -> Iterable[str]:
    guard = statement.guard

    def money(amount_minor: int) -> str:
        return escape(money_text(amount_minor, statement.currency))

    yield _title("Pay guard", "薪酬保护")
    yield "<dl>"
    yield _pair("Deductions", "应扣合计", money(guard.deductions_minor))
    yield _pair("Most that may be deducted", "扣款上限", money(guard.limit_minor))
    yield _pair("Held back by this limit", "因上限退回", money(guard.held_by_limit_minor))
    yield _pair("Floor of pay", "工资下限", money(guard.floor_minor))
    yield _pair("Held back by the floor", "因下限退回", money(guard.held_by_floor_minor))
    yield "</dl>"
