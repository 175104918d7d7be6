"""The fault tree: every error ifpp raises has a stable code, someone it blames, a retry rule and advice.

IfppError
|-- WireError            bytes that do not parse (card, file or peer)
|-- CardError            what one eUICC did or refused
|   `-- TransportError   the path to the card: contact, reader, time-out
|-- VerificationError    a signature, chain or binding that does not hold
|-- IntakeError          a delivery, eUICC data file or job order that was refused
|-- SupplyError          no package for this chip, or not one this head may have
|-- CustodyError         a ledger or journal rule was about to be broken
|-- ServiceError         a neighbour process (store, broker, database) does not answer as agreed
`-- SettingsError        a setting, file name or command line that cannot be used
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Blame(StrEnum):
    """Whose fault it is; decides which yield figure a unit counts against (architecture: unit outcome classes)."""

    CONTACT = "CONTACT"  # re-seat the unit first
    PRODUCT = "PRODUCT"  # the chip refused, is dead or has no memory
    SUPPLY = "SUPPLY"  # no (good) package for this EID
    STATION = "STATION"  # reader, disk, store, network, settings
    AMBIGUOUS = "AMBIGUOUS"  # not known yet whether the profile is on the chip


class Retry(StrEnum):
    """What may be tried again, by whom."""

    NO = "NO"
    RESEAT = "RESEAT"  # same unit after it was seated again
    SAME_PACKAGE = "SAME_PACKAGE"  # the byte-identical package on the same chip
    LATER = "LATER"  # as it is, when the neighbour is back


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the fault table."""

    code: str
    blame: Blame
    retry: Retry
    advice: str


def _table(*rows: tuple[str, Blame, Retry, str]) -> dict[str, Fault]:
    return {code: Fault(code, blame, retry, advice) for code, blame, retry, advice in rows}


