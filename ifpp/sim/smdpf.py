"""The factory subscription manager (SM-DPf): binds profiles to one-time keys, keeps its orders, judges reports.

Each binding takes a fresh otPK.DP (perfect forward secrecy), a random transactionId and, in random-key mode, fresh
profile protection keys; one one-time key is bound once. The verdict on an installation is this party's: it verifies the
chip's signature over the result, up to the CI root, and compares it with the order (SGP.41 DPFF05-DPFF10).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ifpp.sim import binder, bsp, evidence, pki
from ifpp.sim.card_file import write_private
from ifpp.sim.documents import BoundPackage, ReportItem, Request, RequestItem, read_report
from ifpp.sim.profiles import Profile, ProfileStock, iccid_swapped
from ifpp.sim.tlv import parse_one, read_bits

INSTALLED = "installed"
_HOST_ID = b"IFPPDPF1"
_FQDN = "smdpf.example"
_KEY_FILE = "dppb.pem"
_ORDERS_FILE = "orders.json"
_ADDITIONAL_PROFILE = 0


@dataclass(slots=True)
class Order:
    """One binding this SM-DPf made, and what became of it; identifiers are hex, certificates base64 DER."""

    transaction_id: str
    eid: str
    otk_id: str
    iccid: str
    euicc_certificate: str
    eum_chain: list[str]
    result: str = ""  # "", INSTALLED, or "refused by the chip: (command, reason)"
    pirs: list[str] = field(default_factory=list)  # SHA-256 of the results taken, hex
    deleted: str = ""  # "", or whose word it is that the profile left the chip: "the chip's", "the factory's"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A requested item this SM-DPf does not serve, with the reason in words."""

    item: RequestItem
    reason: str


@dataclass(frozen=True, slots=True)
class VerifiedItem:
    """A report line whose result proves itself."""

    item: ReportItem
    installation: evidence.Installation


@dataclass(frozen=True, slots=True)
class ReportVerdict:
    """What a Profile Loading Report is worth: `unsigned` lines carry no result of a chip and prove nothing."""

    verified: tuple[VerifiedItem, ...]
    refused: tuple[tuple[ReportItem, str], ...]
    unsigned: tuple[ReportItem, ...]

    @property
    def installed(self) -> int:
        """How many profiles are proven to be on their chips."""
        return sum(entry.installation.installed for entry in self.verified)


