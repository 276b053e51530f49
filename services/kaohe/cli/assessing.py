"""``kaohe assess``: say what an item of a scorecard is worth, give the final word, and see who was not heard yet.

What is said becomes one event of the agent (or of the department). Before it goes, the pack is asked whether there is
such an item, who is heard about it and what it is worth; who has which role is told by the roster, so that the worker
checks it, and what it refuses stands in ``kaohe.rejects``. The list is read from the ledger: each revision of a
grade tells who was heard about each of its items, and the roster tells of whom there is no grade yet.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from kaohe.cli import console
from kaohe.cli.sending import moment_of, send_one
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import EventError, UsageError
from kaohe.settings import load_settings

if TYPE_CHECKING:
    from kaohe.core.assessing import Case
    from kaohe.core.model import Item, Pack, Scorecard
    from kaohe.decisions import Grade, ScoreLine
    from kaohe.payroll.ledger import Ledger

app = typer.Typer(help="Assessments: submit, decide, list.", no_args_is_help=True)

HUNDREDTHS = 100
_PERIOD = re.compile(r"\d{4}(-[0-9WQ-]+)?")
"""What looks like a period; no person is called like that."""
MOST_POINTS = 100

Who = Annotated[
    str, typer.Argument(help="Whose: an agent, or with --department a department.", metavar="WHO")
]
Period = Annotated[str, typer.Argument(help="Which: 2026-08, 2026-Q3 or 2026.", metavar="PERIOD")]
By = Annotated[str, typer.Option(help="Who says so.")]
PackName = Annotated[
    str, typer.Option("--pack", help="Under which pack; default: the one with such an item.")
]
Score = Annotated[str, typer.Option(help="Points, such as 8.5; at most what the item is worth.")]
Word = Annotated[str, typer.Option("--word", help="A word of the scorecard instead of points, such as good.")]
Why = Annotated[str, typer.Option(help="Why.")]
Department = Annotated[bool, typer.Option("--department", help="WHO is a department.")]
At = Annotated[str, typer.Option("--at", help="The event's time (RFC 3339); default: now.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Role(StrEnum):
    """For whom somebody speaks."""

    self = "self"
    peer = "peer"
    superior = "superior"
    leader = "leader"
    department = "department"


class AssessmentLine(msgspec.Struct, frozen=True, kw_only=True):
    """Who was heard about an item of somebody's card, and who was not.

    ``heard`` counts voices by role, ``missing`` are the roles without which the item has no value, ``silent`` the
    others that may still speak. ``share`` (of 1) is what the item earns by now, empty without data; ``final`` says
    that the period is closed for this person and nothing more is heard.
    """

    pack: str
    level: str
    subject: str
    period: str
    item: str
    clause: str
    heard: dict[str, int]
    missing: list[str]
    silent: list[str]
    share: str
    decided_by: str
    final: bool


# --- writing ----------------------------------------------------------------------------------------------------------


@app.command()
def submit(
    who: Who,
    period: Period,
    item: Annotated[str, typer.Option(help="The item of the scorecard, such as attitude.")],
    role: Annotated[Role, typer.Option(help="In which role: one's own by the roster.")],
    by: By,
    score: Score = "",
    word: Word = "",
    pack: PackName = "",
    for_department: Annotated[
        str, typer.Option("--for", help="The department that the role department speaks for.")
    ] = "",
    reason: Why = "",
    department: Department = False,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Say what an item is worth; who says something again in the same role replaces what was said before.

    Example: kaohe assess submit a-17 2026-08 --item attitude --role superior --score 8.5 --by m-2
    """
    data = {"item": item, "role": role.value, "by_department": for_department}
    _send("assessment.submitted", who, period, pack, by, score, word, reason, department, at, as_json, data)