FAULTS: dict[str, Fault] = _table(
    # bytes
    ("WIRE.MALFORMED", Blame.PRODUCT, Retry.RESEAT, "Re-seat the unit; if it stays, put it aside for engineering."),
    # the path to a card
    ("CONTACT.NO_ATR", Blame.CONTACT, Retry.RESEAT, "Re-seat the unit; if it repeats on this head, clean the socket."),
    ("CONTACT.LOST", Blame.CONTACT, Retry.RESEAT, "Seat the same unit again; the station reads it and settles it."),
    ("APDU.TIMEOUT", Blame.CONTACT, Retry.RESEAT, "Seat the same unit again; if it repeats, call the technician."),
    ("HEAD.UNREACHABLE", Blame.STATION, Retry.LATER, "Check the reader's cable, power and port in the station file."),
    ("HEAD.LAMP", Blame.STATION, Retry.LATER, "Check the lamp's cable, power and address in the station file."),
    ("HEAD.NO_READER", Blame.STATION, Retry.LATER, "Plug the reader in, or write one of the named ones into the file."),
    ("HEAD.NO_SERVICE", Blame.STATION, Retry.LATER, "Start pcscd, or mend its socket in the station file."),
    ("HEAD.IN_USE", Blame.STATION, Retry.LATER, "Another program holds this reader or port: have it closed there."),
    (
        "HEAD.HUNG",
        Blame.STATION,
        Retry.RESEAT,
        "Technician: take the unit out, power-cycle the reader; the head returns when its call ends, or restart it.",
    ),
    ("HEAD.GARBAGE", Blame.STATION, Retry.LATER, "Check the port, its baud rate and model: no sound AT answers there."),
    ("MODEM.ERROR", Blame.CONTACT, Retry.RESEAT, "Seat the unit again; if it repeats, mend its model (max_block)."),
    # one eUICC
    ("EUICC.NOT_AN_EUICC", Blame.PRODUCT, Retry.NO, "No ISD-R on the card: put it aside, check the part number."),
    ("EUICC.NO_IFPP", Blame.PRODUCT, Retry.NO, "The chip has no factory services: put the unit aside, check the lot."),
    ("EUICC.FPA_LOCKED", Blame.PRODUCT, Retry.NO, "The chip has already left production: put the unit aside."),
    ("EUICC.STATUS_WORD", Blame.PRODUCT, Retry.RESEAT, "Re-seat once; then put the unit aside with this code."),
    ("EUICC.RESULT", Blame.PRODUCT, Retry.RESEAT, "Re-seat once; then put the unit aside with this number."),
    ("EUICC.PREPARE_REFUSED", Blame.PRODUCT, Retry.NO, "The chip refused the package's key: put the unit aside."),
    ("EUICC.LOAD_REFUSED", Blame.PRODUCT, Retry.NO, "The chip refused the profile: put the unit aside with this code."),
    ("EUICC.NO_MEMORY", Blame.PRODUCT, Retry.NO, "The chip is full: check the lot and the profile size."),
    ("EUICC.INTERRUPTED", Blame.CONTACT, Retry.SAME_PACKAGE, "Seat the same unit again; the same package is loaded."),
    (
        "EUICC.NOT_AUTHORISED",
        Blame.STATION,
        Retry.RESEAT,
        "Do not ship. Compare the chip key with the maker's; re-seat.",
    ),
    (
        "EUICC.NOT_REMOVED",
        Blame.PRODUCT,
        Retry.RESEAT,
        "The chip keeps a profile that was to be deleted: hold the unit.",
    ),
    ("EUICC.NOT_SEALED", Blame.PRODUCT, Retry.RESEAT, "Keys or factory services remain: do not ship; re-seat once."),
    # what a recipe does to a chip beyond the load
    (
        "EUICC.POLICY",
        Blame.PRODUCT,
        Retry.NO,
        "A policy rule of a profile forbids it: put the unit aside, tell planning.",
    ),
    ("EUICC.NOT_SWITCHED", Blame.PRODUCT, Retry.RESEAT, "The profile cannot be enabled or disabled: re-seat once."),
    ("EUICC.NOT_SET", Blame.PRODUCT, Retry.RESEAT, "The chip refuses a setting of the recipe: re-seat once."),
    ("EIM.CERTIFICATE", Blame.STATION, Retry.NO, "Nothing was sent: mend the eIM's certificate in the recipe."),
    ("EIM.OTHER", Blame.PRODUCT, Retry.NO, "The chip belongs to another eIM: put the unit aside, check the lot."),
    ("CONNECT.NO_COVERAGE", Blame.CONTACT, Retry.RESEAT, "No network was found: check antenna and coverage, re-seat."),
    (
        "CONNECT.DENIED",
        Blame.SUPPLY,
        Retry.LATER,
        "The network refuses the profile: put the unit aside, ask the operator.",
    ),
    ("CONNECT.NO_MODEM", Blame.STATION, Retry.NO, "This recipe wants a modem head: feed the unit to one."),
    (
        "READBACK.DIFFERS",
        Blame.PRODUCT,
        Retry.RESEAT,
        "Do not ship: the chip is not what the recipe promised; re-seat once.",
    ),
    ("RECIPE.UNKNOWN", Blame.SUPPLY, Retry.LATER, "Tell planning: the site has no recipe of this name and version."),
    ("RECIPE.PROFILES", Blame.SUPPLY, Retry.LATER, "Tell planning: the store's profiles are not the recipe's."),
    ("RECIPE.INVALID", Blame.STATION, Retry.NO, "Mend the named recipe file and line; nothing was started."),
    ("EID.MISMATCH", Blame.PRODUCT, Retry.NO, "Stop feeding this head; hold the unit and call quality."),
    # pre-flight: does this package fit this chip? Nothing was sent, nothing is spent
    ("FIT.SVN", Blame.PRODUCT, Retry.NO, "The chip's specification version is too old: put it aside, check the lot."),
    ("FIT.PROFILE_VERSION", Blame.PRODUCT, Retry.NO, "It takes only older profiles: put it aside, check the lot."),
    ("FIT.KIND", Blame.PRODUCT, Retry.NO, "Not the kind of chip the recipe wants: put it aside, check the lot."),
    ("FIT.CAPABILITY", Blame.PRODUCT, Retry.NO, "The chip lacks what the profile needs: check the lot's part number."),
    ("FIT.CI_KEY", Blame.SUPPLY, Retry.NO, "The chip does not trust this SM-DPf's CI: order from one it trusts."),
    ("FIT.RULE", Blame.SUPPLY, Retry.NO, "The chip forbids a policy rule of the profile: order one without it."),
    # SUPPLY, for the plan put the wrong profile to the chip; PRODUCT would feed the very count that made the entry
    ("FIT.DENIED", Blame.SUPPLY, Retry.NO, "This profile fails on this firmware: put it aside; see `ifpp denylist`."),
    # online downloads (SGP.22)
    (
        "RSP.UNREACHABLE",
        Blame.STATION,
        Retry.LATER,
        "Check the plant's line to the SM-DP+; seat the unit again when it is back.",
    ),
    ("RSP.TLS", Blame.STATION, Retry.NO, "Call IT: the SM-DP+'s TLS certificate is not one this station trusts."),
    ("RSP.ANSWER", Blame.STATION, Retry.NO, "Call engineering: the SM-DP+ does not answer as the specification says."),
    ("RSP.REFUSED", Blame.SUPPLY, Retry.NO, "Put the unit aside; ask the SM-DP+'s operator about the named status."),
    ("RSP.SESSION_LOST", Blame.STATION, Retry.LATER, "Seat the unit again: chip or SM-DP+ has lost the session."),
    ("RSP.MISMATCH", Blame.SUPPLY, Retry.NO, "Stop this head; call security: the SM-DP+ answers for another session."),
    ("RSP.NOT_ELIGIBLE", Blame.SUPPLY, Retry.NO, "The SM-DP+ does not serve this chip: put it aside, check the lot."),
    ("RSP.CODE_REFUSED", Blame.SUPPLY, Retry.NO, "The SM-DP+ does not know this activation code: tell the planner."),
    (
        "RSP.USED_UP",
        Blame.SUPPLY,
        Retry.NO,
        "This activation code is used up or expired: take another, tell the planner.",
    ),
    ("RSP.CONFIRMATION", Blame.SUPPLY, Retry.NO, "The confirmation code is missing or wrong: ask the planner for it."),
    ("RSP.CHIP_REFUSED", Blame.PRODUCT, Retry.NO, "The chip refuses this SM-DP+: put the unit aside with this code."),
    (
        "RSP.OTHER_PROFILE",
        Blame.SUPPLY,
        Retry.NO,
        "The SM-DP+ has another profile than ordered: stop, tell the planner.",
    ),
    # what was signed
    ("PIR.MISSING", Blame.AMBIGUOUS, Retry.RESEAT, "Seat the same unit again; the station reads its result list."),
    ("PIR.MALFORMED", Blame.AMBIGUOUS, Retry.NO, "Hold the unit and call quality."),
    ("PIR.SIGNATURE", Blame.AMBIGUOUS, Retry.NO, "Hold the unit and call quality: the result is not the chip's."),
    ("PIR.MISMATCH", Blame.AMBIGUOUS, Retry.NO, "Hold the unit and call quality: the result is for another order."),
    ("PIR.READBACK", Blame.AMBIGUOUS, Retry.NO, "Hold the unit: the chip's own list contradicts its result."),
    ("TRUST.CHAIN", Blame.SUPPLY, Retry.NO, "Ask the sender for the right certificates; check the trust roots."),
    ("TRUST.SIGNATURE", Blame.SUPPLY, Retry.NO, "The data were altered or are foreign: ask the sender again."),
    # deliveries, eUICC data, job orders
    ("INTAKE.FORMAT", Blame.SUPPLY, Retry.NO, "Ask the sender for a file in the agreed format and version."),
    ("INTAKE.TRUNCATED", Blame.SUPPLY, Retry.NO, "Transfer the file again: it is not complete."),
    ("INTAKE.OVERSIZE", Blame.SUPPLY, Retry.NO, "No item of the agreed format is so large: ask the sender."),
    ("INTAKE.DIGEST", Blame.SUPPLY, Retry.NO, "Transfer the file again: its content does not match its digest."),
    ("INTAKE.DUPLICATE", Blame.SUPPLY, Retry.NO, "Already in the store: ask the sender for new keys."),
    ("INTAKE.KEY_REUSED", Blame.SUPPLY, Retry.NO, "Two packages for one key: refuse the batch, call the sender."),
    ("INTAKE.UNKNOWN_EID", Blame.SUPPLY, Retry.LATER, "Import the eUICC data (Esed2) of this chip first."),
    ("INTAKE.UNKNOWN_KEY", Blame.SUPPLY, Retry.NO, "The one-time key is not in the chip's eUICC data: ask the sender."),
    ("INTAKE.BINDING", Blame.SUPPLY, Retry.NO, "The package's parts do not belong together: ask the sender."),
    ("INTAKE.BAD_ID", Blame.SUPPLY, Retry.NO, "An EID or ICCID fails its check digits: ask the sender."),
    ("INTAKE.BUSY", Blame.STATION, Retry.LATER, "Another import runs on this database: start again when it has ended."),
    ("INTAKE.REJECTED", Blame.SUPPLY, Retry.NO, "Nothing was imported; mend or remove the listed items."),
    # courier bundles
    ("BUNDLE.FORMAT", Blame.SUPPLY, Retry.NO, "Not a courier bundle or receipt: copy it again, or ask its sender."),
    ("BUNDLE.SIZE", Blame.SUPPLY, Retry.NO, "Copy the bundle again; is it too large, make several smaller ones."),
    ("BUNDLE.PARTY", Blame.SUPPLY, Retry.NO, "Check whom it is for, and [courier] name and peers in the settings."),
    ("BUNDLE.SIGNATURE", Blame.SUPPLY, Retry.NO, "Altered, or signed by somebody else: keep it, call the sender."),
    ("BUNDLE.DIGEST", Blame.SUPPLY, Retry.NO, "Copy the bundle again: a file in it does not match its digest."),
    ("BUNDLE.GAP", Blame.SUPPLY, Retry.LATER, "Accept the bundle before it first; ask the sender when it is lost."),
    ("BUNDLE.REPLAYED", Blame.SUPPLY, Retry.NO, "Nothing to do: give the sender the named receipt."),
    ("BUNDLE.FORKED", Blame.SUPPLY, Retry.NO, "Two bundles have one number: keep both, call the sender."),
    ("BUNDLE.UNKNOWN", Blame.SUPPLY, Retry.NO, "The receipt is for none of our bundles: ask who sent it."),
    # claims
    ("EID.UNKNOWN", Blame.SUPPLY, Retry.LATER, "No eUICC data for this chip: check the lot or import its data."),
    ("LOT.UNKNOWN", Blame.SUPPLY, Retry.NO, "Name eUICC data that were imported, by the file's name or its number."),
    ("BATCH.UNKNOWN", Blame.SUPPLY, Retry.NO, "Name a delivery that was imported, by the file's name or its number."),
    ("JOB.UNKNOWN", Blame.SUPPLY, Retry.LATER, "Check the id of the job order, or import it first."),
    ("BPP.NOT_FOUND", Blame.SUPPLY, Retry.LATER, "No package for this chip: put the unit aside, tell the planner."),
    ("BPP.EXHAUSTED", Blame.SUPPLY, Retry.LATER, "All packages of this chip are used: order a new one."),
    ("BPP.EXPIRED", Blame.SUPPLY, Retry.NO, "The package's date has passed: order a new one."),
    ("BPP.WITHDRAWN", Blame.SUPPLY, Retry.LATER, "The delivery was withdrawn: put the unit aside, order anew."),
    ("BPP.INCOMPLETE", Blame.SUPPLY, Retry.LATER, "The plan wants more than the chip has: see `ifpp plan test`."),
    ("BPP.OTHER_PRODUCT", Blame.SUPPLY, Retry.NO, "Stop this head; compare unit, reel and job: they do not agree."),
    ("BPP.RESERVED", Blame.SUPPLY, Retry.NO, "Reserved for the named job order: put the unit there, ask the planner."),
    ("JOB.OTHER_STATION", Blame.SUPPLY, Retry.NO, "The job order names other stations: feed the unit there."),
    ("RESERVATION.REFUSED", Blame.SUPPLY, Retry.NO, "Nothing was reserved; take the listed chips out, or free them."),
    ("UNIT.TRAVELLER", Blame.SUPPLY, Retry.NO, "Stop this head; compare label, chip and traveller: they do not agree."),
    ("ROUTE.REFUSED", Blame.SUPPLY, Retry.NO, "The MES refuses this unit here: move it to the step or bin it names."),
    ("UNIT.NO_TRAVELLER", Blame.SUPPLY, Retry.LATER, "Check the label, or import the MES's travellers of this job."),
    ("UNIT.SCAN", Blame.STATION, Retry.NO, "Choose a free head, scan the unit in your hand, then seat it."),
    ("BPP.NOT_CACHED", Blame.SUPPLY, Retry.LATER, "Store away, nothing kept for this chip: put it aside until then."),
    ("BPP.LEASE_ENDED", Blame.SUPPLY, Retry.LATER, "Store away for too long: put the unit aside until it is back."),
    ("BPP.TAKEN", Blame.SUPPLY, Retry.LATER, "Another head works with this chip's package: find the unit."),
    ("SKU.UNKNOWN", Blame.SUPPLY, Retry.NO, "Check the SKU in the job order: the store has nothing under it."),
    ("REGION.UNKNOWN", Blame.SUPPLY, Retry.NO, "Check the region in the job order: the store has nothing for it."),
    ("UNIT.ALREADY_LOADED", Blame.SUPPLY, Retry.NO, "The unit is finished: pass it on."),
    ("UNIT.EMPTIED", Blame.SUPPLY, Retry.NO, "Put it aside: it was sealed and emptied, it can never be loaded again."),
    ("UNIT.UNRESOLVED", Blame.AMBIGUOUS, Retry.RESEAT, "Hold the unit; seat it again to have it read."),
    # custody
    ("CUSTODY.TRANSITION", Blame.STATION, Retry.NO, "Call engineering: a package was about to take a forbidden step."),
    ("CUSTODY.SEQ_CONFLICT", Blame.STATION, Retry.NO, "Two stations use one identity or a cloned disk: stop both."),
    ("CUSTODY.EVENT_LOST", Blame.STATION, Retry.NO, "Its station's journal was lost: seat the open units again."),
    ("CUSTODY.EVENT_REFUSED", Blame.STATION, Retry.NO, "The event is parked: call engineering, the line goes on."),
    ("CUSTODY.NOT_SEALED", Blame.PRODUCT, Retry.NO, "Hold the unit and call quality: keys or services are still open."),
    ("CUSTODY.SCHEMA_OLDER", Blame.STATION, Retry.NO, "Back it up (`ifpp store backup`), then `ifpp store migrate`."),
    ("CUSTODY.SCHEMA_NEWER", Blame.STATION, Retry.NO, "The database is from a newer ifpp: start that version."),
    ("CUSTODY.ACK_REFUSED", Blame.STATION, Retry.NO, "Two supervisors, or a foreign one, answer here: stop the other."),
    ("CUSTODY.JOURNAL_IN_USE", Blame.STATION, Retry.NO, "This station runs already: stop the other process first."),
    ("CUSTODY.FOREIGN_JOURNAL", Blame.STATION, Retry.NO, "The journal belongs to another station: mend the path."),
    ("CUSTODY.LINE_TAKEN", Blame.STATION, Retry.LATER, "Another supervisor runs this line: stop one of the two."),
    ("PARKED.UNKNOWN", Blame.SUPPLY, Retry.NO, "Check the number: `ifpp supervisor parked` lists them."),
    (
        "LINE.NOT_OURS",
        Blame.STATION,
        Retry.LATER,
        "Nothing to do: it renews its lease, or another one has the line.",
    ),
    (
        "FILE.WRITE",
        Blame.STATION,
        Retry.LATER,
        "The named file cannot be written: mend the disk or the folder's rights.",
    ),
    ("JOURNAL.WRITE", Blame.STATION, Retry.LATER, "The journal cannot be written: free the disk; nothing was lost."),
    ("CACHE.CORRUPT", Blame.STATION, Retry.NO, "Move the named file away, start again: what it held is fetched anew."),
    (
        "CACHE.FOREIGN",
        Blame.STATION,
        Retry.NO,
        "Give the file back to its station, mend the path: nothing was changed.",
    ),
    ("CACHE.IN_USE", Blame.STATION, Retry.NO, "This station runs and keeps its packages itself: [cache] units, eids."),
    (
        "CACHE.WRITE",
        Blame.STATION,
        Retry.LATER,
        "Free the disk: what is kept stays usable, no more is kept until then.",
    ),
    ("OUTBOX.LATE", Blame.STATION, Retry.LATER, "Call IT: results wait for the supervisor; when full, the line stops."),
    ("OUTBOX.FULL", Blame.STATION, Retry.LATER, "Mend broker or supervisor: no new unit until results have left."),
    ("STATION.DIED", Blame.AMBIGUOUS, Retry.NO, "Hold the unit until a station has read it again: seat it once more."),
    # the end-of-line gate
    ("GATE.NOT_SEALED", Blame.PRODUCT, Retry.RESEAT, "Do not ship: seat the unit again, the station seals it."),
    ("GATE.OPEN_PACKAGE", Blame.AMBIGUOUS, Retry.RESEAT, "Do not ship: seat the unit again to have its chip read."),
    ("GATE.UNSIGNED", Blame.STATION, Retry.LATER, "Ask again in a moment; if it stays, check supervisor and its key."),
    ("GATE.FORGED", Blame.STATION, Retry.NO, "Do not ship; call security: the books were changed from outside."),
    (
        "GATE.REWORK",
        Blame.SUPPLY,
        Retry.RESEAT,
        "Do not ship: seat it again to have it reworked; if emptied, put it aside.",
    ),
    ("REWORK.OPEN_PACKAGE", Blame.AMBIGUOUS, Retry.LATER, "Seat the unit first: one of its packages is not settled."),
    ("REWORK.NOTHING", Blame.SUPPLY, Retry.NO, "Check the EID: there is nothing on this chip that could be removed."),
    ("REWORK.OPEN", Blame.SUPPLY, Retry.NO, "Seat the unit: its rework was ordered before (`ifpp report rework`)."),
    (
        "GATE.ROUTE",
        Blame.SUPPLY,
        Retry.NO,
        "Do not ship: call quality, the MES refused it when it was asked afterwards.",
    ),
    ("GATE.QUOTA", Blame.SUPPLY, Retry.RESEAT, "Do not ship: the planner adds a production order, then seat it again."),
    # signed production orders
    ("QUOTA.FORMAT", Blame.SUPPLY, Retry.NO, "Ask the planner for the file again: it is damaged or of another kind."),
    ("QUOTA.SIGNATURE", Blame.SUPPLY, Retry.NO, "Take nothing from this file: it was changed on its way."),
    ("QUOTA.UNKNOWN_KEY", Blame.SUPPLY, Retry.NO, "Compare the key's id with the planner's, and with [quota] keys."),
    ("QUOTA.EXPIRED", Blame.SUPPLY, Retry.NO, "Ask the planner for a version that holds now; check this clock."),
    ("QUOTA.STALE", Blame.SUPPLY, Retry.NO, "A newer version is known: an old file came again, throw it away."),
    ("QUOTA.CONFLICT", Blame.SUPPLY, Retry.NO, "Ask the planner: a change needs a higher version, another SKU an id."),
    ("QUOTA.OTHER_SITE", Blame.SUPPLY, Retry.NO, "The order is for another site: send it there."),
    # the audit log
    ("AUDIT.FORMAT", Blame.STATION, Retry.NO, "Name a file that `ifpp audit export` wrote, or export again."),
    ("AUDIT.CHANGED", Blame.STATION, Retry.NO, "Keep this file, export again and compare; call security."),
    ("AUDIT.CUT", Blame.STATION, Retry.NO, "Copy or export the file again; if it stays, call security."),
    ("AUDIT.REORDERED", Blame.STATION, Retry.NO, "Keep this file, export again and compare; call security."),
    ("AUDIT.REPLAYED", Blame.STATION, Retry.NO, "Keep this file, export again and compare; call security."),
    ("AUDIT.FORKED", Blame.STATION, Retry.NO, "Two histories: keep both databases untouched, call security."),
    ("AUDIT.SIGNATURE", Blame.STATION, Retry.NO, "Not what the key signed: keep this file, call security."),
    ("AUDIT.UNKNOWN_KEY", Blame.STATION, Retry.NO, "Compare the key's id with the factory's; name it with --key."),
    ("AUDIT.UNSIGNED", Blame.STATION, Retry.NO, "Set [keys]: unsigned, anyone could have written it."),
    ("KEYS.PIN", Blame.STATION, Retry.NO, "Hand the right PIN over: systemd LoadCredential= or `ifpp --pin-fd N`."),
    ("KEYS.NO_TOKEN", Blame.STATION, Retry.NO, "Check [keys] module, token and file; see deploy/CEREMONY.md."),
    ("KEYS.MISSING", Blame.STATION, Retry.NO, "Make it with `ifpp keys init`, or mend [keys] purposes."),
    ("KEYS.UNREACHABLE", Blame.STATION, Retry.LATER, "Check the key device; the line goes on, signatures wait."),
    ("KEYS.PIN_LOCKED", Blame.STATION, Retry.NO, "The token's security officer sets a new PIN."),
    ("KEYS.ATTRIBUTES", Blame.STATION, Retry.NO, "Not a key of the plan: see `ifpp keys audit`; call security."),
    ("KEYS.NONE", Blame.STATION, Retry.NO, "Set [keys] provider in the settings; deploy/CEREMONY.md says how."),
    ("KEYS.NEWEST", Blame.STATION, Retry.NO, "Rotate first: the version that works now cannot be destroyed."),
    ("KEYS.RECORDS", Blame.STATION, Retry.NO, "Keep the folder untouched, compare it with its copy; call security."),
    ("KEYS.UNCONFIRMED", Blame.STATION, Retry.NO, "Two people sign anew with `ifpp keys confirm`; nothing was done."),
    ("SIGNER.KEY", Blame.STATION, Retry.NO, "Name a key file; `ifpp keys personal FILE` makes one."),
    ("SIGNER.EXPOSED", Blame.STATION, Retry.NO, "chmod 600 the file; if others had access, make a new key."),
    ("SIGNER.FAILED", Blame.STATION, Retry.LATER, "Check the key device; entries are kept and signed later."),
    # neighbours
    ("STORE.UNREACHABLE", Blame.STATION, Retry.LATER, "Check store, network and certificates; units wait."),
    ("STORE.FORBIDDEN", Blame.STATION, Retry.NO, "Check the certificate: name, role, dates, revocation list."),
    ("STORE.REFUSED", Blame.STATION, Retry.NO, "Call engineering: station and store disagree."),
    ("HOST.TIMEOUT", Blame.STATION, Retry.LATER, "Check the named service; units wait."),
    ("BROKER.UNREACHABLE", Blame.STATION, Retry.LATER, "Check the broker; results are kept and sent later."),
    ("ENVELOPE.KEY", Blame.SUPPLY, Retry.NO, "No key here opens it: ask the sender to encrypt for the present key."),
    ("ENVELOPE.BROKEN", Blame.SUPPLY, Retry.NO, "Altered or cut on its way: transfer it again, then ask the sender."),
    ("BACKUP.BROKEN", Blame.STATION, Retry.NO, "The file is not whole: take another backup."),
    ("BACKUP.TOOL", Blame.STATION, Retry.NO, "Install PostgreSQL's client programs, of the server's version or newer."),
    ("DATABASE.IN_USE", Blame.STATION, Retry.LATER, "Stop store, supervisors and imports; start them afterwards."),
    ("DATABASE.UNREACHABLE", Blame.STATION, Retry.LATER, "Check the database; nothing is acknowledged before."),
    ("PROCESS.DIED", Blame.STATION, Retry.NO, "Read the named log file; start the process again."),
    # people
    ("OPERATOR.UNNAMED", Blame.STATION, Retry.NO, "Say who does it: --by NAME, in at most 64 printable characters."),
    (
        "LINE_LOG.AHEAD",
        Blame.STATION,
        Retry.NO,
        "The MES acknowledges what was never told: it speaks of another plant.",
    ),
    ("OPERATOR.BADGE", Blame.STATION, Retry.NO, "Scan your own badge; new people are entered with `ifpp people add`."),
    ("OPERATOR.NOT_ALLOWED", Blame.STATION, Retry.NO, "Call somebody with the role that is named."),
    ("WINDOW.PATH", Blame.STATION, Retry.NO, "Mend [window] socket in the station file; its folder must be writable."),
    ("STATION.LOCKED", Blame.STATION, Retry.LATER, "A person stopped the intake of units: start it at the station."),
    ("OPERATOR.NO_REASON", Blame.STATION, Retry.NO, "Say why, for those who read it later: --reason TEXT."),
    ("HEAD.UNKNOWN", Blame.STATION, Retry.NO, "Name one of the station's heads, as in its station file."),
    ("STATION.UNKNOWN", Blame.STATION, Retry.NO, "No such station has ever reported to this broker: check its id."),
    ("STATION.SILENT", Blame.STATION, Retry.LATER, "Check that the station runs and reaches the broker; ask again."),
    ("UNIT.UNKNOWN", Blame.STATION, Retry.NO, "Check the EID, ICCID or serial number; the books know no such unit."),
    ("DENYLIST.UNKNOWN", Blame.STATION, Retry.NO, "Compare firmware and profile type with `ifpp denylist list`."),
    ("REPORT.UNKNOWN", Blame.STATION, Retry.NO, "Check the report id: it stands in the report's name and first line."),
    ("REPORT.UNREACHABLE", Blame.STATION, Retry.LATER, "Check network and SM-DPf; `ifpp report deliver` tries again."),
    ("REPORT.NOT_TAKEN", Blame.STATION, Retry.NO, "Ask the SM-DPf why it does not take the report."),
    ("REPORT.CHANGED", Blame.STATION, Retry.NO, "Find the file as it was written, or write a new report."),
    ("REPORT.UNSIGNED", Blame.STATION, Retry.NO, "Reports go out signed, answers come back as agreed: see [keys]."),
    ("REPORT.FOREIGN", Blame.STATION, Retry.NO, "It answers another report: nothing was changed; call the SM-DPf."),
    ("REPORT.ANSWERED", Blame.STATION, Retry.NO, "The first answer stands; ask the SM-DPf which of the two it means."),
    (
        "GATE.NOT_SHOWN",
        Blame.STATION,
        Retry.LATER,
        "Make the missing units, then release: `ifpp gate show` names them.",
    ),
    (
        "GATE.NOT_RELEASED",
        Blame.STATION,
        Retry.LATER,
        "First articles are made: have a person release the job order (`ifpp gate release`).",
    ),
    ("SHIFT.UNKNOWN", Blame.STATION, Retry.NO, "Name a shift of [calendar] in the site file, or DATE/SHIFT."),
    ("SETTINGS.INVALID", Blame.STATION, Retry.NO, "Mend the named file and key."),
    ("SETTINGS.NEEDS_ROOT", Blame.STATION, Retry.NO, "Start it again as root, or allow sudo without a password."),
    ("SETTINGS.MISSING", Blame.STATION, Retry.NO, "Create the named file, or name the right one."),
    ("COMMAND.INVALID", Blame.STATION, Retry.NO, "See --help of this command."),
    ("INTERNAL", Blame.STATION, Retry.NO, "Call engineering with the log: this is a fault of ifpp."),
)


