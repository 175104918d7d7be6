"""Settings: `config/site.toml` and `stations/<id>.toml` become frozen values; an unknown key is an error.

Times are seconds, sizes bytes, ports TCP port numbers. No setting holds a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from ifpp.errors import SettingsError

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
_BYTE = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
Url = Annotated[str, msgspec.Meta(pattern=r"^(https://[^/?#\s@]+|http://(127\.0\.0\.1|localhost)(:\d+)?)(/[^?#\s]*)?$")]
Version = Annotated[str, msgspec.Meta(pattern=rf"^({_BYTE}\.{_BYTE}\.{_BYTE})?$")]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM, relative to the settings file: the CAs that issue the other side's certificates; own certificate
    (with its chain) and private key, which only its owner may read.
    """

    ca: str
    cert: str
    key: str


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The MQTT broker. `prefix` is the first topic level (product and contract major).

    `tls`: the broker speaks TLS; this is what the supervisor shows it, a station shows its own [tls].
    """

    host: str = "127.0.0.1"
    port: Port = 1883
    prefix: Name = "ifpp1"
    tls: Tls | None = None


class StoreTls(Tls, frozen=True, forbid_unknown_fields=True):
    """The store's side. `crl`: the CAs' revocation lists, read again when the file changes; "" = nothing is revoked."""

    crl: str = ""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factory profile store: where it listens, where stations reach it, and its database.

    Without `tls` it listens on this machine only, and everybody on it may do everything. `metrics_port` 0 = any free;
    beyond this machine (`metrics_host`) figures go out unprotected: only into a network that ends at Prometheus.
    `low_stock_hours`: packages that last less at the present rate are reported as low stock; 0 = never.
    """

    url: str = "http://127.0.0.1:8470"
    host: str = "127.0.0.1"
    port: Port = 8470
    database: str = "sqlite:///factory.db"
    metrics_port: Port = 0
    metrics_host: str = "127.0.0.1"
    tls: StoreTls | None = None
    low_stock_hours: Annotated[float, msgspec.Meta(ge=0)] = 8.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.database)
        if ":" in parts.netloc.rpartition("@")[0] or "password=" in parts.query:
            raise ValueError("`database` has a password in it: put it into ~/.pgpass of the user ifpp runs as")


class Supervisor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line supervisor: `metrics_port`, `metrics_host` as the store's, `lease_s` how long a line stays its own.

    Where there are [keys], the audit log is signed: a checkpoint after so many entries of a chain, or so many seconds
    after an unsigned one.
    """

    metrics_port: Port = 0
    metrics_host: str = "127.0.0.1"
    lease_s: Seconds = 15.0
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


class Smdp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An SM-DPf that takes Profile Loading Reports over HTTPS: PUT `url`/<report id>.

    `tls`: its CA, our client certificate and key. `key`: file of the public key that signs its acknowledgements; ""
    accepts them unsigned. `timeout_s`: for one report, with its answer. Plain http:// is for this machine only.
    """

    url: Url
    tls: Tls | None = None
    key: str = ""
    timeout_s: Seconds = 120.0


class Reports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Profile Loading Reports. `due_h`: one that its SM-DPf has not acknowledged after so many hours is overdue.

    `tries`: so often a delivery is tried at a call, `back_off_s` after the first failure, twice that after the next.
    `smdp`: by the OID of the SM-DPf; one that is not here gets its reports as files.
    """

    due_h: Annotated[float, msgspec.Meta(gt=0)] = 24.0
    tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    back_off_s: Seconds = 2.0
    smdp: dict[str, Smdp] = {}


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factory's own keys: nothing, an encrypted file, or a token behind PKCS#11. Files are relative to this one.

    `file`: the encrypted key file. `module`, `token`: the PKCS#11 library and the token's label; `environment`: what
    the library wants to find there, such as SOFTHSM2_CONF, never a secret. `pin_credential`: the file in
    $CREDENTIALS_DIRECTORY (systemd LoadCredential=) that holds the PIN. `timeout_s`: how long one operation may take;
    `sessions`: so many at a time. `purposes`: the keys that live here. `records`: folder of the ceremony records.
    `two_person`: rotation and destruction need two people of `people`, who sign with their own keys (files of the
    public ones).
    """

    provider: Literal["none", "software", "pkcs11"] = "none"
    file: str = "keys.ifpp"
    module: str = ""
    token: str = ""
    environment: dict[str, str] = {}
    pin_credential: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")] = "ifpp-pin"
    timeout_s: Seconds = 5.0
    sessions: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    purposes: tuple[Literal["audit", "report", "station", "chip", "transport", "backup"], ...] = (
        "audit",
        "report",
        "station",
        "chip",
        "transport",
        "backup",
    )
    records: str = "ceremonies"
    two_person: bool = False
    people: dict[Name, str] = {}


