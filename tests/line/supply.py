"""A supplier for the intake tests: files of an EUM and an SM-DPf, and the same files with something changed."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ifpp.sim import documents
from ifpp.sim.documents import BoundPackage, JsonLinesWriter
from ifpp.sim.eum import Chip
from ifpp.sim.smdpf import SmDpf
from ifpp.trust.chain import TrustStore
from tests.sim.parties import Parties, stock

Line = dict[str, Any]
Change = Callable[[Line], None]


@dataclass(frozen=True)
class Supply:
    """Three chips with two one-time keys and a package each, as files; items stand in the order of chips and keys."""

    parties: Parties
    trust_store: TrustStore
    esed: Path
    delivery: Path

    @classmethod
    def make(cls, folder: Path) -> Supply:
        parties = Parties()
        chips = [parties.eum.issue(keys=2) for _ in range(3)]
        esed, delivery = folder / "batch.esed.jsonl", folder / "delivery.esbpp.jsonl"
        write_chips(esed, parties, chips)
        profiles = stock()
        packages = [
            parties.smdpf.bind(parties.item(chip, slot), profiles.take(), eum_chain=parties.eum.chain, ppk=bool(slot))
            for chip in chips
            for slot in (0, 1)
        ]
        write_delivery(delivery, packages, parties.smdpf)
        return cls(parties, TrustStore([parties.tree.ci.der]), esed, delivery)

    def deliver_again(self, path: Path) -> Path:
        """Write a delivery of one package for the key of the first: good by itself, bound by a forgetful SM-DPf."""
        first, chip = items_of(self.delivery)[0], items_of(self.esed)[0]
        forgetful = SmDpf(self.parties.tree.dppb, self.parties.tree.ci.der)
        item = documents.RequestItem(
            eid=first["eid"],
            otk_id=bytes.fromhex(first["otk_id"]),
            otk_public=point_of(base64.b64decode(chip["otk_list"]), bytes.fromhex(first["otk_id"])),
            euicc_certificate=base64.b64decode(chip["euicc_certificate"]),
            otk_list=base64.b64decode(chip["otk_list"]),
            info2_type=chip["info2"],
            profile_type=first["profile_type"],
            sku=first["sku"],
            region=first["region"],
        )
        package = forgetful.bind(item, stock(first_serial=900).take(), eum_chain=self.parties.eum.chain)
        write_delivery(path, [package], forgetful)
        return path


def write_chips(path: Path, parties: Parties, chips: list[Chip]) -> Path:
    info2 = {chips[0].record.info2_type: parties.eum.info2(chips[0])}
    records = [chip.record for chip in chips]
    documents.write_esed(path, records, batch_id=path.stem, eum_chain=parties.eum.chain, info2=info2)
    return path


def write_delivery(path: Path, packages: list[BoundPackage], smdpf: SmDpf) -> None:
    documents.write_delivery(
        path,
        packages,
        delivery_id=path.stem,
        request_id="request",
        order_ref="order",
        smdp_oid=smdpf.oid,
        smdp_chain=smdpf.chain,
    )


def point_of(otk_list: bytes, otk_id: bytes) -> bytes:
    """Cut the public point of one key out of a one-time-key list."""
    at = otk_list.index(b"\x5f\x49\x41", otk_list.index(otk_id)) + 3
    return otk_list[at : at + 65]


def items_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:-1]]


def rewritten(path: Path, target: Path, *, header: Change | None = None, items: Callable[[list[Line]], None]) -> Path:
    """Change a file's header or items and seal it again, so that only the content is wrong."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    first, rest = lines[0], lines[1:-1]
    if header is not None:
        header(first)
    items(rest)
    with JsonLinesWriter(target, first) as out:
        for line in rest:
            out.add(line)
    return target


def write_job(path: Path, **change: Any) -> Path:
    job: Line = {
        "job_order_id": "JO-1",
        "version": 1,
        "product": {"part_number": "SKU-1"},
        "region": "EU",
        "recipe": {"name": "tracker"},
        "quantity": 3,
    }
    documents.write_job_order(path, job | change)
    return path


def contents(database: Path) -> list[str]:
    """Return everything a SQLite database holds, table by table."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def now() -> datetime:
    return datetime.now(UTC)
