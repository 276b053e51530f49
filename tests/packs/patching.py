"""Small changes to the minimal pack, so that a broken pack shows its mistake and nothing else.

A patch names a file and what becomes of its lines, as a diff does::

    rules.yaml
    -  judged: month
    +  judged: fortnight

Lines to be taken out must stand in the file exactly once. Added lines alone are appended; ``delete FILE`` removes it.
``with pay``, ``with attendance`` or ``with appeals`` as the first line adds pay terms, how attendance is judged, or
appeals, with clause and parameters (the files of ``with-pay`` and so on).
"""

from __future__ import annotations

import shutil
from pathlib import Path

MINIMAL = Path(__file__).parent / "minimal"


def patched(patch: str, folder: Path) -> Path:
    """A copy of the minimal pack in ``folder/minimal`` with the patch applied."""
    pack = folder / "minimal"
    shutil.copytree(MINIMAL, pack)
    if patch.startswith("with "):
        first, _, patch = patch.partition("\n")
        for added in (Path(__file__).parent / first.replace(" ", "-")).iterdir():
            with (pack / added.name).open("a", encoding="utf-8") as whole:
                whole.write(added.read_text(encoding="utf-8"))
    file: Path | None = None
    old: list[str] = []
    new: list[str] = []
    for line in [*patch.splitlines(), ""]:
        if line[:1] == "-" and not new:
            old.append(line[1:])
        elif line[:1] == "+":
            new.append(line[1:])
        else:
            if old or new:
                assert file is not None, "a patch begins with the name of a file"
                _change(file, old, new)
                old, new = ([line[1:]], []) if line[:1] == "-" else ([], [])
            if line.startswith("delete "):
                (pack / line.removeprefix("delete ")).unlink()
            elif line and line[0] not in "-+#":
                file = pack / line
    return pack


def _change(file: Path, old: list[str], new: list[str]) -> None:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if not old:
        file.parent.mkdir(exist_ok=True)  # ``../office/clauses.yaml`` is another pack beside this one
        file.write_text(text + "\n".join(new) + "\n", encoding="utf-8")
        return
    found = "\n".join(old) + "\n"
    assert text.count(found) == 1, f"{file.name} has {text.count(found)} times {found!r}"
    file.write_text(text.replace(found, "".join(line + "\n" for line in new)), encoding="utf-8")
