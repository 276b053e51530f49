"""``kaohe settle``, ``kaohe payroll``, ``kaohe ledger``: from grades and entries to pay that is approved and handed on.

Whatever changes something writes an event; the payroll process (``kaohe payroll`` without a subcommand) carries it out.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kaohe.cli import console
from kaohe.cli.console import print_json, say
from kaohe.cli.sending import moment_of, note_steps
from kaohe.cli.wiring import chosen_packs
from kaohe.errors import KaoheError, UsageError
from kaohe.settings import Settings, load_settings

if TYPE_CHECKING:
    from kaohe.core.model import Pack
    from kaohe.decisions import Settlement
    from kaohe.events import Envelope, PayTermsInForce
    from kaohe.payroll.ledger import Ledger
    from kaohe.payroll.reconcile import Check
    from kaohe.payroll.settling import Batch

WAIT_S = 30.0

payroll_app = typer.Typer()
ledger_app = typer.Typer(help="Look at the ledger, verify it, reconcile it.", no_args_is_help=True)

By = Annotated[str, typer.Option("--by", help="Who does this.")]
BatchId = Annotated[str, typer.Argument(help="The batch: b-…", metavar="BATCH")]
Wait = Annotated[
    float,
    typer.Option("--wait", min=0, help="Seconds to wait until payroll has carried it out; 0: not at all."),
]
At = Annotated[
    str, typer.Option("--at", help="The time of the event, such as 2026-09-08T09:00:00Z; default: now.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _produce(settings: Settings, event: Envelope) -> None:
    from kaohe.events import encode
    from kaohe.stream.produce import Entry, produce

    produce(settings, [Entry(encode(event), event.subject, event.time)])


def _tell(settings: Settings, event: Envelope, wait_s: float, as_json: bool, did: str) -> None:
    """Wait for what becomes of an event, and say it. Raises KaoheError when payroll refused."""
    from kaohe.payroll.asking import event_key, find_batch, wait_for
    from kaohe.payroll.ledger import Ledger

    found = wait_for(settings.database_url, event, wait_s) if wait_s else None
    if found is None:
        if as_json:
            print_json({"event": event_key(event), "outcome": "waiting"})
        else:
            say(
                "it is in the log; payroll carries it out when it has read that far ('kaohe payroll list' shows it)"
            )
        return
    if found.outcome == "refused":
        raise KaoheError(found.reason)
    with Ledger(settings.database_url) as ledger:
        batch = find_batch(ledger, found.batch)
    if as_json:
        print_json({"event": event_key(event), "outcome": found, "batch": _batch_data(batch)})
    elif found.outcome == "unchanged":
        say(f"nothing to do: {found.reason}")
    else:
        say(f"{did}: {_batch_line(batch)}")


# --- settle -----------------------------------------------------------------------------------------------------------


def _terms(settings: Settings, pack: str, period: str) -> PayTermsInForce:
    """The terms of the pack that pays, with what the other packs of the settings add."""
    from kaohe.core.pay import terms_in_force

    packs = _with_pack(settings, pack)
    paying = [one for one in packs if one.pay is not None and one.pay.pays]
    if not paying:
        named = ", ".join(one.name for one in packs)
        raise UsageError(
            f"no pack has pay terms with a base (loaded: {named}); name one that has them in its pay.yaml by --pack."
        )
    adding = [one for one in packs if one.pay is not None]
    for one in adding:
        versions = [other.version for other in adding if other.name == one.name]
        if len(versions) > 1:
            raise UsageError(
                f"{one.name} is loaded in the versions {', '.join(versions)}; name the folder of one by --pack."
            )
    return terms_in_force(paying[0], period, packs)


def _with_pack(settings: Settings, pack: str) -> tuple[Pack, ...]:
    """The packs of the settings, with the named one among them, in place of those that cannot stand beside it."""
    from kaohe.packs.load import check_together

    packs = chosen_packs(settings)
    if not pack:
        return packs
    (named,) = chosen_packs(settings, [pack])
    kept: tuple[Pack, ...] = (named,)
    for one in packs:
        if one.name != named.name and not check_together((*kept, one)):
            kept = (*kept, one)
    return kept


def settle(
    period: Annotated[str, typer.Argument(help="The month, such as 2026-08.")],
    by: By,
    pack: Annotated[
        str, typer.Option(help="The pack with the pay terms; default: the loaded one that has any.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    reopen: Annotated[
        bool,
        typer.Option(
            "--reopen", help="Correct a settled month now; entries that no longer hold are reversed."
        ),
    ] = False,
    wait: Wait = WAIT_S,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Ask for a month's settlement: a draft with a statement for each person, to be approved by somebody else.

    Example: kaohe settle 2026-08 --by payroll-clerk
    """
    from kaohe.core.calendars import bounds_of
    from kaohe.payroll.asking import read_up_to, settlement_event
    from kaohe.stream.topics import client_config

    bounds_of("month", period)
    settings = load_settings()
    terms = _terms(settings, pack, period)
    moment = moment_of(at)
    event = settlement_event(
        "settlement.requested", moment, period=period, by=by, reason=reason, reopen=reopen, terms=terms,
        read=read_up_to(client_config(settings)),
    )  # fmt: skip
    _produce(settings, event)
    _tell(settings, event, wait, as_json, "settled")
    note_steps(settings, "settlement.requested", period, by, moment)