class IfppError(Exception):
    """Base of all errors of ifpp.

    ``code`` is a key of FAULTS; ``detail`` says what happened; ``where`` names the file, item, head or field.
    Neither may carry key material or profile plaintext.
    """

    def __init__(self, code: str, detail: str, *, where: str = "") -> None:
        self.fault = FAULTS[code]
        self.detail = detail
        self.where = where
        super().__init__(code, detail, where)

    @property
    def code(self) -> str:
        return self.fault.code

    @property
    def advice(self) -> str:
        return self.fault.advice

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{self.code}: {place}{self.detail}. {self.advice}"


class WireError(IfppError):
    """Bytes that do not parse."""

    def __init__(self, detail: str, *, where: str = "", code: str = "WIRE.MALFORMED") -> None:
        super().__init__(code, detail, where=where)


class CardError(IfppError):
    """What one eUICC did or refused."""


class TransportError(CardError):
    """The path to the card failed: whether the last command was executed is not known."""


class VerificationError(IfppError):
    """A signature, chain or binding does not hold."""


class IntakeError(IfppError):
    """A delivery, eUICC data file or job order was refused; ``items`` lists each bad item."""

    def __init__(self, code: str, detail: str, *, where: str = "", items: tuple[IfppError, ...] = ()) -> None:
        super().__init__(code, detail, where=where)
        self.items = items


class SupplyError(IfppError):
    """No package for this chip, or not one this head may have."""


class CustodyError(IfppError):
    """A ledger or journal rule was about to be broken."""


class LineTakenError(CustodyError):
    """Another process runs the line; `until` is the end of its lease as it stands in the database."""

    def __init__(self, owner: str, until: str, *, where: str) -> None:
        super().__init__("CUSTODY.LINE_TAKEN", f"{owner} runs it until {until}", where=where)
        self.until = until


class ServiceError(IfppError):
    """A neighbour process does not answer as agreed."""


class SettingsError(IfppError):
    """A setting, file or command line that cannot be used."""
