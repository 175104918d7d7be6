#!/bin/sh
# venv.sh PYTHON FOLDER: make a virtual environment with pip, or say what is missing.
set -eu
python=$1 folder=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ifpp needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Name another one: make PYTHON=python3.12" >&2
    exit 1
}
if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$folder"
elif "$python" -m pip --version >/dev/null 2>&1; then
    # Debian without python3-venv, but with pip: pip can install itself into a bare environment.
    "$python" -m venv --without-pip "$folder"
    "$python" -m pip --python "$folder/bin/python" install -q --disable-pip-version-check pip
else
    echo "Python has neither venv nor pip here. Install one: apt-get install python3-venv" >&2
    exit 1
fi
