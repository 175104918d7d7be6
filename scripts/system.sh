#!/bin/sh
# system.sh: install the real components that tests start (Debian), as root or with sudo that asks for nothing.
set -eu
missing=""
want() { # want PATH-or-command PACKAGE
    command -v "$1" >/dev/null 2>&1 || ls $1 >/dev/null 2>&1 || missing="$missing $2"
}
PATH=$PATH:/usr/sbin:/sbin
want mosquitto mosquitto
want '/usr/lib/postgresql/*/bin/initdb' postgresql
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo"; else
    echo "note: not root, so tests on real components are skipped. To run them: apt-get install$missing"
    exit 0
fi
echo "installing$missing ..."
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
# The packages start services of their own; the tests start theirs on 127.0.0.1 and need none of these.
for service in mosquitto postgresql; do
    $as_root service "$service" stop >/dev/null 2>&1 || true
done
