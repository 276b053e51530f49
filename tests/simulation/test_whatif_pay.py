"""What a backtest says is paid is what the ledger would settle: two ways of putting a month together, one result."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from kaohe.adapters.base import SourceItem
from kaohe.cli.backtesting import _noting
from kaohe.core.model import Pack
from kaohe.core.pay import PayFact, terms_in_force
from kaohe.core.replay import Replay
from kaohe.events import PayStated, ReadUpTo, RosterChanged, encode, make
from kaohe.packs.load import load_pack
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import (
    DECISIONS_TOPIC,
    EVENTS_TOPIC,
    GRADES_TOPIC,
    Delivery,
    PayDelivery,
    read_record,
)
from kaohe.payroll.settling import Booked, Books, work_out
from kaohe.whatif import SubjectKey, pay_of
from tests.packs.patching import patched
from tests.simulation.test_shadow import life
from tests.support.core_runs import Timed, seed, tell
from tests.support.packs import make_pack, moment
from tests.unit import test_judge as judging

AGENTS = ("a-1", "a-2", "a-3")


@pytest.fixture(scope="module", params=["off", "on"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Every kind of rule, with terms of pay under which points are money."""
    folder = tmp_path_factory.mktemp("packs")
    small = make_pack(
        folder, parameters=judging.PARAMETERS + judging.RESPONSE_LIMIT, metrics=judging.METRICS,
        deadlines=judging.RESPONSE, scorecard=judging.SCORECARD, rules=judging.RULES,
    )  # fmt: skip
    paying = load_pack(patched("with pay\n", folder))
    assert paying.pay is not None
    own = {
        name: paying.parameters[name]
        for name in paying.parameters
        if paying.parameters[name].clause == "MI-04"
    }
    shares = {"A": Fraction(1), "*": Fraction(7, 10)}
    own["parts"] = msgspec.structs.replace(own["parts"], values=((own["parts"].values[0][0], shares),))
    own["fines"] = msgspec.structs.replace(own["fines"], values=((own["fines"].values[0][0], request.param),))
    terms = msgspec.structs.replace(paying.pay, grades_pack="small", packs=("small",))
    return msgspec.structs.replace(small, parameters=small.parameters | own, pay=terms)


def paid_life(rng: random.Random) -> list[Timed]:
    """A life in which people's pay is stated, in every way, and changes."""
    log = life(rng, 900)
    for number in range(8):
        at = rng.randrange(len(log))
        now_ms = next(what for _, what in log[at:] if isinstance(what, int))
        agent = rng.choice(AGENTS)
        amount_minor = rng.randrange(300_000, 900_000)
        if rng.random() < 0.5:
            data: RosterChanged | PayStated = RosterChanged(agent=agent, pay_base_minor=amount_minor)
            tag = "roster.changed"
        else:
            month = rng.choice(["2026-07", "2026-08", "2026-09", "2026-10"])
            annual = rng.random() < 0.3
            data = PayStated(
                agent=agent, period=month, gross_minor=None if annual else amount_minor,
                annual_salary_minor=amount_minor * 12 if annual else None,
            )  # fmt: skip
            tag = "pay.stated"
        event = make(tag, id=f"p-{number}", source="hr", subject=agent, time=moment(now_ms), data=data)
        log.insert(at, ("event", event))
    return log


@pytest.mark.parametrize("number", range(3))
def test_a_backtest_pays_what_the_ledger_would_settle(pack: Pack, tmp_path: Path, number: int) -> None:
    log = paid_life(random.Random(f"{seed()} {number}"))
    replay = Replay([pack])
    facts: dict[str, list[PayFact]] = {}
    events = [what for _, what in log if not isinstance(what, int)]
    list(_noting((SourceItem(line, event, b"") for line, event in enumerate(events)), facts))
    tell(replay, log)
    found = pay_of([pack], replay.decision_list(), replay.grade_list(), facts)
    assert found is not None

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    read = [read_record(EVENTS_TOPIC, 0, offset, encode(event)) for offset, event in enumerate(events)]
    deliveries = [
        *(Delivery(DECISIONS_TOPIC, 0, at, one) for at, one in enumerate(replay.decision_list())),
        *(Delivery(GRADES_TOPIC, 0, at, one) for at, one in enumerate(replay.grade_list())),
    ]
    expected: dict[SubjectKey, int] = {}
    with Ledger(url) as ledger:
        ledger.write(deliveries, pay=[one for one in read if isinstance(one, PayDelivery)])
        with ledger._engine.connect() as connection:
            books = Books(connection, ReadUpTo(events=[10**9], decisions=[10**9], grades=[10**9]))
            for month in sorted({key.period for key in found}):
                nothing = Booked(connection, [])
                for agent, one in work_out(books, terms_in_force(pack, month), month, nothing).items():
                    if one.gross_minor is not None or one.total_minor:
                        expected[SubjectKey("agent", agent, "month", month)] = one.pay_minor
    assert found == expected
    assert len(found) > 3
    assert len(set(found.values())) > 1
