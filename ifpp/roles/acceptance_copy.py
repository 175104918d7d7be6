"""The copy of a plant's line that is accepted: its settings, with every place where the plant itself would be touched
put somewhere else, and each such place told.

What is named in `_SITE` and `_STATION` is replaced; every other key of the plant's files is taken as it stands.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ifpp.bus.broker import free_port
from ifpp.errors import SettingsError
from ifpp.model.recipe import Recipe
from ifpp.recipes import RecipeBook, load_recipes
from ifpp.roles.runtime import beside
from ifpp.settings import Site, Station, load_site, load_station

_Table = dict[str, Any]

# Key of a settings file -> why the copy has something else there.
_SITE = {
    "broker.host": "the plant's broker is not spoken to",
    "broker.port": "the plant's broker is not spoken to",
    "broker.tls": "an own broker on this machine, without TLS",
    "store.url": "an own store on this machine",
    "store.host": "an own store on this machine",
    "store.port": "an own store on this machine",
    "store.tls": "an own store on this machine, without TLS",
    "store.database": "the plant's books are not opened",
    "store.metrics_port": "any free port",
    "store.metrics_host": "this machine only",
    "supervisor.metrics_port": "any free port",
    "supervisor.metrics_host": "this machine only",
    "trust": "simulated chips have a CI of their own",
    "courier": "nothing goes to the plant's partners",
    "reports.smdp": "reports go to a simulated SM-DPf",
    "keys": "fresh keys of its own; the plant's sign the acceptance report alone",
    "quota": "there is no production order of the plant's for simulated units",
    "gate": "nobody is there to release first articles",
    "mes": "the plant's MES is not spoken to",
    "sparkplug": "no SCADA host is spoken to",
    "recipes": "a copy of the plant's folder",
}
_STATION = {
    "journal": "the plant's journals are not opened",
    "metrics_port": "any free port",
    "metrics_host": "this machine only",
    "tls": "an own store and broker, without TLS",
    "keys": "fresh keys of its own",
    "pcsc": "the plant's readers are not used",
    "window": "nobody looks in",
    "cache.file": "the plant's cache is not opened",
    "cache.eids": "the chips are simulated ones",
    "rsp.tls_ca": "nothing is downloaded from the plant's SM-DP+",
    "life.contact_streak": "nobody is there to release a head",
    "life.fail_streak": "nobody is there to release a head",
    "life.worn_stops": "nobody is there to release a head",
    "recipe.finish": "only sealed units are judged",
}
_HEAD = {"port": "simulated chips", "lamp": "simulated chips"}


@dataclass(frozen=True, slots=True)
class Replaced:
    """One setting that is not the plant's: in which file, which key, what the plant has there, and why."""

    file: str
    key: str
    plant: str
    why: str


