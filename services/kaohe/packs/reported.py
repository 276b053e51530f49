"""What of a rule's entries a report shows: ``report`` in ``rules.yaml``.

Theory of operation. A report is made of the ledger alone, so its figures must stand there. A rule about a period that
gives somebody a task at the close writes one entry for each person or group, with every fact that it looked at. Such
an entry is a line of a report: ``figures`` says which facts (they become facts of the entry, whether or not the
condition or the explanation names them), ``section`` where the line stands, and for a commendation ``rank_by`` who
comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kaohe.core.expressions import ExprType
from kaohe.core.model import REPORT_SECTIONS, Effect, Reported
from kaohe.packs.source import NO_TEXTS, Fields, Node, Problems, choice, nearest, scalar, several

FIGURES_MAX = 16


def read_reported(
    node: Node, problems: Problems, scope: Mapping[str, ExprType], parameter: Callable[[Node], str]
) -> Reported:
    """The report of a rule; the mistakes are noted."""
    fields = Fields(node, problems, ("section", "figures", "rank_by", "places"), "a report")
    section = fields.need("section", choice(REPORT_SECTIONS, "section"), "")

    def figure(found: Node) -> str:
        text = scalar(found)
        if text not in scope or text.startswith(("p.", "event.")) or scope[text].kind != "number":
            figures = [
                one for one, kind in scope.items() if kind.kind == "number" and not one.startswith("p.")
            ]
            found.fail(f"this rule knows no figure {text!r}", nearest(text, figures, "figure"))
        return text

    figures = fields.need("figures", several(figure, FIGURES_MAX), NO_TEXTS)
    rank_by = fields.take("rank_by", several(figure), NO_TEXTS)
    places = fields.take("places", parameter, "")
    for one in rank_by:
        if one not in figures:
            fields.wrong("rank_by", f"{one} is not among the figures", "rank by figures that are shown")
    if section == "commendation":
        for key, there in (("rank_by", bool(rank_by)), ("places", bool(places))):
            if not there and key not in fields:
                fields.wrong("section", f"a commendation lacks {key!r}", f"add `{key}:`")
    elif section:
        for key in ("rank_by", "places"):
            if key in fields:
                fields.wrong(key, "only a commendation is ranked", "leave it out")
    return Reported(section=section, figures=figures, rank_by=rank_by, places=places)  # type: ignore[arg-type]


def check_reported(fields: Fields, effects: tuple[Effect, ...], *, period: bool, at_close_only: bool) -> None:
    """A line of a report is an entry that is written once, at the close of a period."""
    if not period or not at_close_only:
        fields.wrong(
            "report", "only what is judged at the close of a period is reported",
            "give the rule `judged:` and `at_close_only: true`",
        )  # fmt: skip
    elif not any(effect.kind == "task" for effect in effects):
        fields.wrong(
            "report", "the rule writes no entry that a report could show", "give somebody a task with these figures"
        )  # fmt: skip
