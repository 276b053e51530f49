"""From ``workflow.yaml`` to ``kaohe.core.model.Steps``: the steps of an appraisal and their dates.

::

    window: month
    teams: [sales, service]
    escalation: p.escalation_days
    steps:
      - {id: plan, clause: CK-10, title: {...}, for: team, owner: head, superior: deputy, day: p.plan_day, when: before}
"""

from __future__ import annotations

from typing import Literal, cast

from kaohe.core.model import Steps, WorkStep
from kaohe.decisions import Words
from kaohe.packs.metrics import MetricReader
from kaohe.packs.source import NO_TEXTS, Fields, Node, choice, kebab, name, scalar, several, words

WINDOWS = ("month", "quarter", "year")
WHEN = ("before", "during", "after")
WHOSE = ("team", "department", "company")
STEPS_MAX = 32
ESCALATION_MAX = 28
"""Days; a period's last date is then never more than two periods behind."""
NOTED_BY = ("settlement.requested", "settlement.approved", "settlement.exported", "settlement.acknowledged")
"""Steps that a command of pay carries out, and notes."""
_STEP_KEYS = ("id", "clause", "title", "for", "owner", "superior", "day", "when", "noted_by")
_NO_STEPS: tuple[WorkStep, ...] = ()
_NO_WORDS = Words("", "")


def read_workflow(node: Node | None, base: MetricReader) -> Steps | None:
    """``workflow.yaml``; None when there is none or it is wrong (the mistakes are noted)."""
    if node is None:
        return None
    fields = Fields(node, base.problems, ("window", "teams", "escalation", "steps"), "workflow.yaml")
    window = fields.need("window", choice(WINDOWS, "period"), "month")
    teams = fields.take("teams", several(scalar, 500), NO_TEXTS)
    escalation = fields.need("escalation", lambda found: _days(found, base, 0, ESCALATION_MAX), "")
    steps = fields.need("steps", lambda found: _steps(found, base), _NO_STEPS)
    if not fields.ok():
        return None
    if any(step.whose == "team" for step in steps) != bool(teams):
        wrong = (
            "there are teams, but no step is theirs"
            if teams
            else "a step is done by teams, but none is named"
        )
        fields.wrong(
            "teams" if teams else "steps", wrong, "name the teams under `teams:`, and give steps `for: team`"
        )
        return None
    if window != "month" and any(step.noted_by for step in steps):
        fields.wrong("window", f"pay is settled by the month, and this calendar is by the {window}",
                     "write `window: month`, or leave `noted_by` out")  # fmt: skip
        return None
    return Steps(window=window, teams=teams, escalation=escalation, steps=steps, place=node.place)


def _steps(node: Node, base: MetricReader) -> tuple[WorkStep, ...]:
    if node.kind != "list" or not 1 <= len(node.items) <= STEPS_MAX:
        node.fail("the steps are no list of 1 to 32", "write `- {id: plan, ...}`")
    found: list[WorkStep] = []
    before = len(base.problems.errors)
    for item in node.items:
        step = _step(item, base)
        if step is not None and any(one.id == step.id for one in found):
            item.fail(f"the step {step.id!r} stands twice", "choose another id")
        if step is not None:
            found.append(step)
    if len(base.problems.errors) > before:
        raise base.problems.errors[-1]
    return tuple(found)


def _step(node: Node, base: MetricReader) -> WorkStep | None:
    fields = Fields(node, base.problems, _STEP_KEYS, "a step")
    own_id = fields.need("id", kebab, "")
    clause = fields.need("clause", base.clause, "")
    title = fields.need("title", words, _NO_WORDS)
    whose = fields.need("for", choice(WHOSE, "doer"), "company")
    owner, superior = fields.need("owner", name, ""), fields.need("superior", name, "")
    day = fields.need("day", lambda found: _days(found, base, 1, 31), "")
    when = fields.need("when", choice(WHEN, "place"), "during")
    noted_by = fields.take("noted_by", choice(NOTED_BY, "event"), "")
    if noted_by and whose != "company":
        fields.wrong(
            "noted_by", "a settlement is the company's", "write `for: company`, or leave `noted_by` out"
        )
    if not fields.ok():
        return None
    return WorkStep(
        id=own_id, clause=clause, title=title, owner=owner, superior=superior, day=day,
        whose=cast("Literal['team', 'department', 'company']", whose),
        when=cast("Literal['before', 'during', 'after']", when), noted_by=noted_by,
    )  # fmt: skip


def _days(node: Node, base: MetricReader, low: int, high: int) -> str:
    """A number parameter of whole days between the bounds on every day."""
    found = base.parameters[base.parameter("days")(node)]
    for _, value in found.values:
        assert not isinstance(value, str | dict)
        if value.denominator != 1 or not low <= value <= high:
            node.fail(f"{node.text} is not a whole number from {low} to {high}", "change its values")
    return found.name
