#!/usr/bin/env bash
# Prints the Python that Kaohe is installed with, or says in one sentence what this machine lacks and exits with 1.
#
# A Python is taken only after it has run: version managers put commands on the PATH that exist and do not work. It
# needs the modules venv and ensurepip and, because durable-rules ships as source and the counting is compiled, Python.h
# and a C compiler. Among the Pythons found the first complete one is taken; PYTHON=... names one instead. Only bash
# itself is needed.
set -uo pipefail

probe='
import os, sys, sysconfig
def can_import(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
print("%d.%d" % sys.version_info[:2])
print("venv" if can_import("venv") and can_import("ensurepip") else "-")
print(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
print((sysconfig.get_config_var("CC") or "cc").split()[0])
print(sys.executable)
'

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# Runs a Python; on success sets version, venv, header, compiler and executable.
inspect() {
    local output
    output=$("$1" -c "$probe" 2>/dev/null </dev/null) || return 1
    { read -r version && read -r venv && read -r header && read -r compiler && read -r executable; } <<<"$output"
}

supported() {
    [[ $version == 3.11 || $version == 3.12 ]]
}

if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
    inspect "$PYTHON" || fail "PYTHON=$PYTHON does not run: name a Python 3.11 or 3.12 that does."
    supported || fail "PYTHON=$PYTHON is Python $version, and Kaohe needs Python 3.11 or 3.12: install python3.11."
else
    candidates=(python3.11 python3.12 python3 python)
    for path in "${HOME:-/nonexistent}"/.pyenv/versions/3.1[12].*/bin/python; do
        [[ -x $path ]] && candidates+=("$path")
    done
fi

chosen=
other=
for candidate in "${candidates[@]}"; do
    inspect "$candidate" || continue
    if ! supported; then
        other=${other:-$version}
        continue
    fi
    chosen=${chosen:-$candidate}
    if [[ $venv == venv && -r $header ]]; then
        chosen=$candidate
        break
    fi
done

if [[ -z $chosen ]]; then
    [[ -z $other ]] || fail "Kaohe needs Python 3.11 or 3.12, and here is only Python $other: install python3.11."
    fail "Kaohe needs Python 3.11 or 3.12, and none was found on the PATH: install python3.11."
fi

inspect "$chosen"
[[ $venv == venv ]] ||
    fail "Python $version at $executable lacks the modules venv and ensurepip: install python$version-venv."
compiler=${CC:-$compiler}
"${compiler%% *}" --version >/dev/null 2>&1 </dev/null ||
    fail "A C compiler is needed to build Kaohe, and ${compiler%% *} does not run: install gcc (or set CC)."
[[ -r $header ]] ||
    fail "The C headers of Python $version are missing (no $header): install python$version-dev."
printf '%s\n' "$executable"
