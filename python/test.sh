#!/usr/bin/env bash
# Builds the Python package into a virtual environment of its own, and runs its tests there. Needs Python 3.11 or later with pip, and a
# registry for maturin, pytest and numpy, once; ends with 77 if those are not to be had.
set -euo pipefail
cd "$(dirname "$0")"

venv=${WATERWAY_VENV:-../target/python-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
venv=$(cd "$venv" && pwd)
# All of them must be there; if not, they are fetched.
"$venv/bin/python" -c "import maturin, numpy, pytest" 2>/dev/null || 
    "$venv/bin/pip" install --quiet 'maturin>=1.9,<2' numpy pytest || exit 77
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
maturin develop --quiet --locked
timeout 150 python -m pytest -q -p no:cacheprovider "$@"