class SmDpf:
    """One SM-DPf: its CERT.DPpb and key, the CI root it trusts (DER), its orders by transactionId (hex)."""

    def __init__(self, holder: pki.Holder, ci: bytes) -> None:
        self._holder = holder
        self._ci = ci
        self._sign = partial(pki.sign_raw, holder.key)
        self._bound: set[tuple[str, str]] = set()
        self._last_seq: dict[str, int] = {}
        self.orders: dict[str, Order] = {}
        self.oid = _registered_id(holder.certificate)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """CERT.DPpb, up to but excluding the CI root (DER)."""
        return (self._holder.der,)

    def fulfil(
        self, request: Request, stocks: Mapping[str, ProfileStock], *, ppk: bool | None = None
    ) -> Iterator[BoundPackage | Refusal]:
        """Serve a request item by item; `ppk` None takes session-key and random-key mode in turn.

        A refused item takes no profile from the stock. Delivery order is request order.
        """
        for number, item in enumerate(request.items):
            try:
                self._eligible(item, request)
            except ValueError as error:
                yield Refusal(item, str(error))
                continue
            stock = stocks.get(item.profile_type)
            if stock is None:
                yield Refusal(item, f"no profiles of type {item.profile_type}")
                continue
            mode = bool(number % 2) if ppk is None else ppk
            yield self.bind(item, stock.take(), eum_chain=request.eum_chain, ppk=mode)

    def bind(
        self,
        item: RequestItem,
        profile: Profile,
        *,
        eum_chain: Sequence[bytes],
        ppk: bool = False,
        metadata: bytes | None = None,
        expires_at: str = "",
    ) -> BoundPackage:
        """Bind one profile to the item's chip and key, without looking at the item's evidence.

        `metadata` replaces the StoreMetadataRequest (BF25) made from the profile. Raises ValueError when this
        one-time key was bound before (GENS08) or is no point of the curve.
        """
        key_name = (item.eid, item.otk_id.hex())
        if key_name in self._bound:
            raise ValueError(f"one-time key {item.otk_id.hex()} of {item.eid} is bound already")
        target = binder.BindingTarget(item.eid, item.otk_public)
        transaction_id = secrets.token_bytes(16)
        bpp = binder.bind(
            target,
            profile.upp,
            metadata or _metadata(profile),
            dp_one_time=ec.generate_private_key(self._holder.key.curve),
            transaction_id=transaction_id,
            host_id=_HOST_ID,
            sign=self._sign,
            ppk=_fresh_ppk() if ppk else None,
        )
        prepare = binder.prepare_download(target, transaction_id, self._holder.der, self._sign)
        self._bound.add(key_name)
        self._note_order(item, profile.iccid, transaction_id, eum_chain)
        return BoundPackage(
            eid=item.eid,
            otk_id=item.otk_id,
            transaction_id=transaction_id,
            iccid=profile.iccid,
            profile_type=profile.profile_type,
            sku=item.sku,
            region=item.region,
            prepare_download=prepare,
            bpp=bpp,
            expires_at=expires_at,
        )

    def verify_report(self, path: Path) -> ReportVerdict:
        """Judge every line of a Profile Loading Report and note the verified results with their orders.

        Reading the same report again gives the same verdict. Raises ValueError when the file is not whole or not for
        this SM-DPf.
        """
        smdp_oid, items = read_report(path)
        if smdp_oid != self.oid:
            raise ValueError(f"{path.name} is for {smdp_oid}, not for {self.oid}")
        verified, refused, unsigned = [], [], []
        for item in items:
            try:
                order = self._order_of(item)
                if item.pir is None:
                    unsigned.append(item)
                    continue
                said = self._judge(order, item.pir)
                if item.deleted_at:
                    self._judge_deletion(order, item.deletion)
                verified.append(VerifiedItem(item, said))
            except evidence.EvidenceError as error:
                refused.append((item, str(error)))
        return ReportVerdict(tuple(verified), tuple(refused), tuple(unsigned))

    def save(self, directory: Path) -> None:
        """Keep key, certificates and orders in a directory (mode 0700, files 0600)."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = self._holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(directory / _KEY_FILE, pem)
        document = {
            "certificate": _b64(self._holder.der),
            "ci": _b64(self._ci),
            "last_seq": self._last_seq,
            "orders": [asdict(order) for order in self.orders.values()],
        }
        write_private(directory / _ORDERS_FILE, json.dumps(document, indent=1).encode())

    @classmethod
    def load(cls, directory: Path) -> SmDpf:
        """Take up the work of a saved SM-DPf; raises OSError, ValueError, TypeError or KeyError if it is not one."""
        document = json.loads((directory / _ORDERS_FILE).read_bytes())
        key = load_pem_private_key((directory / _KEY_FILE).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{_KEY_FILE} holds another kind of key")
        certificate = x509.load_der_x509_certificate(base64.b64decode(document["certificate"]))
        loaded = cls(pki.Holder(key, certificate), base64.b64decode(document["ci"]))
        loaded._last_seq.update(document["last_seq"])
        for order in (Order(**entry) for entry in document["orders"]):
            loaded.orders[order.transaction_id] = order
            loaded._bound.add((order.eid, order.otk_id))
        return loaded

    def _eligible(self, item: RequestItem, request: Request) -> None:
        """Check the chip's data (DPFF09, DPFF10); raises ValueError with the reason."""
        key = evidence.euicc_key(item.euicc_certificate, request.eum_chain, self._ci, item.eid)
        listed = evidence.one_time_keys(item.otk_list, key, item.eid)
        if listed.get(item.otk_id) != item.otk_public:
            raise ValueError("the one-time key is not in the chip's list")
        if (item.eid, item.otk_id.hex()) in self._bound:
            raise ValueError("the one-time key is bound already")
        info2 = parse_one(request.info2.get(item.info2_type, b""), 0xBF22)
        trusted = {node.value for node in info2.need(0xA9).children()}
        issuer = self._holder.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        if issuer.value.key_identifier not in trusted:
            raise ValueError("the chip does not trust this SM-DPf's CI")
        if _ADDITIONAL_PROFILE not in read_bits(info2.need(0x88).value):
            raise ValueError("the chip takes no additional profile")

    def _note_order(self, item: RequestItem, iccid: str, transaction_id: bytes, eum_chain: Sequence[bytes]) -> None:
        chain = [_b64(certificate) for certificate in eum_chain]
        name = transaction_id.hex()
        self.orders[name] = Order(name, item.eid, item.otk_id.hex(), iccid, _b64(item.euicc_certificate), chain)

    def _order_of(self, item: ReportItem) -> Order:
        order = self.orders.get(item.transaction_id.hex())
        if order is None:
            raise evidence.EvidenceError("no such order")
        if (item.eid, item.iccid) != (order.eid, order.iccid):
            raise evidence.EvidenceError("EID or ICCID is not the order's")
        return order

    def _judge(self, order: Order, pir: bytes) -> evidence.Installation:
        """Verify one result against its order and note it; a result noted before is accepted again."""
        said = evidence.installation(pir, self._chip_key(order))
        if said.transaction_id.hex() != order.transaction_id:
            raise evidence.EvidenceError("the result is of another transaction")
        if said.smdp_oid != self.oid:
            raise evidence.EvidenceError("the result is for another SM-DPf")
        if said.iccid is not None and said.iccid != iccid_swapped(order.iccid):
            raise evidence.EvidenceError("the result is of another profile")
        self._take(order, said, hashlib.sha256(pir).hexdigest())
        return said

    def _judge_deletion(self, order: Order, notification: bytes | None) -> None:
        """Verify the chip's word that a profile was deleted and note it; without one it is the factory's word alone."""
        if order.result != INSTALLED:
            raise evidence.EvidenceError("what was never installed cannot be deleted")
        if notification is None:
            order.deleted = order.deleted or "the factory's"
            return
        if evidence.deletion(notification, self._chip_key(order)) != iccid_swapped(order.iccid):
            raise evidence.EvidenceError("the deletion is of another profile")
        order.deleted = "the chip's"

    def _chip_key(self, order: Order) -> ec.EllipticCurvePublicKey:
        chain = [base64.b64decode(text) for text in order.eum_chain]
        return evidence.euicc_key(base64.b64decode(order.euicc_certificate), chain, self._ci, order.eid)

    def _take(self, order: Order, said: evidence.Installation, digest: str) -> None:
        """Note a verified result once; raises EvidenceError for one that cannot follow those taken before."""
        if digest in order.pirs:
            return
        if said.seq_number <= self._last_seq.get(order.eid, -1):
            raise evidence.EvidenceError("the result is older than one already taken")
        if order.result == INSTALLED:
            raise evidence.EvidenceError("the order is already installed")
        self._last_seq[order.eid] = said.seq_number
        order.pirs.append(digest)
        order.result = INSTALLED if said.installed else f"refused by the chip: ({said.command}, {said.reason})"


def _metadata(profile: Profile) -> bytes:
    return binder.store_metadata(
        iccid_swapped(profile.iccid), profile.provider, profile.profile_type, fqdn=_FQDN, mcc_mnc=profile.mcc_mnc
    )


def _fresh_ppk() -> bsp.SessionKeys:
    return bsp.SessionKeys(secrets.token_bytes(16), secrets.token_bytes(16), secrets.token_bytes(16))


def _registered_id(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.RegisteredID)[0].dotted_string


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
