"""Settings: `config/site.toml` and `stations/<id>.toml` become frozen values; an unknown key is an error.

Times are seconds, sizes bytes, ports TCP port numbers. No setting holds a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from ifpp.errors import SettingsError

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
_BYTE = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
Version = Annotated[str, msgspec.Meta(pattern=rf"^({_BYTE}\.{_BYTE}\.{_BYTE})?$")]


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The MQTT broker. `prefix` is the first topic level (product and contract major)."""

    host: str = "127.0.0.1"
    port: Port = 1883
    prefix: Name = "ifpp1"


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM, relative to the settings file: the CAs that issue the other side's certificates; own certificate
    (with its chain) and private key, which only its owner may read.
    """

    ca: str
    cert: str
    key: str


class StoreTls(Tls, frozen=True, forbid_unknown_fields=True):
    """The store's side. `crl`: the CAs' revocation lists, read again when the file changes; "" = nothing is revoked."""

    crl: str = ""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factory profile store: where it listens, where stations reach it, and its database.

    Without `tls` it listens on this machine only, and everybody on it may do everything. `metrics_port` 0 = any free.
    `low_stock_hours`: packages that last less at the present rate are reported as low stock; 0 = never.
    """

    url: str = "http://127.0.0.1:8470"
    host: str = "127.0.0.1"
    port: Port = 8470
    database: str = "sqlite:///factory.db"
    metrics_port: Port = 0
    tls: StoreTls | None = None
    low_stock_hours: Annotated[float, msgspec.Meta(ge=0)] = 8.0


class Supervisor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line supervisor: `metrics_port` 0 = any free port, `lease_s` how long a line stays its own.

    `signing_key`: the file of the key that signs the audit log, relative to the settings file; "" = nothing is
    signed. A checkpoint is signed after so many entries of a chain, or so many seconds after an unsigned one.
    """

    metrics_port: Port = 0
    lease_s: Seconds = 15.0
    reports: str = "reports"
    signing_key: str = ""
    checkpoint_entries: Annotated[int, msgspec.Meta(ge=1)] = 1000
    checkpoint_s: Seconds = 60.0


class Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accepted certificate policy OIDs by role (SGP.22 v2; the v3 values are not verified, hence settable).

    Without an OID for sub-CAs no sub-CA is accepted.
    """

    ci: tuple[str, ...] = ("2.23.146.1.2.1.0",)
    eum: tuple[str, ...] = ("2.23.146.1.2.1.2",)
    euicc: tuple[str, ...] = ("2.23.146.1.2.1.1",)
    dppb: tuple[str, ...] = ("2.23.146.1.2.1.5",)
    sub_ca: tuple[str, ...] = ()


class Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`roots`: folder of trusted CI certificates (*.der or *.pem), relative to the settings file."""

    roots: str = "trust"
    policies: Policies = Policies()


class Denylist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Learning which profile type fails on which chip firmware.

    So many chips of one firmware that a profile type failed on, with none it succeeded on, make an entry; 0 learns
    nothing. `refuse`: the entry refuses at once, otherwise it is a proposal that a person activates.
    """

    failures: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    refuse: bool = False


class Courier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Courier bundles, for plants without a network: who we are (`name`), and the key that signs for us.

    `peers`: file of the public key of each party we exchange bundles with. Files are relative to the settings file.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,32}$")] = ""
    key: str = ""
    folder: str = "courier"
    max_bundle_mb: Annotated[int, msgspec.Meta(ge=1)] = 16_384
    peers: dict[Name, str] = {}


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config/site.toml`: what all processes of one line share."""

    enterprise: Name
    site: Name
    area: Name
    line: Name
    broker: Broker = Broker()
    store: Store = Store()
    supervisor: Supervisor = Supervisor()
    denylist: Denylist = Denylist()
    trust: Trust = Trust()
    courier: Courier = Courier()


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One programming head. `port` is a URL (see README); `block_size` the STORE DATA block (6..255 bytes)
    to begin with: where the link does not carry it, smaller ones are used. `clock_hz`: the reader's card clock, 0 when
    it is not known; it only tells the bit rate.

    `lamp`: URL of the lamp where the reader has none of its own (tcp://host:port, unix:///path), "" = no lamp.
    """

    port: str
    lamp: str = ""
    block_size: Annotated[int, msgspec.Meta(ge=6, le=255)] = 255
    clock_hz: Annotated[int, msgspec.Meta(ge=0, le=20_000_000)] = 0
    socket_id: str = ""


class Deadlines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a station waits: one APDU, one APDU inside a load, one answer of the store, a lease on a package."""

    apdu_s: Seconds = 10.0
    load_apdu_s: Seconds = 240.0
    store_s: Seconds = 5.0
    lease_s: Seconds = 900.0
    reconnect_s: Seconds = 2.0


class Outbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Durable events: how many may be unacknowledged, when they are sent again, how long they are kept."""

    max_unacked: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    resend_s: Seconds = 5.0
    resend_max_s: Seconds = 60.0
    keep_days: Annotated[int, msgspec.Meta(ge=1)] = 7
    capacity: Annotated[int, msgspec.Meta(ge=100)] = 100_000


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a station asks of a chip before the load, and what it does with it afterwards.

    `memory_factor`: free memory wanted, as a multiple of the package; `svn`, `profile_version`: the lowest
    specification and profile package version a chip must name ("2.2.0"; "" = any); `report_path`: "factory" removes
    the result from the chip once it is stored here, "device" leaves it for the device to report in the field.
    """

    memory_factor: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    svn: Version = ""
    profile_version: Version = ""
    report_path: str = "factory"
    reseats: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2


class Life(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a head is taken out of work, or people are told. 0 = never.

    `contact_streak` and `fail_streak`: so many different units in a row quarantine it. `window` units of each head are
    remembered to compare its contact with the others'; `confidence` that it is worse before anybody is told, and
    `worn_stops` whether that quarantines it. `socket_cycles_due`: insertions a socket is made for.
    """

    contact_streak: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3
    fail_streak: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3
    window: Annotated[int, msgspec.Meta(ge=20, le=5000)] = 200
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.999
    worn_stops: bool = False
    socket_cycles_due: Annotated[int, msgspec.Meta(ge=0)] = 100_000


class Pcsc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pcscd this station's readers hang on: `socket` is the path of its socket, "" = where the library looks.

    One pcscd serves at most 16 readers and one process talks to one pcscd: a station has at most 16 PC/SC heads.
    """

    socket: str = ""


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stations/<id>.toml`: one physical station. `tls`: how it shows itself to a store at https://."""

    id: Name
    heads: dict[Name, Head]
    journal: str = "journal.db"
    metrics_port: Port = 0
    deadlines: Deadlines = Deadlines()
    outbox: Outbox = Outbox()
    recipe: Recipe = Recipe()
    life: Life = Life()
    pcsc: Pcsc = Pcsc()
    tls: Tls | None = None