@app.command()
def decide(
    who: Who,
    period: Period,
    by: By,
    item: Annotated[str, typer.Option(help="Only this item; default: the whole score or grade.")] = "",
    score: Score = "",
    word: Word = "",
    pack: PackName = "",
    reason: Why = "",
    department: Department = False,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Give the final word of the leader in charge: on one item, or on the whole score (--score) or grade (--word).

    Example: kaohe assess decide a-17 2026-08 --word B --by gm-1 --reason "The site move cost a week"
    """
    data = {"item": item}
    _send("assessment.decided", who, period, pack, by, score, word, reason, department, at, as_json, data)


def _send(
    tag: str, who: str, period: str, pack: str, by: str, score: str, word: str, reason: str, department: bool, at: str,
    as_json: bool, data: dict[str, str],
) -> None:  # fmt: skip
    from kaohe.core.calendars import window_of

    settings, moment = load_settings(), moment_of(at)
    window, level = window_of(period), "department" if department else "agent"
    case = case_of(chosen_packs(settings), pack, level, window, period, data["item"])
    whole: dict[str, Any] = data | {
        level: who, "pack": case.pack.name, "window": window, "period": period, "grade": word, "by": by,
        "reason": reason,
    }  # fmt: skip
    if score:
        whole["score"] = hundredths(score)
    check(tag, whole, case)
    said = (data["item"] or "whole", data.get("role", "leader"), by, data.get("by_department", ""))
    own_id = "/".join((who, case.pack.name, period, tag, *said, moment.isoformat(timespec="milliseconds")))
    send_one(tag, who, own_id, whole, moment, as_json)


def hundredths(text: str) -> int:
    """Points as they are written (``8.5``) in hundredths of a point; UsageError for what is none."""
    try:
        value = Decimal(text) * HUNDREDTHS
    except InvalidOperation:
        value = Decimal("NaN")
    if (
        not value.is_finite()
        or value != value.to_integral_value()
        or not 0 <= value <= MOST_POINTS * HUNDREDTHS
    ):
        raise UsageError(f"--score {text!r} is no number of points; write one from 0 to 100, such as 8.5.")
    return int(value)


def case_of(packs: Sequence[Pack], name: str, level: str, window: str, period: str, item: str) -> Case:
    """The card that an assessment is about: of the pack that is named, or of the only one that has such an item.

    Of several versions of a pack the newest one that is in force when the period begins. UsageError where there is
    none, or more than one.
    """
    from kaohe.core.assessing import Case
    from kaohe.core.calendars import bounds_of, calendar
    from kaohe.packs.source import nearest

    loaded = sorted({one.name for one in packs})
    if name and name not in loaded:
        raise UsageError(f"--pack: there is no pack {name!r} here; {nearest(name, loaded, 'pack')}")
    day = bounds_of(window, period)[0]
    found = [
        (pack, card)
        for pack in in_force(packs, day)
        for card in pack.cards
        if (card.level, card.window) == (level, window) and name in ("", pack.name) and assessed(card)
    ]
    if not found:
        where = name or "every pack here"
        raise UsageError(
            f"{where} lacks a scorecard of each {level} and {window} about which people are heard."
        )
    having = [one for one in found if item in ("", *assessed(one[1]))]
    if not having:
        known = sorted({known for _, card in found for known in assessed(card)})
        raise UsageError(f"--item: nobody assesses {item!r}; {nearest(item, known, 'item')}")
    if len(having) > 1:
        raise UsageError(f"--pack is missing; it is one of {', '.join(pack.name for pack, _ in having)}.")
    pack, card = having[0]
    return Case(pack, card, calendar(pack.zone).period(window, period))


def in_force(packs: Iterable[Pack], day: date) -> list[Pack]:
    """Of each pack the newest version that is in force on a day; none of a pack that is not in force yet."""
    newest: dict[str, Pack] = {}
    for pack in sorted(packs, key=lambda one: one.in_force_from):
        if pack.in_force_from <= day:
            newest[pack.name] = pack
    return [newest[name] for name in sorted(newest)]


def assessed(card: Scorecard) -> dict[str, Item]:
    """The items of a card about which people are heard, by name."""
    items = (item for dimension in card.dimensions for item in dimension.items)
    return {item.name: item for item in items if item.kind == "assessed"}


def check(tag: str, data: dict[str, Any], case: Case) -> None:
    """UsageError for what the pack refuses, in the words of the options."""
    from kaohe.core.assessing import check_content, check_spoken
    from kaohe.events import PAYLOADS

    try:
        payload = msgspec.convert({key: value for key, value in data.items() if value != ""}, PAYLOADS[tag])
    except msgspec.ValidationError as error:
        raise UsageError(f"this cannot be sent: {error}.") from None
    try:
        check_spoken(tag, payload)
    except EventError:
        raise UsageError("say what it is worth: either --score or --word.") from None
    try:
        check_content(tag, payload, case)
    except EventError as error:
        text = str(error).replace("$.data.grade", "--word").replace("$.data.", "--")
        raise UsageError(f"{text.replace('$.data', '--score and --word')}.") from None


# --- reading ----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_assessments(
    who_or_period: Annotated[
        str,
        typer.Argument(
            help="An agent, a department or a period; default: everything.", metavar="[WHO|PERIOD]"
        ),
    ] = "",
    period: Annotated[str, typer.Option(help="Only this period (beside WHO).")] = "",
    pack: Annotated[str, typer.Option(help="Only of this pack.")] = "",
    missing: Annotated[bool, typer.Option("--missing", help="Only items that wait for somebody.")] = False,
    as_json: Json = False,
) -> None:
    """Show who was heard about whom, and whose word is still missing.

    Example: kaohe assess list 2026-08 --missing
    """
    from kaohe.core.calendars import bounds_of, window_of
    from kaohe.payroll.ledger import Ledger

    who = who_or_period
    if _PERIOD.fullmatch(who):
        who, period = "", period or who
    if period:
        window_of(period)
    settings = load_settings()
    packs = chosen_packs(settings)
    with Ledger(settings.database_url) as ledger:
        grades = [
            _whole(ledger, one) for one in ledger.current_grades(subject=who or None, period=period or None)
        ]
        found = lines_of(packs, grades)
        if period:
            roster = ledger.roster(*bounds_of(window_of(period), period))
            people = {name: held for name, held in roster.items() if who in ("", name)}
            found += unheard(packs, people, period, {(one.pack, one.subject) for one in found})
    wanted = [
        one for one in found if pack in ("", one.pack) and not (missing and (one.final or not one.missing))
    ]
    wanted.sort(key=lambda one: (one.period, one.pack, one.level, one.subject, one.item))
    if as_json:
        console.print_json(wanted)
    elif wanted:
        _show(wanted)
    else:
        console.say(
            "nobody's word is missing." if missing else "there is nothing to be assessed in the ledger."
        )


def _whole(ledger: Ledger, grade: Grade) -> Grade:
    """A grade with its whole card: a revision of a running period may tell only what moved."""
    from kaohe.core.telling import newest

    if grade.detail is None or not grade.detail.since:
        return grade
    return newest(ledger.grades(grade.id))[grade.id]


def lines_of(packs: Iterable[Pack], grades: Iterable[Grade]) -> list[AssessmentLine]:
    """What grades tell of the items about which people are heard. A grade of a version that is gone is passed over."""
    cards = {(pack.key, card.level, card.window): (pack, card) for pack in packs for card in pack.cards}
    found = []
    for grade in grades:
        held = cards.get((f"{grade.pack}@{grade.pack_version}", grade.level, grade.window))
        if held is None:
            continue
        told = {line.item: line for line in (grade.detail.lines if grade.detail is not None else [])}
        found += [_line(held[0], item, grade, told.get(item.name)) for item in assessed(held[1]).values()]
    return found


def _line(pack: Pack, item: Item, grade: Grade, told: ScoreLine | None) -> AssessmentLine:
    said = told.said if told is not None else []
    # A final word stands in place of what the others said.
    decided = next(
        (one.by for one in said if told is not None and told.calculation.startswith("final word")), ""
    )
    heard: dict[str, int] = {}
    for one in said:
        heard[one.role] = heard.get(one.role, 0) + one.count
    missing, silent = _waiting(pack, item, grade.window, grade.period, set(heard))
    return AssessmentLine(
        pack=grade.pack, level=grade.level, subject=grade.subject, period=grade.period, item=item.name,
        clause=item.clause, heard=heard, missing=[] if decided else missing, silent=[] if decided else silent,
        share=(told.share or "") if told is not None else "", decided_by=decided, final=grade.status != "provisional",
    )  # fmt: skip


def _waiting(
    pack: Pack, item: Item, window: str, period: str, heard: set[str]
) -> tuple[list[str], list[str]]:  # fmt: skip
    """The roles that must still speak about an item, and those that may."""
    from kaohe.core.calendars import bounds_of

    roles = pack.parameters[item.roles].value_at(bounds_of(window, period)[0])
    assert isinstance(roles, dict), item.roles
    missing = [role for role in item.required if role not in heard]
    return missing, [role for role in roles if role not in heard and role not in missing]


def unheard(
    packs: Iterable[Pack], people: dict[str, tuple[str, ...]], period: str, known: set[tuple[str, str]]
) -> list[AssessmentLine]:
    """The items of people on the roster about whom there is no grade yet. ``people`` names their packs (none: all)."""
    from kaohe.core.calendars import bounds_of, window_of

    window = window_of(period)
    found = []
    for pack in in_force(packs, bounds_of(window, period)[0]):
        for card in pack.cards:
            if (card.level, card.window) != ("agent", window):
                continue
            for name, held in sorted(people.items()):
                if (pack.name, name) in known or (held and pack.name not in held):
                    continue
                for item in assessed(card).values():
                    missing, silent = _waiting(pack, item, window, period, set())
                    found.append(
                        AssessmentLine(
                            pack=pack.name, level="agent", subject=name, period=period, item=item.name,
                            clause=item.clause, heard={}, missing=missing, silent=silent, share="", decided_by="",
                            final=False,
                        )
                    )  # fmt: skip
    return found


def _show(found: Sequence[AssessmentLine]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("period", "pack", "who", "item", "heard", "missing", "may still speak", "earns"):
        table.add_column(column)
    for one in found:
        heard = ", ".join(f"{role} {count}" if count > 1 else role for role, count in one.heard.items())
        said = f"final word of {one.decided_by}" if one.decided_by else heard
        open_ = "closed" if one.final else ", ".join(one.silent)
        table.add_row(
            one.period, one.pack, one.subject, one.item, said, ", ".join(one.missing), open_, one.share
        )
    console.show(table)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="assess")
