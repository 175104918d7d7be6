#!/bin/sh
# Makes the folder of a site, or completes it: sh prepare.sh FOLDER, as root; see deploy/site.md.
# Passwords are made where there are none; certificates and keys are copied from FOLDER/pki, whose CA key stays there.
# What a person wrote is not touched. Each secret belongs to the user of the one container that reads it.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
site=${1:?usage: sh prepare.sh FOLDER}
ifpp=10001 postgres=999 mosquitto=1883 grafana=472

put() { # OWNER MODE TARGET: what comes in, whole or not at all
    cat >"$3.part"
    chown "$1:$1" "$3.part"
    chmod "$2" "$3.part"
    mv "$3.part" "$3"
}
random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
new() { # OWNER NAME: a secret of its own
    [ -e "$site/secrets/$2" ] || random | put "$1" 400 "$site/secrets/$2"
}
sample() { # FROM TO
    [ -e "$site/$2" ] || put 0 644 "$site/$2" <"$here/$1"
}

for folder in . config config/tls config/trust config/stations; do install -d -m 755 "$site/$folder"; done
install -d -m 755 "$site/mosquitto"
install -d -m 700 "$site/pki" "$site/secrets"
install -d -m 700 -o $mosquitto -g $mosquitto "$site/mosquitto/persistence"
install -d -m 700 -o $ifpp -g $ifpp "$site/keys" "$site/exchange"

sample site.toml config/site.toml
sample ../prometheus/alertmanager.yml config/alertmanager.yml
[ -e "$site/config/stations/stations.yml" ] || echo "[] # - targets: ['st01.plant.example:9501']" |
    put 0 644 "$site/config/stations/stations.yml"

new $postgres postgres.password
new $grafana grafana.password
new $ifpp ifpp-pin
for role in owner store supervisor desk read; do # the server reads the first, the client the second
    new $postgres $role.password
    echo "postgres:5432:ifpp:ifpp_$role:$(cat "$site/secrets/$role.password")" |
        put $ifpp 600 "$site/secrets/$role.pgpass"
done

key() { # OWNER NAME OF-WHOM
    [ ! -e "$site/pki/$3.key" ] || put "$1" 600 "$site/secrets/$2" <"$site/pki/$3.key"
}
key $ifpp store.key store-store.ifpp.internal
key $ifpp supervisor.key supervisor-L1
key $ifpp probe.key auditor-probe
key $mosquitto broker.key broker-broker.ifpp.internal
key $mosquitto broker-probe.key auditor-probe
for name in ca crl store-store.ifpp.internal broker-broker.ifpp.internal supervisor-L1 auditor-probe; do
    [ ! -e "$site/pki/$name.pem" ] || put 0 644 "$site/config/tls/$name.pem" <"$site/pki/$name.pem"
done
[ ! -e "$site/mosquitto/acl" ] || chown $mosquitto:$mosquitto "$site/mosquitto/acl"
