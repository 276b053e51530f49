"""Every kind of mistake in a pack is told with its place, what is wrong and what would be right.

One folder in ``broken`` for each kind: ``change.patch`` makes the mistake in the minimal pack, ``expected.txt`` is what
``kaohe rules check`` must say about it, all of it and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.errors import PackError
from kaohe.packs.load import check_pack, load_pack, read_pack
from kaohe.packs.story import load_stories
from tests.packs.patching import MINIMAL, patched

BROKEN = Path(__file__).parent / "broken"
KINDS = sorted(path.name for path in BROKEN.iterdir())


def test_there_are_many_kinds_of_mistakes() -> None:
    assert len(KINDS) >= 150


def test_the_minimal_pack_itself_is_right() -> None:
    loaded, problems = read_pack(MINIMAL)
    assert loaded is not None
    load_stories(loaded.pack, problems)
    assert problems.errors == []


def test_the_minimal_pack_with_pay_terms_is_right(tmp_path: Path) -> None:
    loaded, problems = read_pack(patched("with pay\n", tmp_path))
    assert problems.errors == []
    assert loaded is not None
    assert loaded.pack.pay is not None


def test_the_minimal_pack_with_appeals_is_right(tmp_path: Path) -> None:
    loaded, problems = read_pack(patched("with appeals\n", tmp_path))
    assert problems.errors == []
    assert loaded is not None
    assert loaded.pack.appeals is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_told_with_its_place_and_its_remedy(kind: str, tmp_path: Path) -> None:
    pack = patched((BROKEN / kind / "change.patch").read_text(encoding="utf-8"), tmp_path)
    loaded, problems = read_pack(pack)
    if loaded is not None:
        load_stories(loaded.pack, problems)
    told = [str(error).replace(f"{pack}/", "") for error in problems.errors]
    assert told == (BROKEN / kind / "expected.txt").read_text(encoding="utf-8").splitlines()
    assert told, "the mistake was not noticed"


@pytest.mark.parametrize("kind", ["pack-zone", "parameter-unit", "rule-unlike-types"])
def test_a_wrong_pack_does_not_load(kind: str, tmp_path: Path) -> None:
    pack = patched((BROKEN / kind / "change.patch").read_text(encoding="utf-8"), tmp_path)
    with pytest.raises(PackError) as caught:
        load_pack(pack)
    assert str(caught.value) == str(check_pack(pack)[0])
    assert caught.value.place.file.startswith(str(pack))
    assert caught.value.wrong
    assert caught.value.right


def test_no_message_blames_a_place_that_is_right() -> None:
    """A mistake in a parameter is told once, not again in each rule that uses it."""
    for kind in KINDS:
        if kind.startswith(("parameter-", "number-")):
            lines = (BROKEN / kind / "expected.txt").read_text(encoding="utf-8").splitlines()
            assert all(line.startswith("parameters.yaml:") for line in lines), kind
