"""The SM-DPf's door for Profile Loading Reports (SGP.41, Esbpp): PUT /reports/<report id>.

A report is taken when a key of the factory signed it, judged item by item by the SM-DPf's own means, and answered
with an acknowledgement signed by a key made for that. The same report gets the same answer again; another one under
its id is refused. It can be told to misbehave (`Mood`), for tests of the other side.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ifpp.sim import pki
from ifpp.sim.card_file import write_private
from ifpp.sim.documents import ReportItem
from ifpp.sim.evidence import verify_raw
from ifpp.sim.smdpf import SmDpf

_KEY_FILE = "acknowledge.pem"
PUBLIC_FILE = "acknowledge.pub"
_MAX_REPORT_BYTES = 1 << 30
_REQUEST_S = 60.0


class Mood(Enum):
    """How the door behaves."""

    SOUND = auto()
    SILENT = auto()  # takes the report and never answers
    BROKEN = auto()  # 503
    PROMISING = auto()  # 202: the answer comes later
    REFUSING = auto()  # refuses every item
    CUT = auto()  # the acknowledgement ends in the middle
    FORGED = auto()  # one byte of it is another
    UNSIGNED = auto()
    STALE = auto()  # always says what it said of the first report
    PARTIAL = auto()  # leaves the last item out


@dataclass(frozen=True, slots=True)
class _Said:
    sha256: str
    document: bytes
    signature: bytes


class ReportDoor:
    """One SM-DPf taking reports over HTTP on the loopback, with `tls` over HTTPS; `mood` may change while it serves."""

    def __init__(
        self, directory: Path, factory_keys: Sequence[bytes], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.smdpf = SmDpf.load(directory)
        self.mood = Mood.SOUND
        self.requests = 0
        self._key = _acknowledgement_key(directory)
        self._factory_keys = [_public(pem) for pem in factory_keys]
        self._said: dict[str, _Said] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"door": self}))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/reports"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in a thread until `stop`."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, report_id: str, body: Path, key_id: str, signature: str) -> tuple[int, bytes, bytes]:
        """Judge one report; returns HTTP status, body and signature."""
        self.requests += 1
        if self.mood is Mood.SILENT:
            self._ended.wait()
        with self._lock:
            if self.mood is Mood.BROKEN:
                return 503, b"out of order", b""
            digest = hashlib.sha256(body.read_bytes()).hexdigest()
            try:
                said = self._answer(report_id, body, digest, key_id, signature)
            except (ValueError, KeyError) as error:
                return 422, str(error).encode(), b""
            if said.sha256 != digest:
                return 409, b"another report has this id", b""
            return self._moody(said)

    def _moody(self, said: _Said) -> tuple[int, bytes, bytes]:
        document, signature = said.document, said.signature
        if self.mood is Mood.PROMISING:
            return 202, b"", b""
        if self.mood is Mood.CUT:
            document = document[: len(document) // 2]
        if self.mood is Mood.FORGED:
            document = document.replace(b'"verified"', b'"noted"', 1)
            document = _sealed(document.splitlines(keepends=True)[:-1])
        if self.mood is Mood.UNSIGNED:
            signature = b""
        if self.mood is Mood.STALE:
            first = next(iter(self._said.values()))
            document, signature = first.document, first.signature
        return 200, document, signature

    def _answer(self, report_id: str, body: Path, digest: str, key_id: str, signature: str) -> _Said:
        """What was said of this report before, or the verdict on a new one; raises ValueError for no report of ours."""
        if report_id in self._said:
            return self._said[report_id]
        self._verify(report_id, digest, key_id, signature)
        header = json.loads(body.read_bytes().split(b"\n", 1)[0])
        if header.get("report_id") != report_id:
            raise ValueError("the report has another id")
        verdict = self.smdpf.verify_report(body)
        words: list[tuple[ReportItem, str, str]] = [(one.item, "verified", "") for one in verdict.verified]
        words += [(item, "noted", "") for item in verdict.unsigned]
        words += [(item, "refused", reason) for item, reason in verdict.refused]
        if self.mood is Mood.REFUSING:
            words = [(item, "refused", "told to refuse") for item, _, _ in words]
        if self.mood is Mood.PARTIAL:
            words = words[:-1]
        document = self._document(report_id, digest, words)
        signed = pki.sign_raw(self._key, _statement("ifpp.plr-ack", report_id, hashlib.sha256(document).hexdigest()))
        self._said[report_id] = _Said(digest, document, signed)
        return self._said[report_id]

    def _verify(self, report_id: str, digest: str, key_id: str, signature: str) -> None:
        for key in self._factory_keys:
            spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            if hashlib.sha256(spki).hexdigest() == key_id:
                verify_raw(key, _statement("ifpp.plr", report_id, digest), base64.b64decode(signature, validate=True))
                return
        raise ValueError("signed by a key that is not the factory's")

    def _document(self, report_id: str, digest: str, words: Sequence[tuple[ReportItem, str, str]]) -> bytes:
        header = {
            "format": "ifpp.plr-ack",
            "version": "1.0",
            "report_id": report_id,
            "smdp_oid": self.smdpf.oid,
            "report_sha256": digest,
            "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        lines = [json.dumps(header)]
        for item, verdict, reason in words:
            word = {"transaction_id": item.transaction_id.hex(), "verdict": verdict}
            lines.append(json.dumps(word | ({"reason": reason} if reason else {})))
        return _sealed([f"{line}\n".encode() for line in lines])


def _sealed(lines: Sequence[bytes]) -> bytes:
    content = b"".join(lines)
    trailer = {"end": True, "items": len(lines) - 1, "sha256": hashlib.sha256(content).hexdigest()}
    return content + json.dumps(trailer).encode() + b"\n"


def _statement(what: str, report_id: str, sha256: str) -> bytes:
    return f"{what}\n{report_id}\n{sha256}\n".encode()


class _Handler(BaseHTTPRequestHandler):
    """One connection: one report, sent whole or in chunks."""

    door: ReportDoor
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_S

    def do_PUT(self) -> None:
        self.close_connection = True
        parts = self.path.strip("/").split("/")
        if len(parts) != 2 or parts[0] != "reports":
            self._say(404, b"", b"")
            return
        with tempfile.TemporaryDirectory(prefix="ifpp-smdpf-") as folder:
            body = Path(folder) / "report.plr.jsonl"
            if not self._receive(body):
                self._say(413, b"", b"")
                return
            key_id, signature = self.headers.get("Ifpp-Key-Id", ""), self.headers.get("Ifpp-Signature", "")
            self._say(*self.door.take(parts[1], body, key_id, signature))

    def _receive(self, path: Path) -> bool:
        """Read a body, sized or in chunks; False when it is too large."""
        total = 0
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        with path.open("wb") as stream:
            while size := self._chunk() if chunked else int(self.headers.get("Content-Length", "0")) - total:
                total += size
                if total > _MAX_REPORT_BYTES:
                    return False
                stream.write(self.rfile.read(size))
                if chunked:
                    self.rfile.readline()
        return True

    def _chunk(self) -> int:
        """The size of the next chunk; after the last one there are no trailers."""
        size = int(self.rfile.readline().split(b";")[0], 16)
        if not size:
            self.rfile.readline()
        return size

    def _say(self, status: int, document: bytes, signature: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(document)))
        if signature:
            self.send_header("Ifpp-Signature", base64.b64encode(signature).decode())
        self.end_headers()
        self.wfile.write(document)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: the caller knows."""


def _acknowledgement_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The key that signs acknowledgements, made at the first start; its public part lies beside it."""
    path = directory / _KEY_FILE
    if not path.is_file():
        fresh = ec.generate_private_key(ec.SECP256R1())
        write_private(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = fresh.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (directory / PUBLIC_FILE).write_bytes(public)
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{_KEY_FILE} holds another kind of key")
    return key


def _public(pem: bytes) -> ec.EllipticCurvePublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a factory signs with an elliptic-curve key")
    return key
