"""The factory database as the store, the supervisor and the command line use it: one object, many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text

from ifpp.errors import IfppError, ServiceError
from ifpp.model.clock import utc_ms_text
from ifpp.model.mes import JobOrder
from ifpp.model.messages import (
    Claim,
    ClaimRequest,
    ExpectedAnswer,
    ExpectedQuestion,
    Job,
    LeaseAnswer,
    Message,
    UnitGate,
)
from ifpp.model.states import PackageState
from ifpp.store import (
    audit,
    books,
    claims,
    denylist,
    events,
    gate,
    leases,
    line_log,
    orders,
    plans,
    quota,
    reports,
    reservations,
    selection,
    stock,
    supply,
    travellers,
)
from ifpp.store import tenure as tenures
from ifpp.store.alarm_store import AlarmStore
from ifpp.store.audit import AuditLog, Chain
from ifpp.store.database import Database
from ifpp.store.denylist import USUAL, DeniedRow, Learning
from ifpp.store.edge_numbers import EdgeNumbers
from ifpp.store.figure_store import FigureStore
from ifpp.store.group import GroupCommit
from ifpp.store.intake import Gentle, Intake, Shelved, anything_staged, settle_remains
from ifpp.store.nodes import NodeStore
from ifpp.store.orders import OrderWord
from ifpp.store.purge import Retention
from ifpp.store.records import (
    AttemptRow,
    BalanceRow,
    BatchRow,
    ChipRow,
    OpenRow,
    ParkedRow,
    ReceivedEvent,
    Refusal,
    RefusedItemRow,
    ReportRow,
    ResultRow,
    SignedCheckpoint,
    TakeResult,
    UnitCounts,
    UnitRecord,
)
from ifpp.store.rework import ReworkStore
from ifpp.store.rules import prepare
from ifpp.store.runs import RunStore
from ifpp.store.trail import Trail
from ifpp.store.unasked import UnaskedStore
from ifpp.wire.production_order import ProductionOrder


class Factory:
    """Open with `Factory.open`. Methods block for one short transaction and may be called from any thread.

    Every method raises ServiceError DATABASE.UNREACHABLE when the database does not answer: then nothing of the call
    is in it, or, when the connection broke during the commit, all of it; every writing method may be repeated.
    """

    def __init__(
        self, database: Database, factory_id: str, writer: str, learning: Learning, orders_required: bool
    ) -> None:
        self._learning = learning
        self._orders_required = orders_required
        self._database = database
        self._chain = Chain(writer, factory_id)
        self.figures = FigureStore(database, self._writing)
        self.alarms = AlarmStore(database, self._writing)
        self.edge_numbers = EdgeNumbers(self._writing)
        self.rework = ReworkStore(database, self._writing)
        self.nodes = NodeStore(database, self._writing)
        self.retention = Retention(database, self._writing)
        self.unasked = UnaskedStore(database, self._writing)
        self.runs = RunStore(database)
        self._group = GroupCommit(self._writing, database.named)
        self.factory_id = factory_id

    @classmethod
    def open(
        cls,
        url: str,
        *,
        busy_timeout_s: float = 5.0,
        writer: str = "factory",
        learning: Learning = USUAL,
        orders_required: bool = False,
    ) -> Factory:
        """Open a factory database (`sqlite:///path` or `postgresql://…`) and make its tables when it is new.

        `writer` names the chain of the audit log that this process writes, `learning` says how the denylist grows by
        the events it takes. Raises SettingsError for a bad URL,
        CustodyError CUSTODY.SCHEMA_NEWER or CUSTODY.SCHEMA_OLDER, ServiceError DATABASE.UNREACHABLE.
        """
        database = Database(url, busy_timeout_s)
        database.make_file()
        try:
            with database.write() as connection:
                factory_id = prepare(connection, utc_ms_text(datetime.now(UTC)))
        except IfppError:
            database.close()
            raise
        return cls(database, factory_id, writer, learning, orders_required)

    def close(self) -> None:
        """Give up the connections; the database needs no farewell."""
        self._database.close()

    @contextmanager
    def _writing(self, now: datetime) -> Iterator[tuple[Connection, Trail]]:
        """One transaction; what it noted is in the audit log when it is committed."""
        with self._database.write() as connection:
            trail = Trail(utc_ms_text(now))
            yield connection, trail
            self._chain.append(connection, trail)

    def ping(self) -> None:
        """Return when the database answers."""
        with self._database.read() as connection:
            connection.execute(text("SELECT 1"))

    # ---- deliveries -------------------------------------------------------------------------------

    @contextmanager
    def intake(
        self,
        kind: str,
        name: str,
        sha256: str,
        now: datetime,
        *,
        dry_run: bool = False,
        shelved: Shelved | None = None,
    ) -> Iterator[Intake]:
        """Take one verified file in: all of it when the block ends, nothing when it raises; see `ifpp.store.intake`.

        `kind` is free ("esed", "esbpp", "job"), `sha256` the digest of the whole file in hex. A dry run screens the
        items and writes nothing. Raises IntakeError INTAKE.DUPLICATE for a file that was imported before,
        INTAKE.REJECTED listing every bad item; ServiceError INTAKE.BUSY. A file whose block has ended without error
        is taken in, also when the process dies before that: `settle_intakes` brings it to its end. `shelved` hears
        how many items are on the shelf.
        """
        writing = partial(self._writing, now)
        intake = Intake(self._database, writing, kind, name, sha256, dry_run=dry_run, shelved=shelved)
        try:
            yield intake
            intake.finish()
        except BaseException:
            intake.close(discarded=True)
            raise
        intake.close(discarded=False)

    def settle_intakes(self, now: datetime) -> None:
        """Bring to an end what processes left behind that died while they took a file in.

        Nothing happens while another process takes one in.
        """
        with self._database.read() as connection:
            if not anything_staged(connection):
                return
        try:
            with self._database.alone("intake", wait_s=0.0):
                settle_remains(self._database, Gentle(partial(self._writing, now), self._database.one_writer))
        except ServiceError as error:
            if error.code != "INTAKE.BUSY":
                raise

    def chip(self, eid: str) -> ChipRow | None:
        """Return the certificates and one-time keys of one eUICC, or None."""
        with self._database.read() as connection:
            return books.chip_row(connection, eid)

    def keys_of(self, eid: str) -> dict[str, bytes] | None:
        """Return the one-time keys of one eUICC: id (hex) and public point; None when it is not known."""
        with self._database.read() as connection:
            return books.keys_of(connection, eid)

    def batches(self) -> list[BatchRow]:
        """Return every imported file, oldest first."""
        with self._database.read() as connection:
            return books.batches(connection)

    def lot_number(self, name: str) -> int:
        """Return the number of imported eUICC data by file name or number; raises SupplyError LOT.UNKNOWN."""
        with self._database.read() as connection:
            return supply.lot_number(connection, name)

    def lot_chips(self, number: int | None, now: datetime) -> Iterator[supply.LotChip]:
        """Give every chip of a lot (None: of the store) that has not left, with what it has and its free keys."""
        with self._database.read() as connection:
            yield from supply.lot_chips(connection, number, utc_ms_text(now))

    def lot_shared(self, number: int | None) -> dict[str, tuple[list[bytes], dict[str, bytes]]]:
        """Return what the chips of a lot share: by chain id the EUM's certificates, and EUICCInfo2 by its id."""
        with self._database.read() as connection:
            return supply.shared(connection, number)

    def suppliers(self) -> dict[tuple[str, str], list[str]]:
        """Return the SM-DPfs that have delivered for each SKU and region."""
        with self._database.read() as connection:
            return stock.suppliers(connection)

    def stock_levels(self, now: datetime) -> list[stock.StockLevel]:
        """Return how far the stock goes by SKU and region; reads every available package."""
        with self._database.read() as connection:
            return stock.levels(connection, now)

    def withdraw(self, name: str, by: str, reason: str, now: datetime) -> stock.Withdrawn:
        """Give out no package of a delivery (file name or number) any more. Idempotent. Raises BATCH.UNKNOWN."""
        with self._writing(now) as (connection, trail):
            return stock.withdraw(connection, trail, name, by, reason)

    # ---- quota ------------------------------------------------------------------------------------

    def add_production_order(self, order: ProductionOrder, key_id: str, document: bytes, now: datetime) -> bool:
        """Take a verified production order; see `ifpp.store.quota.add`."""
        with self._writing(now) as (connection, trail):
            return quota.add(connection, trail, order, key_id, document)

    def announced(self, job_order_id: str, sn: str, eid: str) -> bool:
        """Return whether a traveller names this unit for this job order."""
        with self._database.read() as connection:
            return travellers.announced(connection, job_order_id, sn, eid)

    def production_orders(self) -> list[quota.OrderRow]:
        """Return every production order and how far it is used."""
        with self._database.read() as connection:
            return quota.standing(connection)

    # ---- reservations -----------------------------------------------------------------------------

    def reserve(self, job_order_id: str, eids: Iterable[str], by: str, reason: str, now: datetime) -> int:
        """Keep chips for a job order, all or none; return how many are new. Raises JOB.UNKNOWN, RESERVATION.REFUSED."""
        with self._writing(now) as (connection, trail):
            return reservations.reserve(connection, trail, job_order_id, eids, by, reason)

    def unreserve(self, job_order_id: str, by: str, reason: str, now: datetime) -> int:
        """Keep no chip for a job order any more; return how many there were."""
        with self._writing(now) as (connection, trail):
            return reservations.free(connection, trail, job_order_id, by, reason)

    def reservations(self) -> dict[str, int]:
        """Return how many chips each job order that has not ended keeps."""
        with self._database.read() as connection:
            return reservations.kept_for(connection)

    # ---- plans ------------------------------------------------------------------------------------

    def change_plan(
        self,
        product: tuple[str, str, str],
        profiles: Sequence[plans.Planned],
        times: tuple[datetime, datetime | None],
        by: str,
        reason: str,
        now: datetime,
    ) -> plans.Plan:
        """Add a version to the plan of (SKU, region, customer or ""), from the first time to the second."""
        with self._writing(now) as (connection, trail):
            return plans.change(connection, trail, product, profiles, times, by, reason)

    def plan_history(self) -> list[plans.Plan]:
        """Return every version of every plan, each plan's newest first."""
        with self._database.read() as connection:
            return plans.history(connection)

    def plan_for(self, sku: str, region: str, customer: str, now: datetime) -> plans.Plan | None:
        """Return the plan in force, None where there is none."""
        with self._database.read() as connection:
            return plans.in_force(connection, sku, region, customer, utc_ms_text(now))

    def try_plan(
        self, eid: str, product: selection.Product, now: datetime
    ) -> tuple[plans.Plan | None, selection.Selection]:
        """Say what a claim of a new head would choose now, and why nothing else. Raises SupplyError EID.UNKNOWN."""
        with self._database.read() as connection:
            return claims.try_plan(connection, eid, product, utc_ms_text(now))

    # ---- packages ---------------------------------------------------------------------------------

    def claim(self, request: ClaimRequest, now: datetime) -> Claim:
        """Give one attempt the packages of one chip for a SKU and region; see `ifpp.store.claims`.

        An answer with nothing to load and nothing unresolved says: all are installed, only the sealing is missing.
        Raises SupplyError EID.UNKNOWN, SKU.UNKNOWN, REGION.UNKNOWN, BPP.NOT_FOUND, BPP.EXHAUSTED, BPP.EXPIRED,
        BPP.WITHDRAWN, BPP.INCOMPLETE, BPP.OTHER_PRODUCT, BPP.TAKEN, BPP.RESERVED, JOB.OTHER_STATION,
        UNIT.ALREADY_LOADED, UNIT.TRAVELLER, UNIT.NO_TRAVELLER; ServiceError STORE.REFUSED for an attempt id that has
        ended or differs.
        """
        return self._group.together(now, claims.claim_packages, request)

    def package_bytes(self, sha256: str) -> bytes:
        """Return one package byte for byte; raises SupplyError BPP.NOT_FOUND."""
        with self._database.single() as connection:
            return books.package_content(connection, sha256)

    def mark_sent(self, package_id: str, attempt_id: str, station_id: str, now: datetime) -> None:
        """Write, before it leaves, that the first byte that can spend the key leaves. Idempotent.

        Raises SupplyError BPP.NOT_FOUND, CustodyError CUSTODY.TRANSITION when the lease is not this attempt's: then
        nothing may be sent.
        """
        self._group.run(
            now, lambda connection, trail: claims.mark_sent(connection, trail, package_id, attempt_id, station_id)
        )

    def release(self, attempt_id: str, station_id: str, now: datetime) -> int:
        """Free what an attempt claimed and did not send; return how many packages. Idempotent."""
        return self._group.run(now, lambda connection, trail: claims.release(connection, trail, attempt_id, station_id))

    def leases(self, station_id: str, lease_ids: Sequence[str]) -> LeaseAnswer:
        """Say how claims that a station made ahead stand; see `ifpp.store.leases`."""
        with self._database.read() as connection:
            return leases.standing(connection, station_id, lease_ids)

    def expected(self, question: ExpectedQuestion, now: datetime) -> ExpectedAnswer:
        """Return chips that a station may claim ahead."""
        with self._database.read() as connection:
            return leases.expected(connection, question, utc_ms_text(now))

    def expire_leases(self, now: datetime) -> int:
        """Free every claimed package whose lease has run out; return how many. Never touches a sent one."""
        with self._writing(now) as (connection, trail):
            return claims.expire_leases(connection, trail)

    # ---- events -----------------------------------------------------------------------------------

    def take_events(
        self, received: Sequence[ReceivedEvent], now: datetime, tenure: tenures.Tenure | None = None
    ) -> list[TakeResult]:
        """Store events and settle what they say in one transaction; when it returns, all may be acknowledged.

        Each (node_id, seq) counts once. Another event under a taken seq is rejected with CUSTODY.SEQ_CONFLICT, one
        that breaks the contract or the ledger's rules with CUSTODY.EVENT_REFUSED: both are parked, the others go
        through. A repeated rejected event is rejected again in the same words. `through` is the highest seq up to
        which every event is stored or parked; the first of a node is 1. With a `tenure` nothing is taken, and
        LineTakenError raised, when the line is another's by now.
        """
        with self._writing(now) as (connection, trail):
            if tenure is not None:
                tenures.hold(connection, tenure)
            return events.take_events(
                connection, trail, received, self._learning, orders_required=self._orders_required
            )

    def park(self, node_id: str, body: bytes, text: str, now: datetime) -> None:
        """Keep a document whose envelope cannot be read, and why; nothing is acknowledged by that."""
        with self._writing(now) as (connection, trail):
            events.park_unreadable(connection, trail, node_id, body, text)

    def parked(self, limit: int = 100) -> list[ParkedRow]:
        """Return the latest refused events, newest first."""
        with self._database.read() as connection:
            return books.parked_rows(connection, limit)

    # ---- the line ---------------------------------------------------------------------------------

    def acquire_line(self, line: str, owner: str, ttl_s: float, now: datetime, *, abandoned: str = "") -> int:
        """Take or renew the right to run a line; return its epoch, which grows with every new tenure.

        `owner` is one process, not one machine. A lease that ends at `abandoned` counts as run out: the caller has seen
        that nobody renews it. Raises LineTakenError (CUSTODY.LINE_TAKEN) while another one holds the line.
        """
        with self._writing(now) as (connection, trail):
            until = utc_ms_text(now + timedelta(seconds=ttl_s))
            return tenures.acquire(connection, trail, line, owner, until, abandoned)

    def release_line(self, line: str, owner: str, now: datetime) -> None:
        """Give a line back, so that the next supervisor need not wait; nothing happens when another one holds it."""
        with self._writing(now) as (connection, trail):
            tenures.release(connection, trail, line, owner)

    def jobs(self, line: str) -> list[Job]:
        """Return the newest version of every job order of a line."""
        with self._database.read() as connection:
            return books.jobs(connection, line)

    def command_order(self, line: str, ask: JobOrder, now: datetime) -> OrderWord:
        """Carry out one command of the MES; see `ifpp.store.orders.command`."""
        with self._writing(now) as (connection, trail):
            return orders.command(connection, trail, line, ask)

    def finish_order(self, line: str, job_order_id: str, good: int, now: datetime) -> Job | None:
        """Complete a running order when so many good units are enough; see `ifpp.store.orders.finish`."""
        with self._writing(now) as (connection, trail):
            return orders.finish(connection, trail, line, job_order_id, good)

    def respond_to_orders(self, line: str, boot_id: str, now: datetime, grace_s: float) -> list[str]:
        """Write the response of every order that ended `grace_s` ago into the line's log; return their ids."""
        with self._writing(now) as (connection, trail):
            return orders.respond(connection, trail, line, boot_id, now, grace_s)

    # ---- the line's own log ------------------------------------------------------------------------

    def collect_line_log(self, line: str, boot_id: str, now: datetime) -> int:
        """Take what stations told since the last time into the log; return how many events were read."""
        with self._writing(now) as (connection, trail):
            return line_log.collect(connection, line, boot_id, trail.at)

    def append_line_log(self, line: str, name: str, document: Message, now: datetime) -> int:
        """Write one document of the line's own; returns its number."""
        with self._writing(now) as (connection, trail):
            return line_log.append(connection, line, name, document, trail.at)

    def line_log_page(self, line: str, after: int, limit: int = 100) -> list[line_log.LineRow]:
        """Return the documents of the log that follow a number."""
        with self._database.read() as connection:
            return line_log.page(connection, line, after, limit)

    def line_log_state(self, line: str) -> line_log.LineLogState:
        """Return how far the log goes, and how far the MES has it."""
        with self._database.read() as connection:
            return line_log.state(connection, line)

    def acknowledge_line_log(self, line: str, through: int, now: datetime) -> line_log.LineLogState:
        """Note how far the MES has the log; raises CustodyError LINE_LOG.AHEAD."""
        with self._writing(now) as (connection, _):
            return line_log.acknowledge(connection, line, through)

    # ---- the books --------------------------------------------------------------------------------

    def balance(self) -> list[BalanceRow]:
        """Return the mass balance per SKU, region and SM-DPf."""
        with self._database.read() as connection:
            return books.balance(connection)

    def audit(self) -> list[str]:
        """Prove the books against each other; return every discrepancy in words, empty when all holds."""
        with self._database.read() as connection:
            return books.audit(connection)

    def unit_counts(self) -> list[UnitCounts]:
        """Return exact unit figures per job order and operation."""
        with self._database.read() as connection:
            return books.unit_counts(connection)

    def units(self, limit: int = 100) -> list[AttemptRow]:
        """Return the latest attempts at any unit, newest first."""
        with self._database.read() as connection:
            return books.units(connection, limit)

    def attempts_without_eid(self) -> int:
        """Count attempts at units whose chip never told its EID."""
        with self._database.read() as connection:
            return books.attempts_without_eid(connection)

    def open_packages(self) -> list[OpenRow]:
        """Return every package that is neither on the shelf nor settled, and every stranded one."""
        with self._database.read() as connection:
            return books.open_packages(connection)

    def oldest_open(self) -> dict[PackageState, str]:
        """Return since when the oldest package of each open state (CLAIMED, SENT, UNKNOWN) is in it."""
        with self._database.read() as connection:
            return books.oldest_open(connection)

    def unit_gate(self, name: str, now: datetime | None = None) -> UnitGate:
        """Return whether the unit with this EID, ICCID or serial number may leave; raises SupplyError EID.UNKNOWN."""
        with self._database.read() as connection:
            eid = str(books.eid_of(connection, name) or name)
            at = utc_ms_text(now or datetime.now(UTC))
            return gate.ask(connection, self.factory_id, eid, at, orders_required=self._orders_required)

    def unit(self, name: str) -> UnitRecord | None:
        """Return packages, ledger and attempts of the unit with this EID, ICCID or serial number, or None."""
        with self._database.read() as connection:
            return books.unit(connection, name)

    @contextmanager
    def results(
        self, smdp_oid: str, start: datetime, end: datetime, *, unsaid: bool = False
    ) -> Iterator[Iterator[ResultRow]]:
        """What a Profile Loading Report over [start, end) says: packages with their latest result, in the block."""
        with self._database.read() as connection:
            yield books.results(connection, smdp_oid, start, end, unsaid=unsaid)

    # ---- reports ----------------------------------------------------------------------------------

    def add_report(self, written: reports.WrittenReport, states: Iterable[tuple[str, str]], now: datetime) -> None:
        """Keep a written report, and (package id, reported state) of its items."""
        with self._writing(now) as (connection, trail):
            reports.add(connection, trail, written, states)

    def written_reports(self) -> list[ReportRow]:
        """Return every report and how far it has come, oldest first."""
        with self._database.read() as connection:
            return reports.all_of(connection)

    def report(self, report_id: str) -> ReportRow:
        """Return one report; raises CustodyError REPORT.UNKNOWN."""
        with self._database.read() as connection:
            return reports.one(connection, report_id)

    def overdue_reports(self, before: datetime) -> list[str]:
        """Return the reports written before a time that nobody has acknowledged."""
        with self._database.read() as connection:
            return reports.overdue(connection, utc_ms_text(before))

    def refused_items(self, report_id: str) -> list[RefusedItemRow]:
        """Return what the SM-DPf refused of a report."""
        with self._database.read() as connection:
            return reports.refused_items(connection, report_id)

    def deliver_report(self, report_id: str, place: str, now: datetime) -> None:
        """Keep that a report is in the hands of its SM-DPf. Idempotent. Raises REPORT.UNKNOWN."""
        with self._writing(now) as (connection, trail):
            reports.deliver(connection, trail, report_id, place)

    def answer_report(
        self,
        report_id: str,
        digest: Callable[[], str],
        key_id: str,
        verdicts: Iterable[reports.ItemVerdict],
        now: datetime,
    ) -> None:
        """Keep what the SM-DPf says of every item of a report, or nothing; see `ifpp.store.reports.answer`."""
        with self._writing(now) as (connection, trail):
            reports.answer(connection, trail, report_id, digest, key_id, verdicts)

    def acknowledge_report(self, report_id: str, told_by: str, now: datetime) -> tuple[str, str]:
        """Keep that the SM-DPf has taken a report; return when and who said so first. Raises REPORT.UNKNOWN."""
        with self._writing(now) as (connection, trail):
            return reports.acknowledge(connection, trail, report_id, told_by)

    # ---- the denylist -----------------------------------------------------------------------------

    def denylist(self) -> list[DeniedRow]:
        """Return every entry of the denylist, also the proposed and the removed ones."""
        with self._database.read() as connection:
            return denylist.entries(connection)

    def deny(self, firmware: str, profile_type: str, by: str, reason: str, now: datetime, *, known: bool) -> None:
        """Refuse a profile type on a firmware from the next claim on; `known`: only when it has an entry.

        Raises CustodyError DENYLIST.UNKNOWN.
        """
        with self._writing(now) as (connection, trail):
            pair = firmware, profile_type
            denylist.decide(connection, trail, pair, denylist.Standing.ACTIVE, by, reason, new=not known)

    def allow(self, firmware: str, profile_type: str, by: str, reason: str, now: datetime) -> None:
        """Take an entry off the denylist; only failures after that count again. Raises DENYLIST.UNKNOWN."""
        with self._writing(now) as (connection, trail):
            pair = firmware, profile_type
            denylist.decide(connection, trail, pair, denylist.Standing.REMOVED, by, reason, new=False)

    # ---- the audit log ----------------------------------------------------------------------------

    @contextmanager
    def audit_log(self) -> Iterator[AuditLog]:
        """The audit log as it is at one moment, to be read inside the block."""
        with self._database.read() as connection:
            yield AuditLog(connection)

    def note_refusals(self, refusals: Sequence[Refusal], now: datetime) -> None:
        """Write down what the store refused."""
        with self._writing(now) as (_, trail):
            for one in refusals:
                who = {"who": one.who, "operation": one.operation}
                trail.note("refused", **who, code=one.code, detail=one.detail, times=one.times)

    def add_audit_key(self, key_id: str, public: bytes, now: datetime) -> None:
        """Make a key known (its SubjectPublicKeyInfo) before it signs. Idempotent."""
        with self._writing(now) as (connection, trail):
            audit.add_key(connection, trail, key_id, public)

    def add_checkpoints(self, signed: Sequence[SignedCheckpoint]) -> None:
        """Keep signatures under entries; an entry keeps its first one."""
        with self._database.write() as connection:
            audit.add_checkpoints(connection, signed)
