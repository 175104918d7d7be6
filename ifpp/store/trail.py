"""What one transaction did, as it will stand in the audit log.

Kinds of entries, by their facts (ids are texts, what is empty is left out):
  opened         factory_id: the first entry of every chain
  import         batch, name, kind, sha256 of the file, chips, packages, jobs, travellers
  available, claimed, sent, installed, failed, unknown, destroyed: one step of a package in the ledger: package,
                 revision, node, head, attempt, event, spent, detail; at its import also what binds it
  reading        an attempt is told to read from the chip what became of packages: attempt, eid, node, head, packages
  release        an attempt ends without sending: attempt, node, packages freed
  result         a unit_result was taken: node, seq, event, attempt, eid, sn, result, sha256 of the document
  clean_to_ship  a unit may leave: eid, sn, iccids, seal, transaction_id, event, node, head, sealed_at; where a
                 production order limits the SKU: order, and its number under it
  withheld       a station calls a unit clean to ship, the ledger does not: eid, event, node, code, reason
  parked         an event was refused: node, seq, event, code, text, sha256 of the document
  line           a supervisor takes a line (epoch, owner) or leaves it
  refused        the store refused a request: who (caller or address), operation, code, detail, times
  schema         the database was brought to a schema: version, brings
  purged         bytes of packages that can never be loaded again were let go: packages, before, sha256 of their
                 digests in order ("," between)
  backup         a backup was written: file, sha256
  restored       the database comes from a backup: file, sha256
  key            a key signs from here on: key_id, public (base64)
  report         a Profile Loading Report was written: report, smdp, file, sha256, items, key_id
  denylist       a pair of firmware and profile_type changes its standing: by, reason
  plan           what a product gets changes: sku, region, customer, version, profiles, from_at, until_at, by, reason
  production_order  a signed order: order, version, sku, quantity, from_at, until_at, key_id, sha256 of what was signed
  withdrawn      a delivery is not given out any more: batch, name, by, reason
  reserved       chips are kept for a job order: job, chips, sha256 of their EIDs in order ("," between), by, reason
  order          a job order changes: job, version, line, command, dispatch_status, by, reason
  unreserved     they are free again: job, chips, by, reason
  acknowledged   somebody says that the SM-DPf took a report: report, by
  delivered      a report is in the hands of its SM-DPf: report, place
  answered       what the SM-DPf says of a report: report, sha256 of its document, key_id, verified, noted, refused
"""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.wire.audit import canonical


@dataclass(frozen=True, slots=True)
class Note:
    """One entry to be: its time, its kind, its facts as canonical JSON; of a clean_to_ship entry the EID it clears."""

    at: str
    kind: str
    facts: bytes
    cleared_eid: str | None = None


class Trail:
    """The custody events of one transaction, in order; `at` is their time."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.notes: list[Note] = []

    def note(self, kind: str, /, *, clears: str | None = None, **facts: object) -> None:
        """Note one event; empty texts, False and None are left out. `clears`: the EID of a clean_to_ship entry."""
        kept = {
            name: value for name, value in facts.items() if value is not None and value is not False and value != ""
        }
        self.notes.append(Note(self.at, kind, canonical(kept), clears))

    def join(self, part: Trail) -> None:
        """Take over what was noted in a part of the transaction that has succeeded."""
        self.notes += part.notes