# --- payroll ----------------------------------------------------------------------------------------------------------


@payroll_app.callback(invoke_without_command=True)
def payroll(
    context: typer.Context,
    until_idle: Annotated[
        float | None, typer.Option("--until-idle", help="End when nothing came for so many seconds.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON at the end.")
    ] = False,
) -> None:
    """Keep the ledger: write decisions, alerts and grades into the database, each exactly once, and settle pay.

    Example: KAOHE_DATABASE_URL=sqlite:///ledger.db kaohe payroll
    """
    if context.invoked_subcommand is not None:
        return
    from kaohe.payroll.consumer import run_payroll, stop_on_signals
    from kaohe.payroll.ledger import shown
    from kaohe.stream.topics import security_config

    settings = load_settings()
    say(f"payroll reads from {settings.broker} and writes to {shown(settings.database_url)}; Ctrl-C ends it")
    with stop_on_signals() as stop, ExitStack() as stack:
        _show_figures(settings, stack)
        done = run_payroll(
            settings.bootstrap,
            security_config(settings.security),
            settings.database_url,
            stop=stop,
            until_idle_s=until_idle,
        )
    written = done.written
    if as_json:
        print_json({"records": done.records, "written": written})
    else:
        say(f"{done.records:,} records read; {written.entries:,} entries, {written.conflicts:,} conflicts")


def _show_figures(settings: Settings, stack: ExitStack) -> None:
    if not settings.payroll_metrics_port:
        return
    from kaohe.payroll.figures import PayrollFigures
    from kaohe.wallboard.exporter import start_exporter

    figures = PayrollFigures(settings.database_url)
    server = start_exporter(settings.metrics_host, settings.payroll_metrics_port, figures)
    stack.callback(server.stop)
    say(f"figures at {settings.metrics_host}:{server.port}/metrics")


def _checked(batch: Batch, ledger: Ledger, to: str, by: str) -> None:
    """Raise KaoheError when it can be seen already that payroll would refuse."""
    from kaohe.payroll.settling import refused_approval, refused_move, statements

    reason = refused_move(batch, to) if batch.entered(to) is None else ""
    if not reason and to == "approved":
        with ledger.reading() as connection:
            agents = [one.agent for one in statements(connection, batch.id)]
        reason = refused_approval(batch, agents, by)
    if reason:
        raise KaoheError(reason)


def _step(to: str, batch_id: str, by: str, at: str, wait: float, as_json: bool, **fields: Any) -> None:
    from kaohe.payroll.asking import find_batch, settlement_event
    from kaohe.payroll.ledger import Ledger

    settings, moment = load_settings(), moment_of(at)
    with Ledger(settings.database_url) as ledger:
        batch = find_batch(ledger, batch_id)
        _checked(batch, ledger, to, by)
    event = settlement_event(f"settlement.{to}", moment, batch=batch_id, by=by, **fields)
    _produce(settings, event)
    _tell(settings, event, wait, as_json, to)
    note_steps(settings, f"settlement.{to}", batch.row["period"], by, moment)


