"""A signed production order: how many units of a SKU a site may seal, said by a planner or the maker of the product.

`*.production-order.json` is one JSON object {"format": "ifpp.production-order", "version": "1.0", "order": {...},
"key_id", "signature"}. The signature (base64) is ECDSA P-256 with SHA-256, r||s, over CONTEXT followed by the canonical
JSON of the order: sorted keys, nothing between the tokens, UTF-8. `key_id` is SHA-256 of the SubjectPublicKeyInfo.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Annotated, Literal

import msgspec

from ifpp.errors import IntakeError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.wire.audit import Digest, Number, canonical

CONTEXT = b"ifpp production order 1\n"
MAX_BYTES = 64 * 1024
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,128}\Z")]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.-]{1,64}\Z")]


class ProductionOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`quantity` units of `sku` may be sealed at `site` ("enterprise/site"), from `from_at` until `until_at` (UTC).

    A higher `version` of an order takes the place of the lower; what is counted stays counted.
    """

    order_id: _Id
    version: Number
    site: _Name
    sku: _Name
    quantity: Number
    from_at: str
    until_at: str

    def message(self) -> bytes:
        """Return what is signed."""
        return CONTEXT + canonical(msgspec.to_builtins(self))


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["ifpp.production-order"]
    version: Literal["1.0"]
    order: ProductionOrder
    key_id: Digest
    signature: str


_decoder = msgspec.json.Decoder(_Document)


def read_order(content: bytes, where: str) -> tuple[ProductionOrder, str, bytes]:
    """Return order, key id and signature, nothing verified; raises IntakeError QUOTA.FORMAT."""
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        found = _decoder.decode(content)
        order = found.order
        if parse_utc(order.from_at) >= parse_utc(order.until_at):
            raise ValueError("it ends before it begins")
        return order, found.key_id, b64decode(found.signature, validate=True)
    except (msgspec.DecodeError, ValueError, Base64Error, RecursionError) as error:
        raise IntakeError("QUOTA.FORMAT", str(error), where=where) from error


def write_order(order: ProductionOrder, key_id: str, signature: bytes) -> bytes:
    """Return the document of a signed order."""
    document = _Document(
        format="ifpp.production-order",
        version="1.0",
        order=order,
        key_id=key_id,
        signature=b64encode(signature).decode(),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def stamp(text: str) -> str:
    """Return a time of an order as it sorts: UTC with milliseconds."""
    return utc_ms_text(parse_utc(text))
