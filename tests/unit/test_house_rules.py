"""Rules of this repository that no linter knows: short functions, requirements with hashes and without addresses."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES_MAX = 75
# "path:function" → why it may be longer.
LONG_FUNCTIONS: dict[str, str] = {}

LOCKED = ("build", "runtime", "server", "dev")
# Where packages come from is the business of the machine's configuration, not of these files.
INSTALLERS = ("requirements/*", "pyproject.toml", "Makefile", ".ci/*", "tools/*", "**/pom.xml")
ADDRESS = re.compile(
    r"(?:https?|ftp|git\+\w+)://|--(?:extra-)?index-url|--find-links|--trusted-host|<repository>"
)
# The name of an XML schema is an address by form only; nothing is fetched from it.
SCHEMA_NAME = re.compile(r'(?:xmlns(?::\w+)?|xsi:schemaLocation)="[^"]*"')

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def files_in_git(*patterns: str) -> list[Path]:
    """The files of the repository that match; in an unpacked archive, where git knows nothing, those on disk."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *(f":(glob){pattern}" for pattern in patterns)],
        check=False, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    if listed.returncode == 0:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file()]


def long_functions(source: str, limit: int = FUNCTION_LINES_MAX) -> Iterator[tuple[str, int]]:
    """Functions with more lines than the limit, decorators and the docstring not counted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > limit:
                yield node.name, lines


def addresses(text: str) -> list[str]:
    """The lines that name a package index, a repository or any other address."""
    return [line.strip() for line in text.splitlines() if ADDRESS.search(SCHEMA_NAME.sub("", line))]


def pins(name: str) -> dict[str, str]:
    """The pinned packages of a requirement file, names in their canonical form."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {re.sub(r"[-_.]+", "-", found[1].lower()): found[2] for found in _PIN.finditer(text)}


def test_functions_are_short() -> None:
    paths = files_in_git("services/**/*.py", "tests/**/*.py", "tools/*.py", "bench/**/*.py")
    assert len(paths) > 20
    found = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in paths
        for name, lines in long_functions(path.read_text(encoding="utf-8"))
    }
    assert {name: lines for name, lines in found.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(found), "an exception that is no longer needed"


def test_a_long_function_is_seen_and_its_docstring_is_free() -> None:
    body = "\n".join("    x = 1" for _ in range(5))
    assert list(long_functions(f"def f():\n{body}\n", limit=5)) == [("f", 6)]
    assert list(long_functions(f"class A:\n  async def f(self):\n{body}\n", limit=5)) == [("f", 6)]
    assert list(long_functions(f'def f():\n    """one\n    two"""\n{body}\n', limit=6)) == []


def test_nothing_that_installs_names_an_address() -> None:
    paths = files_in_git(*INSTALLERS)
    assert {path.name for path in paths} >= {"dev.txt", "dev.in", "pyproject.toml", "Makefile", "run"}
    found = {str(path.relative_to(ROOT)): addresses(path.read_text(encoding="utf-8")) for path in paths}
    found.pop("tools/lock_requirements.py", None)  # spells the options that keep addresses out
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line", ["--index-url x", "pkg @ https" + "://example.invalid/p.whl", "--find-links /wheels"]
)
def test_an_address_is_seen(line: str) -> None:
    assert addresses(f"a==1\n{line}\n") == [line]


@pytest.mark.parametrize("name", LOCKED)
def test_every_pin_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 1)[1])
    assert len(entries) == len(pins(name)) > 0
    assert [entry.split(" ")[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(("inner", "outer"), [("runtime", "server"), ("server", "dev")])
def test_one_package_has_one_version_everywhere(inner: str, outer: str) -> None:
    assert pins(inner).items() <= pins(outer).items()


def test_what_the_package_depends_on_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for file, wanted in (
        ("runtime", project["dependencies"]),
        ("server", extras["postgres"]),
        ("dev", [*extras["demo"], *extras["plot"], *extras["bench"], *extras["dev"]]),
    ):
        names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", line)[0].lower()) for line in wanted}
        assert names - set(pins(file)) == set(), file


def test_make_test_runs_every_folder_of_tests() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = (
        re.search(r"^COMPUTING := (.*)$", made, re.MULTILINE),
        re.search(r"^WAITING := (.*)$", made, re.MULTILINE),
    )
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("**/test_*.py")}
    assert {folder for found in named if found for folder in found[1].split()} == folders