@payroll_app.command("approve")
def approve(batch: BatchId, by: By, wait: Wait = WAIT_S, at: At = "", as_json: Json = False) -> None:
    """Approve a draft. Whoever asked for it, and whoever is paid by it, cannot.

    Example: kaohe payroll approve b-0123456789abcdef01234567 --by finance-head
    """
    _step("approved", batch, by, at, wait, as_json)


@payroll_app.command("reject")
def reject(
    batch: BatchId,
    by: By,
    reason: Annotated[str, typer.Option(help="Why.")],
    wait: Wait = WAIT_S,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Reject a draft; it will never be paid, and the month can be settled again.

    Example: kaohe payroll reject b-0123456789abcdef01234567 --by finance-head --reason "a grade is missing"
    """
    _step("rejected", batch, by, at, wait, as_json, reason=reason)


@payroll_app.command("acknowledge")
def acknowledge(
    batch: BatchId,
    by: By,
    entries: Annotated[int, typer.Option(min=0, help="How many entries payroll took over.")],
    total_minor: Annotated[int, typer.Option("--total-minor", help="Their sum in minor units.")],
    reference: Annotated[str, typer.Option(help="The payroll run.")] = "",
    wait: Wait = WAIT_S,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Say that payroll has taken a batch over; what it counted itself must agree with the control totals.

    Example: kaohe payroll acknowledge b-0123456789abcdef01234567 --by payroll --entries 12 --total-minor 934000
    """
    _step(
        "acknowledged",
        batch,
        by,
        at,
        wait,
        as_json,
        entries=entries,
        total_minor=total_minor,
        reference=reference,
    )


@payroll_app.command("export")
def export_command(
    batch: BatchId,
    by: By,
    out: Annotated[Path, typer.Option(help="Folder for the files; it is made if need be.")],
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="csv, xlsx, json or html (payslips); default: all.")
    ] = None,
    wait: Wait = WAIT_S,
    at: At = "",
    as_json: Json = False,
) -> None:
    """Write an approved batch as CSV, XLSX and JSON with its control totals, and a payslip annex for each person.

    Example: kaohe payroll export b-0123456789abcdef01234567 --by payroll-clerk --out august
    """
    from kaohe.payroll.asking import find_batch, settlement_event
    from kaohe.payroll.export import FORMATS, write
    from kaohe.payroll.ledger import Ledger

    settings, moment = load_settings(), moment_of(at)
    with Ledger(settings.database_url) as ledger:
        found = find_batch(ledger, batch)
        if not found.booked:
            raise KaoheError(
                f"the batch {batch} is {found.state}; only a batch that is approved can be exported"
            )
        made = _exported(ledger, found, formats or FORMATS)
    write(made, out)
    say(f"{len(made.files)} files in {out}")
    fields = {"entries": found.row["entries"], "total_minor": found.row["total_minor"], "files": made.sums}
    event = settlement_event("settlement.exported", moment, batch=batch, by=by, **fields)
    _produce(settings, event)
    _tell(settings, event, wait, as_json, "exported")
    note_steps(settings, "settlement.exported", found.row["period"], by, moment)


def _exported(ledger: Ledger, batch: Batch, formats: Sequence[str]) -> Any:
    from kaohe.decisions import Decision, Grade
    from kaohe.payroll import chain
    from kaohe.payroll.export import export
    from kaohe.payroll.records import current_revision
    from kaohe.payroll.settling import batch_record, statements

    with ledger.reading() as connection:
        several = statements(connection, batch.id)
        head = chain.head(connection)
    sources: dict[str, Decision | Grade] = {}
    if "html" in formats:
        for source in sorted({line.source for one in several for line in one.lines if line.source}):
            if decisions := ledger.decisions(source):
                sources[source] = current_revision(decisions)
            elif grades := ledger.grades(source):
                sources[source] = current_revision(grades)
    approved = batch.entered("approved")
    assert approved is not None, "a booked batch was approved"
    return export(
        batch_record(batch, "approved"), several, sources, formats, head=head, approved_by=approved["by"]
    )


