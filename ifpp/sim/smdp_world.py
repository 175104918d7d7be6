"""Everything an online download needs beside a station: an SM-DP+ behind HTTPS and chips without factory keys on slots.

Written into the folder, for the station's side: `ci.pem` (the CI of chips, SM-DP+ and its TLS certificate) and
`codes.txt` (one activation code a line); at the end `evidence.json`, what was issued and what came back. Keys are made
at every start and kept nowhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.sim import pki
from ifpp.sim.euicc import Euicc
from ifpp.sim.eum import Eum
from ifpp.sim.profiles import ProfileStock
from ifpp.sim.slots import Slot, SlotServer
from ifpp.sim.smdp_plus import SmdpPlus
from ifpp.sim.smdp_server import SmdpServer
from ifpp.sim.template import build_template

_HOST = "localhost"


class OnlineWorld:
    """`chips` on a slot each, `orders` of one profile each; `code` is their confirmation code, "" for none."""

    def __init__(
        self,
        folder: Path,
        *,
        chips: int,
        orders: int,
        code: str = "",
        profile_bytes: int = 30_000,
        apdu_ms: float = 5.0,
    ) -> None:
        tree = pki.Pki.create()
        tls = pki.below(tree.ci, replace(pki.DPTLS, hosts=(_HOST,)), pki.name_of("IFPP Sim SM-DP+", _HOST))
        eum = Eum(tree, seed=1)
        self._folder, self._orders, self._code, self._profile_bytes = folder, orders, code, profile_bytes
        self._ci = tree.ci.certificate.public_bytes(Encoding.PEM)
        self._chips = {f"h{number}": eum.issue(keys=0).card for number in range(1, chips + 1)}
        self._slots = {name: Slot(name, apdu_ms) for name in self._chips}
        self._doors = SlotServer(self._slots)
        self.smdp = SmdpPlus.create(tree)
        self._server = SmdpServer(self.smdp, tls)

    @property
    def urls(self) -> dict[str, str]:
        """Port of each chip by the name of its slot."""
        return self._doors.urls

    async def start(self, port: int = 0) -> str:
        """Serve, write what the station needs, and return the address of the SM-DP+; raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        address = await self._server.start(port)
        await self._doors.start()
        for name, slot in self._slots.items():
            slot.seat(Euicc(self._chips[name]))
        stock = ProfileStock(
            "online",
            [build_template(self._profile_bytes, seed=1)],
            provider="IFPP Sim",
            iccid_prefix="8988247",
            imsi_prefix="00101",
            first_serial=1,
        )
        names = [f"SIM-{number:04d}" for number in range(1, self._orders + 1)]
        for name in names:
            self.smdp.release(name, stock.take(), code=self._code)
        flag = "$$1" if self._code else ""
        (self._folder / "ci.pem").write_bytes(self._ci)
        (self._folder / "codes.txt").write_text("".join(f"1${address}${name}{flag}\n" for name in names))
        return address

    async def stop(self) -> None:
        """Serve no more and write the evidence."""
        self._doors.stop()
        await self._server.stop()
        self.smdp.write_evidence(self._folder / "evidence.json")
