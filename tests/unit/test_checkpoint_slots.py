"""Checkpoints as slots and a marker: cut off, compacted or written late, the state is that of one offset."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.errors import BrokerError
from kaohe.stream.app import CHECKPOINT_INTERVALS_MAX, checkpoint_waits
from kaohe.stream.checkpoints import ChangelogRecord, Slots

KEYS = ["a", "b", "c", "窗口"]

Log = list[ChangelogRecord]
State = dict[str, bytes]


class Owner:
    """Takes over a log and checkpoints into it, one record at a time, as a worker does."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.slots = replayed(log)
        self.claim = self.slots.next_claim(0)

    def begin(self, records: int | None = None) -> None:
        """Claim and bury, or only the first ``records`` records of that."""
        self.slots.replay(*self.claim)
        self.log += [self.claim, *self.slots.bury()][:records]

    def checkpoint(self, changes: dict[str, bytes | None], seq: int, records: int | None = None) -> bool:
        """Write a checkpoint, or only its first ``records`` records; whether it was written to its end."""
        plan = self.slots.plan(changes, seq)
        written = [*plan.states, plan.marker]
        if records is not None and records < len(written):
            self.log += written[:records]
            return False
        self.log += written
        self.log += self.slots.commit(plan)
        return True


def replayed(log: Log) -> Slots:
    slots = Slots()
    for key, value in log:
        slots.replay(key, value)
    return slots


def compacted(log: Log, chooser: random.Random) -> Log:
    """What compaction may leave: up to some point only each key's newest record, and perhaps no tombstones there."""
    point = chooser.randint(0, len(log))
    newest = {key: number for number, (key, _) in enumerate(log[:point])}
    keeps_tombstones = chooser.random() < 0.5
    kept = [
        (key, value)
        for number, (key, value) in enumerate(log[:point])
        if newest[key] == number and (value is not None or keeps_tombstones)
    ]
    return kept + log[point:]


def apply(state: State, changes: dict[str, bytes | None]) -> State:
    after = {**state, **{key: value for key, value in changes.items() if value is not None}}
    return {key: value for key, value in after.items() if changes.get(key, b"") is not None}


changes_strategy = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(st.none(), st.binary(max_size=2)), max_size=3
)
step_strategy = st.tuples(changes_strategy, st.integers(0, 2), st.one_of(st.none(), st.integers(0, 4)))


@settings(max_examples=300, deadline=None)
@given(st.lists(step_strategy, max_size=10), st.integers(0, 1000))
def test_a_crash_between_any_two_records_leaves_the_state_of_one_commit(
    steps: list[tuple[dict[str, bytes | None], int, int | None]], seed: int
) -> None:
    """A successor need not even make the same of the log as its predecessor: what was cut off leaves no trace."""
    chooser = random.Random(seed)
    log: Log = []
    state: State = {}
    committed = 0
    owner = Owner(log)
    owner.begin()
    for changes, advance, cut in steps:
        seq = committed + advance
        if owner.checkpoint(changes if advance else {}, seq, cut):
            committed = seq
            state = apply(state, changes) if advance else state
        else:
            log[:] = compacted(log, chooser)
            while chooser.random() < 0.4:
                Owner(log).begin(chooser.randint(0, 3))
            owner = Owner(log)
            owner.begin()
        assert owner.slots.committed == committed
        assert owner.slots.items() == state
    assert replayed(compacted(log, chooser)).items() == state


def test_the_order_of_the_records_of_one_checkpoint_is_state_then_marker_then_tombstones() -> None:
    log: Log = []
    owner = Owner(log)
    owner.begin()
    owner.checkpoint({"a": b"1", "b": b"2"}, 10)
    owner.checkpoint({"a": b"3"}, 20)
    owner.checkpoint({"a": None}, 30)
    keys = [(key, value is None) for key, value in log[1:]]
    assert keys == [
        (b"A:a", False),
        (b"A:b", False),
        (b"commit", False),
        (b"B:a", False),
        (b"commit", False),
        (b"A:a", False),
        (b"commit", False),
        (b"B:a", True),
        (b"A:a", True),
    ]
    assert replayed(log).items() == {"b": b"2"}


def test_a_deletion_whose_tombstones_were_never_written_is_buried_by_the_next_owner() -> None:
    log: Log = []
    owner = Owner(log)
    owner.begin()
    owner.checkpoint({"a": b"1"}, 10)
    plan = owner.slots.plan({"a": None}, 20)
    log += [*plan.states, plan.marker]
    successor = Owner(log)
    assert successor.slots.items() == {}
    successor.begin()
    assert log[-2:] == [(b"A:a", None), (b"B:a", None)]
    assert replayed(log)._slots == {}


def test_what_a_former_owner_writes_after_a_claim_is_ignored_and_counted() -> None:
    log: Log = []
    former = Owner(log)
    former.begin()
    former.checkpoint({"a": b"old"}, 10)
    late = former.slots.plan({"a": b"late"}, 50)
    owner = Owner(log)
    owner.begin()
    owner.checkpoint({"a": b"new"}, 20)
    log += [*late.states, late.marker]
    slots = replayed(log)
    assert slots.items() == {"a": b"new"}
    assert slots.committed == 20
    assert slots.strays == 2


def test_a_claim_made_without_having_read_the_last_commit_does_not_go_back() -> None:
    log: Log = []
    first = Owner(log)
    first.begin()
    first.checkpoint({"a": b"1"}, 10)
    hasty = Owner(log)
    first.checkpoint({"a": b"2"}, 20)
    first.checkpoint({"a": b"3"}, 30)
    hasty.begin()
    slots = replayed(log)
    assert slots.committed == 30
    assert slots.items() == {"a": b"3"}


def test_a_key_deleted_before_it_was_ever_committed_writes_nothing() -> None:
    owner = Owner([])
    owner.begin()
    assert owner.slots.plan({"a": None}, 5).states == []


def test_a_foreign_key_in_the_changelog_is_an_error() -> None:
    with pytest.raises(BrokerError, match="none of Kaohe's"):
        Slots().replay(b"something", b"x")


@pytest.mark.parametrize(
    ("taking_s", "busy", "intervals"),
    [
        (0.0, True, 1),  # the first one
        (0.01, True, 1),  # as in live operation: at every interval
        (0.04, True, 4),
        (60.0, True, CHECKPOINT_INTERVALS_MAX),
        (60.0, False, 1),  # all is caught up with: what was applied is made safe at once
    ],
)
def test_a_checkpoint_waits_as_long_as_taking_the_state_out_costs_too_much(
    taking_s: float, busy: bool, intervals: int
) -> None:
    waited_s = 0.0
    while checkpoint_waits(waited_s, 0.5, taking_s, busy=busy):
        waited_s += 0.125
    assert waited_s == intervals * 0.5