@payroll_app.command("list")
def list_command(
    period: Annotated[str, typer.Option(help="Only this month.")] = "", as_json: Json = False
) -> None:
    """List the settlement batches with their states and control totals.

    Example: kaohe payroll list --period 2026-08
    """
    from kaohe.payroll.ledger import Ledger
    from kaohe.payroll.settling import batches

    with Ledger(load_settings().database_url) as ledger, ledger.reading() as connection:
        found = batches(connection, period=period)
    if as_json:
        print_json([_batch_data(one) for one in found])
        return
    for one in found:
        typer.echo(_batch_line(one))
    if not found:
        say("there is no settlement yet; 'kaohe settle PERIOD' asks for one")


@payroll_app.command("show")
def show_command(
    batch: BatchId,
    agent: Annotated[str, typer.Option(help="Only this person.")] = "",
    lang: Annotated[str, typer.Option(help="Language of the explanations: en or zh.")] = "en",
    as_json: Json = False,
) -> None:
    """Show a batch: who gets what, line by line, with clause and explanation.

    Example: kaohe payroll show b-0123456789abcdef01234567 --agent a-17
    """
    from kaohe.payroll.asking import find_batch
    from kaohe.payroll.ledger import Ledger
    from kaohe.payroll.settling import statements

    if lang not in ("en", "zh"):
        raise UsageError(f"--lang is {lang!r}; it is en or zh.")
    with Ledger(load_settings().database_url) as ledger:
        found = find_batch(ledger, batch)
        with ledger.reading() as connection:
            several = statements(connection, batch, agent)
    if agent and not several:
        raise UsageError(f"the batch {batch} has no statement for {agent!r}")
    if as_json:
        print_json(_batch_data(found) | {"statements": several})
        return
    typer.echo(_batch_line(found))
    for one in several:
        _show_statement(one, lang)


def _show_statement(one: Settlement, lang: str) -> None:
    from kaohe.core.money import money_text
    from kaohe.decisions import CombinedResult

    def money(amount_minor: int) -> str:
        return money_text(amount_minor, one.currency)

    typer.echo(f"\n{one.agent}  {one.period}  {one.grade or '—'}  {money(one.total_minor)}  {one.id}")
    for line in one.lines:
        words = line.explanation.zh if lang == "zh" else line.explanation.en
        month = "" if line.effective_period == one.period else f" ({line.effective_period})"
        found = line.key or line.source
        typer.echo(
            f"  {line.component:<18}{money(line.amount_minor):>16}  {line.clause}{month}  {words}  {found}"
        )
    if one.guard.held_minor:
        typer.echo(f"  held back by the pay guard: {money(one.guard.held_minor)}")
    if isinstance(one.combined, CombinedResult):
        typer.echo(f"  combined score {one.combined.score}, {one.combined.grade}: {one.combined.formula}")
    for note in one.notes if isinstance(one.notes, list) else ():
        typer.echo(f"  {note.zh if lang == 'zh' else note.en}")
    for missing in one.missing:
        typer.echo(f"  {missing.zh if lang == 'zh' else missing.en}")


def _batch_data(batch: Batch) -> dict[str, Any]:
    row = {name: value for name, value in batch.row.items() if name not in ("terms", "read_up_to", "digest")}
    states = [
        {"state": one["state"], "by": one["by"], "at": one["at"], "reason": one["reason"]}
        for one in batch.states
    ]
    return row | {"state": batch.state, "states": states}


def _batch_line(batch: Batch) -> str:
    from kaohe.core.money import money_text

    row = batch.row
    total = money_text(row["total_minor"], row["currency"])
    kind = " correction" if row["kind"] == "correction" else ""
    return (
        f"{batch.id}  {row['period']}{kind}  {batch.state}  {row['statements']} people, {row['entries']} entries, "
        f"{total} ({row['total_minor']} minor units)"
    )


# --- ledger -----------------------------------------------------------------------------------------------------------


