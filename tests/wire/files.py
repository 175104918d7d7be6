"""One valid document of each kind as plain JSON, and the framing around it, written without ifpp.wire."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


ESED: Json = {
    "format": "ifpp.esed",
    "version": "1.0",
    "batch_id": "LOT-7",
    "created_at": "2026-03-01T09:15:30.123+01:00",
    "eum_chain": [b64(b"EUM")],
    "euicc_info2": {"T1": b64(b"BF22")},
}
CHIP: Json = {
    "eid": "89049032123451234512345678901235",
    "euicc_certificate": b64(b"CERT"),
    "otk_list": b64(b"LIST"),
    "info2": "T1",
}
DELIVERY: Json = {
    "format": "ifpp.esbpp-delivery",
    "version": "1.0",
    "delivery_id": "D-1",
    "request_id": "R-1",
    "order_ref": "PO-1",
    "smdp_oid": "2.999.10",
    "smdp_chain": [b64(b"DPpb")],
    "created_at": "2026-03-01T08:15:30Z",
}
PACKAGE: Json = {
    "eid": CHIP["eid"],
    "otk_id": "ab" * 20,
    "transaction_id": "a0a1",
    "iccid": "8988211900000311922",
    "profile_type": "data",
    "sku": "SKU-1",
    "region": "EU",
    "prepare_download": b64(b"BF21"),
    "bpp": b64(b"BF36"),
    "bpp_sha256": "cd" * 32,
}
ACKNOWLEDGEMENT: Json = {
    "format": "ifpp.plr-ack",
    "version": "1.0",
    "report_id": "P-1",
    "smdp_oid": "2.999.10",
    "report_sha256": "ef" * 32,
    "created_at": "2026-03-02T00:11:00Z",
}
WORD: Json = {"transaction_id": "a0a1", "verdict": "verified"}
REPORT: Json = {
    "format": "ifpp.plr",
    "version": "1.0",
    "report_id": "P-1",
    "smdp_oid": "2.999.10",
    "from": "2026-03-01T00:00:00Z",
    "to": "2026-03-02T00:00:00Z",
    "created_at": "2026-03-02T00:10:00Z",
}
OUTCOME: Json = {
    "eid": CHIP["eid"],
    "iccid": PACKAGE["iccid"],
    "transaction_id": "a0a1",
    "outcome": "INSTALLED",
    "pir": b64(b"BF37"),
    "station": "S1",
    "head": "H1",
    "started_at": "2026-03-01T10:00:00Z",
    "ended_at": "2026-03-01T10:00:09.5Z",
}


def lines(*objects: Json | bytes) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in objects)


def sealed(*objects: Json | bytes, items: int | None = None, digest: str | None = None) -> bytes:
    body = lines(*objects)
    count = len(objects) - 1 if items is None else items
    return body + lines({"end": True, "items": count, "sha256": digest or hashlib.sha256(body).hexdigest()})


JOB: Json = {
    "format": "ifpp.job-order",
    "version": "1.0",
    "job": {
        "job_order_id": "J-1",
        "version": 3,
        "product": {"part_number": "PN"},
        "region": "EU",
        "recipe": {"name": "two profiles"},
        "quantity": 500,
    },
}
