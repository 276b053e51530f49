"""Whatever is done to a pack's files, the loader answers with mistakes or with a pack, never with a crash."""

from __future__ import annotations

import random
import re
from pathlib import Path

from kaohe.packs.load import read_pack
from kaohe.packs.source import PROBLEMS_MAX
from kaohe.packs.story import load_stories
from tests.packs.patching import MINIMAL, patched

ROUNDS = 80
_TOKEN = re.compile(r"[\w.\-]+|\S")


def _mangle(text: str, draw: random.Random) -> str:
    """Swap, drop, double or replace a few words, marks or lines."""
    for _ in range(draw.randint(1, 3)):
        tokens = list(_TOKEN.finditer(text))
        one, other = draw.choice(tokens), draw.choice(tokens)
        kind = draw.randrange(6)
        if kind == 0:
            text = text[: one.start()] + text[one.end() :]
        elif kind == 1:
            text = text[: one.start()] + other[0] + text[one.end() :]
        elif kind == 2:
            text = (
                text[: one.start()]
                + draw.choice(["", "0", "-1", "[]", "{}", "true", "null", "x", "p.", "'", "1e9"])
                + text[one.end() :]
            )
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            del lines[draw.randrange(len(lines))]
            text = "".join(lines) or "x"
        elif kind == 4:
            lines = text.splitlines(keepends=True)
            lines.insert(draw.randrange(len(lines)), draw.choice(lines))
            text = "".join(lines)
        else:
            text = text.replace(one[0], other[0])
        if not _TOKEN.search(text):
            return "x"
    return text


def test_a_mangled_pack_never_crashes_the_loader(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    files = [path.relative_to(MINIMAL) for path in sorted(MINIMAL.rglob("*.yaml"))]
    refused = 0
    for round_ in range(ROUNDS):
        pack = patched("", tmp_path / str(round_))
        file = pack / draw.choice(files)
        text = _mangle(file.read_text(encoding="utf-8"), draw)
        file.write_text(text, encoding="utf-8")
        try:
            loaded, problems = read_pack(pack)
            if loaded is not None:
                load_stories(loaded.pack, problems)
        except Exception as error:
            message = f"seed {seed}, round {round_}, {file.name}: {error!r}\n{text}"
            raise AssertionError(message) from error
        assert all(error.wrong and error.right for error in problems.errors)
        assert len(problems.errors) <= PROBLEMS_MAX + 1
        refused += bool(problems.errors)
    assert refused > ROUNDS // 2, "mangling hardly ever made a mistake"
