"""What the tests stand on: a missing program skips here and fails in CI, and PostgreSQL runs and goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy

from tests.support.need import absent, find_program, need
from tests.support.postgres import running_postgres


def test_a_program_that_is_there_is_found() -> None:
    assert Path(need("sh")).name == "sh"
    assert find_program("kaohe-no-such-program") is None


def test_a_missing_program_skips_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the program kaohe-no-such: install the-package"):
        need("kaohe-no-such", "the-package")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must have it: no Java"):
        absent("no Java")


@pytest.mark.postgres
def test_a_throwaway_postgres_answers_and_leaves_nothing() -> None:
    with running_postgres() as url:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("select 6 * 7")).scalar() == 42
        engine.dispose()
        folder = Path(str(sqlalchemy.make_url(url).query["host"]))
        assert folder.exists()
    assert not folder.exists()
