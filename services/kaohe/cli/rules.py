"""``kaohe rules``: check, test, list, show, explain, compare and trace rule packs.

Every command exits with 0 when all is well, with 1 when what it looked at is not (a mistake, a failing story, a gap, a
difference), and with 2 when it was asked for wrongly. ``--json`` prints one JSON document instead of text; colour is
used on a terminal only. Packs are found by name in ``--rules`` (``KAOHE_RULES``, else ``rules`` here), or by path.
Errors are raised, and told by ``kaohe.cli.run`` as those of every other command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from kaohe.core.model import Pack
from kaohe.errors import PackError, UsageError
from kaohe.packs.describe import (
    Language,
    pack_data,
    pack_line,
    pack_lines,
    pick,
    rule_data,
    rule_lines,
)
from kaohe.packs.diff import PackDiff, count_text, diff, diff_lines
from kaohe.packs.holidays import unknown_years
from kaohe.packs.load import (
    Loaded,
    check_together,
    find_pack,
    load,
    loaded_packs,
    pack_names,
    read_pack,
    rules_dir,
)
from kaohe.packs.parts import part_data, part_lines, parts_of
from kaohe.packs.source import nearest
from kaohe.packs.story import Story, StoryResult, load_stories, run_story
from kaohe.packs.trace import Trace, trace

app = typer.Typer(help="Check, test and read rule packs.", no_args_is_help=True)


class Lang(StrEnum):
    """The language of titles and sentences."""

    en = "en"
    zh = "zh"


RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", help="Folder of rule packs.", envvar="KAOHE_RULES", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
LangOption = Annotated[Lang, typer.Option("--lang", help="Language of titles and sentences.")]
PacksArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Packs by name or path; all when none is named.", metavar="[PATH|NAME]..."),
]


def _language(lang: Lang) -> Language:
    return "zh" if lang is Lang.zh else "en"


def _print_json(data: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def _print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(line)


def _folder(rules: Path | None) -> Path:
    return rules or rules_dir()


# --- check ------------------------------------------------------------------------------------------------------------


@app.command()
def check(packs: PacksArgument = None, rules: RulesOption = None, as_json: JsonOption = False) -> None:
    """Check packs and their stories; tell every mistake with its place, and what would be right.

    Example: kaohe rules check logistics-service
    """
    folder = _folder(rules)
    chosen = [find_pack(one, folder) for one in packs or pack_names(folder)]
    if not chosen:
        raise UsageError(f"the folder {str(folder)!r} holds no pack")
    right: list[Pack] = []
    found: list[PackError] = []
    warnings: list[PackError] = []
    for path in chosen:
        loaded, problems = read_pack(path)
        if loaded is not None:
            right.append(loaded.pack)
            load_stories(loaded.pack, problems)
        found += problems.errors
        warnings += problems.warnings
    # All packs of a folder share its holidays: a mistake in them is told once.
    found = [*{str(error): error for error in found}.values(), *check_together(right)]
    warnings += unknown_years(right, datetime.now(UTC).date())
    if as_json:
        _print_json(
            {"packs": [str(path) for path in chosen], "errors": _errors(found), "warnings": _errors(warnings)}
        )
    else:
        for warning in warnings:
            typer.secho(f"warning: {warning}", fg="yellow")
        for error in found:
            typer.secho(str(error), fg="red")
        mistakes = f"{len(found)} mistake{'' if len(found) == 1 else 's'}" if found else "no mistake"
        typer.secho(f"{len(chosen)} pack{'' if len(chosen) == 1 else 's'} checked: {mistakes}", bold=True)
    raise typer.Exit(1 if found else 0)


def _errors(errors: Sequence[PackError]) -> list[dict[str, Any]]:
    return [
        {
            "file": one.place.file, "line": one.place.line, "column": one.place.column, "path": one.path,
            "wrong": one.wrong, "right": one.right,
        }
        for one in errors
    ]  # fmt: skip


# --- test -------------------------------------------------------------------------------------------------------------


@app.command("test")
def run_stories(
    packs: PacksArgument = None,
    clause: Annotated[str, typer.Option(help="Only the stories of this clause.")] = "",
    story: Annotated[str, typer.Option(help="Only stories whose name contains this.")] = "",
    rules: RulesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the stories of packs through the engine and tell what came instead of what was expected.

    Example: kaohe rules test logistics-service --clause LS-01
    """
    results: list[StoryResult] = []
    for loaded in loaded_packs(packs or [], _folder(rules)):
        stories = [
            one
            for one in load_stories(loaded.pack)
            if (not clause or one.clause == clause) and story.lower() in one.name.lower()
        ]
        results += _run(loaded.pack, stories, None if as_json else _show_result)
    if not results:
        raise UsageError("no story fits; leave --clause and --story out to run all of them")
    failed = [one for one in results if not one.passed]
    if as_json:
        _print_json([_result(one) for one in results])
    else:
        typer.secho(f"{len(results) - len(failed)} of {len(results)} stories came as told", bold=True)
    raise typer.Exit(1 if failed else 0)


