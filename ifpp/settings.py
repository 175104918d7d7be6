"""Settings: `config/site.toml` and `stations/<id>.toml` become frozen values; an unknown key is an error.

Times are seconds, sizes bytes, ports TCP port numbers. No setting holds a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from ifpp.errors import SettingsError

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The MQTT broker. `prefix` is the first topic level (product and contract major)."""

    host: str = "127.0.0.1"
    port: Port = 1883
    prefix: Name = "ifpp1"


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factory profile store: where it listens, where stations reach it, and its database."""

    url: str = "http://127.0.0.1:8470"
    host: str = "127.0.0.1"
    port: Port = 8470
    database: str = "sqlite:///factory.db"


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


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config/site.toml`: what all processes of one line share."""

    enterprise: Name
    site: Name
    area: Name
    line: Name
    broker: Broker = Broker()
    store: Store = Store()
    supervisor: Supervisor = Supervisor()
    trust: Trust = Trust()


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One programming head. `port` is a URL (see README); `block_size` the STORE DATA block (6..255 bytes).

    `lamp`: URL of the lamp where the reader has none of its own (tcp://host:port, unix:///path), "" = no lamp.
    """

    port: str
    lamp: str = ""
    block_size: Annotated[int, msgspec.Meta(ge=6, le=255)] = 255
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
    """What a station does with a chip after the load.

    `memory_factor`: free memory wanted, as a multiple of the package; `report_path`: "factory" removes the result
    from the chip once it is stored here, "device" leaves it for the device to report in the field.
    """

    memory_factor: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    report_path: str = "factory"
    reseats: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2


class Pcsc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pcscd this station's readers hang on: `socket` is the path of its socket, "" = where the library looks.

    One pcscd serves at most 16 readers and one process talks to one pcscd: a station has at most 16 PC/SC heads.
    """

    socket: str = ""


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stations/<id>.toml`: one physical station."""

    id: Name
    heads: dict[Name, Head]
    journal: str = "journal.db"
    metrics_port: Port = 0
    deadlines: Deadlines = Deadlines()
    outbox: Outbox = Outbox()
    recipe: Recipe = Recipe()
    pcsc: Pcsc = Pcsc()


T = TypeVar("T", Site, Station)


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
    return station


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
