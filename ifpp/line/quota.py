"""Signed production orders come in: verified first, then taken, or refused as a whole.

Plan (numbers reappear in the code):
  1. The file is a production order, and for this site.
  2. A key that the site trusts has signed it.
  3. It does not end before now.
  4. It is no older version than the one that is known, nor the same version with other content (`ifpp.store.quota`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ifpp.errors import IntakeError, VerificationError
from ifpp.model.clock import parse_utc
from ifpp.store.factory import Factory
from ifpp.trust.signer import VerificationKey
from ifpp.wire.production_order import ProductionOrder, read_order


def take_order(
    factory: Factory, content: bytes, keys: Iterable[VerificationKey], *, site: str, now: datetime, where: str
) -> tuple[ProductionOrder, bool]:
    """Take an order; return it, and False when it was known. Raises IntakeError QUOTA.*."""
    order, key_id = check_order(content, keys, site=site, now=now, where=where)
    return order, factory.add_production_order(order, key_id, content, now)  # 4


def check_order(
    content: bytes, keys: Iterable[VerificationKey], *, site: str, now: datetime, where: str
) -> tuple[ProductionOrder, str]:
    """Verify an order alone; return it, and the id of the key that signed it. Raises IntakeError QUOTA.*."""
    order, key_id, signature = read_order(content, where)  # 1
    if order.site != site:
        raise IntakeError("QUOTA.OTHER_SITE", f"for {order.site}, this is {site}", where=where)
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None:  # 2
        raise IntakeError("QUOTA.UNKNOWN_KEY", f"signed with key {key_id}", where=where)
    try:
        key.verify(signature, order.message(), what="production order")
    except VerificationError as error:
        raise IntakeError("QUOTA.SIGNATURE", error.detail, where=where) from error
    if parse_utc(order.until_at) <= now:  # 3
        raise IntakeError("QUOTA.EXPIRED", f"it ended {order.until_at}", where=where)
    return order, key_id
