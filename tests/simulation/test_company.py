"""The simulated company under all five policies at once, from its first event to the files that payroll gets.

``company_check``, ``company_rota``, ``company_risks``, ``company_cards`` and ``company_pay`` work the policies out a
second time by SQL and plain arithmetic, and know nothing of the engine; ``company_payroll`` takes what ``kaohe replay``
wrote through the ledger. In the ordinary run the company is small; ``make company`` runs the whole one: 300 people, 14
months.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from kaohe.adapters.simulator_company import (
    AFTER_DAYS,
    DEPARTMENTS,
    FIRST_MONTH,
    NO_DELAYS,
    SITES,
    month_after,
    simulate_company,
)
from kaohe.core.engine import Zones
from kaohe.core.replay import Replay
from kaohe.errors import UsageError
from kaohe.events import DepartmentChanged, RosterChanged, encode
from kaohe.packs.load import load_packs, rules_dir
from tests.simulation.company_cards import CompanyKpi, Proposed, Reception, combined
from tests.simulation.company_check import CHARGES, SITE_ZONES, Appraisal, Company, Entry, Score, to_ms
from tests.simulation.company_pay import PaySheets
from tests.simulation.company_payroll import CompanyPayroll, company_rules
from tests.simulation.company_risks import Alert, Risks
from tests.simulation.company_rota import Rota, works

ROOT = Path(__file__).parents[2]
PACKS = ("front-desk", "full-attendance", "logistics-service", "reception", "company-kpi")
SEED = 28
SMALL = (19, 3)
"""People and months of the ordinary run."""
RULES = {charge.rule for charge in CHARGES} | {
    "ls-cooperation",
    "ls-growth",
    "fd-flow-breach",
    "fd-complaint-reduction",
    "fa-attendance-low",
    "fa-attendance-high",
    "fa-03",
    "fa-absent",
    "fa-full-month",
    "fa-bad-attitude",
    "fa-mishandled-complaint",
    "fa-year-bonus",
    "rd-attitude",
    "ck-record-incomplete",
}
"""All rules of these packs that give or take points."""
RARE = {"fa-year-bonus", "fd-waiting-month", "rd-attitude"}
"""Those that may charge nobody in a small company."""
RISKS = {
    "fd-risk-satisfaction", "fd-risk-complaint-handling", "fd-risk-training", "fd-risk-bottleneck",
    "fd-risk-resources",
}  # fmt: skip
FRAME = (RosterChanged, DepartmentChanged)
REPEATED = ("ck-observation", "ck-probation", "ck-contract-end", "ck-repeated-c")


class Run(NamedTuple):
    """A company's log, what ``kaohe replay`` made of it, and the independent appraisal."""

    log: Path
    out: Path
    appraisal: Appraisal
    kpi: CompanyKpi
    reception: Reception
    risks: Risks
    kpi_rota: Rota

    @property
    def scores(self) -> list[Score]:
        """Every final score of the independent appraisal, the combined ones aside."""
        return self.appraisal.scores + self.kpi.scores + self.reception.scores

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        with (self.out / f"{name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def newest(self) -> list[dict[str, Any]]:
        """The newest revision of every decision."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows("decisions"):
            old = found.get(row["id"])
            if old is None or old["revision"] < row["revision"]:
                found[row["id"]] = row
        return list(found.values())


class Paid(NamedTuple):
    """The months of the company as payroll got them, and the independent calculation of them."""

    payroll: CompanyPayroll
    check: PaySheets
    config: Path


def size() -> tuple[int, int]:
    """People and months: small, unless ``KAOHE_COMPANY`` says ``PEOPLExMONTHS``."""
    people, _, months = os.environ.get("KAOHE_COMPANY", "").partition("x")
    return (int(people), int(months)) if people else SMALL


def command(*arguments: str, config: Path, **settings: str) -> str:
    """Run ``kaohe``; what it wrote. What it said is shown when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "kaohe", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KAOHE_CONFIG": str(config), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    people, months = size()
    folder = tmp_path_factory.mktemp("company")
    config, log, out = folder / "kaohe.toml", folder / "company.jsonl", folder / "out"
    config.write_text(
        "[sites]\n" + "".join(f'{site} = "{zone}"\n' for site, zone in SITES.items()), encoding="utf-8"
    )
    begun = time.monotonic()
    command("simulate", "--seed", str(SEED), "--agents", str(people), "--months", str(months),
            "--out", str(log), config=config)  # fmt: skip
    simulated = time.monotonic()
    until = month_after(FIRST_MONTH, months) + timedelta(days=AFTER_DAYS)
    named = [word for pack in PACKS for word in ("--pack", pack)]
    command("replay", str(log), "--adapter", "events", *named, "--no-metrics", "--out", str(out),
            "--until", str(until), config=config)  # fmt: skip
    replayed = time.monotonic()
    with log.open("rb") as lines:
        company = Company(lines, ROOT / "rules", PACKS)
    appraisal = Appraisal(company, to_ms(f"{until}T00:00:00+08:00"))
    found = appraised(log, out, appraisal)
    print(f"{people} people, {months} months: simulated in {simulated - begun:.1f} s, replayed in "
          f"{replayed - simulated:.1f} s, checked in {time.monotonic() - replayed:.1f} s; "
          f"{len(appraisal.entries)} entries, {len(found.scores)} scores")  # fmt: skip
    return found


@pytest.fixture(scope="module")
def paid(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Paid:
    """Every month settled, approved, exported and acknowledged, under rules of the company's own."""
    folder = tmp_path_factory.mktemp("payroll")
    rules = company_rules(ROOT / "rules", folder)
    begun = time.monotonic()
    check = PaySheets(run.appraisal, rules, run.scores, summed(run.appraisal.entries), run.appraisal.until_ms)
    worked_out = time.monotonic()
    payroll = CompanyPayroll(run.log, run.out, rules, PACKS, folder)
    payroll.settle(sorted({sheet.month for sheet in check.sheets}))
    total = sum(line.amount_minor for line in check.lines)
    print(f"{len(check.sheets)} statements, {len(check.lines)} sums of entries, {total} minor units: worked out in "
          f"{worked_out - begun:.1f} s, settled in {time.monotonic() - worked_out:.1f} s")  # fmt: skip
    return Paid(payroll, check, run.log.with_name("kaohe.toml"))


def appraised(log: Path, out: Path, appraisal: Appraisal) -> Run:
    """The run with all that is worked out beside the entries."""
    company, until_ms = appraisal.company, appraisal.until_ms
    rota, risks = Rota(company, "company-kpi", until_ms), Risks(company, until_ms)
    return Run(log, out, appraisal, CompanyKpi(appraisal), Reception(appraisal), risks, rota)


def summed(entries: Iterable[Entry]) -> Counter[Entry]:
    """One entry for each cause and period, with the points of all its entries; those without points left out."""
    worth: dict[Entry, Fraction] = defaultdict(Fraction)
    for entry in entries:
        worth[entry._replace(points=Fraction(0))] += entry.points
    return Counter(cause._replace(points=points) for cause, points in worth.items() if points)


def offset(at_ms: int) -> timedelta | None:
    """What the clock of Berlin is ahead at a moment."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(SITES["berlin"])).utcoffset()


def netted(rows: Iterable[dict[str, Any]]) -> Counter[Entry]:
    """The final entries of the ledger, each together with what takes it back."""
    known = {row["id"]: row for row in rows}
    entries = []
    for row in known.values():
        if row["status"] != "final":
            continue
        cause = known[row["reverses"]] if row["reverses"] else row
        rule, incident = cause["rule"], cause["incident"]
        if rule in (
            "fa-late",
            "fa-early-leave",
        ):  # they are numbered together: what counts is how many there were
            rule, incident = "fa-03", ""
        entries.append(
            Entry(
                rule, row["subject"], row["period"], incident, row["adjusts_period"], Fraction(row["points"])
            )
        )
    return summed(entries)


def differences(engine: Counter[Any], check: Counter[Any]) -> str:
    """The first lines that differ, for people."""
    lines = [f"only kaohe has   {one}" for one in sorted((engine - check).elements())[:10]]
    lines += [f"only the check has {one}" for one in sorted((check - engine).elements())[:10]]
    return "\n".join(lines)


# --- the simulator ----------------------------------------------------------------------------------------------------


def test_the_company_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = ([encode(one) for one in simulate_company(seed, 10, 1)] for seed in (3, 3, 4))
    assert first == again
    assert set(first).isdisjoint(other)


def test_without_delays_every_event_comes_in_its_order_and_once() -> None:
    events = list(simulate_company(SEED, 25, 2, delays=NO_DELAYS))
    assert [one.time for one in events] == sorted(one.time for one in events)
    assert len({one.id for one in events}) == len(events)
    assert {one.data.team for one in events if one.data.team} == {one.name for one in DEPARTMENTS}


@pytest.mark.parametrize(
    ("people", "months", "start"), [(4, 1, FIRST_MONTH), (9, 0, FIRST_MONTH), (9, 1, date(2026, 1, 2))]
)
def test_a_company_that_cannot_be_is_refused(people: int, months: int, start: date) -> None:
    with pytest.raises(UsageError):
        simulate_company(SEED, people, months, start)


# --- against the independent calculation ------------------------------------------------------------------------------


def test_the_company_has_all_that_the_check_is_about(run: Run) -> None:
    """What never happens would be compared without effect."""
    assert run.appraisal.company.packs == PACKS
    assert SITE_ZONES == SITES
    charged = {entry.rule for entry in run.appraisal.entries}
    assert charged <= RULES
    assert RULES - charged <= (RARE if size() == SMALL else set())
    assert any(entry.adjusts for entry in run.appraisal.entries), "nothing came after its month was closed"
    assert run.appraisal.upheld, "no appeal was upheld"
    assert run.kpi.missed_quota, "nobody missed an A by the quota"
    assert len(run.kpi.shifted) > 1, "no assessor was calibrated"
    grades = {score.grade for score in run.kpi.scores if len(score.period) == 7}
    assert grades == {"A", "B", "C", "D"}
    lines = run.appraisal.company.roster.values()
    moves = [pair for own in lines for pair in pairwise(own)]
    assert any(before.site != after.site for before, after in moves), "nobody changed the site"
    assert any(before.team != after.team for before, after in moves), "nobody changed the department"
    summary = json.loads((run.out / "summary.json").read_text(encoding="utf-8"))
    refused = Counter(period_closed=run.kpi.late_voices, appeal_state=run.appraisal.unheard)
    assert Counter(summary["rejects"]["by_code"]) == +refused
    assert summary["events"]["duplicates"] > 0
    assert summary["events"]["late"] > 0


def test_the_company_s_rota_has_all_that_the_check_is_about(run: Run) -> None:
    attendance = run.appraisal.attendance
    rota = attendance.rota
    assert rota.swapped, "nobody swapped a shift"
    assert rota.short, "no shift was changed at short notice"
    assert any(len(shifts) > 1 for own in rota.days.values() for shifts in own.values()), "no day was split"
    worked = Counter(
        (works(day.day), day.day.weekday() < 5, "@" in rota.days[agent][day.day][0].id)
        for agent, own in attendance.days.items() for day in own if day.attended
    )  # fmt: skip
    assert worked[False, True, False], "no rota went over a public holiday"
    assert worked[True, False, True], "no office worked on a weekend for a holiday"
    assert not worked[False, True, True], "an office worked on a public holiday"
    nights = [shift for own in rota.days.values() for shifts in own.values() for shift in shifts
              if run.appraisal.company.line_at(shift.agent, shift.begin_ms).site == "berlin"]  # fmt: skip
    changed = [shift for shift in nights if len({offset(at_ms) for at_ms in shift[3:]}) > 1]
    assert changed or size() == SMALL, "no shift ran across a change of the clock"


def test_every_entry_is_the_one_that_the_independent_calculation_gives(run: Run) -> None:
    engine, check = netted(run.newest()), summed(run.appraisal.entries)
    assert engine == check, differences(engine, check)


def test_every_score_and_grade_is_the_one_that_the_independent_calculation_gives(run: Run) -> None:
    engine = Counter(
        Score(row["pack"], row["subject"], row["period"], Fraction(row["score"]), row["grade"])
        for row in run.rows("grades") if row["status"] == "final"
    )  # fmt: skip
    until_ms, company = run.appraisal.until_ms, run.appraisal.company
    check = Counter([*run.scores, *combined(company, run.scores, run.appraisal, run.reception, until_ms)])
    assert engine == check, differences(engine, check)


def test_alerts_of_complaints_that_were_not_answered_or_closed_in_time(run: Run) -> None:
    engine = Counter(
        (row["rule"], row["subject"], row["incident"])
        for row in run.rows("alerts")
        if row["state"] == "firing" and row["clause"] == "FD-06"
    )
    check = Counter(run.appraisal.complaint_alerts())
    assert check
    assert engine == check, differences(engine, check)


def test_alerts_of_inspections_that_failed_or_are_missing(run: Run) -> None:
    engine = Counter(
        (row["rule"], row["subject"], row["incident"])
        for row in run.rows("alerts")
        if row["state"] == "firing" and row["clause"] == "FD-07"
    )
    check = Counter(run.appraisal.inspection_alerts())
    assert check
    assert engine == check, differences(engine, check)


def test_alerts_of_risks_begin_and_end_at_their_moments(run: Run) -> None:
    engine = Counter(
        Alert(row["rule"], row["level"], row["subject"], row["state"], to_ms(row["at"]))
        for row in run.rows("alerts")
        if row["clause"] == "FD-14"
    )
    check = run.risks.alerts
    assert {alert.rule for alert in check} == RISKS
    assert engine == check, differences(engine, check)


def test_alerts_of_people_who_have_not_come_or_are_not_logged_in(run: Run) -> None:
    engine: dict[str, Counter[tuple[str, str, int]]] = {"fa-not-in": Counter(), "ck-not-logged-in": Counter()}
    states: dict[str, list[str]] = defaultdict(list)
    for row in run.rows("alerts"):
        if row["rule"] in engine:
            states[row["id"]].append(row["state"])
            if row["state"] == "firing":
                engine[row["rule"]][row["subject"], row["incident"], to_ms(row["at"])] += 1
    assert set(map(tuple, states.values())) == {("firing", "resolved")}, (
        "every one ends, with the shift at last"
    )
    check = {
        "fa-not-in": Counter(run.appraisal.attendance.rota.not_in()),
        "ck-not-logged-in": Counter(run.kpi_rota.not_logged_in()),
    }
    for rule, found in check.items():
        assert found
        assert engine[rule] == found, f"{rule}\n{differences(engine[rule], found)}"


def test_goals_are_in_force_when_both_have_signed_and_alert_when_not(run: Run) -> None:
    words = {"firing": "unsigned", "resolved": "signed after all"}
    engine = Counter(
        ("in force", row["subject"], row["incident"])
        for row in run.newest()
        if row["rule"] == "ls-goal-in-force"
    )
    engine += Counter(
        (words[row["state"]], row["subject"], row["incident"])
        for row in run.rows("alerts") if row["rule"] == "ls-goal-unsigned"
    )  # fmt: skip
    check = Counter(run.appraisal.goals())
    assert {what for what, _, _ in check} == {"in force", "unsigned", "signed after all"}
    assert engine == check, differences(engine, check)


def test_alerts_of_interviews_that_were_not_held_in_time(run: Run) -> None:
    engine = Counter(
        (row["subject"], row["incident"])
        for row in run.rows("alerts")
        if row["state"] == "firing" and row["rule"] == "ls-interview-missing"
    )
    check = Counter(run.appraisal.missed_interviews())
    assert check
    assert engine == check, differences(engine, check)


def test_alerts_of_steps_of_the_appraisal_that_were_not_done_in_time(run: Run) -> None:
    engine = Counter(
        (row["rule"].removeprefix("step-"), row["subject"], row["incident"], row["severity"] == "high")
        for row in run.rows("alerts")
        if row["state"] == "firing" and row["clause"] == "CK-10"
    )
    check = Counter(run.kpi.missed_steps())
    assert check
    assert engine == check, differences(engine, check)


def test_what_repeated_grades_lead_to(run: Run) -> None:
    engine = Counter(
        Proposed(row["rule"], row["subject"], row["period"])
        for row in run.newest() if row["rule"] in REPEATED
    )  # fmt: skip
    check = Counter(run.kpi.proposed)
    assert check
    assert engine == check, differences(engine, check)


# --- pay --------------------------------------------------------------------------------------------------------------


def test_every_entry_of_the_files_is_the_one_that_the_independent_calculation_gives(paid: Paid) -> None:
    assert paid.check.held, "the pay guard never held anything back"
    assert paid.check.restated, "no settled month was paid anew"
    assert {line.component for line in paid.check.lines} - {"YEARBONUS"} == {
        "PERF", "BONUS", "GRADEBONUS", "PERFBONUS", "PENALTY", "GUARD",
    }  # fmt: skip
    engine = paid.payroll.lines()
    assert engine == paid.check.lines, differences(engine, paid.check.lines)


def test_every_statement_of_the_files_is_the_one_that_the_independent_calculation_gives(paid: Paid) -> None:
    engine, check = Counter(paid.payroll.sheets()), Counter(paid.check.sheets)
    assert engine == check, differences(engine, check)
    for sheet in check:
        assert sheet.pay_minor >= min(269_000, sheet.gross_minor)


def test_every_month_is_acknowledged_and_was_approved_by_a_second_person_who_is_not_paid_by_it(
    paid: Paid,
) -> None:
    assert paid.payroll.states == {"acknowledged": len({sheet.month for sheet in paid.check.sheets})}
    asked, own = paid.payroll.refused
    assert "somebody else has to approve it" in asked
    assert "e-001 is paid by the batch" in own


def test_the_ledger_is_whole_and_agrees_with_itself(paid: Paid) -> None:
    settings = {"config": paid.config, "KAOHE_DATABASE_URL": paid.payroll.url}
    verified = json.loads(command("ledger", "verify", "--json", **settings))  # type: ignore[arg-type]
    assert verified["broken"] is None
    assert verified["links"] > len(paid.check.lines)
    reconciled = json.loads(command("ledger", "reconcile", "--offline", "--json", **settings))  # type: ignore[arg-type]
    assert reconciled["holds"]
    assert {one["state"] for one in reconciled["checks"]} == {"holds"}


# --- what must hold of every run --------------------------------------------------------------------------------------


def test_no_entry_of_a_closed_month_is_left_provisional(run: Run) -> None:
    company = run.appraisal.company
    open_still = [
        (row["rule"], row["subject"], row["period"])
        for row in run.newest()
        if row["status"] != "final"
        and Fraction(row["points"])
        and row["period"] in company.closed_months(row["subject"], row["pack"], run.appraisal.until_ms)
    ]
    assert open_still == []


def test_the_sum_of_a_person_s_entries_is_the_score_shown(run: Run) -> None:
    worth: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for row in run.newest():
        worth[row["pack"], row["subject"], row["period"]] += Fraction(row["points"])
    bounds = {"front-desk": (0, 100), "full-attendance": (0, 120), "logistics-service": (0, 120)}
    final = [row for row in run.rows("grades") if row["status"] == "final"]
    grades = [row for row in final if row["window"] == "month"]
    assert {row["pack"] for row in grades} > bounds.keys()
    for row in grades:
        if row["pack"] not in bounds:
            continue
        lowest, highest = bounds[row["pack"]]
        score = min(max(100 + worth[row["pack"], row["subject"], row["period"]], lowest), highest)
        assert Fraction(row["score"]) == score, row


def test_what_is_taken_back_and_its_reversal_come_to_nothing(run: Run) -> None:
    known = {row["id"]: row for row in run.newest()}
    reversals = [row for row in known.values() if row["reverses"]]
    assert reversals, "nothing was excused"
    assert len({row["reverses"] for row in reversals}) == len(reversals)
    for row in reversals:
        taken_back = known[row["reverses"]]
        assert Fraction(taken_back["points"]) + Fraction(row["points"]) == 0
        assert (row["subject"], row["incident"]) == (taken_back["subject"], taken_back["incident"])


def test_nobody_is_charged_twice_for_one_clause_and_incident(run: Run) -> None:
    """Coming late and leaving early are two incidents of a shift; what was numbered anew was taken back before."""
    newest = run.newest()
    taken_back = {row["reverses"] for row in newest}
    charges = Counter(
        (row["clause"], row["subject"], row["incident"] or row["adjusts_period"] or row["period"],
         row["rule"] if row["clause"] == "FA-03" else "",
         row["period"] if row["adjusts_period"] and not row["incident"] else "")
        for row in newest if row["kind"] in ("deduct", "award", "adjust") and Fraction(row["points"])
        and row["rule"] not in ("fd-complaint-handling-slow", "fd-complaint-rating-low")
        and row["id"] not in taken_back
    )  # fmt: skip
    assert charges
    assert [key for key, count in charges.items() if count > 1] == []


def test_the_order_of_independent_events_does_not_matter() -> None:
    """What several people did in the same quarter of an hour may arrive in any order."""
    last = datetime(2025, 12, 8, tzinfo=UTC)
    events = [one for one in simulate_company(SEED, 19, 1, delays=NO_DELAYS) if one.time < last]
    packs = load_packs(list(PACKS), rules_dir())
    zones = Zones(default=packs[0].zone, sites=dict(SITES))

    def results(rng: random.Random | None) -> tuple[list[Any], list[Any]]:
        replay = Replay(packs, zones=zones)
        quarter: list[Any] = []
        ends_s = 0
        for event in [*events, None]:
            at_s = int(event.time.timestamp()) if event is not None else 1 << 60
            if at_s >= ends_s:
                if rng is not None:
                    # The frame comes first in either run: nobody works before being enrolled.
                    quarter.sort(key=lambda one: (not isinstance(one.data, FRAME), rng.random()))
                if quarter:
                    replay.advance(ends_s * 1000)
                for one in quarter:
                    replay.feed(one)
                quarter = []
                ends_s = at_s // 900 * 900 + 900
            if event is not None:
                quarter.append(event)
        replay.tick(datetime(2026, 1, 10, tzinfo=UTC))
        replay.finish()
        assert not replay.rejects
        decisions = sorted(
            (one.rule, one.subject, one.period, one.incident, one.points, one.status)
            for one in replay.newest_decisions().values()
        )
        grades = sorted(
            (one.pack, one.subject, one.period, one.score, one.grade)
            for one in replay.grade_list()
            if one.status == "final"
        )
        return decisions, grades

    straight, shuffled = results(None), results(random.Random(11))
    assert len(straight[0]) > 20
    assert straight == shuffled