def _result(one: StoryResult) -> dict[str, Any]:
    return {
        "pack": one.pack, "clause": one.clause, "case": one.case, "story": one.story, "place": one.place,
        "passed": one.passed, "failures": list(one.failures),
    }  # fmt: skip


def _run(
    pack: Pack, stories: Sequence[Story], show: Callable[[StoryResult], None] | None
) -> list[StoryResult]:
    results = []
    for story in stories:
        result = run_story(pack, story)
        if show is not None:
            show(result)
        results.append(result)
    return results


def _show_result(one: StoryResult) -> None:
    mark = typer.style("passed", fg="green") if one.passed else typer.style("FAILED", fg="red", bold=True)
    typer.echo(f"{mark}  {one.clause} {one.case:<9} {one.story}")
    if not one.passed:
        typer.echo(f"        {one.place}")
    for failure in one.failures:
        typer.echo(f"        {failure}")


# --- list, show, explain ----------------------------------------------------------------------------------------------


@app.command("list")
def list_(rules: RulesOption = None, as_json: JsonOption = False, lang: LangOption = Lang.en) -> None:
    """List the packs with their version, title and size.

    Example: kaohe rules list --lang zh
    """
    found = [one.pack for one in loaded_packs([], _folder(rules))]
    if as_json:
        _print_json([
            {
                "name": one.name, "version": one.version, "title": {"en": one.title.en, "zh": one.title.zh},
                "in_force_from": one.in_force_from.isoformat(), "clauses": list(one.clauses),
                "metrics": list(one.metrics), "rules": [rule.id for rule in one.rules],
            }
            for one in found
        ])  # fmt: skip
        return
    for pack in found:
        typer.echo(pack_line(pack, _language(lang)))


@app.command()
def show(
    pack: Annotated[str, typer.Argument(help="A pack by name or path.", metavar="PACK")],
    rules: RulesOption = None,
    as_json: JsonOption = False,
    lang: LangOption = Lang.en,
) -> None:
    """Show a whole pack, clause by clause, with its metrics, rules and parameters.

    Example: kaohe rules show front-desk
    """
    loaded = load(find_pack(pack, _folder(rules)))
    if as_json:
        _print_json(pack_data(loaded))
    else:
        _print_lines(pack_lines(loaded, _language(lang)))


@app.command()
def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="A rule, clause, metric, deadline or parameter (p.x), an item or dimension of a scorecard, a tally, a "
            "step; or scorecard, quota, combined, appeals, workflow, pay, attendance.",
            metavar="NAME",
        ),
    ],
    pack: Annotated[str, typer.Option("--pack", help="Only of this pack.")] = "",
    rules: RulesOption = None,
    as_json: JsonOption = False,
    lang: LangOption = Lang.en,
) -> None:
    """Explain a rule or any other part of a pack: its clause, what it says, and its parameters with their dates.

    A name that several packs have is explained for each of them.

    Example: kaohe rules explain ls-complaint-rate
    """
    packs = [one.pack for one in loaded_packs([pack] if pack else [], _folder(rules))]
    found: list[tuple[dict[str, Any], Iterator[str]]] = []
    known: set[str] = set()
    for one in packs:
        parts = parts_of(one)
        known.update(rule.id for rule in one.rules)
        known.update(part.name for part in parts)
        rules_named = [rule for rule in one.rules if rule.id == name]
        found += [(rule_data(one, rule), rule_lines(one, rule, _language(lang))) for rule in rules_named]
        named = [part for part in parts if part.name == name]
        found += [(part_data(part), part_lines(part, _language(lang))) for part in named]
    if not found:
        raise UsageError(f"no pack has a rule or part {name!r}; {nearest(name, known, 'name')}")
    if as_json:
        _print_json(found[0][0] if len(found) == 1 else [data for data, _ in found])
        return
    for number, (_, lines) in enumerate(found):
        if number:
            typer.echo()
        _print_lines(lines)


