"""Pins every requirement, for every supported Python at once.

Each ``requirements/NAME.in`` is compiled to ``requirements/NAME.txt`` by pip-compile under each Python given on the
command line; the results have to agree, apart from packages that only one Python needs, which get a marker. The
later files are compiled under the pins of the earlier ones, so that one package has one version everywhere. The
output names no package index: where packages come from is the business of the machine's pip configuration.

    python tools/lock_requirements.py [--upgrade] PYTHON3.11 PYTHON3.12
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "requirements"
NAMES = ("build", "runtime", "server", "dev")
PIP_TOOLS = "pip-tools==7.6.2"
HEADER = "# Made by `make lock` from {name}.in; edit that file, not this one.\n"

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s\\;]+)")
_PIN_MARKER = re.compile(r" ; python_version == [^\\\n]*?(?= \\|$)")


def main() -> None:
    """Compile all files, or stop at the first thing that disagrees."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--upgrade", action="store_true", help="take newer versions instead of the pinned ones"
    )
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compilers = [
            _make_compiler(python, Path(folder) / f"venv{i}") for i, python in enumerate(args.pythons)
        ]
        known = {} if args.upgrade else _pins_in_force()
        for name in NAMES:
            _lock(name, compilers, Path(folder), known)


def _make_compiler(python: str, folder: Path) -> Path:
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, PIP_TOOLS], check=True)
    return folder / "bin" / "pip-compile"


def _lock(name: str, compilers: list[Path], folder: Path, known: dict[str, str]) -> None:
    """Compile one file. ``known`` holds the pins so far, which pip-compile keeps where it can, hashes and all."""
    entries: dict[str, str] = {}
    seen: dict[str, list[str]] = {}
    for compiler in compilers:
        draft = folder / f"{name}.txt"
        draft.write_text("".join(known.values()), encoding="utf-8")
        version = _version_of(compiler)
        for package, entry in _split(_compile(compiler, name, draft)).items():
            if entries.setdefault(package, entry) != entry:
                sys.exit(
                    f"{name}: {package} differs between the Pythons: choose a version for both in {name}.in."
                )
            seen.setdefault(package, []).append(version)
        known |= entries
    lines = [HEADER.format(name=name)]
    for package in sorted(entries):
        entry = entries[package]
        if len(seen[package]) < len(compilers):
            markers = " or ".join(f'python_version == "{version}"' for version in seen[package])
            entry = entry.replace(" \\\n", f" ; {markers} \\\n", 1)
        lines.append(entry)
    (FOLDER / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    print(f"{name}.txt: {len(entries)} packages", flush=True)


def _version_of(compiler: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = compiler.parent / "python"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _compile(compiler: Path, name: str, draft: Path) -> str:
    earlier = NAMES[NAMES.index("runtime") : NAMES.index(name)] if name != "build" else ()
    command = [
        str(compiler),
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--allow-unsafe",
    ]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"]
    command += ["--strip-extras", f"--output-file={draft}"]
    command += [f"--constraint={FOLDER / f'{other}.txt'}" for other in earlier]
    subprocess.run([*command, str(FOLDER / f"{name}.in")], check=True, cwd=FOLDER)
    return draft.read_text(encoding="utf-8")


def _pins_in_force() -> dict[str, str]:
    known: dict[str, str] = {}
    for name in reversed(NAMES):
        file = FOLDER / f"{name}.txt"
        known |= _split(file.read_text(encoding="utf-8")) if file.exists() else {}
    return known


def _split(text: str) -> dict[str, str]:
    """The pinned packages of a compiled file, each with its lines of hashes."""
    entries: dict[str, str] = {}
    package = ""
    for line in text.splitlines(keepends=True):
        pin = _PIN.match(line)
        if pin:
            package = re.sub(r"[-_.]+", "-", pin["name"].lower())
            entries[package] = _PIN_MARKER.sub("", line)
        elif package and line.lstrip().startswith("--hash="):
            entries[package] += line
    return entries


if __name__ == "__main__":
    main()
