"""What the engine decided about a simulated company, taken through the ledger to the files that payroll gets.

The log's records reach the ledger as the payroll consumer would bring them, in the order in which they were made, up to
the twelfth of each month. Then the month before is settled, approved by a second person, exported and acknowledged. No
broker is needed: what the ledger would publish is noted as sent.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from kaohe.core.pay import terms_in_force
from kaohe.packs.load import load_packs
from kaohe.payroll import chain
from kaohe.payroll.export import export, write
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import DECISIONS_TOPIC, EVENTS_TOPIC, GRADES_TOPIC
from kaohe.payroll.settling import Batch, batch_record
from kaohe.payroll.settling import statements as statements_of
from tests.simulation.company_check import to_ms
from tests.simulation.company_pay import KPI, Line, Sheet, settled_ms
from tests.support.settling import Log, Reader, batches, outcomes

FINES_FROM = "2026-01-01"
POINT_MINOR = "30000"


def company_rules(shipped: Path, folder: Path) -> Path:
    """The company's own packs: fines are on from the second month, at a value that makes the guard work."""
    rules = folder / "rules"
    shutil.copytree(shipped, rules)
    path = rules / "full-attendance" / "parameters.yaml"
    yaml = YAML()
    yaml.width = 1000
    parameters = yaml.load(path.read_text(encoding="utf-8"))
    parameters["fines"]["values"][FINES_FROM] = "on"
    parameters["point_value"]["values"][FINES_FROM] = int(POINT_MINOR)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(parameters, file)
    return rules


class CompanyPayroll:
    """The months of a company, settled one after the other."""

    def __init__(self, log: Path, out: Path, rules: Path, packs: Sequence[str], folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.exports = folder / "exports"
        self._packs = load_packs(list(packs), rules)
        (self._pays,) = (one for one in self._packs if one.name == KPI)
        self._records = sorted(_records(log, out), key=lambda one: one[0])
        self._fed = 0
        self._log = Log()
        self.refused: list[str] = []
        upgrade(self.url)

    def settle(self, months: Iterable[str]) -> None:
        """Settle, approve, export and acknowledge each month on the twelfth of the next one."""
        with Ledger(self.url) as ledger:
            reader = Reader(self._log, ledger)
            for number, month in enumerate(months):
                self._feed(settled_ms(month))
                self._log.ask(period=month, in_force=terms_in_force(self._pays, month, self._packs))
                reader.read()
                (draft,) = batches(ledger, month)
                if number == 0:  # who asked for it, and who is paid by it, may not approve it
                    for by in ("payroll-clerk", "e-001"):
                        self._log.move("approved", draft.id, by)
                self._log.move("approved", draft.id)
                reader.read()
                self._export(ledger, reader, month)
            self.refused = [reason for outcome, reason in outcomes(ledger) if outcome == "refused"]
            self.states = Counter(batch.state for batch in batches(ledger))

    def _feed(self, before_ms: int) -> None:
        while self._fed < len(self._records) and self._records[self._fed][0] < before_ms:
            _, topic, key, raw = self._records[self._fed]
            self._log.put(topic, key, raw)
            self._fed += 1

    def _export(self, ledger: Ledger, reader: Reader, month: str) -> None:
        (batch,) = batches(ledger, month)
        with ledger.reading() as connection:
            several, head = statements_of(connection, batch.id), chain.head(connection)
        made = export(
            batch_record(batch, "approved"),
            several,
            {},
            ("csv", "json"),
            head=head,
            approved_by="finance-head",
        )
        write(made, self.exports)
        counted = self._counted(batch)
        self._log.move("exported", batch.id, "payroll-clerk", files=made.sums, **counted)
        self._log.move("acknowledged", batch.id, "payroll-system", reference=f"run-{month}", **counted)
        reader.read()
        for state, _ in ledger.unpublished():
            ledger.note_published([state])

    def _counted(self, batch: Batch) -> dict[str, int]:
        """What payroll counted in the file that it was given."""
        rows = self._rows(f"{batch.row['period']}-{batch.id}.csv")
        return {"entries": len(rows), "total_minor": sum(int(row["amount_minor"]) for row in rows)}

    def _rows(self, name: str) -> list[dict[str, str]]:
        text = (self.exports / name).read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))

    # --- what payroll got ---------------------------------------------------------------------------------------------

    def lines(self) -> Counter[Line]:
        """The entries of the CSV files, summed up by person, component and month."""
        sums: Counter[tuple[str, str, str, str]] = Counter()
        for path in sorted(self.exports.glob("*.csv")):
            for row in self._rows(path.name):
                key = (
                    row["period"],
                    row["employee"],
                    row["component"],
                    row["effective_period"] or row["period"],
                )
                sums[key] += int(row["amount_minor"])
        return Counter(Line(*key, amount) for key, amount in sums.items() if amount)

    def sheets(self) -> list[Sheet]:
        """The statements of the JSON files."""
        found = []
        for path in sorted(self.exports.glob("*-b-*.json")):
            if path.name.endswith(".control.json"):
                continue
            for one in json.loads(path.read_text(encoding="utf-8"))["statements"]:
                figures = (one[name] for name in ("gross_minor", "base_minor", "fixed_minor", "pay_minor"))
                found.append(Sheet(one["period"], one["agent"], *figures))
        return found


def _records(log: Path, out: Path) -> Iterable[tuple[int, str, str, bytes]]:
    """Everything that payroll reads: when it was made, the topic, the key, the record."""
    with log.open("rb") as lines:
        for line in lines:
            if b'"type":"roster.changed"' in line or b'"type":"pay.stated"' in line:
                event: dict[str, Any] = json.loads(line)
                yield to_ms(event["time"]), EVENTS_TOPIC, event["subject"], line.rstrip(b"\n")
    for name, topic in (("decisions", DECISIONS_TOPIC), ("grades", GRADES_TOPIC)):
        with (out / f"{name}.jsonl").open("rb") as lines:
            for line in lines:
                row = json.loads(line)
                yield to_ms(row["at"]), topic, row["subject"], line.rstrip(b"\n")
