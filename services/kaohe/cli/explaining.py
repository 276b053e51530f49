"""``kaohe explain``: why a decision, an alert or a grade is what it is."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kaohe.cli import console
from kaohe.cli.rules import Lang
from kaohe.settings import load_settings


def explain(
    decision_id: Annotated[
        str, typer.Argument(help="The id: d-… (decision), w-… (alert) or g-… (grade).", metavar="DECISION_ID")
    ],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A .jsonl file, or the folder of a replay; default: the ledger."),
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the labels.")] = Lang.en,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain a decision: the sentence, and clause, rule, parameters, facts, evidence and arithmetic as a tree.

    Example: kaohe explain d-0123456789abcdef01234567 --from february
    """
    from kaohe.explain import as_json as explanation_json
    from kaohe.explain import explanation, find_in_file, find_in_ledger

    if source is not None:
        revisions = find_in_file(source, decision_id)
    else:
        revisions = find_in_ledger(load_settings().database_url, decision_id)
    if as_json:
        typer.echo(explanation_json(revisions))
        return
    language: Literal["en", "zh"] = "zh" if lang is Lang.zh else "en"
    console.show(explanation(revisions, language))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)
