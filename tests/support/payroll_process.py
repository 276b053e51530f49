"""``run_payroll`` as a process of its own, for tests that kill it: arguments are broker, database URL and group."""

from __future__ import annotations

import sys

from kaohe.payroll.consumer import Progress, run_payroll, stop_on_signals

if __name__ == "__main__":
    broker, database_url, group_id = sys.argv[1:]

    def report(progress: Progress) -> None:
        print(progress.records, flush=True)

    with stop_on_signals() as stop:
        done = run_payroll(
            broker, {}, database_url, stop=stop, on_progress=report, group_id=group_id, batch_records=20
        )
    print("stopped after", done.records, flush=True)