Wall = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Shift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shift: wall times of the site, `end` at or before `start` is on the next day; `breaks` as [start, end].

    `days` it begins on; `target`: units that are to be made in it, 0 = not said.
    """

    name: Name
    start: Wall
    end: Wall
    breaks: tuple[tuple[Wall, Wall], ...] = ()
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    )
    target: Annotated[int, msgspec.Meta(ge=0)] = 0


class Calendar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the line works: IANA time `zone` and shifts, which do not overlap; by default one that lasts all day."""

    zone: str = "UTC"
    shifts: tuple[Shift, ...] = (Shift("day", "00:00", "00:00"),)


class Kpi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What figures are measured against. `planned_cycle_s`: planned time of a unit on a head, 0 = not said: then there
    is no effectiveness and no OEE; `planned_cycle_of`: the same for a part number. `setup_in_pbt`: a changeover counts
    as planned busy time.
    """

    planned_cycle_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    planned_cycle_of: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}
    setup_in_pbt: bool = False


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed production orders: `keys` by name, files of the public keys of who may sign them, relative to this file.
    `required`: no unit of a SKU without one is clean to ship.
    """

    keys: dict[Name, str] = {}
    required: bool = False


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job order shows on each station before a person releases it: so many units in a row that passed, and
    `golden_units` (serial numbers or EIDs) that passed after the changeover. 0 and none: no gate.
    """

    first_articles: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    golden_units: tuple[str, ...] = ()


class Mes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plant's MES, over the same broker. Without `enabled` the line works on imported job orders alone.

    `ack`: "required", the line keeps telling until the MES acknowledges; "off", told once the broker has it.
    `response_s`: how long after its end an order's response waits for units still in hand. `route_ms`: the deadline
    of a route check; what happens without an answer says the job order's `route_policy`.
    """

    enabled: bool = False
    ack: Literal["required", "off"] = "required"
    response_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    route_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 2000


