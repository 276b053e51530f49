"""A worker process with engines that only count, so that the stream layer is tested alone.

Run as ``python -m tests.support.fake_worker``, configured by ``KAOHE_*``. The event engine counts the events of each
subject and says so in one decision an event; the group engine counts what each partition has reported. Both are pure:
whatever is lost or doubled on the way shows up in their numbers.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping

from kaohe.core.records import Output, Record
from kaohe.errors import KaoheError
from kaohe.settings import load_settings
from kaohe.stream.app import run_worker

FORGET = b"forget"


class CountingEngine:
    """Counts events by subject. The value ``forget`` deletes a subject's count."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.counts: dict[str, int] = {}
        self._changed: set[str] = set()

    def apply(self, records: list[Record]) -> list[Output]:
        outputs: list[Output] = []
        for record in records:
            key = record.key or b"?"
            subject = key.decode()
            self._changed.add(subject)
            if record.value == FORGET:
                self.counts.pop(subject, None)
                continue
            count = self.counts[subject] = self.counts.get(subject, 0) + 1
            decision = {"id": f"{self.partition}-{record.offset}", "subject": subject, "count": count}
            outputs.append(Output("decisions", key, json.dumps(decision).encode()))
            if count % 10 == 0:
                report = {"source": self.partition, "total": sum(self.counts.values())}
                outputs.append(Output("partials", b"total", json.dumps(report).encode(), 0))
        return outputs

    def checkpoint(self) -> dict[str, bytes | None]:
        changed, self._changed = self._changed, set()
        return {
            subject: str(self.counts[subject]).encode() if subject in self.counts else None
            for subject in sorted(changed)
        }

    def restore(self, items: Mapping[str, bytes]) -> None:
        assert not self.counts, "restored twice"
        self.counts = {subject: int(value) for subject, value in items.items()}


class LatestEngine:
    """Keeps the newest total each source partition has reported, and passes their sum on as a grade."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.totals: dict[str, int] = {}
        self._changed: set[str] = set()

    def apply(self, records: list[Record]) -> list[Output]:
        for record in records:
            report = json.loads(record.value)
            source = str(report["source"])
            self.totals[source] = max(self.totals.get(source, 0), report["total"])
            self._changed.add(source)
        total = sum(self.totals.values())
        return [Output("grades", b"all", str(total).encode())]

    def checkpoint(self) -> dict[str, bytes | None]:
        changed, self._changed = self._changed, set()
        return {source: str(self.totals[source]).encode() for source in sorted(changed)}

    def restore(self, items: Mapping[str, bytes]) -> None:
        assert not self.totals, "restored twice"
        self.totals = {source: int(value) for source, value in items.items()}


def main() -> int:
    logging.basicConfig(
        level=os.environ.get("KAOHE_TEST_LOG", "WARNING"),
        format="%(asctime)s %(process)d %(name)s %(message)s",
    )
    try:
        return run_worker(load_settings(), CountingEngine, LatestEngine)
    except KaoheError as exc:
        print(exc, file=sys.stderr)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