@ledger_app.command("show")
def ledger_show(
    agent: Annotated[str, typer.Option(help="Only this person.")] = "",
    period: Annotated[str, typer.Option(help="Only this period.")] = "",
    rule: Annotated[str, typer.Option(help="Only this rule.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many entries.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Show the entries that count, and the entries of pay that were booked.

    Example: kaohe ledger show --agent a-17 --period 2026-08
    """
    from kaohe.core.money import money_text
    from kaohe.payroll.ledger import Ledger

    with Ledger(load_settings().database_url) as ledger:
        entries = ledger.current_entries(
            subject=agent or None, period=period or None, rule=rule or None, limit=limit
        )
        pay = ledger.pay_entries(agent=agent, period=period, limit=limit) if not rule else []
    if as_json:
        print_json({"entries": entries, "pay": pay})
        return
    for one in entries:
        amount = f"  {money_text(one.amount_minor, one.currency)}" if one.amount_minor else ""
        typer.echo(
            f"{one.id}  {one.period:<8}  {one.subject}  {one.kind:<8}{one.points:>8}{amount}  {one.status}  "
            f"{one.clause}  {one.rule}"
        )
    for row in pay:
        amount = money_text(row["amount_minor"], row["currency"])
        typer.echo(
            f"{row['key']}  {row['effective_period']:<8}  {row['agent']}  {row['component']:<18}{amount:>16}  "
            f"{row['batch']}  {row['clause']}"
        )
    if not entries and not pay:
        say("the ledger has no such entry")


@ledger_app.command("verify")
def ledger_verify(
    head: Annotated[
        str, typer.Option(help="A head that was noted before, LINK:HASH; the chain must still contain it.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check the hash chain over every row; the first row that is not as it was written is named (exit code 1).

    Example: kaohe ledger verify
    """
    from kaohe.payroll import chain
    from kaohe.payroll.ledger import Ledger

    noted = _head(head)
    with Ledger(load_settings().database_url) as ledger, ledger.reading() as connection:
        found = chain.verify(connection, noted)
    if as_json:
        print_json(found)
    if found.broken is not None:
        one = found.broken
        text = f"the ledger is broken at link {one.link}: {one.table} {one.key}: {one.reason}"
        if as_json:
            raise typer.Exit(1)
        raise KaoheError(text)
    if not as_json:
        typer.echo(f"{found.links:,} rows are as they were written; head {found.head}")


def _head(text: str) -> Any:
    from kaohe.payroll.chain import Head

    if not text:
        return None
    link, _, digest = text.partition(":")
    if not link.isdigit() or len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise UsageError(f"--head is {text!r}; give it as 'kaohe ledger verify' printed it, LINK:HASH.")
    return Head(int(link), digest)


@ledger_app.command("reconcile")
def ledger_reconcile(
    offline: Annotated[
        bool, typer.Option("--offline", help="Look at the ledger alone; do not read the topics back.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare log, decisions, ledger, settlements and acknowledgements; the exit code is 1 when something differs.

    What is only on its way (not read, not approved, not acknowledged yet) is shown as open, and does not differ.

    Example: kaohe ledger reconcile
    """
    from kaohe.payroll.ledger import Ledger
    from kaohe.payroll.reconcile import check_database, check_log, holds
    from kaohe.stream.topics import client_config

    settings = load_settings()
    with Ledger(settings.database_url) as ledger:
        with ledger.reading() as connection:
            checks = check_database(connection)
        if not offline:
            with console.progress("Reading the topics back", "records") as advance:
                checks += check_log(client_config(settings), ledger, advance)
    if as_json:
        print_json({"holds": holds(checks), "checks": checks})
    else:
        _show_checks(checks)
    if not holds(checks):
        raise typer.Exit(1)


def _show_checks(checks: Sequence[Check]) -> None:
    for one in checks:
        typer.echo(f"{one.state:<8} {one.name:<13} {one.compared:>10,} compared, {one.count:,} {_what(one)}")
        for detail in one.details:
            typer.echo(f"           {detail}")


def _what(one: Check) -> str:
    return {"holds": "differ", "open": "on their way", "differs": "differ"}[one.state]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(settle)
    app.add_typer(payroll_app, name="payroll")
    app.add_typer(ledger_app, name="ledger")
