"""``kaohe appeal``: file an appeal, answer it, note who was heard, decide it, and see how the appeals stand.

Everything that writes sends one event of the agent to ``kaohe.events``; the worker checks it, and what it refuses
stands in ``kaohe.rejects``. The list is read from the ledger: each state of an appeal left a task there for somebody.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.sending import moment_of, send_one
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.core.model import Pack
    from kaohe.decisions import Decision

app = typer.Typer(help="Appeals: file, accept, reject, hear, decide, list.", no_args_is_help=True)

STATES = {
    "appeal.received": "received", "appeal.refused": "refused", "appeal.accepted": "accepted",
    "appeal.rejected": "rejected", "appeal.upheld": "upheld", "appeal.dismissed": "dismissed",
}  # fmt: skip
"""What a rule is triggered by, and how the appeal then stands."""
PARTLY = "partly upheld"

Agent = Annotated[str, typer.Argument(help="Whose appeal.", metavar="AGENT")]
AppealId = Annotated[str, typer.Argument(help="The appeal's id.", metavar="APPEAL")]
By = Annotated[str, typer.Option(help="Who says so.")]
Why = Annotated[str, typer.Option(help="Why.")]
At = Annotated[str, typer.Option("--at", help="The event's time (RFC 3339); default: now.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Ground(StrEnum):
    """What an appeal is against."""

    result = "result"
    interview = "interview"
    use = "use"


class Who(StrEnum):
    """Who was heard."""

    employee = "employee"
    supervisor = "supervisor"
    other = "other"


class AppealLine(msgspec.Struct, frozen=True, kw_only=True):
    """How an appeal stands, by the newest entry of the ledger about it."""

    appeal: str
    agent: str
    pack: str
    state: str
    at: str
    said: str
    reversed: list[str]


def _send(tag: str, agent: str, appeal: str, at: str, as_json: bool, **data: Any) -> None:
    send_one(
        tag,
        agent,
        f"{agent}/{appeal}/{tag}",
        {"agent": agent, "appeal_id": appeal, **data},
        moment_of(at),
        as_json,
    )


@app.command()
def file(
    agent: Agent,
    against: Annotated[str, typer.Option(help="The id of a decision (d-…), grade (g-…) or interview.")],
    text: Annotated[str, typer.Option(help="What is wrong, in the employee's words.")],
    appeal: Annotated[
        str, typer.Option("--id", help="The appeal's id; default: made of agent and target.")
    ] = "",
    ground: Annotated[Ground, typer.Option(help="What it is against.")] = Ground.result,
    at: At = "",
    as_json: Json = False,
) -> None:
    """File an appeal of an agent against a result, an interview or the use of a result.

    Example: kaohe appeal file a-17 --against d-0123456789abcdef01234567 --text "That was another team"
    """
    chosen = appeal or f"{agent}/{against}"
    _send(
        "appeal.filed", agent, chosen, at, as_json, against=against, text=text, ground=ground.value
    )  # fmt: skip


@app.command()
def accept(agent: Agent, appeal: AppealId, by: By, reason: Why, at: At = "", as_json: Json = False) -> None:
    """Accept an appeal: it will be looked into.

    Example: kaohe appeal accept a-17 ap-1 --by hr-1 --reason "It names a witness"
    """
    _send("appeal.accepted", agent, appeal, at, as_json, by=by, reason=reason)


@app.command()
def reject(agent: Agent, appeal: AppealId, by: By, reason: Why, at: At = "", as_json: Json = False) -> None:
    """Reject an appeal with a reason.

    Example: kaohe appeal reject a-17 ap-1 --by hr-1 --reason "It says nothing new"
    """
    _send("appeal.rejected", agent, appeal, at, as_json, by=by, reason=reason)


@app.command()
def hear(
    agent: Agent,
    appeal: AppealId,
    who: Annotated[Who, typer.Option(help="Who was heard.")],
    by: Annotated[str, typer.Option(help="The name.")] = "",
    text: Annotated[str, typer.Option(help="What was said.")] = "",
    at: At = "",
    as_json: Json = False,
) -> None:
    """Note that somebody was heard about an accepted appeal.

    Example: kaohe appeal hear a-17 ap-1 --who supervisor --by m-2
    """
    moment = moment_of(at)
    own_id = f"{agent}/{appeal}/appeal.heard/{who.value}/{by}/{moment.isoformat(timespec='milliseconds')}"
    data = {"agent": agent, "appeal_id": appeal, "who": who.value, "by": by, "text": text}
    send_one("appeal.heard", agent, own_id, data, moment, as_json)


@app.command()
def decide(
    agent: Agent,
    appeal: AppealId,
    by: By,
    reason: Why,
    upheld: Annotated[bool, typer.Option("--upheld/--dismissed", help="Whether the appeal is right.")],
    entry: Annotated[list[str] | None, typer.Option(help="A decision to take back; may be repeated.")] = None,
    remains: Annotated[
        str, typer.Option(help="Upheld in part: points that remain of what is taken back, such as 0.5.")
    ] = "",
    score: Annotated[str, typer.Option(help="Against a grade: the score that it becomes.")] = "",
    grade: Annotated[str, typer.Option(help="Against a grade: the grade that it becomes.")] = "",
    responsible: Annotated[str, typer.Option(help="Who made the mistake.")] = "",
    at: At = "",
    as_json: Json = False,
) -> None:
    """Decide an accepted appeal; one that is upheld takes back what it is against, and every --entry.

    Example: kaohe appeal decide a-17 ap-1 --upheld --by gm-1 --reason "The rating names the wrong team"

    Example: kaohe appeal decide a-17 ap-1 --upheld --remains 0.5 --by gm-1 --reason "Only the tone was poor"

    Example: kaohe appeal decide a-17 ap-1 --upheld --grade B --by gm-1 --reason "The surveys were of another team"
    """
    more: dict[str, Any] = {"remains": _hundredths("--remains", remains)} if remains else {}
    more |= {"score": _hundredths("--score", score)} if score else {}
    more |= {"grade": grade} if grade else {}
    _send(
        "appeal.decided", agent, appeal, at, as_json, by=by, reason=reason, upheld=upheld, reversals=entry or [],
        responsible=responsible, **more,
    )  # fmt: skip


def _hundredths(option: str, text: str) -> int:
    """Points in hundredths; UsageError unless the text is such a number."""
    try:
        exact = Fraction(text) * 100
    except (ValueError, ZeroDivisionError):
        exact = Fraction(0)
    if exact.denominator != 1 or exact <= 0:
        raise UsageError(
            f"{option} {text!r} is no number of points above 0 with at most two decimals, such as 0.5."
        )
    return int(exact)


@app.command("list")
def list_appeals(
    agent: Annotated[str, typer.Option(help="Only of this agent.")] = "",
    state: Annotated[str, typer.Option(help="Only in this state.")] = "",
    as_json: Json = False,
) -> None:
    """List the appeals in the ledger, and how they stand.

    Example: kaohe appeal list --state accepted
    """
    from kaohe.payroll.ledger import Ledger

    known = (*STATES.values(), PARTLY)
    if state and state not in known:
        raise UsageError(f"--state {state!r} is none of {', '.join(known)}.")
    settings = load_settings()
    packs = chosen_packs(settings)
    with Ledger(settings.database_url) as ledger:
        entries = [
            entry
            for rule in rules_about(packs)
            for entry in ledger.current_entries(rule=rule, subject=agent or None)
        ]
    found = [one for one in lines_of(packs, entries) if not state or one.state == state]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.say("there is no such appeal in the ledger.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("appeal", "agent", "state", "at", "what was said", "taken back"):
        table.add_column(column)
    for one in found:
        table.add_row(one.appeal, one.agent, one.state, one.at, one.said, ", ".join(one.reversed))
    console.show(table)


def rules_about(packs: Sequence[Pack]) -> dict[str, str]:
    """The rules on appeals, and the state that each of them tells."""
    return {rule.id: STATES[rule.on] for pack in packs for rule in pack.rules if rule.on in STATES}


def lines_of(packs: Sequence[Pack], entries: Sequence[Decision]) -> list[AppealLine]:
    """The appeals that entries tell of, newest first. A reversal belongs to the appeal whose decision it rests on."""
    states, order = rules_about(packs), list(STATES.values())
    told: dict[tuple[str, str, str], list[Decision]] = {}
    for entry in entries:
        if entry.rule in states and entry.kind == "task":
            told.setdefault((entry.pack, entry.subject, entry.incident), []).append(entry)
    reversals = [entry for entry in entries if entry.rule in states and entry.reverses]
    found = []
    for (pack, agent, appeal), steps in told.items():
        newest = max(steps, key=lambda one: (one.at, order.index(states[one.rule]), one.id))
        taken_back = sorted(
            one.reverses
            for one in reversals
            if (one.pack, one.subject, one.evidence, one.rule) == (pack, agent, newest.evidence, newest.rule)
        )
        line = AppealLine(
            appeal=appeal, agent=agent, pack=pack, state=_state(states[newest.rule], newest), at=newest.at,
            said=newest.explanation.en, reversed=taken_back,
        )  # fmt: skip
        found.append(line)
    return sorted(found, key=lambda one: (one.at, one.agent, one.appeal), reverse=True)


def _state(state: str, newest: Decision) -> str:
    outcome = newest.facts.get("event.outcome")
    return PARTLY if outcome is not None and outcome.value == "partly" else state


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="appeal")
