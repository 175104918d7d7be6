#!/bin/sh
# system.sh [readers]: install the real components that demo and tests start (Debian), as root or with sudo that asks
# for nothing; `readers` only what virtual PC/SC readers need.
set -eu
missing=""
want() { # want PATH-or-command PACKAGE
    command -v "$1" >/dev/null 2>&1 || ls $1 >/dev/null 2>&1 || missing="$missing $2"
}
PATH=$PATH:/usr/sbin:/sbin
want pcscd pcscd
want '/usr/lib/pcsc/drivers/serial/libifdvpcd.so*' vsmartcard-vpcd
want ip iproute2
# pyscard and the C replay of the benchmark are compiled
want gcc gcc
want '/usr/lib/*/crt1.o' libc6-dev
want swig swig
want pkg-config pkg-config
want /usr/include/PCSC/winscard.h libpcsclite-dev
want "$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" python3-dev
if [ "${1-}" != readers ]; then
    want mosquitto mosquitto
    want prometheus prometheus
    want promtool prometheus
    want amtool prometheus-alertmanager
    want softhsm2-util softhsm2
    want stunnel4 stunnel4
    want pkcs11-tool opensc
    want openssl openssl
    want tmux tmux
    want '/usr/lib/*/engines-3/pkcs11.so' libengine-pkcs11-openssl
    want /usr/bin/p11-kit p11-kit
    want '/usr/lib/*/pkcs11/p11-kit-client.so' p11-kit-modules
    want debootstrap debootstrap
    want chromium chromium
    want systemd-analyze systemd
    want '/usr/lib/postgresql/*/bin/initdb' postgresql
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo"; else
    echo "note: not root, so what needs real components is skipped. To run it: apt-get install$missing"
    exit 0
fi
echo "installing$missing ..."
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
# The packages start services of their own; the tests start theirs and need none of these.
for service in mosquitto postgresql pcscd prometheus prometheus-alertmanager; do
    $as_root service "$service" stop >/dev/null 2>&1 || true
done
