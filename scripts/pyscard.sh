#!/bin/sh
# pyscard.sh FOLDER: compile pyscard into a virtual environment; where that cannot be, say why and go on without readers.
set -eu
folder=$1
[ -f /usr/include/PCSC/winscard.h ] && command -v swig >/dev/null || {
    echo "note: no PC/SC readers here: pyscard needs swig and libpcsclite-dev (apt-get install swig libpcsclite-dev)"
    exit 0
}
echo "compiling pyscard ..."
if "$folder/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/pcsc.txt; then
    touch "$folder/.pcsc"
else
    echo "note: no PC/SC readers here: pyscard could not be compiled (see above; python3-dev and gcc are needed)"
fi
