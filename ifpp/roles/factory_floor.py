"""The processes of one line on one machine, every one real, every chip simulated: each is started on its own.

The broker, the store and the supervisor serve the loopback on ports that stay theirs, so any of them may end and be
started again; so may a station. Chips and robots are the physical world: they are started once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from ifpp.bus.broker import BrokerKind, DemoBroker, free_port, start_demo_broker
from ifpp.errors import IntakeError, ServiceError
from ifpp.model.clock import SystemClock
from ifpp.roles.children import Child, Children
from ifpp.roles.demo_keys import DemoKeys, KeysKind
from ifpp.roles.demo_recipe import give
from ifpp.roles.people import write_people
from ifpp.roles.virtual_readers import VirtualReaders
from ifpp.settings import People, Person
from ifpp.sim.doors import Ports
from ifpp.sim.esbpp import PUBLIC_FILE
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.world import WorldSummary
from ifpp.station.look import owed_notices
from ifpp.trust.people import badge_hash, new_salt

LINE = "L1"
STORE, SUPERVISOR, MES, SMDP_PLUS = "store", "supervisor", "mes", "smdp-plus"
_SETTLE_S = 60.0
_TELL_S = 90.0  # a station leaves a notification to its head at first, and looks for others every now and then
_SOCKET_PATH = 108  # bytes of a Unix socket's path with its end, unix(7)


class FactoryFloor:
    """One line in `folder`: stations `stations` with `heads` heads each; a chip takes `apdu_ms` for a command.

    `supervisor_extra` are lines for the table [supervisor] of the site, `station_extra` tables for each station,
    `fleet_extra` options of `ifpp sim fleet`; `encrypt_deliveries`: the SM-DPf sends envelopes for the
    transport key; `mes`: the job orders come from `ifpp sim mes`, with the options `mes_extra`, and not from files;
    `recipe_file`: the recipe they choose.
    """

    supervisor_extra = ""
    # The robot cannot release a head, and faulty units may follow each other: no head is quarantined.
    station_extra = "\n[life]\ncontact_streak = 0\nfail_streak = 0\n"
    fleet_extra: Sequence[str] = ()
    encrypt_deliveries = False
    mes = False
    mes_extra: Sequence[str] = ()
    recipe_file: Path | None = None

    def __init__(
        self,
        folder: Path,
        stations: Sequence[str],
        *,
        heads: int,
        apdu_ms: float,
        broker: BrokerKind | None,
        ports: Ports = Ports.TCP,
        modem: str = "plain",
        keys: KeysKind = KeysKind.SOFTWARE,
    ) -> None:
        self.folder = folder
        self.stations = list(stations)
        self.heads = heads
        self.apdu_ms = apdu_ms
        self.keys = DemoKeys(folder, keys)
        self.children = Children(folder / "logs", self.command, self.keys.environment)
        self.fleets: dict[str, Child] = {}
        self.broker: DemoBroker | None = None
        self._ports = ports
        self._modem = modem
        self._readers: dict[str, VirtualReaders] = {}
        self._sockets = Path(tempfile.mkdtemp(prefix="ifpp-"))
        self.badge = f"DEMO-{token_hex(4).upper()}"
        self._broker_kind = broker
        self._broker_port = free_port()
        self._smdpf_port = free_port()
        self._site_file = folder / "config" / "site.toml"

    def command(self, _name: str) -> list[str]:
        """Return the words that start ifpp for a process of this name."""
        return [sys.executable, "-m", "ifpp"]

    def journal(self, station: str) -> Path:
        """Where a station keeps its journal."""
        return self.folder / "stations" / f"{station}.journal.db"

    @property
    def database(self) -> str:
        """The URL of the factory database."""
        return f"sqlite:///{self.folder.resolve() / 'factory.db'}"

    # ---- beginning and end ------------------------------------------------------------------------

    async def open(self, world: WorldSummary) -> None:
        """Start everything else in order once the broker runs; returns when all serve. `close` also when it raises."""
        self._write_site(world, free_port())
        await self._make_keys()
        await self._import(world)
        if world.smdp_plus:
            self.station_extra += f'\n[rsp]\ntls_ca = "{world.ci.with_suffix(".pem").resolve()}"\n'
            await (await self.start_smdp_plus(world)).wait_ready()
        for station in self.stations:
            self.fleets[station] = await self.start_fleet(world, station)
        services = [await self.start(STORE), await self.start(SUPERVISOR)]
        await asyncio.gather(*(child.wait_ready() for child in [*self.fleets.values(), *services]))
        stations = []
        for station in self.stations:
            self._write_station(station, self.fleets[station].facts["heads"][station])
            stations.append(await self.start(station))
        await asyncio.gather(*(child.wait_ready() for child in stations))

    async def close(self) -> None:
        """End everything that runs, the newest first, the broker last."""
        await self.children.stop_all()
        if self.broker is not None:
            await self.broker.stop()
        for readers in self._readers.values():
            await asyncio.to_thread(readers.stop)
        shutil.rmtree(self._sockets, ignore_errors=True)

    async def start(self, name: str) -> Child:
        """Start the store, the supervisor or a station, for the first time or again; it is not ready yet."""
        arguments = {STORE: ["store", "serve"], SUPERVISOR: ["supervisor", "run"]}.get(name)
        if arguments is None:
            arguments = ["station", "run", str(self.station_file(name))]
        return await self.children.start_ifpp(name, *arguments, *self._config)

    async def start_broker(self) -> DemoBroker:
        """Start the broker, for the first time or again; returns when it accepts connections."""
        folder, clock = self.folder / "broker", SystemClock()
        self.broker = await start_demo_broker(folder, self._broker_port, clock, kind=self._broker_kind)
        return self.broker

    async def start_fleet(self, world: WorldSummary, station: str) -> Child:
        """Start chips and robot of one station; what became of them is written to `fleet-<station>.json`."""
        folder, name = self._sockets / station, f"fleet-{station}"
        folder.mkdir()
        words = [*self.command(name), "sim", "fleet", str(world.directory), "--station", station]
        words += ["--heads", str(self.heads), "--apdu-ms", str(self.apdu_ms), "--out", str(self.fleet_file(station))]
        words += ["--ports", self._ports, "--folder", str(folder), "--modem", self._modem, *self.fleet_extra]
        if number := self._ports.readers(self.heads):
            readers = self._readers[station] = VirtualReaders(number, folder / "pcscd")
            await asyncio.to_thread(readers.start)
            listing = folder / "readers.json"
            listing.write_text(json.dumps(dict(zip(readers.readers, readers.addresses, strict=True))))
            words = readers.command(*words, "--readers", str(listing))
        return await self.children.start(name, *words)

    def readers(self, station: str) -> VirtualReaders:
        """The virtual readers of a station; raises KeyError when it has none."""
        return self._readers[station]

    def fleet_file(self, station: str) -> Path:
        """Where the fleet of a station writes what became of its units."""
        return self.folder / f"fleet-{station}.json"

    async def _import(self, world: WorldSummary) -> None:
        deliveries = await self._encrypted(world) if self.encrypt_deliveries else world.deliveries
        known = () if world.esed is None else (world.esed, world.travellers)  # a traveller names a chip of the books
        files = map(str, [*known[:1], *deliveries, *known[1:], *(() if self.mes else world.job_orders)])
        child = await self.children.start_ifpp("import", "store", "import", *files, *self._config)
        if await child.process.wait():
            raise IntakeError("INTAKE.REJECTED", child.log.read_text(errors="replace").strip(), where="demo")

    async def _encrypted(self, world: WorldSummary) -> list[Path]:
        """Let the SM-DPf encrypt its deliveries for the transport key."""
        public, out = self._site_file.parent / "transport.pub", world.directory / "encrypted"
        deliveries = [str(path) for path in world.deliveries]
        for words in (
            ["keys", "public", "transport.1", str(public), *self._config],
            ["sim", "encrypt", *deliveries, "--key", str(public), "--out", str(out)],
        ):
            child = await self.children.start_ifpp("keys", *words)
            if await child.process.wait():
                raise child.death("the deliveries could not be encrypted")
        return [out / f"{path.name}.envelope" for path in world.deliveries]

    async def _make_keys(self) -> None:
        """Hold the ceremony, and write the key that auditors check with to `config/audit.pub`."""
        if self.keys.kind is KeysKind.NONE:
            return
        await asyncio.to_thread(self.keys.prepare)
        public = str(self._site_file.parent / "audit.pub")
        for words in (["init", "--by", "demo", "--reason", "a new line"], ["public", "audit.1", public]):
            child = await self.children.start_ifpp("keys", "keys", *words, *self._config)
            if await child.process.wait():
                raise child.death("the keys could not be made")

    async def start_smdp_plus(self, world: WorldSummary) -> Child:
        """Start the SM-DP+ the world's activation codes name; it is not ready yet."""
        words = ["sim", "smdp-plus", str(self.evidence_file.parent), "--world", str(world.directory)]
        return await self.children.start_ifpp(SMDP_PLUS, *words)

    async def start_mes(self, world: WorldSummary) -> Child:
        """Start the MES of the line; returns when it is connected."""
        words = ["sim", "mes", str(world.directory), "--broker", f"127.0.0.1:{self._broker_port}"]
        words += ["--base", f"ifpp1/demo/laptop/hall/{LINE}", "--out", str(self.mes_file), *self.mes_extra]
        child = await self.children.start_ifpp(MES, *words)
        await child.wait_ready()
        return child

    @property
    def evidence_file(self) -> Path:
        """Where the SM-DP+ writes at its end what it issued and what came back."""
        return self.folder / SMDP_PLUS / "evidence.json"

    @property
    def mes_file(self) -> Path:
        """Where the MES writes what it was told."""
        return self.folder / "mes.json"

    # ---- while it runs ----------------------------------------------------------------------------

    async def settled(self, wait_s: float = _SETTLE_S) -> None:
        """Wait until every station's outbox is empty: the supervisor has acknowledged all there is.

        Raises ServiceError HOST.TIMEOUT.
        """
        end = time.monotonic() + wait_s
        for station in self.stations:
            child = self.children[station]
            while outbox_depth(await self.metrics(child)):
                if time.monotonic() > end:
                    detail = f"{station} still has unacknowledged events"
                    raise ServiceError("HOST.TIMEOUT", detail, where=str(child.log))
                await asyncio.sleep(0.2)

    @property
    def owed(self) -> int:
        """Notifications that stations still owe to SM-DP+."""
        return sum(len(owed_notices(self.journal(station))) for station in self.stations)

    async def told(self, wait_s: float = _TELL_S) -> None:
        """Wait until SM-DP+ have what is owed to them, so long at most: who still owes something is in the account."""
        end = time.monotonic() + wait_s
        while await asyncio.to_thread(lambda: self.owed):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.5)

    async def metrics(self, child: Child) -> str:
        """Scrape a process and keep the answer beside its log."""
        text = await asyncio.to_thread(scrape, int(child.facts["metrics_port"]))
        child.log.with_suffix(".prom").write_text(text, encoding="utf-8")
        return text

    async def write_reports(self) -> Path:
        """Write the Profile Loading Reports; returns their folder."""
        folder = self.folder / "reports"
        child = await self.children.start_ifpp("report", "report", "plr", str(folder), *self._config)
        if await child.process.wait():
            raise child.death("the Profile Loading Reports could not be written")
        return folder

    async def deliver_reports(self, world: WorldSummary, folder: Path) -> None:
        """Let the SM-DPf take the reports and answer; without keys nothing is signed and nothing goes out.

        An SM-DP+ hears of its activation codes from the chips themselves.
        """
        if self.keys.kind is KeysKind.NONE or world.smdp_plus:
            return
        public = self._site_file.parent / "report.pub"
        child = await self.children.start_ifpp("keys", "keys", "public", "report.1", str(public), *self._config)
        if await child.process.wait():
            raise child.death("the key of the reports could not be told")
        words = ["sim", "smdpf", str(world.directory), "--key", str(public), "--port", str(self._smdpf_port)]
        smdpf = await self.children.start_ifpp("smdpf", *words)
        await smdpf.wait_ready()
        child = await self.children.start_ifpp("deliver", "report", "deliver", str(folder), *self._config)
        if await child.process.wait():
            raise child.death("the Profile Loading Reports could not be delivered")

    # ---- settings ---------------------------------------------------------------------------------

    @property
    def _config(self) -> list[str]:
        return ["--config", str(self._site_file)]

    def socket(self, station: str) -> Path:
        """Where screens look into a station: beside its file, unless that path is too long for a socket."""
        beside = self.station_file(station).with_name(f"{station}.sock").resolve()
        return beside if len(os.fsencode(beside)) < _SOCKET_PATH else self._sockets / beside.name

    def station_file(self, station: str) -> Path:
        """The settings of a station."""
        return self.folder / "stations" / f"{station}.toml"

    def _write_site(self, world: WorldSummary, store_port: int) -> None:
        trust = self._site_file.parent / "trust"
        trust.mkdir(parents=True)
        shutil.copy(world.ci, trust / "ci.der")
        if self.recipe_file is not None:
            give(self.recipe_file, self._site_file.parent / "recipes")
        self._site_file.write_text(
            f"""enterprise = "demo"
site = "laptop"
area = "hall"
line = "{LINE}"
recipes = "{"recipes" if self.recipe_file else ""}"

[broker]
port = {self._broker_port}

[store]
url = "http://127.0.0.1:{store_port}"
port = {store_port}
database = "{self.database}"

[trust]
roots = "trust"

{"" if world.smdp_plus else self._reports_table(world.directory / "smdpf")}
[supervisor]
{self.supervisor_extra}
{self.keys.table}
[mes]
enabled = {str(self.mes).lower()}
response_s = 1.0
""",
            encoding="utf-8",
        )

    def _reports_table(self, smdpf: Path) -> str:
        return f"""[reports.smdp."{SmDpf.load(smdpf).oid}"]
url = "http://127.0.0.1:{self._smdpf_port}/reports"
key = "{(smdpf / PUBLIC_FILE).resolve()}"
"""

    def _write_station(self, station: str, heads: dict[str, dict[str, str]]) -> None:
        path, journal = self.station_file(station), self.journal(station)
        for folder in (path.parent, journal.parent):
            folder.mkdir(parents=True, exist_ok=True)
        lines = [f'id = "{station}"', f'journal = "{journal.resolve()}"']
        for head, place in heads.items():
            lines += ["", f"[heads.{head}]", f'port = "{place["port"]}"', f'lamp = "{place["lamp"]}"']
        if readers := self._readers.get(station):
            lines += ["", "[pcsc]", f'socket = "{readers.socket}"']
        people = path.parent / "people.toml"
        if not people.exists():
            somebody = Person("technician", badge_hash(self.badge, salt := new_salt()))
            write_people(people, People(salt, {"demo": somebody}))
        lines += ["", "[window]", f'socket = "{self.socket(station)}"', 'people = "people.toml"']
        path.write_text("\n".join(lines) + f"\n{self.station_extra}\n{self.keys.table}", encoding="utf-8")


def scrape(metrics_port: int) -> str:
    """Read the metrics of a process of ours."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def outbox_depth(metrics: str) -> int:
    """Events of a station that wait for their acknowledgement, by its own metrics."""
    lines = (line for line in metrics.splitlines() if line.startswith("ifpp_outbox_depth{"))
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)
