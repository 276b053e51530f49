"""From ``appeals.yaml`` to ``kaohe.core.model.AppealTerms``: until when and how an appeal is heard.

::

    clause: LS-15
    window: p.appeal_window
    calendar: china
    hear: [employee, supervisor]

What follows is said by rules on what the engine makes of an appeal. A pack that takes appeals must have rules that tell
somebody of each way in which one can end, and one that takes back what was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from kaohe.core.model import AppealTerms, Parameter, Rule
from kaohe.packs.holidays import CALENDARS
from kaohe.packs.metrics import MetricReader
from kaohe.packs.source import NO_TEXTS, Fields, Node, choice, several

HEARD = ("employee", "supervisor", "other")
ENDINGS = ("appeal.refused", "appeal.rejected", "appeal.upheld", "appeal.dismissed")
"""Somebody must be told of these."""
DAYS_MAX = 250


def read_appeals(
    node: Node | None, base: MetricReader, rules: Iterable[Rule], *, all_read: bool
) -> AppealTerms | None:
    """``appeals.yaml``; None when there is none or it is wrong (the mistakes are noted).

    Unless all rules could be read (``all_read``), nothing is said of those that lack.
    """
    if node is None:
        return None
    fields = Fields(node, base.problems, ("clause", "window", "calendar", "hear"), "appeals.yaml")
    clause = fields.need("clause", base.clause, "")
    window = fields.need("window", lambda found: _working_days(found, base), "")
    calendar = fields.need("calendar", choice(CALENDARS, "calendar"), "weekdays")
    hear = fields.take("hear", several(choice(HEARD, "person to be heard")), NO_TEXTS)
    if not fields.ok():
        return None
    known = list(rules)
    for tag in ENDINGS if all_read else ():
        if not any(rule.on == tag and any(one.kind == "task" for one in rule.effects) for rule in known):
            fields.wrong(
                "clause", f"no rule tells anybody of {tag}", f"add a rule with `on: {tag}` and a task"
            )
    if all_read and not any(one.kind == "reverse" for rule in known for one in rule.effects):
        right = "add `- reverse: appealed` to a rule with `on: appeal.upheld`"
        fields.wrong("clause", "no rule takes back what an appeal was right about", right)
    if not fields.ok():
        return None
    return AppealTerms(
        clause=clause, window=window, calendar=base.calendars[calendar], hear=hear, place=node.place
    )


def _working_days(node: Node, base: MetricReader) -> str:
    """A number parameter of whole days, 1 or more on every day."""
    found: Parameter = base.parameters[base.parameter("days")(node)]
    for _, value in found.values:
        assert not isinstance(value, str | dict)
        if value.denominator != 1 or not 1 <= value <= DAYS_MAX:
            node.fail(f"{node.text} is not a whole number of days", f"give it values from 1 to {DAYS_MAX}")
    return found.name