class Sparkplug(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line as a Sparkplug B edge node, for SCADA to look at, over the same broker; needs the extra ifpp[sparkplug].

    `host`: id of the primary host application; the line is shown only while that says that it is online; "" waits for
    nobody. `scan_s`: how often is looked for changes; `deadband`: a real number that moved by less than this share of
    what was told last is not told.
    """

    enabled: bool = False
    host: Annotated[str, msgspec.Meta(pattern=r"^[^+/#\x00-\x1f\x7f]{0,64}$")] = ""
    scan_s: Seconds = 1.0
    deadband: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.001


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config/site.toml`: what all processes of one line share.

    `recipes`: folder of the recipe files job orders choose from, relative to this file; "" = every unit is loaded,
    verified and sealed.
    """

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
    reports: Reports = Reports()
    keys: Keys = Keys()
    calendar: Calendar = Calendar()
    kpi: Kpi = Kpi()
    gate: Gate = Gate()
    quota: Quota = Quota()
    mes: Mes = Mes()
    sparkplug: Sparkplug = Sparkplug()
    recipes: str = ""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One programming head. `port` is a URL (see deploy/MANUAL.md); `block_size` the STORE DATA block (6..255 bytes)
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
    `finish`: where the site has no recipe files, "seal" makes a unit clean to ship, "stock" leaves it open, so that
    its profiles can be replaced later.
    `dm_auth`: key deletion and lock carry the device maker's word, made with the chip key of [keys] (GENS13).
    """

    memory_factor: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    svn: Version = ""
    profile_version: Version = ""
    report_path: str = "factory"
    finish: Literal["seal", "stock"] = "seal"
    reseats: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    dm_auth: bool = False


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


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Packages kept at the station, to work while the store is away. Files are relative to the station file.

    `units`: so many chips' packages are kept ahead, 0 = none: of those listed in `eids` (a file of EIDs, one a line),
    else, for a job order of this station alone, of any of its chips. A package can be loaded for `lease_s` after it was
    fetched, less `margin_s`; no other station gets it meanwhile. `refresh_s`: how often the store is asked about them.
    """

    file: str = "cache.db"
    units: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    eids: str = ""
    lease_s: Annotated[float, msgspec.Meta(ge=60, le=6 * 24 * 3600)] = 24 * 3600.0
    margin_s: Seconds = 1800.0
    refresh_s: Seconds = 30.0


class Rsp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The way to SM-DP+ for recipes that download (SGP.22 ES9+).

    `tls_ca`: PEM file of who issues their TLS certificates, relative to the station file, "" = the CAs of this machine.
    `timeout_s`: for one call; `attempts`: sessions of one download, while network or server fail.
    """

    tls_ca: str = ""
    timeout_s: Seconds = 30.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where screens on this machine look into the station: a Unix `socket`, "" = nowhere; and the file of `people` who
    may act there, "" = nobody may. Both are relative to the station file. `idle_s`: who does nothing so long is logged
    out. `columns`: heads in a row, as on the fixture; 0: nearly a square. `serials`: regular expression of the serial
    numbers that people scan before they seat a unit, "" = they scan none.
    """

    socket: str = ""
    people: str = ""
    columns: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    idle_s: Seconds = 900.0
    serials: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.serials)
        except re.error as error:
            raise ValueError(f"`serials` is no regular expression: {error}") from error


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stations/<id>.toml`: one physical station. `tls`: how it shows itself to a store at https://; `keys`: those it
    uses itself; `metrics_port`, `metrics_host`: as the store's.
    """

    id: Name
    heads: dict[Name, Head]
    journal: str = "journal.db"
    metrics_port: Port = 0
    metrics_host: str = "127.0.0.1"
    deadlines: Deadlines = Deadlines()
    outbox: Outbox = Outbox()
    recipe: Recipe = Recipe()
    life: Life = Life()
    pcsc: Pcsc = Pcsc()
    cache: Cache = Cache()
    rsp: Rsp = Rsp()
    tls: Tls | None = None
    keys: Keys = Keys()
    window: Window = Window()


PersonRole = Literal["operator", "technician", "quality"]


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may act at a station. `badge`: hash of the badge's code, as `ifpp people add` writes it."""

    role: PersonRole
    badge: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class People(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config/people.toml`: the plant's people by name; `salt` belongs to the hashes."""

    salt: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    people: dict[Name, Person] = {}


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


T = TypeVar("T", bound=msgspec.Struct)


def load_site(path: Path) -> Site:
    """Read `config/site.toml`; raises SettingsError naming file, line and key."""
    return load_toml(path, Site)


def load_station(path: Path) -> Station:
    """Read `stations/<id>.toml`; raises SettingsError naming file, line and key."""
    station = load_toml(path, Station)
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
    return load_toml(path, Modems).models


def load_people(path: Path) -> People:
    """Read `config/people.toml`; raises SettingsError naming file, line and key."""
    return load_toml(path, People)


def load_toml(path: Path, kind: type[T]) -> T:
    """Read a TOML file of one kind; raises SettingsError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("SETTINGS.INVALID", f"cannot be read ({error})", where=str(path)) from error
    if "-----BEGIN " in text:
        line = text[: text.index("-----BEGIN ")].count("\n") + 1
        detail = "a key or certificate stands in it: put that into a file of its own and name the file"
        raise SettingsError("SETTINGS.INVALID", detail, where=f"{path}:{line}")
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