class Modem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one model of modem needs; every field's default is the standard's (3GPP TS 27.007). Data, never code.

    `access`: "cgla" (AT+CCHO, +CGLA, +CCHC), "csim" (AT+CSIM) or "auto": ask the modem. `init`: sent once when the port
    is opened. `reset`: what powers the SIM off and on. `presence`: asks whether a SIM is there; `absent`: beginnings of
    lines, and numbers or texts of +CME ERROR, that say no, asked for or not. `restarted`: beginnings of lines a modem
    sends when it has started anew. `ready_s`: how long the SIM may take after a reset. `tries`: how often the ISD-R is
    tried, with a reset before each. `sessions`: handles 1 to n are closed before the first session; 0 where handles
    are no small numbers. `cla`: class bytes carry channel 0 ("zero", the standard) or the handle's number ("handle").
    `csim_channels`: +CSIM can open logical channels. `max_block`: the largest STORE DATA block it carries (bytes).
    """

    access: Literal["auto", "cgla", "csim"] = "auto"
    init: tuple[str, ...] = ()
    reset: tuple[str, ...] = ("AT+CFUN=0", "AT+CFUN=1")
    presence: str = "AT+CPIN?"
    absent: tuple[str, ...] = ("+CPIN: NOT INSERTED", "+CPIN: NOT READY", "10", "SIM not inserted")
    restarted: tuple[str, ...] = ("RDY", "^SYSSTART", "SYSSTART")
    ready_s: Seconds = 10.0
    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    sessions: Annotated[int, msgspec.Meta(ge=0, le=20)] = 20
    cla: Literal["zero", "handle"] = "zero"
    csim_channels: bool = True
    max_block: Annotated[int, msgspec.Meta(ge=6, le=255)] = 255


class Modems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of modem models by name, such as `ifpp/hw/modems.toml`."""

    models: dict[Name, Modem]


T = TypeVar("T", Site, Station, Modems)


def load_site(path: Path) -> Site:
    """Read `config/site.toml`; raises SettingsError naming file, line and key."""
    return _load(path, Site)


def load_station(path: Path) -> Station:
    """Read `stations/<id>.toml`; raises SettingsError naming file, line and key."""
    station = _load(path, Station)
    if not station.heads:
        raise SettingsError("SETTINGS.INVALID", "a station needs at least one head", where=f"{path}: heads")
    if station.recipe.report_path not in ("factory", "device"):
        raise SettingsError("SETTINGS.INVALID", 'report_path is "factory" or "device"', where=f"{path}: recipe")
    owners: dict[str, str] = {}
    for name, head in station.heads.items():
        if (other := owners.setdefault(head.port, name)) != name:
            detail = f"it has the same port as head {other}"
            raise SettingsError("SETTINGS.INVALID", detail, where=f"{path}: heads.{name}")
    return station


def load_modems(path: Path) -> dict[str, Modem]:
    """Read a file of modem models; raises SettingsError naming file, line and key."""
    return _load(path, Modems).models


def _load(path: Path, kind: type[T]) -> T:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("SETTINGS.INVALID", f"cannot be read ({error})", where=str(path)) from error
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(path, text, str(error), kind) from error
    except msgspec.DecodeError as error:
        raise SettingsError("SETTINGS.INVALID", f"not TOML: {error}", where=str(path)) from error


def _explain(path: Path, text: str, message: str, kind: type) -> SettingsError:
    """Name the line of the offending key and suggest the nearest known one."""
    unknown = re.search(r"unknown field `([^`]+)`", message)
    place = re.search(r"`\$\.?([^`]*)`$", message)
    key = unknown.group(1) if unknown else (place.group(1).split(".")[-1] if place else "")
    line = next((n for n, row in enumerate(text.splitlines(), 1) if key and re.match(rf"\s*\[?.*\b{key}\b", row)), 0)
    hint = ""
    if unknown:
        near = difflib.get_close_matches(key, sorted(set(_known_keys([kind]))), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
    where = f"{path}:{line}" if line else str(path)
    return SettingsError("SETTINGS.INVALID", message + hint, where=where)


def _known_keys(kinds: Iterable[type]) -> Iterable[str]:
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            yield field.encode_name
            nested = [field.type, *getattr(field.type, "__args__", ())]
            yield from _known_keys(n for n in nested if isinstance(n, type) and issubclass(n, msgspec.Struct))
