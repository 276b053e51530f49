#!/usr/bin/env bash
# Makes or completes .venv with everything in requirements/dev.txt and the command .venv/bin/kaohe.
#
# A .venv that works is kept, unless PYTHON=... asks for another version. Packages come with the hashes that the
# requirement files hold. durable-rules and the extension modules of this package are built from source with the pinned
# tools instead of ones fetched anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(bash tools/check_machine.sh)
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null || true; }

have=$(version_of .venv/bin/python)
want=$(version_of "$python")
if [[ $have != 3.11 && $have != 3.12 ]] || [[ -n ${PYTHON:-} && $have != "$want" ]]; then
    echo "Making .venv with Python $want ($python)"
    "$python" -m venv --clear .venv
fi

pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet)
echo "Installing the packages of requirements/dev.txt into .venv (a minute or two)"
"${pip[@]}" --require-hashes -r requirements/build.txt
"${pip[@]}" --require-hashes --no-build-isolation -r requirements/dev.txt
"${pip[@]}" --no-deps --no-build-isolation --editable .
.venv/bin/python -m pip --disable-pip-version-check check
.venv/bin/python -c 'import durable_rules_engine, faust, kaohe.core.intake'
