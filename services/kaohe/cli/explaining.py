"""``kaohe explain``: why a decision, an alert, a grade or an amount of pay is what it is."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from kaohe.cli import console
from kaohe.cli.rules import Lang
from kaohe.settings import load_settings

PAY_ID = re.compile(r"[bsp]-[0-9a-f]{24}")
"""An id of pay; shorter names that begin like one may be anybody's, such as a shift's."""
ENTRY_IDS = ("d-", "w-", "g-")


def explain(
    decision_id: Annotated[
        str,
        typer.Argument(
            help="The id: d-… (decision), w-… (alert), g-… (grade), b-… (batch), s-… (statement), p-… (entry of pay), "
            "or what was judged: an appeal, a complaint, a shift.",
            metavar="ID",
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A .jsonl file, the folder of a replay, or an export of pay; default: the ledger."
        ),
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the labels.")] = Lang.en,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain a decision: the sentence, and clause, rule, parameters, facts, evidence and arithmetic as a tree.

    An entry of pay is followed to the decision or grade that it comes from.

    Example: kaohe explain d-0123456789abcdef01234567 --from february
    """
    language: Literal["en", "zh"] = "zh" if lang is Lang.zh else "en"
    if PAY_ID.fullmatch(decision_id):
        _explain_pay(decision_id, source, language, as_json)
    elif decision_id.startswith(ENTRY_IDS) or not _explain_incident(decision_id, source, language, as_json):
        _explain_entry(decision_id, source, language, as_json)


def _explain_pay(pay_id: str, source: Path | None, language: Literal["en", "zh"], as_json: bool) -> None:
    from kaohe.explain_pay import find_in_file, find_in_ledger, shown

    found = find_in_file(source, pay_id) if source else find_in_ledger(load_settings().database_url, pay_id)
    if as_json:
        console.print_json(found)
    else:
        console.show(shown(found, language))


def _explain_incident(name: str, source: Path | None, language: Literal["en", "zh"], as_json: bool) -> bool:
    """Tell what was decided about an appeal, a complaint, a shift; False where nothing was."""
    from kaohe.explain import about_in_folder, about_in_ledger, about_shown

    if source is None:
        found = about_in_ledger(load_settings().database_url, name)
    elif source.is_dir():
        found = about_in_folder(source, name)
    else:
        return False
    if found.nothing:
        return False
    if as_json:
        console.print_json(found)
    else:
        console.show(about_shown(found, language))
    return True


def _explain_entry(entry_id: str, source: Path | None, language: Literal["en", "zh"], as_json: bool) -> None:
    from kaohe.explain import as_json as explanation_json
    from kaohe.explain import explanation, find_in_file, find_in_ledger

    if source is not None:
        revisions = find_in_file(source, entry_id)
    else:
        revisions = find_in_ledger(load_settings().database_url, entry_id)
    if as_json:
        typer.echo(explanation_json(revisions))
        return
    console.show(explanation(revisions, language))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)