# --- diff -------------------------------------------------------------------------------------------------------------


@app.command("diff")
def diff_(
    before: Annotated[str, typer.Argument(help="A pack by name or path.", metavar="OLD")],
    after: Annotated[
        str, typer.Argument(help="The pack to compare it with, by name or path.", metavar="NEW")
    ],
    rules: RulesOption = None,
    as_json: JsonOption = False,
    lang: LangOption = Lang.en,
) -> None:
    """Say in words what differs between two packs, or two versions of one; nothing when they say the same.

    Ends with 0 when they are the same policy, with 1 when they differ, with 2 when one of them cannot be read.

    Example: kaohe rules diff front-desk drafts/front-desk
    """
    folder = _folder(rules)
    found = diff(load(find_pack(before, folder)).pack, load(find_pack(after, folder)).pack)
    if as_json:
        _print_json(found)
    else:
        print_diff(found, _language(lang))
    raise typer.Exit(1 if found.changes else 0)


def print_diff(found: PackDiff, language: Language, *, err: bool = False) -> None:
    """What differs, coloured on a terminal; nothing when nothing does."""
    for line in diff_lines(found, language):
        kind = line.lstrip()[:2]
        colour = {"- ": "red", "+ ": "green"}.get(kind)
        typer.secho(line, fg=colour, bold=bool(line) and not line.startswith(" "), err=err)
    if found.changes:
        typer.echo(err=err)
        typer.secho(count_text(found, language), bold=True, err=err)


# --- trace ------------------------------------------------------------------------------------------------------------


@app.command("trace")
def trace_(
    packs: Annotated[
        list[str] | None, typer.Option("--pack", help="A pack by name or path; repeatable.")
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run the stories too.")] = True,
    rules: RulesOption = None,
    as_json: JsonOption = False,
    lang: LangOption = Lang.en,
) -> None:
    """Trace every clause to its metrics, deadlines, rules and stories; tell what is missing or fails.

    Example: kaohe rules trace --pack front-desk
    """
    traces = [_trace(one, run) for one in loaded_packs(packs or [], _folder(rules))]
    gaps = [gap for one in traces for gap in one.gaps]
    if as_json:
        _print_json([_trace_data(one) for one in traces])
    else:
        for one in traces:
            _print_lines(_trace_lines(one, _language(lang)))
        clauses = sum(len(one.rows) for one in traces)
        traced = f"{clauses} clause{'' if clauses == 1 else 's'} traced"
        covered = f"{traced}: {len(gaps)} missing" if gaps else f"{traced}, all covered"
        typer.secho(covered, bold=True, fg="red" if gaps else "green")
    raise typer.Exit(1 if gaps else 0)


def _trace(loaded: Loaded, run: bool) -> Trace:
    stories = load_stories(loaded.pack)
    return trace(loaded, stories, _run(loaded.pack, stories, None) if run else None)


def _trace_data(one: Trace) -> dict[str, Any]:
    data = msgspec.to_builtins(one)
    assert isinstance(data, dict)
    return data | {"gaps": one.gaps}


def _trace_lines(one: Trace, language: Language) -> Iterator[str]:
    yield typer.style(f"{one.pack} {one.version}", bold=True)
    for row in one.rows:
        yield f"  {row.clause} [{' '.join(row.kinds)}] {pick(row.title, language)}"
        for what, names in (("metric", row.metrics), ("deadline", row.deadlines), ("rule", row.rules)):
            for name in names:
                yield f"    {what:<9}{name}"
        for part, covers in (
            ("scorecard", row.scorecard),
            ("attendance", row.attendance),
            ("workflow", row.workflow),
            ("pay terms", row.pay),
            (f"pack     {row.other}", bool(row.other)),
        ):
            if covers:
                yield f"    {part}"
        for line in row.stories:
            mark = "not run" if line.passed is None else "passed" if line.passed else "FAILED"
            colour = {"passed": "green", "FAILED": "red"}.get(mark)
            yield f"    story    {typer.style(f'{mark:<8}', fg=colour)}{line.case:<10}{line.name}"
        for case, reason in row.without.items():
            yield f"    without  {case}: {reason}"
        for gap in row.gaps:
            yield typer.style(f"    GAP      {gap}", fg="red")
    for gap in one.loose:
        yield typer.style(f"  GAP {gap}", fg="red")