@dataclass(frozen=True, slots=True)
class Plant:
    """A plant's line as its files say it. `digests`: SHA-256 by file; `ports`: every TCP port the plant uses."""

    site_file: Path
    site: Site
    stations: dict[str, Station]
    recipes: RecipeBook
    tables: dict[str, _Table]
    digests: dict[str, str]
    ports: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def read(cls, site_file: Path, station_files: Sequence[Path]) -> Plant:
        """Read the files; raises SettingsError as their processes would, COMMAND.INVALID when they do not fit."""
        site = load_site(site_file)
        files = list(station_files) or sorted((site_file.resolve().parent.parent / "stations").glob("*.toml"))
        files = [path for path in files if path.name != "people.toml"]
        if not files:
            raise SettingsError("COMMAND.INVALID", "name the station files, stations/<id>.toml", where="STATION_FILES")
        stations = {path: load_station(path) for path in files}
        if len({one.id for one in stations.values()}) != len(files):
            raise SettingsError("COMMAND.INVALID", "two of the files are of one station", where="STATION_FILES")
        folder = beside(site_file, site.recipes) if site.recipes else None
        recipe_files = sorted(folder.glob("*.toml")) if folder is not None else []
        return cls(
            site_file,
            site,
            {one.id: one for one in stations.values()},
            RecipeBook() if folder is None else load_recipes(folder),
            {"site": _raw(site_file)} | {one.id: _raw(path) for path, one in stations.items()},
            {str(path): digest(path) for path in (site_file, *files, *recipe_files)},
            frozenset(_ports(site, stations.values())),
        )

    @property
    def untouched(self) -> bool:
        """Whether every file is as it was read."""
        return all(Path(path).is_file() and digest(Path(path)) == known for path, known in self.digests.items())

    def recipe(self, name: str) -> Recipe | None:
        """Return the recipe to accept with, None where the plant has none; raises SettingsError COMMAND.INVALID.

        The simulated fleet is loaded offline: a recipe that downloads is none to accept with.
        """
        known = {each.name: each for each in self.recipes if each.ships and not each.online}
        if not list(self.recipes) and not name:
            return None
        if name not in known and (name or len(known) != 1):
            detail = f"name one that loads and ends clean to ship: {', '.join(known) or 'the plant has none'}"
            raise SettingsError("COMMAND.INVALID", detail, where=f"--recipe {name}".rstrip())
        return known[name] if name else next(iter(known.values()))

    def give_recipes(self, folder: Path) -> None:
        """Copy the plant's recipes and the certificates beside them."""
        if self.site.recipes:
            folder.mkdir()
            plants = beside(self.site_file, self.site.recipes)
            for path in (*plants.glob("*.toml"), *plants.glob("*.pem")):
                shutil.copy(path, folder / path.name)

    def own_port(self) -> int:
        """Return a free port that the plant has no use for."""
        while (port := free_port()) in self.ports:
            pass
        return port

    def site_copy(self, own: Mapping[str, Any]) -> _Table:
        """Return the site's settings with `own` (dotted keys) in place of all that is replaced."""
        return _copy(self.tables["site"], _SITE, own)

    def station_copy(self, station: str, own: Mapping[str, Any], heads: Mapping[str, Mapping[str, str]]) -> _Table:
        """Return a station's settings likewise; `heads`: port and lamp of each head's simulated slot."""
        table = _copy(self.tables[station], _STATION, own)
        for name, places in heads.items():
            table["heads"][name] |= places
        return table

    def replaced(self) -> Iterator[Replaced]:
        """Give every setting of the plant's files that the copy does not have."""
        site = self.tables["site"]
        yield from (Replaced("site", key, _shown(value), why) for key, value, why in _found(site, _SITE))
        for station in self.stations:
            table = self.tables[station]
            yield from (Replaced(station, key, _shown(value), why) for key, value, why in _found(table, _STATION))
            for name, head in table["heads"].items():
                for key, value, why in _found(head, _HEAD):
                    yield Replaced(station, f"heads.{name}.{key}", _shown(value), why)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return sha256(path.read_bytes()).hexdigest()


def toml(table: _Table, name: str = "") -> str:
    """Write a table as TOML: what is plain first, then the tables in it."""
    plain = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    text = (f"[{name}]\n" if name else "") + "".join(f"{line}\n" for line in plain)
    for key, value in table.items():
        if isinstance(value, dict):
            text += "\n" + toml(value, f"{name}.{_key(key)}" if name else _key(key))
    return text


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and booleans look the same in TOML


def _raw(path: Path) -> _Table:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _ports(site: Site, stations: Iterable[Station]) -> Iterator[int]:
    yield from (site.broker.port, site.store.port, site.store.metrics_port, site.supervisor.metrics_port)
    for station in stations:
        yield station.metrics_port
        for head in station.heads.values():
            for url in (head.port, head.lamp):
                if url.startswith("tcp://") and url.rpartition(":")[2].isdigit():
                    yield int(url.rpartition(":")[2])


def _found(table: _Table, keys: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """Give what a file says at any of these keys."""
    for key, why in keys.items():
        place, _, last = key.rpartition(".")
        inner = table.get(place, {}) if place else table
        if last in inner:
            yield key, inner[last], why


def _copy(table: _Table, keys: Mapping[str, str], own: Mapping[str, Any]) -> _Table:
    copied: _Table = json.loads(json.dumps(table))  # a deep one; settings hold nothing that JSON has not
    for key, _, _ in list(_found(copied, keys)):
        place, _, last = key.rpartition(".")
        del (copied[place] if place else copied)[last]
    for key, value in own.items():
        if key not in keys:
            raise KeyError(key)
        place, _, last = key.rpartition(".")
        (copied.setdefault(place, {}) if place else copied)[last] = value
    return copied


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
