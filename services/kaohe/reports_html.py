"""Reports as one printable page each: no script, nothing fetched, every text escaped, English and Chinese together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from kaohe.decisions import Words
from kaohe.reports import AlertLine, FigureLine, Report, RuleLine, standing

_STYLE = """
:root { color-scheme: light; --line: #c9c9c9; --soft: #555; }
body { font: 14px/1.5 "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #111; max-width: 70em;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0 0 .2em; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
.soft { color: var(--soft); } .best { font-size: 1.15em; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .25em .6em;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font-size: .85em; color: var(--soft); }
@page { size: A4 landscape; margin: 14mm; }
@media print { body { margin: 0; max-width: none; } tr, section { break-inside: avoid; } }
"""
_CHANGES = {"week": Words("the week before", "上周"), "month": Words("the month before", "上月")}


def page(report: Report, window: str) -> bytes:
    """The report as one self-contained HTML page in UTF-8."""
    about = f" · {report.agent}" if report.agent else ""
    title = f"{report.period}{about}"
    kind = Words("Notice", "通知") if report.agent else Words("Report", "报告")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{kind.en} {escape(title)} <span class='soft'>{kind.zh}</span></h1>",
        f"<p class='soft'>{report.first_day} – {report.last_day}</p>",
        *_grades(report),
        *_best(report.commended),
        *_figures("Attendance", "出勤统计", report.attendance, ""),
        *_figures("Resource use", "资源使用", report.resources, window),
        *_figures("Effect of the scheme", "方案效果", report.effect, window),
        *_alerts("Done", "已完成", report.done),
        *_alerts("Problems", "问题", report.problems),
        *_rules("Deductions", "扣分", report.deductions),
        *_rules("Awards", "加分", report.awards),
        *_next(report),
        *(f"<p class='soft'>{escape(one.en)} · {escape(one.zh)}</p>" for one in report.waiting),
        "</body></html>\n",
    ]
    return "\n".join(parts).encode()


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _head(en: str, zh: str) -> str:
    return f"<h2>{en} <span class='soft'>{zh}</span></h2>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 99) -> str:
    """A table; from column ``numbers`` on its cells are numbers. Cells are HTML already."""

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{kind}{' class=number' if at >= numbers else ''}>{cell}</{kind}>"
            for at, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"


def _grades(report: Report) -> Iterable[str]:
    if report.grades:
        yield _head("Grades", "等级")
        yield "<p>" + ", ".join(f"{escape(name)}: {count}" for name, count in report.grades.items()) + "</p>"
    if report.withdrawn:
        yield f"<p class=soft>withdrawn 已撤回: {report.withdrawn}</p>"


def _best(lines: Sequence[FigureLine]) -> Iterable[str]:
    if not lines:
        return
    yield _head("Commended", "表彰")
    rows = [
        (
            str(line.rank),
            f"<span class=best>{escape(line.subject)}</span>",
            f"{escape(line.said.en)}<br><span class=soft>{escape(line.said.zh)}</span>"
            + _code(line.entry)
            + _standing(line),
        )
        for line in lines
    ]
    yield _table(("#", "", ""), rows)


def _standing(line: FigureLine) -> str:
    how = standing(line)
    return f"<br><span class=soft>{how.en} {how.zh}</span>" if how is not None else ""


def _figures(en: str, zh: str, lines: Sequence[FigureLine], window: str) -> Iterable[str]:
    """A table for each rule, whose lines have the same figures; ``window`` names what they are compared with."""
    groups: dict[tuple[str, str], list[FigureLine]] = {}
    for line in lines:
        groups.setdefault((line.pack, line.rule), []).append(line)
    for (pack, rule), several in groups.items():
        yield _head(en, zh)
        yield f"<p class=soft>{escape(several[0].clause)} · {escape(pack)} · {escape(rule)}</p>"
        titles = [f"{escape(one.title.en)}<br>{escape(one.title.zh)}" for one in several[0].figures]
        rows = []
        for line in several:
            cells = []
            for figure in line.figures:
                before = _CHANGES.get(window) if figure.before_shown else None
                beside = (
                    f"<br><span class=soft>{before.en} {before.zh}: {escape(figure.before_shown)}</span>"
                    if before
                    else ""
                )
                cells.append(escape(figure.shown) + beside)
            rows.append((escape(line.subject), *cells, _code(line.entry) + _standing(line)))
        yield _table(("", *titles, ""), rows, numbers=1)


def _alerts(en: str, zh: str, lines: Sequence[AlertLine]) -> Iterable[str]:
    if not lines:
        return
    yield _head(en, zh)
    rows = [
        (
            one.began[:16].replace("T", " "), one.severity, escape(one.subject),
            f"{escape(one.said)}<br><code>{escape(one.rule)} {escape(one.id)}</code>", escape(one.owner),
        )
        for one in lines
    ]  # fmt: skip
    yield _table(("since 自", "", "", "", "owner 负责人"), rows)


def _rules(en: str, zh: str, lines: Sequence[RuleLine]) -> Iterable[str]:
    if not lines:
        return
    yield _head(en, zh)
    rows = [
        (escape(one.clause), escape(one.rule), str(one.entries), str(one.subjects), escape(one.points))
        for one in lines
    ]
    yield _table(("clause 条款", "rule 规则", "entries 条数", "persons 人数", "points 分"), rows, numbers=2)


def _next(report: Report) -> Iterable[str]:
    if not report.next:
        return
    yield _head("Next", "下一步")
    rows = [
        (one.due_at[:16].replace("T", " "), escape(one.owner), escape(one.what), escape(one.subject),
         f"<code>{escape(one.rule)} {escape(one.id)}</code>")
        for one in report.next
    ]  # fmt: skip
    yield _table(("due 期限", "owner 负责人", "", "", ""), rows)
